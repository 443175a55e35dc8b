/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/balance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"

/* What is known of a worker, from reports (samples, seconds):
 *
 *   level  the mean of samples and that of seconds, older reports counting less and less. Right
 *          where the worker works now, whatever its time is made of.
 *   shape  fixed / per_sample, as a number of samples: how the time goes on from there when the
 * share changes. Only changes of the share tell, so it is learnt from the difference of two reports
 * in turn; a worker that becomes slow does not look like one with a fixed cost. noise  of the
 * seconds, relative, also from differences: a lasting change is not noise.
 *
 * A report far outside of the noise is put aside. One alone is forgotten: a hiccup. Three in a row
 * on the same side are a change (heat, another program), and the level jumps to where they are. */

enum {
    PLANS = 4,  /* kept at a time: a batch that is done in parts has several sizes in turn */
    STREAK = 3, /* reports in a row that make a change */
    BISECTIONS = 200
};
#define FIRST_NOISE 0.1  /* before it is measured */
#define LEAST_BAND 0.1   /* reports so far off, relative, are never put aside */
#define BAND 3.0         /* deviations that put a report aside */
#define SAFETY 2.0       /* deviations that a promise is taken back by */
#define SLOPE_SPREAD 0.3 /* how far slopes are from 1, before they are measured */
#define LEAST_SLOPE 0.3  /* of the time, at least so much grows with the samples */
#define MOST_SHAPE_WEIGHT 1.0
#define REVIVAL 0.998 /* how a worker with nothing to do looks faster, call by call */

typedef struct Member {
    uint64_t key;
    uint64_t seen;           /* reports that were not put aside */
    double reports;          /* behind the level, at most `memory` */
    double samples, seconds; /* level */
    double shape, shape_weight;
    double noise;                      /* variance of seconds / expected */
    double last_samples, last_seconds; /* the report before; samples 0: none, or put aside */
    double last_ratio;                 /* its seconds / expected */
    int streak;                        /* reports put aside in a row; below 0: they were too fast */
    double streak_log;                 /* sum of log(seconds / expected) of them */
} Member;

/* What a member's share takes: fixed + n * per_sample, and how far that may be wrong. */
typedef struct Cost {
    double fixed, per_sample, doubt;
} Cost;

typedef struct Plan {
    int batch; /* -1: there is none */
    uint64_t used;
    bool current; /* no report has come since it was looked at */
    int *counts;
} Plan;

struct ShoalBalance {
    ShoalBalanceOptions options;
    int n, allocated;
    Member *members;
    Cost *costs; /* [n] */
    Cost median;
    double *sorted;  /* [n] scratch */
    int *capacities; /* [n] of the plans */
    int *trial;      /* [n] */
    Plan plans[PLANS];
    uint64_t calls, changes;
};

ShoalStatus shoal_balance_create(const ShoalBalanceOptions *options, ShoalBalance **balance,
                                 ShoalError *err) {
    ShoalBalance *made = shoal_calloc(1, sizeof *made);
    if (!made)
        return shoal_error_memory(err, "the shares of workers", sizeof *made);
    if (options)
        made->options = *options;
    if (!(made->options.gain > 0 && made->options.gain < 1))
        made->options.gain = 0.05;
    if (!(made->options.memory >= 1 && made->options.memory <= 1e6))
        made->options.memory = 8;
    if (made->options.min_reports < 1)
        made->options.min_reports = 2;
    for (int i = 0; i < PLANS; i++)
        made->plans[i].batch = -1;
    *balance = made;
    return SHOAL_OK;
}

static void free_arrays(ShoalBalance *balance) {
    shoal_free(balance->members);
    shoal_free(balance->costs);
    shoal_free(balance->capacities);
    shoal_free(balance->sorted);
    shoal_free(balance->trial);
    for (int i = 0; i < PLANS; i++)
        shoal_free(balance->plans[i].counts);
}

void shoal_balance_destroy(ShoalBalance *balance) {
    if (!balance)
        return;
    free_arrays(balance);
    shoal_free(balance);
}

