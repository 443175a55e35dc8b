/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/c/reference.h"

#include <float.h>
#include <string.h>

/* A window, clipped to the image: rows [top, bottom), columns [left, right); `area` is its size
 * clipped to the padded image only, which is what Caffe divides an average by. */
typedef struct Window {
    int top, bottom, left, right;
    long area;
} Window;

static int clip(long value, int low, int high) {
    return value < low ? low : value > high ? high : (int)value;
}

static Window window_at(const ShoalPoolShape *s, int i, int j) {
    long top = (long)i * s->stride_h - s->pad_h, left = (long)j * s->stride_w - s->pad_w;
    long bottom = top + s->kernel_h, right = left + s->kernel_w;
    Window window = {clip(top, 0, s->height), clip(bottom, 0, s->height), clip(left, 0, s->width),
                     clip(right, 0, s->width), 0};
    if (bottom > (long)s->height + s->pad_h)
        bottom = (long)s->height + s->pad_h;
    if (right > (long)s->width + s->pad_w)
        right = (long)s->width + s->pad_w;
    window.area = bottom > top && right > left ? (bottom - top) * (right - left) : 0;
    return window;
}

void shoal_pool_max_fwd_row_f32_c(const ShoalPoolShape *s, int row, int column, const float *x,
                                  float *y, int32_t *index) {
    for (int j = column; j < s->out_width; j++) {
        Window window = window_at(s, row, j);
        float best = -FLT_MAX;
        int32_t place = -1;
        for (int h = window.top; h < window.bottom; h++)
            for (int w = window.left; w < window.right; w++) {
                int32_t at = h * s->width + w;
                if (x[at] > best) {
                    best = x[at];
                    place = at;
                }
            }
        size_t out = (size_t)row * (size_t)s->out_width + (size_t)j;
        y[out] = best;
        index[out] = place;
    }
}

void shoal_pool_max_fwd_f32_c(const ShoalPoolShape *s, const float *x, float *y, int32_t *index) {
    for (int i = 0; i < s->out_height; i++)
        shoal_pool_max_fwd_row_f32_c(s, i, 0, x, y, index);
}

void shoal_pool_max_bwd_f32_c(const ShoalPoolShape *s, const float *dy, const int32_t *index,
                              float *dx) {
    size_t outs = (size_t)s->out_height * (size_t)s->out_width;
    memset(dx, 0, (size_t)s->height * (size_t)s->width * sizeof *dx);
    for (size_t out = 0; out < outs; out++)
        if (index[out] >= 0)
            dx[index[out]] += dy[out];
}

void shoal_pool_ave_fwd_f32_c(const ShoalPoolShape *s, const float *x, float *y) {
    for (int i = 0; i < s->out_height; i++)
        for (int j = 0; j < s->out_width; j++) {
            Window window = window_at(s, i, j);
            double sum = 0;
            for (int h = window.top; h < window.bottom; h++)
                for (int w = window.left; w < window.right; w++)
                    sum += (double)x[(size_t)h * (size_t)s->width + (size_t)w];
            *y++ = window.area > 0 ? (float)(sum / (double)window.area) : 0;
        }
}

void shoal_pool_ave_bwd_f32_c(const ShoalPoolShape *s, const float *dy, float *dx) {
    memset(dx, 0, (size_t)s->height * (size_t)s->width * sizeof *dx);
    for (int i = 0; i < s->out_height; i++)
        for (int j = 0; j < s->out_width; j++) {
            Window window = window_at(s, i, j);
            float share = *dy++ / (float)window.area;
            for (int h = window.top; h < window.bottom; h++)
                for (int w = window.left; w < window.right; w++)
                    dx[(size_t)h * (size_t)s->width + (size_t)w] += share;
        }
}
