/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

static ShoalStatus mvn_reshape(ShoalLayer *layer, ShoalError *err) {
    return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err, "MVN is not in this version");
}

const ShoalLayerClass shoal_layer_mvn_class = {
    .type = "MVN",
    .min_bottoms = 0,
    .max_bottoms = -1,
    .min_tops = 0,
    .max_tops = -1,
    .reshape = mvn_reshape,
};
