/* SPDX-License-Identifier: Apache-2.0 */
#include "train/mpi.h"

#include "base/error.h"

#ifndef SHOAL_MPI

ShoalStatus shoal_train_mpi(ShoalJob *job, const ShoalTrainOptions *options, ShoalError *err) {
    (void)job;
    (void)options;
    return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                           "this build has no MPI: build Shoal with -DSHOAL_MPI=ON (make MPI=1)");
}

#else

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/stop.h"
#include "collective/mpi.h"
#include "cpu/clusters.h"
#include "train/director.h"
#include "train/engine.h"
#include "train/pipe.h"

enum { SLOTS = 3, GENERATION = 1, ASKED_STOP = 1, ASKED_SNAPSHOT = 2, FAILURE = 1 };

/* What a rank tells rank 0 of a round; `capacity` output values follow. */
typedef struct Report {
    double clipped_norm;
    uint64_t compute_ns, communication_ns, exposed_ns, waiting_ns, bytes_sent, output_count;
    float loss;
    unsigned char hash[16];
    unsigned char hashed;
} Report;

/* What must be the same on all ranks for them to plan the same rounds. */
typedef struct Identity {
    unsigned char job[16];
    int iter, current_step, hash_interval, shuffle, resume;
} Identity;

/* Of one rank since the last displayed iteration. */
typedef struct Tally {
    double samples, compute_ns, communication_ns, exposed_ns, waiting_ns, bytes_sent;
} Tally;

/* One rank. Every rank plans the same rounds and computes its part of each. */
typedef struct Run {
    const ShoalTrainOptions *asked;
    ShoalTrainOptions options;  /* the director's: events on rank 0 alone, and a stop flag that is
                                   the same on all ranks */
    volatile sig_atomic_t stop; /* that flag; of the staging thread */
    ShoalJob *job;
    ShoalCollective *mpi;
    char host[SHOAL_MPI_HOST];
    int rank, n;

    ShoalDirector *director;
    ShoalBalance *balance; /* hears no reports: equal shares */
    int *capacities;
    ShoalReplica *replica;
    ShoalPipe *pipe;
    ShoalSlot *slots[SLOTS];
    ShoalPlan plans[SLOTS];
    uint64_t planned, completed; /* rounds; of the staging, of the main thread */
    unsigned char asks[SLOTS];   /* what users asked for until the end of round i % SLOTS */

    ShoalResult result;
    size_t report_bytes, capacity;
    unsigned char *report, *reports; /* own; of rank 0: all of them */
    uint64_t idle_since_ns;

    /* of rank 0 */
    ShoalResult *results;
    unsigned char *odd;
    Tally *tallies;
    int tally_rounds;
    ShoalWorkerStatus *statuses;
    ShoalClusterStatus status;
    char (*names)[SHOAL_MPI_HOST + 16];
} Run;

/* ---- failures ---- */

/* As the command line would say it. */
_Noreturn static void end_job(const Run *run, const ShoalError *err) {
    char who[SHOAL_MPI_HOST + 32] = "";
    if (run->rank)
        snprintf(who, sizeof who, "rank %d on %s: ", run->rank, run->host);
    fprintf(stderr, "shoal train: error: %s%s\n", who, err->text);
    shoal_mpi_end_job(run->mpi, FAILURE);
}

/* All ranks are here: the first that has failed speaks for those that have, too. */
static void agree(const Run *run, ShoalStatus status, ShoalError *err) {
    unsigned first;
    if (shoal_mpi_first(run->mpi, status != SHOAL_OK, &first, err) || (int)first == run->rank)
        end_job(run, err);
    if ((int)first < run->n)
        shoal_mpi_await_end(run->mpi, FAILURE);
}

/* ---- staging ---- */

/* What was asked for by the end of a round takes effect where the round after next but one is
 * planned: all ranks know it by then, however far ahead they stage. */
