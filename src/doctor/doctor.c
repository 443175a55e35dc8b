/* SPDX-License-Identifier: Apache-2.0 */
#include "shoal/doctor.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/stop.h"
#include "base/system.h"
#include "device/android.h"
#include "device/links.h"
#include "device/power.h"
#include "doctor/diagnose.h"
#include "doctor/measure.h"
#include "train/probe.h"

enum {
    CONNECT_MS = 5000,
    COME_BACK_MS = 60000, /* to a server that has too many guests */
    AGAIN_MS = 500,
    TURN_MS = 60000,
    BULK_MS = 1200,
    NEIGHBOURS = 16,  /* that are tried, the next one first */
    LINGER_MS = 2500, /* for others that measure to us */
    LINGER_MOST_MS = 20000,
    STEP_MS = 50
};

typedef struct Doctor {
    const ShoalDoctorOptions *options;
    ShoalDoctorReport *report;
    const char *root;
    ShoalCpuLevel level;
    ShoalAuthKey key;
    ShoalProbeServer *server; /* for the neighbour that measures to us; NULL: none */
    uint16_t port;
    ShoalAddress coordinator;
} Doctor;

static bool stopped(const Doctor *doctor) {
    return shoal_stop_asked(doctor->options->stop) != 0;
}

static void tell(const ShoalDoctorOptions *options, ShoalDoctorEventKind kind, const char *text,
                 const char *token, const ShoalDoctorReport *report) {
    const ShoalDoctorEvent event = {kind, text, token, report};
    if (options->on_event)
        options->on_event(options->context, &event);
}

static void step(const Doctor *doctor, const char *text) {
    tell(doctor->options, SHOAL_DOCTOR_STEP, text, NULL, doctor->report);
}

/* ---- links ---- */

/* The neighbour reaches us by the address that we have towards the coordinator: it listens on all
 * of them, since that one is not known before. */
static ShoalStatus open_server(Doctor *doctor, ShoalError *err) {
    ShoalAddress any;
    bool six = doctor->coordinator.storage.ss_family == AF_INET6;
    ShoalStatus status = shoal_address_from_host(six ? "::" : "0.0.0.0", 0, &any, err);
    if (!status)
        status = shoal_probe_server_create(NULL, NULL, &doctor->server, err);
    if (!status)
        status = shoal_probe_server_listen(doctor->server, &any, &doctor->key, &doctor->port, err);
    return status;
}

/* Comes back while there are too many guests. */
static ShoalStatus enter(const Doctor *doctor, const ShoalAddress *address, ShoalProber *prober,
                         ShoalError *err) {
    uint64_t end = shoal_clock_ms() + COME_BACK_MS;
    for (;;) {
        shoal_error_clear(err);
        ShoalStatus status = shoal_prober_open(prober, address, &doctor->key, doctor->port, -1,
                                               shoal_clock_ms() + CONNECT_MS, err);
        if (status != SHOAL_ERR_LOST || shoal_clock_ms() >= end || stopped(doctor))
            return status;
        shoal_clock_sleep_ms(AGAIN_MS);
    }
}

static ShoalDoctorProbe *new_probe(const Doctor *doctor, const char *to,
                                   const ShoalAddress *address) {
    ShoalDoctorProbe *probe = &doctor->report->probes[doctor->report->n_probes++];
    *probe = (ShoalDoctorProbe){.to = to, .up_loss = -1, .down_loss = -1};
    if (address)
        shoal_address_format(address, probe->address);
    return probe;
}

static ShoalStatus measure(ShoalProber *prober, ShoalDoctorProbe *probe, ShoalError *err) {
    ShoalAddress local;
    ShoalProbeResult result;
    if (!shoal_socket_local(shoal_channel_fd(prober->channel), &local, NULL))
        shoal_address_format_host(&local, probe->local);
    ShoalStatus status =
        shoal_prober_measure(prober, BULK_MS, shoal_clock_ms() + TURN_MS, &result, err);
    probe->latency_us = result.latency_us;
    probe->latency_p99_us = result.latency_p99_us;
    probe->up_mbit = result.up_mbit;
    probe->down_mbit = result.down_mbit;
    probe->up_gap_ms = result.up_gap_ms;
    probe->down_gap_ms = result.down_gap_ms;
    probe->up_loss = result.up_loss;
    probe->down_loss = result.down_loss;
    probe->reached = status == SHOAL_OK;
    return status;
}

static void keep_error(ShoalDoctorProbe *probe, const ShoalError *err) {
    shoal_message_text(err->text, probe->error, sizeof probe->error);
}

