/* SPDX-License-Identifier: Apache-2.0 */
#include "solver/solver.h"

#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "solver/kinds.h"

struct ShoalSolver {
    const Caffe__SolverParameter *param;
    const ShoalSolverKind *kind;
    ShoalNet *net;
    ShoalNetParams params;
    float *history; /* [parts] as params.data; with `update`, that is one part more */
    float *update;  /* what was subtracted last, for snapshot_diff; NULL: not kept, or as history */
    bool l1;
};

static const ShoalSolverKind KINDS[] = {
    {"SGD", 1, false, 0},
    {"Nesterov", 1, false, 0},
    {"AdaGrad", 1, true, SHOAL_UPDATE_ADAGRAD},
    {"RMSProp", 1, true, SHOAL_UPDATE_RMSPROP},
    {"AdaDelta", 2, true, SHOAL_UPDATE_ADADELTA},
    {"Adam", 2, true, SHOAL_UPDATE_ADAM},
};

const ShoalSolverKind *shoal_solver_kind_find(const char *name) {
    if (!name || !name[0])
        return &KINDS[0];
    for (size_t i = 0; i < sizeof KINDS / sizeof KINDS[0]; i++)
        if (!strcmp(KINDS[i].name, name))
            return &KINDS[i];
    return NULL;
}

/* The history of SGD is its last update. */
static bool keeps_update(const Caffe__SolverParameter *param, const ShoalSolverKind *kind) {
    return param->snapshot_diff && kind != &KINDS[0];
}

int shoal_solver_parts(const Caffe__SolverParameter *param) {
    const ShoalSolverKind *kind = shoal_solver_kind_find(param->type);
    return kind ? kind->parts + keeps_update(param, kind) : 1;
}

ShoalStatus shoal_solver_create(const Caffe__SolverParameter *param, ShoalNet *net,
                                ShoalSolver **out, ShoalError *err) {
    const ShoalSolverKind *kind = shoal_solver_kind_find(param->type);
    if (!kind)
        return shoal_error_set(err, SHOAL_ERR_MODEL, "solver type \"%s\" is unknown", param->type);
    ShoalSolver *solver = shoal_calloc(1, sizeof *solver);
    if (!solver)
        return shoal_error_memory(err, "the solver", sizeof *solver);
    solver->param = param;
    solver->kind = kind;
    solver->net = net;
    solver->params = shoal_net_params(net);
    solver->l1 = param->regularization_type && !strcmp(param->regularization_type, "L1");
    size_t one = solver->params.data_count, all;
    if (!shoal_size_mul(one, (size_t)shoal_solver_parts(param), &all))
        all = SIZE_MAX;
    solver->history = shoal_calloc(all, sizeof(float));
    if (!solver->history) {
        shoal_free(solver);
        return shoal_error_memory(err, "the solver's history", all);
    }
    if (keeps_update(param, solver->kind))
        solver->update = solver->history + one * (size_t)solver->kind->parts;
    *out = solver;
    return SHOAL_OK;
}

void shoal_solver_destroy(ShoalSolver *solver) {
    if (!solver)
        return;
    shoal_free(solver->history);
    shoal_free(solver);
}

void shoal_solver_clear_gradients(ShoalSolver *solver) {
    memset(solver->params.gradients, 0, solver->params.gradient_count * sizeof(float));
}

static float clip_scale(const ShoalSolver *solver, double *clipped_norm) {
    const float limit = solver->param->clip_gradients;
    if (clipped_norm)
        *clipped_norm = 0;
    if (!(limit > 0))
        return 1;
    double norm = sqrt(shoal_vec_sumsq(solver->params.gradient_count, solver->params.gradients));
    if (!(norm > (double)limit))
        return 1;
    if (clipped_norm)
        *clipped_norm = norm;
    return (float)((double)limit / norm);
}

/* The rate of one blob where the norms of its weights and gradient g have a say. lr_mult is used up
 * by the question whether it learns at all, as in both sources. There is no other exception: biases
 * and the factors of a Scale are treated as the rest, and what is all 0 goes at the plain rate.
 *   larc:          r = (1 - momentum) * larc_eta * |w| / |g|; scale: rate * r, clip: min(rate, r)
 *                  (NVCaffe 0.17.4, SGDSolver::GetLocalRate and ComputeUpdateValue)
 *   local_lr_auto: r = local_gw_ratio * |w| / (|g| + weight_decay * |w|); rate * r
 *                  (Intel Caffe 1.1.6, SGDSolver::GetLocalRate; You, Gitman and Ginsburg 2017)
 * g is the whole gradient without decay, after clipping and iter_size. The norms are sums in double
 * in one order, so replicas agree. */
