/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of layers that take each value by itself, and of other simple ones. */
#include "grad/grad.h"

#define NEURON(type, settings) "name: 'n' type: '" type "' bottom: 'x' top: 'y' " settings
#define IN_PLACE(type, settings) "name: 'n' type: '" type "' bottom: 'x' top: 'x' " settings
#define SMALL {SHAPE(3, 5)}, .n_bottoms = 1
#define IMAGE {SHAPE(2, 3, 2, 4)}, .n_bottoms = 1

/* Values on both sides of Clip's borders -0.6 and 0.4, none within a step of them. */
static bool draw_clip(ShoalRng *rng, int bottom, size_t n, float *values) {
    (void)bottom;
    for (size_t i = 0; i < n; i++)
        values[i] = -1.05f + 0.1f * (float)shoal_rng_below(rng, 22);
    return true;
}

/* Bottom 0 has values of 0 that PROD's gradients do not divide by. */
static bool draw_zeros(ShoalRng *rng, int bottom, size_t n, float *values) {
    (void)rng;
    for (size_t i = 0; i < n && !bottom; i++)
        values[i] = i % 3 ? 0.3f * (float)(i % 5) : 0;
    return !bottom;
}

static const GradCase CASES[] = {
    {NEURON("AbsVal", ""), SMALL, .inputs = OFF_ZERO},
    {IN_PLACE("AbsVal", ""), SMALL, .inputs = OFF_ZERO},
    {NEURON("BNLL", ""), SMALL},
    {IN_PLACE("BNLL", ""), SMALL},
    {NEURON("Clip", "clip_param { min: -0.6 max: 0.4 }"), SMALL, .draw = draw_clip},
    {IN_PLACE("Clip", "clip_param { min: -0.6 max: 0.4 }"), IMAGE, .draw = draw_clip},
    {NEURON("ELU", ""), SMALL, .inputs = OFF_ZERO},
    {IN_PLACE("ELU", "elu_param { alpha: 0.5 }"), IMAGE, .inputs = OFF_ZERO},
    {IN_PLACE("ELU", "elu_param { alpha: -1.5 }"), SMALL, .inputs = OFF_ZERO},
    {NEURON("ELU", "elu_param { alpha: 0 }"), SMALL, .inputs = OFF_ZERO},
    {NEURON("Exp", ""), SMALL},
    {IN_PLACE("Exp", "exp_param { base: 2 scale: 0.7 shift: -0.5 }"), SMALL},
    {NEURON("Exp", "exp_param { base: 0.5 shift: 1 }"), SMALL},
    {NEURON("Log", ""), SMALL, .inputs = POSITIVE},
    {IN_PLACE("Log", "log_param { base: 3 scale: 0.8 shift: 0.4 }"), SMALL, .inputs = POSITIVE},
    {NEURON("Log", "log_param { base: 0.5 scale: -1 shift: 3 }"), SMALL, .inputs = POSITIVE},
    {NEURON("Power", ""), SMALL},
    {NEURON("Power", "power_param { scale: -2 shift: 1 }"), SMALL},
    {IN_PLACE("Power", "power_param { power: 2 scale: 0.5 shift: 0.3 }"), SMALL},
    {IN_PLACE("Power", "power_param { power: 0.37 scale: 0.83 shift: 2.4 }"), SMALL},
    {NEURON("Power", "power_param { power: -1.5 }"), SMALL, .inputs = POSITIVE, .step = 3e-3f},
    {NEURON("Power", "power_param { power: 3 }"), SMALL},
    {NEURON("PReLU", ""), IMAGE, .inputs = OFF_ZERO},
    {IN_PLACE("PReLU", ""), IMAGE, .inputs = OFF_ZERO},
    {NEURON("PReLU", "prelu_param { channel_shared: true }"), IMAGE, .inputs = OFF_ZERO},
    {IN_PLACE("PReLU", "prelu_param { channel_shared: true }"), SMALL, .inputs = OFF_ZERO},
    {IN_PLACE("PReLU", "param { lr_mult: 0 }"), SMALL, .inputs = OFF_ZERO},
    {NEURON("Sigmoid", ""), SMALL},
    {IN_PLACE("Sigmoid", ""), SMALL},
    {NEURON("Swish", ""), SMALL},
    {IN_PLACE("Swish", "swish_param { beta: 1.7 }"), SMALL},
    {NEURON("Swish", "swish_param { beta: -0.5 }"), IMAGE},
    {NEURON("MVN", "mvn_param { eps: 1e-9 }"), IMAGE, .step = 3e-3f},
    {NEURON("MVN", "mvn_param { normalize_variance: false }"), IMAGE},
    {NEURON("MVN", "mvn_param { across_channels: true }"), IMAGE, .step = 3e-3f},
    {IN_PLACE("MVN", ""), IMAGE, .step = 3e-3f},
    {IN_PLACE("MVN", "mvn_param { across_channels: true normalize_variance: false }"), IMAGE},
    {NEURON("Tile", "tile_param { tiles: 3 }"), IMAGE},
    {NEURON("Tile", "tile_param { tiles: 2 axis: 0 }"), SMALL},
    {NEURON("Tile", "tile_param { tiles: 4 axis: -1 }"), IMAGE},
    {NEURON("Tile", "tile_param { tiles: 1 axis: 2 }"), IMAGE},
    {NEURON("Bias", ""), IMAGE},
    {IN_PLACE("Bias", "bias_param { axis: 2 num_axes: 2 }"), IMAGE},
    {NEURON("Bias", "bias_param { axis: 0 num_axes: -1 }"), SMALL},
    {IN_PLACE("Bias", "bias_param { num_axes: 0 }"), SMALL},
    {IN_PLACE("Bias", "param { lr_mult: 0 }"), SMALL},
    {"name: 'b' type: 'Bias' bottom: 'x' bottom: 'z' top: 'y' bias_param { axis: 0 }",
     {SHAPE(3, 2, 2), SHAPE(3, 2)},
     .n_bottoms = 2},
    {"name: 'b' type: 'Bias' bottom: 'x' bottom: 'z' top: 'x' bias_param { axis: -2 }",
     {SHAPE(3, 4, 2), SHAPE(4)},
     .n_bottoms = 2},
    {"name: 'b' type: 'Bias' bottom: 'x' bottom: 'z' top: 'y'",
     {SHAPE(3, 2), SCALAR},
     .n_bottoms = 2},
    {"name: 's' type: 'Scale' bottom: 'x' bottom: 'z' top: 'y'",
     {SHAPE(3, 2), SCALAR},
     .n_bottoms = 2},
    {"name: 'w' type: 'Parameter' top: 'y' parameter_param { shape { dim: 3 dim: 2 } }",
     .n_bottoms = 0},
    {"name: 's' type: 'Silence' bottom: 'x' bottom: 'z'", {SHAPE(3, 2), SHAPE(4)}, .n_bottoms = 2},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' bottom: 'w' top: 'y' "
     "eltwise_param { operation: PROD }",
     {SHAPE(3, 7), SHAPE(3, 7), SHAPE(3, 7)},
     .n_bottoms = 3,
     .draw = draw_zeros},
    {"name: 'e' type: 'Eltwise' bottom: 'x' bottom: 'z' top: 'y' "
     "eltwise_param { coeff: -2 coeff: 0.5 }",
     {SHAPE(3, 7), SHAPE(3, 7)},
     .n_bottoms = 2},
};

GRAD_MAIN(CASES)