/* A balance with arrays for n members, all zero; false when memory is short. */
static bool make_arrays(ShoalBalance *balance, size_t n) {
    bool made = (balance->members = shoal_calloc(n, sizeof *balance->members)) &&
                (balance->costs = shoal_calloc(n, sizeof *balance->costs)) &&
                (balance->capacities = shoal_calloc(n, sizeof *balance->capacities)) &&
                (balance->sorted = shoal_calloc(n, sizeof *balance->sorted)) &&
                (balance->trial = shoal_calloc(n, sizeof *balance->trial));
    for (int i = 0; i < PLANS && made; i++) {
        balance->plans[i] = (Plan){.batch = -1};
        made = (balance->plans[i].counts = shoal_calloc(n, sizeof(int)));
    }
    return made;
}

static const Member *find(const ShoalBalance *balance, uint64_t key, int guess) {
    for (int i = 0; i < balance->n; i++) {
        /* Ranks seldom change much: look from the same place on. */
        const Member *member = &balance->members[(guess + i) % balance->n];
        if (member->key == key)
            return member;
    }
    return NULL;
}

ShoalStatus shoal_balance_members(ShoalBalance *balance, int n, const uint64_t *keys,
                                  ShoalError *err) {
    if (n < 0)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "shares for %d workers", n);
    ShoalBalance fresh = {
        .options = balance->options, .n = n, .calls = balance->calls, .changes = balance->changes};
    if (!make_arrays(&fresh, (size_t)n)) {
        free_arrays(&fresh);
        return shoal_error_memory(err, "the shares of workers", (size_t)n * sizeof(Member));
    }
    for (int r = 0; r < n; r++) {
        const Member *old = find(balance, keys[r], r);
        fresh.members[r] =
            old ? *old : (Member){.key = keys[r], .noise = FIRST_NOISE * FIRST_NOISE};
    }
    free_arrays(balance);
    *balance = fresh;
    return SHOAL_OK;
}

/* ---- What is known of a worker ---- */

static double squared(double x) {
    return x * x;
}

/* Part of the time at n samples that grows with them. */
static double slope_at(const Member *member, double n) {
    return n / (n + member->shape);
}

static Cost cost_of(const Member *member) {
    double slope = slope_at(member, member->samples);
    double reports = member->reports;
    return (Cost){.fixed = (1 - slope) * member->seconds,
                  .per_sample = slope * member->seconds / member->samples,
                  .doubt = sqrt(member->noise / reports)};
}

static double expected(const Member *member, double n) {
    Cost cost = cost_of(member);
    return cost.fixed + n * cost.per_sample;
}

static void learn_shape(Member *member, double n, double seconds) {
    double middle = (n + member->last_samples) / 2, level = expected(member, middle);
    double dn = (n - member->last_samples) / middle;
    double dt = (seconds - member->last_seconds) / level;
    /* The slope, relative, by least squares, with what was believed before as if it were another
     * measurement (ridge regression; its weight is the variance of dt over that of slopes). All
     * grows with the samples until shown otherwise. */
    double doubt = 2 * fmax(member->noise, 1e-3) / squared(SLOPE_SPREAD);
    double weight = doubt + member->shape_weight;
    double slope = (weight * slope_at(member, middle) + dn * dt) / (weight + squared(dn));
    slope = fmin(fmax(slope, LEAST_SLOPE), 1);
    member->shape = middle * (1 / slope - 1);
    member->shape_weight = fmin(member->shape_weight + squared(dn), MOST_SHAPE_WEIGHT);
}

static void learn_noise(Member *member, double ratio, double memory) {
    /* Half of a squared difference is the variance. One wild report must not make all that comes
     * after look like noise. */
    double change = fmin(fabs(ratio - member->last_ratio), BAND * sqrt(fmax(member->noise, 1e-4)));
    member->noise += (squared(change) / 2 - member->noise) / memory;
}

static void learn_level(Member *member, double n, double seconds, double memory) {
    member->seen++;
    member->reports = fmin(member->reports + 1, memory);
    member->samples += (n - member->samples) / member->reports;
    member->seconds += (seconds - member->seconds) / member->reports;
}

/* The level goes to where the last reports are; all else that is known stays true. */
static void jump(Member *member) {
    double factor = exp(member->streak_log / STREAK);
    member->seconds *= factor;
    member->last_ratio /= factor;
    member->seen += STREAK;
    member->reports = fmin(member->reports, STREAK);
    member->streak = 0;
    member->streak_log = 0;
}

static bool put_aside(Member *member, double ratio) {
    double off = log(ratio), band = fmax(LEAST_BAND, BAND * sqrt(member->noise));
    if (fabs(off) <= log1p(band)) {
        member->streak = 0;
        member->streak_log = 0;
        return false;
    }
    int side = off > 0 ? 1 : -1;
    if (member->streak * side < 0) {
        member->streak = 0;
        member->streak_log = 0;
    }
    member->streak += side;
    member->streak_log += off;
    return true;
}

