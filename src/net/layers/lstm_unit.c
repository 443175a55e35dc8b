/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

static ShoalStatus lstm_unit_reshape(ShoalLayer *layer, ShoalError *err) {
    return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err, "LSTMUnit is not in this version");
}

const ShoalLayerClass shoal_layer_lstm_unit_class = {
    .type = "LSTMUnit",
    .min_bottoms = 0,
    .max_bottoms = -1,
    .min_tops = 0,
    .max_tops = -1,
    .reshape = lstm_unit_reshape,
};
