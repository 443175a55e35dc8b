/* SPDX-License-Identifier: Apache-2.0 */
/* test_peer: a worker that knows the token, joins a coordinator and then misbehaves on command. The
 * cluster's tests hold with it that such a peer ends its own connection, never the run. */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "caffe/model.h"
#include "caffe/text.h"
#include "collective/wire.h"
#include "train/handshake.h"

static const char HELP[] =
    "usage: test_peer --token=TOKEN [OPTION...] HOST:PORT\n"
    "Joins the coordinator at HOST:PORT, and behaves (it sends heartbeats, reads all, but never\n"
    "computes) until what --after names has happened; then it does what --do names, and goes on "
    "as\n"
    "before until the connection is closed or --seconds are over.\n"
    "\n"
    "  --after=WHAT     welcome (default), or the name of a message: Generation, Start, Round, "
    "...\n"
    "  --prepared=N     send Prepared with capacity N (after the job): become a member\n"
    "  --ready          answer each Generation with Ready, though there is no ring\n"
    "  --ready=TEXT     with these fields of the state: 'held: true updates: 3 generation: 1'\n"
    "  --mute           no heartbeats\n"
    "  --seconds=S      give up S seconds after it has joined (default 30)\n"
    "  --name=NAME --ring-port=P --generation=G   of the Join; the ring's port is by default one\n"
    "                   that listens and never accepts\n"
    "\n"
    "--do=DEED, one of:\n"
    "  nothing          go on as before (default)\n"
    "  silence          no heartbeats any more\n"
    "  send             --message='Report generation: @G round: @R loss: 1': any message of\n"
    "                   messages.proto in text format; @G, @R: the last generation and round "
    "heard\n"
    "                   of; --times=N of them\n"
    "  raw              --type=N --payload=HEX: an encrypted frame with any payload\n"
    "  random           --type=N --length=N: random payload (--seed=S)\n"
    "  bomb             --type=N --length=N (default: 64 MiB): one message of as many tiny "
    "unknown\n"
    "                   fields as fit\n"
    "  flood            --type=N, empty messages as fast as it can, reading nothing meanwhile, at\n"
    "                   most --times=N (default: no end)\n"
    "  plain            --type=N --payload=HEX: a frame with a checksum, as a stranger's\n"
    "  oversized        --length=N (default: limit + 17): only the header of an encrypted frame\n"
    "  garbage          --length=N (default: 64) random bytes\n"
    "  replay           a heartbeat, and the same bytes again\n"
    "  reorder          two heartbeats, the second one first\n"
    "  gap              the second of two heartbeats\n"
    "  flip             a heartbeat with one bit changed\n"
    "  cut              half a heartbeat, then close\n"
    "  half             half a heartbeat, then silence\n"
    "  drip             from now on heartbeats byte by byte, one each --delay-ms=N (default 50)\n"
    "  deaf             reads nothing any more; heartbeats go on\n"
    "  close            close\n"
    "\n"
    "Says on standard output, a line each: joined ID, heard MESSAGE [generation=G] [round=R], did\n"
    "DEED, refused for_good=B forget=B REASON, stop REASON, closed REASON. Exit: 0 closed by the\n"
    "coordinator, or by the deed; 1 it did not come to the deed; 2 usage; 3 still connected in "
    "the\n"
    "end.\n";

typedef struct Kind {
    const char *name;
    uint16_t type;
    const ProtobufCMessageDescriptor *descriptor;
} Kind;

