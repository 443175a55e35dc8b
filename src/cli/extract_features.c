/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/cli.h"

enum { WEIGHTS, MODEL, BLOBS, LMDBS, BATCHES, DB_TYPE, MODE, DEVICE, N_OPERANDS };

static ShoalStatus read_operands(const char **operands, ShoalFeaturesOptions *options,
                                 ShoalError *error) {
    char *end;
    errno = 0;
    long batches = strtol(operands[BATCHES], &end, 10);
    if (end == operands[BATCHES] || *end || errno || batches < 1 || batches > INT_MAX)
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT,
                               "NUM_BATCHES is '%s'; expected a whole number from 1",
                               operands[BATCHES]);
    const char *mode = operands[MODE] ? operands[MODE] : "CPU";
    if (strcmp(mode, "CPU") && strcmp(mode, "GPU"))
        return shoal_error_set(error, SHOAL_ERR_ARGUMENT, "'%s' is neither CPU nor GPU", mode);
    options->weights = operands[WEIGHTS];
    options->model = operands[MODEL];
    options->blobs = operands[BLOBS];
    options->lmdbs = operands[LMDBS];
    options->batches = (int)batches;
    return shoal_cli_check_backend("DB_TYPE ", operands[DB_TYPE], error);
}

static int run(int argc, char **argv) {
    const char *operands[N_OPERANDS];
    ShoalFeaturesOptions options = {0};
    const ShoalFlag flags[] = {
        {"threads", SHOAL_FLAG_COUNT, &options.engine.threads, "N",
         "threads (default: one for each of the fastest cores)"},
        SHOAL_FLAGS_CHOICE(options.choice),
        SHOAL_FLAGS_ENGINE(options.engine),
    };
    const ShoalUsage usage = {
        .command = "extract_features",
        .purpose =
            "Runs a net in phase TEST over NUM_BATCHES batches of its data and writes blobs of it "
            "into\nLMDBs, a Datum with float_data for each image, as Caffe's tool of this name "
            "does. "
            "DB_TYPE\nis lmdb; GPU is taken for CPU.",
        .operands = "WEIGHTS PROTOTXT BLOB[,BLOB...] LMDB[,LMDB...]\n"
                    "           NUM_BATCHES DB_TYPE [CPU|GPU [DEVICE_ID=N]]",
        .n_operands = N_OPERANDS,
        .n_optional = 2,
        .caffe = true,
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .notes = "Example:\n  shoal extract_features lenet_iter_10000.caffemodel "
                 "lenet_train_test.prototxt \\\n      ip1,prob ip1_lmdb,prob_lmdb 100 lmdb\n"};
    int code = shoal_flags_parse(&usage, argc, argv, operands);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    if (read_operands(operands, &options, &error))
        return shoal_cli_fail(usage.command, &error);
    if (operands[MODE] && !strcmp(operands[MODE], "GPU"))
        fprintf(stderr, "shoal extract_features: GPU is ignored\n");
    ShoalCliWatch watch;
    shoal_cli_watch_begin(&watch, usage.command);
    shoal_extract_features(&options, &watch.watch, &error);
    return shoal_cli_watch_end(&watch, &error);
}

const ShoalCommand shoal_command_extract_features = {
    "extract_features", "write blobs of a net into LMDBs, image by image", run};
