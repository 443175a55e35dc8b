/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include <lmdb.h>

#include "base/rng.h"
#include "data/dataset.h"
#include "data/lmdb_tree.h"
#include "data/writer.h"

/* Value sizes around the borders of the format: inline, just an overflow page, several. */
static const size_t SIZES[] = {1, 0, 17, 784, 2000, 2030, 2040, 4080, 4081, 9000, 3};

static size_t value_size(uint64_t index) {
    return SIZES[index % (sizeof SIZES / sizeof SIZES[0])];
}

static void fill_value(uint64_t index, unsigned char *value, size_t size) {
    for (size_t i = 0; i < size; i++)
        value[i] = (unsigned char)(index * 31 + i * 7 + (i >> 8));
}

static void make_dataset(const char *path, uint64_t count, const char *key_format) {
    ShoalError err = {0};
    ShoalDatasetWriter *writer;
    expect_ok(shoal_dataset_writer_create(path, &writer, &err), &err);
    for (uint64_t i = 0; i < count; i++) {
        char key[64];
        unsigned char value[9000];
        int key_size = snprintf(key, sizeof key, key_format, (unsigned)i);
        fill_value(i, value, value_size(i));
        expect_ok(
            shoal_dataset_writer_put(writer, key, (size_t)key_size, value, value_size(i), &err),
            &err);
    }
    expect_ok(shoal_dataset_writer_close(writer, &err), &err);
}

static void check_record(ShoalDataset *dataset, uint64_t index) {
    ShoalError err = {0};
    ShoalRecord record;
    unsigned char value[9000];
    expect_ok(shoal_dataset_record(dataset, index, &record, &err), &err);
    assert_int_equal(record.size, value_size(index));
    fill_value(index, value, record.size);
    if (record.size)
        assert_memory_equal(record.bytes, value, record.size);
}

static ShoalDataset *open_ok(const char *path) {
    ShoalError err = {0};
    ShoalDataset *dataset = NULL;
    expect_ok(shoal_dataset_open(path, &dataset, &err), &err);
    return dataset;
}

static void expect_open_error(const char *path, ShoalStatus expected, const char *part) {
    ShoalError err = {0};
    ShoalDataset *dataset = NULL;
    ShoalStatus status = shoal_dataset_open(path, &dataset, &err);
    expect_error(status, &err, expected, part);
    expect_error(status, &err, expected, path);
    assert_null(dataset);
}

static void every_position_can_be_read_in_any_order(void **state) {
    (void)state;
    make_dataset(scratch("db"), 3000, "%08u");
    ShoalDataset *dataset = open_ok(scratch("db"));
    assert_int_equal(shoal_dataset_count(dataset), 3000);
    assert_string_equal(shoal_dataset_name(dataset), scratch("db"));
    for (uint64_t i = 0; i < 2 * 3000 + 10; i++)
        check_record(dataset, i % 3000);
    ShoalRng rng;
    shoal_rng_init(&rng, 1, SHOAL_RNG_TEST, 0);
    for (int i = 0; i < 500; i++)
        check_record(dataset, shoal_rng_below(&rng, 3000));
    check_record(dataset, 2999);
    check_record(dataset, 2999);
    check_record(dataset, 0);
    shoal_dataset_close(dataset);
    shoal_dataset_close(NULL);
}

static void records_stay_valid_until_close(void **state) {
    (void)state;
    make_dataset(scratch("db"), 200, "%08u");
    ShoalDataset *dataset = open_ok(scratch("db"));
    ShoalError err = {0};
    ShoalRecord first, other;
    expect_ok(shoal_dataset_record(dataset, 3, &first, &err), &err);
    for (uint64_t i = 0; i < 200; i++)
        expect_ok(shoal_dataset_record(dataset, i, &other, &err), &err);
    unsigned char value[9000];
    fill_value(3, value, first.size);
    assert_memory_equal(first.bytes, value, first.size);
    shoal_dataset_close(dataset);
}

static void index_beyond_the_end_is_an_error(void **state) {
    (void)state;
    make_dataset(scratch("db"), 5, "%08u");
    ShoalDataset *dataset = open_ok(scratch("db"));
    ShoalError err = {0};
    ShoalRecord record = {&err, 77};
    expect_error(shoal_dataset_record(dataset, 5, &record, &err), &err, SHOAL_ERR_ARGUMENT,
                 "has 5 records");
    assert_int_equal(record.size, 77);
    shoal_dataset_close(dataset);
}

