/* SPDX-License-Identifier: Apache-2.0 */
#include "train/handshake.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "caffe/wire.h"
#include "collective/wire.h"
#include "shoal/shoal.h"

/* Room for numbers to grow on: no peer can bring the next generation to overflow. */
#define MOST_GENERATION (UINT64_C(1) << 62)
#define MOST_CORES 65536u
#define REASON_BYTES 512

ShoalStatus shoal_message_queue(ShoalChannel *channel, ShoalMessageType type,
                                const ProtobufCMessage *message, ShoalError *err) {
    unsigned char *payload;
    size_t size = protobuf_c_message_get_packed_size(message);
    ShoalStatus status = shoal_channel_begin(channel, (uint16_t)type, size, &payload, err);
    if (status)
        return status;
    protobuf_c_message_pack(message, payload);
    shoal_channel_commit(channel);
    return SHOAL_OK;
}

static uint64_t take_varint(const uint8_t **at) {
    uint64_t value = 0;
    unsigned shift = 0;
    do
        value |= (uint64_t)(**at & 0x7f) << shift;
    while (*(*at)++ & 0x80 && (shift += 7) < 64);
    return value;
}

/* Takes the fields of bytes of sound form (shoal_caffe_wire_check) off `left`; false: too many. As
 * deep as messages.proto, which has no cycles. */
static bool count_fields(const ProtobufCMessageDescriptor *descriptor, const uint8_t *at,
                         const uint8_t *end, unsigned *left) {
    while (at < end) {
        if (*left == 0)
            return false;
        (*left)--;
        uint64_t tag = take_varint(&at);
        const ProtobufCFieldDescriptor *field;
        uint64_t size = 0;
        switch (tag & 7) {
        case PROTOBUF_C_WIRE_TYPE_VARINT:
            take_varint(&at);
            break;
        case PROTOBUF_C_WIRE_TYPE_64BIT:
            size = 8;
            break;
        case PROTOBUF_C_WIRE_TYPE_32BIT:
            size = 4;
            break;
        default: /* with its length in front; groups are not of sound form */
            size = take_varint(&at);
            field = protobuf_c_message_descriptor_get_field(descriptor, (unsigned)(tag >> 3));
            if (field && field->type == PROTOBUF_C_TYPE_MESSAGE &&
                !count_fields(field->descriptor, at, at + size, left))
                return false;
        }
        at += size;
    }
    return true;
}

void *shoal_message_unpack(const ProtobufCMessageDescriptor *descriptor, const ShoalFrame *frame) {
    unsigned left = SHOAL_MESSAGE_FIELDS_MAX;
    size_t where;
    if (!shoal_caffe_wire_check(descriptor, frame->payload, frame->size, &where) ||
        !count_fields(descriptor, frame->payload, frame->payload + frame->size, &left))
        return NULL;
    return protobuf_c_message_unpack(descriptor, NULL, frame->size, frame->payload);
}

/* The bytes of the UTF-8 character (RFC 3629) that starts the text, and its number; 0: it is none.
 */
static size_t utf8_character(const char *text, uint32_t *number) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *at = (const unsigned char *)text;
    size_t n = at[0] < 0x80 ? 1 : at[0] < 0xc0 ? 0 : at[0] < 0xe0 ? 2 : at[0] < 0xf0 ? 3 : 4;
    *number = n <= 1 ? at[0] : at[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((at[i] & 0xc0) != 0x80) /* the text's end, too */
            return 0;
        *number = *number << 6 | (at[i] & 0x3f);
    }
    bool surrogate = *number >= 0xd800 && *number < 0xe000;
    return at[0] >= 0xf8 || *number < least[n] || *number > 0x10ffff || surrogate ? 0 : n;
}

static bool printable(uint32_t number) {
    bool control = number < 0x20 || (number >= 0x7f && number < 0xa0);
    bool line = number == 0x2028 || number == 0x2029;
    /* These turn the direction of the text around them. */
    bool direction = number == 0x200e || number == 0x200f || number == 0x61c ||
                     (number >= 0x202a && number <= 0x202e) ||
                     (number >= 0x2066 && number <= 0x2069);
    return !control && !line && !direction;
}

void shoal_message_text(const char *from, char *to, size_t size) {
    size_t used = 0;
    while (*from) {
        uint32_t number;
        size_t n = utf8_character(from, &number);
        bool good = n > 0 && printable(number);
        if (used + (good ? n : 1) >= size)
            break;
        if (good)
            memcpy(to + used, from, n);
        else
            to[used] = '?';
        used += good ? n : 1;
        from += n > 0 ? n : 1;
    }
    to[used] = '\0';
}

