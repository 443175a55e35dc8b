/* SPDX-License-Identifier: Apache-2.0 */
#include "collective/channel.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"
#include "collective/crc32c.h"
#include "collective/socket.h"
#include "collective/wire.h"

#define MAGIC 0x4c4f4853u /* "SHOL" */
#define MAGIC_BYTES 4
#define CHECKED_BYTES 12 /* of the header: all but the check itself */
#define FIRST_CAPACITY 4096
#define FLAG_SEALED 1u
#define NO_BULK (-1)

/* Bytes start .. end - 1 of data[capacity] are in use. */
typedef struct Buffer {
    unsigned char *data;
    size_t capacity, start, end;
} Buffer;

struct ShoalChannel {
    int fd;
    size_t limit;
    Buffer in, out;
    size_t taken;       /* of in: the frame that the caller still looks at */
    size_t open_header; /* of out: where the frame between begin and commit starts */
    bool secure;
    int bulk; /* type of frames that go plain though secure; NO_BULK: none */
    ShoalAuthKey send_key, receive_key;
    uint64_t sent_frames, received_frames; /* since shoal_channel_secure */
    uint64_t bytes_sent, bytes_received;
    char peer[SHOAL_ADDRESS_TEXT];
};

/* Makes room for `more` bytes behind end. Grows when more than half is in use, else moves what is
 * in use to the start: so no byte is moved often, and capacity stays below four times the most that
 * was ever in use. */
static bool reserve(Buffer *buffer, size_t more) {
    if (buffer->capacity - buffer->end >= more)
        return true;
    size_t used = buffer->end - buffer->start, need;
    if (!shoal_size_add(used, more, &need))
        return false;
    unsigned char *data = buffer->data;
    if (need > buffer->capacity || used > buffer->capacity / 2) {
        size_t capacity = buffer->capacity ? buffer->capacity : FIRST_CAPACITY;
        while (capacity < need || used > capacity / 2)
            if (!shoal_size_mul(capacity, 2, &capacity))
                return false;
        data = shoal_calloc(capacity, 1);
        if (!data)
            return false;
        buffer->capacity = capacity;
    }
    if (used > 0)
        memmove(data, buffer->data + buffer->start, used);
    if (data != buffer->data) {
        shoal_free(buffer->data);
        buffer->data = data;
    }
    buffer->start = 0;
    buffer->end = used;
    return true;
}

ShoalStatus shoal_channel_create(int fd, size_t limit, ShoalChannel **out, ShoalError *err) {
    ShoalChannel *channel = shoal_calloc(1, sizeof(*channel));
    if (!channel)
        return shoal_error_memory(err, "a connection", sizeof(*channel));
    if (!reserve(&channel->in, 1)) {
        shoal_free(channel);
        return shoal_error_memory(err, "a connection", FIRST_CAPACITY);
    }
    ShoalAddress peer = {.size = 0};
    shoal_socket_peer(fd, &peer, NULL);
    shoal_address_format(&peer, channel->peer);
    channel->fd = fd;
    channel->limit = limit;
    channel->bulk = NO_BULK;
    *out = channel;
    return SHOAL_OK;
}

void shoal_channel_destroy(ShoalChannel *channel) {
    if (!channel)
        return;
    close(channel->fd);
    shoal_free(channel->in.data);
    shoal_free(channel->out.data);
    shoal_auth_forget(channel, sizeof(*channel));
    shoal_free(channel);
}

int shoal_channel_fd(const ShoalChannel *channel) {
    return channel->fd;
}

const char *shoal_channel_peer(const ShoalChannel *channel) {
    return channel->peer;
}

void shoal_channel_set_limit(ShoalChannel *channel, size_t limit) {
    channel->limit = limit;
}

void shoal_channel_secure(ShoalChannel *channel, const ShoalAuthKey *send_key,
                          const ShoalAuthKey *receive_key) {
    channel->secure = true;
    channel->send_key = *send_key;
    channel->receive_key = *receive_key;
    channel->sent_frames = channel->received_frames = 0;
}

