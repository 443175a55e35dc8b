/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/failures.h"

#include "base/memory.h"

enum { FIRST_PAUSE_MS = 1000, LONGEST_PAUSE_MS = 300000 };

/* FNV-1a: http://www.isthe.com/chongo/tech/comp/fnv/ */
static uint64_t hash_text(uint64_t hash, const char *text) {
    for (; *text; text++)
        hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    return hash;
}

uint64_t shoal_failures_identity(const char *name, const char *address) {
    return hash_text(hash_text(hash_text(14695981039346656037u, name), "@"), address);
}

static const ShoalFailure *entry(const ShoalFailures *failures, size_t i) {
    return &failures->log[(failures->head + i) % failures->capacity];
}

static bool grow(ShoalFailures *failures) {
    size_t capacity = failures->capacity ? failures->capacity * 2 : 64;
    ShoalFailure *log = shoal_calloc(capacity, sizeof(*log));
    if (!log)
        return false;
    for (size_t i = 0; i < failures->count; i++)
        log[i] = *entry(failures, i);
    shoal_free(failures->log);
    failures->log = log;
    failures->capacity = capacity;
    failures->head = 0;
    return true;
}

static void forget_oldest(ShoalFailures *failures) {
    failures->head = (failures->head + 1) % failures->capacity;
    failures->count--;
}

static bool is_recent(const ShoalFailure *failure, uint64_t now_ms) {
    return now_ms - failure->at_ms < SHOAL_FAILURES_HOUR_MS;
}

bool shoal_failures_note(ShoalFailures *failures, uint64_t who, uint64_t at_ms) {
    while (failures->count > 0 && !is_recent(entry(failures, 0), at_ms))
        forget_oldest(failures);
    if (failures->count == SHOAL_FAILURES_MAX)
        forget_oldest(failures);
    if (failures->count == failures->capacity && !grow(failures))
        return false;
    size_t at = (failures->head + failures->count++) % failures->capacity;
    failures->log[at] = (ShoalFailure){who, at_ms};
    return true;
}

unsigned shoal_failures_count(const ShoalFailures *failures, uint64_t who, uint64_t now_ms,
                              unsigned most, uint64_t *wait_ms) {
    unsigned count = 0;
    *wait_ms = 0;
    /* From the newest on: the first one beyond `most` is the last that has to be forgotten. */
    for (size_t i = failures->count; i-- > 0;) {
        const ShoalFailure *failure = entry(failures, i);
        if (failure->who != who || !is_recent(failure, now_ms))
            continue;
        if (count++ == most)
            *wait_ms = failure->at_ms + SHOAL_FAILURES_HOUR_MS - now_ms;
    }
    return count;
}

uint64_t shoal_failures_pause(const ShoalFailures *failures, uint64_t who, uint64_t now_ms) {
    uint64_t pause_ms = 0, last_ms = 0;
    for (size_t i = 0; i < failures->count; i++) {
        const ShoalFailure *failure = entry(failures, i);
        if (failure->who != who || !is_recent(failure, now_ms))
            continue;
        last_ms = failure->at_ms;
        pause_ms = pause_ms == 0                 ? FIRST_PAUSE_MS
                   : pause_ms < LONGEST_PAUSE_MS ? 2 * pause_ms
                                                 : pause_ms;
    }
    if (pause_ms > LONGEST_PAUSE_MS)
        pause_ms = LONGEST_PAUSE_MS;
    return now_ms - last_ms < pause_ms ? pause_ms - (now_ms - last_ms) : 0;
}

void shoal_failures_close(ShoalFailures *failures) {
    shoal_free(failures->log);
    *failures = (ShoalFailures){0};
}
