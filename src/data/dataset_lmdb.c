/* SPDX-License-Identifier: Apache-2.0 */
#include "data/dataset_kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"
#include "data/lmdb_tree.h"

/* What a record takes in a file at least: bounds the walk over a file that lies about itself. */
#define MIN_RECORD 10

/* Records between two places that are remembered: a jump costs the steps over so many. */
#define MARK_EVERY 1024u

/* The pages are read by a checked walker instead of liblmdb: see data/lmdb_tree.h. */
typedef struct Lmdb {
    const char *path;
    void *map;
    size_t map_size;
    ShoalLmdbTree tree;
    ShoalLmdbCursor cursor;
    uint64_t position;      /* of the cursor */
    bool positioned;        /* false after an error: the cursor is nowhere */
    ShoalLmdbCursor *marks; /* of records 0, MARK_EVERY, 2 * MARK_EVERY ..., the first n_marks */
    uint64_t n_marks;
} Lmdb;

static ShoalStatus no_such_dataset(const char *path, int reason, ShoalError *err) {
    const char *advice = reason == ENOENT   ? "; relative paths start at the working folder"
                         : reason == EACCES ? "; is the file readable by this user?"
                                            : "";
    return shoal_error_set(err, SHOAL_ERR_IO, "dataset %s: cannot open: %s%s", path,
                           strerror(reason), advice);
}

/* A folder stands for the data.mdb in it. */
static ShoalStatus find_file(const char *path, char *file, size_t size, ShoalError *err) {
    struct stat info;
    if (stat(path, &info))
        return no_such_dataset(path, errno, err);
    bool folder = S_ISDIR(info.st_mode);
    if (snprintf(file, size, folder ? "%s/data.mdb" : "%s", path) >= (int)size - 16)
        return shoal_error_set(err, SHOAL_ERR_IO, "dataset %.200s...: path too long", path);
    if (!folder || !stat(file, &info) || errno != ENOENT)
        return SHOAL_OK;
    char level_db[4096];
    snprintf(level_db, sizeof level_db, "%.*s/CURRENT", (int)(sizeof level_db - 16), path);
    if (!stat(level_db, &info))
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                               "dataset %s: is a LevelDB; this version reads LMDB: convert the "
                               "images again with --backend=lmdb",
                               path);
    return shoal_error_set(err, SHOAL_ERR_DATA,
                           "dataset %s: the folder has no data.mdb; expected an LMDB, such as "
                           "`shoal convert_mnist_data` makes",
                           path);
}

static ShoalStatus map_file(Lmdb *lmdb, const char *file, ShoalError *err) {
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return no_such_dataset(file, errno, err);
    ShoalStatus status = SHOAL_OK;
    struct stat info;
    if (fstat(fd, &info) || !S_ISREG(info.st_mode)) {
        status = shoal_error_set(err, SHOAL_ERR_DATA, "dataset %s: not a file or folder", file);
        goto err_close;
    }
    if (info.st_size <= 0 || (uint64_t)info.st_size > SIZE_MAX / 2) {
        status = shoal_error_set(err, SHOAL_ERR_DATA,
                                 "dataset %s: %lld bytes; expected an LMDB of a size that this "
                                 "machine can address",
                                 file, (long long)info.st_size);
        goto err_close;
    }
    void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        status = shoal_error_set(err, SHOAL_ERR_IO, "dataset %s: cannot map %lld bytes: %s", file,
                                 (long long)info.st_size, strerror(errno));
        goto err_close;
    }
    lmdb->map = map;
    lmdb->map_size = (size_t)info.st_size;
err_close:
    close(fd);
    return status;
}

/* Visits every record; tells whether they all lie in the file. */
static const char *walk(const Lmdb *lmdb) {
    ShoalLmdbCursor cursor;
    ShoalLmdbSpan value;
    const char *wrong = shoal_lmdb_cursor_first(&lmdb->tree, &cursor);
    for (uint64_t i = 0; !wrong && i < lmdb->tree.entries; i++) {
        uint64_t steps = i ? 1 : 0;
        wrong = shoal_lmdb_cursor_advance(&lmdb->tree, &cursor, &steps);
        if (!wrong && steps)
            wrong = "fewer records than its head says";
        if (!wrong)
            wrong = shoal_lmdb_cursor_get(&lmdb->tree, &cursor, NULL, &value);
    }
    return wrong;
}

static ShoalStatus check_tree(Lmdb *lmdb, ShoalError *err) {
    ShoalLmdbTree *tree = &lmdb->tree;
    const char *wrong = shoal_lmdb_tree_init(tree, lmdb->map, lmdb->map_size);
    if (wrong)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "dataset %s: %s; expected an LMDB, such as `shoal "
                               "convert_mnist_data` makes",
                               lmdb->path, wrong);
    if (!tree->entries)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "dataset %s: has no records; was its conversion interrupted?",
                               lmdb->path);
    /* A writer may leave pages at the end that it took and gave back unwritten. So a short file is
     * sound if no record is missing; found out now rather than in the middle of a training. */
    bool is_short = lmdb->map_size / tree->page_size < tree->pages;
    if (is_short && (tree->entries > lmdb->map_size / MIN_RECORD || walk(lmdb)))
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "dataset %s: cut short: %zu bytes of %llu; copy or convert it again",
                               lmdb->path, lmdb->map_size,
                               (unsigned long long)(tree->pages * tree->page_size));
    wrong = shoal_lmdb_cursor_first(tree, &lmdb->cursor);
    if (wrong)
        return shoal_error_set(err, SHOAL_ERR_DATA, "dataset %s: %s; copy or convert it again",
                               lmdb->path, wrong);
    lmdb->positioned = true;
    return SHOAL_OK;
}