static const Kind KINDS[] = {
    {"Hello", SHOAL_MESSAGE_HELLO, &shoal__hello__descriptor},
    {"Challenge", SHOAL_MESSAGE_CHALLENGE, &shoal__challenge__descriptor},
    {"Join", SHOAL_MESSAGE_JOIN, &shoal__join__descriptor},
    {"Refuse", SHOAL_MESSAGE_REFUSE, &shoal__refuse__descriptor},
    {"Welcome", SHOAL_MESSAGE_WELCOME, &shoal__welcome__descriptor},
    {"Chunk", SHOAL_MESSAGE_CHUNK, &shoal__chunk__descriptor},
    {"Generation", SHOAL_MESSAGE_GENERATION, &shoal__generation__descriptor},
    {"Ready", SHOAL_MESSAGE_READY, &shoal__ready__descriptor},
    {"Round", SHOAL_MESSAGE_ROUND, &shoal__round__descriptor},
    {"Report", SHOAL_MESSAGE_REPORT, &shoal__report__descriptor},
    {"Aborted", SHOAL_MESSAGE_ABORTED, &shoal__aborted__descriptor},
    {"Heartbeat", SHOAL_MESSAGE_HEARTBEAT, &shoal__heartbeat__descriptor},
    {"Leave", SHOAL_MESSAGE_LEAVE, &shoal__leave__descriptor},
    {"Stop", SHOAL_MESSAGE_STOP, &shoal__stop__descriptor},
    {"Failure", SHOAL_MESSAGE_FAILURE, &shoal__failure__descriptor},
    {"Prepared", SHOAL_MESSAGE_PREPARED, &shoal__prepared__descriptor},
    {"Start", SHOAL_MESSAGE_START, &shoal__start__descriptor},
    {"Samples", SHOAL_MESSAGE_SAMPLES, &shoal__samples__descriptor},
    {"Fetch", SHOAL_MESSAGE_FETCH, &shoal__fetch__descriptor},
    {"Holdings", SHOAL_MESSAGE_HOLDINGS, &shoal__holdings__descriptor},
};

typedef struct Peer {
    /* from the command line */
    const char *address, *token, *after, *deed, *message, *payload, *name, *ready_text;
    int prepared, ring_port, delay_ms;
    bool ready, mute;
    uint16_t type;
    size_t length; /* 0: not given */
    uint64_t times, generation, seed;
    double seconds;
    /* as it goes */
    ShoalChannel *channel;
    int fd, ring_fd;
    ShoalJoined joined;
    uint64_t deadline_ms, beat_ms, last_generation, last_round;
    bool job_came, did, deaf, closed;
} Peer;

static void say(const char *text) {
    puts(text);
    fflush(stdout);
}

__attribute__((noreturn)) static void die(int code, const char *what, const char *text) {
    fprintf(stderr, "test_peer: %s%s\n", what, text);
    exit(code);
}

static void end(Peer *peer, const char *reason) {
    if (!peer->closed)
        printf("closed %s\n", reason);
    fflush(stdout);
    peer->closed = true;
}

/* ---- bytes ---- */

/* Sends all of it, slowly if need be; the end of the connection is an answer, no failure. */
static void send_raw(Peer *peer, const unsigned char *bytes, size_t n) {
    while (n > 0 && !peer->closed) {
        ssize_t sent = send(peer->fd, bytes, n, MSG_NOSIGNAL);
        ShoalError err = {0};
        if (sent > 0) {
            bytes += sent;
            n -= (size_t)sent;
        } else if (errno != EAGAIN && errno != EINTR) {
            end(peer, strerror(errno));
        } else if (shoal_socket_wait(peer->fd, POLLOUT, -1, peer->deadline_ms, &err)) {
            return;
        }
    }
}

/* The bytes of the channel's next frame, which are not sent: for as long as it takes, the channel's
 * descriptor is that of a socket whose other end is here. *bytes: free(). */
