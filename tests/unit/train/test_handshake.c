/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/train/handshake_ends.h"

#include <glob.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/memory.h"

/* The fuzzer's corpus goes through the fuzzer's own function, which aborts when a promise is
 * broken. */
#define LLVMFuzzerTestOneInput fuzz_wire
#include "../../../fuzz/fuzz_wire.c"
#undef LLVMFuzzerTestOneInput

static const unsigned char OTHER[16] = "something else..";

/* ---- whole handshakes ---- */

/* Answers until the worker has joined or something is wrong. */
static ShoalStatus greet(Coordinator *coordinator) {
    ShoalStatus status = SHOAL_OK;
    while (!status && !coordinator->joined) {
        ShoalFrame frame;
        status = next_frame(coordinator->channel, &frame);
        if (!status)
            status = answer(coordinator, &frame);
        if (!status)
            status = shoal_channel_flush(coordinator->channel, &coordinator->err);
    }
    return status;
}

static void test_both_sides_learn_all(void **state) {
    (void)state;
    int fds[2];
    Worker worker;
    Coordinator coordinator;
    ShoalFrame frame;
    new_pair(fds);
    open_coordinator(&coordinator, fds[0]);
    start_worker(&worker, fds[1], right_key());
    worker.talk = true;
    run_worker(&worker);
    assert_int_equal(greet(&coordinator), 0);
    const ShoalJoinInfo *info = &coordinator.info;
    assert_int_equal(info->info.ring_port, 4711);
    assert_string_equal(info->info.name, NAME);
    assert_int_equal(info->info.pid, getpid());
    assert_int_equal(info->info.generation, 9);
    assert_int_equal(info->cores, 8);
    assert_int_equal(info->threads, 4);
    assert_string_equal(info->cpu, "neon");
    assert_true(info->has_job_id);
    assert_memory_equal(info->job_id, JOB, 16);
    assert_true(info->version.held);
    assert_int_equal(info->version.updates, 123);
    assert_int_equal(info->version.generation, 7);
    assert_int_equal(info->current_step, 2);
    assert_int_equal(info->seed, 77);
    assert_true(info->session == UINT64_MAX - 1);
    assert_true(info->has_cache);
    assert_memory_equal(info->cache_id, CACHE, 16);
    assert_int_equal(info->cache_bytes, UINT64_C(1) << 33);
    Shoal__Welcome welcome = good_welcome();
    send_welcome(&coordinator, &welcome);
    shoal_channel_bulk(coordinator.channel, SHOAL_MESSAGE_SAMPLES);
    say(coordinator.channel, SHOAL_MESSAGE_SAMPLES, RECORD, sizeof RECORD);
    say(coordinator.channel, SHOAL_MESSAGE_HEARTBEAT, BEAT, sizeof BEAT);
    assert_int_equal(next_frame(coordinator.channel, &frame), 0);
    assert_int_equal(frame.type, SHOAL_MESSAGE_PREPARED);
    assert_int_equal(frame.size, sizeof BEAT);
    pthread_join(worker.thread, NULL);
    assert_int_equal(worker.status, 0);
    assert_true(worker.heard_all);
    const ShoalJoined *joined = &worker.joined;
    assert_int_equal(joined->worker_id, 3);
    assert_int_equal(joined->window, 4);
    assert_int_equal(joined->heartbeat_ms, 1000);
    assert_int_equal(joined->silence_ms, 9000);
    assert_true(joined->session == UINT64_MAX);
    assert_memory_equal(joined->job_id, JOB, 16);
    assert_true(joined->has_job && joined->keep_state);
    assert_false(joined->encrypt || joined->forget);
    assert_int_equal(joined->wire_format, SHOAL_WIRE_FP16);
    assert_memory_equal(&joined->key, &worker.key, sizeof joined->key);
    shoal_channel_destroy(coordinator.channel);
}

/* Where all is to be encrypted, a plain sample ends the connection. */
static void test_plain_samples_where_all_is_encrypted(void **state) {
    (void)state;
    for (int obeys = 0; obeys < 2; obeys++) {
        int fds[2];
        Worker worker;
        Coordinator coordinator;
        new_pair(fds);
        open_coordinator(&coordinator, fds[0]);
        start_worker(&worker, fds[1], right_key());
        worker.talk = true;
        run_worker(&worker);
        assert_int_equal(greet(&coordinator), 0);
        Shoal__Welcome welcome = good_welcome();
        welcome.encrypt = true;
        send_welcome(&coordinator, &welcome);
        shoal_channel_bulk(coordinator.channel, obeys ? -1 : (int)SHOAL_MESSAGE_SAMPLES);
        say(coordinator.channel, SHOAL_MESSAGE_SAMPLES, RECORD, sizeof RECORD);
        say(coordinator.channel, SHOAL_MESSAGE_HEARTBEAT, BEAT, sizeof BEAT);
        pthread_join(worker.thread, NULL);
        assert_int_equal(worker.status, 0);
        assert_int_equal(worker.heard_all, obeys);
        shoal_channel_destroy(coordinator.channel);
    }
}

