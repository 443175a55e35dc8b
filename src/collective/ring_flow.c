/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "base/error.h"
#include "collective/ring_internal.h"

/* What the ring's thread does: frames of several operations take turns on the connection to the
 * next rank, the oldest operation that has something to send first. The next rank reads them in the
 * order of the connection, so a frame of an operation that it has not begun yet must never stand
 * before one that it needs. Nor may such frames fill the connection: a window that stays closed is
 * taken for a dead machine (TCP_USER_TIMEOUT). Hence:
 *
 *  - A rank opens operations in order, at most WINDOW beyond what it has received whole.
 *  - A frame of operation k goes out if k < granted: the next rank is known to have opened k.
 *  - Of operation k == granted, EAGER_BYTES may go out if all operations before k are sent whole.
 *
 * Nothing that a rank needs to open operation k is then behind a frame of k; and what it opened, it
 * reads at once. So the oldest operation that is not done everywhere goes on, once all ranks have
 * submitted it. (Its callers do, if they wait for older ones only.)
 *
 * `granted` comes from credits, which run against the data on the same connection. Most operations
 * need none: when operation k, a sum of at least one value, is received whole here, then every rank
 * has opened it; and while a rank has nothing else under way, an operation that fits EAGER_BYTES
 * gets through without. A rank announces all others as it opens them. */
#define WINDOW 64
#define EAGER_BYTES (32u << 10)

/* Bytes that are waited for at once, and for how long. */
#define LOW_LEAST (16u << 10)
#define LOW_MOST (2 * SHOAL_RING_FRAME_BYTES)
#define LOOK_MS 20

/* So much under way is worth waiting for whole frames. */
#define BUSY_BYTES (8u << 20)

static unsigned next_of(const ShoalRing *ring) {
    return (ring->base.rank + 1) % ring->base.size;
}

static unsigned previous_of(const ShoalRing *ring) {
    return (ring->base.rank + ring->base.size - 1) % ring->base.size;
}

static ShoalRingOp *op_of(ShoalRing *ring, uint64_t operation) {
    return &ring->ops[operation % SHOAL_RING_QUEUE];
}

static size_t tag_bytes(const ShoalRing *ring) {
    return ring->encrypt ? SHOAL_AUTH_SEAL_BYTES : 0;
}

static uint16_t frame_flags(const ShoalRing *ring) {
    return ring->encrypt ? SHOAL_RING_FLAG_SEALED : 0;
}

/* A neighbour that closes has given up itself, most often because of another: that says nothing of
 * who is to blame. One that falls silent, or sends nonsense, does. */
static const char CLOSED[] = "it was closed";

static const char *describe_errno(int number) {
    return number == ECONNRESET || number == EPIPE ? CLOSED : strerror(number);
}

/* --- failure --------------------------------------------------------------------------------- */

static ShoalStatus lose(ShoalRing *ring, unsigned rank, const char *reason, ShoalError *err) {
    ring->suspect = reason == CLOSED ? -1 : (int)rank;
    return shoal_error_set(err, SHOAL_ERR_LOST,
                           "ring: the connection with rank %u of generation %llu is lost in "
                           "operation %llu: %s",
                           rank, (unsigned long long)ring->generation,
                           (unsigned long long)ring->flow.done, reason);
}

static ShoalStatus damaged(ShoalRing *ring, unsigned rank, const char *what, ShoalError *err) {
    ring->suspect = (int)rank;
    return shoal_error_set(
        err, SHOAL_ERR_PROTOCOL, "ring: rank %u of generation %llu sent %s in operation %llu", rank,
        (unsigned long long)ring->generation, what, (unsigned long long)ring->flow.done);
}

