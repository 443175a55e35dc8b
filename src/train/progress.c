/* SPDX-License-Identifier: Apache-2.0 */
#include "train/progress.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"

/* An output blob of a net, at the whole batch. */
typedef struct Output {
    char *name;
    size_t count;
    float loss_weight;
    bool per_sample; /* its first axis is the batch: shares are put together, not averaged */
} Output;

typedef struct NetOutputs {
    Output *items;
    int count;
    size_t values;
    int batch;
} NetOutputs;

struct ShoalProgress {
    const ShoalJob *job;
    const ShoalTrainOptions *options;
    int n_ranks, n_nets;
    NetOutputs *nets;
    size_t capacity;

    float *merged;                  /* outputs of the present pass over a batch, over all ranks */
    double pass_loss, pass_samples; /* of that pass, so far: sum over samples, and how many */
    double *test_sums;              /* over the batches of the present test */
    ShoalOutput *shown;             /* for events */
    double iteration_loss;          /* sum over the sub-batches of this iteration */
    double iteration_samples;       /* whose results are there */
    float *losses, smoothed;        /* the last average_loss ones */
    int n_losses, start_iter;

    uint64_t started_ns, last_ns;     /* begin of the run; end of the last round */
    double window_samples, window_ns; /* since the last displayed iteration */
    double test_samples, test_ns;
};

ShoalProgress *shoal_progress_create(const ShoalJob *job, const ShoalTrainOptions *options,
                                     int n_ranks) {
    ShoalProgress *progress = shoal_calloc(1, sizeof *progress);
    if (!progress)
        return NULL;
    progress->job = job;
    progress->options = options;
    progress->n_ranks = n_ranks;
    progress->start_iter = job->state ? job->state->iter : 0;
    progress->nets = shoal_calloc((size_t)job->n_nets, sizeof *progress->nets);
    /* One loss per iteration, and the one after the last: a longer window never fills. */
    size_t window = (size_t)job->solver->average_loss, most = (size_t)job->solver->max_iter + 1;
    progress->losses = shoal_calloc(window < most ? window : most, sizeof(float));
    if (progress->nets && progress->losses)
        return progress;
    shoal_progress_destroy(progress);
    return NULL;
}

void shoal_progress_destroy(ShoalProgress *progress) {
    if (!progress)
        return;
    for (int i = 0; i < progress->n_nets; i++) {
        for (int o = 0; o < progress->nets[i].count; o++)
            shoal_free(progress->nets[i].items[o].name);
        shoal_free(progress->nets[i].items);
    }
    shoal_free(progress->nets);
    shoal_free(progress->merged);
    shoal_free(progress->test_sums);
    shoal_free(progress->shown);
    shoal_free(progress->losses);
    shoal_free(progress);
}

static ShoalStatus grow_buffers(ShoalProgress *progress, size_t values, ShoalError *err) {
    if (values <= progress->capacity && progress->merged)
        return SHOAL_OK;
    shoal_free(progress->merged);
    shoal_free(progress->test_sums);
    shoal_free(progress->shown);
    progress->merged = shoal_calloc(values, sizeof *progress->merged);
    progress->test_sums = shoal_calloc(values, sizeof *progress->test_sums);
    progress->shown = shoal_calloc(values, sizeof *progress->shown);
    progress->capacity = values;
    return progress->merged && progress->test_sums && progress->shown
               ? SHOAL_OK
               : shoal_error_memory(err, "the outputs", values * sizeof *progress->shown);
}

ShoalStatus shoal_progress_add_net(ShoalProgress *progress, const ShoalNet *net, ShoalError *err) {
    NetOutputs *outputs = &progress->nets[progress->n_nets];
    int n = shoal_net_outputs(net);
    outputs->batch = shoal_net_batch(net);
    outputs->items = shoal_calloc((size_t)n, sizeof *outputs->items);
    if (!outputs->items)
        return shoal_error_memory(err, "the outputs", sizeof *outputs->items);
    progress->n_nets++;
    for (int i = 0; i < n; i++) {
        const ShoalBlob *blob = shoal_net_output(net, i);
        Output *output = &outputs->items[outputs->count++];
        *output = (Output){.name = shoal_strdup(blob->name),
                           .count = blob->count,
                           .loss_weight = shoal_net_output_loss_weight(net, i),
                           .per_sample = blob->axes > 0 && blob->shape[0] == outputs->batch};
        if (!output->name)
            return shoal_error_memory(err, "the outputs", strlen(blob->name));
        outputs->values += blob->count;
    }
    return grow_buffers(progress, outputs->values, err);
}

size_t shoal_progress_output_capacity(const ShoalProgress *progress) {
    return progress->capacity;
}

void shoal_progress_emit(const ShoalProgress *progress, ShoalEvent *event) {
    if (!progress->options->on_event)
        return;
    event->max_iter = progress->job->solver->max_iter;
    if (progress->started_ns)
        event->seconds = (double)(shoal_clock_ns() - progress->started_ns) * 1e-9;
    progress->options->on_event(progress->options->context, event);
}