/* A worker that comes for the first time has nothing to show; one with an endless name is cut. */
static void test_a_fresh_worker(void **state) {
    (void)state;
    int fds[2];
    Worker worker;
    Coordinator coordinator;
    static char name[6000];
    memset(name, 'n', sizeof name - 1);
    new_pair(fds);
    open_coordinator(&coordinator, fds[0]);
    start_worker(&worker, fds[1], right_key());
    worker.request = (ShoalJoinRequest){.ring_port = 1, .name = name, .held = true, .updates = 5};
    run_worker(&worker);
    assert_int_equal(greet(&coordinator), 0);
    assert_false(coordinator.info.has_job_id || coordinator.info.has_cache);
    assert_false(coordinator.info.version.held);
    assert_int_equal(coordinator.info.info.generation, 0);
    assert_int_equal(strspn(coordinator.info.info.name, "n"), 63);
    assert_int_equal(strlen(coordinator.info.info.name), 63);
    Shoal__Welcome welcome = good_welcome();
    welcome.has_job = welcome.keep_state = false;
    send_welcome(&coordinator, &welcome);
    pthread_join(worker.thread, NULL);
    assert_int_equal(worker.status, 0);
    assert_false(worker.joined.has_job || worker.joined.keep_state);
    shoal_channel_destroy(coordinator.channel);
}

/* ---- tokens ---- */

static void check_tokens(ShoalAuthKey workers, ShoalAuthKey coordinators) {
    int fds[2];
    Worker worker;
    Coordinator coordinator;
    new_pair(fds);
    open_coordinator(&coordinator, fds[0]);
    coordinator.key = coordinators;
    start_worker(&worker, fds[1], workers);
    run_worker(&worker);
    assert_int_equal(greet(&coordinator), SHOAL_ERR_LOST); /* the worker turns away */
    pthread_join(worker.thread, NULL);
    assert_int_equal(worker.status, SHOAL_ERR_AUTH);
    assert_non_null(strstr(worker.err.text, "has another token; give the one that it printed"));
    assert_false(coordinator.joined);
    shoal_channel_destroy(coordinator.channel);
}

static void test_wrong_token(void **state) {
    (void)state;
    check_tokens(token_key("what someone guessed"), right_key());
    check_tokens(right_key(), token_key("what someone guessed"));
}

/* ---- workers that are not what they seem: their side by hand ---- */

typedef struct Impostor {
    ShoalChannel *channel;
    Coordinator coordinator;
    ShoalAuthKey key;
    unsigned char public_key[N], secret_key[N], nonce[N], coordinator_nonce[N];
    unsigned char context[SHOAL_HANDSHAKE_CONTEXT_BYTES];
    unsigned char proof[N];
} Impostor;

static void open_impostor(Impostor *impostor) {
    int fds[2];
    new_pair(fds);
    open_coordinator(&impostor->coordinator, fds[0]);
    impostor->channel = new_channel(fds[1]);
    impostor->key = right_key();
    shoal_auth_random(impostor->nonce, N);
    shoal_auth_keypair(impostor->public_key, impostor->secret_key);
}

static void close_impostor(Impostor *impostor) {
    shoal_channel_destroy(impostor->channel);
    shoal_channel_destroy(impostor->coordinator.channel);
}

/* What the coordinator makes of the next frame. */
static ShoalStatus taken(Impostor *impostor) {
    ShoalFrame frame;
    ShoalStatus status = next_frame(impostor->coordinator.channel, &frame);
    if (!status)
        status = answer(&impostor->coordinator, &frame);
    ShoalError err = {0};
    (void)shoal_channel_flush(impostor->coordinator.channel, &err);
    return status;
}

static Shoal__Hello good_hello(Impostor *impostor) {
    Shoal__Hello hello = SHOAL__HELLO__INIT;
    hello.protocol_version = SHOAL_PROTOCOL_VERSION;
    hello.nonce = (ProtobufCBinaryData){N, impostor->nonce};
    hello.public_key = (ProtobufCBinaryData){N, impostor->public_key};
    hello.software_version = (char *)"";
    return hello;
}

