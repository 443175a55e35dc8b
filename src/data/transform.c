/* SPDX-License-Identifier: Apache-2.0 */
#include "data/transform.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/rng.h"
#include "caffe/model.h"

/* Random numbers set aside per sample: mirror, top and left take three; the rest is for the rare
 * redraws of shoal_rng_below. */
#define DRAWS_PER_SAMPLE 16

struct ShoalTransform {
    bool train, mirror;
    uint64_t seed;
    float scale;
    int crop;                    /* 0: none */
    int channels, height, width; /* of the first record */
    float *channel_mean;         /* [channels] */
    float *mean;                 /* [channels][height][width], or NULL */
};

/* Where a sample is cut out of its record. */
typedef struct Window {
    int top, left, height, width;
    bool mirror;
} Window;

static ShoalStatus check_param(const Caffe__TransformationParameter *param,
                               const Caffe__BlobProto *mean, int channels, ShoalError *err) {
    const char *file = param->mean_file;
    if ((file || mean) && param->n_mean_value)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "transform_param: mean_file and mean_value both; give one of them");
    if (file && !mean)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "transform_param: mean_file %s is not read",
                               file);
    if (param->n_mean_value > 1 && param->n_mean_value != (size_t)channels)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "transform_param: %zu mean_value for records of %d channels; give "
                               "one for all, or one per channel",
                               param->n_mean_value, channels);
    if (param->force_color && param->force_gray)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "transform_param: force_color and force_gray both; give one of "
                               "them");
    bool finite = isfinite(param->scale);
    for (size_t i = 0; i < param->n_mean_value; i++)
        finite = finite && isfinite(param->mean_value[i]);
    if (!finite)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "transform_param: scale and mean_value must be finite numbers");
    return SHOAL_OK;
}

static ShoalStatus check_crop(const Caffe__TransformationParameter *param, int height, int width,
                              ShoalError *err) {
    if (param->crop_size > (uint32_t)height || param->crop_size > (uint32_t)width)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "transform_param: crop_size %" PRIu32
                               " is larger than the records (%d x %d)",
                               param->crop_size, height, width);
    return SHOAL_OK;
}

ShoalStatus shoal_transform_read_mean(const Caffe__BlobProto *blob, const char *file, int dims[4],
                                      float **values, ShoalError *err) {
    int own[4], axes = 0;
    ShoalStatus status = shoal_caffe_blob_shape(blob, 4, own, &axes, err);
    if (status) {
        shoal_error_prefix(err, "mean file %s", file);
        return status;
    }
    /* Caffe counts axes that are not there as 1, from the left. */
    for (int i = 0; i < 4; i++)
        dims[i] = i < 4 - axes ? 1 : own[i - (4 - axes)];
    size_t count = (size_t)dims[0] * (size_t)dims[1] * (size_t)dims[2] * (size_t)dims[3];
    bool wide = blob->n_double_data > 0;
    if ((wide ? blob->n_double_data : blob->n_data) != count)
        return shoal_error_set(err, SHOAL_ERR_DATA, "mean file %s: %zu values, expected %zu", file,
                               wide ? blob->n_double_data : blob->n_data, count);
    float *mean = shoal_calloc(count, sizeof *mean);
    if (!mean)
        return shoal_error_memory(err, "the mean", count * sizeof *mean);
    for (size_t i = 0; i < count; i++) {
        mean[i] = wide ? (float)blob->double_data[i] : blob->data[i];
        if (isfinite(mean[i]))
            continue;
        shoal_free(mean);
        return shoal_error_set(err, SHOAL_ERR_DATA, "mean file %s: value %zu is not finite", file,
                               i);
    }
    *values = mean;
    return SHOAL_OK;
}

/* The mean at each place of a record. */
static ShoalStatus copy_mean(ShoalTransform *transform, const Caffe__BlobProto *blob,
                             const char *file, ShoalError *err) {
    int dims[4];
    float *mean = NULL;
    ShoalStatus status = shoal_transform_read_mean(blob, file, dims, &mean, err);
    if (status)
        return status;
    if (dims[0] != 1 || dims[1] != transform->channels || dims[2] != transform->height ||
        dims[3] != transform->width) {
        shoal_free(mean);
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "mean file %s: shape %d x %d x %d x %d; the records are 1 x %d x %d "
                               "x %d: compute the mean of this dataset",
                               file, dims[0], dims[1], dims[2], dims[3], transform->channels,
                               transform->height, transform->width);
    }
    transform->mean = mean;
    return SHOAL_OK;
}

