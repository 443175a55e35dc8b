/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/check.h"
#include "kernels/nchwc.h"

/* A convolution with all that may go before and after it, by the definition, in double. Tensors are
 * plain NCHW here; a level gets them blocked. */
typedef struct Case {
    ShoalNchwcConv conv;
    bool function, relu; /* of the input */
    bool bias, stats, accumulate, finish, mask, mask_function;
    int terms; /* -1: no sums */
    /* Backward by shoal_nchwc_conv_bwd, with a dy that is */
    enum { SEPARATE, GIVEN, SCALED, MADE } dy;
    bool own_room;     /* for dy; else g's */
    bool no_dw, no_dx; /* what is not asked for */
} Case;

typedef struct Problem {
    const Case *c;
    ShoalConvShape s;
    size_t xs, ys, ws;
    Array x, w, bias, dy, dw, db, g, mask, z[SHOAL_NCHWC_TERMS];           /* dw, db, g: before */
    Array scale, shift, mask_scale, mask_shift, center[SHOAL_NCHWC_TERMS]; /* per channel */
    Array dy_g, dy_z, dy_a, dy_b, dy_c;                                    /* what dy is made of */
    double *value, *y, *y_size, *dx, *dx_size, *dw_sum, *dw_size, *db_sum, *db_size;
} Problem;

static size_t count_of(int a, int b, int c, int d) {
    return (size_t)a * (size_t)b * (size_t)c * (size_t)d;
}

static double *doubles(size_t count) {
    double *data = shoal_calloc(count, sizeof *data);
    assert_non_null(data);
    return data;
}

/* --- Blocked tensors ---------------------------------------------------------------------- */

/* As array_blank, but at an aligned address. */
static Array blocked_blank(size_t count) {
    Array a = {.count = count};
    a.block = shoal_calloc(count + 2 * GUARD, sizeof *a.block);
    assert_non_null(a.block);
    a.data = a.block + GUARD;
    fill_guard(a.block, count + 2 * GUARD);
    CHECK_FORBID(a.block, GUARD);
    CHECK_FORBID(a.data + count, GUARD);
    return a;
}

/* Place of a number of image n, channel c, pixel i of a tensor of `channels` and `plane` pixels. */
static size_t place(size_t lanes, size_t channels, size_t plane, size_t n, size_t c, size_t i) {
    size_t blocks = (channels + lanes - 1) / lanes;
    return ((n * blocks + c / lanes) * plane + i) * lanes + c % lanes;
}

static size_t blocked_count(size_t lanes, size_t batch, size_t channels, size_t plane) {
    return batch * shoal_nchwc_padded((int)channels, (int)lanes) * plane;
}

/* batch 1, plane 1 for what is per channel. */
static Array blocked(size_t lanes, size_t batch, size_t channels, size_t plane,
                     const float *plain) {
    Array a = blocked_blank(blocked_count(lanes, batch, channels, plane));
    for (size_t i = 0; i < a.count; i++)
        a.data[i] = 0;
    for (size_t n = 0; n < batch; n++)
        for (size_t c = 0; c < channels; c++)
            for (size_t i = 0; i < plane; i++)
                a.data[place(lanes, channels, plane, n, c, i)] =
                    plain[(n * channels + c) * plane + i];
    return a;
}

/* Back; checks that padding is 0. */
static float *plain_of(size_t lanes, size_t batch, size_t channels, size_t plane, const float *x) {
    float *plain = shoal_calloc(batch * channels * plane, sizeof *plain);
    size_t padded = shoal_nchwc_padded((int)channels, (int)lanes);
    assert_non_null(plain);
    for (size_t n = 0; n < batch; n++)
        for (size_t c = 0; c < padded; c++)
            for (size_t i = 0; i < plane; i++) {
                float value = x[place(lanes, padded, plane, n, c, i)];
                if (c < channels)
                    plain[(n * channels + c) * plane + i] = value;
                else
                    assert_true(value == 0);
            }
    return plain;
}

/* --- What is expected --------------------------------------------------------------------- */

