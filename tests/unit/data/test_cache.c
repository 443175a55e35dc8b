/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "base/rng.h"
#include "data/cache.h"

enum { PLENTY = 1 << 30, OVERHEAD = 71 };

static const ShoalFingerprint mnist = {{1, 2, 3, 0xab}}, cifar = {{9}}, other = {{7, 7}};
#define MNIST_FILE "010203ab000000000000000000000000.records"
#define CIFAR_FILE "09000000000000000000000000000000.records"

static ShoalCache *open_cache(const char *folder, uint64_t limit) {
    ShoalCache *cache = NULL;
    ShoalError err = {0};
    expect_ok(shoal_cache_open(folder, limit, &cache, &err), &err);
    assert_non_null(cache);
    assert_true(shoal_cache_used(cache) <= limit);
    return cache;
}

/* A fresh folder for each test; NULL on its second turn: in memory. */
static const char *folder_of(int turn, const char *name) {
    static char path[512];
    if (turn)
        return NULL;
    snprintf(path, sizeof path, "%s", scratch(name));
    remove_tree(path);
    return path;
}

/* The bytes that the tests store under a number. */
static const unsigned char *content(const ShoalFingerprint *dataset, uint64_t number, size_t size) {
    static unsigned char bytes[1 << 20];
    ShoalRng rng;
    shoal_rng_init(&rng, number, SHOAL_RNG_TEST, dataset->bytes[0]);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (unsigned char)shoal_rng_u32(&rng);
    return bytes;
}

static bool put(ShoalCache *cache, const ShoalFingerprint *dataset, uint64_t number, size_t size) {
    uint64_t used = shoal_cache_used(cache);
    bool stored = shoal_cache_put(cache, dataset, number, content(dataset, number, size), size);
    uint64_t cost = shoal_cache_used(cache) - used;
    assert_true(cost <= size + OVERHEAD && (stored || cost == 0));
    assert_true(shoal_cache_used(cache) <= shoal_cache_limit(cache));
    return stored;
}

/* Held as it was put; or not at all. Never anything else. */
static bool held(ShoalCache *cache, const ShoalFingerprint *dataset, uint64_t number,
                 size_t expected) {
    const void *bytes = NULL;
    size_t size = 0;
    if (!shoal_cache_get(cache, dataset, number, &bytes, &size))
        return false;
    assert_int_equal(size, expected);
    if (size)
        assert_memory_equal(bytes, content(dataset, number, size), size);
    return true;
}

static void expect_ranges(ShoalCache *cache, const ShoalFingerprint *dataset,
                          const uint64_t *expected, size_t n) {
    uint64_t *ranges = NULL;
    size_t found = 0;
    ShoalError err = {0};
    expect_ok(shoal_cache_list(cache, dataset, &ranges, &found, &err), &err);
    assert_int_equal(found, n);
    for (size_t i = 0; i < n; i++)
        assert_true(ranges[i] == expected[i]);
    shoal_free(ranges);
}

static size_t size_of(uint64_t number) {
    return (size_t)(number * 37 % 1000);
}

static void what_is_put_is_got(void **state) {
    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        ShoalCache *cache = open_cache(folder_of(turn, "round-trip"), PLENTY);
        assert_int_equal(shoal_cache_limit(cache), PLENTY);
        assert_int_equal(shoal_cache_used(cache), 0);
        assert_false(held(cache, &mnist, 0, 0));
        for (uint64_t i = 0; i < 3000; i++) {
            assert_true(put(cache, &mnist, i * i, size_of(i)));
            assert_true(put(cache, &cifar, i, 10));
        }
        for (uint64_t i = 3000; i-- > 0;) {
            assert_true(held(cache, &mnist, i * i, size_of(i)));
            assert_true(held(cache, &cifar, i, 10));
            assert_false(held(cache, &mnist, i * i + 2, 0) && i > 1);
        }
        assert_false(held(cache, &other, 0, 0));
        assert_true(put(cache, &mnist, UINT64_MAX, 1 << 20)); /* over many blocks */
        assert_true(put(cache, &mnist, UINT64_MAX - 1, 0));
        assert_true(held(cache, &mnist, UINT64_MAX, 1 << 20));
        assert_true(held(cache, &mnist, UINT64_MAX - 1, 0));
        shoal_cache_close(cache);
    }
    shoal_cache_close(NULL);
}

