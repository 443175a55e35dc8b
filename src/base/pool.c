/* SPDX-License-Identifier: Apache-2.0 */
#include "base/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/memory.h"

typedef struct Member {
    ShoalPool *pool;
    pthread_t thread;
    unsigned number;
} Member;

struct ShoalPool {
    unsigned threads;
    Member *members; /* threads - 1 of them: number 0 is the caller */
    unsigned started;
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    unsigned long round; /* of the current loop */
    unsigned busy;       /* members still in the current loop */
    bool closing;
    ShoalPoolTask *task;
    void *context;
    size_t count;
    atomic_size_t next;
};

static void take_work(ShoalPool *pool, unsigned thread) {
    for (;;) {
        size_t index = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (index >= pool->count)
            return;
        pool->task(pool->context, index, thread);
    }
}

static void *member_main(void *argument) {
    Member *self = argument;
    ShoalPool *pool = self->pool;
    unsigned long seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (!pool->closing && pool->round == seen)
            pthread_cond_wait(&pool->wake, &pool->lock);
        if (pool->closing)
            break;
        seen = pool->round;
        pthread_mutex_unlock(&pool->lock);
        take_work(pool, self->number);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0)
            pthread_cond_signal(&pool->idle);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

ShoalPool *shoal_pool_create(unsigned threads) {
    if (threads == 0)
        threads = 1;
    ShoalPool *pool = shoal_calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->threads = threads;
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
    pool->closing = true;
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

unsigned shoal_pool_threads(const ShoalPool *pool) {
    return pool ? pool->threads : 1;
}

void shoal_pool_run(ShoalPool *pool, size_t n, ShoalPoolTask *task, void *context) {
    if (!pool || pool->threads == 1 || n <= 1) {
        for (size_t i = 0; i < n; i++)
            task(context, i, 0);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    pool->task = task;
    pool->context = context;
    pool->count = n;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->busy = pool->threads - 1;
    pool->round++;
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    take_work(pool, 0);
    pthread_mutex_lock(&pool->lock);
    while (pool->busy)
        pthread_cond_wait(&pool->idle, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}
