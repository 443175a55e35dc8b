/* SPDX-License-Identifier: Apache-2.0 */
#include "collective/ring.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "collective/crc32c.h"
#include "collective/ring_internal.h"
#include "collective/wire.h"

/* Most bytes of one send() or recv(): long enough to be cheap, short enough that sending, receiving
 * and summing take turns while the socket buffers carry on. */
#define SEGMENT_BYTES (256u << 10)

/* Before the data of each allreduce:
 * 0 magic u32, 4 reserved u32, 8 generation u64, 16 sequence u64, 24 count u64, 32 CRC-32C u32 */
#define HEADER_BYTES 36
#define HEADER_MAGIC 0x44524853u /* "SHRD" */

/* One allreduce under way. values is cut into `size` chunks. In step s, 0 <= s < 2 (size - 1), a
 * rank sends chunk rank - s and receives chunk rank - s - 1 (modulo size); in the first size - 1
 * steps what comes is added, then it replaces. So what is sent in step s + 1 is what came in
 * step s: the whole pass is one stream in and one stream out, and the stream out may run ahead of
 * the stream in by the first chunk. */
typedef struct Pass {
    ShoalRing *ring;
    float *values;
    size_t count;
    unsigned rank, size, steps;
    unsigned char header_out[HEADER_BYTES], header_in[HEADER_BYTES];
    size_t header_sent, header_received;
    unsigned send_step, receive_step;
    size_t send_offset, receive_offset; /* bytes into the chunk of that step */
    size_t carry;                       /* bytes in staging of a float that is not yet whole */
    uint64_t sent, received;            /* bytes of data; received: those in values */
} Pass;

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* --- the stream of one pass ------------------------------------------------------------------ */

/* Bytes of chunk c, and where it starts in values. */
static size_t chunk_bytes(const Pass *pass, unsigned c) {
    return (pass->count / pass->size + (c < pass->count % pass->size)) * sizeof(float);
}

static unsigned char *chunk_start(const Pass *pass, unsigned c) {
    size_t extra = pass->count % pass->size;
    size_t first = pass->count / pass->size * c + (c < extra ? c : extra);
    return (unsigned char *)(pass->values + first);
}

static unsigned chunk_sent_in(const Pass *pass, unsigned step) {
    return (pass->rank + 2 * pass->size - step) % pass->size;
}

static unsigned chunk_received_in(const Pass *pass, unsigned step) {
    return chunk_sent_in(pass, step + 1);
}

static void skip_sent_chunks(Pass *pass) {
    while (pass->send_step < pass->steps &&
           pass->send_offset == chunk_bytes(pass, chunk_sent_in(pass, pass->send_step))) {
        pass->send_step++;
        pass->send_offset = 0;
    }
}

static void skip_received_chunks(Pass *pass) {
    while (pass->receive_step < pass->steps &&
           pass->receive_offset == chunk_bytes(pass, chunk_received_in(pass, pass->receive_step))) {
        pass->receive_step++;
        pass->receive_offset = 0;
    }
}

static bool all_sent(const Pass *pass) {
    return pass->header_sent == HEADER_BYTES && pass->send_step == pass->steps;
}

static bool all_received(const Pass *pass) {
    return pass->header_received == HEADER_BYTES && pass->receive_step == pass->steps;
}

/* Bytes that may be sent now: of the chunk at hand, and no further than what has come. */
static size_t sendable(const Pass *pass) {
    if (pass->send_step == pass->steps)
        return 0;
    size_t chunk = chunk_bytes(pass, chunk_sent_in(pass, pass->send_step));
    uint64_t ahead = chunk_bytes(pass, pass->rank) + pass->received - pass->sent;
    size_t n = chunk - pass->send_offset;
    if (n > ahead)
        n = (size_t)ahead;
    return n > SEGMENT_BYTES ? SEGMENT_BYTES : n;
}

static bool wants_to_send(const Pass *pass) {
    return pass->header_sent < HEADER_BYTES || sendable(pass) > 0;
}

/* --- failure --------------------------------------------------------------------------------- */

static ShoalStatus lose(Pass *pass, unsigned rank, const char *reason, ShoalError *err) {
    pass->ring->suspect = (int)rank;
    return shoal_error_set(err, SHOAL_ERR_LOST,
                           "ring: the connection with rank %u of generation %llu is lost in "
                           "allreduce %llu: %s",
                           rank, (unsigned long long)pass->ring->generation,
                           (unsigned long long)pass->ring->sequence, reason);
}

static unsigned next_of(const Pass *pass) {
    return (pass->rank + 1) % pass->size;
}

static unsigned previous_of(const Pass *pass) {
    return (pass->rank + pass->size - 1) % pass->size;
}

