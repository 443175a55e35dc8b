/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include "base/error.h"
#include "caffe/hdf5.h"

/* HDF5Output: writes its bottoms as datasets "data" and "label" of a file, four axes each, as
 * Caffe. Unlike there, where a second forward pass fails, each pass appends its rows. The file is
 * made by the first pass: a net that is only looked at must not empty it. */

enum { OLD_AXES = 4 }; /* num, channels, height, width */

typedef struct Hdf5OutputState {
    ShoalHdf5Writer *writer;
} Hdf5OutputState;

static const char *file_name(const ShoalLayer *layer) {
    const Caffe__HDF5OutputParameter *param = layer->param->hdf5_output_param;
    return param && param->file_name ? param->file_name : "";
}

static ShoalStatus hdf5_output_setup(ShoalLayer *layer, ShoalError *err) {
    if (!file_name(layer)[0])
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "no file to write; expected hdf5_output_param.file_name");
    if (!layer->context->writes_files)
        return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                                "it writes files on the machine that computes; run it in one "
                                "process");
    return SHOAL_OK;
}

static ShoalStatus hdf5_output_reshape(ShoalLayer *layer, ShoalError *err) {
    const ShoalBlob *data = layer->bottoms[0], *label = layer->bottoms[1];
    if (data->axes > OLD_AXES || label->axes > OLD_AXES)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottoms of %d and %d axes; it writes at most %d", data->axes,
                                label->axes, OLD_AXES);
    int rows = data->axes ? data->shape[0] : 1, labels = label->axes ? label->shape[0] : 1;
    if (rows != labels)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "%d rows of data, but %d of labels; expected as many", rows,
                                labels);
    return SHOAL_OK;
}

static ShoalStatus append(ShoalLayer *layer, const char *name, const ShoalBlob *blob,
                          ShoalError *err) {
    Hdf5OutputState *state = layer->state;
    int dims[OLD_AXES];
    for (int i = 0; i < OLD_AXES; i++)
        dims[i] = i < blob->axes ? blob->shape[i] : 1;
    return shoal_hdf5_writer_append(state->writer, name, OLD_AXES, dims, blob->data, err);
}

static ShoalStatus hdf5_output_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                       ShoalError *err) {
    (void)compute;
    Hdf5OutputState *state = layer->state;
    ShoalStatus status =
        state->writer ? SHOAL_OK : shoal_hdf5_writer_create(file_name(layer), &state->writer, err);
    if (!status)
        status = append(layer, "data", layer->bottoms[0], err);
    if (!status)
        status = append(layer, "label", layer->bottoms[1], err);
    return status ? shoal_layer_prefix(layer, status, err) : SHOAL_OK;
}

static void hdf5_output_close(ShoalLayer *layer) {
    Hdf5OutputState *state = layer->state;
    shoal_hdf5_writer_close(state->writer);
    state->writer = NULL;
}

const ShoalLayerClass shoal_layer_hdf5_output_class = {
    .type = "HDF5Output",
    .flags = SHOAL_LAYER_NO_BACKWARD,
    .min_bottoms = 2,
    .max_bottoms = 2,
    .min_tops = 0,
    .max_tops = 0,
    .state_bytes = sizeof(Hdf5OutputState),
    .setup = hdf5_output_setup,
    .reshape = hdf5_output_reshape,
    .forward = hdf5_output_forward,
    .close = hdf5_output_close,
};
