/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_CHILDREN_H
#define SHOAL_TRAIN_CHILDREN_H

#include <stdbool.h>
#include <sys/types.h>

#include "shoal/shoal.h"

/* Worker processes that a coordinator starts on its own machine. They are out of the terminal's
 * process group, so Ctrl-C reaches the coordinator alone, and they end when it ends, however. */
typedef struct ShoalChildren {
    pid_t *pids; /* 0: has ended */
    int count;
} ShoalChildren;

/* Starts `count` times `program worker --join=JOIN --threads=THREADS` with the token in
 * its environment, and those of --cpu, --plan and the like that `engine` asks for (its threads
 * are not looked at). program NULL: the running program. */
ShoalStatus shoal_children_start(const char *program, int count, const char *join,
                                 const char *token, int threads, const ShoalEngineOptions *engine,
                                 ShoalChildren *children, ShoalError *err);

/* Has one ended? Then its number (from 0) and how ("exit code 1", "signal 9") in how[0..size). */
int shoal_children_ended(ShoalChildren *children, char *how, size_t size);

/* Waits up to patience_ms for all to end, then kills those that have not. */
void shoal_children_finish(ShoalChildren *children, unsigned patience_ms);

#endif