/* --- sending --------------------------------------------------------------------------------- */

/* Sends once; *n is 0 when the socket takes nothing now. */
static ShoalStatus send_some(Pass *pass, const void *bytes, size_t size, int flags, size_t *n,
                             ShoalError *err) {
    ssize_t sent;
    do
        sent = send(pass->ring->next_fd, bytes, size, MSG_NOSIGNAL | flags);
    while (sent < 0 && errno == EINTR);
    *n = sent < 0 ? 0 : (size_t)sent;
    pass->ring->base.stats.bytes_sent += *n;
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        return lose(pass, next_of(pass), strerror(errno), err);
    return SHOAL_OK;
}

static ShoalStatus push(Pass *pass, bool *moved, ShoalError *err) {
    size_t n = 0;
    ShoalStatus status = SHOAL_OK;
    if (pass->header_sent < HEADER_BYTES) {
        /* One packet with the data, when data follow. */
        int flags = sendable(pass) > 0 ? MSG_MORE : 0;
        status = send_some(pass, pass->header_out + pass->header_sent,
                           HEADER_BYTES - pass->header_sent, flags, &n, err);
        pass->header_sent += n;
    } else if (sendable(pass) > 0) {
        const unsigned char *chunk = chunk_start(pass, chunk_sent_in(pass, pass->send_step));
        status = send_some(pass, chunk + pass->send_offset, sendable(pass), 0, &n, err);
        pass->send_offset += n;
        pass->sent += n;
        skip_sent_chunks(pass);
    }
    *moved = *moved || n > 0;
    return status;
}

/* --- receiving ------------------------------------------------------------------------------- */

static ShoalStatus receive_some(Pass *pass, void *bytes, size_t size, size_t *n, ShoalError *err) {
    ssize_t got;
    do
        got = recv(pass->ring->previous_fd, bytes, size, 0);
    while (got < 0 && errno == EINTR);
    *n = got < 0 ? 0 : (size_t)got;
    pass->ring->base.stats.bytes_received += *n;
    if (got == 0)
        return lose(pass, previous_of(pass), "it was closed", err);
    if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        return lose(pass, previous_of(pass), strerror(errno), err);
    return SHOAL_OK;
}

static ShoalStatus check_header(Pass *pass, ShoalError *err) {
    const unsigned char *in = pass->header_in;
    if (shoal_wire_get32(in) == HEADER_MAGIC &&
        shoal_wire_get32(in + 32) == shoal_crc32c(0, in, 32) &&
        memcmp(in, pass->header_out, HEADER_BYTES) == 0)
        return SHOAL_OK;
    pass->ring->suspect = (int)previous_of(pass);
    if (shoal_wire_get32(in) != HEADER_MAGIC ||
        shoal_wire_get32(in + 32) != shoal_crc32c(0, in, 32))
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "ring: rank %u sent something that is not the start of an allreduce",
                               previous_of(pass));
    return shoal_error_set(
        err, SHOAL_ERR_PROTOCOL,
        "ring: rank %u runs allreduce %llu of generation %llu over %llu values, this rank %u runs "
        "allreduce %llu of generation %llu over %llu: their nets or their rounds differ",
        previous_of(pass), (unsigned long long)shoal_wire_get64(in + 16),
        (unsigned long long)shoal_wire_get64(in + 8), (unsigned long long)shoal_wire_get64(in + 24),
        pass->rank, (unsigned long long)pass->ring->sequence,
        (unsigned long long)pass->ring->generation, (unsigned long long)pass->count);
}

static ShoalStatus pull_header(Pass *pass, size_t *n, ShoalError *err) {
    ShoalStatus status = receive_some(pass, pass->header_in + pass->header_received,
                                      HEADER_BYTES - pass->header_received, n, err);
    pass->header_received += *n;
    if (!status && pass->header_received == HEADER_BYTES)
        status = check_header(pass, err);
    return status;
}

static void add(float *restrict to, const float *restrict from, size_t n) {
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
}

/* TCP cuts anywhere: the bytes of a last, partial float wait at the start of staging. */
static ShoalStatus pull_and_add(Pass *pass, unsigned char *to, size_t left, size_t *n,
                                ShoalError *err) {
    unsigned char *staging = (unsigned char *)pass->ring->staging;
    size_t most = left < SEGMENT_BYTES ? left : SEGMENT_BYTES;
    ShoalStatus status = receive_some(pass, staging + pass->carry, most - pass->carry, n, err);
    size_t have = pass->carry + *n;
    size_t whole = have - have % sizeof(float);
    add((float *)(void *)to, pass->ring->staging, whole / sizeof(float));
    pass->carry = have - whole;
    memmove(staging, staging + whole, pass->carry);
    pass->receive_offset += whole;
    pass->received += whole;
    return status;
}

