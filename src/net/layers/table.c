/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Every layer type: one row each. */
static const ShoalLayerClass *const CLASSES[] = {
    &shoal_layer_accuracy_class,      &shoal_layer_batch_norm_class,   &shoal_layer_concat_class,
    &shoal_layer_convolution_class,   &shoal_layer_data_class,         &shoal_layer_dropout_class,
    &shoal_layer_dummy_data_class,    &shoal_layer_eltwise_class,      &shoal_layer_flatten_class,
    &shoal_layer_inner_product_class, &shoal_layer_input_class,        &shoal_layer_lrn_class,
    &shoal_layer_pooling_class,       &shoal_layer_relu_class,         &shoal_layer_scale_class,
    &shoal_layer_softmax_class,       &shoal_layer_softmax_loss_class, &shoal_layer_split_class,
    &shoal_layer_tanh_class,
};

const ShoalLayerClass *shoal_layer_class_at(size_t n) {
    return n < sizeof CLASSES / sizeof CLASSES[0] ? CLASSES[n] : NULL;
}

const ShoalLayerClass *shoal_layer_class_find(const char *type) {
    const ShoalLayerClass *class;
    for (size_t n = 0; (class = shoal_layer_class_at(n)); n++)
        if (type && strcmp(class->type, type) == 0)
            return class;
    return NULL;
}
