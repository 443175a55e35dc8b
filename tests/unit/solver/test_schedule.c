/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "solver/schedule.h"
#include "solver_text.h"

/* The sequence of steps against Caffe's two loops, Solver::Solve around Solver::Step, written down
 * once more as loops. */

enum { MOST = 256 };

typedef struct Sequence {
    ShoalStep steps[MOST];
    int count;
} Sequence;

typedef struct Setting {
    const Caffe__SolverParameter *p;
    int n_test_nets, start, current_step;
    bool unbroken;
    int stop_at; /* steps that come before Ctrl-C; MOST: never */
} Setting;

static bool stopped(const Setting *s, const Sequence *seq) {
    return seq->count >= s->stop_at;
}

static ShoalStep *add(Sequence *seq, ShoalStepKind kind, int iter) {
    assert_true(seq->count < MOST);
    ShoalStep *step = &seq->steps[seq->count++];
    *step = (ShoalStep){.kind = kind, .iter = iter};
    return step;
}

static void add_tests(const Setting *s, Sequence *seq, int iter, int *tests) {
    for (int net = 0; net < s->n_test_nets; net++) {
        ShoalStep *step = add(seq, SHOAL_STEP_TEST, iter);
        step->test_net = net;
        step->tests_before = *tests;
    }
    *tests += s->n_test_nets > 0;
}

static bool due(int interval, int iter) {
    return interval > 0 && iter % interval == 0;
}

static bool tests_at(const Caffe__SolverParameter *p, int iter) {
    return p->test_interval > 0 && (iter - p->test_offset) % p->test_interval == 0;
}

/* How often an unbroken run has tested before it came to `iter`. */
static int tests_until(const Caffe__SolverParameter *p, int iter) {
    int n = 0;
    for (int i = 0; i < iter; i++)
        n += tests_at(p, i) && (i > 0 || p->test_initialization);
    return n;
}

/* What follows the last iteration in Solve; false when Ctrl-C cut it short. */
static void finish(const Setting *s, Sequence *seq, int iter, int current_step, int *tests,
                   bool early) {
    const Caffe__SolverParameter *p = s->p;
    if (p->snapshot_after_train && !due(p->snapshot, iter))
        add(seq, SHOAL_STEP_SNAPSHOT, iter)->current_step = current_step;
    if (early || stopped(s, seq))
        return;
    if (due(p->display, iter)) {
        add(seq, SHOAL_STEP_LOSS, iter)->display = true;
        if (stopped(s, seq))
            return;
    }
    if (tests_at(p, iter))
        for (int net = 0; net < s->n_test_nets && !stopped(s, seq); net++) {
            ShoalStep *step = add(seq, SHOAL_STEP_TEST, iter);
            step->test_net = net;
            step->tests_before = *tests;
        }
}

static void expected_sequence(const Setting *s, Sequence *seq) {
    const Caffe__SolverParameter *p = s->p;
    int iter = s->start, current_step = s->current_step;
    int tests = s->unbroken ? tests_until(p, iter) : 0;
    bool early = stopped(s, seq);
    while (!early && iter < p->max_iter) {
        if (tests_at(p, iter) && (iter > 0 || p->test_initialization))
            add_tests(s, seq, iter, &tests);
        ShoalStep *train = add(seq, SHOAL_STEP_TRAIN, iter);
        train->display = due(p->display, iter);
        if ((size_t)current_step < p->n_stepvalue && iter >= p->stepvalue[current_step])
            current_step++;
        train->rate = (float)((double)p->base_lr * pow((double)p->gamma, current_step));
        train->current_step = current_step;
        iter++;
        if (due(p->snapshot, iter))
            add(seq, SHOAL_STEP_SNAPSHOT, iter)->current_step = current_step;
        early = stopped(s, seq);
    }
    finish(s, seq, iter, current_step, &tests, early);
    add(seq, SHOAL_STEP_END, iter);
}

