/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc_check.h"

#include "kernels/nchwc/depthwise.h"
#include "kernels/table.h"

/* Depthwise convolution on blocked tensors, all passes, against its definition in double. */

typedef struct Case {
    ShoalNchwcConv conv;
    ShoalNchwcDims in, out;
    int lanes, taps;
    Array x, scale, shift, w, bias, dy;
    Array z, a, b, c0; /* of a gradient that is made of dy, as its g */
} Case;

static Case case_of(int lanes, ShoalConvShape s) {
    s.out_height = (s.height + 2 * s.pad_h - (s.kernel_h - 1) * s.dilation_h - 1) / s.stride_h + 1;
    s.out_width = (s.width + 2 * s.pad_w - (s.kernel_w - 1) * s.dilation_w - 1) / s.stride_w + 1;
    s.outputs = s.group = s.channels;
    Case c = {.conv = {.shape = s}, .lanes = lanes, .taps = s.kernel_h * s.kernel_w};
    c.in = (ShoalNchwcDims){s.batch, s.channels, s.height, s.width};
    c.out = (ShoalNchwcDims){s.batch, s.channels, s.out_height, s.out_width};
    c.x = nchwc_random(&c.in, lanes);
    c.dy = nchwc_random(&c.out, lanes);
    c.scale = channels_random(s.channels, lanes);
    c.shift = channels_random(s.channels, lanes);
    c.z = nchwc_random(&c.out, lanes);
    c.a = channels_random(s.channels, lanes);
    c.b = channels_random(s.channels, lanes);
    c.c0 = channels_random(s.channels, lanes);
    c.w = array_random((size_t)(s.channels * c.taps));
    c.bias = array_random((size_t)s.channels);
    return c;
}

static void case_close(Case *c) {
    Array *arrays[] = {&c->x,  &c->scale, &c->shift, &c->w, &c->bias,
                       &c->dy, &c->z,     &c->a,     &c->b, &c->c0};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        array_close(arrays[i]);
}

static ShoalCompute compute_for(ShoalCpuLevel level, unsigned threads, const Case *c) {
    const unsigned most = threads > 0 ? threads : 1;
    const ShoalNchwc *engine = shoal_kernels_for(level)->nchwc;
    return check_compute(level, threads,
                         shoal_nchwc_depthwise_workspace_bytes(engine, &c->conv, most));
}

/* One product of the sum: where its numbers lie. */
typedef struct Meeting {
    size_t in, out;
    int weight; /* in c->w */
} Meeting;

/* What output p meets with tap t; false when that is outside the image. */
static bool meets(const Case *c, int n, int channel, size_t p, int t, Meeting *m) {
    const ShoalConvShape *s = &c->conv.shape;
    int i = (int)p / s->out_width, j = (int)p % s->out_width;
    int h = i * s->stride_h - s->pad_h + t / s->kernel_w * s->dilation_h;
    int w = j * s->stride_w - s->pad_w + t % s->kernel_w * s->dilation_w;
    m->out = nchwc_at(&c->out, c->lanes, n, channel, p);
    m->weight = channel * c->taps + t;
    if (h < 0 || h >= s->height || w < 0 || w >= s->width)
        return false;
    m->in = nchwc_at(&c->in, c->lanes, n, channel, (size_t)(h * s->width + w));
    return true;
}

#define FOR_MEETINGS(c, n, channel, m)                                                             \
    for (int n = 0; n < (c)->in.batch; n++)                                                        \
        for (int channel = 0; channel < (c)->in.channels; channel++)                               \
            for (size_t p_ = 0; p_ < nchwc_plane(&(c)->out); p_++)                                 \
                for (int t_ = 0; t_ < (c)->taps; t_++)                                             \
                    if (meets(c, n, channel, p_, t_, &(m)))

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

static Expected expect_fwd(const Case *c, const ShoalNchwcInput *x, bool bias) {
    Expected e = expected_of(c->dy.count);
    Meeting m;
    FOR_MEETINGS(c, n, channel, m) {
        double size, value = nchwc_value(x, m.in, channel, &size);
        e.value[m.out] += value * (double)c->w.data[m.weight];
        e.size[m.out] += size * fabs((double)c->w.data[m.weight]);
    }
    FOR_NCHWC(&c->out, c->lanes, n, channel, p)
    if (bias && channel < c->out.channels) {
        size_t at = nchwc_at(&c->out, c->lanes, n, channel, p);
        e.value[at] += (double)c->bias.data[channel];
        e.size[at] += fabs((double)c->bias.data[channel]);
    }
    return e;
}

