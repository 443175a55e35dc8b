/* SPDX-License-Identifier: Apache-2.0 */
#include "caffe/hdf5.h"

#include <string.h>

#include "base/error.h"

bool shoal_hdf5_is_name(const char *name) {
    size_t length = strlen(name);
    return length >= 3 && !strcmp(name + length - 3, ".h5");
}

bool shoal_hdf5_holds_name(const char *name) {
    return name[0] && strcmp(name, ".") != 0 && !strchr(name, '/');
}

#ifdef SHOAL_HDF5

#include "base/memory.h"
#include "caffe/hdf5_source.h"

enum { WRITE_CHUNK_BYTES = 1 << 18 };

/* ---- rows ---- */

struct ShoalHdf5Rows {
    ShoalHdf5Source source;
    char *path;
    int n;
    uint64_t count;
    ShoalHdf5Dataset datasets[];
};

static void close_rows(ShoalHdf5Rows *rows) {
    for (int i = 0; i < rows->n; i++)
        H5Dclose(rows->datasets[i].id);
    if (rows->source.file >= 0)
        H5Fclose(rows->source.file);
}

static ShoalStatus open_rows(ShoalHdf5Rows *rows, const char *const *names, int n,
                             ShoalError *err) {
    unsigned long long cost;
    ShoalStatus status = SHOAL_OK;
    for (int i = 0; i < n && !status; i++) {
        ShoalHdf5Dataset *dataset = &rows->datasets[i];
        status = shoal_hdf5_dataset_open(&rows->source, rows->source.file, names[i], dataset, &cost,
                                         err);
        if (status)
            return status;
        rows->n++;
        if (!dataset->axes)
            status = shoal_hdf5_refuse(&rows->source, names[i], "has no axis, so no rows", err);
        else if (dataset->dims[0] != rows->datasets[0].dims[0])
            status = shoal_error_set(err, SHOAL_ERR_DATA,
                                     "%s: dataset '%s' has %llu rows, '%s' %llu; expected as many",
                                     rows->path, names[i], (unsigned long long)dataset->dims[0],
                                     names[0], (unsigned long long)rows->datasets[0].dims[0]);
    }
    rows->count = status || !n ? 0 : rows->datasets[0].dims[0];
    return status;
}

ShoalStatus shoal_hdf5_rows_open(const char *path, const char *const *names, int n,
                                 ShoalHdf5Rows **out, ShoalError *err) {
    ShoalHdf5Rows *rows = shoal_calloc(1, sizeof *rows + (size_t)n * sizeof rows->datasets[0]);
    char *copy = rows ? shoal_strdup(path) : NULL;
    if (!copy) {
        shoal_free(rows);
        return shoal_error_memory(err, path, sizeof *rows);
    }
    rows->path = copy;
    rows->source.file = -1;
    shoal_hdf5_enter();
    ShoalStatus status = shoal_hdf5_source_open(copy, &rows->source, err);
    if (!status)
        status = open_rows(rows, names, n, err);
    shoal_hdf5_leave();
    if (status)
        shoal_hdf5_rows_close(rows);
    else
        *out = rows;
    return status;
}

void shoal_hdf5_rows_close(ShoalHdf5Rows *rows) {
    if (!rows)
        return;
    shoal_hdf5_enter();
    close_rows(rows);
    shoal_hdf5_leave();
    shoal_free(rows->path);
    shoal_free(rows);
}

uint64_t shoal_hdf5_rows_count(const ShoalHdf5Rows *rows) {
    return rows->count;
}

size_t shoal_hdf5_rows_shape(const ShoalHdf5Rows *rows, int i, int *axes, int *dims) {
    const ShoalHdf5Dataset *dataset = &rows->datasets[i];
    *axes = dataset->axes - 1;
    for (int a = 1; a < dataset->axes; a++)
        dims[a - 1] = (int)dataset->dims[a];
    return (size_t)dataset->row_values;
}

uint64_t shoal_hdf5_rows_chunk(const ShoalHdf5Rows *rows, int i) {
    return rows->datasets[i].chunk_rows;
}

/* The part of a dataset's space from row `first` on. */
static hid_t select_rows(const ShoalHdf5Dataset *dataset, uint64_t first, uint64_t n) {
    hsize_t start[SHOAL_HDF5_AXES] = {first}, count[SHOAL_HDF5_AXES];
    memcpy(count, dataset->dims, sizeof count);
    count[0] = n;
    hid_t space = H5Dget_space(dataset->id);
    if (space >= 0 && H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) < 0) {
        H5Sclose(space);
        return -1;
    }
    return space;
}

