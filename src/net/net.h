/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_NET_NET_H
#define SHOAL_NET_NET_H

#include "net/layer.h"

/* A net: Caffe's NetParameter, filtered for a phase, wired, planned once, and then executed.
 *
 * Life: create (parses nothing, opens nothing) -> bind to memory -> init or load weights ->
 * { set_share, bind sources, forward, backward } as often as wanted -> destroy.
 * One thread at a time. After bind, nothing here allocates. */

typedef struct ShoalNet ShoalNet;

typedef struct ShoalNetOptions {
    Caffe__Phase phase;
    const Caffe__NetState *state; /* level and stages for include/exclude rules; may be NULL */
    int capacity;                 /* largest share, in samples; 0: the whole batch */
    int threads;                  /* for workspace sizes; 0 counts as 1 */
    uint64_t seed;
    bool backward; /* plan for backward passes */
    bool keep_all; /* no two blobs share memory: every blob can be looked at afterwards */
    const ShoalKernels *kernels; /* fuse layers for these, where they have channel-blocked tensors
                                    and it pays; NULL: every layer by itself (so with keep_all) */
    bool fuse_all;               /* wherever it is possible, paying or not */
    bool recompute;              /* less memory: backward makes again what is quickly made */
    bool no_winograd;            /* 3x3 convolutions without transforms, for their rounding */
    ShoalNet *weights_of; /* use this net's parameters by name (a test net); NULL: own ones */
    ShoalSourceShape *source_shape; /* of what datasets feed; NULL: a net with Data is refused */
    ShoalNamedFile *named_file;     /* NULL: a net that needs a file is refused */
    void *source_context;
    bool writes_files; /* HDF5Output may write; else a net with it is refused */
} ShoalNetOptions;

/* Builds a net. `model` is read only during the call. Errors: SHOAL_ERR_MODEL with the place in the
 * file for an unknown layer type, a bottom that no layer gives, a wrong shape...; SHOAL_ERR_MEMORY.
 */
ShoalStatus shoal_net_create(const ShoalCaffeNet *model, const ShoalNetOptions *options,
                             ShoalNet **out, ShoalError *err);
void shoal_net_destroy(ShoalNet *net);

/* The global batch that a model's net would have, without building it. */
ShoalStatus shoal_net_model_batch(const ShoalCaffeNet *model, Caffe__Phase phase,
                                  const Caffe__NetState *state, int *batch, ShoalError *err);

/* Memory that the net's blobs need, and the workspace that its kernels need. Bytes. */
size_t shoal_net_arena_bytes(const ShoalNet *net);
size_t shoal_net_workspace_bytes(const ShoalNet *net);

/* Gives the net its memory: arena (>= arena_bytes, SHOAL_ALIGN-aligned; nets that never run at the
 * same time may share one). The caller owns it and keeps it until the net is destroyed. */
void shoal_net_bind(ShoalNet *net, void *arena);

/* Fills the weights by their fillers, from the net's seed. */
ShoalStatus shoal_net_init_weights(ShoalNet *net, ShoalError *err);

/* Copies weights by layer name, as Caffe's CopyTrainedLayersFrom: layers that only one side has are
 * skipped. Errors: another number or shape of blobs in a layer of the same name (nothing is copied
 * then). *copied (may be NULL): how many layers got weights. */
ShoalStatus shoal_net_load_weights(ShoalNet *net, const ShoalCaffeNet *from, int *copied,
                                   ShoalError *err);

/* The net with its weights as a NetParameter, field for field what Caffe's Net::ToProto writes
 * (split layers included). with_diff: gradients too. It borrows the weights: they must stay until
 * it is freed, with shoal_net_proto_free. */
ShoalStatus shoal_net_to_proto(const ShoalNet *net, bool with_diff, Caffe__NetParameter **out,
                               ShoalError *err);
void shoal_net_proto_free(Caffe__NetParameter *proto);

/* A blob's shape with `data` [blob->count], which is borrowed, as a BlobProto, and a copy of
 * blob->diff (0 where there is none) when with_diff. NULL when memory is short; free with
 * shoal_blob_proto_free. */
Caffe__BlobProto *shoal_blob_to_proto(const ShoalBlob *blob, const float *data, bool with_diff);
void shoal_blob_proto_free(Caffe__BlobProto *proto);