static ShoalStatus disagree(ShoalRing *ring, const ShoalRingFrame *theirs,
                            const ShoalRingFrame *mine, ShoalError *err) {
    unsigned rank = previous_of(ring);
    if (theirs->generation == mine->generation && theirs->operation == mine->operation &&
        theirs->kind == mine->kind && theirs->shape == mine->shape)
        return damaged(ring, rank, "a frame that is not the one to come", err);
    ring->suspect = (int)rank;
    return shoal_error_set(
        err, SHOAL_ERR_PROTOCOL,
        "ring: rank %u does operation %llu of generation %llu, a %s of %llu; this rank %u does "
        "operation %llu of generation %llu, a %s of %llu: their nets, rounds or flags differ",
        rank, (unsigned long long)theirs->operation, (unsigned long long)theirs->generation,
        shoal_ring_kind_name(theirs->kind), (unsigned long long)theirs->shape, ring->base.rank,
        (unsigned long long)mine->operation, (unsigned long long)mine->generation,
        shoal_ring_kind_name(mine->kind), (unsigned long long)mine->shape);
}

/* --- sockets --------------------------------------------------------------------------------- */

/* *n is 0 when the socket takes or has nothing now. False: the connection is over, *reason says
 * why. */
static bool send_some(ShoalRing *ring, int fd, struct iovec *parts, size_t n_parts, size_t *n,
                      const char **reason) {
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = n_parts};
    ssize_t sent;
    do
        sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    *n = sent < 0 ? 0 : (size_t)sent;
    ring->flow.bytes_sent += *n;
    if (sent >= 0 || errno == EAGAIN || errno == EWOULDBLOCK)
        return true;
    *reason = describe_errno(errno);
    return false;
}

static bool receive_some(ShoalRing *ring, int fd, struct iovec *parts, size_t n_parts, size_t *n,
                         const char **reason) {
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = n_parts};
    ssize_t got;
    do
        got = recvmsg(fd, &message, 0);
    while (got < 0 && errno == EINTR);
    *n = got < 0 ? 0 : (size_t)got;
    ring->flow.bytes_received += *n;
    if (got > 0 || (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)))
        return true;
    *reason = got == 0 ? CLOSED : describe_errno(errno);
    return false;
}

/* Sends what is left of a frame, header and payload in one call. */
static bool push_frame(ShoalRing *ring, int fd, ShoalRingSender *sender, const char **reason) {
    struct iovec parts[2];
    size_t n_parts = 0, n;
    size_t total = SHOAL_RING_HEADER_BYTES + sender->payload_bytes;
    if (sender->sent < SHOAL_RING_HEADER_BYTES)
        parts[n_parts++] =
            (struct iovec){sender->header + sender->sent, SHOAL_RING_HEADER_BYTES - sender->sent};
    size_t of_payload =
        sender->sent > SHOAL_RING_HEADER_BYTES ? sender->sent - SHOAL_RING_HEADER_BYTES : 0;
    if (of_payload < sender->payload_bytes)
        parts[n_parts++] = (struct iovec){(void *)(uintptr_t)(sender->payload + of_payload),
                                          sender->payload_bytes - of_payload};
    if (!send_some(ring, fd, parts, n_parts, &n, reason))
        return false;
    sender->sent += n;
    sender->full = sender->sent < total;
    sender->active = sender->full;
    return true;
}

/* Takes `size` bytes from what was read ahead, after reading more if need be; NULL: not yet there,
 * or (*reason set) never. */
static const unsigned char *look_ahead(ShoalRing *ring, int fd, ShoalRingReceiver *receiver,
                                       size_t size, const char **reason) {
    if (receiver->end - receiver->begin < size && !receiver->dry) {
        size_t n;
        memmove(receiver->ahead, receiver->ahead + receiver->begin,
                receiver->end - receiver->begin);
        receiver->end -= receiver->begin;
        receiver->begin = 0;
        struct iovec part = {receiver->ahead + receiver->end,
                             SHOAL_RING_AHEAD_BYTES - receiver->end};
        if (!receive_some(ring, fd, &part, 1, &n, reason))
            return NULL;
        receiver->end += n;
        receiver->dry = receiver->end < SHOAL_RING_AHEAD_BYTES;
    }
    if (receiver->end - receiver->begin < size)
        return NULL;
    receiver->begin += size;
    return receiver->ahead + receiver->begin - size;
}

/* --- credits --------------------------------------------------------------------------------- */