/* What both sides must agree on, beside the nonces. */
static void make_context(const unsigned char *worker_public,
                         const unsigned char *coordinator_public,
                         unsigned char context[SHOAL_HANDSHAKE_CONTEXT_BYTES]) {
    memcpy(context, "shoal", 5);
    shoal_wire_put32(context + 5, SHOAL_PROTOCOL_VERSION);
    memcpy(context + 9, worker_public, SHOAL_AUTH_BYTES);
    memcpy(context + 9 + SHOAL_AUTH_BYTES, coordinator_public, SHOAL_AUTH_BYTES);
}

static void secure(ShoalChannel *channel, const ShoalAuthKey *key, ShoalAuthRole self,
                   const unsigned char *worker_nonce, const unsigned char *coordinator_nonce,
                   const unsigned char *shared) {
    ShoalAuthRole peer = self == SHOAL_AUTH_WORKER ? SHOAL_AUTH_COORDINATOR : SHOAL_AUTH_WORKER;
    ShoalAuthKey send, receive;
    shoal_auth_session_key(key, self, worker_nonce, coordinator_nonce, shared, &send);
    shoal_auth_session_key(key, peer, worker_nonce, coordinator_nonce, shared, &receive);
    shoal_channel_secure(channel, &send, &receive);
    shoal_auth_forget(&send, sizeof send);
    shoal_auth_forget(&receive, sizeof receive);
}

static bool id_or_nothing(const ProtobufCBinaryData *id) {
    return id->len == 0 || id->len == SHOAL_HANDSHAKE_ID_BYTES;
}

/* ---- worker ---- */

/* The worker's half of a handshake. */
typedef struct Joining {
    ShoalChannel *channel;
    const ShoalAuthKey *key;
    uint64_t deadline_ms;
    bool proved; /* the coordinator knows the token */
    bool forget;
    unsigned char nonce[SHOAL_AUTH_BYTES], coordinator_nonce[SHOAL_AUTH_BYTES];
    unsigned char public_key[SHOAL_AUTH_BYTES], secret_key[SHOAL_AUTH_BYTES];
    unsigned char context[SHOAL_HANDSHAKE_CONTEXT_BYTES];
} Joining;

static ShoalStatus nonsense(const Joining *joining, const char *what, ShoalError *err) {
    return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "the coordinator at %s %s",
                           shoal_channel_peer(joining->channel), what);
}

static ShoalStatus refused(Joining *joining, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Refuse *refuse = shoal_message_unpack(&shoal__refuse__descriptor, frame);
    if (!refuse)
        return nonsense(joining, "sent a malformed refusal", err);
    char reason[REASON_BYTES];
    shoal_message_text(refuse->reason, reason, sizeof reason);
    bool for_good = refuse->for_good;
    joining->forget = refuse->forget && joining->proved;
    shoal__refuse__free_unpacked(refuse, NULL);
    return shoal_error_set(err, for_good ? SHOAL_ERR_ARGUMENT : SHOAL_ERR_LOST,
                           "the coordinator at %s refuses%s: %s",
                           shoal_channel_peer(joining->channel), for_good ? "" : " for now",
                           reason[0] ? reason : "no reason given");
}

static ShoalStatus expect(Joining *joining, ShoalMessageType type, ShoalFrame *frame,
                          ShoalError *err) {
    ShoalStatus status = shoal_channel_wait(joining->channel, -1, joining->deadline_ms, frame, err);
    if (status)
        return status;
    if (frame->type == SHOAL_MESSAGE_REFUSE)
        return refused(joining, frame, err);
    return frame->type == type ? SHOAL_OK
                               : nonsense(joining, "does not behave like one of Shoal", err);
}

static ShoalStatus send_message(ShoalChannel *channel, ShoalMessageType type,
                                const ProtobufCMessage *message, ShoalError *err) {
    ShoalStatus status = shoal_message_queue(channel, type, message, err);
    return status ? status : shoal_channel_flush(channel, err);
}

static ShoalStatus send_hello(Joining *joining, ShoalError *err) {
    Shoal__Hello hello = SHOAL__HELLO__INIT;
    hello.protocol_version = SHOAL_PROTOCOL_VERSION;
    hello.nonce = (ProtobufCBinaryData){SHOAL_AUTH_BYTES, joining->nonce};
    hello.public_key = (ProtobufCBinaryData){SHOAL_AUTH_BYTES, joining->public_key};
    hello.software_version = (char *)shoal_version();
    return send_message(joining->channel, SHOAL_MESSAGE_HELLO, &hello.base, err);
}