static void send_message(ShoalChannel *channel, ShoalMessageType type,
                         const ProtobufCMessage *message) {
    ShoalError err = {0};
    assert_int_equal(shoal_message_queue(channel, type, message, &err), 0);
    assert_int_equal(shoal_channel_flush(channel, &err), 0);
}

/* Hello and Challenge, as an honest worker with the impostor's key would; its proof. */
static void come_to_join(Impostor *impostor) {
    Shoal__Hello hello = good_hello(impostor);
    ShoalFrame frame;
    unsigned char shared[N];
    ShoalAuthKey send, receive;
    send_message(impostor->channel, SHOAL_MESSAGE_HELLO, &hello.base);
    assert_int_equal(taken(impostor), 0);
    assert_int_equal(next_frame(impostor->channel, &frame), 0);
    Shoal__Challenge *challenge = shoal__challenge__unpack(NULL, frame.size, frame.payload);
    assert_non_null(challenge);
    memcpy(impostor->coordinator_nonce, challenge->nonce.data, N);
    assert_true(shoal_auth_agree(impostor->secret_key, challenge->public_key.data, shared));
    shoal__challenge__free_unpacked(challenge, NULL);
    memcpy(impostor->context, impostor->coordinator.greeting.context, sizeof impostor->context);
    shoal_auth_prove(&impostor->key, SHOAL_AUTH_WORKER, impostor->nonce,
                     impostor->coordinator_nonce, impostor->context, sizeof impostor->context,
                     impostor->proof);
    shoal_auth_session_key(&impostor->key, SHOAL_AUTH_WORKER, impostor->nonce,
                           impostor->coordinator_nonce, shared, &send);
    shoal_auth_session_key(&impostor->key, SHOAL_AUTH_COORDINATOR, impostor->nonce,
                           impostor->coordinator_nonce, shared, &receive);
    shoal_channel_secure(impostor->channel, &send, &receive);
}

static Shoal__Join good_join(Impostor *impostor) {
    Shoal__Join join = SHOAL__JOIN__INIT;
    join.proof = (ProtobufCBinaryData){N, impostor->proof};
    join.ring_port = 4711;
    join.name = (char *)"somebody";
    join.cpu = (char *)"neon";
    return join;
}

/* The Refuse that the coordinator sent: its reason holds `part`. */
static void assert_refusal(Impostor *impostor, const char *part, bool for_good) {
    ShoalFrame frame;
    assert_int_equal(next_frame(impostor->channel, &frame), 0);
    assert_int_equal(frame.type, SHOAL_MESSAGE_REFUSE);
    Shoal__Refuse *refuse = shoal__refuse__unpack(NULL, frame.size, frame.payload);
    assert_non_null(refuse);
    if (!strstr(refuse->reason, part))
        fail_msg("%s", refuse->reason);
    assert_int_equal(refuse->for_good, for_good);
    assert_false(refuse->forget);
    shoal__refuse__free_unpacked(refuse, NULL);
}

static void test_other_version(void **state) {
    (void)state;
    Impostor impostor;
    for (uint32_t version = 0; version < 5; version++) {
        if (version == SHOAL_PROTOCOL_VERSION)
            continue;
        open_impostor(&impostor);
        Shoal__Hello hello = good_hello(&impostor);
        hello.protocol_version = version;
        hello.nonce.len = hello.public_key.len = 0; /* other versions may have other fields */
        send_message(impostor.channel, SHOAL_MESSAGE_HELLO, &hello.base);
        assert_int_equal(taken(&impostor), SHOAL_ERR_PROTOCOL);
        assert_refusal(&impostor, "install one version of Shoal on both", true);
        close_impostor(&impostor);
    }
}

static void test_malformed_hello(void **state) {
    (void)state;
    for (int fault = 0; fault < 7; fault++) {
        static unsigned char much[N + 1];
        Impostor impostor;
        open_impostor(&impostor);
        Shoal__Hello hello = good_hello(&impostor);
        ProtobufCBinaryData *field = fault & 1 ? &hello.nonce : &hello.public_key;
        memcpy(much, field->data, N);
        field->data = much;
        field->len = fault < 2 ? 0 : fault < 4 ? N - 1 : fault < 6 ? N + 1 : N;
        if (fault == 6)
            memset(impostor.public_key, 0, N);
        hello.public_key.data = fault == 6 ? impostor.public_key : hello.public_key.data;
        send_message(impostor.channel, SHOAL_MESSAGE_HELLO, &hello.base);
        assert_int_equal(taken(&impostor), SHOAL_ERR_PROTOCOL);
        assert_int_equal(impostor.coordinator.greeting.step, 0);
        if (fault == 6)
            assert_refusal(&impostor, "a key that allows no secret", true);
        close_impostor(&impostor);
    }
}