/* Tells the previous rank what is open here. When it cannot be told, it has nothing to send any
 * more, or receiving from it fails as well. */
static void push_credit(ShoalRing *ring) {
    ShoalRingFlow *flow = &ring->flow;
    ShoalRingSender *sender = &flow->credit_out;
    const char *reason;
    if (!sender->active) {
        ShoalRingFrame frame = {.kind = SHOAL_RING_CREDIT,
                                .flags = frame_flags(ring),
                                .generation = ring->generation,
                                .operation = flow->owed};
        shoal_ring_frame_write(&frame, sender->header);
        if (ring->encrypt)
            shoal_auth_seal(&ring->previous_keys.send, flow->credits_out++, sender->header,
                            SHOAL_RING_HEADER_BYTES, NULL, 0, flow->credit_tag);
        sender->payload = flow->credit_tag;
        sender->payload_bytes = tag_bytes(ring);
        sender->sent = 0;
        sender->active = true;
        flow->announced = flow->owed;
    }
    if (!push_frame(ring, ring->previous_fd, sender, &reason)) {
        sender->active = false;
        flow->owed = flow->announced;
    }
}

static bool is_credit(ShoalRing *ring, const unsigned char *bytes) {
    ShoalRingFlow *flow = &ring->flow;
    ShoalRingFrame frame;
    unsigned char nothing[1];
    if (!shoal_ring_frame_read(bytes, &frame))
        return false;
    if (ring->encrypt && !shoal_auth_open(&ring->next_keys.receive, flow->credits_in++, bytes,
                                          SHOAL_RING_HEADER_BYTES, bytes + SHOAL_RING_HEADER_BYTES,
                                          SHOAL_AUTH_SEAL_BYTES, nothing))
        return false;
    if (frame.kind != SHOAL_RING_CREDIT || frame.flags != frame_flags(ring) ||
        frame.generation != ring->generation)
        return false;
    if (frame.operation > flow->granted)
        flow->granted = frame.operation;
    return true;
}

static ShoalStatus pull_credits(ShoalRing *ring, ShoalError *err) {
    ShoalRingReceiver *receiver = &ring->flow.credit_in;
    const char *reason = NULL;
    receiver->dry = false;
    for (;;) {
        const unsigned char *bytes = look_ahead(ring, ring->next_fd, receiver,
                                                SHOAL_RING_HEADER_BYTES + tag_bytes(ring), &reason);
        if (reason)
            return lose(ring, next_of(ring), reason, err);
        if (!bytes)
            return SHOAL_OK;
        if (!is_credit(ring, bytes))
            return damaged(ring, next_of(ring), "something that is no credit", err);
    }
}

/* --- notes ------------------------------------------------------------------------------------ */

static ShoalRingNote *note_of(ShoalRing *ring, const ShoalRingFrame *frame) {
    uint64_t place =
        frame->operation * 31 + frame->step * 7 + frame->offset / SHOAL_RING_FRAME_BYTES;
    return &ring->flow.notes[place % SHOAL_RING_NOTES];
}

/* The next frame in of this operation, which has just been taken, is a frame out one day. */
static void note_hash(ShoalRing *ring, const ShoalRingOp *op) {
    ShoalRingFrame frame = ring->flow.in.frame;
    bool adds;
    const unsigned char *bytes = shoal_ring_op_forward(op, &frame.step, &adds);
    if (!bytes)
        return;
    *note_of(ring, &frame) =
        (ShoalRingNote){.operation = frame.operation,
                        .step = frame.step,
                        .offset = frame.offset,
                        .hash = adds ? shoal_ring_hash(bytes, frame.length) : frame.hash,
                        .valid = true};
}

static uint64_t noted_hash(ShoalRing *ring, const ShoalRingFrame *frame,
                           const unsigned char *payload) {
    ShoalRingNote *note = note_of(ring, frame);
    bool found = note->valid && note->operation == frame->operation && note->step == frame->step &&
                 note->offset == frame->offset;
    if (!found)
        return shoal_ring_hash(payload, frame->length);
    note->valid = false;
    return note->hash;
}

/* --- sending --------------------------------------------------------------------------------- */

