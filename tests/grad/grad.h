/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_GRAD_H
#define SHOAL_TESTS_GRAD_H

/* The backward pass of a layer against numeric gradients (central differences), for every bottom
 * and weight that gets one; and proof that the comparison fails for a wrong backward pass. A test
 * program has a table of GradCase and GRAD_MAIN(table) at its end.
 *
 * The objective is L = sum of r * top with random r, summed in double; backward gets r as the tops'
 * diffs. Per value: |analytic - numeric| <= 1e-3 * (largest gradient of the tensor), step 1e-2 as
 * Caffe's GradientChecker has it. Errors of the method stay far below that: what does not depend on
 * the value cancels to the bit in L(x+h) - L(x-h); of what does, each top is off by about 1e-7, so
 * the quotient by about 1e-7 * sqrt(tops) / 2e-2 < 1e-4 for the sizes here, where gradients are
 * about 1; the curvature term h^2/6 * L''' is below 1e-4 for softmax (a case with a sharper bend
 * gives a smaller step). Inputs of layers with a kink stay further than a step away from it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "net_harness.h"

#define STEP 1e-2f
#define THRESHOLD 1e-3
#define BEFORE 0.25f /* what weight diffs hold before backward, which is to add to it */

/* Uniform in [-1, 1]; that, moved away from 0 by 0.05; multiples of 0.05, all different; at one
 * place of several bottoms, 0.05 apart or more; uniform in [0.5, 2]. */
typedef enum InputKind { SMOOTH, OFF_ZERO, DISTINCT, APART, POSITIVE } InputKind;

typedef struct GradCase {
    const char *text;
    Shape bottoms[5];
    int n_bottoms;
    InputKind inputs;
    int classes; /* bottom 1 holds labels below this */
    int ignored; /* every third label is this one; 0: none is */
    int graded;  /* tops that pass a gradient; 0: all */
    float step;  /* 0: STEP */
    /* Fills values[0..n) of a bottom and returns true; false: as all else here says. */
    bool (*draw)(ShoalRng *rng, int bottom, size_t n, float *values);
    void (*prepare)(Harness *h); /* before setup: may set the context */
} GradCase;

static const GradCase *grad_cases;
static size_t grad_n_cases;

/* ---- the checker ---- */

typedef struct Check {
    const GradCase *what;
    Harness h;
    float *inputs[HARNESS_BLOBS];  /* the bottoms' values: an in-place layer overwrites them */
    float *factors[HARNESS_BLOBS]; /* r, per top */
    char report[256];              /* the first wrong value; empty when all are right */
} Check;

static inline int graded_tops(const Check *check) {
    return check->what->graded ? check->what->graded : check->h.layer.n_tops;
}

static inline void shuffle(ShoalRng *rng, size_t n, float *values) {
    for (size_t i = n; i > 1; i--) {
        size_t j = shoal_rng_below(rng, (uint32_t)i);
        float other = values[i - 1];
        values[i - 1] = values[j];
        values[j] = other;
    }
}

static inline void draw_input(ShoalRng *rng, InputKind kind, int bottom, size_t n, float *values) {
    shoal_rng_fill_uniform(rng, -1, 1, n, values);
    for (size_t i = 0; i < n; i++) {
        if (kind == OFF_ZERO)
            values[i] += values[i] < 0 ? -0.05f : 0.05f;
        if (kind == DISTINCT)
            values[i] = ((float)i - (float)n / 2) * 0.05f;
        if (kind == POSITIVE)
            values[i] = 1.25f + 0.75f * values[i];
        if (kind == APART) /* at one place: at least 0.05 from other bottoms' */
            values[i] = roundf(values[i] / 0.15f) * 0.15f + 0.05f * (float)bottom;
    }
    if (kind == DISTINCT)
        shuffle(rng, n, values);
}

static inline void draw_labels(ShoalRng *rng, const GradCase *what, size_t n, float *values) {
    for (size_t i = 0; i < n; i++) {
        values[i] = (float)shoal_rng_below(rng, (uint32_t)what->classes);
        if (what->ignored && i % 3 == 1)
            values[i] = (float)what->ignored;
    }
}

