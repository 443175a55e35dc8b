/* SPDX-License-Identifier: Apache-2.0 */
#include "shoal/tools.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "caffe/caffe.pb-c.h"
#include "data/watch.h"
#include "data/writer.h"

#define IMAGES_MAGIC 2051
#define LABELS_MAGIC 2049
#define IMAGES_HEAD 16
#define LABELS_HEAD 8
#define PROGRESS_EVERY 1000

typedef struct Idx {
    const char *path;
    unsigned char *bytes; /* the whole file; owned */
    size_t size;
    uint32_t count, rows, columns; /* rows and columns are 1 for labels */
} Idx;

static uint32_t big_endian(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static ShoalStatus check_magic(const Idx *idx, uint32_t magic, size_t head, ShoalError *err) {
    const unsigned char *bytes = idx->bytes;
    if (idx->size >= 2 && bytes[0] == 0x1f && bytes[1] == 0x8b)
        return shoal_error_set(err, SHOAL_ERR_DATA, "%s: is compressed; run gunzip on it first",
                               idx->path);
    if (idx->size < head)
        return shoal_error_set(err, SHOAL_ERR_DATA, "%s: %zu bytes; an idx file has at least %zu",
                               idx->path, idx->size, head);
    if (big_endian(bytes) != magic)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "%s: magic number %" PRIu32 "; expected %" PRIu32
                               " for an idx file of %s; are the two files swapped?",
                               idx->path, big_endian(bytes), magic,
                               magic == IMAGES_MAGIC ? "images" : "labels");
    return SHOAL_OK;
}

static ShoalStatus check_size(const Idx *idx, size_t head, ShoalError *err) {
    size_t pixels, body, expected;
    bool fits = shoal_size_mul(idx->rows, idx->columns, &pixels) && pixels <= INT32_MAX &&
                shoal_size_mul(pixels, idx->count, &body) && shoal_size_add(body, head, &expected);
    if (!fits || !idx->rows || !idx->columns)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "%s: %" PRIu32 " items of %" PRIu32 " x %" PRIu32
                               "; not a possible size",
                               idx->path, idx->count, idx->rows, idx->columns);
    if (!idx->count)
        return shoal_error_set(err, SHOAL_ERR_DATA, "%s: holds no items", idx->path);
    if (idx->size != expected)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "%s: %zu bytes; its head promises %" PRIu32 " items of %" PRIu32
                               " x %" PRIu32 ", %zu bytes in all; bring the file again",
                               idx->path, idx->size, idx->count, idx->rows, idx->columns, expected);
    return SHOAL_OK;
}

/* On error idx->bytes may be set: the caller frees it anyway. */
static ShoalStatus read_idx(Idx *idx, uint32_t magic, size_t head, ShoalError *err) {
    ShoalStatus status = shoal_file_read(idx->path, &idx->bytes, &idx->size, err);
    if (!status)
        status = check_magic(idx, magic, head, err);
    if (status)
        return status;
    idx->count = big_endian(idx->bytes + 4);
    idx->rows = magic == IMAGES_MAGIC ? big_endian(idx->bytes + 8) : 1;
    idx->columns = magic == IMAGES_MAGIC ? big_endian(idx->bytes + 12) : 1;
    return check_size(idx, head, err);
}

static ShoalStatus write_records(ShoalDatasetWriter *writer, const Idx *images, const Idx *labels,
                                 const ShoalToolWatch *watch, ShoalError *err) {
    size_t pixels = (size_t)images->rows * images->columns;
    Caffe__Datum datum;
    caffe__datum__init(&datum);
    datum.has_channels = datum.has_height = datum.has_width = datum.has_data = datum.has_label = 1;
    datum.channels = 1;
    datum.height = (int32_t)images->rows;
    datum.width = (int32_t)images->columns;
    datum.data.len = pixels;
    /* The other fields take at most a tag and ten bytes each. */
    unsigned char *value = shoal_calloc(pixels + 64, 1);
    if (!value)
        return shoal_error_memory(err, "a record", pixels + 64);
    ShoalStatus status = SHOAL_OK;
    for (uint32_t i = 0; i < images->count && !status; i++) {
        char key[16];
        int key_size = snprintf(key, sizeof key, "%08" PRIu32, i);
        datum.data.data = images->bytes + IMAGES_HEAD + i * pixels;
        datum.label = labels->bytes[LABELS_HEAD + i];
        size_t size = caffe__datum__pack(&datum, value);
        status = shoal_dataset_writer_put(writer, key, (size_t)key_size, value, size, err);
        if (!status && ((i + 1) % PROGRESS_EVERY == 0 || i + 1 == images->count)) {
            shoal_watch_progress(watch, i + 1, images->count);
            status = shoal_watch_stopped(watch, err);
        }
    }
    shoal_free(value);
    return status;
}

static ShoalStatus write_dataset(const char *db_path, const Idx *images, const Idx *labels,
                                 const ShoalToolWatch *watch, ShoalError *err) {
    ShoalDatasetWriter *writer;
    ShoalStatus status = shoal_dataset_writer_create(db_path, &writer, err);
    if (status)
        return status;
    status = write_records(writer, images, labels, watch, err);
    if (status) {
        shoal_dataset_writer_discard(writer);
        return status;
    }
    return shoal_dataset_writer_close(writer, err);
}

ShoalStatus shoal_convert_mnist(const char *images_path, const char *labels_path,
                                const char *db_path, const ShoalToolWatch *watch, ShoalError *err) {
    Idx images = {.path = images_path}, labels = {.path = labels_path};
    ShoalStatus status = read_idx(&images, IMAGES_MAGIC, IMAGES_HEAD, err);
    if (!status)
        status = read_idx(&labels, LABELS_MAGIC, LABELS_HEAD, err);
    if (!status && images.count != labels.count)
        status = shoal_error_set(err, SHOAL_ERR_DATA,
                                 "%s has %" PRIu32 " images and %s has %" PRIu32
                                 " labels; they must belong together",
                                 images_path, images.count, labels_path, labels.count);
    if (!status)
        status = write_dataset(db_path, &images, &labels, watch, err);
    shoal_free(images.bytes);
    shoal_free(labels.bytes);
    return status;
}
