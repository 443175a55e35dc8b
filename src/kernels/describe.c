/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/describe.h"

#include <stdio.h>

#include "kernels/nchwc/engine.h"
#include "kernels/table.h"

enum { TILE_VECTORS = 2 }; /* see ShoalNchwcTile */

const char *shoal_kernels_describe(const ShoalKernels *kernels, char *text, size_t size) {
    const ShoalNchwc *nchwc = kernels->nchwc;
    if (!nchwc || !nchwc->tile || !nchwc->tile->rows)
        snprintf(text, size, "plain tensors, no tiles");
    else
        snprintf(
            text, size,
            "blocks of %zu channels; tiles of %zu x %d vectors, %zu x %zu for the gradients of "
            "weights",
            nchwc->lanes, nchwc->tile->rows, TILE_VECTORS, nchwc->tile->wrows,
            nchwc->tile->wvectors);
    return text;
}