/* One weight w[o][c][u][v] with everything that it touches in image b. */
static void touch(Problem *p, int b, int o, int c, int u, int v) {
    const ShoalConvShape *s = &p->s;
    int in_group = s->channels / s->group, channel = o / (s->outputs / s->group) * in_group + c;
    size_t wi = count_of(o, in_group, s->kernel_h, s->kernel_w) +
                (size_t)((c * s->kernel_h + u) * s->kernel_w + v);
    double w = (double)p->w.data[wi];
    for (int i = 0; i < s->out_height; i++)
        for (int j = 0; j < s->out_width; j++) {
            int h = i * s->stride_h - s->pad_h + u * s->dilation_h;
            int k = j * s->stride_w - s->pad_w + v * s->dilation_w;
            if (h < 0 || k < 0 || h >= s->height || k >= s->width)
                continue;
            size_t xi = count_of(b * s->channels + channel, s->height, s->width, 1) +
                        (size_t)(h * s->width + k);
            size_t yi = count_of(b * s->outputs + o, s->out_height, s->out_width, 1) +
                        (size_t)(i * s->out_width + j);
            double x = p->value[xi], dy = (double)p->dy.data[yi];
            p->y[yi] += w * x;
            p->y_size[yi] += fabs(w * x);
            p->dx[xi] += w * dy;
            p->dx_size[xi] += fabs(w * dy);
            p->dw_sum[wi] += dy * x;
            p->dw_size[wi] += fabs(dy * x);
        }
}

static void start_value(double *sum, double *size, size_t at, double value) {
    sum[at] += value;
    size[at] += fabs(value);
}

static void expect_starts(Problem *p) {
    const size_t plane = count_of(p->s.out_height, p->s.out_width, 1, 1);
    for (size_t i = 0; i < p->ys; i++) {
        size_t o = i / plane % (size_t)p->s.outputs;
        if (p->c->bias)
            start_value(p->y, p->y_size, i, (double)p->bias.data[o]);
        start_value(p->db_sum, p->db_size, o, (double)p->dy.data[i]);
    }
    if (p->c->no_dw) { /* nothing is added */
        memset(p->dw_sum, 0, p->ws * sizeof *p->dw_sum);
        memset(p->db_sum, 0, (size_t)p->s.outputs * sizeof *p->db_sum);
    }
    for (size_t i = 0; i < p->ws; i++)
        start_value(p->dw_sum, p->dw_size, i, (double)p->dw.data[i]);
    for (size_t o = 0; o < (size_t)p->s.outputs; o++)
        start_value(p->db_sum, p->db_size, o, (double)p->db.data[o]);
    for (size_t i = 0; p->c->accumulate && i < p->xs; i++)
        start_value(p->dx, p->dx_size, i, (double)p->g.data[i]);
}

static void expect(Problem *p) {
    const ShoalConvShape *s = &p->s;
    const size_t plane = count_of(s->height, s->width, 1, 1);
    for (size_t i = 0; i < p->xs; i++) {
        size_t c = i / plane % (size_t)s->channels;
        double value = (double)p->x.data[i];
        if (p->c->function)
            value = value * (double)p->scale.data[c] + (double)p->shift.data[c];
        p->value[i] = p->c->relu && value < 0 ? 0 : value;
    }
    for (int b = 0; b < s->batch; b++)
        for (int o = 0; o < s->outputs; o++)
            for (int c = 0; c < s->channels / s->group; c++)
                for (int u = 0; u < s->kernel_h; u++)
                    for (int v = 0; v < s->kernel_w; v++)
                        touch(p, b, o, c, u, v);
    expect_starts(p);
}

/* With the rounding of a level's fused multiply-adds. */
static void make_dy(Problem *p) {
    const size_t plane = count_of(p->s.out_height, p->s.out_width, 1, 1);
    for (size_t i = 0; i < p->ys; i++) {
        size_t o = i / plane % (size_t)p->s.outputs;
        float rest = 0;
        if (p->c->dy == MADE)
            rest = fmaf(p->dy_b.data[o], p->dy_z.data[i], p->dy_c.data[o]);
        p->dy.data[i] = fmaf(p->dy_a.data[o], p->dy_g.data[i], rest);
    }
}

