/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "collective/auth.h"
#include "collective/crc32c.h"
#include "collective/ring_internal.h"
#include "collective/wire.h"

/* How two neighbours meet. The lower rank of a link connects; both prove that they know the key of
 * this generation, over fresh nonces, before a byte of data:
 *
 *     connector                                      acceptor
 *     hello {version, generation, from, to, size, nonce} ->
 *                                                  <- {nonce, acceptor's proof}
 *     {connector's proof}                          ->
 *                                                  <- accepted
 *
 * The proofs cover all of the hello. The acceptor answers only a hello that names this generation
 * and these ranks; everything else is closed. A hello of a generation that is still unknown here is
 * closed, too: its sender tries again. */

#define HELLO_BYTES 64 /* magic, version, generation u64, from, to, size, CRC-32C, nonce[32] */
#define HELLO_MAGIC 0x48524853u /* "SHRH" */
#define RING_VERSION 2u
#define VERSION_ENCRYPTED 0x10000u /* in the field of the version: both encrypt, or none */
#define REPLY_BYTES (2 * SHOAL_AUTH_BYTES)
#define ACCEPTED 0x4b4f4853u /* "SHOK" */
#define ACCEPTED_BYTES 4

#define MAX_CANDIDATES 16
#define CANDIDATE_TIMEOUT_MS 5000 /* for a stranger to say and prove who it is */
#define RETRY_MS 20

#define FIXED 3 /* places in poll(): to wake, to listen, the link; then candidates */

/* A connection that came in and may or may not be the previous rank. */
typedef struct Candidate {
    int fd; /* -1: free */
    bool replied;
    uint64_t deadline_ms;
    size_t have;
    unsigned char hello[HELLO_BYTES];
    unsigned char nonce[SHOAL_AUTH_BYTES];
    unsigned char proof[SHOAL_AUTH_BYTES];
} Candidate;

typedef enum LinkState { LINK_IDLE, LINK_CONNECTING, LINK_REPLY, LINK_ACCEPTED, LINK_UP } LinkState;

/* The connection to the next rank. */
typedef struct Link {
    LinkState state;
    int fd;
    uint64_t retry_ms; /* LINK_IDLE: when to try */
    size_t have;
    unsigned char hello[HELLO_BYTES];
    unsigned char reply[REPLY_BYTES];
    unsigned char accepted[ACCEPTED_BYTES];
    ShoalError last; /* why the last try failed */
} Link;

typedef struct Join {
    ShoalRing *ring;
    const ShoalRingConfig *config;
    Link link;
    Candidate candidates[MAX_CANDIDATES];
    int previous_fd; /* the previous rank, proven; -1: not yet */
    ShoalRingKeys next_keys, previous_keys;
} Join;

static unsigned next_of(const ShoalRingConfig *config) {
    return (config->rank + 1) % config->size;
}

static unsigned previous_of(const ShoalRingConfig *config) {
    return (config->rank + config->size - 1) % config->size;
}

static void put_hello(unsigned char *hello, const ShoalRingConfig *config, unsigned from,
                      unsigned to) {
    shoal_wire_put32(hello, HELLO_MAGIC);
    shoal_wire_put32(hello + 4, RING_VERSION | (config->encrypt ? VERSION_ENCRYPTED : 0));
    shoal_wire_put64(hello + 8, config->generation);
    shoal_wire_put32(hello + 16, from);
    shoal_wire_put32(hello + 20, to);
    shoal_wire_put32(hello + 24, config->size);
    shoal_wire_put32(hello + 28, shoal_crc32c(0, hello, 28));
}

/* Receives up to `size` bytes in all. *gone: closed, or broken. True when they are complete. */
static bool collect(int fd, unsigned char *bytes, size_t size, size_t *have, bool *gone) {
    ssize_t n;
    do
        n = recv(fd, bytes + *have, size - *have, 0);
    while (n < 0 && errno == EINTR);
    *gone = n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
    if (n > 0)
        *have += (size_t)n;
    return *have == size;
}

/* These few bytes always fit the buffer of a healthy new connection. */
static bool send_all(int fd, const void *bytes, size_t size) {
    ssize_t n;
    do
        n = send(fd, bytes, size, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)size;
}

/* The keys that `me` uses on a connection. */
static void make_keys(const ShoalRingConfig *config, const unsigned char *connector_nonce,
                      const unsigned char *acceptor_nonce, ShoalAuthRole me, ShoalAuthRole other,
                      ShoalRingKeys *keys) {
    shoal_auth_session_key(&config->key, me, connector_nonce, acceptor_nonce, NULL, &keys->send);
    shoal_auth_session_key(&config->key, other, connector_nonce, acceptor_nonce, NULL,
                           &keys->receive);
}