/* Every kind of message where a Hello is due, and where a Join is. */
static void test_wrong_types(void **state) {
    (void)state;
    for (uint16_t type = 0; type < 24; type++) {
        Impostor impostor;
        open_impostor(&impostor);
        say(impostor.channel, type, "\x10", 1); /* half a field */
        assert_int_equal(taken(&impostor), SHOAL_ERR_PROTOCOL);
        close_impostor(&impostor);
        open_impostor(&impostor);
        come_to_join(&impostor);
        say(impostor.channel, type, "\x10", 1);
        assert_int_equal(taken(&impostor), SHOAL_ERR_PROTOCOL);
        assert_false(impostor.coordinator.joined);
        close_impostor(&impostor);
    }
}

/* A stranger who does not know the token says Join all the same: plain, or with keys of its own. */
static void test_join_without_the_token(void **state) {
    (void)state;
    for (int sealed = 0; sealed < 2; sealed++) {
        Impostor impostor;
        open_impostor(&impostor);
        impostor.key = token_key("what someone guessed");
        come_to_join(&impostor);
        Shoal__Join join = good_join(&impostor);
        if (sealed) {
            send_message(impostor.channel, SHOAL_MESSAGE_JOIN, &join.base);
        } else {
            /* On the same socket, by a channel that was never secured. */
            ShoalChannel *plain = new_channel(dup(shoal_channel_fd(impostor.channel)));
            send_message(plain, SHOAL_MESSAGE_JOIN, &join.base);
            shoal_channel_destroy(plain);
        }
        assert_int_equal(taken(&impostor), SHOAL_ERR_PROTOCOL);
        assert_false(impostor.coordinator.joined);
        close_impostor(&impostor);
    }
}

static void test_join_with_another_proof(void **state) {
    (void)state;
    for (int fault = 0; fault < 5; fault++) {
        Impostor impostor;
        open_impostor(&impostor);
        come_to_join(&impostor);
        Shoal__Join join = good_join(&impostor);
        if (fault == 0)
            impostor.proof[31] ^= 1;
        else if (fault == 1)
            join.proof.len = 0;
        else if (fault == 2)
            join.proof.len = N - 1;
        else if (fault == 3) /* the coordinator's own */
            shoal_auth_prove(&impostor.key, SHOAL_AUTH_COORDINATOR, impostor.nonce,
                             impostor.coordinator_nonce, impostor.context, sizeof impostor.context,
                             impostor.proof);
        else /* of another version */
            shoal_auth_prove(&impostor.key, SHOAL_AUTH_WORKER, impostor.nonce,
                             impostor.coordinator_nonce, impostor.context,
                             sizeof impostor.context - 1, impostor.proof);
        send_message(impostor.channel, SHOAL_MESSAGE_JOIN, &join.base);
        assert_int_equal(taken(&impostor), SHOAL_ERR_AUTH);
        assert_false(impostor.coordinator.joined);
        assert_refusal(&impostor, "wrong token", true);
        close_impostor(&impostor);
    }
}

typedef struct JoinCase {
    uint32_t port, cores, threads, step;
    size_t job_id, cache_id;
    bool held;
    uint64_t updates, version_generation, generation;
    const char *fault; /* NULL: fine */
} JoinCase;

static const JoinCase JOINS[] = {
    {.port = 1},
    {.port = 65535, .cores = 65536, .threads = 65536, .step = INT32_MAX, .fault = NULL},
    {.port = 1, .job_id = 16, .held = true, .updates = INT32_MAX},
    {.port = 1, .generation = UINT64_C(1) << 62},
    {.port = 0, .fault = "no port"},
    {.port = 65536, .fault = "no port"},
    {.port = 65536 + 4711, .fault = "no port"},
    {.port = 1, .cores = 65537, .fault = "cores"},
    {.port = 1, .cores = UINT32_MAX, .fault = "cores"},
    {.port = 1, .threads = UINT32_MAX, .fault = "threads"},
    {.port = 1, .step = INT32_MAX + 1u, .fault = "step"},
    {.port = 1, .job_id = 1, .fault = "identifier"},
    {.port = 1, .job_id = 15, .fault = "identifier"},
    {.port = 1, .job_id = 17, .fault = "identifier"},
    {.port = 1, .cache_id = 15, .fault = "identifier"},
    {.port = 1, .cache_id = 17, .fault = "identifier"},
    {.port = 1, .held = true, .fault = "without a job"},
    {.port = 1, .job_id = 16, .held = true, .updates = INT32_MAX + UINT64_C(1), .fault = "version"},
    {.port = 1, .job_id = 16, .held = true, .updates = UINT64_MAX, .fault = "version"},
    {.port = 1, .job_id = 16, .version_generation = UINT64_MAX, .fault = "version"},
    {.port = 1, .generation = (UINT64_C(1) << 62) + 1, .fault = "generation"},
    {.port = 1, .generation = UINT64_MAX, .fault = "generation"},
};

