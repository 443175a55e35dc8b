/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "built_net.h"
#include "solver_text.h"
#include "train/replica.h"

static const char *const NET =
    "name: 'small' "
    "layer { name: 'data' type: 'DummyData' top: 'data' top: 'label' dummy_data_param { "
    "shape { dim: 6 dim: 2 dim: 9 dim: 9 } shape { dim: 6 } "
    "data_filler { type: 'gaussian' std: 1 } data_filler { type: 'constant' value: 1 } } } "
    "layer { name: 'conv' type: 'Convolution' bottom: 'data' top: 'conv' convolution_param { "
    "num_output: 3 kernel_size: 3 weight_filler { type: 'xavier' } } } "
    "layer { name: 'pool' type: 'Pooling' bottom: 'conv' top: 'pool' pooling_param { "
    "kernel_size: 2 stride: 2 } } "
    "layer { name: 'relu' type: 'ReLU' bottom: 'pool' top: 'pool' } "
    "layer { name: 'drop' type: 'Dropout' bottom: 'pool' top: 'drop' } "
    "layer { name: 'ip' type: 'InnerProduct' bottom: 'drop' top: 'ip' inner_product_param { "
    "num_output: 4 weight_filler { type: 'xavier' } } } "
    "layer { name: 'acc' type: 'Accuracy' bottom: 'ip' bottom: 'label' top: 'acc' } "
    "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'ip' bottom: 'label' top: 'loss' } ";

/* A job with NET as train net and as test net, and no file. */
static void make_job(ShoalJob *job, const char *solver) {
    *job = (ShoalJob){.seed = 5, .workers = 1, .n_nets = 2};
    job->solver = solver_parse("base_lr: 0.05 lr_policy: 'fixed' momentum: 0.9", solver);
    job->nets = shoal_calloc(2, sizeof *job->nets);
    built_net_parse(NET, &job->nets[0].model);
    built_net_parse(NET, &job->nets[1].model);
}

typedef struct Fixture {
    ShoalJob job;
    ShoalReplica *replica;
    ShoalSlot *slot;
    ShoalResult result;
    ShoalError err;
} Fixture;

static void open_fixture(Fixture *f, const char *solver, int threads) {
    *f = (Fixture){0};
    make_job(&f->job, solver);
    const ShoalReplicaOptions options = {.threads = threads, .level = SHOAL_CPU_C};
    if (shoal_replica_create(&f->job, &options, &f->replica, &f->err) ||
        shoal_replica_result_init(f->replica, &f->result, &f->err))
        fail_msg("%s", f->err.text);
    f->slot = shoal_slot_create(f->replica);
    assert_non_null(f->slot);
}

static void close_fixture(Fixture *f) {
    shoal_replica_result_close(&f->result);
    shoal_slot_destroy(f->slot);
    shoal_replica_destroy(f->replica);
    shoal_job_close(&f->job);
}

static void run(Fixture *f, ShoalRound round) {
    *shoal_slot_round(f->slot) = round;
    if (shoal_replica_run(f->replica, f->slot, NULL, 0, &f->result, &f->err))
        fail_msg("%s", f->err.text);
}

/* Iteration `iter`, of shares of 4 and 2 samples when it is odd; then a test every fifth time. */
static void iterate(Fixture *f, int iter) {
    const ShoalRound whole = {.kind = SHOAL_STEP_TRAIN,
                              .iter = iter,
                              .rate = 0.05f,
                              .first_sample = (uint64_t)iter * 6,
                              .count = 6,
                              .batch = 6,
                              .clear = true,
                              .update = true};
    if (iter % 2 == 0) {
        run(f, whole);
    } else {
        ShoalRound part = whole;
        part.count = 4;
        part.update = false;
        run(f, part);
        part.first_sample += 4;
        part.count = 2;
        part.clear = false;
        part.update = true;
        run(f, part);
    }
    if (iter % 5 == 0)
        run(f, (ShoalRound){.kind = SHOAL_STEP_TEST, .net = 1, .count = 6, .batch = 6});
}

static void steady_state_allocates_nothing(void **state) {
    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        Fixture f;
        open_fixture(&f, "weight_decay: 0.01 clip_gradients: 3", threads);
        uint64_t before = shoal_memory_allocations();
        for (int iter = 0; iter < 20; iter++)
            iterate(&f, iter);
        assert_int_equal(shoal_memory_allocations(), before);
        close_fixture(&f);
    }
}

