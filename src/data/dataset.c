/* SPDX-License-Identifier: Apache-2.0 */
#include "data/dataset.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "data/dataset_kinds.h"

/* Every kind of dataset: one row each. */
static const struct {
    const char *layer;
    ShoalDatasetOpen *open;
} KINDS[] = {
    {"Data", shoal_dataset_open_lmdb},
    {"ImageData", shoal_dataset_open_images},
    {"WindowData", shoal_dataset_open_windows},
    {"HDF5Data", shoal_dataset_open_hdf5},
};

static int kind_of(const Caffe__LayerParameter *layer) {
    for (int i = 0; layer->type && i < (int)(sizeof KINDS / sizeof KINDS[0]); i++)
        if (!strcmp(KINDS[i].layer, layer->type))
            return i;
    return -1;
}

bool shoal_dataset_feeds(const Caffe__LayerParameter *layer) {
    return kind_of(layer) >= 0;
}

/* ---- names ---- */

/* Appends " word" (or "word" as the first) to a text that has room for it. */
static void append(char *text, const char *word) {
    size_t used = strlen(text);
    sprintf(text + used, "%s%s", used ? " " : "", word);
}

static char *join(const char *const *words, size_t n) {
    size_t size = 1;
    for (size_t i = 0; i < n; i++)
        size += strlen(words[i]) + 1;
    char *text = shoal_calloc(size, 1);
    for (size_t i = 0; text && i < n; i++)
        if (words[i][0])
            append(text, words[i]);
    return text;
}

static const char *text_or_empty(const char *text) {
    return text ? text : "";
}

/* An HDF5Data layer reads the datasets that are named as its tops. */
static char *name_hdf5(const Caffe__LayerParameter *layer, const char *source) {
    const char **words = shoal_calloc(layer->n_top + 1, sizeof *words);
    if (!words)
        return NULL;
    words[0] = source;
    for (size_t i = 0; i < layer->n_top; i++)
        words[i + 1] = layer->top[i];
    char *name = join(words, layer->n_top + 1);
    shoal_free(words);
    return name;
}

/* The first record's shape is that of the colours that are asked for. */
static char *name_data(const Caffe__LayerParameter *layer, const char *source) {
    const Caffe__TransformationParameter *transform = layer->transform_param;
    bool colour = transform && transform->force_color, grey = transform && transform->force_gray;
    const char *words[] = {source, source[0] && colour ? "(colour)"
                                   : source[0] && grey ? "(grey)"
                                                       : ""};
    return join(words, 2);
}

static char *name_images(const Caffe__ImageDataParameter *param) {
    char size[64] = "";
    if (param->new_height || param->new_width || !param->is_color)
        snprintf(size, sizeof size, "(%ux%u%s)", (unsigned)param->new_height,
                 (unsigned)param->new_width, param->is_color ? "" : ", grey");
    const char *words[] = {text_or_empty(param->root_folder), param->source, size};
    return join(words, 3);
}

/* What is a window, and how many samples are foreground, is the layer's to say. */
static char *name_windows(const Caffe__WindowDataParameter *param) {
    char numbers[112];
    snprintf(numbers, sizeof numbers, "%a %a %a %u", (double)param->fg_threshold,
             (double)param->bg_threshold, (double)param->fg_fraction, (unsigned)param->batch_size);
    const char *words[] = {text_or_empty(param->root_folder), param->source, numbers};
    return join(words, 3);
}

char *shoal_dataset_name_for(const Caffe__LayerParameter *layer) {
    const Caffe__DataParameter *data = layer->data_param;
    const Caffe__ImageDataParameter *images = layer->image_data_param;
    const Caffe__WindowDataParameter *windows = layer->window_data_param;
    const Caffe__HDF5DataParameter *hdf5 = layer->hdf5_data_param;
    switch (kind_of(layer)) {
    case 0:
        return name_data(layer, text_or_empty(data ? data->source : NULL));
    case 1:
        return images && images->source && images->source[0] ? name_images(images)
                                                             : shoal_strdup("");
    case 2:
        return windows && windows->source && windows->source[0] ? name_windows(windows)
                                                                : shoal_strdup("");
    case 3:
        return hdf5 && hdf5->source && hdf5->source[0] ? name_hdf5(layer, hdf5->source)
                                                       : shoal_strdup("");
    default:
        return NULL;
    }
}

/* ---- open and close ---- */

static ShoalStatus make(char *name, ShoalDataset **out, ShoalError *err) {
    ShoalDataset *dataset = shoal_calloc(1, sizeof *dataset);
    if (!dataset || !name) {
        shoal_free(dataset);
        shoal_free(name);
        return shoal_error_memory(err, "a dataset", sizeof *dataset);
    }
    dataset->name = name;
    *out = dataset;
    return SHOAL_OK;
}

static ShoalStatus finish(ShoalDataset *dataset, ShoalStatus status, ShoalDataset **out) {
    if (status)
        shoal_dataset_close(dataset);
    else
        *out = dataset;
    return status;
}

ShoalStatus shoal_dataset_open(const char *path, ShoalDataset **out, ShoalError *err) {
    ShoalDataset *dataset = NULL;
    ShoalStatus status = make(shoal_strdup(path), &dataset, err);
    if (status)
        return status;
    return finish(dataset, shoal_dataset_open_lmdb_at(path, dataset, err), out);
}

ShoalStatus shoal_dataset_open_for(const Caffe__LayerParameter *layer, ShoalDataset **out,
                                   ShoalError *err) {
    int kind = kind_of(layer);
    if (kind < 0)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "no dataset feeds a layer of this type");
    ShoalDataset *dataset = NULL;
    ShoalStatus status = make(shoal_dataset_name_for(layer), &dataset, err);
    if (status)
        return status;
    if (!dataset->name[0])
        status = shoal_error_set(err, SHOAL_ERR_MODEL,
                                 "the source is missing: name what the layer is to read");
    else
        status = KINDS[kind].open(layer, dataset, err);
    return finish(dataset, status, out);
}

void shoal_dataset_close(ShoalDataset *dataset) {
    if (!dataset)
        return;
    if (dataset->state)
        dataset->class->close(dataset->state);
    shoal_free(dataset->name);
    shoal_free(dataset);
}

/* ---- records ---- */

uint64_t shoal_dataset_count(const ShoalDataset *dataset) {
    return dataset->count;
}

const char *shoal_dataset_name(const ShoalDataset *dataset) {
    return dataset->name;
}

ShoalStatus shoal_dataset_record(ShoalDataset *dataset, uint64_t index, ShoalRecord *out,
                                 ShoalError *err) {
    if (index < dataset->count)
        return dataset->class->record(dataset, index, out, err);
    return shoal_error_set(
        err, SHOAL_ERR_ARGUMENT, "record %llu of %s: the dataset has %llu records (0 is the first)",
        (unsigned long long)index, dataset->name, (unsigned long long)dataset->count);
}

bool shoal_dataset_keeps(const ShoalDataset *dataset) {
    return dataset->class->keeps;
}

bool shoal_dataset_pick(const ShoalDataset *dataset, uint64_t seed, uint64_t sample,
                        uint64_t *index) {
    return dataset->class->pick && dataset->class->pick(dataset, seed, sample, index);
}
