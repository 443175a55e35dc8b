/* SPDX-License-Identifier: Apache-2.0 */
#include "collective/ring_op.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "collective/halves.h"

/* --- where things are ------------------------------------------------------------------------ */

static size_t chunk_items(const ShoalRingOp *op, unsigned chunk) {
    return op->count / op->size + (chunk < op->count % op->size);
}

static size_t chunk_start(const ShoalRingOp *op, unsigned chunk) {
    size_t extra = op->count % op->size;
    return op->count / op->size * chunk + (chunk < extra ? chunk : extra);
}

static unsigned chunk_out(const ShoalRingOp *op, uint32_t step) {
    return (op->rank + 2 * op->size - step) % op->size;
}

static unsigned chunk_in(const ShoalRingOp *op, uint32_t step) {
    return chunk_out(op, step + 1);
}

static bool is_relay(const ShoalRingOp *op) {
    return op->kind == SHOAL_RING_RELAY;
}

static size_t items_out(const ShoalRingOp *op, uint32_t step) {
    return is_relay(op) ? op->pieces[step].size : chunk_items(op, chunk_out(op, step));
}

static size_t items_in(const ShoalRingOp *op, uint32_t step) {
    return is_relay(op) ? op->pieces[step].size : chunk_items(op, chunk_in(op, step));
}

static float *values_out(const ShoalRingOp *op) {
    return op->values + chunk_start(op, chunk_out(op, op->out.step)) + op->out.offset;
}

static float *values_in(const ShoalRingOp *op) {
    return op->values + chunk_start(op, chunk_in(op, op->in.step)) + op->in.offset;
}

static size_t frame_items(const ShoalRingOp *op, size_t left) {
    size_t most = SHOAL_RING_FRAME_BYTES / op->item_bytes;
    return left < most ? left : most;
}

size_t shoal_ring_op_out_items(const ShoalRingOp *op) {
    if (op->out.step == op->out.steps)
        return 0;
    return frame_items(op, items_out(op, op->out.step) - op->out.offset);
}

size_t shoal_ring_op_in_items(const ShoalRingOp *op) {
    if (op->in.step == op->in.steps)
        return 0;
    return frame_items(op, items_in(op, op->in.step) - op->in.offset);
}

/* --- life ------------------------------------------------------------------------------------ */

static void reset(ShoalRingOp *op, unsigned rank, unsigned size) {
    ShoalRingOp kept = {.pieces = op->pieces, .n_reserved = op->n_reserved};
    *op = kept;
    op->rank = rank;
    op->size = size;
}

void shoal_ring_op_sum(ShoalRingOp *op, unsigned rank, unsigned size, uint16_t kind, float *values,
                       size_t count, float *residual) {
    reset(op, rank, size);
    op->kind = kind;
    op->shape = count;
    op->item_bytes = kind == SHOAL_RING_SUM_FP32 ? sizeof(float) : sizeof(uint16_t);
    op->values = values;
    op->count = count;
    op->residual = residual;
    op->out.steps = op->in.steps = 2 * (size - 1);
}

static bool reserve(ShoalRingOp *op, size_t n) {
    if (n <= op->n_reserved)
        return true;
    ShoalPiece *pieces = shoal_calloc(n, sizeof(*pieces));
    if (!pieces)
        return false;
    shoal_free(op->pieces);
    op->pieces = pieces;
    op->n_reserved = n;
    return true;
}

static uint64_t relay_shape(const ShoalPiece *pieces, size_t n_pieces, const unsigned char *needy,
                            unsigned size) {
    uint64_t shape = shoal_ring_mix(size, n_pieces);
    for (size_t i = 0; i < n_pieces; i++)
        shape = shoal_ring_mix(shape, pieces[i].size);
    for (unsigned r = 0; r < size; r++)
        shape = shoal_ring_mix(shape, needy[r] != 0);
    return shape;
}

