/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CAFFE_HDF5_H
#define SHOAL_CAFFE_HDF5_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/status.h"

/* Caffe's HDF5 files, through libhdf5, which nothing else here calls. A build without that library
 * answers SHOAL_ERR_UNSUPPORTED. Thread-safe: one call at a time is inside the library.
 *
 * Of a file that is read nothing is believed: sizes are held against the size of the file before
 * there is memory for them, and a file cannot name others (external links, external or virtual
 * datasets are refused). Errors of all that read: SHOAL_ERR_IO (no such file, no permission),
 * SHOAL_ERR_DATA (not HDF5, damaged, another layout or type), SHOAL_ERR_MEMORY. */

enum { SHOAL_HDF5_AXES = 32 }; /* as many as HDF5 and Caffe's blobs have at most */

/* As Caffe decides which weights and states are HDF5: the name ends in ".h5". */
bool shoal_hdf5_is_name(const char *name);

/* ---- snapshots ---- */

/* What Net::ToHDF5 and SGDSolver::SnapshotSolverStateToHDF5 write, as the bytes of a NetParameter
 * or a SolverState (shoal_calloc storage). The layers of such a net have names and blobs, nothing
 * else: an HDF5 file knows no types. A blob that the file leaves out, since it is shared and stored
 * with another layer, has neither shape nor values. */
ShoalStatus shoal_hdf5_read_net(const char *path, void **bytes, size_t *size, ShoalError *err);
ShoalStatus shoal_hdf5_read_state(const char *path, void **bytes, size_t *size, ShoalError *err);

/* The other way: from the bytes of a message to those of an HDF5 file (shoal_calloc storage). With
 * diffs, where the blobs have any. SHOAL_ERR_UNSUPPORTED: HDF5 cannot hold the name of a layer. */
ShoalStatus shoal_hdf5_from_net(const void *net, size_t net_size, void **bytes, size_t *size,
                                ShoalError *err);
ShoalStatus shoal_hdf5_from_state(const void *state, size_t state_size, void **bytes, size_t *size,
                                  ShoalError *err);

/* Can it be the name of a group: not empty, not ".", no '/'? */
bool shoal_hdf5_holds_name(const char *name);

/* ---- rows ---- */

/* Some datasets of one file, read row by row (axis 0). */
typedef struct ShoalHdf5Rows ShoalHdf5Rows;

/* All of names[n] have the same number of rows; SHOAL_ERR_DATA if not, or if one has no axis. */
ShoalStatus shoal_hdf5_rows_open(const char *path, const char *const *names, int n,
                                 ShoalHdf5Rows **out, ShoalError *err);
void shoal_hdf5_rows_close(ShoalHdf5Rows *rows); /* NULL is fine */
uint64_t shoal_hdf5_rows_count(const ShoalHdf5Rows *rows);
/* The shape of a row of dataset i: dims[0..*axes), up to SHOAL_HDF5_AXES - 1; returns the number of
 * its values, at most 2^31 - 1. */
size_t shoal_hdf5_rows_shape(const ShoalHdf5Rows *rows, int i, int *axes, int *dims);
/* How many rows of dataset i are stored together: read multiples of that. 1: no matter. */
uint64_t shoal_hdf5_rows_chunk(const ShoalHdf5Rows *rows, int i);
/* Rows first..first + n - 1 of dataset i into values, as float32: floats and integers of any size
 * are converted, as in Caffe. */
ShoalStatus shoal_hdf5_rows_read(const ShoalHdf5Rows *rows, int i, uint64_t first, uint64_t n,
                                 float *values, ShoalError *err);

/* ---- output ---- */

typedef struct ShoalHdf5Writer ShoalHdf5Writer;

/* A new file; an older one of that name is gone. SHOAL_ERR_IO. */
ShoalStatus shoal_hdf5_writer_create(const char *path, ShoalHdf5Writer **out, ShoalError *err);
/* float32 values of shape dims[axes] behind those that the dataset has (axis 0); what is written
 * stays readable if the process dies. SHOAL_ERR_IO (disk full); SHOAL_ERR_ARGUMENT (other rows than
 * before). */
ShoalStatus shoal_hdf5_writer_append(ShoalHdf5Writer *writer, const char *name, int axes,
                                     const int *dims, const float *values, ShoalError *err);
void shoal_hdf5_writer_close(ShoalHdf5Writer *writer); /* NULL is fine */

#endif
