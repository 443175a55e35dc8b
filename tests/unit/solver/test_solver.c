/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "built_net.h"
#include "solver/solver.h"
#include "solver_text.h"

static const char *const NET =
    "layer { name: 'data' type: 'DummyData' top: 'data' top: 'label' dummy_data_param { "
    "shape { dim: 2 dim: 7 } shape { dim: 2 } } } "
    "layer { name: 'a' type: 'InnerProduct' bottom: 'data' top: 'a' "
    "param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 } "
    "inner_product_param { num_output: 5 weight_filler { type: 'gaussian' std: 1 } "
    "bias_filler { type: 'gaussian' std: 1 } } } "
    "layer { name: 'b' type: 'InnerProduct' bottom: 'a' top: 'b' "
    "param { lr_mult: 0 } param { lr_mult: 0.5 decay_mult: 3 } "
    "inner_product_param { num_output: 3 weight_filler { type: 'gaussian' std: 1 } } } "
    "layer { name: 'l' type: 'SoftmaxWithLoss' bottom: 'b' bottom: 'label' } ";

typedef struct Fixture {
    BuiltNet built;
    Caffe__SolverParameter *param;
    ShoalSolver *solver;
    ShoalNetParams params;
    double *history, *weights; /* of the reference, laid out as params.data; history twice */
    double *update;            /* the last one */
} Fixture;

static void open_fixture(Fixture *f, const char *solver) {
    built_net_open(&f->built, NET, false);
    f->param = solver_parse("base_lr: 0.1 lr_policy: 'fixed'", solver);
    ShoalError err = {0};
    if (shoal_solver_check(f->param, &err) ||
        shoal_solver_create(f->param, f->built.net, &f->solver, &err))
        fail_msg("%s", err.text);
    f->params = shoal_net_params(f->built.net);
    assert_int_equal(f->params.count, 4);
    f->history = calloc(2 * f->params.data_count, sizeof *f->history);
    f->update = calloc(f->params.data_count, sizeof *f->update);
    f->weights = calloc(f->params.data_count, sizeof *f->weights);
    for (size_t i = 0; i < f->params.data_count; i++)
        f->weights[i] = (double)f->params.data[i];
}

static void close_fixture(Fixture *f) {
    shoal_solver_destroy(f->solver);
    caffe__solver_parameter__free_unpacked(f->param, NULL);
    free(f->history);
    free(f->update);
    free(f->weights);
    built_net_close(&f->built);
}

static void draw_gradients(Fixture *f, uint32_t number) {
    ShoalRng rng;
    shoal_rng_init(&rng, 1, SHOAL_RNG_TEST, number);
    for (int i = 0; i < f->params.count; i++) {
        const ShoalParam *param = f->params.items[i];
        if (param->learns)
            shoal_rng_fill_gaussian(&rng, 0, 1, param->blob.count, param->blob.diff);
    }
}

static double norm_of_gradients(const Fixture *f) {
    double sum = 0;
    for (int i = 0; i < f->params.count; i++) {
        const ShoalParam *param = f->params.items[i];
        for (size_t k = 0; param->learns && k < param->blob.count; k++)
            sum += (double)param->blob.diff[k] * (double)param->blob.diff[k];
    }
    return sqrt(sum);
}

static bool is(const Caffe__SolverParameter *p, const char *type) {
    return !strcmp(p->type ? p->type : "SGD", type);
}

/* The rule of each type in double: history h, second history u, gradient g; returns what is
 * subtracted. */
static double reference_rule(const Caffe__SolverParameter *p, double rate, int iter, double g,
                             double *h, double *u) {
    double m = (double)p->momentum, delta = (double)p->delta, before = *h;
    if (is(p, "AdaGrad")) {
        *h += g * g;
        return rate * g / (sqrt(*h) + delta);
    }
    if (is(p, "RMSProp")) {
        *h = (double)p->rms_decay * *h + (1 - (double)p->rms_decay) * g * g;
        return rate * g / (sqrt(*h) + delta);
    }
    if (is(p, "AdaDelta")) {
        *h = m * *h + (1 - m) * g * g;
        double step = g * sqrt((*u + delta) / (*h + delta));
        *u = m * *u + (1 - m) * step * step;
        return rate * step;
    }
    if (is(p, "Adam")) {
        double m2 = (double)p->momentum2;
        *h = m * *h + (1 - m) * g;
        *u = m2 * *u + (1 - m2) * g * g;
        double correction = sqrt(1 - pow(m2, iter + 1)) / (1 - pow(m, iter + 1));
        return rate * correction * *h / (sqrt(*u) + delta);
    }
    *h = m * *h + rate * g;
    return is(p, "Nesterov") ? (1 + m) * *h - m * before : *h;
}

