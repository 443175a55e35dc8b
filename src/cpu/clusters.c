/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/clusters.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/system.h"

static long long number_in(const char *sysfs, int core, const char *name) {
    char path[4096];
    long long number;
    int n = snprintf(path, sizeof path, "%s/cpu%d/%s", sysfs, core, name);
    return n < (int)sizeof path && shoal_file_number(path, &number) && number > 0 ? number : 0;
}

static bool is_faster(const ShoalCpuCluster *a, const ShoalCpuCluster *b) {
    return a->capacity != b->capacity ? a->capacity > b->capacity : a->max_khz > b->max_khz;
}

/* The cluster of a kind, put in its place when it is new. */
static ShoalCpuCluster *cluster_like(ShoalCpuTopology *topology, const ShoalCpuCluster *kind) {
    int at = 0;
    while (at < topology->count && is_faster(&topology->clusters[at], kind))
        at++;
    ShoalCpuCluster *cluster = &topology->clusters[at];
    if (at < topology->count && !is_faster(kind, cluster))
        return cluster;
    if (topology->count == SHOAL_CPU_CLUSTERS) /* more kinds than any machine has */
        return at < topology->count ? cluster : cluster - 1;
    memmove(cluster + 1, cluster, (size_t)(topology->count - at) * sizeof *cluster);
    topology->count++;
    *cluster = *kind;
    return cluster;
}

void shoal_cpu_topology(const char *sysfs, const cpu_set_t *allowed, ShoalCpuTopology *topology) {
    cpu_set_t own;
    char usual[4096];
    if (!sysfs) {
        snprintf(usual, sizeof usual, "%s/sys/devices/system/cpu", shoal_system_root());
        sysfs = usual;
    }
    memset(topology, 0, sizeof *topology);
    if (!allowed) {
        if (sched_getaffinity(0, sizeof own, &own)) { /* more cores than cpu_set_t has bits */
            CPU_ZERO(&own);
            CPU_SET(0, &own);
        }
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        topology->restricted = CPU_COUNT(&own) < online;
        allowed = &own;
    }
    for (int core = 0; core < CPU_SETSIZE; core++) {
        if (!CPU_ISSET(core, allowed))
            continue;
        ShoalCpuCluster kind;
        memset(&kind, 0, sizeof kind);
        kind.capacity = (int)number_in(sysfs, core, "cpu_capacity");
        kind.max_khz = (long)number_in(sysfs, core, "cpufreq/cpuinfo_max_freq");
        CPU_SET(core, &cluster_like(topology, &kind)->cores);
    }
}

static bool is_fast(const ShoalCpuCluster *cluster, const ShoalCpuCluster *best) {
    if (best->capacity)
        return 2 * cluster->capacity >= best->capacity;
    return 4 * cluster->max_khz >= 3 * best->max_khz;
}

void shoal_cpu_choose_cores(const ShoalCpuTopology *topology, int threads, ShoalCpuChoice *choice) {
    memset(choice, 0, sizeof *choice);
    const ShoalCpuCluster *clusters = topology->clusters;
    int used = 0;
    while (used < topology->count &&
           (topology->restricted || is_fast(&clusters[used], &clusters[0]) ||
            CPU_COUNT(&choice->cores) < threads)) {
        CPU_OR(&choice->cores, &choice->cores, &clusters[used].cores);
        used++;
    }
    int cores = CPU_COUNT(&choice->cores);
    choice->threads = threads > 0 ? threads : cores > 0 ? cores : 1;
    choice->pin = used < topology->count;
}

int shoal_cpu_fast_cores(void) {
    ShoalCpuTopology topology;
    ShoalCpuChoice choice;
    shoal_cpu_topology(NULL, NULL, &topology);
    shoal_cpu_choose_cores(&topology, 0, &choice);
    return choice.threads;
}

bool shoal_cpu_pin(const cpu_set_t *cores) {
    return sched_setaffinity(0, sizeof *cores, cores) == 0;
}

void shoal_cpu_unpin(void) {
    cpu_set_t all;
    memset(&all, 0xff, sizeof all); /* the system leaves out what there is not */
    (void)sched_setaffinity(0, sizeof all, &all);
}

const char *shoal_cpu_list(const cpu_set_t *cores, char *text, int size) {
    int used = 0;
    text[0] = '\0';
    for (int first = 0; first < CPU_SETSIZE; first++) {
        if (!CPU_ISSET(first, cores))
            continue;
        int last = first;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, cores))
            last++;
        const char *comma = used ? "," : "";
        int n = first == last
                    ? snprintf(text + used, (size_t)(size - used), "%s%d", comma, first)
                    : snprintf(text + used, (size_t)(size - used), "%s%d-%d", comma, first, last);
        if (n >= size - used)
            return text;
        used += n;
        first = last;
    }
    return text;
}