static Problem problem(const Case *c) {
    const ShoalConvShape s = c->conv.shape;
    Problem p = {.c = c, .s = s};
    p.xs = count_of(s.batch, s.channels, s.height, s.width);
    p.ys = count_of(s.batch, s.outputs, s.out_height, s.out_width);
    p.ws = count_of(s.outputs, s.channels / s.group, s.kernel_h, s.kernel_w);
    Array *inputs[] = {&p.x, &p.g, &p.mask, &p.z[0], &p.z[1]};
    Array *channels[] = {&p.scale,      &p.shift,     &p.mask_scale,
                         &p.mask_shift, &p.center[0], &p.center[1]};
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        *inputs[i] = array_random(p.xs);
    for (size_t i = 0; i < sizeof channels / sizeof *channels; i++)
        *channels[i] = array_random((size_t)s.channels);
    p.w = array_random(p.ws);
    p.dw = array_random(p.ws);
    p.dy = array_random(p.ys);
    Array *outputs[] = {&p.bias, &p.db, &p.dy_a, &p.dy_b, &p.dy_c};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
        *outputs[i] = array_random((size_t)s.outputs);
    p.dy_g = array_random(p.ys);
    p.dy_z = array_random(p.ys);
    if (c->dy >= SCALED)
        make_dy(&p);
    double **sums[] = {&p.value,  &p.dx,      &p.dx_size, &p.y,      &p.y_size,
                       &p.dw_sum, &p.dw_size, &p.db_sum,  &p.db_size};
    const size_t counts[] = {
        p.xs, p.xs, p.xs, p.ys, p.ys, p.ws, p.ws, (size_t)s.outputs, (size_t)s.outputs};
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        *sums[i] = doubles(counts[i]);
    expect(&p);
    return p;
}

static void problem_close(Problem *p) {
    Array *arrays[] = {&p->x,         &p->w,     &p->bias,       &p->dy,         &p->dw,
                       &p->db,        &p->g,     &p->mask,       &p->z[0],       &p->z[1],
                       &p->scale,     &p->shift, &p->mask_scale, &p->mask_shift, &p->center[0],
                       &p->center[1], &p->dy_g,  &p->dy_z,       &p->dy_a,       &p->dy_b,
                       &p->dy_c};
    double *sums[] = {p->value,  p->dx,      p->dx_size, p->y,      p->y_size,
                      p->dw_sum, p->dw_size, p->db_sum,  p->db_size};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        array_close(arrays[i]);
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        shoal_free(sums[i]);
}

/* --- What a level gives ------------------------------------------------------------------- */

enum { SUMS = 1 + SHOAL_NCHWC_TERMS };

typedef struct Result {
    size_t lanes, outs, ins; /* channels with padding */
    Array y, g, dw, db;
    double *mean, *variance, *sums[SUMS];
} Result;

/* The input with its function, blocked. */
typedef struct Input {
    Array x, scale, shift;
    ShoalNchwcInput input;
} Input;

static Input input_open(const Problem *p, size_t lanes) {
    const ShoalConvShape *s = &p->s;
    const size_t channels = (size_t)s->channels;
    Input in = {.x = blocked(p->c->conv.plain_input ? 1 : lanes, (size_t)s->batch, channels,
                             count_of(s->height, s->width, 1, 1), p->x.data),
                .scale = blocked(lanes, 1, channels, 1, p->scale.data),
                .shift = blocked(lanes, 1, channels, 1, p->shift.data)};
    in.input = (ShoalNchwcInput){.x = in.x.data, .relu = p->c->relu};
    if (p->c->function) {
        in.input.scale = in.scale.data;
        in.input.shift = in.shift.data;
    }
    return in;
}

static void input_close(Input *in) {
    array_close(&in->x);
    array_close(&in->scale);
    array_close(&in->shift);
}

/* Numbers of the output's shape, blocked. */
static Array blocked_outputs(const Problem *p, size_t lanes, const float *plain) {
    const ShoalConvShape *s = &p->s;
    return blocked(lanes, (size_t)s->batch, (size_t)s->outputs,
                   count_of(s->out_height, s->out_width, 1, 1), plain);
}

static void forward(const Problem *p, const ShoalCompute *c, const Input *in, Result *r) {
    ShoalNchwcStats stats = {r->mean, r->variance};
    shoal_nchwc_conv_fwd(c, &p->c->conv, &in->input, p->w.data, p->c->bias ? p->bias.data : NULL,
                         r->y.data, p->c->stats ? &stats : NULL);
    fill_guard(c->workspace, c->workspace_bytes / sizeof(float));
}

/* What is done with dx, blocked. */
typedef struct Gradient {
    Array mask, mask_scale, mask_shift, z[SHOAL_NCHWC_TERMS], center[SHOAL_NCHWC_TERMS];
    ShoalNchwcGradient grad;
} Gradient;