static ShoalStatus pull(Pass *pass, bool *moved, ShoalError *err) {
    size_t n = 0;
    ShoalStatus status = SHOAL_OK;
    if (pass->header_received < HEADER_BYTES) {
        status = pull_header(pass, &n, err);
    } else if (pass->receive_step < pass->steps) {
        unsigned chunk = chunk_received_in(pass, pass->receive_step);
        unsigned char *to = chunk_start(pass, chunk) + pass->receive_offset;
        size_t left = chunk_bytes(pass, chunk) - pass->receive_offset;
        if (pass->receive_step < pass->size - 1) {
            status = pull_and_add(pass, to, left, &n, err);
        } else {
            status = receive_some(pass, to, left < SEGMENT_BYTES ? left : SEGMENT_BYTES, &n, err);
            pass->receive_offset += n;
            pass->received += n;
        }
        skip_received_chunks(pass);
    }
    *moved = *moved || n > 0;
    return status;
}

/* --- the loop -------------------------------------------------------------------------------- */

/* Sleeps until there is something to do, unless `busy`; in any case looks for a wish to stop. */
static ShoalStatus look_round(Pass *pass, bool busy, ShoalError *err) {
    ShoalRing *ring = pass->ring;
    /* A next rank that closes is lost only while it still needs something of this pass; after that
     * it may have finished and gone. */
    short next_events = (short)(POLLRDHUP | (wants_to_send(pass) ? POLLOUT : 0));
    struct pollfd fds[4] = {
        {.fd = ring->wake_fd, .events = POLLIN},
        {.fd = ring->abort_fd, .events = POLLIN},
        {.fd = all_sent(pass) ? -1 : ring->next_fd, .events = next_events},
        {.fd = all_received(pass) ? -1 : ring->previous_fd, .events = POLLIN},
    };
    uint64_t start = busy ? 0 : shoal_clock_ns();
    int n = poll(fds, 4, busy ? 0 : -1);
    if (!busy)
        ring->base.stats.waiting_ns += shoal_clock_ns() - start;
    if (n < 0 && errno != EINTR)
        return shoal_error_set(err, SHOAL_ERR_NETWORK, "ring: cannot wait for sockets: %s",
                               strerror(errno));
    if (n > 0 && (fds[0].revents || fds[1].revents))
        return shoal_error_set(err, SHOAL_ERR_STOPPED, "ring: allreduce %llu was stopped",
                               (unsigned long long)ring->sequence);
    if (n > 0 && fds[2].revents & (POLLRDHUP | POLLHUP | POLLERR))
        return lose(pass, next_of(pass), "it was closed", err);
    return SHOAL_OK;
}

static void start_pass(Pass *pass, ShoalRing *ring, float *values, size_t count) {
    memset(pass, 0, sizeof(*pass));
    pass->ring = ring;
    pass->values = values;
    pass->count = count;
    pass->rank = ring->base.rank;
    pass->size = ring->base.size;
    pass->steps = 2 * (pass->size - 1);
    unsigned char *header = pass->header_out;
    shoal_wire_put32(header, HEADER_MAGIC);
    shoal_wire_put64(header + 8, ring->generation);
    shoal_wire_put64(header + 16, ring->sequence);
    shoal_wire_put64(header + 24, count);
    shoal_wire_put32(header + 32, shoal_crc32c(0, header, 32));
    skip_sent_chunks(pass);
    skip_received_chunks(pass);
}

static ShoalStatus run_pass(Pass *pass, ShoalError *err) {
    bool moved = true;
    while (!all_sent(pass) || !all_received(pass)) {
        ShoalStatus status = look_round(pass, moved, err);
        moved = false;
        if (!status && !all_sent(pass))
            status = push(pass, &moved, err);
        if (!status && !all_received(pass))
            status = pull(pass, &moved, err);
        if (status)
            return status;
    }
    return SHOAL_OK;
}

static ShoalStatus report(const ShoalRing *ring, ShoalError *err) {
    return shoal_error_set(err, ring->failure.status, "%s", ring->failure.text);
}

static ShoalStatus ring_allreduce(ShoalCollective *self, float *values, size_t count,
                                  ShoalError *err) {
    ShoalRing *ring = (ShoalRing *)(void *)self;
    if (ring->failure.status)
        return report(ring, err);
    if (self->size == 1)
        return SHOAL_OK;
    if (count > PTRDIFF_MAX / sizeof(float))
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "ring: %zu values are too many", count);
    uint64_t start = shoal_clock_ns();
    Pass pass;
    start_pass(&pass, ring, values, count);
    if (run_pass(&pass, &ring->failure)) {
        /* The neighbours must not wait for a rank that has given up. */
        close_fd(&ring->next_fd);
        close_fd(&ring->previous_fd);
        return report(ring, err);
    }
    ring->sequence++;
    self->stats.calls++;
    self->stats.ns += shoal_clock_ns() - start;
    return SHOAL_OK;
}

