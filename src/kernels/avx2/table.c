/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/table.h"

#if defined(__x86_64__)

#include "kernels/avx2/avx2.h"
#include "kernels/c/reference.h"

#define SHOAL_ISA(name) name##_avx2
#include "kernels/elementwise_tmpl.h"

const ShoalNchwc shoal_nchwc_avx2 = {
    .lanes = 8,
    .tile = &shoal_nchwc_tile_avx2,
    .strip = &shoal_nchwc_strip_avx2,
    .pool = &shoal_nchwc_pool_avx2,
    .depthwise = &shoal_nchwc_depthwise_avx2,
    .winograd = &shoal_nchwc_winograd_avx2,
};

const ShoalKernels shoal_kernels_avx2 = {
    .level = SHOAL_CPU_AVX2,
    .blocked = &shoal_blocked_avx2,
    .nchwc = &shoal_nchwc_avx2,
    .gemm = shoal_gemm_f32_blocked,
    .conv_fwd = shoal_conv_fwd_f32_blocked,
    .conv_bwd_data = shoal_conv_bwd_data_f32_blocked,
    .conv_bwd_weights = shoal_conv_bwd_weights_f32_blocked,
    .pool_max_fwd = shoal_pool_max_fwd_f32_avx2,
    .pool_max_bwd = shoal_pool_max_bwd_f32_c,
    .pool_ave_fwd = shoal_pool_ave_fwd_f32_c,
    .pool_ave_bwd = shoal_pool_ave_bwd_f32_c,
    .softmax_fwd = shoal_softmax_fwd_f32_c,
    .softmax_bwd = shoal_softmax_bwd_f32_c,
    SHOAL_ELEMENTWISE_ENTRIES,
};

#endif
