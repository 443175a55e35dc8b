/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/check.h"

/* All three passes at once, by the definition: every product w * x that the forward pass takes. */
typedef struct Expected {
    double *y, *y_size, *dx, *dx_size, *dw, *dw_size, *db, *db_size;
    size_t y_terms, dx_terms, dw_terms;
} Expected;

typedef struct Problem {
    ShoalConvShape s;
    size_t xs, ys, ws;
    Array x, w, bias, dy, dw, db; /* dw, db: before */
    Expected e;
} Problem;

static size_t count_of(int a, int b, int c, int d) {
    return (size_t)a * (size_t)b * (size_t)c * (size_t)d;
}

static double *doubles(size_t count) {
    double *data = shoal_calloc(count, sizeof *data);
    assert_non_null(data);
    return data;
}

/* One weight w[o][c][u][v] with everything that it touches in image b. */
static void touch(Problem *p, int b, int o, int c, int u, int v) {
    const ShoalConvShape *s = &p->s;
    int in_group = s->channels / s->group, channel = o / (s->outputs / s->group) * in_group + c;
    size_t wi = ((count_of(o, in_group, 1, 1) + (size_t)c) * (size_t)s->kernel_h + (size_t)u) *
                    (size_t)s->kernel_w +
                (size_t)v;
    double w = (double)p->w.data[wi];
    for (int i = 0; i < s->out_height; i++)
        for (int j = 0; j < s->out_width; j++) {
            int h = i * s->stride_h - s->pad_h + u * s->dilation_h;
            int k = j * s->stride_w - s->pad_w + v * s->dilation_w;
            if (h < 0 || k < 0 || h >= s->height || k >= s->width)
                continue;
            size_t xi = ((size_t)(b * s->channels + channel) * (size_t)s->height + (size_t)h) *
                            (size_t)s->width +
                        (size_t)k;
            size_t yi = ((size_t)(b * s->outputs + o) * (size_t)s->out_height + (size_t)i) *
                            (size_t)s->out_width +
                        (size_t)j;
            double x = (double)p->x.data[xi], dy = (double)p->dy.data[yi];
            p->e.y[yi] += w * x;
            p->e.y_size[yi] += fabs(w * x);
            p->e.dx[xi] += w * dy;
            p->e.dx_size[xi] += fabs(w * dy);
            p->e.dw[wi] += dy * x;
            p->e.dw_size[wi] += fabs(dy * x);
        }
}

static void expect_bias(Problem *p) {
    size_t plane = (size_t)p->s.out_height * (size_t)p->s.out_width;
    for (size_t i = 0; i < p->ys; i++) {
        size_t o = i / plane % (size_t)p->s.outputs;
        p->e.y[i] += (double)p->bias.data[o];
        p->e.y_size[i] += fabs((double)p->bias.data[o]);
        p->e.db[o] += (double)p->dy.data[i];
        p->e.db_size[o] += fabs((double)p->dy.data[i]);
    }
    for (size_t i = 0; i < p->ws; i++) {
        p->e.dw[i] += (double)p->dw.data[i];
        p->e.dw_size[i] += fabs((double)p->dw.data[i]);
    }
    for (int o = 0; o < p->s.outputs; o++) {
        p->e.db[o] += (double)p->db.data[o];
        p->e.db_size[o] += fabs((double)p->db.data[o]);
    }
}