static size_t capture(Peer *peer, uint16_t type, const void *payload, size_t size,
                      unsigned char **bytes) {
    int ends[2], kept = dup(peer->fd);
    ShoalError err = {0};
    size_t n = 0, capacity = SHOAL_CHANNEL_HEADER_BYTES + size + SHOAL_AUTH_SEAL_BYTES;
    *bytes = malloc(capacity);
    if (!*bytes || kept < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) ||
        dup2(ends[0], peer->fd) < 0 ||
        shoal_channel_queue(peer->channel, type, payload, size, &err))
        die(1, "cannot make a frame: ", err.text);
    do {
        if (shoal_channel_flush(peer->channel, &err))
            die(1, "cannot make a frame: ", err.text);
        ssize_t got;
        while ((got = recv(ends[1], *bytes + n, capacity - n, 0)) > 0)
            n += (size_t)got;
    } while (shoal_channel_wants_write(peer->channel));
    dup2(kept, peer->fd);
    close(kept);
    close(ends[0]);
    close(ends[1]);
    return n;
}

static void fill_random(const Peer *peer, unsigned char *bytes, size_t n) {
    uint64_t x = peer->seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
    for (size_t i = 0; i < n; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        bytes[i] = (unsigned char)(x >> 56);
    }
}

static size_t unhex(const char *hex, unsigned char *bytes, size_t room) {
    size_t n = 0;
    unsigned byte;
    for (; n < room && sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
        bytes[n] = (unsigned char)byte;
    return n;
}

/* ---- messages ---- */

static void queue(Peer *peer, uint16_t type, const void *payload, size_t size) {
    ShoalError err = {0};
    if (shoal_channel_queue(peer->channel, type, payload, size, &err) ||
        shoal_channel_flush(peer->channel, &err))
        end(peer, err.text);
}

static void send_message(Peer *peer, ShoalMessageType type, const ProtobufCMessage *message) {
    ShoalError err = {0};
    if (shoal_message_queue(peer->channel, type, message, &err) ||
        shoal_channel_flush(peer->channel, &err))
        end(peer, err.text);
}

static const Kind *kind_of_name(const char *name, size_t n) {
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++)
        if (strlen(KINDS[i].name) == n && !strncmp(KINDS[i].name, name, n))
            return &KINDS[i];
    return NULL;
}

static const Kind *kind_of_type(uint16_t type) {
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++)
        if (KINDS[i].type == type)
            return &KINDS[i];
    return NULL;
}

static ProtobufCMessage *parse(const ProtobufCMessageDescriptor *descriptor, const char *text) {
    ShoalError err = {0};
    ProtobufCMessage *message;
    if (shoal_text_parse(descriptor, text, strlen(text), "message", NULL, &message, &err))
        die(2, "", err.text);
    return message;
}

/* text with the numbers of now for @G and @R. */
static void fill_in(const Peer *peer, const char *text, char *to, size_t size) {
    size_t used = 0;
    for (; *text && used + 24 < size; text++) {
        bool number = text[0] == '@' && (text[1] == 'G' || text[1] == 'R');
        uint64_t value = text[1] == 'G' ? peer->last_generation : peer->last_round;
        if (number)
            used += (size_t)snprintf(to + used, size - used, "%llu", (unsigned long long)value);
        else
            to[used++] = *text;
        text += number;
    }
    to[used] = '\0';
}

static void send_text(Peer *peer) {
    char text[4096];
    size_t n = strcspn(peer->message, " ");
    const Kind *kind = kind_of_name(peer->message, n);
    if (!kind)
        die(2, "no such message: ", peer->message);
    fill_in(peer, peer->message + n, text, sizeof text);
    ProtobufCMessage *message = parse(kind->descriptor, text);
    for (uint64_t i = 0; i < (peer->times ? peer->times : 1) && !peer->closed; i++)
        send_message(peer, kind->type, message);
    protobuf_c_message_free_unpacked(message, NULL);
}

static void send_ready(Peer *peer) {
    ShoalError err = {0};
    Shoal__Ready ready = SHOAL__READY__INIT;
    Shoal__Version none = SHOAL__VERSION__INIT;
    ProtobufCMessage *version =
        peer->ready_text ? parse(&shoal__version__descriptor, peer->ready_text) : NULL;
    ready.generation = peer->last_generation;
    ready.version = version ? (Shoal__Version *)version : &none;
    if (shoal_message_queue(peer->channel, SHOAL_MESSAGE_READY, &ready.base, &err))
        end(peer, err.text);
    if (version)
        protobuf_c_message_free_unpacked(version, NULL);
}

