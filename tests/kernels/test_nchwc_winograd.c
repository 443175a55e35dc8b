/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc/winograd.h"

#include "kernels/nchwc_check.h"
#include "kernels/table.h"

/* The error of Winograd's sums is not bounded by the magnitudes of one output's own products, since
 * parts of a whole tile cancel; it is held relative to the root mean square (rms) of all outputs.
 * Over a sum of n tiles or channels the error's rms is about 1.6 sqrt(n) 2^-24 rms (measured, see
 * nchwc/winograd.h); its largest of some 10^5 values was 13 sqrt(n). These bounds are twice that.
 * `accuracy` prints what it finds. */
static double rms_bound(double n) {
    return (4 + 3 * sqrt(n)) * ldexp(1, -24);
}

static double most_bound(double n) {
    return (24 + 30 * sqrt(n)) * ldexp(1, -24);
}

/* As a magnitude for check_gradient, which multiplies by (4 + 2) * 2^-24. */
static double bound_as_magnitude(double n) {
    return most_bound(n) / (6 * ldexp(1, -24));
}

typedef struct Shape {
    int batch, channels, height, width, outputs, pad_h, pad_w;
} Shape;

static const Shape shapes[] = {
    {2, 20, 7, 7, 50, 1, 1},   {1, 50, 14, 13, 20, 0, 2}, {3, 16, 5, 5, 16, 2, 0},
    {2, 33, 13, 14, 17, 1, 1}, {1, 3, 3, 3, 1, 0, 0},     {1, 1, 1, 1, 3, 1, 1},
    {1, 64, 6, 10, 50, 1, 0},  {5, 20, 28, 26, 33, 1, 1},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static ShoalNchwcConv conv_of(const Shape *s) {
    return (ShoalNchwcConv){.shape = {.batch = s->batch,
                                      .channels = s->channels,
                                      .height = s->height,
                                      .width = s->width,
                                      .outputs = s->outputs,
                                      .out_height = s->height + 2 * s->pad_h - 2,
                                      .out_width = s->width + 2 * s->pad_w - 2,
                                      .kernel_h = 3,
                                      .kernel_w = 3,
                                      .stride_h = 1,
                                      .stride_w = 1,
                                      .pad_h = s->pad_h,
                                      .pad_w = s->pad_w,
                                      .dilation_h = 1,
                                      .dilation_w = 1,
                                      .group = 1},
                            .winograd = true};
}

static ShoalNchwcDims in_dims(const ShoalNchwcConv *c) {
    return (ShoalNchwcDims){c->shape.batch, c->shape.channels, c->shape.height, c->shape.width};
}

static ShoalNchwcDims out_dims(const ShoalNchwcConv *c) {
    return (ShoalNchwcDims){c->shape.batch, c->shape.outputs, c->shape.out_height,
                            c->shape.out_width};
}

/* A level's table whose caches are so small that work is cut in other ways. */
typedef struct Engine {
    ShoalKernels kernels;
    ShoalNchwc nchwc;
    ShoalNchwcWinogradKernels winograd;
} Engine;

typedef enum Caches { CACHES_OF_LEVEL, CACHES_SMALL, CACHES_NONE, CACHES } Caches;

static void engine_of(ShoalCpuLevel level, Caches caches, Engine *e) {
    e->kernels = *shoal_kernels_for(level);
    e->nchwc = *e->kernels.nchwc;
    e->winograd = *e->nchwc.winograd;
    e->kernels.nchwc = &e->nchwc;
    e->nchwc.winograd = &e->winograd;
    if (caches == CACHES_SMALL)
        e->winograd.cache_bytes = (size_t)480 << 10;
    if (caches == CACHES_NONE) {
        e->winograd.cache_bytes = 0;
        e->winograd.round_bytes = (size_t)480 << 10;
    }
}

/* Everything that a test of one shape needs; expected results are plain NCHW, in double. */
typedef struct Case {
    ShoalNchwcConv conv;
    ShoalNchwcDims in, out;
    int lanes;
    Array x, dy, w, bias, scale, shift;
    ShoalNchwcInput input;
    double *y, *dx, *dw;
    double y_rms, dx_rms, dw_rms;
} Case;

static double *doubles(size_t count) {
    double *d = shoal_calloc(count, sizeof *d);
    assert_non_null(d);
    return d;
}

static double rms(size_t count, const double *x) {
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += x[i] * x[i];
    return sqrt(sum / (double)count);
}

static size_t plain_count(const ShoalNchwcDims *d) {
    return (size_t)(d->batch * d->channels) * nchwc_plane(d);
}

static size_t plain_at(const ShoalNchwcDims *d, int n, int c, size_t p) {
    return (size_t)(n * d->channels + c) * nchwc_plane(d) + p;
}

/* One output plane from one input plane with its border, and the gradients. */
static void reference_plane(const Case *c, const double *x, const double *dy, const float *w,
                            double *y, double *dx, double *dw) {
    const int width = c->in.width + 2 * c->conv.shape.pad_w;
    for (int tap = 0; tap < 9; tap++) {
        const double weight = (double)w[tap];
        for (int i = 0; i < c->out.height; i++) {
            const int from = (i + tap / 3) * width + tap % 3, to = i * c->out.width;
            double sum = 0;
            for (int j = 0; j < c->out.width; j++) {
                y[to + j] += weight * x[from + j];
                dx[from + j] += weight * dy[to + j];
                sum += dy[to + j] * x[from + j];
            }
            dw[tap] += sum;
        }
    }
}

/* Copies number after number between a plain tensor and one with a border. */
static void border(const Case *c, double *plain, double *bordered, bool in) {
    const int pad_h = c->conv.shape.pad_h, pad_w = c->conv.shape.pad_w;
    const int height = c->in.height + 2 * pad_h, width = c->in.width + 2 * pad_w;
    for (int plane = 0; plane < c->in.batch * c->in.channels; plane++)
        for (int i = 0; i < c->in.height; i++) {
            double *a = plain + (plane * c->in.height + i) * c->in.width;
            double *b = bordered + (plane * height + i + pad_h) * width + pad_w;
            memcpy(in ? b : a, in ? a : b, (size_t)c->in.width * sizeof *a);
        }
}

static void reference(Case *c, double *value, double *dy) {
    const size_t plane = (size_t)((c->in.height + 2 * c->conv.shape.pad_h) *
                                  (c->in.width + 2 * c->conv.shape.pad_w));
    const size_t planes = (size_t)(c->in.batch * c->in.channels), out = nchwc_plane(&c->out);
    double *x = doubles(planes * plane), *dx = doubles(planes * plane);
    border(c, value, x, true);
    for (int n = 0; n < c->in.batch; n++)
        for (int k = 0; k < c->out.channels; k++)
            for (int ch = 0; ch < c->in.channels; ch++) {
                size_t from = (size_t)(n * c->in.channels + ch) * plane;
                size_t to = (size_t)(n * c->out.channels + k) * out;
                size_t tap = (size_t)(k * c->in.channels + ch) * 9;
                reference_plane(c, x + from, dy + to, c->w.data + tap, c->y + to, dx + from,
                                c->dw + tap);
            }
    border(c, c->dx, dx, false);
    shoal_free(x);
    shoal_free(dx);
    c->y_rms = rms(plain_count(&c->out), c->y);
    c->dx_rms = rms(plain_count(&c->in), c->dx);
    c->dw_rms = rms(c->w.count, c->dw);
}

/* What the passes should give for what the arrays hold. */
static void expect(Case *c) {
    double *value = doubles(plain_count(&c->in)), *dy = doubles(plain_count(&c->out)), size;
    for (int n = 0; n < c->in.batch; n++) {
        for (int ch = 0; ch < c->in.channels; ch++)
            for (size_t p = 0; p < nchwc_plane(&c->in); p++)
                value[plain_at(&c->in, n, ch, p)] =
                    nchwc_value(&c->input, nchwc_at(&c->in, c->lanes, n, ch, p), ch, &size);
        for (int k = 0; k < c->out.channels; k++)
            for (size_t p = 0; p < nchwc_plane(&c->out); p++)
                dy[plain_at(&c->out, n, k, p)] =
                    (double)c->dy.data[nchwc_at(&c->out, c->lanes, n, k, p)];
    }
    c->y = doubles(plain_count(&c->out));
    c->dx = doubles(plain_count(&c->in));
    c->dw = doubles(c->w.count);
    reference(c, value, dy);
    shoal_free(value);
    shoal_free(dy);
}

static Case case_blank(const Shape *s, int lanes, int kind) {
    Case c = {.conv = conv_of(s), .lanes = lanes};
    c.in = in_dims(&c.conv);
    c.out = out_dims(&c.conv);
    c.x = nchwc_random(&c.in, lanes);
    c.dy = nchwc_random(&c.out, lanes);
    c.w = array_random((size_t)(s->outputs * s->channels * 9));
    c.bias = array_random((size_t)s->outputs);
    c.scale = channels_random(s->channels, lanes);
    c.shift = channels_random(s->channels, lanes);
    c.input = input_of(&c.x, &c.scale, &c.shift, kind);
    return c;
}

static Case case_of(const Shape *s, int lanes, int kind) {
    Case c = case_blank(s, lanes, kind);
    expect(&c);
    return c;
}

static void case_close(Case *c) {
    Array *arrays[] = {&c->x, &c->dy, &c->w, &c->bias, &c->scale, &c->shift};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        array_close(arrays[i]);
    shoal_free(c->dx);
    shoal_free(c->y);
    shoal_free(c->dw);
}

static ShoalCompute compute_of(ShoalCpuLevel level, const Engine *e, const Case *c,
                               unsigned threads) {
    size_t bytes = shoal_nchwc_winograd_workspace_bytes(&e->nchwc, &c->conv, threads ? threads : 1);
    ShoalCompute compute = check_compute(level, threads, bytes);
    compute.kernels = &e->kernels;
    return compute;
}

/* --- Forward -------------------------------------------------------------------------------- */

static void check_fwd(const Case *c, const Array *y, bool bias) {
    const double allowed = most_bound(c->in.channels) * (c->y_rms + 1);
    check_padding("winograd forward", &c->out, c->lanes, y->data);
    for (int n = 0; n < c->out.batch; n++)
        for (int k = 0; k < c->out.channels; k++)
            for (size_t p = 0; p < nchwc_plane(&c->out); p++) {
                size_t at = nchwc_at(&c->out, c->lanes, n, k, p);
                double expected =
                    c->y[plain_at(&c->out, n, k, p)] + (bias ? (double)c->bias.data[k] : 0);
                if (!(fabs((double)y->data[at] - expected) <= allowed))
                    fail_msg("output %d,%d,%zu is %.9g, not %.9g", n, k, p, (double)y->data[at],
                             expected);
            }
}

static void fwd_threads(ShoalCpuLevel level, const Engine *e, const Case *c, bool with_stats) {
    const size_t channels = shoal_nchwc_padded(c->out.channels, c->lanes);
    void *first = NULL, *first_stats = NULL;
    double *moments = doubles(2 * channels);
    ShoalNchwcStats stats = {moments, moments + channels};
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute compute = compute_of(level, e, c, threads);
        Array y = aligned_blank(nchwc_count(&c->out, c->lanes));
        shoal_nchwc_winograd_fwd(&compute, &c->conv, &c->input, c->w.data,
                                 with_stats ? c->bias.data : NULL, y.data,
                                 with_stats ? &stats : NULL);
        check_fwd(c, &y, with_stats);
        if (with_stats)
            check_stats("winograd forward", &c->out, c->lanes, y.data, &stats);
        check_same_bits("winograd forward", y.data, &first, y.count * sizeof(float));
        check_same_bits("winograd stats", moments, &first_stats, 2 * channels * sizeof(double));
        check_compute_close(&compute);
        array_close(&y);
    }
    shoal_free(first);
    shoal_free(first_stats);
    shoal_free(moments);
}

