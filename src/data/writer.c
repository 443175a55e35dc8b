/* SPDX-License-Identifier: Apache-2.0 */
#include "data/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"

#define BATCH_RECORDS 1000
#define BATCH_BYTES ((size_t)64 << 20)
/* Doubled when full. Stored in the file, and readers map as much: a huge one would not fit into a
 * phone's address space. */
#define FIRST_MAP_BYTES ((size_t)64 << 20)
#define MAX_KEY 511

typedef struct Pending {
    size_t key, key_size, value, value_size; /* offsets into the batch's bytes, and sizes */
} Pending;

struct ShoalDatasetWriter {
    char *path, *beside; /* PATH, PATH.tmp */
    int folder;          /* beside, locked */
    MDB_env *env;
    bool failed;
    unsigned char *bytes; /* the pending records, because a full map makes us write them again */
    size_t used, room;
    unsigned count;
    Pending pending[BATCH_RECORDS];
    unsigned char last_key[MAX_KEY]; /* of all committed records; grows while they come in order */
    size_t last_key_size;
};

static void remove_files(ShoalDatasetWriter *writer) {
    unlinkat(writer->folder, "data.mdb", 0);
    unlinkat(writer->folder, "lock.mdb", 0);
}

static void writer_free(ShoalDatasetWriter *writer) {
    if (writer->env)
        mdb_env_close(writer->env);
    if (writer->folder >= 0)
        close(writer->folder);
    shoal_free(writer->bytes);
    shoal_free(writer->path);
    shoal_free(writer->beside);
    shoal_free(writer);
}

void shoal_dataset_writer_discard(ShoalDatasetWriter *writer) {
    if (!writer)
        return;
    if (writer->folder >= 0) {
        remove_files(writer);
        rmdir(writer->beside);
    }
    writer_free(writer);
}

static ShoalStatus fail(ShoalDatasetWriter *writer, int rc, ShoalError *err) {
    writer->failed = true;
    if (rc == ENOMEM)
        return shoal_error_memory(err, writer->path, writer->used);
    if (rc == MDB_KEYEXIST)
        return shoal_error_set(err, SHOAL_ERR_DATA, "%s: two records with the same key",
                               writer->path);
    /* A write that a full disk cuts short is EIO to LMDB. */
    bool full = rc == ENOSPC || rc == EDQUOT || rc == EFBIG || rc == EIO;
    return shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot write: %s; %snothing was kept",
                           writer->path, mdb_strerror(rc),
                           full ? "is the disk full? make room on the disk and start again; " : "");
}

static ShoalStatus check_free(const char *path, ShoalError *err) {
    struct stat info;
    if (!lstat(path, &info))
        return shoal_error_set(err, SHOAL_ERR_IO,
                               "%s: exists already; remove it or choose another name", path);
    if (errno != ENOENT)
        return shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    return SHOAL_OK;
}

/* Makes or takes over PATH.tmp. The lock goes with the process, so a folder without one is left
 * from a killed process. */
static ShoalStatus take_folder(ShoalDatasetWriter *writer, ShoalError *err) {
    const char *beside = writer->beside;
    if (mkdir(beside, 0755) && errno != EEXIST)
        return shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot create the folder: %s", beside,
                               strerror(errno));
    int fd = open(beside, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot open the folder: %s", beside,
                               strerror(errno));
    struct stat mine, named;
    if (flock(fd, LOCK_EX | LOCK_NB) || fstat(fd, &mine) || stat(beside, &named) ||
        mine.st_ino != named.st_ino || mine.st_dev != named.st_dev) {
        close(fd);
        return shoal_error_set(err, SHOAL_ERR_IO,
                               "%s: another process is writing %s; wait for it or stop it", beside,
                               writer->path);
    }
    writer->folder = fd;
    remove_files(writer);
    return SHOAL_OK;
}

static int open_env(ShoalDatasetWriter *writer) {
    int rc = mdb_env_create(&writer->env);
    if (rc) {
        writer->env = NULL;
        return rc;
    }
    rc = mdb_env_set_mapsize(writer->env, FIRST_MAP_BYTES);
    /* No lock: the folder's is ours. No sync: nothing counts before the one in close. */
    if (!rc)
        rc = mdb_env_open(writer->env, writer->beside, MDB_NOLOCK | MDB_NOSYNC, 0664);
    return rc;
}

static char *join(const char *path, size_t length, const char *end) {
    char *text = shoal_calloc(length + strlen(end) + 1, 1);
    if (text) {
        memcpy(text, path, length);
        memcpy(text + length, end, strlen(end));
    }
    return text;
}

ShoalStatus shoal_dataset_writer_create(const char *path, ShoalDatasetWriter **out,
                                        ShoalError *err) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    ShoalDatasetWriter *writer = shoal_calloc(1, sizeof *writer);
    if (!writer)
        return shoal_error_memory(err, path, sizeof *writer);
    writer->folder = -1;
    writer->path = join(path, length, "");
    writer->beside = join(path, length, ".tmp");
    ShoalStatus status = SHOAL_OK;
    if (!writer->path || !writer->beside)
        status = shoal_error_memory(err, path, length);
    if (!status)
        status = check_free(writer->path, err);
    if (!status)
        status = take_folder(writer, err);
    if (status)
        goto err_discard;
    int rc = open_env(writer);
    if (rc) {
        status = fail(writer, rc, err);
        goto err_discard;
    }
    *out = writer;
    return SHOAL_OK;
err_discard:
    shoal_dataset_writer_discard(writer);
    return status;
}