/* ---- deeds ---- */

static void do_payload(Peer *peer, bool plain) {
    static unsigned char payload[1 << 16];
    size_t n = peer->payload ? unhex(peer->payload, payload, sizeof payload) : 0;
    if (!plain) {
        queue(peer, peer->type, payload, n);
        return;
    }
    /* Another channel on the same socket, which was never secured. */
    ShoalError err = {0};
    ShoalChannel *stranger;
    if (shoal_channel_create(dup(peer->fd), SHOAL_MESSAGE_LIMIT_STRANGER, &stranger, &err))
        die(1, "", err.text);
    (void)shoal_channel_send(stranger, peer->type, payload, n, -1, peer->deadline_ms, &err);
    shoal_channel_destroy(stranger);
}

static void do_large(Peer *peer, bool bomb) {
    size_t n = peer->length ? peer->length : bomb ? SHOAL_MESSAGE_LIMIT_MEMBER : 1000;
    unsigned char *payload = malloc(n);
    ShoalError err = {0};
    if (!payload)
        die(1, "out of memory", "");
    if (!bomb)
        fill_random(peer, payload, n);
    for (size_t i = 0; bomb && i < n; i++)
        payload[i] = i & 1 ? 0 : 15 << 3; /* field 15, varint, 0 */
    if (shoal_channel_send(peer->channel, peer->type, payload, n & ~(size_t)bomb, -1,
                           peer->deadline_ms, &err))
        end(peer, err.text);
    free(payload);
}

static void do_garbage(Peer *peer) {
    unsigned char bytes[4096];
    size_t n = peer->length ? peer->length : 64;
    n = n < sizeof bytes ? n : sizeof bytes;
    fill_random(peer, bytes, n);
    send_raw(peer, bytes, n);
}

static void do_oversized(Peer *peer) {
    unsigned char header[SHOAL_CHANNEL_HEADER_BYTES] = {'S', 'H', 'O', 'L'};
    size_t length = peer->length ? peer->length : SHOAL_MESSAGE_LIMIT_MEMBER + 17;
    shoal_wire_put16(header + 4, peer->type);
    shoal_wire_put16(header + 6, 1);
    shoal_wire_put32(header + 8, (uint32_t)length);
    send_raw(peer, header, sizeof header);
}

/* A heartbeat or two, in another way than they should come. */
static void do_frames(Peer *peer, const char *deed) {
    unsigned char *frames[2];
    size_t n[2];
    for (int i = 0; i < 2; i++)
        n[i] = capture(peer, SHOAL_MESSAGE_HEARTBEAT, NULL, 0, &frames[i]);
    if (!strcmp(deed, "flip"))
        frames[0][n[0] - 1] ^= 1;
    bool gap = !strcmp(deed, "gap"), reorder = !strcmp(deed, "reorder");
    bool part = !strcmp(deed, "cut") || !strcmp(deed, "half");
    if (!gap && !reorder)
        send_raw(peer, frames[0], part ? n[0] / 2 : n[0]);
    if (gap || reorder)
        send_raw(peer, frames[1], n[1]);
    if (reorder || !strcmp(deed, "replay"))
        send_raw(peer, frames[0], n[0]);
    if (!strcmp(deed, "cut"))
        end(peer, "cut");
    peer->mute |= part;
    free(frames[0]);
    free(frames[1]);
}

static void do_flood(Peer *peer) {
    for (uint64_t i = 0; (!peer->times || i < peer->times) && !peer->closed; i++) {
        ShoalError err = {0};
        if (shoal_clock_ms() >= peer->deadline_ms)
            return;
        if (shoal_channel_send(peer->channel, peer->type, NULL, 0, -1, peer->deadline_ms, &err) &&
            err.status != SHOAL_ERR_NETWORK)
            end(peer, err.text);
    }
}

