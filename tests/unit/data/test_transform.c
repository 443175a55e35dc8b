/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include <math.h>

#include "base/rng.h"
#include "data/dataset.h"
#include "data/transform.h"

typedef Caffe__TransformationParameter Param;

static Param param_of(float scale, uint32_t crop, bool mirror) {
    Param param;
    caffe__transformation_parameter__init(&param);
    param.scale = scale;
    param.crop_size = crop;
    param.mirror = mirror;
    return param;
}

static ShoalTransform *create_ok(const Param *param, bool train, uint64_t seed,
                                 const Caffe__BlobProto *mean, int channels, int height,
                                 int width) {
    ShoalError err = {0};
    ShoalTransform *transform = NULL;
    expect_ok(
        shoal_transform_create(param, train, seed, mean, channels, height, width, &transform, &err),
        &err);
    return transform;
}

static void expect_refused(const Param *param, const Caffe__BlobProto *mean, ShoalStatus expected,
                           const char *part) {
    ShoalError err = {0};
    ShoalTransform *transform = NULL;
    ShoalStatus status = shoal_transform_create(param, true, 1, mean, 3, 4, 5, &transform, &err);
    expect_error(status, &err, expected, part);
    assert_null(transform);
}

/* A 3 x 4 x 5 picture whose pixels tell where they are. */
#define C 3
#define H 4
#define W 5
static uint8_t picture[C * H * W];
static float picture_floats[C * H * W];

static ShoalDatum picture_datum(bool floats) {
    for (int i = 0; i < C * H * W; i++) {
        picture[i] = (uint8_t)(i * 4 + 1);
        picture_floats[i] = (float)picture[i];
    }
    return (ShoalDatum){.channels = C,
                        .height = H,
                        .width = W,
                        .count = C * H * W,
                        .bytes = floats ? NULL : picture,
                        .floats = floats ? picture_floats : NULL,
                        .dataset = "pictures",
                        .record = 9};
}

/* What Caffe's loop gives for one window. */
static void reference(const Param *param, const float *mean, int top, int left, bool mirror,
                      float *out) {
    int h_out = param->crop_size ? (int)param->crop_size : H;
    int w_out = param->crop_size ? (int)param->crop_size : W;
    for (int c = 0; c < C; c++)
        for (int h = 0; h < h_out; h++)
            for (int w = 0; w < w_out; w++) {
                int from = (c * H + top + h) * W + left + w;
                float m = mean                      ? mean[from]
                          : !param->n_mean_value    ? 0
                          : param->n_mean_value > 1 ? param->mean_value[c]
                                                    : param->mean_value[0];
                int to = mirror ? w_out - 1 - w : w;
                out[(c * h_out + h) * w_out + to] = ((float)picture[from] - m) * param->scale;
            }
}

/* Applies to sample 0 (testing, no randomness) as bytes and as floats; both must be the centre
 * window of the reference, to the bit. */
static void check_centre(Param *param, const Caffe__BlobProto *mean) {
    float want[C * H * W], got[C * H * W + 1];
    int crop = (int)param->crop_size, dims[3];
    int top = crop ? (H - crop) / 2 : 0, left = crop ? (W - crop) / 2 : 0;
    reference(param, mean ? mean->data : NULL, top, left, false, want);
    ShoalTransform *transform = create_ok(param, false, 1, mean, C, H, W);
    shoal_transform_shape(transform, dims);
    assert_int_equal(dims[0], C);
    assert_int_equal(dims[1], crop ? crop : H);
    assert_int_equal(dims[2], crop ? crop : W);
    int count = dims[0] * dims[1] * dims[2];
    for (int floats = 0; floats < 2; floats++) {
        ShoalError err = {0};
        ShoalDatum datum = picture_datum(floats);
        got[count] = 77;
        expect_ok(shoal_transform_apply(transform, &datum, 0, got, &err), &err);
        assert_memory_equal(got, want, (size_t)count * sizeof *got);
        assert_true(got[count] == 77);
    }
    shoal_transform_destroy(transform);
}

static void mean_of(Caffe__BlobProto *mean, float *values) {
    caffe__blob_proto__init(mean);
    mean->has_num = mean->has_channels = mean->has_height = mean->has_width = 1;
    mean->num = 1;
    mean->channels = C;
    mean->height = H;
    mean->width = W;
    mean->n_data = C * H * W;
    mean->data = values;
    for (int i = 0; i < C * H * W; i++)
        values[i] = 100.0f + 0.37f * (float)i;
}