static void check_join(const JoinCase *one) {
    static unsigned char id[17];
    Impostor impostor;
    open_impostor(&impostor);
    come_to_join(&impostor);
    Shoal__Join join = good_join(&impostor);
    Shoal__Version version = SHOAL__VERSION__INIT;
    version.held = one->held;
    version.updates = one->updates;
    version.generation = one->version_generation;
    join.version = &version;
    join.ring_port = one->port;
    join.cores = one->cores;
    join.threads = one->threads;
    join.current_step = one->step;
    join.generation = one->generation;
    join.job_id = (ProtobufCBinaryData){one->job_id, id};
    join.cache_id = (ProtobufCBinaryData){one->cache_id, id};
    send_message(impostor.channel, SHOAL_MESSAGE_JOIN, &join.base);
    if (one->fault) {
        assert_int_equal(taken(&impostor), SHOAL_ERR_PROTOCOL);
        assert_refusal(&impostor, one->fault, true);
    } else {
        assert_int_equal(taken(&impostor), SHOAL_OK);
    }
    assert_int_equal(impostor.coordinator.joined, !one->fault);
    /* A second Join is none. */
    if (!one->fault) {
        send_message(impostor.channel, SHOAL_MESSAGE_JOIN, &join.base);
        assert_int_equal(taken(&impostor), SHOAL_ERR_PROTOCOL);
    }
    close_impostor(&impostor);
}

static void test_fields_of_join(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof JOINS / sizeof JOINS[0]; i++)
        check_join(&JOINS[i]);
}

/* A generation to come must be higher than any that made a state. */
static void test_generation_is_at_least_the_versions(void **state) {
    (void)state;
    Impostor impostor;
    open_impostor(&impostor);
    come_to_join(&impostor);
    Shoal__Join join = good_join(&impostor);
    Shoal__Version version = SHOAL__VERSION__INIT;
    version.held = true;
    version.generation = 50;
    join.version = &version;
    join.generation = 3;
    join.job_id = (ProtobufCBinaryData){16, (uint8_t *)JOB};
    join.name = (char *)"a\x1b[2Jb\n";
    send_message(impostor.channel, SHOAL_MESSAGE_JOIN, &join.base);
    assert_int_equal(taken(&impostor), SHOAL_OK);
    assert_int_equal(impostor.coordinator.info.info.generation, 50);
    assert_string_equal(impostor.coordinator.info.info.name, "a?[2Jb?");
    close_impostor(&impostor);
}

/* More than a stranger may say, at both steps: refused by its header alone. */
static void test_oversized(void **state) {
    (void)state;
    for (int joining = 0; joining < 2; joining++) {
        Impostor impostor;
        static unsigned char much[STRANGER + 1];
        open_impostor(&impostor);
        if (joining)
            come_to_join(&impostor);
        say(impostor.channel, joining ? SHOAL_MESSAGE_JOIN : SHOAL_MESSAGE_HELLO, much,
            sizeof much);
        assert_int_equal(taken(&impostor), SHOAL_ERR_PROTOCOL);
        close_impostor(&impostor);
    }
}

/* ---- coordinators that are not what they seem ---- */

typedef enum Deceit {
    REFUSES_AT_ONCE,
    KEY_WITHOUT_SECRET,
    KEY_WITHOUT_SECRET_OR_TOKEN,
    SHORT_NONCE,
    SHORT_KEY,
    OTHER_VERSION,
    NO_CHALLENGE,
    WELCOME_AT_ONCE,
    MALFORMED_CHALLENGE
} Deceit;

