/* SPDX-License-Identifier: Apache-2.0 */
#include "device/care.h"

#include <math.h>
#include <stdio.h>

/* The gains were tuned with the phones of tests/unit/device/test_care.c. */

enum {
    LEAST_MS = 200,     /* between two observations */
    GAP_MS = 10000,     /* after such a gap (a suspend, a jump of the clock) slopes mean nothing */
    CONFIRM = 3,        /* observations in a row that begin a rest, or end it */
    CONFIRM_PEOPLE = 5, /* end one that somebody began by using or unplugging the phone */
    DEFAULT_CEILING = 80,
    DEFAULT_BATTERY = 45,
    DEFAULT_FLOOR = 15,
    HIGHEST_CEILING = 95, /* chips that tell a higher limit than that protect themselves earlier */
    BATTERY_BACK = 5,     /* percent above the floor that end a rest */
};
static const float BELOW_TRIP = 3;    /* degrees that the ceiling is below the kernel's limit */
static const float LEAST_DUTY = 0.1f; /* less is better done as a rest */
static const float REST_ABOVE = 8;    /* degrees above the ceiling */
static const float BACK_BELOW = 10;   /* degrees below it */
static const float BATTERY_ABOVE = 3, BATTERY_BELOW = 2; /* the same for a battery */

/* What a loop does, a PI controller in its velocity form: its integral is the duty itself, which is
 * limited, so nothing winds up. */
typedef struct Tuning {
    float load;     /* degrees that a full load may add before it is noticed */
    float margin;   /* degrees of the set point below the limit */
    float band;     /* degrees below the set point at which it begins to act */
    float gain;     /* of duty, a degree */
    float down, up; /* of duty, a degree and second above and below the set point */
    float rise;     /* of duty, the most that a second adds */
    float ahead_s;  /* looks so far ahead along the slope */
    float smooth_s; /* of values */
    float slope_s;  /* of slopes */
} Tuning;

static const Tuning PROCESSOR = {.load = 40,
                                 .margin = 1,
                                 .band = 10,
                                 .gain = 0.02f,
                                 .down = 0.006f,
                                 .up = 0.002f,
                                 .rise = 0.05f,
                                 .ahead_s = 6,
                                 .smooth_s = 1,
                                 .slope_s = 3};
static const Tuning BATTERY = {.load = 4,
                               .margin = 0.5f,
                               .band = 4,
                               .gain = 0.1f,
                               .down = 0.001f,
                               .up = 0.0003f,
                               .rise = 0.05f,
                               .ahead_s = 120,
                               .smooth_s = 15,
                               .slope_s = 60};

static float clamp(float value, float least, float most) {
    return value < least ? least : value > most ? most : value;
}

/* ---- control loops ---- */

static float median(const ShoalCareLoop *loop) {
    const float *v = loop->last;
    if (loop->n_last < 3)
        return loop->n_last < 2 ? v[0] : fminf(v[0], v[1]);
    return fmaxf(fminf(v[0], v[1]), fminf(fmaxf(v[0], v[1]), v[2]));
}

static float error_of(const ShoalCareLoop *loop, const Tuning *tuning, float limit) {
    float error = limit - tuning->margin - loop->value - tuning->ahead_s * loop->slope;
    return fminf(error, tuning->band);
}

/* Where nothing is known of what a load does: the less room there is, the lower. */
static void start(ShoalCareLoop *loop, const Tuning *tuning, float limit) {
    loop->slope = 0;
    loop->duty = clamp((limit - loop->value) / tuning->load, LEAST_DUTY, 1);
    loop->error = error_of(loop, tuning, limit);
}

/* One that rests does not compute: what was learned of its load ends there. */
static void restart(ShoalCareLoop *loop, const Tuning *tuning, float limit) {
    if (loop->n_last > 0 && limit > 0)
        start(loop, tuning, limit);
}

static void steer(ShoalCareLoop *loop, const Tuning *tuning, float limit, float seconds) {
    float error = error_of(loop, tuning, limit);
    float drift = error * (error < 0 ? tuning->down : tuning->up) * seconds;
    float change = tuning->gain * (error - loop->error) + drift;
    loop->duty = clamp(loop->duty + fminf(change, tuning->rise * seconds), LEAST_DUTY, 1);
    loop->error = error;
}