void shoal_channel_bulk(ShoalChannel *channel, int type) {
    channel->bulk = type;
}

/* Of a frame that is not sealed. */
static uint32_t check_of(const ShoalChannel *channel, const ShoalAuthKey *key, uint64_t sequence,
                         const unsigned char *frame, size_t size) {
    const unsigned char *payload = frame + SHOAL_CHANNEL_HEADER_BYTES;
    if (channel->secure)
        return shoal_auth_tag(key, sequence, frame, CHECKED_BYTES, payload, size);
    return shoal_crc32c(shoal_crc32c(0, frame, CHECKED_BYTES), payload, size);
}

/* --- output --------------------------------------------------------------------------------- */

ShoalStatus shoal_channel_begin(ShoalChannel *channel, uint16_t type, size_t size,
                                unsigned char **payload, ShoalError *err) {
    bool seal = channel->secure && type != channel->bulk;
    size_t more = seal ? SHOAL_AUTH_SEAL_BYTES : 0;
    if (size > UINT32_MAX - SHOAL_AUTH_SEAL_BYTES)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "a message of %zu bytes; expected less than 4 GiB", size);
    Buffer *out = &channel->out;
    if (!reserve(out, SHOAL_CHANNEL_HEADER_BYTES + size + more))
        return shoal_error_memory(err, "a message", size);
    unsigned char *header = out->data + out->end;
    shoal_wire_put32(header, MAGIC);
    shoal_wire_put16(header + 4, type);
    shoal_wire_put16(header + 6, seal ? FLAG_SEALED : 0);
    shoal_wire_put32(header + 8, (uint32_t)(size + more));
    shoal_wire_put32(header + CHECKED_BYTES, 0);
    channel->open_header = out->end;
    *payload = header + SHOAL_CHANNEL_HEADER_BYTES;
    return SHOAL_OK;
}

void shoal_channel_commit(ShoalChannel *channel) {
    Buffer *out = &channel->out;
    unsigned char *header = out->data + channel->open_header;
    unsigned char *payload = header + SHOAL_CHANNEL_HEADER_BYTES;
    size_t size = shoal_wire_get32(header + 8);
    if (shoal_wire_get16(header + 6) & FLAG_SEALED)
        shoal_auth_seal(&channel->send_key, channel->sent_frames, header,
                        SHOAL_CHANNEL_HEADER_BYTES, payload, size - SHOAL_AUTH_SEAL_BYTES, payload);
    else
        shoal_wire_put32(header + CHECKED_BYTES,
                         check_of(channel, &channel->send_key, channel->sent_frames, header, size));
    out->end = channel->open_header + SHOAL_CHANNEL_HEADER_BYTES + size;
    channel->sent_frames++;
}

ShoalStatus shoal_channel_queue(ShoalChannel *channel, uint16_t type, const void *payload,
                                size_t size, ShoalError *err) {
    unsigned char *to = NULL;
    ShoalStatus status = shoal_channel_begin(channel, type, size, &to, err);
    if (status)
        return status;
    if (size > 0)
        memcpy(to, payload, size);
    shoal_channel_commit(channel);
    return SHOAL_OK;
}

size_t shoal_channel_pending(const ShoalChannel *channel) {
    return channel->out.end - channel->out.start;
}

bool shoal_channel_wants_write(const ShoalChannel *channel) {
    return shoal_channel_pending(channel) > 0;
}

static ShoalStatus lost(const ShoalChannel *channel, const char *reason, ShoalError *err) {
    return shoal_error_set(err, SHOAL_ERR_LOST, "the connection with %s is lost: %s", channel->peer,
                           reason);
}

