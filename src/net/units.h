/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_NET_UNITS_H
#define SHOAL_NET_UNITS_H

#include "kernels/nchwc.h"
#include "net/internal.h"

/* What a net executes: units. A unit is a layer by itself on plain tensors, or several layers done
 * at once on channel-blocked ones (kernels/nchwc.h), or a change between the two. Blobs that only
 * fused layers touch never exist.
 *
 * - Convolution, BatchNorm, Scale, ReLU are one unit: the convolution's raw output is kept; the
 *   three functions are applied by whoever reads it.
 * - Eltwise (the SUM of two) and ReLU are one unit.
 * - Split is nothing: readers read, gradients add up in place.
 *
 * The tensors between such units are values: raw numbers and the function they are read through.
 * Backward, the readers of a value add into one gradient, last reader first; the last to do so also
 * applies the ReLU's mask and makes the sums that a batch normalisation's gradient needs. */

/* A batch normalisation and / or a scale that a value is read through. Arrays per channel, padded
 * to whole blocks (with 0). */
typedef struct ShoalNorm {
    ShoalLayer *batch_norm, *scale_layer; /* either may be NULL */
    bool batch_statistics;                /* mean and variance are the batch's */
    size_t channels;
    double *mean, *variance;
    double *sum_g, *sum_gz;     /* see ShoalNchwcGradient; sum_gz about center */
    float *scale, *shift;       /* value = scale * raw + shift */
    float *center, *a, *b, *c0; /* raw gradient = a * g + b * raw + c0 */
} ShoalNorm;

typedef struct ShoalValue {
    const ShoalBlob *blob; /* has its shape */
    ShoalNchwcDims dims;
    int producer;    /* unit */
    ShoalNorm *norm; /* NULL: none */
    bool relu;       /* the function ends in a ReLU */
    bool rectified;  /* the raw numbers have been through one: their own mask */
    bool shared;     /* went through a Split: no more functions may be added to it */
    int storage;     /* the value whose raw numbers these are: itself, but for a view */
    int readers;     /* that give a gradient */
    int first_unit, first_input, last_unit, last_input; /* to give one, in backward order */
    int second_unit;                                    /* to give one; -1: none */
    int alias;    /* the value of the sum whose gradient is this one's too; -1: none */
    bool dropped; /* the raw numbers are not kept from forward to backward, but made again there */
    int data_item, grad_item, raw_item; /* places in the memory plan; -1: none */
    int again_item;                     /* of the raw numbers in backward, when they are dropped */
    float *forward_data, *again_data;   /* where the raw numbers lie in forward and in backward */
    float *data, *grad, *raw;           /* raw numbers; gradient of the value; of the raw numbers */
} ShoalValue;

typedef enum ShoalUnitKind {
    SHOAL_UNIT_LAYER,  /* a layer by itself, on plain blobs */
    SHOAL_UNIT_CONV,   /* Convolution */
    SHOAL_UNIT_POOL,   /* Pooling */
    SHOAL_UNIT_SUM,    /* Eltwise: the sum of two */
    SHOAL_UNIT_VIEW,   /* a function on a value that others read without it */
    SHOAL_UNIT_BLOCK,  /* plain blob to value */
    SHOAL_UNIT_UNBLOCK /* value to plain blob */
} ShoalUnitKind;

typedef struct ShoalUnit {
    ShoalUnitKind kind;
    int layer; /* the first of its layers; of a change of layout, the layer that asks for it */
    int inputs, input[2]; /* values */
    bool wants[2];        /* the input gets a gradient */
    int output;           /* value; -1: none */
    ShoalBlob *plain;     /* BLOCK, CONV of an image: from here; UNBLOCK: to here */
    ShoalNchwcConv conv;
    ShoalNchwcPool pool;
    bool max;  /* of POOL */
    bool relu; /* of SUM */
    bool needs_backward;
    int place_item; /* of POOL with max: places of the maxima */
    uint8_t *place;
} ShoalUnit;

/* A dropped value is made again before the backward pass of unit `before`. */
typedef struct ShoalAgain {
    int before, value;
} ShoalAgain;

/* Makes net->units from the layers. Without net->kernels: each layer is a unit. */
ShoalStatus shoal_units_plan(ShoalNet *net, ShoalError *err);
void shoal_units_destroy(ShoalNet *net);

/* Takes over the layers' shapes after a change of the share. */
void shoal_units_reshape(ShoalNet *net);

/* The largest workspace of any unit at any share up to the present one. */
size_t shoal_units_workspace_bytes(ShoalNet *net);

/* Lifetimes (memory.c): calls touch(net, item, step) for what unit `number` uses. */
typedef void ShoalUnitTouch(const ShoalNet *net, int item, int step);
void shoal_units_assign_items(ShoalNet *net, int (*add_item)(ShoalNet *net, size_t bytes));
void shoal_unit_touch(const ShoalNet *net, int number, ShoalUnitTouch *touch);
/* After all touches: when the dropped values are made again (net->again). */
void shoal_units_plan_again(ShoalNet *net, ShoalUnitTouch *touch);

/* One layer on plain blobs (run.c). */
ShoalStatus shoal_layer_run_forward(ShoalNet *net, int layer, const ShoalCompute *compute,
                                    ShoalError *err);
void shoal_layer_run_backward(ShoalNet *net, int layer, const ShoalCompute *compute);

ShoalStatus shoal_unit_forward(ShoalNet *net, int unit, const ShoalCompute *compute,
                               ShoalError *err);
void shoal_unit_backward(ShoalNet *net, int unit, const ShoalCompute *compute);

/* A norm for `channels` channels, arrays for `padded`; NULL when memory is short. */
ShoalNorm *shoal_norm_create(size_t channels, size_t padded);
void shoal_norm_destroy(ShoalNorm *norm);

/* After the batch's statistics are in (batch_statistics), or by the stored ones: sets scale, shift
 * and center, and moves the stored averages. */
void shoal_norm_forward(ShoalNorm *norm);

/* From sum_g and norm->sum_gz: sets a, b, c0 and adds the scale layer's gradients. */
void shoal_norm_backward(ShoalNorm *norm, const double *sum_g, size_t count);

#endif
