/* SPDX-License-Identifier: Apache-2.0 */
#include "data/datum.h"

#include <inttypes.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/memory.h"
#include "caffe/caffe.pb-c.h"

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
    if (decoder)
        decoder->allocator = (ProtobufCAllocator){take, give_back, decoder};
    return decoder;
}

void shoal_datum_decoder_destroy(ShoalDatumDecoder *decoder) {
    if (!decoder)
        return;
    drop_extras(decoder);
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
    if (message->encoded)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                               "record %" PRIu64 " of %s: an encoded image (JPEG or PNG); this "
                               "version reads raw Datum records only: convert the images again "
                               "without --encoded",
                               datum->record, datum->dataset);
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

ShoalStatus shoal_datum_parse(ShoalDatumDecoder *decoder, const void *bytes, size_t size,
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
    ShoalDatum datum = {.channels = message->channels,
                        .height = message->height,
                        .width = message->width,
                        .label = message->label,
                        .count = count_values(message),
                        .dataset = dataset,
                        .record = record};
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
