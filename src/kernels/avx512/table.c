/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/table.h"

#if defined(__x86_64__)

#include "kernels/avx512/avx512.h"
#include "kernels/c/reference.h"

#define SHOAL_ISA(name) name##_avx512
#include "kernels/elementwise_tmpl.h"

const ShoalNchwc shoal_nchwc_avx512 = {
    .lanes = 16,
    .tile = &shoal_nchwc_tile_avx512,
    .strip = &shoal_nchwc_strip_avx512,
    .pool = &shoal_nchwc_pool_avx512,
    .depthwise = &shoal_nchwc_depthwise_avx512,
    .winograd = &shoal_nchwc_winograd_avx512,
};

const ShoalKernels shoal_kernels_avx512 = {
    .level = SHOAL_CPU_AVX512,
    .blocked = &shoal_blocked_avx512,
    .nchwc = &shoal_nchwc_avx512,
    .gemm = shoal_gemm_f32_blocked,
    .conv_fwd = shoal_conv_fwd_f32_blocked,
    .conv_bwd_data = shoal_conv_bwd_data_f32_blocked,
    .conv_bwd_weights = shoal_conv_bwd_weights_f32_blocked,
    .pool_max_fwd = shoal_pool_max_fwd_f32_avx512,
    .pool_max_bwd = shoal_pool_max_bwd_f32_avx512,
    .pool_ave_fwd = shoal_pool_ave_fwd_f32_c,
    .pool_ave_bwd = shoal_pool_ave_bwd_f32_c,
    .softmax_fwd = shoal_softmax_fwd_f32_c,
    .softmax_bwd = shoal_softmax_bwd_f32_c,
    SHOAL_ELEMENTWISE_ENTRIES,
};

#endif