ShoalStatus shoal_ring_op_relay(ShoalRingOp *op, unsigned rank, unsigned size,
                                const ShoalPiece *pieces, size_t n_pieces,
                                const unsigned char *needy, ShoalError *err) {
    unsigned giving = 0;
    for (unsigned r = 0; r < size; r++)
        giving += needy[r] == 0;
    if (giving == 0 || n_pieces > UINT32_MAX)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "ring: a relay of %zu pieces from %u of %u ranks; expected no more "
                               "than 4294967295 pieces, and at least one rank that has them",
                               n_pieces, giving, size);
    reset(op, rank, size);
    if (!reserve(op, n_pieces))
        return shoal_error_memory(err, "a relay", n_pieces * sizeof(*pieces));
    if (n_pieces > 0)
        memcpy(op->pieces, pieces, n_pieces * sizeof(*pieces));
    op->n_pieces = n_pieces;
    op->kind = SHOAL_RING_RELAY;
    op->item_bytes = 1;
    op->shape = relay_shape(pieces, n_pieces, needy, size);
    op->takes = needy[rank] != 0;
    op->in.steps = op->takes ? (uint32_t)n_pieces : 0;
    op->out.steps = needy[(rank + 1) % size] ? (uint32_t)n_pieces : 0;
    return SHOAL_OK;
}

void shoal_ring_op_close(ShoalRingOp *op) {
    shoal_free(op->pieces);
    op->pieces = NULL;
    op->n_reserved = 0;
}

/* --- streams --------------------------------------------------------------------------------- */

bool shoal_ring_op_is_sendable(const ShoalRingOp *op) {
    if (op->out.done)
        return false;
    if (shoal_ring_op_out_items(op) == 0)
        return true;
    uint32_t source = op->out.step; /* the step in which it comes */
    if (is_relay(op)) {
        if (!op->takes)
            return true;
    } else {
        if (source == 0)
            return true;
        source--;
    }
    return op->in.step > source || (op->in.step == source && op->in.offset > op->out.offset);
}

uint64_t shoal_ring_op_most_bytes(const ShoalRingOp *op) {
    uint64_t frames = 1, bytes = 0;
    if (!is_relay(op)) {
        uint64_t sent = 2 * (uint64_t)op->count * op->item_bytes;
        return sent + SHOAL_RING_HEADER_BYTES *
                          (1 + 2 * (uint64_t)op->size + sent / SHOAL_RING_FRAME_BYTES);
    }
    for (size_t i = 0; i < op->n_pieces; i++) {
        frames += 1 + op->pieces[i].size / SHOAL_RING_FRAME_BYTES;
        bytes += op->pieces[i].size;
    }
    return bytes + frames * SHOAL_RING_HEADER_BYTES;
}

static void encode(const ShoalRingOp *op, const float *values, uint16_t *halves, size_t n) {
    /* Each value meets its residual once: on its way to the sum, or when the sum is finished. */
    float *residual =
        op->residual && op->out.step < op->size ? op->residual + (values - op->values) : NULL;
    if (op->kind == SHOAL_RING_SUM_FP16)
        shoal_fp16_encode(values, residual, halves, n);
    else
        shoal_bf16_encode(values, residual, halves, n);
}

static void decode(const ShoalRingOp *op, const uint16_t *halves, float *values, size_t n) {
    if (op->kind == SHOAL_RING_SUM_FP16)
        shoal_fp16_decode(halves, values, n);
    else
        shoal_bf16_decode(halves, values, n);
}

static void decode_add(const ShoalRingOp *op, const uint16_t *halves, float *values, size_t n) {
    if (op->kind == SHOAL_RING_SUM_FP16)
        shoal_fp16_decode_add(halves, values, n);
    else
        shoal_bf16_decode_add(halves, values, n);
}