static void threads_change_no_bit(void **state) {
    (void)state;
    Fixture one, three;
    open_fixture(&one, "", 1);
    open_fixture(&three, "", 3);
    for (int iter = 0; iter < 10; iter++) {
        iterate(&one, iter);
        iterate(&three, iter);
        assert_memory_equal(&one.result.loss, &three.result.loss, sizeof(float));
    }
    ShoalNetParams a = shoal_net_params(shoal_replica_net(one.replica, 0));
    ShoalNetParams b = shoal_net_params(shoal_replica_net(three.replica, 0));
    assert_memory_equal(a.data, b.data, a.data_count * sizeof(float));
    close_fixture(&one);
    close_fixture(&three);
}

static void training_lowers_the_loss(void **state) {
    (void)state;
    Fixture f;
    open_fixture(&f, "", 1);
    iterate(&f, 0);
    run(&f, (ShoalRound){.kind = SHOAL_STEP_TEST, .net = 1, .count = 6, .batch = 6});
    assert_int_equal(f.result.output_count, 2); /* acc, loss */
    float first = f.result.loss;
    assert_true(f.result.outputs[1] == first);
    for (int iter = 1; iter < 60; iter++)
        iterate(&f, iter);
    run(&f, (ShoalRound){.kind = SHOAL_STEP_TEST, .net = 1, .count = 6, .batch = 6});
    assert_true(f.result.loss < first / 4);
    close_fixture(&f);
}

/* A replica made from another one's snapshot goes on to the same bits. */
static void snapshot_goes_on(void **state) {
    (void)state;
    Fixture f, g;
    open_fixture(&f, "", 1);
    for (int iter = 0; iter < 7; iter++)
        iterate(&f, iter);
    ShoalBuffer model = {0}, solver_state = {0};
    assert_int_equal(
        shoal_replica_snapshot_bytes(f.replica, 7, 0, "m", &model, &solver_state, &f.err),
        SHOAL_OK);
    g = (Fixture){0};
    make_job(&g.job, "");
    g.job.n_weights = 1;
    g.job.weights = shoal_calloc(1, sizeof *g.job.weights);
    g.job.weights[0] = (ShoalJobFile){shoal_strdup("m"), model.bytes, model.used};
    g.job.state_file = (ShoalJobFile){shoal_strdup("s"), solver_state.bytes, solver_state.used};
    assert_int_equal(shoal_caffe_unpack(&caffe__solver_state__descriptor, solver_state.bytes,
                                        solver_state.used, "s", (ProtobufCMessage **)&g.job.state,
                                        &g.err),
                     SHOAL_OK);
    const ShoalReplicaOptions options = {.threads = 1, .level = SHOAL_CPU_C};
    if (shoal_replica_create(&g.job, &options, &g.replica, &g.err) ||
        shoal_replica_result_init(g.replica, &g.result, &g.err))
        fail_msg("%s", g.err.text);
    g.slot = shoal_slot_create(g.replica);
    for (int iter = 7; iter < 12; iter++) {
        iterate(&f, iter);
        iterate(&g, iter);
    }
    ShoalNetParams a = shoal_net_params(shoal_replica_net(f.replica, 0));
    ShoalNetParams b = shoal_net_params(shoal_replica_net(g.replica, 0));
    assert_memory_equal(a.data, b.data, a.data_count * sizeof(float));
    close_fixture(&f);
    close_fixture(&g);
}

static void weights_for_nothing_are_refused(void **state) {
    (void)state;
    ShoalJob job;
    make_job(&job, "");
    job.n_weights = 1;
    job.weights = shoal_calloc(1, sizeof *job.weights);
    job.weights[0] = (ShoalJobFile){shoal_strdup("m"), shoal_calloc(1, 1), 0};
    const ShoalReplicaOptions options = {.threads = 1, .level = SHOAL_CPU_C};
    ShoalReplica *replica = NULL;
    ShoalError err = {0};
    assert_int_equal(shoal_replica_create(&job, &options, &replica, &err), SHOAL_ERR_MODEL);
    assert_string_equal(err.text, "m: holds no weights for any layer of this net (0 layers in the "
                                  "file); weights go by the names of layers");
    assert_null(replica);
    shoal_job_close(&job);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steady_state_allocates_nothing),  cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(training_lowers_the_loss),        cmocka_unit_test(snapshot_goes_on),
        cmocka_unit_test(weights_for_nothing_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
