/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "cli/cli.h"

static void on_event(void *context, const ShoalEvent *event) {
    *(bool *)context = true; /* the first event is that it has joined */
    if (event->text) {
        printf("%s\n", event->text);
        fflush(stdout);
    }
}

static int run(int argc, char **argv) {
    bool joined = false;
    ShoalWorkerOptions options = {
        .stop = shoal_cli_catch_signals(), .on_event = on_event, .context = &joined};
    const ShoalFlag flags[] = {
        {"join", SHOAL_FLAG_TEXT, &options.join, "ADDR:PORT", "the coordinator (required)"},
        {"token", SHOAL_FLAG_TEXT, &options.token, "TEXT",
         "the cluster's secret (default: SHOAL_TOKEN); other\nusers of this machine can see it on "
         "a command line"},
        {"threads", SHOAL_FLAG_COUNT, &options.engine.threads, "N",
         "threads (default: one for each of the fastest cores)"},
        SHOAL_FLAGS_ENGINE(options.engine),
    };
    const ShoalUsage usage = {
        .command = "worker",
        .purpose = "Joins a coordinator (`shoal train --listen=...`) and works until the training "
                   "ends.\nA worker needs no files: net, solver and samples come from the "
                   "coordinator.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .notes = "Example:\n  SHOAL_TOKEN=... shoal worker --join=192.168.1.10:4710\n"};
    int code = shoal_flags_parse(&usage, argc, argv, NULL);
    if (code >= 0)
        return code;
    if (!options.token)
        options.token = getenv("SHOAL_TOKEN");
    ShoalError error = {0};
    if (!options.join)
        shoal_error_set(&error, SHOAL_ERR_ARGUMENT, "--join=ADDR:PORT is missing");
    else if (!options.token)
        shoal_error_set(&error, SHOAL_ERR_ARGUMENT,
                        "the cluster's secret is missing: give --token or set SHOAL_TOKEN to what "
                        "the coordinator printed");
    if (!error.status)
        shoal_worker(&options, &error);
    /* The coordinator that started this worker knows of the failure, and tells it once. */
    if (error.status && joined && getenv("SHOAL_OWN_WORKER"))
        return SHOAL_EXIT_FAILURE;
    return error.status ? shoal_cli_fail("worker", &error) : SHOAL_EXIT_OK;
}

const ShoalCommand shoal_command_worker = {"worker", "join a coordinator and work for it", run};
