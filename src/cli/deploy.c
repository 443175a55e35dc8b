/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"
#include "shoal/deploy.h"

enum { NAME_WIDTH = 24, MODEL_WIDTH = 18, ABI_WIDTH = 8, BAR_WIDTH = 32 };

/* One that is under way, for the live table. */
typedef struct Row {
    bool active;
    char name[64], model[64], abi[16], text[96];
    int step, steps;
} Row;

typedef struct Screen {
    ShoalDeployAction action;
    bool json, terminal, colour;
    bool titled;
    int lines; /* live ones above the cursor */
    Row *rows;
    int n, done, failed;
} Screen;

/* ---- words ---- */

static const char *state_name(ShoalDeployState state) {
    static const char *const NAMES[] = {
        [SHOAL_DEPLOYING] = "working",      [SHOAL_DEPLOYED] = "started",
        [SHOAL_DEPLOY_RUNS] = "runs",       [SHOAL_DEPLOY_IDLE] = "idle",
        [SHOAL_DEPLOY_STOPPED] = "stopped", [SHOAL_DEPLOY_TOLD] = "ok",
        [SHOAL_DEPLOY_SAME] = "same",       [SHOAL_DEPLOY_FAILED] = "failed"};
    return NAMES[state];
}

static const char *colour_of(const char *word) {
    if (!strcmp(word, "failed") || !strcmp(word, "bad"))
        return "31";
    if (!strcmp(word, "warning") || !strcmp(word, "idle") || !strcmp(word, "same"))
        return "33";
    return "32";
}

/* Text of others in so many columns. */
static void put_cell(const char *text, int width) {
    char clean[128];
    shoal_text_clean(text, false, clean, sizeof clean);
    const char *end = clean;
    for (; *end && width > 0; width--) /* a character is a byte and those that continue it */
        do
            end++;
        while ((*end & 0xc0) == 0x80);
    printf("%.*s%*s ", (int)(end - clean), clean, width, "");
}

static void put_coloured(const Screen *screen, const char *word, int width) {
    if (screen->colour)
        printf("\033[%sm", colour_of(word));
    put_cell(word, width);
    if (screen->colour)
        printf("\033[0m");
}

static void put_text(const char *text, bool lines) {
    size_t size = strlen(text) + 1;
    char *clean = malloc(size);
    if (!clean)
        return;
    shoal_text_clean(text, lines, clean, size);
    fputs(clean, stdout);
    free(clean);
}

/* ---- what a doctor said ---- */