static void opening_writes_nothing_and_takes_a_file_too(void **state) {
    (void)state;
    make_dataset(scratch("db"), 5, "%08u");
    ShoalDataset *dataset = open_ok(scratch("db/data.mdb"));
    check_record(dataset, 4);
    assert_false(exists(scratch("db/lock.mdb")));
    assert_false(exists(scratch("db/data.mdb-lock")));
    shoal_dataset_close(dataset);
}

/* Reads a whole LMDB with liblmdb and with ours. */
static void compare_with_liblmdb(const char *path) {
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    MDB_cursor *cursor;
    MDB_val key, value;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_open(env, path, MDB_RDONLY | MDB_NOLOCK, 0), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    assert_int_equal(mdb_cursor_open(txn, dbi, &cursor), 0);
    ShoalDataset *dataset = open_ok(path);
    ShoalError err = {0};
    ShoalRecord record;
    uint64_t count = 0;
    while (!mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        expect_ok(shoal_dataset_record(dataset, count++, &record, &err), &err);
        assert_int_equal(record.size, value.mv_size);
        if (record.size)
            assert_memory_equal(record.bytes, value.mv_data, value.mv_size);
    }
    assert_int_equal(count, shoal_dataset_count(dataset));
    shoal_dataset_close(dataset);
    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);
    mdb_env_close(env);
}

static void agrees_with_liblmdb_on_golden_data(void **state) {
    (void)state;
    NEEDS_GOLDENS();
    compare_with_liblmdb(golden("data/mnist256_lmdb"));
    compare_with_liblmdb(golden("data/color256_lmdb"));
    compare_with_liblmdb(golden("data/color256_jpeg_lmdb"));
}

/* A tree four levels deep, written out of order, partly deleted and overwritten. */
static void agrees_with_liblmdb_on_a_worn_tree(void **state) {
    (void)state;
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    ShoalRng rng;
    shoal_rng_init(&rng, 2, SHOAL_RNG_TEST, 0);
    assert_int_equal(mkdir(scratch("worn"), 0755), 0);
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_mapsize(env, (size_t)256 << 20), 0);
    assert_int_equal(mdb_env_open(env, scratch("worn"), MDB_NOSYNC, 0644), 0);
    for (int round = 0; round < 12; round++) {
        assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
        assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
        for (int i = 0; i < 800; i++) {
            char text[512];
            unsigned char bytes[9000];
            unsigned number = shoal_rng_below(&rng, 4000);
            /* Long keys: few to a branch page, so a deep tree. */
            MDB_val key = {(size_t)snprintf(text, sizeof text, "%0480u", number), text};
            MDB_val value = {value_size(shoal_rng_u32(&rng)), bytes};
            fill_value(number, bytes, value.mv_size);
            if (shoal_rng_below(&rng, 3))
                assert_int_equal(mdb_put(txn, dbi, &key, &value, 0), 0);
            else
                mdb_del(txn, dbi, &key, NULL);
        }
        assert_int_equal(mdb_txn_commit(txn), 0);
    }
    MDB_stat stat;
    assert_int_equal(mdb_env_stat(env, &stat), 0);
    assert_true(stat.ms_depth >= 4);
    mdb_env_close(env);
    compare_with_liblmdb(scratch("worn"));
}

static void what_is_not_a_dataset_is_refused(void **state) {
    (void)state;
    expect_open_error(scratch("nothing"), SHOAL_ERR_IO, "No such file");
    assert_int_equal(mkdir(scratch("empty"), 0755), 0);
    expect_open_error(scratch("empty"), SHOAL_ERR_DATA, "no data.mdb");
    write_file(scratch("empty/CURRENT"), "MANIFEST-000002\n", 16);
    expect_open_error(scratch("empty"), SHOAL_ERR_UNSUPPORTED, "LevelDB");
    write_file(scratch("zero"), "", 0);
    expect_open_error(scratch("zero"), SHOAL_ERR_DATA, "0 bytes");
    write_file(scratch("text"), "name: \"LeNet\"\n", 14);
    expect_open_error(scratch("text"), SHOAL_ERR_DATA, "shorter than its head");
    unsigned char page[16384];
    memset(page, 'x', sizeof page);
    write_file(scratch("page"), page, sizeof page);
    expect_open_error(scratch("page"), SHOAL_ERR_DATA, "not an LMDB");
    assert_int_equal(mkfifo(scratch("pipe"), 0644), 0);
    expect_open_error(scratch("pipe"), SHOAL_ERR_DATA, "not a file or folder");
}

