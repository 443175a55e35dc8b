/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_COLLECTIVE_H
#define SHOAL_COLLECTIVE_COLLECTIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/status.h"

/* What an engine (ring over TCP, MPI) offers: sums over all ranks, and copies to those that lack
 * something. An engine is one rank's part of one generation.
 *
 * Operations are submitted and waited for, so that they run while the caller computes; several may
 * be on their way at once. All ranks submit the same operations in the same order. One thread
 * submits and waits; abort may come from any thread. What an operation reads or writes belongs to
 * it from submit until wait has returned for it (or for a later one). */
typedef struct ShoalCollective ShoalCollective;

typedef struct ShoalCollectiveStats {
    uint64_t calls;          /* operations that went well, with size > 1 */
    uint64_t bytes_sent;     /* over the wire, headers included */
    uint64_t bytes_received; /* likewise */
    uint64_t busy_ns;        /* while at least one operation was under way */
    uint64_t waited_ns;      /* the caller's, inside wait: what did not overlap */
} ShoalCollectiveStats;

/* A piece of memory that a relay copies. */
typedef struct ShoalPiece {
    void *bytes;
    size_t size;
} ShoalPiece;

/* The table that an engine fills; callers use the functions below. */
typedef struct ShoalCollectiveEngine {
    const char *name; /* "ring" */
    ShoalStatus (*submit)(ShoalCollective *self, float *values, size_t count, float *residual,
                          bool exact, uint64_t *ticket, ShoalError *err);
    ShoalStatus (*relay)(ShoalCollective *self, const ShoalPiece *pieces, size_t n_pieces,
                         const unsigned char *needy, uint64_t *ticket, ShoalError *err);
    ShoalStatus (*wait)(ShoalCollective *self, uint64_t ticket, ShoalError *err);
    void (*abort)(ShoalCollective *self, uint64_t generation);
    void (*destroy)(ShoalCollective *self);
} ShoalCollectiveEngine;

/* The head of every engine's own struct. */
struct ShoalCollective {
    const ShoalCollectiveEngine *engine;
    unsigned rank, size;
    ShoalCollectiveStats stats; /* of the thread that submits; updated by wait */
};

/* Starts a sum: values[count] becomes, on every rank, the sum of values[count] over all ranks:
 *     values[i] = sum over r of values_r[i]
 * added in an order that depends on (i, count, size) alone, so all ranks hold the same bits. Every
 * rank gives the same count. size 1: nothing happens. *ticket: for wait; tickets grow by 1.
 *
 * residual: where the engine sends less than 32 bits a value, [count] floats of the caller that
 * carry what rounding left out from one call to the next (error feedback: Seide et al., "1-bit
 * stochastic gradient descent", Interspeech 2014): added before rounding, replaced by what is lost
 * now. NULL: the loss is forgotten. Unused at 32 bits.
 *
 * Failures, here and in wait, leave values undefined and the engine of no further use until it is
 * connected again: SHOAL_ERR_LOST (a peer is gone), SHOAL_ERR_STOPPED (abort), SHOAL_ERR_PROTOCOL
 * (ranks disagree on what they do, or bytes arrived damaged), SHOAL_ERR_MEMORY. */
static inline ShoalStatus shoal_collective_submit(ShoalCollective *collective, float *values,
                                                  size_t count, float *residual, uint64_t *ticket,
                                                  ShoalError *err) {
    return collective->engine->submit(collective, values, count, residual, false, ticket, err);
}

/* The same, with 32 bits a value whatever the engine sends otherwise. */
static inline ShoalStatus shoal_collective_submit_exact(ShoalCollective *collective, float *values,
                                                        size_t count, uint64_t *ticket,
                                                        ShoalError *err) {
    return collective->engine->submit(collective, values, count, NULL, true, ticket, err);
}

/* Starts a copy: every rank r with needy[r] != 0 (needy[size], the same on all ranks, at least one
 * of them 0) gets the pieces' bytes from the nearest rank before it that is not needy, by way of
 * those between. Piece sizes are the same on all ranks; the pieces array and needy are copied, the
 * pieces' memory is not. A rank that is not needy only reads its pieces. */
static inline ShoalStatus shoal_collective_relay(ShoalCollective *collective,
                                                 const ShoalPiece *pieces, size_t n_pieces,
                                                 const unsigned char *needy, uint64_t *ticket,
                                                 ShoalError *err) {
    return collective->engine->relay(collective, pieces, n_pieces, needy, ticket, err);
}

/* Waits until the operation with this ticket and all before it are done on this rank. */
static inline ShoalStatus shoal_collective_wait(ShoalCollective *collective, uint64_t ticket,
                                                ShoalError *err) {
    return collective->engine->wait(collective, ticket, err);
}

/* Both at once. */
static inline ShoalStatus shoal_collective_allreduce(ShoalCollective *collective, float *values,
                                                     size_t count, ShoalError *err) {
    uint64_t ticket;
    ShoalStatus status = shoal_collective_submit(collective, values, count, NULL, &ticket, err);
    return status ? status : shoal_collective_wait(collective, ticket, err);
}

/* Makes whatever this engine does for generations before `generation` return SHOAL_ERR_STOPPED, now
 * and later, connecting to them included. UINT64_MAX: for good. Any thread. */
static inline void shoal_collective_abort(ShoalCollective *collective, uint64_t generation) {
    collective->engine->abort(collective, generation);
}

/* Read it from the thread that waits. */
static inline ShoalCollectiveStats shoal_collective_stats(const ShoalCollective *collective) {
    return collective->stats;
}

/* NULL is fine. */
static inline void shoal_collective_destroy(ShoalCollective *collective) {
    if (collective)
        collective->engine->destroy(collective);
}

#endif