const unsigned char *shoal_ring_op_payload(const ShoalRingOp *op, unsigned char *scratch) {
    size_t n = shoal_ring_op_out_items(op);
    if (n == 0)
        return scratch;
    if (is_relay(op))
        return (const unsigned char *)op->pieces[op->out.step].bytes + op->out.offset;
    float *values = values_out(op);
    if (op->kind == SHOAL_RING_SUM_FP32)
        return (const unsigned char *)values;
    uint16_t *halves = (uint16_t *)(void *)scratch;
    encode(op, values, halves, n);
    /* The finished sum is what all others will get. */
    if (op->out.step == op->size - 1)
        decode(op, halves, values, n);
    return scratch;
}

unsigned char *shoal_ring_op_place(const ShoalRingOp *op) {
    if (shoal_ring_op_in_items(op) == 0)
        return NULL;
    if (is_relay(op))
        return (unsigned char *)op->pieces[op->in.step].bytes + op->in.offset;
    if (op->kind == SHOAL_RING_SUM_FP32 && op->in.step >= op->size - 1)
        return (unsigned char *)values_in(op);
    return NULL;
}

static void add(float *restrict to, const float *restrict from, size_t n) {
    for (size_t i = 0; i < n; i++)
        to[i] += from[i];
}

void shoal_ring_op_take(const ShoalRingOp *op, const unsigned char *payload) {
    size_t n = shoal_ring_op_in_items(op);
    if (n == 0)
        return;
    bool adds = op->in.step < op->size - 1;
    const void *from = payload;
    if (is_relay(op) || (op->kind == SHOAL_RING_SUM_FP32 && !adds))
        memcpy(shoal_ring_op_place(op), from, n * op->item_bytes);
    else if (op->kind == SHOAL_RING_SUM_FP32)
        add(values_in(op), from, n);
    else if (adds)
        decode_add(op, from, values_in(op), n);
    else
        decode(op, from, values_in(op), n);
}

const unsigned char *shoal_ring_op_forward(const ShoalRingOp *op, uint32_t *step, bool *adds) {
    if (shoal_ring_op_in_items(op) == 0)
        return NULL;
    *step = op->in.step + !is_relay(op);
    *adds = !is_relay(op) && op->in.step < op->size - 1;
    if (*step >= op->out.steps)
        return NULL;
    if (is_relay(op))
        return shoal_ring_op_place(op);
    return op->kind == SHOAL_RING_SUM_FP32 ? (const unsigned char *)values_in(op) : NULL;
}

void shoal_ring_op_sent(ShoalRingOp *op) {
    ShoalRingCursor *out = &op->out;
    out->offset += shoal_ring_op_out_items(op);
    out->opened = true;
    while (out->step < out->steps && out->offset == items_out(op, out->step)) {
        out->step++;
        out->offset = 0;
    }
    out->done = out->step == out->steps;
}

void shoal_ring_op_received(ShoalRingOp *op) {
    ShoalRingCursor *in = &op->in;
    in->offset += shoal_ring_op_in_items(op);
    in->opened = true;
    while (in->step < in->steps && in->offset == items_in(op, in->step)) {
        in->step++;
        in->offset = 0;
    }
    in->done = in->step == in->steps;
}

static void fill_frame(const ShoalRingOp *op, const ShoalRingCursor *cursor, size_t items,
                       ShoalRingFrame *frame) {
    frame->kind = op->kind;
    frame->flags = 0;
    frame->shape = op->shape;
    frame->step = cursor->step;
    frame->length = (uint32_t)(items * op->item_bytes);
    frame->offset = (uint64_t)cursor->offset * op->item_bytes;
    frame->hash = 0;
}

void shoal_ring_op_out_frame(const ShoalRingOp *op, ShoalRingFrame *frame) {
    fill_frame(op, &op->out, shoal_ring_op_out_items(op), frame);
}

void shoal_ring_op_in_frame(const ShoalRingOp *op, ShoalRingFrame *frame) {
    fill_frame(op, &op->in, shoal_ring_op_in_items(op), frame);
}
