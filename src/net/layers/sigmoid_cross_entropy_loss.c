/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

static ShoalStatus sigmoid_cross_entropy_loss_reshape(ShoalLayer *layer, ShoalError *err) {
    return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                            "SigmoidCrossEntropyLoss is not in this version");
}

const ShoalLayerClass shoal_layer_sigmoid_cross_entropy_loss_class = {
    .type = "SigmoidCrossEntropyLoss",
    .min_bottoms = 0,
    .max_bottoms = -1,
    .min_tops = 0,
    .max_tops = -1,
    .reshape = sigmoid_cross_entropy_loss_reshape,
};
