/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_RING_INTERNAL_H
#define SHOAL_COLLECTIVE_RING_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "collective/ring.h"
#include "collective/ring_frame.h"
#include "collective/ring_op.h"

/* Shared by ring.c (life, and what callers do), ring_flow.c (what the thread does) and ring_join.c
 * (how a generation's connections come up). */

#define SHOAL_RING_QUEUE 1024 /* most operations submitted and not yet done */

/* Bytes read beyond what is needed now: headers, and small frames whole. */
#define SHOAL_RING_AHEAD_BYTES 1024

/* A frame on its way out. */
typedef struct ShoalRingSender {
    bool active;
    bool full; /* the socket took less than it was offered */
    unsigned char header[SHOAL_RING_HEADER_BYTES];
    const unsigned char *payload;
    size_t payload_bytes, sent;
    uint64_t operation;
} ShoalRingSender;

/* What comes in on a connection. */
typedef struct ShoalRingReceiver {
    unsigned char ahead[SHOAL_RING_AHEAD_BYTES];
    size_t begin, end; /* in ahead: bytes not yet used */
    bool dry;          /* the socket had less than it was asked for */
    bool has_header;   /* the fields below are of the frame that comes */
    unsigned char header[SHOAL_RING_HEADER_BYTES];
    ShoalRingFrame frame;
    unsigned char *place;
    size_t wanted, have; /* of the payload */
    size_t low;          /* SO_RCVLOWAT of the socket */
    size_t low_most;     /* what it may be */
} ShoalRingReceiver;

/* The hash of a frame that will go out later, made while its bytes are in the cache anyway. */
typedef struct ShoalRingNote {
    uint64_t operation, offset, hash;
    uint32_t step;
    bool valid;
} ShoalRingNote;

#define SHOAL_RING_NOTES 2048 /* a power of 2 */

/* The thread's. Operations are counted from 0 in each generation. */
typedef struct ShoalRingFlow {
    uint64_t seen;     /* submitted, when the thread last looked */
    uint64_t open;     /* operations before this are under way or done */
    uint64_t sent;     /* operations before this are sent whole */
    uint64_t received; /* likewise */
    uint64_t done;     /* both */
    uint64_t granted;  /* operations that the next rank is known to have opened */
    uint64_t owed;     /* operations opened here that the previous rank is to know of */
    uint64_t announced;
    ShoalRingSender out, credit_out;  /* to next, to previous */
    ShoalRingReceiver in, credit_in;  /* from previous, from next */
    uint64_t frames_out, frames_in;   /* numbers for sealing */
    uint64_t credits_out, credits_in; /* likewise */
    unsigned char *scratch_out;       /* SHOAL_RING_FRAME_BYTES and a tag */
    unsigned char *scratch_in;        /* likewise */
    ShoalRingNote *notes;             /* [SHOAL_RING_NOTES], by what they are of; some get lost */
    unsigned char credit_tag[SHOAL_AUTH_SEAL_BYTES];
    uint64_t bytes_sent, bytes_received; /* since the ring was made */
    uint64_t started_ns;                 /* when the thread last began to work */
    uint64_t busy_ns;                    /* before that */
} ShoalRingFlow;

/* Keys of what one connection carries. */
typedef struct ShoalRingKeys {
    ShoalAuthKey send, receive;
} ShoalRingKeys;

struct ShoalRing {
    ShoalCollective base; /* first: an engine is its ring */
    int listen_fd;
    int wake_fd; /* eventfd: written to look at submitted, aborted, leaving */

    /* Written by the caller while the thread rests. */
    int next_fd, previous_fd;
    ShoalRingKeys next_keys, previous_keys;
    uint64_t generation;
    ShoalWireFormat format;
    bool encrypt;
    uint64_t first_ticket; /* of operation 0 */

    pthread_t thread;
    bool has_thread;
    pthread_mutex_t mutex;
    pthread_cond_t work; /* the thread rests */
    pthread_cond_t rest; /* callers wait */
    /* Under the mutex. */
    bool quit;
    bool running;                  /* the thread owns operations and connections */
    uint64_t done;                 /* operations */
    uint64_t waited;               /* the operation that a caller waits for; UINT64_MAX: none */
    ShoalCollectiveStats progress; /* of the thread; a caller copies it */
    ShoalError failure;            /* why this generation is of no further use; 0: it is fine */

    _Atomic uint64_t submitted;
    _Atomic uint64_t aborted; /* generations before this are over */
    atomic_bool leaving;      /* the caller wants this generation to end */
    atomic_bool sleeping;     /* the thread is in poll(), or about to be */
    atomic_int suspect;       /* rank, or -1 */

    ShoalRingFlow flow;
    ShoalRingOp ops[SHOAL_RING_QUEUE]; /* operation k is in slot k % SHOAL_RING_QUEUE */
};

/* Is the present generation over by abort, or because the caller leaves it? */
bool shoal_ring_is_stopped(const ShoalRing *ring);

/* Makes whoever sleeps in poll() look. */
void shoal_ring_wake(const ShoalRing *ring);
void shoal_ring_drain_wakes(const ShoalRing *ring);

/* Brings both connections up; the ring's descriptors and keys are set on success only. */
ShoalStatus shoal_ring_join(ShoalRing *ring, const ShoalRingConfig *config, uint64_t deadline_ms,
                            ShoalError *err);

/* Before the first operation of a generation. */
void shoal_ring_flow_reset(ShoalRing *ring);

/* Runs operations until none is left (SHOAL_OK) or the generation fails. */
ShoalStatus shoal_ring_flow_run(ShoalRing *ring, ShoalError *err);

#endif
