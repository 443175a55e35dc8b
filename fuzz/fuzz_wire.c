/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer target: bytes from a control connection. The first byte says from whom they are:
 *   0: a stranger's bytes, as they are
 *   1: a stranger's messages: type (1 byte), length (1 byte), payload, ...; framed for it
 *   2: the Join of someone who knows the token
 *   3 and above: a message of each kind, unpacked
 * Promises: no crash; whoever has not proved itself never joins; what a Join says is in range. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/memory.h"
#include "train/handshake.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCMessageDescriptor *const FUZZ_KINDS[] = {
    &shoal__hello__descriptor,      &shoal__challenge__descriptor, &shoal__join__descriptor,
    &shoal__refuse__descriptor,     &shoal__welcome__descriptor,   &shoal__chunk__descriptor,
    &shoal__generation__descriptor, &shoal__ready__descriptor,     &shoal__round__descriptor,
    &shoal__report__descriptor,     &shoal__aborted__descriptor,   &shoal__heartbeat__descriptor,
    &shoal__stop__descriptor,       &shoal__failure__descriptor,   &shoal__prepared__descriptor,
    &shoal__start__descriptor,      &shoal__samples__descriptor,   &shoal__fetch__descriptor,
    &shoal__holdings__descriptor,   &shoal__job__descriptor,       &shoal__seed__descriptor,
};

/* What unpacks packs, and what was packed unpacks to the same. */
static void fuzz_unpack(const ProtobufCMessageDescriptor *kind, const uint8_t *data, size_t size) {
    ShoalFrame frame = {.payload = data, .size = size};
    ProtobufCMessage *message = shoal_message_unpack(kind, &frame);
    if (!message)
        return;
    size_t packed_size = protobuf_c_message_get_packed_size(message);
    uint8_t *packed = malloc(packed_size ? packed_size : 1);
    uint8_t *again = malloc(packed_size ? packed_size : 1);
    if (!packed || !again || protobuf_c_message_pack(message, packed) != packed_size)
        abort();
    frame = (ShoalFrame){.payload = packed, .size = packed_size};
    ProtobufCMessage *copy = shoal_message_unpack(kind, &frame);
    if (!copy || protobuf_c_message_get_packed_size(copy) != packed_size ||
        protobuf_c_message_pack(copy, again) != packed_size ||
        memcmp(packed, again, packed_size) != 0)
        abort();
    protobuf_c_message_free_unpacked(message, NULL);
    protobuf_c_message_free_unpacked(copy, NULL);
    free(packed);
    free(again);
}

static void fuzz_check_text(const char *text, size_t size) {
    if (strnlen(text, size) == size)
        abort();
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            abort();
}

static void fuzz_check_info(const ShoalJoinInfo *info) {
    fuzz_check_text(info->info.name, sizeof info->info.name);
    fuzz_check_text(info->info.address, sizeof info->info.address);
    fuzz_check_text(info->cpu, sizeof info->cpu);
    if ((!info->probe && info->info.ring_port == 0) || info->cores < 0 || info->threads < 0 ||
        info->current_step > INT32_MAX || info->version.updates > INT32_MAX ||
        (info->version.held && !info->has_job_id) ||
        info->info.generation < info->version.generation || info->info.generation + 1 == 0)
        abort();
}

typedef struct FuzzEnds {
    ShoalChannel *worker, *coordinator;
    ShoalAuthKey key;
    ShoalGreeting greeting;
    bool joined;
    ShoalJoinInfo info;
} FuzzEnds;

static ShoalChannel *fuzz_channel(int fd) {
    ShoalError err = {0};
    ShoalChannel *channel;
    if (shoal_channel_create(fd, SHOAL_MESSAGE_LIMIT_STRANGER, &channel, &err))
        abort();
    return channel;
}

static void fuzz_open(FuzzEnds *ends) {
    int fds[2];
    *ends = (FuzzEnds){.joined = false};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds))
        abort();
    ends->worker = fuzz_channel(fds[0]);
    ends->coordinator = fuzz_channel(fds[1]);
    memset(&ends->key, 7, sizeof ends->key);
}

static void fuzz_close(FuzzEnds *ends) {
    shoal_channel_destroy(ends->worker);
    shoal_channel_destroy(ends->coordinator);
}

/* The coordinator takes what has come. */
static void fuzz_answer(FuzzEnds *ends) {
    for (;;) {
        ShoalError err = {0};
        ShoalChannelEvent event;
        ShoalFrame frame;
        ShoalStatus status = shoal_channel_receive(ends->coordinator, &event, &frame, &err);
        if (!status && event == SHOAL_CHANNEL_FRAME && !ends->joined)
            status = shoal_handshake_answer(&ends->greeting, ends->coordinator, &ends->key, &frame,
                                            &ends->joined, &ends->info, &err);
        if ((status != SHOAL_OK) != (err.text[0] != '\0') || (status && ends->joined))
            abort();
        if (status || event != SHOAL_CHANNEL_FRAME)
            return;
    }
}

