/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc_check.h"

/* The operations that go element by element, against their definitions. */

static const ShoalNchwcDims sizes[] = {
    {1, 1, 1, 1},  {3, 1, 5, 7},   {2, 3, 1, 13},   {1, 20, 23, 29}, {2, 50, 7, 7},
    {5, 17, 4, 3}, {13, 16, 9, 9}, {1, 33, 37, 41}, {2, 8, 16, 16},  {1, 5, 1, 513},
};
enum { SIZES = sizeof sizes / sizeof *sizes };

static ShoalCompute compute_for(ShoalCpuLevel level, unsigned threads, const ShoalNchwcDims *d) {
    const unsigned most = threads > 0 ? threads : 1;
    return check_compute(level, threads,
                         shoal_nchwc_workspace_bytes(shoal_kernels_for(level), d, most));
}

static void check_plain(const ShoalNchwcDims *d, ShoalCpuLevel level, int lanes, unsigned threads) {
    const size_t plane = nchwc_plane(d);
    ShoalCompute compute = compute_for(level, threads, d);
    Array plain = array_random((size_t)d->batch * (size_t)d->channels * plane);
    Array y = aligned_blank(nchwc_count(d, lanes));
    shoal_nchwc_from_plain(&compute, d, plain.data, y.data);
    check_padding("from_plain", d, lanes, y.data);
    Array scale = channels_random(d->channels, lanes), shift = channels_random(d->channels, lanes);
    for (int kind = 0; kind < 4; kind++) {
        Array back = array_blank(plain.count);
        ShoalNchwcInput x = input_of(&y, &scale, &shift, kind);
        shoal_nchwc_to_plain(&compute, d, &x, back.data);
        for (size_t i = 0; i < plain.count; i++) {
            int c = (int)(i / plane % (size_t)d->channels);
            int n = (int)(i / plane / (size_t)d->channels);
            size_t at = nchwc_at(d, lanes, n, c, i % plane);
            double size, expected = nchwc_value(&x, at, c, &size);
            assert_memory_equal(&y.data[at], &plain.data[i], sizeof(float));
            assert_true(fabs((double)back.data[i] - expected) <= check_tolerance(2, size));
        }
        array_close(&back);
    }
    array_close(&plain);
    array_close(&y);
    array_close(&scale);
    array_close(&shift);
    check_compute_close(&compute);
}

static void plain_and_back(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes)
    for (size_t i = 0; i < SIZES; i++)
        for (unsigned threads = 0; threads <= MOST_THREADS; threads += 3)
            check_plain(&sizes[i], level, lanes, threads);
}

/* Numbers about `center`, so that careless sums of squares would lose them. */
static void check_statistics(const ShoalNchwcDims *d, ShoalCpuLevel level, int lanes,
                             float center) {
    const size_t padded = shoal_nchwc_padded(d->channels, lanes);
    Array x = nchwc_random(d, lanes);
    void *first = NULL;
    for (size_t i = 0; i < x.count; i++)
        x.data[i] += center;
    clear_padding(d, lanes, x.data);
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute compute = compute_for(level, threads, d);
        double *sums = shoal_calloc(2 * padded, sizeof *sums);
        ShoalNchwcStats stats = {sums, sums + padded};
        shoal_nchwc_stats(&compute, d, x.data, &stats);
        check_stats("stats", d, lanes, x.data, &stats);
        check_same_bits("stats", sums, &first, 2 * padded * sizeof *sums);
        shoal_free(sums);
        check_compute_close(&compute);
    }
    shoal_free(first);
    array_close(&x);
}

static void statistics(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes)
    for (size_t i = 0; i < SIZES; i++) {
        check_statistics(&sizes[i], level, lanes, 0);
        check_statistics(&sizes[i], level, lanes, 1000);
    }
}

/* A channel of one value has variance 0; a NaN shows in its own channel alone. */
static void statistics_of_odd_data(void **state) {
    (void)state;
    const ShoalNchwcDims d = {3, 4, 11, 5};
    FOR_NCHWC_LEVELS(level, lanes) {
        ShoalCompute compute = compute_for(level, 0, &d);
        Array x = nchwc_random(&d, lanes);
        double mean[16], variance[16];
        ShoalNchwcStats stats = {mean, variance};
        FOR_NCHWC(&d, lanes, n, c, p)
        if (c == 1)
            x.data[nchwc_at(&d, lanes, n, c, p)] = 1e6f / 3;
        x.data[nchwc_at(&d, lanes, 1, 2, 7)] = NAN;
        shoal_nchwc_stats(&compute, &d, x.data, &stats);
        assert_true(mean[1] == (double)(1e6f / 3) && variance[1] == 0);
        assert_true(isnan(mean[2]) && isnan(variance[2]));
        assert_true(isfinite(mean[3]) && variance[0] > 0.1 && variance[3] > 0.1);
        array_close(&x);
        check_compute_close(&compute);
    }
}

typedef struct Pair {
    Array x, scale, shift;
} Pair;

