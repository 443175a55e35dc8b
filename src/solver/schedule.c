/* SPDX-License-Identifier: Apache-2.0 */
#include "solver/schedule.h"

#include "solver/rate.h"

/* Places within the life of an iteration, then those after the last one. */
enum { AT_TEST, AT_TRAIN, AT_SNAPSHOT, AT_LAST_SNAPSHOT, AT_LAST_LOSS, AT_LAST_TEST, AT_END };

/* Intel Caffe's test_offset moves all tests (Solver::Step); BVLC has 0. */
static bool is_test_iteration(const ShoalSchedule *s, int iter) {
    const Caffe__SolverParameter *p = s->solver;
    return p->test_interval > 0 && s->n_test_nets > 0 &&
           ((int64_t)iter - p->test_offset) % p->test_interval == 0;
}

static bool tests_at(const ShoalSchedule *s, int iter) {
    return is_test_iteration(s, iter) && (iter > 0 || s->solver->test_initialization);
}

/* How many tests there are before an iteration. */
static int tests_before(const ShoalSchedule *s, int iter) {
    const int interval = s->solver->test_interval;
    const int first = (s->solver->test_offset % interval + interval) % interval;
    const int all = iter > first ? (iter - 1 - first) / interval + 1 : 0;
    return all - (first == 0 && !s->solver->test_initialization);
}

static bool snapshots_at(const ShoalSchedule *s, int iter) {
    return s->solver->snapshot > 0 && iter % s->solver->snapshot == 0;
}

static bool displays_at(const ShoalSchedule *s, int iter) {
    return s->solver->display > 0 && iter % s->solver->display == 0;
}

void shoal_schedule_init(ShoalSchedule *schedule, const Caffe__SolverParameter *solver,
                         int n_test_nets, int start_iter, int current_step, bool unbroken) {
    *schedule = (ShoalSchedule){.solver = solver,
                                .n_test_nets = n_test_nets,
                                .iter = start_iter,
                                .start_iter = start_iter,
                                .current_step = current_step};
    if (unbroken && start_iter > 0 && solver->test_interval > 0)
        schedule->tests = tests_before(schedule, start_iter);
}

static bool next_test(ShoalSchedule *s, ShoalStep *step) {
    *step = (ShoalStep){.kind = SHOAL_STEP_TEST,
                        .iter = s->iter,
                        .test_net = s->test_net,
                        .tests_before = s->tests};
    if (++s->test_net == s->n_test_nets) {
        s->test_net = 0;
        s->tests++;
        s->place++;
    }
    return true;
}

static bool next_train(ShoalSchedule *s, ShoalStep *step) {
    *step =
        (ShoalStep){.kind = SHOAL_STEP_TRAIN, .iter = s->iter, .display = displays_at(s, s->iter)};
    step->rate = shoal_rate_at(s->solver, s->iter, &s->current_step);
    step->current_step = s->current_step;
    s->iter++;
    s->place = AT_SNAPSHOT;
    return true;
}

static ShoalStep snapshot_step(const ShoalSchedule *s) {
    return (ShoalStep){
        .kind = SHOAL_STEP_SNAPSHOT, .iter = s->iter, .current_step = s->current_step};
}

/* One place; true when it gave a step. */
static bool visit(ShoalSchedule *s, ShoalStep *step) {
    switch (s->place) {
    case AT_TEST:
        if (s->test_net == 0 && (s->stopping || s->iter >= s->solver->max_iter)) {
            s->place = AT_LAST_SNAPSHOT;
            return false;
        }
        if (tests_at(s, s->iter))
            return next_test(s, step);
        s->place = AT_TRAIN;
        return false;
    case AT_TRAIN:
        return next_train(s, step);
    case AT_SNAPSHOT:
        s->place = AT_TEST;
        *step = snapshot_step(s);
        return snapshots_at(s, s->iter);
    case AT_LAST_SNAPSHOT:
        s->place = s->stopping ? AT_END : AT_LAST_LOSS;
        *step = snapshot_step(s);
        return s->solver->snapshot_after_train && !snapshots_at(s, s->iter);
    case AT_LAST_LOSS:
        s->place = AT_LAST_TEST;
        *step = (ShoalStep){.kind = SHOAL_STEP_LOSS, .iter = s->iter, .display = true};
        return displays_at(s, s->iter);
    case AT_LAST_TEST:
        if (is_test_iteration(s, s->iter))
            return next_test(s, step);
        s->place = AT_END;
        return false;
    default:
        *step = (ShoalStep){.kind = SHOAL_STEP_END, .iter = s->iter};
        return true;
    }
}

ShoalStep shoal_schedule_next(ShoalSchedule *schedule) {
    ShoalStep step;
    while (!visit(schedule, &step))
        ;
    return step;
}

void shoal_schedule_stop(ShoalSchedule *schedule) {
    schedule->stopping = true;
    if (schedule->place > AT_LAST_SNAPSHOT)
        schedule->place = AT_END;
}
