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
    int failed;  /* errno of the first write that failed */
    int members; /* of the cluster, by the last event that told */
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

/* What others wrote need not be UTF-8, which JSON is. */
static json_t *text_value(const char *text) {
    char clean[4096];
    shoal_text_clean(text, true, clean, sizeof clean);
    return json_string(clean);
}

static json_t *member_object(const ShoalWorkerStatus *w) {
    json_t *charging = w->battery >= 0 ? json_boolean(w->charging) : json_null();
    return json_pack(
        "{s:o,s:i,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "name", text_value(w->name),
        "share", w->share, "images_per_s", number(w->images_per_s), "compute", number(w->compute),
        "communication", number(w->communication), "waiting", number(w->waiting), "temperature",
        w->temperature > 0 ? number(w->temperature) : json_null(), "battery_temperature",
        w->battery_temperature > 0 ? number(w->battery_temperature) : json_null(), "duty",
        number(w->duty), "remark", text_value(w->remark), "clock",
        w->clock > 0 ? number(w->clock) : json_null(), "battery",
        w->battery >= 0 ? json_integer(w->battery) : json_null(), "charging", charging);
}

static void add_cluster(json_t *object, const ShoalClusterStatus *cluster) {
    json_object_set_new(object, "generation", json_integer((json_int_t)cluster->generation));
    json_object_set_new(object, "workers", json_integer(cluster->n_workers));
    json_object_set_new(object, "communication_ms", number(cluster->communication_ms));
    json_object_set_new(object, "exposed_ms", number(cluster->exposed_ms));
    json_object_set_new(object, "samples_mb", number(cluster->samples_mb));
    json_object_set_new(object, "reduced_mb", number(cluster->reduced_mb));
    json_object_set_new(object, "cached", number(cluster->cached));
    json_t *shares = json_array(), *rates = json_array(), *members = json_array();
    for (int i = 0; i < cluster->n_workers; i++) {
        json_array_append_new(shares, json_integer(cluster->workers[i].share));
        json_array_append_new(rates, number(cluster->workers[i].images_per_s));
        json_array_append_new(members, member_object(&cluster->workers[i]));
    }
    json_object_set_new(object, "shares", shares);
    json_object_set_new(object, "images_per_s_by_worker", rates);
    json_object_set_new(object, "members", members);
    json_t *resting = json_array();
    for (int i = 0; i < cluster->n_resting; i++)
        json_array_append_new(resting,
                              json_pack("{s:o,s:o}", "name", text_value(cluster->resting[i].name),
                                        "reason", text_value(cluster->resting[i].reason)));
    json_object_set_new(object, "resting", resting);
}

static json_t *iteration_object(const ShoalEvent *event) {
    if (!event->displayed)
        return NULL;
    json_t *object =
        json_pack("{s:s,s:i,s:o,s:o,s:o}", "event", "iteration", "iter", event->iter, "loss",
                  number((double)event->loss), "lr", number((double)event->rate), "images_per_s",
                  number(event->images_per_s));
    if (object && event->samples < event->batch)
        json_object_set_new(object, "samples", json_integer(event->samples));
    if (object && event->cluster)
        add_cluster(object, event->cluster);
    return object;
}

/* Somebody came or went. */
static json_t *text_object(const char *kind, const ShoalEvent *event) {
    return json_pack("{s:s,s:o,s:i}", "event", kind, "text", text_value(event->text), "workers",
                     event->n_workers);
}

static json_t *event_object(const ShoalJsonLog *log, const ShoalEvent *event) {
    switch (event->kind) {
    case SHOAL_EVENT_START:
        return json_pack("{s:s,s:i,s:i,s:i,s:i}", "event", "start", "iter", event->iter, "max_iter",
                         event->max_iter, "batch", event->batch, "workers", event->n_workers);
    case SHOAL_EVENT_ITERATION:
        return iteration_object(event);
    case SHOAL_EVENT_LOSS:
        return json_pack("{s:s,s:i,s:o,s:o}", "event", "final_loss", "iter", event->iter, "loss",
                         number((double)event->loss), "outputs", outputs_object(event));
    case SHOAL_EVENT_TEST:
        return json_pack("{s:s,s:i,s:o}", "event", "test", "iter", event->iter, "outputs",
                         outputs_object(event));
    case SHOAL_EVENT_SNAPSHOT:
        return json_pack("{s:s,s:i,s:o}", "event", "snapshot", "iter", event->iter, "file",
                         text_value(event->text));
    case SHOAL_EVENT_JOINED:
        return text_object("joined", event);
    case SHOAL_EVENT_LOST:
        return text_object("lost", event);
    case SHOAL_EVENT_RESTING:
        return text_object("resting", event);
    case SHOAL_EVENT_PAUSED:
        return json_pack("{s:s,s:o}", "event", "paused", "text", text_value(event->text));
    case SHOAL_EVENT_GENERATION:
        return json_pack("{s:s,s:I,s:i}", "event", "generation", "generation",
                         (json_int_t)event->generation, "workers", event->n_workers);
    case SHOAL_EVENT_RECOVERED:
        return json_pack("{s:s,s:o,s:i}", "event", "recovered", "seconds",
                         number(event->recovery_s), "workers",
                         event->n_workers > 0 ? event->n_workers : log->members);
    case SHOAL_EVENT_END:
        return json_pack("{s:s,s:o}", "event", "end", "text", text_value(event->text));
    default:
        return NULL;
    }
}

void shoal_json_log_event(ShoalJsonLog *log, const ShoalEvent *event) {
    if (!log)
        return;
    if (event->kind == SHOAL_EVENT_GENERATION)
        log->members = event->n_workers;
    json_t *object = event_object(log, event);
    if (!object)
        return;
    /* 9 digits: a float read back is the same float. */
    char *line = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(object);
    if (!line || fprintf(log->file, "%s\n", line) < 0 || fflush(log->file))
        log->failed = log->failed ? log->failed : errno;
    free(line);
}