static Pair pair_random(const ShoalNchwcDims *d, int lanes) {
    return (Pair){nchwc_random(d, lanes), channels_random(d->channels, lanes),
                  channels_random(d->channels, lanes)};
}

static void pair_close(Pair *pair) {
    array_close(&pair->x);
    array_close(&pair->scale);
    array_close(&pair->shift);
}

/* into: 0 another tensor, 1 that of a, 2 that of b. */
static void check_sum_kind(const ShoalNchwcDims *d, ShoalCpuLevel level, int lanes, int kinds,
                           int into, unsigned threads) {
    Pair pa = pair_random(d, lanes), pb = pair_random(d, lanes);
    Array xa = aligned_copy(&pa.x), xb = aligned_copy(&pb.x), other = aligned_blank(xa.count);
    ShoalCompute compute = compute_for(level, threads, d);
    ShoalNchwcInput a = input_of(&xa, &pa.scale, &pa.shift, kinds & 3);
    ShoalNchwcInput b = input_of(&xb, &pb.scale, &pb.shift, kinds >> 2 & 3);
    bool relu = kinds & 16;
    float *y = into == 0 ? other.data : into == 1 ? xa.data : xb.data;
    shoal_nchwc_sum(&compute, d, &a, &b, relu, y);
    check_padding("sum", d, lanes, y);
    a.x = pa.x.data;
    b.x = pb.x.data;
    FOR_NCHWC(d, lanes, n, c, p) {
        size_t at = nchwc_at(d, lanes, n, c, p);
        double size_a, size_b, sum = nchwc_value(&a, at, c, &size_a);
        sum += nchwc_value(&b, at, c, &size_b);
        if (relu && sum < 0)
            sum = 0;
        check_sum("sum", (double)y[at], sum, size_a + size_b, 4);
    }
    array_close(&xa);
    array_close(&xb);
    array_close(&other);
    pair_close(&pa);
    pair_close(&pb);
    check_compute_close(&compute);
}

static void sums(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes)
    for (int kinds = 0; kinds < 32; kinds++)
        for (size_t i = 0; i < SIZES; i += 3)
            check_sum_kind(&sizes[i], level, lanes, kinds, (kinds + (int)i) % 3,
                           (unsigned)kinds % (MOST_THREADS + 1));
}

/* How the gradient comes: another blocked tensor, dx itself, or a plain tensor. */
enum { FROM_BLOCKED, FROM_ITSELF, FROM_PLAIN };

static void run_grad(const ShoalCompute *compute, const GradientCase *c, int how, const Array *from,
                     const ShoalNchwcGradient *dx) {
    const ShoalNchwcDims *d = &c->dims;
    if (how == FROM_ITSELF) {
        memcpy(dx->g, from->data, from->count * sizeof(float));
        shoal_nchwc_grad(compute, d, dx->g, dx);
    } else if (how == FROM_BLOCKED) {
        shoal_nchwc_grad(compute, d, from->data, dx);
    } else {
        Array plain = array_blank((size_t)d->batch * (size_t)d->channels * nchwc_plane(d));
        FOR_NCHWC(d, c->lanes, n, channel, p)
        if (channel < d->channels)
            plain.data[((size_t)n * (size_t)d->channels + (size_t)channel) * nchwc_plane(d) + p] =
                from->data[nchwc_at(d, c->lanes, n, channel, p)];
        shoal_nchwc_grad_from_plain(compute, d, plain.data, dx);
        array_close(&plain);
    }
}

static void check_grad(const ShoalNchwcDims *d, ShoalCpuLevel level, int lanes, int kind, int how) {
    const size_t padded = shoal_nchwc_padded(d->channels, lanes);
    GradientCase c = gradient_case(d, lanes, kind);
    Array from = nchwc_random(d, lanes);
    double *added = shoal_calloc(from.count, sizeof *added), *size;
    size = shoal_calloc(from.count, sizeof *size);
    void *first = NULL, *first_sums = NULL;
    for (size_t i = 0; i < from.count; i++) {
        added[i] = (double)from.data[i];
        size[i] = fabs(added[i]);
    }
    for (unsigned threads = 0; threads <= MOST_THREADS; threads++) {
        ShoalCompute compute = compute_for(level, threads, d);
        Array g = aligned_blank(from.count);
        ShoalNchwcGradient dx = gradient_of(&c, g.data);
        run_grad(&compute, &c, how, &from, &dx);
        check_gradient("grad", &c, &dx, added, size, 1);
        check_same_bits("grad", g.data, &first, g.count * sizeof(float));
        check_same_bits("grad's sums", c.sums, &first_sums, 3 * padded * sizeof *c.sums);
        array_close(&g);
        check_compute_close(&compute);
    }
    shoal_free(first);
    shoal_free(first_sums);
    shoal_free(added);
    shoal_free(size);
    array_close(&from);
    gradient_case_close(&c);
}

static void gradients(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes)
    for (int kind = 0; kind < GRADIENT_KINDS; kind++)
        for (int how = FROM_BLOCKED; gradient_kind_valid(kind) && how <= FROM_PLAIN; how++)
            if (how != FROM_ITSELF || !(kind & 16))
                for (size_t i = 0; i < 3; i++)
                    check_grad(&sizes[check_below(SIZES)], level, lanes, kind, how);
}