/* A new reading; seconds 0: after a gap. */
static void take(ShoalCareLoop *loop, const Tuning *tuning, float reading, float seconds) {
    if (seconds <= 0)
        loop->n_last = 0;
    loop->last[2] = loop->last[1];
    loop->last[1] = loop->last[0];
    loop->last[0] = reading;
    loop->n_last += loop->n_last < 3;
    float seen = median(loop), before = loop->value;
    if (seconds <= 0) {
        loop->value = seen;
        loop->slope = 0;
        return;
    }
    loop->value += (seen - before) * seconds / (tuning->smooth_s + seconds);
    loop->slope +=
        ((loop->value - before) / seconds - loop->slope) * seconds / (tuning->slope_s + seconds);
}

/* One observation of a loop; reading 0: unknown; limit 0: none; seconds 0: after a gap. */
static void follow(ShoalCareLoop *loop, const Tuning *tuning, float reading, float limit,
                   float seconds) {
    if (reading == 0) { /* one that fails to come changes nothing */
        if (++loop->missing >= CONFIRM)
            *loop = (ShoalCareLoop){.duty = 1, .missing = CONFIRM};
        return;
    }
    bool known = loop->n_last > 0;
    loop->missing = 0;
    take(loop, tuning, reading, known ? seconds : 0);
    if (limit == 0)
        loop->duty = 1;
    else if (!known || seconds <= 0)
        start(loop, tuning, limit);
    else
        steer(loop, tuning, limit, seconds);
}

/* ---- limits ---- */

/* 0: none. */
static float limit_of(float option, float otherwise) {
    return option < 0 ? 0 : option > 0 ? option : otherwise;
}

static float ceiling_of(const ShoalCare *care, const ShoalVitals *vitals) {
    float own = vitals->ceiling > 0 ? fminf(vitals->ceiling - BELOW_TRIP, HIGHEST_CEILING)
                : care->ceiling > 0 ? care->ceiling
                                    : limit_of(care->options.unknown_ceiling, DEFAULT_CEILING);
    return limit_of(care->options.max_temp, own);
}

static float battery_limit(const ShoalCare *care) {
    return limit_of(care->options.max_battery_temp, DEFAULT_BATTERY);
}

static int floor_of(const ShoalCare *care) {
    int floor = care->options.min_battery;
    return floor < 0 ? 0 : floor > 0 ? floor : DEFAULT_FLOOR;
}

static int enough_of(const ShoalCare *care) {
    int enough = floor_of(care) + BATTERY_BACK;
    return enough < 100 ? enough : 100;
}

/* ---- reasons to rest ---- */

/* A reason begins, or ends, when it is told so often in a row. */
static void judge(ShoalCare *care, int reason, bool begins, bool ends, int confirm) {
    bool changes = care->rests[reason] ? ends : begins;
    care->changing[reason] = changes ? care->changing[reason] + 1 : 0;
    if (care->changing[reason] < (care->rests[reason] ? confirm : CONFIRM) && care->begun)
        return;
    if (changes)
        care->rests[reason] = !care->rests[reason];
    care->changing[reason] = 0;
}

static void judge_heat(ShoalCare *care) {
    const ShoalCareLoop *loop = &care->battery;
    float limit = battery_limit(care);
    bool known = loop->n_last > 0 && limit > 0;
    judge(care, SHOAL_CARE_BATTERY_HOT, known && loop->value >= limit + BATTERY_ABOVE,
          !known || loop->value <= limit - BATTERY_BELOW, CONFIRM);
    loop = &care->processor;
    limit = care->ceiling;
    known = loop->n_last > 0 && limit > 0;
    judge(care, SHOAL_CARE_PROCESSOR_HOT,
          known && loop->value >= limit + REST_ABOVE && loop->duty <= LEAST_DUTY,
          !known || loop->value <= limit - BACK_BELOW, CONFIRM);
}

