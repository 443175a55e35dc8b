/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_PROBE_H
#define SHOAL_TRAIN_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "train/handshake.h"

/* What a link really carries, measured with the means of a run: the same sockets, the same
 * encrypted frames. A prober says so in its Join (Join.probe); it never becomes a worker. From then
 * on both sides send SHOAL_MESSAGE_PROBE frames, one after the other:
 *
 *     prober                            server
 *                                  <-   WELCOME
 *     PEERS                        ->
 *                                  <-   PEERS: who else is examined, the next one first
 *     TURN                         ->
 *                                  <-   TURN: as soon as nobody else measures
 *     PING                         ->
 *                                  <-   PING: the same
 *     UP ms, DATA..., DONE loss    ->
 *                                  <-   RESULT: rate, gap
 *     DOWN ms                      ->
 *                                  <-   DATA..., DONE loss
 *
 * A frame's payload is the kind (1 byte) and two numbers of 4 bytes, little-endian; DATA's is the
 * kind and up to SHOAL_PROBE_DATA_BYTES of anything; the server's PEERS is the kind and for each
 * address its length (1 byte), that many characters, and the port (2 bytes). */

typedef enum ShoalProbeKind {
    SHOAL_PROBE_WELCOME = 1,
    SHOAL_PROBE_PEERS = 2,
    SHOAL_PROBE_TURN = 3,
    SHOAL_PROBE_PING = 4,
    SHOAL_PROBE_UP = 5,   /* a: milliseconds */
    SHOAL_PROBE_DOWN = 6, /* a: milliseconds */
    SHOAL_PROBE_DATA = 7,
    SHOAL_PROBE_DONE = 8,  /* a: millionths of the segments that were sent again, or UINT32_MAX */
    SHOAL_PROBE_RESULT = 9 /* a: kbit/s; b: longest gap, microseconds */
} ShoalProbeKind;

enum {
    SHOAL_PROBE_DATA_BYTES = 16384,
    SHOAL_PROBE_MESSAGE_BYTES = 9,
    SHOAL_PROBE_MOST_MS = 2000,  /* in one direction */
    SHOAL_PROBE_GUESTS = 8,      /* at a time; others are told to come back */
    SHOAL_PROBE_PEERS_MOST = 256 /* that a server remembers */
};
#define SHOAL_PROBE_MOST_BYTES (192u << 20) /* in one direction */

/* ---- frames; pure ---- */

typedef struct ShoalProbeMessage {
    ShoalProbeKind kind;
    uint32_t a, b;
    const unsigned char *bytes; /* what follows the kind; of DATA and PEERS */
    size_t size;
} ShoalProbeMessage;

/* Payload of any kind but DATA and PEERS. */
void shoal_probe_pack(ShoalProbeKind kind, uint32_t a, uint32_t b,
                      unsigned char payload[SHOAL_PROBE_MESSAGE_BYTES]);
/* False: no such message. */
bool shoal_probe_unpack(const ShoalFrame *frame, ShoalProbeMessage *message);

/* The next address of the rest of a PEERS message, which it is taken off; false: there is none, or
 * it is malformed. */
bool shoal_probe_next_peer(ShoalProbeMessage *message, ShoalAddress *address);

/* What a receiver notes of the data that comes. Begins as zeros, but for warm_ns. */
typedef struct ShoalProbeMeter {
    uint64_t warm_ns; /* at the begin that do not count: TCP finds its pace */
    uint64_t first_ns, mark_ns, last_ns, gap_ns;
    uint64_t all_bytes, bytes; /* bytes: after mark_ns */
} ShoalProbeMeter;

void shoal_probe_meter_take(ShoalProbeMeter *meter, uint64_t now_ns, size_t bytes);
/* Mbit/s; 0: too little has come. */
double shoal_probe_meter_mbit(const ShoalProbeMeter *meter);

/* ---- the prober; waits ---- */

typedef struct ShoalProbeResult {
    double up_mbit, down_mbit; /* to the server, from it */
    double latency_us, latency_p99_us;
    double up_gap_ms, down_gap_ms; /* longest time in which nothing came */
    double up_loss, down_loss;     /* part of the segments that was sent again; -1: unknown */
} ShoalProbeResult;

typedef struct ShoalProber {
    ShoalChannel *channel;
    int wake_fd; /* readable: stop; -1: none */
} ShoalProber;

/* Connects and proves itself. Errors of shoal_socket_connect and shoal_handshake_probe;
 * SHOAL_ERR_LOST: the server has too many guests now. */
ShoalStatus shoal_prober_open(ShoalProber *prober, const ShoalAddress *address,
                              const ShoalAuthKey *key, uint16_t probe_port, int wake_fd,
                              uint64_t deadline_ms, ShoalError *err);
void shoal_prober_close(ShoalProber *prober);

/* Who else is examined, the next one first. */
ShoalStatus shoal_prober_peers(ShoalProber *prober, ShoalAddress *peers, int most, int *count,
                               ShoalError *err);

/* Waits for its turn until turn_ms (a time), then measures: about 2 * ms, and at most a second
 * more. *result is set as far as it got. */
ShoalStatus shoal_prober_measure(ShoalProber *prober, unsigned ms, uint64_t turn_ms,
                                 ShoalProbeResult *result, ShoalError *err);

/* ---- the server ---- */

/* Serves probers in threads of its own, each with a deadline and limits. All calls from any thread.
 */
typedef struct ShoalProbeServer ShoalProbeServer;

/* Called by a guest's thread when it has gone. */
typedef void ShoalProbeGuestHandler(void *context, const char *address, double up_mbit,
                                    double down_mbit);

/* on_guest may be NULL. SHOAL_ERR_MEMORY. */
ShoalStatus shoal_probe_server_create(ShoalProbeGuestHandler *on_guest, void *context,
                                      ShoalProbeServer **server, ShoalError *err);
/* Ends all that goes on, and waits for it. */
void shoal_probe_server_destroy(ShoalProbeServer *server);

/* Accepts probers by itself; once. *port: the one that was taken. */
ShoalStatus shoal_probe_server_listen(ShoalProbeServer *server, const ShoalAddress *address,
                                      const ShoalAuthKey *key, uint16_t *port, ShoalError *err);

/* Takes over the connection of a prober that has proved itself: closes it in the end. */
void shoal_probe_server_adopt(ShoalProbeServer *server, ShoalChannel *channel,
                              const ShoalJoinInfo *info);

/* While it is held, guests wait for their turn: this machine does something that would disturb
 * their measurement. hold waits for the guest whose turn it is. */
void shoal_probe_server_hold(ShoalProbeServer *server);
void shoal_probe_server_release(ShoalProbeServer *server);

/* How many guests are there. */
int shoal_probe_server_guests(ShoalProbeServer *server);

#endif