/* The proof comes first: it covers the key, so a key that is no good is the coordinator's own. */
static ShoalStatus check_challenge(Joining *joining, const Shoal__Challenge *challenge,
                                   unsigned char *shared, ShoalError *err) {
    if (challenge->nonce.len != SHOAL_AUTH_BYTES || challenge->public_key.len != SHOAL_AUTH_BYTES ||
        challenge->protocol_version != SHOAL_PROTOCOL_VERSION)
        return nonsense(joining, "sent a malformed challenge", err);
    memcpy(joining->coordinator_nonce, challenge->nonce.data, SHOAL_AUTH_BYTES);
    make_context(joining->public_key, challenge->public_key.data, joining->context);
    if (!shoal_auth_verify(joining->key, SHOAL_AUTH_COORDINATOR, joining->nonce,
                           joining->coordinator_nonce, joining->context, sizeof joining->context,
                           challenge->proof.data, challenge->proof.len))
        return shoal_error_set(err, SHOAL_ERR_AUTH,
                               "the coordinator at %s has another token; give the one that it "
                               "printed, by --token or SHOAL_TOKEN",
                               shoal_channel_peer(joining->channel));
    joining->proved = true;
    if (!shoal_auth_agree(joining->secret_key, challenge->public_key.data, shared))
        return nonsense(joining, "sent a key that allows no secret", err);
    return SHOAL_OK;
}

static ShoalStatus take_challenge(Joining *joining, const ShoalFrame *frame, ShoalError *err) {
    unsigned char shared[SHOAL_AUTH_BYTES];
    Shoal__Challenge *challenge = shoal_message_unpack(&shoal__challenge__descriptor, frame);
    if (!challenge)
        return nonsense(joining, "sent a malformed challenge", err);
    ShoalStatus status = check_challenge(joining, challenge, shared, err);
    shoal__challenge__free_unpacked(challenge, NULL);
    if (!status)
        secure(joining->channel, joining->key, SHOAL_AUTH_WORKER, joining->nonce,
               joining->coordinator_nonce, shared);
    shoal_auth_forget(shared, sizeof shared);
    return status;
}

static ShoalStatus send_join(Joining *joining, const ShoalJoinRequest *request, ShoalError *err) {
    unsigned char proof[SHOAL_AUTH_BYTES];
    char name[sizeof((ShoalClusterInfo *)0)->name], cpu[sizeof((ShoalJoinInfo *)0)->cpu];
    shoal_auth_prove(joining->key, SHOAL_AUTH_WORKER, joining->nonce, joining->coordinator_nonce,
                     joining->context, sizeof joining->context, proof);
    /* Cut here already, so that no name makes the message too large for a stranger's. */
    shoal_message_text(request->name ? request->name : "", name, sizeof name);
    shoal_message_text(request->cpu ? request->cpu : "", cpu, sizeof cpu);
    Shoal__Version version = SHOAL__VERSION__INIT;
    version.held = request->held && request->job_id;
    version.updates = request->updates;
    version.generation = request->version_generation;
    Shoal__Join join = SHOAL__JOIN__INIT;
    join.proof = (ProtobufCBinaryData){sizeof proof, proof};
    join.ring_port = request->ring_port;
    join.name = name;
    join.cores = (uint32_t)request->cores;
    join.threads = (uint32_t)request->threads;
    join.cpu = cpu;
    join.pid = getpid();
    if (request->job_id)
        join.job_id = (ProtobufCBinaryData){SHOAL_HANDSHAKE_ID_BYTES, (uint8_t *)request->job_id};
    if (version.held)
        join.version = &version;
    join.current_step = request->current_step;
    join.seed = request->seed;
    join.session = request->session;
    join.generation = request->generation;
    if (request->cache_id)
        join.cache_id =
            (ProtobufCBinaryData){SHOAL_HANDSHAKE_ID_BYTES, (uint8_t *)request->cache_id};
    join.cache_bytes = request->cache_bytes;
    return send_message(joining->channel, SHOAL_MESSAGE_JOIN, &join.base, err);
}

