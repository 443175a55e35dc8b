/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"
#include "base/file.h"
#include "shoal/shoal.h"
#include "train/init_nets.h"

/* `shoal init`: the files of a net that is ready to train. */

enum { PATH_BYTES = 4096, MOST_FOLDER = PATH_BYTES - 64 };

const char *shoal_init_name(int n) {
    const ShoalInitNet *net = shoal_init_net_at(n);
    return net ? net->name : NULL;
}

const char *shoal_init_about(int n) {
    const ShoalInitNet *net = shoal_init_net_at(n);
    return net ? net->about : NULL;
}

static ShoalStatus unknown_net(const char *name, ShoalError *err) {
    char known[256] = "";
    for (int n = 0; shoal_init_name(n); n++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", n ? ", " : "", shoal_init_name(n));
    }
    return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "unknown net '%.60s'; there are: %s", name,
                           known);
}

/* The folder as paths in the files begin with it: without slashes at its end, "" for ".". */
static ShoalStatus tidy_folder(const char *given, char folder[PATH_BYTES], ShoalError *err) {
    size_t length = strlen(given);
    if (length == 0 || length > MOST_FOLDER)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "the name of the folder is %s",
                               length ? "too long" : "empty");
    for (const char *c = given; *c; c++)
        if ((unsigned char)*c < ' ')
            return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                                   "the name of the folder has a control character");
    while (length > 1 && given[length - 1] == '/')
        length--;
    bool here = length == 1 && given[0] == '.';
    memcpy(folder, given, here ? 0 : length);
    folder[here ? 0 : length] = '\0';
    return SHOAL_OK;
}

/* The folder and those above it. */
static ShoalStatus make_folder(const char *folder, ShoalError *err) {
    char path[PATH_BYTES];
    for (size_t i = 1; folder[0]; i++) {
        if (folder[i] != '/' && folder[i])
            continue;
        memcpy(path, folder, i);
        path[i] = '\0';
        if (mkdir(path, 0777) && errno != EEXIST)
            return shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot make the folder: %s", path,
                                   strerror(errno));
        if (!folder[i])
            break;
    }
    struct stat info;
    if (folder[0] && (stat(folder, &info) || !S_ISDIR(info.st_mode)))
        return shoal_error_set(err, SHOAL_ERR_IO, "%s: not a folder", folder);
    return SHOAL_OK;
}

static void path_in(const char *folder, const char *name, char path[PATH_BYTES]) {
    snprintf(path, PATH_BYTES, "%.*s%s%s", MOST_FOLDER, folder, folder[0] ? "/" : "", name);
}

static ShoalStatus check_absent(const char *path, ShoalError *err) {
    struct stat info;
    if (lstat(path, &info) && errno == ENOENT)
        return SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_IO,
                           "%s: is there already; give --force to replace it, or another folder",
                           path);
}

static ShoalStatus write_text(const char *path, const char *folder, int batch,
                              void (*text)(FILE *out, const char *folder, int batch),
                              ShoalError *err) {
    char *bytes = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&bytes, &size);
    if (!out)
        return shoal_error_memory(err, path, 0);
    text(out, folder, batch);
    bool failed = ferror(out);
    failed = fclose(out) || failed;
    ShoalStatus status =
        failed ? shoal_error_memory(err, path, size) : shoal_file_replace(path, bytes, size, err);
    free(bytes);
    return status;
}

ShoalStatus shoal_init(const ShoalInitOptions *options, ShoalError *error) {
    if (!options->net || !options->folder)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT, "give a net and a folder");
    const ShoalInitNet *net = shoal_init_net_find(options->net);
    if (!net)
        return unknown_net(options->net, error);
    if (options->batch < 0 || options->batch > SHOAL_INIT_MOST_BATCH)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT,
                               "a batch of %d; give 1 to %d images, or 0 for the net's own",
                               options->batch, (int)SHOAL_INIT_MOST_BATCH);
    int batch = options->batch ? options->batch : net->batch;
    char folder[PATH_BYTES], model[PATH_BYTES], solver[PATH_BYTES];
    ShoalStatus status = tidy_folder(options->folder, folder, error);
    if (status)
        return status;
    path_in(folder, "train_val.prototxt", model);
    path_in(folder, "solver.prototxt", solver);
    status = make_folder(folder, error);
    if (!status && !options->force)
        status = check_absent(model, error);
    if (!status && !options->force)
        status = check_absent(solver, error);
    if (!status)
        status = write_text(model, folder, batch, net->train_val, error);
    if (!status)
        status = write_text(solver, folder, batch, net->solver, error);
    return status;
}
