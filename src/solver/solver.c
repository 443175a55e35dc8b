/* SPDX-License-Identifier: Apache-2.0 */
#include "solver/solver.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "solver/rate.h"

struct ShoalSolver {
    const Caffe__SolverParameter *param;
    ShoalNet *net;
    ShoalNetParams params;
    float *history; /* as params.data */
    bool l1, nesterov;
};

static ShoalStatus check_type(const Caffe__SolverParameter *param, ShoalError *err) {
    const char *type = param->type && param->type[0] ? param->type : "SGD";
    static const char *const LATER[] = {"AdaGrad", "RMSProp", "AdaDelta", "Adam"};
    bool nesterov = !strcmp(type, "Nesterov");
    if (nesterov && param->snapshot_diff)
        return shoal_error_set(
            err, SHOAL_ERR_UNSUPPORTED,
            "snapshot_diff with solver type \"Nesterov\" is not in this version; "
            "it is with \"SGD\"");
    if (nesterov || !strcmp(type, "SGD"))
        return SHOAL_OK;
    for (size_t i = 0; i < sizeof LATER / sizeof LATER[0]; i++)
        if (!strcmp(type, LATER[i]))
            return shoal_error_set(
                err, SHOAL_ERR_UNSUPPORTED,
                "solver type \"%s\" is not in this version; \"SGD\" and \"Nesterov\" "
                "are",
                type);
    return shoal_error_set(err, SHOAL_ERR_MODEL,
                           "solver type \"%s\" is unknown; use \"SGD\" or "
                           "\"Nesterov\"",
                           type);
}

static ShoalStatus check_numbers(const Caffe__SolverParameter *param, ShoalError *err) {
    const struct {
        const char *name;
        int value, least;
    } COUNTS[] = {
        {"max_iter", param->max_iter, 0},           {"iter_size", param->iter_size, 1},
        {"average_loss", param->average_loss, 1},   {"display", param->display, 0},
        {"test_interval", param->test_interval, 0}, {"snapshot", param->snapshot, 0},
    };
    for (size_t i = 0; i < sizeof COUNTS / sizeof COUNTS[0]; i++)
        if (COUNTS[i].value < COUNTS[i].least)
            return shoal_error_set(err, SHOAL_ERR_MODEL, "%s is %d; it must be at least %d",
                                   COUNTS[i].name, COUNTS[i].value, COUNTS[i].least);
    for (size_t i = 0; i < param->n_test_iter; i++)
        if (param->test_iter[i] < 1)
            return shoal_error_set(err, SHOAL_ERR_MODEL, "test_iter is %d; it must be at least 1",
                                   param->test_iter[i]);
    const struct {
        const char *name;
        float value;
    } REALS[] = {
        {"gamma", param->gamma},
        {"power", param->power},
        {"momentum", param->momentum},
        {"weight_decay", param->weight_decay},
        {"clip_gradients", param->clip_gradients},
        {"warmup_start_lr", param->warmup_start_lr},
    };
    for (size_t i = 0; i < sizeof REALS / sizeof REALS[0]; i++)
        if (!isfinite(REALS[i].value))
            return shoal_error_set(err, SHOAL_ERR_MODEL, "%s is %g; it must be a finite number",
                                   REALS[i].name, (double)REALS[i].value);
    return SHOAL_OK;
}

/* Fields of Caffe's descendants that would change the training: not to be ignored in silence. */
static ShoalStatus check_extensions(const Caffe__SolverParameter *param, ShoalError *err) {
    const char *field = param->larc                  ? "larc"
                        : param->rampup_interval > 0 ? "rampup_interval"
                        : param->min_lr > 0          ? "min_lr"
                                                     : NULL;
    return field ? shoal_error_set(err, SHOAL_ERR_UNSUPPORTED, "%s is not in this version", field)
                 : SHOAL_OK;
}

