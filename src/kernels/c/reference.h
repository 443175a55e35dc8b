/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_C_REFERENCE_H
#define SHOAL_KERNELS_C_REFERENCE_H

#include "kernels/kernels.h"

/* The reference: plain loops, double accumulation, no blocking. What the operations mean is in
 * kernels.h and kernels/table.h; higher levels use the ones that they do not override. */

void shoal_gemm_f32_c(const ShoalCompute *compute, bool trans_a, bool trans_b, size_t m, size_t n,
                      size_t k, float alpha, const float *a, size_t lda, const float *b, size_t ldb,
                      float beta, float *c, size_t ldc);

void shoal_conv_fwd_f32_c(const ShoalCompute *compute, const ShoalConvShape *shape, const float *x,
                          const float *w, const float *bias, float *y);
void shoal_conv_bwd_data_f32_c(const ShoalCompute *compute, const ShoalConvShape *shape,
                               const float *dy, const float *w, float *dx);
void shoal_conv_bwd_weights_f32_c(const ShoalCompute *compute, const ShoalConvShape *shape,
                                  const float *x, const float *dy, float *dw);

void shoal_pool_max_fwd_f32_c(const ShoalPoolShape *shape, const float *x, float *y,
                              int32_t *index);
/* The outputs of columns [column, out_width) of row `row` only. */
void shoal_pool_max_fwd_row_f32_c(const ShoalPoolShape *shape, int row, int column, const float *x,
                                  float *y, int32_t *index);
void shoal_pool_max_bwd_f32_c(const ShoalPoolShape *shape, const float *dy, const int32_t *index,
                              float *dx);
void shoal_pool_ave_fwd_f32_c(const ShoalPoolShape *shape, const float *x, float *y);
void shoal_pool_ave_bwd_f32_c(const ShoalPoolShape *shape, const float *dy, float *dx);

void shoal_softmax_fwd_f32_c(size_t classes, size_t inner, const float *x, float *y);
void shoal_softmax_bwd_f32_c(size_t classes, size_t inner, const float *y, const float *dy,
                             float *dx);

#endif