/* Whether the next rank is ready for the next frame of operation k (see above). */
static bool is_granted(ShoalRing *ring, uint64_t k) {
    const ShoalRingFlow *flow = &ring->flow;
    const ShoalRingOp *op = op_of(ring, k);
    if (k != flow->granted)
        return k < flow->granted;
    uint64_t frame = SHOAL_RING_HEADER_BYTES + shoal_ring_op_out_items(op) * op->item_bytes;
    return k == flow->sent && op->out_bytes + frame <= EAGER_BYTES;
}

/* The oldest operation with a frame to send; false: there is none. */
static bool pick(ShoalRing *ring, uint64_t *operation) {
    const ShoalRingFlow *flow = &ring->flow;
    for (uint64_t k = flow->sent; k < flow->open && k <= flow->granted; k++) {
        if (shoal_ring_op_is_sendable(op_of(ring, k)) && is_granted(ring, k)) {
            *operation = k;
            return true;
        }
    }
    return false;
}

static void make_frame(ShoalRing *ring, uint64_t operation) {
    ShoalRingFlow *flow = &ring->flow;
    ShoalRingSender *sender = &flow->out;
    const ShoalRingOp *op = op_of(ring, operation);
    ShoalRingFrame frame;
    shoal_ring_op_out_frame(op, &frame);
    frame.flags = frame_flags(ring);
    frame.generation = ring->generation;
    frame.operation = operation;
    const unsigned char *payload = shoal_ring_op_payload(op, flow->scratch_out);
    if (!ring->encrypt)
        frame.hash = noted_hash(ring, &frame, payload);
    shoal_ring_frame_write(&frame, sender->header);
    if (ring->encrypt) {
        shoal_auth_seal(&ring->next_keys.send, flow->frames_out++, sender->header,
                        SHOAL_RING_HEADER_BYTES, payload, frame.length, flow->scratch_out);
        payload = flow->scratch_out;
    }
    sender->payload = payload;
    sender->payload_bytes = frame.length + tag_bytes(ring);
    sender->operation = operation;
    sender->sent = 0;
    sender->active = true;
}

/* Goes on with the frame that is on its way out, or with the next one. */
static ShoalStatus push(ShoalRing *ring, bool *moved, ShoalError *err) {
    ShoalRingFlow *flow = &ring->flow;
    ShoalRingSender *sender = &flow->out;
    const char *reason;
    uint64_t operation;
    if (sender->full)
        return SHOAL_OK;
    if (!sender->active) {
        if (!pick(ring, &operation))
            return SHOAL_OK;
        make_frame(ring, operation);
    }
    if (!push_frame(ring, ring->next_fd, sender, &reason))
        return lose(ring, next_of(ring), reason, err);
    if (!sender->active) {
        ShoalRingOp *op = op_of(ring, sender->operation);
        op->out_bytes += sender->sent;
        shoal_ring_op_sent(op);
        *moved = true;
        while (flow->sent < flow->open && op_of(ring, flow->sent)->out.done)
            flow->sent++;
    }
    return SHOAL_OK;
}

/* --- receiving ------------------------------------------------------------------------------- */

/* The frame that comes is to be the next one of an operation that is open here. */
static ShoalStatus match(ShoalRing *ring, ShoalError *err) {
    ShoalRingFlow *flow = &ring->flow;
    const ShoalRingFrame *frame = &flow->in.frame;
    bool known = frame->operation >= flow->received && frame->operation < flow->open;
    ShoalRingFrame mine = {.generation = ring->generation,
                           .operation = known ? frame->operation : flow->received};
    const ShoalRingOp *op = op_of(ring, mine.operation);
    if (op->in.done)
        return damaged(ring, previous_of(ring), "a frame too many", err);
    shoal_ring_op_in_frame(op, &mine);
    if (frame->generation != mine.generation || frame->operation != mine.operation ||
        frame->kind != mine.kind || frame->shape != mine.shape || frame->step != mine.step ||
        frame->offset != mine.offset || frame->length != mine.length ||
        frame->flags != frame_flags(ring))
        return disagree(ring, frame, &mine, err);
    return SHOAL_OK;
}

