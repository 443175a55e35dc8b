/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"

static int run(int argc, char **argv) {
    const ShoalUsage usage = {.command = "version", .purpose = "Prints the version."};
    int code = shoal_flags_parse(&usage, argc, argv, NULL);
    if (code >= 0)
        return code;
    printf("shoal %s\n", shoal_version());
    return SHOAL_EXIT_OK;
}

const ShoalCommand shoal_command_version = {"version", "print the version", run};
