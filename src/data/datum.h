/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_DATUM_H
#define SHOAL_DATA_DATUM_H

#include <stddef.h>
#include <stdint.h>

#include "shoal/status.h"

/* A decoded record. Exactly one of bytes and floats is set: count = channels * height * width
 * values (at most 2^31 - 1), [channels][height][width]. */
typedef struct ShoalDatum {
    int channels, height, width; /* each at least 1 */
    int label;                   /* 0 when the record has none */
    size_t count;
    const uint8_t *bytes;
    const float *floats;
    const char *dataset; /* what was given to shoal_datum_parse, for messages */
    uint64_t record;
} ShoalDatum;

/* The memory that records are decoded into; reused, so that parsing records of like size allocates
 * nothing after the first two. One thread at a time. */
typedef struct ShoalDatumDecoder ShoalDatumDecoder;

/* NULL when memory is short. */
ShoalDatumDecoder *shoal_datum_decoder_create(void);
/* NULL is fine. */
void shoal_datum_decoder_destroy(ShoalDatumDecoder *decoder);

/* Decodes a packed Datum. `dataset` (kept by pointer in *out) and `record` only serve messages,
 * which begin "record N of DATASET". *out points into the decoder: valid until the next parse or
 * destroy. As in Caffe `data` wins when there is also `float_data`. Errors: SHOAL_ERR_DATA (not a
 * Datum, a size that is missing, not positive or too large, a number of values other than
 * channels * height * width), SHOAL_ERR_UNSUPPORTED (an encoded image), SHOAL_ERR_MEMORY. */
ShoalStatus shoal_datum_parse(ShoalDatumDecoder *decoder, const void *bytes, size_t size,
                              const char *dataset, uint64_t record, ShoalDatum *out,
                              ShoalError *err);

#endif
