/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/check.h"

typedef struct Case {
    size_t m, n, k, gap; /* gap: numbers between rows */
    bool trans_a, trans_b;
    float alpha, beta;
} Case;

typedef struct Operands {
    Array a, b, c; /* c: before */
    size_t lda, ldb, ldc;
    double *expected, *magnitude; /* [m][n] */
} Operands;

/* The product by the definition, and the sum of absolute values of everything that goes into it. */
static void expect(const Case *t, Operands *o) {
    o->expected = shoal_calloc(t->m * t->n, sizeof(double));
    o->magnitude = shoal_calloc(t->m * t->n, sizeof(double));
    for (size_t i = 0; i < t->m; i++)
        for (size_t j = 0; j < t->n; j++) {
            double sum = 0, size = 0;
            for (size_t p = 0; p < t->k; p++) {
                double x = (double)o->a.data[t->trans_a ? p * o->lda + i : i * o->lda + p];
                double y = (double)o->b.data[t->trans_b ? j * o->ldb + p : p * o->ldb + j];
                sum += x * y;
                size += fabs(x * y);
            }
            sum *= (double)t->alpha;
            size *= fabs((double)t->alpha);
            if (t->beta != 0) {
                sum += (double)t->beta * (double)o->c.data[i * o->ldc + j];
                size += fabs((double)t->beta * (double)o->c.data[i * o->ldc + j]);
            }
            o->expected[i * t->n + j] = sum;
            o->magnitude[i * t->n + j] = size;
        }
}

/* A [rows][cols] matrix whose rows are ld apart; between them guards. */
static Array matrix(size_t rows, size_t cols, size_t ld) {
    Array a = array_blank(rows ? (rows - 1) * ld + cols : 0);
    for (size_t i = 0; i < rows; i++)
        shoal_rng_fill_uniform(&check_rng, -1, 1, cols, a.data + i * ld);
    return a;
}

static Operands operands(const Case *t) {
    Operands o = {.lda = (t->trans_a ? t->m : t->k) + t->gap,
                  .ldb = (t->trans_b ? t->k : t->n) + t->gap,
                  .ldc = t->n + t->gap};
    o.a = t->trans_a ? matrix(t->k, t->m, o.lda) : matrix(t->m, t->k, o.lda);
    o.b = t->trans_b ? matrix(t->n, t->k, o.ldb) : matrix(t->k, t->n, o.ldb);
    o.c = matrix(t->m, t->n, o.ldc);
    expect(t, &o);
    if (t->beta == 0) /* not to be read */
        fill_guard(o.c.data, o.c.count);
    return o;
}

static void close_operands(Operands *o) {
    array_close(&o->a);
    array_close(&o->b);
    array_close(&o->c);
    shoal_free(o->expected);
    shoal_free(o->magnitude);
}

/* C after the call. */
static Array run(const Case *t, const Operands *o, ShoalCpuLevel level, unsigned threads) {
    ShoalCompute compute =
        check_compute(level, threads, shoal_gemm_workspace_bytes(threads ? threads : 1));
    Array c = array_copy(&o->c);
    shoal_gemm(&compute, t->trans_a, t->trans_b, t->m, t->n, t->k, t->alpha, o->a.data, o->lda,
               o->b.data, o->ldb, t->beta, c.data, o->ldc);
    check_compute_close(&compute);
    return c;
}

static void check_result(const Case *t, const Operands *o, ShoalCpuLevel level, const Array *c) {
    char what[128];
    snprintf(what, sizeof what, "%s %s%s %zux%zux%zu alpha %g beta %g", shoal_cpu_level_name(level),
             t->trans_a ? "t" : "n", t->trans_b ? "t" : "n", t->m, t->n, t->k, (double)t->alpha,
             (double)t->beta);
    for (size_t i = 0; i < t->m; i++) {
        const float *row = c->data + i * o->ldc;
        check_close(what, t->n, t->k, row, o->expected + i * t->n, o->magnitude + i * t->n);
        for (size_t j = t->n; j < o->ldc && i + 1 < t->m; j++)
            assert_true(is_guard(row + j));
    }
}

static void check_case(Case t) {
    Operands o = operands(&t);
    FOR_LEVELS(level) {
        Array one = run(&t, &o, level, 0);
        check_result(&t, &o, level, &one);
        for (unsigned threads = 1; threads <= MOST_THREADS; threads++) {
            Array c = run(&t, &o, level, threads);
            assert_memory_equal(c.data, one.data, c.count * sizeof *c.data);
            array_close(&c);
        }
        array_close(&one);
    }
    close_operands(&o);
}

