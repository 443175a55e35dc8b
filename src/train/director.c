/* SPDX-License-Identifier: Apache-2.0 */
#include "train/director.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/stop.h"
#include "cluster/shares.h"
#include "train/progress.h"

typedef struct NetStreams {
    ShoalStreams streams;
    int batch;
} NetStreams;

struct ShoalDirector {
    ShoalJob *job;
    ShoalDirectorOptions options;
    NetStreams *nets;
    ShoalProgress *progress;

    /* of the thread that calls next */
    ShoalSchedule schedule;
    ShoalStep step;
    int pass, passes; /* of the present step */
    uint64_t train_position;
    atomic_bool stop;
};

/* ---- construction ---- */

/* Every share that the batch is cut into must be a batch that the net can take. */
static ShoalStatus check_shares(const ShoalDirector *director, ShoalNet *net, ShoalError *err) {
    int n = director->options.n_ranks, batch = shoal_net_batch(net);
    int shares[] = {(batch + n - 1) / n, batch / n};
    for (int i = 0; i < 2; i++)
        if (shares[i] > 0 && shoal_net_set_share(net, shares[i], 0, err)) {
            shoal_error_prefix(err, "%s: a batch of %d cannot be shared out among %d workers",
                               director->job->nets[0].model.file, batch, n);
            return err->status;
        }
    return SHOAL_OK;
}

static bool has_loss(const ShoalNet *net) {
    for (int i = 0; i < shoal_net_layers(net); i++) {
        const ShoalLayer *layer = shoal_net_layer(net, i);
        for (int j = 0; j < layer->n_tops; j++)
            if (layer->loss_weights[j] != 0)
                return true;
    }
    return false;
}

/* A run that could only train on nonsense must not begin. (With max_iter 0 nothing is trained: that
 * is how initial weights are made.) */
static ShoalStatus check_sense(const ShoalDirector *director, const ShoalNet *net,
                               const ShoalCaffeNet *model, ShoalError *err) {
    if (director->job->solver->max_iter == 0)
        return SHOAL_OK;
    for (int i = 0; i < shoal_net_sources(net); i++) {
        const ShoalLayer *source = shoal_net_source(net, i);
        if (strcmp(source->class->type, "Data"))
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "%s: layer '%s' (%s) is fed by nobody in a training; use a Data "
                                   "layer",
                                   model->file, source->param->name, source->class->type);
    }
    if (has_loss(net))
        return SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_MODEL,
                           "%s: the net has no loss in phase TRAIN, so it cannot learn; add a loss "
                           "layer (SoftmaxWithLoss) or a loss_weight",
                           model->file);
}

/* Builds each net once, to find what is wrong with it before anything starts, and to learn its
 * outputs. */
static ShoalStatus check_net(ShoalDirector *director, int number, ShoalError *err) {
    const ShoalJobNet *job_net = &director->job->nets[number];
    ShoalNetOptions options = {.phase = number == 0 ? CAFFE__PHASE__TRAIN : CAFFE__PHASE__TEST,
                               .state = job_net->state,
                               .backward = false,
                               .source_shape = shoal_replica_source_shape,
                               .source_context = director->job};
    ShoalNet *net;
    ShoalStatus status = shoal_net_create(&job_net->model, &options, &net, err);
    if (status)
        return status;
    director->nets[number].batch = shoal_net_batch(net);
    status = shoal_progress_add_net(director->progress, net, err);
    if (!status && number == 0)
        status = check_sense(director, net, &job_net->model, err);
    if (!status && number == 0)
        status = check_shares(director, net, err);
    shoal_net_destroy(net);
    return status;
}

ShoalStatus shoal_director_create(ShoalJob *job, const ShoalDirectorOptions *options,
                                  ShoalDirector **out, ShoalError *err) {
    ShoalDirector *director = shoal_calloc(1, sizeof *director);
    if (!director)
        return shoal_error_memory(err, "the run", sizeof *director);
    director->job = job;
    director->options = *options;
    director->nets = shoal_calloc((size_t)job->n_nets, sizeof *director->nets);
    director->progress = shoal_progress_create(job, options->train, options->n_ranks);
    ShoalStatus status = director->nets && director->progress
                             ? SHOAL_OK
                             : shoal_error_memory(err, "the run", sizeof *director->nets);
    for (int i = 0; i < job->n_nets && !status; i++) {
        status = shoal_streams_open(job, i, i == 0 ? CAFFE__PHASE__TRAIN : CAFFE__PHASE__TEST,
                                    &director->nets[i].streams, err);
        if (!status)
            status = check_net(director, i, err);
    }
    if (status) {
        shoal_director_destroy(director);
        return status;
    }
    int start = job->state ? job->state->iter : 0;
    bool resume = options->train->resume;
    shoal_schedule_init(&director->schedule, job->solver, job->n_nets - 1, start,
                        job->state ? job->state->current_step : 0, resume);
    if (resume)
        director->train_position =
            (uint64_t)start * (uint64_t)job->solver->iter_size * (uint64_t)director->nets[0].batch;
    *out = director;
    return SHOAL_OK;
}