static Gradient gradient_open(const Problem *p, Result *r) {
    const ShoalConvShape *s = &p->s;
    const size_t plane = count_of(s->height, s->width, 1, 1), channels = (size_t)s->channels;
    const size_t batch = (size_t)s->batch, lanes = r->lanes;
    Gradient b = {.mask = blocked(lanes, batch, channels, plane, p->mask.data),
                  .mask_scale = blocked(lanes, 1, channels, 1, p->mask_scale.data),
                  .mask_shift = blocked(lanes, 1, channels, 1, p->mask_shift.data)};
    ShoalNchwcGradient *grad = &b.grad;
    *grad = (ShoalNchwcGradient){.g = r->g.data, .accumulate = p->c->accumulate};
    grad->finish = p->c->finish;
    grad->mask = p->c->mask ? b.mask.data : NULL;
    if (p->c->mask && p->c->mask_function) {
        grad->mask_scale = b.mask_scale.data;
        grad->mask_shift = b.mask_shift.data;
    }
    grad->sum_g = p->c->terms >= 0 ? r->sums[0] : NULL;
    grad->terms = p->c->terms >= 0 ? p->c->terms : 0;
    for (int t = 0; t < SHOAL_NCHWC_TERMS; t++) {
        b.z[t] = blocked(lanes, batch, channels, plane, p->z[t].data);
        b.center[t] = blocked(lanes, 1, channels, 1, p->center[t].data);
        grad->term[t].z = b.z[t].data;
        grad->term[t].center = b.center[t].data;
        grad->term[t].sum = r->sums[1 + t];
    }
    return b;
}

static void gradient_close(Gradient *b) {
    Array *arrays[] = {&b->mask, &b->mask_scale, &b->mask_shift, &b->z[0],
                       &b->z[1], &b->center[0],  &b->center[1]};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        array_close(arrays[i]);
}

/* By the two passes. */
static void backward(const Problem *p, const ShoalCompute *c, const Input *in, Result *r) {
    Array dy = blocked_outputs(p, r->lanes, p->dy.data);
    shoal_nchwc_conv_bwd_weights(c, &p->c->conv, &in->input, dy.data, r->dw.data,
                                 p->c->bias ? r->db.data : NULL);
    fill_guard(c->workspace, c->workspace_bytes / sizeof(float));
    if (!p->c->conv.plain_input) {
        Gradient to = gradient_open(p, r);
        shoal_nchwc_conv_bwd_data(c, &p->c->conv, dy.data, p->w.data, &to.grad);
        gradient_close(&to);
    }
    array_close(&dy);
}

/* At once. */
static void backward_whole(const Problem *p, const ShoalCompute *c, const Input *in, Result *r) {
    const Case *k = p->c;
    const size_t lanes = r->lanes, outputs = (size_t)p->s.outputs;
    Array g = blocked_outputs(p, lanes, k->dy == GIVEN ? p->dy.data : p->dy_g.data);
    Array z = blocked_outputs(p, lanes, p->dy_z.data), room = blocked_blank(g.count);
    Array a = blocked(lanes, 1, outputs, 1, p->dy_a.data);
    Array b = blocked(lanes, 1, outputs, 1, p->dy_b.data);
    Array c0 = blocked(lanes, 1, outputs, 1, p->dy_c.data);
    ShoalNchwcOutGradient dy = {.g = g.data};
    if (k->dy >= SCALED) {
        dy.a = a.data;
        dy.room = k->own_room ? room.data : g.data;
    }
    if (k->dy == MADE) {
        dy.z = z.data;
        dy.b = b.data;
        dy.c0 = c0.data;
    }
    Gradient to = gradient_open(p, r);
    shoal_nchwc_conv_bwd(c, &k->conv, k->no_dw ? NULL : &in->input, &dy, p->w.data,
                         k->no_dw ? NULL : r->dw.data, k->bias ? r->db.data : NULL,
                         k->no_dx ? NULL : &to.grad);
    gradient_close(&to);
    Array *arrays[] = {&g, &z, &room, &a, &b, &c0};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        array_close(arrays[i]);
}

static Result run(const Problem *p, ShoalCpuLevel level, unsigned threads) {
    const ShoalConvShape *s = &p->s;
    const ShoalKernels *kernels = shoal_kernels_for(level);
    size_t bytes = shoal_nchwc_conv_workspace_bytes(kernels, &p->c->conv, threads ? threads : 1);
    ShoalCompute c = check_compute(level, threads, bytes);
    Result r = {.lanes = (size_t)shoal_nchwc_lanes(kernels)};
    r.outs = shoal_nchwc_padded(s->outputs, (int)r.lanes);
    r.ins = shoal_nchwc_padded(s->channels, (int)r.lanes);
    r.y = blocked_blank((size_t)s->batch * r.outs * count_of(s->out_height, s->out_width, 1, 1));
    r.g = blocked(r.lanes, (size_t)s->batch, (size_t)s->channels,
                  count_of(s->height, s->width, 1, 1), p->g.data);
    for (size_t i = 0; !p->c->accumulate && i < r.g.count; i++)
        fill_guard(r.g.data + i, 1);
    r.dw = array_copy(&p->dw);
    r.db = array_copy(&p->db);
    r.mean = doubles(r.outs);
    r.variance = doubles(r.outs);
    for (int i = 0; i < SUMS; i++)
        r.sums[i] = doubles(r.ins);
    Input in = input_open(p, r.lanes);
    forward(p, &c, &in, &r);
    if (p->c->dy == SEPARATE)
        backward(p, &c, &in, &r);
    else
        backward_whole(p, &c, &in, &r);
    input_close(&in);
    check_compute_close(&c);
    return r;
}

