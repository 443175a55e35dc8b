/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_INIT_RECIPE_H
#define SHOAL_TRAIN_INIT_RECIPE_H

#include <stdio.h>

/* How a net of `shoal init` is trained, as "solver.prototxt" for any batch: Goyal et al. 2017,
 * "Accurate, Large Minibatch SGD", and for the largest batches LARS (You, Gitman and Ginsburg 2017,
 * "Large Batch Training of Convolutional Networks"). */

enum { SHOAL_INIT_IMAGENET = 1281167, SHOAL_INIT_LARS_BATCH = 8192 };

typedef struct ShoalInitRecipe {
    const char *name;   /* of the snapshots */
    const char *remark; /* how long, and how the rate falls: a comment of whole lines */
    int images;         /* of one pass */
    double rate;        /* for a batch of rate_batch; others in proportion */
    int rate_batch;
    int warm_passes; /* of growth from `rate`, where the batch is larger */
    const char *decay;
    int test_iter;
    long long samples;                            /* of the whole training */
    long long test_every, show_every, keep_every; /* in samples */
    void (*policy)(FILE *out, int batch);         /* writes lr_policy and its fields */
} ShoalInitRecipe;
void shoal_init_solver(FILE *out, const char *folder, int batch, const ShoalInitRecipe *recipe);

/* Iterations of so many samples, at least 1. */
int shoal_init_iterations(long long samples, int batch);
/* Whatever the locale; 0 <= value < 1e6, 9 digits after the point. */
void shoal_init_number(FILE *out, double value);

#endif
