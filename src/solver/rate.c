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

/* NVCaffe: ends at min_lr; without one this is BVLC Caffe's. */
static double policy_poly(const Caffe__SolverParameter *s, int iter, int *current_step) {
    (void)current_step;
    double least = (double)s->min_lr;
    double rest = pow(1 - (double)iter / s->max_iter, (double)s->power);
    return ((double)s->base_lr - least) * rest + least;
}

static double policy_sigmoid(const Caffe__SolverParameter *s, int iter, int *current_step) {
    (void)current_step;
    return (double)s->base_lr / (1 + exp(-(double)s->gamma * ((double)iter - s->stepsize)));
}

/* Intel Caffe: rate stagelr[i] up to and with iteration stageiter[i]; the last one stays. */
static double policy_multifixed(const Caffe__SolverParameter *s, int iter, int *current_step) {
    (void)current_step;
    size_t stage = 0;
    while (stage + 1 < s->n_stagelr && iter > s->stageiter[stage])
        stage++;
    return (double)s->stagelr[stage];
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
    {"multifixed", policy_multifixed, false, false},
};

static int find_policy(const char *name) {
    for (int i = 0; name && i < (int)(sizeof POLICIES / sizeof POLICIES[0]); i++)
        if (!strcmp(POLICIES[i].name, name))
            return i;
    return -1;
}

#define KNOWN "fixed, step, exp, inv, multistep, poly, sigmoid or multifixed"

static ShoalStatus check_stages(const Caffe__SolverParameter *solver, ShoalError *err) {
    size_t rates = solver->n_stagelr, ends = solver->n_stageiter;
    if (!rates || rates != ends)
        return shoal_error_set(
            err, SHOAL_ERR_MODEL,
            "lr_policy \"multifixed\" has %zu stagelr and %zu stageiter; give as "
            "many of both, at least one",
            rates, ends);
    for (size_t i = 0; i < rates; i++)
        if (!isfinite(solver->stagelr[i]) || solver->stagelr[i] < 0)
            return shoal_error_set(err, SHOAL_ERR_MODEL, "stagelr must not be negative");
    return SHOAL_OK;
}

static ShoalStatus check_policy(const Caffe__SolverParameter *solver, int i, ShoalError *err) {
    const char *name = solver->lr_policy;
    if (POLICIES[i].policy == policy_multifixed)
        return check_stages(solver, err);
    if (!solver->has_base_lr || !isfinite(solver->base_lr) || solver->base_lr < 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "base_lr must be given and not be negative");
    if (POLICIES[i].needs_gamma && !solver->has_gamma)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "lr_policy \"%s\" needs gamma", name);
    if (POLICIES[i].needs_stepsize && (!solver->has_stepsize || solver->stepsize <= 0))
        return shoal_error_set(err, SHOAL_ERR_MODEL, "lr_policy \"%s\" needs a stepsize above 0",
                               name);
    if (POLICIES[i].policy == policy_sigmoid && solver->gamma < 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "lr_policy \"sigmoid\" needs a gamma that is not negative");
    if (POLICIES[i].policy == policy_poly && solver->min_lr > solver->base_lr)
        return shoal_error_set(
            err, SHOAL_ERR_MODEL,
            "lr_policy \"poly\" goes from base_lr %g down to min_lr %g; make min_lr "
            "the smaller one",
            (double)solver->base_lr, (double)solver->min_lr);
    return SHOAL_OK;
}

ShoalStatus shoal_rate_check(const Caffe__SolverParameter *solver, ShoalError *err) {
    if (!solver->lr_policy || !solver->lr_policy[0])
        return shoal_error_set(err, SHOAL_ERR_MODEL, "lr_policy is missing; use " KNOWN);
    int i = find_policy(solver->lr_policy);
    if (i < 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "lr_policy \"%s\" is unknown; use " KNOWN,
                               solver->lr_policy);
    if (solver->warmup_iter > 0 && solver->rampup_interval > 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "both warmup_iter (Intel Caffe) and rampup_interval (NVCaffe) are "
                               "given; keep one");
    if ((solver->warmup_iter > 0 || solver->rampup_interval > 0) && !solver->has_base_lr)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "base_lr is missing: where the warm-up ends");
    return check_policy(solver, i, err);
}

/* Intel Caffe: linear. */
static float warm_up(const Caffe__SolverParameter *s, int iter) {
    return ((float)iter * s->base_lr + (float)(s->warmup_iter - iter) * s->warmup_start_lr) /
           (float)s->warmup_iter;
}

/* NVCaffe 0.17: quadratic. */
static float ramp_up(const Caffe__SolverParameter *s, int iter) {
    float part = (float)iter / (float)s->rampup_interval;
    return s->rampup_lr + (s->base_lr - s->rampup_lr) * part * part;
}

float shoal_rate_at(const Caffe__SolverParameter *solver, int iter, int *current_step) {
    int i = find_policy(solver->lr_policy);
    float rate = 0;
    if (iter < solver->warmup_iter)
        rate = warm_up(solver, iter);
    else if (iter < solver->rampup_interval)
        rate = ramp_up(solver, iter);
    else if (i >= 0)
        rate = (float)POLICIES[i].policy(solver, iter, current_step);
    return rate < solver->min_lr ? solver->min_lr : rate;
}
