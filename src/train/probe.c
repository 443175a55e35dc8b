/* SPDX-License-Identifier: Apache-2.0 */
#include "train/probe.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "collective/wire.h"
#include "train/probe_bulk.h"

enum {
    PINGS = 200,
    PINGS_LEAST = 8,
    PINGS_MS = 1000, /* for all of them */
    ANSWER_MS = 5000
};

/* ---- frames ---- */

void shoal_probe_pack(ShoalProbeKind kind, uint32_t a, uint32_t b,
                      unsigned char payload[SHOAL_PROBE_MESSAGE_BYTES]) {
    payload[0] = (unsigned char)kind;
    shoal_wire_put32(payload + 1, a);
    shoal_wire_put32(payload + 5, b);
}

bool shoal_probe_unpack(const ShoalFrame *frame, ShoalProbeMessage *message) {
    if (frame->type != SHOAL_MESSAGE_PROBE || frame->size < 1 ||
        frame->payload[0] < SHOAL_PROBE_WELCOME || frame->payload[0] > SHOAL_PROBE_RESULT)
        return false;
    *message = (ShoalProbeMessage){.kind = (ShoalProbeKind)frame->payload[0],
                                   .bytes = frame->payload + 1,
                                   .size = frame->size - 1};
    if (message->kind == SHOAL_PROBE_DATA)
        return message->size >= 1 && message->size <= SHOAL_PROBE_DATA_BYTES;
    if (message->kind == SHOAL_PROBE_PEERS)
        return true;
    if (frame->size != SHOAL_PROBE_MESSAGE_BYTES)
        return false;
    message->a = shoal_wire_get32(frame->payload + 1);
    message->b = shoal_wire_get32(frame->payload + 5);
    return true;
}

bool shoal_probe_next_peer(ShoalProbeMessage *message, ShoalAddress *address) {
    size_t length = message->size > 0 ? message->bytes[0] : 0;
    char host[SHOAL_ADDRESS_TEXT];
    if (length == 0 || length >= sizeof host || message->size < 1 + length + 2)
        return false;
    memcpy(host, message->bytes + 1, length);
    host[length] = '\0';
    uint16_t port = shoal_wire_get16(message->bytes + 1 + length);
    message->bytes += 1 + length + 2;
    message->size -= 1 + length + 2;
    return port > 0 && strlen(host) == length &&
           !shoal_address_from_host(host, port, address, NULL);
}

/* ---- the meter ---- */

void shoal_probe_meter_take(ShoalProbeMeter *meter, uint64_t now_ns, size_t bytes) {
    bool first = meter->all_bytes == 0;
    meter->all_bytes += bytes;
    if (first) {
        meter->first_ns = meter->last_ns = now_ns;
        return;
    }
    if (meter->mark_ns) {
        meter->bytes += bytes;
        if (now_ns - meter->last_ns > meter->gap_ns)
            meter->gap_ns = now_ns - meter->last_ns;
    } else if (now_ns - meter->first_ns >= meter->warm_ns) {
        meter->mark_ns = now_ns;
    }
    meter->last_ns = now_ns;
}

double shoal_probe_meter_mbit(const ShoalProbeMeter *meter) {
    bool warm = meter->mark_ns && meter->last_ns > meter->mark_ns;
    uint64_t span = meter->last_ns - (warm ? meter->mark_ns : meter->first_ns);
    uint64_t bytes = warm ? meter->bytes : meter->all_bytes;
    return span ? 8000.0 * (double)bytes / (double)span : 0;
}

/* ---- bulk, of both sides ---- */

ShoalStatus shoal_probe_say(ShoalChannel *channel, int wake_fd, ShoalProbeKind kind, uint32_t a,
                            uint32_t b, uint64_t deadline_ms, ShoalError *err) {
    unsigned char payload[SHOAL_PROBE_MESSAGE_BYTES];
    shoal_probe_pack(kind, a, b, payload);
    return shoal_channel_send(channel, SHOAL_MESSAGE_PROBE, payload, sizeof payload, wake_fd,
                              deadline_ms, err);
}

/* Of the segments sent so far, in millionths; UINT32_MAX: not told. */
static uint32_t resent(const ShoalChannel *channel) {
    struct tcp_info info = {0};
    socklen_t size = sizeof info;
    if (getsockopt(shoal_channel_fd(channel), IPPROTO_TCP, TCP_INFO, &info, &size) ||
        info.tcpi_snd_mss == 0)
        return UINT32_MAX;
    double segments = (double)shoal_channel_bytes_sent(channel) / info.tcpi_snd_mss + 1;
    double part = 1e6 * (double)info.tcpi_total_retrans / segments;
    return part < 1e6 ? (uint32_t)part : 1000000;
}

