/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_KERNELS_CHECK_H
#define SHOAL_TESTS_KERNELS_CHECK_H

/* What the kernel tests share: random numbers from a printed seed, arrays between guard zones at
 * odd addresses, a compute of every level and number of threads, and tolerances that follow from
 * the length of the sum. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "base/rng.h"
#include "kernels/kernels.h"

enum { GUARD = 64, MOST_THREADS = 3 };

/* A NaN that arithmetic does not make: in guards, where reading it would poison a result and
 * writing over it is seen. */
static const uint32_t guard_bits = 0x7fc5a5a5;

static ShoalRng check_rng;

/* SHOAL_TEST_SEED or a fixed one. */
static inline int check_start(void **state) {
    const char *text = getenv("SHOAL_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : 20240229;
    (void)state;
    printf("seed %llu (SHOAL_TEST_SEED)\n", (unsigned long long)seed);
    shoal_rng_init(&check_rng, seed, SHOAL_RNG_TEST, 0);
    return 0;
}

static inline size_t check_below(size_t bound) {
    return shoal_rng_below(&check_rng, (uint32_t)bound);
}

/* `count` numbers with GUARD guards on both sides; data is off the alignment by a random 0..7. */
typedef struct Array {
    float *block, *data;
    size_t count, offset;
} Array;

static inline void fill_guard(float *from, size_t count) {
    for (size_t i = 0; i < count; i++)
        memcpy(from + i, &guard_bits, sizeof guard_bits);
}

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define CHECK_FORBID(from, count) ASAN_POISON_MEMORY_REGION(from, (count) * sizeof(float))
#define CHECK_ALLOW(from, count) ASAN_UNPOISON_MEMORY_REGION(from, (count) * sizeof(float))
#else
#define CHECK_FORBID(from, count) ((void)(from), (void)(count))
#define CHECK_ALLOW(from, count) ((void)(from), (void)(count))
#endif

/* All guard_bits. With the address sanitizer reading a guard is an error too. */
static inline Array array_blank(size_t count) {
    Array a = {.count = count, .offset = check_below(8)};
    a.block = shoal_calloc(count + 2 * GUARD + a.offset, sizeof *a.block);
    assert_non_null(a.block);
    a.data = a.block + GUARD + a.offset;
    fill_guard(a.block, count + 2 * GUARD + a.offset);
    CHECK_FORBID(a.block, GUARD + a.offset);
    CHECK_FORBID(a.data + count, GUARD);
    return a;
}

/* Uniform in [-1, 1). */
static inline Array array_random(size_t count) {
    Array a = array_blank(count);
    shoal_rng_fill_uniform(&check_rng, -1, 1, count, a.data);
    return a;
}

static inline Array array_copy(const Array *from) {
    Array a = array_blank(from->count);
    memcpy(a.data, from->data, from->count * sizeof *a.data);
    return a;
}

static inline bool is_guard(const float *value) {
    return memcmp(value, &guard_bits, sizeof guard_bits) == 0;
}

/* Checks the guards and frees. */
static inline void array_close(Array *a) {
    CHECK_ALLOW(a->block, GUARD + a->offset);
    CHECK_ALLOW(a->data + a->count, GUARD);
    for (size_t i = 0; i < GUARD + a->offset; i++)
        assert_true(is_guard(a->block + i));
    for (size_t i = 0; i < GUARD; i++)
        assert_true(is_guard(a->data + a->count + i));
    shoal_free(a->block);
}

static ShoalPool *check_pools[MOST_THREADS + 1];
static unsigned char *check_workspace; /* grows; between calls it holds garbage, at first NaN */
static size_t check_workspace_bytes;

static inline int check_stop(void **state) {
    (void)state;
    for (int i = 0; i <= MOST_THREADS; i++)
        shoal_pool_destroy(check_pools[i]);
    shoal_free(check_workspace);
    return 0;
}

/* A workspace of `bytes` and a guard zone. */
static inline void *workspace_of(size_t bytes) {
    size_t needed = bytes + GUARD * sizeof(float);
    if (needed > check_workspace_bytes) {
        shoal_free(check_workspace);
        check_workspace = shoal_calloc(needed, 1);
        assert_non_null(check_workspace);
        check_workspace_bytes = needed;
        fill_guard((float *)(void *)check_workspace, needed / sizeof(float));
    }
    return check_workspace;
}

static inline float *workspace_end(const ShoalCompute *compute) {
    return (float *)compute->workspace + shoal_align_up(compute->workspace_bytes) / sizeof(float);
}

/* A compute with exactly this much workspace and guards behind it; one at a time. threads 0 is no
 * pool at all. */
static inline ShoalCompute check_compute(ShoalCpuLevel level, unsigned threads, size_t bytes) {
    ShoalCompute compute = {.kernels = shoal_kernels_for(level), .workspace_bytes = bytes};
    assert_non_null(compute.kernels);
    if (threads > 0 && !check_pools[threads])
        check_pools[threads] = shoal_pool_create(threads);
    compute.pool = threads > 0 ? check_pools[threads] : NULL;
    compute.workspace = workspace_of(shoal_align_up(bytes));
    fill_guard(workspace_end(&compute), GUARD);
    CHECK_FORBID(workspace_end(&compute), GUARD);
    return compute;
}

static inline void check_compute_close(const ShoalCompute *compute) {
    const float *end = workspace_end(compute);
    CHECK_ALLOW(end, GUARD);
    for (int i = 0; i < GUARD; i++)
        assert_true(is_guard(end + i));
}

/* How far a float32 sum of `terms` products may be from the exact one when their absolute values
 * add up to `magnitude`: rounding errors of 2^-24 each that walk at random, with some reserve, plus
 * the roundings of the result. A lost or doubled term is far outside. */
static inline double check_tolerance(size_t terms, double magnitude) {
    return ldexp(1, -24) * (4 + 2 * sqrt((double)terms)) * magnitude + 1e-30;
}

/* got[i] against expected[i]; magnitude[i] as in check_tolerance. */
static inline void check_close(const char *what, size_t count, size_t terms, const float *got,
                               const double *expected, const double *magnitude) {
    for (size_t i = 0; i < count; i++) {
        double off = fabs((double)got[i] - expected[i]);
        if (off <= check_tolerance(terms, magnitude[i]))
            continue;
        fail_msg("%s: number %zu is %.9g, not %.9g (%zu terms, off by %.3g, allowed %.3g)", what, i,
                 (double)got[i], expected[i], terms, off, check_tolerance(terms, magnitude[i]));
    }
}

/* For every level that this CPU runs. */
#define FOR_LEVELS(level)                                                                          \
    for (ShoalCpuLevel level = SHOAL_CPU_C; (int)level < SHOAL_CPU_LEVELS;                         \
         level = (ShoalCpuLevel)(level + 1))                                                       \
        if (shoal_cpu_level_usable(level))

#endif