static void take_frames(Peer *peer);

static void do_drip(Peer *peer) {
    while (!peer->closed && shoal_clock_ms() < peer->deadline_ms) {
        unsigned char *bytes;
        size_t n = capture(peer, SHOAL_MESSAGE_HEARTBEAT, NULL, 0, &bytes);
        for (size_t i = 0; i < n && !peer->closed && shoal_clock_ms() < peer->deadline_ms; i++) {
            send_raw(peer, bytes + i, 1);
            poll(NULL, 0, peer->delay_ms);
            take_frames(peer);
        }
        free(bytes);
    }
}

static void misbehave(Peer *peer) {
    const char *deed = peer->deed;
    static const char *const frames[] = {"replay", "reorder", "gap", "flip", "cut", "half"};
    peer->did = true;
    printf("did %s\n", deed);
    fflush(stdout);
    for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++)
        if (!strcmp(deed, frames[i])) {
            do_frames(peer, deed);
            return;
        }
    if (!strcmp(deed, "silence"))
        peer->mute = true;
    else if (!strcmp(deed, "send"))
        send_text(peer);
    else if (!strcmp(deed, "raw") || !strcmp(deed, "plain"))
        do_payload(peer, deed[0] == 'p');
    else if (!strcmp(deed, "random") || !strcmp(deed, "bomb"))
        do_large(peer, deed[0] == 'b');
    else if (!strcmp(deed, "flood"))
        do_flood(peer);
    else if (!strcmp(deed, "oversized"))
        do_oversized(peer);
    else if (!strcmp(deed, "garbage"))
        do_garbage(peer);
    else if (!strcmp(deed, "drip"))
        do_drip(peer);
    else if (!strcmp(deed, "deaf"))
        peer->deaf = true;
    else if (!strcmp(deed, "close"))
        end(peer, "on purpose");
    else if (strcmp(deed, "nothing") != 0)
        die(2, "no such deed: ", deed);
}

/* ---- what the coordinator says ---- */

static void take_refusal(Peer *peer, const ShoalFrame *frame) {
    Shoal__Refuse *refuse = shoal__refuse__unpack(NULL, frame->size, frame->payload);
    if (refuse)
        printf("refused for_good=%d forget=%d %s\n", refuse->for_good, refuse->forget,
               refuse->reason);
    if (refuse)
        shoal__refuse__free_unpacked(refuse, NULL);
    end(peer, "refused");
}

static void take_stop(const ShoalFrame *frame) {
    Shoal__Stop *stop = shoal__stop__unpack(NULL, frame->size, frame->payload);
    if (stop) {
        printf("stop %s\n", stop->reason);
        shoal__stop__free_unpacked(stop, NULL);
    }
}

static void note_numbers(Peer *peer, const ShoalFrame *frame) {
    if (frame->type == SHOAL_MESSAGE_GENERATION) {
        Shoal__Generation *g = shoal__generation__unpack(NULL, frame->size, frame->payload);
        if (g) {
            peer->last_generation = g->generation;
            shoal__generation__free_unpacked(g, NULL);
        }
    } else if (frame->type == SHOAL_MESSAGE_ROUND) {
        Shoal__Round *round = shoal__round__unpack(NULL, frame->size, frame->payload);
        if (round) {
            peer->last_round = round->number;
            shoal__round__free_unpacked(round, NULL);
        }
    } else if (frame->type == SHOAL_MESSAGE_CHUNK && !peer->job_came) {
        Shoal__Chunk *chunk = shoal__chunk__unpack(NULL, frame->size, frame->payload);
        if (chunk) {
            peer->job_came = chunk->offset + chunk->content.len == chunk->total;
            shoal__chunk__free_unpacked(chunk, NULL);
        }
    }
}

