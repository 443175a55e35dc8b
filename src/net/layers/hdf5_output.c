/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

static ShoalStatus hdf5_output_reshape(ShoalLayer *layer, ShoalError *err) {
    return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err, "HDF5Output is not in this version");
}

const ShoalLayerClass shoal_layer_hdf5_output_class = {
    .type = "HDF5Output",
    .min_bottoms = 0,
    .max_bottoms = -1,
    .min_tops = 0,
    .max_tops = -1,
    .reshape = hdf5_output_reshape,
};
