/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_TRANSFORM_H
#define SHOAL_DATA_TRANSFORM_H

#include <stdbool.h>
#include <stdint.h>

#include "caffe/caffe.pb-c.h"
#include "data/datum.h"
#include "shoal/status.h"

/* What `transform_param` does to a record on its way into the net, as BVLC Caffe's
 * data_transformer.cpp:
 *
 *   out[c][h][w] = (datum[c][h + top][w + left] - mean) * scale
 *
 * in float, in this order. The mean is that of mean_file at the same (uncropped) place, or
 * mean_value (one for all channels or one per channel), or 0. With crop_size S > 0 the output is
 * S x S; (top, left) is random in training, else the centre, rounded down. With mirror each row is
 * reversed with probability 1/2, in testing too, as Caffe does.
 *
 * Random numbers are a function of (seed, sample number) alone (base/rng.h, SHOAL_RNG_TRANSFORM),
 * so they do not depend on which worker does which sample. Caffe draws them from one generator in
 * order, so crops and mirrors are not those of a Caffe run. */
typedef struct ShoalTransform ShoalTransform;

/* param: NULL counts as an empty one; not kept. train: the phase. mean: the message in mean_file,
 * read by the caller; must be there when param names one, else NULL; copied. channels, height,
 * width: of the first record. *out is the caller's. Errors: SHOAL_ERR_MODEL (mean_file and
 * mean_value both, a wrong number of mean_values, a crop larger than the record, force_color and
 * force_gray both, a scale or mean that is not finite), SHOAL_ERR_DATA (a mean of another shape
 * than the records), SHOAL_ERR_ARGUMENT (mean_file named but mean NULL, sizes below 1),
 * SHOAL_ERR_MEMORY. force_color, force_gray and the resizes are data/feed.h's to obey: sizes are
 * those after them. */
ShoalStatus shoal_transform_create(const Caffe__TransformationParameter *param, bool train,
                                   uint64_t seed, const Caffe__BlobProto *mean, int channels,
                                   int height, int width, ShoalTransform **out, ShoalError *err);

/* NULL is fine. */
void shoal_transform_destroy(ShoalTransform *transform);

/* The output's {channels, height, width}. */
void shoal_transform_shape(const ShoalTransform *transform, int dims[3]);

/* Transforms datum into out[channels][height][width] of shoal_transform_shape. sample_number: the
 * running number of the sample in the whole training (or testing). With crop_size and no mean_file
 * a datum may have any height and width from crop_size up; otherwise it must have the shape given
 * at create. Thread-safe for different outs; allocates nothing. Errors: SHOAL_ERR_DATA (another
 * shape; names the record; out is unchanged). */
ShoalStatus shoal_transform_apply(const ShoalTransform *transform, const ShoalDatum *datum,
                                  uint64_t sample_number, float *out, ShoalError *err);

/* Is a sample mirrored, where the layer wants that? */
bool shoal_transform_mirrors(uint64_t seed, uint64_t sample_number);

/* A mean file's shape, with axes of 1 in front, and its values: shoal_calloc storage of the caller.
 * file: its name, for messages. Errors: SHOAL_ERR_MODEL (no blob), SHOAL_ERR_DATA,
 * SHOAL_ERR_MEMORY. */
ShoalStatus shoal_transform_read_mean(const Caffe__BlobProto *blob, const char *file, int dims[4],
                                      float **values, ShoalError *err);

#endif