static void take_asks(Run *run) {
    if (run->planned < SLOTS)
        return;
    unsigned asked = run->asks[run->planned % SLOTS];
    if (asked & ASKED_STOP)
        shoal_stop_ask(&run->stop, SHOAL_STOP_NOW);
    else if (asked & ASKED_SNAPSHOT)
        (void)shoal_stop_change(&run->stop, 0, SHOAL_STOP_SNAPSHOT);
}

static ShoalStatus plan_round(Run *run, ShoalPlan *plan, bool *more, ShoalError *err) {
    const ShoalCrew crew = {.n = run->n, .capacities = run->capacities, .balance = run->balance};
    take_asks(run);
    run->planned++;
    return shoal_director_next(run->director, &crew, plan, more, err);
}

static ShoalStatus stage(Run *run, int item, ShoalError *err) {
    const ShoalPlan *plan = &run->plans[item];
    ShoalSlot *slot = run->slots[item];
    ShoalRound *round = shoal_slot_round(slot);
    *round = plan->round;
    round->first_sample = plan->base[run->rank];
    round->count = plan->count[run->rank];
    round->places = plan->places + plan->first[run->rank];
    return shoal_streams_stage(shoal_director_streams(run->director, round->net), slot, err);
}

static void *stage_ahead(void *argument) {
    Run *run = argument;
    shoal_replica_release_thread(run->replica);
    ShoalError err = {0};
    for (;;) {
        int item = shoal_pipe_take(run->pipe, true);
        if (item < 0)
            return NULL;
        bool more;
        if (plan_round(run, &run->plans[item], &more, &err) || (more && stage(run, item, &err))) {
            shoal_pipe_close(run->pipe, &err);
            return NULL;
        }
        if (!more) {
            shoal_pipe_close(run->pipe, NULL);
            return NULL;
        }
        shoal_pipe_push(run->pipe, item);
    }
}

/* ---- results ---- */

static void write_report(const Run *run) {
    const ShoalResult *result = &run->result;
    Report report = {.clipped_norm = result->clipped_norm,
                     .compute_ns = result->compute_ns,
                     .communication_ns = result->communication_ns,
                     .exposed_ns = result->exposed_ns,
                     .waiting_ns = result->waiting_ns,
                     .bytes_sent = result->bytes_sent,
                     .output_count = result->output_count,
                     .loss = result->loss,
                     .hashed = result->hashed};
    memcpy(report.hash, result->hash, sizeof report.hash);
    memcpy(run->report, &report, sizeof report);
    memcpy(run->report + sizeof report, result->outputs, result->output_count * sizeof(float));
}

static void read_report(const Run *run, int rank) {
    const unsigned char *bytes = run->reports + (size_t)rank * run->report_bytes;
    ShoalResult *result = &run->results[rank];
    Report report;
    memcpy(&report, bytes, sizeof report);
    float *outputs = result->outputs;
    size_t count = report.output_count < run->capacity ? report.output_count : run->capacity;
    *result = (ShoalResult){.loss = report.loss,
                            .outputs = outputs,
                            .output_count = count,
                            .output_capacity = run->capacity,
                            .present = true,
                            .compute_ns = report.compute_ns,
                            .communication_ns = report.communication_ns,
                            .exposed_ns = report.exposed_ns,
                            .waiting_ns = report.waiting_ns,
                            .bytes_sent = report.bytes_sent,
                            .clipped_norm = report.clipped_norm,
                            .hashed = report.hashed};
    memcpy(result->hash, report.hash, sizeof result->hash);
    memcpy(outputs, bytes + sizeof report, count * sizeof(float));
}

static void tally(Run *run, const ShoalPlan *plan) {
    for (int r = 0; r < run->n && plan->round.kind == SHOAL_STEP_TRAIN; r++) {
        const ShoalResult *result = &run->results[r];
        Tally *sum = &run->tallies[r];
        sum->samples += plan->count[r];
        sum->compute_ns += (double)result->compute_ns;
        sum->communication_ns += (double)result->communication_ns;
        sum->exposed_ns += (double)result->exposed_ns;
        sum->waiting_ns += (double)result->waiting_ns;
        sum->bytes_sent += (double)result->bytes_sent;
    }
    run->tally_rounds += plan->round.kind == SHOAL_STEP_TRAIN && plan->round.update;
}

