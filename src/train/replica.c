/* SPDX-License-Identifier: Apache-2.0 */
#include "train/replica.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "cpu/clusters.h"
#include "cluster/shares.h"
#include "data/datum.h"
#include "data/transform.h"

/* A layer of a net that is fed from outside. */
typedef struct Source {
    ShoalLayer *layer;
    const char *dataset;       /* NULL: not fed */
    ShoalTransform *transform; /* NULL: not fed */
    size_t *offsets;           /* of each top in a slot, bytes */
    size_t capacity_floats;    /* of top 0, at the largest share */
    size_t sample_floats;      /* of top 0, one sample */
} Source;

typedef struct ReplicaNet {
    ShoalNet *net;
    Source *sources;
    int n_sources;
    size_t slot_bytes;
} ReplicaNet;

struct ShoalReplica {
    const ShoalJob *job;
    ReplicaNet *nets;
    int n_nets;
    ShoalSolver *solver;
    ShoalCompute compute;
    ShoalPool *pool;
    void *arena;
    size_t arena_bytes, slot_bytes;
    bool pinned;             /* the thread that made it is kept on the fast cores */
    float iteration_samples; /* computed here since the iteration began */
};

struct ShoalSlot {
    const ShoalReplica *replica;
    ShoalRound round;
    unsigned char *memory;
    ShoalDatumDecoder *decoder;
};

/* ---- construction ---- */

static const char *dataset_of(const Caffe__LayerParameter *layer) {
    bool is_data = layer->type && !strcmp(layer->type, "Data");
    return is_data && layer->data_param ? layer->data_param->source : NULL;
}

static ShoalStatus make_transform(const ShoalJob *job, const Caffe__LayerParameter *layer,
                                  bool train, ShoalTransform **out, ShoalError *err) {
    const ShoalJobDataset *dataset = shoal_job_dataset(job, layer->data_param->source);
    if (!dataset)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "layer '%s': dataset '%s' is not in the job",
                               layer->name, layer->data_param->source);
    const Caffe__TransformationParameter *param = layer->transform_param;
    Caffe__BlobProto *mean = NULL;
    ShoalStatus status = SHOAL_OK;
    if (param && param->mean_file && param->mean_file[0]) {
        const ShoalJobFile *file = shoal_job_file(job, param->mean_file);
        if (!file)
            return shoal_error_set(err, SHOAL_ERR_MODEL, "layer '%s': mean_file '%s' is missing",
                                   layer->name, param->mean_file);
        status = shoal_caffe_unpack(&caffe__blob_proto__descriptor, file->bytes, file->size,
                                    file->name, (ProtobufCMessage **)&mean, err);
    }
    if (!status)
        status = shoal_transform_create(param, train, job->seed, mean, dataset->channels,
                                        dataset->height, dataset->width, out, err);
    if (status)
        shoal_error_prefix(err, "layer '%s'", layer->name);
    if (mean)
        caffe__blob_proto__free_unpacked(mean, NULL);
    return status;
}

ShoalStatus shoal_replica_source_shape(void *job, const Caffe__LayerParameter *layer, int dims[3],
                                       ShoalError *err) {
    ShoalTransform *transform;
    ShoalStatus status = make_transform(job, layer, false, &transform, err);
    if (status)
        return status;
    shoal_transform_shape(transform, dims);
    shoal_transform_destroy(transform);
    return SHOAL_OK;
}

static ShoalStatus make_sources(ShoalReplica *replica, ReplicaNet *net, bool train,
                                ShoalError *err) {
    net->n_sources = shoal_net_sources(net->net);
    net->sources = shoal_calloc((size_t)net->n_sources, sizeof *net->sources);
    if (!net->sources)
        return shoal_error_memory(err, "the data layers", sizeof *net->sources);
    for (int i = 0; i < net->n_sources; i++) {
        Source *source = &net->sources[i];
        source->layer = shoal_net_source(net->net, i);
        source->dataset = dataset_of(source->layer->param);
        source->offsets = shoal_calloc((size_t)source->layer->n_tops, sizeof *source->offsets);
        if (!source->offsets)
            return shoal_error_memory(err, "the data layers", sizeof *source->offsets);
        for (int t = 0; t < source->layer->n_tops; t++) {
            source->offsets[t] = net->slot_bytes;
            net->slot_bytes += shoal_align_up(source->layer->tops[t]->count * sizeof(float));
        }
        if (!source->dataset)
            continue;
        source->capacity_floats = source->layer->tops[0]->count;
        source->sample_floats =
            shoal_blob_count(source->layer->tops[0], 1, source->layer->tops[0]->axes);
        ShoalStatus status =
            make_transform(replica->job, source->layer->param, train, &source->transform, err);
        if (status)
            return status;
    }
    return SHOAL_OK;
}

