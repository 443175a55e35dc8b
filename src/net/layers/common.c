/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"

static const char *layer_name(const ShoalLayer *layer) {
    return layer->param->name ? layer->param->name : "";
}

ShoalStatus shoal_layer_fail(const ShoalLayer *layer, ShoalStatus status, ShoalError *err,
                             const char *format, ...) {
    char text[768];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return shoal_error_set(err, status, "layer '%s': %s", layer_name(layer), text);
}

ShoalStatus shoal_layer_prefix(const ShoalLayer *layer, ShoalStatus status, ShoalError *err) {
    shoal_error_prefix(err, "layer '%s'", layer_name(layer));
    return status;
}

ShoalStatus shoal_layer_shape_top(const ShoalLayer *layer, int top, int axes, const int *shape,
                                  ShoalError *err) {
    const int none = 0; /* a scalar's callers pass NULL */
    ShoalStatus status = shoal_blob_reshape(layer->tops[top], axes, shape ? shape : &none, err);
    if (status != SHOAL_OK) {
        shoal_error_prefix(err, "layer '%s': top '%s'", layer_name(layer), layer->tops[top]->name);
        return status;
    }
    return SHOAL_OK;
}

ShoalStatus shoal_layer_shape_top_like(const ShoalLayer *layer, int top, const ShoalBlob *blob,
                                       ShoalError *err) {
    if (layer->tops[top] == blob)
        return SHOAL_OK;
    return shoal_layer_shape_top(layer, top, blob->axes, blob->shape, err);
}

ShoalStatus shoal_layer_axis(const ShoalLayer *layer, int axis, int *out, ShoalError *err) {
    const ShoalBlob *bottom = layer->bottoms[0];
    int index = shoal_blob_axis(bottom, axis);
    if (index >= 0) {
        *out = index;
        return SHOAL_OK;
    }
    char shape[128];
    shoal_blob_shape_text(bottom, shape, sizeof shape);
    if (bottom->axes == 0)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "axis %d is out of range: bottom '%s' is a scalar", axis,
                                bottom->name);
    return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                            "axis %d is out of range: bottom '%s' is %s; expected %d to %d", axis,
                            bottom->name, shape, -bottom->axes, bottom->axes - 1);
}

ShoalStatus shoal_layer_int(const ShoalLayer *layer, const char *field, uint32_t value, int min,
                            int *out, ShoalError *err) {
    if (value > INT_MAX || (int)value < min)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err, "%s is %lu; expected %d to %d", field,
                                (unsigned long)value, min, INT_MAX);
    *out = (int)value;
    return SHOAL_OK;
}

ShoalStatus shoal_layer_shape_read(const ShoalLayer *layer, const Caffe__BlobShape *shape,
                                   int dims[SHOAL_MAX_AXES], int *axes, ShoalError *err) {
    if (shape->n_dim > SHOAL_MAX_AXES)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "a shape has %zu axes; expected at most %d", shape->n_dim,
                                SHOAL_MAX_AXES);
    for (size_t i = 0; i < shape->n_dim; i++) {
        if (shape->dim[i] < 0 || shape->dim[i] > INT_MAX)
            return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                    "dim %zu of a shape is %lld; expected 0 to %d", i,
                                    (long long)shape->dim[i], INT_MAX);
        dims[i] = (int)shape->dim[i];
    }
    *axes = (int)shape->n_dim;
    return SHOAL_OK;
}

ShoalStatus shoal_layer_declare(ShoalLayer *layer, int axes, const int *shape,
                                const Caffe__FillerParameter *filler, ShoalError *err) {
    ShoalStatus status = shoal_layer_add_param(layer, axes, shape, filler, err);
    if (status == SHOAL_OK)
        status = shoal_filler_check(filler, &layer->params[layer->n_params - 1]->blob, err);
    return status == SHOAL_OK ? SHOAL_OK : shoal_layer_prefix(layer, status, err);
}

