/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_LINK_H
#define SHOAL_TRAIN_LINK_H

#include <signal.h>

#include "collective/ring.h"
#include "data/cache.h"
#include "device/care.h"
#include "train/handshake.h"
#include "train/replica.h"

/* A worker's connection to its coordinator, with a thread of its own: it takes messages in, stages
 * samples into slots ahead of need, keeps the heartbeat, and sends what the worker has to say,
 * while the worker's main thread computes. When the membership changes it interrupts the main
 * thread, which gives up what it was doing for the old one.
 *
 *     socket -> [link thread: job, generations, rounds, samples] -> orders -> [main thread]
 *     socket <- [link thread] <- posts: ready, reports, snapshots <- [main thread]
 *
 * A link lives as long as one connection; replica, ring and cache are the worker's, and outlive it.
 */

typedef struct ShoalLink ShoalLink;

typedef enum ShoalOrderKind {
    SHOAL_ORDER_JOB,     /* bytes, size: build the replica, then shoal_link_attach */
    SHOAL_ORDER_CONNECT, /* config: join the ring, then post ready */
    SHOAL_ORDER_START,   /* needy, version, current_step; seed where this replica is to be seeded */
    SHOAL_ORDER_RUN      /* slot: run the round, then post its report */
} ShoalOrderKind;

/* Memory belongs to the link, until shoal_link_finish. */
typedef struct ShoalOrder {
    ShoalOrderKind kind;
    uint64_t generation, round;
    const unsigned char *bytes; /* JOB: packed; START: a packed seed, or NULL */
    size_t size;
    ShoalRingConfig config;     /* CONNECT */
    const unsigned char *needy; /* START: [size of the ring] */
    ShoalClusterVersion version;
    int current_step;
    ShoalSlot *slot; /* RUN */
} ShoalOrder;

typedef struct ShoalLinkOptions {
    ShoalChannel *channel; /* after the handshake; the link closes it, unless create fails */
    const ShoalJoined *joined;
    volatile sig_atomic_t *stop; /* may be NULL */
    ShoalCollective *ring;       /* is aborted when a generation ends */
    ShoalCache *cache;           /* the link's thread uses it; NULL: nothing is kept */
    int charge_limit;            /* percent that the battery should have at most; 0: any */
    ShoalCare *care;             /* the link's thread asks it how much to compute */
} ShoalLinkOptions;

ShoalStatus shoal_link_create(const ShoalLinkOptions *options, ShoalLink **out, ShoalError *err);

/* Ends the thread; sends what was posted before. NULL is fine. */
void shoal_link_destroy(ShoalLink *link);

/* How many slots the link needs. */
int shoal_link_slots(const ShoalLink *link);

/* Gives the link the replica, its job and slots to stage into; both outlive the link. Post prepared
 * after that. */
void shoal_link_attach(ShoalLink *link, ShoalReplica *replica, const ShoalJob *job,
                       ShoalSlot *const *slots);

/* Waits for the next order. *more false: the run is over, as it should be. An error: the connection
 * or the coordinator is lost (SHOAL_ERR_LOST), asked to stop (SHOAL_ERR_STOPPED)... */
ShoalStatus shoal_link_next(ShoalLink *link, ShoalOrder **order, bool *more, ShoalError *err);
/* Is the generation of this order the present one? If not, the order is void. */
bool shoal_link_is_current(ShoalLink *link, const ShoalOrder *order);
/* The order's memory may be used again. */
void shoal_link_finish(ShoalLink *link, ShoalOrder *order);

/* After an error of shoal_link_next: coming back is of no use; the state is wrong, says the
 * coordinator. */
bool shoal_link_is_final(const ShoalLink *link);
bool shoal_link_forgets(const ShoalLink *link);
/* The device needs a rest, and the coordinator has been told. */
bool shoal_link_rests(const ShoalLink *link);
/* The highest generation that was announced. */
uint64_t shoal_link_generation(ShoalLink *link);

/* Things to send. */
ShoalStatus shoal_link_post_prepared(ShoalLink *link, int capacity, uint64_t cache_bytes,
                                     ShoalError *err);
ShoalStatus shoal_link_post_ready(ShoalLink *link, uint64_t generation, ShoalClusterVersion version,
                                  int current_step, ShoalError *err);
ShoalStatus shoal_link_post_report(ShoalLink *link, const Shoal__Report *report, ShoalError *err);
/* Waits while much is still to be sent. SHOAL_ERR_LOST: the connection ended meanwhile. */
ShoalStatus shoal_link_post_chunk(ShoalLink *link, const Shoal__Chunk *chunk, ShoalError *err);
/* The ring broke, but this worker lives. */
void shoal_link_post_aborted(ShoalLink *link, uint64_t generation, int suspect_rank,
                             const char *text);
/* This worker cannot go on. */
void shoal_link_post_failure(ShoalLink *link, const ShoalError *failure);

#endif
