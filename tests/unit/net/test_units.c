/* SPDX-License-Identifier: Apache-2.0 */
/* Fused nets against the same nets layer by layer, and against numeric gradients. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "built_net.h"
#include "cpu/cpu.h"
#include "net/units.h"

#define MSRA "weight_filler { type: 'msra' }"
#define DATA(batch, channels, size)                                                                \
    "layer { name: 'd' type: 'DummyData' top: 'x' top: 't' dummy_data_param { "                    \
    "shape { dim: " #batch " dim: " #channels " dim: " #size " dim: " #size " } "                  \
    "shape { dim: " #batch " } data_filler { type: 'gaussian' std: 1 } "                           \
    "data_filler { type: 'constant' value: 1 } } }"
#define CONV_N(n, from, to, settings)                                                              \
    "layer { name: '" n "' type: 'Convolution' bottom: '" from "' top: '" to                       \
    "' convolution_param { " settings " " MSRA " } }"
#define CONV(from, to, settings) CONV_N(to, from, to, settings)
#define BN(from, to)                                                                               \
    "layer { name: 'bn_" to "' type: 'BatchNorm' bottom: '" from "' top: '" to                     \
    "' batch_norm_param { eps: 0.001 } }"
#define SCALE(from, to)                                                                            \
    "layer { name: 's_" to "' type: 'Scale' bottom: '" from "' top: '" to                          \
    "' scale_param { bias_term: true filler { type: 'uniform' min: 0.5 max: 1.5 } "                \
    "bias_filler { type: 'gaussian' std: 0.3 } } }"
#define RELU(from, to) "layer { name: 'r_" to "' type: 'ReLU' bottom: '" from "' top: '" to "' }"
#define NORM(blob) BN(blob, blob) SCALE(blob, blob)
#define BLOCK(from, to, settings) CONV(from, to, settings) NORM(to) RELU(to, to)
#define SUM(a, b, to)                                                                              \
    "layer { name: '" to "' type: 'Eltwise' bottom: '" a "' bottom: '" b "' top: '" to "' }"
#define POOL(from, to, settings)                                                                   \
    "layer { name: '" to "' type: 'Pooling' bottom: '" from "' top: '" to                          \
    "' pooling_param { " settings " } }"
#define END(from)                                                                                  \
    "layer { name: 'ip' type: 'InnerProduct' bottom: '" from "' top: 'ip' "                        \
    "inner_product_param { num_output: 4 " MSRA " } }"                                             \
    "layer { name: 'l' type: 'SoftmaxWithLoss' bottom: 'ip' bottom: 't' top: 'l' }"
#define C3 "num_output: 20 kernel_size: 3 pad: 1 bias_term: false"
#define C1 "num_output: 20 kernel_size: 1 bias_term: false"

typedef struct NetCase {
    const char *name, *text;
    int units; /* that are not on plain blobs, nor changes of layout: how much was fused */
} NetCase;

