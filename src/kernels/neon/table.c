/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/table.h"

#if defined(__aarch64__)

#include "kernels/c/reference.h"
#include "kernels/neon/neon.h"

#define SHOAL_ISA(name) name##_neon
#include "kernels/elementwise_tmpl.h"

const ShoalNchwc shoal_nchwc_neon = {
    .lanes = 4,
    .tile = &shoal_nchwc_tile_neon,
    .strip = &shoal_nchwc_strip_neon,
    .pool = &shoal_nchwc_pool_neon,
    .depthwise = &shoal_nchwc_depthwise_neon,
    .winograd = &shoal_nchwc_winograd_neon,
};

const ShoalKernels shoal_kernels_neon = {
    .level = SHOAL_CPU_NEON,
    .blocked = &shoal_blocked_neon,
    .nchwc = &shoal_nchwc_neon,
    .gemm = shoal_gemm_f32_blocked,
    .conv_fwd = shoal_conv_fwd_f32_blocked,
    .conv_bwd_data = shoal_conv_bwd_data_f32_blocked,
    .conv_bwd_weights = shoal_conv_bwd_weights_f32_blocked,
    .pool_max_fwd = shoal_pool_max_fwd_f32_c,
    .pool_max_bwd = shoal_pool_max_bwd_f32_c,
    .pool_ave_fwd = shoal_pool_ave_fwd_f32_c,
    .pool_ave_bwd = shoal_pool_ave_bwd_f32_c,
    .softmax_fwd = shoal_softmax_fwd_f32_c,
    .softmax_bwd = shoal_softmax_bwd_f32_c,
    SHOAL_ELEMENTWISE_ENTRIES,
};

#endif