ShoalStatus shoal_channel_flush(ShoalChannel *channel, ShoalError *err) {
    Buffer *out = &channel->out;
    while (out->start < out->end) {
        ssize_t n = send(channel->fd, out->data + out->start, out->end - out->start, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return SHOAL_OK;
        if (n < 0)
            return lost(channel, strerror(errno), err);
        out->start += (size_t)n;
        channel->bytes_sent += (uint64_t)n;
    }
    out->start = out->end = 0;
    return SHOAL_OK;
}

/* --- input ---------------------------------------------------------------------------------- */

static ShoalStatus protocol_error(const ShoalChannel *channel, const char *found, ShoalError *err) {
    return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "%s sent %s", channel->peer, found);
}

/* What the header alone tells: is this a frame that may come now? *overhead: bytes of its length
 * that are no payload. */
static ShoalStatus check_header(const ShoalChannel *channel, const unsigned char *frame,
                                size_t *overhead, ShoalError *err) {
    unsigned flags = shoal_wire_get16(frame + 6);
    size_t length = shoal_wire_get32(frame + 8);
    bool sealed = flags == FLAG_SEALED;
    if (flags & ~FLAG_SEALED)
        return protocol_error(channel, "a frame with flags that this version does not know", err);
    if (sealed && !channel->secure)
        return protocol_error(channel, "an encrypted frame before there are keys", err);
    if (!sealed && channel->secure && shoal_wire_get16(frame + 4) != channel->bulk)
        return protocol_error(channel, "a plain frame where all are encrypted", err);
    *overhead = sealed ? SHOAL_AUTH_SEAL_BYTES : 0;
    if (length < *overhead)
        return protocol_error(channel, "an encrypted frame without its tag", err);
    if (length - *overhead > channel->limit)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "%s announced a message of %zu bytes; expected at most %zu",
                               channel->peer, length - *overhead, channel->limit);
    return SHOAL_OK;
}

/* Is the frame that is all here what its sender sent? Decrypts it where it is. */
static bool sound(const ShoalChannel *channel, unsigned char *frame, size_t length) {
    unsigned char *payload = frame + SHOAL_CHANNEL_HEADER_BYTES;
    const ShoalAuthKey *key = &channel->receive_key;
    if (shoal_wire_get16(frame + 6) == FLAG_SEALED)
        return shoal_wire_get32(frame + CHECKED_BYTES) == 0 &&
               shoal_auth_open(key, channel->received_frames, frame, SHOAL_CHANNEL_HEADER_BYTES,
                               payload, length, payload);
    return check_of(channel, key, channel->received_frames, frame, length) ==
           shoal_wire_get32(frame + CHECKED_BYTES);
}

/* Looks at the frame that starts the input. *whole: header and payload are there, sound and plain;
 * then it is not to be looked at again. */
static ShoalStatus inspect(ShoalChannel *channel, bool *whole, size_t *length, size_t *overhead,
                           ShoalError *err) {
    const Buffer *in = &channel->in;
    unsigned char *frame = in->data + in->start;
    size_t have = in->end - in->start;
    unsigned char magic[MAGIC_BYTES];
    shoal_wire_put32(magic, MAGIC);
    /* Garbage is refused at its first wrong byte: it need not fill a header. */
    if (memcmp(frame, magic, have < MAGIC_BYTES ? have : MAGIC_BYTES) != 0)
        return protocol_error(channel, "something that is not Shoal's protocol", err);
    *whole = false;
    if (have < SHOAL_CHANNEL_HEADER_BYTES)
        return SHOAL_OK;
    ShoalStatus status = check_header(channel, frame, overhead, err);
    if (status)
        return status;
    *length = shoal_wire_get32(frame + 8);
    if (have - SHOAL_CHANNEL_HEADER_BYTES < *length)
        return SHOAL_OK;
    if (!sound(channel, frame, *length))
        return protocol_error(channel, "a frame whose check is wrong", err);
    *whole = true;
    return SHOAL_OK;
}