static void the_first_one_stays(void **state) {
    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        ShoalCache *cache = open_cache(folder_of(turn, "first"), PLENTY);
        assert_true(put(cache, &mnist, 5, 100));
        uint64_t used = shoal_cache_used(cache);
        assert_true(shoal_cache_put(cache, &mnist, 5, "something else", 14));
        assert_int_equal(shoal_cache_used(cache), used);
        assert_true(held(cache, &mnist, 5, 100));
        shoal_cache_close(cache);
    }
}

static void ranges_are_listed(void **state) {
    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        ShoalCache *cache = open_cache(folder_of(turn, "ranges"), PLENTY);
        expect_ranges(cache, &mnist, NULL, 0);
        const uint64_t numbers[] = {7, 3, 5, 4, 100, UINT64_MAX, 0, 101, UINT64_MAX - 1};
        for (size_t i = 0; i < 9; i++)
            assert_true(put(cache, &mnist, numbers[i], 1));
        const uint64_t expected[] = {0, 1, 3, 3, 7, 1, 100, 2, UINT64_MAX - 1, 2};
        expect_ranges(cache, &mnist, expected, 10);
        expect_ranges(cache, &cifar, NULL, 0);
        for (uint64_t i = 5000; i-- > 0;)
            assert_true(put(cache, &cifar, i, 0));
        const uint64_t all[] = {0, 5000};
        expect_ranges(cache, &cifar, all, 2);
        shoal_cache_close(cache);
    }
}

static void datasets_are_listed_and_forgotten(void **state) {
    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        const char *folder = folder_of(turn, "datasets");
        ShoalCache *cache = open_cache(folder, PLENTY);
        ShoalFingerprint dataset;
        assert_false(shoal_cache_dataset(cache, 0, &dataset));
        put(cache, &mnist, 1, 10);
        put(cache, &cifar, 1, 10);
        put(cache, &other, 1, 10);
        uint64_t used = shoal_cache_used(cache);
        int found = 0;
        for (size_t i = 0; shoal_cache_dataset(cache, i, &dataset); i++)
            found += dataset.bytes[0];
        assert_int_equal(found, 1 + 9 + 7);
        shoal_cache_forget(cache, &cifar);
        shoal_cache_forget(cache, &cifar);
        assert_false(held(cache, &cifar, 1, 10));
        assert_true(held(cache, &mnist, 1, 10) && held(cache, &other, 1, 10));
        assert_int_equal(shoal_cache_used(cache), used / 3 * 2);
        assert_true(shoal_cache_dataset(cache, 1, &dataset));
        assert_false(shoal_cache_dataset(cache, 2, &dataset));
        if (folder) {
            shoal_cache_close(cache);
            cache = open_cache(folder, PLENTY);
            assert_false(held(cache, &cifar, 1, 10));
            assert_true(held(cache, &mnist, 1, 10));
        }
        assert_true(put(cache, &cifar, 2, 10));
        shoal_cache_close(cache);
    }
}

static void a_folder_outlives_its_process(void **state) {
    (void)state;
    const char *folder = folder_of(0, "a/b/c");
    ShoalCache *cache = open_cache(folder, PLENTY);
    unsigned char id[SHOAL_CACHE_ID_BYTES];
    memcpy(id, shoal_cache_id(cache), sizeof id);
    uint64_t used = 0;
    for (uint64_t round = 0; round < 4; round++) {
        assert_memory_equal(id, shoal_cache_id(cache), sizeof id);
        for (uint64_t i = 0; i < round * 500; i++)
            assert_true(held(cache, &mnist, i, size_of(i)));
        const uint64_t all[] = {0, round * 500};
        expect_ranges(cache, &mnist, all, round ? 2 : 0);
        assert_int_equal(shoal_cache_used(cache), used);
        for (uint64_t i = round * 500; i < (round + 1) * 500; i++)
            assert_true(put(cache, &mnist, i, size_of(i)));
        /* Large ones, which the index passes over. */
        assert_true(put(cache, &cifar, round, 300000));
        used = shoal_cache_used(cache);
        shoal_cache_close(cache);
        cache = open_cache(folder, PLENTY);
    }
    for (uint64_t i = 0; i < 4; i++)
        assert_true(held(cache, &cifar, i, 300000));
    shoal_cache_close(cache);
    cache = open_cache(NULL, PLENTY);
    ShoalCache *second = open_cache(NULL, PLENTY);
    assert_memory_not_equal(shoal_cache_id(cache), shoal_cache_id(second), SHOAL_CACHE_ID_BYTES);
    shoal_cache_close(cache);
    shoal_cache_close(second);
}

