/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_BUCKETS_H
#define SHOAL_TRAIN_BUCKETS_H

#include "collective/collective.h"
#include "net/net.h"

/* The gradients of a net, cut into buckets that are summed over the workers while backward still
 * computes the gradients of the layers below (Li et al., "PyTorch distributed", VLDB 2020, section
 * 3.2.3). Buckets go out in one order everywhere, from the end of the block of gradients to its
 * begin, which is about the order in which backward completes them. */

typedef struct ShoalBucket {
    size_t first, count; /* values in the block of gradients */
    int params;          /* that end in it */
    int pending;         /* of them, not complete in this pass */
} ShoalBucket;

typedef struct ShoalBuckets {
    ShoalBucket *items; /* from the end of the block to its begin */
    int count, next;    /* next: the first that is not submitted yet */
    float *gradients, *residual;
    ShoalCollective *collective; /* of the pass that is running; NULL: none */
    uint64_t ticket;             /* of the last submitted */
    ShoalError failure;
} ShoalBuckets;

/* Cuts the gradients of a net; residual [gradient_count] or NULL. SHOAL_ERR_MEMORY. */
ShoalStatus shoal_buckets_init(ShoalBuckets *buckets, const ShoalNetParams *params, float *residual,
                               ShoalError *err);
void shoal_buckets_close(ShoalBuckets *buckets);

/* Before the last backward pass of an iteration. */
void shoal_buckets_begin(ShoalBuckets *buckets, ShoalCollective *collective);
/* A ShoalGradientReady with the buckets as context: submits what is complete. */
void shoal_buckets_ready(void *buckets, const ShoalParam *param);
/* Submits the rest; the ticket of the last one is in buckets->ticket. */
ShoalStatus shoal_buckets_finish(ShoalBuckets *buckets, ShoalError *err);

#endif
