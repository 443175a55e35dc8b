/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "device/care.h"

/* ---- a phone that heats up ---- */

/* Two masses: the processor with what it is soldered to, and battery and case, which lose heat to
 * the air. A phone of 170 g has some 150 J/K, and a surface of 0.02 m2 that loses some 10 W/(m2 K)
 * by convection and radiation, so 0.2 W/K. Its processor takes 3 to 8 W with all cores at work, and
 * becomes 4 to 10 K/W hotter than the case within seconds to a minute (chosen as
 * likely for phones of 2017 to 2020; no phone was measured). */
typedef struct Phone {
    double ambient;                       /* degrees */
    double idle_watts, full_watts;        /* of processor and rest */
    double processor_joules, case_joules; /* a degree */
    double to_case, to_air;               /* watts a degree */
    double trip;                          /* degrees at which the kernel lowers the clock */
    double noise, step;                   /* degrees: of the sensor, deviation and resolution */
    int delay_s;                          /* of the sensor */
} Phone;

static const Phone USUAL = {.ambient = 25,
                            .idle_watts = 0.3,
                            .full_watts = 6,
                            .processor_joules = 6,
                            .case_joules = 150,
                            .to_case = 0.13,
                            .to_air = 0.22,
                            .trip = 75,
                            .noise = 0.2,
                            .step = 0.1};

enum { STEPS = 20, STATES = 15, DELAY_MOST = 4 };

typedef struct State {
    double processor, battery; /* degrees */
    int throttle;              /* of the kernel: 0 is the full clock */
    double log[DELAY_MOST];    /* of the processor: what a slow sensor says */
    uint64_t random;
} State;

/* What came out of a run. */
typedef struct Run {
    double work; /* seconds at the full clock */
    double hottest, hottest_battery;
    int throttled_s, rests, resting_s;
    double least_duty;
} Run;

/* splitmix64 */
static double uniform(uint64_t *random) {
    uint64_t z = *random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) / 9007199254740992.0;
}

static double between(uint64_t *random, double least, double most) {
    return least + (most - least) * uniform(random);
}

/* About normal, with deviation 1. */
static double normal(uint64_t *random) {
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += uniform(random);
    return sum - 6;
}

static void begin(State *s, const Phone *phone) {
    *s = (State){.processor = phone->ambient, .battery = phone->ambient, .random = 1};
    for (int i = 0; i < DELAY_MOST; i++)
        s->log[i] = phone->ambient;
}

/* One second. Returns the work done. The kernel's step-wise governor lowers the clock by a step for
 * every quarter of a second above the trip point; power goes with the square of the clock, or so.
 */
static double live(State *s, const Phone *phone, double duty, bool governed) {
    double work = 0, dt = 1.0 / STEPS;
    for (int i = 0; i < STEPS; i++) {
        double clock = 1 - 0.9 * s->throttle / STATES;
        double watts = phone->idle_watts + duty * clock * clock * phone->full_watts;
        double flow = (s->processor - s->battery) * phone->to_case;
        s->processor += (watts - flow) * dt / phone->processor_joules;
        s->battery +=
            (flow - (s->battery - phone->ambient) * phone->to_air) * dt / phone->case_joules;
        work += duty * clock * dt;
        if (governed && i % (STEPS / 4) == 0) {
            if (s->processor >= phone->trip && s->throttle < STATES)
                s->throttle++;
            else if (s->processor < phone->trip - 1 && s->throttle > 0)
                s->throttle--;
        }
    }
    memmove(s->log + 1, s->log, sizeof s->log - sizeof *s->log);
    s->log[0] = s->processor;
    return work;
}

static double sense(State *s, const Phone *phone, double degrees) {
    double seen = degrees + phone->noise * normal(&s->random);
    return round(seen / phone->step) * phone->step;
}

static void note(Run *run, const State *s) {
    run->hottest = fmax(run->hottest, s->processor);
    run->hottest_battery = fmax(run->hottest_battery, s->battery);
    run->throttled_s += s->throttle > 0;
}

/* With a constant duty. */
static Run run_constant(const Phone *phone, double duty, int seconds, bool governed) {
    State s;
    Run run = {0};
    begin(&s, phone);
    for (int t = 0; t < seconds; t++) {
        run.work += live(&s, phone, duty, governed);
        note(&run, &s);
    }
    return run;
}

