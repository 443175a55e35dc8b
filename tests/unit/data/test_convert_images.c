/* SPDX-License-Identifier: Apache-2.0 */
#include "same_records.h"

#include "data/dataset.h"
#include "data/datum.h"
#include "data/image.h"
#include "shoal/tools.h"

typedef struct Notes {
    unsigned count;
    char first[1024], last[1024];
    uint64_t done, total;
} Notes;

static void on_note(void *context, const char *text) {
    Notes *notes = context;
    if (!notes->count++)
        snprintf(notes->first, sizeof notes->first, "%s", text);
    snprintf(notes->last, sizeof notes->last, "%s", text);
}

static void on_progress(void *context, uint64_t done, uint64_t total) {
    Notes *notes = context;
    assert_true(done > notes->done);
    notes->done = done;
    notes->total = total;
}

static Notes notes;
static const ShoalToolWatch watch = {.progress = on_progress, .note = on_note, .context = &notes};

static ShoalStatus convert(const ShoalConvertImagesOptions *options,
                           ShoalConvertImagesResult *result, ShoalError *err) {
    notes = (Notes){0};
    remove_tree(scratch("db"));
    return shoal_convert_images(options, &watch, result, err);
}

/* ---- as Caffe's tool wrote them ---- */

typedef struct GoldenSet {
    const char *root, *list, *lmdb;
    ShoalConvertImagesOptions options;
    unsigned count;
} GoldenSet;

static const GoldenSet GOLDENS[] = {
    {"data/color_png32/", "data/color_png32_list.txt", "data/color256_lmdb", {0}, 32},
    {"data/color_png32/",
     "data/color_png32_list.txt",
     "data/png32_encoded_lmdb",
     {.encoded = 1},
     32},
    {"data/jpegmix/", "data/jpegmix_list.txt", "data/jpegmix64_lmdb", {.encoded = 1}, 64},
    {"data/jpegmix/", "data/jpegmix_list.txt", "data/jpegmix64_lmdb", {.encode_type = "jpg"}, 64},
    {"data/jpegmix/", "data/jpegmix_list.txt", "data/jpegmix64_decoded_lmdb", {0}, 64},
    {"data/jpegmix/",
     "data/jpegmix_list.txt",
     "data/jpegmix64_resized_lmdb",
     {.resize_height = 24, .resize_width = 28, .check_size = 1},
     64},
    {"data/jpeggray/",
     "data/jpeggray_list.txt",
     "data/jpeggray16_lmdb",
     {.encoded = 1, .gray = 1},
     16},
};

static void same_records_as_caffes_tool(void **state) {
    (void)state;
    NEEDS_GOLDENS();
    for (size_t i = 0; i < sizeof GOLDENS / sizeof GOLDENS[0]; i++) {
        for (int threads = 1; threads <= 3; threads += 2) {
            const GoldenSet *set = &GOLDENS[i];
            ShoalConvertImagesOptions options = set->options;
            char root[512], list[512];
            snprintf(root, sizeof root, "%s", golden(set->root));
            snprintf(list, sizeof list, "%s", golden(set->list));
            options.root = root;
            options.list = list;
            options.lmdb = scratch("db");
            options.threads = threads;
            ShoalConvertImagesResult result;
            ShoalError err = {0};
            expect_ok(convert(&options, &result, &err), &err);
            assert_int_equal(result.written, set->count);
            assert_int_equal(result.left_out, 0);
            assert_int_equal(notes.done, set->count);
            assert_int_equal(notes.total, set->count);
            expect_same_records(scratch("db"), golden(set->lmdb), set->count);
        }
    }
}

/* ---- small ones of our own ---- */

enum { HEIGHT = 2, WIDTH = 3 };

/* "N.png", a colour image whose pixels are all N * 10. */
static void make_png(int number, int height) {
    uint8_t pixels[3 * 8 * WIDTH];
    memset(pixels, number * 10, sizeof pixels);
    ShoalImage image = {.channels = 3, .height = height, .width = WIDTH, .pixels = pixels};
    void *bytes;
    size_t size;
    ShoalError err = {0};
    expect_ok(shoal_image_encode_png(&image, &bytes, &size, &err), &err);
    char name[32];
    snprintf(name, sizeof name, "%d.png", number);
    write_file(scratch(name), bytes, size);
    shoal_free(bytes);
}