void shoal_progress_begin(ShoalProgress *progress, int iter, int batch, int workers) {
    progress->start_iter = iter;
    progress->started_ns = progress->last_ns = shoal_clock_ns();
    ShoalEvent event = {.kind = SHOAL_EVENT_START,
                        .iter = progress->start_iter,
                        .batch = batch * progress->job->solver->iter_size,
                        .n_workers = workers,
                        .text = progress->job->nets[0].model.param->name};
    shoal_progress_emit(progress, &event);
}

/* One value per element of each output blob. */
static int show(ShoalProgress *progress, int net, const float *values) {
    const NetOutputs *outputs = &progress->nets[net];
    int n = 0;
    for (int o = 0; o < outputs->count; o++)
        for (size_t k = 0; k < outputs->items[o].count; k++, n++)
            progress->shown[n] = (ShoalOutput){.name = outputs->items[o].name,
                                               .value = values[n],
                                               .loss_weight = outputs->items[o].loss_weight};
    return n;
}

/* Adds one rank's outputs to those of the pass: sums over samples, respectively samples in their
 * places. */
static bool merge_rank(ShoalProgress *progress, const ShoalPlan *plan, int r,
                       const ShoalResult *result) {
    const NetOutputs *outputs = &progress->nets[plan->round.net];
    size_t at = 0, from = 0;
    for (int o = 0; o < outputs->count; at += outputs->items[o].count, o++) {
        const Output *output = &outputs->items[o];
        size_t stride = output->per_sample ? output->count / (size_t)outputs->batch : 0;
        size_t n = output->per_sample ? stride * (size_t)plan->count[r] : output->count;
        if (from + n > result->output_count)
            return false;
        const float *values = result->outputs + from;
        for (size_t k = 0; k < n && !output->per_sample; k++)
            progress->merged[at + k] +=
                (float)((double)values[k] * plan->count[r] / plan->round.batch);
        for (int i = 0; i < plan->count[r] && output->per_sample; i++)
            memcpy(progress->merged + at + stride * plan->places[plan->first[r] + i],
                   values + stride * (size_t)i, stride * sizeof(float));
        from += n;
    }
    return true;
}

/* What is one value a sample is unknown until it comes; means are sums until they are complete. */
static void clear_merged(ShoalProgress *progress, const NetOutputs *outputs) {
    size_t at = 0;
    for (int o = 0; o < outputs->count; at += outputs->items[o].count, o++)
        for (size_t k = 0; k < outputs->items[o].count; k++)
            progress->merged[at + k] = outputs->items[o].per_sample ? NAN : 0;
}

static ShoalStatus merge(ShoalProgress *progress, const ShoalPlan *plan, const ShoalResult *results,
                         ShoalError *err) {
    if (plan->first_of_pass) {
        clear_merged(progress, &progress->nets[plan->round.net]);
        progress->pass_loss = progress->pass_samples = 0;
    }
    for (int r = 0; r < plan->n_ranks; r++) {
        if (plan->count[r] == 0 || !results[r].present)
            continue;
        progress->pass_loss += (double)results[r].loss * plan->count[r];
        progress->pass_samples += plan->count[r];
        if (!merge_rank(progress, plan, r, &results[r]))
            return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                                   "rank %d reported %zu output values, more were expected", r,
                                   results[r].output_count);
    }
    return SHOAL_OK;
}

/* Means are over the samples whose results are there: those of a lost worker may be missing. */
static void finish_merge(ShoalProgress *progress, const ShoalPlan *plan) {
    const NetOutputs *outputs = &progress->nets[plan->round.net];
    if (progress->pass_samples <= 0 || progress->pass_samples >= plan->round.batch)
        return;
    size_t at = 0;
    for (int o = 0; o < outputs->count; at += outputs->items[o].count, o++)
        for (size_t k = 0; k < outputs->items[o].count && !outputs->items[o].per_sample; k++)
            progress->merged[at + k] *= (float)(plan->round.batch / progress->pass_samples);
}

/* Mean of the last average_loss losses (Solver::UpdateSmoothedLoss). */
static void smooth(ShoalProgress *progress, float loss, int iter) {
    int span = progress->job->solver->average_loss;
    if (progress->n_losses < span) {
        progress->losses[progress->n_losses++] = loss;
        float n = (float)progress->n_losses;
        progress->smoothed = (progress->smoothed * (n - 1) + loss) / n;
        return;
    }
    int at = (iter > progress->start_iter ? iter - progress->start_iter : 0) % span;
    progress->smoothed += (loss - progress->losses[at]) / (float)span;
    progress->losses[at] = loss;
}

static bool same_hash(const ShoalResult *a, const ShoalResult *b) {
    return a->present && b->present && a->hashed && b->hashed &&
           !memcmp(a->hash, b->hash, sizeof a->hash);
}

