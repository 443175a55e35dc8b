/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CAFFE_MODEL_H
#define SHOAL_CAFFE_MODEL_H

#include <stdbool.h>
#include <stddef.h>

#include "caffe/caffe.pb-c.h"
#include "caffe/text.h"
#include "shoal/status.h"

/* Caffe's files as messages: nets, solvers, weights (.caffemodel), solver state (.solverstate) and
 * mean files. Bytes in, messages out: nothing here opens a file. Old nets (V0, V1) come out
 * upgraded to today's `layer { type: "..." }`, as Caffe upgrades them (BVLC Caffe
 * upgrade_proto.cpp). */

/* A net with its origin, for error messages. */
typedef struct ShoalCaffeNet {
    Caffe__NetParameter *param; /* upgraded; owned */
    char *file;                 /* the name for messages; owned */
    ShoalTextOrigins origins;
} ShoalCaffeNet;

/* Parses a net from text (prototxt), respectively bytes (caffemodel), and upgrades it. On success
 * the caller closes it with shoal_caffe_net_close. Errors: SHOAL_ERR_PARSE (place in file),
 * SHOAL_ERR_MODEL (an upgrade that Caffe would refuse), SHOAL_ERR_MEMORY. */
ShoalStatus shoal_caffe_net_from_text(const char *text, size_t size, const char *file,
                                      ShoalCaffeNet *net, ShoalError *err);
ShoalStatus shoal_caffe_net_from_bytes(const void *bytes, size_t size, const char *file,
                                       ShoalCaffeNet *net, ShoalError *err);
void shoal_caffe_net_close(ShoalCaffeNet *net);

/* "FILE:LINE:COLUMN" of a message of the net when it is known, else "FILE"; written to
 * where[0..size), returned. */
const char *shoal_caffe_net_where(const ShoalCaffeNet *net, const void *message, char *where,
                                  size_t size);

/* Parses a solver from text and upgrades it (solver_type enum -> type string, as Caffe).
 * Also for a solver whose fields `net_param`, `train_net_param`... are inline: those nets are
 * upgraded too. *out: caffe__solver_parameter__free_unpacked(*out, NULL). origins may be NULL; else
 * shoal_text_origins_close. Caffe's default for an absent snapshot_prefix depends on the file's
 * path and is not made here. Errors as shoal_caffe_net_from_text. */
ShoalStatus shoal_caffe_solver_from_text(const char *text, size_t size, const char *file,
                                         ShoalTextOrigins *origins, Caffe__SolverParameter **out,
                                         ShoalError *err);

/* Unpacks a message (SolverState, BlobProto, Datum, ...) from bytes; SHOAL_ERR_PARSE names the file
 * and the type when the bytes are not one. *out: protobuf_c_message_free_unpacked(*out, NULL). */
ShoalStatus shoal_caffe_unpack(const ProtobufCMessageDescriptor *descriptor, const void *bytes,
                               size_t size, const char *file, ProtobufCMessage **out,
                               ShoalError *err);

/* Packs any message into shoal_calloc storage (*out, owned by the caller). Bytes are those that
 * Caffe writes. SHOAL_ERR_MEMORY; SHOAL_ERR_UNSUPPORTED beyond 2 GiB, which protobuf cannot read.
 */
ShoalStatus shoal_caffe_pack(const ProtobufCMessage *message, void **out, size_t *size,
                             ShoalError *err);

/* Takes the next piece of `total` bytes; anything but SHOAL_OK ends it. */
typedef ShoalStatus ShoalCaffeSink(void *context, const void *bytes, size_t size, size_t total,
                                   ShoalError *err);

/* The bytes of shoal_caffe_pack piece by piece, about a megabyte at a time, for what there may not
 * be memory for twice. Errors as there, and those of the sink. */
ShoalStatus shoal_caffe_stream(const ProtobufCMessage *message, ShoalCaffeSink *sink, void *context,
                               ShoalError *err);

/* A deep copy (pack + unpack); NULL when memory is short. Free with
 * protobuf_c_message_free_unpacked. */
ProtobufCMessage *shoal_caffe_copy(const ProtobufCMessage *message);

/* The shape of a blob as Caffe's Blob::FromProto reads it: num, channels, height, width (4 axes, an
 * absent one is 0) when any of them is there, else `shape { dim }`; neither is a scalar, 0 axes.
 * Fills dims[0..*axes). SHOAL_ERR_MODEL: more than max_axes axes, a negative size, a product beyond
 * 2^31-1 (Caffe's limit), or a product that differs from the number of values (double_data if
 * there are any, else data) when there are values. */
ShoalStatus shoal_caffe_blob_shape(const Caffe__BlobProto *blob, int max_axes, int *dims, int *axes,
                                   ShoalError *err);

/* The layer type's name in today's files, for an old enum value ("" for NONE); NULL when the value
 * is none of the enum. */
const char *shoal_caffe_v1_type_name(Caffe__V1LayerParameter__LayerType type);

#endif