void shoal_director_destroy(ShoalDirector *director) {
    if (!director)
        return;
    for (int i = 0; director->nets && i < director->job->n_nets; i++)
        shoal_streams_close(&director->nets[i].streams);
    shoal_free(director->nets);
    shoal_progress_destroy(director->progress);
    shoal_free(director);
}

/* ---- rounds ---- */

ShoalStatus shoal_plan_init(ShoalPlan *plan, int n_ranks, ShoalError *err) {
    *plan = (ShoalPlan){.n_ranks = n_ranks};
    plan->first = shoal_calloc((size_t)n_ranks, sizeof *plan->first);
    plan->count = shoal_calloc((size_t)n_ranks, sizeof *plan->count);
    return plan->first && plan->count ? SHOAL_OK : shoal_error_memory(err, "a round", sizeof *plan);
}

void shoal_plan_close(ShoalPlan *plan) {
    shoal_free(plan->first);
    shoal_free(plan->count);
    *plan = (ShoalPlan){0};
}

void shoal_director_stop(ShoalDirector *director) {
    atomic_store(&director->stop, true);
}

bool shoal_director_stopped(const ShoalDirector *director) {
    return atomic_load(&director->stop);
}

/* What the user's signal handler asks for. */
static bool snapshot_is_asked(ShoalDirector *director) {
    volatile sig_atomic_t *stop = director->options.train->stop;
    if (shoal_stop_asked(stop) == SHOAL_STOP_NOW)
        shoal_director_stop(director);
    return shoal_stop_change(stop, SHOAL_STOP_SNAPSHOT, 0);
}

static void begin_step(ShoalDirector *director) {
    const Caffe__SolverParameter *solver = director->job->solver;
    const ShoalSchedule *schedule = &director->schedule;
    bool snapshot = snapshot_is_asked(director);
    if (atomic_load(&director->stop))
        shoal_schedule_stop(&director->schedule);
    if (snapshot)
        director->step = (ShoalStep){.kind = SHOAL_STEP_SNAPSHOT,
                                     .iter = schedule->iter,
                                     .current_step = schedule->current_step};
    else
        director->step = shoal_schedule_next(&director->schedule);
    director->pass = 0;
    director->passes = 1;
    int n = director->options.n_ranks;
    if (director->step.kind == SHOAL_STEP_TRAIN)
        director->passes = solver->iter_size;
    if (director->step.kind == SHOAL_STEP_TEST)
        director->passes = (solver->test_iter[director->step.test_net] + n - 1) / n;
}

/* A batch is cut into one piece per rank. */
static ShoalStatus share_batch(ShoalDirector *director, ShoalPlan *plan, ShoalError *err) {
    int batch = director->nets[0].batch;
    plan->round.batch = plan->round.count = batch;
    plan->round.first_sample = director->train_position;
    director->train_position += (uint64_t)batch;
    ShoalStatus status = shoal_cluster_shares(batch, plan->n_ranks, NULL, plan->count);
    if (status)
        return shoal_error_set(err, status, "a batch of %d cannot be shared out", batch);
    uint64_t first = plan->round.first_sample;
    for (int r = 0; r < plan->n_ranks; r++) {
        plan->first[r] = first;
        first += (uint64_t)plan->count[r];
    }
    return SHOAL_OK;
}

/* A test is shared out by whole batches: its values are means over batches, as in Caffe. */
static void share_test(const ShoalDirector *director, ShoalPlan *plan) {
    const ShoalStep *step = &director->step;
    int test_iter = director->job->solver->test_iter[step->test_net];
    uint64_t batch = (uint64_t)director->nets[plan->round.net].batch;
    uint64_t before = (uint64_t)step->tests_before * (uint64_t)test_iter;
    plan->test_iter = test_iter;
    plan->test_batch = director->pass * plan->n_ranks;
    plan->round.batch = plan->round.count = (int)batch;
    for (int r = 0; r < plan->n_ranks; r++) {
        plan->first[r] = (before + (uint64_t)(plan->test_batch + r)) * batch;
        plan->count[r] = plan->test_batch + r < test_iter ? (int)batch : 0;
    }
    plan->round.first_sample = plan->first[0];
}