static float rate_of(const ShoalSolver *solver, const ShoalBlob *blob, float rate, float scale) {
    const Caffe__SolverParameter *p = solver->param;
    double w = sqrt(shoal_vec_sumsq(blob->count, blob->data));
    double g = sqrt(shoal_vec_sumsq(blob->count, blob->diff)) * (double)scale, r = 1;
    if (w > 0 && g > 0)
        r = p->larc ? (1 - (double)p->momentum) * (double)p->larc_eta * w / g
                    : (double)p->local_gw_ratio * w / (g + (double)p->weight_decay * w);
    bool clip = p->larc && p->larc_policy && !strcmp(p->larc_policy, "clip");
    if (clip)
        return r < (double)rate ? (float)r : rate;
    return (float)((double)rate * r);
}

/* base^n. The library's pow is rounded differently from one machine to the next. */
static double power(double base, int n) {
    double product = 1;
    for (; n > 0; n /= 2, base *= base)
        if (n % 2)
            product *= base;
    return product;
}

/* What the means of Adam lack at first because they begin with 0. */
static float adam_correction(const Caffe__SolverParameter *p, int iter) {
    int t = iter < INT_MAX ? iter + 1 : iter;
    return (float)(sqrt(1 - power((double)p->momentum2, t)) / (1 - power((double)p->momentum, t)));
}

/* Nesterov's step, (1 + m) h - m * (h before), once more: its kernel keeps it to itself. */
static void update_sgd(const ShoalSolver *solver, const ShoalCompute *compute,
                       const ShoalSgdRule *rule, const ShoalBlob *blob, size_t at) {
    float *history = solver->history + at, *update = solver->update ? solver->update + at : NULL;
    if (update)
        memcpy(update, history, blob->count * sizeof(float));
    shoal_update_sgd(compute, rule, blob->count, blob->diff, history, blob->data);
    if (update) {
        shoal_vec_scale(compute, blob->count, -rule->momentum, update);
        shoal_vec_axpy(compute, blob->count, 1 + rule->momentum, history, update);
    }
}

static void update_adaptive(const ShoalSolver *solver, const ShoalCompute *compute,
                            const ShoalAdaptiveRule *rule, const ShoalBlob *blob, size_t at) {
    float *first = solver->history + at;
    float *second = solver->kind->parts > 1 ? first + solver->params.data_count : NULL;
    float *step = solver->update ? solver->update + at : blob->diff;
    shoal_update_adaptive(compute, rule, blob->count, blob->diff, first, second, blob->data, step);
}

static void update_blob(const ShoalSolver *solver, const ShoalCompute *compute,
                        const ShoalParam *param, float rate, float correction, float scale) {
    const Caffe__SolverParameter *p = solver->param;
    const ShoalBlob *blob = &param->blob;
    size_t at = (size_t)(blob->data - solver->params.data);
    bool local = (p->larc || p->local_lr_auto) && param->lr_mult > 0;
    float own = local ? rate_of(solver, blob, rate, scale) : rate * param->lr_mult;
    float decay = p->weight_decay * param->decay_mult;
    if (!solver->kind->adaptive) {
        ShoalSgdRule rule = {.scale = scale,
                             .rate = own,
                             .momentum = p->momentum,
                             .decay = decay,
                             .l1 = solver->l1,
                             .nesterov = solver->kind != &KINDS[0]};
        update_sgd(solver, compute, &rule, blob, at);
        return;
    }
    bool rms = solver->kind->rule == SHOAL_UPDATE_RMSPROP;
    ShoalAdaptiveRule rule = {.kind = solver->kind->rule,
                              .scale = scale,
                              .rate = own * correction,
                              .decay = decay,
                              .decay1 = rms ? p->rms_decay : p->momentum,
                              .decay2 = p->momentum2,
                              .delta = p->delta,
                              .l1 = solver->l1};
    update_adaptive(solver, compute, &rule, blob, at);
}

