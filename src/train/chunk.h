/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_CHUNK_H
#define SHOAL_TRAIN_CHUNK_H

#include <stddef.h>

#include "cluster/messages.h"
#include "shoal/status.h"

/* What is larger than a frame should be (a job, a snapshot) travels in Chunk messages: cut here on
 * one side, put together here on the other. */

/* Bytes put together so far; all zero is empty. */
typedef struct ShoalBuffer {
    unsigned char *bytes;
    size_t used, size;
} ShoalBuffer;

/* Appends n bytes; grows by doubling, with what has really come. SHOAL_ERR_MEMORY names `what`, and
 * the buffer is as before. */
ShoalStatus shoal_buffer_append(ShoalBuffer *buffer, const void *bytes, size_t n, const char *what,
                                ShoalError *err);
/* Frees the bytes; the buffer is empty again. */
void shoal_buffer_close(ShoalBuffer *buffer);

/* Makes *chunk the piece of bytes[0..size) that begins at `at` (< size); it points into bytes.
 * Returns where the next piece begins: size after the last one. */
size_t shoal_chunk_cut(Shoal__ChunkKind kind, uint64_t id, const void *bytes, size_t size,
                       size_t at, Shoal__Chunk *chunk);

#endif