void shoal_balance_report(ShoalBalance *balance, int rank, int samples, double seconds) {
    if (rank < 0 || rank >= balance->n || samples < 1 || !(seconds > 0) || !isfinite(seconds))
        return;
    Member *member = &balance->members[rank];
    double memory = balance->options.memory, n = samples;
    seconds = fmin(fmax(seconds, 1e-9), 1e9);
    for (int i = 0; i < PLANS; i++)
        balance->plans[i].current = false;
    if (member->reports < 1) {
        learn_level(member, n, seconds, memory);
        member->last_ratio = 1;
    } else {
        double ratio = seconds / expected(member, n);
        learn_noise(member, ratio, memory);
        member->last_ratio = ratio;
        if (put_aside(member, ratio)) {
            if (member->streak == STREAK || member->streak == -STREAK)
                jump(member);
            member->last_samples = 0;
            return;
        }
        if (member->last_samples > 0 && n != member->last_samples)
            learn_shape(member, n, seconds);
        learn_level(member, n, seconds, memory);
    }
    member->last_samples = n;
    member->last_seconds = seconds;
}

static bool believed(const ShoalBalance *balance, const Member *member) {
    return member->seen >= (uint64_t)balance->options.min_reports;
}

double shoal_balance_speed(const ShoalBalance *balance, int rank) {
    if (rank < 0 || rank >= balance->n || !believed(balance, &balance->members[rank]))
        return 0;
    return balance->members[rank].samples / balance->members[rank].seconds;
}

uint64_t shoal_balance_changes(const ShoalBalance *balance) {
    return balance->changes;
}

/* ---- Plans ---- */

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* What everybody's share takes, as far as is known; who is not known is like the others. */
static void estimate(ShoalBalance *balance) {
    int known = 0;
    balance->median = (Cost){.per_sample = 1};
    for (int r = 0; r < balance->n; r++)
        if (believed(balance, &balance->members[r])) {
            balance->costs[r] = cost_of(&balance->members[r]);
            balance->sorted[known++] = balance->costs[r].per_sample;
        }
    if (known) {
        balance->median.per_sample = median(balance->sorted, known);
        known = 0;
        for (int r = 0; r < balance->n; r++)
            if (believed(balance, &balance->members[r]))
                balance->sorted[known++] = balance->costs[r].fixed;
        balance->median.fixed = median(balance->sorted, known);
    }
    for (int r = 0; r < balance->n; r++)
        if (!believed(balance, &balance->members[r]))
            balance->costs[r] = balance->median;
}

static const Cost equal = {.per_sample = 1};

/* How many samples a member can do in so many seconds. costs NULL: equal. */
static int within(const ShoalBalance *balance, const Cost *costs, int rank, double seconds) {
    const Cost *cost = costs ? &costs[rank] : &equal;
    double n = floor((seconds - cost->fixed) / cost->per_sample);
    int most = balance->capacities[rank];
    return n < 1 ? 0 : n >= most ? most : (int)n;
}

static long long all_within(const ShoalBalance *balance, const Cost *costs, double seconds) {
    long long sum = 0;
    for (int r = 0; r < balance->n; r++)
        sum += within(balance, costs, r, seconds);
    return sum;
}

/* Counts that sum to `sum` (at most that of all capacities), done in the shortest time: bisects the
 * seconds down to neighbouring doubles, and who could do more in the later of them gets what is
 * missing in the earlier. */
static void solve(const ShoalBalance *balance, const Cost *costs, int sum, int *counts) {
    double low = 0, high = 0;
    for (int r = 0; r < balance->n; r++) {
        const Cost *cost = costs ? &costs[r] : &equal;
        high = fmax(high, cost->fixed + cost->per_sample * (fmin(balance->capacities[r], sum) + 1));
    }
    for (int i = 0; i < BISECTIONS; i++) {
        double middle = low + (high - low) / 2;
        if (middle <= low || middle >= high)
            break;
        if (all_within(balance, costs, middle) >= sum)
            high = middle;
        else
            low = middle;
    }
    long long left = sum;
    for (int r = 0; r < balance->n; r++) {
        counts[r] = within(balance, costs, r, low);
        left -= counts[r];
    }
    for (int r = 0; r < balance->n && left > 0; r++) {
        int more = within(balance, costs, r, high) - counts[r];
        more = more < left ? more : (int)left;
        counts[r] += more;
        left -= more;
    }
}

