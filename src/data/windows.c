/* SPDX-License-Identifier: Apache-2.0 */
#include "data/windows.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "data/transform.h"

enum { CHANNELS = 3, CROP_MAX = 1 << 13, CORNER_MAX = 1 << 20, EDGE_MAX = 1 << 28 };

struct ShoalWindows {
    int crop, context_pad;
    bool square, mirror;
    uint64_t seed;
    float scale;
    float channel_mean[CHANNELS];
    float *mean; /* [CHANNELS][mean_height][mean_width], or NULL */
    int mean_height, mean_width, mean_offset;
};

/* Where a window lies in its image, and its part of the sample. */
typedef struct Place {
    ShoalImagePart part;
    int height, width; /* of the part in the sample */
    int top, left;
} Place;

/* ---- life ---- */

static ShoalStatus check(const Caffe__TransformationParameter *transform,
                         const Caffe__WindowDataParameter *param, const Caffe__BlobProto *mean,
                         ShoalError *err) {
    uint32_t crop = transform ? transform->crop_size : 0;
    if (crop < 1 || crop > CROP_MAX)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "transform_param: crop_size %u; a WindowData layer needs 1 to %d",
                               (unsigned)crop, CROP_MAX);
    if (param->context_pad >= (crop + 1) / 2)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "window_data_param: context_pad %u leaves nothing of a crop_size "
                               "of %u",
                               (unsigned)param->context_pad, (unsigned)crop);
    if (strcmp(param->crop_mode, "warp") != 0 && strcmp(param->crop_mode, "square") != 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "window_data_param: crop_mode \"%s\" is unknown; use \"warp\" or "
                               "\"square\"",
                               param->crop_mode);
    if ((transform->mean_file || mean) && transform->n_mean_value)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "transform_param: mean_file and mean_value both; give one of them");
    if (transform->mean_file && !mean)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "transform_param: mean_file %s is not read",
                               transform->mean_file);
    if (transform->n_mean_value > 1 && transform->n_mean_value != CHANNELS)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "transform_param: %zu mean_value; expected 1 or %d",
                               transform->n_mean_value, CHANNELS);
    bool finite = isfinite(param->scale);
    for (size_t i = 0; i < transform->n_mean_value; i++)
        finite = finite && isfinite(transform->mean_value[i]);
    return finite ? SHOAL_OK
                  : shoal_error_set(err, SHOAL_ERR_MODEL,
                                    "window_data_param: scale and mean_value must be finite "
                                    "numbers");
}

/* The mean file, whose middle lies under the sample. */
static ShoalStatus copy_mean(ShoalWindows *windows, const Caffe__BlobProto *mean, const char *file,
                             ShoalError *err) {
    int dims[4];
    ShoalStatus status = shoal_transform_read_mean(mean, file, dims, &windows->mean, err);
    if (status)
        return status;
    windows->mean_height = dims[2];
    windows->mean_width = dims[3];
    windows->mean_offset = (dims[3] - windows->crop) / 2;
    if (dims[0] != 1 || dims[1] != CHANNELS || dims[3] < windows->crop ||
        dims[2] - windows->mean_offset < windows->crop)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "mean file %s: shape %d x %d x %d x %d; expected 1 x %d x %d x %d "
                               "or larger",
                               file, dims[0], dims[1], dims[2], dims[3], CHANNELS, windows->crop,
                               windows->crop);
    return SHOAL_OK;
}

ShoalStatus shoal_windows_create(const Caffe__LayerParameter *layer, uint64_t seed,
                                 const Caffe__BlobProto *mean, ShoalWindows **out,
                                 ShoalError *err) {
    Caffe__WindowDataParameter none = CAFFE__WINDOW_DATA_PARAMETER__INIT;
    const Caffe__WindowDataParameter *param =
        layer->window_data_param ? layer->window_data_param : &none;
    const Caffe__TransformationParameter *transform = layer->transform_param;
    ShoalStatus status = check(transform, param, mean, err);
    if (status)
        return status;
    ShoalWindows *windows = shoal_calloc(1, sizeof *windows);
    if (!windows)
        return shoal_error_memory(err, "a window data layer", sizeof *windows);
    windows->crop = (int)transform->crop_size;
    windows->context_pad = (int)param->context_pad;
    windows->square = !strcmp(param->crop_mode, "square");
    windows->mirror = transform->mirror;
    windows->seed = seed;
    windows->scale = param->scale;
    for (int c = 0; c < CHANNELS && transform->n_mean_value; c++)
        windows->channel_mean[c] = transform->mean_value[transform->n_mean_value == 1 ? 0 : c];
    if (mean)
        status = copy_mean(windows, mean, transform->mean_file ? transform->mean_file : "(no name)",
                           err);
    if (status)
        shoal_windows_destroy(windows);
    else
        *out = windows;
    return status;
}

void shoal_windows_destroy(ShoalWindows *windows) {
    if (!windows)
        return;
    shoal_free(windows->mean);
    shoal_free(windows);
}

void shoal_windows_shape(const ShoalWindows *windows, int dims[3]) {
    dims[0] = CHANNELS;
    dims[1] = dims[2] = windows->crop;
}

/* ---- where ---- */

static int rounded(float x) {
    return (int)roundf(fminf(fmaxf(x, -EDGE_MAX), EDGE_MAX));
}

static int most(int a, int b) {
    return a > b ? a : b;
}

