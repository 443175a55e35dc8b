/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CPU_CLUSTERS_H
#define SHOAL_CPU_CLUSTERS_H

#include <sched.h>
#include <stdbool.h>

/* Cores of one kind. A phone has two or three kinds (big.LITTLE), most other machines one. */
typedef struct ShoalCpuCluster {
    cpu_set_t cores;
    int capacity; /* the system's own measure of a core's speed, 1024 for the best; 0: not told */
    long max_khz; /* 0: not told */
} ShoalCpuCluster;

enum { SHOAL_CPU_CLUSTERS = 8 };

typedef struct ShoalCpuTopology {
    ShoalCpuCluster clusters[SHOAL_CPU_CLUSTERS]; /* fastest first */
    int count;
    bool restricted; /* the user (or the system) keeps this process from some cores */
} ShoalCpuTopology;

/* The clusters of the cores that a process with affinity `allowed` may run on (NULL: the calling
 * thread's). sysfs: where the cores are described; NULL: sys/devices/system/cpu below
 * shoal_system_root(). Cores that are
 * alike in capacity and highest frequency are one cluster; where nothing is told, all are one. */
void shoal_cpu_topology(const char *sysfs, const cpu_set_t *allowed, ShoalCpuTopology *topology);

/* Which cores to compute on. */
typedef struct ShoalCpuChoice {
    cpu_set_t cores;
    int threads;
    bool pin; /* some of the cores that there are had better stay out */
} ShoalCpuChoice;

/* threads 0: one for each core of the fast clusters, that is of those with at least half of the
 * fastest one's capacity (where only frequencies are told, three quarters of its frequency: slow
 * cores do less per cycle, too). More threads than that take further clusters, fastest first. An
 * affinity that somebody has set is kept: then all of its cores count as fast. */
void shoal_cpu_choose_cores(const ShoalCpuTopology *topology, int threads, ShoalCpuChoice *choice);

/* The number of threads that shoal_cpu_choose_cores takes by itself on this machine. */
int shoal_cpu_fast_cores(void);

/* Keeps the calling thread, and those it will start, on these cores; false when the system refuses.
 * shoal_cpu_unpin lets it run on all again. */
bool shoal_cpu_pin(const cpu_set_t *cores);
void shoal_cpu_unpin(void);

/* "0-3,6" into text[0..size), which is returned. */
const char *shoal_cpu_list(const cpu_set_t *cores, char *text, int size);

#endif
