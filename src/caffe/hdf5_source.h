/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CAFFE_HDF5_SOURCE_H
#define SHOAL_CAFFE_HDF5_SOURCE_H

#ifdef SHOAL_HDF5

#include <hdf5.h>

#include "caffe/hdf5.h"

/* HDF5 files of others, checked before libhdf5 is asked for what is in them. Inside of the files of
 * caffe/hdf5.h only. */

/* One thread at a time is in the library; between these two, it is this one. */
void shoal_hdf5_enter(void);
void shoal_hdf5_leave(void);

typedef struct ShoalHdf5Source {
    const char *path;
    hid_t file;
    unsigned long long bytes;  /* of the file */
    unsigned long long budget; /* what its datasets may take yet, in deflated bytes */
} ShoalHdf5Source;

/* The caller closes source->file. path is kept. */
ShoalStatus shoal_hdf5_source_open(const char *path, ShoalHdf5Source *source, ShoalError *err);

typedef struct ShoalHdf5Dataset {
    hid_t id;
    int axes;
    hsize_t dims[SHOAL_HDF5_AXES];
    unsigned long long values, row_values;
    hsize_t chunk_rows; /* 1 where rows are not stored in chunks */
} ShoalHdf5Dataset;

/* Opens a dataset of numbers whose shape its file can hold; the caller closes out->id. *cost: what
 * all of it takes of a source's budget. */
ShoalStatus shoal_hdf5_dataset_open(const ShoalHdf5Source *source, hid_t in, const char *name,
                                    ShoalHdf5Dataset *out, unsigned long long *cost,
                                    ShoalError *err);

/* Its parts, for a dataset of something else: is there one, its shape, and whether `bytes` for each
 * value are stored in the file. */
bool shoal_hdf5_is_dataset(hid_t in, const char *name);
ShoalStatus shoal_hdf5_dataset_shape(const ShoalHdf5Source *source, const char *name,
                                     ShoalHdf5Dataset *out, ShoalError *err);
ShoalStatus shoal_hdf5_dataset_storage(const ShoalHdf5Source *source, const char *name,
                                       ShoalHdf5Dataset *out, size_t bytes,
                                       unsigned long long *cost, ShoalError *err);

/* "PATH: dataset 'NAME' WHAT". */
ShoalStatus shoal_hdf5_refuse(const ShoalHdf5Source *source, const char *name, const char *what,
                              ShoalError *err);

#endif
#endif
