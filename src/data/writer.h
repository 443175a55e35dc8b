/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_WRITER_H
#define SHOAL_DATA_WRITER_H

#include <stddef.h>

#include "shoal/status.h"

/* Writes a new LMDB, for this program and for Caffe.
 *
 * Everything goes into the folder "PATH.tmp" beside it, which becomes PATH in the very last step:
 * at any instant, crash and full disk included, PATH is whole or not there. A PATH.tmp that a
 * killed process left behind is overwritten; one that a live process writes is an error. */
typedef struct ShoalDatasetWriter ShoalDatasetWriter;

/* Starts a new LMDB at path. Errors: SHOAL_ERR_IO (something is there already, another process
 * writes it, no permission, no parent folder), SHOAL_ERR_MEMORY. *out is the caller's: it ends with
 * shoal_dataset_writer_close or shoal_dataset_writer_discard. */
ShoalStatus shoal_dataset_writer_create(const char *path, ShoalDatasetWriter **out,
                                        ShoalError *err);

/* Adds a record (both parts are copied). Records are ordered by key, bytewise. Commits by itself
 * every 1000 records, as Caffe does, or 64 MB. Keys have 1 to 511 bytes. Errors: SHOAL_ERR_ARGUMENT
 * (key size, a value beyond 2 GB), SHOAL_ERR_DATA (a key twice; may come as late as the commit),
 * SHOAL_ERR_IO (disk full, ...), SHOAL_ERR_MEMORY. After an error only close and discard make
 * sense; both remove all that was written. */
ShoalStatus shoal_dataset_writer_put(ShoalDatasetWriter *writer, const void *key, size_t key_size,
                                     const void *value, size_t size, ShoalError *err);

/* Writes the records that are pending. Errors as shoal_dataset_writer_put. */
ShoalStatus shoal_dataset_writer_commit(ShoalDatasetWriter *writer, ShoalError *err);

/* Commits, brings all to the disk, gives the folder its name and frees the writer, whatever comes
 * out. On any error, one of an earlier put included, nothing is left on disk. */
ShoalStatus shoal_dataset_writer_close(ShoalDatasetWriter *writer, ShoalError *err);

/* Gives up: removes what was written and frees the writer. NULL is fine. */
void shoal_dataset_writer_discard(ShoalDatasetWriter *writer);

#endif