static void forward(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes)
    for (int i = 0; i < SHAPES; i++)
        for (int kind = 0; kind < 4; kind++) {
            Case c = case_of(&shapes[i], lanes, kind);
            Engine e;
            engine_of(level, (Caches)((i + kind) % CACHES), &e);
            fwd_threads(level, &e, &c, kind & 1);
            case_close(&c);
        }
}

/* --- Backward for the input ------------------------------------------------------------------ */

static void blocked_dx(const Case *c, double *added, double *magnitude) {
    for (int n = 0; n < c->in.batch; n++)
        for (int ch = 0; ch < c->in.channels; ch++)
            for (size_t p = 0; p < nchwc_plane(&c->in); p++) {
                size_t at = nchwc_at(&c->in, c->lanes, n, ch, p);
                added[at] = c->dx[plain_at(&c->in, n, ch, p)];
                magnitude[at] = bound_as_magnitude(c->out.channels) * c->dx_rms;
            }
}

static void bwd_data_threads(ShoalCpuLevel level, const Engine *e, const Case *c, int kind) {
    GradientCase gradient = gradient_case(&c->in, c->lanes, kind);
    void *first = NULL;
    double *added = doubles(c->x.count), *magnitude = doubles(c->x.count);
    blocked_dx(c, added, magnitude);
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute compute = compute_of(level, e, c, threads);
        Array g = aligned_blank(nchwc_count(&c->in, c->lanes));
        ShoalNchwcGradient dx = gradient_of(&gradient, g.data);
        shoal_nchwc_winograd_bwd_data(&compute, &c->conv, c->dy.data, c->w.data, &dx);
        check_gradient("winograd backward", &gradient, &dx, added, magnitude, 0);
        check_same_bits("winograd backward", g.data, &first, g.count * sizeof(float));
        check_compute_close(&compute);
        array_close(&g);
    }
    shoal_free(first);
    shoal_free(added);
    shoal_free(magnitude);
    gradient_case_close(&gradient);
}

