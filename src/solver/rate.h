/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_SOLVER_RATE_H
#define SHOAL_SOLVER_RATE_H

#include "caffe/model.h"

/* Learning-rate policies (SGDSolver::GetLearningRate of BVLC Caffe, NVCaffe 0.17.4 and Intel Caffe
 * 1.1.6). */

/* Checks that the solver's lr_policy is known and has the fields it needs.
 * SHOAL_ERR_MODEL otherwise. */
ShoalStatus shoal_rate_check(const Caffe__SolverParameter *solver, ShoalError *err);

/* The rate of an iteration. *current_step is the solver's state of the policies `step` and
 * `multistep` (stored in a .solverstate): call once per iteration, in order, because multistep goes
 * on by at most one stepvalue per iteration.
 * Warm-up: in its place, the policy comes into force after it.
 *   Intel Caffe: linear from warmup_start_lr to base_lr over the first warmup_iter iterations.
 * (There the momentum is scaled besides, but not in what GCC makes of its SGD solver.) NVCaffe:
 * rampup_lr + (base_lr - rampup_lr) * (iter / rampup_interval)^2. NVCaffe: no rate is below min_lr,
 * not even one of the ramp; poly falls to it instead of to 0. */
float shoal_rate_at(const Caffe__SolverParameter *solver, int iter, int *current_step);

#endif
