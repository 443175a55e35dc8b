/* SPDX-License-Identifier: Apache-2.0 */
#include "train/director.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/stop.h"
#include "caffe/hdf5.h"
#include "data/dataset.h"
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
    ShoalCursor cursor;
    int origin;        /* iteration with which the run's samples begin */
    int *order, *work; /* scratch of sharing out: a batch, or more */
    uint64_t *numbers;
    atomic_bool stop;
    size_t snapshot_limit;
};

enum { SNAPSHOT_EXTRA = 64 << 20 };

ShoalStatus shoal_shuffle_find(const char *name, ShoalShuffle *shuffle, ShoalError *err) {
    static const char *const NAMES[] = {"none", "global", "shard"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(name ? name : NAMES[0], NAMES[i])) {
            *shuffle = (ShoalShuffle)i;
            return SHOAL_OK;
        }
    return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                           "shuffle is '%s'; there are none, global and shard", name);
}

/* ---- construction ---- */

/* Every share that the batch may be cut into must be a batch that the net can take. */
static ShoalStatus check_shares(const ShoalDirector *director, ShoalNet *net, ShoalError *err) {
    int n = director->options.n_ranks, batch = shoal_net_batch(net);
    ShoalStatus status = shoal_net_unit(net, &director->job->unit, err);
    if (status) {
        shoal_error_prefix(err, "%s", director->job->nets[0].model.file);
        return status;
    }
    int unit = director->job->unit;
    int shares[] = {unit ? unit : (batch + n - 1) / n, unit ? unit : batch / n};
    for (int i = 0; i < 2; i++)
        if (shares[i] > 0 && shoal_net_set_share(net, shares[i], 0, NULL, err)) {
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
        if (!shoal_dataset_feeds(source->param))
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

static bool is_repeated(const ShoalNet *net, int n) {
    const char *name = shoal_net_layer(net, n)->param->name;
    for (int i = 0; i < n; i++)
        if (!strcmp(shoal_net_layer(net, i)->param->name, name))
            return true;
    return false;
}

/* A run that cannot store its result must not begin: the names of layers, those of splits among
 * them, become names of HDF5 groups. */
static ShoalStatus check_names(const ShoalDirector *director, const ShoalNet *net,
                               const ShoalCaffeNet *model, ShoalError *err) {
    const Caffe__SolverParameter *solver = director->job->solver;
    if (!shoal_job_stores_hdf5(director->job) ||
        (solver->snapshot <= 0 && !solver->snapshot_after_train))
        return SHOAL_OK;
    for (int i = 0; i < shoal_net_layers(net); i++) {
        const char *name = shoal_net_layer(net, i)->param->name;
        if (!shoal_hdf5_holds_name(name) || is_repeated(net, i))
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "%s: snapshot_format: HDF5 cannot store layer '%s': a name has "
                                   "no '/' in it and is given once; rename it, or use BINARYPROTO",
                                   model->file, name);
    }
    return SHOAL_OK;
}

/* Builds each net once, to find what is wrong with it before anything starts, and to learn its
 * outputs. */
static ShoalStatus check_net(ShoalDirector *director, int number, ShoalNet **out, ShoalError *err) {
    const ShoalJobNet *job_net = &director->job->nets[number];
    ShoalNetOptions options = {.phase = number == 0 ? CAFFE__PHASE__TRAIN : CAFFE__PHASE__TEST,
                               .state = job_net->state,
                               .backward = false,
                               .source_shape = shoal_replica_source_shape,
                               .named_file = shoal_replica_named_file,
                               .writes_files = director->options.n_ranks <= 1,
                               .source_context = director->job};
    ShoalNet *net;
    ShoalStatus status = shoal_net_create(&job_net->model, &options, &net, err);
    if (status)
        return status;
    if (number == 0) /* weights and their diffs, and what is written around them */
        director->snapshot_limit =
            3 * sizeof(float) * shoal_net_params(net).data_count + SNAPSHOT_EXTRA;
    director->nets[number].batch = shoal_net_batch(net);
    status = shoal_progress_add_net(director->progress, net, err);
    if (!status && number == 0)
        status = check_sense(director, net, &job_net->model, err);
    if (!status && number == 0)
        status = check_names(director, net, &job_net->model, err);
    if (!status && number == 0)
        status = check_shares(director, net, err);
    *out = net;
    return status;
}

/* Weights and state that a worker would choke on are told before anyone works. */
static ShoalStatus check_files(const ShoalDirector *director, ShoalNet *const *nets,
                               ShoalError *err) {
    const ShoalJob *job = director->job;
    ShoalStatus status =
        shoal_job_load_weights(job->weights, job->n_weights, nets, job->n_nets, err);
    ShoalSolver *solver = NULL;
    if (!status && job->state)
        status = shoal_solver_create(job->solver, nets[0], &solver, err);
    if (!status && job->state && shoal_solver_load_state(solver, job->state, err))
        shoal_error_prefix(err, "%s", job->state_file.name);
    shoal_solver_destroy(solver);
    return err->status;
}

static ShoalStatus check_nets(ShoalDirector *director, ShoalError *err) {
    int n = director->job->n_nets;
    ShoalNet **nets = shoal_calloc((size_t)n, sizeof(ShoalNet *));
    ShoalStatus status = nets ? SHOAL_OK : shoal_error_memory(err, "the nets", sizeof(ShoalNet *));
    for (int i = 0; i < n && !status; i++) {
        status =
            shoal_streams_open(director->job, i, i == 0 ? CAFFE__PHASE__TRAIN : CAFFE__PHASE__TEST,
                               &director->nets[i].streams, err);
        if (!status)
            status = check_net(director, i, &nets[i], err);
    }
    if (!status && director->options.check_files)
        status = check_files(director, nets, err);
    for (int i = 0; nets && i < n; i++)
        shoal_net_destroy(nets[i]);
    shoal_free(nets);
    return status;
}

static ShoalStatus make_scratch(ShoalDirector *director, ShoalError *err) {
    size_t n = (size_t)director->nets[0].batch;
    director->order = shoal_calloc(n, sizeof *director->order);
    director->work = shoal_calloc(n, sizeof *director->work);
    director->numbers = shoal_calloc(n, sizeof *director->numbers);
    shoal_director_reseed(director);
    return director->order && director->work && director->numbers
               ? SHOAL_OK
               : shoal_error_memory(err, "a batch", n * sizeof *director->numbers);
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
    if (!status)
        status = check_nets(director, err);
    if (!status)
        status = make_scratch(director, err);
    if (status) {
        shoal_director_destroy(director);
        return status;
    }
    int start = job->state ? job->state->iter : 0;
    bool resume = options->train->resume;
    if (!resume)
        director->origin = start;
    shoal_director_seek(director, start, job->state ? job->state->current_step : 0);
    if (!resume)
        shoal_schedule_init(&director->cursor.schedule, job->solver, job->n_nets - 1, start,
                            job->state ? job->state->current_step : 0, false);
    *out = director;
    return SHOAL_OK;
}

void shoal_director_seek(ShoalDirector *director, int iter, int current_step) {
    const ShoalJob *job = director->job;
    director->cursor = (ShoalCursor){0};
    shoal_schedule_init(&director->cursor.schedule, job->solver, job->n_nets - 1, iter,
                        current_step, true);
    if (iter < director->origin) /* before the snapshot that the run began with: only in theory */
        director->origin = 0;
    director->cursor.train_position = (uint64_t)(iter - director->origin) *
                                      (uint64_t)job->solver->iter_size *
                                      (uint64_t)director->nets[0].batch;
}

void shoal_director_rewind(ShoalDirector *director, const ShoalCursor *to) {
    ShoalCursor *cursor = &director->cursor;
    if (to)
        *cursor = *to;
    bool inside = cursor->pass < cursor->passes && (cursor->pass > 0 || cursor->at > 0);
    if (cursor->step.kind != SHOAL_STEP_TRAIN || !inside)
        return;
    cursor->train_position -= (uint64_t)cursor->pass * (uint64_t)director->nets[0].batch;
    cursor->pass = cursor->at = 0;
}

void shoal_director_reseed(ShoalDirector *director) {
    shoal_streams_seed(director->job, &director->nets[0].streams, director->options.shuffle);
    for (int i = 1; i < director->job->n_nets; i++)
        shoal_streams_seed(director->job, &director->nets[i].streams, SHOAL_SHUFFLE_NONE);
}

void shoal_director_destroy(ShoalDirector *director) {
    if (!director)
        return;
    for (int i = 0; director->nets && i < director->job->n_nets; i++)
        shoal_streams_close(&director->nets[i].streams);
    shoal_free(director->nets);
    shoal_free(director->order);
    shoal_free(director->work);
    shoal_free(director->numbers);
    shoal_progress_destroy(director->progress);
    shoal_free(director);
}

/* ---- rounds ---- */

void shoal_plan_close(ShoalPlan *plan) {
    shoal_free(plan->base);
    shoal_free(plan->first);
    shoal_free(plan->count);
    shoal_free(plan->places);
    *plan = (ShoalPlan){0};
}

static ShoalStatus grow_plan(ShoalPlan *plan, int n_ranks, int places, ShoalError *err) {
    if (n_ranks > plan->ranks_size) {
        shoal_free(plan->base);
        shoal_free(plan->first);
        shoal_free(plan->count);
        plan->ranks_size = n_ranks;
        plan->base = shoal_calloc((size_t)n_ranks, sizeof *plan->base);
        plan->first = shoal_calloc((size_t)n_ranks, sizeof *plan->first);
        plan->count = shoal_calloc((size_t)n_ranks, sizeof *plan->count);
    }
    if (places > plan->places_size) {
        shoal_free(plan->places);
        plan->places_size = places;
        plan->places = shoal_calloc((size_t)places, sizeof *plan->places);
    }
    plan->n_ranks = n_ranks;
    if (plan->base && plan->first && plan->count && plan->places)
        return SHOAL_OK;
    plan->ranks_size = plan->places_size = 0;
    return shoal_error_memory(err, "a round", (size_t)places * sizeof *plan->places);
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
    ShoalCursor *cursor = &director->cursor;
    const ShoalSchedule *schedule = &cursor->schedule;
    bool snapshot = snapshot_is_asked(director);
    if (atomic_load(&director->stop))
        shoal_schedule_stop(&cursor->schedule);
    if (snapshot)
        cursor->step = (ShoalStep){.kind = SHOAL_STEP_SNAPSHOT,
                                   .iter = schedule->iter,
                                   .current_step = schedule->current_step};
    else
        cursor->step = shoal_schedule_next(&cursor->schedule);
    cursor->pass = cursor->at = 0;
    cursor->passes = cursor->step.kind == SHOAL_STEP_TRAIN ? director->job->solver->iter_size : 1;
}

/* One unit, or none, for each that can take one: the first ones, so that what layers carry from
 * batch to batch stays where it is when the unit is the batch. */
static ShoalStatus share_units(const ShoalCrew *crew, int unit, int left, ShoalPlan *plan,
                               int *planned, ShoalError *err) {
    *planned = 0;
    for (int r = 0; r < crew->n; r++) {
        bool can = *planned < left && (!crew->capacities || crew->capacities[r] >= unit);
        plan->count[r] = can ? unit : 0;
        *planned += plan->count[r];
    }
    return *planned > 0 ? SHOAL_OK
                        : shoal_error_set(err, SHOAL_ERR_MEMORY,
                                          "this net needs %d samples of a batch together on one "
                                          "worker, and none has memory for that; set a smaller "
                                          "batch_size (or stats_batch_size)",
                                          unit);
}

/* How many samples of the batch each rank gets: by speed, within what it can take at once. */
static ShoalStatus share_counts(const ShoalCrew *crew, int left, ShoalPlan *plan, int *planned,
                                ShoalError *err) {
    if (!crew->balance) {
        plan->count[0] = *planned = left;
        return SHOAL_OK;
    }
    ShoalStatus status =
        shoal_balance_plan(crew->balance, left, crew->capacities, plan->count, planned, err);
    if (status)
        return shoal_error_set(err, status, "a batch of %d cannot be shared out", left);
    return SHOAL_OK;
}

/* A batch, or as much of it as the crew can take at once, is cut into one piece per rank: each has
 * what it holds already, as far as that goes. */
static ShoalStatus share_batch(ShoalDirector *director, const ShoalCrew *crew, ShoalPlan *plan,
                               ShoalError *err) {
    ShoalCursor *cursor = &director->cursor;
    int batch = director->nets[0].batch, at = cursor->at, planned;
    const int unit = director->job->unit;
    ShoalStatus status = unit ? share_units(crew, unit, batch - at, plan, &planned, err)
                              : share_counts(crew, batch - at, plan, &planned, err);
    if (status)
        return status;
    plan->round.batch = batch;
    plan->round.count = planned;
    plan->round.first_sample = cursor->train_position;
    const ShoalStreams *streams = &director->nets[0].streams;
    int fed = 0;
    while (fed < streams->count && !streams->items[fed].dataset)
        fed++;
    bool sticky = crew->holdings && fed < streams->count && unit == 0;
    for (int i = 0; i < planned && sticky; i++)
        director->numbers[i] =
            shoal_streams_number(streams, fed, cursor->train_position + (uint64_t)(at + i));
    if (sticky)
        shoal_holdings_assign(crew->holdings,
                              shoal_job_dataset_number(
                                  director->job, shoal_dataset_name(streams->items[fed].dataset)),
                              director->numbers, planned, plan->n_ranks, plan->count, crew->stores,
                              director->order, director->work);
    for (int i = 0; i < planned; i++)
        plan->places[i] = (uint32_t)(at + (sticky ? director->order[i] : i));
    for (int r = 0, first = 0; r < plan->n_ranks; first += plan->count[r++]) {
        plan->first[r] = first;
        plan->base[r] = cursor->train_position;
    }
    cursor->at += planned;
    plan->last_of_pass = cursor->at == batch;
    if (plan->last_of_pass)
        cursor->train_position += (uint64_t)batch;
    return SHOAL_OK;
}

/* A test is shared out by whole batches: its values are means over batches, as in Caffe. */
static void share_test(ShoalDirector *director, ShoalPlan *plan) {
    ShoalCursor *cursor = &director->cursor;
    const ShoalStep *step = &cursor->step;
    int test_iter = director->job->solver->test_iter[step->test_net];
    int batch = director->nets[plan->round.net].batch;
    uint64_t before = (uint64_t)step->tests_before * (uint64_t)test_iter;
    plan->test_iter = test_iter;
    plan->test_batch = cursor->at;
    plan->starts_test = cursor->at == 0;
    plan->round.batch = plan->round.count = batch;
    for (int i = 0; i < batch; i++)
        plan->places[i] = (uint32_t)i;
    for (int r = 0; r < plan->n_ranks; r++) {
        plan->first[r] = 0;
        plan->base[r] = (before + (uint64_t)(cursor->at + r)) * (uint64_t)batch;
        plan->count[r] = cursor->at + r < test_iter ? batch : 0;
    }
    plan->round.first_sample = plan->base[0];
    cursor->at += plan->n_ranks;
    plan->last_of_pass = cursor->at >= test_iter;
}

static void share_nothing(ShoalPlan *plan) {
    for (int r = 0; r < plan->n_ranks; r++) {
        plan->first[r] = plan->count[r] = 0;
        plan->base[r] = 0;
    }
    plan->last_of_pass = true;
}

static void end_pass(ShoalDirector *director, ShoalPlan *plan) {
    ShoalCursor *cursor = &director->cursor;
    if (!plan->last_of_pass)
        return;
    cursor->at = 0;
    cursor->pass++;
    plan->last_of_step = cursor->pass == cursor->passes;
}

ShoalStatus shoal_director_next(ShoalDirector *director, const ShoalCrew *crew, ShoalPlan *plan,
                                bool *more, ShoalError *err) {
    ShoalCursor *cursor = &director->cursor;
    if (cursor->pass == cursor->passes)
        begin_step(director);
    ShoalCursor before = *cursor;
    const ShoalStep *step = &cursor->step;
    *more = step->kind != SHOAL_STEP_END;
    if (!*more)
        return SHOAL_OK;
    int net = step->kind == SHOAL_STEP_TEST ? 1 + step->test_net : 0;
    ShoalStatus status = grow_plan(plan, crew->n, director->nets[net].batch, err);
    if (status)
        return status;
    plan->before = before;
    plan->first_of_pass = cursor->at == 0;
    plan->last_of_step = plan->starts_test = false;
    plan->round = (ShoalRound){.kind = step->kind,
                               .iter = step->iter,
                               .rate = step->rate,
                               .current_step = step->current_step,
                               .net = net,
                               .display = step->display,
                               .clear = cursor->pass == 0 && cursor->at == 0};
    if (step->kind == SHOAL_STEP_TRAIN || step->kind == SHOAL_STEP_LOSS)
        status = share_batch(director, crew, plan, err);
    else if (step->kind == SHOAL_STEP_TEST)
        share_test(director, plan);
    else
        share_nothing(plan);
    end_pass(director, plan);
    plan->round.update = plan->last_of_step;
    bool updates = step->kind == SHOAL_STEP_TRAIN && plan->round.update;
    plan->updates = (uint64_t)step->iter + (updates ? 1 : 0);
    return status;
}

ShoalStreams *shoal_director_streams(ShoalDirector *director, int net) {
    return &director->nets[net].streams;
}

/* ---- results ---- */

ShoalStatus shoal_director_complete(ShoalDirector *director, const ShoalPlan *plan,
                                    const ShoalResult *results, const ShoalClusterStatus *cluster,
                                    ShoalError *err) {
    return shoal_progress_round(director->progress, plan, results, cluster, err);
}

void shoal_director_begin(ShoalDirector *director, int workers) {
    shoal_progress_begin(director->progress, director->cursor.schedule.iter,
                         director->nets[0].batch, workers);
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

size_t shoal_director_snapshot_limit(const ShoalDirector *director) {
    return director->snapshot_limit;
}

size_t shoal_director_output_capacity(const ShoalDirector *director) {
    return shoal_progress_output_capacity(director->progress);
}

/* ---- snapshots ---- */

static ShoalStatus snapshot_name(const ShoalJob *job, int iter, const char *ending, char *name,
                                 size_t size, ShoalError *err) {
    int n = snprintf(name, size, "%s_iter_%d.%s%s", job->solver->snapshot_prefix, iter, ending,
                     shoal_job_stores_hdf5(job) ? ".h5" : "");
    return n < 0 || (size_t)n >= size
               ? shoal_error_set(err, SHOAL_ERR_ARGUMENT, "snapshot_prefix is too long")
               : SHOAL_OK;
}

ShoalStatus shoal_director_state_name(const ShoalJob *job, int iter, char *name, size_t size,
                                      ShoalError *err) {
    return snapshot_name(job, iter, "solverstate", name, size, err);
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

typedef ShoalStatus Convert(const void *message, size_t message_size, void **bytes, size_t *size,
                            ShoalError *err);

static ShoalStatus write_piece(ShoalDirector *director, int iter, const char *ending,
                               const void *bytes, size_t size, Convert *to_hdf5, ShoalError *err) {
    if (!shoal_job_stores_hdf5(director->job))
        return write_file(director, iter, ending, bytes, size, err);
    void *image;
    ShoalStatus status = to_hdf5(bytes, size, &image, &size, err);
    if (status)
        return status;
    status = write_file(director, iter, ending, image, size, err);
    shoal_free(image);
    return status;
}

ShoalStatus shoal_director_write_snapshot(ShoalDirector *director, int iter, const void *model,
                                          size_t model_size, const void *state, size_t state_size,
                                          ShoalError *err) {
    ShoalStatus status =
        write_piece(director, iter, "caffemodel", model, model_size, shoal_hdf5_from_net, err);
    return status ? status
                  : write_piece(director, iter, "solverstate", state, state_size,
                                shoal_hdf5_from_state, err);
}
