/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

static const ShoalCommand *const COMMANDS[] = {
    &shoal_command_train,
    &shoal_command_worker,
    &shoal_command_deploy,
    &shoal_command_doctor,
    &shoal_command_test,
    &shoal_command_time,
    &shoal_command_init,
    &shoal_command_convert_imageset,
    &shoal_command_convert_mnist_data,
    &shoal_command_convert_cifar_data,
    &shoal_command_compute_image_mean,
    &shoal_command_extract_features,
    &shoal_command_upgrade_net_proto_text,
    &shoal_command_upgrade_net_proto_binary,
    &shoal_command_upgrade_solver_proto_text,
    &shoal_command_device_query,
    &shoal_command_version,
};

enum { N_COMMANDS = sizeof COMMANDS / sizeof COMMANDS[0] };

static void print_manual(FILE *to) {
    fprintf(to,
            "usage: shoal COMMAND [flags]\n\n"
            "Trains deep neural networks from Caffe's files, in one process or on a cluster of\n"
            "phones, boards and machines.\n\nCommands:\n");
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-26s %s\n", COMMANDS[i]->name, COMMANDS[i]->summary);
    fprintf(
        to,
        "\n`shoal COMMAND --help` is the manual of a command.\n\n"
        "Examples:\n"
        "  shoal train --solver=lenet_solver.prototxt\n"
        "  shoal train --solver=lenet_solver.prototxt --workers=4\n"
        "  shoal deploy --adb --join=192.168.1.10:4710\n"
        "  shoal test --model=lenet_train_test.prototxt --weights=lenet_iter_10000.caffemodel \\\n"
        "             --iterations=100\n\n"
        "Environment:\n"
        "  SHOAL_TOKEN  the cluster's secret, where --token is not given\n"
        "  SHOAL_CPU    level of the kernels (c, avx2, avx512, neon) instead of the best one\n"
        "  NO_COLOR     no colours, even on a terminal\n\n"
        "Exit codes: 0 all went well, or stopped on request; 1 the run failed; 2 wrong\n"
        "usage.\n");
}

int main(int argc, char **argv) {
    if (argc < 2) {
        print_manual(stderr);
        return SHOAL_EXIT_USAGE;
    }
    const char *name = argv[1];
    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        print_manual(stdout);
        return SHOAL_EXIT_OK;
    }
    if (!strcmp(name, "--version"))
        name = "version";
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(name, COMMANDS[i]->name))
            return COMMANDS[i]->run(argc - 1, argv + 1);
    fprintf(stderr, "shoal: unknown command: %s; see: shoal --help\n", name);
    return SHOAL_EXIT_USAGE;
}