static const NetCase CASES[] = {
    {"chain", DATA(3, 3, 9) BLOCK("x", "a", C3) BLOCK("a", "b", C1) BLOCK("b", "c", C3) END("c"),
     3},
    {"not in place",
     DATA(3, 3, 9) CONV("x", "a", C3) BN("a", "b") SCALE("b", "c") RELU("c", "e") CONV("e", "f", C3)
         END("f"),
     2},
    {"bias and relu",
     DATA(2, 3, 8) CONV("x", "a", "num_output: 17 kernel_size: 3 stride: 2 pad: 1") RELU("a", "a")
         CONV("a", "b", "num_output: 9 kernel_size: 2") END("b"),
     2},
    {"identity",
     DATA(3, 3, 8) BLOCK("x", "a", C3) BLOCK("a", "b", C1) CONV("b", "c", C3) NORM("c")
         SUM("a", "c", "e") RELU("e", "e") END("e"),
     4},
    {"two identities",
     DATA(3, 3, 8) BLOCK("x", "a", C3) CONV("a", "c", C3) NORM("c") SUM("a", "c", "e")
         RELU("e", "e") CONV("e", "f", C1) NORM("f") SUM("f", "e", "g") RELU("g", "g")
             CONV("g", "h", C1) NORM("h") SUM("g", "h", "i") RELU("i", "i") END("i"),
     7},
    {"projection",
     DATA(3, 3, 8) BLOCK("x", "a", C3) CONV("a", "p", C1) NORM("p") BLOCK("a", "b", C3)
         CONV("b", "c", C1) NORM("c") SUM("p", "c", "e") RELU("e", "e") END("e"),
     5},
    {"projection, last",
     DATA(3, 3, 8) BLOCK("x", "a", C3) BLOCK("a", "b", C3) CONV("b", "c", C1) NORM("c")
         CONV("a", "p", C1) NORM("p") SUM("p", "c", "e") RELU("e", "e") END("e"),
     5},
    {"pre-activation",
     DATA(3, 3, 8) CONV("x", "a", C3) BN("a", "n") SCALE("n", "n") RELU("n", "n") CONV("n", "c", C3)
         SUM("a", "c", "e") BN("e", "o") SCALE("o", "o") RELU("o", "o") CONV("o", "f", C3)
             SUM("e", "f", "g") END("g"),
     7},
    {"sum of rectified",
     DATA(2, 3, 7) BLOCK("x", "a", C3) BLOCK("a", "b", C1) BLOCK("a", "c", C3) SUM("b", "c", "e")
         CONV("e", "f", C1) END("f"),
     5},
    {"sum with itself",
     DATA(2, 3, 7) BLOCK("x", "a", C3) SUM("a", "a", "b") CONV("b", "c", C1) END("c"), 3},
    {"sum of sums",
     DATA(2, 3, 7) BLOCK("x", "a", C3) CONV("a", "b", C1) NORM("b") CONV("a", "c", C1) NORM("c")
         CONV("a", "f", C1) NORM("f") SUM("b", "c", "g") SUM("g", "f", "h") RELU("h", "h") END("h"),
     6},
    {"sum, then norm",
     DATA(3, 3, 7) BLOCK("x", "a", C3) CONV("a", "b", C1) NORM("b") SUM("a", "b", "c") NORM("c")
         RELU("c", "c") END("c"),
     3},
    {"pooling",
     DATA(3, 3, 11) BLOCK("x", "a", C3) POOL("a", "b", "kernel_size: 3 stride: 2")
         BLOCK("b", "c", C3) POOL("c", "e", "pool: AVE kernel_size: 2 stride: 2 pad: 1")
             BLOCK("e", "f", C1) POOL("f", "g", "pool: AVE global_pooling: true") END("g"),
     6},
    {"pooling, then norm",
     DATA(3, 3, 9) CONV("x", "a", C3) POOL("a", "b", "kernel_size: 2 stride: 2") NORM("b")
         RELU("b", "b") CONV("b", "c", C1) END("c"),
     3},
    {"depthwise",
     DATA(3, 3, 8) BLOCK("x", "a", C3)
         BLOCK("a", "b", "num_output: 20 group: 20 kernel_size: 3 pad: 1 bias_term: false")
             BLOCK("b", "c", C1) END("c"),
     3},
    {"scale alone", DATA(3, 3, 8) CONV("x", "a", C3) SCALE("a", "a") RELU("a", "a") END("a"), 1},
    {"norm alone", DATA(3, 3, 8) CONV("x", "a", C3) BN("a", "a") CONV("a", "b", C1) END("b"), 2},
    {"plain readers",
     DATA(3, 3, 8) BLOCK("x", "a", C3) POOL(
         "a", "p",
         "pool: AVE global_pooling: true") "layer { name: 'dr' type: 'ReLU' bottom: 'a' top: 'q' "
                                           "relu_param { negative_slope: 0.1 } }" CONV("q", "b", C1)
                                               POOL("b", "c", "pool: AVE global_pooling: true")
                                                   SUM("p", "c", "e") END("e"),
     5},
    {"frozen weights",
     DATA(3, 3, 8) BLOCK(
         "x", "a",
         C3) "layer { name: 'b' type: 'Convolution' bottom: 'a' top: 'b' param { lr_mult: 0 } "
             "convolution_param { " C3 " " MSRA " } }" NORM("b") RELU("b", "b") CONV("b", "c", C1)
                 END("c"),
     3},
    {"frozen below",
     DATA(3, 3,
          8) "layer { name: 'b' type: 'Convolution' bottom: 'x' top: 'b' param { lr_mult: 0 } "
             "convolution_param { " C3 " " MSRA " } }" NORM("b") RELU("b", "b") CONV("b", "c", C1)
                 END("c"),
     2},
    {"stored statistics",
     DATA(3, 3, 8) BLOCK("x", "a", C3)
         CONV("a", "b",
              C1) "layer { name: 'g' type: 'BatchNorm' bottom: 'b' top: 'b' batch_norm_param { "
                  "use_global_stats: true eps: 1 } }" SCALE("b", "b") RELU("b", "b") END("b"),
     2},
};

enum { N_CASES = sizeof CASES / sizeof CASES[0] };