static const ShoalClusterStatus *describe(Run *run, const ShoalPlan *plan) {
    double each = (double)run->n * (run->tally_rounds > 0 ? run->tally_rounds : 1);
    run->status = (ShoalClusterStatus){
        .workers = run->statuses, .n_workers = run->n, .generation = GENERATION};
    for (int r = 0; r < run->n; r++) {
        const Tally *sum = &run->tallies[r];
        double ns = sum->compute_ns + sum->exposed_ns + sum->waiting_ns;
        run->statuses[r] =
            (ShoalWorkerStatus){.name = run->names[r],
                                .duty = 1,
                                .remark = "",
                                .share = plan->count[r] * run->job->solver->iter_size,
                                .images_per_s = ns > 0 ? sum->samples / (ns * 1e-9) : 0,
                                .compute = ns > 0 ? sum->compute_ns / ns : 0,
                                .communication = ns > 0 ? sum->exposed_ns / ns : 0,
                                .waiting = ns > 0 ? sum->waiting_ns / ns : 0,
                                .battery = -1};
        run->status.communication_ms += sum->communication_ns * 1e-6 / each;
        run->status.exposed_ms += sum->exposed_ns * 1e-6 / each;
        run->status.reduced_mb += sum->bytes_sent * 1e-6 / each;
    }
    return &run->status;
}

/* MPI does not promise that all ranks get the same sums to the bit, and memory may be faulty. */
static ShoalStatus compare_replicas(const Run *run, const ShoalPlan *plan, ShoalError *err) {
    if (!shoal_director_diverged(plan, run->results, run->odd))
        return SHOAL_OK;
    int r = 0;
    while (!run->odd[r])
        r++;
    return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                           "iteration %d: %s holds other weights than the rest; its memory or "
                           "processor may be faulty, or this MPI does not give all ranks the same "
                           "sums",
                           plan->round.iter, run->names[r]);
}

static ShoalStatus complete(Run *run, const ShoalPlan *plan, ShoalError *err) {
    write_report(run);
    ShoalStatus status =
        shoal_mpi_gather(run->mpi, run->report, run->report_bytes, run->reports, err);
    if (status || run->rank)
        return status;
    for (int r = 0; r < run->n; r++)
        read_report(run, r);
    tally(run, plan);
    status = shoal_director_complete(run->director, plan, run->results, describe(run, plan), err);
    if (plan->round.kind == SHOAL_STEP_TRAIN && plan->round.update && plan->round.display) {
        memset(run->tallies, 0, (size_t)run->n * sizeof *run->tallies);
        run->tally_rounds = 0;
    }
    return status ? status : compare_replicas(run, plan, err);
}

static ShoalStatus snapshot(Run *run, const ShoalRound *round, ShoalError *err) {
    char name[4096];
    ShoalBuffer model = {0}, state = {0};
    if (run->rank)
        return SHOAL_OK;
    ShoalStatus status = shoal_director_model_name(run->job, round->iter, name, sizeof name, err);
    if (!status)
        status = shoal_replica_snapshot_bytes(run->replica, round->iter, round->current_step, name,
                                              &model, &state, err);
    if (status)
        return status;
    status = shoal_director_write_snapshot(run->director, round->iter, model.bytes, model.used,
                                           state.bytes, state.used, err);
    shoal_buffer_close(&model);
    shoal_buffer_close(&state);
    return status;
}

/* ---- rounds ---- */

/* Signals may reach any rank; all learn of them at the end of the same round. */
static ShoalStatus share_asks(Run *run, ShoalError *err) {
    unsigned char asked = 0;
    if (shoal_stop_asked(run->asked->stop) == SHOAL_STOP_NOW)
        asked = ASKED_STOP;
    else if (shoal_stop_change(run->asked->stop, SHOAL_STOP_SNAPSHOT, 0))
        asked = ASKED_SNAPSHOT;
    ShoalStatus status = shoal_mpi_merge(run->mpi, &asked, sizeof asked, err);
    run->asks[run->completed++ % SLOTS] = asked;
    return status;
}

