/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

static ShoalStatus infogain_loss_reshape(ShoalLayer *layer, ShoalError *err) {
    return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                            "InfogainLoss is not in this version");
}

const ShoalLayerClass shoal_layer_infogain_loss_class = {
    .type = "InfogainLoss",
    .min_bottoms = 0,
    .max_bottoms = -1,
    .min_tops = 0,
    .max_tops = -1,
    .reshape = infogain_loss_reshape,
};
