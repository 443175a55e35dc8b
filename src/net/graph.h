/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_NET_GRAPH_H
#define SHOAL_NET_GRAPH_H

#include "caffe/model.h"

/* The layers of a net that a phase and state keep, in order, with Split layers put in wherever a
 * top feeds several bottoms (BVLC Caffe: Net::FilterNet, insert_splits.cpp). What NVCaffe has in
 * one layer, BatchNorm with scale_bias, becomes two: "NAME" and the Scale layer "NAME_scale_bias".
 * Messages only: shapes and memory come later. */

typedef struct ShoalGraphLayer {
    Caffe__LayerParameter *param;        /* own copy, without blobs; phase set */
    const Caffe__LayerParameter *source; /* where it came from in the model; NULL for a Split */
} ShoalGraphLayer;

typedef struct ShoalGraph {
    ShoalGraphLayer *layers;
    int count;
} ShoalGraph;

/* Errors: SHOAL_ERR_MODEL for a layer with both include and exclude rules, or a bottom that no
 * earlier layer gives; SHOAL_ERR_MEMORY. state may be NULL. */
ShoalStatus shoal_graph_build(const ShoalCaffeNet *model, Caffe__Phase phase,
                              const Caffe__NetState *state, ShoalGraph *out, ShoalError *err);
void shoal_graph_close(ShoalGraph *graph);

/* Whether a net state meets an include/exclude rule (Net::StateMeetsRule). */
bool shoal_graph_state_meets(const Caffe__NetStateRule *rule, Caffe__Phase phase, int level,
                             char *const *stages, size_t n_stages);

#endif
