/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "solver/rate.h"
#include "solver_text.h"

/* One policy over its first iterations against its formula (BVLC Caffe: caffe.proto, lr_policy). */
typedef double Formula(int iter);

static double fixed(int iter) {
    (void)iter;
    return 0.01;
}
static double step(int iter) {
    return 0.01 * pow(0.5, iter / 3);
}
static double exponential(int iter) {
    return 0.01 * pow(0.99, iter);
}
static double inverse(int iter) {
    return 0.01 * pow(1 + 1e-4 * iter, -0.75);
}
static double multistep(int iter) {
    return 0.01 * pow(0.1, (iter >= 4) + (iter >= 9) + (iter >= 10));
}
static double poly(int iter) {
    return 0.01 * pow(1 - iter / 50.0, 2);
}
static double sigmoid(int iter) {
    return 0.01 / (1 + exp(-0.3 * (iter - 12)));
}
static double warm_poly(int iter) {
    return iter < 5 ? 0.001 + (0.01 - 0.001) * iter / 5 : poly(iter);
}

static double ramped_step(int iter) {
    return iter < 5 ? 0.002 + (0.01 - 0.002) * (iter / 5.0) * (iter / 5.0) : step(iter);
}
static double from_zero(int iter) {
    return iter < 8 ? 0.01 * iter / 8 : 0.01;
}
static double poly_to_least(int iter) {
    return (0.01 - 0.002) * (1 - iter / 50.0) * (1 - iter / 50.0) + 0.002;
}
static double floored_step(int iter) {
    return fmax(ramped_step(iter), 0.0025);
}
static double stages(int iter) {
    return iter <= 3 ? 0.5 : iter <= 10 ? 0.25 : 0.125;
}

static void policies_follow_their_formulas(void **state) {
    (void)state;
    static const struct {
        const char *text;
        Formula *formula;
    } policies[] = {
        {"lr_policy: 'fixed'", fixed},
        {"lr_policy: 'step' gamma: 0.5 stepsize: 3", step},
        {"lr_policy: 'exp' gamma: 0.99", exponential},
        {"lr_policy: 'inv' gamma: 0.0001 power: 0.75", inverse},
        {"lr_policy: 'multistep' gamma: 0.1 stepvalue: 4 stepvalue: 9 stepvalue: 10", multistep},
        {"lr_policy: 'poly' power: 2", poly},
        {"lr_policy: 'sigmoid' gamma: 0.3 stepsize: 12", sigmoid},
        {"lr_policy: 'poly' power: 2 warmup_iter: 5 warmup_start_lr: 0.001", warm_poly},
        {"lr_policy: 'fixed' warmup_iter: 8", from_zero},
        {"lr_policy: 'step' gamma: 0.5 stepsize: 3 rampup_interval: 5 rampup_lr: 0.002",
         ramped_step},
        {"lr_policy: 'poly' power: 2 min_lr: 0.002", poly_to_least},
        {"lr_policy: 'step' gamma: 0.5 stepsize: 3 rampup_interval: 5 rampup_lr: 0.002 "
         "min_lr: 0.0025",
         floored_step},
        {"lr_policy: 'multifixed' stagelr: 0.5 stagelr: 0.25 stagelr: 0.125 stageiter: 3 "
         "stageiter: 10 stageiter: 20",
         stages},
    };
    for (size_t p = 0; p < sizeof policies / sizeof policies[0]; p++) {
        Caffe__SolverParameter *solver =
            solver_parse("base_lr: 0.01 max_iter: 50", policies[p].text);
        ShoalError err = {0};
        if (shoal_rate_check(solver, &err))
            fail_msg("%s: %s", policies[p].text, err.text);
        int current_step = 0;
        for (int iter = 0; iter < 50; iter++) {
            double expected = policies[p].formula(iter);
            float rate = shoal_rate_at(solver, iter, &current_step);
            if (!(fabs((double)rate - expected) <= 1e-6 * expected))
                fail_msg("%s: iteration %d has rate %.9g; expected %.9g", policies[p].text, iter,
                         (double)rate, expected);
        }
        caffe__solver_parameter__free_unpacked(solver, NULL);
    }
}