/* One axis of the widened window: what of it is inside, and what its parts become in the sample. */
typedef struct Span {
    int first, length;         /* in the image; length < 1: all of it is outside */
    int before, after, inside; /* pixels of the sample */
} Span;

static Span widen(float centre, float half, int size, int crop) {
    int first = rounded(centre - half), last = rounded(centre + half);
    float scale = (float)crop / (float)(last - first + 1);
    int before = most(0, -first), after = most(0, last - size + 1);
    Span span = {.first = first + before, .length = last - after - (first + before) + 1};
    span.before = rounded((float)before * scale);
    span.after = rounded((float)after * scale);
    span.inside = rounded((float)span.length * scale);
    return span;
}

/* Float where Caffe has it: a half decides which pixel is the first. */
static void place_in_context(const ShoalWindows *w, const ShoalImage *image, const int corner[4],
                             bool mirrored, Place *out) {
    float context = (float)w->crop / (float)(w->crop - 2 * w->context_pad);
    float half_height = (float)(corner[3] - corner[1] + 1) / 2,
          half_width = (float)(corner[2] - corner[0] + 1) / 2;
    float centre_x = (float)corner[0] + half_width, centre_y = (float)corner[1] + half_height;
    if (w->square)
        half_height = half_width = half_height > half_width ? half_height : half_width;
    Span x = widen(centre_x, half_width * context, image->width, w->crop),
         y = widen(centre_y, half_height * context, image->height, w->crop);
    *out = (Place){.part = {y.first, x.first, y.length, x.length},
                   .height = y.inside,
                   .width = x.inside,
                   .top = y.before,
                   .left = mirrored ? x.after : x.before};
    if (out->top + out->height > w->crop)
        out->height = w->crop - out->top;
    if (out->left + out->width > w->crop)
        out->width = w->crop - out->left;
}

static ShoalStatus place(const ShoalWindows *w, const ShoalImage *image,
                         const float numbers[SHOAL_WINDOW_NUMBERS], bool mirrored, Place *out,
                         ShoalError *err) {
    int corner[SHOAL_WINDOW_NUMBERS];
    bool good = true;
    for (int i = 0; i < SHOAL_WINDOW_NUMBERS; i++) {
        good = good && fabsf(numbers[i]) <= CORNER_MAX;
        corner[i] = good ? (int)numbers[i] : 0;
    }
    good = good && corner[2] >= corner[0] && corner[3] >= corner[1];
    if (good && (w->context_pad || w->square))
        place_in_context(w, image, corner, mirrored, out);
    else if (good)
        *out = (Place){{corner[1], corner[0], corner[3] - corner[1] + 1, corner[2] - corner[0] + 1},
                       w->crop,
                       w->crop,
                       0,
                       0};
    const ShoalImagePart *part = &out->part;
    if (good && part->height >= 1 && part->width >= 1 && part->top >= 0 && part->left >= 0 &&
        part->top + part->height <= image->height && part->left + part->width <= image->width)
        return SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_DATA,
                           "window %g %g %g %g (x1, y1, x2, y2) of an image of %d x %d pixels "
                           "(height, width); expected a window inside",
                           (double)numbers[0], (double)numbers[1], (double)numbers[2],
                           (double)numbers[3], image->height, image->width);
}

/* ---- pixels ---- */

static void paint(const ShoalWindows *w, const Place *place, const ShoalImage *image, bool mirrored,
                  float *out) {
    size_t crop = (size_t)w->crop;
    for (size_t c = 0; c < CHANNELS; c++)
        for (int y = 0; y < place->height; y++) {
            const uint8_t *in = image->pixels + (size_t)y * (size_t)image->width * CHANNELS + c;
            float *to = out + (c * crop + (size_t)(y + place->top)) * crop + place->left;
            const float *mean =
                w->mean
                    ? w->mean +
                          (c * (size_t)w->mean_height + (size_t)(y + w->mean_offset + place->top)) *
                              (size_t)w->mean_width +
                          w->mean_offset + place->left
                    : NULL;
            for (int x = 0; x < place->width; x++) {
                int from = mirrored ? place->width - 1 - x : x;
                to[x] =
                    ((float)in[from * CHANNELS] - (mean ? mean[x] : w->channel_mean[c])) * w->scale;
            }
        }
}

ShoalStatus shoal_windows_apply(const ShoalWindows *windows, ShoalImageDecoder *decoder,
                                const ShoalImage *image, const float corners[SHOAL_WINDOW_NUMBERS],
                                uint64_t sample, float *out, ShoalError *err) {
    bool mirrored = windows->mirror && shoal_transform_mirrors(windows->seed, sample);
    Place where = {0};
    if (image->channels != CHANNELS)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "a window of an image with %d channels",
                               image->channels);
    ShoalStatus status = place(windows, image, corners, mirrored, &where, err);
    if (status)
        return status;
    ShoalImage part;
    bool visible = where.height > 0 && where.width > 0; /* rounded away else */
    if (visible)
        status = shoal_image_resize_part(decoder, image, &where.part, SHOAL_RESIZE_LINEAR,
                                         where.height, where.width, &part, err);
    if (status)
        return status;
    memset(out, 0, sizeof *out * CHANNELS * (size_t)windows->crop * (size_t)windows->crop);
    if (visible)
        paint(windows, &where, &part, mirrored, out);
    return SHOAL_OK;
}
