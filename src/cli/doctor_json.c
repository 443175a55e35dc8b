/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "cli/doctor.h"

/* What is unknown is null. */

static json_t *known(bool is_known, double value) {
    return is_known && isfinite(value) ? json_real(round(value * 1000) / 1000) : json_null();
}

static json_t *positive(double value) {
    return known(value > 0, value);
}

static json_t *whole(int value, bool is_known) {
    return is_known ? json_integer(value) : json_null();
}

static json_t *truth(int value) {
    return value < 0 ? json_null() : json_boolean(value);
}

static json_t *text(const char *value) {
    char clean[512];
    shoal_text_clean(value, false, clean, sizeof clean);
    return clean[0] ? json_string(clean) : json_null();
}

static json_t *cores_array(const ShoalDoctorCores *cores) {
    json_t *array = json_array();
    for (int i = 0; i < cores->n_clusters; i++) {
        const ShoalDoctorCluster *c = &cores->clusters[i];
        json_array_append_new(
            array, json_pack("{s:i,s:i,s:o,s:o,s:o,s:o,s:o}", "cores", c->cores, "usable",
                             c->usable, "list", text(c->list), "mhz", whole(c->mhz, c->mhz > 0),
                             "capacity", whole(c->capacity, c->capacity > 0), "gflops",
                             positive(c->gflops), "gflops_one_core", positive(c->one_core)));
    }
    return array;
}

static json_t *device_object(const ShoalDoctorReport *r) {
    const ShoalDoctorCores *c = &r->cores;
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "host", text(r->host), "system",
                     text(r->system), "processor", text(c->model), "level", text(c->level),
                     "cores_present", whole(c->present, c->present > 0), "cores_online",
                     whole(c->online, c->online > 0), "cores_usable", whole(c->usable, true),
                     "gflops", positive(c->gflops));
}

static json_t *memory_object(const ShoalDoctorMemory *m) {
    return json_pack("{s:I,s:I,s:o,s:o}", "total_bytes", (json_int_t)m->total, "available_bytes",
                     (json_int_t)m->available, "read_gb_s", positive(m->read_gbs), "copy_gb_s",
                     positive(m->copy_gbs));
}

static json_t *heat_object(const ShoalDoctorHeat *h) {
    json_t *zones = json_array(), *seconds = json_array();
    for (int i = 0; i < h->n_zones; i++)
        json_array_append_new(zones, json_pack("{s:o,s:o,s:o}", "type", text(h->zones[i].type),
                                               "celsius", known(true, h->zones[i].celsius), "limit",
                                               positive(h->zones[i].limit)));
    for (int i = 0; i < h->n_seconds; i++) {
        const ShoalDoctorSecond *s = &h->seconds[i];
        json_array_append_new(
            seconds, json_pack("{s:o,s:o,s:o,s:o}", "gflops", positive(s->gflops), "temperature",
                               positive(s->temperature), "battery_temperature",
                               positive(s->battery_temperature), "clock", positive(s->clock)));
    }
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "temperature", positive(h->temperature),
                     "battery_temperature", positive(h->battery_temperature), "ceiling",
                     positive(h->ceiling), "clock", positive(h->clock), "zones", zones, "seconds",
                     seconds);
}

static json_t *battery_object(const ShoalDoctorBattery *b) {
    return json_pack(
        "{s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "present", truth(b->present),
        "level", whole(b->level, b->level >= 0), "status", text(b->status), "health",
        text(b->health), "technology", text(b->technology), "current_ma",
        whole(b->current_ma, b->current_known), "millivolts",
        whole(b->millivolts, b->millivolts > 0), "cycles", whole(b->cycles, b->cycles >= 0),
        "capacity_left", whole(b->capacity_left, b->capacity_left > 0), "plugged",
        truth(b->plugged), "screen_on", truth(b->screen_on), "limit_file", text(b->limit_file),
        "limit_writable", json_boolean(b->limit_writable), "limit", whole(b->limit, b->limit >= 0));
}