static ShoalConvertImagesOptions small(const char *list) {
    static char root[128], path[128], lmdb[128];
    for (int i = 0; i < 4; i++)
        make_png(i, HEIGHT);
    write_file(scratch("list"), list, strlen(list));
    snprintf(root, sizeof root, "%s/", scratch_folder);
    snprintf(path, sizeof path, "%s/list", scratch_folder);
    snprintf(lmdb, sizeof lmdb, "%s/db", scratch_folder);
    return (ShoalConvertImagesOptions){.root = root, .list = path, .lmdb = lmdb};
}

/* What the records are: their keys and labels in a line. */
static const char *contents(void) {
    static char text[1024];
    size_t used = 0;
    Lmdb db = open_lmdb(scratch("db"));
    MDB_val key, value;
    ShoalDatumDecoder *decoder = shoal_datum_decoder_create();
    text[0] = '\0';
    while (!mdb_cursor_get(db.cursor, &key, &value, MDB_NEXT)) {
        ShoalDatum datum;
        ShoalError err = {0};
        expect_ok(shoal_datum_parse(decoder, value.mv_data, value.mv_size, "db", 0, &datum, &err),
                  &err);
        used += (size_t)snprintf(text + used, sizeof text - used, "%.*s %d %dx%dx%d;",
                                 (int)key.mv_size, (const char *)key.mv_data, datum.label,
                                 datum.channels, datum.height, datum.width);
    }
    shoal_datum_decoder_destroy(decoder);
    close_lmdb(&db);
    return text;
}

static void unreadable_images_are_left_out(void **state) {
    (void)state;
    ShoalConvertImagesOptions options =
        small("0.png 5\nnone.png 1\nbroken.png 2\n\n1.png -7\r\n2.png 2147483647");
    write_file(scratch("broken.png"), "\x89PNG\r\n\x1a\n broken", 16);
    ShoalConvertImagesResult result;
    ShoalError err = {0};
    expect_ok(convert(&options, &result, &err), &err);
    assert_int_equal(result.written, 3);
    assert_int_equal(result.left_out, 3);
    assert_int_equal(notes.count, 3);
    assert_non_null(strstr(notes.first, "none.png"));
    assert_non_null(strstr(notes.last, "an empty line"));
    assert_string_equal(contents(), "00000000_0.png 5 3x2x3;00000004_1.png -7 3x2x3;"
                                    "00000005_2.png 2147483647 3x2x3;");
    /* None at all is an error, and leaves nothing. */
    options = small("none.png 1\nnor this.png 2\n");
    expect_error(convert(&options, &result, &err), &err, SHOAL_ERR_DATA, "none of the images");
    assert_false(exists(scratch("db")));
    assert_false(exists(scratch("db.tmp")));
}

static void few_words_about_many_failures(void **state) {
    (void)state;
    char list[2048] = "0.png 0\n";
    for (int i = 0; i < 50; i++)
        strcat(list, "none.png 1\n");
    ShoalConvertImagesOptions options = small(list);
    ShoalConvertImagesResult result;
    ShoalError err = {0};
    expect_ok(convert(&options, &result, &err), &err);
    assert_int_equal(result.left_out, 50);
    assert_int_equal(notes.count, 20);
}

static void shuffled_orders(void **state) {
    (void)state;
    ShoalConvertImagesOptions options = small("0.png 0\n1.png 1\n2.png 2\n3.png 3\n");
    ShoalConvertImagesResult result;
    char orders[3][1024];
    const uint32_t seeds[3] = {0, 0, 1};
    options.shuffle = 1;
    for (int i = 0; i < 3; i++) {
        options.seed = seeds[i];
        ShoalError err = {0};
        expect_ok(convert(&options, &result, &err), &err);
        strcpy(orders[i], contents());
        for (int n = 0; n < 4; n++) { /* each is there, under the number of its new place */
            char name[32];
            snprintf(name, sizeof name, "_%d.png %d 3x2x3;", n, n);
            assert_non_null(strstr(orders[i], name));
        }
    }
    assert_string_equal(orders[0], orders[1]);
    assert_string_not_equal(orders[0], orders[2]);
}

static void sizes_and_channels(void **state) {
    (void)state;
    ShoalConvertImagesOptions options = small("0.png 0\n7.png 1\n");
    make_png(7, HEIGHT + 1);
    ShoalConvertImagesResult result;
    ShoalError err = {0};
    expect_ok(convert(&options, &result, &err), &err);
    options.check_size = 1;
    expect_error(convert(&options, &result, &err), &err, SHOAL_ERR_DATA,
                 "7.png: 3 x 3, the first image is 2 x 3");
    assert_false(exists(scratch("db")));
    options.resize_height = options.resize_width = 4;
    options.gray = 1;
    shoal_error_clear(&err);
    expect_ok(convert(&options, &result, &err), &err);
    assert_string_equal(contents(), "00000000_0.png 0 1x4x4;00000001_7.png 1 1x4x4;");
    /* Encoded anew, because it is resized. */
    options.encoded = 1;
    expect_ok(convert(&options, &result, &err), &err);
    assert_string_equal(contents(), "00000000_0.png 0 1x4x4;00000001_7.png 1 1x4x4;");
    options.encode_type = "jpg";
    expect_ok(convert(&options, &result, &err), &err);
    assert_string_equal(contents(), "00000000_0.png 0 1x4x4;00000001_7.png 1 1x4x4;");
}