static void compare(const Setting *s) {
    Sequence expected = {.count = 0};
    expected_sequence(s, &expected);
    ShoalSchedule schedule;
    shoal_schedule_init(&schedule, s->p, s->n_test_nets, s->start, s->current_step, s->unbroken);
    for (int i = 0; i < expected.count + 2; i++) {
        if (i == s->stop_at)
            shoal_schedule_stop(&schedule);
        ShoalStep found = shoal_schedule_next(&schedule);
        const ShoalStep *e = &expected.steps[i < expected.count ? i : expected.count - 1];
        if (found.kind != e->kind || found.iter != e->iter || found.test_net != e->test_net ||
            found.tests_before != e->tests_before || found.rate != e->rate ||
            found.current_step != e->current_step || found.display != e->display)
            fail_msg("step %d is kind %d at %d (net %d, tests %d, rate %g, step %d, display %d), "
                     "expected kind %d at %d (net %d, tests %d, rate %g, step %d, display %d); "
                     "max_iter %d test_interval %d snapshot %d after %d display %d nets %d start "
                     "%d stop %d",
                     i, found.kind, found.iter, found.test_net, found.tests_before,
                     (double)found.rate, found.current_step, found.display, e->kind, e->iter,
                     e->test_net, e->tests_before, (double)e->rate, e->current_step, e->display,
                     s->p->max_iter, s->p->test_interval, s->p->snapshot,
                     s->p->snapshot_after_train, s->p->display, s->n_test_nets, s->start,
                     s->stop_at);
    }
}

/* All starts and all places to stop at, for one solver. */
static void compare_all(const Caffe__SolverParameter *p) {
    for (int nets = 0; nets <= 2; nets++)
        for (int start = 0; start <= p->max_iter + 1; start++)
            for (int unbroken = 0; unbroken <= 1; unbroken++) {
                Setting s = {.p = p,
                             .n_test_nets = nets,
                             .start = start,
                             .current_step = start > 2,
                             .unbroken = unbroken};
                for (s.stop_at = 0; s.stop_at < 22; s.stop_at++)
                    compare(&s);
                s.stop_at = MOST;
                compare(&s);
            }
}

static void sequences_are_those_of_caffe(void **state) {
    (void)state;
    Caffe__SolverParameter *p =
        solver_parse("base_lr: 1 lr_policy: 'multistep' gamma: 0.5", "stepvalue: 2 stepvalue: 3");
    static const int max_iters[] = {0, 1, 2, 5, 5, 5, 5}, offsets[] = {0, 0, 0, 0, 1, 7, -2};
    for (int m = 0; m < 7; m++)
        for (int choice = 0; choice < 4 * 4 * 3 * 2 * 2; choice++) {
            int rest = choice;
            p->max_iter = max_iters[m];
            p->test_offset = offsets[m];
            p->test_interval = rest % 4;
            p->snapshot = (rest /= 4) % 4;
            p->display = (rest /= 4) % 3;
            p->snapshot_after_train = (rest /= 3) % 2;
            p->test_initialization = rest / 2;
            compare_all(p);
        }
    caffe__solver_parameter__free_unpacked(p, NULL);
}

/* One of them spelled out, as a check on the loops above: T test, t train, S snapshot, L loss. */
static void an_example(void **state) {
    (void)state;
    Caffe__SolverParameter *p = solver_parse(
        "base_lr: 1 lr_policy: 'fixed' max_iter: 4 test_interval: 2 snapshot: 3", "display: 4");
    ShoalSchedule schedule;
    shoal_schedule_init(&schedule, p, 1, 0, 0, false);
    static const char kinds[] = "TtSLE";
    char text[64] = "";
    for (int n = 0; n < 12; n++) {
        ShoalStep step = shoal_schedule_next(&schedule);
        snprintf(text + strlen(text), sizeof text - strlen(text), "%c%d ", kinds[step.kind],
                 step.iter);
    }
    assert_string_equal(text, "T0 t0 t1 T2 t2 S3 t3 S4 L4 T4 E4 E4 ");
    caffe__solver_parameter__free_unpacked(p, NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_are_those_of_caffe),
        cmocka_unit_test(an_example),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
