/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_INIT_LAYERS_H
#define SHOAL_TRAIN_INIT_LAYERS_H

#include <stdbool.h>
#include <stdio.h>

/* The layers of `shoal init` as prototxt text, one function per layer type. Numbers that are no
 * whole ones are given as text, so that the locale cannot change them. */

/* Fillers, as the inside of a `weight_filler { }`. */
#define SHOAL_INIT_MSRA "type: \"msra\""
#define SHOAL_INIT_XAVIER "type: \"xavier\""

/* Data layers of both phases, "data" and "label". */
typedef struct ShoalInitData {
    const char *train_lmdb, *test_lmdb; /* names inside of folder */
    const char *folder;
    int train_batch, test_batch;
    int crop; /* 0: none */
    bool mirror;
    const char *means[3]; /* per channel; means[0] NULL: none */
    const char *scale;    /* NULL: 1 */
} ShoalInitData;
void shoal_init_data(FILE *out, const ShoalInitData *data);

/* What Convolution and InnerProduct have in common. */
typedef struct ShoalInitWeights {
    const char *filler;
    bool bias;
    const char *bias_value; /* NULL: 0 */
    const char *bias_lr;    /* lr_mult; NULL: 1 */
    const char *decay;      /* decay_mult of the weights; NULL: 1. A bias has 0 */
} ShoalInitWeights;

typedef struct ShoalInitConv {
    int outputs, kernel, stride, pad, group; /* stride and group 0: 1 */
} ShoalInitConv;
void shoal_init_conv(FILE *out, const char *name, const char *bottom, const ShoalInitConv *conv,
                     const ShoalInitWeights *weights);
void shoal_init_inner_product(FILE *out, const char *name, const char *bottom, int outputs,
                              const ShoalInitWeights *weights);

/* BatchNorm and Scale, in place. The phase decides whose statistics are used: the batch's in TRAIN,
 * the averages in TEST. */
void shoal_init_norm(FILE *out, const char *norm, const char *scale, const char *blob);
/* With the factors that the Scale begins with; NULL: 1. */
void shoal_init_norm_from(FILE *out, const char *norm, const char *scale, const char *blob,
                          const char *factor);

/* In place. */
void shoal_init_relu(FILE *out, const char *name, const char *blob);
void shoal_init_dropout(FILE *out, const char *name, const char *blob);

void shoal_init_lrn(FILE *out, const char *name, const char *bottom);
void shoal_init_max_pool(FILE *out, const char *name, const char *bottom, int kernel, int stride);
/* As a convolution rounds: down, with a pad. */
void shoal_init_max_pool_padded(FILE *out, const char *name, const char *bottom, int kernel,
                                int stride, int pad);
void shoal_init_global_pool(FILE *out, const char *name, const char *bottom);
void shoal_init_sum(FILE *out, const char *name, const char *a, const char *b);

/* SoftmaxWithLoss, and Accuracy in phase TEST: top 1, and top 5 with `five`. */
void shoal_init_ends(FILE *out, const char *bottom, bool five);

/* A string with its quotes, as the text format wants it. */
void shoal_init_quoted(FILE *out, const char *folder, const char *name);

#endif
