/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/check.h"

#include <sys/mman.h>
#include <unistd.h>

#include "kernels/nchwc/engine.h"
#include "kernels/table.h"

/* Numbers that begin or end (by chance) where a page lies that may not be touched: what reads or
 * writes beyond them there dies, whatever instruction it takes. */
typedef struct Fenced {
    char *pages;
    size_t bytes, count;
    float *data;
} Fenced;

static Fenced fenced_blank(size_t count) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = count * sizeof(float);
    const size_t inside = (bytes + page - 1) / page * page;
    Fenced f = {.count = count, .bytes = inside + 2 * page};
    f.pages = mmap(NULL, f.bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true((void *)f.pages != MAP_FAILED);
    assert_int_equal(mprotect(f.pages + page, inside, PROT_READ | PROT_WRITE), 0);
    f.data = (float *)(void *)(f.pages + page + (check_below(2) ? inside - bytes : 0));
    fill_guard(f.data, count);
    return f;
}

static Fenced fenced_random(size_t count) {
    Fenced f = fenced_blank(count);
    shoal_rng_fill_uniform(&check_rng, -1, 1, count, f.data);
    return f;
}

static void fenced_close(Fenced *f) {
    munmap(f->pages, f->bytes);
}

/* Where segments start: some order, one of them before the base. */
enum { SEGMENTS = 3 };
static const ptrdiff_t segment_order[SEGMENTS] = {1, -1, 0};

static const ShoalNchwcTileKernels *tile_kernels(ShoalCpuLevel level) {
    const struct ShoalNchwc *nchwc = shoal_kernels_for(level)->nchwc;
    return nchwc ? nchwc->tile : NULL;
}

static size_t lanes_of(ShoalCpuLevel level) {
    return (size_t)shoal_nchwc_lanes(shoal_kernels_for(level));
}

/* A product to be checked: the numbers that it may touch, and what should come out. */
typedef struct Product {
    Fenced a, b, c;
    double *expected, *magnitude; /* of each number of c */
    char what[160];
} Product;

static void product_open(Product *p, size_t a, size_t b, size_t c) {
    p->a = fenced_random(a);
    p->b = fenced_random(b);
    p->c = fenced_blank(c);
    p->expected = shoal_calloc(c, sizeof(double));
    p->magnitude = shoal_calloc(c, sizeof(double));
}

static void product_term(Product *p, size_t at, double a, double b) {
    p->expected[at] += a * b;
    p->magnitude[at] += fabs(a * b);
}

/* Numbers of c that nothing was expected for still hold the guard. */
static void product_close(Product *p, size_t terms) {
    for (size_t i = 0; i < p->c.count; i++)
        if (p->magnitude[i] > 0)
            check_close(p->what, 1, terms, p->c.data + i, p->expected + i, p->magnitude + i);
        else
            assert_true(is_guard(p->c.data + i));
    fenced_close(&p->a);
    fenced_close(&p->b);
    fenced_close(&p->c);
    shoal_free(p->expected);
    shoal_free(p->magnitude);
}

enum { START_ZERO, START_INIT, START_ACCUMULATE, STARTS };

static void check_tile(const ShoalNchwcTileKernels *kernels, size_t lanes, size_t rows,
                       size_t vectors, size_t length, size_t a_row, int start) {
    const size_t gap = start == START_INIT ? lanes : 0, width = vectors * lanes;
    const size_t c_col = lanes + gap, c_row = vectors * c_col, span = (rows - 1) * a_row + length;
    Product p;
    product_open(&p, SEGMENTS * span, SEGMENTS * length * width, rows * c_row - gap);
    Fenced init = fenced_random(width);
    ptrdiff_t offsets[SEGMENTS];
    for (int s = 0; s < SEGMENTS; s++)
        offsets[s] = segment_order[s] * (ptrdiff_t)span;
    ShoalNchwcTile t = {.rows = rows,
                        .vectors = vectors,
                        .segments = SEGMENTS,
                        .length = length,
                        .a = p.a.data,
                        .a_segment = span,
                        .a_row = a_row,
                        .b = p.b.data,
                        .c = p.c.data,
                        .c_row = c_row,
                        .c_col = c_col,
                        .init = start == START_INIT ? init.data : NULL,
                        .accumulate = start == START_ACCUMULATE};
    if (start != START_ZERO) { /* one base of the segments or the other */
        t.a += span;
        t.offsets = offsets;
    }
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < width; j++) {
            const size_t at = i * c_row + j / lanes * c_col + j % lanes;
            if (start == START_ACCUMULATE)
                p.c.data[at] = (float)j - 3;
            if (start != START_ZERO)
                product_term(&p, at, 1,
                             start == START_INIT ? (double)init.data[j] : (double)p.c.data[at]);
            for (size_t s = 0; s < SEGMENTS; s++)
                for (size_t k = 0; k < length; k++)
                    product_term(&p, at,
                                 (double)t.a[(t.offsets ? offsets[s] : (ptrdiff_t)(s * span)) +
                                             (ptrdiff_t)(i * a_row + k)],
                                 (double)t.b[(s * length + k) * width + j]);
        }
    snprintf(p.what, sizeof p.what, "lanes %zu: tile %zux%zu, length %zu, row %zu, start %d", lanes,
             rows, vectors, length, a_row, start);
    kernels->tile(&t);
    product_close(&p, SEGMENTS * length + 1);
    fenced_close(&init);
}

