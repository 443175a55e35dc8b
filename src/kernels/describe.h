/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_KERNELS_DESCRIBE_H
#define SHOAL_KERNELS_DESCRIBE_H

#include "kernels/kernels.h"

/* How a level computes, for people: "blocks of 16 channels; tiles of 14 x 2 vectors, ..." into
 * text[0..size), which is returned. Tiles are what stays in registers: pixels by vectors of output
 * channels forward, input channels by vectors of output channels for the gradient of weights. */
const char *shoal_kernels_describe(const ShoalKernels *kernels, char *text, size_t size);

#endif
