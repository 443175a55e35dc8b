/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

static ShoalStatus hinge_loss_reshape(ShoalLayer *layer, ShoalError *err) {
    return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err, "HingeLoss is not in this version");
}

const ShoalLayerClass shoal_layer_hinge_loss_class = {
    .type = "HingeLoss",
    .min_bottoms = 0,
    .max_bottoms = -1,
    .min_tops = 0,
    .max_tops = -1,
    .reshape = hinge_loss_reshape,
};