static void open_case(BuiltNet *b, const NetCase *what, const ShoalKernels *kernels,
                      bool recompute) {
    const ShoalNetOptions options = {.phase = CAFFE__PHASE__TRAIN,
                                     .seed = 7,
                                     .backward = true,
                                     .kernels = kernels,
                                     .recompute = recompute,
                                     .fuse_all = true};
    built_net_open_with(b, what->text, &options);
    if (kernels)
        b->compute.kernels = kernels;
}

static int fused_units(const ShoalNet *net) {
    int count = 0;
    for (int u = 0; u < net->n_units; u++) {
        ShoalUnitKind kind = net->units[u].kind;
        count += kind != SHOAL_UNIT_LAYER && kind != SHOAL_UNIT_BLOCK && kind != SHOAL_UNIT_UNBLOCK;
    }
    return count;
}

static double norm_of(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sqrt(sum);
}

static double distance(const float *x, const float *y, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    return sqrt(sum);
}

/* Every gradient, and every stored number that forward moves. The floor is for gradients that are 0
 * but for rounding: of what a batch normalisation above subtracts. */
static void compare(const NetCase *what, BuiltNet *fused, BuiltNet *plain) {
    ShoalNetParams f = shoal_net_params(fused->net), p = shoal_net_params(plain->net);
    double scale = norm_of(p.gradients, p.gradient_count) / sqrt((double)p.gradient_count);
    assert_int_equal(f.count, p.count);
    for (int i = 0; i < f.count; i++) {
        const ShoalBlob *a = &f.items[i]->blob, *b = &p.items[i]->blob;
        double floor = 1e-2 * scale * sqrt((double)a->count);
        if (distance(a->data, b->data, a->count) > 1e-5 * (norm_of(b->data, b->count) + 1e-6))
            fail_msg("%s: %s: other data", what->name, a->name);
        if (!b->diff)
            continue;
        double off = distance(a->diff, b->diff, a->count) / (norm_of(b->diff, b->count) + floor);
        if (!(off < 1e-4))
            fail_msg("%s: gradient %d of %s is off by %g", what->name, f.items[i]->index, a->name,
                     off);
    }
}

/* The whole batch, then less. */
static void compare_shares(const NetCase *what, BuiltNet *fused, BuiltNet *plain) {
    for (int share = 0; share < 2; share++) {
        int samples = shoal_net_batch(fused->net) - share;
        assert_int_equal(shoal_net_set_share(fused->net, samples, 5, NULL, &fused->err), 0);
        assert_int_equal(shoal_net_set_share(plain->net, samples, 5, NULL, &plain->err), 0);
        double a = built_net_run(fused), b = built_net_run(plain);
        if (!(fabs(a - b) < 1e-5 * fabs(b)))
            fail_msg("%s: loss %.9g, not %.9g", what->name, a, b);
        compare(what, fused, plain);
    }
}

static void against_plain(void **state) {
    (void)state;
    for (int level = SHOAL_CPU_C + 1; level < SHOAL_CPU_LEVELS; level++) {
        const ShoalKernels *kernels = shoal_kernels_for((ShoalCpuLevel)level);
        for (int i = 0; kernels && i < N_CASES; i++) {
            BuiltNet fused, plain;
            open_case(&fused, &CASES[i], kernels, false);
            open_case(&plain, &CASES[i], NULL, false);
            if (fused_units(fused.net) != CASES[i].units)
                fail_msg("%s: %d units are fused, not %d", CASES[i].name, fused_units(fused.net),
                         CASES[i].units);
            compare_shares(&CASES[i], &fused, &plain);
            built_net_close(&fused);
            built_net_close(&plain);
        }
    }
}

/* To make numbers again gives the same numbers, in no more memory. */
static void recomputed(void **state) {
    (void)state;
    size_t kept_bytes = 0, again_bytes = 0;
    int again = 0;
    for (int level = SHOAL_CPU_C + 1; level < SHOAL_CPU_LEVELS; level++) {
        const ShoalKernels *kernels = shoal_kernels_for((ShoalCpuLevel)level);
        for (int i = 0; kernels && i < N_CASES; i++) {
            BuiltNet a, b;
            open_case(&a, &CASES[i], kernels, false);
            open_case(&b, &CASES[i], kernels, true);
            built_net_run(&a);
            built_net_run(&b);
            ShoalNetParams p = shoal_net_params(a.net), q = shoal_net_params(b.net);
            if (memcmp(p.gradients, q.gradients, p.gradient_count * sizeof(float)) ||
                memcmp(p.data, q.data, p.data_count * sizeof(float)))
                fail_msg("%s: other numbers", CASES[i].name);
            kept_bytes += shoal_net_arena_bytes(a.net);
            again_bytes += shoal_net_arena_bytes(b.net);
            again += b.net->n_again;
            built_net_close(&a);
            built_net_close(&b);
        }
    }
    assert_true(again == 0 || again_bytes < kept_bytes);
}