static inline void check_draw(Check *check) {
    ShoalLayer *layer = &check->h.layer;
    ShoalRng rng;
    shoal_rng_init(&rng, 20, SHOAL_RNG_TEST, (uint32_t)(check->what - grad_cases));
    for (int i = 0; i < layer->n_bottoms; i++) {
        size_t n = layer->bottoms[i]->count;
        check->inputs[i] = harness_floats(n);
        if (check->what->draw && check->what->draw(&rng, i, n, check->inputs[i]))
            continue;
        if (i == 1 && check->what->classes)
            draw_labels(&rng, check->what, n, check->inputs[i]);
        else
            draw_input(&rng, check->what->inputs, i, n, check->inputs[i]);
    }
    for (int i = 0; i < layer->n_params; i++) {
        ShoalBlob *blob = &layer->params[i]->blob;
        /* What does not learn may be a variance. */
        bool learns = layer->params[i]->learns;
        shoal_rng_fill_uniform(&rng, learns ? -1 : 0.5f, learns ? 1 : 1.5f, blob->count,
                               blob->data);
    }
    for (int i = 0; i < graded_tops(check); i++) {
        check->factors[i] = harness_floats(layer->tops[i]->count);
        shoal_rng_fill_uniform(&rng, 0.5f, 2, layer->tops[i]->count, check->factors[i]);
        for (size_t j = 1; j < layer->tops[i]->count; j += 2)
            check->factors[i][j] *= -1;
    }
}

static inline void restore_inputs(Check *check) {
    ShoalLayer *layer = &check->h.layer;
    for (int i = 0; i < layer->n_bottoms; i++)
        harness_set(layer->bottoms[i]->data, layer->bottoms[i]->count, check->inputs[i]);
}

static inline double objective(Check *check) {
    restore_inputs(check);
    harness_forward(&check->h);
    double sum = 0;
    for (int i = 0; i < graded_tops(check); i++) {
        const ShoalBlob *top = check->h.layer.tops[i];
        for (size_t j = 0; j < top->count; j++)
            sum += (double)check->factors[i][j] * (double)top->data[j];
    }
    return sum;
}

/* Forward and backward; diffs of bottoms hold garbage before, those of weights BEFORE. */
static inline void run_backward(Check *check) {
    ShoalLayer *layer = &check->h.layer;
    restore_inputs(check);
    harness_forward(&check->h);
    for (int i = 0; i < layer->n_bottoms; i++)
        for (size_t j = 0; layer->propagate[i] && j < layer->bottoms[i]->count; j++)
            layer->bottoms[i]->diff[j] = NAN;
    for (int i = 0; i < layer->n_params; i++)
        for (size_t j = 0; layer->params[i]->learns && j < layer->params[i]->blob.count; j++)
            layer->params[i]->blob.diff[j] = BEFORE;
    for (int i = 0; i < graded_tops(check); i++)
        harness_set(layer->tops[i]->diff, layer->tops[i]->count, check->factors[i]);
    harness_backward(&check->h);
}

/* Compares diff[0..n), less `before`, with the differences of L in values[0..n). */
static inline void compare(Check *check, const char *name, size_t n, float *values,
                           const float *diff, float before) {
    double *numeric = calloc(n, sizeof *numeric);
    assert_non_null(numeric);
    double largest = 0;
    float step = check->what->step > 0 ? check->what->step : STEP;
    for (size_t i = 0; i < n; i++) {
        float old = values[i];
        float high = old + step, low = old - step;
        values[i] = high;
        double above = objective(check);
        values[i] = low;
        double below = objective(check);
        values[i] = old;
        numeric[i] = (above - below) / ((double)high - (double)low);
        largest = fmax(largest, fabs(numeric[i]));
    }
    for (size_t i = 0; i < n; i++) {
        double analytic = (double)diff[i] - (double)before;
        if (!(fabs(analytic - numeric[i]) <= THRESHOLD * fmax(largest, 0.1)) && !check->report[0])
            snprintf(check->report, sizeof check->report, "%s [%zu]: backward %g, numeric %g", name,
                     i, analytic, numeric[i]);
    }
    free(numeric);
}

