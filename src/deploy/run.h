/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEPLOY_RUN_H
#define SHOAL_DEPLOY_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "shoal/status.h"

/* Programs of the system, many at once, from one thread. */

typedef struct ShoalRunText {
    char *bytes; /* ends with '\0', and holds no other */
    size_t used, capacity, limit;
} ShoalRunText;

typedef struct ShoalRun {
    pid_t pid; /* 0: none */
    int in, out, err;
    char *input; /* what it reads, own copy; NULL: nothing or a file */
    size_t input_size, input_sent;
    ShoalRunText text, errors; /* what it wrote; what goes beyond the limits is dropped */
    uint64_t deadline_ms;      /* of shoal_clock_ms */
    bool late;                 /* it was ended at its deadline */
    bool ended;
    int code; /* exit code; 128 + number of a signal */
} ShoalRun;

/* argv[0] is looked for in PATH, the last one is NULL. It reads `input`, else the file of the
 * descriptor input_file, else (-1) nothing. SHOAL_ERR_UNSUPPORTED when there is no such program. */
ShoalStatus shoal_run_start(ShoalRun *run, char *const *argv, const char *input, int input_file,
                            unsigned timeout_ms, ShoalError *err);

/* Moves bytes and looks who has ended, for at most wait_ms, less when something happens. Entries
 * without a process are skipped. */
void shoal_run_wait(ShoalRun *const *runs, int n, unsigned wait_ms);

/* Ends it if it runs, and frees what it wrote. */
void shoal_run_close(ShoalRun *run);

#endif