bool shoal_director_diverged(const ShoalPlan *plan, const ShoalResult *results,
                             unsigned char *odd) {
    int best = -1, most = 0;
    for (int r = 0; r < plan->n_ranks && most * 2 <= plan->n_ranks; r++) {
        int agree = 0;
        for (int q = 0; q < plan->n_ranks; q++)
            agree += same_hash(&results[r], &results[q]);
        if (agree > most) {
            most = agree;
            best = r;
        }
    }
    bool any = false;
    for (int r = 0; r < plan->n_ranks; r++) {
        bool compared = best >= 0 && results[r].present && results[r].hashed;
        odd[r] = compared && !same_hash(&results[r], &results[best]);
        any = any || odd[r];
    }
    return any;
}

static void emit_iteration(ShoalProgress *progress, const ShoalPlan *plan,
                           const ShoalResult *results, const ShoalClusterStatus *cluster,
                           ShoalEventKind kind) {
    double seconds = progress->window_ns * 1e-9;
    ShoalEvent event = {.kind = kind,
                        .displayed = plan->round.display,
                        .iter = plan->round.iter,
                        .batch = plan->round.batch * progress->job->solver->iter_size,
                        .samples = (int)progress->iteration_samples,
                        .loss = progress->smoothed,
                        .rate = plan->round.rate,
                        .images_per_s = seconds > 0 ? progress->window_samples / seconds : 0,
                        .outputs = progress->shown,
                        .n_outputs = show(progress, 0, progress->merged),
                        .cluster = cluster};
    for (int r = 0; r < plan->n_ranks; r++)
        if (results[r].present)
            event.clipped_norm = results[r].clipped_norm;
    shoal_progress_emit(progress, &event);
    if (plan->round.display)
        progress->window_samples = progress->window_ns = 0;
}

static ShoalStatus train_round(ShoalProgress *progress, const ShoalPlan *plan,
                               const ShoalResult *results, const ShoalClusterStatus *cluster,
                               double ns, ShoalError *err) {
    progress->window_ns += ns;
    progress->window_samples += plan->round.count;
    if (plan->round.clear)
        progress->iteration_loss = progress->iteration_samples = 0;
    ShoalStatus status = merge(progress, plan, results, err);
    if (status || !plan->last_of_pass)
        return status;
    finish_merge(progress, plan);
    progress->iteration_samples += progress->pass_samples;
    if (progress->pass_samples > 0)
        progress->iteration_loss += progress->pass_loss / progress->pass_samples;
    if (!plan->round.update)
        return SHOAL_OK;
    int passes = plan->round.kind == SHOAL_STEP_TRAIN ? progress->job->solver->iter_size : 1;
    smooth(progress, (float)(progress->iteration_loss / passes), plan->round.iter);
    emit_iteration(progress, plan, results, cluster,
                   plan->round.kind == SHOAL_STEP_TRAIN ? SHOAL_EVENT_ITERATION : SHOAL_EVENT_LOSS);
    return SHOAL_OK;
}

static ShoalStatus test_round(ShoalProgress *progress, const ShoalPlan *plan,
                              const ShoalResult *results, double ns, ShoalError *err) {
    const NetOutputs *outputs = &progress->nets[plan->round.net];
    ShoalEvent event = {
        .kind = SHOAL_EVENT_TESTING, .iter = plan->round.iter, .test_net = plan->round.net - 1};
    if (plan->starts_test) {
        memset(progress->test_sums, 0, outputs->values * sizeof *progress->test_sums);
        progress->test_samples = progress->test_ns = 0;
        shoal_progress_emit(progress, &event);
    }
    progress->test_ns += ns;
    for (int r = 0; r < plan->n_ranks; r++) {
        if (plan->count[r] == 0 || !results[r].present)
            continue;
        if (results[r].output_count != outputs->values)
            return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                                   "rank %d reported %zu output values, %zu were expected", r,
                                   results[r].output_count, outputs->values);
        for (size_t k = 0; k < outputs->values; k++)
            progress->test_sums[k] += (double)results[r].outputs[k];
        progress->test_samples += plan->count[r];
    }
    if (!plan->last_of_step)
        return SHOAL_OK;
    for (size_t k = 0; k < outputs->values; k++)
        progress->merged[k] = (float)(progress->test_sums[k] / plan->test_iter);
    event.kind = SHOAL_EVENT_TEST;
    event.outputs = progress->shown;
    event.n_outputs = show(progress, plan->round.net, progress->merged);
    event.images_per_s =
        progress->test_ns > 0 ? progress->test_samples / (progress->test_ns * 1e-9) : 0;
    shoal_progress_emit(progress, &event);
    return SHOAL_OK;
}

ShoalStatus shoal_progress_round(ShoalProgress *progress, const ShoalPlan *plan,
                                 const ShoalResult *results, const ShoalClusterStatus *cluster,
                                 ShoalError *err) {
    uint64_t now = shoal_clock_ns();
    double ns = (double)(now - progress->last_ns);
    progress->last_ns = now;
    switch (plan->round.kind) {
    case SHOAL_STEP_TRAIN:
    case SHOAL_STEP_LOSS:
        return train_round(progress, plan, results, cluster, ns, err);
    case SHOAL_STEP_TEST:
        return test_round(progress, plan, results, ns, err);
    default:
        return SHOAL_OK;
    }
}
