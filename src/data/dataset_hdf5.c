/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "caffe/hdf5.h"
#include "data/dataset_kinds.h"

/* The rows of an HDF5Data layer: a text file with the names of HDF5 files, apart by white space.
 * Each file has a dataset for each top. Of a file that is in use a block of rows of each top is in
 * memory, so files may be larger than that. */

enum {
    MOST_OPEN = 32,              /* files at a time: handles and blocks */
    BLOCK_BYTES = 1 << 16,       /* about; whole chunks where a file has chunks */
    MOST_BLOCK_BYTES = 64 << 20, /* even then */
    MOST_FILES = 1 << 20
};

typedef struct Block {
    float *values;
    uint64_t first, n, rows; /* from row `first` on, n of them; room for `rows` */
} Block;

typedef struct File {
    const char *path;
    uint64_t first, count; /* records */
    ShoalHdf5Rows *rows;   /* NULL: not open */
    Block *blocks;         /* [tops] of an open one */
    uint64_t used;         /* when: a count of records */
} File;

typedef struct Hdf5 {
    unsigned char *text; /* of the list; a '\0' after each name */
    File *files;
    int n_files, n_open;
    const char **names; /* of datasets, those of the tops */
    char *name_text;
    ShoalRecordShape shape;
    size_t row_values[SHOAL_FEED_TOPS], record_values;
    float *record;
    uint64_t clock;
} Hdf5;

/* ---- files, of which a few are open ---- */

static void close_file(Hdf5 *state, File *file) {
    if (!file->rows)
        return;
    for (int t = 0; t < state->shape.n && file->blocks; t++)
        shoal_free(file->blocks[t].values);
    shoal_free(file->blocks);
    shoal_hdf5_rows_close(file->rows);
    file->blocks = NULL;
    file->rows = NULL;
    state->n_open--;
}

static void close_oldest(Hdf5 *state) {
    File *oldest = NULL;
    for (int i = 0; i < state->n_files; i++)
        if (state->files[i].rows && (!oldest || state->files[i].used < oldest->used))
            oldest = &state->files[i];
    if (oldest)
        close_file(state, oldest);
}

static ShoalStatus open_rows(Hdf5 *state, File *file, ShoalError *err) {
    if (state->n_open == MOST_OPEN)
        close_oldest(state);
    ShoalStatus status =
        shoal_hdf5_rows_open(file->path, state->names, state->shape.n, &file->rows, err);
    if (!status)
        state->n_open++;
    return status;
}

/* The first file says what a row is. */
static ShoalStatus take_shape(Hdf5 *state, const File *file, ShoalError *err) {
    for (int t = 0; t < state->shape.n; t++) {
        int axes, dims[SHOAL_HDF5_AXES];
        size_t values = shoal_hdf5_rows_shape(file->rows, t, &axes, dims);
        if (axes > SHOAL_FEED_AXES || !values)
            return shoal_error_set(err, SHOAL_ERR_DATA,
                                   "%s: a row of dataset '%s' has %d axes and %zu values; expected "
                                   "at most %d axes, and values",
                                   file->path, state->names[t], axes, values, SHOAL_FEED_AXES);
        state->shape.tops[t].axes = axes;
        memcpy(state->shape.tops[t].dims, dims, (size_t)axes * sizeof *dims);
        state->row_values[t] = values;
        state->record_values += values;
    }
    state->record = shoal_calloc(state->record_values, sizeof(float));
    return state->record
               ? SHOAL_OK
               : shoal_error_memory(err, file->path, state->record_values * sizeof(float));
}

static ShoalStatus check_shape(const Hdf5 *state, const File *file, ShoalError *err) {
    for (int t = 0; t < state->shape.n; t++) {
        int axes, dims[SHOAL_HDF5_AXES];
        shoal_hdf5_rows_shape(file->rows, t, &axes, dims);
        if (axes != state->shape.tops[t].axes ||
            memcmp(dims, state->shape.tops[t].dims, (size_t)axes * sizeof *dims) != 0)
            return shoal_error_set(err, SHOAL_ERR_DATA,
                                   "%s: the rows of dataset '%s' have another shape than those of "
                                   "%s",
                                   file->path, state->names[t], state->files[0].path);
    }
    return SHOAL_OK;
}

