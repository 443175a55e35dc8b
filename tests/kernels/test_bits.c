/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/check.h"

/* What replicas compute apart from each other must be the same to the bit on every machine: the
 * update and what it is made of. The levels of one machine are compared in test_vector.c; here all
 * machines are, with numbers that were written down once. Other compilers, contraction or another
 * order of a sum would change them. */

enum { COUNT = 4099, STEPS = 5 };

/* Fowler, Noll, Vo's hash 1a of 64 bits over the numbers' bytes, lowest first. */
static uint64_t hash_bytes(uint64_t hash, const void *data, size_t bytes) {
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ p[i]) * 0x100000001b3;
    return hash;
}

static const uint64_t hash_start = 0xcbf29ce484222325;

static void fill(uint32_t stream, float *x) {
    ShoalRng rng;
    shoal_rng_init(&rng, 7, SHOAL_RNG_TEST, stream);
    shoal_rng_fill_uniform(&rng, -1, 1, COUNT, x);
}

static void updates(void **state) {
    static const ShoalSgdRule rules[] = {{1, 0.01f, 0.9f, 0.0005f, false},
                                         {0.37f, 0.013f, 0.9f, 0, false},
                                         {1.0f / 3, 0.1f, 0.7f, 0.0004f, true}};
    static float g[COUNT], h[COUNT], w[COUNT];
    (void)state;
    FOR_LEVELS(level) {
        ShoalCompute c = check_compute(level, 0, 0);
        fill(1, h);
        fill(2, w);
        for (uint32_t step = 0; step < STEPS * sizeof rules / sizeof *rules; step++) {
            fill(3 + step, g);
            shoal_update_sgd(&c, &rules[step % (sizeof rules / sizeof *rules)], COUNT, g, h, w);
        }
        uint64_t hash = hash_bytes(hash_bytes(hash_start, h, sizeof h), w, sizeof w);
        if (hash != 0xfa93ba0ffc88868c)
            fail_msg("%s: updates give %016llx", shoal_cpu_level_name(level),
                     (unsigned long long)hash);
        check_compute_close(&c);
    }
}

static void adaptive_updates(void **state) {
    static float g[COUNT], v[COUNT], u[COUNT], w[COUNT], s[COUNT];
    (void)state;
    FOR_LEVELS(level) {
        ShoalCompute c = check_compute(level, 0, 0);
        memset(v, 0, sizeof v);
        memset(u, 0, sizeof u);
        fill(2, w);
        for (uint32_t step = 0; step < 4 * STEPS; step++) {
            const ShoalAdaptiveRule rule = {.kind = (ShoalAdaptiveKind)(step % 4),
                                            .scale = 0.37f,
                                            .rate = 0.013f,
                                            .decay = 0.0005f,
                                            .decay1 = 0.9f,
                                            .decay2 = 0.999f,
                                            .delta = 1e-6f};
            fill(3 + step, g);
            shoal_vec_mul(&c, COUNT, v, v, v); /* of Adam they have a sign */
            shoal_update_adaptive(&c, &rule, COUNT, g, v, u, w, s);
        }
        uint64_t hash = hash_bytes(hash_bytes(hash_start, v, sizeof v), u, sizeof u);
        hash = hash_bytes(hash_bytes(hash, w, sizeof w), s, sizeof s);
        if (hash != 0x256706c73573e657)
            fail_msg("%s: updates give %016llx", shoal_cpu_level_name(level),
                     (unsigned long long)hash);
        check_compute_close(&c);
    }
}

static void vectors(void **state) {
    static float a[COUNT], b[COUNT], y[COUNT];
    (void)state;
    FOR_LEVELS(level) {
        ShoalCompute c = check_compute(level, 0, 0);
        fill(1, a);
        fill(2, b);
        shoal_relu_fwd(&c, COUNT, 0.1f, a, y);
        shoal_vec_axpy(&c, COUNT, 0.7f, b, y);
        shoal_vec_mul(&c, COUNT, a, y, y);
        shoal_vec_scale(&c, COUNT, 1.1f, y);
        shoal_relu_bwd(&c, COUNT, 0.3f, b, y, y);
        double sums[] = {shoal_vec_sum(COUNT, y), shoal_vec_asum(COUNT, y),
                         shoal_vec_sumsq(COUNT, y)};
        uint64_t hash = hash_bytes(hash_bytes(hash_start, y, sizeof y), sums, sizeof sums);
        if (hash != 0xe8fd8fa5ce8d245e)
            fail_msg("%s: vectors give %016llx", shoal_cpu_level_name(level),
                     (unsigned long long)hash);
        check_compute_close(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(updates),
        cmocka_unit_test(adaptive_updates),
        cmocka_unit_test(vectors),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
