/* SPDX-License-Identifier: Apache-2.0 */
#include "shoal/deploy.h"

#include <errno.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/stop.h"
#include "deploy/binaries.h"
#include "deploy/plan.h"
#include "deploy/targets.h"
#include "deploy/transport.h"
#include "shoal/shoal.h"

enum {
    PARALLEL = 32,
    UNDER_WAY_MAX = 256, /* programs at once: each needs three descriptors */
    SLOW_MS = 5000,      /* a step that takes longer gives its place to another device */
    FLAGS_MAX = 64,
    FLAGS_SIZE_MAX = 2048,
    WAIT_JOINED_S = 13, /* a worker gives up after 10 s when nobody answers */
    LOG_LINES = 20,
    TOKEN_MIN = 16,
    TOKEN_MAX = 4096
};

/* Of each step, in seconds, with the time to connect. */
enum { PROBE_S = 30, PUSH_S = 300, INSTALL_S = 60, TOKEN_S = 60, ACT_S = 60, DOCTOR_S = 600 };

typedef struct Device {
    ShoalTarget target;
    ShoalPlan plan;
    ShoalProbe probe;
    ShoalStep step; /* under way while run.pid or run.ended */
    ShoalRun run;
    uint64_t since_ms; /* the step began */
    bool begun, ended;
    ShoalDeployState state;
    int binary; /* of Deploy.binaries */
    char stamp[65];
    char name_flag[128];
    char text[512];
} Device;

enum { N_ARCHES = 2 };
static const char *const ARCHES[N_ARCHES] = {"aarch64", "x86_64"};

typedef struct Deploy {
    const ShoalDeployOptions *options;
    Device *devices;
    ShoalRun **runs; /* of all devices */
    int n, left;
    struct {
        bool looked;
        ShoalError error;
        ShoalBinary binary;
    } binaries[N_ARCHES];
    char join_flag[300];
    char token_path[512]; /* for adb; "" without one */
} Deploy;

/* ---- what is told ---- */

static void tell(Deploy *deploy, Device *device, const char *output) {
    if (!deploy->options->on_event)
        return;
    const char *arch = shoal_probe_arch(&device->probe);
    const ShoalProbe *probe = &device->probe;
    ShoalDeployEvent event = {
        .index = (int)(device - deploy->devices),
        .n_devices = deploy->n,
        .device = device->target.name,
        .transport = device->target.adb ? "adb" : "ssh",
        .model = probe->model,
        .abi = arch            ? arch
               : probe->abi[0] ? probe->abi
                               : probe->machine,
        .state = device->state,
        .step = shoal_plan_step(&device->plan),
        .steps = shoal_plan_steps(&device->plan),
        .pid =
            device->state == SHOAL_DEPLOYED || device->state == SHOAL_DEPLOY_RUNS ? probe->pid : 0,
        .text = device->text,
        .output = output};
    deploy->options->on_event(deploy->options->context, &event);
}

__attribute__((format(printf, 4, 5))) static void
finish(Deploy *deploy, Device *device, ShoalDeployState state, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(device->text, sizeof device->text, format, args);
    va_end(args);
    device->state = state;
    device->plan.failed = state == SHOAL_DEPLOY_FAILED;
    device->ended = device->begun = true;
    deploy->left--;
    if (state != SHOAL_DEPLOY_TOLD)
        tell(deploy, device, NULL);
}

static const char *colon_if(const char *text) {
    return text[0] ? ": " : "";
}

/* ---- flags and stamps ---- */

/* Whether a flag is --NAME or a beginning of it, however it is written (see flags.c). */
static bool is_flag(const char *flag, const char *name) {
    if (flag[0] != '-')
        return false;
    const char *text = flag + 1 + (flag[1] == '-');
    size_t length = strcspn(text, "=");
    return length && !strncmp(text, name, length);
}

