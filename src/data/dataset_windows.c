/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "data/dataset_kinds.h"
#include "data/image_record.h"
#include "data/windows.h"

/* The windows of a WindowData layer, in a text file (Caffe's window_data_layer.cpp):
 *
 *   # IMAGE_INDEX
 *   PATH
 *   CHANNELS HEIGHT WIDTH
 *   NUMBER_OF_WINDOWS
 *   CLASS OVERLAP X1 Y1 X2 Y2        for each window
 *
 * and so on; blanks of any kind between the words. A window whose overlap is fg_threshold or more
 * is foreground; one below bg_threshold is background, class 0; others are left out. Records are
 * first the foreground windows, then the background ones. */

typedef struct Window {
    uint32_t image;
    int label;
    float corners[SHOAL_WINDOW_NUMBERS];
} Window;

typedef struct Windows {
    char *file, *root;
    unsigned char *text;
    char **paths; /* of the images; into text */
    size_t n_images, room_images;
    Window *kinds[2]; /* background, foreground */
    size_t counts[2], rooms[2];
    float fg_threshold, bg_threshold;
    uint32_t batch, batch_fg; /* samples of a batch, and how many of them are foreground */
    ShoalImageRecorder recorder;
} Windows;

/* Random numbers set aside per sample, and which stream they are of: not that of crops. */
enum { DRAWS_PER_SAMPLE = 8, STREAM = 2 };

static void close_windows(void *state) {
    Windows *windows = state;
    shoal_image_record_close(&windows->recorder);
    shoal_free(windows->file);
    shoal_free(windows->root);
    shoal_free(windows->text);
    shoal_free(windows->paths);
    shoal_free(windows->kinds[0]);
    shoal_free(windows->kinds[1]);
    shoal_free(windows);
}

/* ---- records ---- */

static ShoalStatus record_window(ShoalDataset *dataset, uint64_t index, ShoalRecord *out,
                                 ShoalError *err) {
    Windows *windows = dataset->state;
    bool fg = index < windows->counts[1];
    const Window *window = &windows->kinds[fg][fg ? index : index - windows->counts[1]];
    ShoalStatus status =
        shoal_image_record_make(&windows->recorder, windows->root, windows->paths[window->image],
                                window->label, window->corners, SHOAL_WINDOW_NUMBERS, out, err);
    if (status)
        shoal_error_prefix(err, "record %llu (image # %u of %s)", (unsigned long long)index,
                           (unsigned)window->image, windows->file);
    return status;
}

/* As Caffe: of each batch the last ones are foreground, and which window it is is drawn. */
static bool pick_window(const ShoalDataset *dataset, uint64_t seed, uint64_t sample,
                        uint64_t *index) {
    const Windows *windows = dataset->state;
    bool fg = sample % windows->batch >= windows->batch - windows->batch_fg;
    ShoalRng rng;
    shoal_rng_init(&rng, seed, SHOAL_RNG_TRANSFORM, STREAM);
    shoal_rng_seek(&rng, sample * DRAWS_PER_SAMPLE);
    *index = shoal_rng_below(&rng, (uint32_t)windows->counts[fg]) + (fg ? 0 : windows->counts[1]);
    return true;
}

/* ---- the file ---- */

/* Makes room for one more of n objects. */
static bool grow(void **array, size_t n, size_t *room, size_t object_size) {
    if (n < *room)
        return true;
    size_t more = *room ? 2 * *room : 64;
    void *larger = shoal_calloc(more, object_size);
    if (!larger)
        return false;
    if (n)
        memcpy(larger, *array, n * object_size);
    shoal_free(*array);
    *array = larger;
    *room = more;
    return true;
}

typedef struct Words {
    char *at;
    unsigned line;
    const char *file;
} Words;

static bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* The next word, ended with '\0'; NULL at the end. */
static char *next_word(Words *words) {
    while (is_blank(*words->at))
        words->line += *words->at++ == '\n';
    if (!*words->at)
        return NULL;
    char *word = words->at;
    while (*words->at && !is_blank(*words->at))
        words->at++;
    if (*words->at) {
        words->line += *words->at == '\n';
        *words->at++ = '\0';
    }
    return word;
}

static ShoalStatus expected(const Words *words, const char *word, const char *what,
                            ShoalError *err) {
    return shoal_error_set(err, SHOAL_ERR_DATA, "line %u of %s: %s%.40s%s; expected %s",
                           words->line, words->file, word ? "\"" : "",
                           word ? word : "the end of the file", word ? "\"" : "", what);
}

static ShoalStatus next_int(Words *words, const char *what, int *out, ShoalError *err) {
    char *word = next_word(words), *rest = NULL;
    errno = 0;
    long value = word ? strtol(word, &rest, 10) : 0;
    if (!word || *rest || errno || value < INT_MIN || value > INT_MAX)
        return expected(words, word, what, err);
    *out = (int)value;
    return SHOAL_OK;
}

static ShoalStatus next_float(Words *words, const char *what, float *out, ShoalError *err) {
    char *word = next_word(words), *rest = NULL;
    float value = word ? strtof(word, &rest) : 0;
    if (!word || *rest || !isfinite(value))
        return expected(words, word, what, err);
    *out = value;
    return SHOAL_OK;
}