static ShoalStatus pull_header(ShoalRing *ring, ShoalError *err) {
    ShoalRingFlow *flow = &ring->flow;
    ShoalRingReceiver *in = &flow->in;
    const char *reason = NULL;
    const unsigned char *bytes =
        look_ahead(ring, ring->previous_fd, in, SHOAL_RING_HEADER_BYTES, &reason);
    if (reason)
        return lose(ring, previous_of(ring), reason, err);
    if (!bytes)
        return SHOAL_OK;
    if (!shoal_ring_frame_read(bytes, &in->frame))
        return damaged(ring, previous_of(ring), "something that is not the start of a frame", err);
    memcpy(in->header, bytes, SHOAL_RING_HEADER_BYTES);
    ShoalStatus status = match(ring, err);
    if (status)
        return status;
    const ShoalRingOp *op = op_of(ring, in->frame.operation);
    in->place = ring->encrypt ? NULL : shoal_ring_op_place(op);
    if (!in->place)
        in->place = flow->scratch_in;
    in->wanted = in->frame.length + tag_bytes(ring);
    in->have = 0;
    in->has_header = true;
    return SHOAL_OK;
}

/* What is there of the payload: first what was read ahead, then from the socket, together with a
 * little of what follows. */
static bool pull_payload(ShoalRing *ring, const char **reason) {
    ShoalRingReceiver *in = &ring->flow.in;
    size_t n = in->end - in->begin;
    if (n > in->wanted - in->have)
        n = in->wanted - in->have;
    memcpy(in->place + in->have, in->ahead + in->begin, n);
    in->begin += n;
    in->have += n;
    if (in->have == in->wanted || in->dry)
        return true;
    size_t left = in->wanted - in->have;
    struct iovec parts[2] = {{in->place + in->have, left}, {in->ahead, SHOAL_RING_AHEAD_BYTES}};
    in->begin = in->end = 0;
    if (!receive_some(ring, ring->previous_fd, parts, 2, &n, reason))
        return false;
    in->dry = n < left + SHOAL_RING_AHEAD_BYTES;
    in->have += n < left ? n : left;
    in->end = n < left ? 0 : n - left;
    return true;
}

static bool verify(ShoalRing *ring) {
    ShoalRingFlow *flow = &ring->flow;
    const ShoalRingReceiver *in = &flow->in;
    if (!ring->encrypt)
        return shoal_ring_hash(in->place, in->wanted) == in->frame.hash;
    return shoal_auth_open(&ring->previous_keys.receive, flow->frames_in++, in->header,
                           SHOAL_RING_HEADER_BYTES, in->place, in->wanted, in->place);
}

static ShoalStatus finish_frame(ShoalRing *ring, ShoalError *err) {
    ShoalRingFlow *flow = &ring->flow;
    ShoalRingReceiver *in = &flow->in;
    uint64_t operation = in->frame.operation;
    ShoalRingOp *op = op_of(ring, operation);
    if (!verify(ring))
        return damaged(ring, previous_of(ring), "damaged bytes", err);
    if (in->place == flow->scratch_in)
        shoal_ring_op_take(op, in->place);
    if (!ring->encrypt)
        note_hash(ring, op);
    shoal_ring_op_received(op);
    in->has_header = false;
    if (op->in.done && op->kind != SHOAL_RING_RELAY && op->count > 0 && operation >= flow->granted)
        flow->granted = operation + 1; /* the sum is complete: the next rank has given its part */
    while (flow->received < flow->open && op_of(ring, flow->received)->in.done)
        flow->received++;
    return SHOAL_OK;
}

/* Nothing is read that no open operation waits for: so what the previous rank sends too early stays
 * where it is. */
static bool wants_more(const ShoalRing *ring) {
    return ring->flow.received < ring->flow.open;
}

