/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"

static int run(int argc, char **argv, const char *command, const char *purpose,
               ShoalUpgradeKind kind) {
    const char *operands[2];
    const ShoalUsage usage = {.command = command,
                              .purpose = purpose,
                              .operands = "INPUT OUTPUT",
                              .n_operands = 2,
                              .caffe = true};
    int code = shoal_flags_parse(&usage, argc, argv, operands);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    int current;
    if (shoal_upgrade(kind, operands[0], operands[1], &current, &error))
        return shoal_cli_fail(command, &error);
    if (current)
        fprintf(stderr, "shoal %s: File already in latest proto format: %s\n", command,
                operands[0]);
    return SHOAL_EXIT_OK;
}

static int run_net_text(int argc, char **argv) {
    return run(argc, argv, "upgrade_net_proto_text",
               "Brings a net (prototxt) of an older Caffe into today's form, as Caffe's tool of "
               "this name\ndoes. What is in today's form already is written, too. Comments are "
               "lost.",
               SHOAL_UPGRADE_NET_TEXT);
}

static int run_net_binary(int argc, char **argv) {
    return run(argc, argv, "upgrade_net_proto_binary",
               "Brings the weights (.caffemodel) of an older Caffe into today's form, as Caffe's "
               "tool of\nthis name does. What is in today's form already is written, too.",
               SHOAL_UPGRADE_NET_BINARY);
}

static int run_solver_text(int argc, char **argv) {
    return run(
        argc, argv, "upgrade_solver_proto_text",
        "Brings a solver (prototxt) of an older Caffe into today's form: solver_type becomes "
        "type, as\nby Caffe's tool of this name. Nets inside the solver stay as they are. "
        "Comments are lost.",
        SHOAL_UPGRADE_SOLVER_TEXT);
}

const ShoalCommand shoal_command_upgrade_net_proto_text = {
    "upgrade_net_proto_text", "bring an old net into today's form", run_net_text};
const ShoalCommand shoal_command_upgrade_net_proto_binary = {
    "upgrade_net_proto_binary", "bring old weights into today's form", run_net_binary};
const ShoalCommand shoal_command_upgrade_solver_proto_text = {
    "upgrade_solver_proto_text", "bring an old solver into today's form", run_solver_text};