static bool has_flag(const ShoalDeployOptions *options, const char *name) {
    for (int i = 0; i < options->n_flags; i++)
        if (is_flag(options->flags[i], name))
            return true;
    return false;
}

/* Android's devices are all called "localhost": a name for people, of harmless characters. */
static void make_name_flag(Device *device) {
    char *out = device->name_flag;
    size_t size = sizeof device->name_flag;
    if (device->target.adb && device->probe.model[0])
        snprintf(out, size, "--name=%.32s-%.64s", device->probe.model, device->target.name);
    else
        snprintf(out, size, "--name=%.96s", device->target.name);
    for (char *c = out + strlen("--name="); *c; c++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-@:[]", *c))
            *c = '-';
}

/* The flags for a device, to flags[FLAGS_MAX + 3]; how many. */
static int flags_for(const Deploy *deploy, const Device *device, const char **flags) {
    const ShoalDeployOptions *options = deploy->options;
    bool start = options->action == SHOAL_DEPLOY_START;
    int n = 0;
    if (options->join)
        flags[n++] = deploy->join_flag;
    if (options->discover && start)
        flags[n++] = "--discover";
    if (start && !has_flag(options, "name"))
        flags[n++] = device->name_flag;
    for (int i = 0; i < options->n_flags; i++)
        flags[n++] = options->flags[i];
    return n;
}

/* What a worker was started with: binary, flags and token. */
static void make_stamp(const Deploy *deploy, Device *device) {
    char all[64 + FLAGS_SIZE_MAX + FLAGS_MAX + TOKEN_MAX + 1024];
    const char *flags[FLAGS_MAX + 3];
    int n = flags_for(deploy, device, flags);
    size_t used = 0;
    const char *token = deploy->options->token ? deploy->options->token : "";
    const char *hash = deploy->binaries[device->binary].binary.hash;
    for (int i = -2; i < n; i++) {
        const char *part = i == -2 ? hash : i == -1 ? token : flags[i];
        size_t size = strlen(part) + 1;
        memcpy(all + used, part, size);
        used += size;
    }
    shoal_binary_hash(all, used, device->stamp);
    sodium_memzero(all, sizeof all);
}

/* ---- steps begin ---- */

static unsigned timeout_of(const Deploy *deploy, const Device *device) {
    const ShoalDeployOptions *options = deploy->options;
    int seconds[] = {[SHOAL_STEP_PROBE] = PROBE_S,
                     [SHOAL_STEP_PUSH] = PUSH_S,
                     [SHOAL_STEP_INSTALL] = INSTALL_S,
                     [SHOAL_STEP_TOKEN] = TOKEN_S,
                     [SHOAL_STEP_ACT] = options->action == SHOAL_DEPLOY_DOCTOR ? DOCTOR_S : ACT_S};
    return 1000u * (unsigned)(options->timeout_s ? options->timeout_s : seconds[device->step]);
}

static void write_action(const Deploy *deploy, Device *device, ShoalScript *script) {
    const char *flags[FLAGS_MAX + 3];
    bool adb = device->target.adb;
    int n = flags_for(deploy, device, flags), lines = deploy->options->log_lines;
    switch (deploy->options->action) {
    case SHOAL_DEPLOY_START:
        shoal_script_start(script, adb, flags, n, device->stamp, WAIT_JOINED_S);
        break;
    case SHOAL_DEPLOY_DOCTOR:
        shoal_script_doctor(script, adb, flags, n);
        break;
    case SHOAL_DEPLOY_LOGS:
        shoal_script_logs(script, adb, lines ? lines : LOG_LINES);
        break;
    case SHOAL_DEPLOY_STOP:
    case SHOAL_DEPLOY_STATUS:
        shoal_script_stop(script, adb);
        break;
    }
}

static void describe_step(const Deploy *deploy, Device *device) {
    static const char *const ACTIONS[] = {[SHOAL_DEPLOY_START] = "starting the worker",
                                          [SHOAL_DEPLOY_STOP] = "stopping the worker",
                                          [SHOAL_DEPLOY_STATUS] = "asking",
                                          [SHOAL_DEPLOY_LOGS] = "reading the log",
                                          [SHOAL_DEPLOY_DOCTOR] = "examining"};
    const ShoalBinary *binary = &deploy->binaries[device->binary].binary;
    const char *text = "";
    switch (device->step) {
    case SHOAL_STEP_PROBE:
        text = "looking";
        break;
    case SHOAL_STEP_PUSH:
        snprintf(device->text, sizeof device->text, "sending the binary, %.1f MB",
                 (double)binary->size / 1e6);
        return;
    case SHOAL_STEP_INSTALL:
        text = "trying the binary";
        break;
    case SHOAL_STEP_TOKEN:
        text = "sending the token";
        break;
    case SHOAL_STEP_ACT:
    case SHOAL_STEP_END:
        text = ACTIONS[deploy->options->action];
        break;
    }
    snprintf(device->text, sizeof device->text, "%s", text);
}

static ShoalStatus run_step(Deploy *deploy, Device *device, ShoalError *err) {
    const ShoalDeployOptions *options = deploy->options;
    const ShoalBinary *binary = &deploy->binaries[device->binary].binary;
    const ShoalTarget *target = &device->target;
    unsigned ms = timeout_of(deploy, device);
    bool makes = options->action == SHOAL_DEPLOY_START || options->action == SHOAL_DEPLOY_DOCTOR;
    ShoalScript script;
    switch (device->step) {
    case SHOAL_STEP_PUSH:
        return shoal_transport_push(target, options->ssh_port, binary->path, NULL,
                                    device->probe.dir, "shoal.new", ms, &device->run, err);
    case SHOAL_STEP_TOKEN:
        return shoal_transport_push(target, options->ssh_port, deploy->token_path,
                                    deploy->options->token, device->probe.dir, "token.new", ms,
                                    &device->run, err);
    case SHOAL_STEP_PROBE:
        shoal_script_probe(&script, target->adb, makes);
        break;
    case SHOAL_STEP_INSTALL:
        shoal_script_install(&script, target->adb, binary->hash, binary->size);
        break;
    case SHOAL_STEP_ACT:
    case SHOAL_STEP_END:
        write_action(deploy, device, &script);
        break;
    }
    return shoal_transport_script(target, options->ssh_port, &script, ms, &device->run, err);
}

/* ---- the end of a device ---- */

static void finish_told(Deploy *deploy, Device *device, char *output) {
    bool doctor = deploy->options->action == SHOAL_DEPLOY_DOCTOR;
    if (!output || (doctor && !strchr(output, '{'))) {
        char why[300];
        shoal_transport_explain(&device->target, deploy->options->ssh_port, &device->run, why,
                                sizeof why);
        finish(deploy, device, SHOAL_DEPLOY_FAILED, "it said nothing of use: %s", why);
        return;
    }
    finish(deploy, device, SHOAL_DEPLOY_TOLD, "%s",
           !doctor && !output[0] ? "the log is empty" : "");
    tell(deploy, device, output);
}

/* All is known. output: of the action, if it had any. */
static void conclude(Deploy *deploy, Device *device, char *output) {
    ShoalDeployAction action = deploy->options->action;
    const ShoalProbe *probe = &device->probe;
    const char *state = probe->state;
    bool already = action == SHOAL_DEPLOY_START;
    if ((action == SHOAL_DEPLOY_LOGS || action == SHOAL_DEPLOY_DOCTOR) && device->plan.acted)
        finish_told(deploy, device, output);
    else if (!strcmp(state, "running") && device->plan.acted)
        finish(deploy, device, SHOAL_DEPLOYED, "%s",
               probe->last[0] ? probe->last : "it has not joined yet: see --logs");
    else if (!strcmp(state, "running"))
        finish(deploy, device, SHOAL_DEPLOY_RUNS, "%s%s%s", already ? "already runs" : "",
               already ? colon_if(probe->last) : "", probe->last);
    else if (!strcmp(state, "stopped"))
        finish(deploy, device, SHOAL_DEPLOY_STOPPED, "its worker has ended");
    else if (!strcmp(state, "idle"))
        finish(deploy, device, SHOAL_DEPLOY_IDLE, "no worker runs");
    else if (!strcmp(state, "absent") && action == SHOAL_DEPLOY_LOGS)
        finish(deploy, device, SHOAL_DEPLOY_FAILED, "nothing was deployed there yet");
    else if (!strcmp(state, "absent"))
        finish(deploy, device, SHOAL_DEPLOY_IDLE, "nothing was deployed there yet");
    else if (!strcmp(state, "ended"))
        finish(deploy, device, SHOAL_DEPLOY_FAILED, "the worker ended at once%s%s",
               colon_if(probe->last), probe->last);
    else
        finish(deploy, device, SHOAL_DEPLOY_FAILED, "it answered what makes no sense");
}

/* ---- steps end ---- */

/* Fills device->binary. */
static bool choose_binary(Deploy *deploy, Device *device) {
    const char *arch = shoal_probe_arch(&device->probe);
    if (!arch) {
        const char *abi = device->probe.abi[0] ? device->probe.abi : device->probe.machine;
        finish(deploy, device, SHOAL_DEPLOY_FAILED,
               "its processor or system is \"%s\"; 64-bit ARM (arm64-v8a, aarch64) or x86_64 is "
               "needed",
               abi);
        return false;
    }
    for (int i = 0; i < N_ARCHES; i++)
        if (!strcmp(arch, ARCHES[i]))
            device->binary = i;
    if (!deploy->binaries[device->binary].looked)
        shoal_binary_find(deploy->options->binaries, arch, &deploy->binaries[device->binary].binary,
                          &deploy->binaries[device->binary].error);
    deploy->binaries[device->binary].looked = true;
    const ShoalError *error = &deploy->binaries[device->binary].error;
    if (error->status)
        finish(deploy, device, SHOAL_DEPLOY_FAILED, "%s", error->text);
    return !error->status;
}

/* A device that adb has twice, by USB and by network: the other one that was probed before. */
static const Device *same_device(const Deploy *deploy, const Device *device) {
    for (int i = 0; i < deploy->n; i++) {
        const Device *other = &deploy->devices[i];
        if (other != device && other->target.adb && device->target.adb && other->plan.probed &&
            device->probe.boot[0] && !strcmp(other->probe.boot, device->probe.boot))
            return other;
    }
    return NULL;
}

/* Whether it goes on. */
static bool take_probe(Deploy *deploy, Device *device) {
    ShoalDeployAction action = deploy->options->action;
    const ShoalProbe *probe = &device->probe;
    const Device *other = same_device(deploy, device);
    if (other) {
        finish(deploy, device, SHOAL_DEPLOY_SAME, "the same device as %s", other->target.name);
        return false;
    }
    if (probe->dir[0] != '/' || strpbrk(probe->dir, "\r\n")) {
        finish(deploy, device, SHOAL_DEPLOY_FAILED, "its folder for workers is no path: \"%.100s\"",
               probe->dir);
        return false;
    }
    device->plan.there = strcmp(probe->state, "absent") != 0;
    device->plan.runs = !strcmp(probe->state, "running");
    if (action != SHOAL_DEPLOY_START && action != SHOAL_DEPLOY_DOCTOR)
        return true;
    if (!choose_binary(deploy, device))
        return false;
    make_name_flag(device);
    make_stamp(deploy, device);
    device->plan.same_binary = !strcmp(probe->hash, deploy->binaries[device->binary].binary.hash);
    device->plan.same_stamp = !strcmp(probe->stamp, device->stamp);
    return true;
}

static void explain_broken(Deploy *deploy, Device *device) {
    enum { CODE_SIGSYS = 128 + 31, CODE_NOT_EXECUTABLE = 126 }; /* of a POSIX shell */
    const ShoalProbe *probe = &device->probe;
    const char *fix = "";
    if (probe->code == CODE_SIGSYS || strstr(probe->trial, "Bad system call"))
        fix = "; Android forbids apps a system call that it makes: start it through adb, or build "
              "it in Termux";
    else if (probe->code == CODE_NOT_EXECUTABLE || strstr(probe->trial, "Exec format"))
        fix = "; is it for this processor, and may files in that folder be executed (no noexec)?";
    finish(deploy, device, SHOAL_DEPLOY_FAILED, "the binary does not run there: %s (code %d)%s",
           probe->trial[0] ? probe->trial : "it says nothing", probe->code, fix);
}

/* Whether it goes on. */
static bool take_install(Deploy *deploy, Device *device) {
    const char *state = device->probe.state;
    if (!strcmp(state, "installed"))
        return true;
    if (!strcmp(state, "broken"))
        explain_broken(deploy, device);
    else
        finish(deploy, device, SHOAL_DEPLOY_FAILED,
               "the binary arrived damaged: is there space on the device?");
    return false;
}

/* A step did not come to its end. */
static void take_failure(Deploy *deploy, Device *device) {
    bool lost = shoal_transport_lost(&device->run);
    if (lost)
        shoal_plan_lost(&device->plan);
    if (lost && !device->plan.failed)
        return;
    char why[400];
    shoal_transport_explain(&device->target, deploy->options->ssh_port, &device->run, why,
                            sizeof why);
    static const char *const WHERE[] = {[SHOAL_STEP_PROBE] = "",
                                        [SHOAL_STEP_PUSH] = "sending the binary: ",
                                        [SHOAL_STEP_INSTALL] = "trying the binary: ",
                                        [SHOAL_STEP_TOKEN] = "sending the token: ",
                                        [SHOAL_STEP_ACT] = "",
                                        [SHOAL_STEP_END] = ""};
    finish(deploy, device, SHOAL_DEPLOY_FAILED, "%s%s", WHERE[device->step], why);
}

static void advance(Deploy *deploy, Device *device, char *output);

static void take_step(Deploy *deploy, Device *device) {
    ShoalRun run = device->run;
    bool script = device->step != SHOAL_STEP_PUSH && device->step != SHOAL_STEP_TOKEN;
    bool well = !run.late && (script || run.code == 0);
    if (script) {
        if (device->step == SHOAL_STEP_PROBE)
            device->probe = (ShoalProbe){0};
        device->probe.state[0] = '\0';
        shoal_probe_read(run.text.bytes, &device->probe);
        well = well && device->probe.complete;
    }
    bool goes_on = true;
    if (!well)
        take_failure(deploy, device);
    else if (device->step == SHOAL_STEP_PROBE)
        goes_on = take_probe(deploy, device);
    else if (device->step == SHOAL_STEP_INSTALL)
        goes_on = take_install(deploy, device);
    if (well && goes_on)
        shoal_plan_done(&device->plan, device->step);
    if (!device->ended)
        advance(deploy, device,
                device->step == SHOAL_STEP_ACT ? shoal_probe_output(run.text.bytes) : NULL);
}

/* Begins the next step, or ends. */
static void advance(Deploy *deploy, Device *device, char *output) {
    device->step = shoal_plan_next(&device->plan);
    if (device->step == SHOAL_STEP_END) {
        conclude(deploy, device, output);
        return;
    }
    shoal_run_close(&device->run);
    describe_step(deploy, device);
    device->begun = true;
    device->since_ms = shoal_clock_ms();
    tell(deploy, device, NULL);
    ShoalError error = {0};
    if (run_step(deploy, device, &error))
        finish(deploy, device, SHOAL_DEPLOY_FAILED, "%s", error.text);
}

/* ---- all devices ---- */

static void begin_device(Deploy *deploy, Device *device) {
    if (!device->target.adb || !strcmp(device->target.state, "device")) {
        advance(deploy, device, NULL);
        return;
    }
    char why[400];
    shoal_transport_explain_state(&device->target, why, sizeof why);
    finish(deploy, device, SHOAL_DEPLOY_FAILED, "%s", why);
}

/* How many more may begin. Those that take long do not count, and an examination takes long. */
static int places(const Deploy *deploy) {
    uint64_t now = shoal_clock_ms();
    int quick = 0, all = 0;
    for (int i = 0; i < deploy->n; i++) {
        const Device *device = &deploy->devices[i];
        if (!device->begun || device->ended)
            continue;
        bool examined =
            device->step == SHOAL_STEP_ACT && device->plan.action == SHOAL_DEPLOY_DOCTOR;
        all++;
        quick += !examined && now - device->since_ms < SLOW_MS;
    }
    int parallel = deploy->options->parallel ? deploy->options->parallel : PARALLEL;
    int room = UNDER_WAY_MAX - all;
    return parallel - quick < room ? parallel - quick : room;
}

static void begin_devices(Deploy *deploy) {
    for (int i = 0; i < deploy->n; i++) {
        if (deploy->devices[i].begun)
            continue;
        if (places(deploy) <= 0)
            return;
        begin_device(deploy, &deploy->devices[i]);
    }
}

static ShoalStatus loop(Deploy *deploy, ShoalError *err) {
    while (deploy->left > 0) {
        if (shoal_stop_asked(deploy->options->stop) == SHOAL_STOP_NOW) {
            for (int i = 0; i < deploy->n; i++)
                if (!deploy->devices[i].ended)
                    finish(deploy, &deploy->devices[i], SHOAL_DEPLOY_FAILED, "interrupted");
            return shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request");
        }
        begin_devices(deploy);
        shoal_run_wait(deploy->runs, deploy->n, 100);
        for (int i = 0; i < deploy->n; i++)
            if (deploy->devices[i].run.ended && !deploy->devices[i].ended)
                take_step(deploy, &deploy->devices[i]);
    }
    int failed = 0;
    for (int i = 0; i < deploy->n; i++)
        failed += deploy->devices[i].state == SHOAL_DEPLOY_FAILED;
    if (failed)
        return shoal_error_set(err, SHOAL_ERR_IO, "%d of %d device%s failed", failed, deploy->n,
                               deploy->n == 1 ? "" : "s");
    return SHOAL_OK;
}

/* ---- the token's file ---- */

/* adb sends files only, and it keeps nothing from this computer's other users that a file of ours
 * would not. */
static ShoalStatus write_token(Deploy *deploy, const char *token, ShoalError *err) {
    const char *folder = getenv("TMPDIR");
    snprintf(deploy->token_path, sizeof deploy->token_path, "%.400s/shoal-token-XXXXXX",
             folder && folder[0] == '/' ? folder : "/tmp");
    int file = mkstemp(deploy->token_path); /* with mode 600 */
    if (file < 0) {
        shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot make a file: %s", deploy->token_path,
                        strerror(errno));
        deploy->token_path[0] = '\0';
        return err->status;
    }
    size_t size = strlen(token);
    bool written = write(file, token, size) == (ssize_t)size && write(file, "\n", 1) == 1;
    close(file);
    return written ? SHOAL_OK
                   : shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot write: %s", deploy->token_path,
                                     strerror(errno));
}

