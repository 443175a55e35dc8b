/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/memory.h"

enum { SPIN_NS = 20000, LOOKS_PER_CLOCK = 16 };

/* A loop's number, whether threads may still join it, and how many are in it, in one word, so that
 * to join and to close a loop exclude each other:   number << 32 | OPEN | threads inside */
#define OPEN ((uint64_t)1 << 31)
#define INSIDE (OPEN - 1)
#define NUMBER(state) ((uint32_t)((state) >> 32))

typedef struct Member {
    ShoalPool *pool;
    pthread_t thread;
    unsigned number;
} Member;

struct ShoalPool {
    unsigned threads;
    atomic_uint spin_ns;
    Member *members; /* threads - 1 of them: number 0 is the caller */
    unsigned started;
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    _Atomic uint64_t state;
    atomic_uint sleepers; /* members that sleep, or are about to */
    atomic_bool waiting;  /* the caller sleeps, or is about to */
    atomic_bool closing;
    /* Of the loop: written while nobody is inside, read by who has joined. */
    ShoalPoolTask *task;
    void *context;
    size_t count;
    atomic_size_t next;
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_work(ShoalPool *pool, unsigned thread) {
    for (;;) {
        size_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (index >= pool->count)
            return;
        pool->task(pool->context, index, thread);
    }
}

/* ---- members ---- */

static bool has_news(ShoalPool *pool, uint32_t seen) {
    return NUMBER(atomic_load(&pool->state)) != seen || atomic_load(&pool->closing);
}

static bool spin_for_news(ShoalPool *pool, uint32_t seen) {
    const unsigned spin_ns = atomic_load(&pool->spin_ns);
    if (!spin_ns)
        return has_news(pool, seen);
    for (uint64_t start = shoal_clock_ns(); shoal_clock_ns() - start < spin_ns;) {
        for (int i = 0; i < LOOKS_PER_CLOCK; i++) {
            if (has_news(pool, seen))
                return true;
            relax();
        }
        /* The caller, or another program's thread, may be waiting for this very core. */
        sched_yield();
    }
    return false;
}

/* Who begins a loop counts the sleepers after the state has changed; who goes to sleep is counted
 * before it looks at the state for the last time. So one of the two sees the other. */
static void wait_for_news(ShoalPool *pool, uint32_t seen) {
    if (spin_for_news(pool, seen))
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!has_news(pool, seen))
        pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

/* False when the loop is closed. *number: of the loop, in any case. */
static bool join(ShoalPool *pool, uint32_t *number) {
    uint64_t state = atomic_load(&pool->state);
    for (;;) {
        *number = NUMBER(state);
        if (!(state & OPEN))
            return false;
        if (atomic_compare_exchange_weak(&pool->state, &state, state + 1))
            return true;
    }
}

static void leave(ShoalPool *pool) {
    uint64_t state = atomic_fetch_sub(&pool->state, 1) - 1;
    if ((state & (OPEN | INSIDE)) || !atomic_load(&pool->waiting))
        return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->idle);
    pthread_mutex_unlock(&pool->lock);
}

static void *member_main(void *argument) {
    Member *self = argument;
    ShoalPool *pool = self->pool;
    uint32_t seen = 0;
    for (;;) {
        wait_for_news(pool, seen);
        if (atomic_load(&pool->closing))
            return NULL;
        if (join(pool, &seen)) {
            take_work(pool, self->number);
            leave(pool);
        }
    }
}

/* ---- caller ---- */

static void begin_loop(ShoalPool *pool) {
    uint64_t number = (uint64_t)NUMBER(atomic_load(&pool->state)) + 1;
    /* An exchange, where a store would do in C: qemu lets an ARM program's load pass a store. */
    atomic_exchange(&pool->state, number << 32 | OPEN);
    if (!atomic_load(&pool->sleepers))
        return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static bool is_empty(ShoalPool *pool) {
    return !(atomic_load(&pool->state) & INSIDE);
}

static bool spin_until_empty(ShoalPool *pool) {
    const unsigned spin_ns = atomic_load(&pool->spin_ns);
    if (is_empty(pool) || !spin_ns)
        return is_empty(pool);
    for (uint64_t start = shoal_clock_ns(); shoal_clock_ns() - start < spin_ns;)
        for (int i = 0; i < LOOKS_PER_CLOCK; i++) {
            if (is_empty(pool))
                return true;
            relax();
        }
    return false;
}

static void end_loop(ShoalPool *pool) {
    atomic_fetch_and(&pool->state, ~OPEN);
    if (spin_until_empty(pool))
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_exchange(&pool->waiting, true); /* as in begin_loop */
    while (!is_empty(pool))
        pthread_cond_wait(&pool->idle, &pool->lock);
    atomic_store(&pool->waiting, false);
    pthread_mutex_unlock(&pool->lock);
}

void shoal_pool_run(ShoalPool *pool, size_t n, ShoalPoolTask *task, void *context) {
    if (!pool || pool->threads == 1 || n <= 1) {
        for (size_t i = 0; i < n; i++)
            task(context, i, 0);
        return;
    }
    pool->task = task;
    pool->context = context;
    pool->count = n;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    begin_loop(pool);
    take_work(pool, 0);
    end_loop(pool);
}

/* ---- life ---- */

static unsigned usable_cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

ShoalPool *shoal_pool_create(unsigned threads) {
    if (threads == 0)
        threads = 1;
    ShoalPool *pool = shoal_calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->threads = threads;
    atomic_init(&pool->spin_ns, threads <= usable_cores() ? SPIN_NS : 0);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->idle, NULL);
    pool->members = shoal_calloc(threads, sizeof *pool->members);
    if (!pool->members)
        goto err_pool;
    for (unsigned i = 0; i + 1 < threads; i++) {
        pool->members[i] = (Member){.pool = pool, .number = i + 1};
        if (pthread_create(&pool->members[i].thread, NULL, member_main, &pool->members[i]))
            goto err_pool;
        pool->started++;
    }
    return pool;
err_pool:
    shoal_pool_destroy(pool);
    return NULL;
}

void shoal_pool_destroy(ShoalPool *pool) {
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->closing, true);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->started; i++)
        pthread_join(pool->members[i].thread, NULL);
    pthread_cond_destroy(&pool->idle);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    shoal_free(pool->members);
    shoal_free(pool);
}

void shoal_pool_set_spin(ShoalPool *pool, unsigned spin_ns) {
    atomic_store(&pool->spin_ns, spin_ns);
}

unsigned shoal_pool_threads(const ShoalPool *pool) {
    return pool ? pool->threads : 1;
}