/* --- the previous rank: accepting ------------------------------------------------------------ */

static void drop_candidate(Candidate *candidate) {
    if (candidate->fd >= 0)
        close(candidate->fd);
    candidate->fd = -1;
}

/* A free slot; if need be that of the stranger who has said least, the oldest of them: whoever
 * belongs here says all at once. */
static Candidate *free_slot(Join *join) {
    Candidate *worst = &join->candidates[0];
    for (int i = 0; i < MAX_CANDIDATES; i++) {
        Candidate *candidate = &join->candidates[i];
        if (candidate->fd < 0)
            return candidate;
        size_t said = candidate->have + (candidate->replied ? HELLO_BYTES : 0);
        size_t least = worst->have + (worst->replied ? HELLO_BYTES : 0);
        if (said < least || (said == least && candidate->deadline_ms < worst->deadline_ms))
            worst = candidate;
    }
    drop_candidate(worst);
    return worst;
}

static bool reply_to_hello(const Join *join, Candidate *candidate) {
    const ShoalRingConfig *config = join->config;
    unsigned char expected[HELLO_BYTES], reply[REPLY_BYTES];
    put_hello(expected, config, previous_of(config), config->rank);
    if (memcmp(candidate->hello, expected, HELLO_BYTES - SHOAL_AUTH_BYTES) != 0)
        return false;
    const unsigned char *theirs = candidate->hello + HELLO_BYTES - SHOAL_AUTH_BYTES;
    shoal_auth_random(candidate->nonce, SHOAL_AUTH_BYTES);
    memcpy(reply, candidate->nonce, SHOAL_AUTH_BYTES);
    shoal_auth_prove(&config->key, SHOAL_AUTH_RING_ACCEPTOR, theirs, candidate->nonce,
                     candidate->hello, HELLO_BYTES, reply + SHOAL_AUTH_BYTES);
    return send_all(candidate->fd, reply, REPLY_BYTES);
}

static bool is_proven(const Join *join, const Candidate *candidate) {
    const unsigned char *theirs = candidate->hello + HELLO_BYTES - SHOAL_AUTH_BYTES;
    return shoal_auth_verify(&join->config->key, SHOAL_AUTH_RING_CONNECTOR, theirs,
                             candidate->nonce, candidate->hello, HELLO_BYTES, candidate->proof,
                             SHOAL_AUTH_BYTES);
}

/* The newest proof wins: the previous rank comes again only when its first connection failed. */
static void adopt(Join *join, Candidate *candidate) {
    unsigned char accepted[ACCEPTED_BYTES];
    shoal_wire_put32(accepted, ACCEPTED);
    if (!send_all(candidate->fd, accepted, ACCEPTED_BYTES)) {
        drop_candidate(candidate);
        return;
    }
    if (join->previous_fd >= 0)
        close(join->previous_fd);
    join->previous_fd = candidate->fd;
    make_keys(join->config, candidate->hello + HELLO_BYTES - SHOAL_AUTH_BYTES, candidate->nonce,
              SHOAL_AUTH_RING_ACCEPTOR, SHOAL_AUTH_RING_CONNECTOR, &join->previous_keys);
    candidate->fd = -1;
}

static void hear_candidate(Join *join, Candidate *candidate) {
    bool gone = false;
    if (!candidate->replied) {
        if (!collect(candidate->fd, candidate->hello, HELLO_BYTES, &candidate->have, &gone)) {
            if (gone)
                drop_candidate(candidate);
            return;
        }
        candidate->replied = reply_to_hello(join, candidate);
        candidate->have = 0;
        if (!candidate->replied)
            drop_candidate(candidate);
        return;
    }
    if (collect(candidate->fd, candidate->proof, SHOAL_AUTH_BYTES, &candidate->have, &gone)) {
        if (is_proven(join, candidate))
            adopt(join, candidate);
        else
            drop_candidate(candidate);
    } else if (gone) {
        drop_candidate(candidate);
    }
}

/* Bounded, so that a flood of strangers leaves time for everything else. */
static void accept_candidates(Join *join) {
    for (int i = 0; i < MAX_CANDIDATES; i++) {
        int fd = -1;
        /* Out of descriptors or the like: the next poll() says whether it is over. */
        if (shoal_socket_accept(join->ring->listen_fd, &fd, NULL, NULL) || fd < 0)
            return;
        Candidate *candidate = free_slot(join);
        memset(candidate, 0, sizeof(*candidate));
        candidate->fd = fd;
        candidate->deadline_ms = shoal_clock_ms() + CANDIDATE_TIMEOUT_MS;
        hear_candidate(join, candidate);
    }
}

