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
    double *history, *weights; /* of the reference, laid out as params.data */
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
    f->history = calloc(f->params.data_count, sizeof *f->history);
    f->weights = calloc(f->params.data_count, sizeof *f->weights);
    for (size_t i = 0; i < f->params.data_count; i++)
        f->weights[i] = (double)f->params.data[i];
}

static void close_fixture(Fixture *f) {
    shoal_solver_destroy(f->solver);
    caffe__solver_parameter__free_unpacked(f->param, NULL);
    free(f->history);
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

/* SGDSolver::ApplyUpdate in double: clip, normalise, regularise, momentum, subtract. */
static double reference_update(Fixture *f, double rate) {
    const Caffe__SolverParameter *p = f->param;
    double norm = norm_of_gradients(f), limit = (double)p->clip_gradients, clip = 1;
    if (limit >= 0 && norm > limit)
        clip = limit / norm;
    for (int i = 0; i < f->params.count; i++) {
        const ShoalParam *param = f->params.items[i];
        size_t at = (size_t)(param->blob.data - f->params.data);
        double decay = (double)p->weight_decay * (double)param->decay_mult;
        for (size_t k = 0; param->learns && k < param->blob.count; k++) {
            double *w = &f->weights[at + k], *h = &f->history[at + k];
            double g = (double)param->blob.diff[k] * clip / p->iter_size;
            double sign = (*w > 0) - (*w < 0);
            bool l1 = p->regularization_type && !strcmp(p->regularization_type, "L1");
            g += decay * (l1 ? sign : *w);
            *h = (double)p->momentum * *h + rate * (double)param->lr_mult * g;
            *w -= *h;
        }
    }
    return clip < 1 ? norm : 0;
}

static void assert_near(const float *found, const double *expected, size_t n, int steps) {
    for (size_t i = 0; i < n; i++) {
        double error = fabs((double)found[i] - expected[i]);
        if (!(error <= 8 * (double)FLT_EPSILON * steps * (1 + fabs(expected[i]))))
            fail_msg("value %zu is %.9g; expected %.9g", i, (double)found[i], expected[i]);
    }
}

static void follow(const char *solver, bool clips) {
    enum { STEPS = 20 };
    Fixture f;
    open_fixture(&f, solver);
    size_t count;
    const float *history = shoal_solver_history(f.solver, &count);
    assert_int_equal(count, f.params.data_count);
    for (int i = 0; i < STEPS; i++) {
        double rate = 0.1 / (i + 1), clipped = -1;
        draw_gradients(&f, (uint32_t)i);
        double expected = reference_update(&f, (double)(float)rate);
        shoal_solver_update(f.solver, &f.built.compute, (float)rate, &clipped);
        assert_true(fabs(clipped - expected) <= 1e-6 * expected);
        assert_int_equal(clipped > 0, clips);
        assert_near(f.params.data, f.weights, f.params.data_count, i + 1);
        assert_near(history, f.history, f.params.data_count, i + 1);
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
           "regularization_type: 'L1'",
           true);
}

static void l1_leaves_zero_weights_alone(void **state) {
    (void)state;
    Fixture f;
    open_fixture(&f, "weight_decay: 0.5 regularization_type: 'L1'");
    memset(f.params.data, 0, f.params.data_count * sizeof(float));
    shoal_solver_clear_gradients(f.solver);
    shoal_solver_update(f.solver, &f.built.compute, 1, NULL);
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
    shoal_solver_update(f.solver, &f.built.compute, 0.1f, NULL);
    assert_memory_equal(frozen->data, before, sizeof before);
    close_fixture(&f);
}

static void clearing_and_exposing(void **state) {
    (void)state;
    Fixture f;
    open_fixture(&f, "momentum: 0.9");
    draw_gradients(&f, 0);
    shoal_solver_update(f.solver, &f.built.compute, 0.1f, NULL);
    shoal_solver_expose_update(f.solver);
    size_t count;
    const float *history = shoal_solver_history(f.solver, &count);
    assert_memory_equal(f.params.gradients, history, f.params.gradient_count * sizeof(float));
    shoal_solver_clear_gradients(f.solver);
    assert_true(norm_of_gradients(&f) == 0);
    close_fixture(&f);
}

static void update_allocates_nothing(void **state) {
    (void)state;
    Fixture f;
    open_fixture(&f, "momentum: 0.9 weight_decay: 0.1 clip_gradients: 1");
    draw_gradients(&f, 0);
    uint64_t before = shoal_memory_allocations();
    for (int i = 0; i < 20; i++)
        shoal_solver_update(f.solver, &f.built.compute, 0.1f, NULL);
    assert_int_equal(shoal_memory_allocations(), before);
    close_fixture(&f);
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

static void state_goes_there_and_back(void **state) {
    (void)state;
    Fixture f, g;
    open_fixture(&f, "momentum: 0.9");
    open_fixture(&g, "momentum: 0.9");
    for (uint32_t i = 0; i < 3; i++) {
        draw_gradients(&f, i);
        shoal_solver_update(f.solver, &f.built.compute, 0.1f, NULL);
    }
    Caffe__SolverState *proto = store(&f);
    assert_int_equal(proto->iter, 17);
    assert_int_equal(proto->current_step, 3);
    assert_string_equal(proto->learned_net, "x.caffemodel");
    assert_int_equal(proto->n_history, 4); /* frozen weights too, as Caffe */
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
    shoal_solver_update(f.solver, &f.built.compute, 0.1f, NULL);
    shoal_solver_update(g.solver, &g.built.compute, 0.1f, NULL);
    assert_memory_equal(f.params.data, g.params.data, f.params.data_count * sizeof(float));
    caffe__solver_state__free_unpacked(proto, NULL);
    close_fixture(&f);
    close_fixture(&g);
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
    shoal_solver_update(f.solver, &f.built.compute, 0.1f, NULL);
    Caffe__SolverState *proto = store(&f);
    proto->n_history = 3;
    refused_state(&g, proto, SHOAL_ERR_MODEL,
                  "the state holds the history of 3 weight blobs, the net has 4; is it from "
                  "another net or solver type?");
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
        cmocka_unit_test(l1_leaves_zero_weights_alone),
        cmocka_unit_test(weights_that_do_not_learn_keep_their_bits),
        cmocka_unit_test(clearing_and_exposing),
        cmocka_unit_test(update_allocates_nothing),
        cmocka_unit_test(state_goes_there_and_back),
        cmocka_unit_test(states_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