/* ---- options ---- */

static bool has_control(const char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            return true;
    return false;
}

static ShoalStatus check_token(const ShoalDeployOptions *options, ShoalError *err) {
    bool start = options->action == SHOAL_DEPLOY_START;
    if (!options->token)
        return !start ? SHOAL_OK
                      : shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                                        "the cluster's secret is missing: give --token or set "
                                        "SHOAL_TOKEN to what the coordinator printed");
    size_t length = strlen(options->token);
    if (length < TOKEN_MIN || length > TOKEN_MAX)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "the token has %zu characters; expected %d to %d", length, TOKEN_MIN,
                               TOKEN_MAX);
    if (has_control(options->token))
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "the token holds a control character");
    return SHOAL_OK;
}

static ShoalStatus check_flags(const ShoalDeployOptions *options, ShoalError *err) {
    size_t size = 0;
    for (int i = 0; i < options->n_flags; i++) {
        size += strlen(options->flags[i]);
        if (is_flag(options->flags[i], "token"))
            return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                                   "the token is no flag for the devices, where others could see "
                                   "it: give it to deploy (SHOAL_TOKEN, --token)");
    }
    if (options->n_flags > FLAGS_MAX || size > FLAGS_SIZE_MAX)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "%d flags of %zu characters for the devices; at most %d of %d work",
                               options->n_flags, size, FLAGS_MAX, FLAGS_SIZE_MAX);
    return SHOAL_OK;
}

