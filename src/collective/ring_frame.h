/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_RING_FRAME_H
#define SHOAL_COLLECTIVE_RING_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Frames on the connections of a ring: a header of 64 bytes, little-endian, then `length` bytes.
 *
 *      0 magic u32        4 kind u16     6 flags u16
 *      8 generation u64  16 operation u64
 *     24 shape u64       32 step u32    36 length u32
 *     40 offset u64      48 payload hash u64
 *     56 check u64: XXH3 of the 56 bytes before
 *
 * operation: running number in the generation. shape: what the operation covers (a sum's count; a
 * hash of a relay's sizes and needy ranks), the same on all ranks. step, offset, length: which part
 * of it; offset and length in bytes on the wire. Encrypted, flag 1: the payload is followed by 16
 * bytes of tag that cover the header, too, and its hash is 0. */

#define SHOAL_RING_HEADER_BYTES 64

#define SHOAL_RING_FLAG_SEALED 1u

/* A credit has operation = how many operations the sender has begun, and nothing else. */
typedef enum ShoalRingKind {
    SHOAL_RING_SUM_FP32 = 1,
    SHOAL_RING_SUM_FP16 = 2,
    SHOAL_RING_SUM_BF16 = 3,
    SHOAL_RING_RELAY = 4,
    SHOAL_RING_CREDIT = 5
} ShoalRingKind;

typedef struct ShoalRingFrame {
    uint16_t kind, flags;
    uint64_t generation, operation, shape;
    uint32_t step, length;
    uint64_t offset, hash;
} ShoalRingFrame;

/* "sum", "sum at fp16", "relay": for messages. */
const char *shoal_ring_kind_name(unsigned kind);

/* The hash of a payload. */
uint64_t shoal_ring_hash(const void *bytes, size_t size);

/* Adds one number to a hash. */
uint64_t shoal_ring_mix(uint64_t hash, uint64_t number);

void shoal_ring_frame_write(const ShoalRingFrame *frame, unsigned char *header);

/* False: damaged, or no frame at all. */
bool shoal_ring_frame_read(const unsigned char *header, ShoalRingFrame *frame);

#endif