static ShoalNetOptions net_options(const ShoalReplica *replica, int number,
                                   const ShoalReplicaOptions *options) {
    const ShoalJobNet *job_net = &replica->job->nets[number];
    bool train = number == 0 && !options->phase_test;
    return (ShoalNetOptions){
        .phase = train ? CAFFE__PHASE__TRAIN : CAFFE__PHASE__TEST,
        .state = job_net->state,
        .capacity = number == 0 ? options->capacity : 0,
        .threads = options->threads,
        .seed = replica->job->seed,
        .backward = train,
        .kernels = options->plan == SHOAL_REPLICA_PLAIN ? NULL : shoal_kernels_for(options->level),
        .fuse_all = options->plan == SHOAL_REPLICA_FUSED,
        .no_winograd = options->no_winograd,
        .recompute = !options->no_recompute,
        .weights_of = number == 0 ? NULL : replica->nets[0].net,
        .source_shape = shoal_replica_source_shape,
        .source_context = (void *)replica->job,
    };
}

static ShoalStatus make_net(ShoalReplica *replica, int number, const ShoalReplicaOptions *options,
                            ShoalError *err) {
    const ShoalJobNet *job_net = &replica->job->nets[number];
    const ShoalNetOptions wanted = net_options(replica, number, options);
    ReplicaNet *net = &replica->nets[number];
    replica->n_nets = number + 1;
    ShoalStatus status = shoal_net_create(&job_net->model, &wanted, &net->net, err);
    if (!status)
        status = make_sources(replica, net, wanted.phase == CAFFE__PHASE__TRAIN, err);
    if (!status && net->slot_bytes > replica->slot_bytes)
        replica->slot_bytes = net->slot_bytes;
    return status;
}

/* ---- memory ---- */

/* What is still to be allocated. */
typedef struct Needs {
    size_t arena, workspace, slot; /* the largest of any net */
} Needs;

static void add_needs(const ShoalNet *net, Needs *needs) {
    size_t slot = 0;
    for (int i = 0; i < shoal_net_sources(net); i++) {
        const ShoalLayer *source = shoal_net_source(net, i);
        for (int t = 0; t < source->n_tops; t++)
            slot += shoal_align_up(source->tops[t]->count * sizeof(float));
    }
    size_t arena = shoal_net_arena_bytes(net), workspace = shoal_net_workspace_bytes(net);
    needs->arena = arena > needs->arena ? arena : needs->arena;
    needs->workspace = workspace > needs->workspace ? workspace : needs->workspace;
    needs->slot = slot > needs->slot ? slot : needs->slot;
}

static size_t needed_bytes(const ShoalReplica *replica, const ShoalReplicaOptions *options,
                           const Needs *needs) {
    bool solver = !options->phase_test;
    size_t state = solver ? shoal_net_params(replica->nets[0].net).data_count * sizeof(float) : 0;
    size_t slots = options->slots > 0 ? (size_t)options->slots : 1;
    size_t samples, sum;
    if (!shoal_size_mul(slots, needs->slot, &samples) ||
        !shoal_size_add(needs->arena, needs->workspace, &sum) ||
        !shoal_size_add(sum, samples, &sum) || !shoal_size_add(sum, state, &sum))
        return SIZE_MAX;
    return sum;
}

/* The bytes with net 0 planned anew for `share` samples; it takes its weights from the one there
 * is. SIZE_MAX when they cannot be told. */
static size_t bytes_for_share(const ShoalReplica *replica, const ShoalReplicaOptions *options,
                              int share) {
    ShoalNetOptions wanted = net_options(replica, 0, options);
    wanted.capacity = share;
    wanted.weights_of = replica->nets[0].net;
    ShoalNet *net;
    if (shoal_net_create(&replica->job->nets[0].model, &wanted, &net, NULL))
        return SIZE_MAX;
    Needs needs = {0};
    add_needs(net, &needs);
    shoal_net_destroy(net);
    for (int i = 1; i < replica->n_nets; i++)
        add_needs(replica->nets[i].net, &needs);
    return needed_bytes(replica, options, &needs);
}

