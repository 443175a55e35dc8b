/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/nchwc/merge.h"

#include <string.h>

#include "base/memory.h"
#include "kernels/table.h"

size_t shoal_nchwc_partials_bytes(const ShoalNchwcParts *parts, size_t blocks, size_t lanes,
                                  size_t rows) {
    size_t bytes = rows * lanes * sizeof(float);
    if (!shoal_size_mul(bytes, parts->images, &bytes) ||
        !shoal_size_mul(bytes, shoal_nchwc_parts_per_image(parts), &bytes) ||
        !shoal_size_mul(bytes, blocks, &bytes))
        return SIZE_MAX;
    return bytes;
}

void shoal_nchwc_part_stats(const ShoalNchwc *engine, size_t pixels, const float *x,
                            float *partial) {
    const size_t lanes = engine->lanes;
    memcpy(partial, x, lanes * sizeof *partial);
    engine->strip->moments(pixels, x, partial, partial + lanes, partial + 2 * lanes);
}

ShoalNchwcFinish shoal_nchwc_finish_at(const ShoalNchwcGradient *gradient, size_t lanes, size_t at,
                                       size_t channel, float *partial) {
    ShoalNchwcFinish finish = {.g = gradient->g + at, .sum_g = partial};
    if (gradient->mask)
        finish.mask = gradient->mask + at;
    if (gradient->mask && gradient->mask_scale) {
        finish.mask_scale = gradient->mask_scale + channel;
        finish.mask_shift = gradient->mask_shift + channel;
    }
    if (!partial)
        return finish;
    finish.terms = gradient->terms;
    for (int t = 0; t < gradient->terms; t++) {
        finish.z[t] = gradient->term[t].z + at;
        finish.center[t] = gradient->term[t].center + channel;
        finish.sum[t] = partial + (1 + (size_t)t) * lanes;
    }
    return finish;
}

typedef struct Merge {
    const ShoalNchwcParts *parts;
    size_t lanes;
    const float *partials;
    const ShoalNchwcStats *stats;
    const ShoalNchwcGradient *gradient;
} Merge;

/* One more part in the running mean and sum of squares about it: Chan et al. 1979, (2.1). */
static void merge_part(size_t lanes, double before, double count, const float *partial,
                       double *mean, double *square) {
    const float *origin = partial, *sum = partial + lanes, *squares = partial + 2 * lanes;
    const double share = count / (before + count), weight = before * share, part = 1 / count;
    for (size_t l = 0; l < lanes; l++) {
        double offset = (double)sum[l] * part;
        double about_mean = (double)squares[l] - offset * (double)sum[l];
        double delta = (double)origin[l] + offset - mean[l];
        mean[l] += delta * share;
        square[l] += about_mean + delta * delta * weight;
    }
}

static void merge_stats_block(void *context, size_t block, unsigned thread) {
    const Merge *m = context;
    const size_t lanes = m->lanes, parts = shoal_nchwc_parts_count(m->parts);
    const size_t per_image = shoal_nchwc_parts_per_image(m->parts);
    const float *partial = m->partials + block * parts * SHOAL_NCHWC_STATS_ROWS * lanes;
    double mean[SHOAL_NCHWC_LANES_MAX] = {0}, square[SHOAL_NCHWC_LANES_MAX] = {0}, before = 0;
    (void)thread;
    for (size_t part = 0; part < parts; part++, partial += SHOAL_NCHWC_STATS_ROWS * lanes) {
        size_t from = part % per_image * m->parts->strip, count = m->parts->pixels - from;
        if (count > m->parts->strip)
            count = m->parts->strip;
        merge_part(lanes, before, (double)count, partial, mean, square);
        before += (double)count;
    }
    for (size_t l = 0; l < lanes; l++) {
        m->stats->mean[block * lanes + l] = mean[l];
        /* Rounding may leave a trace below 0 where all numbers are the same. */
        m->stats->variance[block * lanes + l] = square[l] < 0 ? 0 : square[l] / before;
    }
}

void shoal_nchwc_merge_stats(const ShoalCompute *compute, const ShoalNchwcParts *parts,
                             size_t blocks, const float *partials, const ShoalNchwcStats *stats) {
    Merge merge = {.parts = parts,
                   .lanes = compute->kernels->nchwc->lanes,
                   .partials = partials,
                   .stats = stats};
    shoal_pool_run(compute->pool, blocks, merge_stats_block, &merge);
}

static void merge_sums_block(void *context, size_t block, unsigned thread) {
    const Merge *m = context;
    const ShoalNchwcGradient *g = m->gradient;
    const size_t lanes = m->lanes, parts = shoal_nchwc_parts_count(m->parts);
    const size_t row = shoal_nchwc_sums_rows(g) * lanes;
    const float *partial = m->partials + block * parts * row;
    double sum[(1 + SHOAL_NCHWC_TERMS) * SHOAL_NCHWC_LANES_MAX] = {0};
    (void)thread;
    for (size_t part = 0; part < parts; part++, partial += row)
        for (size_t i = 0; i < row; i++)
            sum[i] += (double)partial[i];
    memcpy(g->sum_g + block * lanes, sum, lanes * sizeof *sum);
    for (int t = 0; t < g->terms; t++)
        memcpy(g->term[t].sum + block * lanes, sum + (1 + (size_t)t) * lanes, lanes * sizeof *sum);
}

void shoal_nchwc_merge_sums(const ShoalCompute *compute, const ShoalNchwcParts *parts,
                            size_t blocks, const float *partials,
                            const ShoalNchwcGradient *gradient) {
    Merge merge = {.parts = parts,
                   .lanes = compute->kernels->nchwc->lanes,
                   .partials = partials,
                   .gradient = gradient};
    if (shoal_nchwc_sums_rows(gradient) > 0)
        shoal_pool_run(compute->pool, blocks, merge_sums_block, &merge);
}
