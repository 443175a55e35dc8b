/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

static int run(int argc, char **argv) {
    const char *operands[3], *backend = "lmdb";
    const ShoalFlag flags[] = {SHOAL_FLAG_BACKEND(&backend)};
    const ShoalUsage usage = {
        .command = "convert_mnist_data",
        .purpose = "Converts MNIST's idx files into an LMDB that `Data` layers read, byte for byte "
                   "as\nCaffe's tool of this name does.",
        .operands = "IMAGES LABELS LMDB",
        .n_operands = 3,
        .caffe = true,
        .flags = flags,
        .n_flags = 1,
        .notes = "Example:\n  shoal convert_mnist_data train-images-idx3-ubyte "
                 "train-labels-idx1-ubyte mnist_train_lmdb\n"};
    int code = shoal_flags_parse(&usage, argc, argv, operands);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    if (shoal_cli_check_backend("--backend=", backend, &error))
        return shoal_cli_fail(usage.command, &error);
    ShoalCliWatch watch;
    shoal_cli_watch_begin(&watch, usage.command);
    shoal_convert_mnist(operands[0], operands[1], operands[2], &watch.watch, &error);
    return shoal_cli_watch_end(&watch, &error);
}

const ShoalCommand shoal_command_convert_mnist_data = {
    "convert_mnist_data", "convert MNIST's idx files into an LMDB", run};