ShoalStatus shoal_solver_check(const Caffe__SolverParameter *param, ShoalError *err) {
    ShoalStatus status = check_type(param, err);
    if (!status)
        status = check_extensions(param, err);
    if (!status)
        status = shoal_rate_check(param, err);
    if (!status)
        status = check_numbers(param, err);
    const char *rule = param->regularization_type;
    if (!status && rule && strcmp(rule, "L1") && strcmp(rule, "L2"))
        status =
            shoal_error_set(err, SHOAL_ERR_MODEL,
                            "regularization_type \"%s\" is unknown; use \"L1\" or \"L2\"", rule);
    if (!status && param->snapshot_format != CAFFE__SOLVER_PARAMETER__SNAPSHOT_FORMAT__BINARYPROTO)
        status = shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                                 "snapshot_format: HDF5 is not in this version; BINARYPROTO is");
    return status;
}

ShoalStatus shoal_solver_create(const Caffe__SolverParameter *param, ShoalNet *net,
                                ShoalSolver **out, ShoalError *err) {
    ShoalSolver *solver = shoal_calloc(1, sizeof *solver);
    if (!solver)
        return shoal_error_memory(err, "the solver", sizeof *solver);
    solver->param = param;
    solver->net = net;
    solver->params = shoal_net_params(net);
    solver->nesterov = param->type && !strcmp(param->type, "Nesterov");
    solver->l1 = param->regularization_type && !strcmp(param->regularization_type, "L1");
    solver->history = shoal_calloc(solver->params.data_count, sizeof(float));
    if (!solver->history) {
        shoal_free(solver);
        return shoal_error_memory(err, "the solver's history",
                                  solver->params.data_count * sizeof(float));
    }
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

void shoal_solver_update(ShoalSolver *solver, const ShoalCompute *compute, float rate,
                         double *clipped_norm) {
    const Caffe__SolverParameter *p = solver->param;
    float scale = clip_scale(solver, clipped_norm) / (float)p->iter_size;
    for (int i = 0; i < solver->params.count; i++) {
        const ShoalParam *param = solver->params.items[i];
        if (!param->learns)
            continue;
        ShoalSgdRule rule = {.scale = scale,
                             .rate = rate * param->lr_mult,
                             .momentum = p->momentum,
                             .decay = p->weight_decay * param->decay_mult,
                             .l1 = solver->l1,
                             .nesterov = solver->nesterov};
        float *history = solver->history + (param->blob.data - solver->params.data);
        shoal_update_sgd(compute, &rule, param->blob.count, param->blob.diff, history,
                         param->blob.data);
    }
}

void shoal_solver_expose_update(ShoalSolver *solver) {
    memcpy(solver->params.gradients, solver->history,
           solver->params.gradient_count * sizeof(float));
}

float *shoal_solver_history(ShoalSolver *solver, size_t *count) {
    *count = solver->params.data_count;
    return solver->history;
}

/* ---- state ---- */

void shoal_solver_proto_free(Caffe__SolverState *proto) {
    for (size_t i = 0; i < proto->n_history; i++)
        shoal_blob_proto_free(proto->history[i]);
    proto->n_history = 0;
    caffe__solver_state__free_unpacked(proto, NULL);
}

ShoalStatus shoal_solver_to_proto(const ShoalSolver *solver, int iter, int current_step,
                                  const char *learned_net, Caffe__SolverState **out,
                                  ShoalError *err) {
    size_t n = (size_t)solver->params.count;
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
        const ShoalBlob *weights = &solver->params.items[i]->blob;
        const float *history = solver->history + (weights->data - solver->params.data);
        state->history[i] = shoal_blob_to_proto(weights, history, false);
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
    if (state->n_history != (size_t)solver->params.count)
        return shoal_error_set(
            err, SHOAL_ERR_MODEL,
            "the state holds the history of %zu weight blobs, the net has %d; is "
            "it from another net or solver type?",
            state->n_history, solver->params.count);
    for (size_t i = 0; i < state->n_history; i++) {
        const ShoalParam *param = solver->params.items[i];
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
    for (size_t i = 0; i < state->n_history; i++) {
        const ShoalParam *param = solver->params.items[i];
        memcpy(solver->history + (param->blob.data - solver->params.data), state->history[i]->data,
               param->blob.count * sizeof(float));
    }
    return SHOAL_OK;
}