static void a_dataset_without_permission_is_refused(void **state) {
    (void)state;
    make_dataset(scratch("db"), 5, "%08u");
    assert_int_equal(chmod(scratch("db/data.mdb"), 0), 0);
    /* Root may read everything. */
    bool root = geteuid() == 0;
    if (root && (chmod(scratch_folder, 0755) || seteuid(65534)))
        skip();
    expect_open_error(scratch("db"), SHOAL_ERR_IO, "db/data.mdb: cannot open: Permission denied");
    if (root)
        assert_int_equal(seteuid(0), 0);
}

static void an_empty_dataset_is_refused(void **state) {
    (void)state;
    make_dataset(scratch("db"), 0, "%08u");
    expect_open_error(scratch("db"), SHOAL_ERR_DATA, "no records");
}

/* Opens and reads all; returns how many records came before the first error (count if none). */
static uint64_t read_all_checked(const char *path, uint64_t count) {
    ShoalError err = {0};
    ShoalDataset *dataset;
    if (shoal_dataset_open(path, &dataset, &err)) {
        assert_true(err.text[0] != '\0');
        return 0;
    }
    assert_int_equal(shoal_dataset_count(dataset), count);
    for (uint64_t i = 0; i < count; i++)
        check_record(dataset, i);
    shoal_dataset_close(dataset);
    return count;
}

static void a_file_cut_short_is_found_at_open(void **state) {
    (void)state;
    make_dataset(scratch("db"), 40, "%08u");
    size_t size;
    unsigned char *bytes = read_file(scratch("db/data.mdb"), &size);
    unsigned whole = 0;
    for (size_t cut = 0; cut < size; cut += cut % 4096 == 4095 || cut % 4096 == 0 ? 1 : 455) {
        write_file(scratch("cut"), bytes, cut);
        whole += read_all_checked(scratch("cut"), 40) == 40;
    }
    /* The last page of this file holds something, so no cut is harmless. */
    assert_int_equal(whole, 0);
    write_file(scratch("cut"), bytes, size - 1);
    expect_open_error(scratch("cut"), SHOAL_ERR_DATA, "cut short");
    write_file(scratch("cut"), bytes, size);
    assert_int_equal(read_all_checked(scratch("cut"), 40), 40);
    shoal_free(bytes);
}

/* Where the meta page in force keeps a field (see data/lmdb_tree.h). */
static unsigned char *meta_field(unsigned char *bytes, size_t offset) {
    uint64_t txn[2];
    memcpy(&txn[0], bytes + 144, 8);
    memcpy(&txn[1], bytes + 4096 + 144, 8);
    return bytes + (txn[1] > txn[0] ? 4096 : 0) + offset;
}

static void unwritten_pages_at_the_end_are_harmless(void **state) {
    (void)state;
    make_dataset(scratch("db"), 40, "%08u");
    size_t size;
    unsigned char *bytes = read_file(scratch("db/data.mdb"), &size);
    uint64_t last;
    memcpy(&last, meta_field(bytes, 136), 8);
    assert_int_equal((last + 1) * 4096, size);
    last += 7;
    memcpy(meta_field(bytes, 136), &last, 8);
    write_file(scratch("loose"), bytes, size);
    assert_int_equal(read_all_checked(scratch("loose"), 40), 40);
    shoal_free(bytes);
}

