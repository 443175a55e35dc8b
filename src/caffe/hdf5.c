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

#include <hdf5.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "base/memory.h"
#include "caffe/model.h"

enum {
    MOST_MEMBERS = 1 << 16, /* of a group: layers of a net, blobs of a state */
    MOST_BLOBS = 1 << 10,   /* of a layer */
    MOST_TEXT = 1 << 16,    /* bytes of a learned_net */
    IMAGE_STEP = 1 << 20,   /* by which a file in memory grows */
    WRITE_CHUNK_BYTES = 1 << 18
};

/* Deflate makes at most 1032 bytes of one (zlib's technical details: "maximum compression factor").
 */
static const unsigned long long MOST_DEFLATED = 1032;

/* ---- one call at a time ---- */

static pthread_mutex_t in_library = PTHREAD_MUTEX_INITIALIZER;

static void enter(void) {
    static bool begun;
    pthread_mutex_lock(&in_library);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* of this thread: no traces on stderr */
    if (!begun)
        H5Lunregister(H5L_TYPE_EXTERNAL); /* a file must not make us open others */
    begun = true;
}

static void leave(void) {
    pthread_mutex_unlock(&in_library);
}

/* ---- files that are read ---- */

typedef struct Source {
    const char *path;
    hid_t file;
    unsigned long long bytes;  /* of the file */
    unsigned long long budget; /* what its datasets may take yet, in deflated bytes */
} Source;

static ShoalStatus open_source(const char *path, Source *source, ShoalError *err) {
    size_t size;
    ShoalStatus status = shoal_file_size(path, &size, err);
    if (status)
        return status;
    if (size > ULLONG_MAX / MOST_DEFLATED / 16)
        return shoal_error_set(err, SHOAL_ERR_DATA, "%s: too large", path);
    *source = (Source){.path = path, .bytes = size, .budget = size * MOST_DEFLATED};
    source->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (source->file >= 0)
        return SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_DATA, "%s: %s", path,
                           H5Fis_hdf5(path) > 0 ? "a damaged HDF5 file; is it cut off?"
                                                : "not an HDF5 file");
}

static ShoalStatus open_group(const Source *source, hid_t in, const char *name, hid_t *out,
                              ShoalError *err) {
    *out = H5Lexists(in, name, H5P_DEFAULT) > 0 ? H5Gopen2(in, name, H5P_DEFAULT) : -1;
    if (*out >= 0)
        return SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_DATA, "%s: no group '%s' in it; is it a file of Caffe's?",
                           source->path, name);
}

static ShoalStatus member_count(const Source *source, hid_t group, size_t *count, ShoalError *err) {
    H5G_info_t info;
    if (H5Gget_info(group, &info) < 0 || info.nlinks > MOST_MEMBERS)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "%s: a damaged group, or one of more than %d members", source->path,
                               MOST_MEMBERS);
    *count = (size_t)info.nlinks;
    return SHOAL_OK;
}

typedef struct Dataset {
    hid_t id;
    int axes;
    hsize_t dims[SHOAL_HDF5_AXES];
    unsigned long long values, row_values;
    hsize_t chunk_rows; /* 1 where rows are not stored in chunks */
} Dataset;

