/* SPDX-License-Identifier: Apache-2.0 */
#include "solver/rate.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

typedef double Policy(const Caffe__SolverParameter *solver, int iter, int *current_step);

static double policy_fixed(const Caffe__SolverParameter *s, int iter, int *current_step) {
    (void)iter;
    (void)current_step;
    return (double)s->base_lr;
}

static double policy_step(const Caffe__SolverParameter *s, int iter, int *current_step) {
    *current_step = iter / s->stepsize;
    return (double)s->base_lr * pow((double)s->gamma, *current_step);
}

static double policy_exp(const Caffe__SolverParameter *s, int iter, int *current_step) {
    (void)current_step;
    return (double)s->base_lr * pow((double)s->gamma, iter);
}

static double policy_inv(const Caffe__SolverParameter *s, int iter, int *current_step) {
    (void)current_step;
    return (double)s->base_lr * pow(1 + (double)s->gamma * iter, -(double)s->power);
}

static double policy_multistep(const Caffe__SolverParameter *s, int iter, int *current_step) {
    if (*current_step >= 0 && (size_t)*current_step < s->n_stepvalue &&
        iter >= s->stepvalue[*current_step])
        ++*current_step;
    return (double)s->base_lr * pow((double)s->gamma, *current_step);
}

static double policy_poly(const Caffe__SolverParameter *s, int iter, int *current_step) {
    (void)current_step;
    return (double)s->base_lr * pow(1 - (double)iter / s->max_iter, (double)s->power);
}

static double policy_sigmoid(const Caffe__SolverParameter *s, int iter, int *current_step) {
    (void)current_step;
    return (double)s->base_lr / (1 + exp(-(double)s->gamma * ((double)iter - s->stepsize)));
}

static const struct {
    const char *name;
    Policy *policy;
    bool needs_stepsize, needs_gamma;
} POLICIES[] = {
    {"fixed", policy_fixed, false, false},
    {"step", policy_step, true, true},
    {"exp", policy_exp, false, true},
    {"inv", policy_inv, false, true},
    {"multistep", policy_multistep, false, true},
    {"poly", policy_poly, false, false},
    {"sigmoid", policy_sigmoid, true, true},
};

static int find_policy(const char *name) {
    for (int i = 0; name && i < (int)(sizeof POLICIES / sizeof POLICIES[0]); i++)
        if (!strcmp(POLICIES[i].name, name))
            return i;
    return -1;
}

ShoalStatus shoal_rate_check(const Caffe__SolverParameter *solver, ShoalError *err) {
    if (!solver->lr_policy || !solver->lr_policy[0])
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "lr_policy is missing; use fixed, step, exp, inv, multistep, poly "
                               "or sigmoid");
    int i = find_policy(solver->lr_policy);
    if (i < 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "lr_policy \"%s\" is unknown; use fixed, step, exp, inv, multistep, "
                               "poly or sigmoid",
                               solver->lr_policy);
    if (!solver->has_base_lr || !isfinite(solver->base_lr) || solver->base_lr < 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "base_lr must be given and not be negative");
    if (POLICIES[i].needs_gamma && !solver->has_gamma)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "lr_policy \"%s\" needs gamma",
                               solver->lr_policy);
    if (POLICIES[i].needs_stepsize && (!solver->has_stepsize || solver->stepsize <= 0))
        return shoal_error_set(err, SHOAL_ERR_MODEL, "lr_policy \"%s\" needs a stepsize above 0",
                               solver->lr_policy);
    if (POLICIES[i].policy == policy_sigmoid && solver->gamma < 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "lr_policy \"sigmoid\" needs a gamma that is not negative");
    return SHOAL_OK;
}

float shoal_rate_at(const Caffe__SolverParameter *solver, int iter, int *current_step) {
    if (solver->has_warmup_iter && iter < solver->warmup_iter)
        return solver->warmup_start_lr + (solver->base_lr - solver->warmup_start_lr) * (float)iter /
                                             (float)solver->warmup_iter;
    int i = find_policy(solver->lr_policy);
    return i < 0 ? 0 : (float)POLICIES[i].policy(solver, iter, current_step);
}