static void the_limit_is_kept(void **state) {
    (void)state;
    for (int turn = 0; turn < 2; turn++) {
        const char *folder = folder_of(turn, "limit");
        ShoalCache *cache = open_cache(folder, 10000);
        int stored = 0;
        for (uint64_t i = 0; i < 100; i++)
            stored += put(cache, &mnist, i, 500);
        assert_in_range(stored, 10000 / (500 + OVERHEAD), 10000 / 500);
        assert_false(put(cache, &cifar, 0, 500));
        assert_false(put(cache, &mnist, 1000, SIZE_MAX / 2 > 100000 ? 100000 : 0));
        for (uint64_t i = 0; i < 100; i++)
            assert_int_equal(held(cache, &mnist, i, 500), i < (uint64_t)stored);
        shoal_cache_close(cache);
        for (uint64_t limit = 0; limit < 200; limit += 1) {
            cache = open_cache(folder_of(turn, "small-limit"), limit);
            assert_int_equal(put(cache, &mnist, 0, 40), limit >= 40 + 64);
            shoal_cache_close(cache);
        }
    }
    ShoalCache *cache = open_cache(NULL, UINT64_MAX);
    assert_false(shoal_cache_put(cache, &mnist, 0, "", SIZE_MAX));
    assert_false(shoal_cache_put(cache, &mnist, 0, "", (size_t)1 << 40));
    assert_true(put(cache, &mnist, 0, 5));
    shoal_cache_close(cache);
}

/* With less room than before, the dataset that was written last keeps its records. */
static void a_lower_limit_gives_up_the_oldest(void **state) {
    (void)state;
    const char *folder = folder_of(0, "lower");
    ShoalCache *cache = open_cache(folder, PLENTY);
    for (uint64_t i = 0; i < 100; i++) {
        put(cache, &mnist, i, 500);
        put(cache, &cifar, i, 500);
    }
    shoal_cache_close(cache);
    const struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, scratch("lower/" MNIST_FILE), old, 0), 0);
    cache = open_cache(folder, 80000);
    const uint64_t all[] = {0, 100};
    expect_ranges(cache, &cifar, all, 2);
    uint64_t n = 0;
    while (held(cache, &mnist, n, 500))
        n++;
    assert_in_range(n, (80000 - 100 * 571) / 571, 80000 / 500 - 100);
    const uint64_t some[] = {0, n};
    expect_ranges(cache, &mnist, some, 2);
    shoal_cache_close(cache);
    struct stat info;
    assert_int_equal(stat(scratch("lower/" MNIST_FILE), &info), 0);
    assert_true(info.st_size < 80000 - 100 * 500);
    cache = open_cache(folder, 0);
    expect_ranges(cache, &cifar, NULL, 0);
    shoal_cache_close(cache);
    assert_int_equal(stat(scratch("lower/" CIFAR_FILE), &info), 0);
    assert_int_equal(info.st_size, 0);
}

/* ---- Damage ---- */

enum { SMALL = 6 };

/* A folder with one file of SMALL records. */
static unsigned char *small_file(const char *folder, size_t *size) {
    ShoalCache *cache = open_cache(folder, PLENTY);
    for (uint64_t i = 0; i < SMALL; i++)
        assert_true(put(cache, &mnist, i, 5 + (size_t)i * 7));
    shoal_cache_close(cache);
    return read_file(scratch("damage/" MNIST_FILE), size);
}

/* How many records are there; then all can be put and got again, also after another start. */
static int survivors(const char *folder) {
    ShoalCache *cache = open_cache(folder, PLENTY);
    int n = 0;
    for (uint64_t i = 0; i < SMALL; i++)
        n += held(cache, &mnist, i, 5 + (size_t)i * 7);
    for (uint64_t i = 0; i < SMALL; i++)
        assert_true(put(cache, &mnist, i, 5 + (size_t)i * 7));
    for (int again = 0; again < 2; again++) {
        for (uint64_t i = 0; i < SMALL; i++)
            assert_true(held(cache, &mnist, i, 5 + (size_t)i * 7));
        const uint64_t all[] = {0, SMALL};
        expect_ranges(cache, &mnist, all, 2);
        shoal_cache_close(cache);
        cache = open_cache(folder, PLENTY);
    }
    shoal_cache_close(cache);
    return n;
}

