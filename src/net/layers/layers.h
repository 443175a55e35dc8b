/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_NET_LAYERS_LAYERS_H
#define SHOAL_NET_LAYERS_LAYERS_H

#include "net/filler.h"
#include "net/layer.h"

/* The layer types, one file each, and what they have in common. Messages of layers begin with
 * "layer 'NAME': "; the net puts the place in the file in front. */

extern const ShoalLayerClass shoal_layer_abs_val_class;
extern const ShoalLayerClass shoal_layer_accuracy_class;
extern const ShoalLayerClass shoal_layer_arg_max_class;
extern const ShoalLayerClass shoal_layer_batch_norm_class;
extern const ShoalLayerClass shoal_layer_batch_reindex_class;
extern const ShoalLayerClass shoal_layer_bias_class;
extern const ShoalLayerClass shoal_layer_bnll_class;
extern const ShoalLayerClass shoal_layer_clip_class;
extern const ShoalLayerClass shoal_layer_concat_class;
extern const ShoalLayerClass shoal_layer_contrastive_loss_class;
extern const ShoalLayerClass shoal_layer_convolution_class;
extern const ShoalLayerClass shoal_layer_crop_class;
extern const ShoalLayerClass shoal_layer_data_class;
extern const ShoalLayerClass shoal_layer_deconvolution_class;
extern const ShoalLayerClass shoal_layer_dropout_class;
extern const ShoalLayerClass shoal_layer_dummy_data_class;
extern const ShoalLayerClass shoal_layer_eltwise_class;
extern const ShoalLayerClass shoal_layer_elu_class;
extern const ShoalLayerClass shoal_layer_embed_class;
extern const ShoalLayerClass shoal_layer_euclidean_loss_class;
extern const ShoalLayerClass shoal_layer_exp_class;
extern const ShoalLayerClass shoal_layer_filter_class;
extern const ShoalLayerClass shoal_layer_flatten_class;
extern const ShoalLayerClass shoal_layer_hdf5_data_class;
extern const ShoalLayerClass shoal_layer_hdf5_output_class;
extern const ShoalLayerClass shoal_layer_hinge_loss_class;
extern const ShoalLayerClass shoal_layer_im2col_class;
extern const ShoalLayerClass shoal_layer_image_data_class;
extern const ShoalLayerClass shoal_layer_infogain_loss_class;
extern const ShoalLayerClass shoal_layer_inner_product_class;
extern const ShoalLayerClass shoal_layer_input_class;
extern const ShoalLayerClass shoal_layer_log_class;
extern const ShoalLayerClass shoal_layer_lrn_class;
extern const ShoalLayerClass shoal_layer_lstm_class;
extern const ShoalLayerClass shoal_layer_lstm_unit_class;
extern const ShoalLayerClass shoal_layer_memory_data_class;
extern const ShoalLayerClass shoal_layer_multinomial_logistic_loss_class;
extern const ShoalLayerClass shoal_layer_mvn_class;
extern const ShoalLayerClass shoal_layer_parameter_class;
extern const ShoalLayerClass shoal_layer_pooling_class;
extern const ShoalLayerClass shoal_layer_power_class;
extern const ShoalLayerClass shoal_layer_prelu_class;
extern const ShoalLayerClass shoal_layer_python_class;
extern const ShoalLayerClass shoal_layer_reduction_class;
extern const ShoalLayerClass shoal_layer_relu_class;
extern const ShoalLayerClass shoal_layer_reshape_class;
extern const ShoalLayerClass shoal_layer_rnn_class;
extern const ShoalLayerClass shoal_layer_scale_class;
extern const ShoalLayerClass shoal_layer_sigmoid_class;
extern const ShoalLayerClass shoal_layer_sigmoid_cross_entropy_loss_class;
extern const ShoalLayerClass shoal_layer_silence_class;
extern const ShoalLayerClass shoal_layer_slice_class;
extern const ShoalLayerClass shoal_layer_softmax_class;
extern const ShoalLayerClass shoal_layer_softmax_loss_class;
extern const ShoalLayerClass shoal_layer_split_class;
extern const ShoalLayerClass shoal_layer_spp_class;
extern const ShoalLayerClass shoal_layer_swish_class;
extern const ShoalLayerClass shoal_layer_tanh_class;
extern const ShoalLayerClass shoal_layer_threshold_class;
extern const ShoalLayerClass shoal_layer_tile_class;
extern const ShoalLayerClass shoal_layer_window_data_class;

/* shoal_error_set with "layer 'NAME': " in front. */
__attribute__((format(printf, 4, 5))) ShoalStatus shoal_layer_fail(const ShoalLayer *layer,
                                                                   ShoalStatus status,
                                                                   ShoalError *err,
                                                                   const char *format, ...);

/* Puts "layer 'NAME': " in front of the message that err holds, and returns its status. */
ShoalStatus shoal_layer_prefix(const ShoalLayer *layer, ShoalStatus status, ShoalError *err);

/* Sets the shape of a top; the error names layer and top. */
ShoalStatus shoal_layer_shape_top(const ShoalLayer *layer, int top, int axes, const int *shape,
                                  ShoalError *err);
ShoalStatus shoal_layer_shape_top_like(const ShoalLayer *layer, int top, const ShoalBlob *blob,
                                       ShoalError *err);

/* A prototxt's axis (may be negative) of bottom 0 as an index into *out; SHOAL_ERR_MODEL when the
 * bottom has no such axis. */
ShoalStatus shoal_layer_axis(const ShoalLayer *layer, int axis, int *out, ShoalError *err);

/* A prototxt's unsigned number as an int of at least min into *out; SHOAL_ERR_MODEL names the
 * field. */
ShoalStatus shoal_layer_int(const ShoalLayer *layer, const char *field, uint32_t value, int min,
                            int *out, ShoalError *err);