static ShoalStatus fill(ShoalTransform *transform, const Caffe__TransformationParameter *param,
                        const Caffe__BlobProto *mean, ShoalError *err) {
    size_t channels = (size_t)transform->channels;
    transform->channel_mean = shoal_calloc(channels, sizeof *transform->channel_mean);
    if (!transform->channel_mean)
        return shoal_error_memory(err, "the mean", channels * sizeof *transform->channel_mean);
    for (size_t c = 0; c < channels && param->n_mean_value; c++)
        transform->channel_mean[c] = param->mean_value[param->n_mean_value == 1 ? 0 : c];
    if (!mean)
        return SHOAL_OK;
    return copy_mean(transform, mean, param->mean_file ? param->mean_file : "(no name)", err);
}

ShoalStatus shoal_transform_create(const Caffe__TransformationParameter *param, bool train,
                                   uint64_t seed, const Caffe__BlobProto *mean, int channels,
                                   int height, int width, ShoalTransform **out, ShoalError *err) {
    Caffe__TransformationParameter empty;
    caffe__transformation_parameter__init(&empty);
    if (!param)
        param = &empty;
    size_t count;
    if (channels < 1 || height < 1 || width < 1 ||
        !shoal_size_mul((size_t)channels, (size_t)height, &count) ||
        !shoal_size_mul(count, (size_t)width, &count) || count > INT32_MAX)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "records of %d x %d x %d; expected positive numbers with a product "
                               "below 2^31",
                               channels, height, width);
    ShoalStatus status = check_param(param, mean, channels, err);
    if (!status)
        status = check_crop(param, height, width, err);
    if (status)
        return status;
    ShoalTransform *transform = shoal_calloc(1, sizeof *transform);
    if (!transform)
        return shoal_error_memory(err, "a transform", sizeof *transform);
    *transform = (ShoalTransform){.train = train,
                                  .mirror = param->mirror,
                                  .seed = seed,
                                  .scale = param->scale,
                                  .crop = (int)param->crop_size,
                                  .channels = channels,
                                  .height = height,
                                  .width = width};
    status = fill(transform, param, mean, err);
    if (status) {
        shoal_transform_destroy(transform);
        return status;
    }
    *out = transform;
    return SHOAL_OK;
}

void shoal_transform_destroy(ShoalTransform *transform) {
    if (!transform)
        return;
    shoal_free(transform->channel_mean);
    shoal_free(transform->mean);
    shoal_free(transform);
}

void shoal_transform_shape(const ShoalTransform *transform, int dims[3]) {
    dims[0] = transform->channels;
    dims[1] = transform->crop ? transform->crop : transform->height;
    dims[2] = transform->crop ? transform->crop : transform->width;
}

static ShoalStatus check_shape(const ShoalTransform *t, const ShoalDatum *d, ShoalError *err) {
    bool same = d->height == t->height && d->width == t->width;
    bool large_enough = t->crop && !t->mean && d->height >= t->crop && d->width >= t->crop;
    if (d->channels == t->channels && (same || large_enough))
        return SHOAL_OK;
    if (t->crop && !t->mean)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "record %" PRIu64 " of %s: %d x %d x %d; expected %d channels and "
                               "at least the crop_size of %d x %d",
                               d->record, d->dataset, d->channels, d->height, d->width, t->channels,
                               t->crop, t->crop);
    return shoal_error_set(err, SHOAL_ERR_DATA,
                           "record %" PRIu64 " of %s: %d x %d x %d, but the first record is %d x "
                           "%d x %d; convert with --resize_height and --resize_width%s",
                           d->record, d->dataset, d->channels, d->height, d->width, t->channels,
                           t->height, t->width, t->mean ? "" : ", or give a crop_size");
}

/* At the first of the sample's numbers: the mirror. */
static void init_rng(ShoalRng *rng, uint64_t seed, uint64_t sample_number) {
    shoal_rng_init(rng, seed, SHOAL_RNG_TRANSFORM, 0);
    shoal_rng_seek(rng, sample_number * DRAWS_PER_SAMPLE);
}