static void fuzz_bytes(const uint8_t *data, size_t size) {
    FuzzEnds ends;
    fuzz_open(&ends);
    (void)send(shoal_channel_fd(ends.worker), data, size, MSG_NOSIGNAL);
    fuzz_answer(&ends);
    if (ends.joined)
        abort();
    fuzz_close(&ends);
}

static void fuzz_messages(const uint8_t *data, size_t size) {
    FuzzEnds ends;
    fuzz_open(&ends);
    while (size >= 2) {
        ShoalError err = {0};
        size_t length = data[1] < size - 2 ? data[1] : size - 2;
        if (shoal_channel_queue(ends.worker, data[0], data + 2, length, &err))
            abort();
        data += 2 + length;
        size -= 2 + length;
    }
    ShoalError err = {0};
    (void)shoal_channel_flush(ends.worker, &err);
    fuzz_answer(&ends);
    if (ends.joined)
        abort();
    fuzz_close(&ends);
}

/* An honest Hello, whose secret the fuzzer knows; then the keys of an honest worker. */
static void fuzz_greet(FuzzEnds *ends, unsigned char *proof) {
    unsigned char nonce[SHOAL_AUTH_BYTES] = {1}, public_key[SHOAL_AUTH_BYTES];
    unsigned char secret[SHOAL_AUTH_BYTES], shared[SHOAL_AUTH_BYTES];
    ShoalAuthKey keys[2];
    ShoalError err = {0};
    Shoal__Hello hello = SHOAL__HELLO__INIT;
    shoal_auth_keypair(public_key, secret);
    hello.protocol_version = SHOAL_PROTOCOL_VERSION;
    hello.nonce = (ProtobufCBinaryData){sizeof nonce, nonce};
    hello.public_key = (ProtobufCBinaryData){sizeof public_key, public_key};
    if (shoal_message_queue(ends->worker, SHOAL_MESSAGE_HELLO, &hello.base, &err) ||
        shoal_channel_flush(ends->worker, &err))
        abort();
    fuzz_answer(ends);
    /* The coordinator's public key ends the context. */
    const unsigned char *theirs =
        ends->greeting.context + SHOAL_HANDSHAKE_CONTEXT_BYTES - SHOAL_AUTH_BYTES;
    if (ends->greeting.step != 1 || !shoal_auth_agree(secret, theirs, shared))
        abort();
    shoal_auth_prove(&ends->key, SHOAL_AUTH_WORKER, nonce, ends->greeting.own_nonce,
                     ends->greeting.context, sizeof ends->greeting.context, proof);
    shoal_auth_session_key(&ends->key, SHOAL_AUTH_WORKER, nonce, ends->greeting.own_nonce, shared,
                           &keys[0]);
    shoal_auth_session_key(&ends->key, SHOAL_AUTH_COORDINATOR, nonce, ends->greeting.own_nonce,
                           shared, &keys[1]);
    shoal_channel_secure(ends->worker, &keys[0], &keys[1]);
}

static void fuzz_join(const uint8_t *data, size_t size) {
    static const uint8_t proof_field[] = {1 << 3 | 2, SHOAL_AUTH_BYTES};
    FuzzEnds ends;
    unsigned char proof[SHOAL_AUTH_BYTES], *payload;
    ShoalError err = {0};
    fuzz_open(&ends);
    fuzz_greet(&ends, proof);
    /* Of a field that comes twice, the later one counts. */
    if (shoal_channel_begin(ends.worker, SHOAL_MESSAGE_JOIN,
                            size + sizeof proof_field + sizeof proof, &payload, &err))
        abort();
    if (size > 0)
        memcpy(payload, data, size);
    memcpy(payload + size, proof_field, sizeof proof_field);
    memcpy(payload + size + sizeof proof_field, proof, sizeof proof);
    shoal_channel_commit(ends.worker);
    (void)shoal_channel_flush(ends.worker, &err);
    fuzz_answer(&ends);
    if (ends.joined)
        fuzz_check_info(&ends.info);
    fuzz_close(&ends);
}

static void fuzz_text(const uint8_t *data, size_t size) {
    char *from = malloc(size + 1), to[24];
    if (!from)
        abort();
    if (size > 0)
        memcpy(from, data, size);
    from[size] = '\0';
    shoal_message_text(from, to, sizeof to);
    fuzz_check_text(to, sizeof to);
    free(from);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ShoalError err = {0};
    if (size == 0 || size > 1 << 16 || shoal_auth_init(&err))
        return 0;
    if (data[0] == 0)
        fuzz_bytes(data + 1, size - 1);
    else if (data[0] == 1)
        fuzz_messages(data + 1, size - 1);
    else if (data[0] == 2)
        fuzz_join(data + 1, size - 1);
    else
        for (size_t i = 0; i < sizeof FUZZ_KINDS / sizeof FUZZ_KINDS[0]; i++)
            fuzz_unpack(FUZZ_KINDS[i], data + 1, size - 1);
    fuzz_text(data + 1, size - 1);
    return 0;
}
