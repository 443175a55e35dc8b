/* SPDX-License-Identifier: Apache-2.0 */
#include "data/lmdb_tree.h"

#include <string.h>

#define MAGIC 0xBEEFC0DEu
#define DATA_VERSION 1u
#define NO_PAGE UINT64_MAX
#define PAGE_HEAD 16
#define NODE_HEAD 8
#define MIN_PAGE 512
#define MAX_PAGE 32768

enum { PAGE_BRANCH = 1, PAGE_LEAF = 2, PAGE_OVERFLOW = 4, PAGE_META = 8, PAGE_KIND = 0x2f };
enum { NODE_BIG = 1 };

/* Offsets in a meta page; a database is described by 48 bytes, the main one is the second. */
enum {
    META_MAGIC = PAGE_HEAD,
    META_VERSION = META_MAGIC + 4,
    META_FREE_DB = META_VERSION + 4 + 8 + 8,
    META_MAIN_DB = META_FREE_DB + 48,
    META_LAST_PAGE = META_MAIN_DB + 48,
    META_TXNID = META_LAST_PAGE + 8,
    META_END = META_TXNID + 8
};
enum { DB_PAGE_SIZE = 0, DB_DEPTH = 6, DB_ENTRIES = 32, DB_ROOT = 40 };

static uint16_t get16(const unsigned char *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint32_t get32(const unsigned char *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t get64(const unsigned char *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static const char *check_meta(const unsigned char *page, size_t left) {
    if (left < META_END)
        return "shorter than its head";
    if (get32(page + META_MAGIC) != MAGIC || (get16(page + 10) & PAGE_META) == 0)
        return "not an LMDB (no magic number in its head)";
    if (get32(page + META_VERSION) != DATA_VERSION)
        return "an LMDB of another format version than 1";
    return NULL;
}

static const char *read_meta(ShoalLmdbTree *tree, const unsigned char *meta) {
    const unsigned char *db = meta + META_MAIN_DB;
    uint64_t last = get64(meta + META_LAST_PAGE);
    tree->root = get64(db + DB_ROOT);
    tree->entries = tree->root == NO_PAGE ? 0 : get64(db + DB_ENTRIES);
    tree->depth = get16(db + DB_DEPTH);
    if (last >= UINT64_MAX / MAX_PAGE)
        return "impossible number of pages in its head";
    tree->pages = last + 1;
    if (tree->entries && (tree->depth < 1 || tree->depth > SHOAL_LMDB_DEPTH))
        return "impossible depth in its head";
    /* A record takes a node head and an offset at least; more cannot be honest. */
    if (tree->entries / tree->pages > tree->page_size / (NODE_HEAD + 2))
        return "more records in its head than its pages can hold";
    return NULL;
}

const char *shoal_lmdb_tree_init(ShoalLmdbTree *tree, const void *image, size_t size) {
    const unsigned char *first = image;
    const char *wrong = check_meta(first, size);
    if (wrong)
        return wrong;
    size_t page_size = get32(first + META_FREE_DB + DB_PAGE_SIZE);
    if (page_size < MIN_PAGE || page_size > MAX_PAGE || (page_size & (page_size - 1)))
        return "impossible page size in its head";
    if (size < 2 * page_size)
        return "shorter than its head";
    const unsigned char *second = first + page_size;
    wrong = check_meta(second, size - page_size);
    if (wrong)
        return wrong;
    *tree = (ShoalLmdbTree){.image = image, .size = size, .page_size = page_size};
    bool newer = get64(second + META_TXNID) > get64(first + META_TXNID);
    return read_meta(tree, newer ? second : first);
}

/* A page that lies in the image and is of the kind that its level must have. */
static const char *find_page(const ShoalLmdbTree *tree, uint64_t number, unsigned level,
                             const unsigned char **page, unsigned *entries) {
    if (number >= tree->size / tree->page_size)
        return "page beyond the end of the file";
    const unsigned char *p = tree->image + number * tree->page_size;
    unsigned kind = level + 1 == tree->depth ? PAGE_LEAF : PAGE_BRANCH;
    if (get64(p) != number || (get16(p + 10) & PAGE_KIND) != kind)
        return "damaged page (number or kind)";
    unsigned lower = get16(p + 12);
    if (lower <= PAGE_HEAD || lower > tree->page_size || lower % 2)
        return "damaged page (entry count)";
    *page = p;
    *entries = (lower - PAGE_HEAD) / 2;
    return NULL;
}

/* The node of an entry: its head and key lie in the page; *room bytes follow the key. */
static const char *find_node(const ShoalLmdbTree *tree, const unsigned char *page, unsigned entry,
                             const unsigned char **node, size_t *room) {
    size_t offset = get16(page + PAGE_HEAD + 2 * entry);
    if (offset < get16(page + 12) || offset + NODE_HEAD > tree->page_size)
        return "damaged page (entry out of the page)";
    size_t key = get16(page + offset + 6);
    if (offset + NODE_HEAD + key > tree->page_size)
        return "damaged page (key out of the page)";
    *node = page + offset;
    *room = tree->page_size - offset - NODE_HEAD - key;
    return NULL;
}

static const char *enter(const ShoalLmdbTree *tree, ShoalLmdbCursor *cursor, unsigned level,
                         uint64_t number) {
    const unsigned char *page;
    cursor->page[level] = number;
    cursor->entry[level] = 0;
    return find_page(tree, number, level, &page, &cursor->entries[level]);
}

/* Goes from the entry taken at `level` down to the first leaf below it. */
static const char *descend(const ShoalLmdbTree *tree, ShoalLmdbCursor *cursor, unsigned level) {
    for (; level + 1 < tree->depth; level++) {
        const unsigned char *page = tree->image + cursor->page[level] * tree->page_size, *node;
        size_t room;
        const char *wrong = find_node(tree, page, cursor->entry[level], &node, &room);
        if (wrong)
            return wrong;
        uint64_t child =
            get16(node) | (uint64_t)get16(node + 2) << 16 | (uint64_t)get16(node + 4) << 32;
        wrong = enter(tree, cursor, level + 1, child);
        if (wrong)
            return wrong;
    }
    return NULL;
}

const char *shoal_lmdb_cursor_first(const ShoalLmdbTree *tree, ShoalLmdbCursor *cursor) {
    const char *wrong = enter(tree, cursor, 0, tree->root);
    return wrong ? wrong : descend(tree, cursor, 0);
}

/* Moves to the first record of the next leaf; *moved is false when this was the last one. */
static const char *next_leaf(const ShoalLmdbTree *tree, ShoalLmdbCursor *cursor, bool *moved) {
    *moved = false;
    for (unsigned level = tree->depth - 1; level-- > 0;) {
        if (cursor->entry[level] + 1 >= cursor->entries[level])
            continue;
        cursor->entry[level]++;
        *moved = true;
        return descend(tree, cursor, level);
    }
    return NULL;
}

const char *shoal_lmdb_cursor_advance(const ShoalLmdbTree *tree, ShoalLmdbCursor *cursor,
                                      uint64_t *steps) {
    unsigned leaf = tree->depth - 1;
    for (;;) {
        unsigned here = cursor->entries[leaf] - 1 - cursor->entry[leaf];
        if (*steps <= here) {
            cursor->entry[leaf] += (unsigned)*steps;
            *steps = 0;
            return NULL;
        }
        bool moved;
        const char *wrong = next_leaf(tree, cursor, &moved);
        if (wrong)
            return wrong;
        if (!moved) {
            cursor->entry[leaf] += here;
            *steps -= here;
            return NULL;
        }
        *steps -= here + 1;
    }
}

static const char *find_big(const ShoalLmdbTree *tree, const unsigned char *at, size_t size,
                            ShoalLmdbSpan *value) {
    uint64_t number = get64(at);
    if (number >= tree->size / tree->page_size)
        return "value beyond the end of the file";
    const unsigned char *page = tree->image + number * tree->page_size;
    if (get64(page) != number || (get16(page + 10) & PAGE_KIND) != PAGE_OVERFLOW)
        return "damaged page (number or kind)";
    if ((uint64_t)get32(page + 12) * tree->page_size < (uint64_t)size + PAGE_HEAD)
        return "damaged page (value longer than its pages)";
    if (tree->size - number * tree->page_size - PAGE_HEAD < size)
        return "value beyond the end of the file";
    *value = (ShoalLmdbSpan){page + PAGE_HEAD, size};
    return NULL;
}

const char *shoal_lmdb_cursor_get(const ShoalLmdbTree *tree, const ShoalLmdbCursor *cursor,
                                  ShoalLmdbSpan *key, ShoalLmdbSpan *value) {
    unsigned leaf = tree->depth - 1;
    const unsigned char *page = tree->image + cursor->page[leaf] * tree->page_size, *node;
    size_t room;
    const char *wrong = find_node(tree, page, cursor->entry[leaf], &node, &room);
    if (wrong)
        return wrong;
    size_t key_size = get16(node + 6);
    const unsigned char *rest = node + NODE_HEAD + key_size;
    size_t size = get16(node) | (size_t)get16(node + 2) << 16;
    unsigned flags = get16(node + 4);
    if (flags & ~(unsigned)NODE_BIG)
        return "a named or duplicate-key database, not a plain one";
    if (key)
        *key = (ShoalLmdbSpan){node + NODE_HEAD, key_size};
    if (flags & NODE_BIG)
        return room < 8 ? "damaged page (entry out of the page)"
                        : find_big(tree, rest, size, value);
    if (size > room)
        return "damaged page (value out of the page)";
    *value = (ShoalLmdbSpan){rest, size};
    return NULL;
}
