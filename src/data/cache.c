/* SPDX-License-Identifier: Apache-2.0 */
#include "data/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/error.h"
#include "base/memory.h"

/* FOLDER/cache.id              32 hex digits and a newline; locked by the process that uses it
 * FOLDER/<32 hex>.records      one for each dataset, named after it; records are appended:
 *
 *     0      4      8         16             24              32                      (8 * k)
 *     magic  size   number    check of the   check of these  the record ... and zeros
 *                             record         24 bytes and
 *                                            the dataset
 *
 * Little-endian; checks are XXH3_64bits. The second one is by itself, so that a file can be indexed
 * without reading the records, and so that a damaged size leads nobody astray: where a header is
 * wrong, the next right one is looked for. In memory the same bytes are in blocks. */

enum {
    HEADER_BYTES = 32,
    CHECKED_BYTES = 24, /* of the header, by the header's own check */
    INDEX_BYTES = 32,   /* of memory, about, for a record's slot */
    UNIT = 8,           /* records begin at multiples of this */
    ID_TEXT = 2 * SHOAL_CACHE_ID_BYTES + 1,
    BLOCK_BYTES = 1 << 18,
    WINDOW_BYTES = 1 << 16, /* read at once where records are small */
    SMALL_RECORD = 1 << 13,
    SUB_FOLDERS = 1000
};
#define MAGIC UINT32_C(0x52434853) /* "SHCR" */
#define LARGEST_RECORD UINT32_C(0x7fffffc0)
#define ID_FILE "cache.id"
#define SUFFIX ".records"

typedef enum SlotState { SLOT_FREE, SLOT_HELD, SLOT_LOST } SlotState;

typedef struct Slot {
    uint64_t number, offset;
    uint32_t size, state;
} Slot;

/* All that is held of a dataset: an index over a file, or over blocks. */
typedef struct Shelf {
    ShoalFingerprint dataset;
    bool foreign; /* a file with this name is there, but none that can be used */
    int file;     /* -1: not open (yet), or in memory */
    uint64_t end; /* where the next record goes */
    Slot *slots;  /* a hash table, at most 3/4 full, linear probing */
    size_t n_slots, taken, held;
    unsigned char **blocks;
    size_t n_blocks, block_room;
} Shelf;

struct ShoalCache {
    int folder, lock; /* -1: in memory */
    unsigned char id[SHOAL_CACHE_ID_BYTES];
    uint64_t salt; /* so that nobody can prepare numbers that collide */
    uint64_t limit, used;
    Shelf *shelves;
    size_t n_shelves, shelf_room;
    unsigned char *buffer;
    size_t buffer_bytes;
};

typedef struct Header {
    uint32_t size;
    uint64_t number, check;
} Header;

/* ---- Bytes ---- */

static void put_number(unsigned char *bytes, uint64_t value, int n) {
    for (int i = 0; i < n; i++)
        bytes[i] = (unsigned char)(value >> (8 * i));
}

