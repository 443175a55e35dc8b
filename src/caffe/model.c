/* SPDX-License-Identifier: Apache-2.0 */
#include "caffe/model.h"

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "caffe/upgrade.h"
#include "caffe/wire.h"

enum { STREAM_BYTES = 1 << 20 };

/* ---- bytes ---- */

static void *counted_alloc(void *failed, size_t size) {
    void *pointer = malloc(size);
    if (!pointer)
        *(bool *)failed = true;
    return pointer;
}

static void counted_free(void *failed, void *pointer) {
    (void)failed;
    free(pointer);
}

/* What the bytes are when they are not what they should be; "" when there is no guess. */
static const char *guess_format(const unsigned char *bytes, size_t size) {
    if (size >= 8 && memcmp(bytes, "\x89HDF\r\n\x1a\n", 8) == 0)
        return "; it is an HDF5 file, whose name must end in .h5";
    size_t look = size < 64 ? size : 64, text = 0;
    while (text < look && ((bytes[text] >= 0x20 && bytes[text] < 0x7f) ||
                           (bytes[text] >= '\t' && bytes[text] <= '\r')))
        text++;
    return look && text == look ? "; it looks like text, expected a binary file"
                                : "; is it cut off or damaged?";
}

ShoalStatus shoal_caffe_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes,
                               size_t size, const char *file, ProtobufCMessage **out,
                               ShoalError *err) {
    const uint8_t *data = size ? bytes : (const uint8_t *)"";
    size_t where;
    if (!shoal_caffe_wire_check(descriptor, data, size, &where))
        return shoal_error_set(err, SHOAL_ERR_PARSE,
                               "%s: not a %s of %zu bytes, from byte %zu on%s", file,
                               descriptor->short_name, size, where, guess_format(data, size));
    /* Only tells "no memory" from "bad bytes"; what it gives can be freed without it. */
    bool failed = false;
    ProtobufCAllocator allocator = {counted_alloc, counted_free, &failed};
    ProtobufCMessage *message = protobuf_c_message_unpack(descriptor, &allocator, size, data);
    if (failed) {
        if (message)
            protobuf_c_message_free_unpacked(message, NULL);
        return shoal_error_memory(err, descriptor->short_name, size);
    }
    if (!message)
        return shoal_error_set(err, SHOAL_ERR_PARSE,
                               "%s: not a %s; it has a field of the wrong type or lacks one", file,
                               descriptor->short_name);
    *out = message;
    return SHOAL_OK;
}

static ShoalStatus packed_size(const ProtobufCMessage *message, size_t *bytes, ShoalError *err) {
    *bytes = protobuf_c_message_get_packed_size(message);
    if (*bytes > INT_MAX)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                               "%s packs to %zu bytes; protobuf cannot read more than 2 GiB",
                               message->descriptor->short_name, *bytes);
    return SHOAL_OK;
}

ShoalStatus shoal_caffe_pack(const ProtobufCMessage *message, void **out, size_t *size,
                             ShoalError *err) {
    size_t bytes;
    ShoalStatus status = packed_size(message, &bytes, err);
    if (status)
        return status;
    uint8_t *packed = shoal_calloc(bytes, 1);
    if (!packed)
        return shoal_error_memory(err, message->descriptor->short_name, bytes);
    protobuf_c_message_pack(message, packed);
    *out = packed;
    *size = bytes;
    return SHOAL_OK;
}

/* What protobuf-c appends gathers here. */
typedef struct Stream {
    ProtobufCBuffer base; /* first */
    ShoalCaffeSink *sink;
    void *context;
    size_t total, used;
    ShoalStatus status;
    ShoalError *err;
    unsigned char *bytes; /* [STREAM_BYTES] */
} Stream;

static void flush_stream(Stream *stream) {
    if (!stream->status && stream->used)
        stream->status =
            stream->sink(stream->context, stream->bytes, stream->used, stream->total, stream->err);
    stream->used = 0;
}

static void append(ProtobufCBuffer *base, size_t size, const uint8_t *bytes) {
    Stream *stream = (Stream *)(void *)base;
    while (size > 0 && !stream->status) {
        size_t room = STREAM_BYTES - stream->used, n = size < room ? size : room;
        memcpy(stream->bytes + stream->used, bytes, n);
        stream->used += n;
        bytes += n;
        size -= n;
        if (stream->used == STREAM_BYTES)
            flush_stream(stream);
    }
}

ShoalStatus shoal_caffe_stream(const ProtobufCMessage *message, ShoalCaffeSink *sink, void *context,
                               ShoalError *err) {
    Stream stream = {.base.append = append, .sink = sink, .context = context, .err = err};
    ShoalStatus status = packed_size(message, &stream.total, err);
    if (status)
        return status;
    stream.bytes = shoal_calloc(STREAM_BYTES, 1);
    if (!stream.bytes)
        return shoal_error_memory(err, message->descriptor->short_name, STREAM_BYTES);
    protobuf_c_message_pack_to_buffer(message, &stream.base);
    flush_stream(&stream);
    shoal_free(stream.bytes);
    return stream.status;
}

ProtobufCMessage *shoal_caffe_copy(const ProtobufCMessage *message) {
    void *bytes = NULL;
    size_t size = 0;
    ProtobufCMessage *copy = NULL;
    if (shoal_caffe_pack(message, &bytes, &size, NULL))
        return NULL;
    shoal_caffe_unpack(message->descriptor, bytes, size, "", &copy, NULL);
    shoal_free(bytes);
    return copy;
}

/* ---- nets ---- */

