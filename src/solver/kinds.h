/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_SOLVER_KINDS_H
#define SHOAL_SOLVER_KINDS_H

#include <stdbool.h>

#include "kernels/kernels.h"

/* The types of solvers. */
typedef struct ShoalSolverKind {
    const char *name;
    int parts;              /* of the history, each as large as the weights */
    bool adaptive;          /* SGD and Nesterov are not */
    ShoalAdaptiveKind rule; /* of an adaptive one */
} ShoalSolverKind;

/* The kind of that name (NULL or "": SGD); NULL for an unknown name. */
const ShoalSolverKind *shoal_solver_kind_find(const char *name);

#endif