void shoal_solver_update(ShoalSolver *solver, const ShoalCompute *compute, int iter, float rate,
                         double *clipped_norm) {
    const Caffe__SolverParameter *p = solver->param;
    bool adam = solver->kind->adaptive && solver->kind->rule == SHOAL_UPDATE_ADAM;
    float scale = clip_scale(solver, clipped_norm) / (float)p->iter_size;
    float correction = adam ? adam_correction(p, iter) : 1;
    for (int i = 0; i < solver->params.count; i++)
        if (solver->params.items[i]->learns)
            update_blob(solver, compute, solver->params.items[i], rate, correction, scale);
}

void shoal_solver_expose_update(ShoalSolver *solver) {
    memcpy(solver->params.gradients, solver->update ? solver->update : solver->history,
           solver->params.gradient_count * sizeof(float));
}

float *shoal_solver_history(ShoalSolver *solver, size_t *count) {
    *count = solver->params.data_count * (size_t)shoal_solver_parts(solver->param);
    return solver->history;
}

/* ---- state ---- */

void shoal_solver_proto_free(Caffe__SolverState *proto) {
    for (size_t i = 0; i < proto->n_history; i++)
        shoal_blob_proto_free(proto->history[i]);
    proto->n_history = 0;
    caffe__solver_state__free_unpacked(proto, NULL);
}

/* Blob i of a .solverstate: all weights' first parts, then all second ones. */
static size_t stored_blobs(const ShoalSolver *solver) {
    return (size_t)solver->params.count * (size_t)solver->kind->parts;
}

static const ShoalParam *stored_param(const ShoalSolver *solver, size_t i) {
    return solver->params.items[i % (size_t)solver->params.count];
}

static float *stored_values(const ShoalSolver *solver, size_t i) {
    size_t part = i / (size_t)solver->params.count;
    size_t at = (size_t)(stored_param(solver, i)->blob.data - solver->params.data);
    return solver->history + part * solver->params.data_count + at;
}

ShoalStatus shoal_solver_to_proto(const ShoalSolver *solver, int iter, int current_step,
                                  const char *learned_net, Caffe__SolverState **out,
                                  ShoalError *err) {
    size_t n = stored_blobs(solver);
    Caffe__SolverState *state = malloc(sizeof *state);
    if (!state)
        return shoal_error_memory(err, "a snapshot", sizeof *state);
    caffe__solver_state__init(state);
    state->has_iter = 1;
    state->iter = iter;
    state->has_current_step = 1;
    state->current_step = current_step;
    state->learned_net = strdup(learned_net);
    state->history = calloc(n + 1, sizeof *state->history);
    for (size_t i = 0; state->history && i < n; i++) {
        const ShoalBlob *weights = &stored_param(solver, i)->blob;
        state->history[i] = shoal_blob_to_proto(weights, stored_values(solver, i), false);
        if (!state->history[i])
            break;
        state->n_history++;
    }
    if (!state->learned_net || state->n_history != n) {
        shoal_solver_proto_free(state);
        return shoal_error_memory(err, "a snapshot", solver->params.data_count * sizeof(float));
    }
    *out = state;
    return SHOAL_OK;
}

static ShoalStatus check_state(const ShoalSolver *solver, const Caffe__SolverState *state,
                               ShoalError *err) {
    if (state->iter < 0 || state->current_step < 0)
        return shoal_error_set(err, SHOAL_ERR_PARSE, "iteration %d or step %d is negative",
                               state->iter, state->current_step);
    if (state->n_history != stored_blobs(solver))
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "the state holds %zu blobs, but %s needs %zu, %d for each of the "
                               "net's %d weight blobs; "
                               "is it from another net or solver type?",
                               state->n_history, solver->kind->name, stored_blobs(solver),
                               solver->kind->parts, solver->params.count);
    for (size_t i = 0; i < state->n_history; i++) {
        const ShoalParam *param = stored_param(solver, i);
        if (state->history[i]->n_data != param->blob.count)
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "history %zu has %zu values, but weight blob %d of layer '%s' "
                                   "has %zu",
                                   i, state->history[i]->n_data, param->index,
                                   param->layer->param->name, param->blob.count);
    }
    return SHOAL_OK;
}

ShoalStatus shoal_solver_load_state(ShoalSolver *solver, const Caffe__SolverState *state,
                                    ShoalError *err) {
    ShoalStatus status = check_state(solver, state, err);
    if (status)
        return status;
    for (size_t i = 0; i < state->n_history; i++)
        memcpy(stored_values(solver, i), state->history[i]->data,
               state->history[i]->n_data * sizeof(float));
    return SHOAL_OK;
}