bool shoal_transform_mirrors(uint64_t seed, uint64_t sample_number) {
    ShoalRng rng;
    init_rng(&rng, seed, sample_number);
    return shoal_rng_below(&rng, 2);
}

static Window place_window(const ShoalTransform *t, const ShoalDatum *d, uint64_t sample_number) {
    Window w = {0, 0, d->height, d->width, false};
    if (t->crop) {
        w.height = w.width = t->crop;
        w.top = (d->height - t->crop) / 2;
        w.left = (d->width - t->crop) / 2;
    }
    bool random_crop = t->crop && t->train;
    if (!t->mirror && !random_crop)
        return w;
    ShoalRng rng;
    init_rng(&rng, t->seed, sample_number);
    /* The mirror is drawn even if unused: crops do not change when mirroring is switched on. */
    w.mirror = shoal_rng_below(&rng, 2) && t->mirror;
    if (random_crop) {
        w.top = (int)shoal_rng_below(&rng, (uint32_t)(d->height - t->crop) + 1);
        w.left = (int)shoal_rng_below(&rng, (uint32_t)(d->width - t->crop) + 1);
    }
    return w;
}

/* n values from x, less one mean for all or (means) one each, times scale. These loops vectorise:
 * the bulk of the work of a data layer. */
static void row_bytes(const uint8_t *restrict x, float mean, float scale, size_t n,
                      float *restrict out) {
    for (size_t i = 0; i < n; i++)
        out[i] = ((float)x[i] - mean) * scale;
}

static void row_floats(const float *restrict x, float mean, float scale, size_t n,
                       float *restrict out) {
    for (size_t i = 0; i < n; i++)
        out[i] = (x[i] - mean) * scale;
}

static void row_bytes_means(const uint8_t *restrict x, const float *restrict means, float scale,
                            size_t n, float *restrict out) {
    for (size_t i = 0; i < n; i++)
        out[i] = ((float)x[i] - means[i]) * scale;
}

static void row_floats_means(const float *restrict x, const float *restrict means, float scale,
                             size_t n, float *restrict out) {
    for (size_t i = 0; i < n; i++)
        out[i] = (x[i] - means[i]) * scale;
}

static void reverse(float *row, size_t n) {
    for (size_t i = 0, j = n - 1; i < j; i++, j--) {
        float value = row[i];
        row[i] = row[j];
        row[j] = value;
    }
}

/* n values of the datum from `at`; the mean, if there is one, lies at the same place. */
static void transform_row(const ShoalTransform *t, const ShoalDatum *d, size_t at, int channel,
                          size_t n, float *out) {
    float mean = t->channel_mean[channel];
    if (d->bytes && t->mean)
        row_bytes_means(d->bytes + at, t->mean + at, t->scale, n, out);
    else if (d->bytes)
        row_bytes(d->bytes + at, mean, t->scale, n, out);
    else if (t->mean)
        row_floats_means(d->floats + at, t->mean + at, t->scale, n, out);
    else
        row_floats(d->floats + at, mean, t->scale, n, out);
}

ShoalStatus shoal_transform_apply(const ShoalTransform *transform, const ShoalDatum *datum,
                                  uint64_t sample_number, float *out, ShoalError *err) {
    ShoalStatus status = check_shape(transform, datum, err);
    if (status)
        return status;
    Window window = place_window(transform, datum, sample_number);
    size_t plane = (size_t)datum->height * (size_t)datum->width;
    size_t rows = (size_t)window.height, width = (size_t)window.width;
    /* Rows that follow each other in memory and stay in order are one long row. */
    if (window.width == datum->width && window.height == datum->height && !window.mirror) {
        rows = 1;
        width = plane;
    }
    for (int c = 0; c < transform->channels; c++)
        for (size_t h = 0; h < rows; h++) {
            size_t at = (size_t)c * plane + ((size_t)window.top + h) * (size_t)datum->width +
                        (size_t)window.left;
            transform_row(transform, datum, at, c, width, out);
            if (window.mirror)
                reverse(out, width);
            out += width;
        }
    return SHOAL_OK;
}
