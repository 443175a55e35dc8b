/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_DATUM_H
#define SHOAL_DATA_DATUM_H

#include <stddef.h>
#include <stdint.h>

#include "data/image.h"
#include "shoal/status.h"

/* A record. Exactly one of bytes and floats is set: count = channels * height * width values (at
 * most 2^31 - 1), [channels][height][width]. */
typedef struct ShoalDatum {
    int channels, height, width; /* each at least 1 */
    int label;                   /* 0 when the record has none */
    size_t count;
    const uint8_t *bytes;
    const float *floats;
    /* Only from shoal_datum_unpack: a file's bytes that are still to be decoded. Then the sizes are
     * 0, bytes is NULL, and floats are n_floats numbers that came with it. */
    const void *encoded;
    size_t encoded_size, n_floats;
    const char *dataset; /* what was given to shoal_datum_parse, for messages */
    uint64_t record;
} ShoalDatum;

/* The memory that records are decoded into; reused, so that parsing records of like size allocates
 * nothing after the first two (but for what libjpeg and libpng take for themselves). One thread at
 * a time. */
typedef struct ShoalDatumDecoder ShoalDatumDecoder;

/* NULL when memory is short. */
ShoalDatumDecoder *shoal_datum_decoder_create(void);
/* NULL is fine. */
void shoal_datum_decoder_destroy(ShoalDatumDecoder *decoder);

/* Decodes a packed Datum; an encoded image (JPEG, PNG) as it is: SHOAL_IMAGE_AS_IS. `dataset` (kept
 * by pointer in *out) and `record` only serve messages, which begin "record N of DATASET". *out
 * points into the decoder: valid until the next parse or destroy. As in Caffe `data` wins when
 * there is also `float_data`. Errors: SHOAL_ERR_DATA (not a Datum, a size that is missing, not
 * positive or too large, a number of values other than channels * height * width, a damaged image),
 * SHOAL_ERR_UNSUPPORTED (an image of another format), SHOAL_ERR_MEMORY. */
ShoalStatus shoal_datum_parse(ShoalDatumDecoder *decoder, const void *bytes, size_t size,
                              const char *dataset, uint64_t record, ShoalDatum *out,
                              ShoalError *err);

/* The same, but leaves an image encoded: for those who want it in colour, in grey or smaller. */
ShoalStatus shoal_datum_unpack(ShoalDatumDecoder *decoder, const void *bytes, size_t size,
                               const char *dataset, uint64_t record, ShoalDatum *out,
                               ShoalError *err);

/* The decoder's own one, for images of its records. */
ShoalImageDecoder *shoal_datum_images(ShoalDatumDecoder *decoder);

/* Makes an image the datum's values: *datum keeps label, dataset and record. The planes are in the
 * decoder: valid until the next parse or destroy. SHOAL_ERR_MEMORY. */
ShoalStatus shoal_datum_set_image(ShoalDatumDecoder *decoder, const ShoalImage *image,
                                  ShoalDatum *datum, ShoalError *err);

#endif
