/* SPDX-License-Identifier: Apache-2.0 */
#ifdef SHOAL_MPI

#include "collective/mpi.h"

#include <mpi.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"

enum {
    PART = 1 << 28, /* elements of one call: MPI counts with int */
    GENERATION = 1, /* the only one there is */
    AWAIT_MS = 10000
};

typedef struct Mpi {
    ShoalCollective base;
    MPI_Comm world;
    bool started; /* MPI itself */
    atomic_ullong aborted;

    /* What is under way, oldest first: an operation is one request or several. */
    MPI_Request *requests;
    uint64_t *tickets;
    int used, capacity;
    uint64_t last_ticket, begun_ns;
} Mpi;

static ShoalStatus failed(const char *call, int code, ShoalError *err) {
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length;
    if (code == MPI_SUCCESS)
        return SHOAL_OK;
    (void)MPI_Error_string(code, text, &length);
    return shoal_error_set(err, SHOAL_ERR_LOST, "%s: %s", call, text);
}

static ShoalStatus check_aborted(Mpi *mpi, ShoalError *err) {
    return atomic_load(&mpi->aborted) > GENERATION
               ? shoal_error_set(err, SHOAL_ERR_STOPPED, "the collective was aborted")
               : SHOAL_OK;
}

/* How many of n requests, oldest first, are done. One look moves all of them on. */
static ShoalStatus count_done(int n, MPI_Request *requests, int *count, ShoalError *err) {
    int done = 1;
    for (*count = 0; *count < n; ++*count) {
        ShoalStatus status =
            failed("MPI_Test", MPI_Test(&requests[*count], &done, MPI_STATUS_IGNORE), err);
        if (status || !done)
            return status;
    }
    return SHOAL_OK;
}

/* Gives the processor away between looks: there may be more ranks than cores. */
static ShoalStatus finish(Mpi *mpi, int n, MPI_Request *requests, ShoalError *err) {
    int done = 0;
    for (int at = 0;; at += done) {
        ShoalStatus status = count_done(n - at, requests + at, &done, err);
        if (!status && at + done < n)
            status = check_aborted(mpi, err);
        if (status || at + done == n)
            return status;
        sched_yield();
    }
}

/* ---- operations ---- */

static ShoalStatus make_room(Mpi *mpi, size_t n, ShoalError *err) {
    size_t wanted = (size_t)mpi->used + n, capacity = 2 * wanted;
    if (wanted <= (size_t)mpi->capacity)
        return SHOAL_OK;
    MPI_Request *requests = shoal_calloc(capacity, sizeof(MPI_Request));
    uint64_t *tickets = shoal_calloc(capacity, sizeof *tickets);
    if (!requests || !tickets) {
        shoal_free(requests);
        shoal_free(tickets);
        return shoal_error_memory(err, "what is under way", capacity * sizeof(MPI_Request));
    }
    for (int i = 0; i < mpi->used; i++) {
        requests[i] = mpi->requests[i];
        tickets[i] = mpi->tickets[i];
    }
    shoal_free(mpi->requests);
    shoal_free(mpi->tickets);
    mpi->requests = requests;
    mpi->tickets = tickets;
    mpi->capacity = (int)capacity;
    return SHOAL_OK;
}

static ShoalStatus begin(Mpi *mpi, size_t n_requests, uint64_t *ticket, ShoalError *err) {
    ShoalStatus status = check_aborted(mpi, err);
    if (!status)
        status = make_room(mpi, n_requests, err);
    if (status)
        return status;
    if (!mpi->used)
        mpi->begun_ns = shoal_clock_ns();
    *ticket = ++mpi->last_ticket;
    return SHOAL_OK;
}

/* The first n requests are done. */
static void retire(Mpi *mpi, int n) {
    mpi->used -= n;
    memmove(mpi->requests, mpi->requests + n, (size_t)mpi->used * sizeof *mpi->requests);
    memmove(mpi->tickets, mpi->tickets + n, (size_t)mpi->used * sizeof *mpi->tickets);
    if (n > 0 && !mpi->used)
        mpi->base.stats.busy_ns += shoal_clock_ns() - mpi->begun_ns;
}

static ShoalStatus drive(Mpi *mpi, ShoalError *err) {
    int done;
    ShoalStatus status = count_done(mpi->used, mpi->requests, &done, err);
    if (!status)
        retire(mpi, done);
    return status;
}

static void count(Mpi *mpi, double sent, double received) {
    mpi->base.stats.calls++;
    mpi->base.stats.bytes_sent += (uint64_t)sent;
    mpi->base.stats.bytes_received += (uint64_t)received;
}