/* Errors only of the token: all else is a finding. */
static ShoalStatus measure_coordinator(Doctor *doctor, ShoalError *err) {
    ShoalProber prober;
    ShoalError failure = {0};
    step(doctor, "measuring the link to the coordinator");
    ShoalDoctorProbe *probe = new_probe(doctor, "coordinator", &doctor->coordinator);
    ShoalStatus status = enter(doctor, &doctor->coordinator, &prober, &failure);
    if (status == SHOAL_ERR_AUTH || status == SHOAL_ERR_ARGUMENT)
        return shoal_error_set(err, status, "%s", failure.text);
    if (!status) {
        status = measure(&prober, probe, &failure);
        shoal_prober_close(&prober);
    }
    if (status)
        keep_error(probe, &failure);
    return SHOAL_OK;
}

static int list_peers(const Doctor *doctor, ShoalAddress peers[NEIGHBOURS]) {
    ShoalProber prober;
    ShoalError failure = {0};
    int count = 0;
    if (enter(doctor, &doctor->coordinator, &prober, &failure))
        return 0;
    (void)shoal_prober_peers(&prober, peers, NEIGHBOURS, &count, &failure);
    shoal_prober_close(&prober);
    return count;
}

/* One who refuses the connection has gone; one who does not answer cannot be reached. */
static bool has_gone(ShoalStatus status, const ShoalError *err) {
    return status == SHOAL_ERR_NETWORK && strstr(err->text, "refused");
}

static void measure_neighbour(Doctor *doctor) {
    ShoalAddress peers[NEIGHBOURS];
    step(doctor, "measuring the link to the next device");
    int count = list_peers(doctor, peers);
    for (int i = 0; i < count && !stopped(doctor); i++) {
        ShoalProber prober;
        ShoalError failure = {0};
        ShoalStatus status = enter(doctor, &peers[i], &prober, &failure);
        if (has_gone(status, &failure))
            continue;
        ShoalDoctorProbe *probe = new_probe(doctor, "neighbour", &peers[i]);
        if (!status) {
            status = measure(&prober, probe, &failure);
            shoal_prober_close(&prober);
        }
        if (status)
            keep_error(probe, &failure);
        return;
    }
    new_probe(doctor, "neighbour", NULL);
}

static void mark_used_link(ShoalDoctorReport *report) {
    for (int i = 0; i < report->n_links && report->n_probes > 0; i++)
        report->links[i].used = report->links[i].address[0] &&
                                !strcmp(report->links[i].address, report->probes[0].local);
}

/* Others may have begun a little later. */
static void linger(const Doctor *doctor) {
    uint64_t start = shoal_clock_ms(), quiet = start;
    bool alone = doctor->report->n_probes < 2 || !doctor->report->probes[1].address[0];
    while (!alone && !stopped(doctor)) {
        uint64_t now = shoal_clock_ms();
        if (shoal_probe_server_guests(doctor->server) > 0)
            quiet = now;
        if (now - quiet > LINGER_MS || now - start > LINGER_MOST_MS)
            return;
        shoal_clock_sleep_ms(STEP_MS);
    }
}

/* ---- the device ---- */

static bool second_passed(void *context) {
    const Doctor *doctor = context;
    tell(doctor->options, SHOAL_DOCTOR_LOADED, NULL, NULL, doctor->report);
    return !stopped(doctor);
}

static void name_device(ShoalDoctorReport *report) {
    struct utsname system;
    if (uname(&system))
        return;
    char text[sizeof report->system];
    snprintf(text, sizeof text, "%.30s %.60s %.30s", system.sysname, system.release,
             system.machine);
    shoal_message_text(text, report->system, sizeof report->system);
    shoal_message_text(system.nodename, report->host, sizeof report->host);
}

static ShoalStatus examine(Doctor *doctor, ShoalError *err) {
    ShoalDoctorReport *report = doctor->report;
    step(doctor, "measuring cores and memory");
    shoal_measure_cores(doctor->level, &report->cores);
    shoal_measure_memory(&report->memory);
    if (stopped(doctor))
        return SHOAL_OK;
    if (doctor->options->seconds > 0)
        step(doctor, "all cores at full load");
    ShoalStatus status = shoal_measure_heat(doctor->root, doctor->level, doctor->options->seconds,
                                            &report->heat, second_passed, doctor, err);
    shoal_power_read(doctor->root, &report->battery); /* as it is under load */
    return status;
}

static ShoalStatus check(const ShoalDoctorOptions *options, ShoalError *err) {
    if (options->seconds < 0 || options->seconds > SHOAL_DOCTOR_SECONDS)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "%d seconds under load: 0 to %d work",
                               options->seconds, SHOAL_DOCTOR_SECONDS);
    return SHOAL_OK;
}