/* The greatest constant duty that keeps both below their limits all the time. */
static double best_constant(const Phone *phone, double battery_limit, int seconds) {
    double good = 0, bad = 1;
    Run full = run_constant(phone, 1, seconds, false);
    if (full.hottest < phone->trip && full.hottest_battery < battery_limit)
        return 1;
    for (int i = 0; i < 12; i++) {
        double duty = (good + bad) / 2;
        Run run = run_constant(phone, duty, seconds, false);
        if (run.hottest < phone->trip && run.hottest_battery < battery_limit)
            good = duty;
        else
            bad = duty;
    }
    return good;
}

typedef struct Day {
    const Phone *phone;
    ShoalCareOptions options;
    double (*ambient)(int second); /* NULL: the phone's */
    uint64_t seed;
} Day;

static ShoalVitals vitals_of(State *s, const Phone *phone) {
    return (ShoalVitals){.temperature = (float)sense(s, phone, s->log[phone->delay_s]),
                         .ceiling = (float)phone->trip,
                         .battery_temperature = (float)sense(s, phone, s->battery),
                         .battery = 80,
                         .charging = true,
                         .plugged = 1,
                         .used = 0};
}

/* With care. */
static Run run_day(const Day *day, int seconds) {
    Phone phone = *day->phone;
    State s;
    ShoalCare care;
    Run run = {.least_duty = 1};
    begin(&s, &phone);
    s.random = day->seed;
    shoal_care_init(&care, &day->options);
    for (int t = 0; t < seconds; t++) {
        phone.ambient = day->ambient ? day->ambient(t) : phone.ambient;
        ShoalVitals v = vitals_of(&s, &phone);
        bool rested = care.advice.rest;
        const ShoalCareAdvice *advice = shoal_care_observe(&care, 1000 + (uint64_t)t * 1000, &v);
        assert_true(advice->duty >= 0.099f && advice->duty <= 1);
        run.rests += advice->rest && !rested;
        run.resting_s += advice->rest;
        double duty = (double)advice->duty;
        run.least_duty = fmin(run.least_duty, duty);
        run.work += live(&s, &phone, advice->rest ? 0 : duty, true);
        note(&run, &s);
    }
    return run;
}

enum { TWO_HOURS = 7200 };

/* ---- what it does for a phone ---- */

static void test_without_care_it_throttles(void **state) {
    (void)state;
    Run run = run_constant(&USUAL, 1, TWO_HOURS, true);
    assert_true(run.throttled_s > TWO_HOURS / 2);
    assert_true(run.hottest >= USUAL.trip);
    Phone lasting = USUAL;
    lasting.trip = 95;
    run = run_constant(&lasting, 1, TWO_HOURS, true);
    assert_true(run.hottest_battery > 46);
}

/* Of one phone: stays below the limits, and does almost what the best constant duty does. */
static void check_cared(const Phone *phone, float battery_limit, uint64_t seed) {
    double limit = battery_limit < 0 ? 1000 : (double)battery_limit;
    Day day = {.phone = phone, .seed = seed, .options = {.max_battery_temp = battery_limit}};
    double best = best_constant(phone, limit, TWO_HOURS);
    if (best < 0.15) /* too hot a place: it may rest */
        return;
    Run run = run_day(&day, TWO_HOURS);
    if (run.hottest >= phone->trip || run.hottest_battery >= limit + 0.5 || run.throttled_s ||
        run.rests || run.work < 0.9 * best * TWO_HOURS)
        fail_msg("seed %llu: %.2f of %.0f degrees, battery %.2f of %.0f, throttled for %d s, %d "
                 "rests, %.3f of the work",
                 (unsigned long long)seed, run.hottest, phone->trip, run.hottest_battery, limit,
                 run.throttled_s, run.rests, run.work / (best * TWO_HOURS));
}

static void test_with_care_it_does_not(void **state) {
    (void)state;
    check_cared(&USUAL, 45, 1);
    check_cared(&USUAL, -1, 1);
    Phone lasting = USUAL;
    lasting.trip = 95;
    check_cared(&lasting, 45, 1);
    /* A cool one is left alone. */
    Phone cool = USUAL;
    cool.ambient = 0;
    cool.trip = 90;
    Day day = {.phone = &cool, .seed = 1};
    Run run = run_day(&day, TWO_HOURS);
    assert_true(run.work > 0.999 * TWO_HOURS);
    assert_true(run.least_duty > 0.999);
}

