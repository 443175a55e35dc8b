/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/error.h"
#include "built_net.h"
#include "solver_text.h"
#include "train/replica.h"
#include "unit/collective/ring_cluster.h"

/* Replicas of several workers, each with a thread and a ring of its own: sums while backward goes
 * on, states that go from one to another, rounds that are given up. */

enum { BATCH = 12, RANKS = 3, PLACES = BATCH };

static const char *const NET =
    "name: 'small' "
    "layer { name: 'data' type: 'DummyData' top: 'data' top: 'label' dummy_data_param { "
    "shape { dim: 12 dim: 2 dim: 9 dim: 9 } shape { dim: 12 } "
    "data_filler { type: 'gaussian' std: 1 } data_filler { type: 'constant' value: 1 } } } "
    "layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv' convolution_param { "
    "num_output: 3 kernel_size: 3 weight_filler { type: 'xavier' } } } "
    "layer { name: 'bn' type: 'BatchNorm' bottom: 'conv' top: 'bn' } "
    "layer { name: 'relu' type: 'ReLU' bottom: 'bn' top: 'bn' } "
    "layer { name: 'drop' type: 'Dropout' bottom: 'bn' top: 'drop' } "
    "layer { name: 'ip' type: 'InnerProduct' bottom: 'drop' top: 'ip' inner_product_param { "
    "num_output: 4 weight_filler { type: 'xavier' } } } "
    "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'ip' bottom: 'label' top: 'loss' } ";

typedef struct Member {
    ShoalJob job;
    ShoalReplica *replica;
    ShoalSlot *slot;
    ShoalResult result;
    ShoalError err;
} Member;

static void open_member(Member *m, bool residual) {
    *m = (Member){0};
    m->job = (ShoalJob){.seed = 5, .workers = 1, .n_nets = 1};
    m->job.solver = solver_parse("base_lr: 0.05 lr_policy: 'fixed' momentum: 0.9", "");
    m->job.nets = shoal_calloc(1, sizeof *m->job.nets);
    built_net_parse(NET, &m->job.nets[0].model);
    const ShoalReplicaOptions options = {.threads = 1, .level = SHOAL_CPU_C, .residual = residual};
    if (shoal_replica_create(&m->job, &options, &m->replica, &m->err) ||
        shoal_replica_result_init(m->replica, &m->result, &m->err))
        fail_msg("%s", m->err.text);
    m->slot = shoal_slot_create(m->replica);
    assert_non_null(m->slot);
}

static void close_member(Member *m) {
    shoal_replica_result_close(&m->result);
    shoal_slot_destroy(m->slot);
    shoal_replica_destroy(m->replica);
    shoal_job_close(&m->job);
}

static ShoalClusterVersion version(uint64_t updates, uint64_t generation) {
    return (ShoalClusterVersion){.held = true, .updates = updates, .generation = generation};
}

static void seed(Member *m) {
    assert_int_equal(shoal_replica_seed(m->replica, NULL, 0, NULL, version(0, 1), 0, &m->err),
                     SHOAL_OK);
}

/* Samples first .. first + count - 1 of iteration `iter`'s batch. */
static ShoalStatus iterate(Member *m, ShoalCollective *collective, int iter, int first, int count) {
    ShoalRound *round = shoal_slot_round(m->slot);
    uint32_t *places = shoal_slot_places(m->slot);
    for (int i = 0; i < count; i++)
        places[i] = (uint32_t)(first + i);
    *round = (ShoalRound){.kind = SHOAL_STEP_TRAIN,
                          .iter = iter,
                          .rate = 0.05f,
                          .first_sample = (uint64_t)iter * BATCH,
                          .count = count,
                          .places = places,
                          .batch = BATCH,
                          .clear = true,
                          .update = true};
    return shoal_replica_run(m->replica, m->slot, collective, 1, &m->result, &m->err);
}

/* Everything that makes up a state, in one block of the caller's. */
static size_t copy_state(const Member *m, float **out) {
    ShoalNetParams params = shoal_net_params(shoal_replica_net(m->replica, 0));
    *out = malloc(params.data_count * sizeof(float));
    memcpy(*out, params.data, params.data_count * sizeof(float));
    return params.data_count * sizeof(float);
}