static uint64_t block_rows(const Hdf5 *state, const File *file, int top) {
    uint64_t row_bytes = state->row_values[top] * sizeof(float);
    uint64_t fit = BLOCK_BYTES / row_bytes, most = MOST_BLOCK_BYTES / row_bytes,
             chunk = shoal_hdf5_rows_chunk(file->rows, top);
    uint64_t rows = fit > chunk ? fit / chunk * chunk : chunk;
    rows = rows < most ? rows : most;
    rows = rows < file->count ? rows : file->count;
    return rows ? rows : 1;
}

static ShoalStatus make_blocks(const Hdf5 *state, File *file, ShoalError *err) {
    file->blocks = shoal_calloc((size_t)state->shape.n, sizeof *file->blocks);
    for (int t = 0; file->blocks && t < state->shape.n; t++) {
        Block *block = &file->blocks[t];
        block->rows = block_rows(state, file, t);
        block->values = shoal_calloc(block->rows * state->row_values[t], sizeof(float));
        if (!block->values)
            return shoal_error_memory(err, file->path,
                                      block->rows * state->row_values[t] * sizeof(float));
    }
    return file->blocks ? SHOAL_OK : shoal_error_memory(err, file->path, sizeof *file->blocks);
}

/* Again, later on: it may be another file by now. */
static ShoalStatus open_file(Hdf5 *state, File *file, ShoalError *err) {
    ShoalStatus status = open_rows(state, file, err);
    if (!status)
        status = check_shape(state, file, err);
    if (!status && shoal_hdf5_rows_count(file->rows) != file->count)
        status =
            shoal_error_set(err, SHOAL_ERR_DATA, "%s: has changed since the run began", file->path);
    if (!status)
        status = make_blocks(state, file, err);
    if (status)
        close_file(state, file);
    return status;
}

/* ---- records ---- */

static File *file_of(Hdf5 *state, uint64_t index) {
    int low = 0, high = state->n_files - 1;
    while (low < high) {
        int middle = low + (high - low + 1) / 2;
        if (state->files[middle].first <= index)
            low = middle;
        else
            high = middle - 1;
    }
    return &state->files[low];
}

static ShoalStatus read_row(const Hdf5 *state, File *file, int top, uint64_t row, float *out,
                            ShoalError *err) {
    Block *block = &file->blocks[top];
    size_t values = state->row_values[top];
    if (row < block->first || row - block->first >= block->n) {
        uint64_t first = row - row % block->rows, left = file->count - first;
        block->n = 0;
        ShoalStatus status = shoal_hdf5_rows_read(
            file->rows, top, first, left < block->rows ? left : block->rows, block->values, err);
        if (status)
            return status;
        block->first = first;
        block->n = left < block->rows ? left : block->rows;
    }
    memcpy(out, block->values + (row - block->first) * values, values * sizeof(float));
    return SHOAL_OK;
}

static ShoalStatus record_row(ShoalDataset *dataset, uint64_t index, ShoalRecord *out,
                              ShoalError *err) {
    Hdf5 *state = dataset->state;
    File *file = file_of(state, index);
    ShoalStatus status = file->rows ? SHOAL_OK : open_file(state, file, err);
    file->used = ++state->clock;
    float *at = state->record;
    for (int t = 0; t < state->shape.n && !status; t++) {
        status = read_row(state, file, t, index - file->first, at, err);
        at += state->row_values[t];
    }
    if (status) {
        shoal_error_prefix(err, "record %llu of %s", (unsigned long long)index, dataset->name);
        return status;
    }
    *out = (ShoalRecord){state->record, state->record_values * sizeof(float)};
    return SHOAL_OK;
}

static void close_hdf5(void *context) {
    Hdf5 *state = context;
    for (int i = 0; i < state->n_files; i++)
        close_file(state, &state->files[i]);
    shoal_free(state->text);
    shoal_free(state->files);
    shoal_free(state->names);
    shoal_free(state->name_text);
    shoal_free(state->record);
    shoal_free(state);
}

/* ---- the list ---- */

