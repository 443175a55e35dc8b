/* SPDX-License-Identifier: Apache-2.0 */
#include "train/pipe.h"

#include <pthread.h>

#include "base/error.h"
#include "base/memory.h"

typedef struct Fifo {
    int *items;
    int head, count;
} Fifo;

struct ShoalPipe {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int n;
    Fifo free, ready;
    bool closed;
    ShoalError error;
};

static void put(const ShoalPipe *pipe, Fifo *fifo, int item) {
    fifo->items[(fifo->head + fifo->count++) % pipe->n] = item;
}

static int get(const ShoalPipe *pipe, Fifo *fifo) {
    int item = fifo->items[fifo->head];
    fifo->head = (fifo->head + 1) % pipe->n;
    fifo->count--;
    return item;
}

ShoalPipe *shoal_pipe_create(int n) {
    ShoalPipe *pipe = shoal_calloc(1, sizeof *pipe);
    if (!pipe)
        return NULL;
    pthread_mutex_init(&pipe->lock, NULL);
    pthread_cond_init(&pipe->changed, NULL);
    pipe->n = n;
    pipe->free.items = shoal_calloc((size_t)n, sizeof(int));
    pipe->ready.items = shoal_calloc((size_t)n, sizeof(int));
    if (!pipe->free.items || !pipe->ready.items) {
        shoal_pipe_destroy(pipe);
        return NULL;
    }
    for (int i = 0; i < n; i++)
        put(pipe, &pipe->free, i);
    return pipe;
}

void shoal_pipe_destroy(ShoalPipe *pipe) {
    if (!pipe)
        return;
    pthread_cond_destroy(&pipe->changed);
    pthread_mutex_destroy(&pipe->lock);
    shoal_free(pipe->free.items);
    shoal_free(pipe->ready.items);
    shoal_free(pipe);
}

int shoal_pipe_take(ShoalPipe *pipe, bool wait) {
    pthread_mutex_lock(&pipe->lock);
    while (wait && !pipe->closed && pipe->free.count == 0)
        pthread_cond_wait(&pipe->changed, &pipe->lock);
    int item = !pipe->closed && pipe->free.count ? get(pipe, &pipe->free) : -1;
    pthread_mutex_unlock(&pipe->lock);
    return item;
}

void shoal_pipe_push(ShoalPipe *pipe, int item) {
    pthread_mutex_lock(&pipe->lock);
    put(pipe, &pipe->ready, item);
    pthread_cond_broadcast(&pipe->changed);
    pthread_mutex_unlock(&pipe->lock);
}

int shoal_pipe_pop(ShoalPipe *pipe) {
    pthread_mutex_lock(&pipe->lock);
    while (!pipe->closed && pipe->ready.count == 0)
        pthread_cond_wait(&pipe->changed, &pipe->lock);
    int item = pipe->ready.count ? get(pipe, &pipe->ready) : -1;
    pthread_mutex_unlock(&pipe->lock);
    return item;
}

void shoal_pipe_recycle(ShoalPipe *pipe, int item) {
    pthread_mutex_lock(&pipe->lock);
    put(pipe, &pipe->free, item);
    pthread_cond_broadcast(&pipe->changed);
    pthread_mutex_unlock(&pipe->lock);
}

void shoal_pipe_close(ShoalPipe *pipe, const ShoalError *err) {
    pthread_mutex_lock(&pipe->lock);
    pipe->closed = true;
    if (err && err->status != SHOAL_OK) {
        if (pipe->error.status == SHOAL_OK)
            pipe->error = *err;
        pipe->ready.count = 0;
    }
    pthread_cond_broadcast(&pipe->changed);
    pthread_mutex_unlock(&pipe->lock);
}

ShoalStatus shoal_pipe_error(ShoalPipe *pipe, ShoalError *err) {
    pthread_mutex_lock(&pipe->lock);
    ShoalError error = pipe->error;
    pthread_mutex_unlock(&pipe->lock);
    return error.status == SHOAL_OK ? SHOAL_OK
                                    : shoal_error_set(err, error.status, "%s", error.text);
}
