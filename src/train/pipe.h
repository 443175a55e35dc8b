/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_PIPE_H
#define SHOAL_TRAIN_PIPE_H

#include <stdbool.h>

#include "shoal/status.h"

/* Hands numbered items (0 .. n-1) from one thread to another and back: free items go to the
 * producer, ready ones, in order, to the consumer. */
typedef struct ShoalPipe ShoalPipe;

/* All items begin free. NULL when memory is short. */
ShoalPipe *shoal_pipe_create(int n);
void shoal_pipe_destroy(ShoalPipe *pipe);

/* Producer: a free item; waits for one (wait true) or not; -1: none, or the pipe is closed. */
int shoal_pipe_take(ShoalPipe *pipe, bool wait);
void shoal_pipe_push(ShoalPipe *pipe, int item);

/* Consumer: the next ready item; -1 when the pipe is closed and empty. */
int shoal_pipe_pop(ShoalPipe *pipe);
void shoal_pipe_recycle(ShoalPipe *pipe, int item);

/* Either side: nothing more comes. With an error the ready items are dropped and the error kept
 * (the first one wins); err NULL or empty: the items that are ready are still given out. */
void shoal_pipe_close(ShoalPipe *pipe, const ShoalError *err);

/* The error that the pipe was closed with; SHOAL_OK if none. */
ShoalStatus shoal_pipe_error(ShoalPipe *pipe, ShoalError *err);

#endif