static Problem problem(ShoalConvShape s) {
    Problem p = {.s = s};
    int in_group = s.channels / s.group;
    p.xs = count_of(s.batch, s.channels, s.height, s.width);
    p.ys = count_of(s.batch, s.outputs, s.out_height, s.out_width);
    p.ws = count_of(s.outputs, in_group, s.kernel_h, s.kernel_w);
    p.x = array_random(p.xs);
    p.w = array_random(p.ws);
    p.bias = array_random((size_t)s.outputs);
    p.dy = array_random(p.ys);
    p.dw = array_random(p.ws);
    p.db = array_random((size_t)s.outputs);
    p.e = (Expected){doubles(p.ys),
                     doubles(p.ys),
                     doubles(p.xs),
                     doubles(p.xs),
                     doubles(p.ws),
                     doubles(p.ws),
                     doubles((size_t)s.outputs),
                     doubles((size_t)s.outputs),
                     count_of(in_group, s.kernel_h, s.kernel_w, 1) + 1,
                     count_of(s.outputs / s.group, s.kernel_h, s.kernel_w, 1),
                     count_of(s.batch, s.out_height, s.out_width, 1) + 1};
    for (int b = 0; b < s.batch; b++)
        for (int o = 0; o < s.outputs; o++)
            for (int c = 0; c < in_group; c++)
                for (int u = 0; u < s.kernel_h; u++)
                    for (int v = 0; v < s.kernel_w; v++)
                        touch(&p, b, o, c, u, v);
    expect_bias(&p);
    return p;
}

static void problem_close(Problem *p) {
    Array *arrays[] = {&p->x, &p->w, &p->bias, &p->dy, &p->dw, &p->db};
    double *sums[] = {p->e.y,  p->e.y_size,  p->e.dx, p->e.dx_size,
                      p->e.dw, p->e.dw_size, p->e.db, p->e.db_size};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        array_close(arrays[i]);
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        shoal_free(sums[i]);
}

/* What the three passes give. */
typedef struct Result {
    Array y, dx, dw, db;
} Result;

static Result run(const Problem *p, ShoalCpuLevel level, unsigned threads) {
    size_t bytes = shoal_conv_workspace_bytes(&p->s, threads ? threads : 1);
    ShoalCompute c = check_compute(level, threads, bytes);
    Result r = {array_blank(p->ys), array_blank(p->xs), array_copy(&p->dw), array_copy(&p->db)};
    shoal_conv_fwd(&c, &p->s, p->x.data, p->w.data, p->bias.data, r.y.data);
    fill_guard(c.workspace, bytes / sizeof(float));
    shoal_conv_bwd_weights(&c, &p->s, p->x.data, p->dy.data, r.dw.data, r.db.data);
    fill_guard(c.workspace, bytes / sizeof(float));
    shoal_conv_bwd_data(&c, &p->s, p->dy.data, p->w.data, r.dx.data);
    check_compute_close(&c);
    return r;
}

static void result_close(Result *r) {
    array_close(&r->y);
    array_close(&r->dx);
    array_close(&r->dw);
    array_close(&r->db);
}

static void check_result(const Problem *p, ShoalCpuLevel level, const Result *r) {
    const ShoalConvShape *s = &p->s;
    char shape[160], what[200];
    snprintf(shape, sizeof shape,
             "%s batch %d, %d@%dx%d -> %d@%dx%d, kernel %dx%d stride %d,%d pad %d,%d "
             "dilation %d,%d group %d",
             shoal_cpu_level_name(level), s->batch, s->channels, s->height, s->width, s->outputs,
             s->out_height, s->out_width, s->kernel_h, s->kernel_w, s->stride_h, s->stride_w,
             s->pad_h, s->pad_w, s->dilation_h, s->dilation_w, s->group);
    snprintf(what, sizeof what, "forward, %s", shape);
    check_close(what, p->ys, p->e.y_terms, r->y.data, p->e.y, p->e.y_size);
    snprintf(what, sizeof what, "backward data, %s", shape);
    check_close(what, p->xs, p->e.dx_terms, r->dx.data, p->e.dx, p->e.dx_size);
    snprintf(what, sizeof what, "backward weights, %s", shape);
    check_close(what, p->ws, p->e.dw_terms, r->dw.data, p->e.dw, p->e.dw_size);
    snprintf(what, sizeof what, "backward bias, %s", shape);
    check_close(what, (size_t)s->outputs, 1, r->db.data, p->e.db, p->e.db_size);
}

static void assert_same(const Array *a, const Array *b) {
    assert_memory_equal(a->data, b->data, a->count * sizeof *a->data);
}