static const ShoalDoctorProbe *probe_of(const ShoalDoctorReport *r, const ShoalDoctorLink *link) {
    return link->used && r->n_probes > 0 ? &r->probes[0] : NULL;
}

static json_t *probe_object(const ShoalDoctorProbe *p) {
    bool r = p->reached;
    return json_pack(
        "{s:s,s:o,s:b,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "to", p->to, "address",
        text(p->address), "reached", r, "error", text(p->error), "up_mbit", known(r, p->up_mbit),
        "down_mbit", known(r, p->down_mbit), "latency_ms", known(r, 1e-3 * p->latency_us),
        "latency_p99_ms", known(r, 1e-3 * p->latency_p99_us), "up_gap_ms", known(r, p->up_gap_ms),
        "down_gap_ms", known(r, p->down_gap_ms), "up_loss", known(r && p->up_loss >= 0, p->up_loss),
        "down_loss", known(r && p->down_loss >= 0, p->down_loss));
}

static json_t *links_array(const ShoalDoctorReport *r) {
    json_t *array = json_array();
    for (int i = 0; i < r->n_links; i++) {
        const ShoalDoctorLink *l = &r->links[i];
        json_array_append_new(
            array,
            json_pack("{s:o,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:b}", "name", text(l->name), "kind",
                      shoal_doctor_kind_name(l->kind), "address", text(l->address), "up",
                      truth(l->up), "mbit", whole(l->mbit, l->mbit > 0), "full_duplex",
                      truth(l->full_duplex), "driver", text(l->driver), "usb_mbit",
                      whole(l->usb_mbit, l->usb_mbit > 0), "signal_dbm",
                      whole(l->signal_dbm, l->signal_dbm != 0), "used", probe_of(r, l) != NULL));
    }
    return array;
}

static json_t *probes_array(const ShoalDoctorReport *r) {
    json_t *array = json_array();
    for (int i = 0; i < r->n_probes; i++)
        json_array_append_new(array, probe_object(&r->probes[i]));
    return array;
}

static json_t *android_object(const ShoalDoctorAndroid *a) {
    if (!a->is_android)
        return json_null();
    return json_pack(
        "{s:o,s:o,s:i,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "release", text(a->release),
        "model", text(a->model), "sdk", a->sdk, "phantom_monitor", truth(a->phantom_monitor),
        "max_phantom_processes", whole(a->max_phantoms, a->max_phantoms >= 0), "freezer",
        truth(a->freezer), "doze", truth(a->doze), "battery_saver", truth(a->battery_saver),
        "stay_awake", whole(a->stay_awake, a->stay_awake >= 0), "wifi_sleep",
        whole(a->wifi_sleep, a->wifi_sleep >= 0), "wifi_mbit",
        whole(a->wifi_mbit, a->wifi_mbit > 0), "wifi_mhz", whole(a->wifi_mhz, a->wifi_mhz > 0),
        "wifi_dbm", whole(a->wifi_dbm, a->wifi_dbm != 0), "usb", text(a->usb));
}

static json_t *findings_array(const ShoalDoctorReport *r) {
    json_t *array = json_array();
    for (int i = 0; i < r->n_findings; i++) {
        const ShoalFinding *f = &r->findings[i];
        json_array_append_new(array, json_pack("{s:s,s:s,s:o,s:o}", "what", f->what, "verdict",
                                               shoal_verdict_name(f->verdict), "text",
                                               text(f->text), "fix", text(f->fix)));
    }
    return array;
}

void shoal_doctor_print_json(const ShoalDoctorReport *r) {
    json_t *object = json_pack("{s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "verdict",
                               shoal_verdict_name(r->verdict), "device", device_object(r), "cores",
                               cores_array(&r->cores), "memory", memory_object(&r->memory), "heat",
                               heat_object(&r->heat), "battery", battery_object(&r->battery),
                               "links", links_array(r), "probes", probes_array(r), "android",
                               android_object(&r->android), "findings", findings_array(r));
    char *line = object ? json_dumps(object, JSON_COMPACT) : NULL;
    if (line)
        printf("%s\n", line);
    free(line);
    json_decref(object);
}