static ShoalStatus send_probe(Joining *joining, uint16_t probe_port, ShoalError *err) {
    unsigned char proof[SHOAL_AUTH_BYTES];
    shoal_auth_prove(joining->key, SHOAL_AUTH_WORKER, joining->nonce, joining->coordinator_nonce,
                     joining->context, sizeof joining->context, proof);
    Shoal__Join join = SHOAL__JOIN__INIT;
    join.proof = (ProtobufCBinaryData){sizeof proof, proof};
    join.pid = getpid();
    join.probe = true;
    join.probe_port = probe_port;
    return send_message(joining->channel, SHOAL_MESSAGE_JOIN, &join.base, err);
}

/* Has it all it needs, and does it answer this request? */
static bool sensible(const Shoal__Welcome *welcome, const ShoalJoinRequest *request) {
    if (welcome->window < 1 || welcome->window > SHOAL_CLUSTER_MAX_WINDOW)
        return false;
    if (welcome->heartbeat_ms < 1 || welcome->heartbeat_ms > INT32_MAX || welcome->silence_ms < 1 ||
        welcome->silence_ms > INT32_MAX)
        return false;
    if (welcome->worker_id > INT32_MAX || welcome->wire_format > SHOAL_WIRE_BF16 ||
        welcome->job_id.len != SHOAL_HANDSHAKE_ID_BYTES)
        return false;
    if (welcome->has_job && (!request->job_id || memcmp(request->job_id, welcome->job_id.data,
                                                        SHOAL_HANDSHAKE_ID_BYTES) != 0))
        return false;
    return !welcome->keep_state || (welcome->has_job && request->held);
}

static ShoalStatus take_welcome(const Joining *joining, const ShoalJoinRequest *request,
                                const ShoalFrame *frame, ShoalJoined *joined, ShoalError *err) {
    Shoal__Welcome *welcome = shoal_message_unpack(&shoal__welcome__descriptor, frame);
    if (!welcome || !sensible(welcome, request)) {
        if (welcome)
            shoal__welcome__free_unpacked(welcome, NULL);
        return nonsense(joining, "sent a welcome that makes no sense", err);
    }
    *joined = (ShoalJoined){.worker_id = welcome->worker_id,
                            .window = welcome->window,
                            .heartbeat_ms = welcome->heartbeat_ms,
                            .silence_ms = welcome->silence_ms,
                            .session = welcome->session,
                            .has_job = welcome->has_job,
                            .keep_state = welcome->keep_state,
                            .encrypt = welcome->encrypt,
                            .wire_format = welcome->wire_format,
                            .key = *joining->key};
    memcpy(joined->job_id, welcome->job_id.data, SHOAL_HANDSHAKE_ID_BYTES);
    shoal__welcome__free_unpacked(welcome, NULL);
    shoal_channel_bulk(joining->channel, joined->encrypt ? -1 : (int)SHOAL_MESSAGE_SAMPLES);
    return SHOAL_OK;
}

/* Up to the point where the channel is secured and the coordinator known. */
static ShoalStatus meet(Joining *joining, ShoalError *err) {
    ShoalFrame frame;
    shoal_auth_random(joining->nonce, sizeof joining->nonce);
    shoal_auth_keypair(joining->public_key, joining->secret_key);
    ShoalStatus status = send_hello(joining, err);
    if (!status)
        status = expect(joining, SHOAL_MESSAGE_CHALLENGE, &frame, err);
    return status ? status : take_challenge(joining, &frame, err);
}

ShoalStatus shoal_handshake_join(ShoalChannel *channel, const ShoalAuthKey *key,
                                 const ShoalJoinRequest *request, uint64_t deadline_ms,
                                 ShoalJoined *joined, ShoalError *err) {
    Joining joining = {.channel = channel, .key = key, .deadline_ms = deadline_ms};
    ShoalFrame frame;
    joined->forget = false;
    ShoalStatus status = meet(&joining, err);
    if (!status)
        status = send_join(&joining, request, err);
    if (!status)
        status = expect(&joining, SHOAL_MESSAGE_WELCOME, &frame, err);
    if (!status)
        status = take_welcome(&joining, request, &frame, joined, err);
    if (status)
        joined->forget = joining.forget;
    shoal_auth_forget(&joining, sizeof joining);
    return status;
}

ShoalStatus shoal_handshake_probe(ShoalChannel *channel, const ShoalAuthKey *key,
                                  uint16_t probe_port, uint64_t deadline_ms, ShoalError *err) {
    Joining joining = {.channel = channel, .key = key, .deadline_ms = deadline_ms};
    ShoalFrame frame;
    ShoalStatus status = meet(&joining, err);
    if (!status)
        status = send_probe(&joining, probe_port, err);
    if (!status)
        status = expect(&joining, SHOAL_MESSAGE_PROBE, &frame, err);
    shoal_auth_forget(&joining, sizeof joining);
    return status;
}