static void backward_data(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes)
    for (int i = 0; i < SHAPES; i++) {
        Case c = case_of(&shapes[i], lanes, 0);
        for (int kind = i; kind < GRADIENT_KINDS; kind += 5) {
            Engine e;
            engine_of(level, (Caches)(kind % CACHES), &e);
            if (gradient_kind_valid(kind))
                bwd_data_threads(level, &e, &c, kind);
        }
        case_close(&c);
    }
}

/* --- Backward for the weights ---------------------------------------------------------------- */

static double tiles_of(const Case *c) {
    return c->out.batch * ((c->out.height + 3) / 4) * ((c->out.width + 3) / 4);
}

static void bwd_weights_threads(ShoalCpuLevel level, const Engine *e, const Case *c) {
    const double allowed = most_bound(tiles_of(c)) * (c->dw_rms + 1);
    Array before = array_random(c->w.count);
    void *first = NULL;
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute compute = compute_of(level, e, c, threads);
        Array dw = array_copy(&before);
        shoal_nchwc_winograd_bwd_weights(&compute, &c->conv, &c->input, c->dy.data, dw.data);
        for (size_t t = 0; t < dw.count; t++) {
            double expected = c->dw[t] + (double)before.data[t];
            if (!(fabs((double)dw.data[t] - expected) <= allowed))
                fail_msg("weight %zu is %.9g, not %.9g", t, (double)dw.data[t], expected);
        }
        check_same_bits("winograd weights", dw.data, &first, dw.count * sizeof(float));
        check_compute_close(&compute);
        array_close(&dw);
    }
    shoal_free(first);
    array_close(&before);
}

