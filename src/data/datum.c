/* SPDX-License-Identifier: Apache-2.0 */
#include "data/datum.h"

#include <inttypes.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/memory.h"
#include "caffe/caffe.pb-c.h"
#include "data/image_codecs.h"

#define GRAIN 16 /* the alignment of what protobuf-c gets */

/* What did not fit into the block; goes at the next parse, when the block has grown. */
typedef struct Extra {
    struct Extra *next;
} Extra;

#define EXTRA_HEAD ((sizeof(Extra) + GRAIN - 1) / GRAIN * GRAIN)

struct ShoalDatumDecoder {
    unsigned char *block;
    size_t size, used;
    size_t wanted; /* by this record, with the extras */
    Extra *extras;
    bool out_of_memory;
    ProtobufCAllocator allocator;
    ShoalImageDecoder *images;
    ShoalImageBuffer planes;
};

static void *take_extra(ShoalDatumDecoder *decoder, size_t bytes) {
    size_t all;
    Extra *extra = shoal_size_add(bytes, EXTRA_HEAD, &all) ? shoal_calloc(all, 1) : NULL;
    if (!extra) {
        decoder->out_of_memory = true;
        return NULL;
    }
    extra->next = decoder->extras;
    decoder->extras = extra;
    return (unsigned char *)extra + EXTRA_HEAD;
}

static void *take(void *context, size_t bytes) {
    ShoalDatumDecoder *decoder = context;
    size_t rounded;
    if (!shoal_size_add(bytes, GRAIN - 1, &rounded) ||
        !shoal_size_add(decoder->wanted, rounded, &rounded)) {
        decoder->out_of_memory = true;
        return NULL;
    }
    rounded = (bytes + GRAIN - 1) / GRAIN * GRAIN;
    decoder->wanted += rounded;
    if (rounded > decoder->size - decoder->used)
        return take_extra(decoder, rounded);
    void *bytes_out = decoder->block + decoder->used;
    decoder->used += rounded;
    return bytes_out;
}

static void give_back(void *context, void *pointer) {
    /* All goes at once, at the next parse. */
    (void)context;
    (void)pointer;
}

static void drop_extras(ShoalDatumDecoder *decoder) {
    while (decoder->extras) {
        Extra *next = decoder->extras->next;
        shoal_free(decoder->extras);
        decoder->extras = next;
    }
}

/* Empties the memory; after a record that did not fit, makes the block as large as it wanted. */
static void reset(ShoalDatumDecoder *decoder) {
    drop_extras(decoder);
    if (decoder->wanted > decoder->size) {
        unsigned char *block = shoal_calloc(decoder->wanted, 1);
        if (block) {
            shoal_free(decoder->block);
            decoder->block = block;
            decoder->size = decoder->wanted;
        }
    }
    decoder->used = 0;
    decoder->wanted = 0;
    decoder->out_of_memory = false;
}

ShoalDatumDecoder *shoal_datum_decoder_create(void) {
    ShoalDatumDecoder *decoder = shoal_calloc(1, sizeof *decoder);
    if (!decoder)
        return NULL;
    decoder->allocator = (ProtobufCAllocator){take, give_back, decoder};
    decoder->images = shoal_image_decoder_create();
    if (decoder->images)
        return decoder;
    shoal_free(decoder);
    return NULL;
}

void shoal_datum_decoder_destroy(ShoalDatumDecoder *decoder) {
    if (!decoder)
        return;
    drop_extras(decoder);
    shoal_image_decoder_destroy(decoder->images);
    shoal_free(decoder->planes.bytes);
    shoal_free(decoder->block);
    shoal_free(decoder);
}

/* channels * height * width, or 0 when that is not a size that Caffe's blobs can have. */
static size_t count_values(const Caffe__Datum *message) {
    size_t count;
    if (message->channels < 1 || message->height < 1 || message->width < 1)
        return 0;
    if (!shoal_size_mul((size_t)message->channels, (size_t)message->height, &count) ||
        !shoal_size_mul(count, (size_t)message->width, &count) || count > INT32_MAX)
        return 0;
    return count;
}