static void check_sizes(size_t m, size_t n, size_t k, size_t gap, float alpha, float beta) {
    for (int trans = 0; trans < 4; trans++)
        check_case((Case){m, n, k, gap, trans & 1, trans & 2, alpha, beta});
}

static void tails_of_every_tile(void **state) {
    (void)state;
    for (size_t m = 1; m <= 29; m += 1 + m / 16)
        check_sizes(m, 19, 7, m % 3, 1, 0);
    for (size_t n = 1; n <= 67; n += 1 + n / 20)
        check_sizes(9, n, 5, n % 3, 1, 1);
    for (size_t k = 1; k <= 18; k++)
        check_sizes(15, 33, k, 1, 1, 0);
}

static void random_sizes(void **state) {
    (void)state;
    static const float factors[] = {0, 1, -0.5f, 2.25f};
    for (int i = 0; i < 40; i++) {
        float alpha = factors[1 + check_below(3)], beta = factors[check_below(4)];
        check_sizes(1 + check_below(90), 1 + check_below(150), 1 + check_below(120), check_below(4),
                    alpha, beta);
    }
}

/* Beyond every block size of the engine: k, columns and rows, with and without the swap of roles.
 */
static void several_blocks(void **state) {
    (void)state;
    check_sizes(17, 37, 1201, 0, 1, 1);
    check_sizes(3, 1111, 29, 5, 1, 0);
    check_sizes(491, 41, 23, 0, 1, 0);
    check_sizes(211, 223, 601, 2, -1, 0.5f);
    check_sizes(64, 500, 800, 0, 1, 0);
    check_sizes(16, 211, 521, 1, 2, 3);
}

static void layers_of_lenet(void **state) {
    (void)state;
    check_case((Case){64, 10, 500, 0, false, true, 1, 0});
    check_case((Case){10, 500, 64, 0, true, false, 1, 1});
    check_case((Case){64, 500, 10, 0, false, false, 1, 0});
    check_case((Case){500, 800, 16, 0, true, false, 1, 1});
    check_case((Case){16, 800, 500, 0, false, false, 1, 0});
}

static void empty_products(void **state) {
    (void)state;
    check_case((Case){0, 5, 3, 0, false, false, 1, 0});
    check_case((Case){5, 0, 3, 0, false, false, 1, 0});
    check_case((Case){4, 5, 0, 2, false, false, 1, 0});
    check_case((Case){4, 5, 0, 2, true, true, 1, 0.5f});
    check_case((Case){4, 5, 0, 2, false, true, 1, 1});
    check_case((Case){4, 5, 6, 2, false, false, 0, 2});
}

/* alpha 0 reads neither A nor B; NaN in A or B otherwise reaches C. */
static void nan_goes_where_it_must(void **state) {
    (void)state;
    enum { M = 15, N = 34, K = 20 };
    FOR_LEVELS(level) {
        Array a = array_random(M * K), b = array_random(K * N), c = array_blank(M * N);
        a.data[3 * K + 7] = NAN;
        ShoalCompute compute = check_compute(level, 1, shoal_gemm_workspace_bytes(1));
        shoal_gemm(&compute, false, false, M, N, K, 1, a.data, K, b.data, N, 0, c.data, N);
        for (size_t i = 0; i < M * N; i++)
            assert_int_equal(isnan(c.data[i]) != 0, i / N == 3);
        shoal_gemm(&compute, false, false, M, N, K, 0, a.data, K, b.data, N, 0, c.data, N);
        for (size_t i = 0; i < M * N; i++)
            assert_true(c.data[i] == 0);
        check_compute_close(&compute);
        array_close(&a);
        array_close(&b);
        array_close(&c);
    }
}

static void workspace_does_not_overflow(void **state) {
    (void)state;
    assert_true(shoal_gemm_workspace_bytes(2) >= shoal_gemm_workspace_bytes(1));
    assert_true(shoal_gemm_workspace_bytes(4000000000u) >= 4000000000u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tails_of_every_tile),
        cmocka_unit_test(random_sizes),
        cmocka_unit_test(several_blocks),
        cmocka_unit_test(layers_of_lenet),
        cmocka_unit_test(empty_products),
        cmocka_unit_test(nan_goes_where_it_must),
        cmocka_unit_test(workspace_does_not_overflow),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
