/* SPDX-License-Identifier: Apache-2.0 */
#include <float.h>

#include "kernels/nchwc_check.h"

/* Pooling of blocked tensors against its definition. */

typedef struct Case {
    ShoalNchwcPool pool;
    ShoalNchwcDims in, out;
    int lanes;
    Array x, scale, shift, dy;
} Case;

/* Caffe rounds sizes up, then drops a window that would start beyond image and padding. */
static int outs_of(int size, int kernel, int stride, int pad) {
    int outs = (size + 2 * pad - kernel + stride - 1) / stride + 1;
    return pad > 0 && (outs - 1) * stride >= size + pad ? outs - 1 : outs;
}

static ShoalPoolShape square(int height, int width, int kernel, int stride, int pad) {
    return (ShoalPoolShape){.height = height,
                            .width = width,
                            .out_height = outs_of(height, kernel, stride, pad),
                            .out_width = outs_of(width, kernel, stride, pad),
                            .kernel_h = kernel,
                            .kernel_w = kernel,
                            .stride_h = stride,
                            .stride_w = stride,
                            .pad_h = pad,
                            .pad_w = pad};
}

static Case case_of(int lanes, int batch, int channels, ShoalPoolShape s) {
    Case c = {.pool = {batch, channels, s}, .lanes = lanes};
    c.in = (ShoalNchwcDims){batch, channels, s.height, s.width};
    c.out = (ShoalNchwcDims){batch, channels, s.out_height, s.out_width};
    c.x = nchwc_random(&c.in, lanes);
    c.dy = nchwc_random(&c.out, lanes);
    c.scale = channels_random(channels, lanes);
    c.shift = channels_random(channels, lanes);
    return c;
}

static void case_close(Case *c) {
    Array *arrays[] = {&c->x, &c->scale, &c->shift, &c->dy};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        array_close(arrays[i]);
}

/* Ties and all that a comparison can stumble over. */
static void make_awkward(Case *c) {
    static const float values[] = {NAN, INFINITY, -INFINITY, -FLT_MAX, 0.0f, -0.0f, 1, 1, -2};
    for (size_t i = 0; i < c->x.count; i++)
        if (check_below(2))
            c->x.data[i] = values[check_below(sizeof values / sizeof *values)];
    clear_padding(&c->in, c->lanes, c->x.data);
}

static ShoalCompute compute_for(ShoalCpuLevel level, unsigned threads, const Case *c) {
    const unsigned most = threads > 0 ? threads : 1;
    return check_compute(level, threads,
                         shoal_nchwc_workspace_bytes(shoal_kernels_for(level), &c->in, most));
}

/* Tap (u, v) of output p: whether it lies in the image, and its pixel there. */
static bool tap_inside(const ShoalPoolShape *s, size_t p, int tap, size_t *pixel) {
    int h = (int)p / s->out_width * s->stride_h - s->pad_h + tap / s->kernel_w;
    int w = (int)p % s->out_width * s->stride_w - s->pad_w + tap % s->kernel_w;
    *pixel = (size_t)(h * s->width + w);
    return h >= 0 && h < s->height && w >= 0 && w < s->width;
}

static int taps_of(const ShoalPoolShape *s) {
    return s->kernel_h * s->kernel_w;
}

/* The value as the kernels round it: one fused step. */
static float rounded_value(const ShoalNchwcInput *x, size_t at, int c) {
    float value = x->x[at];
    if (x->scale)
        value = fmaf(x->scale[c], value, x->shift[c]);
    return x->relu ? (value > 0 ? value : 0) : value;
}

static void check_max_number(const Case *c, const ShoalNchwcInput *x, int n, int channel, size_t p,
                             const float *y, const uint8_t *place) {
    const ShoalPoolShape *s = &c->pool.shape;
    size_t out = nchwc_at(&c->out, c->lanes, n, channel, p), pixel;
    float best = -FLT_MAX;
    int at = 255;
    for (int tap = 0; tap < taps_of(s); tap++) {
        if (!tap_inside(s, p, tap, &pixel))
            continue;
        float value = rounded_value(x, nchwc_at(&c->in, c->lanes, n, channel, pixel), channel);
        if (value > best) {
            best = value;
            at = tap;
        }
    }
    if (channel >= c->out.channels) {
        assert_true(y[out] == 0);
        return;
    }
    assert_int_equal(place[out], at);
    assert_true(y[out] == best);
}

/* What the places say, added up in double. */
static void expect_max_bwd(const Case *c, const uint8_t *place, double *added, double *size) {
    const ShoalPoolShape *s = &c->pool.shape;
    size_t pixel;
    FOR_NCHWC(&c->out, c->lanes, n, channel, p) {
        size_t out = nchwc_at(&c->out, c->lanes, n, channel, p);
        if (channel >= c->out.channels || place[out] == 255)
            continue;
        assert_true(tap_inside(s, p, place[out], &pixel));
        size_t at = nchwc_at(&c->in, c->lanes, n, channel, pixel);
        added[at] += (double)c->dy.data[out];
        size[at] += fabs((double)c->dy.data[out]);
    }
}

