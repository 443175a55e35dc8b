/* SPDX-License-Identifier: Apache-2.0 */
#include "shoal/tools.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/pool.h"
#include "base/rng.h"
#include "caffe/model.h"
#include "data/image.h"
#include "data/watch.h"
#include "data/writer.h"

/* Images are read and packed by a pool of threads, some for each thread at a time, and written in
 * the order of their lines by the caller. */
enum { FOR_EACH_THREAD = 8, MAX_THREADS = 1024, NOTES = 20, KEY_BYTES = 1024 };
enum { JPEG_QUALITY = 95 }; /* OpenCV's default */

typedef enum Format { FORMAT_UNKNOWN, FORMAT_JPEG, FORMAT_PNG } Format;

typedef struct Line {
    const char *name; /* in List.bytes */
    int label;
} Line;

typedef struct List {
    const char *path;
    char *bytes; /* the file; line ends and the blanks before labels became '\0' */
    Line *lines;
    size_t count;
} List;

/* What became of a line. */
typedef struct Made {
    void *bytes; /* a packed Datum; NULL: see error */
    size_t size;
    int channels, height, width;
    ShoalError error;
} Made;

typedef struct Conversion {
    const ShoalConvertImagesOptions *options;
    const ShoalToolWatch *watch;
    List list;
    ShoalDatasetWriter *writer;
    ShoalPool *pool;
    unsigned threads;
    ShoalImageDecoder **decoders; /* [threads] */
    Made *made;                   /* [capacity] of the lines from `first` on */
    size_t capacity, first;
    int channels, height, width; /* of the first image; 0: none yet */
    ShoalConvertImagesResult result;
    ShoalError first_failure;
} Conversion;

/* ---- the list ---- */

static size_t count_lines(const char *bytes, size_t size) {
    size_t count = size > 0 && bytes[size - 1] != '\n';
    for (size_t i = 0; i < size; i++)
        count += bytes[i] == '\n';
    return count;
}

/* The label is what follows the last blank, so names may have blanks. */
static ShoalStatus parse_line(const List *list, size_t number, char *text, Line *line,
                              ShoalError *err) {
    line->name = text;
    if (!*text || !strcmp(text, "\r")) { /* numbered by Caffe, too */
        *text = '\0';
        return SHOAL_OK;
    }
    char *blank = strrchr(text, ' '), *end = NULL;
    errno = 0;
    long label = blank ? strtol(blank + 1, &end, 10) : 0;
    if (!blank || end == blank + 1 || (*end && strcmp(end, "\r")))
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "%s:%zu: '%.200s' does not end with a blank and a label", list->path,
                               number, text);
    if (errno || label < INT32_MIN || label > INT32_MAX)
        return shoal_error_set(err, SHOAL_ERR_DATA, "%s:%zu: label %s does not fit into 32 bits",
                               list->path, number, blank + 1);
    line->label = (int)label;
    *blank = '\0';
    return SHOAL_OK;
}

static ShoalStatus read_list(List *list, ShoalError *err) {
    size_t size;
    ShoalStatus status = shoal_file_read(list->path, (unsigned char **)&list->bytes, &size, err);
    if (status)
        return status;
    if (memchr(list->bytes, '\0', size))
        return shoal_error_set(err, SHOAL_ERR_DATA, "%s: is no text; expected lines 'NAME LABEL'",
                               list->path);
    list->count = count_lines(list->bytes, size);
    if (!list->count)
        return shoal_error_set(err, SHOAL_ERR_DATA, "%s: is empty; expected lines 'NAME LABEL'",
                               list->path);
    list->lines = shoal_calloc(list->count, sizeof *list->lines);
    if (!list->lines)
        return shoal_error_memory(err, list->path, list->count * sizeof *list->lines);
    char *text = list->bytes;
    for (size_t i = 0; i < list->count && !status; i++) {
        char *end = text + strcspn(text, "\n");
        *end = '\0';
        status = parse_line(list, i + 1, text, &list->lines[i], err);
        text = end + 1;
    }
    return status;
}

static void shuffle(List *list, uint32_t seed) {
    ShoalRng rng;
    shoal_rng_init(&rng, seed, SHOAL_RNG_SHUFFLE, 0);
    for (size_t i = list->count; i > 1; i--) {
        size_t other = shoal_rng_below(&rng, (uint32_t)i);
        Line line = list->lines[i - 1];
        list->lines[i - 1] = list->lines[other];
        list->lines[other] = line;
    }
}

/* ---- one image ---- */

static Format format_called(const char *name) {
    static const struct {
        const char *name;
        Format format;
    } FORMATS[] = {
        {"jpg", FORMAT_JPEG}, {"jpeg", FORMAT_JPEG}, {"jpe", FORMAT_JPEG}, {"png", FORMAT_PNG}};
    for (size_t i = 0; i < sizeof FORMATS / sizeof FORMATS[0]; i++)
        if (!strcasecmp(name, FORMATS[i].name))
            return FORMATS[i].format;
    return FORMAT_UNKNOWN;
}