static const char *string_in(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* Its report: what lies between the first { and the end; anything else is NULL. */
static json_t *parse_report(const char *output) {
    const char *begin = strchr(output, '{');
    json_t *report = begin ? json_loads(begin, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    if (json_is_object(report))
        return report;
    json_decref(report);
    return NULL;
}

static const char *verdict_of(const json_t *report) {
    static const char *const VERDICTS[] = {"ok", "warning", "bad"};
    const char *verdict = string_in(report, "verdict");
    for (int i = 0; i < 3; i++)
        if (!strcmp(verdict, VERDICTS[i]))
            return VERDICTS[i];
    return "unknown";
}

static void print_findings(const Screen *screen, const json_t *report) {
    const json_t *findings = json_object_get(report, "findings");
    for (size_t i = 0; i < json_array_size(findings); i++) {
        const json_t *finding = json_array_get(findings, i);
        const char *verdict = verdict_of(finding), *fix = string_in(finding, "fix");
        if (!strcmp(verdict, "ok"))
            continue;
        printf("    ");
        put_coloured(screen, verdict, 7);
        put_text(string_in(finding, "what"), false);
        printf(": ");
        put_text(string_in(finding, "text"), false);
        if (fix[0]) {
            printf("\n            fix: ");
            put_text(fix, false);
        }
        printf("\n");
    }
}

/* ---- lines that stay ---- */

static void print_output(const char *output) {
    for (const char *line = output; *line;) {
        int length = (int)strcspn(line, "\n");
        char *copy = strndup(line, (size_t)length);
        printf("    ");
        put_text(copy ? copy : "", false);
        printf("\n");
        free(copy);
        line += length + (line[length] == '\n');
    }
}

static void print_title(Screen *screen) {
    if (screen->titled)
        return;
    screen->titled = true;
    bool doctor = screen->action == SHOAL_DEPLOY_DOCTOR;
    put_cell("device", NAME_WIDTH);
    put_cell("model", MODEL_WIDTH);
    put_cell("abi", ABI_WIDTH);
    printf("%s\n", doctor ? "verdict" : "result");
}

static void print_result(Screen *screen, const ShoalDeployEvent *event) {
    bool doctor = screen->action == SHOAL_DEPLOY_DOCTOR && event->state == SHOAL_DEPLOY_TOLD;
    json_t *report = doctor ? parse_report(event->output) : NULL;
    print_title(screen);
    put_cell(event->device, NAME_WIDTH);
    put_cell(event->model, MODEL_WIDTH);
    put_cell(event->abi, ABI_WIDTH);
    put_coloured(screen, doctor ? verdict_of(report) : state_name(event->state), 7);
    put_text(event->text, false);
    if (event->pid)
        printf(" (pid %d)", event->pid);
    printf("\n");
    if (report)
        print_findings(screen, report);
    else if (event->output)
        print_output(event->output);
    json_decref(report);
}

/* ---- the live table ---- */

static void clear_live(Screen *screen) {
    if (screen->lines)
        printf("\033[%dA\r\033[J", screen->lines);
    screen->lines = 0;
}

static void draw_row(const Row *row) {
    put_cell(row->name, NAME_WIDTH);
    put_cell(row->model, MODEL_WIDTH);
    put_cell(row->abi, ABI_WIDTH);
    printf("%d/%d %s\n", row->step, row->steps, row->text);
}

/* Those that are under way, as far as the window goes, and how many are done. */
static void draw_live(Screen *screen) {
    struct winsize window;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_row > 0;
    int room = (known ? window.ws_row : 24) - 2, hidden = 0;
    clear_live(screen);
    fputs("\033[?7l", stdout); /* a line that is too long is cut, not wrapped */
    for (int i = 0; i < screen->n; i++) {
        if (!screen->rows[i].active)
            continue;
        if (screen->lines + 1 >= room) {
            hidden++;
            continue;
        }
        draw_row(&screen->rows[i]);
        screen->lines++;
    }
    int full = screen->n ? screen->done * BAR_WIDTH / screen->n : 0;
    for (int i = 0; i < BAR_WIDTH; i++)
        fputs(i < full ? "█" : "░", stdout);
    printf(" %d/%d done", screen->done, screen->n);
    if (screen->failed)
        printf(", %d failed", screen->failed);
    if (hidden)
        printf(", %d more under way", hidden);
    printf("\033[?7h\n");
    screen->lines++;
    fflush(stdout);
}

static void keep_row(Screen *screen, const ShoalDeployEvent *event) {
    Row *row = &screen->rows[event->index];
    row->active = event->state == SHOAL_DEPLOYING;
    shoal_text_clean(event->device, false, row->name, sizeof row->name);
    shoal_text_clean(event->model, false, row->model, sizeof row->model);
    shoal_text_clean(event->abi, false, row->abi, sizeof row->abi);
    shoal_text_clean(event->text, false, row->text, sizeof row->text);
    row->step = event->step;
    row->steps = event->steps;
}

/* ---- JSON ---- */

/* Text of others as JSON wants it: what is no UTF-8 is replaced. */
static void set_text(json_t *object, const char *key, const char *text) {
    size_t size = strlen(text) + 1;
    char *clean = malloc(size);
    if (clean)
        shoal_text_clean(text, true, clean, size);
    json_object_set_new(object, key, json_string(clean ? clean : ""));
    free(clean);
}

static void print_json(const Screen *screen, const ShoalDeployEvent *event) {
    json_t *object = json_object();
    set_text(object, "device", event->device);
    set_text(object, "transport", event->transport);
    set_text(object, "model", event->model);
    set_text(object, "abi", event->abi);
    set_text(object, "state", state_name(event->state));
    if (event->pid)
        json_object_set_new(object, "pid", json_integer(event->pid));
    set_text(object, "text", event->text);
    if (event->output && screen->action == SHOAL_DEPLOY_DOCTOR) {
        json_t *report = parse_report(event->output);
        set_text(object, "verdict", verdict_of(report));
        json_object_set_new(object, "report", report ? report : json_null());
    } else if (event->output) {
        set_text(object, "output", event->output);
    }
    char *line = json_dumps(object, JSON_COMPACT);
    if (line)
        puts(line);
    free(line);
    fflush(stdout);
    json_decref(object);
}

/* ---- events ---- */

static void on_event(void *context, const ShoalDeployEvent *event) {
    Screen *screen = context;
    bool ended = event->state != SHOAL_DEPLOYING;
    if (!screen->rows && (screen->rows = calloc((size_t)event->n_devices, sizeof *screen->rows)))
        screen->n = event->n_devices;
    screen->done += ended;
    screen->failed += event->state == SHOAL_DEPLOY_FAILED;
    if (screen->json) {
        if (ended)
            print_json(screen, event);
        return;
    }
    if (!screen->terminal) {
        if (ended)
            print_result(screen, event);
        fflush(stdout);
        return;
    }
    if (screen->rows)
        keep_row(screen, event);
    if (ended) {
        clear_live(screen);
        print_result(screen, event);
    }
    if (screen->done < screen->n)
        draw_live(screen);
    fflush(stdout);
}

/* ---- the command ---- */

typedef struct Actions {
    bool stop, status, doctor;
    ShoalOptionalText logs;
} Actions;

static ShoalStatus usage_problem(ShoalError *error, const char *text) {
    error->status = SHOAL_ERR_ARGUMENT;
    snprintf(error->text, sizeof error->text, "%s", text);
    return error->status;
}

static ShoalStatus choose_action(const Actions *actions, ShoalDeployOptions *options,
                                 ShoalError *error) {
    if (actions->stop + actions->status + actions->doctor + actions->logs.given > 1)
        return usage_problem(error, "give one of --stop, --status, --logs and --doctor");
    if (actions->stop)
        options->action = SHOAL_DEPLOY_STOP;
    if (actions->status)
        options->action = SHOAL_DEPLOY_STATUS;
    if (actions->doctor)
        options->action = SHOAL_DEPLOY_DOCTOR;
    if (!actions->logs.given)
        return SHOAL_OK;
    options->action = SHOAL_DEPLOY_LOGS;
    if (!actions->logs.text)
        return SHOAL_OK;
    char *end;
    long lines = strtol(actions->logs.text, &end, 10);
    if (*end || end == actions->logs.text || lines < 1 || lines > 100000)
        return usage_problem(error, "--logs=LINES: 1 to 100000 work");
    options->log_lines = (int)lines;
    return SHOAL_OK;
}

static bool is_live(bool json) {
    const char *term = getenv("TERM");
    return !json && isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
}

static int deploy(ShoalDeployOptions *options, const Actions *actions, bool json) {
    ShoalError error = {0};
    const char *no_colour = getenv("NO_COLOR");
    Screen screen = {.json = json, .terminal = is_live(json)};
    screen.colour = screen.terminal && !(no_colour && no_colour[0]);
    if (!options->token)
        options->token = getenv("SHOAL_TOKEN");
    if (options->token && !options->token[0])
        options->token = NULL;
    options->on_event = on_event;
    options->context = &screen;
    if (!choose_action(actions, options, &error)) {
        screen.action = options->action;
        shoal_deploy(options, &error);
    }
    free(screen.rows);
    if (error.status == SHOAL_ERR_STOPPED) { /* not all of it was done */
        shoal_cli_fail("deploy", &error);
        return SHOAL_EXIT_FAILURE;
    }
    return error.status ? shoal_cli_fail("deploy", &error) : SHOAL_EXIT_OK;
}

static int run(int argc, char **argv) {
    bool json = false, adb = false, discover = false;
    Actions actions = {0};
    int own = argc; /* arguments before "--" */
    for (int i = argc - 1; i > 0; i--)
        if (!strcmp(argv[i], "--"))
            own = i;
    ShoalDeployOptions options = {.stop = shoal_cli_catch_signals(),
                                  .flags = (const char *const *)argv + own + 1,
                                  .n_flags = argc > own ? argc - own - 1 : 0};
    const ShoalFlag flags[] = {
        {"adb", SHOAL_FLAG_SWITCH, &adb, NULL,
         "all devices that `adb devices` shows, attached by USB\nor with `adb connect`"},
        {"serial", SHOAL_FLAG_TEXT, &options.serials, "S[,S...]",
         "these of adb's devices, by their serial numbers"},
        {"ssh", SHOAL_FLAG_TEXT, &options.hosts, "HOSTS",
         "[USER@]HOST[:PORT],... or @FILE with one a line; your\nkeys and settings of OpenSSH are "
         "used, no password"},
        {"ssh-port", SHOAL_FLAG_COUNT, &options.ssh_port, "N",
         "of hosts without one (Termux: 8022; default: what\nssh's configuration says)"},
        {"join", SHOAL_FLAG_TEXT, &options.join, "ADDR:PORT",
         "the coordinator, as the devices reach it; or"},
        {"discover", SHOAL_FLAG_SWITCH, &discover, NULL,
         "let the workers look for it on the local network"},
        SHOAL_FLAG_TOKEN(&options.token, ".\nOn the devices it is in a file that only "
                                         "their\nworker's user can read"),
        {"binaries", SHOAL_FLAG_TEXT, &options.binaries, "DIR",
         "folder with shoal-aarch64 and shoal-x86_64, as `make\nphone` makes them (default: "
         "phone/ beside this\nprogram, else ../lib/shoal/phone)"},
        {"stop", SHOAL_FLAG_SWITCH, &actions.stop, NULL, "stop the workers there"},
        {"status", SHOAL_FLAG_SWITCH, &actions.status, NULL, "tell whether they run"},
        {"logs", SHOAL_FLAG_OPTIONAL, &actions.logs, "LINES",
         "show the last lines that they wrote (default 20)"},
        {"doctor", SHOAL_FLAG_SWITCH, &actions.doctor, NULL,
         "run `shoal doctor` on all of them at the same time"},
        {"parallel", SHOAL_FLAG_COUNT, &options.parallel, "N",
         "devices at a time; those that take long do not count\n(default 32)"},
        {"timeout", SHOAL_FLAG_COUNT, &options.timeout_s, "SECONDS",
         "for each step on a device (default: what suits the\nstep, 30 to 600)"},
        {"json", SHOAL_FLAG_SWITCH, &json, NULL, "one JSON object a line and device"},
    };
    const ShoalUsage usage = {
        .command = "deploy",
        .purpose =
            "Brings workers onto phones and boards, through adb or ssh, on all of them in "
            "parallel.\nThe binary is sent where it differs. A worker that runs with the same "
            "binary, flags\nand token is left alone; else it is started anew. It goes on when the "
            "cable is\nunplugged, as long as the device reaches the coordinator.\n"
            "What follows -- are flags for `shoal worker` (or, with --doctor, `shoal doctor`).",
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .notes = "Examples:\n"
                 "  SHOAL_TOKEN=... shoal deploy --adb --join=192.168.1.10:4710\n"
                 "  SHOAL_TOKEN=... shoal deploy --ssh=@phones --ssh-port=8022 "
                 "--join=192.168.1.10:4710 \\\n"
                 "                  -- --threads=4\n"
                 "  shoal deploy --adb --status\n"
                 "  shoal deploy --adb --doctor -- --seconds=30\n"};
    int code = shoal_flags_parse(&usage, own, argv, NULL);
    if (code >= 0)
        return code;
    options.adb = adb;
    options.discover = discover;
    return deploy(&options, &actions, json);
}

const ShoalCommand shoal_command_deploy = {"deploy", "bring workers onto phones and boards", run};