static void send_deceit(ShoalChannel *channel, Deceit deceit, const Shoal__Hello *hello) {
    unsigned char public_key[N], secret_key[N], nonce[N] = {1}, proof[N];
    unsigned char context[SHOAL_HANDSHAKE_CONTEXT_BYTES];
    ShoalAuthKey key = right_key();
    shoal_auth_keypair(public_key, secret_key);
    if (deceit == KEY_WITHOUT_SECRET || deceit == KEY_WITHOUT_SECRET_OR_TOKEN)
        memset(public_key, 0, N);
    if (deceit == KEY_WITHOUT_SECRET_OR_TOKEN)
        key = token_key("what someone guessed");
    memcpy(context, "shoal", 5);
    shoal_wire_put32(context + 5, SHOAL_PROTOCOL_VERSION);
    memcpy(context + 9, hello->public_key.data, N);
    memcpy(context + 9 + N, public_key, N);
    shoal_auth_prove(&key, SHOAL_AUTH_COORDINATOR, hello->nonce.data, nonce, context,
                     sizeof context, proof);
    Shoal__Challenge challenge = SHOAL__CHALLENGE__INIT;
    challenge.protocol_version = SHOAL_PROTOCOL_VERSION + (deceit == OTHER_VERSION);
    challenge.nonce = (ProtobufCBinaryData){N - (deceit == SHORT_NONCE), nonce};
    challenge.public_key = (ProtobufCBinaryData){N - (deceit == SHORT_KEY), public_key};
    challenge.proof = (ProtobufCBinaryData){N, proof};
    Shoal__Welcome welcome = good_welcome();
    if (deceit == REFUSES_AT_ONCE)
        shoal_handshake_refuse(channel, "evil \x1b[31m", true, true);
    else if (deceit == NO_CHALLENGE)
        send_message(channel, SHOAL_MESSAGE_HELLO, &hello->base);
    else if (deceit == WELCOME_AT_ONCE)
        send_message(channel, SHOAL_MESSAGE_WELCOME, &welcome.base);
    else if (deceit == MALFORMED_CHALLENGE)
        say(channel, SHOAL_MESSAGE_CHALLENGE, "\x0a\x20", 2);
    else
        send_message(channel, SHOAL_MESSAGE_CHALLENGE, &challenge.base);
}

static void check_deceit(Deceit deceit, ShoalStatus expected) {
    int fds[2];
    Worker worker;
    ShoalFrame frame;
    new_pair(fds);
    ShoalChannel *channel = new_channel(fds[0]);
    start_worker(&worker, fds[1], right_key());
    run_worker(&worker);
    assert_int_equal(next_frame(channel, &frame), 0);
    Shoal__Hello *hello = shoal__hello__unpack(NULL, frame.size, frame.payload);
    assert_non_null(hello);
    send_deceit(channel, deceit, hello);
    shoal__hello__free_unpacked(hello, NULL);
    pthread_join(worker.thread, NULL);
    assert_int_equal(worker.status, expected);
    /* Anyone can refuse before a proof: it must cost no state. */
    assert_false(worker.joined.forget);
    if (deceit == REFUSES_AT_ONCE)
        assert_non_null(strstr(worker.err.text, "refuses: evil ?[31m"));
    /* Nothing but the Hello was said: neither proof nor name. */
    if (deceit != NO_CHALLENGE)
        assert_int_equal(next_frame(channel, &frame), SHOAL_ERR_LOST);
    shoal_channel_destroy(channel);
}

static void test_deceitful_coordinators(void **state) {
    (void)state;
    check_deceit(REFUSES_AT_ONCE, SHOAL_ERR_ARGUMENT);
    check_deceit(KEY_WITHOUT_SECRET, SHOAL_ERR_PROTOCOL);
    check_deceit(KEY_WITHOUT_SECRET_OR_TOKEN, SHOAL_ERR_AUTH);
    check_deceit(SHORT_NONCE, SHOAL_ERR_PROTOCOL);
    check_deceit(SHORT_KEY, SHOAL_ERR_PROTOCOL);
    check_deceit(OTHER_VERSION, SHOAL_ERR_PROTOCOL);
    check_deceit(NO_CHALLENGE, SHOAL_ERR_PROTOCOL);
    check_deceit(WELCOME_AT_ONCE, SHOAL_ERR_PROTOCOL);
    check_deceit(MALFORMED_CHALLENGE, SHOAL_ERR_PROTOCOL);
}

/* Joins, and is answered by what `reply` sends. */
static void answered(void (*reply)(Coordinator *, const void *), const void *argument,
                     bool with_job, Worker *worker) {
    int fds[2];
    Coordinator coordinator;
    new_pair(fds);
    open_coordinator(&coordinator, fds[0]);
    start_worker(worker, fds[1], right_key());
    if (!with_job) {
        worker->request.job_id = NULL;
        worker->request.held = false;
    }
    run_worker(worker);
    assert_int_equal(greet(&coordinator), 0);
    reply(&coordinator, argument);
    shoal_channel_destroy(coordinator.channel);
    pthread_join(worker->thread, NULL);
}