static void scale_mean_and_centre_crop(void **state) {
    (void)state;
    (void)picture_datum(false);
    float means[3] = {104.5f, 117, 123.25f}, values[C * H * W];
    Caffe__BlobProto mean;
    mean_of(&mean, values);
    for (uint32_t crop = 0; crop <= 4; crop++) {
        Param param = param_of(0.00390625f, crop, false);
        check_centre(&param, NULL);
        param.mean_value = means;
        param.n_mean_value = 1;
        check_centre(&param, NULL);
        param.n_mean_value = 3;
        check_centre(&param, NULL);
        param.n_mean_value = 0;
        param.mean_file = (char *)"mean.binaryproto";
        check_centre(&param, &mean);
    }
}

static void no_param_is_plain_floats(void **state) {
    (void)state;
    ShoalError err = {0};
    ShoalDatum datum = picture_datum(false);
    float out[C * H * W];
    ShoalTransform *transform = create_ok(NULL, true, 1, NULL, C, H, W);
    expect_ok(shoal_transform_apply(transform, &datum, 5, out, &err), &err);
    assert_memory_equal(out, picture_floats, sizeof out);
    shoal_transform_destroy(transform);
    shoal_transform_destroy(NULL);
}

/* Finds the window and mirror that out shows; -1 when it shows none. */
static int find_window(const Param *param, const float *mean, const float *out) {
    float want[C * H * W];
    int crop = (int)param->crop_size;
    size_t bytes = (size_t)(C * crop * crop) * sizeof *want;
    for (int top = 0; top <= H - crop; top++)
        for (int left = 0; left <= W - crop; left++)
            for (int mirror = 0; mirror < 2; mirror++) {
                reference(param, mean, top, left, mirror, want);
                if (!memcmp(want, out, bytes))
                    return (top * W + left) * 2 + mirror;
            }
    return -1;
}

static void training_draws_every_window_alike(void **state) {
    (void)state;
    ShoalDatum datum = picture_datum(false);
    float values[C * H * W], out[C * H * W];
    Caffe__BlobProto mean;
    mean_of(&mean, values);
    Param param = param_of(0.5f, 3, true);
    param.mean_file = (char *)"mean.binaryproto";
    ShoalTransform *transform = create_ok(&param, true, 1, &mean, C, H, W);
    enum { SAMPLES = 12000, WINDOWS = 2 * 3 * 2 };
    int seen[H * W * 2] = {0};
    ShoalError err = {0};
    for (uint64_t n = 0; n < SAMPLES; n++) {
        expect_ok(shoal_transform_apply(transform, &datum, n, out, &err), &err);
        int window = find_window(&param, values, out);
        assert_true(window >= 0);
        seen[window]++;
    }
    /* 1000 each; five standard deviations of a binomial count are 151. */
    int windows = 0;
    for (size_t i = 0; i < sizeof seen / sizeof seen[0]; i++) {
        if (!seen[i])
            continue;
        windows++;
        assert_true(abs(seen[i] - SAMPLES / WINDOWS) < 151);
    }
    assert_int_equal(windows, WINDOWS);
    shoal_transform_destroy(transform);
}

static void draws_depend_on_seed_and_sample_alone(void **state) {
    (void)state;
    ShoalDatum datum = picture_datum(false);
    Param param = param_of(1, 2, true), still = param_of(1, 2, false);
    ShoalTransform *a = create_ok(&param, true, 7, NULL, C, H, W);
    ShoalTransform *b = create_ok(&param, true, 7, NULL, C, H, W);
    ShoalTransform *other = create_ok(&param, true, 8, NULL, C, H, W);
    ShoalTransform *unmirrored = create_ok(&still, true, 7, NULL, C, H, W);
    float x[C * 4], y[C * 4];
    ShoalError err = {0};
    int same_crop = 0, differing = 0;
    for (uint64_t n = 0; n < 200; n++) {
        /* b sees the samples backwards. */
        expect_ok(shoal_transform_apply(b, &datum, 199 - n, y, &err), &err);
        expect_ok(shoal_transform_apply(a, &datum, 199 - n, x, &err), &err);
        assert_memory_equal(x, y, sizeof x);
        expect_ok(shoal_transform_apply(unmirrored, &datum, 199 - n, y, &err), &err);
        same_crop += find_window(&param, NULL, x) / 2 == find_window(&param, NULL, y) / 2;
        expect_ok(shoal_transform_apply(other, &datum, 199 - n, y, &err), &err);
        differing += memcmp(x, y, sizeof x) != 0;
    }
    assert_int_equal(same_crop, 200);
    assert_true(differing > 150);
    shoal_transform_destroy(a);
    shoal_transform_destroy(b);
    shoal_transform_destroy(other);
    shoal_transform_destroy(unmirrored);
}

