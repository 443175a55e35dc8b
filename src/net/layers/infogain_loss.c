/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"

/* InfogainLoss: -sum over the classes k of H[label][k] log max(p[k], 1e-20), p the softmax of
 * bottom 0, H a matrix from a file (infogain_loss_param.source, a BlobProto) or bottom 2. Top 1
 * (optional): the probabilities. Divided as loss_param.normalization says: by default by the labels
 * that count. */

typedef struct InfogainState {
    ShoalLabelLayout layout;
    ShoalLossNorm norm;
    size_t valid;
    float *matrix; /* of the file; NULL: bottom 2 */
    size_t matrix_count;
} InfogainState;

static const float LEAST = 1e-20f; /* Caffe's kLOG_THRESHOLD */

static ShoalStatus take_matrix(ShoalLayer *layer, const Caffe__BlobProto *blob, ShoalError *err) {
    InfogainState *state = layer->state;
    bool wide = blob->n_double_data > 0;
    state->matrix_count = wide ? blob->n_double_data : blob->n_data;
    state->matrix = shoal_calloc(state->matrix_count, sizeof *state->matrix);
    if (!state->matrix)
        return shoal_layer_fail(layer, SHOAL_ERR_MEMORY, err, "out of memory for the matrix");
    for (size_t i = 0; i < state->matrix_count; i++)
        state->matrix[i] = wide ? (float)blob->double_data[i] : blob->data[i];
    return SHOAL_OK;
}

static ShoalStatus read_matrix(ShoalLayer *layer, ShoalError *err) {
    const Caffe__InfogainLossParameter *param = layer->param->infogain_loss_param;
    const ShoalLayerContext *context = layer->context;
    if (!param || !param->source || !param->source[0])
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "no matrix; expected infogain_loss_param.source or a third bottom");
    if (!context->named_file)
        return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                                "its matrix is in a file, and none can be read here");
    const void *bytes;
    size_t size;
    Caffe__BlobProto *blob = NULL;
    ShoalStatus status =
        context->named_file(context->source_context, param->source, &bytes, &size, err);
    if (!status)
        status = shoal_caffe_unpack(&caffe__blob_proto__descriptor, bytes, size, param->source,
                                    (ProtobufCMessage **)&blob, err);
    if (status)
        return shoal_layer_prefix(layer, status, err);
    status = take_matrix(layer, blob, err);
    caffe__blob_proto__free_unpacked(blob, NULL);
    return status;
}

static ShoalStatus infogain_setup(ShoalLayer *layer, ShoalError *err) {
    InfogainState *state = layer->state;
    const Caffe__LossParameter *param = layer->param->loss_param;
    state->layout.has_ignore = param && param->has_ignore_label;
    state->layout.ignore = param ? param->ignore_label : 0;
    if (param && param->has_normalize)
        return shoal_layer_fail(
            layer, SHOAL_ERR_MODEL, err,
            "loss_param.normalize is too old for this layer; use normalization");
    ShoalStatus status = shoal_layer_loss_norm(
        layer, CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__VALID, &state->norm, err);
    return status || layer->n_bottoms > 2 ? status : read_matrix(layer, err);
}

static ShoalStatus infogain_reshape(ShoalLayer *layer, ShoalError *err) {
    InfogainState *state = layer->state;
    const Caffe__InfogainLossParameter *param = layer->param->infogain_loss_param;
    ShoalStatus status =
        shoal_layer_label_layout(layer, param ? param->axis : 1, &state->layout, err);
    if (status)
        return status;
    size_t classes = (size_t)state->layout.classes;
    size_t have = state->matrix ? state->matrix_count : layer->bottoms[2]->count;
    if (have != classes * classes)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "the matrix has %zu numbers; expected %zu x %zu, as there are "
                                "classes",
                                have, classes, classes);
    /* A matrix that a layer gives is no share of anything, but must not be cut. */
    layer->whole_batch =
        layer->whole_batch || (!state->matrix && layer->bottoms[2]->axes > 0 &&
                               layer->bottoms[2]->shape[0] == layer->context->batch_full);
    layer->saved_bytes = layer->bottoms[0]->count * sizeof(float);
    status = shoal_layer_shape_top(layer, 0, 0, NULL, err);
    return status || layer->n_tops < 2
               ? status
               : shoal_layer_shape_top_like(layer, 1, layer->bottoms[0], err);
}

static const float *row_of(const ShoalLayer *layer, int label) {
    const InfogainState *state = layer->state;
    const float *matrix = state->matrix ? state->matrix : layer->bottoms[2]->data;
    return matrix + (size_t)label * (size_t)state->layout.classes;
}

static double factor_of(const ShoalLayer *layer) {
    const InfogainState *state = layer->state;
    return shoal_layer_loss_factor(layer, state->norm, state->layout.outer, state->layout.inner,
                                   state->valid);
}

static ShoalStatus infogain_forward(ShoalLayer *layer, const ShoalCompute *compute,
                                    ShoalError *err) {
    InfogainState *state = layer->state;
    const ShoalLabelLayout *layout = &state->layout;
    size_t classes = (size_t)layout->classes, inner = layout->inner;
    float *p = layer->saved;
    double sum = 0;
    shoal_softmax_fwd(compute, layout->outer, classes, inner, layer->bottoms[0]->data, p);
    state->valid = 0;
    for (size_t n = 0; n < layout->outer * inner; n++) {
        int label;
        ShoalStatus status = shoal_layer_label_read(layer, layout, n, &label, err);
        if (status)
            return status;
        if (label < 0)
            continue;
        const float *at = p + n / inner * classes * inner + n % inner, *row = row_of(layer, label);
        for (size_t k = 0; k < classes; k++) {
            float value = at[k * inner] < LEAST ? LEAST : at[k * inner];
            sum -= (double)row[k] * log((double)value);
        }
        state->valid++;
    }
    layer->tops[0]->data[0] = (float)(sum * factor_of(layer));
    if (layer->n_tops > 1)
        memcpy(layer->tops[1]->data, p, layer->bottoms[0]->count * sizeof(float));
    return SHOAL_OK;
}

static void infogain_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    (void)compute;
    const InfogainState *state = layer->state;
    const ShoalLabelLayout *layout = &state->layout;
    size_t classes = (size_t)layout->classes, inner = layout->inner;
    const float *p = layer->saved;
    float factor = (float)((double)layer->tops[0]->diff[0] * factor_of(layer));
    for (size_t n = 0; n < layout->outer * inner && layer->propagate[0]; n++) {
        int label = 0;
        (void)shoal_layer_label_read(layer, layout, n, &label, NULL); /* forward has checked it */
        size_t at = n / inner * classes * inner + n % inner;
        float *dx = layer->bottoms[0]->diff;
        const float *row = label < 0 ? NULL : row_of(layer, label);
        float sum = row ? (float)shoal_vec_sum(classes, row) : 0;
        for (size_t k = 0; k < classes; k++, at += inner)
            dx[at] = row ? factor * (p[at] * sum - row[k]) : 0;
    }
}

static void infogain_close(ShoalLayer *layer) {
    shoal_free(((InfogainState *)layer->state)->matrix);
}

const ShoalLayerClass shoal_layer_infogain_loss_class = {
    .type = "InfogainLoss",
    .flags = SHOAL_LAYER_LOSS | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 2,
    .max_bottoms = 3,
    .min_tops = 1,
    .max_tops = 2,
    .state_bytes = sizeof(InfogainState),
    .setup = infogain_setup,
    .reshape = infogain_reshape,
    .forward = infogain_forward,
    .backward = infogain_backward,
    .close = infogain_close,
    .no_gradient_bottoms = 6,
};
