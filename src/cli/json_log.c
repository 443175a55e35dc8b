/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/cli.h"

struct ShoalJsonLog {
    FILE *file;
    char *path;
    int failed; /* errno of the first write that failed */
};

ShoalStatus shoal_json_log_open(const char *path, ShoalJsonLog **out, ShoalError *err) {
    ShoalJsonLog *log = calloc(1, sizeof *log);
    if (!log || !(log->path = strdup(path))) {
        free(log);
        return shoal_error_memory(err, "the log", sizeof *log);
    }
    log->file = fopen(path, "we");
    if (!log->file) {
        shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot write the log: %s", path, strerror(errno));
        free(log->path);
        free(log);
        return err->status;
    }
    *out = log;
    return SHOAL_OK;
}

ShoalStatus shoal_json_log_close(ShoalJsonLog *log, ShoalError *err) {
    if (!log)
        return SHOAL_OK;
    if (fclose(log->file) && !log->failed)
        log->failed = errno;
    ShoalStatus status = SHOAL_OK;
    if (log->failed)
        status = shoal_error_set(err, SHOAL_ERR_IO, "%s: the log is not complete: %s", log->path,
                                 strerror(log->failed));
    free(log->path);
    free(log);
    return status;
}

/* JSON has no infinity and no NaN. */
static json_t *number(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

/* {NAME: VALUE}; an output blob of several values becomes a list. */
static json_t *outputs_object(const ShoalEvent *event) {
    json_t *object = json_object();
    for (int i = 0, n; i < event->n_outputs; i += n) {
        for (n = 1;
             i + n < event->n_outputs && event->outputs[i + n].name == event->outputs[i].name;)
            n++;
        json_t *value = n == 1 ? number((double)event->outputs[i].value) : json_array();
        for (int k = 0; n > 1 && k < n; k++)
            json_array_append_new(value, number((double)event->outputs[i + k].value));
        json_object_set_new(object, event->outputs[i].name, value);
    }
    return object;
}

static json_t *event_object(const ShoalEvent *event) {
    switch (event->kind) {
    case SHOAL_EVENT_START:
        return json_pack("{s:s,s:i,s:i,s:i,s:i}", "event", "start", "iter", event->iter, "max_iter",
                         event->max_iter, "batch", event->batch, "workers", event->n_workers);
    case SHOAL_EVENT_ITERATION:
        return event->displayed ? json_pack("{s:s,s:i,s:o,s:o,s:o}", "event", "iteration", "iter",
                                            event->iter, "loss", number((double)event->loss), "lr",
                                            number((double)event->rate), "images_per_s",
                                            number(event->images_per_s))
                                : NULL;
    case SHOAL_EVENT_LOSS:
        return json_pack("{s:s,s:i,s:o}", "event", "final_loss", "iter", event->iter, "loss",
                         number((double)event->loss));
    case SHOAL_EVENT_TEST:
        return json_pack("{s:s,s:i,s:o}", "event", "test", "iter", event->iter, "outputs",
                         outputs_object(event));
    case SHOAL_EVENT_SNAPSHOT:
        return json_pack("{s:s,s:i,s:s}", "event", "snapshot", "iter", event->iter, "file",
                         event->text);
    case SHOAL_EVENT_END:
        return json_pack("{s:s,s:s}", "event", "end", "text", event->text);
    default:
        return NULL;
    }
}

void shoal_json_log_event(ShoalJsonLog *log, const ShoalEvent *event) {
    json_t *object = log ? event_object(event) : NULL;
    if (!object)
        return;
    /* 9 digits: a float read back is the same float. */
    char *line = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(object);
    if (!line || fprintf(log->file, "%s\n", line) < 0 || fflush(log->file))
        log->failed = log->failed ? log->failed : errno;
    free(line);
}
