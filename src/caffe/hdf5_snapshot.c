/* SPDX-License-Identifier: Apache-2.0 */
#include "caffe/hdf5_source.h"

/* Caffe's snapshots: messages from and to HDF5 files. */

#ifdef SHOAL_HDF5

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "caffe/model.h"

enum {
    MOST_MEMBERS = 1 << 16, /* of a group: layers of a net, blobs of a state */
    MOST_BLOBS = 1 << 10,   /* of a layer */
    MOST_TEXT = 1 << 16,    /* bytes of a learned_net */
    IMAGE_STEP = 1 << 20    /* by which a file in memory grows */
};

static ShoalStatus open_group(const ShoalHdf5Source *source, hid_t in, const char *name, hid_t *out,
                              ShoalError *err) {
    *out = H5Lexists(in, name, H5P_DEFAULT) > 0 ? H5Gopen2(in, name, H5P_DEFAULT) : -1;
    if (*out >= 0)
        return SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_DATA, "%s: no group '%s' in it; is it a file of Caffe's?",
                           source->path, name);
}

static ShoalStatus member_count(const ShoalHdf5Source *source, hid_t group, size_t *count,
                                ShoalError *err) {
    H5G_info_t info;
    if (H5Gget_info(group, &info) < 0 || info.nlinks > MOST_MEMBERS)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "%s: a damaged group, or one of more than %d members", source->path,
                               MOST_MEMBERS);
    *count = (size_t)info.nlinks;
    return SHOAL_OK;
}

/* ---- messages, piece by piece (malloc storage, as protobuf-c frees it) ---- */

