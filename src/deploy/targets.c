/* SPDX-License-Identifier: Apache-2.0 */
#include "deploy/targets.h"

#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/stop.h"
#include "deploy/run.h"
#include "deploy/transport.h"

enum { TARGETS_MAX = 4096, PROGRAM_MS = 40000 };

static ShoalStatus add(ShoalTargets *targets, const ShoalTarget *target, ShoalError *err) {
    for (int i = 0; i < targets->n; i++)
        if (targets->all[i].adb == target->adb && !strcmp(targets->all[i].name, target->name))
            return SHOAL_OK;
    if (targets->n == TARGETS_MAX)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "more than %d devices", TARGETS_MAX);
    if (targets->n == targets->capacity) {
        int capacity = targets->capacity ? 2 * targets->capacity : 16;
        ShoalTarget *larger = shoal_calloc((size_t)capacity, sizeof *larger);
        if (!larger)
            return shoal_error_memory(err, "devices", (size_t)capacity * sizeof *larger);
        if (targets->n)
            memcpy(larger, targets->all, (size_t)targets->n * sizeof *larger);
        shoal_free(targets->all);
        targets->all = larger;
        targets->capacity = capacity;
    }
    targets->all[targets->n++] = *target;
    return SHOAL_OK;
}

/* ---- programs ---- */

/* Runs a program of the system to its end. */
static ShoalStatus run_program(const ShoalDeployOptions *options, char *const *argv, ShoalRun *run,
                               ShoalError *err) {
    ShoalStatus status = shoal_run_start(run, argv, NULL, -1, PROGRAM_MS, NULL);
    if (status == SHOAL_ERR_UNSUPPORTED)
        return shoal_transport_missing(!strcmp(argv[0], "adb"), err);
    if (status)
        return shoal_error_set(err, status, "cannot start %s", argv[0]);
    while (!run->ended) {
        if (shoal_stop_asked(options->stop)) {
            shoal_run_close(run);
            return shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request");
        }
        shoal_run_wait(&run, 1, 100);
    }
    return SHOAL_OK;
}

/* ---- adb ---- */

/* The device of adb's list that has this name; one without a state when there is none. */
static void find_attached(const char *list, const char *name, size_t length, ShoalTarget *target) {
    for (const char *line = list; *line; line += strcspn(line, "\n"), line += *line == '\n')
        if (shoal_probe_adb_line(line, target) && strlen(target->name) == length &&
            !strncmp(target->name, name, length))
            return;
    *target = (ShoalTarget){.adb = true};
    memcpy(target->name, name, length);
}

static ShoalStatus add_serials(const char *list, const char *serials, ShoalTargets *targets,
                               ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    for (const char *at = serials; *at && !status; at += *at == ',') {
        ShoalTarget target;
        size_t length = strcspn(at, ",");
        if (length >= sizeof target.name)
            return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                                   "--serial: a name of more than %zu "
                                   "characters",
                                   sizeof target.name - 1);
        find_attached(list, at, length, &target);
        if (length)
            status = add(targets, &target, err);
        at += length;
    }
    return status;
}

static ShoalStatus add_attached(const char *list, ShoalTargets *targets, ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    int before = targets->n;
    for (const char *line = list; *line && !status; line += *line == '\n') {
        ShoalTarget target;
        if (shoal_probe_adb_line(line, &target))
            status = add(targets, &target, err);
        line += strcspn(line, "\n");
    }
    if (!status && targets->n == before)
        return shoal_error_set(err, SHOAL_ERR_IO,
                               "adb has no device: attach one by USB with USB debugging switched "
                               "on (settings, developer options), or: adb connect ADDR:5555");
    return status;
}

static ShoalStatus find_adb(const ShoalDeployOptions *options, ShoalTargets *targets,
                            ShoalError *err) {
    ShoalRun run;
    char *const argv[] = {"adb", "devices", "-l", NULL};
    ShoalStatus status = run_program(options, argv, &run, err);
    if (status)
        return status;
    if (run.code) {
        char text[256];
        shoal_transport_explain(&(ShoalTarget){.adb = true}, 0, &run, text, sizeof text);
        status = shoal_error_set(err, SHOAL_ERR_IO, "adb devices: %s", text);
    } else if (options->serials) {
        status = add_serials(run.text.bytes, options->serials, targets, err);
    } else {
        status = add_attached(run.text.bytes, targets, err);
    }
    shoal_run_close(&run);
    return status;
}

/* ---- ssh ---- */

static ShoalStatus add_host(const char *text, size_t length, const char *where,
                            ShoalTargets *targets, ShoalError *err) {
    ShoalTarget target;
    if (!shoal_probe_host(text, length, &target))
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "%s: \"%.*s\" is no host; expected [USER@]HOST[:PORT]", where,
                               length > 80 ? 80 : (int)length, text);
    return add(targets, &target, err);
}

static ShoalStatus add_file(const char *path, ShoalTargets *targets, ShoalError *err) {
    static const char BLANKS[] = " \t\r";
    unsigned char *bytes;
    size_t size;
    ShoalStatus status = shoal_file_read(path, &bytes, &size, err);
    if (status)
        return status;
    for (const char *line = (const char *)bytes; *line && !status; line += *line == '\n') {
        line += strspn(line, BLANKS);
        size_t length = strcspn(line, "\n#"), used = length;
        while (used && strchr(BLANKS, line[used - 1]))
            used--;
        if (used)
            status = add_host(line, used, path, targets, err);
        line += strcspn(line, "\n");
    }
    shoal_free(bytes);
    return status;
}

static ShoalStatus add_hosts(const char *hosts, ShoalTargets *targets, ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    for (const char *at = hosts; *at && !status; at += *at == ',') {
        size_t length = strcspn(at, ",");
        char path[4096];
        if (*at == '@' && length < sizeof path) {
            memcpy(path, at + 1, length - 1);
            path[length - 1] = '\0';
            status = add_file(path, targets, err);
        } else if (length) {
            status = add_host(at, length, "--ssh", targets, err);
        }
        at += length;
    }
    return status;
}

static ShoalStatus find_ssh(const ShoalDeployOptions *options, ShoalTargets *targets,
                            ShoalError *err) {
    ShoalRun run;
    char *const argv[] = {"ssh", "-V", NULL};
    ShoalStatus status = add_hosts(options->hosts, targets, err);
    if (status || (status = run_program(options, argv, &run, err)))
        return status;
    shoal_run_close(&run);
    return SHOAL_OK;
}

ShoalStatus shoal_targets_find(const ShoalDeployOptions *options, ShoalTargets *targets,
                               ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    *targets = (ShoalTargets){0};
    if (options->adb || options->serials)
        status = find_adb(options, targets, err);
    if (!status && options->hosts)
        status = find_ssh(options, targets, err);
    if (!status && !targets->n)
        status = shoal_error_set(err, SHOAL_ERR_ARGUMENT, "no device is named");
    if (status)
        shoal_targets_close(targets);
    return status;
}

void shoal_targets_close(ShoalTargets *targets) {
    shoal_free(targets->all);
    *targets = (ShoalTargets){0};
}