static ShoalStatus refuse(const Source *source, const char *name, const char *what,
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

static ShoalStatus check_type(const Source *source, const char *name, hid_t id, size_t *bytes,
                              ShoalError *err) {
    hid_t type = H5Dget_type(id);
    bool number = type >= 0 && is_number(type);
    *bytes = number ? H5Tget_size(type) : 0;
    if (type >= 0)
        H5Tclose(type);
    return number
               ? SHOAL_OK
               : refuse(source, name, "holds no plain numbers; expected floats or integers", err);
}

static ShoalStatus read_shape(const Source *source, const char *name, Dataset *out,
                              ShoalError *err) {
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
        return refuse(source, name, "has no shape", err);
    out->row_values = 1;
    for (int i = 1; i < out->axes; i++) {
        if (out->dims[i] > INT_MAX || out->row_values * out->dims[i] > INT_MAX)
            return refuse(source, name,
                          "has more than 2147483647 values; Caffe has no larger blobs", err);
        out->row_values *= out->dims[i];
    }
    if (out->axes && out->dims[0] > LLONG_MAX / ((unsigned long long)INT_MAX * 16))
        return refuse(source, name, "has too many rows", err);
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
static bool whole_chunks(const Dataset *dataset, unsigned long long chunks,
                         unsigned long long chunk_bytes) {
    hsize_t first[SHOAL_HDF5_AXES] = {0}, bytes = 0;
    return !chunks || (H5Dget_chunk_storage_size(dataset->id, first, &bytes) >= 0 &&
                       bytes == chunk_bytes && chunks <= ULLONG_MAX / chunk_bytes &&
                       H5Dget_storage_size(dataset->id) == chunks * chunk_bytes);
}

/* bytes: of a value. */
static bool read_chunks(const Source *source, Dataset *out, hid_t list, size_t bytes) {
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
static ShoalStatus check_storage(const Source *source, const char *name, Dataset *out, size_t bytes,
                                 unsigned long long *cost, ShoalError *err) {
    if (out->values > ULLONG_MAX / MOST_DEFLATED / bytes)
        return refuse(source, name, "is larger than its file can be", err);
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
        return refuse(source, name,
                      "is stored in a way that is not read here (outside of the file, virtual, "
                      "with other filters than deflate and shuffle, or damaged)",
                      err);
    bool plain = layout != H5D_CHUNKED;
    *cost = plain ? need * MOST_DEFLATED : need;
    return *cost <= source->bytes * MOST_DEFLATED &&
                   (!plain || H5Dget_storage_size(out->id) >= need)
               ? SHOAL_OK
               : refuse(source, name, "has a shape of more values than its file holds", err);
}

static ShoalStatus check_dataset(const Source *source, const char *name, Dataset *out,
                                 unsigned long long *cost, ShoalError *err) {
    size_t bytes = 0;
    ShoalStatus status = check_type(source, name, out->id, &bytes, err);
    if (!status)
        status = read_shape(source, name, out, err);
    return status ? status : check_storage(source, name, out, bytes, cost, err);
}

static bool is_dataset(hid_t in, const char *name) {
    H5O_info_t info;
    return H5Lexists(in, name, H5P_DEFAULT) > 0 &&
           H5Oget_info_by_name(in, name, &info, H5P_DEFAULT) >= 0 && info.type == H5O_TYPE_DATASET;
}

static ShoalStatus open_dataset(const Source *source, hid_t in, const char *name, Dataset *out,
                                unsigned long long *cost, ShoalError *err) {
    *out = (Dataset){.id = -1};
    if (!is_dataset(in, name))
        return shoal_error_set(err, SHOAL_ERR_DATA, "%s: no dataset '%s' in it", source->path,
                               name);
    out->id = H5Dopen2(in, name, H5P_DEFAULT);
    if (out->id < 0)
        return refuse(source, name, "is damaged", err);
    ShoalStatus status = check_dataset(source, name, out, cost, err);
    if (status) {
        H5Dclose(out->id);
        out->id = -1;
    }
    return status;
}

/* ---- messages, piece by piece (malloc storage, as protobuf-c frees it) ---- */

static bool set_dims(Caffe__BlobProto *blob, const Dataset *dataset) {
    blob->shape = malloc(sizeof *blob->shape);
    if (!blob->shape)
        return false;
    caffe__blob_shape__init(blob->shape);
    blob->shape->dim = malloc(((size_t)dataset->axes + 1) * sizeof *blob->shape->dim);
    if (!blob->shape->dim)
        return false;
    blob->shape->n_dim = (size_t)dataset->axes;
    for (int i = 0; i < dataset->axes; i++)
        blob->shape->dim[i] = (int64_t)dataset->dims[i];
    return true;
}

static Caffe__BlobProto *new_blob(void) {
    Caffe__BlobProto *blob = malloc(sizeof *blob);
    if (blob)
        caffe__blob_proto__init(blob);
    return blob;
}

/* In the end shoal_calloc alone can tell whether a large block is to be had. */
static float *new_values(unsigned long long n) {
    void *probe = n <= SIZE_MAX / sizeof(float) ? shoal_calloc((size_t)n, sizeof(float)) : NULL;
    shoal_free(probe);
    return probe ? malloc(n ? (size_t)n * sizeof(float) : 1) : NULL;
}

static ShoalStatus fill_blob(const Source *source, const char *name, const Dataset *dataset,
                             Caffe__BlobProto *blob, ShoalError *err) {
    if (dataset->values > INT_MAX)
        return refuse(source, name, "has more than 2147483647 values; Caffe has no larger blobs",
                      err);
    blob->data = new_values(dataset->values);
    if (!blob->data || !set_dims(blob, dataset))
        return shoal_error_memory(err, source->path, dataset->values * sizeof(float));
    blob->n_data = (size_t)dataset->values;
    if (H5Dread(dataset->id, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, blob->data) < 0)
        return refuse(source, name, "cannot be read; the file is damaged", err);
    return SHOAL_OK;
}

static ShoalStatus read_blob(Source *source, hid_t in, const char *name, Caffe__BlobProto *blob,
                             ShoalError *err) {
    Dataset dataset;
    unsigned long long cost;
    ShoalStatus status = open_dataset(source, in, name, &dataset, &cost, err);
    if (status)
        return status;
    /* Many names for one dataset: the file would take more memory than it has. */
    if (cost > source->budget)
        status = refuse(source, name, "is more than the file can hold", err);
    else
        status = fill_blob(source, name, &dataset, blob, err);
    if (!status)
        source->budget -= cost;
    H5Dclose(dataset.id);
    return status;
}

/* Blob `index` of an array that has room for it. */
static ShoalStatus add_blob(Source *source, hid_t in, int index, Caffe__BlobProto **blobs,
                            size_t *n_blobs, ShoalError *err) {
    char name[16];
    snprintf(name, sizeof name, "%d", index);
    Caffe__BlobProto *blob = new_blob();
    if (!blob)
        return shoal_error_memory(err, source->path, sizeof *blob);
    blobs[(*n_blobs)++] = blob;
    if (in < 0)
        return SHOAL_OK;
    return read_blob(source, in, name, blob, err);
}

static ShoalStatus read_layer(Source *source, hid_t group, Caffe__LayerParameter *layer,
                              ShoalError *err) {
    size_t members = 0;
    ShoalStatus status = member_count(source, group, &members, err);
    if (status || !members)
        return status;
    layer->blobs = malloc(MOST_BLOBS * sizeof *layer->blobs);
    if (!layer->blobs)
        return shoal_error_memory(err, source->path, MOST_BLOBS * sizeof *layer->blobs);
    size_t found = 0;
    for (int i = 0; !status && found < members && i < MOST_BLOBS; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        bool there = H5Lexists(group, name, H5P_DEFAULT) > 0;
        status = add_blob(source, there ? group : -1, i, layer->blobs, &layer->n_blobs, err);
        found += there;
    }
    if (!status && found < members)
        status = shoal_error_set(err, SHOAL_ERR_DATA,
                                 "%s: %zu members besides the weights, which are named 0, 1, ...",
                                 source->path, members - found);
    return status;
}

static ShoalStatus add_layer(Source *source, hid_t data, const char *name, Caffe__NetParameter *net,
                             ShoalError *err) {
    Caffe__LayerParameter *layer = malloc(sizeof *layer);
    if (!layer)
        return shoal_error_memory(err, source->path, sizeof *layer);
    caffe__layer_parameter__init(layer);
    net->layer[net->n_layer++] = layer;
    layer->name = strdup(name);
    if (!layer->name)
        return shoal_error_memory(err, source->path, strlen(name));
    hid_t group;
    ShoalStatus status = open_group(source, data, name, &group, err);
    if (status)
        return status;
    status = read_layer(source, group, layer, err);
    if (status)
        shoal_error_prefix(err, "layer '%s'", name);
    H5Gclose(group);
    return status;
}

typedef struct Layers {
    Source *source;
    Caffe__NetParameter *net;
    size_t room;
    ShoalStatus status;
    ShoalError *err;
} Layers;

static herr_t take_member(hid_t data, const char *name, const H5L_info_t *info, void *context) {
    (void)info;
    Layers *layers = context;
    if (layers->net->n_layer == layers->room)
        layers->status = shoal_error_set(layers->err, SHOAL_ERR_DATA, "%s: a damaged group",
                                         layers->source->path);
    else
        layers->status = add_layer(layers->source, data, name, layers->net, layers->err);
    return layers->status ? -1 : 0;
}

static ShoalStatus read_layers(Source *source, Caffe__NetParameter *net, ShoalError *err) {
    Layers layers = {.source = source, .net = net, .err = err};
    hid_t data;
    ShoalStatus status = open_group(source, source->file, "data", &data, err);
    if (status)
        return status;
    status = member_count(source, data, &layers.room, err);
    net->layer = malloc((layers.room + 1) * sizeof *net->layer);
    if (!status && !net->layer)
        status = shoal_error_memory(err, source->path, layers.room * sizeof *net->layer);
    if (!status && H5Literate(data, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, take_member, &layers) < 0)
        status = layers.status ? layers.status
                               : shoal_error_set(err, SHOAL_ERR_DATA, "%s: group 'data' is damaged",
                                                 source->path);
    H5Gclose(data);
    return status;
}

static ShoalStatus read_int(const Source *source, const char *name, int32_t *out, ShoalError *err) {
    Dataset dataset;
    unsigned long long cost;
    ShoalStatus status = open_dataset(source, source->file, name, &dataset, &cost, err);
    if (status)
        return status;
    int value = 0;
    if (dataset.values != 1 ||
        H5Dread(dataset.id, H5T_NATIVE_INT, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value) < 0)
        status = refuse(source, name, "is not one number", err);
    *out = value;
    H5Dclose(dataset.id);
    return status;
}

/* Of a single text of fixed length, as H5LTmake_dataset_string makes it; 0: it is none. */
static size_t text_bytes(hid_t id) {
    hid_t type = H5Dget_type(id), space = H5Dget_space(id);
    bool good = type >= 0 && space >= 0 && H5Tget_class(type) == H5T_STRING &&
                H5Tis_variable_str(type) == 0 && H5Sget_simple_extent_npoints(space) == 1;
    size_t bytes = good ? H5Tget_size(type) : 0;
    if (type >= 0)
        H5Tclose(type);
    if (space >= 0)
        H5Sclose(space);
    return bytes <= MOST_TEXT ? bytes : 0;
}

static char *read_text(hid_t id, size_t bytes) {
    hid_t type = H5Dget_type(id);
    char *text = calloc(bytes + 1, 1);
    if (text && (type < 0 || H5Dread(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text) < 0)) {
        free(text);
        text = NULL;
    }
    if (type >= 0)
        H5Tclose(type);
    return text;
}

static ShoalStatus read_learned_net(const Source *source, Caffe__SolverState *state,
                                    ShoalError *err) {
    const char *name = "learned_net";
    if (H5Lexists(source->file, name, H5P_DEFAULT) == 0)
        return SHOAL_OK;
    hid_t id = is_dataset(source->file, name) ? H5Dopen2(source->file, name, H5P_DEFAULT) : -1;
    Dataset dataset = {.id = id};
    unsigned long long cost;
    ShoalStatus status =
        id < 0 ? refuse(source, name, "is damaged", err) : read_shape(source, name, &dataset, err);
    size_t bytes = 0;
    char *text = NULL;
    if (!status && !(bytes = text_bytes(id)))
        status = refuse(source, name, "is no text of fixed length", err);
    if (!status)
        status = check_storage(source, name, &dataset, bytes, &cost, err);
    if (!status && (!(text = read_text(id, bytes))))
        status = refuse(source, name, "cannot be read", err);
    state->learned_net = text;
    if (id >= 0)
        H5Dclose(id);
    return status;
}

static ShoalStatus read_history(Source *source, Caffe__SolverState *state, ShoalError *err) {
    hid_t history;
    size_t n = 0;
    ShoalStatus status = open_group(source, source->file, "history", &history, err);
    if (status)
        return status;
    status = member_count(source, history, &n, err);
    state->history = malloc((n + 1) * sizeof(Caffe__BlobProto *));
    if (!status && !state->history)
        status = shoal_error_memory(err, source->path, n * sizeof(Caffe__BlobProto *));
    for (size_t i = 0; !status && i < n; i++)
        status = add_blob(source, history, (int)i, state->history, &state->n_history, err);
    H5Gclose(history);
    return status;
}

ShoalStatus shoal_hdf5_read_net(const char *path, void **bytes, size_t *size, ShoalError *err) {
    Source source;
    Caffe__NetParameter *net = malloc(sizeof *net);
    if (!net)
        return shoal_error_memory(err, path, sizeof *net);
    caffe__net_parameter__init(net);
    enter();
    ShoalStatus status = open_source(path, &source, err);
    if (!status) {
        status = read_layers(&source, net, err);
        H5Fclose(source.file);
    }
    leave();
    if (!status)
        status = shoal_caffe_pack(&net->base, bytes, size, err);
    caffe__net_parameter__free_unpacked(net, NULL);
    return status;
}

static ShoalStatus read_state(Source *source, Caffe__SolverState *state, ShoalError *err) {
    state->has_iter = state->has_current_step = 1;
    ShoalStatus status = read_int(source, "iter", &state->iter, err);
    if (!status)
        status = read_int(source, "current_step", &state->current_step, err);
    if (!status)
        status = read_learned_net(source, state, err);
    return status ? status : read_history(source, state, err);
}

ShoalStatus shoal_hdf5_read_state(const char *path, void **bytes, size_t *size, ShoalError *err) {
    Source source;
    Caffe__SolverState *state = malloc(sizeof *state);
    if (!state)
        return shoal_error_memory(err, path, sizeof *state);
    caffe__solver_state__init(state);
    enter();
    ShoalStatus status = open_source(path, &source, err);
    if (!status) {
        status = read_state(&source, state, err);
        H5Fclose(source.file);
    }
    leave();
    if (!status)
        status = shoal_caffe_pack(&state->base, bytes, size, err);
    caffe__solver_state__free_unpacked(state, NULL);
    return status;
}

/* ---- files in memory, which whoever writes them can replace in one step ---- */

static hid_t create_image(void) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    hid_t file = access >= 0 && H5Pset_fapl_core(access, IMAGE_STEP, 0) >= 0
                     ? H5Fcreate("image", H5F_ACC_TRUNC, H5P_DEFAULT, access)
                     : -1;
    if (access >= 0)
        H5Pclose(access);
    return file;
}

static ShoalStatus take_image(hid_t file, void **bytes, size_t *size, ShoalError *err) {
    ssize_t length = H5Fflush(file, H5F_SCOPE_GLOBAL) < 0 ? -1 : H5Fget_file_image(file, NULL, 0);
    void *image = length > 0 ? shoal_calloc((size_t)length, 1) : NULL;
    if (!image || H5Fget_file_image(file, image, (size_t)length) != length) {
        shoal_free(image);
        return shoal_error_memory(err, "an HDF5 file", length > 0 ? (size_t)length : 0);
    }
    *bytes = image;
    *size = (size_t)length;
    return SHOAL_OK;
}

/* The only reason that the library gives no text for: in memory, there is no other. */
static ShoalStatus write_failed(const char *what, ShoalError *err) {
    return shoal_error_set(err, SHOAL_ERR_MEMORY, "HDF5: cannot write %s; out of memory?", what);
}

static bool put(hid_t in, const char *name, hid_t type, hid_t space, const void *values) {
    hid_t id =
        space >= 0 ? H5Dcreate2(in, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT) : -1;
    bool good = id >= 0 && H5Dwrite(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
    if (id >= 0)
        H5Dclose(id);
    if (space >= 0)
        H5Sclose(space);
    return good;
}

static ShoalStatus put_blob(hid_t in, size_t index, const Caffe__BlobProto *blob,
                            const float *values, size_t n_values, ShoalError *err) {
    int dims[SHOAL_HDF5_AXES], axes;
    hsize_t sizes[SHOAL_HDF5_AXES];
    size_t count = 1;
    ShoalStatus status = shoal_caffe_blob_shape(blob, SHOAL_HDF5_AXES, dims, &axes, err);
    if (status)
        return status;
    for (int i = 0; i < axes; i++)
        count *= sizes[i] = (hsize_t)dims[i];
    if (n_values != count)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "a blob of %zu values, its shape needs %zu",
                               n_values, count);
    char name[24];
    snprintf(name, sizeof name, "%zu", index);
    hid_t space = axes ? H5Screate_simple(axes, sizes, NULL) : H5Screate(H5S_SCALAR);
    return put(in, name, H5T_NATIVE_FLOAT, space, count ? values : (const float *)"\0\0\0")
               ? SHOAL_OK
               : write_failed("a blob", err);
}

static const char *share_name(const Caffe__LayerParameter *layer, size_t index) {
    const char *name = index < layer->n_param ? layer->param[index]->name : NULL;
    return name && name[0] ? name : NULL;
}

/* Is blob `index` of layer `at` stored with an earlier layer of the same parameter name? */
static bool is_shared(const Caffe__NetParameter *net, size_t at, size_t index) {
    const char *name = share_name(net->layer[at], index);
    for (size_t i = 0; name && i <= at; i++)
        for (size_t j = 0; j < net->layer[i]->n_blobs && (i < at || j < index); j++) {
            const char *other = share_name(net->layer[i], j);
            if (other && !strcmp(other, name))
                return true;
        }
    return false;
}

static ShoalStatus put_layer(hid_t in, const Caffe__NetParameter *net, size_t at, bool diffs,
                             ShoalError *err) {
    const Caffe__LayerParameter *layer = net->layer[at];
    const char *name = layer->name ? layer->name : "";
    hid_t group = shoal_hdf5_holds_name(name)
                      ? H5Gcreate2(in, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT)
                      : -1;
    if (group < 0)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                               "HDF5 cannot hold the name of layer '%s' (a name has no '/', and is "
                               "given once); use snapshot_format: BINARYPROTO",
                               name);
    ShoalStatus status = SHOAL_OK;
    for (size_t j = 0; j < layer->n_blobs && !status; j++) {
        const Caffe__BlobProto *blob = layer->blobs[j];
        if (diffs)
            status = put_blob(group, j, blob, blob->diff, blob->n_diff, err);
        else if (!is_shared(net, at, j))
            status = put_blob(group, j, blob, blob->data, blob->n_data, err);
    }
    if (status)
        shoal_error_prefix(err, "layer '%s'", name);
    H5Gclose(group);
    return status;
}

static ShoalStatus put_layers(hid_t file, const char *name, const Caffe__NetParameter *net,
                              bool diffs, ShoalError *err) {
    hid_t group = H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (group < 0)
        return write_failed(name, err);
    ShoalStatus status = SHOAL_OK;
    for (size_t i = 0; i < net->n_layer && !status; i++)
        status = put_layer(group, net, i, diffs, err);
    H5Gclose(group);
    return status;
}

static bool has_diffs(const Caffe__NetParameter *net) {
    for (size_t i = 0; i < net->n_layer; i++)
        for (size_t j = 0; j < net->layer[i]->n_blobs; j++)
            if (net->layer[i]->blobs[j]->n_diff)
                return true;
    return false;
}

static ShoalStatus put_net(hid_t file, const ProtobufCMessage *message, ShoalError *err) {
    const Caffe__NetParameter *net = (const Caffe__NetParameter *)message;
    ShoalStatus status = put_layers(file, "data", net, false, err);
    return status || !has_diffs(net) ? status : put_layers(file, "diff", net, true, err);
}

static bool put_int(hid_t file, const char *name, int value) {
    hsize_t one = 1;
    return put(file, name, H5T_NATIVE_INT, H5Screate_simple(1, &one, NULL), &value);
}

static bool put_text(hid_t file, const char *name, const char *text) {
    hid_t type = H5Tcopy(H5T_C_S1);
    bool good = type >= 0 && H5Tset_size(type, strlen(text) + 1) >= 0 &&
                put(file, name, type, H5Screate(H5S_SCALAR), text);
    if (type >= 0)
        H5Tclose(type);
    return good;
}

static ShoalStatus put_state(hid_t file, const ProtobufCMessage *message, ShoalError *err) {
    const Caffe__SolverState *state = (const Caffe__SolverState *)message;
    if (!put_int(file, "iter", state->iter) ||
        !put_text(file, "learned_net", state->learned_net ? state->learned_net : "") ||
        !put_int(file, "current_step", state->current_step))
        return write_failed("a state", err);
    hid_t group = H5Gcreate2(file, "history", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (group < 0)
        return write_failed("history", err);
    ShoalStatus status = SHOAL_OK;
    for (size_t i = 0; i < state->n_history && !status; i++)
        status = put_blob(group, i, state->history[i], state->history[i]->data,
                          state->history[i]->n_data, err);
    H5Gclose(group);
    return status;
}

typedef ShoalStatus Put(hid_t file, const ProtobufCMessage *message, ShoalError *err);

static ShoalStatus make_image(const ProtobufCMessageDescriptor *descriptor, const void *message,
                              size_t message_size, Put *make, void **bytes, size_t *size,
                              ShoalError *err) {
    ProtobufCMessage *unpacked;
    ShoalStatus status =
        shoal_caffe_unpack(descriptor, message, message_size, "a snapshot", &unpacked, err);
    if (status)
        return status;
    enter();
    hid_t file = create_image();
    status = file < 0 ? write_failed("a file", err) : make(file, unpacked, err);
    protobuf_c_message_free_unpacked(unpacked, NULL); /* before there is another copy */
    if (!status)
        status = take_image(file, bytes, size, err);
    if (file >= 0)
        H5Fclose(file);
    leave();
    return status;
}

ShoalStatus shoal_hdf5_from_net(const void *net, size_t net_size, void **bytes, size_t *size,
                                ShoalError *err) {
    return make_image(&caffe__net_parameter__descriptor, net, net_size, put_net, bytes, size, err);
}

ShoalStatus shoal_hdf5_from_state(const void *state, size_t state_size, void **bytes, size_t *size,
                                  ShoalError *err) {
    return make_image(&caffe__solver_state__descriptor, state, state_size, put_state, bytes, size,
                      err);
}

/* ---- rows ---- */

struct ShoalHdf5Rows {
    Source source;
    char *path;
    int n;
    uint64_t count;
    Dataset datasets[];
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
        Dataset *dataset = &rows->datasets[i];
        status = open_dataset(&rows->source, rows->source.file, names[i], dataset, &cost, err);
        if (status)
            return status;
        rows->n++;
        if (!dataset->axes)
            status = refuse(&rows->source, names[i], "has no axis, so no rows", err);
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
    enter();
    ShoalStatus status = open_source(copy, &rows->source, err);
    if (!status)
        status = open_rows(rows, names, n, err);
    leave();
    if (status)
        shoal_hdf5_rows_close(rows);
    else
        *out = rows;
    return status;
}

void shoal_hdf5_rows_close(ShoalHdf5Rows *rows) {
    if (!rows)
        return;
    enter();
    close_rows(rows);
    leave();
    shoal_free(rows->path);
    shoal_free(rows);
}

uint64_t shoal_hdf5_rows_count(const ShoalHdf5Rows *rows) {
    return rows->count;
}

size_t shoal_hdf5_rows_shape(const ShoalHdf5Rows *rows, int i, int *axes, int *dims) {
    const Dataset *dataset = &rows->datasets[i];
    *axes = dataset->axes - 1;
    for (int a = 1; a < dataset->axes; a++)
        dims[a - 1] = (int)dataset->dims[a];
    return (size_t)dataset->row_values;
}

uint64_t shoal_hdf5_rows_chunk(const ShoalHdf5Rows *rows, int i) {
    return rows->datasets[i].chunk_rows;
}

/* The part of a dataset's space from row `first` on. */
static hid_t select_rows(const Dataset *dataset, uint64_t first, uint64_t n) {
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
    const Dataset *dataset = &rows->datasets[i];
    if (first > rows->count || n > rows->count - first)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "%s: rows %llu to %llu of %llu", rows->path,
                               (unsigned long long)first, (unsigned long long)(first + n),
                               (unsigned long long)rows->count);
    enter();
    hsize_t length = n * dataset->row_values;
    hid_t from = select_rows(dataset, first, n), to = H5Screate_simple(1, &length, NULL);
    bool good = from >= 0 && to >= 0 &&
                H5Dread(dataset->id, H5T_NATIVE_FLOAT, to, from, H5P_DEFAULT, values) >= 0;
    if (from >= 0)
        H5Sclose(from);
    if (to >= 0)
        H5Sclose(to);
    leave();
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
};

ShoalStatus shoal_hdf5_writer_create(const char *path, ShoalHdf5Writer **out, ShoalError *err) {
    ShoalHdf5Writer *writer = shoal_calloc(1, sizeof *writer);
    char *copy = writer ? shoal_strdup(path) : NULL;
    if (!copy) {
        shoal_free(writer);
        return shoal_error_memory(err, path, sizeof *writer);
    }
    enter();
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    leave();
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
    enter();
    if (writer->file >= 0)
        H5Fclose(writer->file);
    leave();
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

static bool write_rows(hid_t id, const Dataset *old, int axes, const hsize_t *dims,
                       const float *values) {
    Dataset grown = *old;
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
    Source source = {.path = writer->path};
    Dataset old = {.id = id};
    ShoalStatus status = read_shape(&source, name, &old, err);
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
    enter();
    hid_t id = H5Lexists(writer->file, name, H5P_DEFAULT) > 0
                   ? H5Dopen2(writer->file, name, H5P_DEFAULT)
                   : create_growing(writer->file, name, axes, sizes);
    ShoalStatus status =
        id < 0
            ? shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot write dataset '%s'; is the disk full?",
                              writer->path, name)
            : append_rows(writer, id, name, axes, sizes, values, err);
    if (id >= 0)
        H5Dclose(id);
    leave();
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
