/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include "base/rng.h"
#include "caffe/caffe.pb-c.h"
#include "data/dataset.h"
#include "data/datum.h"

/* Wire format by hand, so that protobuf-c is not checked against itself. */
typedef struct Wire {
    unsigned char bytes[4096];
    size_t size;
} Wire;

static void add_varint(Wire *wire, uint64_t value) {
    for (; value >= 0x80; value >>= 7)
        wire->bytes[wire->size++] = (unsigned char)(value | 0x80);
    wire->bytes[wire->size++] = (unsigned char)value;
}

static void add_int(Wire *wire, unsigned field, int64_t value) {
    add_varint(wire, field << 3);
    add_varint(wire, (uint64_t)value);
}

static void add_bytes(Wire *wire, unsigned field, const void *bytes, size_t size) {
    add_varint(wire, field << 3 | 2);
    add_varint(wire, size);
    memcpy(wire->bytes + wire->size, bytes, size);
    wire->size += size;
}

static void add_float(Wire *wire, unsigned field, float value) {
    add_varint(wire, field << 3 | 5);
    memcpy(wire->bytes + wire->size, &value, 4);
    wire->size += 4;
}

enum { CHANNELS = 1, HEIGHT, WIDTH, DATA, LABEL, FLOAT_DATA, ENCODED };

static const unsigned char PIXELS[] = {0, 1, 2, 127, 128, 255};

static Wire sized(int64_t channels, int64_t height, int64_t width) {
    Wire wire = {.size = 0};
    add_int(&wire, CHANNELS, channels);
    add_int(&wire, HEIGHT, height);
    add_int(&wire, WIDTH, width);
    return wire;
}

static ShoalStatus parse(ShoalDatumDecoder *decoder, const Wire *wire, ShoalDatum *datum,
                         ShoalError *err) {
    /* A heap copy of just this size: the sanitizer sees a read beyond it. */
    unsigned char *copy = malloc(wire->size ? wire->size : 1);
    memcpy(copy, wire->bytes, wire->size);
    ShoalStatus status = shoal_datum_parse(decoder, copy, wire->size, "mnist_lmdb", 12, datum, err);
    free(copy);
    return status;
}

static void expect_refused(const Wire *wire, ShoalStatus expected, const char *part) {
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    ShoalError err = {0};
    ShoalDatum datum = {.label = 99};
    ShoalStatus status = parse(decoder, wire, &datum, &err);
    expect_error(status, &err, expected, part);
    expect_error(status, &err, expected, "record 12 of mnist_lmdb: ");
    assert_int_equal(datum.label, 99);
    shoal_datum_decoder_destroy(decoder);
}

static void bytes_come_out(void **state) {
    (void)state;
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    ShoalError err = {0};
    ShoalDatum datum;
    Wire wire = sized(3, 1, 2);
    add_bytes(&wire, DATA, PIXELS, 6);
    add_int(&wire, LABEL, 7);
    add_bytes(&wire, 200, "from another version", 20);
    expect_ok(parse(decoder, &wire, &datum, &err), &err);
    assert_int_equal(datum.channels, 3);
    assert_int_equal(datum.height, 1);
    assert_int_equal(datum.width, 2);
    assert_int_equal(datum.label, 7);
    assert_int_equal(datum.count, 6);
    assert_int_equal(datum.record, 12);
    assert_string_equal(datum.dataset, "mnist_lmdb");
    assert_null(datum.floats);
    assert_memory_equal(datum.bytes, PIXELS, 6);
    shoal_datum_decoder_destroy(decoder);
    shoal_datum_decoder_destroy(NULL);
}

static void floats_come_out_packed_or_not(void **state) {
    (void)state;
    static const float VALUES[] = {-1.5f, 0.25f, 1e30f, 3};
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    for (int packed = 0; packed < 2; packed++) {
        ShoalError err = {0};
        ShoalDatum datum;
        Wire wire = sized(1, 2, 2);
        for (int i = 0; i < 4 && !packed; i++)
            add_float(&wire, FLOAT_DATA, VALUES[i]);
        if (packed)
            add_bytes(&wire, FLOAT_DATA, VALUES, sizeof VALUES);
        expect_ok(parse(decoder, &wire, &datum, &err), &err);
        assert_null(datum.bytes);
        assert_int_equal(datum.label, 0);
        assert_memory_equal(datum.floats, VALUES, sizeof VALUES);
    }
    shoal_datum_decoder_destroy(decoder);
}

