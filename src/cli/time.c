/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/error.h"
#include "cli/cli.h"

static void print_table(const ShoalTimes *times) {
    int width = 8;
    for (int i = 0; i < times->n_layers; i++) {
        int n = snprintf(NULL, 0, "%s", times->layers[i].name);
        width = n > width ? n : width;
    }
    printf("%-*s  %-16s %12s %12s %7s\n", width, "layer", "type", "forward ms", "backward ms",
           "share");
    double total = times->forward_ms + times->backward_ms;
    for (int i = 0; i < times->n_layers; i++) {
        const ShoalLayerTime *row = &times->layers[i];
        double both = row->forward_ms + row->backward_ms;
        printf("%-*s  %-16s %12.3f %12.3f %6.1f%%\n", width, row->name, row->type, row->forward_ms,
               row->backward_ms, total > 0 ? 100 * both / total : 0);
    }
    printf("\nAverage Forward pass: %.3f ms.\n", times->forward_ms);
    printf("Average Backward pass: %.3f ms.\n", times->backward_ms);
    printf("Average Forward-Backward: %.3f ms.\n", times->iteration_ms);
    printf("Images per second: %.1f (batch %d, %d iterations)\n",
           times->iteration_ms > 0 ? times->batch / times->iteration_ms * 1e3 : 0, times->batch,
           times->iterations);
    printf("Memory for weights and blobs: %.1f MB\n", (double)times->memory_bytes / 1048576);
}

static int run(int argc, char **argv) {
    ShoalTimeOptions options = {.stop = shoal_cli_catch_signals()};
    const ShoalFlag flags[] = {
        {"model", SHOAL_FLAG_TEXT, &options.model, "FILE", "the net, a prototxt (required)"},
        {"iterations", SHOAL_FLAG_COUNT, &options.iterations, "N", "passes to time (default 50)"},
        {"threads", SHOAL_FLAG_COUNT, &options.threads, "N", "threads (default: all cores)"},
        SHOAL_FLAG_CPU(&options.cpu),
    };
    const ShoalUsage usage = {
        .command = "time",
        .purpose = "Times the forward and backward pass of a net in phase TRAIN, layer by layer.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .notes = "Example:\n  shoal time --model=lenet_train_test.prototxt --iterations=100\n"};
    int code = shoal_flags_parse(&usage, argc, argv, NULL);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    ShoalTimes times;
    if (!options.model)
        shoal_error_set(&error, SHOAL_ERR_ARGUMENT, "--model=FILE is missing");
    if (error.status || shoal_time(&options, &times, &error))
        return shoal_cli_fail("time", &error);
    print_table(&times);
    shoal_times_close(&times);
    return SHOAL_EXIT_OK;
}

const ShoalCommand shoal_command_time = {"time", "time a net's passes, layer by layer", run};
