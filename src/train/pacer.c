/* SPDX-License-Identifier: Apache-2.0 */
#include "train/pacer.h"

#include <time.h>

#include "base/clock.h"

enum { NAP_NS = 5000000, LEAST_PAUSE_NS = 2000000, LEAST_DUTY = SHOAL_PACER_FULL / 100 };

void shoal_pacer_init(ShoalPacer *pacer, int pace) {
    *pacer = (ShoalPacer){.pace = pace};
    atomic_init(&pacer->duty, SHOAL_PACER_FULL);
}

void shoal_pacer_set_duty(ShoalPacer *pacer, float duty) {
    unsigned part = duty >= 1     ? SHOAL_PACER_FULL
                    : duty >= 0.f ? (unsigned)(duty * SHOAL_PACER_FULL)
                                  : 0;
    atomic_store_explicit(&pacer->duty, part > LEAST_DUTY ? part : LEAST_DUTY,
                          memory_order_relaxed);
}

static void idle_until(uint64_t ns, const atomic_bool *cancel, atomic_ulong *progress) {
    for (uint64_t now = shoal_clock_ns(); now < ns && !atomic_load(cancel);
         now = shoal_clock_ns()) {
        uint64_t left = ns - now;
        struct timespec nap = {.tv_nsec = (long)(left < NAP_NS ? left : NAP_NS)};
        nanosleep(&nap, NULL);
        atomic_fetch_add_explicit(progress, 1, memory_order_relaxed);
    }
}

void shoal_pacer_begin(ShoalPacer *pacer, int count, bool train) {
    pacer->count = count;
    pacer->part = train ? 1 : 1.0 / 3;
    pacer->debt_ns = pacer->worked_ns = 0;
    pacer->start_ns = pacer->mark_ns = shoal_clock_ns();
}

/* Part of the time to compute in, by what is known. */
static double duty_of(const ShoalPacer *pacer) {
    double duty = atomic_load_explicit(&pacer->duty, memory_order_relaxed) / 1e3;
    double paced = pacer->pace > 0 && pacer->image_ns > 0 ? pacer->image_ns * pacer->pace / 1e9 : 1;
    return paced < duty ? paced : duty;
}

void shoal_pacer_step(ShoalPacer *pacer, const atomic_bool *cancel, atomic_ulong *progress) {
    uint64_t now = shoal_clock_ns();
    double worked = (double)(now - pacer->mark_ns), duty = duty_of(pacer);
    pacer->mark_ns = now;
    pacer->worked_ns += worked;
    if (duty >= 1)
        return;
    pacer->debt_ns += worked * (1 / duty - 1);
    if (pacer->debt_ns < LEAST_PAUSE_NS)
        return;
    idle_until(now + (uint64_t)pacer->debt_ns, cancel, progress);
    pacer->mark_ns = shoal_clock_ns();
    pacer->debt_ns -= (double)(pacer->mark_ns - now); /* too long a sleep is made good */
}

void shoal_pacer_end(ShoalPacer *pacer, const atomic_bool *cancel, atomic_ulong *progress) {
    shoal_pacer_step(pacer, cancel, progress);
    if (pacer->count < 1)
        return;
    /* A training pass takes three times as long as a forward pass; a part of the measurement so
     * that one disturbed pass does not set the pace of the next. */
    double image_ns = pacer->worked_ns / pacer->count / pacer->part;
    pacer->image_ns = pacer->image_ns > 0 ? 0.7 * pacer->image_ns + 0.3 * image_ns : image_ns;
    if (pacer->pace > 0)
        idle_until(pacer->start_ns + (uint64_t)(1e9 * pacer->part * pacer->count / pacer->pace),
                   cancel, progress);
}
