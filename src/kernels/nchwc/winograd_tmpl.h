/* SPDX-License-Identifier: Apache-2.0 */
/* Included once per level by <isa>/nchwc_winograd.c, after <isa>/vector.h, with SHOAL_ISA(name):
 * the transforms of nchwc/winograd.h over one vector of lanes.
 *
 * For points 0, +-P, +-Q, infinity, one dimension at a time (Toom-Cook; Lavin's matrices have
 * P = 1, Q = 2):
 *   B' = | PPQQ  0    -(PP+QQ)  0        1  0 |   G = | 1/PPQQ  0     0    |
 *        | 0    -PQQ  -QQ       P        1  0 |       | n       nP    nPP  |  n = 1/(2PP(PP-QQ))
 *        | 0     PQQ  -QQ      -P        1  0 |       | n      -nP    nPP  |
 *        | 0    -QPP  -PP       Q        1  0 |       | k       kQ    kQQ  |  k = 1/(2QQ(QQ-PP))
 *        | 0     QPP  -PP      -Q        1  0 |       | k      -kQ    kQQ  |
 *        | 0     PPQQ  0       -(PP+QQ)  0  1 |       | 0       0     1    |
 *   A' = | 1  1    1    1    1    0 |
 *        | 0  P   -P    Q   -Q    0 |
 *        | 0  PP   PP   QQ   QQ   0 |
 *        | 0  PPP -PPP  QQQ -QQQ  1 |
 */
#include <string.h>

#include "kernels/nchwc/winograd.h"

#define POINT_P 0.625f
#define POINT_Q 1.5f
#define POINT_PP (POINT_P * POINT_P)
#define POINT_QQ (POINT_Q * POINT_Q)
#define POINT_N (1 / (2 * POINT_PP * (POINT_PP - POINT_QQ)))
#define POINT_K (1 / (2 * POINT_QQ * (POINT_QQ - POINT_PP)))

enum { TILE_IN = 6, TILE_OUT = 4, TILE_TAPS = 3 };

#define INLINE static inline __attribute__((always_inline))

/* B' d */
INLINE void transform_input(const Vector d[TILE_IN], Vector v[TILE_IN]) {
    const Vector p = vector_set1(POINT_P), minus_p = vector_set1(-POINT_P);
    const Vector q = vector_set1(POINT_Q), minus_q = vector_set1(-POINT_Q);
    const Vector minus_pp = vector_set1(-POINT_PP), minus_qq = vector_set1(-POINT_QQ);
    const Vector ppqq = vector_set1(POINT_PP * POINT_QQ);
    const Vector sum = vector_set1(-(POINT_PP + POINT_QQ));
    Vector even_p = vector_fma(minus_qq, d[2], d[4]), odd_p = vector_fma(minus_qq, d[1], d[3]);
    Vector even_q = vector_fma(minus_pp, d[2], d[4]), odd_q = vector_fma(minus_pp, d[1], d[3]);
    v[0] = vector_fma(ppqq, d[0], vector_fma(sum, d[2], d[4]));
    v[1] = vector_fma(p, odd_p, even_p);
    v[2] = vector_fma(minus_p, odd_p, even_p);
    v[3] = vector_fma(q, odd_q, even_q);
    v[4] = vector_fma(minus_q, odd_q, even_q);
    v[5] = vector_fma(ppqq, d[1], vector_fma(sum, d[3], d[5]));
}

/* A' m */
INLINE void transform_output(const Vector m[TILE_IN], Vector y[TILE_OUT]) {
    Vector even_p = vector_add(m[1], m[2]), odd_p = vector_sub(m[1], m[2]);
    Vector even_q = vector_add(m[3], m[4]), odd_q = vector_sub(m[3], m[4]);
    y[0] = vector_add(vector_add(m[0], even_p), even_q);
    y[1] = vector_fma(vector_set1(POINT_P), odd_p, vector_mul(vector_set1(POINT_Q), odd_q));
    y[2] = vector_fma(vector_set1(POINT_PP), even_p, vector_mul(vector_set1(POINT_QQ), even_q));
    y[3] = vector_fma(vector_set1(POINT_PP * POINT_P), odd_p,
                      vector_fma(vector_set1(POINT_QQ * POINT_Q), odd_q, m[5]));
}