static void a_file_may_be_cut_anywhere(void **state) {
    (void)state;
    const char *folder = folder_of(0, "damage");
    size_t size;
    unsigned char *bytes = small_file(folder, &size);
    size_t end = 0;
    int whole = 0;
    for (size_t cut = 0; cut <= size; cut++) {
        /* The bytes that round up a record are no part of it. */
        while (whole < SMALL && cut >= end + 32 + 5 + (size_t)whole * 7) {
            end += 32 + (5 + (size_t)whole * 7 + 7) / 8 * 8;
            whole++;
        }
        write_file(scratch("damage/" MNIST_FILE), bytes, cut);
        ShoalCache *cache = open_cache(folder, PLENTY);
        const uint64_t left[] = {0, (uint64_t)whole};
        expect_ranges(cache, &mnist, left, whole ? 2 : 0);
        shoal_cache_close(cache);
        assert_int_equal(survivors(folder), whole);
    }
    assert_int_equal(whole, SMALL);
    shoal_free(bytes);
}

static void a_flipped_byte_costs_one_record(void **state) {
    (void)state;
    const char *folder = folder_of(0, "damage");
    size_t size;
    unsigned char *bytes = small_file(folder, &size);
    int lost = 0;
    for (size_t i = 0; i < size; i++) {
        unsigned char bit = (unsigned char)(1 << i % 8);
        bytes[i] ^= bit;
        write_file(scratch("damage/" MNIST_FILE), bytes, size);
        bytes[i] ^= bit;
        int n = survivors(folder);
        assert_in_range(n, SMALL - 1, SMALL);
        lost += n < SMALL;
    }
    size_t padding = 0;
    for (size_t i = 0; i < SMALL; i++)
        padding += 7 - (5 + i * 7 + 7) % 8;
    assert_int_equal(lost, size - padding); /* only what rounds up does not matter */
    shoal_free(bytes);
}

static void junk_between_records_is_passed_over(void **state) {
    (void)state;
    const char *folder = folder_of(0, "damage");
    size_t size, junk = 200000;
    unsigned char *bytes = small_file(folder, &size);
    unsigned char *joined = shoal_calloc(2 * size + junk, 1);
    assert_non_null(joined);
    /* Zeros, noise, and the begins of records. */
    for (int kind = 0; kind < 3; kind++) {
        memcpy(joined, bytes, size);
        for (size_t i = 0; i < junk; i++)
            joined[size + i] = kind == 0   ? 0
                               : kind == 1 ? (unsigned char)(i * i >> 3)
                                           : bytes[i % 8];
        memcpy(joined + size + junk, bytes, size);
        memset(joined, 0xff, 40); /* the first record is only behind the junk */
        write_file(scratch("damage/" MNIST_FILE), joined, 2 * size + junk);
        assert_int_equal(survivors(folder), SMALL);
    }
    shoal_free(joined);
    shoal_free(bytes);
}

/* A damaged record is not given out, is forgotten, and its later copy is found after a restart. */
static void a_damaged_record_is_forgotten(void **state) {
    (void)state;
    const char *folder = folder_of(0, "damage");
    size_t size;
    unsigned char *bytes = small_file(folder, &size);
    bytes[32] ^= 0x10; /* the first byte of the first record */
    write_file(scratch("damage/" MNIST_FILE), bytes, size);
    shoal_free(bytes);
    ShoalCache *cache = open_cache(folder, PLENTY);
    const uint64_t all[] = {0, SMALL}, rest[] = {1, SMALL - 1};
    expect_ranges(cache, &mnist, all, 2);
    assert_false(held(cache, &mnist, 0, 5));
    expect_ranges(cache, &mnist, rest, 2);
    assert_false(held(cache, &mnist, 0, 5));
    assert_true(put(cache, &mnist, 0, 5));
    assert_true(held(cache, &mnist, 0, 5));
    expect_ranges(cache, &mnist, all, 2);
    shoal_cache_close(cache);
    cache = open_cache(folder, PLENTY);
    assert_true(held(cache, &mnist, 0, 5));
    shoal_cache_close(cache);
}