/* A file that lies about its records must not make this large. */
static ShoalStatus make_marks(Lmdb *lmdb, ShoalError *err) {
    uint64_t most = lmdb->map_size / MIN_RECORD;
    uint64_t entries = lmdb->tree.entries < most ? lmdb->tree.entries : most;
    size_t n = (size_t)(entries / MARK_EVERY) + 1;
    lmdb->marks = shoal_calloc(n, sizeof *lmdb->marks);
    return lmdb->marks ? SHOAL_OK : shoal_error_memory(err, lmdb->path, n * sizeof *lmdb->marks);
}

/* Moves the cursor forward to a record. */
static const char *advance(Lmdb *lmdb, uint64_t index) {
    uint64_t steps = index - lmdb->position;
    const char *wrong = shoal_lmdb_cursor_advance(&lmdb->tree, &lmdb->cursor, &steps);
    if (!wrong && steps)
        wrong = "fewer records than its head says";
    if (!wrong)
        lmdb->position = index;
    return wrong;
}

/* Puts the cursor at the last mark that is not behind a record; marks on the way that were never
 * passed before are made. */
static const char *go_to_mark(Lmdb *lmdb, uint64_t index) {
    uint64_t mark = index / MARK_EVERY;
    const char *wrong = NULL;
    if (index >= lmdb->map_size / MIN_RECORD)
        return "fewer records than its head says";
    if (lmdb->n_marks == 0) {
        wrong = shoal_lmdb_cursor_first(&lmdb->tree, &lmdb->marks[0]);
        lmdb->n_marks = wrong ? 0 : 1;
    }
    if (wrong)
        return wrong;
    uint64_t from = mark < lmdb->n_marks ? mark : lmdb->n_marks - 1;
    lmdb->cursor = lmdb->marks[from];
    lmdb->position = from * MARK_EVERY;
    while (!wrong && lmdb->n_marks <= mark) {
        wrong = advance(lmdb, lmdb->n_marks * MARK_EVERY);
        if (!wrong)
            lmdb->marks[lmdb->n_marks++] = lmdb->cursor;
    }
    return wrong;
}

static const char *seek(Lmdb *lmdb, uint64_t index) {
    bool near = lmdb->positioned && index >= lmdb->position && index - lmdb->position < MARK_EVERY;
    lmdb->positioned = false;
    const char *wrong = near ? NULL : go_to_mark(lmdb, index);
    if (!wrong)
        wrong = advance(lmdb, index);
    lmdb->positioned = !wrong;
    return wrong;
}

static ShoalStatus record(ShoalDataset *dataset, uint64_t index, ShoalRecord *out,
                          ShoalError *err) {
    Lmdb *lmdb = dataset->state;
    ShoalLmdbSpan value;
    const char *wrong = seek(lmdb, index);
    if (!wrong)
        wrong = shoal_lmdb_cursor_get(&lmdb->tree, &lmdb->cursor, NULL, &value);
    if (wrong)
        return shoal_error_set(err, SHOAL_ERR_DATA,
                               "record %llu of %s: %s; copy or convert the dataset again",
                               (unsigned long long)index, lmdb->path, wrong);
    *out = (ShoalRecord){value.bytes, value.size};
    return SHOAL_OK;
}

/* ---- open and close ---- */

static void close_lmdb(void *state) {
    Lmdb *lmdb = state;
    if (lmdb->map)
        munmap(lmdb->map, lmdb->map_size);
    shoal_free(lmdb->marks);
    shoal_free(lmdb);
}

static const ShoalDatasetClass LMDB_CLASS = {.record = record, .close = close_lmdb, .keeps = true};

ShoalStatus shoal_dataset_open_lmdb_at(const char *path, ShoalDataset *dataset, ShoalError *err) {
    char file[4096];
    ShoalStatus status = find_file(path, file, sizeof file, err);
    if (status)
        return status;
    Lmdb *lmdb = shoal_calloc(1, sizeof *lmdb);
    if (!lmdb)
        return shoal_error_memory(err, path, sizeof *lmdb);
    dataset->class = &LMDB_CLASS;
    dataset->state = lmdb;
    lmdb->path = dataset->name;
    status = map_file(lmdb, file, err);
    if (!status)
        status = check_tree(lmdb, err);
    if (!status)
        status = make_marks(lmdb, err);
    dataset->count = lmdb->tree.entries;
    return status;
}

ShoalStatus shoal_dataset_open_lmdb(const Caffe__LayerParameter *layer, ShoalDataset *dataset,
                                    ShoalError *err) {
    return shoal_dataset_open_lmdb_at(layer->data_param->source, dataset, err);
}