/* A y */
INLINE void transform_gradient(const Vector y[TILE_OUT], Vector m[TILE_IN]) {
    Vector even_p = vector_fma(vector_set1(POINT_PP), y[2], y[0]);
    Vector odd_p = vector_fma(vector_set1(POINT_PP), y[3], y[1]);
    Vector even_q = vector_fma(vector_set1(POINT_QQ), y[2], y[0]);
    Vector odd_q = vector_fma(vector_set1(POINT_QQ), y[3], y[1]);
    m[0] = y[0];
    m[1] = vector_fma(vector_set1(POINT_P), odd_p, even_p);
    m[2] = vector_fma(vector_set1(-POINT_P), odd_p, even_p);
    m[3] = vector_fma(vector_set1(POINT_Q), odd_q, even_q);
    m[4] = vector_fma(vector_set1(-POINT_Q), odd_q, even_q);
    m[5] = y[3];
}

/* G g */
INLINE void transform_weights(const Vector g[TILE_TAPS], Vector u[TILE_IN]) {
    Vector even_p = vector_mul(vector_set1(POINT_N), vector_fma(vector_set1(POINT_PP), g[2], g[0]));
    Vector even_q = vector_mul(vector_set1(POINT_K), vector_fma(vector_set1(POINT_QQ), g[2], g[0]));
    u[0] = vector_mul(vector_set1(1 / (POINT_PP * POINT_QQ)), g[0]);
    u[1] = vector_fma(vector_set1(POINT_N * POINT_P), g[1], even_p);
    u[2] = vector_fma(vector_set1(-POINT_N * POINT_P), g[1], even_p);
    u[3] = vector_fma(vector_set1(POINT_K * POINT_Q), g[1], even_q);
    u[4] = vector_fma(vector_set1(-POINT_K * POINT_Q), g[1], even_q);
    u[5] = g[2];
}

/* G' u */
INLINE void transform_sum(const Vector u[TILE_IN], Vector g[TILE_TAPS]) {
    Vector even_p = vector_mul(vector_set1(POINT_N), vector_add(u[1], u[2]));
    Vector even_q = vector_mul(vector_set1(POINT_K), vector_add(u[3], u[4]));
    Vector odd_p = vector_mul(vector_set1(POINT_N * POINT_P), vector_sub(u[1], u[2]));
    g[0] = vector_fma(vector_set1(1 / (POINT_PP * POINT_QQ)), u[0], vector_add(even_p, even_q));
    g[1] = vector_fma(vector_set1(POINT_K * POINT_Q), vector_sub(u[3], u[4]), odd_p);
    g[2] =
        vector_fma(vector_set1(POINT_PP), even_p, vector_fma(vector_set1(POINT_QQ), even_q, u[5]));
}

/* How a number of the input is read. */
typedef enum Function { READ_PLAIN, READ_AFFINE, READ_RELU } Function;

INLINE Vector read_value(const float *x, Function function, Vector scale, Vector shift) {
    Vector v = vector_load(x);
    if (function != READ_PLAIN)
        v = vector_fma(scale, v, shift);
    return function == READ_RELU ? vector_relu(v) : v;
}

INLINE void input_tile(const float *x, size_t pitch, Function function, Vector scale, Vector shift,
                       float *v, size_t v_step) {
    Vector rows[TILE_IN][TILE_IN];
    for (int j = 0; j < TILE_IN; j++) {
        Vector d[TILE_IN], t[TILE_IN];
        for (int i = 0; i < TILE_IN; i++)
            d[i] = read_value(x + (size_t)i * pitch + j * LANES, function, scale, shift);
        transform_input(d, t);
        for (int i = 0; i < TILE_IN; i++)
            rows[i][j] = t[i];
    }
    for (int i = 0; i < TILE_IN; i++) {
        Vector t[TILE_IN];
        transform_input(rows[i], t);
        for (int j = 0; j < TILE_IN; j++)
            vector_store(v + (size_t)(i * TILE_IN + j) * v_step, t[j]);
    }
}

