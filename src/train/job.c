/* SPDX-License-Identifier: Apache-2.0 */
#include "train/job.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "caffe/hdf5.h"
#include "caffe/text.h"
#include "collective/auth.h"
#include "solver/solver.h"

static ShoalStatus load_file(const char *path, ShoalJobFile *file, ShoalError *err) {
    ShoalStatus status = shoal_file_read(path, &file->bytes, &file->size, err);
    if (status)
        return status;
    file->name = shoal_strdup(path);
    if (file->name)
        return SHOAL_OK;
    shoal_free(file->bytes);
    *file = (ShoalJobFile){0};
    return shoal_error_memory(err, path, strlen(path));
}

typedef ShoalStatus Unpack(const char *path, void **bytes, size_t *size, ShoalError *err);

/* Weights or a state: HDF5 ends here, and whoever gets the file sees a message's bytes. */
static ShoalStatus load_message(const char *path, Unpack *from_hdf5, ShoalJobFile *file,
                                ShoalError *err) {
    if (!shoal_hdf5_is_name(path))
        return load_file(path, file, err);
    void *bytes;
    size_t size;
    ShoalStatus status = from_hdf5(path, &bytes, &size, err);
    if (status)
        return status;
    *file = (ShoalJobFile){.name = shoal_strdup(path), .bytes = bytes, .size = size};
    if (file->name)
        return SHOAL_OK;
    shoal_free(bytes);
    *file = (ShoalJobFile){0};
    return shoal_error_memory(err, path, strlen(path));
}

static void close_file(ShoalJobFile *file) {
    shoal_free(file->name);
    shoal_free(file->bytes);
}

/* Grows an array by one zeroed item; NULL when memory is short. */
static void *grow(void **items, int *count, size_t size) {
    unsigned char *bigger = shoal_calloc((size_t)*count + 1, size);
    if (!bigger)
        return NULL;
    if (*count)
        memcpy(bigger, *items, (size_t)*count * size);
    shoal_free(*items);
    *items = bigger;
    return bigger + (size_t)(*count)++ * size;
}

/* ---- nets ---- */

static ShoalJobNet *add_net(ShoalJob *job, ShoalError *err) {
    ShoalJobNet *net = grow((void **)&job->nets, &job->n_nets, sizeof *job->nets);
    if (!net)
        shoal_error_memory(err, "a net", sizeof *net);
    return net;
}

static ShoalStatus copy_state(const Caffe__NetState *from, ShoalJobNet *net, ShoalError *err) {
    if (!from)
        return SHOAL_OK;
    net->state = (Caffe__NetState *)shoal_caffe_copy(&from->base);
    return net->state ? SHOAL_OK : shoal_error_memory(err, "a net state", sizeof *from);
}

static Caffe__NetState *make_state(const ShoalNetChoice *choice) {
    char text[4096];
    int used = snprintf(text, sizeof text, "level: %d", choice->level);
    for (const char *at = choice->stages; at && *at;) {
        size_t length = strcspn(at, ",");
        bool plain = strcspn(at, "'\\\n") >= length;
        if (!plain || used + length + 16 > sizeof text)
            return NULL;
        if (length)
            used += snprintf(text + used, sizeof text - (size_t)used, " stage: '%.*s'", (int)length,
                             at);
        at += length + (at[length] == ',');
    }
    ProtobufCMessage *state = NULL;
    ShoalError err = {0};
    if (shoal_text_parse(&caffe__net_state__descriptor, text, (size_t)used, "--stage", NULL, &state,
                         &err))
        return NULL;
    return (Caffe__NetState *)state;
}

ShoalStatus shoal_job_choose(ShoalJob *job, int n, const ShoalNetChoice *choice, ShoalError *err) {
    if (!choice->level && !(choice->stages && choice->stages[0]))
        return SHOAL_OK;
    Caffe__NetState *state = make_state(choice);
    if (!state)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "--stage=%.100s: expected names separated by commas",
                               choice->stages);
    if (job->nets[n].state)
        caffe__net_state__free_unpacked(job->nets[n].state, NULL);
    job->nets[n].state = state;
    return SHOAL_OK;
}

static ShoalStatus add_net_file(ShoalJob *job, const char *path, const Caffe__NetState *state,
                                ShoalError *err) {
    unsigned char *text;
    size_t size;
    ShoalStatus status = shoal_file_read(path, &text, &size, err);
    if (status)
        return status;
    ShoalJobNet *net = add_net(job, err);
    status = net ? shoal_caffe_net_from_text((const char *)text, size, path, &net->model, err)
                 : err->status;
    shoal_free(text);
    return status ? status : copy_state(state, net, err);
}

