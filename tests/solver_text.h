/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_SOLVER_TEXT_H
#define SHOAL_TESTS_SOLVER_TEXT_H

/* Solvers from prototxt text. Include after cmocka.h. */

#include <stdio.h>
#include <string.h>

#include "caffe/model.h"

/* Two pieces of text as one solver; caffe__solver_parameter__free_unpacked. */
static inline Caffe__SolverParameter *solver_parse(const char *text, const char *more) {
    char whole[4096];
    Caffe__SolverParameter *solver = NULL;
    ShoalError err = {0};
    snprintf(whole, sizeof whole, "%s %s", text, more);
    if (shoal_caffe_solver_from_text(whole, strlen(whole), "solver", NULL, &solver, &err))
        fail_msg("the test's own text: %s", err.text);
    return solver;
}

#endif