/* The largest share that fits into so many bytes, 0 for none. */
static int largest_share(const ShoalReplica *replica, const ShoalReplicaOptions *options,
                         unsigned long long bytes) {
    int fits = 0, too_large = shoal_net_capacity(replica->nets[0].net);
    while (too_large - fits > 1) {
        int middle = fits + (too_large - fits) / 2;
        if (bytes_for_share(replica, options, middle) <= bytes)
            fits = middle;
        else
            too_large = middle;
    }
    return fits;
}

static ShoalStatus check_memory(const ShoalReplica *replica, const ShoalReplicaOptions *options,
                                const Needs *needs, ShoalError *err) {
    unsigned long long total, available;
    shoal_memory_system(&total, &available);
    size_t bytes = needed_bytes(replica, options, needs);
    if (!available || bytes <= available)
        return SHOAL_OK;
    int share = shoal_net_capacity(replica->nets[0].net);
    int fitting = largest_share(replica, options, available);
    char advice[96];
    if (fitting)
        snprintf(advice, sizeof advice, "a batch of %d fits: set batch_size, or use more workers",
                 fitting);
    else
        snprintf(advice, sizeof advice, "not even a batch of 1 fits%s",
                 replica->n_nets > 1 ? "; does the test net need a smaller batch_size?" : "");
    return shoal_error_set(err, SHOAL_ERR_MEMORY,
                           "with a batch of %d the net needs %zu MB more for its blobs and "
                           "samples, but only %llu MB of memory are free; %s",
                           share, bytes >> 20, available >> 20, advice);
}

/* To the fast cores, where there are others. The pool's threads take it over. Several workers on
 * one machine do better where the system puts them. */
static void pin(ShoalReplica *replica, int threads) {
    ShoalCpuTopology topology;
    ShoalCpuChoice choice;
    shoal_cpu_topology(NULL, NULL, &topology);
    shoal_cpu_choose_cores(&topology, threads, &choice);
    if (choice.pin && !getenv("SHOAL_OWN_WORKER"))
        replica->pinned = shoal_cpu_pin(&choice.cores);
}

static ShoalStatus make_memory(ShoalReplica *replica, const ShoalReplicaOptions *options,
                               ShoalError *err) {
    Needs needs = {0};
    for (int i = 0; i < replica->n_nets; i++)
        add_needs(replica->nets[i].net, &needs);
    size_t arena = needs.arena, workspace = needs.workspace;
    replica->arena_bytes = arena + workspace;
    ShoalStatus status = check_memory(replica, options, &needs, err);
    if (status)
        return status;
    replica->arena = shoal_calloc(arena, 1);
    replica->compute.workspace = shoal_calloc(workspace, 1);
    replica->compute.workspace_bytes = workspace;
    replica->compute.kernels = shoal_kernels_for(options->level);
    pin(replica, options->threads);
    replica->pool = options->threads > 1 ? shoal_pool_create((unsigned)options->threads) : NULL;
    replica->compute.pool = replica->pool;
    if (!replica->arena || !replica->compute.workspace || (options->threads > 1 && !replica->pool))
        return shoal_error_memory(err, "the net's blobs", replica->arena_bytes);
    if (!replica->compute.kernels)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "this CPU has no kernels of level %s",
                               shoal_cpu_level_name(options->level));
    for (int i = 0; i < replica->n_nets; i++)
        shoal_net_bind(replica->nets[i].net, replica->arena);
    return SHOAL_OK;
}

static ShoalStatus load_weights(ShoalReplica *replica, ShoalError *err) {
    for (int i = 0; i < replica->n_nets; i++) {
        ShoalStatus status = shoal_net_init_weights(replica->nets[i].net, err);
        if (status)
            return status;
    }
    for (int i = 0; i < replica->job->n_weights; i++) {
        const ShoalJobFile *file = &replica->job->weights[i];
        ShoalCaffeNet from;
        ShoalStatus status =
            shoal_caffe_net_from_bytes(file->bytes, file->size, file->name, &from, err);
        if (status)
            return status;
        int copied = 0;
        for (int n = 0; n < replica->n_nets && !status; n++) {
            int layers = 0;
            status = shoal_net_load_weights(replica->nets[n].net, &from, &layers, err);
            copied += layers;
        }
        if (!status && !copied)
            status =
                shoal_error_set(err, SHOAL_ERR_MODEL,
                                "%s: holds no weights for any layer of this net (%zu layers in "
                                "the file); weights go by the names of layers",
                                file->name, from.param->n_layer);
        shoal_caffe_net_close(&from);
        if (status)
            return status;
    }
    return SHOAL_OK;
}