static void take(Peer *peer, const ShoalFrame *frame) {
    const Kind *kind = kind_of_type(frame->type);
    bool had_job = peer->job_came;
    note_numbers(peer, frame);
    printf("heard %s generation=%llu round=%llu\n", kind ? kind->name : "?",
           (unsigned long long)peer->last_generation, (unsigned long long)peer->last_round);
    fflush(stdout);
    if (frame->type == SHOAL_MESSAGE_REFUSE)
        take_refusal(peer, frame);
    if (frame->type == SHOAL_MESSAGE_STOP)
        take_stop(frame);
    if (peer->prepared > 0 && peer->job_came && !had_job) {
        Shoal__Prepared prepared = SHOAL__PREPARED__INIT;
        prepared.capacity = (uint32_t)peer->prepared;
        send_message(peer, SHOAL_MESSAGE_PREPARED, &prepared.base);
    }
    if (peer->ready && frame->type == SHOAL_MESSAGE_GENERATION)
        send_ready(peer);
    if (!peer->did && !peer->closed && kind && !strcmp(peer->after, kind->name))
        misbehave(peer);
}

static void take_frames(Peer *peer) {
    ShoalChannelEvent event = SHOAL_CHANNEL_FRAME;
    while (!peer->closed && !peer->deaf && event == SHOAL_CHANNEL_FRAME) {
        ShoalError err = {0};
        ShoalFrame frame;
        if (shoal_channel_receive(peer->channel, &event, &frame, &err))
            end(peer, err.text);
        else if (event == SHOAL_CHANNEL_CLOSED)
            end(peer, "by the coordinator");
        else if (event == SHOAL_CHANNEL_FRAME)
            take(peer, &frame);
    }
}

static void beat(Peer *peer) {
    uint64_t now = shoal_clock_ms();
    if (peer->mute || now < peer->beat_ms)
        return;
    peer->beat_ms = now + peer->joined.heartbeat_ms / 2 + 1;
    queue(peer, SHOAL_MESSAGE_HEARTBEAT, NULL, 0);
}

static void live(Peer *peer) {
    while (!peer->closed && shoal_clock_ms() < peer->deadline_ms) {
        struct pollfd ready = {.fd = peer->fd, .events = peer->deaf ? 0 : POLLIN};
        take_frames(peer);
        if (peer->closed)
            return;
        beat(peer);
        ShoalError err = {0};
        if (shoal_channel_flush(peer->channel, &err))
            end(peer, err.text);
        if (shoal_channel_wants_write(peer->channel))
            ready.events |= POLLOUT;
        poll(&ready, 1, 20);
        if (ready.revents & (POLLERR | POLLHUP) && peer->deaf)
            end(peer, "by the coordinator");
    }
}

/* ---- joining ---- */

enum { JOIN_MS = 120 * 1000 }; /* against hanging only */

static void listen_for_ring(Peer *peer) {
    ShoalAddress address;
    ShoalError err = {0};
    if (shoal_address_parse("0.0.0.0:0", &address, &err) ||
        shoal_socket_listen(&address, &peer->ring_fd, &err) ||
        shoal_socket_local(peer->ring_fd, &address, &err))
        die(1, "", err.text);
    peer->ring_port = shoal_address_port(&address);
}

static void join(Peer *peer) {
    ShoalAddress address;
    ShoalAuthKey key;
    ShoalError err = {0};
    if (!peer->ring_port)
        listen_for_ring(peer);
    ShoalJoinRequest request = {.ring_port = (uint16_t)peer->ring_port,
                                .name = peer->name,
                                .cores = 1,
                                .threads = 1,
                                .cpu = "c",
                                .generation = peer->generation};
    if (shoal_auth_init(&err) || shoal_auth_token_key(peer->token, &key, &err) ||
        shoal_address_parse(peer->address, &address, &err))
        die(2, "", err.text);
    if (shoal_socket_connect(&address, -1, peer->deadline_ms, &peer->fd, &err) ||
        shoal_channel_create(peer->fd, SHOAL_MESSAGE_LIMIT_MEMBER, &peer->channel, &err) ||
        shoal_handshake_join(peer->channel, &key, &request, peer->deadline_ms, &peer->joined, &err))
        die(1, "", err.text);
    printf("joined %u\n", peer->joined.worker_id);
    fflush(stdout);
}

