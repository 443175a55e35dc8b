/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEVICE_CARE_H
#define SHOAL_DEVICE_CARE_H

#include <stdbool.h>
#include <stdint.h>

#include "device/vitals.h"

/* How much a device may compute, so that it stays cool and its battery well. Pure: time and vitals
 * are handed in.
 *
 * Two control loops, for processor and battery, each turn their temperature into a duty; the lower
 * one counts. A duty goes down before the limit is reached, and up again slowly. When that is not
 * enough, or the battery is low, or as the options ask, the device rests. A reason to rest must be
 * there in three observations in a row (the very first one counts at once), and must be well gone
 * before the rest ends. What is unknown never limits. */

typedef struct ShoalCareOptions {
    float max_temp; /* degrees Celsius of the processor; 0: a little below the kernel's own limit
                       (and 95), where that is told, else unknown_ceiling; negative: no limit */
    float unknown_ceiling;  /* 0: 80; negative: no limit */
    float max_battery_temp; /* degrees Celsius; 0: 45; negative: no limit */
    int min_battery;        /* percent, while it is not charged; 0: 15; negative: no limit */
    bool rest_used;         /* rest while the phone is used (its screen is on) */
    bool rest_unplugged;    /* rest while no charger is connected */
} ShoalCareOptions;

typedef struct ShoalCareAdvice {
    float duty;     /* 0.1 .. 1: part of the time to compute in; 1: without pauses */
    bool rest;      /* do not compute at all */
    char text[160]; /* why, for people: "the processor has 76 C; its ceiling is 77 C"; "" when duty
                       is 1 and there is no rest */
} ShoalCareAdvice;

/* A control loop. */
typedef struct ShoalCareLoop {
    float last[3]; /* readings, the newest first */
    int n_last;
    int missing; /* readings in a row that failed to come */
    float value; /* degrees: median of those, smoothed */
    float slope; /* degrees a second */
    float error; /* degrees below the set point, as it was taken the last time */
    float duty;
} ShoalCareLoop;

/* Reasons to rest. */
enum {
    SHOAL_CARE_BATTERY_HOT,
    SHOAL_CARE_PROCESSOR_HOT,
    SHOAL_CARE_BATTERY_LOW,
    SHOAL_CARE_USED,
    SHOAL_CARE_UNPLUGGED,
    SHOAL_CARE_REASONS
};

/* Begins as shoal_care_init leaves it; plain memory. */
typedef struct ShoalCare {
    ShoalCareOptions options;
    ShoalCareAdvice advice;
    uint64_t seen_ms; /* of the last vitals */
    float ceiling;    /* degrees of the processor; 0: no limit */
    ShoalCareLoop processor, battery;
    bool rests[SHOAL_CARE_REASONS];
    int changing[SHOAL_CARE_REASONS]; /* observations in a row that say otherwise */
    bool begun;
} ShoalCare;

void shoal_care_init(ShoalCare *care, const ShoalCareOptions *options);

/* New vitals, about once a second: the advice until the next ones. Within a fifth of a second
 * nothing new is learned. now_ms may jump. */
const ShoalCareAdvice *shoal_care_observe(ShoalCare *care, uint64_t now_ms,
                                          const ShoalVitals *vitals);

#endif
