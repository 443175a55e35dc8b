/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/measure.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "cpu/clusters.h"
#include "device/entries.h"
#include "device/power.h"
#include "device/vitals.h"
#include "kernels/peak.h"

#define CPUS "sys/devices/system/cpu"

enum {
    BLOCK_BYTES = 64 << 20, /* of each of two buffers: beyond any phone's caches */
    BLOCK_LEAST = 4 << 20,
    PART_BYTES = 1 << 20,
    TURNS = 3 /* the best counts */
};

static const double SPEED_NS = 60e6, RUN_NS = 2e6, SECOND_NS = 1e9, SLICE_NS = 20e6;

/* ---- which cores ---- */

/* "0-3,6": those of a list that are below CPU_SETSIZE. */
static void parse_list(const char *text, cpu_set_t *cores) {
    CPU_ZERO(cores);
    while (*text) {
        int first, last, used = 0;
        if (sscanf(text, "%d-%d%n", &first, &last, &used) != 2 || !used) {
            if (sscanf(text, "%d%n", &first, &used) != 1)
                return;
            last = first;
        }
        for (int core = first; core >= 0 && core <= last && core < CPU_SETSIZE; core++)
            CPU_SET(core, cores);
        text += used;
        if (*text++ != ',')
            return;
    }
}

static int list_of(const char *root, const char *name, cpu_set_t *cores) {
    char line[256];
    CPU_ZERO(cores);
    if (shoal_entry_line(root, line, sizeof line, CPUS "/%s", name))
        parse_list(line, cores);
    return CPU_COUNT(cores);
}

void shoal_measure_describe_cores(const char *root, ShoalDoctorCores *cores) {
    char sysfs[512];
    cpu_set_t present, online, own;
    ShoalCpuTopology topology;
    memset(cores, 0, sizeof *cores);
    shoal_cpu_model(cores->model, sizeof cores->model);
    CPU_ZERO(&own);
    if (sched_getaffinity(0, sizeof own, &own))
        CPU_SET(0, &own);
    cores->present = list_of(root, "present", &present);
    cores->online = list_of(root, "online", &online);
    cpu_set_t *all = cores->present ? &present : &own;
    snprintf(sysfs, sizeof sysfs, "%s/" CPUS, root);
    shoal_cpu_topology(sysfs, all, &topology);
    cores->n_clusters =
        topology.count < SHOAL_DOCTOR_CLUSTERS ? topology.count : SHOAL_DOCTOR_CLUSTERS;
    for (int i = 0; i < cores->n_clusters; i++) {
        const ShoalCpuCluster *from = &topology.clusters[i];
        ShoalDoctorCluster *to = &cores->clusters[i];
        cpu_set_t both;
        CPU_AND(&both, &from->cores, &own);
        to->cores = CPU_COUNT(&from->cores);
        to->usable = CPU_COUNT(&both);
        to->mhz = (int)(from->max_khz / 1000);
        to->capacity = from->capacity;
        shoal_cpu_list(&from->cores, to->list, sizeof to->list);
        cores->usable += to->usable;
    }
}

/* ---- speed ---- */

typedef struct Runner {
    ShoalPool *pool;
    ShoalCompute compute;
    size_t rounds; /* of a run of about RUN_NS */
} Runner;

static bool open_runner(Runner *runner, ShoalCpuLevel level, unsigned threads) {
    runner->pool = shoal_pool_create(threads);
    runner->compute = (ShoalCompute){.kernels = shoal_kernels_for(level), .pool = runner->pool};
    runner->rounds = 1000;
    return runner->pool && runner->compute.kernels;
}

/* Floating-point operations of one run, and its time. */
static double run_once(Runner *runner, double *ns) {
    uint64_t start = shoal_clock_ns();
    double operations = shoal_kernels_peak(&runner->compute, runner->rounds);
    *ns = (double)(shoal_clock_ns() - start) + 1;
    if (*ns < RUN_NS)
        runner->rounds *= 2;
    return operations;
}

/* GF/s on these cores: the best of short runs, that is when nothing disturbs. */
static double speed_on(ShoalCpuLevel level, const cpu_set_t *cores) {
    Runner runner;
    double best = 0, ns;
    int threads = CPU_COUNT(cores);
    if (threads < 1 || !shoal_cpu_pin(cores))
        return 0;
    if (open_runner(&runner, level, (unsigned)threads))
        for (uint64_t begin = shoal_clock_ns(); (double)(shoal_clock_ns() - begin) < SPEED_NS;) {
            double speed = run_once(&runner, &ns) / ns;
            best = speed > best ? speed : best;
        }
    shoal_pool_destroy(runner.pool);
    return best;
}