/* ---- command line ---- */

static bool option(Peer *peer, int which, const char *value) {
    static const struct {
        int letter;
        size_t offset;
    } texts[] = {{'t', offsetof(Peer, token)},   {'a', offsetof(Peer, after)},
                 {'d', offsetof(Peer, deed)},    {'m', offsetof(Peer, message)},
                 {'x', offsetof(Peer, payload)}, {'n', offsetof(Peer, name)}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (texts[i].letter == which) {
            memcpy((char *)peer + texts[i].offset, &value, sizeof value);
            return true;
        }
    switch (which) {
    case 'p':
        peer->prepared = atoi(value);
        break;
    case 'r':
        peer->ready = true, peer->ready_text = value;
        break;
    case 'u':
        peer->mute = true;
        break;
    case 's':
        peer->seconds = atof(value);
        break;
    case 'P':
        peer->ring_port = atoi(value);
        break;
    case 'D':
        peer->delay_ms = atoi(value);
        break;
    case 'g':
        peer->generation = strtoull(value, NULL, 10);
        break;
    case 'T':
        peer->type = (uint16_t)atoi(value);
        break;
    case 'l':
        peer->length = strtoull(value, NULL, 10);
        break;
    case 'c':
        peer->times = strtoull(value, NULL, 10);
        break;
    case 'S':
        peer->seed = strtoull(value, NULL, 10);
        break;
    case 'h':
        fputs(HELP, stdout);
        exit(0);
    default:
        return false;
    }
    return true;
}

int main(int argc, char **argv) {
    static const struct option options[] = {{"token", 1, NULL, 't'},
                                            {"after", 1, NULL, 'a'},
                                            {"do", 1, NULL, 'd'},
                                            {"message", 1, NULL, 'm'},
                                            {"payload", 1, NULL, 'x'},
                                            {"name", 1, NULL, 'n'},
                                            {"prepared", 1, NULL, 'p'},
                                            {"ready", 2, NULL, 'r'},
                                            {"mute", 0, NULL, 'u'},
                                            {"seconds", 1, NULL, 's'},
                                            {"ring-port", 1, NULL, 'P'},
                                            {"delay-ms", 1, NULL, 'D'},
                                            {"generation", 1, NULL, 'g'},
                                            {"type", 1, NULL, 'T'},
                                            {"length", 1, NULL, 'l'},
                                            {"times", 1, NULL, 'c'},
                                            {"seed", 1, NULL, 'S'},
                                            {"help", 0, NULL, 'h'},
                                            {0}};
    static Peer peer = {.after = "welcome",
                        .deed = "nothing",
                        .name = "test_peer",
                        .type = SHOAL_MESSAGE_HEARTBEAT,
                        .delay_ms = 50,
                        .seconds = 30};
    int which;
    while ((which = getopt_long(argc, argv, "", options, NULL)) != -1)
        if (!option(&peer, which, optarg))
            return 2;
    if (optind + 1 != argc || !peer.token || (!strcmp(peer.deed, "send") && !peer.message))
        die(2, "HOST:PORT and --token are needed, and --message to send; see --help", "");
    peer.address = argv[optind];
    peer.deadline_ms = shoal_clock_ms() + JOIN_MS;
    join(&peer);
    peer.deadline_ms = shoal_clock_ms() + (uint64_t)(peer.seconds * 1000);
    if (!strcmp(peer.after, "welcome"))
        misbehave(&peer);
    live(&peer);
    if (!peer.closed)
        say("still connected");
    shoal_channel_destroy(peer.channel);
    return !peer.did ? 1 : peer.closed ? 0 : 3;
}
