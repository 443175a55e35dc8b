/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_DATASET_H
#define SHOAL_DATA_DATASET_H

#include <stddef.h>
#include <stdint.h>

#include "shoal/status.h"

/* A dataset on disk: an LMDB whose values are packed Datum messages, as Caffe's convert tools write
 * them, read only. Records are numbered 0, 1, ... in key order, the order of Caffe's cursor.
 *
 * Nothing is written, no lock file either, so folders and media that are read-only work. The price:
 * no process may change the LMDB while it is open here. Cutting the file short while it is open
 * ends the process (SIGBUS), as with every mapped file.
 *
 * The pages are read by a checked walker (data/lmdb_tree.h) instead of liblmdb, which believes
 * every byte: one flipped bit makes it abort the process or read outside of the map. */
typedef struct ShoalDataset ShoalDataset;

/* One record: a packed Datum. Points into the map of the file: valid until the dataset is closed;
 * not aligned. */
typedef struct ShoalRecord {
    const void *bytes;
    size_t size;
} ShoalRecord;

/* Opens the LMDB at path: the folder with data.mdb in it, or the file itself. Errors:
 * SHOAL_ERR_IO (missing, no permission), SHOAL_ERR_DATA (not an LMDB, cut short, damaged at its
 * head, no records), SHOAL_ERR_UNSUPPORTED (a LevelDB), SHOAL_ERR_MEMORY. *out is the caller's,
 * for shoal_dataset_close. */
ShoalStatus shoal_dataset_open(const char *path, ShoalDataset **out, ShoalError *err);

/* NULL is fine. */
void shoal_dataset_close(ShoalDataset *dataset);

/* How many records there are; at least 1. */
uint64_t shoal_dataset_count(const ShoalDataset *dataset);

/* The path as it was given, for messages; valid until the dataset is closed. */
const char *shoal_dataset_path(const ShoalDataset *dataset);

/* Record number index. The same and the next one take constant time; another position at most the
 * steps over the pages of some thousand records, where that part was read before. Moves the dataset's one
 * cursor: one thread at a time; records given before stay valid. Errors: SHOAL_ERR_ARGUMENT (index
 * not below the count), SHOAL_ERR_DATA (a damaged page; names dataset and record). */
ShoalStatus shoal_dataset_record(ShoalDataset *dataset, uint64_t index, ShoalRecord *out,
                                 ShoalError *err);

#endif
