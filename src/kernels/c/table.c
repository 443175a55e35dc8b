/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/table.h"

#include "kernels/c/reference.h"

#define SHOAL_ISA(name) name##_c
#include "kernels/elementwise_tmpl.h"

const ShoalKernels shoal_kernels_c = {
    .level = SHOAL_CPU_C,
    .gemm = shoal_gemm_f32_c,
    .conv_fwd = shoal_conv_fwd_f32_c,
    .conv_bwd_data = shoal_conv_bwd_data_f32_c,
    .conv_bwd_weights = shoal_conv_bwd_weights_f32_c,
    .pool_max_fwd = shoal_pool_max_fwd_f32_c,
    .pool_max_bwd = shoal_pool_max_bwd_f32_c,
    .pool_ave_fwd = shoal_pool_ave_fwd_f32_c,
    .pool_ave_bwd = shoal_pool_ave_bwd_f32_c,
    .softmax_fwd = shoal_softmax_fwd_f32_c,
    .softmax_bwd = shoal_softmax_bwd_f32_c,
    SHOAL_ELEMENTWISE_ENTRIES,
};