/* kind: bits 0..1 the input's function, bit 2 bias, bit 3 statistics. */
static void check_fwd(const Case *c, ShoalCpuLevel level, int kind) {
    const size_t padded = shoal_nchwc_padded(c->in.channels, c->lanes);
    ShoalNchwcInput x = input_of(&c->x, &c->scale, &c->shift, kind & 3);
    Expected e = expect_fwd(c, &x, kind & 4);
    void *first = NULL, *first_stats = NULL;
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute compute = compute_for(level, threads, c);
        Array y = aligned_blank(c->dy.count);
        double *sums = shoal_calloc(2 * padded, sizeof *sums);
        ShoalNchwcStats stats = {sums, sums + padded};
        shoal_nchwc_depthwise_fwd(&compute, &c->conv, &x, c->w.data, kind & 4 ? c->bias.data : NULL,
                                  y.data, kind & 8 ? &stats : NULL);
        check_padding("forward", &c->out, c->lanes, y.data);
        check_close("forward", y.count, (size_t)c->taps + 3, y.data, e.value, e.size);
        if (kind & 8)
            check_stats("forward's statistics", &c->out, c->lanes, y.data, &stats);
        check_same_bits("forward", y.data, &first, y.count * sizeof(float));
        check_same_bits("forward's statistics", sums, &first_stats, 2 * padded * sizeof *sums);
        shoal_free(sums);
        array_close(&y);
        check_compute_close(&compute);
    }
    shoal_free(first);
    shoal_free(first_stats);
    expected_close(&e);
}

static void check_bwd_data(const Case *c, ShoalCpuLevel level, int kind) {
    const size_t padded = shoal_nchwc_padded(c->in.channels, c->lanes);
    GradientCase g = gradient_case(&c->in, c->lanes, kind);
    Expected e = expected_of(c->x.count);
    void *first = NULL, *first_sums = NULL;
    Meeting m;
    FOR_MEETINGS(c, n, channel, m) {
        double term = (double)c->dy.data[m.out] * (double)c->w.data[m.weight];
        e.value[m.in] += term;
        e.size[m.in] += fabs(term);
    }
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute compute = compute_for(level, threads, c);
        Array got = aligned_blank(c->x.count);
        ShoalNchwcGradient dx = gradient_of(&g, got.data);
        shoal_nchwc_depthwise_bwd_data(&compute, &c->conv, c->dy.data, c->w.data, &dx);
        check_gradient("backward data", &g, &dx, e.value, e.size, (size_t)c->taps);
        check_same_bits("backward data", got.data, &first, got.count * sizeof(float));
        check_same_bits("backward data's sums", g.sums, &first_sums, 3 * padded * sizeof(double));
        array_close(&got);
        check_compute_close(&compute);
    }
    shoal_free(first);
    shoal_free(first_sums);
    expected_close(&e);
    gradient_case_close(&g);
}

static void check_bwd_weights(const Case *c, ShoalCpuLevel level, int kind) {
    ShoalNchwcInput x = input_of(&c->x, &c->scale, &c->shift, kind & 3);
    Expected e = expected_of(c->w.count);
    Array before = array_random(c->w.count);
    void *first = NULL;
    for (size_t i = 0; i < before.count; i++) {
        e.value[i] = (double)before.data[i];
        e.size[i] = fabs(e.value[i]);
    }
    Meeting m;
    FOR_MEETINGS(c, n, channel, m) {
        double size, value = nchwc_value(&x, m.in, channel, &size);
        e.value[m.weight] += value * (double)c->dy.data[m.out];
        e.size[m.weight] += size * fabs((double)c->dy.data[m.out]);
    }
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute compute = compute_for(level, threads, c);
        Array dw = array_copy(&before);
        shoal_nchwc_depthwise_bwd_weights(&compute, &c->conv, &x, c->dy.data, dw.data);
        check_close("backward weights", dw.count, (size_t)c->out.batch * nchwc_plane(&c->out),
                    dw.data, e.value, e.size);
        check_same_bits("backward weights", dw.data, &first, dw.count * sizeof(float));
        array_close(&dw);
        check_compute_close(&compute);
    }
    shoal_free(first);
    array_close(&before);
    expected_close(&e);
}

static Array zeros(size_t count) {
    Array a = array_random(count);
    memset(a.data, 0, count * sizeof *a.data);
    return a;
}

/* --- The whole backward pass ---------------------------------------------------------------- */

/* What a backward pass may come with. Bits 0..1 the input's function, bit 2 dy is made of g, bit 3
 * of z too; bit 4 without dw, bit 5 without dx (never both). */