static void heads_that_lie_are_refused(void **state) {
    (void)state;
    static const struct {
        size_t offset;
        unsigned bytes;
        uint64_t value;
        const char *part;
    } LIES[] = {
        {16, 4, 0, "not an LMDB"},
        {20, 4, 999, "another format version"},
        {40, 4, 4097, "page size"},
        {40, 4, 0, "page size"},
        {40, 4, 0x80000000u, "page size"},
        {88 + 6, 2, 0, "depth"},
        {88 + 6, 2, 33, "depth"},
        {88 + 6, 2, 5, "damaged page"},
        {88 + 32, 8, 1u << 30, "more records"},
        {88 + 32, 8, UINT64_MAX, "more records"},
        {88 + 40, 8, 1u << 20, "beyond the end"},
        {88 + 40, 8, UINT64_MAX - 1, "beyond the end"},
        {88 + 40, 8, 0, "damaged page"},
        {136, 8, UINT64_MAX, "number of pages"},
        {136, 8, UINT64_MAX / 2, "number of pages"},
    };
    make_dataset(scratch("db"), 40, "%08u");
    size_t size;
    unsigned char *bytes = read_file(scratch("db/data.mdb"), &size);
    unsigned char *copy = shoal_calloc(size, 1);
    for (size_t i = 0; i < sizeof LIES / sizeof LIES[0]; i++) {
        memcpy(copy, bytes, size);
        /* Magic, version and page size are read from the first meta page. */
        unsigned char *at =
            LIES[i].offset <= 40 ? copy + LIES[i].offset : meta_field(copy, LIES[i].offset);
        memcpy(at, &LIES[i].value, LIES[i].bytes);
        write_file(scratch("lie"), copy, size);
        expect_open_error(scratch("lie"), SHOAL_ERR_DATA, LIES[i].part);
    }
    shoal_free(copy);
    shoal_free(bytes);
}

static void too_many_records_in_the_head_end_in_an_error(void **state) {
    (void)state;
    make_dataset(scratch("db"), 40, "%08u");
    size_t size;
    unsigned char *bytes = read_file(scratch("db/data.mdb"), &size);
    uint64_t count = 41;
    memcpy(meta_field(bytes, 88 + 32), &count, 8);
    write_file(scratch("lie"), bytes, size);
    ShoalDataset *dataset = open_ok(scratch("lie"));
    ShoalError err = {0};
    ShoalRecord record;
    for (uint64_t i = 0; i < 40; i++)
        check_record(dataset, i);
    expect_error(shoal_dataset_record(dataset, 40, &record, &err), &err, SHOAL_ERR_DATA,
                 "record 40 of");
    check_record(dataset, 2); /* an error does not lose the place */
    shoal_dataset_close(dataset);
    shoal_free(bytes);
}

/* Walks a whole image through the tree interface, as far as it goes. */
static uint64_t walk_image(const unsigned char *image, size_t size) {
    ShoalLmdbTree tree;
    ShoalLmdbCursor cursor;
    if (shoal_lmdb_tree_init(&tree, image, size) || !tree.entries ||
        shoal_lmdb_cursor_first(&tree, &cursor))
        return 0;
    uint64_t sum = 0, limit = tree.entries < 10000 ? tree.entries : 10000;
    for (uint64_t i = 0; i < limit; i++) {
        ShoalLmdbSpan key, value;
        if (!shoal_lmdb_cursor_get(&tree, &cursor, &key, &value)) {
            assert_true(value.bytes >= image && value.size <= size);
            assert_true((size_t)(value.bytes - image) <= size - value.size);
            for (size_t b = 0; b < value.size; b += 97)
                sum += value.bytes[b];
            sum += key.size ? key.bytes[key.size - 1] : 0;
        }
        uint64_t steps = 1 + i % 3;
        if (shoal_lmdb_cursor_advance(&tree, &cursor, &steps) || steps)
            break;
    }
    return sum;
}

/* Bytes at places where they matter are set to anything: no read may leave the image (the
 * sanitizers watch the exact heap copy) and every walk ends. */