static void backward_weights(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes)
    for (int i = 0; i < SHAPES; i++)
        for (int kind = 0; kind < 4; kind++) {
            Case c = case_of(&shapes[i], lanes, kind);
            Engine e;
            engine_of(level, (Caches)((i + kind) % CACHES), &e);
            bwd_weights_threads(level, &e, &c);
            case_close(&c);
        }
}

/* --- Accuracy -------------------------------------------------------------------------------- */

typedef struct Error {
    double sum, most;
    size_t count;
} Error;

static void add_error(Error *e, double got, double expected) {
    double off = fabs(got - expected);
    e->sum += off * off;
    e->most = off > e->most ? off : e->most;
    e->count++;
}

static void hold_error(const char *pass, const Error *e, double size, int n) {
    const double unit = ldexp(1, -24), mean = sqrt(e->sum / (double)e->count) / size;
    printf("  %-16s %3d terms: rms %5.1f, largest %5.1f (2^-24 of the result's rms)\n", pass, n,
           mean / unit, e->most / size / unit);
    assert_true(mean <= rms_bound(n));
    assert_true(e->most / size <= most_bound(n));
}

static Error blocked_error(const ShoalNchwcDims *d, int lanes, const float *got,
                           const double *expected) {
    Error e = {0};
    for (int n = 0; n < d->batch; n++)
        for (int c = 0; c < d->channels; c++)
            for (size_t p = 0; p < nchwc_plane(d); p++)
                add_error(&e, (double)got[nchwc_at(d, lanes, n, c, p)],
                          expected[plain_at(d, n, c, p)]);
    return e;
}

static Case normal_case(Shape s, int lanes) {
    Case c = case_blank(&s, lanes, 0);
    shoal_rng_fill_gaussian(&check_rng, 0, 1, c.x.count, c.x.data);
    shoal_rng_fill_gaussian(&check_rng, 0, 1, c.dy.count, c.dy.data);
    shoal_rng_fill_gaussian(&check_rng, 0, 1, c.w.count, c.w.data);
    clear_padding(&c.in, lanes, c.x.data);
    clear_padding(&c.out, lanes, c.dy.data);
    expect(&c);
    return c;
}