static void test_many_phones(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        uint64_t random = seed * 1000;
        Phone phone = {.ambient = between(&random, 5, 35),
                       .idle_watts = between(&random, 0.1, 0.6),
                       .full_watts = between(&random, 2, 9),
                       .processor_joules = between(&random, 1.5, 10),
                       .case_joules = between(&random, 80, 250),
                       .to_case = between(&random, 0.1, 0.25),
                       .to_air = between(&random, 0.15, 0.4),
                       .trip = between(&random, 70, 95),
                       .noise = between(&random, 0, 0.7),
                       .step = uniform(&random) < 0.5 ? 1 : 0.1,
                       .delay_s = (int)between(&random, 0, 2.99)};
        check_cared(&phone, seed % 2 ? 45 : -1, seed);
    }
}

static void test_the_same_again(void **state) {
    (void)state;
    Day day = {.phone = &USUAL, .seed = 5};
    Run first = run_day(&day, 1000), second = run_day(&day, 1000);
    assert_memory_equal(&first, &second, sizeof first);
}

/* A window sill at noon. */
static double noon(int second) {
    return second >= 3600 && second < 7200 ? 60 : 25;
}

static void test_hot_places(void **state) {
    (void)state;
    Day day = {.phone = &USUAL, .ambient = noon, .seed = 3};
    Run morning = run_day(&day, 3600), both = run_day(&day, 7200), all = run_day(&day, 5 * 3600);
    assert_int_equal(morning.rests, 0);
    assert_true(both.rests >= 1 && both.resting_s > 1500);
    /* It is back, and works as it did. */
    assert_true(all.rests <= 2 && all.resting_s < 3600 + 1800);
    assert_true(all.work > 2.5 * morning.work);
    assert_int_equal(all.throttled_s, 0);
}

/* ---- what it does with single observations ---- */

static const ShoalVitals UNKNOWN = {.battery = -1, .plugged = -1, .used = -1};
static const ShoalVitals WELL = {.temperature = 40,
                                 .ceiling = 85,
                                 .battery_temperature = 30,
                                 .clock = 1,
                                 .battery = 80,
                                 .charging = true,
                                 .plugged = 1,
                                 .used = 0};

static ShoalCare care;
static uint64_t now_ms;

static void begin_care(ShoalCareOptions options) {
    now_ms = 5000;
    shoal_care_init(&care, &options);
}

static const ShoalCareAdvice *observe(const ShoalVitals *vitals, int times) {
    for (int i = 0; i < times; i++, now_ms += 1000)
        shoal_care_observe(&care, now_ms, vitals);
    return &care.advice;
}

static void assert_free(void) {
    assert_false(care.advice.rest);
    assert_true(care.advice.duty >= 1);
    assert_string_equal(care.advice.text, "");
}

static void assert_rests(const char *text) {
    assert_true(care.advice.rest);
    assert_string_equal(care.advice.text, text);
}

static void test_nothing_is_known(void **state) {
    (void)state;
    begin_care((ShoalCareOptions){.rest_used = true, .rest_unplugged = true});
    observe(&UNKNOWN, 20);
    assert_free();
    observe(&WELL, 20);
    assert_free();
    observe(&UNKNOWN, 20);
    assert_free();
}

static void test_no_limits(void **state) {
    (void)state;
    begin_care((ShoalCareOptions){.max_temp = -1, .max_battery_temp = -1, .min_battery = -1});
    observe(&(ShoalVitals){.temperature = 140,
                           .ceiling = 70,
                           .battery_temperature = 90,
                           .battery = 0,
                           .plugged = 0,
                           .used = 1},
            20);
    assert_free();
}

static void test_ceilings(void **state) {
    (void)state;
    static const struct {
        float option, trip, ceiling;
    } CASES[] = {{0, 0, 80}, {0, 85, 82}, {0, 120, 95}, {70, 85, 70}, {90, 85, 90}, {-1, 85, 0}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        ShoalVitals v = WELL;
        begin_care((ShoalCareOptions){.max_temp = CASES[i].option});
        v.ceiling = CASES[i].trip;
        observe(&v, 1);
        assert_true(fabsf(care.ceiling - CASES[i].ceiling) < 1e-3f);
        v.ceiling = 0; /* one that is not told once more is remembered */
        observe(&v, 1);
        assert_true(fabsf(care.ceiling - CASES[i].ceiling) < 1e-3f);
    }
}

static void test_less_when_hotter(void **state) {
    (void)state;
    ShoalVitals v = WELL;
    begin_care((ShoalCareOptions){0});
    observe(&v, 5);
    assert_free();
    v.temperature = 81.5f;
    observe(&v, 60);
    assert_false(care.advice.rest);
    assert_true(care.advice.duty < 0.8f);
    assert_string_equal(care.advice.text, "the processor has 82 C; its ceiling is 82 C");
    v.temperature = 40;
    v.battery_temperature = 45.2f;
    observe(&v, 600);
    assert_false(care.advice.rest);
    assert_true(care.advice.duty < 0.8f);
    assert_string_equal(care.advice.text, "the battery has 45 C; its limit is 45 C");
    v.battery_temperature = 30;
    float before = care.advice.duty;
    observe(&v, 2);
    assert_true(care.advice.duty < before + 0.11f); /* up again slowly */
    observe(&v, 3600);
    assert_free();
}

