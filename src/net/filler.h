/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_NET_FILLER_H
#define SHOAL_NET_FILLER_H

#include <stdint.h>

#include "base/rng.h"
#include "caffe/model.h"
#include "net/blob.h"

/* Fills blob->data as Caffe's fillers do (filler.hpp): constant, uniform, gaussian (with `sparse`),
 * xavier (Glorot and Bengio 2010), msra (He et al. 2015), positive_unitball, bilinear.
 * fan_in = count / shape[0], fan_out = count / shape[1] of the blob (with legacy axes: an axis that
 * is missing counts 1). filler NULL: constant 0. The numbers are a function of the generator's seed
 * and stream alone; they are not Caffe's. Errors: SHOAL_ERR_MODEL for an unknown type or settings
 * that Caffe refuses. */
ShoalStatus shoal_filler_fill(const Caffe__FillerParameter *filler, ShoalRng *rng, ShoalBlob *blob,
                              ShoalError *err);

/* Checks a filler's settings without filling. */
ShoalStatus shoal_filler_check(const Caffe__FillerParameter *filler, const ShoalBlob *blob,
                               ShoalError *err);

#endif