static void a_dataset_without_records_is_not_listed(void **state) {
    (void)state;
    const char *folder = folder_of(0, "lost");
    ShoalCache *cache = open_cache(folder, PLENTY);
    ShoalFingerprint dataset;
    put(cache, &mnist, 3, 10);
    assert_true(shoal_cache_dataset(cache, 0, &dataset));
    assert_int_equal(truncate(scratch("lost/" MNIST_FILE), 35), 0);
    assert_false(held(cache, &mnist, 3, 10));
    assert_false(shoal_cache_dataset(cache, 0, &dataset));
    assert_true(put(cache, &mnist, 3, 10));
    assert_true(held(cache, &mnist, 3, 10));
    assert_true(shoal_cache_dataset(cache, 0, &dataset));
    shoal_cache_close(cache);
}

static void records_of_another_dataset_do_not_count(void **state) {
    (void)state;
    const char *folder = folder_of(0, "damage");
    size_t size;
    unsigned char *bytes = small_file(folder, &size);
    write_file(scratch("damage/" CIFAR_FILE), bytes, size);
    ShoalCache *cache = open_cache(folder, PLENTY);
    expect_ranges(cache, &cifar, NULL, 0);
    for (uint64_t i = 0; i < SMALL; i++)
        assert_true(held(cache, &mnist, i, 5 + (size_t)i * 7));
    assert_true(put(cache, &cifar, 1, 20)); /* what is no use is written over */
    assert_true(held(cache, &cifar, 1, 20));
    shoal_cache_close(cache);
    shoal_free(bytes);
}

/* The file is cut, removed or overwritten while the cache is open. */
static void a_file_that_changes_costs_what_it_held(void **state) {
    (void)state;
    for (int opened = 0; opened < 2; opened++)
        for (int kind = 0; kind < 3; kind++) {
            const char *folder = folder_of(0, "damage");
            size_t size;
            unsigned char *bytes = small_file(folder, &size);
            ShoalCache *cache = open_cache(folder, PLENTY);
            if (opened)
                assert_true(held(cache, &mnist, 1, 12));
            if (kind == 0) {
                assert_int_equal(truncate(scratch("damage/" MNIST_FILE), 50), 0);
            } else if (kind == 1) {
                assert_int_equal(unlink(scratch("damage/" MNIST_FILE)), 0);
            } else {
                memset(bytes, 0x55, size);
                write_file(scratch("damage/" MNIST_FILE), bytes, size);
            }
            for (uint64_t i = 0; i < SMALL; i++)
                held(cache, &mnist, i, 5 + (size_t)i * 7);
            put(cache, &mnist, 100, 10);
            held(cache, &mnist, 100, 10);
            assert_true(put(cache, &cifar, 100, 10));
            assert_true(held(cache, &cifar, 100, 10));
            shoal_cache_close(cache);
            shoal_free(bytes);
        }
}

static void other_files_stay_as_they_are(void **state) {
    (void)state;
    const char *folder = folder_of(0, "foreign");
    assert_int_equal(mkdir(folder, 0700), 0);
    const char *names[] = {"foreign/" MNIST_FILE, "foreign/holiday.records",
                           "foreign/010203AB000000000000000000000000.records",
                           "foreign/010203ab000000000000000000000000.records2", "foreign/id"};
    for (int i = 0; i < 5; i++)
        write_file(scratch(names[i]), "not a cache", 11);
    assert_int_equal(mkdir(scratch("foreign/" CIFAR_FILE), 0700), 0);
    assert_int_equal(mkfifo(scratch("foreign/07070000000000000000000000000000.records"), 0600), 0);
    write_file(scratch("foreign/empty"), "", 0);
    assert_int_equal(symlink(scratch("foreign/empty"),
                             scratch("foreign/05000000000000000000000000000000.records")),
                     0);
    const ShoalFingerprint linked = {{5}}, late = {{6}}, fresh = {{8}};
    ShoalCache *cache = open_cache(folder, PLENTY);
    ShoalFingerprint dataset;
    assert_false(shoal_cache_dataset(cache, 0, &dataset));
    assert_int_equal(shoal_cache_used(cache), 0);
    write_file(scratch("foreign/06000000000000000000000000000000.records"), "late", 4);
    const ShoalFingerprint *taken[] = {&mnist, &cifar, &other, &linked, &late};
    for (int i = 0; i < 5; i++) {
        assert_false(put(cache, taken[i], 1, 10));
        assert_false(held(cache, taken[i], 1, 10));
        shoal_cache_forget(cache, taken[i]);
    }
    assert_true(put(cache, &fresh, 1, 10));
    shoal_cache_close(cache);
    for (int i = 0; i < 5; i++) {
        size_t size;
        unsigned char *bytes = read_file(scratch(names[i]), &size);
        assert_int_equal(size, 11);
        assert_memory_equal(bytes, "not a cache", 11);
        shoal_free(bytes);
    }
    assert_true(exists(scratch("foreign/" CIFAR_FILE)));
}

