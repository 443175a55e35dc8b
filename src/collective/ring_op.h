/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_RING_OP_H
#define SHOAL_COLLECTIVE_RING_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "collective/collective.h"
#include "collective/ring_frame.h"

/* One operation of a ring, as two streams of frames: out to the next rank, in from the previous.
 *
 * Both are cut into steps, steps into frames of SHOAL_RING_FRAME_BYTES (the last one of a step may
 * be shorter); both ends of a connection cut alike. Items are values (sums) or bytes (relays).
 *
 * Sum: values is cut into `size` chunks. In step s, 0 <= s < 2 (size - 1), a rank sends chunk
 * rank - s and receives chunk rank - s - 1 (modulo size). In the first size - 1 steps what comes is
 * added; chunk rank + 1 is then finished here, is sent in step size - 1, and from there on what
 * comes replaces. So what is sent in step s + 1 is what came in step s, frame by frame.
 *
 * Relay: the steps are the pieces. A rank that has them sends them, a needy one passes them on.
 *
 * The first frame of a stream is always sent, without payload if need be: it shows the neighbour
 * what this rank takes the operation for. */

#define SHOAL_RING_FRAME_BYTES (128u << 10) /* of payload, at most */

/* Where a stream is. */
typedef struct ShoalRingCursor {
    uint32_t step, steps;
    size_t offset; /* items into the step */
    bool opened;   /* the first frame is over */
    bool done;
} ShoalRingCursor;

typedef struct ShoalRingOp {
    uint16_t kind; /* ShoalRingKind */
    uint64_t shape;
    unsigned rank, size;
    size_t item_bytes; /* on the wire */
    float *values;     /* [count] */
    size_t count;
    float *residual;    /* [count], or NULL */
    ShoalPiece *pieces; /* of a relay; storage for n_reserved of them stays with the op */
    size_t n_pieces, n_reserved;
    bool takes; /* needy */
    ShoalRingCursor out, in;
    uint64_t out_bytes; /* sent, headers included */
} ShoalRingOp;

/* Both begin an operation of this rank; pieces are copied. SHOAL_ERR_MEMORY, SHOAL_ERR_ARGUMENT. */
void shoal_ring_op_sum(ShoalRingOp *op, unsigned rank, unsigned size, uint16_t kind, float *values,
                       size_t count, float *residual);
ShoalStatus shoal_ring_op_relay(ShoalRingOp *op, unsigned rank, unsigned size,
                                const ShoalPiece *pieces, size_t n_pieces,
                                const unsigned char *needy, ShoalError *err);

/* Frees what the op keeps. */
void shoal_ring_op_close(ShoalRingOp *op);

/* Items of the next frame. */
size_t shoal_ring_op_out_items(const ShoalRingOp *op);
size_t shoal_ring_op_in_items(const ShoalRingOp *op);

/* Whether that frame can go now: is its content here? */
bool shoal_ring_op_is_sendable(const ShoalRingOp *op);

/* No more bytes than all frames of either stream have, headers included. */
uint64_t shoal_ring_op_most_bytes(const ShoalRingOp *op);

/* The payload of the next frame out: in place, or made in scratch[SHOAL_RING_FRAME_BYTES]. To be
 * called once for each frame (rounding takes the residual). */
const unsigned char *shoal_ring_op_payload(const ShoalRingOp *op, unsigned char *scratch);

/* Where the payload of the next frame in may be written as it comes; NULL: nowhere, it is for
 * shoal_ring_op_take. */
unsigned char *shoal_ring_op_place(const ShoalRingOp *op);

/* Adds or copies the payload of the next frame in. */
void shoal_ring_op_take(const ShoalRingOp *op, const unsigned char *payload);

/* Where the next frame in, once taken, lies as a frame out of step *step, with the same offset and
 * length; NULL: it is not passed on, or not from memory as it is. *adds: it was added. */
const unsigned char *shoal_ring_op_forward(const ShoalRingOp *op, uint32_t *step, bool *adds);

/* The next frame is over. */
void shoal_ring_op_sent(ShoalRingOp *op);
void shoal_ring_op_received(ShoalRingOp *op);

/* The header of the next frame, but for flags and hash. generation and operation are not set. */
void shoal_ring_op_out_frame(const ShoalRingOp *op, ShoalRingFrame *frame);
void shoal_ring_op_in_frame(const ShoalRingOp *op, ShoalRingFrame *frame);

#endif