/* As Caffe: `mirror` acts in testing too, while the crop is the centre. */
static void testing_mirrors_but_does_not_move_the_crop(void **state) {
    (void)state;
    ShoalDatum datum = picture_datum(false);
    Param param = param_of(1, 2, true);
    ShoalTransform *transform = create_ok(&param, false, 1, NULL, C, H, W);
    float out[C * 4];
    ShoalError err = {0};
    int mirrored = 0;
    for (uint64_t n = 0; n < 400; n++) {
        expect_ok(shoal_transform_apply(transform, &datum, n, out, &err), &err);
        int window = find_window(&param, NULL, out);
        assert_int_equal(window / 2, 1 * W + 1);
        mirrored += window % 2;
    }
    assert_true(abs(mirrored - 200) < 50);
    shoal_transform_destroy(transform);
}

static void records_of_other_shapes(void **state) {
    (void)state;
    static uint8_t pixels[C * 9 * 8];
    ShoalDatum datum = {.channels = C,
                        .height = 9,
                        .width = 8,
                        .count = sizeof pixels,
                        .bytes = pixels,
                        .dataset = "pictures",
                        .record = 9};
    float out[C * H * W], values[C * H * W];
    ShoalError err = {0};
    /* With a crop, larger ones are fine; the window is drawn for their own size. */
    pixels[3 * 8 + 3] = 200; /* the centre window of 2 x 2 starts at row 3, column 3 */
    Param param = param_of(1, 2, false);
    ShoalTransform *transform = create_ok(&param, false, 1, NULL, C, H, W);
    expect_ok(shoal_transform_apply(transform, &datum, 0, out, &err), &err);
    assert_true(out[0] == 200);
    datum.height = 1;
    expect_error(shoal_transform_apply(transform, &datum, 0, out, &err), &err, SHOAL_ERR_DATA,
                 "record 9 of pictures: 3 x 1 x 8; expected 3 channels and at least");
    shoal_error_clear(&err);
    datum.height = 9;
    datum.channels = 1;
    expect_error(shoal_transform_apply(transform, &datum, 0, out, &err), &err, SHOAL_ERR_DATA,
                 "record 9 of pictures: 1 x 9 x 8");
    shoal_transform_destroy(transform);
    datum.channels = C;
    shoal_error_clear(&err);
    transform = create_ok(NULL, false, 1, NULL, C, H, W);
    expect_error(shoal_transform_apply(transform, &datum, 0, out, &err), &err, SHOAL_ERR_DATA,
                 "record 9 of pictures: 3 x 9 x 8, but the first record is 3 x 4 x 5");
    shoal_transform_destroy(transform);
    /* A mean belongs to one shape. */
    Caffe__BlobProto mean;
    mean_of(&mean, values);
    shoal_error_clear(&err);
    param.mean_file = (char *)"mean.binaryproto";
    transform = create_ok(&param, false, 1, &mean, C, H, W);
    expect_error(shoal_transform_apply(transform, &datum, 0, out, &err), &err, SHOAL_ERR_DATA,
                 "but the first record is");
    shoal_transform_destroy(transform);
}