typedef struct Refusal {
    bool for_good, forget;
} Refusal;

static void reply_refusal(Coordinator *coordinator, const void *argument) {
    const Refusal *refusal = argument;
    shoal_handshake_refuse(coordinator->channel, "no room", refusal->for_good, refusal->forget);
}

static void test_refusals(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        Refusal refusal = {i & 1, i & 2};
        Worker worker;
        answered(reply_refusal, &refusal, true, &worker);
        assert_int_equal(worker.status, refusal.for_good ? SHOAL_ERR_ARGUMENT : SHOAL_ERR_LOST);
        assert_int_equal(worker.joined.forget, refusal.forget);
        assert_non_null(strstr(worker.err.text, ": no room"));
    }
}

static void reply_welcome(Coordinator *coordinator, const void *argument) {
    send_welcome(coordinator, argument);
}

static void reply_garbage(Coordinator *coordinator, const void *argument) {
    say(coordinator->channel, *(const uint16_t *)argument, "\x10", 1);
}

static void reply_nothing(Coordinator *coordinator, const void *argument) {
    (void)coordinator;
    (void)argument;
}

static void assert_welcome(const Shoal__Welcome *welcome, bool with_job, ShoalStatus expected) {
    Worker worker;
    answered(reply_welcome, welcome, with_job, &worker);
    assert_int_equal(worker.status, expected);
}

static void test_fields_of_welcome(void **state) {
    (void)state;
    Shoal__Welcome good = good_welcome();
    assert_welcome(&good, true, SHOAL_OK);
    assert_welcome(&good, false, SHOAL_ERR_PROTOCOL); /* it has no job */
    good.wire_format = SHOAL_WIRE_BF16;
    good.worker_id = INT32_MAX;
    good.window = SHOAL_CLUSTER_MAX_WINDOW;
    good.keep_state = false;
    assert_welcome(&good, true, SHOAL_OK);
    good.has_job = false;
    assert_welcome(&good, false, SHOAL_OK);
    good.job_id.data = (uint8_t *)OTHER;
    assert_welcome(&good, true, SHOAL_OK);
    for (int fault = 0; fault < 14; fault++) {
        Shoal__Welcome bad = good_welcome();
        if (fault < 2)
            bad.window = fault ? SHOAL_CLUSTER_MAX_WINDOW + 1 : 0;
        else if (fault < 4)
            bad.heartbeat_ms = fault == 2 ? 0 : UINT32_MAX;
        else if (fault < 6)
            bad.silence_ms = fault == 4 ? 0 : UINT32_MAX;
        else if (fault < 8)
            bad.wire_format = fault == 6 ? SHOAL_WIRE_BF16 + 1 : UINT32_MAX;
        else if (fault < 10)
            bad.job_id.len = fault == 8 ? 0 : 15;
        else if (fault == 10)
            bad.worker_id = UINT32_MAX;
        else if (fault == 11)
            bad.job_id.data = (uint8_t *)OTHER; /* but has_job */
        else if (fault == 12)
            bad.has_job = false; /* but keep_state */
        else
            bad.job_id = (ProtobufCBinaryData){17, (uint8_t *)"seventeen letters"};
        assert_welcome(&bad, true, SHOAL_ERR_PROTOCOL);
    }
}

static void test_no_welcome(void **state) {
    (void)state;
    for (uint16_t type = 0; type < 24; type++) {
        Worker worker;
        answered(reply_garbage, &type, true, &worker);
        assert_int_equal(worker.status, SHOAL_ERR_PROTOCOL);
        assert_false(worker.joined.forget);
    }
    Worker worker;
    answered(reply_nothing, NULL, true, &worker);
    assert_int_equal(worker.status, SHOAL_ERR_LOST);
}

/* ---- messages ---- */

/* n times the same few bytes, unpacked. */
static bool unpacks(const ProtobufCMessageDescriptor *descriptor, const char *bytes, size_t size,
                    size_t n) {
    unsigned char *payload = malloc(size * n + 1);
    for (size_t i = 0; i < n; i++)
        memcpy(payload + i * size, bytes, size);
    ShoalFrame frame = {.payload = payload, .size = size * n};
    ProtobufCMessage *message = shoal_message_unpack(descriptor, &frame);
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
    free(payload);
    return message != NULL;
}

