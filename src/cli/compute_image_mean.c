/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"

static void print_mean(const ShoalMean *mean) {
    printf("Number of channels: %d\n", mean->channels);
    for (int c = 0; c < mean->channels; c++)
        printf("mean_value channel [%d]: %g\n", c, (double)mean->values[c]);
}

static int run(int argc, char **argv) {
    const char *operands[2], *backend = "lmdb";
    const ShoalFlag flags[] = {SHOAL_FLAG_BACKEND(&backend)};
    const ShoalUsage usage = {
        .command = "compute_image_mean",
        .purpose = "Prints the mean of each channel of all images in an LMDB, and writes the mean "
                   "image to\nOUTPUT_FILE, for transform_param's mean_value and mean_file, as "
                   "Caffe's tool of this\nname does. All images must have one size.",
        .operands = "INPUT_LMDB [OUTPUT_FILE]",
        .n_operands = 2,
        .n_optional = 1,
        .caffe = true,
        .flags = flags,
        .n_flags = 1,
        .notes = "Example:\n  shoal compute_image_mean train_lmdb mean.binaryproto\n"};
    int code = shoal_flags_parse(&usage, argc, argv, operands);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    if (shoal_cli_check_backend("--backend=", backend, &error))
        return shoal_cli_fail(usage.command, &error);
    ShoalMean mean = {0};
    ShoalCliWatch watch;
    shoal_cli_watch_begin(&watch, usage.command);
    shoal_compute_mean(operands[0], operands[1], &watch.watch, &mean, &error);
    code = shoal_cli_watch_end(&watch, &error);
    if (code == SHOAL_EXIT_OK)
        print_mean(&mean);
    shoal_mean_close(&mean);
    return code;
}

const ShoalCommand shoal_command_compute_image_mean = {"compute_image_mean",
                                                       "compute the mean image of an LMDB", run};