/* Sets the share to run next: `samples` (1..capacity) of the global batch whose first sample has
 * the number first_sample in the run. places [samples]: which ones of the batch, kept by pointer;
 * NULL: the first ones. Reshapes all layers when the number of samples changes. */
ShoalStatus shoal_net_set_share(ShoalNet *net, int samples, uint64_t first_sample,
                                const uint32_t *places, ShoalError *err);

/* Layers that are fed from outside. Their tops' data must be pointed to filled memory (of the
 * shape of the current share) before forward. */
int shoal_net_sources(const ShoalNet *net);
ShoalLayer *shoal_net_source(const ShoalNet *net, int n);

/* Runs all layers. *loss (may be NULL) = sum of loss_weight * loss. SHOAL_ERR_STOPPED when
 * compute->cancel became true. */
ShoalStatus shoal_net_forward(ShoalNet *net, const ShoalCompute *compute, float *loss,
                              ShoalError *err);

/* Called when the gradient of a parameter is complete in this backward pass: last layer first. */
typedef void ShoalGradientReady(void *context, const ShoalParam *param);

/* Adds the gradient of weight * loss to the gradients of the learnable parameters. Ends early when
 * compute->cancel becomes true: the gradients are of no use then. */
void shoal_net_backward(ShoalNet *net, const ShoalCompute *compute, float weight,
                        ShoalGradientReady *ready, void *context);

/* Times of single layers, for `shoal time`. What is fused is done, and counted, with the first
 * layer of its unit. */
ShoalStatus shoal_net_forward_layer(ShoalNet *net, int layer, const ShoalCompute *compute,
                                    ShoalError *err);
void shoal_net_backward_layer(ShoalNet *net, int layer, const ShoalCompute *compute);
/* Puts weight * loss_weight into the diffs of the loss tops (what backward begins with). */
void shoal_net_seed_gradient(ShoalNet *net, float weight);

/* All parameters (owners only), in one block each for data and gradients. The first
 * `gradient_count` values of data belong to the gradients; what follows has lr_mult 0, at its end
 * the `statistic_count` values that forward passes move (ShoalParam.statistic), if any, with one
 * line of padding after them. Padding is 0 and stays 0. */
typedef struct ShoalNetParams {
    float *data, *gradients;
    size_t data_count, gradient_count, statistic_count;
    bool moves_statistics;    /* forward passes of this net move some, its own or weights_of's */
    ShoalParam *const *items; /* owners, in the order of the net's layers (as Caffe's history) */
    int count;
} ShoalNetParams;
ShoalNetParams shoal_net_params(const ShoalNet *net);

/* Looking around. */
int shoal_net_batch(const ShoalNet *net); /* the global batch; 1 when nothing has a batch */
int shoal_net_capacity(const ShoalNet *net);
/* *unit: 0 where a batch may be cut anywhere; else the samples of it, one after the other, that
 * have to be computed together: the batch, where a layer has to have it whole
 * (ShoalLayer.whole_batch), or what statistics are taken over (a BatchNorm's stats_batch_size), a
 * divisor of the batch. SHOAL_ERR_MODEL: layers that do not agree. */
ShoalStatus shoal_net_unit(const ShoalNet *net, int *unit, ShoalError *err);
int shoal_net_layers(const ShoalNet *net);
ShoalLayer *shoal_net_layer(const ShoalNet *net, int n);
/* The layer that layer n is done together with: the first of its unit; n itself for that one. */
int shoal_net_layer_unit(const ShoalNet *net, int n);
/* The output blobs (that no layer consumes), sorted by name as Caffe does. */
int shoal_net_outputs(const ShoalNet *net);
const ShoalBlob *shoal_net_output(const ShoalNet *net, int n);
/* How many values output n has at most: more than its count after a pass in which a Filter let less
 * through. */
size_t shoal_net_output_most(const ShoalNet *net, int n);
/* loss_weight of output n (0 when it is no loss). */
float shoal_net_output_loss_weight(const ShoalNet *net, int n);
ShoalBlob *shoal_net_blob(const ShoalNet *net, const char *name); /* NULL: none of that name */

#endif