static void check_shape(ShoalConvShape s) {
    Problem p = problem(s);
    FOR_LEVELS(level) {
        Result one = run(&p, level, 0);
        check_result(&p, level, &one);
        for (unsigned threads = 1; threads <= MOST_THREADS; threads++) {
            Result r = run(&p, level, threads);
            assert_same(&r.y, &one.y);
            assert_same(&r.dx, &one.dx);
            assert_same(&r.dw, &one.dw);
            assert_same(&r.db, &one.db);
            result_close(&r);
        }
        result_close(&one);
    }
    problem_close(&p);
}

/* Output size by Caffe's rule; 0 or less when the kernel does not fit. */
static int out_size(int size, int kernel, int stride, int pad, int dilation) {
    int extent = dilation * (kernel - 1) + 1;
    return size + 2 * pad < extent ? 0 : (size + 2 * pad - extent) / stride + 1;
}

static ShoalConvShape shape_of(int batch, int channels, int height, int width, int outputs,
                               int kernel, int stride, int pad, int dilation, int group) {
    return (ShoalConvShape){batch,
                            channels,
                            height,
                            width,
                            outputs,
                            out_size(height, kernel, stride, pad, dilation),
                            out_size(width, kernel, stride, pad, dilation),
                            kernel,
                            kernel,
                            stride,
                            stride,
                            pad,
                            pad,
                            dilation,
                            dilation,
                            group};
}

static void layers_of_lenet(void **state) {
    (void)state;
    check_shape(shape_of(3, 1, 28, 28, 20, 5, 1, 0, 1, 1));
    check_shape(shape_of(5, 20, 12, 12, 50, 5, 1, 0, 1, 1));
}

static void usual_layers(void **state) {
    (void)state;
    check_shape(shape_of(2, 3, 23, 19, 7, 7, 2, 3, 1, 1));   /* stem */
    check_shape(shape_of(3, 20, 14, 14, 33, 3, 1, 1, 1, 1)); /* 3x3 same */
    check_shape(shape_of(3, 17, 7, 7, 29, 3, 1, 1, 1, 1));   /* panels across images */
    check_shape(shape_of(2, 61, 9, 9, 37, 1, 1, 0, 1, 1));   /* pointwise */
    check_shape(shape_of(2, 13, 9, 11, 31, 1, 2, 0, 1, 1));  /* pointwise, stride 2 */
    check_shape(shape_of(1, 150, 5, 5, 16, 3, 1, 1, 1, 1));  /* more than one block of k */
    check_shape(shape_of(3, 60, 7, 7, 15, 3, 1, 1, 1, 1));   /* and panels across images */
    check_shape(shape_of(2, 8, 13, 13, 12, 3, 1, 2, 2, 1));  /* dilated */
    check_shape(shape_of(2, 12, 11, 11, 20, 5, 1, 2, 1, 2)); /* two groups, AlexNet */
    check_shape(shape_of(1, 3, 8, 8, 50, 8, 1, 0, 1, 1));    /* one output pixel */
    check_shape(shape_of(9, 2, 3, 1, 1, 1, 1, 0, 1, 1));
}

static void wide_images(void **state) {
    (void)state;
    check_shape(shape_of(1, 1, 5, 300, 3, 3, 1, 1, 1, 1));
    check_shape(shape_of(1, 2, 40, 41, 5, 3, 1, 0, 1, 1));
    check_shape(shape_of(1, 2, 61, 67, 2, 3, 2, 1, 1, 2));
}

static void depthwise_layers(void **state) {
    (void)state;
    check_shape(shape_of(2, 5, 14, 14, 5, 3, 1, 1, 1, 5));
    check_shape(shape_of(2, 5, 15, 33, 5, 3, 2, 1, 1, 5));
    check_shape(shape_of(3, 3, 11, 9, 6, 5, 1, 0, 1, 3)); /* two outputs per channel */
    check_shape(shape_of(1, 4, 12, 21, 4, 3, 1, 2, 2, 4));
}

static int between(int low, int high) {
    return low + (int)check_below((size_t)(high - low + 1));
}

