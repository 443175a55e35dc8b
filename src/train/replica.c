/* SPDX-License-Identifier: Apache-2.0 */
#include "train/replica.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "train/cores.h"
#include "train/replica_internal.h"

/* ---- construction ---- */

static const ShoalJobDataset *dataset_of(const ShoalJob *job, const Caffe__LayerParameter *layer) {
    char *name = shoal_dataset_name_for(layer);
    const ShoalJobDataset *dataset = name ? shoal_job_dataset(job, name) : NULL;
    shoal_free(name);
    return dataset;
}

static ShoalStatus read_mean(const ShoalJob *job, const Caffe__LayerParameter *layer,
                             Caffe__BlobProto **mean, ShoalError *err) {
    const Caffe__TransformationParameter *param = layer->transform_param;
    if (!param || !param->mean_file || !param->mean_file[0])
        return SHOAL_OK;
    const ShoalJobFile *file = shoal_job_file(job, param->mean_file);
    if (!file)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "mean_file '%s' is missing", param->mean_file);
    return shoal_caffe_unpack(&caffe__blob_proto__descriptor, file->bytes, file->size, file->name,
                              (ProtobufCMessage **)mean, err);
}

static ShoalStatus make_feed(const ShoalJob *job, const Caffe__LayerParameter *layer, bool train,
                             ShoalFeed **out, ShoalError *err) {
    const ShoalJobDataset *dataset = dataset_of(job, layer);
    if (!dataset)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "its dataset is not in the job");
    Caffe__BlobProto *mean = NULL;
    ShoalStatus status = read_mean(job, layer, &mean, err);
    ShoalFeedOptions options = {
        .train = train, .seed = job->seed, .mean = mean, .fast_decode = job->fast_decode};
    if (!status)
        status = shoal_feed_create(layer, &dataset->shape, &options, out, err);
    if (mean)
        caffe__blob_proto__free_unpacked(mean, NULL);
    return status;
}

ShoalStatus shoal_replica_source_shape(void *job, const Caffe__LayerParameter *layer, int top,
                                       int *axes, int *dims, ShoalError *err) {
    ShoalFeed *feed;
    ShoalStatus status = make_feed(job, layer, false, &feed, err);
    if (status)
        return status;
    shoal_feed_shape(feed, top, axes, dims);
    shoal_feed_destroy(feed);
    return SHOAL_OK;
}

ShoalStatus shoal_replica_named_file(void *job, const char *name, const void **bytes, size_t *size,
                                     ShoalError *err) {
    const ShoalJobFile *file = shoal_job_file(job, name);
    if (!file)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "the file '%s' is not in the job", name);
    *bytes = file->bytes;
    *size = file->size;
    return SHOAL_OK;
}

static ShoalStatus make_source(ShoalReplica *replica, ShoalReplicaNet *net,
                               ShoalReplicaSource *source, bool train, ShoalError *err) {
    const ShoalLayer *layer = source->layer;
    source->dataset =
        shoal_dataset_feeds(layer->param) ? dataset_of(replica->job, layer->param) : NULL;
    source->offsets = shoal_calloc((size_t)layer->n_tops, sizeof *source->offsets);
    source->sample_floats = shoal_calloc((size_t)layer->n_tops, sizeof *source->sample_floats);
    if (!source->offsets || !source->sample_floats)
        return shoal_error_memory(err, "the data layers", sizeof *source->offsets);
    for (int t = 0; t < layer->n_tops; t++) {
        const ShoalBlob *top = layer->tops[t];
        source->offsets[t] = net->slot_bytes;
        source->sample_floats[t] = top->axes ? shoal_blob_count(top, 1, top->axes) : 1;
        net->slot_bytes += shoal_align_up(top->count * sizeof(float));
    }
    if (!source->dataset)
        return SHOAL_OK;
    source->capacity = layer->tops[0]->shape[0];
    ShoalStatus status = make_feed(replica->job, layer->param, train, &source->feed, err);
    if (status)
        shoal_error_prefix(err, "layer '%s'", layer->param->name);
    return status;
}

static ShoalStatus make_sources(ShoalReplica *replica, ShoalReplicaNet *net, bool train,
                                ShoalError *err) {
    net->n_sources = shoal_net_sources(net->net);
    net->sources = shoal_calloc((size_t)net->n_sources, sizeof *net->sources);
    if (!net->sources)
        return shoal_error_memory(err, "the data layers", sizeof *net->sources);
    ShoalStatus status = SHOAL_OK;
    for (int i = 0; i < net->n_sources && !status; i++) {
        net->sources[i].layer = shoal_net_source(net->net, i);
        status = make_source(replica, net, &net->sources[i], train, err);
    }
    return status;
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
        .named_file = shoal_replica_named_file,
        .writes_files = options->writes_files,
        .source_context = (void *)replica->job,
    };
}

