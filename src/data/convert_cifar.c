/* SPDX-License-Identifier: Apache-2.0 */
#include "shoal/tools.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "caffe/caffe.pb-c.h"
#include "data/watch.h"
#include "data/writer.h"

/* A record is a byte of label and three planes (https://www.cs.toronto.edu/~kriz/cifar.html). */
enum { SIDE = 32, PIXELS = 3 * SIDE * SIDE, RECORD = 1 + PIXELS };
enum { FILE_RECORDS = 10000, TRAIN_FILES = 5, PROGRESS_EVERY = 1000 };

typedef struct Conversion {
    const char *input;
    const ShoalToolWatch *watch;
    uint64_t done, expected;
    ShoalError *err;
} Conversion;

static ShoalStatus check_size(const Conversion *c, const char *path, size_t size) {
    size_t count = size / RECORD;
    if (size % RECORD || count < 1 || count > FILE_RECORDS)
        return shoal_error_set(c->err, SHOAL_ERR_DATA,
                               "%s: %zu bytes; expected 1 to %d records of %d (CIFAR-10's binary "
                               "version, unpacked)",
                               path, size, FILE_RECORDS, RECORD);
    if (count < FILE_RECORDS)
        shoal_watch_note(c->watch, "%s: holds %zu records; CIFAR-10 has %d in each file", path,
                         count, FILE_RECORDS);
    return SHOAL_OK;
}

static ShoalStatus put_record(const Conversion *c, ShoalDatasetWriter *writer,
                              const unsigned char *record, unsigned number) {
    Caffe__Datum datum;
    caffe__datum__init(&datum);
    datum.has_channels = datum.has_height = datum.has_width = datum.has_data = datum.has_label = 1;
    datum.channels = 3;
    datum.height = datum.width = SIDE;
    datum.data.data = (uint8_t *)record + 1;
    datum.data.len = PIXELS;
    datum.label = record[0];
    /* The other fields take at most a tag and ten bytes each. */
    unsigned char value[PIXELS + 64];
    size_t size = caffe__datum__pack(&datum, value);
    char key[16];
    int key_size = snprintf(key, sizeof key, "%05u", number);
    return shoal_dataset_writer_put(writer, key, (size_t)key_size, value, size, c->err);
}

/* first: number of the file's first record. */
static ShoalStatus convert_file(Conversion *c, const char *name, unsigned first,
                                ShoalDatasetWriter *writer) {
    char path[4096];
    unsigned char *bytes;
    size_t size;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", c->input, name) >= sizeof path)
        return shoal_error_set(c->err, SHOAL_ERR_ARGUMENT, "%.64s...: the name is too long",
                               c->input);
    ShoalStatus status = shoal_file_read(path, &bytes, &size, c->err);
    if (status)
        return status;
    status = check_size(c, path, size);
    for (size_t i = 0; i < size / RECORD && !status; i++) {
        status = put_record(c, writer, bytes + i * RECORD, first + (unsigned)i);
        if (++c->done % PROGRESS_EVERY == 0 && !status) {
            shoal_watch_progress(c->watch, c->done, c->expected);
            status = shoal_watch_stopped(c->watch, c->err);
        }
    }
    shoal_free(bytes);
    return status;
}

static ShoalStatus create(const char *output, const char *name, ShoalDatasetWriter **writer,
                          ShoalError *err) {
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", output, name) >= sizeof path)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "%.64s...: the name is too long", output);
    return shoal_dataset_writer_create(path, writer, err);
}

ShoalStatus shoal_convert_cifar(const char *input, const char *output, const ShoalToolWatch *watch,
                                ShoalError *err) {
    Conversion c = {
        .input = input, .watch = watch, .expected = (TRAIN_FILES + 1) * FILE_RECORDS, .err = err};
    ShoalDatasetWriter *train = NULL, *test = NULL;
    ShoalStatus status = create(output, "cifar10_train_lmdb", &train, err);
    if (!status)
        status = create(output, "cifar10_test_lmdb", &test, err);
    for (unsigned i = 0; i < TRAIN_FILES && !status; i++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%u.bin", i + 1);
        status = convert_file(&c, name, i * FILE_RECORDS, train);
    }
    if (!status)
        status = convert_file(&c, "test_batch.bin", 0, test);
    /* Both at the end, so that a failure before leaves neither. */
    if (!status) {
        status = shoal_dataset_writer_close(train, err);
        train = NULL;
    }
    if (!status) {
        status = shoal_dataset_writer_close(test, err);
        test = NULL;
    }
    shoal_dataset_writer_discard(train);
    shoal_dataset_writer_discard(test);
    return status;
}