static void result_close(Result *r) {
    array_close(&r->y);
    array_close(&r->g);
    array_close(&r->dw);
    array_close(&r->db);
    shoal_free(r->mean);
    shoal_free(r->variance);
    for (int i = 0; i < SUMS; i++)
        shoal_free(r->sums[i]);
}

/* --- Checks ------------------------------------------------------------------------------- */

static void check_near(const char *what, double got, double expected, double allowed) {
    if (!(fabs(got - expected) <= allowed))
        fail_msg("%s is %.9g, not %.9g (allowed %.3g)", what, got, expected, allowed);
}

/* Of the numbers that the level itself gave: the statistics are judged here, not the numbers. */
static void check_stats(const Problem *p, const Result *r, const float *y) {
    const size_t plane = count_of(p->s.out_height, p->s.out_width, 1, 1);
    const size_t batch = (size_t)p->s.batch, outputs = (size_t)p->s.outputs;
    const size_t total = batch * plane;
    for (size_t o = 0; o < outputs; o++) {
        double sum = 0, square = 0;
        for (size_t i = 0; i < total; i++)
            sum += (double)y[(i / plane * outputs + o) * plane + i % plane];
        double mean = sum / (double)total;
        for (size_t i = 0; i < total; i++) {
            double off = (double)y[(i / plane * outputs + o) * plane + i % plane] - mean;
            square += off * off;
        }
        double variance = square / (double)total, spread = sqrt(variance) + 1e-30;
        check_near("mean", r->mean[o], mean, check_tolerance(total, 8 * spread));
        check_near("variance", r->variance[o], variance,
                   check_tolerance(total, 64 * spread * spread));
    }
    for (size_t o = outputs; o < r->outs; o++)
        assert_true(r->mean[o] == 0 && r->variance[o] == 0);
}

static void check_sums(const Problem *p, const Result *r, const float *g) {
    const size_t plane = count_of(p->s.height, p->s.width, 1, 1);
    const size_t channels = (size_t)p->s.channels, total = (size_t)p->s.batch * plane;
    for (int t = 0; t <= p->c->terms; t++)
        for (size_t c = 0; c < channels; c++) {
            double sum = 0, size = 0;
            for (size_t i = 0; i < total; i++) {
                size_t at = (i / plane * channels + c) * plane + i % plane;
                double part = (double)g[at];
                if (t > 0)
                    part *= (double)p->z[t - 1].data[at] - (double)p->center[t - 1].data[c];
                sum += part;
                size += fabs(part);
            }
            check_near("sum", r->sums[t][c], sum, check_tolerance(total, 2 * size));
        }
}

/* What the mask takes away is 0, in the expectation too. */
static void expect_mask(Problem *p) {
    const size_t plane = count_of(p->s.height, p->s.width, 1, 1);
    for (size_t i = 0; p->c->finish && p->c->mask && i < p->xs; i++) {
        size_t c = i / plane % (size_t)p->s.channels;
        double m = (double)p->mask.data[i];
        if (p->c->mask_function)
            m = m * (double)p->mask_scale.data[c] + (double)p->mask_shift.data[c];
        if (!(m > 0))
            p->dx[i] = p->dx_size[i] = 0;
    }
}