static ShoalStatus prepare(Doctor *doctor, ShoalError *err) {
    const ShoalDoctorOptions *options = doctor->options;
    ShoalStatus status = check(options, err);
    if (!status)
        status = shoal_cpu_level_choose(options->cpu, &doctor->level, err);
    if (status || !options->join)
        return status;
    if (!options->token)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "the cluster's secret is missing: give --token or set SHOAL_TOKEN "
                               "to what the coordinator printed");
    status = shoal_auth_init(err);
    if (!status)
        status = shoal_auth_token_key(options->token, &doctor->key, err);
    if (!status)
        status = shoal_address_parse(options->join, &doctor->coordinator, err);
    return status ? status : open_server(doctor, err);
}

static ShoalStatus run(Doctor *doctor, ShoalError *err) {
    ShoalDoctorReport *report = doctor->report;
    name_device(report);
    step(doctor, "asking the system");
    shoal_measure_describe_cores(doctor->root, &report->cores);
    snprintf(report->cores.level, sizeof report->cores.level, "%s",
             shoal_cpu_level_name(doctor->level));
    report->n_links = shoal_links_read(doctor->root, report->links, SHOAL_DOCTOR_LINKS);
    shoal_android_read(doctor->root, &report->android);
    bool joins = doctor->options->join != NULL;
    ShoalStatus status = joins ? measure_coordinator(doctor, err) : SHOAL_OK;
    /* Whoever wants to measure to us waits until we do not compute. */
    if (joins)
        shoal_probe_server_hold(doctor->server);
    if (!status && !stopped(doctor))
        status = examine(doctor, err);
    if (joins)
        shoal_probe_server_release(doctor->server);
    if (joins && !status && !stopped(doctor)) {
        if (report->probes[0].reached)
            measure_neighbour(doctor);
        linger(doctor);
    }
    mark_used_link(report);
    if (!status && stopped(doctor))
        status = shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request");
    return status;
}

ShoalStatus shoal_doctor(const ShoalDoctorOptions *options, ShoalDoctorReport *report,
                         ShoalError *err) {
    Doctor doctor = {.options = options, .report = report, .root = shoal_system_root()};
    memset(report, 0, sizeof *report);
    report->battery.present = report->battery.level = -1;
    ShoalStatus status = prepare(&doctor, err);
    if (!status)
        status = run(&doctor, err);
    shoal_probe_server_destroy(doctor.server);
    shoal_auth_forget(&doctor.key, sizeof doctor.key);
    shoal_diagnose(report);
    return status;
}

/* ---- for others ---- */

static void on_guest(void *context, const char *address, double up_mbit, double down_mbit) {
    const ShoalDoctorOptions *options = context;
    char text[160];
    if (up_mbit <= 0 && down_mbit <= 0)
        return; /* it only asked who else is here */
    snprintf(text, sizeof text, "%s measured: %.1f Mbit/s from it, %.1f Mbit/s to it", address,
             up_mbit, down_mbit);
    tell(options, SHOAL_DOCTOR_GUEST, text, NULL, NULL);
}

static ShoalStatus start_serving(const ShoalDoctorOptions *options, const char *token,
                                 ShoalProbeServer *server, char where[SHOAL_ADDRESS_TEXT],
                                 ShoalError *err) {
    ShoalAuthKey key;
    ShoalAddress address;
    uint16_t port;
    char host[SHOAL_ADDRESS_TEXT];
    ShoalStatus status = shoal_auth_token_key(token, &key, err);
    if (!status)
        status = shoal_address_parse(options->listen, &address, err);
    if (!status)
        status = shoal_probe_server_listen(server, &address, &key, &port, err);
    if (status)
        return status;
    shoal_address_format_host(&address, host);
    status = shoal_address_from_host(host, port, &address, err);
    if (!status)
        shoal_address_format(&address, where);
    return status;
}

ShoalStatus shoal_doctor_serve(const ShoalDoctorOptions *options, ShoalError *err) {
    char made[SHOAL_AUTH_TOKEN_TEXT], where[SHOAL_ADDRESS_TEXT];
    ShoalProbeServer *server;
    if (!options->listen)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "an address to listen at is missing");
    ShoalStatus status = shoal_auth_init(err);
    if (!status)
        status = shoal_probe_server_create(on_guest, (void *)(uintptr_t)options, &server, err);
    if (status)
        return status;
    if (!options->token)
        shoal_auth_token_generate(made);
    status = start_serving(options, options->token ? options->token : made, server, where, err);
    if (!status)
        tell(options, SHOAL_DOCTOR_SERVING, where, options->token ? NULL : made, NULL);
    while (!status && !shoal_stop_asked(options->stop))
        shoal_clock_sleep_ms(STEP_MS);
    shoal_probe_server_destroy(server);
    return status;
}