static void test_begins_low_where_it_is_hot(void **state) {
    (void)state;
    ShoalVitals v = WELL;
    begin_care((ShoalCareOptions){0});
    v.temperature = 72;
    assert_true(observe(&v, 1)->duty < 0.3f);
}

static void test_single_nonsense(void **state) {
    (void)state;
    begin_care((ShoalCareOptions){.rest_used = true, .rest_unplugged = true});
    observe(&WELL, 10);
    static const float ODD[] = {140, -39, 0, 150, 95};
    for (size_t i = 0; i < 5; i++) {
        ShoalVitals v = WELL;
        v.temperature = v.battery_temperature = ODD[i];
        v.battery = 0;
        v.charging = false;
        v.plugged = 0;
        v.used = 1;
        observe(&v, 1);
        assert_free();
        observe(&WELL, 4);
        assert_free();
    }
}

static void test_low_battery(void **state) {
    (void)state;
    ShoalVitals v = WELL;
    begin_care((ShoalCareOptions){0});
    v.battery = 12;
    observe(&v, 10); /* is charged */
    assert_free();
    v.charging = false;
    v.plugged = 0;
    observe(&v, 2);
    assert_free();
    observe(&v, 1);
    assert_rests("battery 12 %, not charging; goes on at 20 %");
    v.battery = 19;
    observe(&v, 10);
    assert_true(care.advice.rest);
    v.battery = 20;
    observe(&v, 2);
    assert_true(care.advice.rest);
    observe(&v, 1);
    assert_free();
    v.battery = 14;
    observe(&v, 3);
    assert_true(care.advice.rest);
    v.charging = true;
    v.plugged = 1;
    observe(&v, 10);
    assert_rests("battery 14 %, charging; goes on at 15 %");
    v.battery = 15;
    observe(&v, 3);
    assert_free();
}

static void test_a_low_battery_at_the_begin(void **state) {
    (void)state;
    ShoalVitals v = WELL;
    begin_care((ShoalCareOptions){.min_battery = 98});
    v.battery = 5;
    v.charging = false;
    observe(&v, 1);
    assert_rests("battery 5 %, not charging; goes on at 98 %");
    v.plugged = -1;
    observe(&v, 1);
    assert_rests("battery 5 %, not charging; goes on at 100 %");
    v.battery = 100;
    observe(&v, 3);
    assert_free();
    v.battery = 97;
    observe(&v, 3);
    assert_true(care.advice.rest);
    observe(&UNKNOWN, 3);
    assert_free();
}

static void test_hot_battery(void **state) {
    (void)state;
    ShoalVitals v = WELL;
    begin_care((ShoalCareOptions){.max_battery_temp = 40});
    observe(&v, 5);
    v.battery_temperature = 43.4f;
    observe(&v, 300);
    assert_rests("the battery has 43 C, its limit is 40 C; goes on at 38 C");
    v.battery_temperature = 39;
    observe(&v, 300);
    assert_true(care.advice.rest);
    v.battery_temperature = 37.5f;
    observe(&v, 300);
    assert_false(care.advice.rest);
    assert_true(care.advice.duty < 1);
}

static void test_hot_processor(void **state) {
    (void)state;
    ShoalVitals v = WELL;
    begin_care((ShoalCareOptions){0});
    observe(&v, 5);
    v.temperature = 89.6f; /* its rest begins at 90 */
    observe(&v, 300);
    assert_false(care.advice.rest);
    assert_true(care.advice.duty < 0.11f);
    v.temperature = 92;
    observe(&v, 10);
    assert_rests("the processor has 92 C, its ceiling is 82 C; goes on at 72 C");
    v.temperature = 73;
    observe(&v, 300);
    assert_true(care.advice.rest);
    v.temperature = 71;
    observe(&v, 7);
    assert_false(care.advice.rest);
    assert_true(care.advice.duty < 0.5f); /* carefully */
}