static bool make_room(ShoalDatasetWriter *writer, size_t more) {
    size_t needed;
    if (!shoal_size_add(writer->used, more, &needed))
        return false;
    if (needed <= writer->room)
        return true;
    size_t room = needed > SIZE_MAX / 2 ? needed : needed * 2;
    unsigned char *bytes = shoal_calloc(room, 1);
    if (!bytes)
        return false;
    if (writer->used)
        memcpy(bytes, writer->bytes, writer->used);
    shoal_free(writer->bytes);
    writer->bytes = bytes;
    writer->room = room;
    return true;
}

static ShoalStatus already_failed(const ShoalDatasetWriter *writer, ShoalError *err) {
    return shoal_error_set(err, SHOAL_ERR_IO, "%s: not written, because of an earlier error",
                           writer->path);
}

ShoalStatus shoal_dataset_writer_put(ShoalDatasetWriter *writer, const void *key, size_t key_size,
                                     const void *value, size_t size, ShoalError *err) {
    if (writer->failed)
        return already_failed(writer, err);
    if (key_size < 1 || key_size > MAX_KEY) {
        writer->failed = true;
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "%s: a key of %zu bytes; an LMDB takes 1 to %d", writer->path,
                               key_size, MAX_KEY);
    }
    if (size > INT32_MAX) {
        writer->failed = true;
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "%s: a record of %zu bytes; a message has at most %d", writer->path,
                               size, INT32_MAX);
    }
    if (!make_room(writer, key_size + size)) {
        writer->failed = true;
        return shoal_error_memory(err, writer->path, size);
    }
    Pending *pending = &writer->pending[writer->count++];
    *pending = (Pending){writer->used, key_size, writer->used + key_size, size};
    memcpy(writer->bytes + pending->key, key, key_size);
    if (size)
        memcpy(writer->bytes + pending->value, value, size);
    writer->used += key_size + size;
    if (writer->count == BATCH_RECORDS || writer->used >= BATCH_BYTES)
        return shoal_dataset_writer_commit(writer, err);
    return SHOAL_OK;
}

static bool key_after(const unsigned char *key, size_t size, const unsigned char *last,
                      size_t last_size) {
    int order = memcmp(key, last, size < last_size ? size : last_size);
    return order > 0 || (order == 0 && size > last_size);
}

/* The pending records in one transaction; 0 or the code of LMDB or the system. */
static int write_batch(ShoalDatasetWriter *writer) {
    MDB_txn *txn;
    MDB_dbi dbi;
    int rc = mdb_txn_begin(writer->env, NULL, 0, &txn);
    if (rc)
        return rc;
    rc = mdb_dbi_open(txn, NULL, 0, &dbi);
    const unsigned char *last = writer->last_key;
    size_t last_size = writer->last_key_size;
    for (unsigned i = 0; i < writer->count && !rc; i++) {
        const Pending *p = &writer->pending[i];
        MDB_val key = {p->key_size, writer->bytes + p->key};
        MDB_val value = {p->value_size, writer->bytes + p->value};
        bool in_order = key_after(key.mv_data, key.mv_size, last, last_size);
        /* Appending fills the pages; inserting in order would leave each half empty. */
        rc = mdb_put(txn, dbi, &key, &value, in_order ? MDB_APPEND : MDB_NOOVERWRITE);
        if (in_order) {
            last = writer->bytes + p->key;
            last_size = p->key_size;
        }
    }
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = mdb_txn_commit(txn);
    if (!rc && last != writer->last_key) {
        memcpy(writer->last_key, last, last_size);
        writer->last_key_size = last_size;
    }
    return rc;
}

static int double_map(ShoalDatasetWriter *writer) {
    MDB_envinfo info;
    int rc = mdb_env_info(writer->env, &info);
    if (rc)
        return rc;
    if (info.me_mapsize > SIZE_MAX / 4)
        return ENOMEM;
    return mdb_env_set_mapsize(writer->env, info.me_mapsize * 2);
}

ShoalStatus shoal_dataset_writer_commit(ShoalDatasetWriter *writer, ShoalError *err) {
    if (writer->failed)
        return already_failed(writer, err);
    if (!writer->count)
        return SHOAL_OK;
    int rc;
    while ((rc = write_batch(writer)) == MDB_MAP_FULL) {
        rc = double_map(writer);
        if (rc)
            break;
    }
    if (rc)
        return fail(writer, rc, err);
    writer->count = 0;
    writer->used = 0;
    return SHOAL_OK;
}

/* The rename is on disk only when the folder that holds the name is. */
static void sync_parent(const char *path) {
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    char *parent = slash ? join(path, length ? length : 1, "") : join(".", 1, "");
    int fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        /* Some file systems refuse to sync a folder; the rename is then as safe as they make it. */
        (void)fsync(fd);
        close(fd);
    }
    shoal_free(parent);
}

static ShoalStatus finish(ShoalDatasetWriter *writer, ShoalError *err) {
    ShoalStatus status = shoal_dataset_writer_commit(writer, err);
    if (status)
        return status;
    int rc = mdb_env_sync(writer->env, 1);
    if (rc)
        return fail(writer, rc, err);
    mdb_env_close(writer->env);
    writer->env = NULL;
    (void)fsync(writer->folder);
    /* Once more: someone may have made PATH meanwhile, and an empty folder would be replaced. */
    status = check_free(writer->path, err);
    if (status)
        return status;
    if (rename(writer->beside, writer->path))
        return fail(writer, errno, err);
    sync_parent(writer->path);
    return SHOAL_OK;
}

ShoalStatus shoal_dataset_writer_close(ShoalDatasetWriter *writer, ShoalError *err) {
    ShoalStatus status = finish(writer, err);
    if (status)
        shoal_dataset_writer_discard(writer);
    else
        writer_free(writer);
    return status;
}