enum { BWD_KINDS = 48 };

static ShoalNchwcOutGradient out_gradient_of(const Case *c, int kind) {
    ShoalNchwcOutGradient dy = {.g = c->dy.data};
    if (kind & 4) {
        dy.a = c->a.data;
        dy.c0 = c->c0.data;
    }
    if ((kind & 12) == 12) {
        dy.z = c->z.data;
        dy.b = c->b.data;
    }
    return dy;
}

/* Number `at` of dy, of channel c; *magnitude: what its rounding errors are relative to. */
static double out_gradient(const ShoalNchwcOutGradient *dy, size_t at, int c, double *magnitude) {
    double g = (double)dy->g[at], sum = dy->a ? (double)dy->a[c] * g : g;
    *magnitude = fabs(sum);
    if (dy->z) {
        sum += (double)dy->b[c] * (double)dy->z[at];
        *magnitude += fabs((double)dy->b[c] * (double)dy->z[at]);
    }
    if (dy->c0) {
        sum += (double)dy->c0[c];
        *magnitude += fabs((double)dy->c0[c]);
    }
    return sum;
}

/* Adds to what dw is expected to be, and sets dx; both blocked as their tensors are. */
static void expect_bwd(const Case *c, const ShoalNchwcInput *x, const ShoalNchwcOutGradient *dy,
                       Expected *dw, Expected *dx) {
    Meeting m;
    FOR_MEETINGS(c, n, channel, m) {
        double size, out_size, value = nchwc_value(x, m.in, channel, &size);
        double out = out_gradient(dy, m.out, channel, &out_size);
        dw->value[m.weight] += value * out;
        dw->size[m.weight] += size * out_size;
        dx->value[m.in] += out * (double)c->w.data[m.weight];
        dx->size[m.in] += out_size * fabs((double)c->w.data[m.weight]);
    }
}

static void check_bwd(const Case *c, ShoalCpuLevel level, int gradient_kind, int kind) {
    const size_t padded = shoal_nchwc_padded(c->in.channels, c->lanes);
    const size_t terms = (size_t)c->out.batch * nchwc_plane(&c->out);
    GradientCase g = gradient_case(&c->in, c->lanes, gradient_kind);
    ShoalNchwcInput x = input_of(&c->x, &c->scale, &c->shift, kind & 3);
    ShoalNchwcOutGradient dy = out_gradient_of(c, kind);
    Expected for_dw = expected_of(c->w.count), for_dx = expected_of(c->x.count);
    void *first = NULL, *first_dw = NULL, *first_sums = NULL;
    expect_bwd(c, &x, &dy, &for_dw, &for_dx);
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute compute = compute_for(level, threads, c);
        Array got = aligned_blank(c->x.count), dw = zeros(c->w.count);
        ShoalNchwcGradient dx = gradient_of(&g, got.data);
        const ShoalNchwcInput *from = kind & 16 ? NULL : &x;
        shoal_nchwc_depthwise_bwd(&compute, &c->conv, from, &dy, kind & 32 ? NULL : c->w.data,
                                  kind & 16 ? NULL : dw.data, kind & 32 ? NULL : &dx);
        if (!(kind & 16)) {
            check_close("backward, dw", dw.count, terms, dw.data, for_dw.value, for_dw.size);
            check_same_bits("backward, dw", dw.data, &first_dw, dw.count * sizeof(float));
        }
        if (!(kind & 32)) {
            check_gradient("backward, dx", &g, &dx, for_dx.value, for_dx.size, (size_t)c->taps + 3);
            check_same_bits("backward, dx", got.data, &first, got.count * sizeof(float));
            check_same_bits("backward, sums", g.sums, &first_sums, 3 * padded * sizeof(double));
        }
        array_close(&got);
        array_close(&dw);
        check_compute_close(&compute);
    }
    shoal_free(first);
    shoal_free(first_dw);
    shoal_free(first_sums);
    expected_close(&for_dw);
    expected_close(&for_dx);
    gradient_case_close(&g);
}

/* All passes with one choice of what comes with them; other choices for other shapes. */
static void check_all(ShoalConvShape shape) {
    FOR_NCHWC_LEVELS(level, lanes) {
        Case c = case_of(lanes, shape);
        assert_true(shoal_nchwc_depthwise_applies(&c.conv));
        int kind = (int)check_below(GRADIENT_KINDS);
        while (!gradient_kind_valid(kind))
            kind = (int)check_below(GRADIENT_KINDS);
        check_fwd(&c, level, (int)check_below(16));
        check_bwd_data(&c, level, kind);
        check_bwd_weights(&c, level, (int)check_below(4));
        check_bwd(&c, level, kind, (int)check_below(BWD_KINDS));
        case_close(&c);
    }
}