static void params_that_make_no_sense_are_refused(void **state) {
    (void)state;
    float means[3] = {1, 2, 3}, values[C * H * W];
    Caffe__BlobProto mean;
    mean_of(&mean, values);
    Param param = param_of(1, 0, false);
    param.mean_value = means;
    param.n_mean_value = 1;
    param.mean_file = (char *)"m";
    expect_refused(&param, &mean, SHOAL_ERR_MODEL, "mean_file and mean_value both");
    expect_refused(&param, NULL, SHOAL_ERR_MODEL, "mean_file and mean_value both");
    param.n_mean_value = 0;
    expect_refused(&param, NULL, SHOAL_ERR_ARGUMENT, "mean_file m is not read");
    param.mean_file = NULL;
    param.n_mean_value = 2;
    expect_refused(&param, NULL, SHOAL_ERR_MODEL, "2 mean_value for records of 3 channels");
    means[1] = NAN;
    param.n_mean_value = 3;
    expect_refused(&param, NULL, SHOAL_ERR_MODEL, "finite");
    param = param_of(INFINITY, 0, false);
    expect_refused(&param, NULL, SHOAL_ERR_MODEL, "finite");
    param = param_of(1, 5, false);
    expect_refused(&param, NULL, SHOAL_ERR_MODEL, "crop_size 5 is larger than the records (4 x 5)");
    param = param_of(1, UINT32_MAX, false);
    expect_refused(&param, NULL, SHOAL_ERR_MODEL, "crop_size 4294967295");
    param = param_of(1, 0, false);
    param.force_color = param.force_gray = 1;
    expect_refused(&param, NULL, SHOAL_ERR_MODEL, "force_color and force_gray");
    ShoalError err = {0};
    ShoalTransform *transform = NULL;
    expect_error(shoal_transform_create(NULL, true, 1, NULL, 3, 0, 5, &transform, &err), &err,
                 SHOAL_ERR_ARGUMENT, "3 x 0 x 5");
    shoal_error_clear(&err);
    expect_error(shoal_transform_create(NULL, true, 1, NULL, 1 << 20, 1 << 20, 1, &transform, &err),
                 &err, SHOAL_ERR_ARGUMENT, "below 2^31");
}

static void means_of_other_shapes_are_refused(void **state) {
    (void)state;
    float values[C * H * W];
    Caffe__BlobProto mean;
    Param param = param_of(1, 2, false);
    param.mean_file = (char *)"m";
    mean_of(&mean, values);
    mean.height = W;
    mean.width = H;
    expect_refused(&param, &mean, SHOAL_ERR_DATA, "mean file m: shape 1 x 3 x 5 x 4");
    mean_of(&mean, values);
    values[7] = INFINITY;
    expect_refused(&param, &mean, SHOAL_ERR_DATA, "value 7 is not finite");
    mean_of(&mean, values);
    mean.n_data = 0;
    expect_refused(&param, &mean, SHOAL_ERR_DATA, "mean file m: ");
}

/* `shape` instead of the four old fields, three axes, doubles: the same mean. */
static void a_mean_may_have_a_shape_and_doubles(void **state) {
    (void)state;
    float values[C * H * W], want[C * H * W], got[C * H * W];
    double doubles[C * H * W];
    int64_t dims[3] = {C, H, W};
    Caffe__BlobProto old, new;
    Caffe__BlobShape shape;
    mean_of(&old, values);
    caffe__blob_proto__init(&new);
    caffe__blob_shape__init(&shape);
    shape.n_dim = 3;
    shape.dim = dims;
    new.shape = &shape;
    new.n_double_data = C *H *W;
    new.double_data = doubles;
    for (int i = 0; i < C * H * W; i++)
        doubles[i] = values[i];
    Param param = param_of(1, 0, false);
    param.mean_file = (char *)"m";
    ShoalDatum datum = picture_datum(false);
    ShoalError err = {0};
    ShoalTransform *a = create_ok(&param, false, 1, &old, C, H, W);
    ShoalTransform *b = create_ok(&param, false, 1, &new, C, H, W);
    expect_ok(shoal_transform_apply(a, &datum, 0, want, &err), &err);
    expect_ok(shoal_transform_apply(b, &datum, 0, got, &err), &err);
    assert_memory_equal(got, want, sizeof want);
    shoal_transform_destroy(a);
    shoal_transform_destroy(b);
}

