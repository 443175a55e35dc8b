/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_CHANNEL_H
#define SHOAL_COLLECTIVE_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "collective/auth.h"
#include "shoal/status.h"

/* A control connection: whole frames over a non-blocking socket. On the wire, little-endian:
 *
 *     0        4        6        8          12         16
 *     +--------+--------+--------+----------+----------+------------ - -
 *     | magic  | type   | flags  | length   | check    | length bytes of payload
 *     +--------+--------+--------+----------+----------+------------ - -
 *
 * check is CRC-32C of the first 12 bytes and the payload. After shoal_channel_secure every frame is
 * encrypted and authenticated (ChaCha20-Poly1305, RFC 8439): flag 1, length counts the 16 bytes of
 * the tag at the payload's end, check is 0, header and running number of the frame are covered. So
 * frames cannot be read, made, changed, dropped or repeated by others. One type of frame may be
 * exempt (shoal_channel_bulk): flag 0, sent plain, check is a tag (shoal_auth_tag) that covers the
 * running number, header and payload.
 *
 * Memory grows with the bytes that have really arrived, never with what a length field says.
 * One thread at a time uses a channel. */

#define SHOAL_CHANNEL_HEADER_BYTES 16

typedef struct ShoalChannel ShoalChannel;

typedef enum ShoalChannelEvent {
    SHOAL_CHANNEL_NOTHING, /* no whole frame yet: poll() for reading */
    SHOAL_CHANNEL_FRAME,
    SHOAL_CHANNEL_CLOSED /* the peer closed, between two frames */
} ShoalChannelEvent;

typedef struct ShoalFrame {
    uint16_t type;
    const unsigned char *payload; /* of the channel, until the next receive; never NULL */
    size_t size;
} ShoalFrame;

/* Takes a connected, non-blocking socket, which the channel closes in the end (not when create
 * fails). limit: largest payload that a peer may send, bytes. SHOAL_ERR_MEMORY. */
ShoalStatus shoal_channel_create(int fd, size_t limit, ShoalChannel **channel, ShoalError *err);
void shoal_channel_destroy(ShoalChannel *channel);

int shoal_channel_fd(const ShoalChannel *channel);
/* For the peer in messages: "127.0.0.1:4711"; valid as long as the channel. */
const char *shoal_channel_peer(const ShoalChannel *channel);
void shoal_channel_set_limit(ShoalChannel *channel, size_t limit);

/* From the next frame on, in both directions, frames are encrypted. */
void shoal_channel_secure(ShoalChannel *channel, const ShoalAuthKey *send_key,
                          const ShoalAuthKey *receive_key);

/* Frames of this type are authenticated but not encrypted, in both directions; -1 (also at first):
 * none. A plain frame of any other type is SHOAL_ERR_PROTOCOL, an encrypted one never. */
void shoal_channel_bulk(ShoalChannel *channel, int type);

/* Appends one frame to the output (a copy); sends nothing yet. SHOAL_ERR_MEMORY;
 * SHOAL_ERR_ARGUMENT for a payload of 4 GiB or more. */
ShoalStatus shoal_channel_queue(ShoalChannel *channel, uint16_t type, const void *payload,
                                size_t size, ShoalError *err);

/* The same without the copy: storage for `size` bytes of payload inside the output; write them,
 * then _commit. Nothing else may be called on the channel in between. */
ShoalStatus shoal_channel_begin(ShoalChannel *channel, uint16_t type, size_t size,
                                unsigned char **payload, ShoalError *err);
void shoal_channel_commit(ShoalChannel *channel);

/* Bytes in the output that the socket has not taken; > 0: poll() for writing. */
size_t shoal_channel_pending(const ShoalChannel *channel);
bool shoal_channel_wants_write(const ShoalChannel *channel);

/* Sends what the socket takes now, without waiting. SHOAL_ERR_LOST: the peer is gone. */
ShoalStatus shoal_channel_flush(ShoalChannel *channel, ShoalError *err);

/* The next whole frame, without waiting. Call it until NOTHING: several frames may have come at
 * once, and poll() does not tell of those that are already here.
 * SHOAL_ERR_PROTOCOL: no frame of this protocol, larger than the limit, wrong check;
 * SHOAL_ERR_LOST: the connection broke, or closed inside a frame; SHOAL_ERR_MEMORY. After an error
 * only destroy makes sense. */
ShoalStatus shoal_channel_receive(ShoalChannel *channel, ShoalChannelEvent *event,
                                  ShoalFrame *frame, ShoalError *err);

/* Waiting forms, for handshakes. Deadline and wake_fd as in collective/socket.h.
 * send: queues and flushes all of it. wait: the next frame; a closed connection is SHOAL_ERR_LOST.
 */
ShoalStatus shoal_channel_send(ShoalChannel *channel, uint16_t type, const void *payload,
                               size_t size, int wake_fd, uint64_t deadline_ms, ShoalError *err);
ShoalStatus shoal_channel_wait(ShoalChannel *channel, int wake_fd, uint64_t deadline_ms,
                               ShoalFrame *frame, ShoalError *err);

/* Bytes over the socket so far, headers included. */
uint64_t shoal_channel_bytes_sent(const ShoalChannel *channel);
uint64_t shoal_channel_bytes_received(const ShoalChannel *channel);

#endif