static void damaged_images_are_survived(void **state) {
    (void)state;
    make_dataset(scratch("db"), 400, "%08u");
    size_t size;
    unsigned char *bytes = read_file(scratch("db/data.mdb"), &size);
    unsigned char *copy = malloc(size);
    assert_non_null(copy);
    ShoalRng rng;
    shoal_rng_init(&rng, 3, SHOAL_RNG_TEST, 0);
    uint64_t sum = 0;
    memcpy(copy, bytes, size);
    uint64_t intact = walk_image(copy, size);
    unsigned noticed = 0;
    for (int round = 0; round < 4000; round++) {
        size_t places[8];
        unsigned damages = 1 + shoal_rng_below(&rng, 8);
        for (unsigned i = 0; i < damages; i++) {
            size_t page = shoal_rng_below(&rng, (uint32_t)(size / 4096));
            /* Heads and offsets of pages most often, the meta pages now and then. */
            if (shoal_rng_below(&rng, 16) == 0)
                page = shoal_rng_below(&rng, 2);
            uint32_t range = shoal_rng_below(&rng, 4) ? 160 : 4096;
            places[i] = page * 4096 + shoal_rng_below(&rng, range);
            copy[places[i]] = (unsigned char)shoal_rng_u32(&rng);
        }
        uint64_t got = walk_image(copy, size);
        noticed += got != intact;
        sum += got;
        for (unsigned i = 0; i < damages; i++)
            copy[places[i]] = bytes[places[i]];
    }
    assert_true(noticed > 400); /* the damage does reach what is read */
    assert_true(sum > 0);
    free(copy);
    shoal_free(bytes);
}

/* Record `index` by the tree interface; what is wrong on the way, or NULL. */
static const char *read_record(const unsigned char *image, size_t size, uint64_t index,
                               ShoalLmdbTree *tree, ShoalLmdbCursor *cursor) {
    ShoalLmdbSpan key, value;
    const char *wrong = shoal_lmdb_tree_init(tree, image, size);
    if (!wrong)
        wrong = shoal_lmdb_cursor_first(tree, cursor);
    if (!wrong)
        wrong = shoal_lmdb_cursor_advance(tree, cursor, &index);
    return wrong ? wrong : shoal_lmdb_cursor_get(tree, cursor, &key, &value);
}

typedef enum Part { ROOT, LEAF, NODE, OVERFLOW } Part;

/* A part of the tree on the way to the record that the cursor is on. */
static unsigned char *find_part(unsigned char *image, const ShoalLmdbTree *tree,
                                const ShoalLmdbCursor *cursor, Part part) {
    unsigned leaf = tree->depth - 1;
    unsigned char *page = image + cursor->page[part == ROOT ? 0 : leaf] * 4096;
    if (part <= LEAF)
        return page;
    uint16_t offset, key_size;
    memcpy(&offset, page + 16 + 2 * cursor->entry[leaf], 2);
    if (part == NODE)
        return page + offset;
    memcpy(&key_size, page + offset + 6, 2);
    uint64_t number;
    memcpy(&number, page + offset + 8 + key_size, 8);
    return image + number * 4096;
}

static void each_lie_of_a_page_is_found(void **state) {
    (void)state;
    /* Record 0 lies in its leaf, record 9 in overflow pages. */
    static const struct {
        uint64_t record;
        Part part;
        size_t offset, bytes;
        uint64_t value;
        const char *wrong;
    } LIES[] = {
        {0, ROOT, 0, 8, 1, "number or kind"},
        {0, ROOT, 10, 2, 2, "number or kind"},
        {0, ROOT, 12, 2, 16, "entry count"},
        {0, ROOT, 12, 2, 4098, "entry count"},
        {0, ROOT, 12, 2, 19, "entry count"},
        {0, ROOT, 16, 2, 2, "entry out of the page"},
        {0, ROOT, 16, 2, 4092, "entry out of the page"},
        {0, LEAF, 0, 8, 1, "number or kind"},
        {0, LEAF, 10, 2, 1, "number or kind"},
        {0, LEAF, 12, 2, 4098, "entry count"},
        {0, LEAF, 16, 2, 2, "entry out of the page"},
        {0, LEAF, 16, 2, 4092, "entry out of the page"},
        {0, LEAF, 16, 2, 65535, "entry out of the page"},
        {0, NODE, 6, 2, 4096, "key out of the page"},
        {0, NODE, 6, 2, 65535, "key out of the page"},
        {0, NODE, 0, 2, 4096, "value out of the page"},
        {0, NODE, 0, 4, UINT32_MAX, "value out of the page"},
        {0, NODE, 4, 2, 2, "duplicate-key"},
        {0, NODE, 4, 2, 6, "duplicate-key"},
        {9, NODE, 16, 8, UINT64_MAX, "value beyond the end"},
        {9, NODE, 16, 8, 2, "number or kind"},
        {9, NODE, 0, 4, 3 * 4096, "longer than its pages"},
        {9, OVERFLOW, 12, 4, 2, "longer than its pages"},
        {9, OVERFLOW, 10, 2, 1, "number or kind"},
        {9, OVERFLOW, 0, 8, 3, "number or kind"},
    };
    make_dataset(scratch("db"), 400, "%08u");
    size_t size;
    unsigned char *bytes = read_file(scratch("db/data.mdb"), &size);
    for (size_t i = 0; i < sizeof LIES / sizeof LIES[0]; i++) {
        ShoalLmdbTree tree;
        ShoalLmdbCursor cursor;
        unsigned char saved[8];
        assert_null(read_record(bytes, size, LIES[i].record, &tree, &cursor));
        assert_true(tree.depth >= 2);
        unsigned char *at = find_part(bytes, &tree, &cursor, LIES[i].part) + LIES[i].offset;
        memcpy(saved, at, 8);
        memcpy(at, &LIES[i].value, LIES[i].bytes);
        const char *wrong = read_record(bytes, size, LIES[i].record, &tree, &cursor);
        if (!wrong || !strstr(wrong, LIES[i].wrong))
            fail_msg("lie %zu: \"%s\", expected \"%s\"", i, wrong ? wrong : "nothing wrong",
                     LIES[i].wrong);
        memcpy(at, saved, 8);
    }
    shoal_free(bytes);
}