static ShoalStatus pull(ShoalRing *ring, bool *moved, ShoalError *err) {
    ShoalRingReceiver *in = &ring->flow.in;
    const char *reason = NULL;
    if (!wants_more(ring))
        return SHOAL_OK;
    if (!in->has_header) {
        ShoalStatus status = pull_header(ring, err);
        if (status || !in->has_header)
            return status;
    }
    if (!pull_payload(ring, &reason))
        return lose(ring, previous_of(ring), reason, err);
    if (in->have < in->wanted)
        return SHOAL_OK;
    *moved = true;
    return finish_frame(ring, err);
}

/* --- operations ------------------------------------------------------------------------------ */

/* Need the previous rank be told that this operation is open here? (See above.) */
static bool is_silent(const ShoalRing *ring, const ShoalRingOp *op) {
    return ring->flow.received == ring->flow.open && op->kind != SHOAL_RING_RELAY &&
           op->count > 0 && shoal_ring_op_most_bytes(op) <= EAGER_BYTES;
}

static void open_operations(ShoalRing *ring) {
    ShoalRingFlow *flow = &ring->flow;
    flow->seen = ring->submitted;
    while (flow->open < flow->seen && flow->open < flow->received + WINDOW) {
        if (!is_silent(ring, op_of(ring, flow->open)))
            flow->owed = flow->open + 1;
        flow->open++;
    }
}

/* Lets go of operations that are done. */
static void retire(ShoalRing *ring) {
    ShoalRingFlow *flow = &ring->flow;
    uint64_t done = flow->sent < flow->received ? flow->sent : flow->received;
    if (done == flow->done)
        return;
    uint64_t busy_ns = flow->busy_ns + shoal_clock_ns() - flow->started_ns;
    pthread_mutex_lock(&ring->mutex);
    ring->progress.calls += done - flow->done;
    ring->progress.bytes_sent = flow->bytes_sent;
    ring->progress.bytes_received = flow->bytes_received;
    ring->progress.busy_ns = busy_ns;
    ring->done = flow->done = done;
    if (ring->waited < done)
        pthread_cond_broadcast(&ring->rest);
    pthread_mutex_unlock(&ring->mutex);
}

/* --- the loop -------------------------------------------------------------------------------- */

/* Bytes that the next frame has at least, whichever operation it is of. */
static size_t least_frame(ShoalRing *ring) {
    const ShoalRingFlow *flow = &ring->flow;
    size_t least = SHOAL_RING_FRAME_BYTES;
    for (uint64_t k = flow->received; k < flow->open; k++) {
        const ShoalRingOp *op = op_of(ring, k);
        size_t bytes = shoal_ring_op_in_items(op) * op->item_bytes;
        if (!op->in.done && bytes < least)
            least = bytes;
    }
    return SHOAL_RING_HEADER_BYTES + least + tag_bytes(ring);
}

/* Is there much on its way? For little it is latency that counts, not the number of wake-ups. */
static bool is_busy(ShoalRing *ring) {
    const ShoalRingFlow *flow = &ring->flow;
    uint64_t bytes = 0;
    for (uint64_t k = flow->received; k < flow->open && bytes < BUSY_BYTES; k++)
        bytes += shoal_ring_op_most_bytes(op_of(ring, k));
    return bytes >= BUSY_BYTES;
}

/* poll() is to return when something can be done with what has come, not with every packet. */
static void set_low(ShoalRing *ring) {
    ShoalRingReceiver *in = &ring->flow.in;
    size_t low = !is_busy(ring)   ? 1
                 : in->has_header ? in->wanted - in->have
                                  : least_frame(ring) - (in->end - in->begin);
    /* While there is plenty to send, two frames at a time do: half as often awake. */
    if (ring->flow.out.full && low < LOW_MOST)
        low = LOW_MOST;
    if (low > in->low_most)
        low = in->low_most;
    if (low == in->low)
        return;
    int value = (int)low;
    in->low = low;
    setsockopt(ring->previous_fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value));
}

/* Where the link is slow, or the kernel's buffer holds less than it is asked to wait for (before
 * Linux 4.18 that could be), less has to do. Afterwards it goes up again little by little. */
