/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/stop.h"
#include "kernels/peak.h"
#include "shoal/shoal.h"
#include "train/dummy.h"
#include "train/engine.h"
#include "train/replica.h"
#include "train/stream.h"
#include "train/time_cost.h"

/* `shoal time`: forward and backward passes, layer by layer (BVLC Caffe: tools/caffe.cpp, time),
 * and the update. */

enum { DEFAULT_ITERATIONS = 50, MAX_BATCH = 1 << 20, DUMMY_SEED = 1 };

/* Small, so that no weight can grow beyond all bounds on random data. */
static const float UPDATE_RATE = 1e-4f;

typedef struct Timer {
    ShoalReplica *replica;
    ShoalSolver *solver;
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
    if (!timer->solver)
        return SHOAL_OK;
    start = shoal_clock_ns();
    backward(timer);
    timer->times.backward_ms += elapsed_ms(start);
    start = shoal_clock_ns();
    shoal_solver_update(timer->solver, timer->compute, 0, UPDATE_RATE, NULL);
    shoal_solver_clear_gradients(timer->solver);
    timer->times.update_ms += elapsed_ms(start);
    return SHOAL_OK;
}

static void reset(ShoalTimes *times) {
    for (int i = 0; i < times->n_layers; i++)
        times->layers[i].forward_ms = times->layers[i].backward_ms = 0;
    times->forward_ms = times->backward_ms = times->update_ms = times->iteration_ms = 0;
}

static void divide(ShoalTimes *times) {
    for (int i = 0; i < times->n_layers; i++) {
        times->layers[i].forward_ms /= times->iterations;
        times->layers[i].backward_ms /= times->iterations;
    }
    times->forward_ms /= times->iterations;
    times->backward_ms /= times->iterations;
    times->update_ms /= times->iterations;
    times->iteration_ms /= times->iterations;
}

static ShoalStatus add_row(Timer *timer, int number, ShoalError *err) {
    const ShoalLayer *layer = shoal_net_layer(timer->net, number);
    int unit = shoal_net_layer_unit(timer->net, number);
    bool fused = unit != number;
    ShoalLayerCost cost = {0};
    if (!fused)
        cost = shoal_layer_cost(layer);
    ShoalLayerTime *row = &timer->times.layers[timer->times.n_layers++];
    *row = (ShoalLayerTime){.name = shoal_strdup(layer->param->name),
                            .type = shoal_strdup(layer->param->type),
                            .forward_gflop = cost.forward_flop * 1e-9,
                            .backward_gflop = cost.backward_flop * 1e-9,
                            .forward_gb = cost.forward_bytes * 1e-9,
                            .backward_gb = cost.backward_bytes * 1e-9};
    if (fused)
        row->fused_into = shoal_strdup(shoal_net_layer(timer->net, unit)->param->name);
    return row->name && row->type && (!fused || row->fused_into)
               ? SHOAL_OK
               : shoal_error_memory(err, "the times", strlen(layer->param->name));
}

static ShoalStatus init_times(Timer *timer, int iterations, ShoalError *err) {
    ShoalTimes *times = &timer->times;
    times->iterations = iterations > 0 ? iterations : DEFAULT_ITERATIONS;
    times->batch = shoal_net_batch(timer->net);
    times->memory_bytes = shoal_replica_bytes(timer->replica);
    times->layers = shoal_calloc((size_t)shoal_net_layers(timer->net), sizeof *times->layers);
    if (!times->layers)
        return shoal_error_memory(err, "the times", sizeof *times->layers);
    ShoalStatus status = SHOAL_OK;
    for (int i = 0; i < shoal_net_layers(timer->net) && !status; i++)
        status = add_row(timer, i, err);
    return status;
}

/* The best of short runs over some 50 ms, or `best` from before: what the processor can do when
 * nothing disturbs. */
static double measure_peak(const ShoalCompute *compute, double best) {
    const double span_ns = 50e6, run_ns = 2e6;
    size_t rounds = 1000;
    for (uint64_t begin = shoal_clock_ns(); (double)(shoal_clock_ns() - begin) < span_ns;) {
        uint64_t start = shoal_clock_ns();
        double operations = shoal_kernels_peak(compute, rounds);
        double ns = (double)(shoal_clock_ns() - start) + 1;
        if (operations / ns > best)
            best = operations / ns;
        if (ns < run_ns)
            rounds *= 2;
    }
    return best;
}

static unsigned long long peak_resident_bytes(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) ? 0 : (unsigned long long)usage.ru_maxrss * 1024;
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