static inline float *copy_diff(const ShoalBlob *blob) {
    float *copy = harness_floats(blob->count);
    harness_set(copy, blob->count, blob->diff);
    return copy;
}

static inline void compare_all(Check *check) {
    ShoalLayer *layer = &check->h.layer;
    float *diffs[2 * HARNESS_BLOBS] = {NULL};
    run_backward(check);
    for (int i = 0; i < layer->n_bottoms; i++)
        diffs[i] = layer->propagate[i] ? copy_diff(layer->bottoms[i]) : NULL;
    for (int i = 0; i < layer->n_params; i++)
        diffs[HARNESS_BLOBS + i] =
            layer->params[i]->learns ? copy_diff(&layer->params[i]->blob) : NULL;
    char name[32];
    for (int i = 0; i < layer->n_bottoms; i++) {
        snprintf(name, sizeof name, "bottom %d", i);
        if (diffs[i])
            compare(check, name, layer->bottoms[i]->count, check->inputs[i], diffs[i], 0);
    }
    for (int i = 0; i < layer->n_params; i++) {
        ShoalBlob *blob = &layer->params[i]->blob;
        snprintf(name, sizeof name, "weights %d", i);
        if (diffs[HARNESS_BLOBS + i])
            compare(check, name, blob->count, blob->data, diffs[HARNESS_BLOBS + i], BEFORE);
    }
    for (int i = 0; i < 2 * HARNESS_BLOBS; i++)
        shoal_free(diffs[i]);
}

/* The first error of a case into report; empty when its gradients are right. */
static inline void check_case(const GradCase *what, const ShoalLayerClass *class,
                              const ShoalKernels *kernels, ShoalPool *pool, char report[256]) {
    Check *check = calloc(1, sizeof *check);
    assert_non_null(check);
    Harness *h = &check->h;
    check->what = what;
    harness_init(h, what->text, class, what->n_bottoms, what->bottoms);
    h->compute.kernels = kernels;
    h->compute.pool = pool;
    h->context.threads = (int)shoal_pool_threads(pool);
    h->context.batch_full *= 2; /* a share of half the batch */
    if (what->prepare)
        what->prepare(h);
    if (harness_setup(h) != SHOAL_OK)
        fail_msg("%s: %s", what->text, h->err.text);
    harness_allocate(h);
    check_draw(check);
    compare_all(check);
    memcpy(report, check->report, sizeof check->report);
    for (int i = 0; i < HARNESS_BLOBS; i++) {
        shoal_free(check->inputs[i]);
        shoal_free(check->factors[i]);
    }
    harness_close(h);
    free(check);
}

/* ---- the tests ---- */

static inline void check_all_cases(const ShoalKernels *kernels, ShoalPool *pool,
                                   const char *level) {
    for (size_t i = 0; i < grad_n_cases; i++) {
        char report[256];
        check_case(&grad_cases[i], NULL, kernels, pool, report);
        if (report[0])
            fail_msg("level %s: %s: %s", level, grad_cases[i].text, report);
    }
}

static inline void test_every_level(void **state) {
    (void)state;
    for (int level = 0; level < SHOAL_CPU_LEVELS; level++) {
        const ShoalKernels *kernels = shoal_cpu_level_usable((ShoalCpuLevel)level)
                                          ? shoal_kernels_for((ShoalCpuLevel)level)
                                          : NULL;
        if (kernels)
            check_all_cases(kernels, NULL, shoal_cpu_level_name((ShoalCpuLevel)level));
    }
}

static inline void test_several_threads(void **state) {
    (void)state;
    ShoalCpuLevel level;
    ShoalError err = {0};
    assert_int_equal(shoal_cpu_level_choose(NULL, &level, &err), SHOAL_OK);
    ShoalPool *pool = shoal_pool_create(3);
    assert_non_null(pool);
    check_all_cases(shoal_kernels_for(level), pool, shoal_cpu_level_name(level));
    shoal_pool_destroy(pool);
}

/* ---- backward passes that are broken on purpose ---- */

