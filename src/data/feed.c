/* SPDX-License-Identifier: Apache-2.0 */
#include "data/feed.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "data/dataset_kinds.h"
#include "data/image_scale.h"
#include "data/transform.h"
#include "data/windows.h"

struct ShoalFeed {
    const Caffe__LayerParameter *layer;
    ShoalRecordShape records;
    ShoalImageMode mode;
    int new_height, new_width; /* of ImageData; 0: as the file is */
    bool scaled, fast;
    ShoalImageScale scale;     /* when scaled */
    ShoalTransform *transform; /* NULL: windows, or numbers as they are (HDF5Data) */
    ShoalWindows *windows;
};

static bool is_plain(const Caffe__LayerParameter *layer) {
    return !strcmp(layer->type, "HDF5Data");
}

static bool is_windows(const Caffe__LayerParameter *layer) {
    return !strcmp(layer->type, "WindowData");
}

/* ---- what a layer wants of its images ---- */

static ShoalImageMode mode_of(const Caffe__LayerParameter *layer) {
    const Caffe__TransformationParameter *transform = layer->transform_param;
    const Caffe__ImageDataParameter *images = layer->image_data_param;
    if (is_windows(layer))
        return SHOAL_IMAGE_COLOR;
    if (!strcmp(layer->type, "ImageData"))
        return images && !images->is_color ? SHOAL_IMAGE_GRAY : SHOAL_IMAGE_COLOR;
    return transform && transform->force_color  ? SHOAL_IMAGE_COLOR
           : transform && transform->force_gray ? SHOAL_IMAGE_GRAY
                                                : SHOAL_IMAGE_AS_IS;
}

static ShoalStatus new_size(const Caffe__LayerParameter *layer, int *height, int *width,
                            ShoalError *err) {
    const Caffe__ImageDataParameter *param = layer->image_data_param;
    *height = *width = 0;
    if (strcmp(layer->type, "ImageData") != 0 || !param)
        return SHOAL_OK;
    const uint32_t most = 1 << 16;
    if (!param->new_height != !param->new_width || param->new_height > most ||
        param->new_width > most)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "image_data_param: new_height %u, new_width %u; give both or none, "
                               "up to %u",
                               (unsigned)param->new_height, (unsigned)param->new_width,
                               (unsigned)most);
    *height = (int)param->new_height;
    *width = (int)param->new_width;
    return SHOAL_OK;
}

/* What steps there are for a JPEG is known before it is decoded: so it can be decoded at the
 * smallest part of its size from which no step has to enlarge. */
static ShoalStatus decode_smaller(const ShoalFeed *feed, ShoalImageDecoder *images,
                                  const ShoalDatum *datum, uint64_t sample, ShoalImage *out,
                                  ShoalError *err) {
    int height = feed->new_height, width = feed->new_width, full_height, full_width;
    ShoalError no_jpeg = {0};
    if (!height && feed->scaled &&
        !shoal_image_size(datum->encoded, datum->encoded_size, feed->mode, &full_height,
                          &full_width, &no_jpeg)) {
        ShoalImageSteps plan;
        shoal_image_scale_plan(&feed->scale, full_height, full_width, sample, &plan);
        const ShoalImagePart *part = &plan.steps[0].part;
        int64_t need_height =
                    ((int64_t)full_height * plan.steps[0].height + part->height - 1) / part->height,
                need_width =
                    ((int64_t)full_width * plan.steps[0].width + part->width - 1) / part->width;
        height = need_height < full_height ? (int)need_height : full_height;
        width = need_width < full_width ? (int)need_width : full_width;
    }
    return shoal_image_decode_smaller(images, datum->encoded, datum->encoded_size, feed->mode,
                                      height, width, out, err);
}

/* A part of an image of another size. */
static ShoalImagePart scale_part(const ShoalImagePart *part, int height, int width,
                                 const ShoalImage *image) {
    double y = (double)image->height / height, x = (double)image->width / width;
    ShoalImagePart out = {(int)(part->top * y), (int)(part->left * x), (int)(part->height * y),
                          (int)(part->width * x)};
    out.height = out.height < 1 ? 1 : out.height;
    out.width = out.width < 1 ? 1 : out.width;
    if (out.top + out.height > image->height)
        out.top = image->height - out.height;
    if (out.left + out.width > image->width)
        out.left = image->width - out.width;
    return out;
}

static ShoalStatus resize_steps(const ShoalFeed *feed, ShoalImageDecoder *images, int height,
                                int width, uint64_t sample, ShoalImage *image, ShoalError *err) {
    ShoalImageSteps plan;
    shoal_image_scale_plan(&feed->scale, height, width, sample, &plan);
    ShoalStatus status = SHOAL_OK;
    for (int i = 0; !status && i < plan.n; i++) {
        ShoalImagePart part = plan.steps[i].part;
        if (i == 0)
            part = scale_part(&part, height, width, image);
        status = shoal_image_resize_part(images, image, &part, plan.steps[i].how,
                                         plan.steps[i].height, plan.steps[i].width, image, err);
    }
    return status;
}