typedef struct Expected {
    double *value, *size;
} Expected;

static Expected expected_of(size_t count) {
    return (Expected){shoal_calloc(count, sizeof(double)), shoal_calloc(count, sizeof(double))};
}

static void expected_close(Expected *e) {
    shoal_free(e->value);
    shoal_free(e->size);
}

static int any_gradient(void) {
    int kind = (int)check_below(GRADIENT_KINDS);
    while (!gradient_kind_valid(kind))
        kind = (int)check_below(GRADIENT_KINDS);
    return kind;
}

static void check_max_bwd(const Case *c, ShoalCpuLevel level, const uint8_t *place, int kind) {
    const size_t padded = shoal_nchwc_padded(c->in.channels, c->lanes);
    GradientCase g = gradient_case(&c->in, c->lanes, kind);
    Expected e = expected_of(c->x.count);
    void *first = NULL, *first_sums = NULL;
    expect_max_bwd(c, place, e.value, e.size);
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute compute = compute_for(level, threads, c);
        Array got = aligned_blank(c->x.count);
        ShoalNchwcGradient dx = gradient_of(&g, got.data);
        shoal_nchwc_pool_max_bwd(&compute, &c->pool, c->dy.data, place, &dx);
        check_gradient("maximum backward", &g, &dx, e.value, e.size,
                       (size_t)taps_of(&c->pool.shape));
        check_same_bits("maximum backward", got.data, &first, got.count * sizeof(float));
        check_same_bits("its sums", g.sums, &first_sums, 3 * padded * sizeof(double));
        array_close(&got);
        check_compute_close(&compute);
    }
    shoal_free(first);
    shoal_free(first_sums);
    expected_close(&e);
    gradient_case_close(&g);
}

static void check_max(const Case *c, ShoalCpuLevel level, int kind, int gradient) {
    ShoalNchwcInput x = input_of(&c->x, &c->scale, &c->shift, kind);
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute compute = compute_for(level, threads, c);
        Array y = aligned_blank(c->dy.count), places = aligned_blank((c->dy.count + 3) / 4);
        uint8_t *place = (uint8_t *)(void *)places.data;
        shoal_nchwc_pool_max_fwd(&compute, &c->pool, &x, y.data, place);
        FOR_NCHWC(&c->out, c->lanes, n, channel, p)
        check_max_number(c, &x, n, channel, p, y.data, place);
        check_compute_close(&compute);
        if (threads == 0)
            check_max_bwd(c, level, place, gradient);
        array_close(&y);
        array_close(&places);
    }
}

/* The size of a window clipped to image and padding. */
static int window_size(const ShoalPoolShape *s, size_t p) {
    int size = 0;
    for (int tap = 0; tap < taps_of(s); tap++) {
        int h = (int)p / s->out_width * s->stride_h + tap / s->kernel_w;
        int w = (int)p % s->out_width * s->stride_w + tap % s->kernel_w;
        size += h < s->height + 2 * s->pad_h && w < s->width + 2 * s->pad_w;
    }
    return size;
}

/* Both directions are sums over the same pairs. */
static void expect_average(const Case *c, const ShoalNchwcInput *x, Expected *y, Expected *dx) {
    const ShoalPoolShape *s = &c->pool.shape;
    size_t pixel;
    FOR_NCHWC(&c->out, c->lanes, n, channel, p) {
        size_t out = nchwc_at(&c->out, c->lanes, n, channel, p);
        const int size = window_size(s, p);
        for (int tap = 0; tap < taps_of(s) && channel < c->in.channels; tap++) {
            if (!tap_inside(s, p, tap, &pixel))
                continue;
            size_t at = nchwc_at(&c->in, c->lanes, n, channel, pixel);
            double magnitude, value = nchwc_value(x, at, channel, &magnitude);
            y->value[out] += value / size;
            y->size[out] += magnitude / size;
            dx->value[at] += (double)c->dy.data[out] / size;
            dx->size[at] += fabs((double)c->dy.data[out] / size);
        }
    }
}

static void check_average(const Case *c, ShoalCpuLevel level, int kind, int gradient) {
    const size_t padded = shoal_nchwc_padded(c->in.channels, c->lanes);
    const size_t terms = (size_t)taps_of(&c->pool.shape) + 3;
    ShoalNchwcInput x = input_of(&c->x, &c->scale, &c->shift, kind);
    Expected ey = expected_of(c->dy.count), edx = expected_of(c->x.count);
    GradientCase g = gradient_case(&c->in, c->lanes, gradient);
    void *first = NULL, *first_dx = NULL, *first_sums = NULL;
    expect_average(c, &x, &ey, &edx);
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute compute = compute_for(level, threads, c);
        Array y = aligned_blank(c->dy.count), got = aligned_blank(c->x.count);
        ShoalNchwcGradient dx = gradient_of(&g, got.data);
        shoal_nchwc_pool_ave_fwd(&compute, &c->pool, &x, y.data);
        check_close("average forward", y.count, terms, y.data, ey.value, ey.size);
        check_padding("average forward", &c->out, c->lanes, y.data);
        shoal_nchwc_pool_ave_bwd(&compute, &c->pool, c->dy.data, &dx);
        check_gradient("average backward", &g, &dx, edx.value, edx.size, terms);
        check_same_bits("average forward", y.data, &first, y.count * sizeof(float));
        check_same_bits("average backward", got.data, &first_dx, got.count * sizeof(float));
        check_same_bits("its sums", g.sums, &first_sums, 3 * padded * sizeof(double));
        array_close(&y);
        array_close(&got);
        check_compute_close(&compute);
    }
    shoal_free(first);
    shoal_free(first_dx);
    shoal_free(first_sums);
    expected_close(&ey);
    expected_close(&edx);
    gradient_case_close(&g);
}