ShoalStatus shoal_hdf5_rows_read(const ShoalHdf5Rows *rows, int i, uint64_t first, uint64_t n,
                                 float *values, ShoalError *err) {
    const ShoalHdf5Dataset *dataset = &rows->datasets[i];
    if (first > rows->count || n > rows->count - first)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "%s: rows %llu to %llu of %llu", rows->path,
                               (unsigned long long)first, (unsigned long long)(first + n),
                               (unsigned long long)rows->count);
    shoal_hdf5_enter();
    hsize_t length = n * dataset->row_values;
    hid_t from = select_rows(dataset, first, n), to = H5Screate_simple(1, &length, NULL);
    bool good = from >= 0 && to >= 0 &&
                H5Dread(dataset->id, H5T_NATIVE_FLOAT, to, from, H5P_DEFAULT, values) >= 0;
    if (from >= 0)
        H5Sclose(from);
    if (to >= 0)
        H5Sclose(to);
    shoal_hdf5_leave();
    return good ? SHOAL_OK
                : shoal_error_set(err, SHOAL_ERR_DATA,
                                  "%s: rows %llu to %llu cannot be read; the "
                                  "file is damaged or cut off",
                                  rows->path, (unsigned long long)first,
                                  (unsigned long long)(first + n));
}

/* ---- output ---- */

struct ShoalHdf5Writer {
    hid_t file;
    char *path;
    bool failed; /* to write: then it is left alone, for libhdf5 crashes where it tries again */
};

ShoalStatus shoal_hdf5_writer_create(const char *path, ShoalHdf5Writer **out, ShoalError *err) {
    ShoalHdf5Writer *writer = shoal_calloc(1, sizeof *writer);
    char *copy = writer ? shoal_strdup(path) : NULL;
    if (!copy) {
        shoal_free(writer);
        return shoal_error_memory(err, path, sizeof *writer);
    }
    shoal_hdf5_enter();
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    shoal_hdf5_leave();
    *writer = (ShoalHdf5Writer){.file = file, .path = copy};
    if (file >= 0) {
        *out = writer;
        return SHOAL_OK;
    }
    shoal_hdf5_writer_close(writer);
    return shoal_error_set(
        err, SHOAL_ERR_IO,
        "%s: cannot create: does the folder exist, may it be written, and is the "
        "file open elsewhere?",
        path);
}

void shoal_hdf5_writer_close(ShoalHdf5Writer *writer) {
    if (!writer)
        return;
    shoal_hdf5_enter();
    if (writer->file >= 0 && !writer->failed)
        H5Fclose(writer->file);
    shoal_hdf5_leave();
    shoal_free(writer->path);
    shoal_free(writer);
}

/* Without rows yet; they come in chunks, since it grows. */
static hid_t create_growing(hid_t file, const char *name, int axes, const hsize_t *dims) {
    hsize_t now[SHOAL_HDF5_AXES], most[SHOAL_HDF5_AXES], chunk[SHOAL_HDF5_AXES];
    hsize_t row_bytes = sizeof(float);
    for (int i = 0; i < axes; i++) {
        now[i] = most[i] = dims[i];
        chunk[i] = dims[i] ? dims[i] : 1;
        row_bytes *= i ? chunk[i] : 1;
    }
    now[0] = 0;
    most[0] = H5S_UNLIMITED;
    hsize_t fitting = WRITE_CHUNK_BYTES / row_bytes;
    chunk[0] = fitting < 1 ? 1 : fitting < chunk[0] ? fitting : chunk[0];
    hid_t list = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(axes, now, most);
    hid_t id = list >= 0 && space >= 0 && H5Pset_chunk(list, axes, chunk) >= 0
                   ? H5Dcreate2(file, name, H5T_NATIVE_FLOAT, space, H5P_DEFAULT, list, H5P_DEFAULT)
                   : -1;
    if (list >= 0)
        H5Pclose(list);
    if (space >= 0)
        H5Sclose(space);
    return id;
}

static bool write_rows(hid_t id, const ShoalHdf5Dataset *old, int axes, const hsize_t *dims,
                       const float *values) {
    ShoalHdf5Dataset grown = *old;
    hsize_t count = 1;
    for (int i = 0; i < axes; i++)
        count *= dims[i];
    grown.dims[0] = old->dims[0] + dims[0];
    if (H5Dset_extent(id, grown.dims) < 0)
        return false;
    hid_t to = select_rows(&grown, old->dims[0], dims[0]), from = H5Screate_simple(1, &count, NULL);
    bool good =
        to >= 0 && from >= 0 && H5Dwrite(id, H5T_NATIVE_FLOAT, from, to, H5P_DEFAULT, values) >= 0;
    if (from >= 0)
        H5Sclose(from);
    if (to >= 0)
        H5Sclose(to);
    return good;
}