static ShoalStatus add_net_param(ShoalJob *job, const Caffe__NetParameter *param, const char *file,
                                 const Caffe__NetState *state, ShoalError *err) {
    void *bytes;
    size_t size;
    ShoalStatus status = shoal_caffe_pack(&param->base, &bytes, &size, err);
    if (status)
        return status;
    ShoalJobNet *net = add_net(job, err);
    status = net ? shoal_caffe_net_from_bytes(bytes, size, file, &net->model, err) : err->status;
    shoal_free(bytes);
    return status ? status : copy_state(state, net, err);
}

static ShoalStatus add_train_net(ShoalJob *job, const char *file, ShoalError *err) {
    const Caffe__SolverParameter *s = job->solver;
    int given = !!s->net + !!s->net_param + !!s->train_net + !!s->train_net_param;
    if (given != 1)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "%s: exactly one of net, net_param, train_net, train_net_param must "
                               "be given, found %d",
                               file, given);
    if (s->train_net || s->net)
        return add_net_file(job, s->train_net ? s->train_net : s->net, s->train_state, err);
    return add_net_param(job, s->train_net_param ? s->train_net_param : s->net_param, file,
                         s->train_state, err);
}

/* Test nets in Caffe's order: test_net_param, test_net, then `net` itself (Solver::InitTestNets).
 */
static ShoalStatus add_test_nets(ShoalJob *job, const char *file, ShoalError *err) {
    const Caffe__SolverParameter *s = job->solver;
    size_t named = s->n_test_net_param + s->n_test_net;
    bool generic = s->net || s->net_param;
    size_t total = s->n_test_iter;
    if (generic ? total < named : total != named)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "%s: %zu test_iter values for %zu test nets; give one per test net",
                               file, total, named);
    if (s->n_test_state && s->n_test_state != total)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "%s: %zu test_state values for %zu test nets; give one per test net",
                               file, s->n_test_state, total);
    if (total && s->test_interval <= 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "%s: test_iter is given, but test_interval is not above 0", file);
    for (size_t i = 0; i < total; i++) {
        const Caffe__NetState *state = s->n_test_state ? s->test_state[i] : NULL;
        size_t j = i - s->n_test_net_param;
        ShoalStatus status;
        if (i < s->n_test_net_param)
            status = add_net_param(job, s->test_net_param[i], file, state, err);
        else if (i < named)
            status = add_net_file(job, s->test_net[j], state, err);
        else if (s->net)
            status = add_net_file(job, s->net, state, err);
        else
            status = add_net_param(job, s->net_param, file, state, err);
        if (status)
            return status;
    }
    return SHOAL_OK;
}

/* The nets travel on their own: drop them from the solver. */
static void strip_solver(Caffe__SolverParameter *solver) {
    if (solver->net_param)
        caffe__net_parameter__free_unpacked(solver->net_param, NULL);
    if (solver->train_net_param)
        caffe__net_parameter__free_unpacked(solver->train_net_param, NULL);
    for (size_t i = 0; i < solver->n_test_net_param; i++)
        caffe__net_parameter__free_unpacked(solver->test_net_param[i], NULL);
    free(solver->test_net_param);
    solver->net_param = solver->train_net_param = NULL;
    solver->test_net_param = NULL;
    solver->n_test_net_param = 0;
}

/* ---- files that nets and flags name ---- */

/* What a layer needs besides its dataset goes to every worker; name NULL or "": nothing. */
static ShoalStatus add_file(ShoalJob *job, const ShoalCaffeNet *model,
                            const Caffe__LayerParameter *layer, const char *field, const char *name,
                            ShoalError *err) {
    if (!name || !name[0] || shoal_job_file(job, name))
        return SHOAL_OK;
    ShoalJobFile *file = grow((void **)&job->files, &job->n_files, sizeof *job->files);
    if (!file)
        return shoal_error_memory(err, field, sizeof *file);
    ShoalStatus status = load_file(name, file, err);
    if (status) {
        char where[512];
        shoal_error_prefix(err, "%s: %s of layer '%s'",
                           shoal_caffe_net_where(model, layer, where, sizeof where), field,
                           layer->name ? layer->name : "");
        job->n_files--;
    }
    return status;
}

