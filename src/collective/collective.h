/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_COLLECTIVE_H
#define SHOAL_COLLECTIVE_COLLECTIVE_H

#include <stddef.h>
#include <stdint.h>

#include "shoal/status.h"

/* What an engine (ring over TCP, MPI) offers: sums over all ranks. An engine is one rank's part of
 * one generation. One thread calls allreduce; abort may come from any thread. */
typedef struct ShoalCollective ShoalCollective;

typedef struct ShoalCollectiveStats {
    uint64_t calls;          /* of allreduce that went well, with size > 1 */
    uint64_t bytes_sent;     /* of payload and headers */
    uint64_t bytes_received; /* likewise */
    uint64_t ns;             /* inside allreduce */
    uint64_t waiting_ns;     /* of these, asleep: neither sending, receiving nor summing */
} ShoalCollectiveStats;

/* The table that an engine fills; callers use the functions below. */
typedef struct ShoalCollectiveEngine {
    const char *name; /* "ring" */
    ShoalStatus (*allreduce)(ShoalCollective *self, float *values, size_t count, ShoalError *err);
    void (*abort)(ShoalCollective *self);
    void (*destroy)(ShoalCollective *self);
} ShoalCollectiveEngine;

/* The head of every engine's own struct. */
struct ShoalCollective {
    const ShoalCollectiveEngine *engine;
    unsigned rank, size;
    ShoalCollectiveStats stats;
};

/* values[count] becomes, on every rank, the sum of values[count] over all ranks:
 *     values[i] = sum over r of values_r[i]
 * added in an order that depends on (i, count, size) alone, so all ranks hold the same bits. Every
 * rank calls it with the same count, in the same order. size 1: nothing happens. On failure values
 * is undefined and the engine of no further use: SHOAL_ERR_LOST (a peer is gone),
 * SHOAL_ERR_STOPPED (abort, or the wake_fd), SHOAL_ERR_PROTOCOL (ranks disagree on call or count).
 */
static inline ShoalStatus shoal_collective_allreduce(ShoalCollective *collective, float *values,
                                                     size_t count, ShoalError *err) {
    return collective->engine->allreduce(collective, values, count, err);
}

/* Makes the running allreduce, or the next one, return SHOAL_ERR_STOPPED. Any thread. */
static inline void shoal_collective_abort(ShoalCollective *collective) {
    collective->engine->abort(collective);
}

/* Read it from the thread that calls allreduce. */
static inline ShoalCollectiveStats shoal_collective_stats(const ShoalCollective *collective) {
    return collective->stats;
}

/* NULL is fine. */
static inline void shoal_collective_destroy(ShoalCollective *collective) {
    if (collective)
        collective->engine->destroy(collective);
}

#endif
