/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/doctor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "cli/cli.h"

enum { DEFAULT_SECONDS = 10 };

typedef struct Show {
    bool json, live, colour;
} Show;

/* A line of the live display, or of a log. */
static void show_second(const Show *show, const ShoalDoctorHeat *heat) {
    const ShoalDoctorSecond *last = &heat->seconds[heat->n_seconds - 1];
    printf("%s  %3d s  %7.1f GF/s", show->live ? "\r" : "", heat->n_seconds, last->gflops);
    if (last->temperature > 0)
        printf("  %5.1f C", last->temperature);
    if (last->battery_temperature > 0)
        printf("  battery %5.1f C", last->battery_temperature);
    if (last->clock > 0)
        printf("  clock %3.0f %%", 100 * last->clock);
    printf("%s", show->live ? "\033[K" : "\n");
}

static void on_event(void *context, const ShoalDoctorEvent *event) {
    const Show *show = context;
    char text[256];
    shoal_text_clean(event->text, false, text, sizeof text);
    if (event->kind == SHOAL_DOCTOR_SERVING) {
        printf("Link test at %s. Stop with Ctrl-C.\nOn a device:\n  SHOAL_TOKEN=%s shoal doctor "
               "--join=%s\n",
               text, event->token ? event->token : "...", text);
    } else if (event->kind == SHOAL_DOCTOR_GUEST) {
        printf("%s\n", text);
    } else if (show->json) {
        return;
    } else if (event->kind == SHOAL_DOCTOR_LOADED) {
        show_second(show, &event->report->heat);
    } else {
        printf("%s%s...%s", show->live ? "\r" : "", text, show->live ? "\033[K" : "\n");
    }
    fflush(stdout);
}

static bool is_terminal(void) {
    const char *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
}

static int examine(const ShoalDoctorOptions *options, const Show *show) {
    ShoalError error = {0};
    ShoalDoctorReport *report = calloc(1, sizeof *report);
    if (!report) {
        shoal_error_memory(&error, "a report", sizeof *report);
        return shoal_cli_fail("doctor", &error);
    }
    ShoalStatus status = shoal_doctor(options, report, &error);
    if (show->live)
        printf("\r\033[K");
    if (!status && show->json)
        shoal_doctor_print_json(report);
    else if (!status)
        shoal_doctor_print_table(report, show->colour);
    free(report);
    return status ? shoal_cli_fail("doctor", &error) : SHOAL_EXIT_OK;
}

static int serve(const ShoalDoctorOptions *options) {
    ShoalError error = {0};
    if (options->join)
        shoal_error_set(&error, SHOAL_ERR_ARGUMENT,
                        "--join and --listen exclude each other: one end measures, the other "
                        "answers");
    else
        shoal_doctor_serve(options, &error);
    return error.status ? shoal_cli_fail("doctor", &error) : SHOAL_EXIT_OK;
}

static int run(int argc, char **argv) {
    const char *no_colour = getenv("NO_COLOR");
    bool terminal = is_terminal();
    Show show = {.live = terminal, .colour = terminal && !(no_colour && no_colour[0])};
    ShoalDoctorOptions options = {.seconds = DEFAULT_SECONDS,
                                  .on_event = on_event,
                                  .context = &show,
                                  .stop = shoal_cli_catch_signals()};
    const ShoalFlag flags[] = {
        {"join", SHOAL_FLAG_TEXT, &options.join, "ADDR:PORT",
         "measure the link to this coordinator, or to a\nmachine with --listen, and to the next "
         "device that is\nexamined there; a training that runs goes on"},
        SHOAL_FLAG_TOKEN(&options.token, ""),
        {"seconds", SHOAL_FLAG_COUNT, &options.seconds, "N",
         "how long all cores are loaded to see whether they\nget too hot; 0: not at all (default "
         "10)"},
        {"listen", SHOAL_FLAG_TEXT, &options.listen, "ADDR:PORT",
         "examine nothing, but let others measure their links\nto this machine"},
        {"json", SHOAL_FLAG_SWITCH, &show.json, NULL, "one JSON object instead of a table"},
        SHOAL_FLAG_CPU(&options.cpu),
    };
    const ShoalUsage usage = {
        .command = "doctor",
        .purpose = "Examines this device: what its cores and memory do, whether it stays cool, how "
                   "its\nbattery is, what its links carry, and which settings of Android end "
                   "workers. Each\nfinding comes with a verdict (ok, warning, bad) and what to do.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .notes =
            "Examples:\n  shoal doctor --seconds=120\n  shoal doctor "
            "--listen=0.0.0.0:4711\n  SHOAL_TOKEN=... shoal doctor --join=192.168.1.10:4710\n"};
    int code = shoal_flags_parse(&usage, argc, argv, NULL);
    if (code >= 0)
        return code;
    if (!options.token)
        options.token = getenv("SHOAL_TOKEN");
    show.live = show.live && !show.json;
    return options.listen ? serve(&options) : examine(&options, &show);
}

const ShoalCommand shoal_command_doctor = {"doctor", "examine a device and its links", run};