static void accuracy_fwd(ShoalCpuLevel level, const Engine *e, int lanes, int n) {
    Case c = normal_case((Shape){1, n, 16, 16, 32, 1, 1}, lanes);
    ShoalCompute compute = compute_of(level, e, &c, 1);
    Array y = aligned_copy(&c.dy);
    shoal_nchwc_winograd_fwd(&compute, &c.conv, &c.input, c.w.data, NULL, y.data, NULL);
    Error error = blocked_error(&c.out, lanes, y.data, c.y);
    hold_error("forward", &error, c.y_rms, n);
    array_close(&y);
    check_compute_close(&compute);
    case_close(&c);
}

static void accuracy_bwd_data(ShoalCpuLevel level, const Engine *e, int lanes, int n) {
    Case c = normal_case((Shape){1, 32, 16, 16, n, 1, 1}, lanes);
    ShoalCompute compute = compute_of(level, e, &c, 1);
    Array dx = aligned_copy(&c.x);
    ShoalNchwcGradient gradient = {.g = dx.data};
    shoal_nchwc_winograd_bwd_data(&compute, &c.conv, c.dy.data, c.w.data, &gradient);
    Error error = blocked_error(&c.in, lanes, dx.data, c.dx);
    hold_error("backward data", &error, c.dx_rms, n);
    array_close(&dx);
    check_compute_close(&compute);
    case_close(&c);
}

/* n tiles. */
static void accuracy_bwd_weights(ShoalCpuLevel level, const Engine *e, int lanes, int n) {
    Case c = normal_case((Shape){n / 16, 32, 16, 16, 32, 1, 1}, lanes);
    ShoalCompute compute = compute_of(level, e, &c, 1);
    Array dw = array_copy(&c.w);
    memset(dw.data, 0, dw.count * sizeof *dw.data);
    shoal_nchwc_winograd_bwd_weights(&compute, &c.conv, &c.input, c.dy.data, dw.data);
    Error error = {0};
    for (size_t t = 0; t < dw.count; t++)
        add_error(&error, (double)dw.data[t], c.dw[t]);
    hold_error("backward weights", &error, c.dw_rms, n);
    array_close(&dw);
    check_compute_close(&compute);
    case_close(&c);
}

static void accuracy(void **state) {
    static const int terms[] = {64, 256, 512};
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes)
    for (int i = 0; i < 3; i++) {
        Engine e;
        engine_of(level, CACHES_OF_LEVEL, &e);
        accuracy_fwd(level, &e, lanes, terms[i]);
        accuracy_bwd_data(level, &e, lanes, terms[i]);
        accuracy_bwd_weights(level, &e, lanes, terms[i]);
    }
}

/* --- Which convolutions ---------------------------------------------------------------------- */

static void applies(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes) {
        const ShoalNchwc *engine = shoal_kernels_for(level)->nchwc;
        const Shape shape = {8, 128, 28, 28, 128, 1, 1};
        const ShoalNchwcConv good = conv_of(&shape);
        ShoalNchwcConv c = good;
        assert_true(shoal_nchwc_winograd_applies(engine, &c));
        c.winograd = false;
        assert_false(shoal_nchwc_winograd_applies(engine, &c));
        c = good, c.plain_input = true;
        assert_false(shoal_nchwc_winograd_applies(engine, &c));
        int *const wrong[] = {&c.shape.kernel_h, &c.shape.kernel_w,   &c.shape.stride_h,
                              &c.shape.stride_w, &c.shape.dilation_h, &c.shape.dilation_w,
                              &c.shape.group};
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
            c = good;
            *wrong[i] = 2;
            assert_false(shoal_nchwc_winograd_applies(engine, &c));
        }
        c = good, c.shape.pad_h = 3;
        assert_false(shoal_nchwc_winograd_applies(engine, &c));
        c = good, c.shape.channels = 3;
        assert_false(shoal_nchwc_winograd_applies(engine, &c));
        c = good, c.shape.outputs = 3;
        assert_false(shoal_nchwc_winograd_applies(engine, &c));
        c = good, c.shape.out_height = c.shape.out_width = 5;
        assert_false(shoal_nchwc_winograd_applies(engine, &c));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(applies),       cmocka_unit_test(forward),
        cmocka_unit_test(backward_data), cmocka_unit_test(backward_weights),
        cmocka_unit_test(accuracy),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