static void check_result(const Problem *p, const char *name, const Result *r) {
    const ShoalConvShape *s = &p->s;
    const size_t batch = (size_t)s->batch, taps = count_of(s->kernel_h, s->kernel_w, 1, 1);
    char what[240];
    const size_t length = snprintf(
        what, sizeof what,
        "%s batch %d, %d@%dx%d -> %d@%dx%d, kernel %dx%d stride %d,%d pad "
        "%d,%d dilation %d,%d group %d%s: ",
        name, s->batch, s->channels, s->height, s->width, s->outputs, s->out_height, s->out_width,
        s->kernel_h, s->kernel_w, s->stride_h, s->stride_w, s->pad_h, s->pad_w, s->dilation_h,
        s->dilation_w, s->group, p->c->conv.plain_input ? " plain" : "");
    float *y = plain_of(r->lanes, batch, (size_t)s->outputs,
                        count_of(s->out_height, s->out_width, 1, 1), r->y.data);
    strcpy(what + length, "y");
    check_close(what, p->ys, taps * (size_t)(s->channels / s->group) + 2, y, p->y, p->y_size);
    if (p->c->stats)
        check_stats(p, r, y);
    shoal_free(y);
    strcpy(what + length, "dw");
    check_close(what, p->ws, count_of(s->batch, s->out_height, s->out_width, 1) + 1, r->dw.data,
                p->dw_sum, p->dw_size);
    strcpy(what + length, "db");
    if (p->c->bias)
        check_close(what, (size_t)s->outputs,
                    count_of(s->batch, s->out_height, s->out_width, 1) + 1, r->db.data, p->db_sum,
                    p->db_size);
    if (p->c->conv.plain_input || p->c->no_dx)
        return;
    float *g = plain_of(r->lanes, batch, (size_t)s->channels, count_of(s->height, s->width, 1, 1),
                        r->g.data);
    strcpy(what + length, "dx");
    check_close(what, p->xs, taps * (size_t)(s->outputs / s->group) + 2, g, p->dx, p->dx_size);
    if (p->c->finish)
        check_sums(p, r, g);
    shoal_free(g);
}

static void check_same(const Result *a, const Result *b) {
    const Array *of_a[] = {&a->y, &a->g, &a->dw, &a->db}, *of_b[] = {&b->y, &b->g, &b->dw, &b->db};
    for (size_t i = 0; i < sizeof of_a / sizeof *of_a; i++)
        assert_memory_equal(of_a[i]->data, of_b[i]->data, of_a[i]->count * sizeof(float));
    assert_memory_equal(a->mean, b->mean, a->outs * sizeof(double));
    assert_memory_equal(a->variance, b->variance, a->outs * sizeof(double));
    for (int i = 0; i < SUMS; i++)
        assert_memory_equal(a->sums[i], b->sums[i], a->ins * sizeof(double));
}

static bool runs(ShoalCpuLevel level, const Case *c) {
    return shoal_nchwc_lanes(shoal_kernels_for(level)) > 0 &&
           shoal_nchwc_conv_supported(shoal_kernels_for(level), &c->conv);
}

static void check_case(const Case *c) {
    Problem p = problem(c);
    expect_mask(&p);
    FOR_LEVELS(level) {
        if (!runs(level, c))
            continue;
        Result alone = run(&p, level, 0);
        check_result(&p, shoal_cpu_level_name(level), &alone);
        for (unsigned threads = 1; threads <= MOST_THREADS; threads++) {
            Result r = run(&p, level, threads);
            check_same(&alone, &r);
            result_close(&r);
        }
        result_close(&alone);
    }
    problem_close(&p);
}

/* --- Cases -------------------------------------------------------------------------------- */