/* As Caffe, by the name alone: what follows its last dot. */
static const char *extension(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

/* ReadImageToDatum of Caffe's util/io.cpp keeps the file as it is unless it must change. */
static bool keeps_file(const ShoalConvertImagesOptions *options, const char *name) {
    const char *type = options->encode_type, *ending = extension(name);
    return !options->resize_height && (!type || !strcasecmp(ending, type) ||
                                       (!strcasecmp(type, "jpg") && !strcasecmp(ending, "jpeg")));
}

static ShoalStatus encode(const ShoalConvertImagesOptions *options, const char *name,
                          const ShoalImage *image, void **bytes, size_t *size, ShoalError *err) {
    const char *type = options->encode_type ? options->encode_type : extension(name);
    switch (format_called(type)) {
    case FORMAT_JPEG:
        return shoal_image_encode_jpeg(image, JPEG_QUALITY, bytes, size, err);
    case FORMAT_PNG:
        return shoal_image_encode_png(image, bytes, size, err);
    case FORMAT_UNKNOWN:
        break;
    }
    return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                           "its name does not say how to encode it; give the type: jpg or png");
}

static ShoalStatus pixels(const ShoalImage *image, void **bytes, size_t *size, ShoalError *err) {
    *size = (size_t)image->channels * (size_t)image->height * (size_t)image->width;
    *bytes = shoal_calloc(*size, 1);
    if (!*bytes)
        return shoal_error_memory(err, "an image", *size);
    shoal_image_planes(image, *bytes);
    return SHOAL_OK;
}

/* file: the bytes that were read, which become the record's where they need not change. */
static ShoalStatus pack(const ShoalConvertImagesOptions *options, const Line *line,
                        const ShoalImage *image, void *file, size_t file_size, Made *made,
                        ShoalError *err) {
    bool encoded = options->encoded || options->encode_type;
    bool keeps = encoded && keeps_file(options, line->name);
    Caffe__Datum datum;
    caffe__datum__init(&datum);
    datum.has_data = datum.has_label = datum.has_encoded = 1;
    datum.label = line->label;
    datum.encoded = encoded;
    void *data = file;
    datum.data.len = file_size;
    ShoalStatus status = SHOAL_OK;
    if (!encoded) {
        datum.has_channels = datum.has_height = datum.has_width = 1;
        datum.channels = image->channels;
        datum.height = image->height;
        datum.width = image->width;
        status = pixels(image, &data, &datum.data.len, err);
    } else if (!keeps) {
        status = encode(options, line->name, image, &data, &datum.data.len, err);
    }
    if (status)
        return status;
    datum.data.data = data;
    status = shoal_caffe_pack(&datum.base, &made->bytes, &made->size, err);
    if (data != file)
        shoal_free(data);
    return status;
}

static ShoalStatus make(const ShoalConvertImagesOptions *options, ShoalImageDecoder *decoder,
                        const char *path, const Line *line, Made *made) {
    ShoalError *err = &made->error;
    void *file;
    size_t size;
    ShoalStatus status = shoal_image_read_file(path, &file, &size, err);
    if (status)
        return status;
    ShoalImage image;
    status = shoal_image_decode(decoder, file, size,
                                options->gray ? SHOAL_IMAGE_GRAY : SHOAL_IMAGE_COLOR, &image, err);
    if (!status && options->resize_height)
        status = shoal_image_resize(decoder, &image, options->resize_height, options->resize_width,
                                    &image, err);
    if (!status)
        status = pack(options, line, &image, file, size, made, err);
    if (status) {
        shoal_error_prefix(err, "%s", path);
    } else {
        made->channels = image.channels;
        made->height = image.height;
        made->width = image.width;
    }
    shoal_free(file);
    return status;
}

/* ShoalPoolTask: the index-th line from c->first on. */
static void make_task(void *context, size_t index, unsigned thread) {
    Conversion *c = context;
    const Line *line = &c->list.lines[c->first + index];
    Made *made = &c->made[index];
    *made = (Made){0};
    size_t root = strlen(c->options->root), name = strlen(line->name);
    char *path = shoal_calloc(root + name + 1, 1);
    if (!path) {
        shoal_error_memory(&made->error, "a path", root + name);
        return;
    }
    memcpy(path, c->options->root, root);
    memcpy(path + root, line->name, name);
    if (*line->name)
        make(c->options, c->decoders[thread], path, line, made);
    else
        shoal_error_set(&made->error, SHOAL_ERR_DATA, "%s: an empty line", c->list.path);
    shoal_free(path);
}

/* ---- all of them ---- */

static ShoalStatus leave_out(Conversion *c, const Made *made, ShoalError *err) {
    if (made->error.status == SHOAL_ERR_MEMORY)
        return shoal_error_set(err, SHOAL_ERR_MEMORY, "%s", made->error.text);
    if (!c->result.left_out++)
        c->first_failure = made->error;
    if (c->result.left_out <= NOTES)
        shoal_watch_note(c->watch, "left out: %s%s", made->error.text,
                         c->result.left_out == NOTES ? " (and no word of any more)" : "");
    return SHOAL_OK;
}

