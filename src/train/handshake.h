/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_HANDSHAKE_H
#define SHOAL_TRAIN_HANDSHAKE_H

#include "cluster/coordinator.h"
#include "cluster/messages.h"
#include "collective/channel.h"
#include "collective/socket.h"

/* How a worker and a coordinator get to know each other: Hello, Challenge, Join, Welcome (see
 * cluster/messages.proto). Both prove that they know the token before either believes anything;
 * from the Welcome on every frame is signed. */

/* ---- the worker's side: waits ---- */

typedef struct ShoalJoinRequest {
    uint16_t ring_port;
    const char *name; /* for people */
    int cores, threads;
    const char *cpu;
} ShoalJoinRequest;

typedef struct ShoalJoined {
    unsigned worker_id, window;
    unsigned heartbeat_ms;
    ShoalAuthKey key; /* of the token: goes into that of the ring */
} ShoalJoined;

/* SHOAL_ERR_AUTH (the coordinator does not know the token), SHOAL_ERR_PROTOCOL (another version),
 * SHOAL_ERR_ARGUMENT (refused, with the coordinator's reason), network errors. */
ShoalStatus shoal_handshake_join(ShoalChannel *channel, const ShoalAuthKey *key,
                                 const ShoalJoinRequest *request, uint64_t deadline_ms,
                                 ShoalJoined *joined, ShoalError *err);

/* ---- the coordinator's side: one frame at a time ---- */

typedef struct ShoalGreeting {
    int step; /* 0: Hello is due; 1: Join is due; 2: done */
    unsigned char worker_nonce[SHOAL_AUTH_BYTES], own_nonce[SHOAL_AUTH_BYTES];
} ShoalGreeting;

/* Answers a stranger's frame. *joined true: it has proved itself, the channel is secured, and *info
 * says who it is. On an error the caller closes the connection; a Refuse is already queued where
 * that helps an honest peer. */
ShoalStatus shoal_handshake_answer(ShoalGreeting *greeting, ShoalChannel *channel,
                                   const ShoalAuthKey *key, const ShoalFrame *frame, bool *joined,
                                   ShoalClusterInfo *info, ShoalError *err);

/* ---- both ---- */

/* Packs a message and queues it as a frame. */
ShoalStatus shoal_message_queue(ShoalChannel *channel, ShoalMessageType type,
                                const ProtobufCMessage *message, ShoalError *err);

#endif