/* streams NULL: random numbers. */
static ShoalStatus stage_first_batch(ShoalReplica *replica, ShoalStreams *streams, ShoalSlot *slot,
                                     ShoalError *err) {
    ShoalNet *net = shoal_replica_net(replica, 0);
    int batch = shoal_net_batch(net);
    *shoal_slot_round(slot) =
        (ShoalRound){.kind = SHOAL_STEP_TRAIN, .count = batch, .batch = batch};
    ShoalStatus status = streams ? shoal_streams_stage(streams, slot, err) : SHOAL_OK;
    shoal_slot_bind(slot);
    if (!streams)
        shoal_dummy_fill(net, DUMMY_SEED);
    return status;
}

/* The solver whose update is timed. */
static ShoalStatus make_solver(Caffe__SolverParameter *param, Timer *timer, ShoalError *err) {
    caffe__solver_parameter__init(param);
    param->momentum = 0.9f;
    param->weight_decay = 1e-4f;
    return shoal_solver_create(param, timer->net, &timer->solver, err);
}

static ShoalStatus prepare(ShoalJob *job, const ShoalTimeOptions *options, ShoalStreams *streams,
                           Timer *timer, ShoalError *err) {
    ShoalReplicaOptions replica = {
        .no_solver = true, .phase_test = options->phase_test, .writes_files = true};
    ShoalStatus status = SHOAL_OK;
    if (!options->dummy_data)
        status = shoal_streams_open(
            job, 0, options->phase_test ? CAFFE__PHASE__TEST : CAFFE__PHASE__TRAIN, streams, err);
    if (!status)
        status = shoal_engine_choose(&options->engine, 0, &replica, err);
    if (!status)
        status = shoal_replica_create(job, &replica, &timer->replica, err);
    if (status)
        return status;
    timer->net = shoal_replica_net(timer->replica, 0);
    timer->compute = shoal_replica_compute(timer->replica);
    timer->times.threads = replica.threads;
    timer->times.level = shoal_cpu_level_name(replica.level);
    return SHOAL_OK;
}

static ShoalStatus time_job(ShoalJob *job, const ShoalTimeOptions *options, Timer *timer,
                            ShoalError *err) {
    ShoalStreams streams = {0};
    Caffe__SolverParameter solver;
    ShoalSlot *slot = NULL;
    ShoalStatus status = prepare(job, options, &streams, timer, err);
    if (!status && !options->phase_test)
        status = make_solver(&solver, timer, err);
    if (!status && !(slot = shoal_slot_create(timer->replica)))
        status = shoal_error_memory(err, "a slot", sizeof(void *));
    if (!status)
        status =
            stage_first_batch(timer->replica, options->dummy_data ? NULL : &streams, slot, err);
    if (!status)
        status = init_times(timer, options->iterations, err);
    if (!status) {
        timer->times.peak_gflops = measure_peak(timer->compute, 0);
        status = measure(timer, options, err);
    }
    if (!status)
        timer->times.peak_gflops = measure_peak(timer->compute, timer->times.peak_gflops);
    timer->times.peak_resident_bytes = peak_resident_bytes();
    shoal_slot_destroy(slot);
    shoal_solver_destroy(timer->solver);
    shoal_replica_destroy(timer->replica);
    shoal_streams_close(&streams);
    return status;
}

static ShoalStatus check_options(const ShoalTimeOptions *options, ShoalError *err) {
    if (!options->model)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "no model is given");
    if (options->batch < 0 || options->batch > MAX_BATCH)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "batch is %d; 1 to %d work", options->batch,
                               MAX_BATCH);
    if (options->shape && !options->dummy_data)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "--shape goes with --dummy-data only");
    return SHOAL_OK;
}

ShoalStatus shoal_time(const ShoalTimeOptions *options, ShoalTimes *times, ShoalError *error) {
    Timer timer = {0};
    ShoalJob job;
    ShoalStatus status = check_options(options, error);
    if (status)
        return status;
    if (options->dummy_data)
        status = shoal_dummy_load(options->model, options->shape, &job, timer.times.data, error);
    else
        status = shoal_job_load_net(options->model, NULL, &options->choice, &job, error);
    if (status)
        return status;
    if (options->dummy_data)
        status = shoal_job_choose(&job, 0, &options->choice, error);
    if (!status && options->batch)
        status = shoal_dummy_set_batch(&job, options->batch, error);
    if (!status)
        status = time_job(&job, options, &timer, error);
    if (!status)
        *times = timer.times;
    else
        shoal_times_close(&timer.times);
    shoal_job_close(&job);
    return status;
}

void shoal_times_close(ShoalTimes *times) {
    for (int i = 0; i < times->n_layers; i++) {
        shoal_free((void *)times->layers[i].name);
        shoal_free((void *)times->layers[i].type);
        shoal_free((void *)times->layers[i].fused_into);
    }
    shoal_free(times->layers);
    *times = (ShoalTimes){0};
}
