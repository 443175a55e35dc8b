/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/memory.h"
#include "cli/cli.h"
#include "cpu/clusters.h"
#include "cpu/cpu.h"
#include "kernels/describe.h"
#include "train/cores.h"

enum { LIST_BYTES = 256 };

static void print_clusters(ShoalCpuLevel level) {
    ShoalCpuTopology topology;
    ShoalCpuChoice choice;
    ShoalCalibration speeds;
    char list[LIST_BYTES];
    shoal_cpu_topology(NULL, NULL, &topology);
    bool measured = shoal_cores_calibration(level, &speeds) && speeds.count == topology.count;
    shoal_cores_choose(level, 0, &choice);
    for (int i = 0; i < topology.count; i++) {
        const ShoalCpuCluster *cluster = &topology.clusters[i];
        printf("Cluster %d:     %d core%s (%s)", i, CPU_COUNT(&cluster->cores),
               CPU_COUNT(&cluster->cores) == 1 ? "" : "s",
               shoal_cpu_list(&cluster->cores, list, sizeof list));
        if (cluster->max_khz)
            printf(", %.2f GHz", (double)cluster->max_khz * 1e-6);
        if (cluster->capacity)
            printf(", capacity %d", cluster->capacity);
        if (measured)
            printf(", %.1f GF/s", speeds.own[i]);
        if (measured && i > 0)
            printf(", with those above %.1f GF/s", speeds.together[i]);
        printf("\n");
    }
    printf("Threads:       %d, on cores %s%s\n", choice.threads,
           shoal_cpu_list(&choice.cores, list, sizeof list),
           measured && choice.pin ? ": the best by measurement, and kept there"
           : measured             ? ": all of them, by measurement"
           : choice.pin           ? ": the fast ones, and kept there"
           : topology.restricted  ? ": those that this process may use"
                                  : "");
}

static void print_levels(ShoalCpuLevel chosen) {
    printf("Kernel levels:");
    for (int i = 0; i < SHOAL_CPU_LEVELS; i++)
        if (shoal_cpu_level_usable((ShoalCpuLevel)i))
            printf(" %s", shoal_cpu_level_name((ShoalCpuLevel)i));
    char text[LIST_BYTES];
    printf("\nIn use:        %s: %s\n", shoal_cpu_level_name(chosen),
           shoal_kernels_describe(shoal_kernels_for(chosen), text, sizeof text));
}

static int run(int argc, char **argv) {
    const char *cpu = NULL;
    const ShoalFlag flags[] = {SHOAL_FLAG_CPU(&cpu)};
    const ShoalUsage usage = {.command = "device_query",
                              .purpose =
                                  "Shows what this machine brings: processor, clusters of cores "
                                  "and which of them are\ncomputed on, memory, the levels of the "
                                  "kernels that it can run, and how they cut work\ninto tiles.",
                              .caffe = true,
                              .flags = flags,
                              .n_flags = 1};
    int code = shoal_flags_parse(&usage, argc, argv, NULL);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    ShoalCpuLevel level;
    if (shoal_cpu_level_choose(cpu, &level, &error))
        return shoal_cli_fail("device_query", &error);
    char model[256];
    shoal_cpu_model(model, sizeof model);
    unsigned long long total, available;
    shoal_memory_system(&total, &available);
    printf("Processor:     %s\n", model);
    printf("Cores:         %d\n", shoal_cpu_cores());
    print_clusters(level);
    printf("Memory:        %llu MB, %llu MB free\n", total >> 20, available >> 20);
    print_levels(level);
    return SHOAL_EXIT_OK;
}

const ShoalCommand shoal_command_device_query = {
    "device_query", "show processor, cores, memory and kernel levels", run};
