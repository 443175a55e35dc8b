/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_TIME_COST_H
#define SHOAL_TRAIN_TIME_COST_H

#include "net/layer.h"

/* What the passes of a layer must do at least, whatever computes them. */
typedef struct ShoalLayerCost {
    double forward_flop, backward_flop;   /* 2 per multiply-add; of Convolution, InnerProduct */
    double forward_bytes, backward_bytes; /* read and written, each tensor once */
} ShoalLayerCost;

/* For the present share. Forward reads bottoms and weights and writes tops. Backward reads the
 * tops' gradients, what it needs of tops, bottoms and weights, writes the bottoms' gradients and
 * adds to those of the weights. A layer that hands on its bottom's memory moves nothing. */
ShoalLayerCost shoal_layer_cost(const ShoalLayer *layer);

#endif
