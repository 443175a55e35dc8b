/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_LMDB_TREE_H
#define SHOAL_DATA_LMDB_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A walk over the main database of an LMDB file image, which believes nothing: each page number,
 * offset and length is held against the image before it is followed. Pure: memory in, memory out.
 *
 * Format (LMDB 0.9, data version 1, mdb.c: MDB_meta, MDB_page, MDB_node), in the byte order and
 * word size of the machine that wrote it; only 64-bit words are read:
 *
 *   file   = page 0 (meta) | page 1 (meta) | page 2 ...          the meta with the higher txnid
 * wins page   = u64 number | u16 - | u16 flags | u16 lower | u16 upper | u16 offsets[] ... nodes
 *   branch = u16 lo | u16 hi | u16 top | u16 key size | key       child page = lo + hi<<16 +
 * top<<32 leaf   = u16 lo | u16 hi | u16 flags | u16 key size | key | value      value size = lo +
 * hi<<16 flag 1: in place of the value stands the u64 number of its first overflow page, where the
 * value begins 16 bytes in and runs over the page ends */

#define SHOAL_LMDB_DEPTH 32 /* as deep as liblmdb goes (CURSOR_STACK) */

typedef struct ShoalLmdbTree {
    const unsigned char *image;
    size_t size;      /* bytes of the image */
    size_t page_size; /* bytes */
    uint64_t root;    /* page number */
    uint64_t entries; /* records; 0: an empty tree */
    uint64_t pages;   /* pages that the writer had in use; the image may hold fewer: cut short */
    unsigned depth;   /* levels; leaves are at depth - 1 */
} ShoalLmdbTree;

/* Where in the tree: for each level a page and the entry taken in it. */
typedef struct ShoalLmdbCursor {
    uint64_t page[SHOAL_LMDB_DEPTH];
    unsigned entry[SHOAL_LMDB_DEPTH];
    unsigned entries[SHOAL_LMDB_DEPTH];
} ShoalLmdbCursor;

typedef struct ShoalLmdbSpan {
    const unsigned char *bytes;
    size_t size;
} ShoalLmdbSpan;

/* All functions return NULL, or what is wrong in a few static words ("page number beyond the end of
 * the file") with their outputs unspecified. */

/* Reads the meta pages of an image, which must outlive the tree. Only the head is looked at. */
const char *shoal_lmdb_tree_init(ShoalLmdbTree *tree, const void *image, size_t size);

/* Puts the cursor on the first record of a tree that has entries. */
const char *shoal_lmdb_cursor_first(const ShoalLmdbTree *tree, ShoalLmdbCursor *cursor);

/* Moves on by up to *steps records, without looking at those in between; *steps becomes what is
 * left: not 0 means that the tree ended, and the cursor is on its last record. */
const char *shoal_lmdb_cursor_advance(const ShoalLmdbTree *tree, ShoalLmdbCursor *cursor,
                                      uint64_t *steps);

/* The record that the cursor is on; both spans lie in the image. key may be NULL. */
const char *shoal_lmdb_cursor_get(const ShoalLmdbTree *tree, const ShoalLmdbCursor *cursor,
                                  ShoalLmdbSpan *key, ShoalLmdbSpan *value);

#endif
