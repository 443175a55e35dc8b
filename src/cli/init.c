/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"

/* The nets, a line each. */
static void list_nets(char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "Nets:\n");
    for (int n = 0; shoal_init_name(n) && used < size; n++)
        used += (size_t)snprintf(text + used, size - used, "  %-14s%s\n", shoal_init_name(n),
                                 shoal_init_about(n));
    if (used < size)
        snprintf(text + used, size - used,
                 "\nUp to a batch of 8192 the rate goes in proportion to it, after a warm-up of 5 "
                 "passes\n"
                 "(Goyal et al. 2017); past that, LARS gives every layer a rate of its own.\n"
                 "\nExample:\n  shoal init --batch=1024 resnet50 my_resnet\n"
                 "  shoal time --model=my_resnet/train_val.prototxt --dummy-data --iterations=5\n"
                 "  shoal train --solver=my_resnet/solver.prototxt\n");
}

static int run(int argc, char **argv) {
    const char *operands[2];
    bool force = false;
    int batch = 0;
    const ShoalFlag flags[] = {
        {"batch", SHOAL_FLAG_COUNT, &batch, "N",
         "the batch of all workers together; rates and numbers of\niterations in the solver are "
         "made "
         "for it (default: 32, for\nalexnet 256, for lenet 64)"},
        {"force", SHOAL_FLAG_SWITCH, &force, NULL, "replace files that are there already"},
    };
    char notes[1024];
    list_nets(notes, sizeof notes);
    const ShoalUsage usage = {
        .command = "init",
        .purpose = "Writes train_val.prototxt and solver.prototxt of a well-known net into a "
                   "folder, which\nis made where it is missing. The comments in the files say "
                   "where their data comes from,\nand why the solver is as it is.",
        .operands = "NAME DIR",
        .n_operands = 2,
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .notes = notes};
    int code = shoal_flags_parse(&usage, argc, argv, operands);
    if (code >= 0)
        return code;
    const ShoalInitOptions options = {
        .net = operands[0], .folder = operands[1], .force = force, .batch = batch};
    ShoalError error = {0};
    if (shoal_init(&options, &error))
        return shoal_cli_fail("init", &error);
    printf("Wrote train_val.prototxt and solver.prototxt to %s\n", options.folder);
    return SHOAL_EXIT_OK;
}

const ShoalCommand shoal_command_init = {"init", "write the files of a well-known net", run};
