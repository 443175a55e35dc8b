/* SPDX-License-Identifier: Apache-2.0 */
#include "collective/ring.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/thread.h"
#include "collective/ring_internal.h"

#define DEFAULT_DEAD_MS 3000
/* For the next rank's machine to acknowledge the last bytes when this rank leaves in peace. */
#define SETTLE_MS 250

static ShoalRing *ring_of(ShoalCollective *self) {
    return (ShoalRing *)(void *)self;
}

static void close_fd(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* --- stopping -------------------------------------------------------------------------------- */

bool shoal_ring_is_stopped(const ShoalRing *ring) {
    return ring->aborted > ring->generation || ring->leaving;
}

void shoal_ring_wake(const ShoalRing *ring) {
    uint64_t one = 1;
    /* Fails only when the counter is full: then it is readable anyway. */
    ssize_t ignored = write(ring->wake_fd, &one, sizeof(one));
    (void)ignored;
}

void shoal_ring_drain_wakes(const ShoalRing *ring) {
    uint64_t count;
    ssize_t ignored = read(ring->wake_fd, &count, sizeof(count));
    (void)ignored;
}

static void ring_abort(ShoalCollective *self, uint64_t generation) {
    ShoalRing *ring = ring_of(self);
    uint64_t before = ring->aborted;
    while (before < generation &&
           !atomic_compare_exchange_weak(&ring->aborted, &before, generation))
        ;
    shoal_ring_wake(ring);
}

/* --- operations ------------------------------------------------------------------------------ */

static ShoalStatus report(const ShoalRing *ring, ShoalError *err) {
    return shoal_error_set(err, ring->failure.status, "%s", ring->failure.text);
}

/* Can one more operation be submitted? Under the mutex. */
static ShoalStatus check_open(const ShoalRing *ring, ShoalError *err) {
    if (ring->failure.status)
        return report(ring, err);
    if (shoal_ring_is_stopped(ring))
        return shoal_error_set(err, SHOAL_ERR_STOPPED, "ring: generation %llu was stopped",
                               (unsigned long long)ring->generation);
    if (ring->submitted - ring->done == SHOAL_RING_QUEUE)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "ring: more than %d operations at once; wait for some",
                               SHOAL_RING_QUEUE);
    return SHOAL_OK;
}

/* The operation at the end of the queue is ready. Under the mutex. */
static void begin(ShoalRing *ring, uint64_t *ticket) {
    *ticket = ring->first_ticket + ring->submitted;
    if (ring->base.size == 1)
        ring->done++;
    ring->submitted++;
    if (ring->base.size == 1)
        return;
    if (!ring->running)
        pthread_cond_signal(&ring->work);
    else if (atomic_exchange(&ring->sleeping, false))
        shoal_ring_wake(ring);
}

static ShoalStatus ring_submit(ShoalCollective *self, float *values, size_t count, float *residual,
                               bool exact, uint64_t *ticket, ShoalError *err) {
    static const uint16_t kinds[] = {[SHOAL_WIRE_FP32] = SHOAL_RING_SUM_FP32,
                                     [SHOAL_WIRE_FP16] = SHOAL_RING_SUM_FP16,
                                     [SHOAL_WIRE_BF16] = SHOAL_RING_SUM_BF16};
    ShoalRing *ring = ring_of(self);
    if (count > PTRDIFF_MAX / (4 * sizeof(float)))
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "ring: %zu values are too many", count);
    pthread_mutex_lock(&ring->mutex);
    ShoalStatus status = check_open(ring, err);
    if (!status) {
        shoal_ring_op_sum(&ring->ops[ring->submitted % SHOAL_RING_QUEUE], self->rank, self->size,
                          kinds[exact ? SHOAL_WIRE_FP32 : ring->format], values, count, residual);
        begin(ring, ticket);
    }
    pthread_mutex_unlock(&ring->mutex);
    return status;
}