static ShoalStatus submit(ShoalCollective *self, float *values, size_t n, float *residual,
                          bool exact, uint64_t *ticket, ShoalError *err) {
    Mpi *mpi = (Mpi *)self;
    (void)residual;
    (void)exact; /* always */
    ShoalStatus status = begin(mpi, n / PART + 1, ticket, err);
    if (status || self->size == 1)
        return status;
    for (size_t at = 0; at < n && !status; at += PART) {
        int part = n - at < PART ? (int)(n - at) : PART;
        MPI_Request *request = &mpi->requests[mpi->used];
        status = failed("MPI_Iallreduce",
                        MPI_Iallreduce(MPI_IN_PLACE, values + at, part, MPI_FLOAT, MPI_SUM,
                                       mpi->world, request),
                        err);
        if (!status)
            mpi->tickets[mpi->used++] = *ticket;
    }
    double bytes = 2.0 * (self->size - 1) / self->size * (double)n * sizeof *values;
    count(mpi, bytes, bytes);
    return status ? status : drive(mpi, err);
}

static ShoalStatus check_needy(const ShoalCollective *self, const unsigned char *needy,
                               ShoalError *err) {
    bool from_first = !needy[0];
    for (unsigned r = 1; r < self->size; r++)
        from_first = from_first && needy[r];
    return from_first ? SHOAL_OK
                      : shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                                        "over MPI a state goes from rank 0 to all others");
}

static ShoalStatus relay(ShoalCollective *self, const ShoalPiece *pieces, size_t n_pieces,
                         const unsigned char *needy, uint64_t *ticket, ShoalError *err) {
    Mpi *mpi = (Mpi *)self;
    size_t n_requests = 0, bytes = 0;
    for (size_t i = 0; i < n_pieces; i++) {
        n_requests += pieces[i].size / PART + 1;
        bytes += pieces[i].size;
    }
    ShoalStatus status = check_needy(self, needy, err);
    if (!status)
        status = begin(mpi, n_requests, ticket, err);
    if (status || self->size == 1)
        return status;
    for (size_t i = 0; i < n_pieces; i++)
        for (size_t at = 0; at < pieces[i].size && !status; at += PART) {
            size_t left = pieces[i].size - at;
            int part = left < PART ? (int)left : PART;
            status = failed("MPI_Ibcast",
                            MPI_Ibcast((char *)pieces[i].bytes + at, part, MPI_BYTE, 0, mpi->world,
                                       &mpi->requests[mpi->used]),
                            err);
            if (!status)
                mpi->tickets[mpi->used++] = *ticket;
        }
    count(mpi, self->rank + 1 < self->size ? (double)bytes : 0, self->rank ? (double)bytes : 0);
    return status;
}

static ShoalStatus wait_for(ShoalCollective *self, uint64_t ticket, ShoalError *err) {
    Mpi *mpi = (Mpi *)self;
    uint64_t start = shoal_clock_ns();
    int n = 0;
    while (n < mpi->used && mpi->tickets[n] <= ticket)
        n++;
    ShoalStatus status = check_aborted(mpi, err);
    if (!status)
        status = finish(mpi, n, mpi->requests, err);
    if (!status)
        retire(mpi, n);
    self->stats.waited_ns += shoal_clock_ns() - start;
    return status;
}

static void abort_before(ShoalCollective *self, uint64_t generation) {
    Mpi *mpi = (Mpi *)self;
    unsigned long long seen = atomic_load(&mpi->aborted);
    while (seen < generation && !atomic_compare_exchange_weak(&mpi->aborted, &seen, generation))
        ;
}

/* ---- what else ranks tell each other ---- */

static ShoalStatus check_size(size_t size, ShoalError *err) {
    return size <= PART ? SHOAL_OK
                        : shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                                          "%zu bytes are too much for one MPI message", size);
}

ShoalStatus shoal_mpi_broadcast(ShoalCollective *self, void *bytes, size_t size, ShoalError *err) {
    Mpi *mpi = (Mpi *)self;
    MPI_Request request;
    ShoalStatus status = check_size(size, err);
    if (!status)
        status = failed("MPI_Ibcast",
                        MPI_Ibcast(bytes, (int)size, MPI_BYTE, 0, mpi->world, &request), err);
    return status ? status : finish(mpi, 1, &request, err);
}

ShoalStatus shoal_mpi_gather(ShoalCollective *self, const void *item, size_t size, void *all,
                             ShoalError *err) {
    Mpi *mpi = (Mpi *)self;
    MPI_Request request;
    ShoalStatus status = check_size(size, err);
    if (!status)
        status = failed("MPI_Igather",
                        MPI_Igather(item, (int)size, MPI_BYTE, all, (int)size, MPI_BYTE, 0,
                                    mpi->world, &request),
                        err);
    return status ? status : finish(mpi, 1, &request, err);
}

static ShoalStatus merge(Mpi *mpi, MPI_Comm among, void *bits, size_t size, ShoalError *err) {
    MPI_Request request;
    ShoalStatus status = check_size(size, err);
    if (!status)
        status = failed(
            "MPI_Iallreduce",
            MPI_Iallreduce(MPI_IN_PLACE, bits, (int)size, MPI_BYTE, MPI_BOR, among, &request), err);
    return status ? status : finish(mpi, 1, &request, err);
}

ShoalStatus shoal_mpi_merge(ShoalCollective *self, void *bits, size_t size, ShoalError *err) {
    Mpi *mpi = (Mpi *)self;
    return merge(mpi, mpi->world, bits, size, err);
}

