/* SPDX-License-Identifier: Apache-2.0 */
/* Times the shortest parallel loops: how long one of empty tasks takes, right after another one,
 * and after a pause. Prints medians and bests. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/pool.h"

enum { LOOPS = 2001 };

static void nothing(void *context, size_t index, unsigned thread) {
    (void)context;
    (void)index;
    (void)thread;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void wait_ns(uint64_t ns) {
    uint64_t start = shoal_clock_ns();
    while (shoal_clock_ns() - start < ns)
        ;
}

static void measure(ShoalPool *pool, uint64_t pause_ns) {
    static double us[LOOPS];
    for (int i = 0; i < LOOPS; i++) {
        wait_ns(pause_ns);
        uint64_t start = shoal_clock_ns();
        shoal_pool_run(pool, 2 * (size_t)shoal_pool_threads(pool), nothing, NULL);
        us[i] = (double)(shoal_clock_ns() - start) * 1e-3;
    }
    qsort(us, LOOPS, sizeof us[0], by_value);
    printf("%2u threads, %4.0f us after the last loop: median %7.2f us, best %7.2f us, "
           "9 of 10 below %7.2f us\n",
           shoal_pool_threads(pool), (double)pause_ns * 1e-3, us[LOOPS / 2], us[0],
           us[LOOPS * 9 / 10]);
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 2;
    ShoalPool *pool = threads > 0 ? shoal_pool_create((unsigned)threads) : NULL;
    if (!pool) {
        fprintf(stderr, "usage: bench_pool [THREADS]\n");
        return 2;
    }
    measure(pool, 0);
    measure(pool, 5000);
    measure(pool, 100000);
    shoal_pool_destroy(pool);
    return 0;
}