/* ---- coordinator ---- */

void shoal_handshake_refuse(ShoalChannel *channel, const char *reason, bool for_good, bool forget) {
    Shoal__Refuse message = SHOAL__REFUSE__INIT;
    message.reason = (char *)reason;
    message.for_good = for_good;
    message.forget = forget;
    (void)send_message(channel, SHOAL_MESSAGE_REFUSE, &message.base, NULL);
}

static ShoalStatus refuse(ShoalChannel *channel, ShoalStatus status, const char *reason,
                          ShoalError *err) {
    shoal_handshake_refuse(channel, reason, true, false);
    return shoal_error_set(err, status, "%s", reason);
}

static ShoalStatus send_challenge(ShoalGreeting *greeting, ShoalChannel *channel,
                                  const ShoalAuthKey *key, unsigned char *public_key,
                                  ShoalError *err) {
    unsigned char proof[SHOAL_AUTH_BYTES];
    shoal_auth_prove(key, SHOAL_AUTH_COORDINATOR, greeting->worker_nonce, greeting->own_nonce,
                     greeting->context, sizeof greeting->context, proof);
    Shoal__Challenge challenge = SHOAL__CHALLENGE__INIT;
    challenge.nonce = (ProtobufCBinaryData){SHOAL_AUTH_BYTES, greeting->own_nonce};
    challenge.public_key = (ProtobufCBinaryData){SHOAL_AUTH_BYTES, public_key};
    challenge.proof = (ProtobufCBinaryData){sizeof proof, proof};
    challenge.protocol_version = SHOAL_PROTOCOL_VERSION;
    return shoal_message_queue(channel, SHOAL_MESSAGE_CHALLENGE, &challenge.base, err);
}

/* The Challenge, and from there on encryption: whoever sent the Hello can go on only with the
 * token. */
static ShoalStatus challenge(ShoalGreeting *greeting, ShoalChannel *channel,
                             const ShoalAuthKey *key, const Shoal__Hello *hello, ShoalError *err) {
    unsigned char public_key[SHOAL_AUTH_BYTES], secret_key[SHOAL_AUTH_BYTES];
    unsigned char shared[SHOAL_AUTH_BYTES];
    memcpy(greeting->worker_nonce, hello->nonce.data, SHOAL_AUTH_BYTES);
    shoal_auth_random(greeting->own_nonce, sizeof greeting->own_nonce);
    shoal_auth_keypair(public_key, secret_key);
    make_context(hello->public_key.data, public_key, greeting->context);
    bool agreed = shoal_auth_agree(secret_key, hello->public_key.data, shared);
    shoal_auth_forget(secret_key, sizeof secret_key);
    ShoalStatus status =
        agreed ? send_challenge(greeting, channel, key, public_key, err)
               : refuse(channel, SHOAL_ERR_PROTOCOL, "a key that allows no secret", err);
    if (!status) {
        secure(channel, key, SHOAL_AUTH_COORDINATOR, greeting->worker_nonce, greeting->own_nonce,
               shared);
        greeting->step = 1;
    }
    shoal_auth_forget(shared, sizeof shared);
    return status;
}

static ShoalStatus answer_hello(ShoalGreeting *greeting, ShoalChannel *channel,
                                const ShoalAuthKey *key, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Hello *hello = frame->type == SHOAL_MESSAGE_HELLO
                              ? shoal_message_unpack(&shoal__hello__descriptor, frame)
                              : NULL;
    if (!hello)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "not a Shoal worker");
    ShoalStatus status;
    /* The version first: other versions may have other fields. */
    if (hello->protocol_version != SHOAL_PROTOCOL_VERSION) {
        char reason[160];
        snprintf(reason, sizeof reason,
                 "worker speaks protocol %u, coordinator %u: install one version of Shoal on both",
                 hello->protocol_version, SHOAL_PROTOCOL_VERSION);
        status = refuse(channel, SHOAL_ERR_PROTOCOL, reason, err);
    } else if (hello->nonce.len != SHOAL_AUTH_BYTES || hello->public_key.len != SHOAL_AUTH_BYTES) {
        status = shoal_error_set(err, SHOAL_ERR_PROTOCOL, "malformed greeting");
    } else {
        status = challenge(greeting, channel, key, hello, err);
    }
    shoal__hello__free_unpacked(hello, NULL);
    return status;
}

