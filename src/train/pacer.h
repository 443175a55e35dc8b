/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_PACER_H
#define SHOAL_TRAIN_PACER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Pauses between the layers of a pass, so that a device computes only for a part of the time, or no
 * more than so many images a second. Pauses are spread over the pass, as slower cores would spread
 * it: what goes on beside the computation, such as sums over the workers, finds the time that it
 * would find on a slow device. */
typedef struct ShoalPacer {
    int pace;          /* images a second; 0: any number */
    atomic_uint duty;  /* of SHOAL_PACER_FULL: part of the time to compute in */
    double image_ns;   /* of computing, for an image of a pass; 0: not known yet */
    int count;         /* images of the pass */
    double part;       /* of `pace` that a pass of this kind takes: a forward pass is a third */
    double debt_ns;    /* pauses that are due */
    double worked_ns;  /* in this pass */
    uint64_t start_ns; /* of the pass */
    uint64_t mark_ns;  /* when the computation went on */
} ShoalPacer;

enum { SHOAL_PACER_FULL = 1000 };

void shoal_pacer_init(ShoalPacer *pacer, int pace);
/* Any thread: 0 .. 1; less than a hundredth counts as that. */
void shoal_pacer_set_duty(ShoalPacer *pacer, float duty);

/* A pass over `count` images begins; train: forward and backward. */
void shoal_pacer_begin(ShoalPacer *pacer, int count, bool train);
/* Another piece of it is done. Waits for what is due, a little at a time, until *cancel; *progress
 * grows meanwhile. */
void shoal_pacer_step(ShoalPacer *pacer, const atomic_bool *cancel, atomic_ulong *progress);
/* All of it is done. */
void shoal_pacer_end(ShoalPacer *pacer, const atomic_bool *cancel, atomic_ulong *progress);

#endif