static ShoalStatus run_round(Run *run, int item, ShoalError *err) {
    const ShoalPlan *plan = &run->plans[item];
    run->result.waiting_ns = shoal_clock_ns() - run->idle_since_ns;
    ShoalStatus status;
    if (plan->round.kind == SHOAL_STEP_SNAPSHOT)
        status = snapshot(run, &plan->round, err);
    else
        status = shoal_replica_run(run->replica, run->slots[item], run->mpi, GENERATION,
                                   &run->result, err);
    run->idle_since_ns = shoal_clock_ns();
    if (!status && plan->round.kind != SHOAL_STEP_SNAPSHOT)
        status = complete(run, plan, err);
    return status ? status : share_asks(run, err);
}

static ShoalStatus run_rounds(Run *run, ShoalError *err) {
    run->idle_since_ns = shoal_clock_ns();
    for (;;) {
        int item = shoal_pipe_pop(run->pipe);
        if (item < 0)
            return shoal_pipe_error(run->pipe, err);
        ShoalStatus status = run_round(run, item, err);
        if (status)
            return status;
        shoal_pipe_recycle(run->pipe, item);
    }
}

static void train(Run *run, ShoalError *err) {
    pthread_t thread;
    shoal_director_begin(run->director, run->n);
    if (pthread_create(&thread, NULL, stage_ahead, run))
        (void)shoal_error_set(err, SHOAL_ERR_MEMORY, "cannot start a thread");
    if (err->status || run_rounds(run, err))
        end_job(run, err);
    pthread_join(thread, NULL);
    shoal_director_end(run->director);
}

/* ---- preparing ---- */

static ShoalStatus refuse(ShoalError *err, const char *what) {
    return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED, "%s", what);
}

static ShoalStatus check_options(const ShoalTrainOptions *options, ShoalError *err) {
    if (options->workers > 0 || options->listen)
        return refuse(err, "over MPI mpirun starts the processes, and no others can join: leave "
                           "--workers and --listen away");
    if (options->wire && strcmp(options->wire, "fp32") != 0)
        return refuse(err, "over MPI gradients travel as fp32; 16 bits need --collective=ring");
    if (options->balance && strcmp(options->balance, "off") != 0)
        return refuse(err, "over MPI all shares are equal; --balance=on needs --collective=ring");
    if (options->encrypt)
        return refuse(err, "MPI encrypts nothing; --encrypt needs --collective=ring");
    return SHOAL_OK;
}

static ShoalStatus open_job(Run *run, ShoalError *err) {
    ShoalDirectorOptions director = {.train = &run->options, .n_ranks = run->n};
    ShoalStatus status = shoal_mpi_broadcast(run->mpi, &run->job->seed, sizeof run->job->seed, err);
    if (!status)
        status = shoal_shuffle_find(run->asked->shuffle, &director.shuffle, err);
    if (!status)
        status = shoal_director_create(run->job, &director, &run->director, err);
    return status;
}

static ShoalStatus compare_jobs(const Run *run, ShoalError *err) {
    const ShoalJob *job = run->job;
    Identity own, first;
    ShoalShuffle shuffle = SHOAL_SHUFFLE_NONE;
    memset(&own, 0, sizeof own);
    ShoalStatus status = shoal_job_id(job, own.job, err);
    if (!status)
        status = shoal_shuffle_find(run->asked->shuffle, &shuffle, err);
    own.iter = job->state ? job->state->iter : 0;
    own.current_step = job->state ? job->state->current_step : 0;
    own.hash_interval = job->hash_interval;
    own.shuffle = (int)shuffle;
    own.resume = run->asked->resume;
    first = own;
    ShoalStatus sent = shoal_mpi_broadcast(run->mpi, &first, sizeof first, err);
    if (status || sent)
        return status ? status : sent;
    return memcmp(&own, &first, sizeof own)
               ? shoal_error_set(err, SHOAL_ERR_MODEL,
                                 "has another job than rank 0: solver, nets, datasets, snapshot "
                                 "and flags must be the same on every machine")
               : SHOAL_OK;
}