static bool set_dims(Caffe__BlobProto *blob, const ShoalHdf5Dataset *dataset) {
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

static ShoalStatus fill_blob(const ShoalHdf5Source *source, const char *name,
                             const ShoalHdf5Dataset *dataset, Caffe__BlobProto *blob,
                             ShoalError *err) {
    if (dataset->values > INT_MAX)
        return shoal_hdf5_refuse(source, name,
                                 "has more than 2147483647 values; Caffe has no larger blobs", err);
    blob->data = new_values(dataset->values);
    if (!blob->data || !set_dims(blob, dataset))
        return shoal_error_memory(err, source->path, dataset->values * sizeof(float));
    blob->n_data = (size_t)dataset->values;
    if (H5Dread(dataset->id, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, blob->data) < 0)
        return shoal_hdf5_refuse(source, name, "cannot be read; the file is damaged", err);
    return SHOAL_OK;
}

static ShoalStatus read_blob(ShoalHdf5Source *source, hid_t in, const char *name,
                             Caffe__BlobProto *blob, ShoalError *err) {
    ShoalHdf5Dataset dataset;
    unsigned long long cost;
    ShoalStatus status = shoal_hdf5_dataset_open(source, in, name, &dataset, &cost, err);
    if (status)
        return status;
    /* Many names for one dataset: the file would take more memory than it has. */
    if (cost > source->budget)
        status = shoal_hdf5_refuse(source, name, "is more than the file can hold", err);
    else
        status = fill_blob(source, name, &dataset, blob, err);
    if (!status)
        source->budget -= cost;
    H5Dclose(dataset.id);
    return status;
}

/* Blob `index` of an array that has room for it. */
static ShoalStatus add_blob(ShoalHdf5Source *source, hid_t in, int index, Caffe__BlobProto **blobs,
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

static ShoalStatus read_layer(ShoalHdf5Source *source, hid_t group, Caffe__LayerParameter *layer,
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
        htri_t there = H5Lexists(group, name, H5P_DEFAULT);
        if (there < 0)
            return shoal_error_set(err, SHOAL_ERR_DATA, "%s: a damaged group", source->path);
        status = add_blob(source, there ? group : -1, i, layer->blobs, &layer->n_blobs, err);
        found += there > 0;
    }
    if (!status && found < members)
        status = shoal_error_set(err, SHOAL_ERR_DATA,
                                 "%s: %zu members besides the weights, which are named 0, 1, ...",
                                 source->path, members - found);
    return status;
}

static ShoalStatus add_layer(ShoalHdf5Source *source, hid_t data, const char *name,
                             Caffe__NetParameter *net, ShoalError *err) {
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
    ShoalHdf5Source *source;
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

static ShoalStatus read_layers(ShoalHdf5Source *source, Caffe__NetParameter *net, ShoalError *err) {
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

static ShoalStatus read_int(const ShoalHdf5Source *source, const char *name, int32_t *out,
                            ShoalError *err) {
    ShoalHdf5Dataset dataset;
    unsigned long long cost;
    ShoalStatus status = shoal_hdf5_dataset_open(source, source->file, name, &dataset, &cost, err);
    if (status)
        return status;
    int value = 0;
    if (dataset.values != 1 ||
        H5Dread(dataset.id, H5T_NATIVE_INT, H5S_ALL, H5S_ALL, H5P_DEFAULT, &value) < 0)
        status = shoal_hdf5_refuse(source, name, "is not one number", err);
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

static ShoalStatus read_learned_net(const ShoalHdf5Source *source, Caffe__SolverState *state,
                                    ShoalError *err) {
    const char *name = "learned_net";
    if (H5Lexists(source->file, name, H5P_DEFAULT) == 0)
        return SHOAL_OK;
    hid_t id =
        shoal_hdf5_is_dataset(source->file, name) ? H5Dopen2(source->file, name, H5P_DEFAULT) : -1;
    ShoalHdf5Dataset dataset = {.id = id};
    unsigned long long cost;
    ShoalStatus status = id < 0 ? shoal_hdf5_refuse(source, name, "is damaged", err)
                                : shoal_hdf5_dataset_shape(source, name, &dataset, err);
    size_t bytes = 0;
    char *text = NULL;
    if (!status && !(bytes = text_bytes(id)))
        status = shoal_hdf5_refuse(source, name, "is no text of fixed length", err);
    if (!status)
        status = shoal_hdf5_dataset_storage(source, name, &dataset, bytes, &cost, err);
    if (!status && (!(text = read_text(id, bytes))))
        status = shoal_hdf5_refuse(source, name, "cannot be read", err);
    state->learned_net = text;
    if (id >= 0)
        H5Dclose(id);
    return status;
}

static ShoalStatus read_history(ShoalHdf5Source *source, Caffe__SolverState *state,
                                ShoalError *err) {
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
    ShoalHdf5Source source;
    Caffe__NetParameter *net = malloc(sizeof *net);
    if (!net)
        return shoal_error_memory(err, path, sizeof *net);
    caffe__net_parameter__init(net);
    shoal_hdf5_enter();
    ShoalStatus status = shoal_hdf5_source_open(path, &source, err);
    if (!status) {
        status = read_layers(&source, net, err);
        H5Fclose(source.file);
    }
    shoal_hdf5_leave();
    if (!status)
        status = shoal_caffe_pack(&net->base, bytes, size, err);
    caffe__net_parameter__free_unpacked(net, NULL);
    return status;
}

static ShoalStatus read_state(ShoalHdf5Source *source, Caffe__SolverState *state, ShoalError *err) {
    state->has_iter = state->has_current_step = 1;
    ShoalStatus status = read_int(source, "iter", &state->iter, err);
    if (!status)
        status = read_int(source, "current_step", &state->current_step, err);
    if (!status)
        status = read_learned_net(source, state, err);
    return status ? status : read_history(source, state, err);
}

ShoalStatus shoal_hdf5_read_state(const char *path, void **bytes, size_t *size, ShoalError *err) {
    ShoalHdf5Source source;
    Caffe__SolverState *state = malloc(sizeof *state);
    if (!state)
        return shoal_error_memory(err, path, sizeof *state);
    caffe__solver_state__init(state);
    shoal_hdf5_enter();
    ShoalStatus status = shoal_hdf5_source_open(path, &source, err);
    if (!status) {
        status = read_state(&source, state, err);
        H5Fclose(source.file);
    }
    shoal_hdf5_leave();
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

/* Without times: equal snapshots are equal files. */
static bool put(hid_t in, const char *name, hid_t type, hid_t space, const void *values) {
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    bool timeless = list >= 0 && H5Pset_obj_track_times(list, false) >= 0;
    hid_t id = space >= 0 && timeless
                   ? H5Dcreate2(in, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT)
                   : -1;
    bool good = id >= 0 && H5Dwrite(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
    if (id >= 0)
        H5Dclose(id);
    if (list >= 0)
        H5Pclose(list);
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
    shoal_hdf5_enter();
    hid_t file = create_image();
    status = file < 0 ? write_failed("a file", err) : make(file, unpacked, err);
    protobuf_c_message_free_unpacked(unpacked, NULL); /* before there is another copy */
    if (!status)
        status = take_image(file, bytes, size, err);
    if (file >= 0)
        H5Fclose(file);
    shoal_hdf5_leave();
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

#endif