static double norm_of(size_t n, const float *x) {
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* What larc and local_lr_auto make of the rate. */
static double reference_rate(const Caffe__SolverParameter *p, const ShoalParam *param, double rate,
                             double scale) {
    double w = norm_of(param->blob.count, param->blob.data), m = (double)p->momentum;
    double g = norm_of(param->blob.count, param->blob.diff) * scale, ratio = 1;
    if (!p->larc && !p->local_lr_auto)
        return rate * (double)param->lr_mult;
    if (w > 0 && g > 0)
        ratio = p->larc ? (1 - m) * (double)p->larc_eta * w / g
                        : (double)p->local_gw_ratio * w / (g + (double)p->weight_decay * w);
    bool clip = p->larc_policy && !strcmp(p->larc_policy, "clip");
    return clip ? fmin(rate, ratio) : rate * ratio;
}

/* SGDSolver::ApplyUpdate in double: clip, normalise, regularise, the rule, subtract. */
static double reference_update(Fixture *f, int iter, double rate) {
    const Caffe__SolverParameter *p = f->param;
    double norm = norm_of_gradients(f), limit = (double)p->clip_gradients, clip = 1;
    if (limit >= 0 && norm > limit)
        clip = limit / norm;
    for (int i = 0; i < f->params.count; i++) {
        const ShoalParam *param = f->params.items[i];
        if (!param->learns)
            continue;
        size_t at = (size_t)(param->blob.data - f->params.data);
        double decay = (double)p->weight_decay * (double)param->decay_mult;
        double own = reference_rate(p, param, rate, clip / p->iter_size);
        for (size_t k = 0; k < param->blob.count; k++) {
            double *w = &f->weights[at + k], *h = &f->history[at + k];
            double g = (double)param->blob.diff[k] * clip / p->iter_size;
            double sign = (*w > 0) - (*w < 0);
            bool l1 = p->regularization_type && !strcmp(p->regularization_type, "L1");
            g += decay * (l1 ? sign : *w);
            f->update[at + k] = reference_rule(p, own, iter, g, h, h + f->params.data_count);
            *w -= f->update[at + k];
        }
    }
    return clip < 1 ? norm : 0;
}

static void assert_near(const char *what, const float *found, const double *expected, size_t n,
                        int steps) {
    for (size_t i = 0; i < n; i++) {
        double error = fabs((double)found[i] - expected[i]);
        if (!(error <= 8 * (double)FLT_EPSILON * steps * (1 + fabs(expected[i]))))
            fail_msg("%s %zu is %.9g; expected %.9g", what, i, (double)found[i], expected[i]);
    }
}

static void follow(const char *solver, bool clips) {
    enum { STEPS = 20 };
    Fixture f;
    open_fixture(&f, solver);
    size_t count, one = f.params.data_count;
    const float *history = shoal_solver_history(f.solver, &count);
    bool two = is(f.param, "AdaDelta") || is(f.param, "Adam");
    bool kept = f.param->snapshot_diff && !is(f.param, "SGD");
    assert_int_equal(count, (1 + two + kept) * one);
    assert_int_equal(shoal_solver_parts(f.param), 1 + two + kept);
    for (int i = 0; i < STEPS; i++) {
        double rate = 0.1 / (i + 1), clipped = -1;
        draw_gradients(&f, (uint32_t)i);
        double expected = reference_update(&f, i, (double)(float)rate);
        shoal_solver_update(f.solver, &f.built.compute, i, (float)rate, &clipped);
        assert_true(fabs(clipped - expected) <= 1e-6 * expected);
        assert_int_equal(clipped > 0, clips);
        assert_near("weight", f.params.data, f.weights, one, i + 1);
        assert_near("history", history, f.history, (1 + two) * one, i + 1);
        if (f.param->snapshot_diff) {
            shoal_solver_expose_update(f.solver);
            assert_near("update", f.params.gradients, f.update, f.params.gradient_count, i + 1);
        }
    }
    close_fixture(&f);
}

static void updates_follow_the_reference(void **state) {
    (void)state;
    follow("", false);
    follow("momentum: 0.9", false);
    follow("momentum: 0.9 weight_decay: 0.05", false);
    follow("momentum: 0.9 weight_decay: 0.05 regularization_type: 'L2'", false);
    follow("momentum: 0.5 weight_decay: 0.05 regularization_type: 'L1'", false);
    follow("momentum: 0.9 weight_decay: 0.05 iter_size: 4", false);
    follow("momentum: 0.9 clip_gradients: 1.5", true);
    follow("momentum: 0.9 clip_gradients: 1000", false);
    follow("momentum: 0.9 weight_decay: 0.05 iter_size: 3 clip_gradients: 1.5 "
           "regularization_type: 'L1' snapshot_diff: true",
           true);
}

static void every_type_follows_its_rule(void **state) {
    (void)state;
    static const char *const TYPES[] = {
        "type: 'Nesterov' momentum: 0.9", "type: 'AdaGrad' delta: 1e-3",
        "type: 'RMSProp' delta: 1e-3 rms_decay: 0.9", "type: 'AdaDelta' momentum: 0.95 delta: 1e-3",
        "type: 'Adam' momentum: 0.9 momentum2: 0.99 delta: 1e-3"};
    static const char *const SETTINGS[] = {
        "", "weight_decay: 0.05", "weight_decay: 0.05 regularization_type: 'L1' iter_size: 3",
        "weight_decay: 0.01 snapshot_diff: true", "clip_gradients: 1.5 snapshot_diff: true"};
    for (size_t t = 0; t < sizeof TYPES / sizeof TYPES[0]; t++)
        for (size_t i = 0; i < sizeof SETTINGS / sizeof SETTINGS[0]; i++) {
            char text[256];
            snprintf(text, sizeof text, "%s %s", TYPES[t], SETTINGS[i]);
            follow(text, strstr(text, "clip_gradients"));
        }
}

static void rates_of_blobs_follow_their_norms(void **state) {
    (void)state;
    follow("larc: true momentum: 0.9 weight_decay: 0.05", false);
    follow("larc: true larc_policy: 'scale' larc_eta: 0.5 iter_size: 3", false);
    follow("larc: true larc_policy: 'clip' larc_eta: 0.02 momentum: 0.5 weight_decay: 0.01", false);
    follow("larc: true larc_policy: 'clip' larc_eta: 5", false);
    follow("local_lr_auto: true local_gw_ratio: 0.5 momentum: 0.9 weight_decay: 0.05", false);
    follow("local_lr_auto: true clip_gradients: 1.5 iter_size: 2 weight_decay: 0.1", true);
}

/* Weights or gradients that are all 0 give no ratio: the plain rate, lr_mult left out. */
static void no_norm_no_ratio(void **state) {
    (void)state;
    static const char *const SOLVERS[] = {"larc: true", "local_lr_auto: true",
                                          "larc: true larc_policy: 'clip'"};
    for (size_t i = 0; i < sizeof SOLVERS / sizeof SOLVERS[0]; i++) {
        Fixture f;
        open_fixture(&f, SOLVERS[i]);
        memset(f.params.data, 0, f.params.data_count * sizeof(float));
        draw_gradients(&f, 0);
        shoal_solver_update(f.solver, &f.built.compute, 0, 0.25f, NULL);
        for (size_t k = 0; k < f.params.gradient_count; k++)
            assert_true(f.params.data[k] == -0.25f * f.params.gradients[k]);
        close_fixture(&f);
    }
}

static void refused(const char *text, ShoalStatus status, const char *message) {
    Caffe__SolverParameter *param = solver_parse("base_lr: 0.1 lr_policy: 'fixed'", text);
    ShoalError err = {0};
    assert_int_equal(shoal_solver_check(param, &err), status);
    assert_string_equal(err.text, message);
    caffe__solver_parameter__free_unpacked(param, NULL);
}

static void settings_that_make_no_sense_are_refused(void **state) {
    (void)state;
    refused("type: 'AdaGrad' momentum: 0.9", SHOAL_ERR_MODEL,
            "solver type \"AdaGrad\" has no momentum, but momentum is 0.9; leave it out");
    refused("type: 'RMSProp' momentum: 0.9", SHOAL_ERR_MODEL,
            "solver type \"RMSProp\" has no momentum, but momentum is 0.9; leave it out");
    refused("type: 'RMSProp' rms_decay: 1", SHOAL_ERR_MODEL,
            "solver type \"RMSProp\": rms_decay is 1; it must be from 0 to 1, and not 1");
    refused("type: 'RMSProp' rms_decay: -0.5", SHOAL_ERR_MODEL,
            "solver type \"RMSProp\": rms_decay is -0.5; it must be from 0 to 1, and not 1");
    refused("type: 'Adam' momentum: 1", SHOAL_ERR_MODEL,
            "solver type \"Adam\": momentum is 1; it must be from 0 to 1, and not 1");
    refused("type: 'Adam' momentum2: 2", SHOAL_ERR_MODEL,
            "solver type \"Adam\": momentum2 is 2; it must be from 0 to 1, and not 1");
    refused("type: 'AdaDelta' momentum: 1.5", SHOAL_ERR_MODEL,
            "solver type \"AdaDelta\": momentum is 1.5; it must be from 0 to 1");
    refused("delta: -1", SHOAL_ERR_MODEL, "delta is -1; it must be a finite number, not below 0");
    refused("momentum: inf", SHOAL_ERR_MODEL, "momentum is inf; it must be a finite number");
    refused("type: 'SAG'", SHOAL_ERR_MODEL,
            "solver type \"SAG\" is unknown; use \"SGD\", \"Nesterov\", \"AdaGrad\", \"RMSProp\", "
            "\"AdaDelta\" or \"Adam\"");
    refused("type: 'Nesterov' larc: true", SHOAL_ERR_MODEL,
            "larc works with solver type \"SGD\", not with \"Nesterov\"");
    refused("type: 'Adam' local_lr_auto: true", SHOAL_ERR_MODEL,
            "local_lr_auto works with solver type \"SGD\", not with \"Adam\"");
    refused("larc: true local_lr_auto: true", SHOAL_ERR_MODEL,
            "both larc (NVCaffe) and local_lr_auto (Intel Caffe) are given; keep one");
    refused("larc: true larc_policy: 'clamp'", SHOAL_ERR_MODEL,
            "larc_policy \"clamp\" is unknown; use \"scale\" or \"clip\"");
    refused("momentum_policy: 'opt'", SHOAL_ERR_UNSUPPORTED,
            "momentum_policy (NVCaffe) is not in this version; leave it out");
    refused("weight_decay_policy: 'poly'", SHOAL_ERR_UNSUPPORTED,
            "weight_decay_policy (NVCaffe) is not in this version; leave it out");
    refused("larc: true larc_turbo: true", SHOAL_ERR_UNSUPPORTED,
            "larc_turbo (NVCaffe) is not in this version; leave it out");
    refused("warmup_iter: -1", SHOAL_ERR_MODEL, "warmup_iter is -1; it must be at least 0");
}

static void l1_leaves_zero_weights_alone(void **state) {
    (void)state;
    Fixture f;
    open_fixture(&f, "weight_decay: 0.5 regularization_type: 'L1'");
    memset(f.params.data, 0, f.params.data_count * sizeof(float));
    shoal_solver_clear_gradients(f.solver);
    shoal_solver_update(f.solver, &f.built.compute, 0, 1, NULL);
    for (size_t i = 0; i < f.params.data_count; i++)
        assert_true(f.params.data[i] == 0);
    close_fixture(&f);
}

static void weights_that_do_not_learn_keep_their_bits(void **state) {
    (void)state;
    Fixture f;
    open_fixture(&f, "momentum: 0.9 weight_decay: 10");
    const ShoalBlob *frozen = &built_net_layer(&f.built, "b")->params[0]->blob;
    float before[15];
    assert_int_equal(frozen->count, 15);
    memcpy(before, frozen->data, sizeof before);
    draw_gradients(&f, 0);
    shoal_solver_update(f.solver, &f.built.compute, 0, 0.1f, NULL);
    assert_memory_equal(frozen->data, before, sizeof before);
    close_fixture(&f);
}

static void clearing_and_exposing(void **state) {
    (void)state;
    Fixture f;
    open_fixture(&f, "momentum: 0.9");
    draw_gradients(&f, 0);
    shoal_solver_update(f.solver, &f.built.compute, 0, 0.1f, NULL);
    shoal_solver_expose_update(f.solver);
    size_t count;
    const float *history = shoal_solver_history(f.solver, &count);
    assert_memory_equal(f.params.gradients, history, f.params.gradient_count * sizeof(float));
    shoal_solver_clear_gradients(f.solver);
    assert_true(norm_of_gradients(&f) == 0);
    close_fixture(&f);
}

static void allocates_nothing(const char *solver) {
    Fixture f;
    open_fixture(&f, solver);
    draw_gradients(&f, 0);
    uint64_t before = shoal_memory_allocations();
    for (int i = 0; i < 20; i++)
        shoal_solver_update(f.solver, &f.built.compute, 0, 0.1f, NULL);
    assert_int_equal(shoal_memory_allocations(), before);
    close_fixture(&f);
}

static void update_allocates_nothing(void **state) {
    (void)state;
    allocates_nothing("momentum: 0.9 weight_decay: 0.1 clip_gradients: 1");
    allocates_nothing("larc: true weight_decay: 0.1");
    allocates_nothing("type: 'Adam' snapshot_diff: true");
}

/* ---- state ---- */

static Caffe__SolverState *through_bytes(const Caffe__SolverState *from) {
    ShoalError err = {0};
    void *bytes;
    size_t size;
    ProtobufCMessage *back = NULL;
    assert_int_equal(shoal_caffe_pack(&from->base, &bytes, &size, &err), SHOAL_OK);
    assert_int_equal(
        shoal_caffe_unpack(&caffe__solver_state__descriptor, bytes, size, "state", &back, &err),
        SHOAL_OK);
    shoal_free(bytes);
    return (Caffe__SolverState *)back;
}

static Caffe__SolverState *store(const Fixture *f) {
    ShoalError err = {0};
    Caffe__SolverState *proto = NULL, *back;
    assert_int_equal(shoal_solver_to_proto(f->solver, 17, 3, "x.caffemodel", &proto, &err),
                     SHOAL_OK);
    back = through_bytes(proto);
    shoal_solver_proto_free(proto);
    return back;
}

static void there_and_back(const char *solver, size_t blobs) {
    Fixture f, g;
    open_fixture(&f, solver);
    open_fixture(&g, solver);
    for (uint32_t i = 0; i < 3; i++) {
        draw_gradients(&f, i);
        shoal_solver_update(f.solver, &f.built.compute, (int)i, 0.1f, NULL);
    }
    Caffe__SolverState *proto = store(&f);
    assert_int_equal(proto->iter, 17);
    assert_int_equal(proto->current_step, 3);
    assert_string_equal(proto->learned_net, "x.caffemodel");
    assert_int_equal(proto->n_history, blobs); /* frozen weights too, as Caffe */
    ShoalError err = {0};
    assert_int_equal(shoal_solver_load_state(g.solver, proto, &err), SHOAL_OK);
    size_t count;
    const float *a = shoal_solver_history(f.solver, &count);
    const float *b = shoal_solver_history(g.solver, &count);
    assert_memory_equal(a, b, count * sizeof(float));
    /* From here on both go the same way. */
    memcpy(g.params.data, f.params.data, f.params.data_count * sizeof(float));
    draw_gradients(&f, 9);
    draw_gradients(&g, 9);
    shoal_solver_update(f.solver, &f.built.compute, 3, 0.1f, NULL);
    shoal_solver_update(g.solver, &g.built.compute, 3, 0.1f, NULL);
    assert_memory_equal(f.params.data, g.params.data, f.params.data_count * sizeof(float));
    caffe__solver_state__free_unpacked(proto, NULL);
    close_fixture(&f);
    close_fixture(&g);
}

static void state_goes_there_and_back(void **state) {
    (void)state;
    there_and_back("momentum: 0.9", 4);
    there_and_back("type: 'AdaGrad'", 4);
    there_and_back("type: 'AdaDelta' momentum: 0.9", 8);
    there_and_back("type: 'Adam' momentum: 0.9", 8);
}

/* All first parts, then all second ones. */
static void second_parts_come_last(void **state) {
    (void)state;
    Fixture f;
    open_fixture(&f, "type: 'Adam' snapshot_diff: true");
    size_t count;
    float *history = shoal_solver_history(f.solver, &count);
    for (size_t i = 0; i < count; i++)
        history[i] = (float)i;
    Caffe__SolverState *proto = store(&f);
    for (size_t i = 0; i < 8; i++) {
        const ShoalBlob *blob = &f.params.items[i % 4]->blob;
        size_t at = (size_t)(blob->data - f.params.data) + i / 4 * f.params.data_count;
        assert_int_equal(proto->history[i]->n_data, blob->count);
        assert_memory_equal(proto->history[i]->data, history + at, blob->count * sizeof(float));
    }
    caffe__solver_state__free_unpacked(proto, NULL);
    close_fixture(&f);
}

static void refused_state(Fixture *f, const Caffe__SolverState *proto, ShoalStatus status,
                          const char *message) {
    ShoalError err = {0};
    assert_int_equal(shoal_solver_load_state(f->solver, proto, &err), status);
    assert_string_equal(err.text, message);
    size_t count;
    const float *history = shoal_solver_history(f->solver, &count);
    for (size_t i = 0; i < count; i++)
        assert_true(history[i] == 0); /* nothing was changed */
}

static void states_that_do_not_fit_are_refused(void **state) {
    (void)state;
    Fixture f, g;
    open_fixture(&f, "momentum: 0.9");
    open_fixture(&g, "momentum: 0.9");
    draw_gradients(&f, 0);
    shoal_solver_update(f.solver, &f.built.compute, 0, 0.1f, NULL);
    Caffe__SolverState *proto = store(&f);
    proto->n_history = 3;
    refused_state(&g, proto, SHOAL_ERR_MODEL,
                  "the state holds 3 blobs, but SGD needs 4, 1 for each of the net's 4 weight "
                  "blobs; is it from another net or solver type?");
    proto->n_history = 4;
    proto->history[3]->n_data = 2;
    refused_state(&g, proto, SHOAL_ERR_MODEL,
                  "history 3 has 2 values, but weight blob 1 of layer 'b' has 3");
    proto->history[3]->n_data = 3;
    proto->iter = -1;
    refused_state(&g, proto, SHOAL_ERR_PARSE, "iteration -1 or step 3 is negative");
    proto->iter = 1;
    proto->current_step = -2;
    refused_state(&g, proto, SHOAL_ERR_PARSE, "iteration 1 or step -2 is negative");
    proto->current_step = 0;
    ShoalError err = {0};
    assert_int_equal(shoal_solver_load_state(g.solver, proto, &err), SHOAL_OK);
    caffe__solver_state__free_unpacked(proto, NULL);
    close_fixture(&f);
    close_fixture(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(updates_follow_the_reference),
        cmocka_unit_test(every_type_follows_its_rule),
        cmocka_unit_test(rates_of_blobs_follow_their_norms),
        cmocka_unit_test(no_norm_no_ratio),
        cmocka_unit_test(settings_that_make_no_sense_are_refused),
        cmocka_unit_test(l1_leaves_zero_weights_alone),
        cmocka_unit_test(weights_that_do_not_learn_keep_their_bits),
        cmocka_unit_test(clearing_and_exposing),
        cmocka_unit_test(update_allocates_nothing),
        cmocka_unit_test(state_goes_there_and_back),
        cmocka_unit_test(second_parts_come_last),
        cmocka_unit_test(states_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
