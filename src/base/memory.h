/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_BASE_MEMORY_H
#define SHOAL_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The alignment of every tensor: a cache line, and the widest vector (AVX-512). Bytes. */
#define SHOAL_ALIGN 64

/* Zeroed storage for count objects of size bytes, SHOAL_ALIGN-aligned; NULL when count * size
 * overflows or memory is short (also when the system would promise a large block that it does not
 * have: to touch it would end the process). count 0 gives a valid pointer. Free with shoal_free.
 * Counted (see shoal_memory_allocations). */
void *shoal_calloc(size_t count, size_t size);

/* Frees what shoal_calloc gave; NULL is fine. */
void shoal_free(void *pointer);

/* A copy of a string in shoal_calloc storage; NULL for NULL or when memory is short. */
char *shoal_strdup(const char *text);

/* Memory of the machine and what is free for use now, in bytes, both no more than control groups
 * allow; 0 when the system does not say. */
void shoal_memory_system(unsigned long long *total, unsigned long long *available);

/* How many shoal_calloc calls this process has made: a steady-state iteration makes none. */
uint64_t shoal_memory_allocations(void);

/* a * b and a + b into *out; false (and *out unchanged) on overflow. */
bool shoal_size_mul(size_t a, size_t b, size_t *out);
bool shoal_size_add(size_t a, size_t b, size_t *out);

/* bytes rounded up to a multiple of SHOAL_ALIGN. */
static inline size_t shoal_align_up(size_t bytes) {
    return (bytes + SHOAL_ALIGN - 1) & ~(size_t)(SHOAL_ALIGN - 1);
}

/* A bump allocator over one block: objects that live and die together. */
typedef struct ShoalArena {
    unsigned char *base;
    size_t size, used;
} ShoalArena;

/* Storage of `bytes` (zeroed) for an arena; false when memory is short. */
bool shoal_arena_init(ShoalArena *arena, size_t bytes);
/* The next `bytes`, aligned to SHOAL_ALIGN; NULL when the arena is full. */
void *shoal_arena_take(ShoalArena *arena, size_t bytes);
void shoal_arena_close(ShoalArena *arena);

#endif