static void assert_same_state(const Member *a, const Member *b) {
    float *x, *y;
    size_t size = copy_state(a, &x);
    assert_int_equal(copy_state(b, &y), size);
    assert_memory_equal(x, y, size);
    free(x);
    free(y);
}

/* ---- what the ranks of a cluster do ---- */

typedef struct Script {
    Member members[RANKS];
    unsigned char needy[RANKS];
    int shares[RANKS]; /* samples of each rank */
    int from, to;      /* iterations */
    ShoalClusterVersion version;
    int cut; /* this rank closes its ring instead of giving its state; -1: none */
} Script;

static void *play(void *argument) {
    Rank *rank = argument;
    Script *script = rank->context;
    Member *m = &script->members[rank->rank];
    ShoalRingConfig config = config_of(rank);
    rank->status = shoal_ring_connect(rank->ring, &config, shoal_clock_ms() + 20000, &rank->err);
    if (rank->status)
        return NULL;
    if (script->cut == (int)rank->rank) {
        shoal_ring_disconnect(rank->ring);
        return NULL;
    }
    int first = 0;
    for (unsigned r = 0; r < rank->rank; r++)
        first += script->shares[r];
    rank->status = shoal_replica_begin(m->replica, collective_of(rank), script->needy,
                                       script->version, 0, &rank->err);
    for (int iter = script->from; iter < script->to && !rank->status; iter++)
        rank->status = iterate(m, collective_of(rank), iter, first, script->shares[rank->rank]);
    if (rank->status) {
        shoal_ring_disconnect(rank->ring);
        shoal_replica_rollback(m->replica);
    }
    return NULL;
}

static void play_all(Cluster *cluster, Script *script) {
    cluster->generation++;
    for (unsigned r = 0; r < cluster->size; r++) {
        cluster->ranks[r].context = script;
        shoal_error_clear(&cluster->ranks[r].err);
        assert_int_equal(pthread_create(&cluster->ranks[r].thread, NULL, play, &cluster->ranks[r]),
                         0);
    }
    for (unsigned r = 0; r < cluster->size; r++)
        pthread_join(cluster->ranks[r].thread, NULL);
}

static void assert_all_went_well(const Cluster *cluster, const Script *script) {
    for (unsigned r = 0; r < cluster->size; r++)
        if (cluster->ranks[r].status)
            fail_msg("rank %u: %s %s", r, cluster->ranks[r].err.text, script->members[r].err.text);
}

static void open_all(Cluster *cluster, Script *script, unsigned n, ShoalWireFormat format) {
    assert_int_equal(shoal_auth_init(NULL), SHOAL_OK);
    open_cluster(cluster, n);
    cluster->format = format;
    *script = (Script){.cut = -1};
    for (unsigned r = 0; r < n; r++) {
        open_member(&script->members[r], format != SHOAL_WIRE_FP32);
        script->needy[r] = r > 0;
    }
    seed(&script->members[0]);
    script->version = version(0, 1);
}

static void close_all(Cluster *cluster, Script *script) {
    for (unsigned r = 0; r < cluster->size; r++)
        close_member(&script->members[r]);
    close_cluster(cluster);
}

static void one_state_goes_to_all(void **state) {
    (void)state;
    for (int format = SHOAL_WIRE_FP32; format <= SHOAL_WIRE_BF16; format++) {
        Cluster cluster;
        Script script;
        open_all(&cluster, &script, RANKS, (ShoalWireFormat)format);
        memcpy(script.shares, (int[RANKS]){5, 4, 3}, sizeof script.shares);
        script.to = 6;
        play_all(&cluster, &script);
        assert_all_went_well(&cluster, &script);
        for (unsigned r = 0; r < RANKS; r++) {
            ShoalClusterVersion held = shoal_replica_version(script.members[r].replica);
            assert_true(held.held);
            assert_int_equal(held.updates, 6);
            assert_same_state(&script.members[0], &script.members[r]);
        }
        close_all(&cluster, &script);
    }
}

