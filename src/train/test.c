/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/stop.h"
#include "data/datum.h"
#include "data/sampler.h"
#include "shoal/shoal.h"
#include "train/engine.h"
#include "train/replica.h"
#include "train/stream.h"

/* `shoal test`: a net in phase TEST over its data (BVLC Caffe: tools/caffe.cpp, test). */

enum { DEFAULT_ITERATIONS = 50 };

typedef struct Test {
    const ShoalTestOptions *options;
    ShoalJob job;
    ShoalStreams streams;
    ShoalReplica *replica;
    ShoalSlot *slot;
    ShoalResult result;
    ShoalOutput *shown;
    double *sums;
} Test;

static ShoalStatus prepare(Test *test, ShoalError *err) {
    ShoalReplicaOptions options = {.phase_test = true, .writes_files = true};
    ShoalStatus status = shoal_job_load_net(test->options->model, test->options->weights,
                                            &test->options->choice, &test->job, err);
    if (!status)
        status = shoal_streams_open(&test->job, 0, CAFFE__PHASE__TEST, &test->streams, err);
    if (!status)
        status = shoal_engine_choose(&test->options->engine, 0, &options, err);
    if (!status)
        status = shoal_replica_create(&test->job, &options, &test->replica, err);
    if (!status)
        status = shoal_replica_result_init(test->replica, &test->result, err);
    if (status)
        return status;
    test->slot = shoal_slot_create(test->replica);
    test->shown = shoal_calloc(test->result.output_capacity, sizeof *test->shown);
    test->sums = shoal_calloc(test->result.output_capacity, sizeof *test->sums);
    return test->slot && test->shown && test->sums
               ? SHOAL_OK
               : shoal_error_memory(err, "the test", test->result.output_capacity);
}

static void show(Test *test, ShoalEventKind kind, int iter, double divide_by, double images_per_s) {
    const ShoalNet *net = shoal_replica_net(test->replica, 0);
    int n = 0;
    for (int o = 0; o < shoal_net_outputs(net); o++) {
        const ShoalBlob *blob = shoal_net_output(net, o);
        for (size_t k = 0; k < blob->count; k++, n++)
            test->shown[n] =
                (ShoalOutput){.name = blob->name,
                              .value = divide_by > 0 ? (float)(test->sums[n] / divide_by)
                                                     : test->result.outputs[n],
                              .loss_weight = shoal_net_output_loss_weight(net, o)};
    }
    ShoalEvent event = {.kind = kind,
                        .iter = iter,
                        .outputs = test->shown,
                        .n_outputs = n,
                        .images_per_s = images_per_s};
    if (test->options->on_event)
        test->options->on_event(test->options->context, &event);
}

static ShoalStatus run_batch(Test *test, int number, ShoalError *err) {
    int batch = shoal_net_batch(shoal_replica_net(test->replica, 0));
    ShoalRound *round = shoal_slot_round(test->slot);
    *round = (ShoalRound){.kind = SHOAL_STEP_TEST,
                          .first_sample = (uint64_t)number * (uint64_t)batch,
                          .count = batch,
                          .batch = batch};
    ShoalStatus status = shoal_streams_stage(&test->streams, test->slot, err);
    if (!status)
        status = shoal_replica_run(test->replica, test->slot, NULL, 0, &test->result, err);
    if (status)
        return status;
    for (size_t k = 0; k < test->result.output_count; k++)
        test->sums[k] += (double)test->result.outputs[k];
    show(test, SHOAL_EVENT_TEST_BATCH, number, 0, 0);
    return SHOAL_OK;
}

static ShoalStatus run(Test *test, ShoalError *err) {
    int iterations = test->options->iterations > 0 ? test->options->iterations : DEFAULT_ITERATIONS;
    uint64_t start = shoal_clock_ns();
    for (int i = 0; i < iterations; i++) {
        if (shoal_stop_asked(test->options->stop) == SHOAL_STOP_NOW)
            return shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request");
        ShoalStatus status = run_batch(test, i, err);
        if (status)
            return status;
    }
    double seconds = (double)(shoal_clock_ns() - start) * 1e-9;
    double images = (double)iterations * shoal_net_batch(shoal_replica_net(test->replica, 0));
    show(test, SHOAL_EVENT_TEST, iterations, iterations, seconds > 0 ? images / seconds : 0);
    return SHOAL_OK;
}

ShoalStatus shoal_test(const ShoalTestOptions *options, ShoalError *error) {
    if (!options->model || !options->weights)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT, "give a model and its weights");
    Test test = {.options = options};
    ShoalStatus status = prepare(&test, error);
    if (!status)
        status = run(&test, error);
    shoal_free(test.shown);
    shoal_free(test.sums);
    shoal_replica_result_close(&test.result);
    shoal_slot_destroy(test.slot);
    shoal_replica_destroy(test.replica);
    shoal_streams_close(&test.streams);
    shoal_job_close(&test.job);
    return status;
}