static void expect_refused(const ShoalConvertImagesOptions *options, ShoalStatus status,
                           const char *part) {
    ShoalConvertImagesResult result;
    ShoalError err = {0};
    expect_error(convert(options, &result, &err), &err, status, part);
    assert_false(exists(scratch("db")));
    assert_false(exists(scratch("db.tmp")));
}

static void wrong_lists(void **state) {
    (void)state;
    static const struct {
        const char *list, *part;
    } LISTS[] = {
        {"", "list: is empty"},
        {"0.png 0\n1.png\n", "list:2: '1.png' does not end with a blank and a label"},
        {"0.png cat\n", "list:1: '0.png cat' does not end"},
        {"0.png 1 \n", "list:1: '0.png 1 ' does not end"},
        {"0.png 1x\n", "list:1: '0.png 1x' does not end"},
        {"0.png 2147483648\n", "list:1: label 2147483648 does not fit"},
        {"0.png 99999999999999999999\n", "does not fit into 32 bits"},
    };
    for (size_t i = 0; i < sizeof LISTS / sizeof LISTS[0]; i++) {
        ShoalConvertImagesOptions options = small(LISTS[i].list);
        expect_refused(&options, SHOAL_ERR_DATA, LISTS[i].part);
    }
    ShoalConvertImagesOptions options = small("0.png 0\n");
    write_file(scratch("list"), "0.png\0 0\n", 9);
    expect_refused(&options, SHOAL_ERR_DATA, "list: is no text");
    options.list = scratch("none");
    expect_refused(&options, SHOAL_ERR_IO, "none");
}

static void wrong_options(void **state) {
    (void)state;
    const ShoalConvertImagesOptions good = small("0.png 0\n");
    ShoalConvertImagesOptions options = good;
    options.resize_height = 3;
    expect_refused(&options, SHOAL_ERR_ARGUMENT, "give both or none");
    options = good;
    options.encode_type = "bmp";
    expect_refused(&options, SHOAL_ERR_ARGUMENT, "encode_type is 'bmp'; there are jpg and png");
    options = good;
    options.threads = 5000;
    expect_refused(&options, SHOAL_ERR_ARGUMENT, "threads is 5000");
    options = good;
    options.lmdb = scratch("no/db");
    expect_refused(&options, SHOAL_ERR_IO, "no/db");
    options = good;
    ShoalError err = {0};
    ShoalConvertImagesResult result;
    expect_ok(convert(&options, &result, &err), &err);
    expect_error(shoal_convert_images(&options, NULL, &result, &err), &err, SHOAL_ERR_IO,
                 "exists already");
}

static void names_that_no_key_can_have(void **state) {
    (void)state;
    char list[1024] = "0.png 0\n";
    for (int i = 0; i < 270; i++)
        strcat(list, "./");
    strcat(list, "1.png 1\n");
    ShoalConvertImagesOptions options = small(list);
    expect_refused(&options, SHOAL_ERR_ARGUMENT, "a key of 554 bytes");
}

static void stopping_leaves_nothing(void **state) {
    (void)state;
    volatile sig_atomic_t stop = SHOAL_STOP_NOW;
    ShoalToolWatch stopped = {.stop = &stop};
    ShoalConvertImagesOptions options = small("0.png 0\n");
    remove_tree(scratch("db"));
    ShoalConvertImagesResult result;
    ShoalError err = {0};
    expect_error(shoal_convert_images(&options, &stopped, &result, &err), &err, SHOAL_ERR_STOPPED,
                 "nothing was kept");
    assert_false(exists(scratch("db")));
    assert_false(exists(scratch("db.tmp")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_records_as_caffes_tool),
        cmocka_unit_test(unreadable_images_are_left_out),
        cmocka_unit_test(few_words_about_many_failures),
        cmocka_unit_test(shuffled_orders),
        cmocka_unit_test(sizes_and_channels),
        cmocka_unit_test(wrong_lists),
        cmocka_unit_test(wrong_options),
        cmocka_unit_test(names_that_no_key_can_have),
        cmocka_unit_test(stopping_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