static void a_damaged_id_is_made_anew(void **state) {
    (void)state;
    const char *folder = folder_of(0, "id");
    ShoalCache *cache = open_cache(folder, PLENTY);
    put(cache, &mnist, 1, 10);
    shoal_cache_close(cache);
    const char *texts[] = {"", "x", "0123456789abcdef0123456789abcdeg\n",
                           "0123456789abcdef0123456789abcdef0", "a long text that is none of ours"};
    for (int i = 0; i < 5; i++) {
        write_file(scratch("id/cache.id"), texts[i], strlen(texts[i]));
        unsigned char id[SHOAL_CACHE_ID_BYTES];
        for (int again = 0; again < 2; again++) {
            cache = open_cache(folder, PLENTY);
            assert_true(held(cache, &mnist, 1, 10));
            if (again)
                assert_memory_equal(id, shoal_cache_id(cache), sizeof id);
            memcpy(id, shoal_cache_id(cache), sizeof id);
            shoal_cache_close(cache);
        }
    }
}

/* ---- Folders and disks ---- */

static void a_folder_that_cannot_be_used_is_refused(void **state) {
    (void)state;
    write_file(scratch("file"), "x", 1);
    const char *paths[] = {scratch("file"), scratch("file/below"), "", "/proc/nowhere/cache",
                           "/proc/self"};
    for (int i = 0; i < 5; i++) {
        ShoalCache *cache = NULL;
        ShoalError err = {0};
        expect_error(shoal_cache_open(paths[i], PLENTY, &cache, &err), &err, SHOAL_ERR_IO,
                     "cannot keep samples");
        assert_null(cache);
    }
    if (!geteuid())
        return; /* root may write anywhere */
    assert_int_equal(mkdir(scratch("read-only"), 0500), 0);
    ShoalCache *cache = NULL;
    ShoalError err = {0};
    expect_error(shoal_cache_open(scratch("read-only"), PLENTY, &cache, &err), &err, SHOAL_ERR_IO,
                 "read-only");
}

static void caches_do_not_share_a_folder(void **state) {
    (void)state;
    const char *folder = folder_of(0, "shared");
    assert_int_equal(mkdir(folder, 0700), 0);
    write_file(scratch("shared/2"), "x", 1); /* in the way */
    ShoalCache *caches[4];
    for (uint64_t i = 0; i < 4; i++) {
        caches[i] = open_cache(folder, PLENTY);
        assert_true(put(caches[i], &mnist, i, 10));
        for (uint64_t k = 0; k < i; k++) {
            assert_memory_not_equal(shoal_cache_id(caches[i]), shoal_cache_id(caches[k]),
                                    SHOAL_CACHE_ID_BYTES);
            assert_false(held(caches[i], &mnist, k, 10));
        }
    }
    assert_true(exists(scratch("shared/1/cache.id")) && exists(scratch("shared/3/cache.id")));
    /* Each finds its own again; a place that is free is taken. */
    shoal_cache_close(caches[1]);
    caches[1] = open_cache(folder, PLENTY);
    assert_true(held(caches[1], &mnist, 1, 10));
    for (int i = 0; i < 4; i++)
        shoal_cache_close(caches[i]);
    caches[0] = open_cache(folder, PLENTY);
    assert_true(held(caches[0], &mnist, 0, 10));
    shoal_cache_close(caches[0]);
}

static void processes_do_not_share_a_folder(void **state) {
    (void)state;
    const char *folder = folder_of(0, "processes");
    ShoalCache *cache = open_cache(folder, PLENTY);
    assert_true(put(cache, &mnist, 1, 10));
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        ShoalCache *second = NULL;
        ShoalError err = {0};
        bool fine = !shoal_cache_open(folder, PLENTY, &second, &err) &&
                    memcmp(shoal_cache_id(second), shoal_cache_id(cache), SHOAL_CACHE_ID_BYTES);
        _exit(fine ? 0 : 1); /* no close: as if it were killed */
    }
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    assert_true(exists(scratch("processes/1/cache.id")));
    shoal_cache_close(cache);
}

