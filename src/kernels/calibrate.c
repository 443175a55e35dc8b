/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/calibrate.h"

#include <string.h>

#include "base/memory.h"
#include "kernels/kernels.h"

enum { TURNS = 3, TURN_NS = 30000000 };

/* A layer from the middle of ResNet: enough work to be cut for all cores, in no more memory than a
 * phone's caches have. */
static const ShoalConvShape SHAPE = {.batch = 2,
                                     .channels = 64,
                                     .height = 28,
                                     .width = 28,
                                     .outputs = 64,
                                     .out_height = 28,
                                     .out_width = 28,
                                     .kernel_h = 3,
                                     .kernel_w = 3,
                                     .stride_h = 1,
                                     .stride_w = 1,
                                     .pad_h = 1,
                                     .pad_w = 1,
                                     .dilation_h = 1,
                                     .dilation_w = 1,
                                     .group = 1};
enum { PLANES = 2 * 64 * 28 * 28, WEIGHTS = 64 * 64 * 3 * 3 };
static const double OPERATIONS = 2.0 * PLANES * 64 * 3 * 3;

int shoal_calibrate_best(const double *together, int count) {
    double best = 0;
    for (int i = 0; i < count; i++)
        best = together[i] > best ? together[i] : best;
    int used = 1;
    while (used < count && together[used - 1] < 0.97 * best)
        used++;
    return used;
}

typedef struct Bench {
    ShoalCompute compute;
    float *x, *w, *y;
    uint64_t (*now_ns)(void);
} Bench;

static void close_bench(Bench *bench) {
    shoal_free(bench->compute.workspace);
    shoal_free(bench->x);
    shoal_free(bench->w);
    shoal_free(bench->y);
}

static bool open_bench(Bench *bench, ShoalCpuLevel level, int threads) {
    size_t bytes = shoal_conv_workspace_bytes(&SHAPE, (unsigned)threads);
    bench->compute.kernels = shoal_kernels_for(level);
    bench->compute.workspace_bytes = bytes;
    bench->compute.workspace = shoal_calloc(bytes, 1);
    bench->x = shoal_calloc(PLANES, sizeof(float));
    bench->w = shoal_calloc(WEIGHTS, sizeof(float));
    bench->y = shoal_calloc(PLANES, sizeof(float));
    for (size_t i = 0; bench->x && i < PLANES; i++)
        bench->x[i] = 1 + 0.001f * (float)(i % 64);
    for (size_t i = 0; bench->w && i < WEIGHTS; i++)
        bench->w[i] = 0.5f - 0.001f * (float)(i % 64);
    return bench->compute.kernels && bench->compute.workspace && bench->x && bench->w && bench->y;
}

static void run(const Bench *bench) {
    shoal_conv_fwd(&bench->compute, &SHAPE, bench->x, bench->w, NULL, bench->y);
}

/* GF/s on these cores; 0: not to be had. */
static double measure(Bench *bench, const cpu_set_t *cores) {
    unsigned threads = (unsigned)CPU_COUNT(cores);
    if (!shoal_cpu_pin(cores))
        return 0;
    bench->compute.pool = threads > 1 ? shoal_pool_create(threads) : NULL;
    if (threads > 1 && !bench->compute.pool)
        return 0;
    run(bench); /* threads begin, caches fill, clocks rise */
    uint64_t begin = bench->now_ns(), spent;
    double operations = 0;
    do {
        run(bench);
        operations += OPERATIONS;
        spent = bench->now_ns() - begin;
    } while (spent < TURN_NS);
    shoal_pool_destroy(bench->compute.pool);
    return operations / (double)spent;
}

/* Whatever else runs on the machine only slows a turn down, so the best one counts. */
static bool keep_best(Bench *bench, const cpu_set_t *cores, double *best) {
    double speed = measure(bench, cores);
    *best = speed > *best ? speed : *best;
    return speed > 0;
}

static bool take_turn(Bench *bench, const ShoalCpuTopology *topology, ShoalCalibration *found) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    for (int i = 0; i < topology->count; i++) {
        const cpu_set_t *own = &topology->clusters[i].cores;
        CPU_OR(&cores, &cores, own);
        if (!keep_best(bench, &cores, &found->together[i]) ||
            (i > 0 && !keep_best(bench, own, &found->own[i])))
            return false;
    }
    found->own[0] = found->together[0];
    return true;
}

bool shoal_calibrate(const ShoalCpuTopology *topology, ShoalCpuLevel level,
                     uint64_t (*now_ns)(void), ShoalCalibration *out) {
    Bench bench = {.now_ns = now_ns};
    ShoalCalibration found = {.count = topology->count};
    cpu_set_t before;
    int cores = 0;
    for (int i = 0; i < topology->count; i++)
        cores += CPU_COUNT(&topology->clusters[i].cores);
    bool good = topology->count > 0 && !sched_getaffinity(0, sizeof before, &before) &&
                open_bench(&bench, level, cores);
    if (good) {
        for (int turn = 0; turn < TURNS && good; turn++)
            good = take_turn(&bench, topology, &found);
        (void)shoal_cpu_pin(&before);
    }
    close_bench(&bench);
    if (!good)
        return false;
    found.used = shoal_calibrate_best(found.together, found.count);
    *out = found;
    return true;
}

void shoal_calibrate_choice(const ShoalCpuTopology *topology, const ShoalCalibration *calibration,
                            ShoalCpuChoice *choice) {
    memset(choice, 0, sizeof *choice);
    for (int i = 0; i < calibration->used; i++)
        CPU_OR(&choice->cores, &choice->cores, &topology->clusters[i].cores);
    choice->threads = CPU_COUNT(&choice->cores);
    choice->pin = calibration->used < topology->count;
}
