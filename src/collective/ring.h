/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_RING_H
#define SHOAL_COLLECTIVE_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "collective/auth.h"
#include "collective/collective.h"
#include "collective/socket.h"
#include "shoal/status.h"

/* Ring allreduce over TCP: reduce-scatter, then all-gather (Patarasuk and Yuan, "Bandwidth optimal
 * all-reduce algorithms for clusters of workstations", JPDC 2009, section 4). Every rank sends to
 * the next and receives from the previous one, each over a connection of its own; 2 (size - 1) /
 * size of the data pass each link. Operations share the two connections frame by frame, so the
 * latency of 2 (size - 1) steps is paid once for all that are on their way, not once for each. A
 * thread of the ring does the sending, receiving and adding.
 *
 * Frames carry operation, place, length and a checksum (or, encrypted, a tag); whatever does not
 * fit ends the generation with SHOAL_ERR_PROTOCOL, never the process.
 *
 * The listening socket lives as long as the ring; connections live for one generation. */

typedef struct ShoalRing ShoalRing;

/* Most ranks of one ring. */
#define SHOAL_RING_MAX_SIZE 4096

/* How values travel. Sums are made at 32 bits everywhere. At 16 bits each value is rounded once a
 * hop, the finished sum once, by the rank that finishes it: all ranks hold the same bits. Values
 * that fp16 cannot hold are clamped to its largest; see `residual` of shoal_collective_submit. */
typedef enum ShoalWireFormat { SHOAL_WIRE_FP32, SHOAL_WIRE_FP16, SHOAL_WIRE_BF16 } ShoalWireFormat;

typedef struct ShoalRingConfig {
    uint64_t generation;
    unsigned rank, size;         /* 0 <= rank < size <= SHOAL_RING_MAX_SIZE */
    const ShoalAddress *members; /* [size], by rank: where each listens; only read during connect */
    ShoalAuthKey key;            /* shoal_auth_ring_key of this generation */
    ShoalWireFormat format;      /* of sums; relays are copied as they are */
    bool encrypt;                /* all of it; ranks must agree */
    uint32_t dead_ms; /* a neighbour's machine that acknowledges nothing for so long is gone;
                         0: 3000 */
} ShoalRingConfig;

/* Listens at `address` ("0.0.0.0:0", "127.0.0.1:0"); *port is the port got. shoal_auth_init must
 * have been called. SHOAL_ERR_ARGUMENT, SHOAL_ERR_NETWORK, SHOAL_ERR_MEMORY. */
ShoalStatus shoal_ring_create(const char *address, ShoalRing **ring, uint16_t *port,
                              ShoalError *err);

/* Leaves the generation before, if any, and joins this one: returns when the next rank has accepted
 * and the previous one is accepted, each with proof. Foreign, stale, slow and garbage connections
 * are closed and change nothing; a next rank that is not ready is tried again until the deadline
 * (shoal_clock_ms). SHOAL_ERR_NETWORK at the deadline (the message names the rank that is missing),
 * SHOAL_ERR_STOPPED by abort, SHOAL_ERR_ARGUMENT. */
ShoalStatus shoal_ring_connect(ShoalRing *ring, const ShoalRingConfig *config, uint64_t deadline_ms,
                               ShoalError *err);

/* Closes the connections of the present generation (the neighbours see it); keeps listening. */
void shoal_ring_disconnect(ShoalRing *ring);

/* The engine, owned by the ring: shoal_collective_destroy of it is shoal_ring_destroy. Operations
 * before connect, or after a failure, return SHOAL_ERR_STOPPED or the first failure's status. */
ShoalCollective *shoal_ring_collective(ShoalRing *ring);

/* The rank that the last failure points at: a neighbour that fell silent or sent nonsense. -1:
 * none; one that closed its connection has given up itself, most often because of another. */
int shoal_ring_suspect(const ShoalRing *ring);

void shoal_ring_destroy(ShoalRing *ring);

#endif