static ShoalStatus make_solver(ShoalReplica *replica, ShoalError *err) {
    const ShoalJob *job = replica->job;
    ShoalStatus status =
        shoal_solver_create(job->solver, replica->nets[0].net, &replica->solver, err);
    if (!status && job->state)
        status = shoal_solver_load_state(replica->solver, job->state, err);
    if (status && job->state)
        shoal_error_prefix(err, "%s", job->state_file.name);
    return status;
}

ShoalStatus shoal_replica_create(const ShoalJob *job, const ShoalReplicaOptions *options,
                                 ShoalReplica **out, ShoalError *err) {
    ShoalReplica *replica = shoal_calloc(1, sizeof *replica);
    if (!replica)
        return shoal_error_memory(err, "a replica", sizeof *replica);
    replica->job = job;
    replica->nets = shoal_calloc((size_t)job->n_nets, sizeof *replica->nets);
    ShoalStatus status =
        replica->nets ? SHOAL_OK : shoal_error_memory(err, "a replica", sizeof *replica->nets);
    for (int i = 0; i < job->n_nets && !status; i++)
        status = make_net(replica, i, options, err);
    if (!status)
        status = make_memory(replica, options, err);
    if (!status)
        status = load_weights(replica, err);
    if (!status && !options->no_solver && !options->phase_test)
        status = make_solver(replica, err);
    if (status)
        shoal_replica_destroy(replica);
    else
        *out = replica;
    return status;
}

void shoal_replica_destroy(ShoalReplica *replica) {
    if (!replica)
        return;
    shoal_solver_destroy(replica->solver);
    for (int i = replica->n_nets - 1; i >= 0; i--) { /* test nets use the train net's weights */
        for (int s = 0; replica->nets[i].sources && s < replica->nets[i].n_sources; s++) {
            shoal_transform_destroy(replica->nets[i].sources[s].transform);
            shoal_free(replica->nets[i].sources[s].offsets);
        }
        shoal_free(replica->nets[i].sources);
        shoal_net_destroy(replica->nets[i].net);
    }
    shoal_free(replica->nets);
    shoal_pool_destroy(replica->pool);
    if (replica->pinned)
        shoal_cpu_unpin();
    shoal_free(replica->arena);
    shoal_free(replica->compute.workspace);
    shoal_free(replica);
}

void shoal_replica_release_thread(const ShoalReplica *replica) {
    if (replica->pinned)
        shoal_cpu_unpin();
}

ShoalNet *shoal_replica_net(const ShoalReplica *replica, int net) {
    return replica->nets[net].net;
}

const ShoalCompute *shoal_replica_compute(const ShoalReplica *replica) {
    return &replica->compute;
}

size_t shoal_replica_bytes(const ShoalReplica *replica) {
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    size_t floats = params.data_count * 2 + params.gradient_count;
    return replica->arena_bytes + floats * sizeof(float);
}

/* ---- slots ---- */

ShoalSlot *shoal_slot_create(const ShoalReplica *replica) {
    ShoalSlot *slot = shoal_calloc(1, sizeof *slot);
    if (!slot)
        return NULL;
    slot->replica = replica;
    slot->memory = shoal_calloc(replica->slot_bytes, 1);
    slot->decoder = shoal_datum_decoder_create();
    if (slot->memory && slot->decoder)
        return slot;
    shoal_slot_destroy(slot);
    return NULL;
}

void shoal_slot_destroy(ShoalSlot *slot) {
    if (!slot)
        return;
    shoal_datum_decoder_destroy(slot->decoder);
    shoal_free(slot->memory);
    shoal_free(slot);
}

ShoalRound *shoal_slot_round(ShoalSlot *slot) {
    return &slot->round;
}

bool shoal_slot_fits(const ShoalSlot *slot, size_t n_sources) {
    const ShoalRound *round = &slot->round;
    if (round->net < 0 || round->net >= slot->replica->n_nets)
        return false;
    const ReplicaNet *net = &slot->replica->nets[round->net];
    bool has_samples = n_sources == (size_t)net->n_sources;
    return round->count <= shoal_net_capacity(net->net) &&
           (has_samples || (n_sources == 0 && round->count == 0));
}

