/* SPDX-License-Identifier: Apache-2.0 */
#include "train/local.h"

#include <pthread.h>

#include "base/error.h"
#include "base/memory.h"
#include "train/engine.h"
#include "train/pipe.h"

enum { SLOTS = 3 };

typedef struct Local {
    ShoalDirector *director;
    ShoalReplica *replica;
    ShoalPipe *pipe;
    ShoalSlot *slots[SLOTS];
    ShoalPlan plans[SLOTS];
    ShoalResult result;
} Local;

static ShoalStatus stage(Local *local, int item, ShoalError *err) {
    const ShoalPlan *plan = &local->plans[item];
    ShoalSlot *slot = local->slots[item];
    ShoalRound *round = shoal_slot_round(slot);
    *round = plan->round;
    round->first_sample = plan->base[0];
    round->count = plan->count[0];
    if (round->count < round->batch)
        round->places = plan->places + plan->first[0];
    return shoal_streams_stage(shoal_director_streams(local->director, round->net), slot, err);
}

static void *stage_ahead(void *argument) {
    Local *local = argument;
    shoal_replica_release_thread(local->replica);
    ShoalError err = {0};
    const ShoalCrew alone = {.n = 1};
    for (;;) {
        int item = shoal_pipe_take(local->pipe, true);
        if (item < 0)
            return NULL;
        bool more;
        if (shoal_director_next(local->director, &alone, &local->plans[item], &more, &err) ||
            (more && stage(local, item, &err))) {
            shoal_pipe_close(local->pipe, &err);
            return NULL;
        }
        if (!more) {
            shoal_pipe_close(local->pipe, NULL);
            return NULL;
        }
        shoal_pipe_push(local->pipe, item);
    }
}

static ShoalStatus snapshot(Local *local, const ShoalJob *job, const ShoalRound *round,
                            ShoalError *err) {
    char name[4096];
    ShoalBuffer model = {0}, state = {0};
    ShoalStatus status = shoal_director_model_name(job, round->iter, name, sizeof name, err);
    if (!status)
        status = shoal_replica_snapshot_bytes(local->replica, round->iter, round->current_step,
                                              name, &model, &state, err);
    if (status)
        return status;
    status = shoal_director_write_snapshot(local->director, round->iter, model.bytes, model.used,
                                           state.bytes, state.used, err);
    shoal_buffer_close(&model);
    shoal_buffer_close(&state);
    return status;
}

static ShoalStatus run_rounds(Local *local, const ShoalJob *job, ShoalError *err) {
    for (;;) {
        int item = shoal_pipe_pop(local->pipe);
        if (item < 0)
            return shoal_pipe_error(local->pipe, err);
        const ShoalPlan *plan = &local->plans[item];
        ShoalStatus status = SHOAL_OK;
        if (plan->round.kind == SHOAL_STEP_SNAPSHOT)
            status = snapshot(local, job, &plan->round, err);
        else
            status =
                shoal_replica_run(local->replica, local->slots[item], NULL, 0, &local->result, err);
        if (!status)
            status = shoal_director_complete(local->director, plan, &local->result, NULL, err);
        if (status)
            return status;
        shoal_pipe_recycle(local->pipe, item);
    }
}

static ShoalStatus run(Local *local, const ShoalJob *job, ShoalError *err) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, stage_ahead, local))
        return shoal_error_set(err, SHOAL_ERR_MEMORY, "cannot start a thread");
    ShoalStatus status = run_rounds(local, job, err);
    shoal_pipe_close(local->pipe, err);
    pthread_join(thread, NULL);
    return status;
}

static ShoalStatus prepare(Local *local, const ShoalJob *job, const ShoalTrainOptions *options,
                           ShoalError *err) {
    ShoalReplicaOptions replica = {.slots = SLOTS, .writes_files = true, .capacity = job->unit};
    ShoalStatus status = shoal_engine_choose(&options->engine, 0, &replica, err);
    if (!status)
        status = shoal_replica_create(job, &replica, &local->replica, err);
    if (!status)
        status = shoal_replica_result_init(local->replica, &local->result, err);
    local->result.present = true;
    for (int i = 0; i < SLOTS && !status; i++) {
        local->slots[i] = shoal_slot_create(local->replica);
        status = local->slots[i] ? SHOAL_OK
                                 : shoal_error_set(err, SHOAL_ERR_MEMORY,
                                                   "out of memory: no room for the samples of %d "
                                                   "batches; use a smaller batch_size",
                                                   SLOTS);
    }
    local->pipe = shoal_pipe_create(SLOTS);
    return status || local->pipe ? status : shoal_error_memory(err, "a pipe", sizeof(void *));
}

ShoalStatus shoal_train_local(ShoalJob *job, const ShoalTrainOptions *options, ShoalError *err) {
    Local local = {0};
    ShoalDirectorOptions director = {.train = options, .n_ranks = 1};
    ShoalStatus status = shoal_shuffle_find(options->shuffle, &director.shuffle, err);
    if (!status)
        status = shoal_director_create(job, &director, &local.director, err);
    if (!status)
        status = prepare(&local, job, options, err);
    if (!status) {
        shoal_director_begin(local.director, 1);
        status = run(&local, job, err);
    }
    if (!status) {
        bool stopped = shoal_director_stopped(local.director);
        shoal_director_end(local.director);
        if (stopped)
            status = shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request");
    }
    for (int i = 0; i < SLOTS; i++) {
        shoal_slot_destroy(local.slots[i]);
        shoal_plan_close(&local.plans[i]);
    }
    shoal_replica_result_close(&local.result);
    shoal_pipe_destroy(local.pipe);
    shoal_replica_destroy(local.replica);
    shoal_director_destroy(local.director);
    return status;
}
