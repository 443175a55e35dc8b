/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* Every layer type: one row each. */
static const ShoalLayerClass *const CLASSES[] = {
    &shoal_layer_abs_val_class,
    &shoal_layer_accuracy_class,
    &shoal_layer_arg_max_class,
    &shoal_layer_batch_norm_class,
    &shoal_layer_batch_reindex_class,
    &shoal_layer_bias_class,
    &shoal_layer_bnll_class,
    &shoal_layer_clip_class,
    &shoal_layer_concat_class,
    &shoal_layer_contrastive_loss_class,
    &shoal_layer_convolution_class,
    &shoal_layer_crop_class,
    &shoal_layer_data_class,
    &shoal_layer_deconvolution_class,
    &shoal_layer_dropout_class,
    &shoal_layer_dummy_data_class,
    &shoal_layer_eltwise_class,
    &shoal_layer_elu_class,
    &shoal_layer_embed_class,
    &shoal_layer_euclidean_loss_class,
    &shoal_layer_exp_class,
    &shoal_layer_filter_class,
    &shoal_layer_flatten_class,
    &shoal_layer_hdf5_data_class,
    &shoal_layer_hdf5_output_class,
    &shoal_layer_hinge_loss_class,
    &shoal_layer_im2col_class,
    &shoal_layer_image_data_class,
    &shoal_layer_infogain_loss_class,
    &shoal_layer_inner_product_class,
    &shoal_layer_input_class,
    &shoal_layer_log_class,
    &shoal_layer_lrn_class,
    &shoal_layer_lstm_class,
    &shoal_layer_lstm_unit_class,
    &shoal_layer_memory_data_class,
    &shoal_layer_multinomial_logistic_loss_class,
    &shoal_layer_mvn_class,
    &shoal_layer_parameter_class,
    &shoal_layer_pooling_class,
    &shoal_layer_power_class,
    &shoal_layer_prelu_class,
    &shoal_layer_python_class,
    &shoal_layer_reduction_class,
    &shoal_layer_relu_class,
    &shoal_layer_reshape_class,
    &shoal_layer_rnn_class,
    &shoal_layer_scale_class,
    &shoal_layer_sigmoid_class,
    &shoal_layer_sigmoid_cross_entropy_loss_class,
    &shoal_layer_silence_class,
    &shoal_layer_slice_class,
    &shoal_layer_softmax_class,
    &shoal_layer_softmax_loss_class,
    &shoal_layer_split_class,
    &shoal_layer_spp_class,
    &shoal_layer_swish_class,
    &shoal_layer_tanh_class,
    &shoal_layer_threshold_class,
    &shoal_layer_tile_class,
    &shoal_layer_window_data_class,
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
