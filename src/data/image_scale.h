/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_IMAGE_SCALE_H
#define SHOAL_DATA_IMAGE_SCALE_H

#include <stdbool.h>
#include <stdint.h>

#include "caffe/caffe.pb-c.h"
#include "data/image.h"

/* The resizes of Intel Caffe's transform_param, which come before the crop (its
 * data_transformer.cpp and util/im_transforms.cpp), in both phases:
 *   random_resize_param        the shorter side to a random length of [min_size, max_size]; 0 is
 * the image's own shorter, or longer side random_aspect_ratio_param  a random part of random area
 * and aspect ratio to crop_size x crop_size; where none of max_attempt parts fits, the shorter side
 * to crop_size resize_param               then to height x width (WARP), or (FIT_SMALL_SIZE)
 * keeping the aspect ratio so that both sides are at least that of which the first one wins where
 * both of the first two are there. interp_mode: LINEAR, CUBIC, NEAREST, one at random where it is
 * repeated.
 *
 * Random numbers are a function of (seed, sample number) alone, as those of data/transform.h. */
typedef struct ShoalImageScale {
    const Caffe__TransformationParameter *param;
    uint64_t seed;
} ShoalImageScale;

/* What becomes of one image: a part of it to a size, then perhaps all of that to another one. */
typedef struct ShoalImageSteps {
    int n;
    struct {
        ShoalImagePart part;
        int height, width;
        ShoalInterpolation how;
    } steps[2];
} ShoalImageSteps;

/* Are there any of them? param may be NULL. */
bool shoal_image_scale_wanted(const Caffe__TransformationParameter *param);

/* param is kept by pointer. SHOAL_ERR_MODEL (numbers that make no sense), SHOAL_ERR_UNSUPPORTED
 * (FIT_LARGE_SIZE_AND_PAD, AREA, LANCZOS4). */
ShoalStatus shoal_image_scale_init(ShoalImageScale *scale,
                                   const Caffe__TransformationParameter *param, uint64_t seed,
                                   ShoalError *err);

/* For an image of height x width that is sample number `sample` of the run. A pure function. */
void shoal_image_scale_plan(const ShoalImageScale *scale, int height, int width, uint64_t sample,
                            ShoalImageSteps *out);

#endif