size_t shoal_slot_records(const ShoalSlot *slot, int source) {
    bool fed = slot->replica->nets[slot->round.net].sources[source].dataset;
    return fed ? (size_t)slot->round.count : 0;
}

static float *slot_top(const ShoalSlot *slot, const Source *source, int top) {
    return (float *)(slot->memory + source->offsets[top]);
}

ShoalStatus shoal_slot_stage(ShoalSlot *slot, int source_number, int index,
                             const ShoalRecord *record, uint64_t number, ShoalError *err) {
    const ReplicaNet *net = &slot->replica->nets[slot->round.net];
    const Source *source = &net->sources[source_number];
    uint64_t sample = slot->round.first_sample + (uint64_t)index;
    size_t at = (size_t)index * source->sample_floats;
    if (!source->dataset || at + source->sample_floats > source->capacity_floats)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "sample %d does not belong into this round of %d", index,
                               slot->round.count);
    ShoalDatum datum;
    ShoalStatus status = shoal_datum_parse(slot->decoder, record->bytes, record->size,
                                           source->dataset, number, &datum, err);
    if (!status)
        status = shoal_transform_apply(source->transform, &datum, sample,
                                       slot_top(slot, source, 0) + at, err);
    if (!status && source->layer->n_tops > 1)
        slot_top(slot, source, 1)[index] = (float)datum.label;
    return status;
}

void shoal_slot_bind(const ShoalSlot *slot) {
    const ReplicaNet *net = &slot->replica->nets[slot->round.net];
    for (int i = 0; i < net->n_sources; i++)
        for (int t = 0; t < net->sources[i].layer->n_tops; t++)
            net->sources[i].layer->tops[t]->data = slot_top(slot, &net->sources[i], t);
}

/* ---- rounds ---- */

ShoalStatus shoal_replica_result_init(const ShoalReplica *replica, ShoalResult *result,
                                      ShoalError *err) {
    size_t most = 0;
    for (int i = 0; i < replica->n_nets; i++) {
        size_t count = 0;
        for (int o = 0; o < shoal_net_outputs(replica->nets[i].net); o++)
            count += shoal_net_output(replica->nets[i].net, o)->count;
        most = count > most ? count : most;
    }
    *result = (ShoalResult){.output_capacity = most};
    result->outputs = shoal_calloc(most, sizeof *result->outputs);
    return result->outputs ? SHOAL_OK : shoal_error_memory(err, "a result", most * sizeof(float));
}

void shoal_replica_result_close(ShoalResult *result) {
    shoal_free(result->outputs);
    *result = (ShoalResult){0};
}

static void take_outputs(const ShoalNet *net, ShoalResult *result) {
    result->output_count = 0;
    for (int i = 0; i < shoal_net_outputs(net); i++) {
        const ShoalBlob *blob = shoal_net_output(net, i);
        if (result->output_count + blob->count > result->output_capacity)
            return;
        memcpy(result->outputs + result->output_count, blob->data, blob->count * sizeof(float));
        result->output_count += blob->count;
    }
}

static ShoalStatus compute_pass(ShoalReplica *replica, ShoalSlot *slot, ShoalResult *result,
                                ShoalError *err) {
    const ShoalRound *round = &slot->round;
    ReplicaNet *net = &replica->nets[round->net];
    if (round->count == 0)
        return SHOAL_OK;
    ShoalStatus status = shoal_net_set_share(net->net, round->count, round->first_sample, err);
    if (status)
        return status;
    shoal_slot_bind(slot);
    status = shoal_net_forward(net->net, &replica->compute, &result->loss, err);
    if (status)
        return status;
    take_outputs(net->net, result);
    if (round->kind == SHOAL_STEP_TRAIN)
        shoal_net_backward(net->net, &replica->compute, (float)round->count / (float)round->batch,
                           NULL, NULL);
    return SHOAL_OK;
}

static void hash_weights(const ShoalReplica *replica, ShoalResult *result) {
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    size_t count;
    const float *history = shoal_solver_history(replica->solver, &count);
    crypto_generichash_state state;
    crypto_generichash_init(&state, NULL, 0, sizeof result->hash);
    crypto_generichash_update(&state, (const unsigned char *)params.data,
                              params.data_count * sizeof(float));
    crypto_generichash_update(&state, (const unsigned char *)history, count * sizeof(float));
    crypto_generichash_final(&state, result->hash, sizeof result->hash);
    result->hashed = true;
}

/* Makes the statistics that a net's forward passes move equal on all replicas: the average,
 * weighted with the samples that each has seen. Sent along in the padding, the weights add up as
 * well. */