/* This machine's cores that the job may use, shared out among the ranks there. */
static ShoalStatus usual_threads(Run *run, int *threads, ShoalError *err) {
    cpu_set_t cores;
    int ranks;
    CPU_ZERO(&cores);
    (void)sched_getaffinity(0, sizeof cores, &cores);
    ShoalStatus status = shoal_mpi_merge_near(run->mpi, &cores, sizeof cores, &ranks, err);
    if (status)
        return status;
    int share = CPU_COUNT(&cores) / ranks, most = shoal_cpu_fast_cores();
    *threads = share < 1 ? 1 : share > most ? most : share;
    return SHOAL_OK;
}

static ShoalStatus share_out(Run *run, int *capacity, ShoalError *err) {
    const ShoalJobNet *net = &run->job->nets[0];
    int batch;
    ShoalStatus status =
        shoal_net_model_batch(&net->model, CAFFE__PHASE__TRAIN, net->state, &batch, err);
    uint64_t *keys = shoal_calloc((size_t)run->n, sizeof *keys);
    run->capacities = shoal_calloc((size_t)run->n, sizeof *run->capacities);
    if (!status && (!keys || !run->capacities))
        status = shoal_error_memory(err, "the shares", (size_t)run->n * sizeof *keys);
    for (int r = 0; r < run->n && !status; r++) {
        keys[r] = (uint64_t)r;
        run->capacities[r] = *capacity = run->job->unit ? run->job->unit : (batch - 1) / run->n + 1;
    }
    if (!status)
        status = shoal_balance_create(NULL, &run->balance, err);
    if (!status)
        status = shoal_balance_members(run->balance, run->n, keys, err);
    shoal_free(keys);
    return status;
}

static ShoalStatus make_slots(Run *run, ShoalError *err) {
    for (int i = 0; i < SLOTS; i++) {
        run->slots[i] = shoal_slot_create(run->replica);
        if (!run->slots[i])
            return shoal_error_set(err, SHOAL_ERR_MEMORY,
                                   "out of memory: no room for the samples of %d batches; use a "
                                   "smaller batch_size or more ranks",
                                   SLOTS);
    }
    run->pipe = shoal_pipe_create(SLOTS);
    return run->pipe ? SHOAL_OK : shoal_error_memory(err, "a pipe", sizeof(void *));
}

static ShoalStatus make_replica(Run *run, int threads, ShoalError *err) {
    const ShoalJob *job = run->job;
    ShoalReplicaOptions options = {.slots = SLOTS};
    ShoalStatus status = share_out(run, &options.capacity, err);
    if (!status)
        status = shoal_engine_choose(&run->asked->engine, threads, &options, err);
    if (!status)
        status = shoal_replica_create(job, &options, &run->replica, err);
    if (!status)
        status = shoal_replica_result_init(run->replica, &run->result, err);
    if (!status)
        status = make_slots(run, err);
    if (!status && !run->rank) {
        ShoalClusterVersion version = {.held = true,
                                       .updates = job->state ? (uint64_t)job->state->iter : 0,
                                       .generation = GENERATION};
        status = shoal_replica_seed(run->replica, job->weights, job->n_weights,
                                    job->state ? &job->state_file : NULL, version,
                                    job->state ? job->state->current_step : 0, err);
    }
    return status;
}

static ShoalStatus make_results(Run *run, ShoalError *err) {
    size_t n = (size_t)run->n;
    run->reports = shoal_calloc(n, run->report_bytes);
    run->results = shoal_calloc(n, sizeof *run->results);
    run->odd = shoal_calloc(n, 1);
    run->tallies = shoal_calloc(n, sizeof *run->tallies);
    run->statuses = shoal_calloc(n, sizeof *run->statuses);
    run->names = shoal_calloc(n, sizeof *run->names);
    bool whole =
        run->reports && run->results && run->odd && run->tallies && run->statuses && run->names;
    for (int r = 0; whole && r < run->n; r++) {
        run->results[r].outputs = shoal_calloc(run->capacity, sizeof(float));
        whole = run->results[r].outputs != NULL;
    }
    return whole ? SHOAL_OK : shoal_error_memory(err, "results", n * run->report_bytes);
}

