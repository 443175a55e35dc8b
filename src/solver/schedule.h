/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_SOLVER_SCHEDULE_H
#define SHOAL_SOLVER_SCHEDULE_H

#include "caffe/model.h"

/* What a solver does, one step after the other (BVLC Caffe: Solver::Solve and Solver::Step). One
 * process runs the steps itself; a coordinator hands them to its workers. Pure. */

typedef enum ShoalStepKind {
    SHOAL_STEP_TEST,     /* test net number test_net, test_iter batches */
    SHOAL_STEP_TRAIN,    /* one iteration: iter_size sub-batches, one update */
    SHOAL_STEP_SNAPSHOT, /* store weights and state as of iteration iter */
    SHOAL_STEP_LOSS,     /* the forward pass after the last update, to display the loss */
    SHOAL_STEP_END
} ShoalStepKind;

typedef struct ShoalStep {
    ShoalStepKind kind;
    int iter;         /* updates done before this step */
    int test_net;     /* TEST */
    int tests_before; /* TEST: how often this net was tested before, in an unbroken run */
    float rate;       /* TRAIN */
    int current_step; /* TRAIN, SNAPSHOT: after this step, for the .solverstate */
    bool display;     /* TRAIN, LOSS: the user wants to see this iteration */
} ShoalStep;

typedef struct ShoalSchedule {
    const Caffe__SolverParameter *solver;
    int n_test_nets;
    int iter, current_step, start_iter;
    int place, test_net; /* where within an iteration */
    int tests;           /* per net, done so far */
    bool stopping;
} ShoalSchedule;

/* solver is kept by pointer. start_iter and current_step: 0, or those of a .solverstate.
 * unbroken: tests are counted as if the run had begun at iteration 0 (the test data goes on where
 * it would have); else from 0. */
void shoal_schedule_init(ShoalSchedule *schedule, const Caffe__SolverParameter *solver,
                         int n_test_nets, int start_iter, int current_step, bool unbroken);

/* The next step; SHOAL_STEP_END again and again after the last one. */
ShoalStep shoal_schedule_next(ShoalSchedule *schedule);

/* Ctrl-C: after the present iteration a snapshot (if snapshot_after_train), then the end. */
void shoal_schedule_stop(ShoalSchedule *schedule);

#endif
