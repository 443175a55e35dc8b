/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

/* Python: refused. Its code would have to run on every phone. */

static ShoalStatus python_setup(ShoalLayer *layer, ShoalError *err) {
    const Caffe__PythonParameter *param = layer->param->python_param;
    return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                            "it is a Python layer (%.100s.%.100s), and there is no Python where "
                            "nets run; build it from other layers, or leave it out of this phase "
                            "with `exclude { phase: ... }`",
                            param && param->module ? param->module : "?",
                            param && param->layer ? param->layer : "?");
}

const ShoalLayerClass shoal_layer_python_class = {
    .type = "Python",
    .min_bottoms = 0,
    .max_bottoms = -1,
    .min_tops = 0,
    .max_tops = -1,
    .setup = python_setup,
    .reshape = python_setup,
};