static ShoalStatus add_layer_files(ShoalJob *job, ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    for (int i = 0; i < job->n_nets; i++) {
        const ShoalCaffeNet *model = &job->nets[i].model;
        for (size_t j = 0; j < model->param->n_layer && !status; j++) {
            const Caffe__LayerParameter *layer = model->param->layer[j];
            if (layer->transform_param)
                status = add_file(job, model, layer, "mean_file", layer->transform_param->mean_file,
                                  err);
            if (!status && layer->infogain_loss_param)
                status = add_file(job, model, layer, "infogain_loss_param.source",
                                  layer->infogain_loss_param->source, err);
        }
    }
    return status;
}

static ShoalStatus add_weights(ShoalJob *job, const char *list, ShoalError *err) {
    for (bool more = list; more;) {
        size_t length = strcspn(list, ",");
        char path[4096];
        if (length >= sizeof path)
            return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "a path in --weights is too long");
        memcpy(path, list, length);
        path[length] = '\0';
        more = list[length] == ',';
        list += length + more;
        if (!length)
            return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "the name of a weights file is empty");
        ShoalJobFile *file = grow((void **)&job->weights, &job->n_weights, sizeof *job->weights);
        if (!file)
            return shoal_error_memory(err, "weights", sizeof *file);
        ShoalStatus status = load_message(path, shoal_hdf5_read_net, file, err);
        if (status) {
            job->n_weights--;
            return status;
        }
    }
    return SHOAL_OK;
}

static ShoalStatus parse_state(ShoalJob *job, ShoalError *err) {
    return shoal_caffe_unpack(&caffe__solver_state__descriptor, job->state_file.bytes,
                              job->state_file.size, job->state_file.name,
                              (ProtobufCMessage **)&job->state, err);
}

static ShoalStatus add_state(ShoalJob *job, const char *path, ShoalError *err) {
    ShoalStatus status = load_message(path, shoal_hdf5_read_state, &job->state_file, err);
    if (!status)
        status = parse_state(job, err);
    if (status || !job->state->learned_net || !job->state->learned_net[0])
        return status;
    status = add_weights(job, job->state->learned_net, err);
    if (status)
        shoal_error_prefix(err, "%s: learned_net (looked up from the working folder)", path);
    return status;
}

/* snapshot_prefix as Caffe completes it (UpgradeSnapshotPrefixProperty): missing, or a folder, it
 * takes the solver file's name without its ending. */
static ShoalStatus complete_prefix(Caffe__SolverParameter *solver, const char *file,
                                   ShoalError *err) {
    struct stat info;
    const char *given = solver->snapshot_prefix ? solver->snapshot_prefix : "";
    bool folder = given[0] && !stat(given, &info) && S_ISDIR(info.st_mode);
    if (given[0] && !folder)
        return SHOAL_OK;
    const char *slash = strrchr(file, '/');
    const char *name = folder && slash ? slash + 1 : file;
    const char *dot = strrchr(name, '.');
    int length = dot && dot > name && !strchr(dot, '/') ? (int)(dot - name) : (int)strlen(name);
    char *prefix;
    if (asprintf(&prefix, "%s%s%.*s", given, folder ? "/" : "", length, name) < 0)
        return shoal_error_memory(err, "snapshot_prefix", strlen(file));
    free(given[0] ? solver->snapshot_prefix : NULL);
    solver->snapshot_prefix = prefix;
    return SHOAL_OK;
}

bool shoal_job_stores_hdf5(const ShoalJob *job) {
    return job->solver->snapshot_format == CAFFE__SOLVER_PARAMETER__SNAPSHOT_FORMAT__HDF5;
}

/* A run that cannot store its result must not begin. */
static ShoalStatus check_prefix(const Caffe__SolverParameter *solver, ShoalError *err) {
    if (solver->snapshot <= 0 && !solver->snapshot_after_train)
        return SHOAL_OK;
    char path[4096];
    if (snprintf(path, sizeof path, "%s.tempfile", solver->snapshot_prefix) >= (int)sizeof path)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "snapshot_prefix is too long");
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return shoal_error_set(
            err, SHOAL_ERR_IO,
            "snapshot_prefix \"%s\": cannot write there: %s; make the folder, or "
            "change snapshot_prefix in the solver",
            solver->snapshot_prefix, strerror(errno));
    close(fd);
    unlink(path);
    return SHOAL_OK;
}

static ShoalStatus load_solver(const char *path, ShoalJob *job, ShoalError *err) {
    unsigned char *text;
    size_t size;
    ShoalStatus status = shoal_file_read(path, &text, &size, err);
    if (status)
        return status;
    status = shoal_caffe_solver_from_text((const char *)text, size, path, NULL, &job->solver, err);
    shoal_free(text);
    if (status)
        return status;
    status = shoal_solver_check(job->solver, err);
    if (status)
        shoal_error_prefix(err, "%s", path);
    if (!status)
        status = complete_prefix(job->solver, path, err);
    return status ? status : check_prefix(job->solver, err);
}

