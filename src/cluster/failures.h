/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CLUSTER_FAILURES_H
#define SHOAL_CLUSTER_FAILURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Which worker failed how often within the last hour. A worker is known by its name and address: it
 * comes back over another connection, often as another process. No clock: the caller says when. */

#define SHOAL_FAILURES_HOUR_MS 3600000u
#define SHOAL_FAILURES_MAX 65536u /* more than that within an hour: the oldest are forgotten */

typedef struct ShoalFailure {
    uint64_t who, at_ms;
} ShoalFailure;

typedef struct ShoalFailures {
    ShoalFailure *log; /* [capacity], a ring, oldest first */
    size_t capacity, head, count;
} ShoalFailures;

/* A number for "name@address": 64 bits, so two workers do not share one by chance. */
uint64_t shoal_failures_identity(const char *name, const char *address);

/* Notes a failure; times do not go back. false: no memory, and it is not noted. */
bool shoal_failures_note(ShoalFailures *failures, uint64_t who, uint64_t at_ms);

/* How often `who` has failed within the hour before now_ms, and how long until it is no more than
 * `most` times (0: it is so now). */
unsigned shoal_failures_count(const ShoalFailures *failures, uint64_t who, uint64_t now_ms,
                              unsigned most, uint64_t *wait_ms);

/* How long after its last failure `who` has to wait, when each one within the hour doubles the
 * pause: 1 s, 2 s, 4 s ... 5 minutes. */
uint64_t shoal_failures_pause(const ShoalFailures *failures, uint64_t who, uint64_t now_ms);

void shoal_failures_close(ShoalFailures *failures);

#endif
