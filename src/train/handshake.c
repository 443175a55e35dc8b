/* SPDX-License-Identifier: Apache-2.0 */
#include "train/handshake.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "shoal/shoal.h"

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

/* Both sides must speak one version: it is part of what they prove. */
static const unsigned char CONTEXT[] = {'s', 'h', 'o', 'a', 'l', SHOAL_PROTOCOL_VERSION};

static void secure(ShoalChannel *channel, const ShoalAuthKey *key, ShoalAuthRole self,
                   const unsigned char *worker_nonce, const unsigned char *coordinator_nonce) {
    ShoalAuthRole peer = self == SHOAL_AUTH_WORKER ? SHOAL_AUTH_COORDINATOR : SHOAL_AUTH_WORKER;
    ShoalAuthKey send, receive;
    shoal_auth_session_key(key, self, worker_nonce, coordinator_nonce, &send);
    shoal_auth_session_key(key, peer, worker_nonce, coordinator_nonce, &receive);
    shoal_channel_secure(channel, &send, &receive);
    shoal_auth_forget(&send, sizeof send);
    shoal_auth_forget(&receive, sizeof receive);
}

/* ---- worker ---- */

static ShoalStatus refused(const ShoalChannel *channel, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Refuse *refuse = shoal__refuse__unpack(NULL, frame->size, frame->payload);
    ShoalStatus status =
        shoal_error_set(err, SHOAL_ERR_ARGUMENT, "the coordinator at %s refuses: %s",
                        shoal_channel_peer(channel), refuse ? refuse->reason : "no reason given");
    if (refuse)
        shoal__refuse__free_unpacked(refuse, NULL);
    return status;
}

static ShoalStatus expect(ShoalChannel *channel, ShoalMessageType type, uint64_t deadline_ms,
                          ShoalFrame *frame, ShoalError *err) {
    ShoalStatus status = shoal_channel_wait(channel, -1, deadline_ms, frame, err);
    if (status)
        return status;
    if (frame->type == SHOAL_MESSAGE_REFUSE)
        return refused(channel, frame, err);
    if (frame->type != type)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "%s does not behave like a Shoal coordinator",
                               shoal_channel_peer(channel));
    return SHOAL_OK;
}

static ShoalStatus send_message(ShoalChannel *channel, ShoalMessageType type,
                                const ProtobufCMessage *message, ShoalError *err) {
    ShoalStatus status = shoal_message_queue(channel, type, message, err);
    return status ? status : shoal_channel_flush(channel, err);
}

static ShoalStatus take_challenge(ShoalChannel *channel, const ShoalAuthKey *key,
                                  const unsigned char *nonce, const ShoalFrame *frame,
                                  unsigned char *coordinator_nonce, ShoalError *err) {
    Shoal__Challenge *challenge = shoal__challenge__unpack(NULL, frame->size, frame->payload);
    bool sound = challenge && challenge->nonce.len == SHOAL_AUTH_BYTES;
    if (sound)
        memcpy(coordinator_nonce, challenge->nonce.data, SHOAL_AUTH_BYTES);
    bool proved =
        sound && shoal_auth_verify(key, SHOAL_AUTH_COORDINATOR, nonce, coordinator_nonce, CONTEXT,
                                   sizeof CONTEXT, challenge->proof.data, challenge->proof.len);
    if (challenge)
        shoal__challenge__free_unpacked(challenge, NULL);
    return proved ? SHOAL_OK
                  : shoal_error_set(err, SHOAL_ERR_AUTH,
                                    "the coordinator at %s has another token; give the one that it "
                                    "printed, by --token or SHOAL_TOKEN",
                                    shoal_channel_peer(channel));
}