static ShoalStatus ring_relay(ShoalCollective *self, const ShoalPiece *pieces, size_t n_pieces,
                              const unsigned char *needy, uint64_t *ticket, ShoalError *err) {
    ShoalRing *ring = ring_of(self);
    pthread_mutex_lock(&ring->mutex);
    ShoalStatus status = check_open(ring, err);
    if (!status)
        status = shoal_ring_op_relay(&ring->ops[ring->submitted % SHOAL_RING_QUEUE], self->rank,
                                     self->size, pieces, n_pieces, needy, err);
    if (!status)
        begin(ring, ticket);
    pthread_mutex_unlock(&ring->mutex);
    return status;
}

/* Sleeps until the operation is done or the thread has let go of it. Under the mutex. */
static ShoalStatus wait_for(ShoalRing *ring, uint64_t operation, ShoalError *err) {
    if (operation >= ring->submitted)
        return shoal_error_set(err, ring->failure.status ? SHOAL_ERR_STOPPED : SHOAL_ERR_ARGUMENT,
                               "ring: ticket %llu has not been given out in generation %llu",
                               (unsigned long long)(ring->first_ticket + operation),
                               (unsigned long long)ring->generation);
    uint64_t start = shoal_clock_ns();
    ring->waited = operation;
    while (ring->done <= operation && (ring->running || !ring->failure.status))
        pthread_cond_wait(&ring->rest, &ring->mutex);
    ring->waited = UINT64_MAX;
    ring->progress.waited_ns += shoal_clock_ns() - start;
    ring->base.stats = ring->progress;
    return ring->done > operation ? SHOAL_OK : report(ring, err);
}

static ShoalStatus ring_wait(ShoalCollective *self, uint64_t ticket, ShoalError *err) {
    ShoalRing *ring = ring_of(self);
    ShoalStatus status;
    pthread_mutex_lock(&ring->mutex);
    if (ticket < ring->first_ticket)
        status = shoal_error_set(err, SHOAL_ERR_STOPPED,
                                 "ring: ticket %llu is of a generation "
                                 "that is over",
                                 (unsigned long long)ticket);
    else
        status = wait_for(ring, ticket - ring->first_ticket, err);
    pthread_mutex_unlock(&ring->mutex);
    return status;
}

static void ring_destroy(ShoalCollective *self) {
    shoal_ring_destroy(ring_of(self));
}

static const ShoalCollectiveEngine RING_ENGINE = {.name = "ring",
                                                  .submit = ring_submit,
                                                  .relay = ring_relay,
                                                  .wait = ring_wait,
                                                  .abort = ring_abort,
                                                  .destroy = ring_destroy};

/* --- the thread ------------------------------------------------------------------------------ */

/* Runs what is submitted; afterwards nobody else touches operations or connections. Called and left
 * with the mutex held. */
static void work(ShoalRing *ring) {
    ShoalError failure = {0};
    ring->running = true;
    pthread_mutex_unlock(&ring->mutex);
    if (shoal_ring_flow_run(ring, &failure)) {
        /* The neighbours must not wait for a rank that has given up. */
        close_fd(&ring->next_fd);
        close_fd(&ring->previous_fd);
    }
    pthread_mutex_lock(&ring->mutex);
    ring->running = false;
    ring->progress.busy_ns = ring->flow.busy_ns;
    ring->progress.bytes_sent = ring->flow.bytes_sent;
    ring->progress.bytes_received = ring->flow.bytes_received;
    if (failure.status)
        ring->failure = failure;
    pthread_cond_broadcast(&ring->rest);
}

static void *run_thread(void *argument) {
    ShoalRing *ring = argument;
    pthread_mutex_lock(&ring->mutex);
    while (!ring->quit) {
        if (ring->failure.status || ring->done == ring->submitted)
            pthread_cond_wait(&ring->work, &ring->mutex);
        else
            work(ring);
    }
    pthread_mutex_unlock(&ring->mutex);
    return NULL;
}

