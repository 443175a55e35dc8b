/* SPDX-License-Identifier: Apache-2.0 */
#include <float.h>

#include "kernels/check.h"

static ShoalPoolShape shape_of(int planes, int height, int width, int kernel, int stride, int pad) {
    /* Caffe rounds up, then drops a window that would start beyond image and padding. */
    ShoalPoolShape s = {planes, height, width, 0, 0, kernel, kernel, stride, stride, pad, pad};
    int *outs[2] = {&s.out_height, &s.out_width}, sizes[2] = {height, width};
    for (int i = 0; i < 2; i++) {
        *outs[i] = (sizes[i] + 2 * pad - kernel + stride - 1) / stride + 1;
        if (pad > 0 && (*outs[i] - 1) * stride >= sizes[i] + pad)
            --*outs[i];
    }
    return s;
}

static size_t in_count(const ShoalPoolShape *s) {
    return (size_t)s->planes * (size_t)s->height * (size_t)s->width;
}

static size_t out_count(const ShoalPoolShape *s) {
    return (size_t)s->planes * (size_t)s->out_height * (size_t)s->out_width;
}

/* Whether input (h, w) lies in the window of output (i, j). */
static bool covers(const ShoalPoolShape *s, int i, int j, int h, int w) {
    int top = i * s->stride_h - s->pad_h, left = j * s->stride_w - s->pad_w;
    return h >= top && h < top + s->kernel_h && w >= left && w < left + s->kernel_w;
}

/* The place of the maximum by the definition: over all inputs, those that the window covers. */
static int32_t place_of_maximum(const ShoalPoolShape *s, const float *x, int i, int j) {
    int32_t place = -1;
    float best = -FLT_MAX;
    for (int h = 0; h < s->height; h++)
        for (int w = 0; w < s->width; w++)
            if (covers(s, i, j, h, w) && x[h * s->width + w] > best) {
                place = h * s->width + w;
                best = x[place];
            }
    return place;
}

static void check_max_values(const ShoalPoolShape *s, const float *x, const float *y,
                             const int32_t *index) {
    for (int plane = 0; plane < s->planes; plane++, x += s->height * s->width)
        for (int i = 0; i < s->out_height; i++)
            for (int j = 0; j < s->out_width; j++, y++, index++) {
                int32_t place = place_of_maximum(s, x, i, j);
                assert_int_equal(*index, place);
                float expected = place < 0 ? -FLT_MAX : x[place];
                assert_memory_equal(y, &expected, sizeof *y);
            }
}

/* dx by the definition, in output order, so the bits must agree. */
static void check_max_gradient(const ShoalPoolShape *s, const float *dy, const int32_t *index,
                               const float *dx) {
    size_t plane = (size_t)s->height * (size_t)s->width;
    size_t outs = (size_t)s->out_height * (size_t)s->out_width;
    float *expected = shoal_calloc(in_count(s), sizeof *expected);
    for (size_t i = 0; i < out_count(s); i++)
        if (index[i] >= 0)
            expected[i / outs * plane + (size_t)index[i]] += dy[i];
    assert_memory_equal(dx, expected, in_count(s) * sizeof *dx);
    shoal_free(expected);
}

/* Numbers with many ties and all that a comparison can stumble over. */
static Array awkward(size_t count) {
    static const float values[] = {NAN, INFINITY, -INFINITY, -FLT_MAX, 0.0f, -0.0f, 1, 1, -2};
    Array a = array_random(count);
    for (size_t i = 0; i < count; i++)
        if (check_below(2))
            a.data[i] = values[check_below(sizeof values / sizeof *values)];
    return a;
}

static void check_max(ShoalPoolShape s, bool hard) {
    size_t outs = out_count(&s);
    Array x = hard ? awkward(in_count(&s)) : array_random(in_count(&s)), dy = array_random(outs);
    if (hard && outs > 0)
        dy.data[0] = -0.0f;
    FOR_LEVELS(level)
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute c = check_compute(level, threads, 0);
        Array y = array_blank(outs), places = array_blank(outs), dx = array_blank(x.count);
        int32_t *index = (int32_t *)(void *)places.data;
        shoal_pool_max_fwd(&c, &s, x.data, y.data, index);
        check_max_values(&s, x.data, y.data, index);
        shoal_pool_max_bwd(&c, &s, dy.data, index, dx.data);
        check_max_gradient(&s, dy.data, index, dx.data);
        check_compute_close(&c);
        array_close(&y);
        array_close(&places);
        array_close(&dx);
    }
    array_close(&x);
    array_close(&dy);
}

typedef struct Average {
    double *y, *y_size, *dx, *dx_size;
} Average;

