/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "data/dataset_kinds.h"
#include "data/image_record.h"

/* The images of an ImageData layer: a text file with lines "FILE LABEL". The label is what follows
 * the last space, so a name may have spaces in it. Lines of blanks alone count as none. */

typedef struct Line {
    size_t name; /* where it is in the text */
    int label;
    unsigned number; /* of the line, from 1 */
} Line;

typedef struct Images {
    char *list, *root;
    unsigned char *text; /* of the list; a '\0' after each name */
    Line *lines;
    ShoalImageRecorder recorder;
} Images;

static void close_images(void *state) {
    Images *images = state;
    shoal_image_record_close(&images->recorder);
    shoal_free(images->list);
    shoal_free(images->root);
    shoal_free(images->text);
    shoal_free(images->lines);
    shoal_free(images);
}

static ShoalStatus record_image(ShoalDataset *dataset, uint64_t index, ShoalRecord *out,
                                ShoalError *err) {
    Images *images = dataset->state;
    const Line *line = &images->lines[index];
    ShoalStatus status =
        shoal_image_record_make(&images->recorder, images->root, (char *)images->text + line->name,
                                line->label, NULL, 0, out, err);
    if (status)
        shoal_error_prefix(err, "record %llu (line %u of %s)", (unsigned long long)index,
                           line->number, images->list);
    return status;
}

/* ---- the list ---- */

static size_t count_lines(const unsigned char *text, size_t size) {
    size_t n = 1;
    for (size_t i = 0; i < size; i++)
        n += text[i] == '\n';
    return n;
}

/* One line, from `at` up to `end`, which it may shorten; an empty one has no name. */
static ShoalStatus read_line(Images *images, size_t at, size_t end, Line *line, bool *found,
                             ShoalError *err) {
    char *text = (char *)images->text;
    while (end > at && isspace((unsigned char)text[end - 1]))
        end--;
    text[end] = '\0';
    *found = end > at;
    if (!*found)
        return SHOAL_OK;
    char *space = strrchr(text + at, ' '), *rest = NULL;
    errno = 0;
    long label = space ? strtol(space + 1, &rest, 10) : 0;
    if (!space || space == text + at || rest != text + end || errno || label < INT_MIN ||
        label > INT_MAX)
        return shoal_error_set(
            err, SHOAL_ERR_DATA,
            "line %u of %s: \"%.80s\"; expected FILE LABEL, where the label is a "
            "whole number after the last space",
            line->number, images->list, text + at);
    *space = '\0';
    line->name = at;
    line->label = (int)label;
    return SHOAL_OK;
}

static ShoalStatus read_lines(Images *images, size_t size, uint64_t *count, ShoalError *err) {
    if (memchr(images->text, 0, size))
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "%s: not a text file; expected lines FILE LABEL", images->list);
    size_t lines = count_lines(images->text, size);
    images->lines = lines < UINT_MAX ? shoal_calloc(lines, sizeof *images->lines) : NULL;
    if (!images->lines)
        return shoal_error_memory(err, "a list of images", lines * sizeof *images->lines);
    size_t at = 0, n = 0;
    for (unsigned number = 1; at < size; number++) {
        const unsigned char *newline = memchr(images->text + at, '\n', size - at);
        size_t end = newline ? (size_t)(newline - images->text) : size;
        Line line = {.number = number};
        bool found;
        ShoalStatus status = read_line(images, at, end, &line, &found, err);
        if (status)
            return status;
        if (found)
            images->lines[n++] = line;
        at = end + 1;
    }
    *count = n;
    return n ? SHOAL_OK
             : shoal_error_set(err, SHOAL_ERR_DATA,
                               "%s: no images in it; expected lines FILE LABEL", images->list);
}

ShoalStatus shoal_dataset_open_images(const Caffe__LayerParameter *layer, ShoalDataset *dataset,
                                      ShoalError *err) {
    static const ShoalDatasetClass CLASS = {.record = record_image, .close = close_images};
    const Caffe__ImageDataParameter *param = layer->image_data_param;
    Images *images = shoal_calloc(1, sizeof *images);
    if (!images)
        return shoal_error_memory(err, "a list of images", sizeof *images);
    images->list = shoal_strdup(param->source);
    images->root = shoal_strdup(param->root_folder ? param->root_folder : "");
    size_t size = 0;
    ShoalStatus status = images->list && images->root
                             ? shoal_file_read(param->source, &images->text, &size, err)
                             : shoal_error_memory(err, "a list of images", 0);
    if (!status)
        status = read_lines(images, size, &dataset->count, err);
    if (status) {
        close_images(images);
        return status;
    }
    dataset->class = &CLASS;
    dataset->state = images;
    return SHOAL_OK;
}
