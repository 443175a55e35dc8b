/* SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <sodium.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "cluster/messages.h"
#include "train/job.h"

/* A job as a Job message, and what a run begins with as a Seed message. */

static void file_to_message(const ShoalJobFile *file, Shoal__NamedFile *message) {
    shoal__named_file__init(message);
    message->name = file->name;
    message->content.data = file->bytes;
    message->content.len = file->size;
}

static ShoalStatus pack_into(const ProtobufCMessage *message, ProtobufCBinaryData *out,
                             ShoalError *err) {
    void *bytes;
    size_t size;
    ShoalStatus status = shoal_caffe_pack(message, &bytes, &size, err);
    if (!status) {
        out->data = bytes;
        out->len = size;
    }
    return status;
}

static ShoalStatus nets_to_message(const ShoalJob *job, Shoal__JobNet *nets, ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    for (int i = 0; i < job->n_nets && !status; i++) {
        nets[i].file = job->nets[i].model.file;
        status = pack_into(&job->nets[i].model.param->base, &nets[i].param, err);
        if (!status && job->nets[i].state)
            status = pack_into(&job->nets[i].state->base, &nets[i].state, err);
    }
    return status;
}

/* All arrays of the message, in one place. */
typedef struct Storage {
    Shoal__JobNet *nets;
    Shoal__JobDataset *datasets;
    Shoal__TopShape *tops; /* SHOAL_FEED_TOPS for each dataset */
    uint32_t *dims;        /* SHOAL_FEED_AXES for each of those */
    Shoal__NamedFile *files;
    void **pointers;
} Storage;

static bool storage_init(Storage *s, const ShoalJob *job) {
    size_t n_nets = (size_t)job->n_nets, n_sets = (size_t)job->n_datasets;
    size_t n_files = (size_t)job->n_files;
    s->nets = shoal_calloc(n_nets, sizeof *s->nets);
    s->datasets = shoal_calloc(n_sets, sizeof *s->datasets);
    s->files = shoal_calloc(n_files, sizeof *s->files);
    s->tops = shoal_calloc(n_sets * SHOAL_FEED_TOPS, sizeof *s->tops);
    s->dims = shoal_calloc(n_sets * SHOAL_FEED_TOPS * SHOAL_FEED_AXES, sizeof *s->dims);
    s->pointers =
        shoal_calloc(n_nets + n_sets * (1 + SHOAL_FEED_TOPS) + n_files, sizeof *s->pointers);
    if (!s->nets || !s->datasets || !s->tops || !s->dims || !s->files || !s->pointers)
        return false;
    for (size_t i = 0; i < n_nets; i++)
        shoal__job_net__init(&s->nets[i]);
    return true;
}

static void storage_close(Storage *s, int n_nets) {
    for (int i = 0; s->nets && i < n_nets; i++) {
        shoal_free(s->nets[i].param.data);
        shoal_free(s->nets[i].state.data);
    }
    shoal_free(s->nets);
    shoal_free(s->datasets);
    shoal_free(s->tops);
    shoal_free(s->dims);
    shoal_free(s->files);
    shoal_free(s->pointers);
}

static void tops_to_message(const ShoalRecordShape *shape, Shoal__TopShape *tops, uint32_t *dims) {
    for (int t = 0; t < shape->n; t++, dims += SHOAL_FEED_AXES) {
        shoal__top_shape__init(&tops[t]);
        tops[t].n_dims = (size_t)shape->tops[t].axes;
        tops[t].dims = dims;
        for (int a = 0; a < shape->tops[t].axes; a++)
            dims[a] = (uint32_t)shape->tops[t].dims[a];
    }
}

static void datasets_to_message(const ShoalJob *job, Storage *s) {
    Shoal__JobDataset *datasets = s->datasets;
    for (int i = 0; i < job->n_datasets; i++) {
        shoal__job_dataset__init(&datasets[i]);
        datasets[i].name = job->datasets[i].name;
        tops_to_message(&job->datasets[i].shape, s->tops + i * SHOAL_FEED_TOPS,
                        s->dims + i * SHOAL_FEED_TOPS * SHOAL_FEED_AXES);
        datasets[i].records = job->datasets[i].records;
        datasets[i].fingerprint.data = (unsigned char *)job->datasets[i].fingerprint.bytes;
        datasets[i].fingerprint.len = sizeof job->datasets[i].fingerprint.bytes;
    }
}

