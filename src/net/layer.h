/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_NET_LAYER_H
#define SHOAL_NET_LAYER_H

#include <stdint.h>

#include "caffe/model.h"
#include "kernels/kernels.h"
#include "net/blob.h"

/* A layer of a net: what a new layer type has to bring. One file in layers/ defines its
 * ShoalLayerClass; one row in layers/table.c names it. */

typedef struct ShoalLayer ShoalLayer;

/* Learnable (or otherwise stored) weights of a layer: a caffemodel's `blobs`. */
typedef struct ShoalParam {
    ShoalBlob blob;                       /* diff is NULL when !learns */
    const Caffe__FillerParameter *filler; /* NULL: all zero */
    float lr_mult, decay_mult;
    bool learns;    /* lr_mult != 0: it gets a gradient */
    bool statistic; /* moved by forward passes: each replica has its share's until they average */
    struct ShoalParam
        *owner; /* the parameter whose memory this one shares by name; itself if none */
    ShoalLayer *layer;
    int index;              /* within its layer */
    const char *share_name; /* ParamSpec name; NULL if none */
} ShoalParam;

/* The shape of one sample of a top of a layer that a dataset feeds (Data, ImageData, HDF5Data,
 * WindowData), after its transform and without the batch's axis: dims[*axes], at most
 * SHOAL_MAX_AXES - 1 of them. The net asks this when it is built. */
typedef ShoalStatus ShoalSourceShape(void *context, const Caffe__LayerParameter *layer, int top,
                                     int *axes, int *dims, ShoalError *err);

/* The content of a file that a layer's parameters name (InfogainLoss), which stays where it is. */
typedef ShoalStatus ShoalNamedFile(void *context, const char *name, const void **bytes,
                                   size_t *size, ShoalError *err);

/* What all layers of a net know. Set by the net, read by the layers. */
typedef struct ShoalLayerContext {
    Caffe__Phase phase;
    uint64_t seed;
    int batch_full;         /* global batch: samples an iteration has over all workers */
    int batch_now;          /* samples in this share; 1..capacity */
    uint64_t first_sample;  /* number of the global batch's first sample: random draws use it */
    const uint32_t *places; /* [batch_now] of the share's samples in the batch; NULL: 0, 1, ... */
    int threads;            /* that kernels will run on: workspace sizes depend on it */
    ShoalSourceShape *source_shape; /* NULL: no dataset can be opened */
    ShoalNamedFile *named_file;     /* NULL: no file can be read */
    void *source_context;           /* of both */
    bool writes_files;              /* layers may write files (HDF5Output) */
} ShoalLayerContext;

/* Facts for the planner. Without flags: backward reads the data of all bottoms and all tops. */
typedef enum ShoalLayerFlags {
    SHOAL_LAYER_SOURCE = 1,         /* tops are filled from outside (bound memory): Data, Input */
    SHOAL_LAYER_LOSS = 2,           /* top 0 has loss_weight 1 unless the prototxt says otherwise */
    SHOAL_LAYER_IN_PLACE = 4,       /* a top may be the same blob as its bottom */
    SHOAL_LAYER_SHARES_DATA = 8,    /* every top's data is bottom 0's data (Split, Flatten) */
    SHOAL_LAYER_SHARES_DIFF = 16,   /* top 0's diff is bottom 0's diff (Flatten, Reshape) */
    SHOAL_LAYER_BWD_NO_BOTTOM = 32, /* backward does not read bottom data */
    SHOAL_LAYER_BWD_NO_TOP = 64,    /* backward does not read top data */
    SHOAL_LAYER_NO_BACKWARD = 128,  /* has no gradient at all (Accuracy) */
    SHOAL_LAYER_DYNAMIC = 256       /* forward sets the shapes of the tops (Filter); reshape has set
                                       their largest. The layers above are reshaped after it */
} ShoalLayerFlags;