static void check_both(int batch, int channels, ShoalPoolShape shape, bool awkward) {
    FOR_NCHWC_LEVELS(level, lanes) {
        Case c = case_of(lanes, batch, channels, shape);
        check_average(&c, level, (int)check_below(4), any_gradient());
        if (awkward)
            make_awkward(&c);
        /* With relu a NaN may become 0: the definition here has none. */
        check_max(&c, level, (int)check_below(awkward ? 1 : 4), any_gradient());
        case_close(&c);
    }
}

static void fast_windows(void **state) {
    static const int channels[] = {1, 3, 16, 20, 50};
    (void)state;
    for (int size = 3; size <= 31; size += 1 + size / 7)
        for (int kernel = 2; kernel <= 3; kernel++)
            for (int pad = 0; pad < kernel; pad++)
                check_both(1 + size % 3, channels[check_below(5)],
                           square(size, size + pad, kernel, 2, pad), size % 2);
    check_both(1, 3, square(112, 112, 3, 2, 0), true);
    check_both(20, 20, square(13, 13, 3, 2, 0), false);
}

static void every_kind(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes)
    for (int pad = 0; pad < 2; pad++) {
        Case c = case_of(lanes, 2, 19, square(9, 12, 3, 2, pad));
        for (int kind = 0; kind < GRADIENT_KINDS; kind++)
            if (gradient_kind_valid(kind)) {
                check_max(&c, level, kind & 3, kind);
                check_average(&c, level, kind & 3, kind);
            }
        case_close(&c);
    }
}

static void any_window(void **state) {
    (void)state;
    for (int i = 0; i < 60; i++) {
        int kernel = 1 + (int)check_below(5), pad = (int)check_below((size_t)kernel);
        int height = kernel + (int)check_below(10), width = kernel + (int)check_below(25);
        check_both(1 + (int)check_below(3), 1 + (int)check_below(40),
                   square(height, width, kernel, 1 + (int)check_below(4), pad), i % 2);
    }
    check_both(2, 7, (ShoalPoolShape){0, 7, 11, 4, 4, 3, 2, 2, 3, 1, 0}, true);
    /* Rounded down, and windows that leave some of the image out. */
    check_both(2, 7, (ShoalPoolShape){0, 9, 37, 4, 18, 2, 2, 2, 2, 0, 0}, true);
    check_both(2, 7, (ShoalPoolShape){0, 8, 36, 3, 17, 2, 2, 2, 2, 0, 0}, false);
}

static void global_window(void **state) {
    (void)state;
    check_both(3, 20, (ShoalPoolShape){0, 7, 7, 1, 1, 7, 7, 1, 1, 0, 0}, false);
    check_both(40, 70, (ShoalPoolShape){0, 7, 7, 1, 1, 7, 7, 1, 1, 0, 0}, false);
    check_both(1, 5, (ShoalPoolShape){0, 15, 17, 1, 1, 15, 17, 1, 1, 0, 0}, true);
    check_both(1, 5, (ShoalPoolShape){0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0}, true);
}

/* A stride greater than the window may put windows beyond the image: nothing is in them. */
static void empty_windows(void **state) {
    (void)state;
    ShoalPoolShape s = square(7, 7, 1, 4, 0);
    assert_int_equal(s.out_height, 3);
    FOR_NCHWC_LEVELS(level, lanes) {
        Case c = case_of(lanes, 2, 5, s);
        check_max(&c, level, 0, any_gradient());
        ShoalCompute compute = compute_for(level, 0, &c);
        Array y = aligned_blank(c.dy.count);
        ShoalNchwcInput x = {.x = c.x.data};
        shoal_nchwc_pool_ave_fwd(&compute, &c.pool, &x, y.data);
        for (int n = 0; n < 2; n++)
            for (size_t p = 0; p < 9; p++)
                if (p % 3 == 2 || p / 3 == 2)
                    assert_true(y.data[nchwc_at(&c.out, lanes, n, 3, p)] == 0);
        array_close(&y);
        check_compute_close(&compute);
        case_close(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fast_windows),  cmocka_unit_test(every_kind),
        cmocka_unit_test(any_window),    cmocka_unit_test(global_window),
        cmocka_unit_test(empty_windows),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