void shoal_measure_cores(ShoalCpuLevel level, ShoalDoctorCores *cores) {
    cpu_set_t own, some, one;
    if (sched_getaffinity(0, sizeof own, &own))
        return;
    for (int i = 0; i < cores->n_clusters; i++) {
        ShoalDoctorCluster *cluster = &cores->clusters[i];
        parse_list(cluster->list, &some);
        CPU_AND(&some, &some, &own);
        CPU_ZERO(&one);
        for (int core = 0; core < CPU_SETSIZE && CPU_COUNT(&one) == 0; core++)
            if (CPU_ISSET(core, &some))
                CPU_SET(core, &one);
        cluster->one_core = speed_on(level, &one);
        cluster->gflops = speed_on(level, &some);
    }
    cores->gflops = speed_on(level, &own);
    (void)shoal_cpu_pin(&own);
}

/* ---- memory ---- */

typedef struct Blocks {
    unsigned char *from, *to;
    size_t parts;
    uint64_t sums[256]; /* by thread */
} Blocks;

static void read_part(void *context, size_t index, unsigned thread) {
    Blocks *blocks = context;
    const uint64_t *at = (const uint64_t *)(const void *)(blocks->from + index * PART_BYTES);
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (size_t i = 0; i < PART_BYTES / sizeof *at; i += 4) {
        a += at[i];
        b += at[i + 1];
        c += at[i + 2];
        d += at[i + 3];
    }
    /* Kept, so that the reading is. */
    __atomic_fetch_add(&blocks->sums[thread % 256], a + b + c + d, __ATOMIC_RELAXED);
}

static void copy_part(void *context, size_t index, unsigned thread) {
    Blocks *blocks = context;
    (void)thread;
    memcpy(blocks->to + index * PART_BYTES, blocks->from + index * PART_BYTES, PART_BYTES);
}

static double best_gbs(ShoalPool *pool, Blocks *blocks, ShoalPoolTask *task, double bytes) {
    double best = 0;
    for (int i = 0; i < TURNS; i++) {
        uint64_t start = shoal_clock_ns();
        shoal_pool_run(pool, blocks->parts, task, blocks);
        double speed = bytes / ((double)(shoal_clock_ns() - start) + 1);
        best = speed > best ? speed : best;
    }
    return best;
}

void shoal_measure_memory(ShoalDoctorMemory *memory) {
    memset(memory, 0, sizeof *memory);
    shoal_memory_system(&memory->total, &memory->available);
    size_t bytes = BLOCK_BYTES;
    while (memory->available && bytes > BLOCK_LEAST && 8ull * bytes > memory->available)
        bytes /= 2;
    if (memory->available && 4ull * bytes > memory->available)
        return;
    Blocks *blocks = shoal_calloc(1, sizeof *blocks);
    ShoalPool *pool = shoal_pool_create((unsigned)shoal_cpu_cores());
    if (blocks && pool) {
        blocks->parts = bytes / PART_BYTES;
        blocks->from = shoal_calloc(bytes, 1);
        blocks->to = shoal_calloc(bytes, 1);
        if (blocks->from && blocks->to) {
            memory->read_gbs = best_gbs(pool, blocks, read_part, (double)bytes);
            memory->copy_gbs = best_gbs(pool, blocks, copy_part, 2.0 * (double)bytes);
        }
        shoal_free(blocks->from);
        shoal_free(blocks->to);
    }
    shoal_pool_destroy(pool);
    shoal_free(blocks);
}

/* ---- heat ---- */

static double load_for_a_second(Runner *runner) {
    double operations = 0, ns;
    uint64_t start = shoal_clock_ns(), now = start;
    while ((double)(now - start) < SECOND_NS) {
        operations += run_once(runner, &ns);
        if (ns < SLICE_NS / 2)
            runner->rounds *= 2;
        now = shoal_clock_ns();
    }
    return operations / (double)(now - start);
}

ShoalStatus shoal_measure_heat(const char *root, ShoalCpuLevel level, int seconds,
                               ShoalDoctorHeat *heat, ShoalMeasureSecond *second, void *context,
                               ShoalError *err) {
    ShoalVitals vitals;
    Runner runner;
    memset(heat, 0, sizeof *heat);
    heat->n_zones = shoal_power_zones(root, heat->zones, SHOAL_DOCTOR_ZONES);
    shoal_vitals_read(root, &vitals);
    heat->temperature = (double)vitals.temperature;
    heat->battery_temperature = (double)vitals.battery_temperature;
    heat->ceiling = (double)vitals.ceiling;
    heat->clock = (double)vitals.clock;
    if (seconds <= 0)
        return SHOAL_OK;
    if (!open_runner(&runner, level, (unsigned)shoal_cpu_cores())) {
        shoal_pool_destroy(runner.pool);
        return shoal_error_set(err, SHOAL_ERR_MEMORY, "no threads for a load are left");
    }
    for (bool more = true; more && heat->n_seconds < seconds;) {
        double gflops = load_for_a_second(&runner);
        shoal_vitals_read(root, &vitals);
        heat->seconds[heat->n_seconds++] =
            (ShoalDoctorSecond){.gflops = gflops,
                                .temperature = (double)vitals.temperature,
                                .battery_temperature = (double)vitals.battery_temperature,
                                .clock = (double)vitals.clock};
        more = second(context);
    }
    shoal_pool_destroy(runner.pool);
    return SHOAL_OK;
}
