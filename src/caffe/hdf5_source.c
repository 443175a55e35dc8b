/* SPDX-License-Identifier: Apache-2.0 */
#include "caffe/hdf5_source.h"

#ifdef SHOAL_HDF5

#include <limits.h>
#include <pthread.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"

/* Deflate makes at most 1032 bytes of one (zlib's technical details: "maximum compression factor").
 */
static const unsigned long long MOST_DEFLATED = 1032;

/* ---- one call at a time ---- */

static pthread_mutex_t in_library = PTHREAD_MUTEX_INITIALIZER;

void shoal_hdf5_enter(void) {
    static bool begun;
    pthread_mutex_lock(&in_library);
    if (!begun)
        H5dont_atexit(); /* else it would write again what could not be written: on a full disk, a
                            crash */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* of this thread: no traces on stderr */
    if (!begun)
        H5Lunregister(H5L_TYPE_EXTERNAL); /* a file must not make us open others */
    begun = true;
}

void shoal_hdf5_leave(void) {
    pthread_mutex_unlock(&in_library);
}

/* ---- files that are read ---- */

ShoalStatus shoal_hdf5_source_open(const char *path, ShoalHdf5Source *source, ShoalError *err) {
    size_t size;
    ShoalStatus status = shoal_file_size(path, &size, err);
    if (status)
        return status;
    if (size > ULLONG_MAX / MOST_DEFLATED / 16)
        return shoal_error_set(err, SHOAL_ERR_DATA, "%s: too large", path);
    *source = (ShoalHdf5Source){.path = path, .bytes = size, .budget = size * MOST_DEFLATED};
    source->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (source->file >= 0)
        return SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_DATA, "%s: %s", path,
                           H5Fis_hdf5(path) > 0 ? "a damaged HDF5 file; is it cut off?"
                                                : "not an HDF5 file");
}

ShoalStatus shoal_hdf5_refuse(const ShoalHdf5Source *source, const char *name, const char *what,
                              ShoalError *err) {
    return shoal_error_set(err, SHOAL_ERR_DATA, "%s: dataset '%s' %s", source->path, name, what);
}

/* IEEE half precision, as NumPy's float16 is stored. */
static bool is_half(hid_t type) {
    hid_t half = H5Tcopy(H5T_IEEE_F32LE);
    bool same = half >= 0 && H5Tset_fields(half, 15, 10, 5, 0, 10) >= 0 &&
                H5Tset_size(half, 2) >= 0 && H5Tset_ebias(half, 15) >= 0 &&
                H5Tequal(type, half) > 0;
    if (half >= 0)
        H5Tclose(half);
    return same;
}

/* Caffe takes the classes float and integer (hdf5_load_nd_dataset_helper). A damaged description of
 * a type must not reach the library's converters: only those that computers have. */
static bool is_number(hid_t type) {
    const hid_t known[] = {H5T_IEEE_F32LE, H5T_IEEE_F32BE, H5T_IEEE_F64LE, H5T_IEEE_F64BE,
                           H5T_STD_I8LE,   H5T_STD_I8BE,   H5T_STD_I16LE,  H5T_STD_I16BE,
                           H5T_STD_I32LE,  H5T_STD_I32BE,  H5T_STD_I64LE,  H5T_STD_I64BE,
                           H5T_STD_U8LE,   H5T_STD_U8BE,   H5T_STD_U16LE,  H5T_STD_U16BE,
                           H5T_STD_U32LE,  H5T_STD_U32BE,  H5T_STD_U64LE,  H5T_STD_U64BE};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (H5Tequal(type, known[i]) > 0)
            return true;
    return is_half(type);
}

static ShoalStatus check_type(const ShoalHdf5Source *source, const char *name, hid_t id,
                              size_t *bytes, ShoalError *err) {
    hid_t type = H5Dget_type(id);
    bool number = type >= 0 && is_number(type);
    *bytes = number ? H5Tget_size(type) : 0;
    if (type >= 0)
        H5Tclose(type);
    return number ? SHOAL_OK
                  : shoal_hdf5_refuse(source, name,
                                      "holds no plain numbers; expected floats or integers", err);
}

ShoalStatus shoal_hdf5_dataset_shape(const ShoalHdf5Source *source, const char *name,
                                     ShoalHdf5Dataset *out, ShoalError *err) {
    hid_t space = H5Dget_space(out->id);
    H5S_class_t class = space >= 0 ? H5Sget_simple_extent_type(space) : H5S_NO_CLASS;
    out->axes = class == H5S_SCALAR || class == H5S_SIMPLE
                    ? H5Sget_simple_extent_dims(space, NULL, NULL)
                    : -1;
    bool good = out->axes >= 0 && out->axes <= SHOAL_HDF5_AXES &&
                H5Sget_simple_extent_dims(space, out->dims, NULL) == out->axes;
    if (space >= 0)
        H5Sclose(space);
    if (!good)
        return shoal_hdf5_refuse(source, name, "has no shape", err);
    out->row_values = 1;
    for (int i = 1; i < out->axes; i++) {
        if (out->dims[i] > INT_MAX || out->row_values * out->dims[i] > INT_MAX)
            return shoal_hdf5_refuse(
                source, name, "has more than 2147483647 values; Caffe has no larger blobs", err);
        out->row_values *= out->dims[i];
    }
    if (out->axes && out->dims[0] > LLONG_MAX / ((unsigned long long)INT_MAX * 16))
        return shoal_hdf5_refuse(source, name, "has too many rows", err);
    out->values = out->row_values * (out->axes ? out->dims[0] : 1);
    return SHOAL_OK;
}

