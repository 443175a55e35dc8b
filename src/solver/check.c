/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "solver/kinds.h"
#include "solver/rate.h"
#include "solver/solver.h"

/* What can be said of a solver file without a net. */

static ShoalStatus check_type(const Caffe__SolverParameter *param, ShoalError *err) {
    return shoal_solver_kind_find(param->type)
               ? SHOAL_OK
               : shoal_error_set(err, SHOAL_ERR_MODEL,
                                 "solver type \"%s\" is unknown; use \"SGD\", \"Nesterov\", "
                                 "\"AdaGrad\", \"RMSProp\", \"AdaDelta\" or \"Adam\"",
                                 param->type);
}

static ShoalStatus check_counts(const Caffe__SolverParameter *param, ShoalError *err) {
    const struct {
        const char *name;
        int value, least;
    } COUNTS[] = {
        {"max_iter", param->max_iter, 0},           {"iter_size", param->iter_size, 1},
        {"average_loss", param->average_loss, 1},   {"display", param->display, 0},
        {"test_interval", param->test_interval, 0}, {"snapshot", param->snapshot, 0},
        {"warmup_iter", param->warmup_iter, 0},     {"rampup_interval", param->rampup_interval, 0},
    };
    for (size_t i = 0; i < sizeof COUNTS / sizeof COUNTS[0]; i++)
        if (COUNTS[i].value < COUNTS[i].least)
            return shoal_error_set(err, SHOAL_ERR_MODEL, "%s is %d; it must be at least %d",
                                   COUNTS[i].name, COUNTS[i].value, COUNTS[i].least);
    for (size_t i = 0; i < param->n_test_iter; i++)
        if (param->test_iter[i] < 1)
            return shoal_error_set(err, SHOAL_ERR_MODEL, "test_iter is %d; it must be at least 1",
                                   param->test_iter[i]);
    return SHOAL_OK;
}

static ShoalStatus check_reals(const Caffe__SolverParameter *param, ShoalError *err) {
    const struct {
        const char *name;
        float value;
        bool sign; /* may be negative */
    } REALS[] = {
        {"gamma", param->gamma, true},
        {"power", param->power, true},
        {"momentum", param->momentum, true},
        {"weight_decay", param->weight_decay, true},
        {"clip_gradients", param->clip_gradients, true},
        {"delta", param->delta, false},
        {"momentum2", param->momentum2, true},
        {"rms_decay", param->rms_decay, true},
        {"warmup_start_lr", param->warmup_start_lr, true},
        {"rampup_lr", param->rampup_lr, true},
        {"min_lr", param->min_lr, false},
        {"local_gw_ratio", param->local_gw_ratio, false},
        {"larc_eta", param->larc_eta, false},
    };
    for (size_t i = 0; i < sizeof REALS / sizeof REALS[0]; i++)
        if (!isfinite(REALS[i].value) || (!REALS[i].sign && REALS[i].value < 0))
            return shoal_error_set(err, SHOAL_ERR_MODEL, "%s is %g; it must be a finite number%s",
                                   REALS[i].name, (double)REALS[i].value,
                                   REALS[i].sign ? "" : ", not below 0");
    return SHOAL_OK;
}

static ShoalStatus out_of_range(const char *type, const char *field, float value, bool closed,
                                ShoalError *err) {
    return shoal_error_set(err, SHOAL_ERR_MODEL,
                           "solver type \"%s\": %s is %g; it must be from 0 to 1%s", type, field,
                           (double)value, closed ? "" : ", and not 1");
}

/* Caffe refuses the same of AdaGrad and RMSProp; with AdaDelta and Adam it would go on with roots
 * of negative numbers or divide by 0. */
static ShoalStatus check_kind(const Caffe__SolverParameter *param, ShoalError *err) {
    const ShoalSolverKind *kind = shoal_solver_kind_find(param->type);
    const char *type = kind->name;
    bool rms = kind->rule == SHOAL_UPDATE_RMSPROP, adam = kind->rule == SHOAL_UPDATE_ADAM;
    if (!kind->adaptive)
        return SHOAL_OK;
    if (kind->parts == 1 && param->momentum != 0)
        return shoal_error_set(
            err, SHOAL_ERR_MODEL,
            "solver type \"%s\" has no momentum, but momentum is %g; leave it out", type,
            (double)param->momentum);
    if (rms && !(param->rms_decay >= 0 && param->rms_decay < 1))
        return out_of_range(type, "rms_decay", param->rms_decay, false, err);
    if (kind->parts == 2 &&
        !(param->momentum >= 0 && (adam ? param->momentum < 1 : param->momentum <= 1)))
        return out_of_range(type, "momentum", param->momentum, !adam, err);
    if (adam && !(param->momentum2 >= 0 && param->momentum2 < 1))
        return out_of_range(type, "momentum2", param->momentum2, false, err);
    return SHOAL_OK;
}

/* Both ways to a rate for each blob are written for plain SGD: in NVCaffe and Intel Caffe the other
 * types do without it, and without a word. */
static ShoalStatus check_local_rate(const Caffe__SolverParameter *param, ShoalError *err) {
    const char *field = param->larc ? "larc" : "local_lr_auto";
    const char *policy = param->larc_policy;
    if (!param->larc && !param->local_lr_auto)
        return SHOAL_OK;
    if (param->larc && param->local_lr_auto)
        return shoal_error_set(
            err, SHOAL_ERR_MODEL,
            "both larc (NVCaffe) and local_lr_auto (Intel Caffe) are given; keep "
            "one");
    if (strcmp(shoal_solver_kind_find(param->type)->name, "SGD") != 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "%s works with solver type \"SGD\", not with \"%s\"", field,
                               param->type);
    if (param->larc && policy && strcmp(policy, "scale") != 0 && strcmp(policy, "clip") != 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "larc_policy \"%s\" is unknown; use \"scale\" or \"clip\"", policy);
    return SHOAL_OK;
}

/* Fields of Caffe's descendants that would change the training: not to be ignored in silence. */
static ShoalStatus check_extensions(const Caffe__SolverParameter *param, ShoalError *err) {
    const char *momentum = param->momentum_policy, *decay = param->weight_decay_policy;
    const char *field = param->larc_turbo                            ? "larc_turbo"
                        : momentum && strcmp(momentum, "fixed") != 0 ? "momentum_policy"
                        : decay && strcmp(decay, "fixed") != 0       ? "weight_decay_policy"
                                                                     : NULL;
    return field ? shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                                   "%s (NVCaffe) is not in this version; leave it out", field)
                 : check_local_rate(param, err);
}

ShoalStatus shoal_solver_check(const Caffe__SolverParameter *param, ShoalError *err) {
    ShoalStatus status = check_type(param, err);
    if (!status)
        status = check_extensions(param, err);
    if (!status)
        status = shoal_rate_check(param, err);
    if (!status)
        status = check_counts(param, err);
    if (!status)
        status = check_reals(param, err);
    if (!status)
        status = check_kind(param, err);
    const char *rule = param->regularization_type;
    if (!status && rule && strcmp(rule, "L1") && strcmp(rule, "L2"))
        status =
            shoal_error_set(err, SHOAL_ERR_MODEL,
                            "regularization_type \"%s\" is unknown; use \"L1\" or \"L2\"", rule);
    return status;
}
