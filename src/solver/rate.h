/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_SOLVER_RATE_H
#define SHOAL_SOLVER_RATE_H

#include "caffe/model.h"

/* Learning-rate policies (BVLC Caffe: SGDSolver::GetLearningRate). */

/* Checks that the solver's lr_policy is known and has the fields it needs.
 * SHOAL_ERR_MODEL otherwise. */
ShoalStatus shoal_rate_check(const Caffe__SolverParameter *solver, ShoalError *err);

/* The rate of an iteration. *current_step is the solver's state of the policies `step` and
 * `multistep` (stored in a .solverstate): call once per iteration, in order, because multistep goes
 * on by at most one stepvalue per iteration. Warm-up (Intel Caffe: warmup_iter, warmup_start_lr):
 * linear from warmup_start_lr to base_lr over the first warmup_iter iterations. */
float shoal_rate_at(const Caffe__SolverParameter *solver, int iter, int *current_step);

#endif