/* How little the socket may hold that is not yet on its way: what is sent at the end of the time
 * would else arrive long after it on a slow link. */
static void keep_short(ShoalChannel *channel) {
    int bytes = 4 * SHOAL_PROBE_DATA_BYTES;
    (void)setsockopt(shoal_channel_fd(channel), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes,
                     sizeof bytes);
}

static ShoalStatus queue_data(ShoalChannel *channel, ShoalError *err) {
    unsigned char *payload;
    ShoalStatus status = shoal_channel_begin(channel, SHOAL_MESSAGE_PROBE,
                                             1 + SHOAL_PROBE_DATA_BYTES, &payload, err);
    if (status)
        return status;
    memset(payload, 0, 1 + SHOAL_PROBE_DATA_BYTES); /* encryption makes noise of it */
    payload[0] = SHOAL_PROBE_DATA;
    shoal_channel_commit(channel);
    return SHOAL_OK;
}

ShoalStatus shoal_probe_send(ShoalChannel *channel, int wake_fd, unsigned ms, ShoalError *err) {
    uint64_t end = shoal_clock_ms() + ms, deadline = end + ANSWER_MS;
    size_t sent = 0;
    ShoalStatus status = SHOAL_OK;
    keep_short(channel);
    while (!status && shoal_clock_ms() < end && sent < SHOAL_PROBE_MOST_BYTES) {
        while (!status && shoal_channel_pending(channel) < 2 * SHOAL_PROBE_DATA_BYTES) {
            status = queue_data(channel, err);
            sent += SHOAL_PROBE_DATA_BYTES;
        }
        if (!status)
            status = shoal_channel_flush(channel, err);
        if (!status && shoal_channel_wants_write(channel))
            status = shoal_socket_wait(shoal_channel_fd(channel), POLLOUT, wake_fd, deadline, err);
    }
    return status ? status
                  : shoal_probe_say(channel, wake_fd, SHOAL_PROBE_DONE, resent(channel), 0,
                                    deadline, err);
}

ShoalStatus shoal_probe_receive(ShoalChannel *channel, int wake_fd, unsigned ms,
                                ShoalProbeMeter *meter, uint32_t *loss, ShoalError *err) {
    uint64_t deadline = shoal_clock_ms() + ms + ANSWER_MS;
    *meter = (ShoalProbeMeter){.warm_ns = (uint64_t)ms * 250000}; /* a quarter */
    for (;;) {
        ShoalFrame frame;
        ShoalProbeMessage message;
        ShoalStatus status = shoal_channel_wait(channel, wake_fd, deadline, &frame, err);
        if (status)
            return status;
        /* Time is looked at for every frame: one that always sends is never waited for. */
        bool good = shoal_probe_unpack(&frame, &message) && shoal_clock_ms() <= deadline &&
                    meter->all_bytes <= SHOAL_PROBE_MOST_BYTES + (1u << 20);
        if (good && message.kind == SHOAL_PROBE_DONE) {
            *loss = message.a;
            return SHOAL_OK;
        }
        if (!good || message.kind != SHOAL_PROBE_DATA)
            return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "%s does not keep to the link test",
                                   shoal_channel_peer(channel));
        shoal_probe_meter_take(meter, shoal_clock_ns(), message.size);
    }
}

/* ---- the prober ---- */

ShoalStatus shoal_prober_open(ShoalProber *prober, const ShoalAddress *address,
                              const ShoalAuthKey *key, uint16_t probe_port, int wake_fd,
                              uint64_t deadline_ms, ShoalError *err) {
    int fd;
    *prober = (ShoalProber){.wake_fd = wake_fd};
    ShoalStatus status = shoal_socket_connect(address, wake_fd, deadline_ms, &fd, err);
    if (status)
        return status;
    status = shoal_channel_create(fd, 1 + SHOAL_PROBE_DATA_BYTES + SHOAL_AUTH_SEAL_BYTES,
                                  &prober->channel, err);
    if (status) {
        close(fd);
        return status;
    }
    status = shoal_handshake_probe(prober->channel, key, probe_port, deadline_ms, err);
    if (status)
        shoal_prober_close(prober);
    return status;
}

void shoal_prober_close(ShoalProber *prober) {
    shoal_channel_destroy(prober->channel);
    prober->channel = NULL;
}

static ShoalStatus hear(ShoalProber *prober, ShoalProbeKind kind, uint64_t deadline_ms,
                        ShoalProbeMessage *message, ShoalError *err) {
    ShoalFrame frame;
    ShoalStatus status =
        shoal_channel_wait(prober->channel, prober->wake_fd, deadline_ms, &frame, err);
    if (status)
        return status;
    if (!shoal_probe_unpack(&frame, message) || message->kind != kind)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "%s does not keep to the link test",
                               shoal_channel_peer(prober->channel));
    return SHOAL_OK;
}