/* A tile of `size` x `size` pixels, as far as it lies in the plane, between zeros. */
INLINE void gather_tile(const ShoalNchwcWinogradRead *r, ptrdiff_t col, int size, Function function,
                        Vector scale, Vector shift, float *tile) {
    for (int i = 0; i < size; i++) {
        const ptrdiff_t row = r->row + i;
        const bool inside = row >= 0 && row < r->height;
        for (int j = 0; j < size; j++, tile += LANES) {
            const bool here = inside && col + j >= 0 && col + j < r->width;
            Vector v = vector_zero();
            if (here)
                v = read_value(r->x + (row * r->width + col + j) * LANES, function, scale, shift);
            vector_store(tile, v);
        }
    }
}

INLINE bool tile_inside(const ShoalNchwcWinogradRead *r, ptrdiff_t col, int size) {
    return r->row >= 0 && r->row + size <= r->height && col >= 0 && col + size <= r->width;
}

INLINE void input_row(const ShoalNchwcWinogradRead *r, Function function) {
    const Vector scale = r->scale ? vector_load(r->scale) : vector_set1(1);
    const Vector shift = r->scale ? vector_load(r->shift) : vector_zero();
    const size_t pitch = (size_t)r->width * LANES;
    _Alignas(64) float edge[TILE_IN * TILE_IN * LANES];
    for (size_t t = 0; t < r->tiles; t++) {
        const ptrdiff_t col = r->col + (ptrdiff_t)t * TILE_OUT;
        float *v = r->v + t * LANES;
        if (tile_inside(r, col, TILE_IN)) {
            input_tile(r->x + (r->row * r->width + col) * LANES, pitch, function, scale, shift, v,
                       r->v_step);
            continue;
        }
        gather_tile(r, col, TILE_IN, function, scale, shift, edge);
        input_tile(edge, TILE_IN * LANES, READ_PLAIN, scale, shift, v, r->v_step);
    }
}

static void input(const ShoalNchwcWinogradRead *read) {
    if (read->relu)
        input_row(read, READ_RELU);
    else if (read->scale)
        input_row(read, READ_AFFINE);
    else
        input_row(read, READ_PLAIN);
}

INLINE void gradient_tile(const float *x, size_t pitch, float *v, size_t v_step) {
    Vector rows[TILE_IN][TILE_OUT];
    for (int j = 0; j < TILE_OUT; j++) {
        Vector y[TILE_OUT], t[TILE_IN];
        for (int i = 0; i < TILE_OUT; i++)
            y[i] = vector_load(x + (size_t)i * pitch + j * LANES);
        transform_gradient(y, t);
        for (int i = 0; i < TILE_IN; i++)
            rows[i][j] = t[i];
    }
    for (int i = 0; i < TILE_IN; i++) {
        Vector t[TILE_IN];
        transform_gradient(rows[i], t);
        for (int j = 0; j < TILE_IN; j++)
            vector_store(v + (size_t)(i * TILE_IN + j) * v_step, t[j]);
    }
}

static void gradient(const ShoalNchwcWinogradRead *r) {
    const Vector none = vector_zero();
    _Alignas(64) float edge[TILE_OUT * TILE_OUT * LANES];
    for (size_t t = 0; t < r->tiles; t++) {
        const ptrdiff_t col = r->col + (ptrdiff_t)t * TILE_OUT;
        const float *x = r->x + (r->row * r->width + col) * LANES;
        size_t pitch = (size_t)r->width * LANES;
        if (!tile_inside(r, col, TILE_OUT)) {
            gather_tile(r, col, TILE_OUT, READ_PLAIN, none, none, edge);
            x = edge;
            pitch = TILE_OUT * LANES;
        }
        gradient_tile(x, pitch, r->v + t * LANES, r->v_step);
    }
}

INLINE void output_tile(const float *m, size_t m_step, Vector bias, bool accumulate, float *y,
                        size_t pitch) {
    Vector rows[TILE_OUT][TILE_IN];
    for (int j = 0; j < TILE_IN; j++) {
        Vector c[TILE_IN], t[TILE_OUT];
        for (int i = 0; i < TILE_IN; i++)
            c[i] = vector_load(m + (size_t)(i * TILE_IN + j) * m_step);
        transform_output(c, t);
        for (int i = 0; i < TILE_OUT; i++)
            rows[i][j] = t[i];
    }
    for (int i = 0; i < TILE_OUT; i++) {
        Vector t[TILE_OUT];
        transform_output(rows[i], t);
        for (int j = 0; j < TILE_OUT; j++) {
            float *to = y + (size_t)i * pitch + j * LANES;
            vector_store(to, vector_add(t[j], accumulate ? vector_load(to) : bias));
        }
    }
}