static ShoalStatus send_join(ShoalChannel *channel, const ShoalAuthKey *key,
                             const unsigned char *nonce, const unsigned char *coordinator_nonce,
                             const ShoalJoinRequest *request, ShoalError *err) {
    unsigned char proof[SHOAL_AUTH_BYTES];
    shoal_auth_prove(key, SHOAL_AUTH_WORKER, nonce, coordinator_nonce, CONTEXT, sizeof CONTEXT,
                     proof);
    Shoal__Join join = SHOAL__JOIN__INIT;
    join.proof.data = proof;
    join.proof.len = sizeof proof;
    join.ring_port = request->ring_port;
    join.name = (char *)request->name;
    join.cores = (uint32_t)request->cores;
    join.threads = (uint32_t)request->threads;
    join.cpu = (char *)request->cpu;
    join.pid = getpid();
    return send_message(channel, SHOAL_MESSAGE_JOIN, &join.base, err);
}

static ShoalStatus take_welcome(const ShoalFrame *frame, ShoalJoined *joined, ShoalError *err) {
    Shoal__Welcome *welcome = shoal__welcome__unpack(NULL, frame->size, frame->payload);
    if (!welcome || welcome->window < 1 || welcome->window > SHOAL_CLUSTER_MAX_WINDOW ||
        welcome->heartbeat_ms < 1) {
        if (welcome)
            shoal__welcome__free_unpacked(welcome, NULL);
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "the coordinator's welcome makes no sense");
    }
    *joined = (ShoalJoined){.worker_id = welcome->worker_id,
                            .window = welcome->window,
                            .heartbeat_ms = welcome->heartbeat_ms};
    shoal__welcome__free_unpacked(welcome, NULL);
    return SHOAL_OK;
}

ShoalStatus shoal_handshake_join(ShoalChannel *channel, const ShoalAuthKey *key,
                                 const ShoalJoinRequest *request, uint64_t deadline_ms,
                                 ShoalJoined *joined, ShoalError *err) {
    unsigned char nonce[SHOAL_AUTH_BYTES], coordinator_nonce[SHOAL_AUTH_BYTES];
    shoal_auth_random(nonce, sizeof nonce);
    Shoal__Hello hello = SHOAL__HELLO__INIT;
    hello.protocol_version = SHOAL_PROTOCOL_VERSION;
    hello.nonce.data = nonce;
    hello.nonce.len = sizeof nonce;
    hello.software_version = (char *)shoal_version();
    ShoalFrame frame;
    ShoalStatus status = send_message(channel, SHOAL_MESSAGE_HELLO, &hello.base, err);
    if (!status)
        status = expect(channel, SHOAL_MESSAGE_CHALLENGE, deadline_ms, &frame, err);
    if (!status)
        status = take_challenge(channel, key, nonce, &frame, coordinator_nonce, err);
    if (!status)
        status = send_join(channel, key, nonce, coordinator_nonce, request, err);
    if (status)
        return status;
    secure(channel, key, SHOAL_AUTH_WORKER, nonce, coordinator_nonce);
    status = expect(channel, SHOAL_MESSAGE_WELCOME, deadline_ms, &frame, err);
    if (!status)
        status = take_welcome(&frame, joined, err);
    if (!status)
        joined->key = *key;
    return status;
}

/* ---- coordinator ---- */

static ShoalStatus refuse(ShoalChannel *channel, const char *reason, ShoalStatus status,
                          ShoalError *err) {
    Shoal__Refuse message = SHOAL__REFUSE__INIT;
    message.reason = (char *)reason;
    (void)shoal_message_queue(channel, SHOAL_MESSAGE_REFUSE, &message.base, NULL);
    (void)shoal_channel_flush(channel, NULL);
    return shoal_error_set(err, status, "%s", reason);
}