static void link_arrays(const ShoalJob *job, Storage *s, Shoal__Job *message) {
    void **next = s->pointers;
    message->nets = (Shoal__JobNet **)next;
    for (int i = 0; i < job->n_nets; i++)
        *next++ = &s->nets[i];
    message->n_nets = (size_t)job->n_nets;
    message->datasets = (Shoal__JobDataset **)next;
    for (int i = 0; i < job->n_datasets; i++)
        *next++ = &s->datasets[i];
    message->n_datasets = (size_t)job->n_datasets;
    for (int i = 0; i < job->n_datasets; i++) {
        s->datasets[i].tops = (Shoal__TopShape **)next;
        s->datasets[i].n_tops = (size_t)job->datasets[i].shape.n;
        for (int t = 0; t < job->datasets[i].shape.n; t++)
            *next++ = &s->tops[i * SHOAL_FEED_TOPS + t];
    }
    Shoal__NamedFile *file = s->files;
    message->files = (Shoal__NamedFile **)next;
    for (int i = 0; i < job->n_files; i++, file++) {
        file_to_message(&job->files[i], file);
        *next++ = file;
    }
    message->n_files = (size_t)job->n_files;
}

ShoalStatus shoal_job_pack(const ShoalJob *job, void **bytes, size_t *size, ShoalError *err) {
    Shoal__Job message = SHOAL__JOB__INIT;
    Storage storage = {0};
    ShoalStatus status =
        storage_init(&storage, job) ? SHOAL_OK : shoal_error_memory(err, "the job", sizeof storage);
    if (!status)
        status = nets_to_message(job, storage.nets, err);
    if (!status)
        status = pack_into(&job->solver->base, &message.solver, err);
    if (!status) {
        datasets_to_message(job, &storage);
        link_arrays(job, &storage, &message);
        message.seed = job->seed;
        message.workers = (uint32_t)job->workers;
        message.hash_interval = (uint32_t)job->hash_interval;
        message.fast_decode = job->fast_decode;
        message.unit = (uint32_t)job->unit;
        status = shoal_caffe_pack(&message.base, bytes, size, err);
    }
    shoal_free(message.solver.data);
    storage_close(&storage, job->n_nets);
    return status;
}

ShoalStatus shoal_job_id(const ShoalJob *job, unsigned char id[16], ShoalError *err) {
    ShoalJob plain = *job;
    plain.seed = 0;
    plain.workers = plain.hash_interval = 0;
    void *bytes;
    size_t size;
    ShoalStatus status = shoal_job_pack(&plain, &bytes, &size, err);
    if (status)
        return status;
    crypto_generichash(id, 16, bytes, size, NULL, 0);
    shoal_free(bytes);
    return SHOAL_OK;
}

/* ---- unpacking ---- */

static ShoalStatus file_from_message(const Shoal__NamedFile *message, ShoalJobFile *file,
                                     ShoalError *err) {
    file->name = shoal_strdup(message->name);
    file->bytes = shoal_calloc(message->content.len + 1, 1);
    file->size = message->content.len;
    if (!file->name || !file->bytes)
        return shoal_error_memory(err, "a file of the job", message->content.len);
    if (message->content.len)
        memcpy(file->bytes, message->content.data, message->content.len);
    return SHOAL_OK;
}

static ShoalStatus files_from_message(Shoal__NamedFile *const *messages, size_t n,
                                      ShoalJobFile **files, int *count, ShoalError *err) {
    *files = shoal_calloc(n, sizeof **files);
    if (!*files)
        return shoal_error_memory(err, "the job", n * sizeof **files);
    *count = (int)n;
    ShoalStatus status = SHOAL_OK;
    for (size_t i = 0; i < n && !status; i++)
        status = file_from_message(messages[i], &(*files)[i], err);
    return status;
}

static ShoalStatus nets_from_message(const Shoal__Job *message, ShoalJob *job, ShoalError *err) {
    job->nets = shoal_calloc(message->n_nets, sizeof *job->nets);
    if (!job->nets)
        return shoal_error_memory(err, "the job", message->n_nets * sizeof *job->nets);
    job->n_nets = (int)message->n_nets;
    ShoalStatus status = SHOAL_OK;
    for (size_t i = 0; i < message->n_nets && !status; i++) {
        const Shoal__JobNet *net = message->nets[i];
        status = shoal_caffe_net_from_bytes(net->param.data, net->param.len, net->file,
                                            &job->nets[i].model, err);
        if (!status && net->state.len)
            status =
                shoal_caffe_unpack(&caffe__net_state__descriptor, net->state.data, net->state.len,
                                   net->file, (ProtobufCMessage **)&job->nets[i].state, err);
    }
    return status;
}

static ShoalStatus tops_from_message(const Shoal__JobDataset *message, ShoalRecordShape *shape,
                                     ShoalError *err) {
    *shape = (ShoalRecordShape){.n = (int)message->n_tops};
    bool sound = message->n_tops >= 1 && message->n_tops <= SHOAL_FEED_TOPS;
    for (size_t t = 0; sound && t < message->n_tops; t++) {
        const Shoal__TopShape *top = message->tops[t];
        sound = top->n_dims <= SHOAL_FEED_AXES;
        shape->tops[t].axes = (int)top->n_dims;
        uint64_t count = 1;
        for (size_t a = 0; sound && a < top->n_dims; a++) {
            sound = top->dims[a] >= 1 && top->dims[a] <= INT_MAX;
            shape->tops[t].dims[a] = (int)top->dims[a];
            count *= top->dims[a];
            sound = sound && count <= INT_MAX;
        }
    }
    return sound ? SHOAL_OK
                 : shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                                   "the job holds a dataset without a sound shape");
}