typedef enum Fault { SCALED, DROPPED, FLIPPED, FAULTS } Fault;

static const char *const FAULT_NAMES[FAULTS] = {"scaled by 1.01", "dropped", "flipped"};

static struct {
    const ShoalLayerClass *honest;
    Fault fault;
    int bottom, param; /* whose gradient; -1: not a bottom's, respectively not a weight's */
} saboteur;

/* Also a gradient of nothing but 0 (Silence) is made wrong. */
static inline void break_gradient(float *diff, size_t n, float before) {
    size_t largest = 0;
    for (size_t i = 0; i < n; i++)
        if (fabsf(diff[i] - before) > fabsf(diff[largest] - before))
            largest = i;
    bool flat = n > 0 && diff[largest] == before;
    for (size_t i = 0; i < n; i++) {
        if (saboteur.fault == SCALED)
            diff[i] = before + 1.01f * (diff[i] - before);
        if (saboteur.fault == DROPPED)
            diff[i] = before;
    }
    if (flat)
        diff[largest] += 1;
    else if (saboteur.fault == FLIPPED)
        diff[largest] = before - (diff[largest] - before);
}

static inline void broken_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    saboteur.honest->backward(layer, compute);
    if (saboteur.bottom >= 0) {
        ShoalBlob *blob = layer->bottoms[saboteur.bottom];
        break_gradient(blob->diff, blob->count, 0);
    }
    if (saboteur.param >= 0 && layer->params[saboteur.param]->learns) {
        ShoalBlob *blob = &layer->params[saboteur.param]->blob;
        break_gradient(blob->diff, blob->count, BEFORE);
    }
}

static inline void expect_found(const GradCase *what, const ShoalLayerClass *honest, Fault fault,
                                int bottom, int param) {
    ShoalLayerClass broken = *honest;
    broken.backward = broken_backward;
    saboteur.honest = honest;
    saboteur.fault = fault;
    saboteur.bottom = bottom;
    saboteur.param = param;
    char report[256];
    check_case(what, &broken, shoal_kernels_for(SHOAL_CPU_C), NULL, report);
    if (!report[0])
        fail_msg("%s: the gradient of %s %d is %s, and nobody noticed", what->text,
                 bottom >= 0 ? "bottom" : "weights", bottom >= 0 ? bottom : param,
                 FAULT_NAMES[fault]);
}

/* Every gradient of a case, broken in every way. */
static inline void break_case(const GradCase *what) {
    Harness *h = calloc(1, sizeof *h);
    assert_non_null(h);
    harness_init(h, what->text, NULL, what->n_bottoms, what->bottoms);
    if (what->prepare)
        what->prepare(h);
    if (harness_setup(h) != SHOAL_OK)
        fail_msg("%s: %s", what->text, h->err.text);
    harness_allocate(h);
    const ShoalLayerClass *class = h->layer.class;
    for (Fault fault = 0; fault < FAULTS; fault++) {
        for (int i = 0; i < h->layer.n_bottoms; i++)
            if (h->layer.propagate[i])
                expect_found(what, class, fault, i, -1);
        for (int i = 0; i < h->layer.n_params; i++)
            if (h->layer.params[i]->learns)
                expect_found(what, class, fault, -1, i);
    }
    harness_close(h);
    free(h);
}

static inline void test_broken_backward_is_found(void **state) {
    (void)state;
    for (size_t i = 0; i < grad_n_cases; i++)
        break_case(&grad_cases[i]);
}

/* Further tests of the program's own may be named after the table. */
#define GRAD_MAIN(table, ...)                                                                      \
    int main(void) {                                                                               \
        grad_cases = (table);                                                                      \
        grad_n_cases = sizeof(table) / sizeof(table)[0];                                           \
        const struct CMUnitTest tests[] = {                                                        \
            cmocka_unit_test(test_every_level), cmocka_unit_test(test_several_threads),            \
            cmocka_unit_test(test_broken_backward_is_found), __VA_ARGS__};                         \
        return cmocka_run_group_tests(tests, NULL, NULL);                                          \
    }

#endif