static ShoalStatus check_size(Conversion *c, const Line *line, const Made *made, ShoalError *err) {
    if (!c->options->check_size)
        return SHOAL_OK;
    if (!c->channels) {
        c->channels = made->channels;
        c->height = made->height;
        c->width = made->width;
    }
    if (made->channels == c->channels && made->height == c->height && made->width == c->width)
        return SHOAL_OK;
    return shoal_error_set(
        err, SHOAL_ERR_DATA,
        "%s%s: %d x %d, the first image is %d x %d (height x width); resize them "
        "or do not check their size",
        c->options->root, line->name, made->height, made->width, c->height, c->width);
}

static ShoalStatus put(Conversion *c, size_t index, ShoalError *err) {
    const Line *line = &c->list.lines[index];
    const Made *made = &c->made[index - c->first];
    if (!made->bytes)
        return leave_out(c, made, err);
    ShoalStatus status = check_size(c, line, made, err);
    if (status)
        return status;
    char key[KEY_BYTES];
    int size = snprintf(key, sizeof key, "%08zu_%s", index, line->name);
    status = shoal_dataset_writer_put(c->writer, key, (size_t)size, made->bytes, made->size, err);
    c->result.written += !status;
    return status;
}

static ShoalStatus convert_some(Conversion *c, ShoalError *err) {
    size_t left = c->list.count - c->first, n = left < c->capacity ? left : c->capacity;
    shoal_pool_run(c->pool, n, make_task, c);
    ShoalStatus status = SHOAL_OK;
    for (size_t i = 0; i < n; i++) {
        if (!status)
            status = put(c, c->first + i, err);
        shoal_free(c->made[i].bytes);
    }
    c->first += n;
    shoal_watch_progress(c->watch, c->first, c->list.count);
    return status ? status : shoal_watch_stopped(c->watch, err);
}

static ShoalStatus prepare(Conversion *c, ShoalError *err) {
    c->threads = c->options->threads > 0 ? (unsigned)c->options->threads : 1;
    c->capacity = (size_t)c->threads * FOR_EACH_THREAD;
    c->made = shoal_calloc(c->capacity, sizeof *c->made);
    c->decoders = shoal_calloc(c->threads, sizeof(ShoalImageDecoder *));
    bool enough = c->made && c->decoders;
    for (unsigned t = 0; t < c->threads && enough; t++) {
        c->decoders[t] = shoal_image_decoder_create();
        enough = c->decoders[t];
    }
    c->pool = c->threads > 1 && enough ? shoal_pool_create(c->threads) : NULL;
    if (c->threads > 1 && !c->pool)
        enough = false;
    return enough ? SHOAL_OK : shoal_error_memory(err, "the images", c->capacity);
}

static void close_all(Conversion *c) {
    shoal_pool_destroy(c->pool);
    for (unsigned t = 0; t < c->threads && c->decoders; t++)
        shoal_image_decoder_destroy(c->decoders[t]);
    shoal_free(c->decoders);
    shoal_free(c->made);
    shoal_free(c->list.lines);
    shoal_free(c->list.bytes);
    shoal_dataset_writer_discard(c->writer);
}

static ShoalStatus check_options(const ShoalConvertImagesOptions *options, ShoalError *err) {
    if (!options->resize_height != !options->resize_width || options->resize_height < 0 ||
        options->resize_width < 0)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "resize_height is %d and resize_width %d; give both or none",
                               options->resize_height, options->resize_width);
    if (options->encode_type && !format_called(options->encode_type))
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "encode_type is '%s'; there are jpg and png", options->encode_type);
    if (options->threads < 0 || options->threads > MAX_THREADS)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "threads is %d; 1 to %d work",
                               options->threads, MAX_THREADS);
    return SHOAL_OK;
}

static ShoalStatus convert(Conversion *c, ShoalError *err) {
    ShoalStatus status = read_list(&c->list, err);
    if (status)
        return status;
    if (c->list.count > UINT32_MAX)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED, "%s: more than 2^32 lines",
                               c->list.path);
    if (c->options->shuffle)
        shuffle(&c->list, c->options->seed);
    status = prepare(c, err);
    if (!status)
        status = shoal_dataset_writer_create(c->options->lmdb, &c->writer, err);
    while (!status && c->first < c->list.count)
        status = convert_some(c, err);
    if (!status && !c->result.written)
        status = shoal_error_set(err, SHOAL_ERR_DATA, "%s: none of the images can be read: %s",
                                 c->list.path, c->first_failure.text);
    if (status)
        return status;
    status = shoal_dataset_writer_close(c->writer, err);
    c->writer = NULL;
    return status;
}

ShoalStatus shoal_convert_images(const ShoalConvertImagesOptions *options,
                                 const ShoalToolWatch *watch, ShoalConvertImagesResult *result,
                                 ShoalError *err) {
    ShoalStatus status = check_options(options, err);
    if (status)
        return status;
    Conversion c = {.options = options, .watch = watch, .list.path = options->list};
    status = convert(&c, err);
    close_all(&c);
    if (!status)
        *result = c.result;
    return status;
}
