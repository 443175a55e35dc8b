/* SPDX-License-Identifier: Apache-2.0 */
#include "collective/ring_frame.h"

/* On x86 the library chooses among instruction sets when asked to; the hashes are the same. */
#if defined(__x86_64__) && __has_include(<xxh_x86dispatch.h>)
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#include "collective/wire.h"

#define MAGIC 0x46524853u /* "SHRF" */
#define CHECK_AT 56

const char *shoal_ring_kind_name(unsigned kind) {
    switch (kind) {
    case SHOAL_RING_SUM_FP32:
        return "sum";
    case SHOAL_RING_SUM_FP16:
        return "sum at fp16";
    case SHOAL_RING_SUM_BF16:
        return "sum at bf16";
    case SHOAL_RING_RELAY:
        return "relay";
    case SHOAL_RING_CREDIT:
        return "credit";
    default:
        return "unknown operation";
    }
}

uint64_t shoal_ring_hash(const void *bytes, size_t size) {
    return size > 0 ? XXH3_64bits(bytes, size) : 0;
}

uint64_t shoal_ring_mix(uint64_t hash, uint64_t number) {
    return XXH3_64bits_withSeed(&number, sizeof(number), hash);
}

void shoal_ring_frame_write(const ShoalRingFrame *frame, unsigned char *header) {
    shoal_wire_put32(header, MAGIC);
    shoal_wire_put16(header + 4, frame->kind);
    shoal_wire_put16(header + 6, frame->flags);
    shoal_wire_put64(header + 8, frame->generation);
    shoal_wire_put64(header + 16, frame->operation);
    shoal_wire_put64(header + 24, frame->shape);
    shoal_wire_put32(header + 32, frame->step);
    shoal_wire_put32(header + 36, frame->length);
    shoal_wire_put64(header + 40, frame->offset);
    shoal_wire_put64(header + 48, frame->hash);
    shoal_wire_put64(header + CHECK_AT, XXH3_64bits(header, CHECK_AT));
}

bool shoal_ring_frame_read(const unsigned char *header, ShoalRingFrame *frame) {
    if (shoal_wire_get32(header) != MAGIC ||
        shoal_wire_get64(header + CHECK_AT) != XXH3_64bits(header, CHECK_AT))
        return false;
    frame->kind = shoal_wire_get16(header + 4);
    frame->flags = shoal_wire_get16(header + 6);
    frame->generation = shoal_wire_get64(header + 8);
    frame->operation = shoal_wire_get64(header + 16);
    frame->shape = shoal_wire_get64(header + 24);
    frame->step = shoal_wire_get32(header + 32);
    frame->length = shoal_wire_get32(header + 36);
    frame->offset = shoal_wire_get64(header + 40);
    frame->hash = shoal_wire_get64(header + 48);
    return true;
}