static ShoalStatus append_rows(ShoalHdf5Writer *writer, hid_t id, const char *name, int axes,
                               const hsize_t *dims, const float *values, ShoalError *err) {
    ShoalHdf5Source source = {.path = writer->path};
    ShoalHdf5Dataset old = {.id = id};
    ShoalStatus status = shoal_hdf5_dataset_shape(&source, name, &old, err);
    if (status)
        return status;
    if (old.axes != axes || memcmp(old.dims + 1, dims + 1, (size_t)(axes - 1) * sizeof *dims) != 0)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "%s: the rows of dataset '%s' have another shape than those before",
                               writer->path, name);
    if (write_rows(id, &old, axes, dims, values) && H5Fflush(writer->file, H5F_SCOPE_LOCAL) >= 0)
        return SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot write %llu rows; is the disk full?",
                           writer->path, (unsigned long long)dims[0]);
}

ShoalStatus shoal_hdf5_writer_append(ShoalHdf5Writer *writer, const char *name, int axes,
                                     const int *dims, const float *values, ShoalError *err) {
    hsize_t sizes[SHOAL_HDF5_AXES];
    if (axes < 1 || axes > SHOAL_HDF5_AXES)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "%s: a blob of %d axes, expected 1 to %d",
                               writer->path, axes, SHOAL_HDF5_AXES);
    for (int i = 0; i < axes; i++)
        sizes[i] = (hsize_t)dims[i];
    shoal_hdf5_enter();
    hid_t id = writer->failed ? -1
               : H5Lexists(writer->file, name, H5P_DEFAULT) > 0
                   ? H5Dopen2(writer->file, name, H5P_DEFAULT)
                   : create_growing(writer->file, name, axes, sizes);
    ShoalStatus status =
        id < 0
            ? shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot write dataset '%s'; is the disk full?",
                              writer->path, name)
            : append_rows(writer, id, name, axes, sizes, values, err);
    writer->failed |= status == SHOAL_ERR_IO;
    if (id >= 0 && !writer->failed)
        H5Dclose(id);
    shoal_hdf5_leave();
    return status;
}

#else

static ShoalStatus lacking(const char *path, ShoalError *err) {
    return shoal_error_set(
        err, SHOAL_ERR_UNSUPPORTED,
        "%s: this build of shoal has no HDF5; use snapshot_format: BINARYPROTO and "
        "an LMDB, or a build for a computer",
        path);
}

ShoalStatus shoal_hdf5_read_net(const char *path, void **bytes, size_t *size, ShoalError *err) {
    (void)bytes;
    (void)size;
    return lacking(path, err);
}

ShoalStatus shoal_hdf5_read_state(const char *path, void **bytes, size_t *size, ShoalError *err) {
    (void)bytes;
    (void)size;
    return lacking(path, err);
}

ShoalStatus shoal_hdf5_from_net(const void *net, size_t net_size, void **bytes, size_t *size,
                                ShoalError *err) {
    (void)net;
    (void)net_size;
    (void)bytes;
    (void)size;
    return lacking("a snapshot", err);
}

ShoalStatus shoal_hdf5_from_state(const void *state, size_t state_size, void **bytes, size_t *size,
                                  ShoalError *err) {
    return shoal_hdf5_from_net(state, state_size, bytes, size, err);
}

ShoalStatus shoal_hdf5_rows_open(const char *path, const char *const *names, int n,
                                 ShoalHdf5Rows **out, ShoalError *err) {
    (void)names;
    (void)n;
    (void)out;
    return lacking(path, err);
}

void shoal_hdf5_rows_close(ShoalHdf5Rows *rows) {
    (void)rows;
}

uint64_t shoal_hdf5_rows_count(const ShoalHdf5Rows *rows) {
    (void)rows;
    return 0;
}

size_t shoal_hdf5_rows_shape(const ShoalHdf5Rows *rows, int i, int *axes, int *dims) {
    (void)rows;
    (void)i;
    (void)dims;
    *axes = 0;
    return 0;
}

uint64_t shoal_hdf5_rows_chunk(const ShoalHdf5Rows *rows, int i) {
    (void)rows;
    (void)i;
    return 1;
}

ShoalStatus shoal_hdf5_rows_read(const ShoalHdf5Rows *rows, int i, uint64_t first, uint64_t n,
                                 float *values, ShoalError *err) {
    (void)rows;
    (void)i;
    (void)first;
    (void)n;
    (void)values;
    return lacking("rows", err);
}

ShoalStatus shoal_hdf5_writer_create(const char *path, ShoalHdf5Writer **out, ShoalError *err) {
    (void)out;
    return lacking(path, err);
}

ShoalStatus shoal_hdf5_writer_append(ShoalHdf5Writer *writer, const char *name, int axes,
                                     const int *dims, const float *values, ShoalError *err) {
    (void)writer;
    (void)axes;
    (void)dims;
    (void)values;
    return lacking(name, err);
}

void shoal_hdf5_writer_close(ShoalHdf5Writer *writer) {
    (void)writer;
}

#endif
