/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_DATASET_KINDS_H
#define SHOAL_DATA_DATASET_KINDS_H

#include "data/dataset.h"
#include "data/feed.h"

/* What a kind of dataset has to bring: one file dataset_NAME.c each, and a row in dataset.c. */

typedef struct ShoalDatasetClass {
    /* record: index is below count. Messages name the dataset and the record. */
    ShoalStatus (*record)(ShoalDataset *dataset, uint64_t index, ShoalRecord *out, ShoalError *err);
    bool (*pick)(const ShoalDataset *dataset, uint64_t seed, uint64_t sample,
                 uint64_t *index); /* NULL: a sampler decides */
    void (*close)(void *state);
    bool keeps; /* records stay where they are until close */
} ShoalDatasetClass;

struct ShoalDataset {
    const ShoalDatasetClass *class;
    char *name; /* for messages */
    uint64_t count;
    void *state; /* of the kind */
};

/* Open what a source names: set class, count and state of a dataset that has its name. On an error
 * nothing is left behind in state. */
typedef ShoalStatus ShoalDatasetOpen(const Caffe__LayerParameter *layer, ShoalDataset *dataset,
                                     ShoalError *err);
ShoalDatasetOpen shoal_dataset_open_lmdb, shoal_dataset_open_images, shoal_dataset_open_windows,
    shoal_dataset_open_hdf5;

/* Of an HDF5Data layer's dataset: the shapes of a row of its tops. */
ShoalStatus shoal_dataset_hdf5_shape(const ShoalDataset *dataset, ShoalRecordShape *out,
                                     ShoalError *err);

/* An LMDB at a path. */
ShoalStatus shoal_dataset_open_lmdb_at(const char *path, ShoalDataset *dataset, ShoalError *err);

#endif