ShoalStatus shoal_mpi_merge_near(ShoalCollective *self, void *bits, size_t size, int *ranks,
                                 ShoalError *err) {
    Mpi *mpi = (Mpi *)self;
    MPI_Comm near;
    ShoalStatus status = failed("MPI_Comm_split_type",
                                MPI_Comm_split_type(mpi->world, MPI_COMM_TYPE_SHARED,
                                                    (int)self->rank, MPI_INFO_NULL, &near),
                                err);
    if (status)
        return status;
    MPI_Comm_size(near, ranks);
    status = merge(mpi, near, bits, size, err);
    MPI_Comm_free(&near);
    return status;
}

ShoalStatus shoal_mpi_first(ShoalCollective *self, bool mine, unsigned *first, ShoalError *err) {
    Mpi *mpi = (Mpi *)self;
    MPI_Request request;
    unsigned lowest = mine ? self->rank : self->size;
    ShoalStatus status = failed(
        "MPI_Iallreduce",
        MPI_Iallreduce(MPI_IN_PLACE, &lowest, 1, MPI_UNSIGNED, MPI_MIN, mpi->world, &request), err);
    if (!status)
        status = finish(mpi, 1, &request, err);
    if (!status)
        *first = lowest;
    return status;
}

void shoal_mpi_host(char host[SHOAL_MPI_HOST]) {
    char name[MPI_MAX_PROCESSOR_NAME + 1] = "";
    int length;
    (void)MPI_Get_processor_name(name, &length);
    snprintf(host, SHOAL_MPI_HOST, "%.*s", SHOAL_MPI_HOST - 1, name);
}

void shoal_mpi_end_job(ShoalCollective *self, int code) {
    fflush(NULL);
    (void)MPI_Abort(((Mpi *)self)->world, code);
    _exit(code);
}

/* MPICH ends those who call it, Open MPI sends a signal, which may have a handler. */
void shoal_mpi_await_end(ShoalCollective *self, int code) {
    Mpi *mpi = (Mpi *)self;
    const struct timespec nap = {.tv_nsec = 1000000};
    uint64_t deadline = shoal_clock_ms() + AWAIT_MS;
    int done = 0;
    MPI_Request request;
    bool waiting = MPI_Ibarrier(mpi->world, &request) == MPI_SUCCESS;
    while (waiting && !done && shoal_clock_ms() < deadline && !nanosleep(&nap, NULL))
        waiting = MPI_Test(&request, &done, MPI_STATUS_IGNORE) == MPI_SUCCESS;
    shoal_mpi_end_job(self, code);
}

/* ---- life ---- */

static void destroy(ShoalCollective *self) {
    Mpi *mpi = (Mpi *)self;
    /* Whatever is still under way belongs to memory that may be gone after this. */
    if (mpi->used)
        (void)finish(mpi, mpi->used, mpi->requests, NULL);
    if (mpi->world != MPI_COMM_NULL)
        MPI_Comm_free(&mpi->world);
    if (mpi->started)
        MPI_Finalize();
    shoal_free(mpi->requests);
    shoal_free(mpi->tickets);
    shoal_free(mpi);
}

static const ShoalCollectiveEngine ENGINE = {
    "mpi", submit, relay, wait_for, abort_before, destroy,
};

static ShoalStatus start(Mpi *mpi, ShoalError *err) {
    int running, ended, level, is_main = 1;
    MPI_Initialized(&running);
    MPI_Finalized(&ended);
    if (ended)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                               "MPI has been ended in this process and cannot be started again");
    if (running)
        MPI_Query_thread(&level);
    else if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED, "MPI cannot be started");
    mpi->started = !running;
    MPI_Is_thread_main(&is_main);
    if (level < MPI_THREAD_FUNNELED || (level == MPI_THREAD_FUNNELED && !is_main))
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                               "MPI must be started with MPI_THREAD_FUNNELED or more, and be used "
                               "by the thread that has started it");
    return SHOAL_OK;
}

static ShoalStatus open_world(Mpi *mpi, ShoalError *err) {
    int rank = 0, size = 1;
    ShoalStatus status = failed("MPI_Comm_dup", MPI_Comm_dup(MPI_COMM_WORLD, &mpi->world), err);
    if (status)
        return status;
    MPI_Comm_set_errhandler(mpi->world, MPI_ERRORS_RETURN);
    MPI_Comm_rank(mpi->world, &rank);
    MPI_Comm_size(mpi->world, &size);
    mpi->base.rank = (unsigned)rank;
    mpi->base.size = (unsigned)size;
    return SHOAL_OK;
}

ShoalStatus shoal_mpi_create(ShoalCollective **out, ShoalError *err) {
    Mpi *mpi = shoal_calloc(1, sizeof *mpi);
    if (!mpi)
        return shoal_error_memory(err, "MPI", sizeof *mpi);
    mpi->base.engine = &ENGINE;
    mpi->world = MPI_COMM_NULL;
    ShoalStatus status = start(mpi, err);
    if (!status)
        status = open_world(mpi, err);
    if (status)
        destroy(&mpi->base);
    else
        *out = &mpi->base;
    return status;
}

#endif