static int outs(int size, int kernel, int stride, int pad, int dilation) {
    return (size + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1;
}

static ShoalConvShape shape(int batch, int channels, int height, int width, int outputs, int kernel,
                            int stride, int pad, int dilation) {
    return (ShoalConvShape){.batch = batch,
                            .channels = channels,
                            .height = height,
                            .width = width,
                            .outputs = outputs,
                            .out_height = outs(height, kernel, stride, pad, dilation),
                            .out_width = outs(width, kernel, stride, pad, dilation),
                            .kernel_h = kernel,
                            .kernel_w = kernel,
                            .stride_h = stride,
                            .stride_w = stride,
                            .pad_h = pad,
                            .pad_w = pad,
                            .dilation_h = dilation,
                            .dilation_w = dilation,
                            .group = 1};
}

/* The shape with different things before and after, one after the other. */
static void check_shape(ShoalConvShape s, bool plain) {
    static int kind;
    for (int i = 0; i < 2; i++, kind++) {
        Case c = {.conv = {.shape = s, .plain_input = plain},
                  .function = !plain && kind % 2 == 0,
                  .relu = !plain && kind % 4 < 2,
                  .bias = kind % 3 > 0,
                  .stats = kind % 5 < 3,
                  .accumulate = kind % 3 == 2,
                  .finish = kind % 7 > 0,
                  .mask = kind % 4 > 0,
                  .mask_function = kind % 5 > 2,
                  .terms = kind % (SHOAL_NCHWC_TERMS + 2) - 1};
        check_case(&c);
    }
}

static void test_pointwise(void **state) {
    (void)state;
    check_shape(shape(2, 20, 7, 5, 50, 1, 1, 0, 1), false);
    check_shape(shape(1, 3, 1, 1, 1, 1, 1, 0, 1), false);
    check_shape(shape(3, 64, 14, 14, 32, 1, 1, 0, 1), false);
    check_shape(shape(5, 33, 7, 7, 97, 1, 1, 0, 1), false);
    check_shape(shape(1, 17, 31, 37, 16, 1, 1, 0, 1), false);
    check_shape(shape(2, 20, 8, 9, 50, 1, 2, 0, 1), false);
    check_shape(shape(1, 16, 11, 13, 48, 1, 3, 0, 1), false);
    check_shape(shape(1, 16, 5, 6, 40, 1, 1, 1, 1), false);
    check_shape(shape(1, 300, 3, 3, 280, 1, 1, 0, 1), false);
    check_shape(shape(1, 33, 31, 37, 97, 1, 1, 0, 1), false);
    check_shape(shape(17, 16, 3, 5, 16, 1, 1, 0, 1), false);
}

static void test_spatial(void **state) {
    (void)state;
    check_shape(shape(2, 20, 7, 5, 50, 3, 1, 1, 1), false);
    check_shape(shape(1, 1, 9, 8, 3, 5, 1, 2, 1), false);
    check_shape(shape(1, 32, 29, 23, 16, 3, 1, 1, 1), false);
    check_shape(shape(4, 48, 4, 4, 33, 3, 1, 0, 1), false);
    check_shape(shape(1, 50, 6, 7, 20, 2, 1, 1, 1), false);
    check_shape(shape(1, 16, 9, 10, 16, 3, 1, 3, 2), false);
    check_shape(shape(1, 160, 6, 6, 150, 3, 1, 1, 1), false);
    check_shape(shape(5, 16, 40, 42, 40, 3, 1, 1, 1), false);
}

static void test_strides(void **state) {
    (void)state;
    check_shape(shape(2, 20, 9, 8, 50, 3, 2, 1, 1), false);
    check_shape(shape(1, 33, 13, 11, 17, 3, 3, 1, 1), false);
    check_shape(shape(1, 16, 14, 15, 16, 5, 2, 2, 1), false);
    check_shape(shape(1, 3, 23, 25, 20, 7, 4, 3, 1), false);
    check_shape(shape(1, 16, 12, 13, 16, 2, 4, 0, 1), false);
    check_shape(shape(1, 16, 17, 15, 16, 3, 2, 2, 2), false);
    check_shape(shape(1, 16, 40, 42, 16, 3, 2, 1, 1), false);
    check_shape(shape(2, 16, 19, 16, 16, 3, 2, 1, 3), false);
    check_shape(shape(1, 16, 13, 12, 16, 9, 2, 4, 1), false);
    ShoalConvShape s = shape(1, 20, 12, 10, 24, 3, 1, 1, 1);
    s.kernel_h = 2;
    s.stride_w = 2;
    s.pad_w = 2;
    s.out_height = outs(s.height, s.kernel_h, s.stride_h, s.pad_h, 1);
    s.out_width = outs(s.width, s.kernel_w, s.stride_w, s.pad_w, 1);
    check_shape(s, false);
    s.stride_h = 3;
    s.dilation_h = 2;
    s.out_height = outs(s.height, s.kernel_h, s.stride_h, s.pad_h, s.dilation_h);
    check_shape(s, false);
}

/* The stride leaps over all of the image, in one direction or both. */
static void test_only_padding_seen(void **state) {
    (void)state;
    check_shape(shape(2, 20, 2, 1, 17, 1, 3, 1, 1), false);
    ShoalConvShape s = shape(2, 20, 2, 5, 24, 3, 3, 1, 1);
    s.kernel_h = 1;
    s.out_height = outs(s.height, s.kernel_h, s.stride_h, s.pad_h, 1);
    check_shape(s, false);
    check_shape(s, true);
}

static void test_groups(void **state) {
    (void)state;
    ShoalConvShape s = shape(2, 64, 7, 6, 32, 3, 1, 1, 1);
    s.group = 2;
    check_shape(s, false);
    s = shape(1, 96, 9, 9, 96, 5, 2, 2, 1);
    s.group = 2;
    check_shape(s, false);
    s = shape(3, 64, 5, 5, 128, 1, 1, 0, 1);
    s.group = 4;
    check_shape(s, false);
}

static void test_plain(void **state) {
    (void)state;
    check_shape(shape(2, 3, 23, 22, 20, 7, 2, 3, 1), true);
    check_shape(shape(1, 1, 12, 13, 50, 5, 1, 0, 1), true);
    check_shape(shape(1, 3, 35, 36, 33, 11, 4, 0, 1), true);
    check_shape(shape(1, 3, 35, 33, 16, 11, 4, 2, 1), true);
    check_shape(shape(2, 2, 9, 8, 17, 3, 1, 1, 2), true);
    check_shape(shape(2, 3, 9, 8, 17, 1, 1, 0, 1), true);
    check_shape(shape(2, 3, 9, 8, 17, 1, 2, 0, 1), true);
}

/* The ways with tests of their own are reached from here too. */
static void test_other_ways(void **state) {
    (void)state;
    ShoalConvShape s = shape(2, 20, 9, 8, 20, 3, 1, 1, 1);
    s.group = 20;
    check_shape(s, false);
    s = shape(1, 33, 9, 8, 33, 3, 2, 1, 1);
    s.group = 33;
    check_shape(s, false);
    Case c = {.conv = {.shape = shape(2, 64, 14, 15, 64, 3, 1, 1, 1), .winograd = true},
              .function = true,
              .relu = true,
              .bias = true,
              .stats = true,
              .finish = true,
              .mask = true,
              .terms = 1};
    FOR_LEVELS(level)
    if (shoal_nchwc_lanes(shoal_kernels_for(level)) > 0)
        assert_true(shoal_nchwc_conv_uses_winograd(shoal_kernels_for(level), &c.conv));
    check_case(&c);
}

/* The backward pass at once, with every kind of dy and all that may not be asked for. */
static void check_whole(ShoalConvShape s, int cases) {
    static int kind;
    for (int i = 0; i < cases; i++, kind++) {
        Case c = {.conv = {.shape = s},
                  .function = kind % 2 == 0,
                  .relu = kind % 4 < 2,
                  .bias = kind / 3 % 2 == 0,
                  .accumulate = kind % 5 > 2,
                  .finish = kind % 7 > 0,
                  .mask = kind % 4 > 0,
                  .mask_function = kind % 5 > 1,
                  .terms = kind % (SHOAL_NCHWC_TERMS + 2) - 1,
                  .dy = (kind + 1) % 3 + GIVEN,
                  .own_room = kind % 8 < 4,
                  .no_dw = kind % 11 == 5,
                  .no_dx = kind % 11 == 9};
        check_case(&c);
    }
}

static void test_whole(void **state) {
    (void)state;
    check_whole(shape(2, 20, 7, 5, 50, 1, 1, 0, 1), 24);
    check_whole(shape(3, 50, 9, 11, 20, 1, 2, 0, 1), 24);
    check_whole(shape(1, 3, 1, 1, 1, 1, 1, 0, 1), 2);
    check_whole(shape(3, 33, 29, 31, 40, 1, 1, 0, 1), 6);
    check_whole(shape(2, 17, 42, 40, 36, 1, 2, 0, 1), 6);
    check_whole(shape(13, 40, 5, 6, 70, 1, 1, 0, 1), 3);
    check_whole(shape(1, 16, 2, 200, 16, 1, 1, 0, 1), 3);
    check_whole(shape(1, 16, 2, 500, 16, 1, 1, 0, 1), 3);
    ShoalConvShape s = shape(2, 20, 12, 10, 24, 1, 1, 0, 1);
    s.stride_w = 2;
    s.out_width = outs(s.width, 1, 2, 0, 1);
    check_whole(s, 3);
    check_whole(shape(2, 20, 7, 6, 50, 3, 1, 1, 1), 6);
    s = shape(2, 20, 9, 8, 20, 3, 1, 1, 1);
    s.group = 20;
    check_whole(s, 12);
}

static void test_unsupported(void **state) {
    (void)state;
    ShoalNchwcConv conv = {.shape = shape(1, 30, 5, 5, 30, 3, 1, 1, 1)};
    conv.shape.group = 5;
    FOR_LEVELS(level)
    assert_false(shoal_nchwc_conv_supported(shoal_kernels_for(level), &conv));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pointwise),   cmocka_unit_test(test_spatial),
        cmocka_unit_test(test_strides),     cmocka_unit_test(test_only_padding_seen),
        cmocka_unit_test(test_groups),      cmocka_unit_test(test_plain),
        cmocka_unit_test(test_other_ways),  cmocka_unit_test(test_whole),
        cmocka_unit_test(test_unsupported),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