static ShoalConvShape square(int batch, int channels, int size, int kernel, int stride, int pad,
                             int dilation) {
    return (ShoalConvShape){.batch = batch,
                            .channels = channels,
                            .height = size,
                            .width = size,
                            .kernel_h = kernel,
                            .kernel_w = kernel,
                            .stride_h = stride,
                            .stride_w = stride,
                            .pad_h = pad,
                            .pad_w = pad,
                            .dilation_h = dilation,
                            .dilation_w = dilation};
}

static void three_by_three(void **state) {
    static const int channels[] = {1, 3, 16, 20, 50};
    (void)state;
    for (int size = 3; size <= 36; size += 1 + size / 6)
        for (int stride = 1; stride <= 2; stride++)
            for (int pad = 0; pad <= 2; pad++)
                check_all(square(1 + size % 3, channels[check_below(5)], size, 3, stride, pad, 1));
    check_all(square(9, 20, 14, 3, 1, 1, 1));
    check_all(square(1, 5, 61, 3, 2, 1, 1));
}

/* Every function, bias, statistics and gradient, at both fast shapes. */
static void every_kind(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes)
    for (int stride = 1; stride <= 2; stride++) {
        Case c = case_of(lanes, square(2, 19, 10, 3, stride, 1, 1));
        for (int kind = 0; kind < 16; kind++)
            check_fwd(&c, level, kind);
        for (int kind = 0; kind < GRADIENT_KINDS; kind++)
            if (gradient_kind_valid(kind))
                check_bwd_data(&c, level, kind);
        for (int kind = 0; kind < 4; kind++)
            check_bwd_weights(&c, level, kind);
        for (int kind = 0; kind < GRADIENT_KINDS; kind++)
            if (gradient_kind_valid(kind))
                check_bwd(&c, level, kind, kind & 15);
        for (int kind = 0; kind < BWD_KINDS; kind++)
            check_bwd(&c, level, 46, kind);
        case_close(&c);
    }
}

static int between(int low, int high) {
    return low + (int)check_below((size_t)(high - low + 1));
}

static void any_shape(void **state) {
    (void)state;
    for (int i = 0; i < 120; i++) {
        ShoalConvShape s = {.batch = between(1, 3), .channels = between(1, 40)};
        s.kernel_h = between(1, 5);
        s.kernel_w = between(1, 5);
        s.stride_h = between(1, 4);
        s.stride_w = between(1, 4);
        s.dilation_h = between(1, 3);
        s.dilation_w = between(1, 3);
        s.pad_h = between(0, 5);
        s.pad_w = between(0, 5);
        s.height = between(1, 8) + (s.kernel_h - 1) * s.dilation_h;
        s.width = between(1, 24) + (s.kernel_w - 1) * s.dilation_w;
        check_all(s);
    }
}

/* Pads that are wider than image or kernel. */
static void wide_pads(void **state) {
    (void)state;
    check_all(square(2, 3, 1, 3, 1, 1, 1));
    check_all(square(2, 3, 2, 3, 2, 1, 1));
    check_all(square(1, 17, 2, 5, 1, 4, 1));
    check_all(square(1, 3, 4, 1, 1, 3, 1));
    check_all(square(1, 3, 3, 2, 3, 7, 2));
}