/* Any rectangle, stride, padding, dilation and group. */
static void random_layers(void **state) {
    (void)state;
    for (int i = 0; i < 80;) {
        static const int groups[] = {1, 1, 1, 2, 3, 5};
        ShoalConvShape s = {.batch = between(1, 4), .group = groups[check_below(6)]};
        s.channels = s.group * between(1, 6);
        s.outputs = s.group * between(1, 18);
        s.height = between(1, 19);
        s.width = between(1, 37);
        s.kernel_h = between(1, 5);
        s.kernel_w = between(1, 5);
        s.stride_h = between(1, 3);
        s.stride_w = between(1, 3);
        s.pad_h = between(0, 4);
        s.pad_w = between(0, 4);
        s.dilation_h = between(1, 3);
        s.dilation_w = between(1, 3);
        s.out_height = out_size(s.height, s.kernel_h, s.stride_h, s.pad_h, s.dilation_h);
        s.out_width = out_size(s.width, s.kernel_w, s.stride_w, s.pad_w, s.dilation_w);
        if (s.out_height <= 0 || s.out_width <= 0)
            continue;
        check_shape(s);
        i++;
    }
}

/* More images than a round holds, by their border. */
static void several_rounds(void **state) {
    (void)state;
    check_shape(shape_of(3, 8, 70, 70, 2, 3, 2, 150, 1, 1));
}

static void bias_is_optional(void **state) {
    (void)state;
    ShoalConvShape s = shape_of(2, 3, 9, 9, 5, 3, 1, 1, 1, 1);
    Problem p = problem(s);
    FOR_LEVELS(level) {
        ShoalCompute c = check_compute(level, 1, shoal_conv_workspace_bytes(&s, 1));
        Array with = array_blank(p.ys), without = array_blank(p.ys), dw = array_copy(&p.dw);
        float zeros[5] = {0};
        shoal_conv_fwd(&c, &s, p.x.data, p.w.data, zeros, with.data);
        shoal_conv_fwd(&c, &s, p.x.data, p.w.data, NULL, without.data);
        assert_same(&with, &without);
        shoal_conv_bwd_weights(&c, &s, p.x.data, p.dy.data, dw.data, NULL);
        check_close("backward weights", p.ws, p.e.dw_terms, dw.data, p.e.dw, p.e.dw_size);
        check_compute_close(&c);
        array_close(&with);
        array_close(&without);
        array_close(&dw);
    }
    problem_close(&p);
}

static void empty_batch(void **state) {
    (void)state;
    check_shape(shape_of(0, 3, 9, 9, 5, 3, 1, 1, 1, 1));
}

/* Sizes that no machine holds give a size that no allocation grants, never a small one. */
static void huge_workspaces(void **state) {
    (void)state;
    const int big = INT32_MAX;
    ShoalConvShape s = {big, big, big, big, big, big, big, big, big, 1, 1, big, big, 1, 1, 1};
    assert_true(shoal_conv_workspace_bytes(&s, 64) > (size_t)1 << 62);
    s = shape_of(1, 1, 9, 9, 1, 3, 1, 1, 1, 1);
    s.pad_h = s.pad_w = big;
    assert_true(shoal_conv_workspace_bytes(&s, 1) > (size_t)1 << 60);
    s = shape_of(1, big, 1, 1, big, 1, 1, 0, 1, 1);
    assert_true(shoal_conv_workspace_bytes(&s, 1) > (size_t)1 << 62);
    s.group = big;
    s.height = s.width = s.out_height = s.out_width = big;
    assert_true(shoal_conv_workspace_bytes(&s, 4000000000u) > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layers_of_lenet),  cmocka_unit_test(usual_layers),
        cmocka_unit_test(wide_images),      cmocka_unit_test(depthwise_layers),
        cmocka_unit_test(random_layers),    cmocka_unit_test(several_rounds),
        cmocka_unit_test(bias_is_optional), cmocka_unit_test(empty_batch),
        cmocka_unit_test(huge_workspaces),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
