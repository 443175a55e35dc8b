/* SPDX-License-Identifier: Apache-2.0 */
#include "train/chunk.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"

ShoalStatus shoal_buffer_append(ShoalBuffer *buffer, const void *bytes, size_t n, const char *what,
                                ShoalError *err) {
    if (n > buffer->size - buffer->used) {
        size_t size = 2 * buffer->size + n;
        unsigned char *bigger = shoal_calloc(size, 1);
        if (!bigger)
            return shoal_error_memory(err, what, size);
        if (buffer->used)
            memcpy(bigger, buffer->bytes, buffer->used);
        shoal_free(buffer->bytes);
        buffer->bytes = bigger;
        buffer->size = size;
    }
    if (n)
        memcpy(buffer->bytes + buffer->used, bytes, n);
    buffer->used += n;
    return SHOAL_OK;
}

void shoal_buffer_close(ShoalBuffer *buffer) {
    shoal_free(buffer->bytes);
    *buffer = (ShoalBuffer){0};
}

size_t shoal_chunk_cut(Shoal__ChunkKind kind, uint64_t id, const void *bytes, size_t size,
                       size_t at, Shoal__Chunk *chunk) {
    size_t n = size - at < SHOAL_MESSAGE_CHUNK_BYTES ? size - at : SHOAL_MESSAGE_CHUNK_BYTES;
    shoal__chunk__init(chunk);
    chunk->kind = kind;
    chunk->id = id;
    chunk->offset = at;
    chunk->total = size;
    chunk->content.data = (unsigned char *)bytes + at;
    chunk->content.len = n;
    return at + n;
}
