/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_NET_INTERNAL_H
#define SHOAL_NET_INTERNAL_H

#include "net/graph.h"
#include "net/net.h"

/* What the files of this folder know of a net. In order of creation: wire.c (layers and blobs),
 * params.c (weights), gradients.c (who needs a backward pass), units.c (what is done at once),
 * memory.c (lifetimes and places). */

typedef struct ShoalNetBlob {
    ShoalBlob blob; /* first: a ShoalBlob * of the net is a ShoalNetBlob * */
    char *name;
    size_t capacity;                      /* values at the largest share */
    bool external;                        /* top of a source: memory comes from outside */
    bool consumed;                        /* some layer reads it */
    bool has_diff;                        /* gets a gradient */
    bool below_learns, under_loss, skips; /* marks of gradients.c */
    int diff_writers;                     /* bottoms that write its diff in backward */
    float loss_weight;                    /* of the loss top that this blob is */
    int data_item, diff_item;             /* places in the memory plan; -1: none */
    int value; /* units.c: the blocked value of its newest version; -1: it is plain */
} ShoalNetBlob;

struct ShoalNet {
    char *name;
    ShoalLayerContext context;
    int capacity;
    bool backward, keep_all, force_backward;
    ShoalNet *weights_of;
    ShoalGraph graph;
    ShoalLayer *layers;
    int n_layers;
    ShoalNetBlob **blobs;
    int n_blobs, blobs_size;
    int *outputs, n_outputs;
    int *sources, n_sources;

    ShoalParam **owners; /* parameters with memory of their own */
    int n_owners;
    float *param_data, *param_gradients;
    size_t data_count, gradient_count, statistic_count;
    bool moves_statistics; /* a forward pass does, here or in the net of weights_of */

    /* What is executed: units.h. */
    const ShoalKernels *kernels; /* NULL: each layer is a unit */
    bool fuse_all, winograd;
    int lanes;
    struct ShoalUnit *units;
    struct ShoalValue *values;
    int n_units, n_values;
    bool recompute;           /* drop what is quickly made again */
    struct ShoalAgain *again; /* in the order in which backward comes to them */
    int n_again, next_again;
    int *layer_unit;  /* per layer: the unit that does it */
    int *layer_units; /* per layer: the first of the units made for it; one more at the end */

    struct ShoalPlanItem *items;
    int n_items;
    int *layer_items; /* per layer: scratch forward, scratch backward, saved */
    void *arena;      /* what bind gave */
    size_t arena_bytes, workspace_bytes;
};

ShoalStatus shoal_net_wire(ShoalNet *net, const ShoalCaffeNet *model, ShoalError *err);
ShoalStatus shoal_net_collect_params(ShoalNet *net, ShoalError *err);
ShoalStatus shoal_net_find_gradients(ShoalNet *net, ShoalError *err);
ShoalStatus shoal_net_plan_memory(ShoalNet *net, ShoalError *err);

static inline ShoalNetBlob *shoal_net_blob_of(ShoalBlob *blob) {
    return (ShoalNetBlob *)blob;
}

#endif