/* A result that goes past the caches has the bits that its images have one by one. */
static void far_results(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes) {
        ShoalConvShape two = square(2, 90, 235, 3, 1, 1, 1), one = two;
        one.batch = 1;
        Case all = case_of(lanes, two), each = case_of(lanes, one);
        const size_t image = each.x.count, padded = shoal_nchwc_padded(two.channels, lanes);
        assert_true(2 * image * sizeof(float) >= SHOAL_NCHWC_FAR_BYTES);
        assert_true(image * sizeof(float) < SHOAL_NCHWC_FAR_BYTES);
        ShoalCompute compute = compute_for(level, 3, &all);
        Array y = aligned_blank(2 * image), far = aligned_blank(2 * image);
        double *sums = shoal_calloc(2 * padded, sizeof *sums);
        ShoalNchwcStats stats = {sums, sums + padded};
        ShoalNchwcInput x = input_of(&all.x, &all.scale, &all.shift, 3);
        ShoalNchwcGradient dx = {.g = far.data, .finish = true, .mask = all.dy.data};
        shoal_nchwc_depthwise_fwd(&compute, &all.conv, &x, all.w.data, NULL, far.data, &stats);
        check_stats("past the caches", &all.out, lanes, far.data, &stats);
        for (size_t n = 0; n < 2; n++, x.x += image)
            shoal_nchwc_depthwise_fwd(&compute, &each.conv, &x, all.w.data, NULL,
                                      y.data + n * image, NULL);
        assert_memory_equal(far.data, y.data, 2 * image * sizeof(float));
        shoal_nchwc_depthwise_bwd_data(&compute, &all.conv, all.x.data, all.w.data, &dx);
        for (size_t n = 0; n < 2; n++) {
            dx.g = y.data + n * image;
            dx.mask = all.dy.data + n * image;
            shoal_nchwc_depthwise_bwd_data(&compute, &each.conv, all.x.data + n * image, all.w.data,
                                           &dx);
        }
        assert_memory_equal(far.data, y.data, 2 * image * sizeof(float));
        shoal_free(sums);
        array_close(&y);
        array_close(&far);
        case_close(&all);
        case_close(&each);
        check_compute_close(&compute);
    }
}

/* The bias's gradient: the sum of dy over all but the channels. */
static Expected expect_bias(const Case *c, const ShoalNchwcOutGradient *dy) {
    Expected e = expected_of(c->bias.count);
    FOR_NCHWC(&c->out, c->lanes, n, channel, p) {
        double size;
        if (channel >= c->out.channels)
            continue;
        e.value[channel] +=
            out_gradient(dy, nchwc_at(&c->out, c->lanes, n, channel, p), channel, &size);
        e.size[channel] += size;
    }
    return e;
}

/* What a net asks for, where the bias learns too: with room over g, and apart from it. */
static void check_whole(const Case *c, ShoalCpuLevel level, bool over) {
    const size_t terms = (size_t)c->out.batch * nchwc_plane(&c->out);
    ShoalCompute compute = compute_for(level, 2, c);
    ShoalNchwcInput x = input_of(&c->x, &c->scale, &c->shift, 3);
    ShoalNchwcOutGradient dy = out_gradient_of(c, 12), own = dy;
    Array g = aligned_copy(&c->dy), room = aligned_blank(g.count), dx = aligned_blank(c->x.count);
    Array dw = zeros(c->w.count), db = zeros(c->bias.count);
    Expected for_dw = expected_of(c->w.count), for_dx = expected_of(c->x.count);
    Expected for_db = expect_bias(c, &dy);
    ShoalNchwcGradient to = {.g = dx.data};
    expect_bwd(c, &x, &dy, &for_dw, &for_dx);
    own.g = g.data;
    own.room = over ? g.data : room.data;
    shoal_nchwc_conv_bwd(&compute, &c->conv, &x, &own, c->w.data, dw.data, db.data, &to);
    check_close("with a bias, dw", dw.count, terms, dw.data, for_dw.value, for_dw.size);
    check_close("with a bias, dx", dx.count, (size_t)c->taps + 3, dx.data, for_dx.value,
                for_dx.size);
    check_close("with a bias, db", db.count, terms, db.data, for_db.value, for_db.size);
    Expected *expected[] = {&for_dw, &for_dx, &for_db};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        expected_close(expected[i]);
    Array *arrays[] = {&g, &room, &dx, &dw, &db};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        array_close(arrays[i]);
    check_compute_close(&compute);
}

static void whole_convolution(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes)
    for (int stride = 1; stride <= 2; stride++) {
        Case c = case_of(lanes, square(3, 21, 9, 3, stride, 1, 1));
        check_whole(&c, level, false);
        check_whole(&c, level, true);
        case_close(&c);
    }
}

static void what_applies(void **state) {
    (void)state;
    ShoalNchwcConv conv = {.shape = {.channels = 8, .outputs = 8, .group = 8}};
    assert_true(shoal_nchwc_depthwise_applies(&conv));
    conv.shape.outputs = 16;
    assert_false(shoal_nchwc_depthwise_applies(&conv));
    conv.shape = (ShoalConvShape){.channels = 8, .outputs = 8, .group = 4};
    assert_false(shoal_nchwc_depthwise_applies(&conv));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_by_three), cmocka_unit_test(every_kind),
        cmocka_unit_test(any_shape),      cmocka_unit_test(wide_pads),
        cmocka_unit_test(far_results),    cmocka_unit_test(whole_convolution),
        cmocka_unit_test(what_applies),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