/* Says one thing and hears the answer. */
static ShoalStatus ask(ShoalProber *prober, ShoalProbeKind kind, uint32_t a, ShoalProbeKind answer,
                       uint64_t deadline_ms, ShoalProbeMessage *message, ShoalError *err) {
    ShoalStatus status = shoal_probe_say(prober->channel, prober->wake_fd, kind, a, 0,
                                         shoal_clock_ms() + ANSWER_MS, err);
    return status ? status : hear(prober, answer, deadline_ms, message, err);
}

ShoalStatus shoal_prober_peers(ShoalProber *prober, ShoalAddress *peers, int most, int *count,
                               ShoalError *err) {
    ShoalProbeMessage message = {0};
    *count = 0;
    ShoalStatus status = ask(prober, SHOAL_PROBE_PEERS, 0, SHOAL_PROBE_PEERS,
                             shoal_clock_ms() + ANSWER_MS, &message, err);
    while (!status && *count < most && shoal_probe_next_peer(&message, &peers[*count]))
        (*count)++;
    return status;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static ShoalStatus ping(ShoalProber *prober, ShoalProbeResult *result, ShoalError *err) {
    double times[PINGS];
    int n = 0;
    uint64_t end = shoal_clock_ms() + PINGS_MS;
    while (n < PINGS && (n < PINGS_LEAST || shoal_clock_ms() < end)) {
        ShoalProbeMessage message;
        uint64_t start = shoal_clock_ns();
        ShoalStatus status = ask(prober, SHOAL_PROBE_PING, (uint32_t)n, SHOAL_PROBE_PING,
                                 shoal_clock_ms() + ANSWER_MS, &message, err);
        if (status)
            return status;
        times[n++] = (double)(shoal_clock_ns() - start) * 1e-3;
    }
    qsort(times, (size_t)n, sizeof *times, compare);
    result->latency_us = times[n / 2];
    result->latency_p99_us = times[(n * 99) / 100 < n ? (n * 99) / 100 : n - 1];
    return SHOAL_OK;
}

static double part_of(uint32_t millionths) {
    return millionths <= 1000000 ? (double)millionths * 1e-6 : -1;
}

static ShoalStatus up(ShoalProber *prober, unsigned ms, ShoalProbeResult *result, ShoalError *err) {
    ShoalProbeMessage message = {0};
    ShoalStatus status = shoal_probe_say(prober->channel, prober->wake_fd, SHOAL_PROBE_UP, ms, 0,
                                         shoal_clock_ms() + ANSWER_MS, err);
    if (!status)
        status = shoal_probe_send(prober->channel, prober->wake_fd, ms, err);
    if (!status)
        status = hear(prober, SHOAL_PROBE_RESULT, shoal_clock_ms() + ANSWER_MS, &message, err);
    if (status)
        return status;
    result->up_mbit = (double)message.a * 1e-3;
    result->up_gap_ms = (double)message.b * 1e-3;
    result->up_loss = part_of(resent(prober->channel));
    return SHOAL_OK;
}

static ShoalStatus down(ShoalProber *prober, unsigned ms, ShoalProbeResult *result,
                        ShoalError *err) {
    ShoalProbeMeter meter;
    uint32_t loss;
    ShoalStatus status = shoal_probe_say(prober->channel, prober->wake_fd, SHOAL_PROBE_DOWN, ms, 0,
                                         shoal_clock_ms() + ANSWER_MS, err);
    if (!status)
        status = shoal_probe_receive(prober->channel, prober->wake_fd, ms, &meter, &loss, err);
    if (status)
        return status;
    result->down_mbit = shoal_probe_meter_mbit(&meter);
    result->down_gap_ms = (double)meter.gap_ns * 1e-6;
    result->down_loss = part_of(loss);
    return SHOAL_OK;
}

ShoalStatus shoal_prober_measure(ShoalProber *prober, unsigned ms, uint64_t turn_ms,
                                 ShoalProbeResult *result, ShoalError *err) {
    ShoalProbeMessage message = {0};
    *result = (ShoalProbeResult){.up_loss = -1, .down_loss = -1};
    ShoalStatus status = ask(prober, SHOAL_PROBE_TURN, 0, SHOAL_PROBE_TURN, turn_ms, &message, err);
    if (!status)
        status = ping(prober, result, err);
    if (!status)
        status = up(prober, ms, result, err);
    return status ? status : down(prober, ms, result, err);
}