static void drop_late_candidates(Join *join) {
    uint64_t now = shoal_clock_ms();
    for (int i = 0; i < MAX_CANDIDATES; i++)
        if (join->candidates[i].fd >= 0 && now >= join->candidates[i].deadline_ms)
            drop_candidate(&join->candidates[i]);
}

/* --- the next rank: connecting --------------------------------------------------------------- */

/* Gives this try up; the next one comes a little later. link->last says why. */
static void retry(Link *link) {
    if (link->fd >= 0)
        close(link->fd);
    link->fd = -1;
    link->have = 0;
    link->state = LINK_IDLE;
    link->retry_ms = shoal_clock_ms() + RETRY_MS;
}

static void note(Link *link, const char *reason) {
    shoal_error_clear(&link->last);
    shoal_error_set(&link->last, SHOAL_ERR_NETWORK, "%s", reason);
}

static void start_link(Join *join) {
    Link *link = &join->link;
    const ShoalAddress *address = &join->config->members[next_of(join->config)];
    shoal_error_clear(&link->last);
    if (shoal_socket_connect_start(address, &link->fd, &link->last))
        retry(link);
    else
        link->state = LINK_CONNECTING;
}

static void send_hello(Join *join) {
    Link *link = &join->link;
    const ShoalRingConfig *config = join->config;
    shoal_error_clear(&link->last);
    if (shoal_socket_connect_finish(link->fd, &config->members[next_of(config)], &link->last)) {
        retry(link);
        return;
    }
    put_hello(link->hello, config, config->rank, next_of(config));
    shoal_auth_random(link->hello + HELLO_BYTES - SHOAL_AUTH_BYTES, SHOAL_AUTH_BYTES);
    note(link, "it does not answer");
    if (send_all(link->fd, link->hello, HELLO_BYTES))
        link->state = LINK_REPLY;
    else
        retry(link);
}

static void send_proof(Join *join) {
    Link *link = &join->link;
    const ShoalAuthKey *key = &join->config->key;
    const unsigned char *mine = link->hello + HELLO_BYTES - SHOAL_AUTH_BYTES;
    const unsigned char *theirs = link->reply;
    unsigned char proof[SHOAL_AUTH_BYTES];
    if (!shoal_auth_verify(key, SHOAL_AUTH_RING_ACCEPTOR, mine, theirs, link->hello, HELLO_BYTES,
                           link->reply + SHOAL_AUTH_BYTES, SHOAL_AUTH_BYTES)) {
        note(link, "it cannot prove that it belongs to this generation");
        retry(link);
        return;
    }
    shoal_auth_prove(key, SHOAL_AUTH_RING_CONNECTOR, mine, theirs, link->hello, HELLO_BYTES, proof);
    link->have = 0;
    if (send_all(link->fd, proof, SHOAL_AUTH_BYTES))
        link->state = LINK_ACCEPTED;
    else
        retry(link);
}

static void hear_link(Join *join) {
    Link *link = &join->link;
    bool gone = false, whole = false;
    if (link->state == LINK_REPLY)
        whole = collect(link->fd, link->reply, REPLY_BYTES, &link->have, &gone);
    else
        whole = collect(link->fd, link->accepted, ACCEPTED_BYTES, &link->have, &gone);
    if (gone) {
        note(link,
             "it closes the connection: it is of another generation or cluster, does not encrypt "
             "alike, or is not ready");
        retry(link);
    } else if (whole && link->state == LINK_REPLY) {
        send_proof(join);
    } else if (whole && shoal_wire_get32(link->accepted) == ACCEPTED) {
        link->state = LINK_UP;
        make_keys(join->config, link->hello + HELLO_BYTES - SHOAL_AUTH_BYTES, link->reply,
                  SHOAL_AUTH_RING_CONNECTOR, SHOAL_AUTH_RING_ACCEPTOR, &join->next_keys);
    } else if (whole) {
        note(link, "it does not speak Shoal's ring protocol");
        retry(link);
    }
}

/* --- the loop -------------------------------------------------------------------------------- */

static bool is_complete(const Join *join) {
    return join->link.state == LINK_UP && join->previous_fd >= 0;
}

