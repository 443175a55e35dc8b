/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_NET_BLOB_H
#define SHOAL_NET_BLOB_H

#include <stdbool.h>
#include <stddef.h>

#include "shoal/status.h"

/* Caffe allows 32 axes; no layer that trains has use for more than these. */
enum { SHOAL_MAX_AXES = 8 };

/* A tensor of a net: row-major float32, with its gradient. What it points to belongs to the net
 * (planned memory); `data` and `diff` are NULL until the net is bound to memory, and `diff` stays
 * NULL for a blob that gets no gradient. */
typedef struct ShoalBlob {
    const char *name;
    int axes; /* 0 for a scalar: count is then 1 */
    int shape[SHOAL_MAX_AXES];
    size_t count; /* product of shape, for the current batch */
    float *data, *diff;
} ShoalBlob;

/* Sets the shape and count. Errors: more than SHOAL_MAX_AXES axes, a negative size, or more than
 * 2^31 - 1 values (Caffe's limit). A size of 0 is fine. */
ShoalStatus shoal_blob_reshape(ShoalBlob *blob, int axes, const int *shape, ShoalError *err);

/* The index of an axis that may be negative (-1 is the last); -1 when out of range. */
int shoal_blob_axis(const ShoalBlob *blob, int axis);

/* The product of shape[from..to); to may be blob->axes. */
size_t shoal_blob_count(const ShoalBlob *blob, int from, int to);

bool shoal_blob_same_shape(const ShoalBlob *a, const ShoalBlob *b);

/* "2x3x28x28 (4704)" into text[0..size), which is returned. */
const char *shoal_blob_shape_text(const ShoalBlob *blob, char *text, size_t size);

#endif