static ShoalStatus make_net(ShoalReplica *replica, int number, const ShoalReplicaOptions *options,
                            ShoalError *err) {
    const ShoalJobNet *job_net = &replica->job->nets[number];
    const ShoalNetOptions wanted = net_options(replica, number, options);
    ShoalReplicaNet *net = &replica->nets[number];
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

/* `time` has no solver of the user's. */
static int parts_of(const ShoalJob *job) {
    return job->solver ? shoal_solver_parts(job->solver) : 1;
}

static size_t needed_bytes(const ShoalReplica *replica, const ShoalReplicaOptions *options,
                           const Needs *needs) {
    bool solver = !options->phase_test;
    size_t state = 0;
    if (solver && !shoal_size_mul(shoal_net_params(replica->nets[0].net).data_count,
                                  sizeof(float) * (size_t)parts_of(replica->job), &state))
        return SIZE_MAX;
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
    if (!available)
        return SHOAL_OK;
    available = available > options->reserve ? available - options->reserve : 0;
    if (bytes <= available)
        return SHOAL_OK;
    int share = shoal_net_capacity(replica->nets[0].net);
    int fitting = largest_share(replica, options, available);
    if (options->fitting)
        *options->fitting = fitting;
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
static void pin(ShoalReplica *replica, const ShoalReplicaOptions *options) {
    ShoalCpuChoice choice;
    shoal_cores_choose(options->level, options->threads, &choice);
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
    pin(replica, options);
    replica->pool = options->threads > 1 ? shoal_pool_create((unsigned)options->threads) : NULL;
    replica->compute.pool = replica->pool;
    replica->compute.cancel = &replica->cancel;
    replica->compute.unit_done = shoal_replica_unit_done;
    replica->compute.context = replica;
    if (!replica->arena || !replica->compute.workspace || (options->threads > 1 && !replica->pool))
        return shoal_error_memory(err, "the net's blobs", replica->arena_bytes);
    if (!replica->compute.kernels)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "this CPU has no kernels of level %s",
                               shoal_cpu_level_name(options->level));
    for (int i = 0; i < replica->n_nets; i++)
        shoal_net_bind(replica->nets[i].net, replica->arena);
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
    shoal_pacer_init(&replica->pacer, options->pace);
    replica->nets = shoal_calloc((size_t)job->n_nets, sizeof *replica->nets);
    ShoalStatus status =
        replica->nets ? SHOAL_OK : shoal_error_memory(err, "a replica", sizeof *replica->nets);
    for (int i = 0; i < job->n_nets && !status; i++)
        status = make_net(replica, i, options, err);
    if (!status)
        status = make_memory(replica, options, err);
    if (!status)
        status = shoal_replica_load(replica, job->weights, job->n_weights, err);
    if (!status && !options->no_solver && !options->phase_test)
        status = make_solver(replica, err);
    if (!status && replica->solver)
        status = shoal_replica_state_init(replica, options->residual, err);
    if (status)
        shoal_replica_destroy(replica);
    else
        *out = replica;
    return status;
}

void shoal_replica_destroy(ShoalReplica *replica) {
    if (!replica)
        return;
    shoal_replica_state_close(replica);
    shoal_solver_destroy(replica->solver);
    for (int i = replica->n_nets - 1; i >= 0; i--) { /* test nets use the train net's weights */
        for (int s = 0; replica->nets[i].sources && s < replica->nets[i].n_sources; s++) {
            shoal_feed_destroy(replica->nets[i].sources[s].feed);
            shoal_free(replica->nets[i].sources[s].offsets);
            shoal_free(replica->nets[i].sources[s].sample_floats);
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
    int most = 1;
    for (int i = 0; i < replica->n_nets; i++)
        if (shoal_net_capacity(replica->nets[i].net) > most)
            most = shoal_net_capacity(replica->nets[i].net);
    slot->places = shoal_calloc((size_t)most, sizeof *slot->places);
    if (slot->memory && slot->decoder && slot->places)
        return slot;
    shoal_slot_destroy(slot);
    return NULL;
}

void shoal_slot_destroy(ShoalSlot *slot) {
    if (!slot)
        return;
    shoal_datum_decoder_destroy(slot->decoder);
    shoal_free(slot->places);
    shoal_free(slot->memory);
    shoal_free(slot);
}

uint32_t *shoal_slot_places(ShoalSlot *slot) {
    return slot->places;
}

ShoalRound *shoal_slot_round(ShoalSlot *slot) {
    return &slot->round;
}

bool shoal_slot_fits(const ShoalSlot *slot, size_t n_sources) {
    const ShoalRound *round = &slot->round;
    if (round->net < 0 || round->net >= slot->replica->n_nets)
        return false;
    const ShoalReplicaNet *net = &slot->replica->nets[round->net];
    bool has_samples = n_sources == (size_t)net->n_sources;
    return round->count <= shoal_net_capacity(net->net) &&
           (has_samples || (n_sources == 0 && round->count == 0));
}

size_t shoal_slot_records(const ShoalSlot *slot, int source) {
    bool fed = slot->replica->nets[slot->round.net].sources[source].dataset;
    return fed ? (size_t)slot->round.count : 0;
}

static float *slot_top(const ShoalSlot *slot, const ShoalReplicaSource *source, int top) {
    return (float *)(slot->memory + source->offsets[top]);
}

ShoalStatus shoal_slot_stage(ShoalSlot *slot, int source_number, int index,
                             const ShoalRecord *record, uint64_t number, ShoalError *err) {
    const ShoalReplicaNet *net = &slot->replica->nets[slot->round.net];
    const ShoalReplicaSource *source = &net->sources[source_number];
    uint64_t place = slot->round.places ? slot->round.places[index] : (uint64_t)index;
    uint64_t sample = slot->round.first_sample + place;
    int n_tops = source->layer->n_tops;
    if (!source->dataset || index >= source->capacity)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "sample %d does not belong into this round of %d", index,
                               slot->round.count);
    float *tops[SHOAL_FEED_TOPS];
    for (int t = 0; t < n_tops; t++)
        tops[t] = slot_top(slot, source, t) + (size_t)index * source->sample_floats[t];
    return shoal_feed_stage(source->feed, slot->decoder, source->dataset->name, record, number,
                            sample, tops, n_tops, err);
}

void shoal_slot_bind(const ShoalSlot *slot) {
    const ShoalReplicaNet *net = &slot->replica->nets[slot->round.net];
    for (int i = 0; i < net->n_sources; i++)
        for (int t = 0; t < net->sources[i].layer->n_tops; t++)
            net->sources[i].layer->tops[t]->data = slot_top(slot, &net->sources[i], t);
}