/* N of "PREFIX_iter_N" and an ending; -1 if it is another name. */
static long snapshot_iter(const char *name, size_t prefix_length, const char *ending) {
    const char *number = name + prefix_length + strlen("_iter_");
    char *end;
    long iter = *number >= '0' && *number <= '9' ? strtol(number, &end, 10) : -1;
    return iter >= 0 && !strcmp(end, ending) ? iter : -1;
}

/* The file with the highest N of those that have an ending, if that is above *best. */
static void find_ending(const char *prefix, const char *ending, long *best, char *path,
                        size_t size) {
    char pattern[4096];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s_iter_*%s", prefix, ending);
    if (glob(pattern, 0, NULL, &found))
        return;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        long iter = strlen(found.gl_pathv[i]) > strlen(prefix) + strlen("_iter_")
                        ? snapshot_iter(found.gl_pathv[i], strlen(prefix), ending)
                        : -1;
        if (iter > *best && strlen(found.gl_pathv[i]) < size) {
            *best = iter;
            snprintf(path, size, "%s", found.gl_pathv[i]);
        }
    }
    globfree(&found);
}

/* PREFIX_iter_N.solverstate, or .solverstate.h5, with the highest N; of two with the same, the kind
 * that this solver writes. Empty: there is none. */
static void find_snapshot(const ShoalJob *job, char *path, size_t size) {
    const char *endings[] = {".solverstate", ".solverstate.h5"};
    int own = shoal_job_stores_hdf5(job);
    long best = -1;
    path[0] = '\0';
    find_ending(job->solver->snapshot_prefix, endings[own], &best, path, size);
    find_ending(job->solver->snapshot_prefix, endings[!own], &best, path, size);
}

static ShoalStatus add_newest_state(ShoalJob *job, bool may_lack, ShoalError *err) {
    char path[4096];
    find_snapshot(job, path, sizeof path);
    if (path[0])
        return add_state(job, path, err);
    return may_lack ? SHOAL_OK
                    : shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                                      "there is no snapshot to go on from: no file is named "
                                      "%s_iter_N.solverstate",
                                      job->solver->snapshot_prefix);
}

ShoalStatus shoal_job_load(const ShoalJobOptions *options, ShoalJob *out, ShoalError *err) {
    ShoalJob job = {.workers = options->workers,
                    .hash_interval = options->hash_interval,
                    .fast_decode = options->fast_decode};
    ShoalStatus status = load_solver(options->solver, &job, err);
    if (!status)
        status = add_train_net(&job, options->solver, err);
    if (!status)
        status = shoal_job_choose(&job, 0, &options->choice, err);
    if (!status)
        status = add_test_nets(&job, options->solver, err);
    if (!status)
        status = add_layer_files(&job, err);
    if (!status && options->snapshot)
        status = add_state(&job, options->snapshot, err);
    if (!status && options->newest_snapshot)
        status = add_newest_state(&job, options->may_lack_snapshot, err);
    if (!status && options->weights)
        status = add_weights(&job, options->weights, err);
    if (status) {
        shoal_job_close(&job);
        return status;
    }
    strip_solver(job.solver);
    if (job.solver->has_random_seed && job.solver->random_seed >= 0)
        job.seed = (uint64_t)job.solver->random_seed;
    else
        shoal_auth_random(&job.seed, 4); /* short enough to read out and type again */
    *out = job;
    return SHOAL_OK;
}

ShoalStatus shoal_job_load_net(const char *model, const char *weights, const ShoalNetChoice *choice,
                               ShoalJob *out, ShoalError *err) {
    ShoalJob job = {.workers = 1};
    ShoalStatus status = add_net_file(&job, model, NULL, err);
    if (!status)
        status = shoal_job_choose(&job, 0, choice, err);
    if (!status)
        status = add_layer_files(&job, err);
    if (!status)
        status = add_weights(&job, weights, err);
    if (status)
        shoal_job_close(&job);
    else
        *out = job;
    return status;
}