static ShoalStatus start_thread(ShoalRing *ring, ShoalError *err) {
    int code = shoal_thread_start(&ring->thread, run_thread, ring);
    if (code)
        return shoal_error_set(err, SHOAL_ERR_MEMORY, "ring: cannot start a thread: %s",
                               strerror(code));
    ring->has_thread = true;
    return SHOAL_OK;
}

/* --- connections ----------------------------------------------------------------------------- */

/* Closing a socket that has, or gets, bytes that nobody read makes TCP forget what it has still to
 * send. So a rank that leaves in peace, with all operations done, stays until its last bytes have
 * arrived on the next rank's machine. */
static void settle(ShoalRing *ring) {
    uint64_t deadline_ms = shoal_clock_ms() + SETTLE_MS;
    int unsent = 0;
    while (!ioctl(ring->next_fd, SIOCOUTQ, &unsent) && unsent > 0 &&
           shoal_clock_ms() < deadline_ms) {
        unsigned char credits[1024];
        ssize_t n = recv(ring->next_fd, credits, sizeof(credits), MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) ||
            ring->aborted > ring->generation)
            return;
        shoal_clock_sleep_ms(1);
    }
}

/* Ends the present generation: the thread rests, connections are closed, operations forgotten. */
static void unconnect(ShoalRing *ring) {
    pthread_mutex_lock(&ring->mutex);
    ring->leaving = true;
    shoal_ring_wake(ring);
    while (ring->running || (ring->done < ring->submitted && !ring->failure.status))
        pthread_cond_wait(&ring->rest, &ring->mutex);
    bool in_peace = !ring->failure.status && ring->next_fd >= 0;
    shoal_error_clear(&ring->failure);
    shoal_error_set(&ring->failure, SHOAL_ERR_STOPPED, "ring: not connected");
    ring->first_ticket += ring->submitted;
    ring->submitted = ring->done = 0;
    ring->leaving = false;
    pthread_mutex_unlock(&ring->mutex);
    if (in_peace)
        settle(ring);
    close_fd(&ring->next_fd);
    close_fd(&ring->previous_fd);
    shoal_auth_forget(&ring->next_keys, sizeof(ring->next_keys));
    shoal_auth_forget(&ring->previous_keys, sizeof(ring->previous_keys));
    ring->suspect = -1;
}

/* A machine that is gone without a word shows by what it does not acknowledge, or, while nothing is
 * to be sent, by keepalives that it does not answer. */
static void watch(int fd, uint32_t dead_ms) {
    const int idle_s = 1, interval_s = 1;
    unsigned timeout_ms = dead_ms > 0 ? dead_ms : DEFAULT_DEAD_MS;
    int probes = timeout_ms > 2000 ? (int)((timeout_ms - 1000) / 1000) : 1;
    if (probes > 127) /* the kernel's limit */
        probes = 127;
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

static ShoalStatus check_config(const ShoalRingConfig *config, ShoalError *err) {
    if (config->size < 1 || config->size > SHOAL_RING_MAX_SIZE || config->rank >= config->size)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "ring: rank %u of %u; expected a rank below the size, and a size of "
                               "1 to %d",
                               config->rank, config->size, SHOAL_RING_MAX_SIZE);
    if (config->format != SHOAL_WIRE_FP32 && config->format != SHOAL_WIRE_FP16 &&
        config->format != SHOAL_WIRE_BF16)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "ring: unknown format %d",
                               (int)config->format);
    return SHOAL_OK;
}

ShoalStatus shoal_ring_connect(ShoalRing *ring, const ShoalRingConfig *config, uint64_t deadline_ms,
                               ShoalError *err) {
    ShoalStatus status = check_config(config, err);
    if (status)
        return status;
    unconnect(ring);
    ring->generation = config->generation;
    ring->format = config->format;
    ring->encrypt = config->encrypt;
    ring->base.rank = config->rank;
    ring->base.size = config->size;
    shoal_ring_flow_reset(ring);
    if (shoal_ring_is_stopped(ring))
        return shoal_error_set(err, SHOAL_ERR_STOPPED, "ring: generation %llu was stopped",
                               (unsigned long long)config->generation);
    if (config->size > 1)
        status = shoal_ring_join(ring, config, deadline_ms, err);
    if (status)
        return status;
    if (config->size > 1) {
        watch(ring->next_fd, config->dead_ms);
        watch(ring->previous_fd, config->dead_ms);
    }
    pthread_mutex_lock(&ring->mutex);
    shoal_error_clear(&ring->failure);
    pthread_mutex_unlock(&ring->mutex);
    return SHOAL_OK;
}