/* The image of a record, decoded and resized; of a raw one, its bytes. */
static ShoalStatus make_image(const ShoalFeed *feed, ShoalImageDecoder *images,
                              const ShoalDatum *datum, uint64_t sample, ShoalImage *out,
                              ShoalError *err) {
    ShoalStatus status;
    int height = datum->height, width = datum->width;
    if (!datum->encoded && !datum->bytes)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "float numbers, which are not resized; expected bytes");
    if (!datum->encoded)
        status =
            shoal_image_from_planes(images, datum->bytes, datum->channels, height, width, out, err);
    else if (feed->fast)
        status = decode_smaller(feed, images, datum, sample, out, err);
    else
        status =
            shoal_image_decode(images, datum->encoded, datum->encoded_size, feed->mode, out, err);
    if (!status && feed->new_height)
        status = shoal_image_resize(images, out, feed->new_height, feed->new_width, out, err);
    if (status || !feed->scaled)
        return status;
    /* The plan is that of the full size, whatever it was decoded at. */
    ShoalError no_jpeg = {0};
    if (!datum->encoded || feed->new_height || !feed->fast ||
        shoal_image_size(datum->encoded, datum->encoded_size, feed->mode, &height, &width,
                         &no_jpeg)) {
        height = out->height;
        width = out->width;
    }
    return resize_steps(feed, images, height, width, sample, out, err);
}

/* ---- shapes ---- */

static ShoalStatus describe_image(const Caffe__LayerParameter *layer, ShoalDataset *dataset,
                                  ShoalDatumDecoder *decoder, ShoalRecordShape *out,
                                  ShoalError *err) {
    ShoalRecord record;
    ShoalDatum datum;
    ShoalFeed feed = {.mode = mode_of(layer)};
    ShoalStatus status = new_size(layer, &feed.new_height, &feed.new_width, err);
    if (!status)
        status = shoal_dataset_record(dataset, 0, &record, err);
    if (!status)
        status = shoal_datum_unpack(decoder, record.bytes, record.size, shoal_dataset_name(dataset),
                                    0, &datum, err);
    if (!status && datum.encoded) {
        ShoalImage image;
        status = make_image(&feed, shoal_datum_images(decoder), &datum, 0, &image, err);
        if (status) {
            shoal_error_prefix(err, "record 0 of %s", shoal_dataset_name(dataset));
            return status;
        }
        datum.channels = image.channels;
        datum.height = image.height;
        datum.width = image.width;
    }
    if (!status)
        *out = (ShoalRecordShape){1, {{3, {datum.channels, datum.height, datum.width}}}};
    return status;
}

ShoalStatus shoal_feed_describe(const Caffe__LayerParameter *layer, ShoalDataset *dataset,
                                ShoalRecordShape *out, ShoalError *err) {
    if (is_plain(layer))
        return shoal_dataset_hdf5_shape(dataset, out, err);
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    ShoalStatus status = decoder ? describe_image(layer, dataset, decoder, out, err)
                                 : shoal_error_memory(err, "a record", 0);
    shoal_datum_decoder_destroy(decoder);
    return status;
}

void shoal_feed_shape(const ShoalFeed *feed, int top, int *axes, int *dims) {
    if (feed->transform || feed->windows) {
        *axes = top == 0 ? 3 : 0; /* the rest are labels */
        if (top == 0 && feed->windows)
            shoal_windows_shape(feed->windows, dims);
        else if (top == 0)
            shoal_transform_shape(feed->transform, dims);
        return;
    }
    bool known = top >= 0 && top < feed->records.n;
    *axes = known ? feed->records.tops[top].axes : 0;
    for (int i = 0; i < *axes; i++)
        dims[i] = feed->records.tops[top].dims[i];
}

/* ---- life ---- */

/* The size of records on which the crop works: that of the first one, resized. */
static ShoalStatus init_transform(ShoalFeed *feed, const ShoalFeedOptions *options,
                                  ShoalError *err) {
    const Caffe__TransformationParameter *param = feed->layer->transform_param;
    const int *dims = feed->records.tops[0].dims;
    int height = dims[1], width = dims[2];
    ShoalStatus status = new_size(feed->layer, &feed->new_height, &feed->new_width, err);
    feed->scaled = shoal_image_scale_wanted(param);
    if (!status && feed->scaled)
        status = shoal_image_scale_init(&feed->scale, param, options->seed, err);
    if (status)
        return status;
    if (feed->scaled && (param->random_resize_param || param->random_aspect_ratio_param)) {
        height = width = (int)param->crop_size;
    } else if (feed->scaled) {
        ShoalImageSteps plan;
        shoal_image_scale_plan(&feed->scale, height, width, 0, &plan);
        height = plan.steps[0].height;
        width = plan.steps[0].width;
    }
    return shoal_transform_create(param, options->train, options->seed, options->mean, dims[0],
                                  height, width, &feed->transform, err);
}