static ShoalStatus average_statistics(const ShoalReplica *replica, int net, float samples,
                                      ShoalCollective *collective, ShoalResult *result,
                                      ShoalError *err) {
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    bool moves = shoal_net_params(replica->nets[net].net).moves_statistics;
    if (!collective || collective->size == 1 || !moves || !params.statistic_count)
        return SHOAL_OK;
    uint64_t start = shoal_clock_ns();
    size_t last = params.statistic_count - 1;
    float *values = params.data + params.data_count - params.statistic_count;
    for (size_t i = 0; i < last; i++)
        values[i] = samples > 0 ? values[i] * samples : 0;
    values[last] = samples;
    ShoalStatus status =
        shoal_collective_allreduce(collective, values, params.statistic_count, err);
    for (size_t i = 0; i < last && !status; i++)
        values[i] /= values[last];
    values[last] = 0;
    result->communication_ns += shoal_clock_ns() - start;
    return status;
}

static ShoalStatus finish_iteration(ShoalReplica *replica, const ShoalRound *round,
                                    ShoalCollective *collective, ShoalResult *result,
                                    ShoalError *err) {
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    uint64_t start = shoal_clock_ns();
    ShoalStatus status = collective ? shoal_collective_allreduce(collective, params.gradients,
                                                                 params.gradient_count, err)
                                    : SHOAL_OK;
    result->communication_ns = shoal_clock_ns() - start;
    if (!status)
        status =
            average_statistics(replica, 0, replica->iteration_samples, collective, result, err);
    if (status)
        return status;
    uint64_t reduced = shoal_clock_ns();
    shoal_solver_update(replica->solver, &replica->compute, round->rate, &result->clipped_norm);
    int interval = replica->job->hash_interval;
    if (collective && interval > 0 && round->iter % interval == 0)
        hash_weights(replica, result);
    result->compute_ns += shoal_clock_ns() - reduced;
    return SHOAL_OK;
}

ShoalStatus shoal_replica_run(ShoalReplica *replica, ShoalSlot *slot, ShoalCollective *collective,
                              ShoalResult *result, ShoalError *err) {
    const ShoalRound *round = &slot->round;
    uint64_t start = shoal_clock_ns();
    result->loss = 0;
    result->output_count = 0;
    result->communication_ns = 0;
    result->clipped_norm = 0;
    result->hashed = false;
    bool train = round->kind == SHOAL_STEP_TRAIN;
    if (train && round->clear) {
        shoal_solver_clear_gradients(replica->solver);
        replica->iteration_samples = 0;
    }
    ShoalStatus status = compute_pass(replica, slot, result, err);
    replica->iteration_samples += train ? (float)round->count : 0;
    result->compute_ns = shoal_clock_ns() - start;
    if (!status && train && round->update)
        status = finish_iteration(replica, round, collective, result, err);
    else if (!status && !train)
        status =
            average_statistics(replica, round->net, (float)round->count, collective, result, err);
    return status;
}

ShoalStatus shoal_replica_sync(ShoalReplica *replica, ShoalCollective *collective,
                               ShoalError *err) {
    ShoalNetParams params = shoal_net_params(replica->nets[0].net);
    if (collective->rank != 0)
        memset(params.data, 0, params.data_count * sizeof(float));
    return shoal_collective_allreduce(collective, params.data, params.data_count, err);
}

ShoalStatus shoal_replica_snapshot(ShoalReplica *replica, int iter, int current_step,
                                   const char *model_name, void **model, size_t *model_size,
                                   void **state, size_t *state_size, ShoalError *err) {
    bool with_diff = replica->job->solver->snapshot_diff;
    if (with_diff)
        shoal_solver_expose_update(replica->solver);
    Caffe__NetParameter *net;
    ShoalStatus status = shoal_net_to_proto(replica->nets[0].net, with_diff, &net, err);
    if (status)
        return status;
    status = shoal_caffe_pack(&net->base, model, model_size, err);
    caffe__net_parameter__free_unpacked(net, NULL);
    if (status)
        return status;
    Caffe__SolverState *proto;
    status = shoal_solver_to_proto(replica->solver, iter, current_step, model_name, &proto, err);
    if (!status) {
        status = shoal_caffe_pack(&proto->base, state, state_size, err);
        caffe__solver_state__free_unpacked(proto, NULL);
    }
    if (status)
        shoal_free(*model);
    return status;
}