void shoal_ring_disconnect(ShoalRing *ring) {
    unconnect(ring);
}

/* --- life ------------------------------------------------------------------------------------ */

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

static ShoalStatus allocate(ShoalRing *ring, ShoalError *err) {
    const size_t scratch_bytes = SHOAL_RING_FRAME_BYTES + SHOAL_AUTH_SEAL_BYTES;
    ring->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (ring->wake_fd < 0)
        return shoal_error_set(err, SHOAL_ERR_NETWORK, "ring: cannot make an eventfd: %s",
                               strerror(errno));
    ring->flow.scratch_out = shoal_calloc(scratch_bytes, 1);
    ring->flow.scratch_in = shoal_calloc(scratch_bytes, 1);
    ring->flow.notes = shoal_calloc(SHOAL_RING_NOTES, sizeof(*ring->flow.notes));
    if (!ring->flow.scratch_out || !ring->flow.scratch_in || !ring->flow.notes)
        return shoal_error_memory(err, "the ring", scratch_bytes);
    return SHOAL_OK;
}

ShoalStatus shoal_ring_create(const char *address, ShoalRing **out, uint16_t *port,
                              ShoalError *err) {
    ShoalRing *ring = shoal_calloc(1, sizeof(*ring));
    if (!ring)
        return shoal_error_memory(err, "the ring", sizeof(*ring));
    ring->base.engine = &RING_ENGINE;
    ring->base.size = 1;
    ring->listen_fd = ring->wake_fd = ring->next_fd = ring->previous_fd = -1;
    ring->waited = UINT64_MAX;
    ring->suspect = -1;
    shoal_error_set(&ring->failure, SHOAL_ERR_STOPPED, "ring: not connected");
    pthread_mutex_init(&ring->mutex, NULL);
    pthread_cond_init(&ring->work, NULL);
    pthread_cond_init(&ring->rest, NULL);
    uint16_t got = 0;
    ShoalStatus status = listen_at(ring, address, &got, err);
    if (!status)
        status = allocate(ring, err);
    if (!status)
        status = start_thread(ring, err);
    if (status) {
        shoal_ring_destroy(ring);
        return status;
    }
    *out = ring;
    *port = got;
    return SHOAL_OK;
}

ShoalCollective *shoal_ring_collective(ShoalRing *ring) {
    return &ring->base;
}

int shoal_ring_suspect(const ShoalRing *ring) {
    return ring->suspect;
}

static void stop_thread(ShoalRing *ring) {
    unconnect(ring);
    pthread_mutex_lock(&ring->mutex);
    ring->quit = true;
    pthread_cond_signal(&ring->work);
    pthread_mutex_unlock(&ring->mutex);
    pthread_join(ring->thread, NULL);
}

void shoal_ring_destroy(ShoalRing *ring) {
    if (!ring)
        return;
    if (ring->has_thread)
        stop_thread(ring);
    for (size_t i = 0; i < SHOAL_RING_QUEUE; i++)
        shoal_ring_op_close(&ring->ops[i]);
    close_fd(&ring->listen_fd);
    close_fd(&ring->wake_fd);
    shoal_free(ring->flow.scratch_out);
    shoal_free(ring->flow.scratch_in);
    shoal_free(ring->flow.notes);
    pthread_cond_destroy(&ring->rest);
    pthread_cond_destroy(&ring->work);
    pthread_mutex_destroy(&ring->mutex);
    shoal_free(ring);
}