static void judge_all(ShoalCare *care, const ShoalVitals *v) {
    int floor = floor_of(care);
    judge_heat(care);
    judge(care, SHOAL_CARE_BATTERY_LOW, v->battery >= 0 && v->battery < floor && !v->charging,
          v->battery < 0 || v->battery >= enough_of(care) ||
              (v->battery >= floor && (v->charging || v->plugged == 1)),
          CONFIRM);
    judge(care, SHOAL_CARE_USED, care->options.rest_used && v->used == 1, v->used != 1,
          CONFIRM_PEOPLE);
    judge(care, SHOAL_CARE_UNPLUGGED, care->options.rest_unplugged && v->plugged == 0,
          v->plugged != 0, CONFIRM_PEOPLE);
}

static bool rests(const ShoalCare *care) {
    bool any = false;
    for (int i = 0; i < SHOAL_CARE_REASONS; i++)
        any = any || care->rests[i];
    return any;
}

/* ---- what people read ---- */

static void tell_rest(const ShoalCare *care, const ShoalVitals *v, char *text, size_t size) {
    const float limit = battery_limit(care);
    if (care->rests[SHOAL_CARE_BATTERY_HOT])
        snprintf(text, size, "the battery has %.0f C, its limit is %.0f C; goes on at %.0f C",
                 (double)care->battery.value, (double)limit, (double)(limit - BATTERY_BELOW));
    else if (care->rests[SHOAL_CARE_PROCESSOR_HOT])
        snprintf(text, size, "the processor has %.0f C, its ceiling is %.0f C; goes on at %.0f C",
                 (double)care->processor.value, (double)care->ceiling,
                 (double)(care->ceiling - BACK_BELOW));
    else if (care->rests[SHOAL_CARE_BATTERY_LOW])
        snprintf(text, size, "battery %d %%, %s; goes on at %d %%", v->battery,
                 v->charging ? "charging" : "not charging",
                 v->charging || v->plugged == 1 ? floor_of(care) : enough_of(care));
    else if (care->rests[SHOAL_CARE_USED])
        snprintf(text, size, "the device is used: its screen is on");
    else
        snprintf(text, size, "no charger is connected");
}

static void tell_duty(const ShoalCare *care, char *text, size_t size) {
    if (care->battery.duty < care->processor.duty)
        snprintf(text, size, "the battery has %.0f C; its limit is %.0f C",
                 (double)care->battery.value, (double)battery_limit(care));
    else
        snprintf(text, size, "the processor has %.0f C; its ceiling is %.0f C",
                 (double)care->processor.value, (double)care->ceiling);
}

static void advise(ShoalCare *care, const ShoalVitals *vitals) {
    ShoalCareAdvice *advice = &care->advice;
    *advice = (ShoalCareAdvice){.rest = rests(care)};
    advice->duty = fminf(care->processor.duty, care->battery.duty);
    if (advice->rest)
        tell_rest(care, vitals, advice->text, sizeof advice->text);
    else if (advice->duty < 1)
        tell_duty(care, advice->text, sizeof advice->text);
}

/* ---- life ---- */

void shoal_care_init(ShoalCare *care, const ShoalCareOptions *options) {
    *care = (ShoalCare){.options = *options,
                        .advice = {.duty = 1},
                        .processor = {.duty = 1},
                        .battery = {.duty = 1}};
}

const ShoalCareAdvice *shoal_care_observe(ShoalCare *care, uint64_t now_ms,
                                          const ShoalVitals *vitals) {
    uint64_t passed = now_ms >= care->seen_ms ? now_ms - care->seen_ms : GAP_MS + 1;
    if (care->begun && passed < LEAST_MS)
        return &care->advice;
    bool gap = !care->begun || passed > GAP_MS;
    float seconds = gap ? 0 : (float)passed / 1000;
    care->seen_ms = now_ms;
    care->ceiling = ceiling_of(care, vitals);
    follow(&care->processor, &PROCESSOR, vitals->temperature, care->ceiling, seconds);
    follow(&care->battery, &BATTERY, vitals->battery_temperature, battery_limit(care), seconds);
    judge_all(care, vitals);
    if (rests(care)) {
        restart(&care->processor, &PROCESSOR, care->ceiling);
        restart(&care->battery, &BATTERY, battery_limit(care));
    }
    care->begun = true;
    advise(care, vitals);
    return &care->advice;
}
