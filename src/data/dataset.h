/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_DATASET_H
#define SHOAL_DATA_DATASET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "caffe/caffe.pb-c.h"
#include "shoal/status.h"

/* A dataset on disk, read only: what a source layer of a net names. It is a list of records, which
 * are numbered 0, 1, ...; data/feed.h makes samples of them. What it is depends on the layer:
 *   Data        an LMDB whose values are packed Datum messages, as Caffe's convert tools write
 * them, in key order, the order of Caffe's cursor ImageData   a text file with lines "FILE LABEL";
 * a record is a Datum with the bytes of a file WindowData  a text file of images and windows in
 * them; a record is one window (data/windows.h) HDF5Data    a text file with the names of HDF5
 * files; a record is a row of each of its datasets
 *
 * Of an LMDB nothing is written, no lock file either, so folders and media that are read-only work.
 * The price: no process may change the LMDB while it is open here. Cutting the file short while it
 * is open ends the process (SIGBUS), as with every mapped file.
 *
 * The pages are read by a checked walker (data/lmdb_tree.h) instead of liblmdb, which believes
 * every byte: one flipped bit makes it abort the process or read outside of the map. */
typedef struct ShoalDataset ShoalDataset;

/* One record: a packed Datum, or (HDF5Data) little-endian float32 numbers, the row of each top
 * after the other. Not aligned. Valid until the next call for a record: that of an LMDB points into
 * the map of the file. */
typedef struct ShoalRecord {
    const void *bytes;
    size_t size;
} ShoalRecord;

/* Opens the LMDB at path: the folder with data.mdb in it, or the file itself. Errors:
 * SHOAL_ERR_IO (missing, no permission), SHOAL_ERR_DATA (not an LMDB, cut short, damaged at its
 * head, no records), SHOAL_ERR_UNSUPPORTED (a LevelDB), SHOAL_ERR_MEMORY. *out is the caller's,
 * for shoal_dataset_close. */
ShoalStatus shoal_dataset_open(const char *path, ShoalDataset **out, ShoalError *err);

/* Opens what a source layer reads. Errors: as above; SHOAL_ERR_MODEL (no source), and
 * SHOAL_ERR_UNSUPPORTED for a kind that this build lacks. */
ShoalStatus shoal_dataset_open_for(const Caffe__LayerParameter *layer, ShoalDataset **out,
                                   ShoalError *err);

/* Is it a layer that a dataset feeds: Data, ImageData, WindowData or HDF5Data? */
bool shoal_dataset_feeds(const Caffe__LayerParameter *layer);

/* What tells the dataset of one such layer from that of another, without opening it: layers with
 * the same one read the same records. Also shown to users. shoal_calloc storage of the caller; NULL
 * when memory is short or the layer is none that a dataset feeds; "" when it names no source. */
char *shoal_dataset_name_for(const Caffe__LayerParameter *layer);

/* NULL is fine. */
void shoal_dataset_close(ShoalDataset *dataset);

/* How many records there are; at least 1. */
uint64_t shoal_dataset_count(const ShoalDataset *dataset);

/* Its name (shoal_dataset_name_for), or the path that was given; valid until it is closed. */
const char *shoal_dataset_name(const ShoalDataset *dataset);

/* Record number index. The same and the next one take constant time; another position at most the
 * steps over the pages of some thousand records, where that part was read before. Moves the
 * dataset's one cursor: one thread at a time; records given before stay valid where
 * shoal_dataset_keeps says so. Errors: SHOAL_ERR_ARGUMENT (index not below the count),
 * SHOAL_ERR_DATA (a damaged page; names dataset and record). */
ShoalStatus shoal_dataset_record(ShoalDataset *dataset, uint64_t index, ShoalRecord *out,
                                 ShoalError *err);

/* Whether records stay valid until the dataset is closed (LMDB), not only until the next one. */
bool shoal_dataset_keeps(const ShoalDataset *dataset);

/* Of a dataset that decides itself which record is sample number n of a run with a seed
 * (WindowData): puts it into *index and returns true. A pure function, for all machines the same.
 */
bool shoal_dataset_pick(const ShoalDataset *dataset, uint64_t seed, uint64_t sample,
                        uint64_t *index);

#endif
