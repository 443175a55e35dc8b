/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_LINK_INTERNAL_H
#define SHOAL_TRAIN_LINK_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "cluster/messages.h"
#include "cluster/worker.h"
#include "train/chunk.h"
#include "train/link.h"

/* Shared by link.c (life, what goes out) and link_take.c (what comes in). */

/* Something to send, in the order of posting. */
typedef struct ShoalPost {
    struct ShoalPost *next;
    ShoalMessageType type;
    uint64_t generation, round;
    size_t size;
    unsigned char payload[];
} ShoalPost;

/* A slot is free, or the link fills it, or it waits in an order, or the main thread runs it. */
typedef struct ShoalLinkSlot {
    ShoalSlot *slot;
    bool used;
    /* while it is being filled: */
    Shoal__Round *message;
    size_t missing; /* samples that are not there yet */
} ShoalLinkSlot;

typedef struct ShoalLinkOrder {
    ShoalOrder order; /* first */
    struct ShoalLinkOrder *next;
    int slot; /* number, or -1 */
    void *memory[2];
} ShoalLinkOrder;

struct ShoalLink {
    ShoalChannel *channel;
    volatile sig_atomic_t *stop;
    ShoalCollective *ring;
    ShoalCache *cache;
    ShoalCare *care;
    int charge_limit;
    char remark[160];
    unsigned heartbeat_ms, silence_ms, window;
    uint64_t next_heartbeat_ms, next_vitals_ms, heard_ms;
    ShoalVitals vitals;
    ShoalWireFormat format;
    bool encrypt;
    ShoalAuthKey key; /* of the token */
    ShoalWorker core;

    pthread_t thread;
    bool started;
    ShoalBuffer job, seed; /* packed, as far as they have come */
    uint64_t seed_generation;
    int *open, n_open;     /* slots that are being filled, in the order of rounds */
    int *staged, n_staged; /* full ones that wait for the core's word, likewise */
    bool final, forget, rests;

    int post_fd;          /* eventfd */
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    ShoalPost *first_post, *last_post;
    size_t posted_bytes; /* of all posts that are not sent yet */
    ShoalLinkOrder *first_order, *last_order;
    ShoalLinkSlot *slots;
    int n_slots;
    ShoalReplica *replica;
    const ShoalJob *job_of_replica;
    uint64_t generation;
    bool closing, over;
    ShoalError error;
};

/* ---- link.c ---- */

ShoalStatus shoal_link_malformed(ShoalError *err);
/* Appends an order of the present generation. memory: freed with the order; both may be NULL. */
ShoalStatus shoal_link_order(ShoalLink *link, const ShoalOrder *order, int slot, void *memory,
                             void *more_memory, ShoalError *err);
/* A free slot, or -1. */
int shoal_link_take_slot(ShoalLink *link);
void shoal_link_free_slot(ShoalLink *link, int slot);

/* ---- link_take.c ---- */

ShoalStatus shoal_link_take(ShoalLink *link, const ShoalFrame *frame, ShoalError *err);

#endif