ShoalStatus shoal_director_next(ShoalDirector *director, ShoalPlan *plan, bool *more,
                                ShoalError *err) {
    if (director->pass == director->passes)
        begin_step(director);
    const ShoalStep *step = &director->step;
    *more = step->kind != SHOAL_STEP_END;
    bool first = director->pass == 0, last = director->pass == director->passes - 1;
    plan->last_of_step = last;
    plan->starts_test = step->kind == SHOAL_STEP_TEST && first;
    plan->round = (ShoalRound){.kind = step->kind,
                               .iter = step->iter,
                               .rate = step->rate,
                               .current_step = step->current_step,
                               .display = step->display,
                               .clear = first,
                               .update = last};
    ShoalStatus status = SHOAL_OK;
    if (step->kind == SHOAL_STEP_TRAIN || step->kind == SHOAL_STEP_LOSS)
        status = share_batch(director, plan, err);
    if (step->kind == SHOAL_STEP_TEST) {
        plan->round.net = 1 + step->test_net;
        share_test(director, plan);
    }
    if (step->kind == SHOAL_STEP_SNAPSHOT)
        for (int r = 0; r < plan->n_ranks; r++)
            plan->count[r] = 0;
    if (*more)
        director->pass++;
    return status;
}

ShoalStreams *shoal_director_streams(ShoalDirector *director, int net) {
    return &director->nets[net].streams;
}

/* ---- results ---- */

ShoalStatus shoal_director_complete(ShoalDirector *director, const ShoalPlan *plan,
                                    const ShoalResult *results, const ShoalWorkerStatus *workers,
                                    ShoalError *err) {
    return shoal_progress_round(director->progress, plan, results, workers, err);
}

void shoal_director_begin(ShoalDirector *director) {
    shoal_progress_begin(director->progress, director->nets[0].batch, director->options.n_ranks);
}

void shoal_director_end(ShoalDirector *director) {
    ShoalEvent event = {.kind = SHOAL_EVENT_END,
                        .text = shoal_director_stopped(director) ? "Optimization stopped early."
                                                                 : "Optimization Done."};
    shoal_progress_emit(director->progress, &event);
}

void shoal_director_emit(const ShoalDirector *director, ShoalEvent *event) {
    shoal_progress_emit(director->progress, event);
}

size_t shoal_director_output_capacity(const ShoalDirector *director) {
    return shoal_progress_output_capacity(director->progress);
}

/* ---- snapshots ---- */

static ShoalStatus snapshot_name(const ShoalJob *job, int iter, const char *ending, char *name,
                                 size_t size, ShoalError *err) {
    int n = snprintf(name, size, "%s_iter_%d.%s", job->solver->snapshot_prefix, iter, ending);
    return n < 0 || (size_t)n >= size
               ? shoal_error_set(err, SHOAL_ERR_ARGUMENT, "snapshot_prefix is too long")
               : SHOAL_OK;
}

ShoalStatus shoal_director_model_name(const ShoalJob *job, int iter, char *name, size_t size,
                                      ShoalError *err) {
    return snapshot_name(job, iter, "caffemodel", name, size, err);
}

static ShoalStatus write_file(ShoalDirector *director, int iter, const char *ending,
                              const void *bytes, size_t size, ShoalError *err) {
    char name[4096];
    ShoalStatus status = snapshot_name(director->job, iter, ending, name, sizeof name, err);
    if (!status)
        status = shoal_file_replace(name, bytes, size, err);
    if (status)
        return status;
    ShoalEvent event = {.kind = SHOAL_EVENT_SNAPSHOT, .iter = iter, .text = name};
    shoal_director_emit(director, &event);
    return SHOAL_OK;
}

ShoalStatus shoal_director_write_snapshot(ShoalDirector *director, int iter, const void *model,
                                          size_t model_size, const void *state, size_t state_size,
                                          ShoalError *err) {
    ShoalStatus status = write_file(director, iter, "caffemodel", model, model_size, err);
    return status ? status : write_file(director, iter, "solverstate", state, state_size, err);
}