static ShoalStatus read_window(Windows *windows, Words *words, ShoalError *err) {
    static const char *const CORNERS[] = {"x1", "y1", "x2", "y2"};
    Window window = {.image = (uint32_t)(windows->n_images - 1)};
    float overlap = 0;
    ShoalStatus status = next_int(words, "the class of a window", &window.label, err);
    if (!status)
        status = next_float(words, "the overlap of a window", &overlap, err);
    for (int i = 0; !status && i < SHOAL_WINDOW_NUMBERS; i++) {
        int corner = 0;
        status = next_int(words, CORNERS[i], &corner, err);
        window.corners[i] = (float)corner;
    }
    bool fg = overlap >= windows->fg_threshold;
    if (status || (!fg && overlap >= windows->bg_threshold))
        return status;
    if (fg && window.label < 1)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "line %u of %s: a window of class %d with overlap %g; foreground "
                               "has a class above 0",
                               words->line, words->file, window.label, (double)overlap);
    if (!fg)
        window.label = 0;
    void *kind = windows->kinds[fg];
    if (windows->counts[fg] >= UINT32_MAX ||
        !grow(&kind, windows->counts[fg], &windows->rooms[fg], sizeof window))
        return shoal_error_memory(err, "windows", windows->counts[fg] * sizeof window);
    windows->kinds[fg] = kind;
    windows->kinds[fg][windows->counts[fg]++] = window;
    return SHOAL_OK;
}

/* After its "#". */
static ShoalStatus read_image(Windows *windows, Words *words, ShoalError *err) {
    int index = 0, sizes[3], n = 0;
    ShoalStatus status = next_int(words, "the number of an image", &index, err);
    if (!status && (size_t)index != windows->n_images)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "line %u of %s: image # %d; expected # %zu: images are numbered "
                               "from 0",
                               words->line, words->file, index, windows->n_images);
    void *paths = windows->paths;
    if (!status && (windows->n_images >= UINT32_MAX ||
                    !grow(&paths, windows->n_images, &windows->room_images, sizeof(char *))))
        return shoal_error_memory(err, "windows", windows->n_images * sizeof(char *));
    windows->paths = paths;
    char *path = status ? NULL : next_word(words);
    if (!status && !path)
        status = expected(words, path, "the file of an image", err);
    if (status)
        return status;
    windows->paths[windows->n_images++] = path;
    for (int i = 0; !status && i < 3; i++)
        status = next_int(words, "channels, height and width of an image", &sizes[i], err);
    if (!status)
        status = next_int(words, "the number of windows", &n, err);
    for (int i = 0; !status && i < n; i++)
        status = read_window(windows, words, err);
    return status;
}

static ShoalStatus read_all(Windows *windows, size_t size, ShoalError *err) {
    if (memchr(windows->text, 0, size))
        return shoal_error_set(err, SHOAL_ERR_DATA, "%s: not a text file; expected windows",
                               windows->file);
    Words words = {(char *)windows->text, 1, windows->file};
    ShoalStatus status = SHOAL_OK;
    for (char *word; !status && (word = next_word(&words)) != NULL;)
        status = strcmp(word, "#") != 0 ? expected(&words, word, "\"#\" and an image", err)
                                        : read_image(windows, &words, err);
    if (status || (windows->counts[0] && windows->counts[1]))
        return status;
    return shoal_error_set(err, SHOAL_ERR_DATA,
                           "%s: %zu foreground and %zu background windows; expected both (see "
                           "fg_threshold and bg_threshold)",
                           windows->file, windows->counts[1], windows->counts[0]);
}

static ShoalStatus check(const Caffe__WindowDataParameter *param, ShoalError *err) {
    if (param->batch_size >= 1 && param->fg_fraction >= 0 && param->fg_fraction <= 1)
        return SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_MODEL,
                           "window_data_param: batch_size %u, fg_fraction %g; expected at least 1, "
                           "and 0 to 1",
                           (unsigned)param->batch_size, (double)param->fg_fraction);
}

ShoalStatus shoal_dataset_open_windows(const Caffe__LayerParameter *layer, ShoalDataset *dataset,
                                       ShoalError *err) {
    static const ShoalDatasetClass CLASS = {
        .record = record_window, .pick = pick_window, .close = close_windows};
    const Caffe__WindowDataParameter *param = layer->window_data_param;
    ShoalStatus status = check(param, err);
    if (status)
        return status;
    Windows *windows = shoal_calloc(1, sizeof *windows);
    if (!windows)
        return shoal_error_memory(err, "windows", sizeof *windows);
    windows->file = shoal_strdup(param->source);
    windows->root = shoal_strdup(param->root_folder ? param->root_folder : "");
    windows->fg_threshold = param->fg_threshold;
    windows->bg_threshold = param->bg_threshold;
    windows->batch = param->batch_size;
    windows->batch_fg = (uint32_t)((float)param->batch_size * param->fg_fraction);
    size_t size = 0;
    status = windows->file && windows->root
                 ? shoal_file_read(param->source, &windows->text, &size, err)
                 : shoal_error_memory(err, "windows", 0);
    if (!status)
        status = read_all(windows, size, err);
    if (status) {
        close_windows(windows);
        return status;
    }
    dataset->count = windows->counts[0] + windows->counts[1];
    dataset->class = &CLASS;
    dataset->state = windows;
    return SHOAL_OK;
}