/* Reads once. *n 0: nothing there now; *closed: the peer has closed. */
static ShoalStatus fill(ShoalChannel *channel, size_t *n, bool *closed, ShoalError *err) {
    Buffer *in = &channel->in;
    /* Doubling from what is there already: a length field alone costs nothing. */
    if (in->end == in->capacity && !reserve(in, 1))
        return shoal_error_memory(err, "a message", in->capacity);
    ssize_t got;
    do
        got = recv(channel->fd, in->data + in->end, in->capacity - in->end, 0);
    while (got < 0 && errno == EINTR);
    *closed = got == 0;
    *n = 0;
    if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK)
        return lost(channel, strerror(errno), err);
    if (got > 0) {
        *n = (size_t)got;
        in->end += (size_t)got;
        channel->bytes_received += (uint64_t)got;
    }
    return SHOAL_OK;
}

static void drop_taken(ShoalChannel *channel) {
    Buffer *in = &channel->in;
    in->start += channel->taken;
    channel->taken = 0;
    if (in->start == in->end)
        in->start = in->end = 0;
}

ShoalStatus shoal_channel_receive(ShoalChannel *channel, ShoalChannelEvent *event,
                                  ShoalFrame *frame, ShoalError *err) {
    drop_taken(channel);
    for (;;) {
        bool whole = false, closed = false;
        size_t length = 0, overhead = 0, n = 0;
        ShoalStatus status = inspect(channel, &whole, &length, &overhead, err);
        if (status)
            return status;
        if (whole) {
            const unsigned char *start = channel->in.data + channel->in.start;
            channel->taken = SHOAL_CHANNEL_HEADER_BYTES + length;
            channel->received_frames++;
            *frame = (ShoalFrame){.type = shoal_wire_get16(start + 4),
                                  .payload = start + SHOAL_CHANNEL_HEADER_BYTES,
                                  .size = length - overhead};
            *event = SHOAL_CHANNEL_FRAME;
            return SHOAL_OK;
        }
        status = fill(channel, &n, &closed, err);
        if (status)
            return status;
        if (closed && channel->in.end > channel->in.start)
            return lost(channel, "it closed in the middle of a message", err);
        if (closed || n == 0) {
            *event = closed ? SHOAL_CHANNEL_CLOSED : SHOAL_CHANNEL_NOTHING;
            return SHOAL_OK;
        }
    }
}

/* --- waiting forms -------------------------------------------------------------------------- */

static ShoalStatus wait_for(ShoalChannel *channel, short events, int wake_fd, uint64_t deadline_ms,
                            ShoalError *err) {
    ShoalStatus status = shoal_socket_wait(channel->fd, events, wake_fd, deadline_ms, err);
    if (status)
        shoal_error_prefix(err, "%s", channel->peer);
    return status;
}

ShoalStatus shoal_channel_send(ShoalChannel *channel, uint16_t type, const void *payload,
                               size_t size, int wake_fd, uint64_t deadline_ms, ShoalError *err) {
    ShoalStatus status = shoal_channel_queue(channel, type, payload, size, err);
    if (!status)
        status = shoal_channel_flush(channel, err);
    while (!status && shoal_channel_wants_write(channel)) {
        status = wait_for(channel, POLLOUT, wake_fd, deadline_ms, err);
        if (!status)
            status = shoal_channel_flush(channel, err);
    }
    return status;
}

ShoalStatus shoal_channel_wait(ShoalChannel *channel, int wake_fd, uint64_t deadline_ms,
                               ShoalFrame *frame, ShoalError *err) {
    for (;;) {
        ShoalChannelEvent event;
        ShoalStatus status = shoal_channel_receive(channel, &event, frame, err);
        if (status)
            return status;
        if (event == SHOAL_CHANNEL_FRAME)
            return SHOAL_OK;
        if (event == SHOAL_CHANNEL_CLOSED)
            return lost(channel, "it was closed", err);
        status = wait_for(channel, POLLIN, wake_fd, deadline_ms, err);
        if (status)
            return status;
    }
}

uint64_t shoal_channel_bytes_sent(const ShoalChannel *channel) {
    return channel->bytes_sent;
}

uint64_t shoal_channel_bytes_received(const ShoalChannel *channel) {
    return channel->bytes_received;
}