static ShoalStatus datasets_from_message(const Shoal__Job *message, ShoalJob *job,
                                         ShoalError *err) {
    for (size_t i = 0; i < message->n_datasets; i++) {
        const Shoal__JobDataset *d = message->datasets[i];
        if (!d->records || d->fingerprint.len != SHOAL_CACHE_ID_BYTES)
            return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "the job holds a dataset without name");
        ShoalFingerprint fingerprint;
        memcpy(fingerprint.bytes, d->fingerprint.data, sizeof fingerprint.bytes);
        ShoalRecordShape shape;
        ShoalStatus status = tops_from_message(d, &shape, err);
        if (!status)
            status = shoal_job_add_dataset(job, d->name, &shape, err);
        if (status)
            return status;
        shoal_job_name_dataset(job, d->name, d->records, &fingerprint);
    }
    return SHOAL_OK;
}

static ShoalStatus job_from_message(const Shoal__Job *message, ShoalJob *job, ShoalError *err) {
    if (message->n_nets < 1 || message->n_nets > 1024 || message->workers < 1 ||
        message->workers > INT_MAX || message->hash_interval > INT_MAX || message->unit > INT_MAX)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "the job has no net, or makes no sense");
    job->seed = message->seed;
    job->workers = (int)message->workers;
    job->hash_interval = (int)message->hash_interval;
    job->fast_decode = message->fast_decode;
    job->unit = (int)message->unit;
    ShoalStatus status =
        shoal_caffe_unpack(&caffe__solver_parameter__descriptor, message->solver.data,
                           message->solver.len, "job", (ProtobufCMessage **)&job->solver, err);
    if (!status)
        status = nets_from_message(message, job, err);
    if (!status)
        status = datasets_from_message(message, job, err);
    if (!status)
        status =
            files_from_message(message->files, message->n_files, &job->files, &job->n_files, err);
    return status;
}

ShoalStatus shoal_job_unpack(const void *bytes, size_t size, ShoalJob *out, ShoalError *err) {
    Shoal__Job *message = shoal__job__unpack(NULL, size, bytes);
    if (!message)
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL,
                               "the coordinator's job cannot be read; are both of one version?");
    ShoalJob job = {0};
    ShoalStatus status = job_from_message(message, &job, err);
    shoal__job__free_unpacked(message, NULL);
    if (status)
        shoal_job_close(&job);
    else
        *out = job;
    return status;
}

/* ---- seeds ---- */

ShoalStatus shoal_seed_pack(const ShoalSeed *seed, void **bytes, size_t *size, ShoalError *err) {
    Shoal__Seed message = SHOAL__SEED__INIT;
    Shoal__NamedFile state;
    size_t n = (size_t)seed->n_weights;
    Shoal__NamedFile *files = shoal_calloc(n, sizeof *files);
    Shoal__NamedFile **pointers = shoal_calloc(n, sizeof *pointers);
    ShoalStatus status = files && pointers ? SHOAL_OK : shoal_error_memory(err, "a seed", n);
    for (size_t i = 0; !status && i < n; i++) {
        file_to_message(&seed->weights[i], &files[i]);
        pointers[i] = &files[i];
    }
    message.weights = pointers;
    message.n_weights = n;
    if (seed->state.bytes) {
        file_to_message(&seed->state, &state);
        message.state = &state;
    }
    message.updates = (uint64_t)seed->updates;
    message.current_step = (uint32_t)seed->current_step;
    message.present = true;
    if (!status)
        status = shoal_caffe_pack(&message.base, bytes, size, err);
    shoal_free(files);
    shoal_free(pointers);
    return status;
}

ShoalStatus shoal_seed_unpack(const void *bytes, size_t size, ShoalSeed *out, ShoalError *err) {
    Shoal__Seed *message = shoal__seed__unpack(NULL, size, bytes);
    if (!message || !message->present || message->updates > INT_MAX ||
        message->current_step > INT_MAX || message->n_weights > 1024) {
        if (message)
            shoal__seed__free_unpacked(message, NULL);
        return shoal_error_set(err, SHOAL_ERR_PROTOCOL, "the coordinator's seed makes no sense");
    }
    ShoalSeed seed = {.updates = (int)message->updates, .current_step = (int)message->current_step};
    ShoalStatus status = files_from_message(message->weights, message->n_weights, &seed.weights,
                                            &seed.n_weights, err);
    if (!status && message->state)
        status = file_from_message(message->state, &seed.state, err);
    shoal__seed__free_unpacked(message, NULL);
    if (status)
        shoal_seed_close(&seed);
    else
        *out = seed;
    return status;
}