static ShoalStatus check(const ShoalDeployOptions *options, ShoalError *err) {
    bool start = options->action == SHOAL_DEPLOY_START;
    if (!options->adb && !options->serials && !options->hosts)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "which devices? give --adb, --serial=S or --ssh=HOST");
    if (start && !options->join == !options->discover)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "where is the coordinator? give --join=ADDR:PORT or --discover%s",
                               options->join ? ", not both" : "");
    if (options->join &&
        (strlen(options->join) > 255 || has_control(options->join) || !strchr(options->join, ':')))
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "--join: ADDR:PORT is expected");
    if (options->ssh_port < 0 || options->ssh_port > 65535)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "--ssh-port=%d: 1 to 65535 work",
                               options->ssh_port);
    ShoalStatus status = check_token(options, err);
    return status ? status : check_flags(options, err);
}

/* ---- life ---- */

static bool sends_token(const ShoalDeployOptions *options) {
    return options->action == SHOAL_DEPLOY_START || options->action == SHOAL_DEPLOY_DOCTOR;
}

static ShoalStatus open_devices(Deploy *deploy, const ShoalTargets *targets, ShoalError *err) {
    const ShoalDeployOptions *options = deploy->options;
    size_t n = (size_t)targets->n;
    deploy->devices = shoal_calloc(n, sizeof *deploy->devices);
    deploy->runs = shoal_calloc(n, sizeof *deploy->runs);
    if (!deploy->devices || !deploy->runs)
        return shoal_error_memory(err, "devices", n * sizeof *deploy->devices);
    deploy->n = deploy->left = targets->n;
    for (int i = 0; i < targets->n; i++) {
        Device *device = &deploy->devices[i];
        device->target = targets->all[i];
        device->plan.action = options->action;
        device->plan.needs_token = options->token && sends_token(options);
        device->run.in = device->run.out = device->run.err = -1;
        deploy->runs[i] = &device->run;
    }
    return SHOAL_OK;
}

ShoalStatus shoal_deploy(const ShoalDeployOptions *options, ShoalError *error) {
    ShoalStatus status = check(options, error);
    ShoalTargets targets;
    if (status || (status = shoal_targets_find(options, &targets, error)))
        return status;
    Deploy deploy = {.options = options};
    bool adb = options->adb || options->serials;
    snprintf(deploy.join_flag, sizeof deploy.join_flag, "--join=%s",
             options->join ? options->join : "");
    if (options->token && adb && sends_token(options))
        status = write_token(&deploy, options->token, error);
    if (!status)
        status = open_devices(&deploy, &targets, error);
    if (!status)
        status = loop(&deploy, error);
    for (int i = 0; i < deploy.n; i++)
        shoal_run_close(&deploy.devices[i].run);
    if (deploy.token_path[0])
        unlink(deploy.token_path);
    shoal_free(deploy.devices);
    shoal_free(deploy.runs);
    shoal_targets_close(&targets);
    return status;
}
