/* SPDX-License-Identifier: Apache-2.0 */
#include "net/blob.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

ShoalStatus shoal_blob_reshape(ShoalBlob *blob, int axes, const int *shape, ShoalError *err) {
    if (axes < 0 || axes > SHOAL_MAX_AXES)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED, "blob '%s' has %d axes; up to %d work",
                               blob->name, axes, SHOAL_MAX_AXES);
    size_t count = 1;
    for (int i = 0; i < axes; i++) {
        if (shape[i] < 0)
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "blob '%s': size %d of axis %d is negative", blob->name,
                                   shape[i], i);
        count *= (size_t)shape[i];
        if (count > INT_MAX)
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "blob '%s' would have more than 2^31 - 1 values", blob->name);
    }
    memmove(blob->shape, shape, (size_t)axes * sizeof *shape);
    blob->axes = axes;
    blob->count = count;
    return SHOAL_OK;
}

int shoal_blob_axis(const ShoalBlob *blob, int axis) {
    if (axis < -blob->axes || axis >= blob->axes)
        return -1;
    return axis < 0 ? axis + blob->axes : axis;
}

size_t shoal_blob_count(const ShoalBlob *blob, int from, int to) {
    size_t count = 1;
    for (int i = from; i < to; i++)
        count *= (size_t)blob->shape[i];
    return count;
}

bool shoal_blob_same_shape(const ShoalBlob *a, const ShoalBlob *b) {
    return a->axes == b->axes && !memcmp(a->shape, b->shape, (size_t)a->axes * sizeof *a->shape);
}

const char *shoal_blob_shape_text(const ShoalBlob *blob, char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < blob->axes && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, i ? "x%d" : "%d", blob->shape[i]);
    if (used < size)
        snprintf(text + used, size - used, used ? " (%zu)" : "(%zu)", blob->count);
    return text;
}
