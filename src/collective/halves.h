/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_HALVES_H
#define SHOAL_COLLECTIVE_HALVES_H

#include <stddef.h>
#include <stdint.h>

/* Numbers of 16 bits, as they travel: fp16 (IEEE 754 binary16: 5 bits of exponent, 10 of fraction)
 * and bf16 (the upper half of a float32).
 *
 * Encoding rounds to the nearest, ties to even. A NaN stays a NaN. What is larger than fp16's
 * largest, infinity too, becomes 65504; bf16 has float32's range and rounds to infinity where
 * IEEE 754 does. Decoding is exact, so encode(decode(h)) == h for every h that encode makes.
 * Arrays must not overlap. */

/* halves[i] = encode(values[i]). With residual[n] (not NULL), error feedback:
 *     v = values[i] + residual[i]; halves[i] = encode(v); residual[i] = v - decode(halves[i])
 * and 0 where that difference is infinite or no number, lest it stay so for ever. */
void shoal_fp16_encode(const float *values, float *residual, uint16_t *halves, size_t n);
void shoal_bf16_encode(const float *values, float *residual, uint16_t *halves, size_t n);

/* values[i] = decode(halves[i]) */
void shoal_fp16_decode(const uint16_t *halves, float *values, size_t n);
void shoal_bf16_decode(const uint16_t *halves, float *values, size_t n);

/* values[i] += decode(halves[i]) */
void shoal_fp16_decode_add(const uint16_t *halves, float *values, size_t n);
void shoal_bf16_decode_add(const uint16_t *halves, float *values, size_t n);

#endif