/* `shape { dim: ... }` into dims[0..*axes); SHOAL_ERR_MODEL for more than SHOAL_MAX_AXES axes or a
 * size that is negative or beyond 2^31-1. */
ShoalStatus shoal_layer_shape_read(const ShoalLayer *layer, const Caffe__BlobShape *shape,
                                   int dims[SHOAL_MAX_AXES], int *axes, ShoalError *err);

/* shoal_layer_add_param, and a look at the filler, so that a wrong one is found before training. */
ShoalStatus shoal_layer_declare(ShoalLayer *layer, int axes, const int *shape,
                                const Caffe__FillerParameter *filler, ShoalError *err);

/* How scores and labels lie: scores [outer][classes][inner], labels [outer][inner]. */
typedef struct ShoalLabelLayout {
    size_t outer, inner;
    int classes;
    bool has_ignore;
    int ignore; /* a label that does not count */
} ShoalLabelLayout;

/* Fills outer, inner and classes from bottoms 0 (scores) and 1 (labels), and sets whole_batch where
 * the classes are on axis 0; SHOAL_ERR_MODEL when the axis is out of range or the
 * number of labels is not outer * inner. */
ShoalStatus shoal_layer_label_layout(ShoalLayer *layer, int axis, ShoalLabelLayout *layout,
                                     ShoalError *err);

/* Label number n of bottom 1 as a class, cut to an integer as Caffe does; -1 for the ignored one.
 * SHOAL_ERR_DATA names layer, label and the number of classes when it is out of range. */
ShoalStatus shoal_layer_label_read(const ShoalLayer *layer, const ShoalLabelLayout *layout,
                                   size_t n, int *label, ShoalError *err);

/* The same where the classes are all values of a sample (HingeLoss): [N][classes] and N labels. */
ShoalStatus shoal_layer_sample_layout(const ShoalLayer *layer, ShoalLabelLayout *layout,
                                      ShoalError *err);

/* What a loss is divided by: loss_param.normalization, or its older `normalize`, or `fallback`
 * where neither is given. Sets layer->whole_batch where a share would be divided by something else
 * than its part of the batch. SHOAL_ERR_MODEL for an unknown mode. */
typedef Caffe__LossParameter__NormalizationMode ShoalLossNorm;
ShoalStatus shoal_layer_loss_norm(ShoalLayer *layer, ShoalLossNorm fallback, ShoalLossNorm *norm,
                                  ShoalError *err);
/* 1 / what Caffe divides by: outer * inner labels (FULL), those that are `valid`, outer samples
 * (BATCH_SIZE), or 1 (NONE: a sum over the share, made to stand for the batch). */
double shoal_layer_loss_factor(const ShoalLayer *layer, ShoalLossNorm norm, size_t outer,
                               size_t inner, size_t valid);

/* For layers that draw random numbers: how a blob divides into samples, and which numbers they
 * have, so that a sample draws the same whatever share it is in. A blob that does not divide
 * counts as one sample; its number is that of the iteration, on every worker. */
typedef struct ShoalSampleRange {
    size_t samples, size; /* values per sample */
    uint64_t first;
    const uint32_t *places; /* of the samples, counted from first; NULL: 0, 1, ... */
} ShoalSampleRange;
ShoalSampleRange shoal_layer_sample_range(const ShoalLayer *layer, size_t count, bool divides);

/* The number of sample `index` of a range. */
static inline uint64_t shoal_layer_sample_number(const ShoalSampleRange *range, size_t index) {
    return range->first + (range->places ? range->places[index] : index);
}

/* The iteration that the current share is of: first_sample / batch_full. */
uint64_t shoal_layer_iteration(const ShoalLayer *layer);

/* As shoal_filler_fill, for one slice out[0..n) of a blob along its first axis: n is
 * whole->count / whole->shape[0]. `whole` gives the shape that the rules look at; its data is not
 * used. n values take at most shoal_filler_draws(n) random numbers. In net/filler.c. */
ShoalStatus shoal_filler_fill_slice(const Caffe__FillerParameter *filler, ShoalRng *rng,
                                    const ShoalBlob *whole, size_t n, float *out, ShoalError *err);
uint64_t shoal_filler_draws(size_t n);

/* For units of several layers: of a BatchNorm layer, whether it normalises by its stored
 * statistics, and these; and their move by the mean and the biased variance [C] of the present
 * share. */
bool shoal_batch_norm_is_global(const ShoalLayer *layer);
float shoal_batch_norm_eps(const ShoalLayer *layer);
void shoal_batch_norm_stored(const ShoalLayer *layer, float *mean, float *variance);
void shoal_batch_norm_move(const ShoalLayer *layer, const float *mean, const float *variance);

/* What layers with a convolution_param have in common: checks bottom 0 (SHOAL_ERR_UNSUPPORTED
 * unless 2-D, channels on axis 1) and that there are as many tops as bottoms; reads kernel, stride,
 * pad and dilation; sets out_height and out_width from all else. */
ShoalStatus shoal_convolution_check(const ShoalLayer *layer, ShoalError *err);
ShoalStatus shoal_convolution_window(const ShoalLayer *layer,
                                     const Caffe__ConvolutionParameter *param,
                                     ShoalConvShape *shape, ShoalError *err);
ShoalStatus shoal_convolution_out(const ShoalLayer *layer, ShoalConvShape *shape, ShoalError *err);

/* For units of several layers: the window of a Convolution and of a Pooling layer, for the present
 * share; NULL for STOCHASTIC pooling. */
const ShoalConvShape *shoal_convolution_shape(const ShoalLayer *layer);
const ShoalPoolShape *shoal_pooling_shape(const ShoalLayer *layer, bool *max);

#endif