static void labels_may_be_negative(void **state) {
    (void)state;
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    ShoalError err = {0};
    ShoalDatum datum;
    Wire wire = sized(1, 1, 6);
    add_bytes(&wire, DATA, PIXELS, 6);
    add_int(&wire, LABEL, -1);
    expect_ok(parse(decoder, &wire, &datum, &err), &err);
    assert_int_equal(datum.label, -1);
    shoal_datum_decoder_destroy(decoder);
}

static void wrong_sizes_are_refused(void **state) {
    (void)state;
    static const int64_t SIZES[][3] = {
        {0, 2, 3},
        {1, 0, 6},
        {6, 1, 0},
        {-1, -6, 1},
        {1, -2, -3},
        {65536, 65536, 1},
        {1, 1 << 16, 1 << 15},
        {INT32_MAX, INT32_MAX, INT32_MAX},
        {1 << 22, 1 << 22, 1 << 22},
    };
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        Wire wire = sized(SIZES[i][0], SIZES[i][1], SIZES[i][2]);
        add_bytes(&wire, DATA, PIXELS, 6);
        expect_refused(&wire, SHOAL_ERR_DATA, "expected positive numbers");
    }
    Wire wire = {.size = 0};
    add_bytes(&wire, DATA, PIXELS, 6);
    expect_refused(&wire, SHOAL_ERR_DATA, "size 0 x 0 x 0");
    expect_refused(&(Wire){.size = 0}, SHOAL_ERR_DATA, "size 0 x 0 x 0");
}

static void wrong_counts_are_refused(void **state) {
    (void)state;
    Wire wire = sized(1, 2, 3);
    add_bytes(&wire, DATA, PIXELS, 5);
    expect_refused(&wire, SHOAL_ERR_DATA, "5 values in data, expected 1 x 2 x 3 = 6");
    wire = sized(1, 2, 2);
    add_bytes(&wire, DATA, PIXELS, 5);
    expect_refused(&wire, SHOAL_ERR_DATA, "5 values in data");
    wire = sized(1, 2, 3);
    expect_refused(&wire, SHOAL_ERR_DATA, "0 values in float_data");
    add_float(&wire, FLOAT_DATA, 1);
    expect_refused(&wire, SHOAL_ERR_DATA, "1 values in float_data");
}

/* A JPEG that has lost all but its begin, and what is no JPEG. */
static void damaged_images_are_refused(void **state) {
    (void)state;
    Wire wire = sized(3, 32, 32);
    add_bytes(&wire, DATA, "\xff\xd8\xff\xe0", 4);
    add_int(&wire, ENCODED, 1);
    expect_refused(&wire, SHOAL_ERR_DATA, "a JPEG without a frame header");
    wire = sized(3, 32, 32);
    add_bytes(&wire, DATA, "GIF89a", 6);
    add_int(&wire, ENCODED, 1);
    expect_refused(&wire, SHOAL_ERR_UNSUPPORTED, "a GIF image");
    wire = sized(3, 32, 32);
    add_int(&wire, ENCODED, 1);
    expect_refused(&wire, SHOAL_ERR_DATA, "an empty file");
}

static void an_image_may_stay_encoded(void **state) {
    (void)state;
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    ShoalError err = {0};
    ShoalDatum datum;
    Wire wire = {.size = 0};
    add_bytes(&wire, DATA, PIXELS, 6);
    add_int(&wire, ENCODED, 1);
    add_int(&wire, LABEL, 3);
    add_float(&wire, FLOAT_DATA, 2.5f);
    expect_ok(shoal_datum_unpack(decoder, wire.bytes, wire.size, "d", 4, &datum, &err), &err);
    assert_int_equal(datum.encoded_size, 6);
    assert_memory_equal(datum.encoded, PIXELS, 6);
    assert_int_equal(datum.n_floats, 1);
    assert_true(datum.floats[0] == 2.5f);
    assert_int_equal(datum.label, 3);
    assert_null(datum.bytes);
    wire.size = 0;
    add_int(&wire, ENCODED, 1);
    expect_ok(shoal_datum_unpack(decoder, wire.bytes, wire.size, "d", 4, &datum, &err), &err);
    assert_int_equal(datum.encoded_size, 0);
    assert_non_null(datum.encoded);
    shoal_datum_decoder_destroy(decoder);
}

static void what_is_not_a_datum_is_refused(void **state) {
    (void)state;
    Wire wire = {.size = 0};
    memset(wire.bytes, 0xff, 64);
    wire.size = 64;
    expect_refused(&wire, SHOAL_ERR_DATA, "not a Datum");
    Wire whole = sized(1, 2, 3);
    add_bytes(&whole, DATA, PIXELS, 6);
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    for (size_t cut = 0; cut < whole.size; cut++) {
        ShoalError err = {0};
        ShoalDatum datum;
        wire = whole;
        wire.size = cut;
        assert_int_equal(parse(decoder, &wire, &datum, &err), SHOAL_ERR_DATA);
    }
    shoal_datum_decoder_destroy(decoder);
}