/* Cuts the text into words; NULL words: only counts them. */
static size_t split_words(unsigned char *text, size_t size, File *files) {
    size_t n = 0;
    for (size_t i = 0; i < size; i++) {
        bool blank = isspace(text[i]),
             begins = !blank && (i == 0 || isspace(text[i - 1]) || !text[i - 1]);
        if (begins && files)
            files[n].path = (char *)text + i;
        n += begins;
    }
    for (size_t i = 0; i < size && files; i++)
        if (isspace(text[i]))
            text[i] = '\0';
    return n;
}

static ShoalStatus read_list(Hdf5 *state, const char *source, ShoalError *err) {
    size_t size = 0;
    ShoalStatus status = shoal_file_read(source, &state->text, &size, err);
    if (status)
        return status;
    if (memchr(state->text, 0, size))
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "%s: not a text file; expected the names of HDF5 files", source);
    size_t n = split_words(state->text, size, NULL);
    if (!n || n > MOST_FILES)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "%s: %zu names of HDF5 files in it; expected 1 to %d", source, n,
                               MOST_FILES);
    state->files = shoal_calloc(n, sizeof *state->files);
    if (!state->files)
        return shoal_error_memory(err, source, n * sizeof *state->files);
    state->n_files = (int)n;
    split_words(state->text, size, state->files);
    return SHOAL_OK;
}

/* Tops live as long as the layer, a dataset may live longer. */
static ShoalStatus take_names(Hdf5 *state, const Caffe__LayerParameter *layer, ShoalError *err) {
    if (layer->n_top < 1 || layer->n_top > SHOAL_FEED_TOPS)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "HDF5Data with %zu tops, expected 1 to %d",
                               layer->n_top, SHOAL_FEED_TOPS);
    size_t bytes = 0;
    for (size_t t = 0; t < layer->n_top; t++)
        bytes += strlen(layer->top[t]) + 1;
    state->names = shoal_calloc(layer->n_top, sizeof *state->names);
    char *at = state->name_text = shoal_calloc(bytes, 1);
    if (!state->names || !at)
        return shoal_error_memory(err, "the names of datasets", bytes);
    for (size_t t = 0; t < layer->n_top; t++) {
        state->names[t] = strcpy(at, layer->top[t]);
        at += strlen(at) + 1;
    }
    state->shape.n = (int)layer->n_top;
    return SHOAL_OK;
}

/* Opens each file once, to count its rows. */
static ShoalStatus count_rows(Hdf5 *state, uint64_t *count, ShoalError *err) {
    uint64_t total = 0;
    for (int i = 0; i < state->n_files; i++) {
        File *file = &state->files[i];
        ShoalStatus status = open_rows(state, file, err);
        if (!status)
            status = i == 0 ? take_shape(state, file, err) : check_shape(state, file, err);
        if (status)
            return status;
        file->first = total;
        file->count = shoal_hdf5_rows_count(file->rows);
        total += file->count;
        close_file(state, file);
    }
    *count = total;
    return total ? SHOAL_OK : shoal_error_set(err, SHOAL_ERR_DATA, "the files have no rows");
}

ShoalStatus shoal_dataset_open_hdf5(const Caffe__LayerParameter *layer, ShoalDataset *dataset,
                                    ShoalError *err) {
    static const ShoalDatasetClass CLASS = {.record = record_row, .close = close_hdf5};
    Hdf5 *state = shoal_calloc(1, sizeof *state);
    if (!state)
        return shoal_error_memory(err, "a dataset", sizeof *state);
    ShoalStatus status = take_names(state, layer, err);
    if (!status)
        status = read_list(state, layer->hdf5_data_param->source, err);
    if (!status)
        status = count_rows(state, &dataset->count, err);
    if (status) {
        shoal_error_prefix(err, "dataset %s", dataset->name);
        close_hdf5(state);
        return status;
    }
    dataset->class = &CLASS;
    dataset->state = state;
    return SHOAL_OK;
}

ShoalStatus shoal_dataset_hdf5_shape(const ShoalDataset *dataset, ShoalRecordShape *out,
                                     ShoalError *err) {
    (void)err;
    *out = ((const Hdf5 *)dataset->state)->shape;
    return SHOAL_OK;
}