/* What is wrong with the fields of a Join, or NULL. */
static const char *join_fault(const Shoal__Join *join) {
    const Shoal__Version *version = join->version;
    if (join->probe_port > UINT16_MAX)
        return "malformed request to measure: no port";
    if (!join->probe && (join->ring_port < 1 || join->ring_port > UINT16_MAX))
        return "malformed request to join: no port for the ring";
    if (join->cores > MOST_CORES || join->threads > MOST_CORES)
        return "malformed request to join: number of cores or threads";
    if (!id_or_nothing(&join->job_id) || !id_or_nothing(&join->cache_id))
        return "malformed request to join: length of an identifier";
    if (join->generation > MOST_GENERATION || join->current_step > INT32_MAX)
        return "malformed request to join: generation or step";
    if (version && (version->updates > INT32_MAX || version->generation > MOST_GENERATION))
        return "malformed request to join: version";
    if (version && version->held && join->job_id.len == 0)
        return "malformed request to join: a state without a job";
    return NULL;
}

static void describe(ShoalChannel *channel, const Shoal__Join *join, ShoalJoinInfo *out) {
    ShoalAddress address;
    ShoalClusterInfo *info = &out->info;
    *out = (ShoalJoinInfo){.cores = (int)join->cores,
                           .threads = (int)join->threads,
                           .has_job_id = join->job_id.len > 0,
                           .current_step = join->current_step,
                           .seed = join->seed,
                           .session = join->session,
                           .has_cache = join->cache_id.len > 0,
                           .cache_bytes = join->cache_id.len > 0 ? join->cache_bytes : 0};
    out->probe = join->probe;
    out->probe_port = (uint16_t)join->probe_port;
    info->ring_port = (uint16_t)(join->probe ? 0 : join->ring_port);
    info->pid = join->pid;
    info->generation = join->generation;
    if (!shoal_socket_peer(shoal_channel_fd(channel), &address, NULL)) {
        char host[SHOAL_ADDRESS_TEXT];
        shoal_address_format_host(&address, host);
        snprintf(info->address, sizeof info->address, "%s", host);
    }
    shoal_message_text(join->name, info->name, sizeof info->name);
    shoal_message_text(join->cpu, out->cpu, sizeof out->cpu);
    if (out->has_job_id)
        memcpy(out->job_id, join->job_id.data, sizeof out->job_id);
    if (out->has_cache)
        memcpy(out->cache_id, join->cache_id.data, sizeof out->cache_id);
    if (join->version && join->version->held) {
        out->version =
            (ShoalClusterVersion){true, join->version->updates, join->version->generation};
        /* A generation to come must not bear the number of one that made a state. */
        if (info->generation < join->version->generation)
            info->generation = join->version->generation;
    }
}

static ShoalStatus answer_join(ShoalGreeting *greeting, ShoalChannel *channel,
                               const ShoalAuthKey *key, const ShoalFrame *frame,
                               ShoalJoinInfo *info, ShoalError *err) {
    Shoal__Join *join = frame->type == SHOAL_MESSAGE_JOIN
                            ? shoal_message_unpack(&shoal__join__descriptor, frame)
                            : NULL;
    if (!join)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "not a Shoal worker");
    bool proved = shoal_auth_verify(key, SHOAL_AUTH_WORKER, greeting->worker_nonce,
                                    greeting->own_nonce, greeting->context,
                                    sizeof greeting->context, join->proof.data, join->proof.len);
    const char *fault = join_fault(join);
    ShoalStatus status = SHOAL_OK;
    if (!proved)
        status = refuse(channel, SHOAL_ERR_AUTH, "wrong token", err);
    else if (fault)
        status = refuse(channel, SHOAL_ERR_PROTOCOL, fault, err);
    else
        describe(channel, join, info);
    shoal__join__free_unpacked(join, NULL);
    if (!status)
        greeting->step = 2;
    return status;
}

ShoalStatus shoal_handshake_answer(ShoalGreeting *greeting, ShoalChannel *channel,
                                   const ShoalAuthKey *key, const ShoalFrame *frame, bool *joined,
                                   ShoalJoinInfo *info, ShoalError *err) {
    *joined = false;
    if (greeting->step == 0)
        return answer_hello(greeting, channel, key, frame, err);
    if (greeting->step != 1)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "a greeting after the greeting");
    ShoalStatus status = answer_join(greeting, channel, key, frame, info, err);
    *joined = status == SHOAL_OK;
    return status;
}