static uint64_t get_number(const unsigned char *bytes, int n) {
    uint64_t value = 0;
    for (int i = 0; i < n; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static uint64_t header_check(const unsigned char *bytes, const ShoalFingerprint *dataset) {
    unsigned char all[CHECKED_BYTES + sizeof dataset->bytes];
    memcpy(all, bytes, CHECKED_BYTES);
    memcpy(all + CHECKED_BYTES, dataset->bytes, sizeof dataset->bytes);
    return XXH3_64bits(all, sizeof all);
}

static void write_header(unsigned char *bytes, const Header *header,
                         const ShoalFingerprint *dataset) {
    put_number(bytes, MAGIC, 4);
    put_number(bytes + 4, header->size, 4);
    put_number(bytes + 8, header->number, 8);
    put_number(bytes + 16, header->check, 8);
    put_number(bytes + 24, header_check(bytes, dataset), 8);
}

static bool read_header(const unsigned char *bytes, const ShoalFingerprint *dataset,
                        Header *header) {
    header->size = (uint32_t)get_number(bytes + 4, 4);
    header->number = get_number(bytes + 8, 8);
    header->check = get_number(bytes + 16, 8);
    return get_number(bytes, 4) == MAGIC && header->size <= LARGEST_RECORD &&
           get_number(bytes + 24, 8) == header_check(bytes, dataset);
}

/* What a record takes of the file. */
static uint64_t stored_bytes(uint64_t size) {
    return HEADER_BYTES + (size + UNIT - 1) / UNIT * UNIT;
}

static void write_hex(const unsigned char *bytes, size_t n, char *text) {
    for (size_t i = 0; i < n; i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

/* Exactly 2n digits, small letters. */
static bool read_hex(const char *text, unsigned char *bytes, size_t n) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < 2 * n; i++) {
        const char *digit = text[i] ? strchr(digits, text[i]) : NULL;
        if (!digit)
            return false;
        unsigned value = (unsigned)(digit - digits);
        bytes[i / 2] = (unsigned char)(i % 2 ? bytes[i / 2] | value : value << 4);
    }
    return true;
}

/* ---- Files and blocks, read and written at a place ---- */

static bool file_read(int file, uint64_t offset, unsigned char *bytes, size_t size) {
    while (size) {
        ssize_t n = pread(file, bytes, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

static bool file_write(int file, uint64_t offset, const unsigned char *bytes, size_t size) {
    while (size) {
        ssize_t n = pwrite(file, bytes, size, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        bytes += n;
        size -= (size_t)n;
        offset += (uint64_t)n;
    }
    return true;
}

/* The part of [offset, offset + size) in the block that offset is in. */
static unsigned char *block_part(const Shelf *shelf, uint64_t offset, size_t size, size_t *part) {
    size_t begin = (size_t)(offset % BLOCK_BYTES);
    *part = size < BLOCK_BYTES - begin ? size : BLOCK_BYTES - begin;
    return shelf->blocks[offset / BLOCK_BYTES] + begin;
}

static void blocks_read(const Shelf *shelf, uint64_t offset, unsigned char *bytes, size_t size) {
    for (size_t part; size; bytes += part, size -= part, offset += part) {
        const unsigned char *from = block_part(shelf, offset, size, &part);
        memcpy(bytes, from, part);
    }
}

/* Room for n objects of an array whose capacity grows by half. */
static bool grow(void **array, size_t *room, size_t used, size_t n, size_t object) {
    if (n <= *room)
        return true;
    size_t more = n + n / 2 + 4;
    unsigned char *bigger = shoal_calloc(more, object);
    if (!bigger)
        return false;
    if (used)
        memcpy(bigger, *array, used * object);
    shoal_free(*array);
    *array = bigger;
    *room = more;
    return true;
}

static bool blocks_write(Shelf *shelf, uint64_t offset, const unsigned char *bytes, size_t size) {
    while ((uint64_t)shelf->n_blocks * BLOCK_BYTES < offset + size) {
        void *blocks = shelf->blocks;
        if (!grow(&blocks, &shelf->block_room, shelf->n_blocks, shelf->n_blocks + 1,
                  sizeof *shelf->blocks))
            return false;
        shelf->blocks = blocks;
        unsigned char *block = shoal_calloc(BLOCK_BYTES, 1);
        if (!block)
            return false;
        shelf->blocks[shelf->n_blocks++] = block;
    }
    for (size_t part; size; bytes += part, size -= part, offset += part) {
        unsigned char *to = block_part(shelf, offset, size, &part);
        memcpy(to, bytes, part);
    }
    return true;
}

static bool grow_buffer(ShoalCache *cache, size_t size) {
    if (size <= cache->buffer_bytes)
        return true;
    unsigned char *buffer = shoal_calloc(size + size / 4, 1);
    if (!buffer)
        return false;
    shoal_free(cache->buffer);
    cache->buffer = buffer;
    cache->buffer_bytes = size + size / 4;
    return true;
}

/* ---- The index of a shelf ---- */

static size_t slot_hash(const ShoalCache *cache, uint64_t number) {
    uint64_t mixed = (number ^ cache->salt) * UINT64_C(0x9E3779B97F4A7C15);
    mixed = (mixed ^ mixed >> 29) * UINT64_C(0xBF58476D1CE4E5B9);
    return (size_t)(mixed ^ mixed >> 32);
}

/* The slot of a number, or the free one where it would be; slots: a power of two, not all taken. */
static Slot *find_slot(const ShoalCache *cache, Slot *slots, size_t n_slots, uint64_t number) {
    size_t i = slot_hash(cache, number) & (n_slots - 1);
    while (slots[i].state != SLOT_FREE && slots[i].number != number)
        i = (i + 1) & (n_slots - 1);
    return &slots[i];
}

static Slot *find_held(const ShoalCache *cache, const Shelf *shelf, uint64_t number) {
    Slot *slot = shelf->n_slots ? find_slot(cache, shelf->slots, shelf->n_slots, number) : NULL;
    return slot && slot->state == SLOT_HELD ? slot : NULL;
}

static bool grow_index(const ShoalCache *cache, Shelf *shelf) {
    if (shelf->taken + 1 <= shelf->n_slots / 4 * 3)
        return true;
    size_t n_slots = shelf->n_slots ? 2 * shelf->n_slots : 64;
    Slot *slots = shoal_calloc(n_slots, sizeof *slots);
    if (!slots)
        return false;
    for (size_t i = 0; i < shelf->n_slots; i++)
        if (shelf->slots[i].state != SLOT_FREE)
            *find_slot(cache, slots, n_slots, shelf->slots[i].number) = shelf->slots[i];
    shoal_free(shelf->slots);
    shelf->slots = slots;
    shelf->n_slots = n_slots;
    return true;
}

/* Notes where a record is; the index has room. */
static void note(ShoalCache *cache, Shelf *shelf, uint64_t number, uint64_t offset, uint32_t size) {
    Slot *slot = find_slot(cache, shelf->slots, shelf->n_slots, number);
    if (slot->state == SLOT_FREE) {
        shelf->taken++;
        cache->used += INDEX_BYTES;
    }
    shelf->held += slot->state != SLOT_HELD;
    *slot = (Slot){.number = number, .offset = offset, .size = size, .state = SLOT_HELD};
    cache->used += offset + stored_bytes(size) - shelf->end;
    shelf->end = offset + stored_bytes(size);
}

/* ---- Shelves ---- */

static Shelf *find_shelf(const ShoalCache *cache, const ShoalFingerprint *dataset) {
    for (size_t i = 0; i < cache->n_shelves; i++)
        if (!memcmp(&cache->shelves[i].dataset, dataset, sizeof *dataset))
            return &cache->shelves[i];
    return NULL;
}

static Shelf *add_shelf(ShoalCache *cache, const ShoalFingerprint *dataset) {
    void *shelves = cache->shelves;
    if (!grow(&shelves, &cache->shelf_room, cache->n_shelves, cache->n_shelves + 1,
              sizeof *cache->shelves))
        return NULL;
    cache->shelves = shelves;
    Shelf *shelf = &cache->shelves[cache->n_shelves++];
    *shelf = (Shelf){.dataset = *dataset, .file = -1};
    return shelf;
}

/* Frees what a shelf holds, but for its file. */
static void empty_shelf(ShoalCache *cache, Shelf *shelf) {
    cache->used -= shelf->end + (uint64_t)shelf->taken * INDEX_BYTES;
    for (size_t i = 0; i < shelf->n_blocks; i++)
        shoal_free(shelf->blocks[i]);
    shoal_free(shelf->blocks);
    shoal_free(shelf->slots);
    if (shelf->file >= 0)
        close(shelf->file);
    *shelf = (Shelf){.dataset = shelf->dataset, .file = -1};
}

static void file_name(const ShoalFingerprint *dataset, char name[64]) {
    write_hex(dataset->bytes, sizeof dataset->bytes, name);
    strcpy(name + 2 * sizeof dataset->bytes, SUFFIX);
}

/* A regular file of the folder, whatever else may have its name; -1. */
static int open_regular(int folder, const char *name, int flags, struct stat *info) {
    /* Not to wait for the other end of a pipe. */
    int file = openat(folder, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    if (file >= 0 && (fstat(file, info) || !S_ISREG(info->st_mode))) {
        close(file);
        return -1;
    }
    return file;
}

/* Files are opened when they are needed, so that old datasets cost no descriptors. */
static bool open_shelf(const ShoalCache *cache, Shelf *shelf, int flags) {
    if (cache->folder < 0 || shelf->file >= 0)
        return true;
    char name[64];
    struct stat info;
    file_name(&shelf->dataset, name);
    shelf->file = open_regular(cache->folder, name, O_RDWR | flags, &info);
    return shelf->file >= 0;
}

/* ---- What is in a file ---- */

/* A part of the file in the cache's buffer. */
typedef struct Window {
    const ShoalCache *cache;
    int file;
    uint64_t file_size, begin;
    size_t size, step; /* step: how much to read next time */
} Window;

static const unsigned char *header_at(Window *window, uint64_t offset) {
    if (offset < window->begin || offset + HEADER_BYTES > window->begin + window->size) {
        uint64_t left = window->file_size - offset;
        window->begin = offset;
        window->size = left < window->step ? (size_t)left : window->step;
        if (!file_read(window->file, offset, window->cache->buffer, window->size))
            return NULL;
    }
    return window->cache->buffer + (offset - window->begin);
}

/* Indexes the records of a file, up to the limit. False: memory is short. */
static bool index_file(ShoalCache *cache, Shelf *shelf, uint64_t file_size) {
    Window window = {
        .cache = cache, .file = shelf->file, .file_size = file_size, .step = WINDOW_BYTES};
    uint64_t offset = 0;
    while (file_size >= HEADER_BYTES && offset <= file_size - HEADER_BYTES) {
        Header header;
        const unsigned char *bytes = header_at(&window, offset);
        if (!bytes || cache->used - shelf->end + offset + HEADER_BYTES + INDEX_BYTES > cache->limit)
            break;
        window.step = WINDOW_BYTES;
        if (!read_header(bytes, &shelf->dataset, &header) ||
            header.size > file_size - HEADER_BYTES - offset) {
            offset += UNIT;
            continue;
        }
        uint64_t after = offset + stored_bytes(header.size);
        if (cache->used - shelf->end + after + INDEX_BYTES > cache->limit)
            break;
        if (!grow_index(cache, shelf))
            return false;
        note(cache, shelf, header.number, offset, header.size);
        window.step = header.size < SMALL_RECORD ? WINDOW_BYTES : HEADER_BYTES;
        offset = after;
    }
    return true;
}

/* Is a file without any record one of ours that was cut or lost its bytes when the power went? Then
 * it is empty, or begins as ours do, or with the zeros of a block that was never written. */
static bool may_be_ours(int file, uint64_t file_size) {
    unsigned char begin[4], magic[4], zeros[4] = {0};
    size_t n = file_size < 4 ? (size_t)file_size : 4;
    put_number(magic, MAGIC, 4);
    return file_read(file, 0, begin, n) && (!memcmp(begin, magic, n) || !memcmp(begin, zeros, n));
}

/* A shelf for a file that is there; a damaged tail, and what is beyond the limit, is cut off. */
static ShoalStatus load_shelf(ShoalCache *cache, const ShoalFingerprint *dataset, ShoalError *err) {
    Shelf *shelf = add_shelf(cache, dataset);
    if (!shelf)
        return shoal_error_memory(err, "the cache", sizeof *shelf);
    char name[64];
    struct stat info;
    file_name(dataset, name);
    shelf->file = open_regular(cache->folder, name, O_RDWR, &info);
    bool usable =
        shelf->file >= 0 && index_file(cache, shelf, (uint64_t)info.st_size) &&
        (shelf->held || may_be_ours(shelf->file, (uint64_t)info.st_size)) &&
        ((uint64_t)info.st_size <= shelf->end || !ftruncate(shelf->file, (off_t)shelf->end));
    if (!usable) {
        empty_shelf(cache, shelf);
        shelf->foreign = true;
    } else if (shelf->file >= 0) {
        close(shelf->file);
        shelf->file = -1;
    }
    return SHOAL_OK;
}

typedef struct Found {
    ShoalFingerprint dataset;
    struct timespec written;
} Found;

/* The youngest first: where the limit has become lower, old datasets lose. */
static int compare_found(const void *a, const void *b) {
    const Found *x = a, *y = b;
    if (x->written.tv_sec != y->written.tv_sec)
        return x->written.tv_sec < y->written.tv_sec ? 1 : -1;
    if (x->written.tv_nsec != y->written.tv_nsec)
        return x->written.tv_nsec < y->written.tv_nsec ? 1 : -1;
    return memcmp(&x->dataset, &y->dataset, sizeof x->dataset);
}

static ShoalStatus find_files(int folder, const char *path, Found **found, size_t *n,
                              ShoalError *err) {
    int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = copy >= 0 ? fdopendir(copy) : NULL;
    if (!listing) {
        ShoalStatus status = shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot list the folder: %s",
                                             path, strerror(errno));
        if (copy >= 0)
            close(copy);
        return status;
    }
    ShoalStatus status = SHOAL_OK;
    size_t room = 0;
    void *array = NULL;
    const struct dirent *entry;
    *n = 0;
    while (!status && (entry = readdir(listing))) {
        Found one;
        struct stat info;
        if (!read_hex(entry->d_name, one.dataset.bytes, sizeof one.dataset.bytes) ||
            strcmp(entry->d_name + 2 * sizeof one.dataset.bytes, SUFFIX) ||
            fstatat(folder, entry->d_name, &info, AT_SYMLINK_NOFOLLOW))
            continue;
        one.written = info.st_mtim;
        if (grow(&array, &room, *n, *n + 1, sizeof one))
            ((Found *)array)[(*n)++] = one;
        else
            status = shoal_error_memory(err, "the cache", (*n + 1) * sizeof one);
    }
    closedir(listing);
    if (*n)
        qsort(array, *n, sizeof(Found), compare_found);
    *found = array;
    return status;
}

static ShoalStatus load(ShoalCache *cache, const char *path, ShoalError *err) {
    if (!grow_buffer(cache, WINDOW_BYTES))
        return shoal_error_memory(err, "the cache", WINDOW_BYTES);
    Found *found = NULL;
    size_t n = 0;
    ShoalStatus status = find_files(cache->folder, path, &found, &n, err);
    for (size_t i = 0; i < n && !status; i++)
        status = load_shelf(cache, &found[i].dataset, err);
    shoal_free(found);
    return status;
}

/* ---- The folder ---- */

static bool fill_random(void *bytes, size_t size) {
    return getrandom(bytes, size, 0) == (ssize_t)size;
}

/* The id of a locked folder; a new one where there is none that can be read. */
static bool read_id(ShoalCache *cache) {
    char text[ID_TEXT + 1] = {0};
    struct stat info;
    if (!fstat(cache->lock, &info) && info.st_size == ID_TEXT &&
        file_read(cache->lock, 0, (unsigned char *)text, ID_TEXT) && text[ID_TEXT - 1] == '\n' &&
        read_hex(text, cache->id, sizeof cache->id))
        return true;
    if (!fill_random(cache->id, sizeof cache->id))
        return false;
    write_hex(cache->id, sizeof cache->id, text);
    text[ID_TEXT - 1] = '\n';
    return !ftruncate(cache->lock, 0) &&
           file_write(cache->lock, 0, (const unsigned char *)text, ID_TEXT);
}

/* mkdir -p */
static bool make_folders(const char *path) {
    if (!mkdir(path, 0700) || errno == EEXIST)
        return true;
    char *above = errno == ENOENT ? shoal_strdup(path) : NULL;
    bool made = false;
    for (char *slash = above ? above + strlen(above) : NULL; slash && slash > above; slash--)
        if (*slash == '/') {
            *slash = '\0';
            made = make_folders(above) && (!mkdir(path, 0700) || errno == EEXIST);
            break;
        }
    shoal_free(above);
    return made;
}

/* Takes a folder for this process alone. False, and errno EWOULDBLOCK: another one has it. */
static bool lock_folder(ShoalCache *cache, int beside, const char *path) {
    struct stat info;
    cache->folder = openat(beside, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (cache->folder < 0)
        return false;
    cache->lock = open_regular(cache->folder, ID_FILE, O_RDWR | O_CREAT, &info);
    if (cache->lock >= 0 && !flock(cache->lock, LOCK_EX | LOCK_NB) && read_id(cache))
        return true;
    int why = errno;
    if (cache->lock >= 0)
        close(cache->lock);
    close(cache->folder);
    cache->lock = cache->folder = -1;
    errno = why;
    return false;
}

/* The folder itself, or where other workers of this machine have it, FOLDER/1, FOLDER/2, ... */
static ShoalStatus take_folder(ShoalCache *cache, const char *path, ShoalError *err) {
    int base = -1;
    if (make_folders(path))
        base = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool taken = base >= 0 && lock_folder(cache, base, ".");
    /* Something else may be called "1". */
    for (int i = 1; base >= 0 && !taken && i <= SUB_FOLDERS &&
                    (errno == EWOULDBLOCK || (i > 1 && errno == ENOTDIR));
         i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        if (!mkdirat(base, name, 0700) || errno == EEXIST)
            taken = lock_folder(cache, base, name);
    }
    ShoalStatus status = SHOAL_OK;
    if (!taken)
        status = shoal_error_set(err, SHOAL_ERR_IO,
                                 "%s: cannot keep samples in this folder: %s; give another with "
                                 "--cache-dir",
                                 path, strerror(errno));
    if (base >= 0)
        close(base);
    return status;
}

ShoalStatus shoal_cache_open(const char *folder, uint64_t limit, ShoalCache **cache,
                             ShoalError *err) {
    ShoalCache *made = shoal_calloc(1, sizeof *made);
    if (!made)
        return shoal_error_memory(err, "the cache", sizeof *made);
    made->folder = made->lock = -1;
    made->limit = limit;
    ShoalStatus status = SHOAL_OK;
    if (!fill_random(&made->salt, sizeof made->salt) || !fill_random(made->id, sizeof made->id))
        status = shoal_error_set(err, SHOAL_ERR_IO, "no random numbers from the system: %s",
                                 strerror(errno));
    if (!status && folder)
        status = take_folder(made, folder, err);
    if (!status && folder)
        status = load(made, folder, err);
    if (status)
        shoal_cache_close(made);
    else
        *cache = made;
    return status;
}

void shoal_cache_close(ShoalCache *cache) {
    if (!cache)
        return;
    for (size_t i = 0; i < cache->n_shelves; i++)
        empty_shelf(cache, &cache->shelves[i]);
    shoal_free(cache->shelves);
    shoal_free(cache->buffer);
    if (cache->lock >= 0)
        close(cache->lock);
    if (cache->folder >= 0)
        close(cache->folder);
    shoal_free(cache);
}

/* ---- Records ---- */

const unsigned char *shoal_cache_id(const ShoalCache *cache) {
    return cache->id;
}

uint64_t shoal_cache_limit(const ShoalCache *cache) {
    return cache->limit;
}

uint64_t shoal_cache_used(const ShoalCache *cache) {
    return cache->used;
}

/* The shelf of a dataset, with a file of its own when there was none; NULL: there can be none. */
static Shelf *shelf_for_writing(ShoalCache *cache, const ShoalFingerprint *dataset) {
    Shelf *shelf = find_shelf(cache, dataset);
    if (shelf)
        return !shelf->foreign && open_shelf(cache, shelf, 0) ? shelf : NULL;
    shelf = add_shelf(cache, dataset);
    /* A file that has come since the folder was read is not ours. */
    if (shelf && !open_shelf(cache, shelf, O_CREAT | O_EXCL)) {
        cache->n_shelves--;
        return NULL;
    }
    return shelf;
}

static bool append(ShoalCache *cache, Shelf *shelf, const unsigned char *bytes, size_t size) {
    if (cache->folder < 0)
        return blocks_write(shelf, shelf->end, bytes, size);
    if (file_write(shelf->file, shelf->end, bytes, size))
        return true;
    /* What did get there is of no use, and others may need the disk; the next one goes to the same
     * place, whether this succeeds or not. */
    bool undone = !ftruncate(shelf->file, (off_t)shelf->end);
    (void)undone;
    return false;
}

bool shoal_cache_put(ShoalCache *cache, const ShoalFingerprint *dataset, uint64_t number,
                     const void *bytes, size_t size) {
    const Shelf *known = find_shelf(cache, dataset);
    if (known && find_held(cache, known, number))
        return true;
    if (size > LARGEST_RECORD)
        return false;
    uint64_t cost = stored_bytes(size) + INDEX_BYTES;
    if (cost > cache->limit || cache->used > cache->limit - cost)
        return false;
    size_t all = (size_t)stored_bytes(size);
    if (!grow_buffer(cache, all))
        return false;
    Shelf *shelf = shelf_for_writing(cache, dataset);
    if (!shelf || !grow_index(cache, shelf))
        return false;
    Header header = {.size = (uint32_t)size, .number = number};
    if (size)
        memmove(cache->buffer + HEADER_BYTES, bytes, size);
    memset(cache->buffer + HEADER_BYTES + size, 0, all - HEADER_BYTES - size);
    header.check = XXH3_64bits(cache->buffer + HEADER_BYTES, size);
    write_header(cache->buffer, &header, dataset);
    if (!append(cache, shelf, cache->buffer, all))
        return false;
    note(cache, shelf, number, shelf->end, header.size);
    return true;
}

/* The record of a slot into the buffer; false when it is not what it should be. */
static bool read_record(ShoalCache *cache, Shelf *shelf, const Slot *slot) {
    size_t all = HEADER_BYTES + (size_t)slot->size;
    Header header;
    if (cache->folder < 0)
        blocks_read(shelf, slot->offset, cache->buffer, all);
    else if (!open_shelf(cache, shelf, 0) ||
             !file_read(shelf->file, slot->offset, cache->buffer, all))
        return false;
    return read_header(cache->buffer, &shelf->dataset, &header) && header.size == slot->size &&
           header.number == slot->number &&
           header.check == XXH3_64bits(cache->buffer + HEADER_BYTES, header.size);
}

bool shoal_cache_get(ShoalCache *cache, const ShoalFingerprint *dataset, uint64_t number,
                     const void **bytes, size_t *size) {
    Shelf *shelf = find_shelf(cache, dataset);
    Slot *slot = shelf ? find_held(cache, shelf, number) : NULL;
    if (!slot || !grow_buffer(cache, HEADER_BYTES + (size_t)slot->size))
        return false;
    if (!read_record(cache, shelf, slot)) {
        slot->state = SLOT_LOST;
        shelf->held--;
        return false;
    }
    *bytes = cache->buffer + HEADER_BYTES;
    *size = slot->size;
    return true;
}

static int compare_numbers(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

ShoalStatus shoal_cache_list(ShoalCache *cache, const ShoalFingerprint *dataset, uint64_t **ranges,
                             size_t *n, ShoalError *err) {
    const Shelf *shelf = find_shelf(cache, dataset);
    size_t held = shelf ? shelf->held : 0, count = 0;
    uint64_t *list = shoal_calloc(2 * held, sizeof *list);
    uint64_t *numbers = shoal_calloc(held, sizeof *numbers);
    if (!list || !numbers) {
        shoal_free(list);
        shoal_free(numbers);
        return shoal_error_memory(err, "the list of cached samples", held * 3 * sizeof *list);
    }
    for (size_t i = 0; held && i < shelf->n_slots; i++)
        if (shelf->slots[i].state == SLOT_HELD)
            numbers[count++] = shelf->slots[i].number;
    if (count)
        qsort(numbers, count, sizeof *numbers, compare_numbers);
    *n = 0;
    for (size_t i = 0; i < count; i++) {
        if (!i || numbers[i] != numbers[i - 1] + 1) {
            list[(*n)++] = numbers[i];
            list[(*n)++] = 0;
        }
        list[*n - 1]++;
    }
    shoal_free(numbers);
    *ranges = list;
    return SHOAL_OK;
}

bool shoal_cache_dataset(const ShoalCache *cache, size_t i, ShoalFingerprint *dataset) {
    for (size_t s = 0; s < cache->n_shelves; s++)
        if (cache->shelves[s].held && !i--) {
            *dataset = cache->shelves[s].dataset;
            return true;
        }
    return false;
}

void shoal_cache_forget(ShoalCache *cache, const ShoalFingerprint *dataset) {
    Shelf *shelf = find_shelf(cache, dataset);
    if (!shelf || shelf->foreign)
        return;
    empty_shelf(cache, shelf);
    if (cache->folder >= 0) {
        char name[64];
        file_name(dataset, name);
        shelf->foreign = unlinkat(cache->folder, name, 0) && errno != ENOENT;
    }
    if (!shelf->foreign)
        *shelf = cache->shelves[--cache->n_shelves];
}
