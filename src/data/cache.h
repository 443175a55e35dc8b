/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_CACHE_H
#define SHOAL_DATA_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/status.h"

/* A worker's store of records that it has received, so that they need not be sent again in the next
 * epoch. In memory, or in a folder that outlives the process. It only grows: what it holds, it
 * holds until it is told to forget; the coordinator knows what that is and plans with it.
 *
 * Nothing in the folder is believed: a file that is cut, damaged, foreign or locked by another
 * process costs what it held, never the run. A record is given out only when its checksum fits.
 *
 * One thread uses a cache. */

#define SHOAL_CACHE_ID_BYTES 16

typedef struct ShoalCache ShoalCache;

/* Names a dataset: of all its records, so that the cache of another dataset is not taken for it. */
typedef struct ShoalFingerprint {
    unsigned char bytes[SHOAL_CACHE_ID_BYTES];
} ShoalFingerprint;

/* folder: made where it is missing; NULL: in memory. limit: most bytes of records and their
 * bookkeeping (up to 71 for each), in all; what a folder holds beyond it is given up, that of the
 * dataset first which was not written for the longest time. Other files in the folder stay as they
 * are. Where another process (or cache) uses the folder, its sub-folder "1" is taken, or "2", ...
 * SHOAL_ERR_IO: the folder cannot be used (the message says why), SHOAL_ERR_MEMORY. */
ShoalStatus shoal_cache_open(const char *folder, uint64_t limit, ShoalCache **cache,
                             ShoalError *err);
void shoal_cache_close(ShoalCache *cache);

/* 16 random bytes that stay with the folder (in memory: with this process). */
const unsigned char *shoal_cache_id(const ShoalCache *cache);
uint64_t shoal_cache_limit(const ShoalCache *cache);
/* Never more than the limit. */
uint64_t shoal_cache_used(const ShoalCache *cache);

/* Stores a record under (dataset, number). False: it is full, or the disk is, or a file stands in
 * the way; the record is not stored, nothing else is harmed. One that is there already stays, and
 * is not read for that. Where a process may only write files up to some size (RLIMIT_FSIZE), ignore
 * SIGXFSZ. */
bool shoal_cache_put(ShoalCache *cache, const ShoalFingerprint *dataset, uint64_t number,
                     const void *bytes, size_t size);

/* *bytes is valid until the next call. False: it is not there, or damaged (and then forgotten). */
bool shoal_cache_get(ShoalCache *cache, const ShoalFingerprint *dataset, uint64_t number,
                     const void **bytes, size_t *size);

/* What is held of a dataset, as ranges in ascending order: first, count, first, count, ... into
 * shoal_calloc storage of the caller; *n numbers (twice the ranges). SHOAL_ERR_MEMORY. */
ShoalStatus shoal_cache_list(ShoalCache *cache, const ShoalFingerprint *dataset, uint64_t **ranges,
                             size_t *n, ShoalError *err);

/* Which datasets there are: *dataset the i-th; false past the end. */
bool shoal_cache_dataset(const ShoalCache *cache, size_t i, ShoalFingerprint *dataset);

/* Gives up all that is held of a dataset, so that there is room for others. */
void shoal_cache_forget(ShoalCache *cache, const ShoalFingerprint *dataset);

#endif
