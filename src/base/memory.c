/* SPDX-License-Identifier: Apache-2.0 */
#include "base/memory.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include "base/cgroup.h"
#include "base/system.h"

/* Blocks from this size on are compared with the memory that is free. */
#define LARGE_BYTES ((size_t)64 << 20)

/* A page of the larger kind. Blocks of several begin on one, and ask the system for such pages: a
 * net's tensors would else miss the TLB at every row. */
#define HUGE_PAGE_BYTES ((size_t)2 << 20)

static atomic_uint_fast64_t allocations;

bool shoal_size_mul(size_t a, size_t b, size_t *out) {
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

bool shoal_size_add(size_t a, size_t b, size_t *out) {
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}

/* The value of a line "NAME:   N kB" in bytes; 0 when the line is another one. */
static unsigned long long kilobytes(const char *line, const char *name) {
    size_t length = strlen(name);
    unsigned long long value;
    if (strncmp(line, name, length) || sscanf(line + length, ": %llu kB", &value) != 1)
        return 0;
    return value * 1024;
}

static void read_meminfo(unsigned long long *total, unsigned long long *available) {
    *total = *available = 0;
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/proc/meminfo", shoal_system_root());
    FILE *file = n > 0 && (size_t)n < sizeof path ? fopen(path, "re") : NULL;
    if (!file)
        return;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        unsigned long long bytes;
        if ((bytes = kilobytes(line, "MemTotal")))
            *total = bytes;
        if ((bytes = kilobytes(line, "MemAvailable")))
            *available = bytes;
    }
    fclose(file);
}

/* Where a phone shows no /proc: less exact, since caches do not count as free. */
static void ask_system(unsigned long long *total, unsigned long long *available) {
    struct sysinfo info;
    if (sysinfo(&info))
        return;
    *total = (unsigned long long)info.totalram * info.mem_unit;
    *available = ((unsigned long long)info.freeram + info.bufferram) * info.mem_unit;
}

void shoal_memory_system(unsigned long long *total, unsigned long long *available) {
    read_meminfo(total, available);
    if (!*total)
        ask_system(total, available);
    unsigned long long limit, left;
    if (!shoal_cgroup_memory("/proc/self/cgroup", "/sys/fs/cgroup", &limit, &left))
        return;
    *total = *total && *total < limit ? *total : limit;
    *available = *available && *available < left ? *available : left;
}

static bool exceeds_memory(size_t bytes) {
    unsigned long long total, available;
    shoal_memory_system(&total, &available);
    return available && bytes > available;
}

void *shoal_calloc(size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2)
        return NULL;
    if (bytes >= LARGE_BYTES && exceeds_memory(bytes))
        return NULL;
    void *pointer;
    bool huge = bytes >= 2 * HUGE_PAGE_BYTES;
    if (posix_memalign(&pointer, huge ? HUGE_PAGE_BYTES : SHOAL_ALIGN, bytes ? bytes : 1))
        return NULL;
    if (huge) /* a wish: the system may not have any */
        (void)madvise(pointer, bytes & ~(HUGE_PAGE_BYTES - 1), MADV_HUGEPAGE);
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    memset(pointer, 0, bytes);
    return pointer;
}

void shoal_free(void *pointer) {
    free(pointer);
}

char *shoal_strdup(const char *text) {
    if (!text)
        return NULL;
    size_t bytes = strlen(text) + 1;
    char *copy = shoal_calloc(bytes, 1);
    if (copy)
        memcpy(copy, text, bytes);
    return copy;
}

uint64_t shoal_memory_allocations(void) {
    return atomic_load_explicit(&allocations, memory_order_relaxed);
}

bool shoal_arena_init(ShoalArena *arena, size_t bytes) {
    arena->base = shoal_calloc(bytes, 1);
    arena->size = arena->base ? bytes : 0;
    arena->used = 0;
    return arena->base != NULL;
}

void *shoal_arena_take(ShoalArena *arena, size_t bytes) {
    size_t start = shoal_align_up(arena->used);
    if (start > arena->size || bytes > arena->size - start)
        return NULL;
    arena->used = start + bytes;
    return arena->base + start;
}

void shoal_arena_close(ShoalArena *arena) {
    shoal_free(arena->base);
    *arena = (ShoalArena){0};
}