void shoal_job_close(ShoalJob *job) {
    if (job->solver)
        caffe__solver_parameter__free_unpacked(job->solver, NULL);
    for (int i = 0; i < job->n_nets; i++) {
        shoal_caffe_net_close(&job->nets[i].model);
        if (job->nets[i].state)
            caffe__net_state__free_unpacked(job->nets[i].state, NULL);
    }
    for (int i = 0; i < job->n_datasets; i++)
        shoal_free(job->datasets[i].name);
    for (int i = 0; i < job->n_weights; i++)
        close_file(&job->weights[i]);
    for (int i = 0; i < job->n_files; i++)
        close_file(&job->files[i]);
    close_file(&job->state_file);
    if (job->state)
        caffe__solver_state__free_unpacked(job->state, NULL);
    shoal_free(job->nets);
    shoal_free(job->datasets);
    shoal_free(job->weights);
    shoal_free(job->files);
    *job = (ShoalJob){0};
}

const ShoalJobFile *shoal_job_file(const ShoalJob *job, const char *name) {
    for (int i = 0; i < job->n_files; i++)
        if (!strcmp(job->files[i].name, name))
            return &job->files[i];
    return NULL;
}

const ShoalJobDataset *shoal_job_dataset(const ShoalJob *job, const char *name) {
    for (int i = 0; i < job->n_datasets; i++)
        if (!strcmp(job->datasets[i].name, name))
            return &job->datasets[i];
    return NULL;
}

ShoalStatus shoal_job_add_dataset(ShoalJob *job, const char *name, const ShoalRecordShape *shape,
                                  ShoalError *err) {
    ShoalJobDataset *dataset =
        grow((void **)&job->datasets, &job->n_datasets, sizeof *job->datasets);
    if (!dataset)
        return shoal_error_memory(err, "a dataset", sizeof *dataset);
    *dataset = (ShoalJobDataset){.name = shoal_strdup(name), .shape = *shape, .records = 1};
    if (dataset->name)
        return SHOAL_OK;
    job->n_datasets--;
    return shoal_error_memory(err, "a dataset", strlen(name));
}

void shoal_job_name_dataset(ShoalJob *job, const char *name, uint64_t records,
                            const ShoalFingerprint *fingerprint) {
    for (int i = 0; i < job->n_datasets; i++)
        if (!strcmp(job->datasets[i].name, name)) {
            job->datasets[i].records = records;
            job->datasets[i].fingerprint = *fingerprint;
        }
}

int shoal_job_dataset_number(const ShoalJob *job, const char *name) {
    int i = 0;
    while (i < job->n_datasets && (!name || strcmp(job->datasets[i].name, name)))
        i++;
    return i;
}

/* ---- weights ---- */

static ShoalStatus load_into(const ShoalJobFile *file, ShoalNet *const *nets, int n_nets,
                             ShoalError *err) {
    ShoalCaffeNet from;
    ShoalStatus status =
        shoal_caffe_net_from_bytes(file->bytes, file->size, file->name, &from, err);
    if (status)
        return status;
    int copied = 0;
    for (int n = 0; n < n_nets && !status; n++) {
        int layers = 0;
        status = shoal_net_load_weights(nets[n], &from, &layers, err);
        copied += layers;
    }
    if (!status && !copied)
        status = shoal_error_set(err, SHOAL_ERR_MODEL,
                                 "%s: holds no weights for any layer of this net (%zu layers in "
                                 "the file); weights go by the names of layers",
                                 file->name, from.param->n_layer);
    shoal_caffe_net_close(&from);
    return status;
}

ShoalStatus shoal_job_load_weights(const ShoalJobFile *files, int n_files, ShoalNet *const *nets,
                                   int n_nets, ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    for (int i = 0; i < n_files && !status; i++)
        status = load_into(&files[i], nets, n_nets, err);
    return status;
}

/* ---- seeds ---- */

/* A job with nothing but a state has what a seed needs. */
ShoalStatus shoal_seed_load(const char *path, ShoalSeed *out, ShoalError *err) {
    ShoalJob job = {0};
    ShoalStatus status = add_state(&job, path, err);
    if (!status) {
        *out = (ShoalSeed){.weights = job.weights,
                           .n_weights = job.n_weights,
                           .state = job.state_file,
                           .updates = job.state->iter,
                           .current_step = job.state->current_step};
        job.weights = NULL;
        job.n_weights = 0;
        job.state_file = (ShoalJobFile){0};
    }
    shoal_job_close(&job);
    return status;
}

void shoal_seed_close(ShoalSeed *seed) {
    for (int i = 0; i < seed->n_weights; i++)
        close_file(&seed->weights[i]);
    close_file(&seed->state);
    shoal_free(seed->weights);
    *seed = (ShoalSeed){0};
}
