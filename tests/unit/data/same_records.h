/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_DATA_SAME_RECORDS_H
#define TESTS_UNIT_DATA_SAME_RECORDS_H

#include "scratch.h"

#include <lmdb.h>

/* Compares LMDBs, by liblmdb, which knows nothing of ours. */

typedef struct Lmdb {
    MDB_env *env;
    MDB_txn *txn;
    MDB_cursor *cursor;
} Lmdb;

static inline Lmdb open_lmdb(const char *path) {
    Lmdb db;
    MDB_dbi dbi;
    assert_int_equal(mdb_env_create(&db.env), 0);
    assert_int_equal(mdb_env_open(db.env, path, MDB_RDONLY | MDB_NOLOCK, 0), 0);
    assert_int_equal(mdb_txn_begin(db.env, NULL, MDB_RDONLY, &db.txn), 0);
    assert_int_equal(mdb_dbi_open(db.txn, NULL, 0, &dbi), 0);
    assert_int_equal(mdb_cursor_open(db.txn, dbi, &db.cursor), 0);
    return db;
}

static inline void close_lmdb(Lmdb *db) {
    mdb_cursor_close(db->cursor);
    mdb_txn_abort(db->txn);
    mdb_env_close(db->env);
}

/* All of ours, `count` records, are the first ones of theirs: key and value. */
static inline void expect_same_records(const char *our_path, const char *their_path,
                                       unsigned count) {
    Lmdb ours = open_lmdb(our_path), theirs = open_lmdb(their_path);
    MDB_val key[2], value[2];
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(mdb_cursor_get(ours.cursor, &key[0], &value[0], MDB_NEXT), 0);
        assert_int_equal(mdb_cursor_get(theirs.cursor, &key[1], &value[1], MDB_NEXT), 0);
        assert_int_equal(key[0].mv_size, key[1].mv_size);
        assert_memory_equal(key[0].mv_data, key[1].mv_data, key[0].mv_size);
        assert_int_equal(value[0].mv_size, value[1].mv_size);
        assert_memory_equal(value[0].mv_data, value[1].mv_data, value[0].mv_size);
    }
    assert_int_equal(mdb_cursor_get(ours.cursor, &key[0], &value[0], MDB_NEXT), MDB_NOTFOUND);
    close_lmdb(&ours);
    close_lmdb(&theirs);
}

#endif
