/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/error.h"
#include "cli/cli.h"

typedef struct Views {
    ShoalScreen *screen;
    ShoalJsonLog *log;
} Views;

static void on_event(void *context, const ShoalEvent *event) {
    Views *views = context;
    shoal_screen_show(views->screen, event);
    shoal_json_log_event(views->log, event);
}

static ShoalStatus train(ShoalTrainOptions *options, const char *log_json, ShoalError *error) {
    Views views = {.screen = shoal_screen_create()};
    if (!views.screen)
        return shoal_error_memory(error, "the screen", 0);
    ShoalStatus status = SHOAL_OK;
    if (log_json)
        status = shoal_json_log_open(log_json, &views.log, error);
    options->on_event = on_event;
    options->context = &views;
    if (!status)
        status = shoal_train(options, error);
    ShoalError log_error = {0};
    shoal_json_log_close(views.log, &log_error);
    if (!status && log_error.status)
        status = shoal_error_set(error, log_error.status, "%s", log_error.text);
    shoal_screen_destroy(views.screen);
    return status;
}

static int run(int argc, char **argv) {
    ShoalTrainOptions options = {.stop = shoal_cli_catch_signals()};
    const char *log_json = NULL, *resume = NULL;
    const ShoalFlag flags[] = {
        {"solver", SHOAL_FLAG_TEXT, &options.solver, "FILE", "the solver, a prototxt (required)"},
        {"weights", SHOAL_FLAG_TEXT, &options.weights, "FILE[,FILE...]",
         "start from the weights of .caffemodel files"},
        {"snapshot", SHOAL_FLAG_TEXT, &options.snapshot, "FILE",
         "go on from a .solverstate; the samples start from\nthe first record again, as in Caffe"},
        {"resume", SHOAL_FLAG_TEXT, &resume, "FILE",
         "go on from a .solverstate as if the run had never\nstopped: the samples go on, too"},
        {"workers", SHOAL_FLAG_COUNT, &options.workers, "N",
         "train with a coordinator and N worker processes\n(default: train in this process)"},
        {"listen", SHOAL_FLAG_TEXT, &options.listen, "ADDR:PORT",
         "wait there for N workers that other machines start\nwith `shoal worker "
         "--join=ADDR:PORT`"},
        {"token", SHOAL_FLAG_TEXT, &options.token, "TEXT",
         "the secret that workers must know, 16 characters or\nmore (default: SHOAL_TOKEN, else a "
         "new one)"},
        {"threads", SHOAL_FLAG_COUNT, &options.engine.threads, "N",
         "threads per process (default: one for each of the\nfastest cores; with own workers: its "
         "part of all)"},
        SHOAL_FLAGS_ENGINE(options.engine),
        {"check_interval", SHOAL_FLAG_COUNT, &options.hash_interval, "N",
         "compare the workers' weights every N iterations\n(default 100)"},
        {"heartbeat_timeout", SHOAL_FLAG_COUNT, &options.heartbeat_timeout_ms, "MS",
         "milliseconds of silence after which a worker is\nlost (default 10000; workers speak "
         "every 500)"},
        {"log-json", SHOAL_FLAG_TEXT, &log_json, "FILE", "write events, one JSON object a line"},
    };
    const ShoalUsage usage = {
        .command = "train",
        .purpose = "Trains a net as a Caffe solver file says. Paths in the files are relative to "
                   "the\nworking folder, as in Caffe. Ctrl-C (or SIGTERM) writes a snapshot and "
                   "stops,\nSIGHUP writes a snapshot and goes on.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .notes = "Examples:\n"
                 "  shoal train --solver=lenet_solver.prototxt\n"
                 "  shoal train --solver=lenet_solver.prototxt --workers=4\n"
                 "  shoal train --solver=lenet_solver.prototxt --workers=8 --listen=0.0.0.0:4710\n"
                 "  shoal train --solver=lenet_solver.prototxt "
                 "--resume=lenet_iter_5000.solverstate\n"};
    int code = shoal_flags_parse(&usage, argc, argv, NULL);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    if (resume && options.snapshot)
        shoal_error_set(&error, SHOAL_ERR_ARGUMENT, "give --snapshot or --resume, not both");
    else if (!options.solver)
        shoal_error_set(&error, SHOAL_ERR_ARGUMENT, "--solver=FILE is missing");
    if (error.status)
        return shoal_cli_fail("train", &error);
    if (resume) {
        options.snapshot = resume;
        options.resume = 1;
    }
    if (!options.token)
        options.token = getenv("SHOAL_TOKEN");
    return train(&options, log_json, &error) ? shoal_cli_fail("train", &error) : SHOAL_EXIT_OK;
}

const ShoalCommand shoal_command_train = {"train", "train a net, here or on a cluster", run};
