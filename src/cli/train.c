/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

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
    int expected = options->workers > 0 ? options->workers : options->listen ? 1 : 0;
    /* mpirun gives a terminal to processes whose output goes to a file. */
    bool plain = options->collective && !strcmp(options->collective, "mpi");
    Views views = {.screen = shoal_screen_create(expected, plain)};
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

/* Fills what flags do not say directly. */
static ShoalStatus complete(ShoalTrainOptions *options, const ShoalOptionalText *resume,
                            ShoalError *error) {
    if (resume->given && options->snapshot)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT, "give --snapshot or --resume, not both");
    if (!options->solver)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT, "--solver=FILE is missing");
    if (resume->given && !resume->text && options->workers == 0 && !options->listen)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT,
                               "--resume without a file goes on from what workers hold: give "
                               "--resume=FILE, or --listen=ADDR:PORT and --workers=N");
    if (resume->given) {
        options->snapshot = resume->text;
        options->resume = 1;
    }
    if (!options->token)
        options->token = getenv("SHOAL_TOKEN");
    return SHOAL_OK;
}

static int run(int argc, char **argv) {
    ShoalTrainOptions options = {.stop = shoal_cli_catch_signals()};
    ShoalOptionalText resume = {0};
    const char *log_json = NULL, *decode = NULL, *sigint = NULL, *sighup = NULL;
    bool encrypt = false;
    const ShoalFlag flags[] = {
        {"solver", SHOAL_FLAG_TEXT, &options.solver, "FILE", "the solver, a prototxt (required)"},
        {"weights", SHOAL_FLAG_TEXT, &options.weights, "FILE[,FILE...]",
         "start from the weights of .caffemodel files"},
        {"snapshot", SHOAL_FLAG_TEXT, &options.snapshot, "FILE",
         "go on from a .solverstate; the samples start from\nthe first record again, as in Caffe"},
        {"resume", SHOAL_FLAG_OPTIONAL, &resume, "FILE",
         "go on from a .solverstate as if the run had never\nstopped: the samples go on, too. "
         "Without a file: from\nwhat workers hold that have lost their coordinator"},
        {"workers", SHOAL_FLAG_COUNT, &options.workers, "N",
         "train with a coordinator and N worker processes\n(default: train in this process)"},
        {"min-workers", SHOAL_FLAG_COUNT, &options.min_workers, "N",
         "pause while fewer workers are left (default 1)"},
        {"max-failures-per-hour", SHOAL_FLAG_COUNT, &options.max_failures_per_hour, "N",
         "a worker that is lost more often has to stay away\nfor a while (default: any number)"},
        {"listen", SHOAL_FLAG_TEXT, &options.listen, "ADDR:PORT",
         "wait there for N workers that other machines start\nwith `shoal worker "
         "--join=ADDR:PORT`; more may come"},
        {"announce", SHOAL_FLAG_TEXT, &options.announce, "on|off",
         "on: answer workers that look for a coordinator with\n--discover (default: on when others "
         "than this machine\ncan reach --listen)"},
        {"token", SHOAL_FLAG_TEXT, &options.token, "TEXT",
         "the secret that workers must know, 16 characters or\nmore (default: SHOAL_TOKEN, else a "
         "new one)"},
        {"encrypt", SHOAL_FLAG_SWITCH, &encrypt, NULL,
         "encrypt gradients and samples, too; control\nmessages always are"},
        {"balance", SHOAL_FLAG_TEXT, &options.balance, "on|off",
         "on: who is faster gets more of each batch; off: equal\nshares, so that a run can be "
         "repeated to the bit\n(default: on with --listen)"},
        {"collective", SHOAL_FLAG_TEXT, &options.collective, "ring|mpi",
         "who sums the gradients: a ring of TCP connections\n(default), or MPI, with `mpirun -n N "
         "shoal train ...`"},
        {"wire", SHOAL_FLAG_TEXT, &options.wire, "fp32|fp16|bf16",
         "how gradients travel (default fp32); with 16 bits,\nwhat rounding leaves is added to the "
         "next gradient"},
        {"shuffle", SHOAL_FLAG_TEXT, &options.shuffle, "ORDER",
         "none: the records as they are (default); global:\nanother order each epoch; shard: "
         "within parts that\nstay with their workers, which keep what they got"},
        {"threads", SHOAL_FLAG_COUNT, &options.engine.threads, "N",
         "threads per process (default: one for each of the\nfastest cores; with own workers: its "
         "part of all)"},
        SHOAL_FLAGS_ENGINE(options.engine),
        {"check_interval", SHOAL_FLAG_COUNT, &options.hash_interval, "N",
         "compare the workers' weights every N iterations\n(default 100)"},
        {"heartbeat_timeout", SHOAL_FLAG_COUNT, &options.heartbeat_timeout_ms, "MS",
         "milliseconds of silence after which a worker is\nlost (default 1000; with own workers "
         "10000)"},
        {"stall-timeout", SHOAL_FLAG_COUNT, &options.stall_timeout_ms, "MS",
         "milliseconds without progress after which a worker\nis lost, though it is not silent "
         "(default 30000)"},
        SHOAL_FLAGS_CHOICE(options.choice),
        {"decode", SHOAL_FLAG_TEXT, &decode, "exact|fast",
         "fast: JPEGs that are made smaller are decoded smaller;\nquicker, but not the same pixels "
         "(default: exact)"},
        {"sigint_effect", SHOAL_FLAG_TEXT, &sigint, "EFFECT",
         "of Ctrl-C and SIGTERM: stop (default), snapshot, none"},
        {"sighup_effect", SHOAL_FLAG_TEXT, &sighup, "EFFECT",
         "of SIGHUP: stop, snapshot (default), none"},
        {"log-json", SHOAL_FLAG_TEXT, &log_json, "FILE", "write events, one JSON object a line"},
    };
    const ShoalUsage usage = {
        .command = "train",
        .purpose = "Trains a net as a Caffe solver file says. Paths in the files are relative to "
                   "the\nworking folder, as in Caffe. Ctrl-C (or SIGTERM) writes a snapshot and "
                   "stops,\nSIGHUP writes a snapshot and goes on.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .caffe = true,
        .notes = "Examples:\n"
                 "  shoal train --solver=lenet_solver.prototxt\n"
                 "  shoal train --solver=lenet_solver.prototxt --workers=4\n"
                 "  shoal train --solver=lenet_solver.prototxt --workers=8 --listen=0.0.0.0:4710\n"
                 "  shoal train --solver=lenet_solver.prototxt "
                 "--resume=lenet_iter_5000.solverstate\n"
                 "  mpirun -n 8 shoal train --solver=lenet_solver.prototxt --collective=mpi\n"};
    int code = shoal_flags_parse(&usage, argc, argv, NULL);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    options.encrypt = encrypt;
    options.fast_decode = decode && !strcmp(decode, "fast");
    if (decode && !options.fast_decode && strcmp(decode, "exact"))
        shoal_error_set(&error, SHOAL_ERR_ARGUMENT, "--decode is '%s'; there are exact and fast",
                        decode);
    if (error.status || shoal_cli_signal_effects(sigint, sighup, &error) ||
        complete(&options, &resume, &error))
        return shoal_cli_fail("train", &error);
    return train(&options, log_json, &error) ? shoal_cli_fail("train", &error) : SHOAL_EXIT_OK;
}

const ShoalCommand shoal_command_train = {"train", "train a net, here or on a cluster", run};