/* The part of a tile that lies in the plane; tile [4][4][lanes]. */
INLINE void scatter_tile(const ShoalNchwcWinogradWrite *w, ptrdiff_t col, const float *tile) {
    for (int i = 0; i < TILE_OUT && w->row + i < w->height; i++)
        for (int j = 0; j < TILE_OUT && col + j < w->width; j++) {
            float *to = w->y + ((w->row + i) * w->width + col + j) * LANES;
            Vector v = vector_load(tile + (i * TILE_OUT + j) * LANES);
            vector_store(to, w->accumulate ? vector_add(vector_load(to), v) : v);
        }
}

static void output(const ShoalNchwcWinogradWrite *w) {
    const Vector bias = w->bias ? vector_load(w->bias) : vector_zero();
    const size_t pitch = (size_t)w->width * LANES;
    _Alignas(64) float edge[TILE_OUT * TILE_OUT * LANES];
    for (size_t t = 0; t < w->tiles; t++) {
        const ptrdiff_t col = (ptrdiff_t)t * TILE_OUT;
        const float *m = w->m + t * LANES;
        float *y = w->y + (w->row * w->width + col) * LANES;
        if (w->row + TILE_OUT > w->height || col + TILE_OUT > w->width) {
            output_tile(m, w->m_step, bias, false, edge, TILE_OUT * LANES);
            scatter_tile(w, col, edge);
        } else if (w->accumulate) {
            output_tile(m, w->m_step, bias, true, y, pitch);
        } else {
            output_tile(m, w->m_step, bias, false, y, pitch);
        }
    }
}

enum { TAPS = TILE_TAPS * TILE_TAPS };

/* LANES rows of TAPS * LANES numbers, w_row apart, turned into columns: to[column][row]. */
INLINE void transpose_rows(const float *w, size_t w_row, float *to) {
    for (int j = 0; j < TAPS; j++) {
        Vector v[LANES];
        for (int l = 0; l < LANES; l++)
            v[l] = vector_load(w + (size_t)l * w_row + j * LANES);
        vector_transpose(v);
        for (int l = 0; l < LANES; l++)
            vector_store(to + (j * LANES + l) * LANES, v[l]);
    }
}

/* taps[row][tap][lane] of whole blocks whose lanes' taps follow each other: rows become lanes and
 * lanes rows, then back for each tap. */
static void turned_taps(const ShoalNchwcWinogradWeights *s, float *taps) {
    _Alignas(64) float columns[LANES * TAPS * LANES];
    transpose_rows(s->w, s->w_row, columns);
    for (int e = 0; e < TAPS; e++) {
        Vector v[LANES];
        for (int l = 0; l < LANES; l++)
            v[l] = vector_load(columns + (l * TAPS + e) * LANES);
        vector_transpose(v);
        for (int n = 0; n < LANES; n++)
            vector_store(taps + (n * TAPS + TAPS - 1 - e) * LANES, v[n]);
    }
}

/* taps[row][tap][lane], 0 beyond the valid lanes. */
static void gather_taps(const ShoalNchwcWinogradWeights *s, float *taps) {
    const bool whole = s->count == LANES && s->valid == LANES;
    if (whole && !s->turned && s->w_row == TAPS) {
        transpose_rows(s->w, s->w_lane, taps);
        return;
    }
    if (whole && s->turned && s->w_lane == TAPS) {
        turned_taps(s, taps);
        return;
    }
    memset(taps, 0, s->count * TAPS * LANES * sizeof *taps);
    for (size_t n = 0; n < s->count; n++)
        for (size_t l = 0; l < s->valid; l++)
            for (size_t e = 0; e < TAPS; e++)
                taps[(n * TAPS + (s->turned ? TAPS - 1 - e : e)) * LANES + l] =
                    s->w[n * s->w_row + l * s->w_lane + e];
}

/* A row of a block of weights is too short, and the next too far, for the processor to see it
 * coming. */