/* The loss along a random direction d of one parameter: (L(w + hd) - L(w - hd)) / 2h = <dL/dw, d>.
 * Of each of a loss of about 1 a rounding of 1e-7 gives 1e-5 at h = 1e-2; kinks that are crossed
 * give more, so h is small and the bound wide: a wrong term is off by its whole size. */
static void check_direction(const NetCase *what, BuiltNet *b, ShoalParam *param, ShoalRng *rng) {
    ShoalBlob *blob = &param->blob;
    float *d = shoal_calloc(blob->count, sizeof *d), *w = shoal_calloc(blob->count, sizeof *w);
    double slope = 0, h = 2e-3, length = 0;
    float loss[2];
    assert_true(d && w);
    memcpy(w, blob->data, blob->count * sizeof *w);
    for (size_t i = 0; i < blob->count; i++) {
        d[i] = shoal_rng_unit(rng) - 0.5f;
        length += (double)d[i] * d[i];
    }
    for (size_t i = 0; i < blob->count; i++) {
        d[i] = (float)(d[i] / sqrt(length));
        slope += (double)d[i] * blob->diff[i];
    }
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < blob->count; i++)
            blob->data[i] = (float)(w[i] + (side ? -h : h) * d[i]);
        loss[side] = built_net_forward(b);
    }
    memcpy(blob->data, w, blob->count * sizeof *w);
    double numeric = ((double)loss[0] - loss[1]) / (2 * h);
    double all = norm_of(blob->diff, blob->count);
    if (!(fabs(numeric - slope) < 2e-3 + 0.03 * all))
        fail_msg("%s: gradient %d of %s: %g along a direction, numerically %g", what->name,
                 param->index, blob->name, slope, numeric);
    shoal_free(d);
    shoal_free(w);
}

static void against_numeric(void **state) {
    (void)state;
    ShoalRng rng;
    shoal_rng_init(&rng, 5, SHOAL_RNG_TEST, 0);
    for (int level = SHOAL_CPU_C + 1; level < SHOAL_CPU_LEVELS; level++) {
        const ShoalKernels *kernels = shoal_kernels_for((ShoalCpuLevel)level);
        for (int i = 0; kernels && i < N_CASES; i++) {
            BuiltNet b;
            open_case(&b, &CASES[i], kernels, false);
            built_net_run(&b);
            ShoalNetParams params = shoal_net_params(b.net);
            for (int j = 0; j < params.count; j++)
                if (params.items[j]->learns)
                    check_direction(&CASES[i], &b, params.items[j], &rng);
            built_net_close(&b);
        }
    }
}

/* Same level, other number of threads: the same bits. */
static void threads(void **state) {
    (void)state;
    const ShoalKernels *kernels = NULL;
    for (int level = SHOAL_CPU_C + 1; level < SHOAL_CPU_LEVELS; level++)
        if (shoal_kernels_for((ShoalCpuLevel)level))
            kernels = shoal_kernels_for((ShoalCpuLevel)level);
    for (int i = 0; kernels && i < N_CASES; i++) {
        BuiltNet one, three;
        ShoalPool *pool = shoal_pool_create(3);
        assert_non_null(pool);
        open_case(&one, &CASES[i], kernels, false);
        const ShoalNetOptions options = {.phase = CAFFE__PHASE__TRAIN,
                                         .seed = 7,
                                         .backward = true,
                                         .kernels = kernels,
                                         .threads = 3,
                                         .fuse_all = true};
        built_net_open_with(&three, CASES[i].text, &options);
        three.compute.kernels = kernels;
        three.compute.pool = pool;
        built_net_run(&one);
        built_net_run(&three);
        ShoalNetParams a = shoal_net_params(one.net), b = shoal_net_params(three.net);
        assert_memory_equal(a.gradients, b.gradients, a.gradient_count * sizeof(float));
        assert_memory_equal(a.data, b.data, a.data_count * sizeof(float));
        built_net_close(&one);
        built_net_close(&three);
        shoal_pool_destroy(pool);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_plain), cmocka_unit_test(recomputed),
        cmocka_unit_test(against_numeric), cmocka_unit_test(threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
