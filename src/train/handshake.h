/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_HANDSHAKE_H
#define SHOAL_TRAIN_HANDSHAKE_H

#include "cluster/coordinator.h"
#include "cluster/messages.h"
#include "collective/channel.h"
#include "collective/ring.h"
#include "collective/socket.h"

/* How a worker and a coordinator get to know each other (see cluster/messages.proto):
 *
 *     worker                                    coordinator
 *     Hello: version, nonce, public key    ->                                   plain
 *                                          <-   Challenge: the same, and a proof   plain
 *     Join: a proof, and who it is         ->                                   encrypted
 *                                          <-   Welcome                         encrypted
 *
 * A proof shows that its sender knows the token; it covers both nonces, both public keys and the
 * version. The keys of the connection are made of the token's key, the nonces and the secret that
 * the public keys agree on: who does not know the token has none of them, and who learns the token
 * later cannot read what was said before. */

#define SHOAL_HANDSHAKE_ID_BYTES 16 /* of a job_id, a cache_id */

/* ---- the worker's side: waits ---- */

typedef struct ShoalJoinRequest {
    uint16_t ring_port;
    const char *name; /* for people */
    int cores, threads;
    const char *cpu;
    const unsigned char *job_id; /* of the replica's job, 16 bytes; NULL: there is no replica */
    bool held;                   /* it has a state (needs a job_id), of this version: */
    uint64_t updates, version_generation;
    unsigned current_step;
    uint64_t seed;                 /* of the job's random numbers */
    uint64_t session;              /* of the run that the state is of */
    uint64_t generation;           /* the highest heard of; 0: none */
    const unsigned char *cache_id; /* of the store of samples, 16 bytes; NULL: none */
    uint64_t cache_bytes;          /* how much it may hold */
} ShoalJoinRequest;

typedef struct ShoalJoined {
    unsigned worker_id, window;
    unsigned heartbeat_ms, silence_ms; /* both > 0 */
    uint64_t session;
    unsigned char job_id[SHOAL_HANDSHAKE_ID_BYTES];
    bool has_job;         /* the request's job_id is that of this run; no job follows */
    bool keep_state;      /* only with has_job and a state that was offered */
    bool encrypt;         /* Samples, too, and the ring */
    bool forget;          /* set on SHOAL_ERR_ARGUMENT and _LOST: the replica's state is wrong */
    unsigned wire_format; /* a ShoalWireFormat */
    ShoalAuthKey key;     /* of the token: goes into that of the ring */
} ShoalJoined;

/* On SHOAL_OK the channel is secured, and Samples are bulk frames unless joined->encrypt.
 * SHOAL_ERR_AUTH: the coordinator does not know the token; SHOAL_ERR_PROTOCOL: it does not speak
 * this version, or nonsense; SHOAL_ERR_ARGUMENT: it refuses for good, with its reason;
 * SHOAL_ERR_LOST: it refuses for now, or the connection broke: coming back may help; network
 * errors, SHOAL_ERR_MEMORY. *joined is set on SHOAL_OK, and `forget` always. A refusal before the
 * coordinator has proved itself can be anyone's: its `forget` does not count. */
ShoalStatus shoal_handshake_join(ShoalChannel *channel, const ShoalAuthKey *key,
                                 const ShoalJoinRequest *request, uint64_t deadline_ms,
                                 ShoalJoined *joined, ShoalError *err);

/* The same for one who only measures the link (train/probe.h): no worker, and nobody hears of it
 * but the probe server that answers. probe_port: where it lets others measure; 0: nowhere. */
ShoalStatus shoal_handshake_probe(ShoalChannel *channel, const ShoalAuthKey *key,
                                  uint16_t probe_port, uint64_t deadline_ms, ShoalError *err);

/* ---- the coordinator's side: one frame at a time ---- */

#define SHOAL_HANDSHAKE_CONTEXT_BYTES (5 + 4 + 2 * SHOAL_AUTH_BYTES)

/* Begins as zeros. */
typedef struct ShoalGreeting {
    int step; /* 0: Hello is due; 1: Join is due; 2: done */
    unsigned char worker_nonce[SHOAL_AUTH_BYTES], own_nonce[SHOAL_AUTH_BYTES];
    unsigned char context[SHOAL_HANDSHAKE_CONTEXT_BYTES]; /* what the proofs cover, too */
} ShoalGreeting;

/* What a worker that has proved itself said of itself; every number and length is in range, texts
 * are UTF-8 without control characters. */
typedef struct ShoalJoinInfo {
    ShoalClusterInfo info; /* generation: at least that of `version` */
    bool probe; /* no worker: goes to a probe server; of info only address and name count */
    uint16_t probe_port; /* 0: none */
    int cores, threads;  /* 0: unknown */
    char cpu[32];
    bool has_job_id;
    unsigned char job_id[SHOAL_HANDSHAKE_ID_BYTES];
    ShoalClusterVersion version; /* held only with a job_id; updates <= INT32_MAX */
    unsigned current_step;       /* <= INT32_MAX */
    uint64_t seed, session;
    bool has_cache;
    unsigned char cache_id[SHOAL_HANDSHAKE_ID_BYTES];
    uint64_t cache_bytes;
} ShoalJoinInfo;

/* Answers a stranger's frame; after the first one the channel is secured. *joined true: the
 * stranger has proved itself, and *info says who it is; the caller answers with a Welcome or a
 * Refuse (with info->probe: shoal_probe_server_adopt does). On an error (SHOAL_ERR_PROTOCOL, _AUTH,
 * _MEMORY) the caller closes the connection; a Refuse is already sent where that helps an honest
 * peer. */
ShoalStatus shoal_handshake_answer(ShoalGreeting *greeting, ShoalChannel *channel,
                                   const ShoalAuthKey *key, const ShoalFrame *frame, bool *joined,
                                   ShoalJoinInfo *info, ShoalError *err);

/* Sends a Refuse as far as the socket takes it now; the caller closes the connection. for_good:
 * coming back is of no use; forget: the peer's state is wrong and must not be offered again. */
void shoal_handshake_refuse(ShoalChannel *channel, const char *reason, bool for_good, bool forget);

/* ---- both ---- */

/* Packs a message and queues it as a frame. */
ShoalStatus shoal_message_queue(ShoalChannel *channel, ShoalMessageType type,
                                const ProtobufCMessage *message, ShoalError *err);

/* The most fields of one message, those of messages inside it included. */
#define SHOAL_MESSAGE_FIELDS_MAX (1u << 18)

/* The message that a frame holds, or NULL: it is malformed, has more than SHOAL_MESSAGE_FIELDS_MAX
 * fields, or there is no memory. (protobuf-c needs about 90 bytes for a field of two, so a message
 * within the limit of a frame could take gigabytes.) Free with
 * protobuf_c_message_free_unpacked(message, NULL). */
void *shoal_message_unpack(const ProtobufCMessageDescriptor *descriptor, const ShoalFrame *frame);

/* Text from a peer, fit for a terminal and a log: control characters, bidirectional ones and what
 * is no UTF-8 become '?'; cut to `size` bytes with its '\0', not inside a character. */
void shoal_message_text(const char *from, char *to, size_t size);

#endif