static ShoalStatus check(const Caffe__Datum *message, const ShoalDatum *datum, ShoalError *err) {
    if (!datum->count)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "record %" PRIu64 " of %s: size %d x %d x %d (channels, height, "
                               "width); expected positive numbers with a product below 2^31; "
                               "convert the dataset again",
                               datum->record, datum->dataset, (int)message->channels,
                               (int)message->height, (int)message->width);
    bool bytes = message->data.len > 0;
    size_t held = bytes ? message->data.len : message->n_float_data;
    if (held != datum->count)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "record %" PRIu64 " of %s: %zu values in %s, expected %d x %d x %d "
                               "= %zu; convert the dataset again",
                               datum->record, datum->dataset, held, bytes ? "data" : "float_data",
                               datum->channels, datum->height, datum->width, datum->count);
    return SHOAL_OK;
}

ShoalStatus shoal_datum_unpack(ShoalDatumDecoder *decoder, const void *bytes, size_t size,
                               const char *dataset, uint64_t record, ShoalDatum *out,
                               ShoalError *err) {
    reset(decoder);
    Caffe__Datum *message = caffe__datum__unpack(&decoder->allocator, size, bytes);
    if (!message && decoder->out_of_memory)
        return shoal_error_memory(err, "a record", decoder->wanted);
    if (!message)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "record %" PRIu64 " of %s: %zu bytes that are not a Datum message; "
                               "convert the dataset again",
                               record, dataset, size);
    ShoalDatum datum = {.label = message->label, .dataset = dataset, .record = record};
    if (message->encoded) {
        datum.encoded = message->data.data;
        datum.encoded_size = message->data.len;
        datum.floats = message->float_data;
        datum.n_floats = message->n_float_data;
        if (!datum.encoded) /* so that it counts as encoded; no byte of it is read */
            datum.encoded = "";
        *out = datum;
        return SHOAL_OK;
    }
    datum.channels = message->channels;
    datum.height = message->height;
    datum.width = message->width;
    datum.count = count_values(message);
    ShoalStatus status = check(message, &datum, err);
    if (status)
        return status;
    if (message->data.len)
        datum.bytes = message->data.data;
    else
        datum.floats = message->float_data;
    *out = datum;
    return SHOAL_OK;
}

ShoalImageDecoder *shoal_datum_images(ShoalDatumDecoder *decoder) {
    return decoder->images;
}

ShoalStatus shoal_datum_set_image(ShoalDatumDecoder *decoder, const ShoalImage *image,
                                  ShoalDatum *datum, ShoalError *err) {
    size_t count = (size_t)image->channels * (size_t)image->height * (size_t)image->width;
    uint8_t *planes = shoal_image_buffer(&decoder->planes, count, err);
    if (!planes)
        return SHOAL_ERR_MEMORY;
    shoal_image_planes(image, planes);
    *datum = (ShoalDatum){.channels = image->channels,
                          .height = image->height,
                          .width = image->width,
                          .label = datum->label,
                          .count = count,
                          .bytes = planes,
                          .dataset = datum->dataset,
                          .record = datum->record};
    return SHOAL_OK;
}

ShoalStatus shoal_datum_parse(ShoalDatumDecoder *decoder, const void *bytes, size_t size,
                              const char *dataset, uint64_t record, ShoalDatum *out,
                              ShoalError *err) {
    ShoalDatum datum;
    ShoalStatus status = shoal_datum_unpack(decoder, bytes, size, dataset, record, &datum, err);
    if (!status && datum.encoded) {
        ShoalImage image;
        status = shoal_image_decode(decoder->images, datum.encoded, datum.encoded_size,
                                    SHOAL_IMAGE_AS_IS, &image, err);
        if (!status)
            status = shoal_datum_set_image(decoder, &image, &datum, err);
        if (status)
            shoal_error_prefix(err, "record %" PRIu64 " of %s", record, dataset);
    }
    if (!status)
        *out = datum;
    return status;
}
