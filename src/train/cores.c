/* SPDX-License-Identifier: Apache-2.0 */
#include "train/cores.h"

#include <pthread.h>

#include "base/clock.h"

/* Of this process. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static bool tried, measured;
static ShoalCpuLevel measured_level;
static ShoalCpuTopology measured_on;
static ShoalCalibration found;

static void measure(ShoalCpuLevel level) {
    if (tried && measured_level == level)
        return;
    tried = true;
    measured_level = level;
    shoal_cpu_topology(NULL, NULL, &measured_on);
    measured = measured_on.count > 1 && !measured_on.restricted &&
               shoal_calibrate(&measured_on, level, shoal_clock_ns, &found);
}

bool shoal_cores_calibration(ShoalCpuLevel level, ShoalCalibration *calibration) {
    pthread_mutex_lock(&mutex);
    measure(level);
    bool there = measured;
    if (there)
        *calibration = found;
    pthread_mutex_unlock(&mutex);
    return there;
}

void shoal_cores_choose(ShoalCpuLevel level, int threads, ShoalCpuChoice *choice) {
    ShoalCpuTopology topology;
    ShoalCpuChoice best = {.threads = 0};
    pthread_mutex_lock(&mutex);
    if (threads == 0)
        measure(level);
    if (measured && measured_level == level)
        shoal_calibrate_choice(&measured_on, &found, &best);
    pthread_mutex_unlock(&mutex);
    if (best.threads && (threads == 0 || threads == best.threads)) {
        *choice = best;
        return;
    }
    shoal_cpu_topology(NULL, NULL, &topology);
    shoal_cpu_choose_cores(&topology, threads, choice);
}
