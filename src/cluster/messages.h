/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CLUSTER_MESSAGES_H
#define SHOAL_CLUSTER_MESSAGES_H

#include "cluster/messages.pb-c.h"

/* Coordinator and worker refuse each other when this number differs; it goes up with every change
 * of messages.proto, of the frames or of the ring that an older peer would misread. */
#define SHOAL_PROTOCOL_VERSION 3u

/* The type number of a frame: which message of messages.proto its payload is. */
typedef enum ShoalMessageType {
    SHOAL_MESSAGE_HELLO = 1,
    SHOAL_MESSAGE_CHALLENGE = 2,
    SHOAL_MESSAGE_JOIN = 3,
    SHOAL_MESSAGE_REFUSE = 4,
    SHOAL_MESSAGE_WELCOME = 5,
    SHOAL_MESSAGE_CHUNK = 6,
    SHOAL_MESSAGE_GENERATION = 7,
    SHOAL_MESSAGE_READY = 8,
    SHOAL_MESSAGE_ROUND = 9,
    SHOAL_MESSAGE_REPORT = 10,
    SHOAL_MESSAGE_ABORTED = 11,
    SHOAL_MESSAGE_HEARTBEAT = 12,
    SHOAL_MESSAGE_STOP = 13,
    SHOAL_MESSAGE_FAILURE = 14,
    SHOAL_MESSAGE_PREPARED = 15,
    SHOAL_MESSAGE_START = 16,
    SHOAL_MESSAGE_SAMPLES = 17, /* bulk: not encrypted unless the user asks for it */
    SHOAL_MESSAGE_FETCH = 18,
    SHOAL_MESSAGE_HOLDINGS = 19,
    SHOAL_MESSAGE_LEAVE = 20,
    SHOAL_MESSAGE_PROBE = 21 /* of a connection whose Join has `probe` */
} ShoalMessageType;

/* Largest payload before and after a peer has proved that it knows the token, bytes. */
#define SHOAL_MESSAGE_LIMIT_STRANGER 4096u
#define SHOAL_MESSAGE_LIMIT_MEMBER (64u << 20)

/* Content bytes of a Chunk that keep a connection responsive. */
#define SHOAL_MESSAGE_CHUNK_BYTES (1u << 20)

#endif