INLINE void fetch_row(const float *row) {
    for (int i = 0; i < TAPS * LANES; i += 16)
        __builtin_prefetch(row + i);
    __builtin_prefetch(row + TAPS * LANES - 1);
}

/* U of one row from its taps. Stores to so many places would wait for their lines one by one, so
 * those of the next row are fetched. */
INLINE void weights_row(const float *taps, float *u, size_t u_step, size_t u_row) {
    Vector rows[TILE_IN][TILE_TAPS];
    for (int j = 0; j < TILE_TAPS; j++) {
        Vector g[TILE_TAPS], t[TILE_IN];
        for (int i = 0; i < TILE_TAPS; i++)
            g[i] = vector_load(taps + (i * TILE_TAPS + j) * LANES);
        transform_weights(g, t);
        for (int i = 0; i < TILE_IN; i++)
            rows[i][j] = t[i];
    }
    for (int i = 0; i < TILE_IN; i++) {
        Vector t[TILE_IN];
        transform_weights(rows[i], t);
        for (int j = 0; j < TILE_IN; j++, u += u_step) {
            vector_store(u, t[j]);
            __builtin_prefetch(u + u_row, 1);
        }
    }
}

static void weights(const ShoalNchwcWinogradWeights *s) {
    _Alignas(64) float taps[LANES * TAPS * LANES];
    const size_t u_step = s->u_step, u_row = s->u_row, count = s->count;
    const size_t w_next = s->turned ? s->w_row : s->w_lane;
    gather_taps(s, taps);
    for (size_t n = 0; n < count; n++) {
        fetch_row(s->ahead + n * w_next);
        weights_row(taps + n * TAPS * LANES, s->u + n * u_row, u_step, u_row);
    }
}

INLINE Vector load_slices(const ShoalNchwcWinogradSum *s, const float *u) {
    Vector v = vector_load(u);
    for (size_t slice = 1; slice < s->slices; slice++)
        v = vector_add(v, vector_load(u + slice * s->u_slice));
    return v;
}

/* w += taps[row][tap][lane], where w[lane][row][tap]. */
static void scatter_taps(const ShoalNchwcWinogradSum *s, const float *taps) {
    if (s->count < LANES || s->valid < LANES) {
        for (size_t l = 0; l < s->valid; l++)
            for (size_t i = 0; i < s->count * TAPS; i++)
                s->w[l * s->w_lane + i] += taps[i * LANES + l];
        return;
    }
    for (int j = 0; j < TAPS; j++) {
        Vector v[LANES];
        for (int i = 0; i < LANES; i++)
            v[i] = vector_load(taps + (j * LANES + i) * LANES);
        vector_transpose(v);
        for (int l = 0; l < LANES; l++) {
            float *to = s->w + (size_t)l * s->w_lane + j * LANES;
            vector_store(to, vector_add(vector_load(to), v[l]));
        }
    }
}

static void sum(const ShoalNchwcWinogradSum *s) {
    _Alignas(64) float taps[LANES * TAPS * LANES];
    for (size_t n = 0; n < s->count; n++) {
        const float *u = s->u + n * s->u_row;
        Vector rows[TILE_TAPS][TILE_IN];
        for (int j = 0; j < TILE_IN; j++) {
            Vector c[TILE_IN], t[TILE_TAPS];
            for (int i = 0; i < TILE_IN; i++)
                c[i] = load_slices(s, u + (size_t)(i * TILE_IN + j) * s->u_step);
            transform_sum(c, t);
            for (int i = 0; i < TILE_TAPS; i++)
                rows[i][j] = t[i];
        }
        for (int i = 0; i < TILE_TAPS; i++) {
            Vector t[TILE_TAPS];
            transform_sum(rows[i], t);
            for (int j = 0; j < TILE_TAPS; j++)
                vector_store(taps + ((int)n * TAPS + i * TILE_TAPS + j) * LANES, t[j]);
        }
    }
    scatter_taps(s, taps);
}

const ShoalNchwcWinogradKernels SHOAL_ISA(shoal_nchwc_winograd) = {
    .cache_bytes = WINOGRAD_CACHE_BYTES,
    .round_bytes = (size_t)12 << 20,
    .input = input,
    .gradient = gradient,
    .output = output,
    .weights = weights,
    .sum = sum,
};