typedef struct ShoalLayerClass {
    const char *type; /* Caffe's name */
    unsigned flags;
    int min_bottoms, max_bottoms, min_tops, max_tops; /* max -1: any number */
    size_t state_bytes;                               /* size of layer->state, zeroed */

    /* Once, before the first reshape, with the bottoms' shapes known: reads and checks
     * layer->param, fills layer->state, declares weights with shoal_layer_add_param. */
    ShoalStatus (*setup)(ShoalLayer *layer, ShoalError *err);

    /* Sets the shapes of the tops from those of the bottoms, and layer->{scratch,saved}_bytes and
     * workspace_bytes. Called again whenever the batch changes: must not allocate. */
    ShoalStatus (*reshape)(ShoalLayer *layer, ShoalError *err);

    /* Computes the tops. An error (a label out of range) ends the iteration. NULL: nothing to do.
     */
    ShoalStatus (*forward)(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err);

    /* From the tops' diffs: overwrites bottoms[i]->diff where propagate[i], adds into the diffs of
     * params that learn. NULL: nothing to do. */
    void (*backward)(ShoalLayer *layer, const ShoalCompute *compute);

    void (*close)(ShoalLayer *layer); /* frees what setup allocated inside state; may be NULL */

    /* For bottoms that can never get a gradient (labels): bit i set. */
    unsigned no_gradient_bottoms;
} ShoalLayerClass;

struct ShoalLayer {
    const ShoalLayerClass *class;
    const Caffe__LayerParameter *param;
    const ShoalLayerContext *context;
    int number; /* place in the net; the random stream of the layer */
    int n_bottoms, n_tops, n_params;
    ShoalBlob **bottoms, **tops;
    ShoalParam **params;
    bool *propagate;     /* per bottom: backward is to write its diff */
    float *loss_weights; /* per top; 0 for none */
    bool needs_backward;
    bool whole_batch; /* set by setup or reshape: what it gives for a share of the batch is not that
                         share of what it gives for all (it mixes samples, or the batch is not axis
                         0 of its tops). Such a net runs on one worker at a time, with the whole
                         batch */
    int statistics_batch; /* set by setup: samples of a batch that statistics are taken over; 0: it
                             takes none */
    void *state;

    size_t workspace_bytes; /* of compute->workspace that forward or backward uses */
    size_t scratch_bytes;   /* private memory within one forward or one backward */
    size_t saved_bytes;     /* private memory kept from forward to backward (masks, indices) */
    void *scratch, *saved;
};

/* For setup: declares the next weight of the layer (its lr_mult, decay_mult and name come from
 * `param { }` number index). The filler is read later and must live as long as the layer. */
ShoalStatus shoal_layer_add_param(ShoalLayer *layer, int axes, const int *shape,
                                  const Caffe__FillerParameter *filler, ShoalError *err);

/* The same for a weight that the layer's forward pass computes and no gradient changes (`moves`: in
 * this phase it does). As Caffe, it gets a `param { lr_mult: 0 }` where the prototxt has none;
 * SHOAL_ERR_MODEL where that has another lr_mult. */
ShoalStatus shoal_layer_add_statistic(ShoalLayer *layer, int axes, const int *shape, bool moves,
                                      ShoalError *err);

/* The class for a type name, or NULL; and the n-th row of the table, NULL past its end. */
const ShoalLayerClass *shoal_layer_class_find(const char *type);
const ShoalLayerClass *shoal_layer_class_at(size_t n);

/* The factor by which a value that is a plain sum over the batch must be multiplied to estimate the
 * global batch's: batch_full / batch_now. Values that are means over the batch need none: the
 * train room averages shares by their size. */
float shoal_layer_sum_scale(const ShoalLayer *layer);

/* How many samples of `full` (a prototxt's first axis) fall to this share: batch_now when full is
 * the global batch, else full itself. */
int shoal_layer_share_of(const ShoalLayer *layer, int full);

#endif
