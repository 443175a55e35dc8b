/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

static int run(int argc, char **argv) {
    const char *operands[3];
    const ShoalUsage usage = {
        .command = "convert_cifar_data",
        .purpose = "Converts the binary version of CIFAR-10, data_batch_1.bin to data_batch_5.bin "
                   "and\ntest_batch.bin in INPUT_FOLDER, into cifar10_train_lmdb and "
                   "cifar10_test_lmdb in\nOUTPUT_FOLDER, as Caffe's tool of this name does. "
                   "DB_TYPE is lmdb.",
        .operands = "INPUT_FOLDER OUTPUT_FOLDER DB_TYPE",
        .n_operands = 3,
        .caffe = true,
        .notes = "Example:\n  shoal convert_cifar_data cifar-10-batches-bin . lmdb\n"};
    int code = shoal_flags_parse(&usage, argc, argv, operands);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    if (shoal_cli_check_backend("DB_TYPE ", operands[2], &error))
        return shoal_cli_fail(usage.command, &error);
    ShoalCliWatch watch;
    shoal_cli_watch_begin(&watch, usage.command);
    shoal_convert_cifar(operands[0], operands[1], &watch.watch, &error);
    return shoal_cli_watch_end(&watch, &error);
}

const ShoalCommand shoal_command_convert_cifar_data = {"convert_cifar_data",
                                                       "convert CIFAR-10 into two LMDBs", run};