/* --- life ------------------------------------------------------------------------------------ */

static void ring_abort(ShoalCollective *self) {
    const ShoalRing *ring = (const ShoalRing *)(const void *)self;
    uint64_t one = 1;
    /* Fails only when the counter is full: then it is readable anyway. */
    ssize_t ignored = write(ring->abort_fd, &one, sizeof(one));
    (void)ignored;
}

static void ring_destroy(ShoalCollective *self) {
    shoal_ring_destroy((ShoalRing *)(void *)self);
}

static const ShoalCollectiveEngine RING_ENGINE = {
    .name = "ring", .allreduce = ring_allreduce, .abort = ring_abort, .destroy = ring_destroy};

static ShoalStatus listen_at(ShoalRing *ring, const char *text, uint16_t *port, ShoalError *err) {
    ShoalAddress address;
    ShoalStatus status = shoal_address_parse(text, &address, err);
    if (!status)
        status = shoal_socket_listen(&address, &ring->listen_fd, err);
    if (!status)
        status = shoal_socket_local(ring->listen_fd, &address, err);
    if (!status)
        *port = shoal_address_port(&address);
    return status;
}

static void unconnect(ShoalRing *ring) {
    close_fd(&ring->next_fd);
    close_fd(&ring->previous_fd);
    ring->suspect = -1;
    ring->sequence = 0;
    shoal_error_clear(&ring->failure);
    shoal_error_set(&ring->failure, SHOAL_ERR_STOPPED, "ring: not connected");
}

ShoalStatus shoal_ring_create(const char *address, ShoalRing **out, uint16_t *port,
                              ShoalError *err) {
    ShoalRing *ring = shoal_calloc(1, sizeof(*ring));
    if (!ring)
        return shoal_error_memory(err, "the ring", sizeof(*ring));
    ring->base.engine = &RING_ENGINE;
    ring->base.size = 1;
    ring->listen_fd = ring->abort_fd = ring->wake_fd = ring->next_fd = ring->previous_fd = -1;
    unconnect(ring);
    uint16_t got = 0;
    ShoalStatus status = listen_at(ring, address, &got, err);
    if (status)
        goto err_destroy;
    ring->abort_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (ring->abort_fd < 0) {
        status = shoal_error_set(err, SHOAL_ERR_NETWORK, "ring: cannot make an eventfd: %s",
                                 strerror(errno));
        goto err_destroy;
    }
    ring->staging = shoal_calloc(SEGMENT_BYTES, 1);
    if (!ring->staging) {
        status = shoal_error_memory(err, "the ring", SEGMENT_BYTES);
        goto err_destroy;
    }
    *out = ring;
    *port = got;
    return SHOAL_OK;

err_destroy:
    shoal_ring_destroy(ring);
    return status;
}

ShoalStatus shoal_ring_connect(ShoalRing *ring, const ShoalRingConfig *config, uint64_t deadline_ms,
                               ShoalError *err) {
    if (config->size < 1 || config->size > SHOAL_RING_MAX_SIZE || config->rank >= config->size)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "ring: rank %u of %u; expected a rank below the size, and a size of "
                               "1 to %d",
                               config->rank, config->size, SHOAL_RING_MAX_SIZE);
    unconnect(ring);
    ring->generation = config->generation;
    ring->wake_fd = config->wake_fd;
    ring->base.rank = config->rank;
    ring->base.size = config->size;
    ShoalStatus status = SHOAL_OK;
    if (config->size > 1)
        status = shoal_ring_join(ring, config, deadline_ms, err);
    if (!status)
        shoal_error_clear(&ring->failure);
    return status;
}

void shoal_ring_disconnect(ShoalRing *ring) {
    unconnect(ring);
    uint64_t count;
    ssize_t ignored = read(ring->abort_fd, &count, sizeof(count));
    (void)ignored;
}

ShoalCollective *shoal_ring_collective(ShoalRing *ring) {
    return &ring->base;
}

int shoal_ring_suspect(const ShoalRing *ring) {
    return ring->suspect;
}

void shoal_ring_destroy(ShoalRing *ring) {
    if (!ring)
        return;
    close_fd(&ring->next_fd);
    close_fd(&ring->previous_fd);
    close_fd(&ring->listen_fd);
    close_fd(&ring->abort_fd);
    shoal_free(ring->staging);
    shoal_free(ring);
}