/* One batch of 16 records against the values that Caffe's Data layer gave, to the bit. */
static void compare_batch(const Param *param, const Caffe__BlobProto *mean, const char *db,
                          const char *name, int batch) {
    char path[128];
    snprintf(path, sizeof path, "08-transforms/raw/%s_data_b%d.f32", name, batch);
    size_t size;
    unsigned char *want = read_file(golden(path), &size);
    ShoalError err = {0};
    ShoalDataset *dataset;
    expect_ok(shoal_dataset_open(golden(db), &dataset, &err), &err);
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    ShoalTransform *transform = NULL;
    float *out = shoal_calloc(size, 1);
    for (uint64_t i = 0; i < 16; i++) {
        uint64_t index = (uint64_t)batch * 16 + i;
        ShoalRecord record;
        ShoalDatum datum;
        expect_ok(shoal_dataset_record(dataset, index, &record, &err), &err);
        expect_ok(shoal_datum_parse(decoder, record.bytes, record.size, db, index, &datum, &err),
                  &err);
        if (!transform)
            transform = create_ok(param, false, 1, mean, datum.channels, datum.height, datum.width);
        int dims[3];
        shoal_transform_shape(transform, dims);
        size_t count = (size_t)(dims[0] * dims[1] * dims[2]);
        assert_int_equal(count * 16 * sizeof *out, size);
        expect_ok(shoal_transform_apply(transform, &datum, index, out + i * count, &err), &err);
    }
    assert_memory_equal(out, want, size);
    shoal_free(out);
    shoal_free(want);
    shoal_transform_destroy(transform);
    shoal_datum_decoder_destroy(decoder);
    shoal_dataset_close(dataset);
}

static void caffes_values_for_raw_records(void **state) {
    (void)state;
    NEEDS_GOLDENS();
    Param param = param_of(0.00390625f, 0, false);
    compare_batch(&param, NULL, "data/mnist256_lmdb", "mnist", 0);
    /* The same pictures, decoded by Caffe from PNG. */
    compare_batch(&param, NULL, "data/color256_lmdb", "png_encoded", 0);
    compare_batch(&param, NULL, "data/color256_lmdb", "png_encoded", 1);
    param = param_of(1, 0, false);
    compare_batch(&param, NULL, "data/jpegmix64_decoded_lmdb", "decoded_lmdb", 0);
    compare_batch(&param, NULL, "data/jpegmix64_resized_lmdb", "resized_lmdb", 0);
}

/* These Caffe decoded from JPEG; the other LMDB has them decoded before. */
static void caffes_values_with_mean_value_and_crop(void **state) {
    (void)state;
    NEEDS_GOLDENS();
    const char *db = "data/jpegmix64_decoded_lmdb";
    float even[] = {104, 117, 123}, odd[] = {103.94f, 116.78f, 123.68f}, one[] = {110.5f};
    Param param = param_of(0.0078125f, 32, false);
    param.mean_value = even;
    param.n_mean_value = 3;
    for (int batch = 0; batch < 4; batch++)
        compare_batch(&param, NULL, db, "jpegmix_crop32", batch);
    param = param_of(0.017f, 33, false);
    param.mean_value = odd;
    param.n_mean_value = 3;
    for (int batch = 0; batch < 2; batch++)
        compare_batch(&param, NULL, db, "jpegmix_crop33", batch);
    param = param_of(1, 0, false);
    param.mean_value = one;
    param.n_mean_value = 1;
    compare_batch(&param, NULL, db, "jpegmix_mean1", 0);
}

static void caffes_values_with_mean_file(void **state) {
    (void)state;
    NEEDS_GOLDENS();
    size_t size;
    unsigned char *bytes = read_file(golden("data/color256_mean.binaryproto"), &size);
    Caffe__BlobProto *mean = caffe__blob_proto__unpack(NULL, size, bytes);
    assert_non_null(mean);
    Param param = param_of(0.02f, 27, false);
    param.mean_file = (char *)"color256_mean.binaryproto";
    compare_batch(&param, mean, "data/color256_lmdb", "raw_meanfile_crop27", 0);
    compare_batch(&param, mean, "data/color256_lmdb", "raw_meanfile_crop27", 1);
    caffe__blob_proto__free_unpacked(mean, NULL);
    shoal_free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scale_mean_and_centre_crop),
        cmocka_unit_test(no_param_is_plain_floats),
        cmocka_unit_test(training_draws_every_window_alike),
        cmocka_unit_test(draws_depend_on_seed_and_sample_alone),
        cmocka_unit_test(testing_mirrors_but_does_not_move_the_crop),
        cmocka_unit_test(records_of_other_shapes),
        cmocka_unit_test(params_that_make_no_sense_are_refused),
        cmocka_unit_test(means_of_other_shapes_are_refused),
        cmocka_unit_test(a_mean_may_have_a_shape_and_doubles),
        cmocka_unit_test(caffes_values_for_raw_records),
        cmocka_unit_test(caffes_values_with_mean_value_and_crop),
        cmocka_unit_test(caffes_values_with_mean_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
