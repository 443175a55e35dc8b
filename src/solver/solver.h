/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_SOLVER_SOLVER_H
#define SHOAL_SOLVER_SOLVER_H

#include "caffe/model.h"
#include "net/net.h"

/* The optimizer: turns the gradients of a net into an update of its weights, and carries the state
 * that this needs (momentum). The same gradients give the same bits on every machine. */

typedef struct ShoalSolver ShoalSolver;

/* Checks all fields of a solver that do not depend on a net: type, rate policy, counts, intervals.
 * SHOAL_ERR_MODEL, or SHOAL_ERR_UNSUPPORTED for what this version lacks. */
ShoalStatus shoal_solver_check(const Caffe__SolverParameter *param, ShoalError *err);

/* Parts of the state, each as large as the weights. One of them is not stored but kept for
 * snapshot_diff: what was subtracted last (SGD has it anyway). */
int shoal_solver_parts(const Caffe__SolverParameter *param);

/* A solver for the weights of net; param, which has passed shoal_solver_check, and net must outlive
 * it. */
ShoalStatus shoal_solver_create(const Caffe__SolverParameter *param, ShoalNet *net,
                                ShoalSolver **out, ShoalError *err);
void shoal_solver_destroy(ShoalSolver *solver);

/* Sets all gradients to 0: the begin of an iteration. */
void shoal_solver_clear_gradients(ShoalSolver *solver);

/* The end of iteration iter (from 0): the gradients hold the sum over iter_size sub-batches of the
 * global batch's gradient. In this order (BVLC Caffe: SGDSolver::ApplyUpdate): clip by the global
 * norm (clip_gradients), divide by iter_size, add weight decay, then the rule of the type,
 * subtract. The gradients are garbage afterwards. *clipped_norm (may be NULL) gets the norm when it
 * was clipped, else 0. Allocates nothing. */
void shoal_solver_update(ShoalSolver *solver, const ShoalCompute *compute, int iter, float rate,
                         double *clipped_norm);

/* Puts the last update (what was subtracted) where the gradients are: what Caffe stores as diff
 * with snapshot_diff. Only of use with that. */
void shoal_solver_expose_update(ShoalSolver *solver);

/* The state as Caffe's SolverState: iteration, current_step, name of the weights file, history: a
 * blob for each weight blob, and with AdaDelta and Adam as many once more for the second part.
 * It borrows the history: free it first, with shoal_solver_proto_free. */
ShoalStatus shoal_solver_to_proto(const ShoalSolver *solver, int iter, int current_step,
                                  const char *learned_net, Caffe__SolverState **out,
                                  ShoalError *err);
void shoal_solver_proto_free(Caffe__SolverState *proto);
/* The history from a SolverState. SHOAL_ERR_MODEL when its number of blobs or their sizes are not
 * this net's (nothing is changed then). */
ShoalStatus shoal_solver_load_state(ShoalSolver *solver, const Caffe__SolverState *state,
                                    ShoalError *err);

/* The state: shoal_solver_parts blocks, each laid out as the weights (ShoalNetParams.data). Weights
 * that do not learn have 0 there (in Caffe, the types other than SGD and Nesterov gather squares of
 * their decay, which moves nothing). */
float *shoal_solver_history(ShoalSolver *solver, size_t *count);

#endif
