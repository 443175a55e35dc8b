/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_RING_H
#define SHOAL_COLLECTIVE_RING_H

#include <stdint.h>

#include "collective/auth.h"
#include "collective/collective.h"
#include "collective/socket.h"
#include "shoal/status.h"

/* Ring allreduce over TCP: reduce-scatter, then all-gather (Patarasuk and Yuan, "Bandwidth optimal
 * all-reduce algorithms for clusters of workstations", JPDC 2009, section 4). Every rank sends to
 * the next and receives from the previous one, each over a connection of its own; 2 (size - 1) /
 * size of the data pass each link. What is received is added and passed on segment by segment,
 * without waiting for the end of a step.
 *
 * The listening socket lives as long as the ring; connections live for one generation. */

typedef struct ShoalRing ShoalRing;

/* Most ranks of one ring. */
#define SHOAL_RING_MAX_SIZE 1024

typedef struct ShoalRingConfig {
    uint64_t generation;
    unsigned rank, size;         /* 0 <= rank < size <= SHOAL_RING_MAX_SIZE */
    const ShoalAddress *members; /* [size], by rank: where each listens; only read during connect */
    ShoalAuthKey key;            /* shoal_auth_ring_key of this generation */
    int wake_fd; /* readable: give up with SHOAL_ERR_STOPPED; -1: none. Not closed */
} ShoalRingConfig;

/* Listens at `address` ("0.0.0.0:0", "127.0.0.1:0"); *port is the port got. shoal_auth_init must
 * have been called. SHOAL_ERR_ARGUMENT, SHOAL_ERR_NETWORK, SHOAL_ERR_MEMORY. */
ShoalStatus shoal_ring_create(const char *address, ShoalRing **ring, uint16_t *port,
                              ShoalError *err);

/* Leaves the generation before, if any, and joins this one: returns when the next rank has accepted
 * and the previous one is accepted, each with proof. Foreign, stale, slow and garbage connections
 * are closed and change nothing; a next rank that is not ready is tried again until the deadline
 * (shoal_clock_ms). SHOAL_ERR_NETWORK at the deadline (the message names the rank that is missing),
 * SHOAL_ERR_STOPPED by wake_fd or abort, SHOAL_ERR_ARGUMENT. */
ShoalStatus shoal_ring_connect(ShoalRing *ring, const ShoalRingConfig *config, uint64_t deadline_ms,
                               ShoalError *err);

/* Closes the connections of the present generation (the neighbours see it) and forgets an abort;
 * keeps listening. */
void shoal_ring_disconnect(ShoalRing *ring);

/* The engine, owned by the ring: shoal_collective_destroy of it is shoal_ring_destroy. allreduce
 * before connect, or after a failure, returns SHOAL_ERR_STOPPED or the first failure's status. */
ShoalCollective *shoal_ring_collective(ShoalRing *ring);

/* The rank that the last failure points at, or -1. Closing runs round the ring, so this may be a
 * survivor that closed because of another: the coordinator knows better. */
int shoal_ring_suspect(const ShoalRing *ring);

void shoal_ring_destroy(ShoalRing *ring);

#endif