/* Either an error, or a datum whose values can all be read. */
static void damaged_records_are_survived(void **state) {
    (void)state;
    ShoalRng rng;
    shoal_rng_init(&rng, 4, SHOAL_RNG_TEST, 0);
    Wire whole = sized(1, 2, 3);
    add_bytes(&whole, DATA, PIXELS, 6);
    add_int(&whole, LABEL, 3);
    for (int i = 0; i < 6; i++)
        add_float(&whole, FLOAT_DATA, (float)i);
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    unsigned good = 0, bad = 0;
    double sum = 0;
    for (int round = 0; round < 50000; round++) {
        Wire wire = whole;
        for (uint32_t n = 1 + shoal_rng_below(&rng, 4); n-- > 0;)
            wire.bytes[shoal_rng_below(&rng, (uint32_t)wire.size)] ^=
                (unsigned char)(1u << shoal_rng_below(&rng, 8));
        ShoalError err = {0};
        ShoalDatum datum;
        if (parse(decoder, &wire, &datum, &err)) {
            assert_true(err.status == SHOAL_ERR_DATA || err.status == SHOAL_ERR_UNSUPPORTED);
            bad++;
            continue;
        }
        assert_int_equal(datum.count,
                         (size_t)datum.channels * (size_t)datum.height * (size_t)datum.width);
        assert_true(!datum.bytes != !datum.floats);
        for (size_t i = 0; i < datum.count; i++)
            sum += datum.bytes ? datum.bytes[i] : datum.floats[i] > 0;
        good++;
    }
    assert_true(good > 1000 && bad > 1000 && sum > 0);
    shoal_datum_decoder_destroy(decoder);
}

/* A datum of n pixels in wire->bytes. */
static Wire of_size(size_t n) {
    static const unsigned char ZEROS[3000];
    Wire wire = sized(1, 1, (int64_t)n);
    add_bytes(&wire, DATA, ZEROS, n);
    return wire;
}

static void steady_state_allocates_nothing(void **state) {
    (void)state;
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    ShoalError err = {0};
    ShoalDatum datum;
    Wire wire = of_size(2000), smaller = of_size(100), larger = of_size(3000);
    expect_ok(parse(decoder, &wire, &datum, &err), &err);
    expect_ok(parse(decoder, &wire, &datum, &err), &err);
    uint64_t before = shoal_memory_allocations();
    for (int i = 0; i < 100; i++) {
        expect_ok(parse(decoder, &wire, &datum, &err), &err);
        expect_ok(parse(decoder, &smaller, &datum, &err), &err);
    }
    assert_int_equal(shoal_memory_allocations(), before);
    expect_ok(parse(decoder, &larger, &datum, &err), &err);
    assert_int_equal(datum.count, 3000);
    assert_true(shoal_memory_allocations() > before); /* the count does count */
    shoal_datum_decoder_destroy(decoder);
}

/* The corpus of the fuzzer is replayed here, without clang. */
static void corpus_is_survived(void **state) {
    (void)state;
    static const char *const NAMES[] = {"bytes",     "floats",        "packed_floats", "encoded",
                                        "no_size",   "size_wraps",    "negative",      "short_data",
                                        "truncated", "unknown_fields"};
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    unsigned good = 0;
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/tests/fuzz/corpus/datum/%s", SHOAL_SOURCE, NAMES[i]);
        size_t size;
        unsigned char *bytes = read_file(path, &size);
        ShoalError err = {0};
        ShoalDatum datum;
        good += !shoal_datum_parse(decoder, bytes, size, path, i, &datum, &err);
        shoal_free(bytes);
    }
    assert_int_equal(good, 4);
    shoal_datum_decoder_destroy(decoder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_come_out),
        cmocka_unit_test(floats_come_out_packed_or_not),
        cmocka_unit_test(labels_may_be_negative),
        cmocka_unit_test(wrong_sizes_are_refused),
        cmocka_unit_test(wrong_counts_are_refused),
        cmocka_unit_test(damaged_images_are_refused),
        cmocka_unit_test(an_image_may_stay_encoded),
        cmocka_unit_test(what_is_not_a_datum_is_refused),
        cmocka_unit_test(damaged_records_are_survived),
        cmocka_unit_test(steady_state_allocates_nothing),
        cmocka_unit_test(corpus_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