static void adapt_low(ShoalRing *ring, bool in_time) {
    ShoalRingReceiver *in = &ring->flow.in;
    int waiting = 0;
    if (in_time)
        in->low_most += LOW_LEAST / 4;
    else if (!ioctl(ring->previous_fd, FIONREAD, &waiting) && waiting > 0)
        in->low_most /= 2;
    if (in->low_most < LOW_LEAST)
        in->low_most = LOW_LEAST;
    if (in->low_most > LOW_MOST)
        in->low_most = LOW_MOST;
}

static ShoalStatus rest(ShoalRing *ring, ShoalError *err) {
    ShoalRingFlow *flow = &ring->flow;
    bool receives = wants_more(ring), sends = flow->sent < flow->open;
    int next_events = POLLIN | POLLRDHUP | (flow->out.active ? POLLOUT : 0);
    int previous_events = POLLIN | (flow->credit_out.active ? POLLOUT : 0);
    /* A neighbour that closes is lost only while something is still to pass between the two: else
     * it may have finished and gone. */
    struct pollfd fds[3] = {
        {.fd = ring->wake_fd, .events = POLLIN},
        {.fd = sends ? ring->next_fd : -1, .events = (short)next_events},
        {.fd = receives ? ring->previous_fd : -1, .events = (short)previous_events},
    };
    if (receives)
        set_low(ring);
    ring->sleeping = true;
    /* Whoever submits or stops after this look finds the flag, and wakes. */
    if (ring->submitted != flow->seen || shoal_ring_is_stopped(ring)) {
        ring->sleeping = false;
        return SHOAL_OK;
    }
    int n = poll(fds, 3, receives ? LOOK_MS : -1);
    ring->sleeping = false;
    if (n < 0)
        return errno == EINTR
                   ? SHOAL_OK
                   : shoal_error_set(err, SHOAL_ERR_NETWORK, "ring: cannot wait for sockets: %s",
                                     strerror(errno));
    if (fds[0].revents)
        shoal_ring_drain_wakes(ring);
    if (fds[1].revents & POLLOUT)
        flow->out.full = false;
    if (fds[2].revents & POLLOUT)
        flow->credit_out.full = false;
    if (receives && (n == 0 || fds[2].revents & ~POLLOUT)) {
        adapt_low(ring, n > 0);
        flow->in.dry = false;
    }
    return fds[1].revents & ~POLLOUT ? pull_credits(ring, err) : SHOAL_OK;
}

static ShoalStatus step(ShoalRing *ring, ShoalError *err) {
    ShoalRingFlow *flow = &ring->flow;
    bool moved = false;
    if (shoal_ring_is_stopped(ring))
        return shoal_error_set(err, SHOAL_ERR_STOPPED, "ring: operation %llu was stopped",
                               (unsigned long long)flow->done);
    open_operations(ring);
    if (flow->credit_out.active ? !flow->credit_out.full : flow->owed > flow->announced)
        push_credit(ring);
    ShoalStatus status = pull(ring, &moved, err);
    if (!status)
        status = push(ring, &moved, err);
    if (status)
        return status;
    retire(ring);
    return moved || flow->done == flow->open ? SHOAL_OK : rest(ring, err);
}

void shoal_ring_flow_reset(ShoalRing *ring) {
    ShoalRingFlow *flow = &ring->flow, fresh = {.scratch_out = flow->scratch_out,
                                                .scratch_in = flow->scratch_in,
                                                .notes = flow->notes,
                                                .bytes_sent = flow->bytes_sent,
                                                .bytes_received = flow->bytes_received,
                                                .busy_ns = flow->busy_ns};
    *flow = fresh;
    flow->in.low_most = LOW_MOST;
    memset(flow->notes, 0, SHOAL_RING_NOTES * sizeof(*flow->notes));
}

ShoalStatus shoal_ring_flow_run(ShoalRing *ring, ShoalError *err) {
    ShoalRingFlow *flow = &ring->flow;
    ShoalStatus status = SHOAL_OK;
    flow->started_ns = shoal_clock_ns();
    while (!status && flow->done < ring->submitted)
        status = step(ring, err);
    flow->busy_ns += shoal_clock_ns() - flow->started_ns;
    return status;
}