static ShoalStatus answer_hello(ShoalGreeting *greeting, ShoalChannel *channel,
                                const ShoalAuthKey *key, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Hello *hello = frame->type == SHOAL_MESSAGE_HELLO
                              ? shoal__hello__unpack(NULL, frame->size, frame->payload)
                              : NULL;
    if (!hello)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "not a Shoal worker");
    uint32_t version = hello->protocol_version;
    bool sound = hello->nonce.len == SHOAL_AUTH_BYTES;
    if (sound)
        memcpy(greeting->worker_nonce, hello->nonce.data, SHOAL_AUTH_BYTES);
    shoal__hello__free_unpacked(hello, NULL);
    if (version != SHOAL_PROTOCOL_VERSION) {
        char reason[160];
        snprintf(reason, sizeof reason,
                 "worker speaks protocol %u, coordinator %u: install one version of Shoal on both",
                 version, SHOAL_PROTOCOL_VERSION);
        return refuse(channel, reason, SHOAL_ERR_PROTOCOL, err);
    }
    if (!sound)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "malformed greeting");
    unsigned char proof[SHOAL_AUTH_BYTES];
    shoal_auth_random(greeting->own_nonce, sizeof greeting->own_nonce);
    shoal_auth_prove(key, SHOAL_AUTH_COORDINATOR, greeting->worker_nonce, greeting->own_nonce,
                     CONTEXT, sizeof CONTEXT, proof);
    Shoal__Challenge challenge = SHOAL__CHALLENGE__INIT;
    challenge.nonce.data = greeting->own_nonce;
    challenge.nonce.len = sizeof greeting->own_nonce;
    challenge.proof.data = proof;
    challenge.proof.len = sizeof proof;
    challenge.protocol_version = SHOAL_PROTOCOL_VERSION;
    greeting->step = 1;
    return shoal_message_queue(channel, SHOAL_MESSAGE_CHALLENGE, &challenge.base, err);
}

static void describe(ShoalChannel *channel, const Shoal__Join *join, ShoalClusterInfo *info) {
    ShoalAddress address;
    *info = (ShoalClusterInfo){.ring_port = (uint16_t)join->ring_port, .pid = join->pid};
    if (!shoal_socket_peer(shoal_channel_fd(channel), &address, NULL)) {
        char host[SHOAL_ADDRESS_TEXT];
        shoal_address_format_host(&address, host);
        snprintf(info->address, sizeof info->address, "%s", host);
    }
    snprintf(info->name, sizeof info->name, "%s", join->name);
}

static ShoalStatus answer_join(ShoalGreeting *greeting, ShoalChannel *channel,
                               const ShoalAuthKey *key, const ShoalFrame *frame,
                               ShoalClusterInfo *info, ShoalError *err) {
    Shoal__Join *join = frame->type == SHOAL_MESSAGE_JOIN
                            ? shoal__join__unpack(NULL, frame->size, frame->payload)
                            : NULL;
    if (!join)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "not a Shoal worker");
    bool proved =
        shoal_auth_verify(key, SHOAL_AUTH_WORKER, greeting->worker_nonce, greeting->own_nonce,
                          CONTEXT, sizeof CONTEXT, join->proof.data, join->proof.len);
    bool sound = join->ring_port > 0 && join->ring_port <= UINT16_MAX;
    if (proved && sound)
        describe(channel, join, info);
    shoal__join__free_unpacked(join, NULL);
    if (!proved)
        return refuse(channel, "wrong token", SHOAL_ERR_AUTH, err);
    if (!sound)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "malformed request to join");
    secure(channel, key, SHOAL_AUTH_COORDINATOR, greeting->worker_nonce, greeting->own_nonce);
    greeting->step = 2;
    return SHOAL_OK;
}

ShoalStatus shoal_handshake_answer(ShoalGreeting *greeting, ShoalChannel *channel,
                                   const ShoalAuthKey *key, const ShoalFrame *frame, bool *joined,
                                   ShoalClusterInfo *info, ShoalError *err) {
    *joined = false;
    if (greeting->step == 0)
        return answer_hello(greeting, channel, key, frame, err);
    ShoalStatus status = answer_join(greeting, channel, key, frame, info, err);
    *joined = status == SHOAL_OK;
    return status;
}
