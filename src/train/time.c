/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/stop.h"
#include "shoal/shoal.h"
#include "train/replica.h"
#include "train/stream.h"

/* `shoal time`: forward and backward passes, layer by layer (BVLC Caffe: tools/caffe.cpp, time). */

enum { DEFAULT_ITERATIONS = 50 };

typedef struct Timer {
    ShoalReplica *replica;
    ShoalNet *net;
    const ShoalCompute *compute;
    ShoalTimes times;
} Timer;

static double elapsed_ms(uint64_t start_ns) {
    return (double)(shoal_clock_ns() - start_ns) * 1e-6;
}

static ShoalStatus forward(Timer *timer, ShoalError *err) {
    for (int i = 0; i < timer->times.n_layers; i++) {
        uint64_t start = shoal_clock_ns();
        ShoalStatus status = shoal_net_forward_layer(timer->net, i, timer->compute, err);
        if (status)
            return status;
        timer->times.layers[i].forward_ms += elapsed_ms(start);
    }
    return SHOAL_OK;
}

static void backward(Timer *timer) {
    shoal_net_seed_gradient(timer->net, 1);
    for (int i = timer->times.n_layers - 1; i >= 0; i--) {
        uint64_t start = shoal_clock_ns();
        shoal_net_backward_layer(timer->net, i, timer->compute);
        timer->times.layers[i].backward_ms += elapsed_ms(start);
    }
}

static ShoalStatus iterate(Timer *timer, ShoalError *err) {
    uint64_t start = shoal_clock_ns();
    ShoalStatus status = forward(timer, err);
    if (status)
        return status;
    timer->times.forward_ms += elapsed_ms(start);
    start = shoal_clock_ns();
    backward(timer);
    timer->times.backward_ms += elapsed_ms(start);
    return SHOAL_OK;
}

static void reset(ShoalTimes *times) {
    for (int i = 0; i < times->n_layers; i++)
        times->layers[i].forward_ms = times->layers[i].backward_ms = 0;
    times->forward_ms = times->backward_ms = times->iteration_ms = 0;
}

static void divide(ShoalTimes *times) {
    for (int i = 0; i < times->n_layers; i++) {
        times->layers[i].forward_ms /= times->iterations;
        times->layers[i].backward_ms /= times->iterations;
    }
    times->forward_ms /= times->iterations;
    times->backward_ms /= times->iterations;
    times->iteration_ms /= times->iterations;
}

static ShoalStatus init_times(Timer *timer, int iterations, ShoalError *err) {
    ShoalTimes *times = &timer->times;
    times->iterations = iterations > 0 ? iterations : DEFAULT_ITERATIONS;
    times->batch = shoal_net_batch(timer->net);
    times->memory_bytes = shoal_replica_bytes(timer->replica);
    times->layers = shoal_calloc((size_t)shoal_net_layers(timer->net), sizeof *times->layers);
    if (!times->layers)
        return shoal_error_memory(err, "the times", sizeof *times->layers);
    for (int i = 0; i < shoal_net_layers(timer->net); i++) {
        const Caffe__LayerParameter *param = shoal_net_layer(timer->net, i)->param;
        ShoalLayerTime *row = &times->layers[times->n_layers++];
        row->name = shoal_strdup(param->name);
        row->type = shoal_strdup(param->type);
        if (!row->name || !row->type)
            return shoal_error_memory(err, "the times", strlen(param->name));
    }
    return SHOAL_OK;
}

static ShoalStatus measure(Timer *timer, const ShoalTimeOptions *options, ShoalError *err) {
    ShoalStatus status = iterate(timer, err); /* warms caches and first touches memory */
    reset(&timer->times);
    for (int i = 0; i < timer->times.iterations && !status; i++) {
        if (shoal_stop_asked(options->stop) == SHOAL_STOP_NOW)
            return shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request");
        uint64_t start = shoal_clock_ns();
        status = iterate(timer, err);
        timer->times.iteration_ms += elapsed_ms(start);
    }
    divide(&timer->times);
    return status;
}

static ShoalStatus stage_first_batch(ShoalReplica *replica, ShoalStreams *streams, ShoalSlot *slot,
                                     ShoalError *err) {
    int batch = shoal_net_batch(shoal_replica_net(replica, 0));
    *shoal_slot_round(slot) =
        (ShoalRound){.kind = SHOAL_STEP_TRAIN, .count = batch, .batch = batch};
    ShoalStatus status = shoal_streams_stage(streams, slot, err);
    shoal_slot_bind(slot);
    return status;
}

static ShoalStatus time_job(ShoalJob *job, const ShoalTimeOptions *options, ShoalTimes *times,
                            ShoalError *err) {
    ShoalReplicaOptions replica_options = {
        .threads = options->threads > 0 ? options->threads : shoal_cpu_cores(), .no_solver = true};
    ShoalStreams streams = {0};
    Timer timer = {0};
    ShoalSlot *slot = NULL;
    ShoalStatus status = shoal_streams_open(job, 0, CAFFE__PHASE__TRAIN, &streams, err);
    if (!status)
        status = shoal_cpu_level_choose(options->cpu, &replica_options.level, err);
    if (!status)
        status = shoal_replica_create(job, &replica_options, &timer.replica, err);
    if (!status && !(slot = shoal_slot_create(timer.replica)))
        status = shoal_error_memory(err, "a slot", sizeof(void *));
    if (!status) {
        timer.net = shoal_replica_net(timer.replica, 0);
        timer.compute = shoal_replica_compute(timer.replica);
        status = stage_first_batch(timer.replica, &streams, slot, err);
    }
    if (!status)
        status = init_times(&timer, options->iterations, err);
    if (!status)
        status = measure(&timer, options, err);
    if (!status)
        *times = timer.times;
    else
        shoal_times_close(&timer.times);
    shoal_slot_destroy(slot);
    shoal_replica_destroy(timer.replica);
    shoal_streams_close(&streams);
    return status;
}

ShoalStatus shoal_time(const ShoalTimeOptions *options, ShoalTimes *times, ShoalError *error) {
    if (!options->model)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT, "no model is given");
    ShoalJob job;
    ShoalStatus status = shoal_job_load_net(options->model, NULL, &job, error);
    if (status)
        return status;
    status = time_job(&job, options, times, error);
    shoal_job_close(&job);
    return status;
}

void shoal_times_close(ShoalTimes *times) {
    for (int i = 0; i < times->n_layers; i++) {
        shoal_free((void *)times->layers[i].name);
        shoal_free((void *)times->layers[i].type);
    }
    shoal_free(times->layers);
    *times = (ShoalTimes){0};
}