static void multistep_goes_on_by_one_per_iteration(void **state) {
    (void)state;
    Caffe__SolverParameter *solver =
        solver_parse("base_lr: 1 max_iter: 50 lr_policy: 'multistep' gamma: 0.5",
                     "stepvalue: 2 stepvalue: 2 stepvalue: 2");
    static const int steps[] = {0, 0, 1, 2, 3, 3};
    int current_step = 0;
    for (int iter = 0; iter < 6; iter++) {
        assert_true(shoal_rate_at(solver, iter, &current_step) == (float)pow(0.5, steps[iter]));
        assert_int_equal(current_step, steps[iter]);
    }
    /* From a state of another run: no step beyond the list, and none below it. */
    current_step = 7;
    assert_true(shoal_rate_at(solver, 40, &current_step) == (float)pow(0.5, 7));
    assert_int_equal(current_step, 7);
    caffe__solver_parameter__free_unpacked(solver, NULL);
}

static void refused(const char *text, const char *message) {
    Caffe__SolverParameter *solver = solver_parse(text, "");
    ShoalError err = {0};
    assert_int_equal(shoal_rate_check(solver, &err), SHOAL_ERR_MODEL);
    assert_string_equal(err.text, message);
    caffe__solver_parameter__free_unpacked(solver, NULL);
}

static void incomplete_policies_are_refused(void **state) {
    (void)state;
    refused("base_lr: 1", "lr_policy is missing; use fixed, step, exp, inv, multistep, poly, "
                          "sigmoid or multifixed");
    refused("base_lr: 1 lr_policy: 'Fixed'", "lr_policy \"Fixed\" is unknown; use fixed, step, "
                                             "exp, inv, multistep, poly, sigmoid or multifixed");
    refused("lr_policy: 'fixed'", "base_lr must be given and not be negative");
    refused("base_lr: -1 lr_policy: 'fixed'", "base_lr must be given and not be negative");
    refused("base_lr: inf lr_policy: 'fixed'", "base_lr must be given and not be negative");
    refused("base_lr: 1 lr_policy: 'step' stepsize: 2", "lr_policy \"step\" needs gamma");
    refused("base_lr: 1 lr_policy: 'step' gamma: 1", "lr_policy \"step\" needs a stepsize above 0");
    refused("base_lr: 1 lr_policy: 'step' gamma: 1 stepsize: 0",
            "lr_policy \"step\" needs a stepsize above 0");
    refused("base_lr: 1 lr_policy: 'exp'", "lr_policy \"exp\" needs gamma");
    refused("base_lr: 1 lr_policy: 'sigmoid' gamma: -1 stepsize: 2",
            "lr_policy \"sigmoid\" needs a gamma that is not negative");
    refused("base_lr: 0.1 lr_policy: 'poly' min_lr: 0.5",
            "lr_policy \"poly\" goes from base_lr 0.1 down to min_lr 0.5; make min_lr the smaller "
            "one");
    refused("base_lr: 1 lr_policy: 'fixed' warmup_iter: 5 rampup_interval: 5",
            "both warmup_iter (Intel Caffe) and rampup_interval (NVCaffe) are given; keep one");
    refused(
        "lr_policy: 'multifixed' stagelr: 1",
        "lr_policy \"multifixed\" has 1 stagelr and 0 stageiter; give as many of both, at least "
        "one");
    refused("lr_policy: 'multifixed' stagelr: -1 stageiter: 5", "stagelr must not be negative");
    refused("lr_policy: 'multifixed' stagelr: 1 stageiter: 9 warmup_iter: 5",
            "base_lr is missing: where the warm-up ends");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policies_follow_their_formulas),
        cmocka_unit_test(multistep_goes_on_by_one_per_iteration),
        cmocka_unit_test(incomplete_policies_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
