/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_RING_INTERNAL_H
#define SHOAL_COLLECTIVE_RING_INTERNAL_H

#include "collective/ring.h"

/* Shared by ring.c (life, allreduce) and ring_join.c (how a generation's connections come up). */

struct ShoalRing {
    ShoalCollective base; /* first: an engine is its ring */
    int listen_fd;
    int abort_fd; /* eventfd: readable after abort */
    int wake_fd;  /* of the caller, or -1 */
    int next_fd, previous_fd;
    uint64_t generation;
    uint64_t sequence;  /* running number of the next allreduce in this generation */
    int suspect;        /* rank, or -1 */
    ShoalError failure; /* why this generation is of no further use; status 0: it is fine */
    float *staging;     /* received, not yet summed */
};

/* Brings both connections up; ring->next_fd and previous_fd are set on success only. */
ShoalStatus shoal_ring_join(ShoalRing *ring, const ShoalRingConfig *config, uint64_t deadline_ms,
                            ShoalError *err);

#endif