static void tiles_of_all_shapes(void **state) {
    static const size_t lengths[] = {1, 2, 3, 4, 5, 7, 8, 11, 13, 16, 18};
    (void)state;
    FOR_LEVELS(level) {
        const ShoalNchwcTileKernels *kernels = tile_kernels(level);
        if (!kernels)
            continue;
        for (size_t rows = 1; rows <= kernels->rows; rows++)
            for (size_t vectors = 1; vectors <= 2; vectors++)
                for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++)
                    for (int start = 0; start < STARTS; start++)
                        check_tile(kernels, lanes_of(level), rows, vectors, lengths[l],
                                   start == START_INIT ? lanes_of(level) : 1 + (size_t)start,
                                   start);
    }
}

static void check_wtile(const ShoalNchwcTileKernels *kernels, size_t lanes, size_t rows,
                        size_t vectors, size_t length, bool places) {
    const size_t a_step = rows + (places ? 2 : 0), b_step = lanes, gap = places ? lanes : 0;
    const size_t a_span = (length - 1) * a_step + rows, b_col = length * b_step + gap;
    const size_t b_span = vectors * b_col - gap, d_col = lanes + gap, d_row = vectors * d_col;
    Product p;
    product_open(&p, SEGMENTS * a_span, SEGMENTS * b_span, rows * d_row - gap);
    ptrdiff_t a_at[SEGMENTS], b_at[SEGMENTS];
    for (int s = 0; s < SEGMENTS; s++) {
        a_at[s] = segment_order[s] * (ptrdiff_t)a_span;
        b_at[s] = segment_order[SEGMENTS - 1 - s] * (ptrdiff_t)b_span;
    }
    ShoalNchwcWtile t = {.rows = rows,
                         .vectors = vectors,
                         .segments = SEGMENTS,
                         .length = length,
                         .a = p.a.data + (places ? a_span : 0),
                         .a_at = places ? a_at : NULL,
                         .a_segment = a_span,
                         .a_step = a_step,
                         .b = p.b.data + (places ? b_span : 0),
                         .b_at = places ? b_at : NULL,
                         .b_segment = b_span,
                         .b_step = b_step,
                         .b_col = b_col,
                         .d = p.c.data,
                         .d_row = d_row,
                         .d_col = d_col};
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < vectors * lanes; j++) {
            const size_t at = i * d_row + j / lanes * d_col + j % lanes;
            p.c.data[at] = (float)i + 0.5f;
            product_term(&p, at, 1, (double)p.c.data[at]);
            for (size_t s = 0; s < SEGMENTS; s++)
                for (size_t k = 0; k < length; k++) {
                    const float *a = t.a + (places ? a_at[s] : (ptrdiff_t)(s * a_span));
                    const float *b = t.b + (places ? b_at[s] : (ptrdiff_t)(s * b_span));
                    product_term(&p, at, (double)a[k * a_step + i],
                                 (double)b[k * b_step + j / lanes * b_col + j % lanes]);
                }
        }
    snprintf(p.what, sizeof p.what, "lanes %zu: wtile %zux%zu, length %zu, places %d", lanes, rows,
             vectors, length, places);
    kernels->wtile(&t);
    product_close(&p, SEGMENTS * length + 1);
}

static void wtiles_of_all_shapes(void **state) {
    (void)state;
    FOR_LEVELS(level) {
        const ShoalNchwcTileKernels *kernels = tile_kernels(level);
        if (!kernels)
            continue;
        for (size_t rows = 1; rows <= kernels->wrows; rows++)
            for (size_t vectors = 1; vectors <= kernels->wvectors; vectors++)
                for (size_t length = 1; length <= 7; length += 1 + length / 3)
                    for (int places = 0; places < 2; places++)
                        check_wtile(kernels, lanes_of(level), rows, vectors, length, places);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_of_all_shapes),
        cmocka_unit_test(wtiles_of_all_shapes),
    };
    return cmocka_run_group_tests(tests, check_start, check_stop);
}