static Average expect_average(const ShoalPoolShape *s, const float *x, const float *dy) {
    Average e = {shoal_calloc(out_count(s), 8), shoal_calloc(out_count(s), 8),
                 shoal_calloc(in_count(s), 8), shoal_calloc(in_count(s), 8)};
    size_t plane = (size_t)s->height * (size_t)s->width;
    size_t outs = (size_t)s->out_height * (size_t)s->out_width;
    for (size_t out = 0; out < out_count(s); out++) {
        int i = (int)(out % outs) / s->out_width, j = (int)(out % outs) % s->out_width, size = 0;
        for (int h = -s->pad_h; h < s->height + s->pad_h; h++)
            for (int w = -s->pad_w; w < s->width + s->pad_w; w++)
                size += covers(s, i, j, h, w);
        for (size_t at = 0; at < plane; at++) {
            size_t in = out / outs * plane + at;
            if (!covers(s, i, j, (int)at / s->width, (int)at % s->width))
                continue;
            e.y[out] += (double)x[in] / size;
            e.y_size[out] += fabs((double)x[in] / size);
            e.dx[in] += (double)dy[out] / size;
            e.dx_size[in] += fabs((double)dy[out] / size);
        }
    }
    return e;
}

static void check_average(ShoalPoolShape s) {
    size_t outs = out_count(&s), ins = in_count(&s);
    size_t window = (size_t)s.kernel_h * (size_t)s.kernel_w;
    Array x = array_random(ins), dy = array_random(outs);
    Average e = expect_average(&s, x.data, dy.data);
    FOR_LEVELS(level)
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute c = check_compute(level, threads, 0);
        Array y = array_blank(outs), dx = array_blank(ins);
        shoal_pool_ave_fwd(&c, &s, x.data, y.data);
        check_close("average forward", outs, window, y.data, e.y, e.y_size);
        shoal_pool_ave_bwd(&c, &s, dy.data, dx.data);
        check_close("average backward", ins, window, dx.data, e.dx, e.dx_size);
        check_compute_close(&c);
        array_close(&y);
        array_close(&dx);
    }
    double *sums[] = {e.y, e.y_size, e.dx, e.dx_size};
    for (int i = 0; i < 4; i++)
        shoal_free(sums[i]);
    array_close(&x);
    array_close(&dy);
}

static void windows_of_two(void **state) {
    (void)state;
    for (int width = 1; width <= 70; width += 1 + width / 12)
        for (int height = 2; height <= 5; height++)
            check_max(shape_of(3, height, width < 2 ? 2 : width, 2, 2, 0), width % 2);
    check_max(shape_of(40, 24, 24, 2, 2, 0), false);
    check_max(shape_of(50, 8, 8, 2, 2, 0), true);
    ShoalPoolShape rounded_down = {2, 9, 37, 4, 18, 2, 2, 2, 2, 0, 0};
    check_max(rounded_down, true);
    ShoalPoolShape cropped = {2, 8, 36, 3, 17, 2, 2, 2, 2, 0, 0};
    check_max(cropped, true);
}

static void any_window(void **state) {
    (void)state;
    for (int i = 0; i < 60; i++) {
        int kernel = 1 + (int)check_below(5), pad = (int)check_below((size_t)kernel);
        int height = kernel + (int)check_below(10), width = kernel + (int)check_below(25);
        ShoalPoolShape s =
            shape_of(1 + (int)check_below(4), height, width, kernel, 1 + (int)check_below(4), pad);
        check_max(s, i % 2);
        check_average(s);
    }
    ShoalPoolShape uneven = {2, 7, 11, 4, 4, 3, 2, 2, 3, 1, 0};
    check_max(uneven, true);
    check_average(uneven);
}

static void global_window(void **state) {
    (void)state;
    check_average((ShoalPoolShape){3, 7, 7, 1, 1, 7, 7, 1, 1, 0, 0});
    check_max((ShoalPoolShape){3, 7, 7, 1, 1, 7, 7, 1, 1, 0, 0}, false);
    check_max((ShoalPoolShape){0, 7, 7, 1, 1, 7, 7, 1, 1, 0, 0}, false);
}

/* A window of nothing but NaN: -FLT_MAX and no place, and its gradient goes nowhere. */
static void nan_windows(void **state) {
    (void)state;
    ShoalPoolShape s = shape_of(1, 4, 40, 2, 2, 0);
    FOR_LEVELS(level) {
        ShoalCompute c = check_compute(level, 0, 0);
        Array x = array_blank(160), y = array_blank(40), dy = array_random(40);
        Array dx = array_blank(160);
        int32_t index[40];
        x.data[0] = 3;
        shoal_pool_max_fwd(&c, &s, x.data, y.data, index);
        shoal_pool_max_bwd(&c, &s, dy.data, index, dx.data);
        for (int i = 0; i < 40; i++) {
            assert_int_equal(index[i], i == 0 ? 0 : -1);
            assert_true(y.data[i] == (i == 0 ? 3 : -FLT_MAX));
        }
        for (int i = 0; i < 160; i++)
            assert_true(dx.data[i] == (i == 0 ? dy.data[0] : 0));
        check_compute_close(&c);
        array_close(&x);
        array_close(&y);
        array_close(&dy);
        array_close(&dx);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(windows_of_two),
        cmocka_unit_test(any_window),
        cmocka_unit_test(global_window),
        cmocka_unit_test(nan_windows),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
