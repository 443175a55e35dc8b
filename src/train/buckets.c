/* SPDX-License-Identifier: Apache-2.0 */
#include "train/buckets.h"

#include "base/error.h"
#include "base/memory.h"

/* Small enough that the first leaves early, large enough that what each one costs does not rule:
 * about eight of them, of 256 KB to 4 MB. */
enum { BUCKETS = 8, LEAST_VALUES = 1 << 16, MOST_VALUES = 1 << 20 };

static size_t bucket_values(size_t count) {
    size_t values = count / BUCKETS;
    return values < LEAST_VALUES ? LEAST_VALUES : values > MOST_VALUES ? MOST_VALUES : values;
}

/* By size alone: the same on every worker, whatever its kernels do at once. */
static void cut(ShoalBuckets *buckets, size_t count) {
    size_t usual = bucket_values(count);
    for (size_t end = count; end > 0;) {
        size_t size = end < usual + usual / 2 ? end : usual;
        end -= size;
        buckets->items[buckets->count++] = (ShoalBucket){.first = end, .count = size};
    }
}

/* Buckets descend. */
static ShoalBucket *bucket_of(ShoalBuckets *buckets, size_t value) {
    for (int i = 0; i < buckets->count; i++)
        if (value >= buckets->items[i].first)
            return &buckets->items[i];
    return NULL;
}

static void count_params(ShoalBuckets *buckets, const ShoalNetParams *params) {
    for (int i = 0; i < params->count; i++) {
        const ShoalParam *param = params->items[i];
        if (!param->learns)
            continue;
        size_t first = (size_t)(param->blob.diff - params->gradients);
        ShoalBucket *from = bucket_of(buckets, first);
        ShoalBucket *to = bucket_of(buckets, first + param->blob.count - 1);
        for (ShoalBucket *b = to; b && from && b <= from; b++)
            b->params++;
    }
}

ShoalStatus shoal_buckets_init(ShoalBuckets *buckets, const ShoalNetParams *params, float *residual,
                               ShoalError *err) {
    size_t most = params->gradient_count / bucket_values(params->gradient_count) + 2;
    *buckets = (ShoalBuckets){.gradients = params->gradients, .residual = residual};
    buckets->items = shoal_calloc(most, sizeof *buckets->items);
    if (!buckets->items)
        return shoal_error_memory(err, "the gradients' buckets", most * sizeof *buckets->items);
    cut(buckets, params->gradient_count);
    count_params(buckets, params);
    return SHOAL_OK;
}

void shoal_buckets_close(ShoalBuckets *buckets) {
    shoal_free(buckets->items);
    *buckets = (ShoalBuckets){0};
}

void shoal_buckets_begin(ShoalBuckets *buckets, ShoalCollective *collective) {
    buckets->collective = collective;
    buckets->next = 0;
    shoal_error_clear(&buckets->failure);
    for (int i = 0; i < buckets->count; i++)
        buckets->items[i].pending = buckets->items[i].params;
}

static void submit_next(ShoalBuckets *buckets) {
    const ShoalBucket *bucket = &buckets->items[buckets->next++];
    if (buckets->failure.status)
        return;
    float *residual = buckets->residual ? buckets->residual + bucket->first : NULL;
    (void)shoal_collective_submit(buckets->collective, buckets->gradients + bucket->first,
                                  bucket->count, residual, &buckets->ticket, &buckets->failure);
}

void shoal_buckets_ready(void *context, const ShoalParam *param) {
    ShoalBuckets *buckets = context;
    size_t first = (size_t)(param->blob.diff - buckets->gradients);
    ShoalBucket *from = bucket_of(buckets, first);
    ShoalBucket *to = bucket_of(buckets, first + param->blob.count - 1);
    for (ShoalBucket *b = to; b && from && b <= from; b++)
        b->pending--;
    while (buckets->next < buckets->count && buckets->items[buckets->next].pending == 0)
        submit_next(buckets);
}

ShoalStatus shoal_buckets_finish(ShoalBuckets *buckets, ShoalError *err) {
    while (buckets->next < buckets->count)
        submit_next(buckets);
    if (buckets->failure.status)
        return shoal_error_set(err, buckets->failure.status, "%s", buckets->failure.text);
    return SHOAL_OK;
}
