/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/cli.h"
#include "base/memory.h"
#include "cpu/cpu.h"

static int run(int argc, char **argv) {
    const ShoalUsage usage = {.command = "device_query",
                              .purpose =
                                  "Shows what this machine brings: processor, cores, memory, "
                                  "and the levels of the\nkernels that it can run."};
    int code = shoal_flags_parse(&usage, argc, argv, NULL);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    ShoalCpuLevel level;
    if (shoal_cpu_level_choose(NULL, &level, &error))
        return shoal_cli_fail("device_query", &error);
    char model[256];
    shoal_cpu_model(model, sizeof model);
    unsigned long long total, available;
    shoal_memory_system(&total, &available);
    printf("Processor:     %s\n", model);
    printf("Cores:         %d\n", shoal_cpu_cores());
    printf("Memory:        %llu MB, %llu MB free\n", total >> 20, available >> 20);
    printf("Kernel levels:");
    for (int i = 0; i < SHOAL_CPU_LEVELS; i++)
        if (shoal_cpu_level_usable((ShoalCpuLevel)i))
            printf(" %s", shoal_cpu_level_name((ShoalCpuLevel)i));
    printf("\nIn use:        %s\n", shoal_cpu_level_name(level));
    return SHOAL_EXIT_OK;
}

const ShoalCommand shoal_command_device_query = {"device_query",
                                                 "show processor, memory and kernel levels", run};