/* Fields that cost more memory than they have bytes: known, unknown, messages, and inside these. */
static void test_too_many_fields(void **state) {
    (void)state;
    const ProtobufCMessageDescriptor *descriptor = &shoal__generation__descriptor;
    const size_t most = SHOAL_MESSAGE_FIELDS_MAX;
    assert_true(unpacks(descriptor, "", 0, 0));
    assert_true(unpacks(descriptor, "\x78\0", 2, most));
    assert_false(unpacks(descriptor, "\x78\0", 2, most + 1));
    assert_true(unpacks(descriptor, "\x08\x01", 2, most));
    assert_false(unpacks(descriptor, "\x08\x01", 2, most + 1));
    assert_true(unpacks(descriptor, "\x1a\0", 2, most));
    assert_false(unpacks(descriptor, "\x1a\0", 2, most + 1));
    assert_true(unpacks(descriptor, "\x1a\x04\x08\1\x18\2", 6, most / 3));
    assert_false(unpacks(descriptor, "\x1a\x04\x08\1\x18\2", 6, most / 3 + 1));
    /* Not in bytes that are no message. */
    assert_true(unpacks(descriptor, "\x22\x04\x08\1\x18\2", 6, most));
    assert_false(unpacks(descriptor, "\x1a\x05\x08\1", 4, 1)); /* cut off */
    assert_false(unpacks(descriptor, "\x00\x00", 2, 1));
    assert_false(unpacks(descriptor, "\x7b\x7c", 2, 1));
}

/* ---- texts ---- */

static void test_text(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"phone", "phone"},
        {"M\xc3\xbcnchen \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x90\x9f",
         "M\xc3\xbcnchen \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x90\x9f"},
        {"a\tb\nc\x7f\x1b[0m", "a?b?c??[0m"},
        {"\xc2\x80\xc2\x9f\xc2\xa0", "??\xc2\xa0"},
        {"\xe2\x80\xae"
         "abc\xe2\x81\xa6\xe2\x80\xa8",
         "?abc??"},
        {"\xff\xfe\x80", "???"},
        {"\xc3", "?"},
        {"\xe6\x97", "??"},
        {"\xc0\xaf\xe0\x80\xaf", "?????"},                     /* longer than need be */
        {"\xed\xa0\x80", "???"},                               /* half of a pair */
        {"\xf4\x90\x80\x80\xf8\x88\x80\x80\x80", "?????????"}, /* too high */
        {"1234567890123456789", "123456789012345"},
        {"12345678901234\xc3\xbc", "12345678901234"},
        {"1234567890123\xc3\xbc", "1234567890123\xc3\xbc"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[16];
        bool whole = strlen(cases[i][1]) < sizeof text;
        char large[64];
        shoal_message_text(cases[i][0], large, sizeof large);
        if (whole && strlen(cases[i][0]) < sizeof text)
            assert_string_equal(large, cases[i][1]);
        shoal_message_text(cases[i][0], text, sizeof text);
        if (whole)
            assert_string_equal(text, cases[i][1]);
        assert_true(strlen(text) < sizeof text);
    }
}

static void test_corpus(void **state) {
    (void)state;
    glob_t found;
    assert_int_equal(glob(SHOAL_SOURCE "/tests/fuzz/corpus/wire/*", 0, NULL, &found), 0);
    assert_true(found.gl_pathc > 10);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        ShoalError err = {0};
        unsigned char *bytes;
        size_t size;
        if (shoal_file_read(found.gl_pathv[i], &bytes, &size, &err))
            fail_msg("%s", err.text);
        /* In storage of exactly that size, for the sanitizer. */
        uint8_t *exact = malloc(size ? size : 1);
        memcpy(exact, bytes, size);
        assert_int_equal(fuzz_wire(exact, size), 0);
        free(exact);
        shoal_free(bytes);
    }
    globfree(&found);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_sides_learn_all),
        cmocka_unit_test(test_plain_samples_where_all_is_encrypted),
        cmocka_unit_test(test_a_fresh_worker),
        cmocka_unit_test(test_wrong_token),
        cmocka_unit_test(test_other_version),
        cmocka_unit_test(test_malformed_hello),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_join_without_the_token),
        cmocka_unit_test(test_join_with_another_proof),
        cmocka_unit_test(test_fields_of_join),
        cmocka_unit_test(test_generation_is_at_least_the_versions),
        cmocka_unit_test(test_oversized),
        cmocka_unit_test(test_deceitful_coordinators),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_fields_of_welcome),
        cmocka_unit_test(test_no_welcome),
        cmocka_unit_test(test_too_many_fields),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_corpus),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