static ShoalStatus make_reports(Run *run, ShoalError *err) {
    run->capacity = shoal_director_output_capacity(run->director);
    if (run->result.output_capacity > run->capacity)
        run->capacity = run->result.output_capacity;
    run->report_bytes = sizeof(Report) + run->capacity * sizeof(float);
    run->report = shoal_calloc(1, run->report_bytes);
    if (!run->report)
        return shoal_error_memory(err, "a result", run->report_bytes);
    return run->rank ? SHOAL_OK : make_results(run, err);
}

static ShoalStatus name_ranks(Run *run, ShoalError *err) {
    char own[sizeof *run->names];
    snprintf(own, sizeof own, "rank %d on %s", run->rank, run->host);
    return shoal_mpi_gather(run->mpi, own, sizeof own, run->names, err);
}

/* All begin with rank 0's weights and state: nobody's own files, or fillers, can differ. */
static ShoalStatus copy_state(Run *run, ShoalError *err) {
    const ShoalJob *job = run->job;
    ShoalClusterVersion version = {.held = true,
                                   .updates = job->state ? (uint64_t)job->state->iter : 0,
                                   .generation = GENERATION};
    unsigned char *needy = shoal_calloc((size_t)run->n, 1);
    if (!needy)
        return shoal_error_memory(err, "the ranks", (size_t)run->n);
    memset(needy + 1, 1, (size_t)run->n - 1);
    ShoalStatus status = shoal_replica_begin(run->replica, run->mpi, needy, version,
                                             job->state ? job->state->current_step : 0, err);
    shoal_free(needy);
    return status;
}

/* Returns only if all ranks get through. */
static void prepare(Run *run, bool loaded, ShoalError *err) {
    int threads = 1;
    agree(run, loaded ? check_options(run->asked, err) : SHOAL_ERR_MODEL, err);
    agree(run, open_job(run, err), err);
    agree(run, compare_jobs(run, err), err);
    agree(run, usual_threads(run, &threads, err), err);
    agree(run, make_replica(run, threads, err), err);
    agree(run, make_reports(run, err), err);
    if (name_ranks(run, err) || copy_state(run, err))
        end_job(run, err);
}

static void close_run(Run *run) {
    for (int i = 0; i < SLOTS; i++) {
        shoal_slot_destroy(run->slots[i]);
        shoal_plan_close(&run->plans[i]);
    }
    for (int r = 0; run->results && r < run->n; r++)
        shoal_replica_result_close(&run->results[r]);
    shoal_replica_result_close(&run->result);
    shoal_pipe_destroy(run->pipe);
    shoal_collective_destroy(run->mpi); /* may still write to the replica */
    shoal_replica_destroy(run->replica);
    shoal_director_destroy(run->director);
    shoal_balance_destroy(run->balance);
    void *const blocks[] = {run->capacities, run->report,  run->reports,  run->results,
                            run->odd,        run->tallies, run->statuses, run->names};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        shoal_free(blocks[i]);
}

ShoalStatus shoal_train_mpi(ShoalJob *job, const ShoalTrainOptions *options, ShoalError *err) {
    ShoalError own = {0};
    Run run = {.asked = options, .options = *options, .job = job};
    err = err ? err : &own;
    ShoalStatus status = shoal_mpi_create(&run.mpi, job ? err : &own);
    if (status)
        return job ? status : err->status;
    run.rank = (int)run.mpi->rank;
    run.n = (int)run.mpi->size;
    run.options.stop = &run.stop;
    if (run.rank)
        run.options.on_event = NULL;
    shoal_mpi_host(run.host);
    prepare(&run, job != NULL, err);
    train(&run, err);
    bool stopped = shoal_director_stopped(run.director);
    int rank = run.rank;
    close_run(&run);
    return stopped && !rank ? shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request")
                            : SHOAL_OK;
}

#endif