static void test_used_and_unplugged(void **state) {
    (void)state;
    ShoalVitals v = WELL;
    begin_care((ShoalCareOptions){.rest_used = true});
    v.used = 1;
    v.plugged = 0;
    observe(&v, 1); /* the first one counts at once */
    assert_rests("the device is used: its screen is on");
    v.used = 0;
    observe(&v, 4);
    assert_true(care.advice.rest);
    observe(&v, 1);
    assert_free();
    begin_care((ShoalCareOptions){.rest_unplugged = true});
    v.used = 1;
    v.plugged = 1;
    observe(&v, 10);
    assert_free();
    v.plugged = 0;
    observe(&v, 3);
    assert_rests("no charger is connected");
    for (int i = 0; i < 20; i++) { /* a loose plug */
        v.plugged = i % 4 == 0;
        observe(&v, 1);
        assert_true(care.advice.rest);
    }
    v.plugged = -1;
    observe(&v, 5);
    assert_free();
}

static void test_jumps_of_the_clock(void **state) {
    (void)state;
    static const int64_t JUMPS[] = {86400000, -86000000, 11000, -5000, 3600000, -1};
    ShoalVitals v = WELL;
    begin_care((ShoalCareOptions){0});
    v.temperature = 78;
    observe(&v, 30);
    for (size_t i = 0; i < sizeof JUMPS / sizeof JUMPS[0]; i++) {
        now_ms = (uint64_t)((int64_t)now_ms + 100000000 + JUMPS[i]) - 100000000;
        v.temperature = v.temperature > 70 ? 45 : 78; /* it cooled while it slept */
        observe(&v, 1);
        assert_false(care.advice.rest);
        assert_true(care.advice.duty >= 0.09f && care.advice.duty <= 1);
        assert_true(fabsf(care.processor.slope) < 10);
        observe(&v, 5);
        assert_false(care.advice.rest);
    }
    now_ms = 0;
    observe(&v, 1);
    now_ms = UINT64_MAX;
    observe(&v, 1);
    /* Twice within the same instant. */
    ShoalCare before = care;
    shoal_care_observe(&care, UINT64_MAX, &UNKNOWN);
    assert_memory_equal(&before, &care, sizeof care);
}

/* It was put into the sun while it slept. */
static void test_begins_anew_after_a_gap(void **state) {
    (void)state;
    ShoalVitals v = WELL;
    begin_care((ShoalCareOptions){0});
    observe(&v, 30);
    assert_free();
    now_ms += 3600000;
    v.temperature = 76;
    assert_true(observe(&v, 1)->duty < 0.2f);
}

/* Whatever comes, the advice is one. */
static void test_any_vitals(void **state) {
    (void)state;
    uint64_t random = 11;
    begin_care((ShoalCareOptions){.rest_used = true, .rest_unplugged = true});
    for (int i = 0; i < 20000; i++) {
        ShoalVitals v = {.temperature = (float)between(&random, -40, 150),
                         .ceiling = uniform(&random) < 0.5 ? 0 : (float)between(&random, 60, 130),
                         .battery_temperature = (float)between(&random, -40, 150),
                         .battery = (int)between(&random, -1, 101),
                         .charging = uniform(&random) < 0.5,
                         .plugged = (int)between(&random, -1.99, 1.99),
                         .used = (int)between(&random, -1.99, 1.99)};
        now_ms += (uint64_t)between(&random, 0, 12000);
        const ShoalCareAdvice *advice = shoal_care_observe(&care, now_ms, &v);
        assert_true(advice->duty >= 0.09f && advice->duty <= 1);
        assert_non_null(memchr(advice->text, '\0', sizeof advice->text));
        assert_int_equal(advice->text[0] != '\0', advice->rest || advice->duty < 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_without_care_it_throttles),
        cmocka_unit_test(test_with_care_it_does_not),
        cmocka_unit_test(test_many_phones),
        cmocka_unit_test(test_the_same_again),
        cmocka_unit_test(test_hot_places),
        cmocka_unit_test(test_nothing_is_known),
        cmocka_unit_test(test_no_limits),
        cmocka_unit_test(test_ceilings),
        cmocka_unit_test(test_less_when_hotter),
        cmocka_unit_test(test_begins_low_where_it_is_hot),
        cmocka_unit_test(test_single_nonsense),
        cmocka_unit_test(test_low_battery),
        cmocka_unit_test(test_a_low_battery_at_the_begin),
        cmocka_unit_test(test_hot_battery),
        cmocka_unit_test(test_hot_processor),
        cmocka_unit_test(test_used_and_unplugged),
        cmocka_unit_test(test_jumps_of_the_clock),
        cmocka_unit_test(test_begins_anew_after_a_gap),
        cmocka_unit_test(test_any_vitals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