/* How long the slowest takes. safety: so many deviations less than it seems. */
static double slowest(const ShoalBalance *balance, const int *counts, double safety) {
    double most = 0;
    for (int r = 0; r < balance->n; r++) {
        const Cost *cost = &balance->costs[r];
        if (counts[r])
            most = fmax(most,
                        (cost->fixed + cost->per_sample * counts[r]) * (1 - safety * cost->doubt));
    }
    return most;
}

/* Is there enough to gain, even if those who seem slow had bad luck? */
static bool worth_it(const ShoalBalance *balance, const int *from, const int *to) {
    return memcmp(from, to, (size_t)balance->n * sizeof *to) &&
           slowest(balance, to, 0) <= (1 - balance->options.gain) * slowest(balance, from, SAFETY);
}

static void copy(const ShoalBalance *balance, const int *from, int *to) {
    memcpy(to, from, (size_t)balance->n * sizeof *to);
}

/* The best shares, or equal ones where that is about as good: a new generation moves no samples for
 * what may be noise. */
static void begin_plan(ShoalBalance *balance, int sum, Plan *plan) {
    solve(balance, NULL, sum, plan->counts);
    solve(balance, balance->costs, sum, balance->trial);
    if (worth_it(balance, plan->counts, balance->trial))
        copy(balance, balance->trial, plan->counts);
}

static void improve_plan(ShoalBalance *balance, int sum, Plan *plan) {
    solve(balance, balance->costs, sum, balance->trial);
    if (!worth_it(balance, plan->counts, balance->trial))
        return;
    copy(balance, balance->trial, plan->counts);
    balance->changes++;
}

/* Has a member had nothing to do of late, though there was room? */
static bool rests(const ShoalBalance *balance, int rank) {
    for (int i = 0; i < PLANS; i++) {
        const Plan *plan = &balance->plans[i];
        if (plan->batch >= 0 && balance->calls - plan->used < PLANS && plan->counts[rank])
            return false;
    }
    return balance->capacities[rank] > 0;
}

/* Who has nothing to do is not measured, and would be slow for ever. */
static void revive(ShoalBalance *balance) {
    for (int r = 0; r < balance->n; r++) {
        Member *member = &balance->members[r];
        if (believed(balance, member) &&
            balance->costs[r].per_sample > balance->median.per_sample && rests(balance, r))
            member->seconds *= REVIVAL;
    }
}

static bool same_capacities(const ShoalBalance *balance, const int *capacities) {
    return !memcmp(balance->capacities, capacities, (size_t)balance->n * sizeof *capacities);
}

/* The plan for a batch, or the one that was not used for the longest time, empty. */
static Plan *plan_for(ShoalBalance *balance, int batch) {
    Plan *oldest = &balance->plans[0];
    for (int i = 0; i < PLANS; i++) {
        Plan *plan = &balance->plans[i];
        if (plan->batch == batch)
            return plan;
        if (plan->used < oldest->used)
            oldest = plan;
    }
    oldest->batch = -1;
    return oldest;
}

ShoalStatus shoal_balance_plan(ShoalBalance *balance, int batch, const int *capacities, int *counts,
                               int *planned, ShoalError *err) {
    long long room = 0;
    for (int r = 0; r < balance->n; r++) {
        if (capacities[r] < 0)
            return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "worker %d can take %d samples", r,
                                   capacities[r]);
        room += capacities[r];
    }
    if (batch < 0)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "a batch of %d samples", batch);
    int sum = room < batch ? (int)room : batch;
    *planned = sum;
    if (!balance->n)
        return SHOAL_OK;
    if (!same_capacities(balance, capacities)) {
        copy(balance, capacities, balance->capacities);
        for (int i = 0; i < PLANS; i++)
            balance->plans[i].batch = -1;
    }
    Plan *plan = plan_for(balance, batch);
    plan->used = ++balance->calls;
    if (plan->batch < 0 || !plan->current) {
        estimate(balance);
        if (plan->batch < 0)
            begin_plan(balance, sum, plan);
        else
            improve_plan(balance, sum, plan);
        plan->batch = batch;
        plan->current = true;
        revive(balance);
    }
    copy(balance, plan->counts, counts);
    return SHOAL_OK;
}