/* Filters that come with the library and keep the number of bytes, but for deflate. */
static bool known_filters(hid_t list) {
    int n = H5Pget_nfilters(list);
    for (int i = 0; i < n; i++) {
        unsigned flags, config;
        size_t no_values = 0;
        H5Z_filter_t filter =
            H5Pget_filter2(list, (unsigned)i, &flags, &no_values, NULL, 0, NULL, &config);
        if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE &&
            filter != H5Z_FILTER_FLETCHER32)
            return false;
    }
    return n >= 0;
}

/* libhdf5 1.10 believes what the file says of the bytes of a chunk, and reads behind them. All that
 * can be asked of chunks without filters, all of which must be there: their size, by the first one,
 * and the sum of what is stored. */
static bool whole_chunks(const ShoalHdf5Dataset *dataset, unsigned long long chunks,
                         unsigned long long chunk_bytes) {
    hsize_t first[SHOAL_HDF5_AXES] = {0}, bytes = 0;
    return !chunks || (H5Dget_chunk_storage_size(dataset->id, first, &bytes) >= 0 &&
                       bytes == chunk_bytes && chunks <= ULLONG_MAX / chunk_bytes &&
                       H5Dget_storage_size(dataset->id) == chunks * chunk_bytes);
}

/* bytes: of a value. */
static bool read_chunks(const ShoalHdf5Source *source, ShoalHdf5Dataset *out, hid_t list,
                        size_t bytes) {
    hsize_t chunk[SHOAL_HDF5_AXES];
    unsigned long long chunk_bytes = bytes, chunks = 1;
    if (!out->axes || H5Pget_chunk(list, SHOAL_HDF5_AXES, chunk) != out->axes ||
        !known_filters(list))
        return false;
    for (int i = 0; i < out->axes; i++) {
        if (!chunk[i] || chunk[i] > UINT_MAX || chunk_bytes * chunk[i] > UINT_MAX)
            return false;
        chunk_bytes *= chunk[i];
        chunks *= out->dims[i] / chunk[i] + (out->dims[i] % chunk[i] != 0);
    }
    out->chunk_rows = chunk[0];
    return chunk_bytes <= source->bytes * MOST_DEFLATED &&
           (H5Pget_nfilters(list) > 0 || whole_chunks(out, chunks, chunk_bytes));
}

/* Nothing is read into memory that the file cannot hold, nor from outside of it. *cost: of reading
 * it all, in deflated bytes. bytes: of a value. */
ShoalStatus shoal_hdf5_dataset_storage(const ShoalHdf5Source *source, const char *name,
                                       ShoalHdf5Dataset *out, size_t bytes,
                                       unsigned long long *cost, ShoalError *err) {
    if (out->values > ULLONG_MAX / MOST_DEFLATED / bytes)
        return shoal_hdf5_refuse(source, name, "is larger than its file can be", err);
    unsigned long long need = out->values * bytes;
    hid_t list = H5Dget_create_plist(out->id);
    H5D_layout_t layout = list >= 0 ? H5Pget_layout(list) : H5D_LAYOUT_ERROR;
    out->chunk_rows = 1;
    bool good = layout == H5D_COMPACT ||
                (layout == H5D_CONTIGUOUS && H5Pget_external_count(list) == 0) ||
                (layout == H5D_CHUNKED && read_chunks(source, out, list, bytes));
    if (list >= 0)
        H5Pclose(list);
    if (!good)
        return shoal_hdf5_refuse(
            source, name,
            "is stored in a way that is not read here (outside of the file, virtual, "
            "with other filters than deflate and shuffle, or damaged)",
            err);
    bool plain = layout != H5D_CHUNKED;
    *cost = plain ? need * MOST_DEFLATED : need;
    return *cost <= source->bytes * MOST_DEFLATED &&
                   (!plain || H5Dget_storage_size(out->id) >= need)
               ? SHOAL_OK
               : shoal_hdf5_refuse(source, name, "has a shape of more values than its file holds",
                                   err);
}

static ShoalStatus check_dataset(const ShoalHdf5Source *source, const char *name,
                                 ShoalHdf5Dataset *out, unsigned long long *cost, ShoalError *err) {
    size_t bytes = 0;
    ShoalStatus status = check_type(source, name, out->id, &bytes, err);
    if (!status)
        status = shoal_hdf5_dataset_shape(source, name, out, err);
    return status ? status : shoal_hdf5_dataset_storage(source, name, out, bytes, cost, err);
}

bool shoal_hdf5_is_dataset(hid_t in, const char *name) {
    H5O_info_t info;
    return H5Lexists(in, name, H5P_DEFAULT) > 0 &&
           H5Oget_info_by_name(in, name, &info, H5P_DEFAULT) >= 0 && info.type == H5O_TYPE_DATASET;
}

ShoalStatus shoal_hdf5_dataset_open(const ShoalHdf5Source *source, hid_t in, const char *name,
                                    ShoalHdf5Dataset *out, unsigned long long *cost,
                                    ShoalError *err) {
    *out = (ShoalHdf5Dataset){.id = -1};
    if (!shoal_hdf5_is_dataset(in, name))
        return shoal_error_set(err, SHOAL_ERR_DATA, "%s: no dataset '%s' in it", source->path,
                               name);
    out->id = H5Dopen2(in, name, H5P_DEFAULT);
    if (out->id < 0)
        return shoal_hdf5_refuse(source, name, "is damaged", err);
    ShoalStatus status = check_dataset(source, name, out, cost, err);
    if (status) {
        H5Dclose(out->id);
        out->id = -1;
    }
    return status;
}

#endif
