/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer target: bytes as one record of a dataset, decoded and transformed. */
#include <stdint.h>
#include <stdlib.h>

#include "base/memory.h"
#include "data/datum.h"
#include "data/transform.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void transform(const ShoalDatum *datum) {
    ShoalError err = {0};
    ShoalTransform *transform;
    Caffe__TransformationParameter param;
    caffe__transformation_parameter__init(&param);
    param.mirror = 1;
    param.crop_size =
        datum->height < datum->width ? (uint32_t)datum->height : (uint32_t)datum->width;
    if (shoal_transform_create(&param, true, 1, NULL, datum->channels, datum->height, datum->width,
                               &transform, &err))
        abort();
    int dims[3];
    shoal_transform_shape(transform, dims);
    float *out = shoal_calloc((size_t)dims[0] * (size_t)dims[1] * (size_t)dims[2], sizeof *out);
    if (out && shoal_transform_apply(transform, datum, 0, out, &err))
        abort();
    shoal_free(out);
    shoal_transform_destroy(transform);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static ShoalDatumDecoder *decoder;
    if (!decoder)
        decoder = shoal_datum_decoder_create();
    ShoalError err = {0};
    ShoalDatum datum;
    if (decoder && !shoal_datum_parse(decoder, bytes, size, "input", 0, &datum, &err))
        transform(&datum);
    return 0;
}