/* While the others compute the next iteration: who comes has no samples in it. */
static void a_late_one_gets_the_state_while_the_others_go_on(void **state) {
    (void)state;
    Cluster two, three;
    Script script;
    open_all(&three, &script, RANKS, SHOAL_WIRE_FP32);
    two = three;
    two.size = 2;
    for (unsigned r = 0; r < 2; r++)
        two.ranks[r].cluster = &two;
    memcpy(script.shares, (int[RANKS]){6, 6, 0}, sizeof script.shares);
    script.to = 3;
    play_all(&two, &script);
    assert_all_went_well(&two, &script);
    three.generation = two.generation;
    memcpy(script.needy, (unsigned char[RANKS]){0, 0, 1}, RANKS);
    script.version = version(3, 1);
    script.from = 3;
    script.to = 4;
    play_all(&three, &script);
    assert_all_went_well(&three, &script);
    assert_same_state(&script.members[0], &script.members[2]);
    assert_int_equal(shoal_replica_version(script.members[2].replica).updates, 4);
    memcpy(script.shares, (int[RANKS]){4, 4, 4}, sizeof script.shares);
    memset(script.needy, 0, RANKS);
    script.from = 4;
    script.to = 6;
    play_all(&three, &script);
    assert_all_went_well(&three, &script);
    assert_same_state(&script.members[1], &script.members[2]);
    close_all(&three, &script);
}

/* The only one who holds the newer state is lost on the way: the older one is still there. */
static void an_older_state_outlives_a_copy_that_fails(void **state) {
    (void)state;
    Cluster cluster;
    Script script;
    open_all(&cluster, &script, 2, SHOAL_WIRE_FP32);
    memcpy(script.shares, (int[RANKS]){6, 6}, sizeof script.shares);
    script.to = 2;
    play_all(&cluster, &script);
    assert_all_went_well(&cluster, &script);
    float *before;
    size_t size = copy_state(&script.members[1], &before);
    script.cut = 0;
    memcpy(script.needy, (unsigned char[RANKS]){0, 1}, 2);
    script.version = version(3, 2);
    play_all(&cluster, &script);
    assert_int_not_equal(cluster.ranks[1].status, SHOAL_OK);
    ShoalClusterVersion held = shoal_replica_version(script.members[1].replica);
    assert_true(held.held);
    assert_int_equal(held.updates, 2);
    float *after;
    assert_int_equal(copy_state(&script.members[1], &after), size);
    assert_memory_equal(before, after, size);
    free(before);
    free(after);
    close_all(&cluster, &script);
}

/* A round that is given up leaves nothing behind, not even in the statistics. */
static void a_cancelled_round_leaves_no_trace(void **state) {
    (void)state;
    Member a, b;
    open_member(&a, false);
    open_member(&b, false);
    seed(&a);
    seed(&b);
    for (int iter = 0; iter < 3; iter++) {
        assert_int_equal(iterate(&a, NULL, iter, 0, BATCH), SHOAL_OK);
        assert_int_equal(iterate(&b, NULL, iter, 0, BATCH), SHOAL_OK);
    }
    /* A forward pass that moved the statistics, then the end. */
    ShoalNetParams params = shoal_net_params(shoal_replica_net(a.replica, 0));
    assert_true(params.statistic_count > 0);
    params.data[params.data_count - params.statistic_count] += 1;
    shoal_replica_cancel(a.replica, true);
    assert_int_equal(iterate(&a, NULL, 3, 0, BATCH), SHOAL_ERR_STOPPED);
    shoal_replica_rollback(a.replica);
    assert_same_state(&a, &b);
    shoal_replica_cancel(a.replica, false);
    shoal_error_clear(&a.err);
    assert_int_equal(iterate(&a, NULL, 3, 0, BATCH), SHOAL_OK);
    assert_int_equal(iterate(&b, NULL, 3, 0, BATCH), SHOAL_OK);
    assert_same_state(&a, &b);
    close_member(&a);
    close_member(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_state_goes_to_all),
        cmocka_unit_test(a_late_one_gets_the_state_while_the_others_go_on),
        cmocka_unit_test(an_older_state_outlives_a_copy_that_fails),
        cmocka_unit_test(a_cancelled_round_leaves_no_trace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
