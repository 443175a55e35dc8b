/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

static ShoalStatus contrastive_loss_reshape(ShoalLayer *layer, ShoalError *err) {
    return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                            "ContrastiveLoss is not in this version");
}

const ShoalLayerClass shoal_layer_contrastive_loss_class = {
    .type = "ContrastiveLoss",
    .min_bottoms = 0,
    .max_bottoms = -1,
    .min_tops = 0,
    .max_tops = -1,
    .reshape = contrastive_loss_reshape,
};