/* Upgrades and wraps; owns param and origins in any case. */
static ShoalStatus finish_net(Caffe__NetParameter *param, ShoalTextOrigins origins,
                              const char *file, ShoalCaffeNet *net, ShoalError *err) {
    ShoalCaffeUpgrade upgrade = {.file = file, .origins = &origins, .err = err};
    ShoalStatus status =
        shoal_caffe_upgrade_finish(&upgrade, shoal_caffe_upgrade_net(&upgrade, param));
    char *name = status ? NULL : shoal_strdup(file);
    if (!status && !name)
        status = shoal_error_memory(err, "a file name", strlen(file));
    if (status) {
        shoal_text_origins_close(&origins);
        caffe__net_parameter__free_unpacked(param, NULL);
        return status;
    }
    *net = (ShoalCaffeNet){.param = param, .file = name, .origins = origins};
    return SHOAL_OK;
}

ShoalStatus shoal_caffe_net_from_text(const char *text, size_t size, const char *file,
                                      ShoalCaffeNet *net, ShoalError *err) {
    ProtobufCMessage *message;
    ShoalTextOrigins origins;
    ShoalStatus status = shoal_text_parse(&caffe__net_parameter__descriptor, text, size, file,
                                          &origins, &message, err);
    if (status)
        return status;
    return finish_net((Caffe__NetParameter *)message, origins, file, net, err);
}

ShoalStatus shoal_caffe_net_from_bytes(const void *bytes, size_t size, const char *file,
                                       ShoalCaffeNet *net, ShoalError *err) {
    ProtobufCMessage *message = NULL;
    ShoalStatus status =
        shoal_caffe_unpack(&caffe__net_parameter__descriptor, bytes, size, file, &message, err);
    if (status)
        return status;
    return finish_net((Caffe__NetParameter *)message, (ShoalTextOrigins){0}, file, net, err);
}

void shoal_caffe_net_close(ShoalCaffeNet *net) {
    if (net->param)
        caffe__net_parameter__free_unpacked(net->param, NULL);
    shoal_text_origins_close(&net->origins);
    shoal_free(net->file);
    *net = (ShoalCaffeNet){0};
}

const char *shoal_caffe_net_where(const ShoalCaffeNet *net, const void *message, char *where,
                                  size_t size) {
    return shoal_caffe_where(net->file, &net->origins, message, where, size);
}

/* ---- solvers ---- */

static ShoalStatus upgrade_inner_nets(Caffe__SolverParameter *solver, const char *file,
                                      ShoalTextOrigins *origins, ShoalError *err) {
    ShoalCaffeUpgrade upgrade = {.file = file, .origins = origins, .err = err};
    ShoalStatus status = SHOAL_OK;
    if (solver->net_param)
        status = shoal_caffe_upgrade_net(&upgrade, solver->net_param);
    if (!status && solver->train_net_param)
        status = shoal_caffe_upgrade_net(&upgrade, solver->train_net_param);
    for (size_t i = 0; i < solver->n_test_net_param && !status; i++)
        status = shoal_caffe_upgrade_net(&upgrade, solver->test_net_param[i]);
    return shoal_caffe_upgrade_finish(&upgrade, status);
}

ShoalStatus shoal_caffe_solver_from_text(const char *text, size_t size, const char *file,
                                         ShoalTextOrigins *origins, Caffe__SolverParameter **out,
                                         ShoalError *err) {
    ProtobufCMessage *message;
    ShoalTextOrigins places = {0};
    ShoalStatus status = shoal_text_parse(&caffe__solver_parameter__descriptor, text, size, file,
                                          &places, &message, err);
    if (status)
        return status;
    Caffe__SolverParameter *solver = (Caffe__SolverParameter *)message;
    status = shoal_caffe_upgrade_solver(solver, file, err);
    if (!status)
        status = upgrade_inner_nets(solver, file, &places, err);
    if (status) {
        shoal_text_origins_close(&places);
        protobuf_c_message_free_unpacked(message, NULL);
        return status;
    }
    if (origins)
        *origins = places;
    else
        shoal_text_origins_close(&places);
    *out = solver;
    return SHOAL_OK;
}

/* ---- blobs ---- */

static bool has_old_axes(const Caffe__BlobProto *blob) {
    return blob->has_num || blob->has_channels || blob->has_height || blob->has_width;
}

static ShoalStatus check_values(const Caffe__BlobProto *blob, int64_t count, ShoalError *err) {
    size_t values = blob->n_double_data ? blob->n_double_data : blob->n_data;
    if (values && values != (uint64_t)count)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "a blob whose shape has %lld values holds %zu; the file is damaged",
                               (long long)count, values);
    return SHOAL_OK;
}

ShoalStatus shoal_caffe_blob_shape(const Caffe__BlobProto *blob, int max_axes, int *dims, int *axes,
                                   ShoalError *err) {
    const int64_t old[4] = {blob->num, blob->channels, blob->height, blob->width};
    const int64_t *sizes = old;
    size_t n = 4;
    if (!has_old_axes(blob)) {
        sizes = blob->shape ? blob->shape->dim : NULL;
        n = blob->shape ? blob->shape->n_dim : 0;
    }
    if (max_axes < 0 || n > (size_t)max_axes)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "a blob of %zu axes, expected at most %d", n,
                               max_axes);
    int64_t count = 1;
    for (size_t i = 0; i < n; i++) {
        if (sizes[i] < 0 || sizes[i] > INT_MAX)
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "axis %zu of a blob is %lld long, expected 0 to 2147483647", i,
                                   (long long)sizes[i]);
        /* Both factors are below 2^31. */
        count *= sizes[i];
        if (count > INT_MAX)
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "a blob of more than 2147483647 values; Caffe has no larger "
                                   "ones");
    }
    ShoalStatus status = check_values(blob, count, err);
    if (status)
        return status;
    for (size_t i = 0; i < n; i++)
        dims[i] = (int)sizes[i];
    *axes = (int)n;
    return SHOAL_OK;
}