static void check_affine(const ShoalNchwcDims *d, ShoalCpuLevel level, int lanes, bool with_z,
                         bool in_place, unsigned threads) {
    Pair gp = pair_random(d, lanes), zp = pair_random(d, lanes);
    Array g = aligned_copy(&gp.x), dz = aligned_blank(g.count);
    ShoalCompute compute = compute_for(level, threads, d);
    float *to = in_place ? g.data : dz.data;
    shoal_nchwc_affine(&compute, d, g.data, with_z ? zp.x.data : NULL, gp.scale.data,
                       with_z ? zp.scale.data : NULL, with_z ? zp.shift.data : NULL, to);
    check_padding("affine", d, lanes, to);
    FOR_NCHWC(d, lanes, n, c, p) {
        size_t at = nchwc_at(d, lanes, n, c, p);
        double a = (double)gp.x.data[at] * (double)gp.scale.data[c], b = 0, c0 = 0;
        if (with_z) {
            b = (double)zp.x.data[at] * (double)zp.scale.data[c];
            c0 = (double)zp.shift.data[c];
        }
        check_sum("affine", (double)to[at], a + b + c0, fabs(a) + fabs(b) + fabs(c0), 3);
    }
    pair_close(&gp);
    pair_close(&zp);
    array_close(&g);
    array_close(&dz);
    check_compute_close(&compute);
}

static void affine(void **state) {
    (void)state;
    FOR_NCHWC_LEVELS(level, lanes)
    for (size_t i = 0; i < SIZES; i++)
        for (int kind = 0; kind < 4; kind++)
            check_affine(&sizes[i], level, lanes, kind & 1, kind & 2,
                         (unsigned)i % (MOST_THREADS + 1));
}

/* A tensor that goes past the caches gives the bits that its images give one by one. */
static void far_tensors(void **state) {
    (void)state;
    const ShoalNchwcDims all = {2, 60, 300, 301}, one = {1, 60, 300, 301};
    FOR_NCHWC_LEVELS(level, lanes) {
        const size_t image = nchwc_count(&one, lanes);
        ShoalCompute compute = compute_for(level, 3, &all);
        Array x = aligned_blank(2 * image), y = aligned_blank(2 * image);
        Array far = aligned_blank(2 * image);
        Array scale = channels_random(60, lanes), shift = channels_random(60, lanes);
        for (size_t i = 0; i < 2 * image; i++)
            x.data[i] = (float)(i % 1009) - 500;
        for (int kind = 0; kind < 4; kind++) {
            ShoalNchwcInput a = input_of(&x, &scale, &shift, kind), b = {.x = x.data};
            shoal_nchwc_sum(&compute, &all, &a, &b, kind & 1, far.data);
            for (size_t n = 0; n < 2; n++, a.x += image, b.x += image)
                shoal_nchwc_sum(&compute, &one, &a, &b, kind & 1, y.data + n * image);
            assert_memory_equal(far.data, y.data, 2 * image * sizeof(float));
        }
        shoal_nchwc_affine(&compute, &all, x.data, x.data, scale.data, shift.data, scale.data,
                           far.data);
        for (size_t n = 0; n < 2; n++)
            shoal_nchwc_affine(&compute, &one, x.data + n * image, x.data + n * image, scale.data,
                               shift.data, scale.data, y.data + n * image);
        assert_memory_equal(far.data, y.data, 2 * image * sizeof(float));
        Array *arrays[] = {&x, &y, &far, &scale, &shift};
        for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
            array_close(arrays[i]);
        check_compute_close(&compute);
    }
}

/* Without relu a NaN stays one. */
static void nan_stays(void **state) {
    (void)state;
    const ShoalNchwcDims d = {1, 3, 3, 3};
    FOR_NCHWC_LEVELS(level, lanes)
    for (int kind = 0; kind < 2; kind++) {
        ShoalCompute compute = compute_for(level, 0, &d);
        Pair pair = pair_random(&d, lanes), other = pair_random(&d, lanes);
        size_t at = nchwc_at(&d, lanes, 0, 1, 4);
        pair.x.data[at] = NAN;
        ShoalNchwcInput a = input_of(&pair.x, &pair.scale, &pair.shift, kind);
        ShoalNchwcInput b = input_of(&other.x, &other.scale, &other.shift, kind);
        shoal_nchwc_sum(&compute, &d, &b, &a, false, other.x.data);
        assert_true(isnan(other.x.data[at]) && !isnan(other.x.data[at + 1]));
        pair_close(&pair);
        pair_close(&other);
        check_compute_close(&compute);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_and_back),
        cmocka_unit_test(statistics),
        cmocka_unit_test(statistics_of_odd_data),
        cmocka_unit_test(sums),
        cmocka_unit_test(gradients),
        cmocka_unit_test(affine),
        cmocka_unit_test(far_tensors),
        cmocka_unit_test(nan_stays),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