ShoalStatus shoal_layer_label_layout(ShoalLayer *layer, int axis, ShoalLabelLayout *layout,
                                     ShoalError *err) {
    const ShoalBlob *scores = layer->bottoms[0], *labels = layer->bottoms[1];
    int index = 0;
    ShoalStatus status = shoal_layer_axis(layer, axis, &index, err);
    if (status != SHOAL_OK)
        return status;
    size_t outer = shoal_blob_count(scores, 0, index);
    size_t inner = shoal_blob_count(scores, index + 1, scores->axes);
    if (labels->count != outer * inner) {
        char have[128], want[128];
        return shoal_layer_fail(
            layer, SHOAL_ERR_MODEL, err,
            "labels '%s' are %s, but scores '%s' are %s with classes on axis %d; expected %zu "
            "labels, one for every place but the classes' axis",
            labels->name, shoal_blob_shape_text(labels, have, sizeof have), scores->name,
            shoal_blob_shape_text(scores, want, sizeof want), index, outer * inner);
    }
    layer->whole_batch = layer->whole_batch || index == 0;
    layout->outer = outer;
    layout->inner = inner;
    layout->classes = scores->shape[index];
    return SHOAL_OK;
}

ShoalStatus shoal_layer_label_read(const ShoalLayer *layer, const ShoalLabelLayout *layout,
                                   size_t n, int *label, ShoalError *err) {
    float value = layer->bottoms[1]->data[n];
    /* Beyond these an int cannot hold the label; the comparison also catches NaN. */
    bool fits = value > -2147483648.0f && value < 2147483648.0f;
    if (fits && layout->has_ignore && (int)value == layout->ignore) {
        *label = -1;
        return SHOAL_OK;
    }
    if (!fits || (int)value < 0 || (int)value >= layout->classes)
        return shoal_layer_fail(layer, SHOAL_ERR_DATA, err,
                                "label %g (number %zu of blob '%s') is out of range: '%s' has %d "
                                "classes; expected 0 to %d; check the dataset's labels and the "
                                "num_output of the layer before",
                                (double)value, n, layer->bottoms[1]->name, layer->bottoms[0]->name,
                                layout->classes, layout->classes - 1);
    *label = (int)value;
    return SHOAL_OK;
}

ShoalStatus shoal_layer_sample_layout(const ShoalLayer *layer, ShoalLabelLayout *layout,
                                      ShoalError *err) {
    const ShoalBlob *scores = layer->bottoms[0], *labels = layer->bottoms[1];
    size_t size = scores->axes ? shoal_blob_count(scores, 1, scores->axes) : 0;
    if (size < 1 || size > INT_MAX || labels->count != (size_t)scores->shape[0])
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "'%s' has %zu labels; expected one for each sample of '%s', which "
                                "must have values",
                                labels->name, labels->count, scores->name);
    layout->outer = (size_t)scores->shape[0];
    layout->inner = 1;
    layout->classes = (int)size;
    return SHOAL_OK;
}

ShoalStatus shoal_layer_loss_norm(ShoalLayer *layer, ShoalLossNorm fallback, ShoalLossNorm *norm,
                                  ShoalError *err) {
    const Caffe__LossParameter *param = layer->param->loss_param;
    *norm = fallback;
    if (param && param->has_normalization)
        *norm = param->normalization;
    else if (param && param->has_normalize)
        *norm = param->normalize ? CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__VALID
                                 : CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__BATCH_SIZE;
    if ((unsigned)*norm > CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__NONE)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "loss_param.normalization is the unknown mode %d; expected FULL, "
                                "VALID, BATCH_SIZE or NONE",
                                (int)*norm);
    layer->whole_batch = param && param->has_ignore_label &&
                         *norm == CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__VALID;
    return SHOAL_OK;
}

double shoal_layer_loss_factor(const ShoalLayer *layer, ShoalLossNorm norm, size_t outer,
                               size_t inner, size_t valid) {
    double n = 1;
    switch (norm) {
    case CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__FULL:
        n = (double)(outer * inner);
        break;
    case CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__VALID:
        n = (double)valid;
        break;
    case CAFFE__LOSS_PARAMETER__NORMALIZATION_MODE__BATCH_SIZE:
        n = (double)outer;
        break;
    default:
        return (double)shoal_layer_sum_scale(layer);
    }
    return 1 / (n < 1 ? 1 : n);
}

uint64_t shoal_layer_iteration(const ShoalLayer *layer) {
    const ShoalLayerContext *context = layer->context;
    return context->first_sample / (uint64_t)(context->batch_full > 0 ? context->batch_full : 1);
}

ShoalSampleRange shoal_layer_sample_range(const ShoalLayer *layer, size_t count, bool divides) {
    int batch = layer->context->batch_now;
    if (divides && batch > 0 && count % (size_t)batch == 0)
        return (ShoalSampleRange){(size_t)batch, count / (size_t)batch,
                                  layer->context->first_sample, layer->context->places};
    return (ShoalSampleRange){1, count, shoal_layer_iteration(layer), NULL};
}