/* A value that would run over the end of the file, in pages that claim to be there. */
static void values_beyond_the_end_are_found(void **state) {
    (void)state;
    make_dataset(scratch("db"), 40, "%08u");
    size_t size;
    unsigned char *bytes = read_file(scratch("db/data.mdb"), &size);
    ShoalLmdbTree tree;
    ShoalLmdbCursor cursor;
    assert_null(read_record(bytes, size, 9, &tree, &cursor));
    uint32_t length = (uint32_t)size, pages = length / 4096 + 1;
    memcpy(find_part(bytes, &tree, &cursor, OVERFLOW) + 12, &pages, 4);
    memcpy(find_part(bytes, &tree, &cursor, NODE), &length, 4);
    assert_string_equal(read_record(bytes, size, 9, &tree, &cursor),
                        "value beyond the end of the file");
    shoal_free(bytes);
}

/* A branch page whose children are all itself: the depth bounds the walk. */
static void a_tree_that_bites_its_tail_ends(void **state) {
    (void)state;
    make_dataset(scratch("db"), 3000, "%08u");
    size_t size;
    unsigned char *bytes = read_file(scratch("db/data.mdb"), &size);
    uint64_t root;
    memcpy(&root, meta_field(bytes, 88 + 40), 8);
    unsigned char *page = bytes + root * 4096;
    uint16_t lower, offset;
    memcpy(&lower, page + 12, 2);
    for (unsigned i = 16; i < lower; i += 2) {
        memcpy(&offset, page + i, 2);
        uint16_t child[3] = {(uint16_t)root, (uint16_t)(root >> 16), 0};
        memcpy(page + offset, child, 6);
    }
    uint16_t depth = SHOAL_LMDB_DEPTH;
    memcpy(meta_field(bytes, 88 + 6), &depth, 2);
    write_file(scratch("loop"), bytes, size);
    expect_open_error(scratch("loop"), SHOAL_ERR_DATA, "damaged page");
    shoal_free(bytes);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
    const struct CMUnitTest tests[] = {
        TEST(every_position_can_be_read_in_any_order),
        TEST(records_stay_valid_until_close),
        TEST(index_beyond_the_end_is_an_error),
        TEST(opening_writes_nothing_and_takes_a_file_too),
        TEST(agrees_with_liblmdb_on_golden_data),
        TEST(agrees_with_liblmdb_on_a_worn_tree),
        TEST(what_is_not_a_dataset_is_refused),
        TEST(a_dataset_without_permission_is_refused),
        TEST(an_empty_dataset_is_refused),
        TEST(a_file_cut_short_is_found_at_open),
        TEST(unwritten_pages_at_the_end_are_harmless),
        TEST(heads_that_lie_are_refused),
        TEST(too_many_records_in_the_head_end_in_an_error),
        TEST(damaged_images_are_survived),
        TEST(each_lie_of_a_page_is_found),
        TEST(values_beyond_the_end_are_found),
        TEST(a_tree_that_bites_its_tail_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