ShoalStatus shoal_feed_create(const Caffe__LayerParameter *layer, const ShoalRecordShape *records,
                              const ShoalFeedOptions *options, ShoalFeed **out, ShoalError *err) {
    bool plain = is_plain(layer);
    if (plain ? (size_t)records->n != layer->n_top : records->n != 1 || records->tops[0].axes != 3)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "the dataset's records have %d parts, which the layer cannot use",
                               records->n);
    ShoalFeed *feed = shoal_calloc(1, sizeof *feed);
    if (!feed)
        return shoal_error_memory(err, "a data layer", sizeof *feed);
    feed->layer = layer;
    feed->records = *records;
    feed->mode = mode_of(layer);
    feed->fast = options->fast_decode;
    ShoalStatus status = SHOAL_OK;
    if (is_windows(layer))
        status = shoal_windows_create(layer, options->seed, options->mean, &feed->windows, err);
    else if (!plain)
        status = init_transform(feed, options, err);
    if (status)
        shoal_feed_destroy(feed);
    else
        *out = feed;
    return status;
}

void shoal_feed_destroy(ShoalFeed *feed) {
    if (!feed)
        return;
    shoal_transform_destroy(feed->transform);
    shoal_windows_destroy(feed->windows);
    shoal_free(feed);
}

/* ---- samples ---- */

static size_t top_count(const ShoalFeed *feed, int top) {
    size_t count = 1;
    for (int i = 0; i < feed->records.tops[top].axes; i++)
        count *= (size_t)feed->records.tops[top].dims[i];
    return count;
}

static ShoalStatus stage_plain(const ShoalFeed *feed, const char *dataset,
                               const ShoalRecord *record, uint64_t number, float *const *tops,
                               int n_tops, ShoalError *err) {
    size_t expected = 0;
    for (int t = 0; t < feed->records.n; t++)
        expected += top_count(feed, t) * sizeof(float);
    if (record->size != expected || n_tops > feed->records.n)
        return shoal_error_set(err, SHOAL_ERR_DATA, "record %llu of %s: %zu bytes, expected %zu",
                               (unsigned long long)number, dataset, record->size, expected);
    const unsigned char *at = record->bytes;
    for (int t = 0; t < n_tops; t++) {
        size_t size = top_count(feed, t) * sizeof(float);
        memcpy(tops[t], at, size);
        at += size;
    }
    return SHOAL_OK;
}

static ShoalStatus stage_window(const ShoalFeed *feed, ShoalDatumDecoder *decoder,
                                const ShoalDatum *datum, uint64_t sample, float *out,
                                ShoalError *err) {
    ShoalImage image;
    ShoalImageDecoder *images = shoal_datum_images(decoder);
    if (!datum->encoded || datum->n_floats != SHOAL_WINDOW_NUMBERS)
        return shoal_error_set(err, SHOAL_ERR_DATA, "it is no window of an image");
    ShoalStatus status =
        shoal_image_decode(images, datum->encoded, datum->encoded_size, feed->mode, &image, err);
    return status ? status
                  : shoal_windows_apply(feed->windows, images, &image, datum->floats, sample, out,
                                        err);
}

/* What becomes of the datum before the crop. */
static ShoalStatus prepare(const ShoalFeed *feed, ShoalDatumDecoder *decoder, ShoalDatum *datum,
                           uint64_t sample, ShoalError *err) {
    ShoalImage image;
    ShoalStatus status = make_image(feed, shoal_datum_images(decoder), datum, sample, &image, err);
    return status ? status : shoal_datum_set_image(decoder, &image, datum, err);
}

ShoalStatus shoal_feed_stage(const ShoalFeed *feed, ShoalDatumDecoder *decoder, const char *dataset,
                             const ShoalRecord *record, uint64_t number, uint64_t sample,
                             float *const *tops, int n_tops, ShoalError *err) {
    if (!feed->transform && !feed->windows)
        return stage_plain(feed, dataset, record, number, tops, n_tops, err);
    ShoalDatum datum;
    ShoalStatus status =
        shoal_datum_unpack(decoder, record->bytes, record->size, dataset, number, &datum, err);
    if (status)
        return status;
    if (feed->windows)
        status = stage_window(feed, decoder, &datum, sample, tops[0], err);
    else if (datum.encoded || feed->scaled)
        status = prepare(feed, decoder, &datum, sample, err);
    if (status) {
        shoal_error_prefix(err, "record %llu of %s", (unsigned long long)number, dataset);
        return status;
    }
    if (feed->transform)
        status = shoal_transform_apply(feed->transform, &datum, sample, tops[0], err);
    if (!status && n_tops > 1)
        tops[1][0] = (float)datum.label;
    return status;
}
