/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_BASE_POOL_H
#define SHOAL_BASE_POOL_H

#include <stddef.h>

/* A pool of threads for parallel loops. Work is taken, not dealt: a fast core takes more indices
 * than a slow one (big.LITTLE). The calling thread works too, and waits for no thread that has not
 * begun: where the others are late, it does all of a short loop by itself. */
typedef struct ShoalPool ShoalPool;

/* One task: index in [0, n), thread in [0, threads) (for per-thread scratch). */
typedef void ShoalPoolTask(void *context, size_t index, unsigned thread);

/* A pool that runs loops on `threads` threads (1 or more; the caller counts as one). They have the
 * affinity of the thread that calls this. NULL when memory or threads are short. */
ShoalPool *shoal_pool_create(unsigned threads);
void shoal_pool_destroy(ShoalPool *pool);

/* For how long a thread looks for the next loop, and the caller for the end of one, before it
 * sleeps. Loops often follow each other within microseconds, and to wake a thread takes some. At
 * first 20000, or 0 when the pool has more threads than there are cores to run on: to look is then
 * to keep another one from working. */
void shoal_pool_set_spin(ShoalPool *pool, unsigned spin_ns);

/* How many threads a loop runs on; 1 for NULL. */
unsigned shoal_pool_threads(const ShoalPool *pool);

/* Equivalent to: for i in [0, n): task(context, i, some thread). Returns when all are done; all
 * effects of the tasks are visible then. A NULL pool runs them in the caller, in order. One caller
 * at a time; tasks do not start loops of their own. Allocates nothing. */
void shoal_pool_run(ShoalPool *pool, size_t n, ShoalPoolTask *task, void *context);

#endif