static ShoalStatus too_late(const Join *join, ShoalError *err) {
    const ShoalRingConfig *config = join->config;
    bool next_missing = join->link.state != LINK_UP;
    unsigned rank = next_missing ? next_of(config) : previous_of(config);
    char text[SHOAL_ADDRESS_TEXT];
    shoal_address_format(&config->members[rank], text);
    join->ring->suspect = (int)rank;
    return shoal_error_set(err, SHOAL_ERR_NETWORK,
                           "ring: rank %u (%s) of generation %llu is missing: %s", rank, text,
                           (unsigned long long)config->generation,
                           !next_missing                 ? "it has not connected"
                           : join->link.last.status != 0 ? join->link.last.text
                                                         : "it does not answer");
}

/* Milliseconds that poll() may sleep. */
static int sleep_ms(const Join *join, uint64_t deadline_ms) {
    uint64_t first = deadline_ms;
    if (join->link.state == LINK_IDLE && join->link.retry_ms < first)
        first = join->link.retry_ms;
    for (int i = 0; i < MAX_CANDIDATES; i++)
        if (join->candidates[i].fd >= 0 && join->candidates[i].deadline_ms < first)
            first = join->candidates[i].deadline_ms;
    return shoal_socket_timeout_ms(first);
}

static void handle(Join *join, const struct pollfd *fds) {
    Link *link = &join->link;
    if (link->state == LINK_IDLE && shoal_clock_ms() >= link->retry_ms)
        start_link(join);
    else if (fds[2].revents && link->state == LINK_CONNECTING)
        send_hello(join);
    else if (fds[2].revents && (link->state == LINK_REPLY || link->state == LINK_ACCEPTED))
        hear_link(join);
    for (int i = 0; i < MAX_CANDIDATES; i++)
        if (join->candidates[i].fd >= 0 && fds[FIXED + i].revents)
            hear_candidate(join, &join->candidates[i]);
    drop_late_candidates(join);
    if (fds[1].revents)
        accept_candidates(join);
}

static ShoalStatus step(Join *join, uint64_t deadline_ms, ShoalError *err) {
    const Link *link = &join->link;
    bool up = link->state == LINK_UP;
    if (shoal_ring_is_stopped(join->ring))
        return shoal_error_set(err, SHOAL_ERR_STOPPED,
                               "ring: connecting generation %llu was stopped",
                               (unsigned long long)join->config->generation);
    struct pollfd fds[FIXED + MAX_CANDIDATES] = {
        {.fd = join->ring->wake_fd, .events = POLLIN},
        {.fd = join->ring->listen_fd, .events = POLLIN},
        {.fd = up ? -1 : link->fd, .events = link->state == LINK_CONNECTING ? POLLOUT : POLLIN},
    };
    for (int i = 0; i < MAX_CANDIDATES; i++)
        fds[FIXED + i] = (struct pollfd){.fd = join->candidates[i].fd, .events = POLLIN};
    int n = poll(fds, FIXED + MAX_CANDIDATES, sleep_ms(join, deadline_ms));
    if (n < 0 && errno != EINTR)
        return shoal_error_set(err, SHOAL_ERR_NETWORK, "ring: cannot wait for sockets: %s",
                               strerror(errno));
    if (n > 0 && fds[0].revents)
        shoal_ring_drain_wakes(join->ring);
    if (n >= 0)
        handle(join, fds);
    if (!is_complete(join) && deadline_ms != UINT64_MAX && shoal_clock_ms() >= deadline_ms)
        return too_late(join, err);
    return SHOAL_OK;
}

ShoalStatus shoal_ring_join(ShoalRing *ring, const ShoalRingConfig *config, uint64_t deadline_ms,
                            ShoalError *err) {
    Join join = {.ring = ring, .config = config, .link = {.fd = -1}, .previous_fd = -1};
    for (int i = 0; i < MAX_CANDIDATES; i++)
        join.candidates[i].fd = -1;
    ShoalStatus status = SHOAL_OK;
    while (!status && !is_complete(&join))
        status = step(&join, deadline_ms, err);
    for (int i = 0; i < MAX_CANDIDATES; i++)
        drop_candidate(&join.candidates[i]);
    if (!status) {
        ring->next_fd = join.link.fd;
        ring->previous_fd = join.previous_fd;
        ring->next_keys = join.next_keys;
        ring->previous_keys = join.previous_keys;
    } else {
        if (join.link.fd >= 0)
            close(join.link.fd);
        if (join.previous_fd >= 0)
            close(join.previous_fd);
    }
    shoal_auth_forget(&join.next_keys, sizeof(join.next_keys));
    shoal_auth_forget(&join.previous_keys, sizeof(join.previous_keys));
    return status;
}