/* A limit for the size of files stands for a full disk: part of a record gets there. */
static void a_full_disk_harms_nothing(void **state) {
    (void)state;
    const char *folder = folder_of(0, "full");
    ShoalCache *cache = open_cache(folder, PLENTY);
    struct rlimit before, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    assert_true(handler != SIG_ERR);
    low = before;
    low.rlim_cur = 10000;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    int stored = 0;
    for (uint64_t i = 0; i < 30; i++)
        stored += put(cache, &mnist, i, 900);
    struct stat info;
    assert_int_equal(stat(scratch("full/" MNIST_FILE), &info), 0);
    bool small_fits = put(cache, &mnist, 100, 100);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(stored, 10000 / (904 + 32));
    assert_int_equal(info.st_size, stored * (904 + 32)); /* nothing half written stays */
    assert_true(small_fits);
    assert_true(put(cache, &mnist, 50, 900)); /* there is room again */
    for (int again = 0; again < 2; again++) {
        for (uint64_t i = 0; i < 30; i++)
            assert_int_equal(held(cache, &mnist, i, 900), i < (uint64_t)stored);
        assert_true(held(cache, &mnist, 50, 900) && held(cache, &mnist, 100, 100));
        shoal_cache_close(cache);
        cache = open_cache(folder, PLENTY);
    }
    shoal_cache_close(cache);
}

/* Random puts, gets, restarts and damage, against a plain model of what may be there. */
static void random_use(void **state) {
    (void)state;
    const char *folder = folder_of(0, "random");
    ShoalRng rng;
    shoal_rng_init(&rng, 8, SHOAL_RNG_TEST, 0);
    ShoalCache *cache = open_cache(folder, 200000);
    unsigned char stored[500] = {0};
    for (int step = 0; step < 20000; step++) {
        uint64_t number = shoal_rng_below(&rng, 500);
        switch (shoal_rng_below(&rng, 200)) {
        case 0:
            shoal_cache_close(cache);
            cache = open_cache(folder, 200000);
            break;
        case 1: {
            unsigned char byte = (unsigned char)shoal_rng_u32(&rng);
            struct stat info;
            int file = open(scratch("random/" MNIST_FILE), O_RDWR);
            if (file < 0)
                break;
            assert_int_equal(fstat(file, &info), 0);
            if (info.st_size)
                assert_int_equal(
                    pwrite(file, &byte, 1, shoal_rng_below(&rng, (uint32_t)info.st_size)), 1);
            close(file);
            break;
        }
        case 2:
            if (shoal_rng_below(&rng, 20) == 0) {
                shoal_cache_forget(cache, &mnist);
                memset(stored, 0, sizeof stored);
            }
            break;
        default:
            if (shoal_rng_below(&rng, 2))
                stored[number] |= put(cache, &mnist, number, size_of(number));
            else
                assert_true(!held(cache, &mnist, number, size_of(number)) || stored[number]);
        }
    }
    shoal_cache_close(cache);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_is_got),
        cmocka_unit_test(the_first_one_stays),
        cmocka_unit_test(ranges_are_listed),
        cmocka_unit_test(datasets_are_listed_and_forgotten),
        cmocka_unit_test(a_folder_outlives_its_process),
        cmocka_unit_test(the_limit_is_kept),
        cmocka_unit_test(a_lower_limit_gives_up_the_oldest),
        cmocka_unit_test(a_file_may_be_cut_anywhere),
        cmocka_unit_test(a_flipped_byte_costs_one_record),
        cmocka_unit_test(junk_between_records_is_passed_over),
        cmocka_unit_test(a_damaged_record_is_forgotten),
        cmocka_unit_test(a_dataset_without_records_is_not_listed),
        cmocka_unit_test(records_of_another_dataset_do_not_count),
        cmocka_unit_test(a_file_that_changes_costs_what_it_held),
        cmocka_unit_test(other_files_stay_as_they_are),
        cmocka_unit_test(a_damaged_id_is_made_anew),
        cmocka_unit_test(a_folder_that_cannot_be_used_is_refused),
        cmocka_unit_test(caches_do_not_share_a_folder),
        cmocka_unit_test(processes_do_not_share_a_folder),
        cmocka_unit_test(a_full_disk_harms_nothing),
        cmocka_unit_test(random_use),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
