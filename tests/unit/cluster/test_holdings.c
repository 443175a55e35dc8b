/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "cluster/holdings.h"

enum { PLENTY = 1 << 30 };

static const unsigned char everybody[64] = {
    [0] = 1, [1] = 1, [2] = 1, [3] = 1, [4] = 1, [5] = 1, [6] = 1, [7] = 1, [8] = 1, [9] = 1};

/* Holdings of one dataset, with n_stores stores that have room. */
static ShoalHoldings *holdings_of(uint64_t records, int n_stores, uint64_t budget) {
    ShoalHoldings *holdings;
    ShoalError err = {0};
    assert_int_equal(shoal_holdings_create(1, &records, &holdings, &err), SHOAL_OK);
    for (int s = 0; s < n_stores; s++)
        assert_int_equal(shoal_holdings_budget(holdings, s, budget, &err), SHOAL_OK);
    return holdings;
}

static void what_is_added_is_held_until_forgotten(void **state) {
    (void)state;
    ShoalHoldings *holdings;
    ShoalError err = {0};
    const uint64_t counts[] = {10, 0, 20};
    assert_int_equal(shoal_holdings_create(3, counts, &holdings, &err), SHOAL_OK);
    for (int s = 0; s < 3; s++)
        assert_int_equal(shoal_holdings_budget(holdings, s, 0, &err), SHOAL_OK);
    shoal_holdings_add(holdings, 0, 0, 2, 3);
    shoal_holdings_add(holdings, 1, 0, 4, 100);
    shoal_holdings_add(holdings, 1, 0, 4, UINT64_MAX);
    shoal_holdings_add(holdings, 2, 2, 19, 1);
    for (uint64_t i = 0; i < 12; i++) {
        assert_int_equal(shoal_holdings_has(holdings, 0, 0, i), i >= 2 && i < 5);
        assert_int_equal(shoal_holdings_has(holdings, 1, 0, i), i >= 4 && i < 10);
        assert_false(shoal_holdings_has(holdings, 2, 0, i));
    }
    assert_true(shoal_holdings_has(holdings, 2, 2, 19));
    shoal_holdings_forget(holdings, 0, 0, 3);
    shoal_holdings_forget(holdings, 0, 0, 9); /* another's */
    assert_true(shoal_holdings_has(holdings, 0, 0, 2));
    assert_false(shoal_holdings_has(holdings, 0, 0, 3));
    assert_true(shoal_holdings_has(holdings, 1, 0, 9));
    shoal_holdings_forget_all(holdings, 1);
    for (uint64_t i = 0; i < 10; i++)
        assert_false(shoal_holdings_has(holdings, 1, 0, i));
    assert_true(shoal_holdings_has(holdings, 0, 0, 4));
    shoal_holdings_destroy(holdings);
}

static void nonsense_is_ignored(void **state) {
    (void)state;
    ShoalHoldings *holdings = holdings_of(10, 2, PLENTY);
    ShoalError err = {0};
    assert_int_equal(shoal_holdings_budget(holdings, -1, 1, &err), SHOAL_ERR_ARGUMENT);
    err = (ShoalError){0};
    assert_int_equal(shoal_holdings_budget(holdings, SHOAL_HOLDINGS_MAX_STORES, 1, &err),
                     SHOAL_ERR_ARGUMENT);
    const int stores[] = {-1, 2, 65535, 65536, 1 << 30};
    for (int i = 0; i < 5; i++) {
        shoal_holdings_add(holdings, stores[i], 0, 0, 10);
        shoal_holdings_forget(holdings, stores[i], 0, 0);
        shoal_holdings_forget_all(holdings, stores[i]);
        assert_false(shoal_holdings_has(holdings, stores[i], 0, 0));
        assert_false(shoal_holdings_keep(holdings, stores[i], 0, 0, 1, everybody));
    }
    const int datasets[] = {-1, 1, 1 << 30};
    for (int i = 0; i < 3; i++) {
        shoal_holdings_add(holdings, 0, datasets[i], 0, 10);
        assert_false(shoal_holdings_has(holdings, 0, datasets[i], 0));
        assert_false(shoal_holdings_keep(holdings, 0, datasets[i], 0, 1, everybody));
    }
    shoal_holdings_add(holdings, 0, 0, 10, 1);
    shoal_holdings_add(holdings, 0, 0, UINT64_MAX, UINT64_MAX);
    shoal_holdings_forget(holdings, 0, 0, 10);
    assert_false(shoal_holdings_has(holdings, 0, 0, 10));
    assert_false(shoal_holdings_keep(holdings, 0, 0, 10, 1, everybody));
    shoal_holdings_destroy(holdings);
    shoal_holdings_destroy(NULL);
    const uint64_t too_many = UINT64_MAX;
    err = (ShoalError){0};
    assert_int_equal(shoal_holdings_create(1, &too_many, &holdings, &err), SHOAL_ERR_MEMORY);
    err = (ShoalError){0};
    assert_int_equal(shoal_holdings_create(-1, NULL, &holdings, &err), SHOAL_ERR_ARGUMENT);
}

static void the_highest_store_works(void **state) {
    (void)state;
    ShoalHoldings *holdings = holdings_of(3, 0, 0);
    ShoalError err = {0};
    int last = SHOAL_HOLDINGS_MAX_STORES - 1;
    unsigned char *alive = shoal_calloc(SHOAL_HOLDINGS_MAX_STORES, 1);
    assert_non_null(alive);
    assert_int_equal(shoal_holdings_budget(holdings, last, PLENTY, &err), SHOAL_OK);
    assert_true(shoal_holdings_keep(holdings, last, 0, 1, 5, alive));
    assert_true(shoal_holdings_has(holdings, last, 0, 1));
    assert_false(shoal_holdings_has(holdings, last, 0, 0));
    shoal_free(alive);
    shoal_holdings_destroy(holdings);
}

static void a_budget_is_used_up(void **state) {
    (void)state;
    ShoalHoldings *holdings = holdings_of(10, 1, 3 * (100 + SHOAL_HOLDINGS_OVERHEAD) + 99);
    for (uint64_t i = 0; i < 3; i++)
        assert_true(shoal_holdings_keep(holdings, 0, 0, i, 100, everybody));
    assert_true(shoal_holdings_keep(holdings, 0, 0, 0, 100, everybody)); /* has it: costs nothing */
    assert_false(shoal_holdings_keep(holdings, 0, 0, 3, 100, everybody));
    assert_false(shoal_holdings_keep(holdings, 0, 0, 3, SIZE_MAX, everybody));
    assert_true(shoal_holdings_keep(holdings, 0, 0, 4, 27, everybody));
    assert_false(shoal_holdings_keep(holdings, 0, 0, 5, 0, everybody));
    ShoalError err = {0};
    assert_int_equal(shoal_holdings_budget(holdings, 0, PLENTY, &err), SHOAL_OK);
    assert_true(shoal_holdings_has(holdings, 0, 0, 1));
    assert_true(shoal_holdings_keep(holdings, 0, 0, 3, 100, everybody));
    shoal_holdings_destroy(holdings);
}

static void two_keep_a_record_and_no_third(void **state) {
    (void)state;
    ShoalHoldings *holdings = holdings_of(2, 4, PLENTY);
    unsigned char alive[4] = {1, 1, 1, 1};
    assert_true(shoal_holdings_keep(holdings, 0, 0, 0, 1, alive));
    assert_true(shoal_holdings_keep(holdings, 1, 0, 0, 1, alive));
    assert_false(shoal_holdings_keep(holdings, 2, 0, 0, 1, alive));
    shoal_holdings_add(holdings, 2, 0, 0, 1);
    assert_false(shoal_holdings_has(holdings, 2, 0, 0));
    alive[0] = 0; /* gives way to one that is here */
    assert_true(shoal_holdings_keep(holdings, 2, 0, 0, 1, alive));
    assert_false(shoal_holdings_has(holdings, 0, 0, 0));
    assert_true(shoal_holdings_has(holdings, 1, 0, 0));
    assert_true(shoal_holdings_has(holdings, 2, 0, 0));
    /* A free place is taken before one who is away loses his. */
    shoal_holdings_add(holdings, 0, 0, 1, 1);
    assert_true(shoal_holdings_keep(holdings, 3, 0, 1, 1, alive));
    assert_true(shoal_holdings_has(holdings, 0, 0, 1));
    shoal_holdings_destroy(holdings);
}

/* ---- assign ---- */

/* Is order a permutation of the places, each rank's ascending? How many places are held where they
 * are now. */
static int check_order(const ShoalHoldings *holdings, const uint64_t *numbers, int n, int n_ranks,
                       const int *counts, const int *stores, const int *order) {
    unsigned char *seen = calloc((size_t)n + 1, 1);
    assert_non_null(seen);
    int held = 0, at = 0;
    for (int r = 0; r < n_ranks; r++)
        for (int i = 0; i < counts[r]; i++, at++) {
            assert_in_range(order[at], 0, n - 1);
            assert_false(seen[order[at]]);
            seen[order[at]] = 1;
            if (i)
                assert_true(order[at] > order[at - 1]);
            held += shoal_holdings_has(holdings, stores[r], 0, numbers[order[at]]);
        }
    assert_int_equal(at, n);
    free(seen);
    return held;
}

static void nothing_held_is_shared_out_in_order(void **state) {
    (void)state;
    ShoalHoldings *holdings = holdings_of(100, 3, PLENTY);
    const uint64_t numbers[10] = {90, 80, 70, 60, 50, 40, 30, 20, 10, 0};
    const int counts[4] = {4, 0, 3, 3}, stores[4] = {0, 1, -1, 2};
    int order[10], work[10];
    for (int dataset = -1; dataset < 3; dataset++) {
        memset(order, -1, sizeof order);
        shoal_holdings_assign(holdings, dataset, numbers, 10, 4, counts, stores, order, work);
        for (int i = 0; i < 10; i++)
            assert_int_equal(order[i], i);
    }
    shoal_holdings_assign(holdings, 0, numbers, 0, 4, (int[4]){0}, stores, order, work);
    shoal_holdings_assign(holdings, 0, numbers, 0, 0, NULL, NULL, order, work);
    shoal_holdings_destroy(holdings);
}

static void counts_that_do_not_add_up_give_the_plain_order(void **state) {
    (void)state;
    ShoalHoldings *holdings = holdings_of(100, 3, PLENTY);
    shoal_holdings_add(holdings, 2, 0, 0, 1);
    const uint64_t numbers[4] = {0, 1, 2, 3};
    const int wrong[][3] = {{1, 1, 1}, {2, 2, 2}, {6, -2, 0}}, stores[3] = {0, 1, 2};
    int order[4], work[4];
    for (int k = 0; k < 3; k++) {
        shoal_holdings_assign(holdings, 0, numbers, 4, 3, wrong[k], stores, order, work);
        for (int i = 0; i < 4; i++)
            assert_int_equal(order[i], i);
    }
    shoal_holdings_destroy(holdings);
}

static void records_go_where_they_are_held(void **state) {
    (void)state;
    ShoalHoldings *holdings = holdings_of(100, 3, PLENTY);
    shoal_holdings_add(holdings, 2, 0, 0, 4); /* 0..3 at 2, 4 and 5 at 0 */
    shoal_holdings_add(holdings, 0, 0, 4, 2);
    const uint64_t numbers[8] = {0, 4, 1, 50, 2, 5, 3, 1000};
    const int counts[3] = {3, 2, 3}, stores[3] = {0, 1, 2};
    const int expected[8] = {1, 3, 5, 6, 7, 0, 2, 4}; /* 3 and 1000 find 2 full */
    int order[8], work[8];
    shoal_holdings_assign(holdings, 0, numbers, 8, 3, counts, stores, order, work);
    assert_memory_equal(order, expected, sizeof order);
    shoal_holdings_destroy(holdings);
}

/* a: 0 and 1; b: 1 and 2; c: 2 and 3... all ranks but the last are filled by records that only they
 * hold, but for one each that has a second holder: only a chain through all of them makes room. */
static void a_chain_of_second_holders_makes_room(void **state) {
    (void)state;
    enum { RANKS = 9 };
    ShoalHoldings *holdings = holdings_of(100, RANKS, PLENTY);
    uint64_t numbers[RANKS];
    int counts[RANKS], stores[RANKS], order[RANKS], work[RANKS];
    for (int r = 0; r < RANKS; r++) {
        counts[r] = 1;
        stores[r] = r;
        numbers[r] = (uint64_t)r;
        shoal_holdings_add(holdings, r, 0, (uint64_t)r, 1);
        if (r + 1 < RANKS)
            shoal_holdings_add(holdings, r + 1, 0, (uint64_t)r, 1);
    }
    /* One more that only rank 0 holds, in place of what only the last one has. */
    numbers[RANKS - 1] = 50;
    shoal_holdings_add(holdings, 0, 0, 50, 1);
    shoal_holdings_assign(holdings, 0, numbers, RANKS, RANKS, counts, stores, order, work);
    assert_int_equal(check_order(holdings, numbers, RANKS, RANKS, counts, stores, order), RANKS);
    shoal_holdings_destroy(holdings);
}

static bool augment(const ShoalHoldings *holdings, const uint64_t *numbers, const int *stores,
                    int seats, const int *seat_rank, int *taken_by, unsigned char *seen, int p) {
    for (int s = 0; s < seats; s++) {
        if (seen[s] || !shoal_holdings_has(holdings, stores[seat_rank[s]], 0, numbers[p]))
            continue;
        seen[s] = 1;
        if (taken_by[s] < 0 ||
            augment(holdings, numbers, stores, seats, seat_rank, taken_by, seen, taken_by[s])) {
            taken_by[s] = p;
            return true;
        }
    }
    return false;
}

/* The largest matching, by the textbook: one seat at a time. */
static int best_possible(const ShoalHoldings *holdings, const uint64_t *numbers, int n, int n_ranks,
                         const int *counts, const int *stores) {
    int seat_rank[64], taken_by[64], seats = 0, matched = 0;
    for (int r = 0; r < n_ranks; r++)
        for (int i = 0; i < counts[r]; i++) {
            taken_by[seats] = -1;
            seat_rank[seats++] = r;
        }
    for (int p = 0; p < n; p++) {
        unsigned char seen[64] = {0};
        matched += augment(holdings, numbers, stores, seats, seat_rank, taken_by, seen, p);
    }
    return matched;
}

static void as_many_as_possible_are_where_they_are_held(void **state) {
    (void)state;
    ShoalRng rng;
    shoal_rng_init(&rng, 1, SHOAL_RNG_TEST, 0);
    for (int round = 0; round < 3000; round++) {
        int n_ranks = 1 + (int)shoal_rng_below(&rng, 7), n = (int)shoal_rng_below(&rng, 41);
        int n_stores = n_ranks + 2, counts[8] = {0}, stores[8], order[41], again[41], work[41];
        uint64_t numbers[41];
        ShoalHoldings *holdings = holdings_of(50, n_stores, PLENTY);
        for (uint64_t i = 0; i < 50; i++)
            for (uint32_t k = shoal_rng_below(&rng, 3); k > 0; k--)
                shoal_holdings_add(holdings, (int)shoal_rng_below(&rng, (uint32_t)n_stores), 0, i,
                                   1);
        for (int r = 0; r < n_ranks; r++)
            stores[r] = shoal_rng_below(&rng, 8) ? n_stores - 1 - r : -1;
        for (int p = 0; p < n; p++) {
            counts[shoal_rng_below(&rng, (uint32_t)n_ranks)]++;
            numbers[p] = shoal_rng_below(&rng, 50);
        }
        shoal_holdings_assign(holdings, 0, numbers, n, n_ranks, counts, stores, order, work);
        int held = check_order(holdings, numbers, n, n_ranks, counts, stores, order);
        assert_int_equal(held, best_possible(holdings, numbers, n, n_ranks, counts, stores));
        memset(work, round, sizeof work);
        shoal_holdings_assign(holdings, 0, numbers, n, n_ranks, counts, stores, again, work);
        if (n)
            assert_memory_equal(order, again, (size_t)n * sizeof *order);
        shoal_holdings_destroy(holdings);
    }
}

/* Two ranks with one store (which does not happen): still every place once. */
static void a_store_of_two_ranks_is_the_first_ones(void **state) {
    (void)state;
    ShoalHoldings *holdings = holdings_of(10, 1, PLENTY);
    shoal_holdings_add(holdings, 0, 0, 4, 2);
    const uint64_t numbers[6] = {0, 1, 2, 3, 4, 5};
    const int counts[2] = {2, 4}, stores[2] = {0, 0};
    int order[6], work[6];
    shoal_holdings_assign(holdings, 0, numbers, 6, 2, counts, stores, order, work);
    check_order(holdings, numbers, 6, 2, counts, stores, order);
    shoal_holdings_destroy(holdings);
}

/* ---- A training run, as the coordinator plays it ---- */

enum { WORKERS = 8, BATCH = 256, RECORDS = 50000, EPOCHS = 5 };

typedef enum Order { NONE, GLOBAL, SHARD, ORDERS } Order;

typedef struct Run {
    ShoalHoldings *holdings;
    Order order;
    uint64_t *epoch_order; /* GLOBAL: of this epoch */
    ShoalRng rng;
    int counts[WORKERS], stores[WORKERS], n_ranks;
    unsigned char alive[WORKERS];
    int changes; /* of shares, so far */
} Run;

static void shuffle(ShoalRng *rng, uint64_t *items, uint64_t n) {
    for (uint64_t i = n; i > 1; i--) {
        uint64_t j = shoal_rng_below(rng, (uint32_t)i), item = items[i - 1];
        items[i - 1] = items[j];
        items[j] = item;
    }
}

/* As data/sampler.h says, without its permutations inside of shards: they do not matter here. */
static uint64_t record_of(Run *run, uint64_t sample) {
    uint64_t place = sample % BATCH, step = sample / BATCH;
    uint64_t begin = place * RECORDS / BATCH, end = (place + 1) * RECORDS / BATCH;
    switch (run->order) {
    case GLOBAL:
        if (sample % RECORDS == 0)
            shuffle(&run->rng, run->epoch_order, RECORDS);
        return run->epoch_order[sample % RECORDS];
    case SHARD:
        return begin + step * 11 % (end - begin);
    default:
        return sample % RECORDS;
    }
}

/* The samples of one batch; returns how many records had to be sent. */
static int play_batch(Run *run, uint64_t first) {
    uint64_t numbers[BATCH];
    int order[BATCH], work[BATCH], sent = 0;
    for (int p = 0; p < BATCH; p++)
        numbers[p] = record_of(run, first + (uint64_t)p);
    shoal_holdings_assign(run->holdings, 0, numbers, BATCH, run->n_ranks, run->counts, run->stores,
                          order, work);
    check_order(run->holdings, numbers, BATCH, run->n_ranks, run->counts, run->stores, order);
    for (int r = 0, at = 0; r < run->n_ranks; r++)
        for (int i = 0; i < run->counts[r]; i++, at++) {
            uint64_t number = numbers[order[at]];
            if (shoal_holdings_has(run->holdings, run->stores[r], 0, number))
                continue;
            sent++;
            shoal_holdings_keep(run->holdings, run->stores[r], 0, number, 3000, run->alive);
        }
    return sent;
}

static void equal_shares(Run *run) {
    for (int r = 0; r < run->n_ranks; r++)
        run->counts[r] = BATCH / run->n_ranks + (r < BATCH % run->n_ranks);
}

/* Some samples go from one rank to another, as a balance would have it. */
static void change_shares(Run *run) {
    int from = run->changes % run->n_ranks, to = (run->changes * 3 + 1) % run->n_ranks;
    int moved = run->counts[from] / 4;
    run->counts[from] -= moved;
    run->counts[to] += moved;
    run->changes++;
}

typedef struct Happening {
    const char *name;
    int change_every; /* batches; 0: never */
    int leaves_at;    /* batch at which the last worker goes; 0: never */
    int returns_at;
    double most[ORDERS]; /* part of an epoch that may be sent again, in each from the second on */
    double last[ORDERS]; /* and in the last */
} Happening;

static void play(const Happening *happening, Order order) {
    Run run = {.holdings = holdings_of(RECORDS, WORKERS, PLENTY), .order = order};
    shoal_rng_init(&run.rng, 7, SHOAL_RNG_TEST, (uint32_t)order);
    run.epoch_order = shoal_calloc(RECORDS, sizeof *run.epoch_order);
    assert_non_null(run.epoch_order);
    for (uint64_t i = 0; i < RECORDS; i++)
        run.epoch_order[i] = i;
    for (int w = 0; w < WORKERS; w++) {
        run.stores[w] = w;
        run.alive[w] = 1;
    }
    run.n_ranks = WORKERS;
    equal_shares(&run);
    const char *names[] = {"none", "global", "shard"};
    print_message("%-22s %-7s sent again in epochs 2 to %d:", happening->name, names[order],
                  EPOCHS);
    int batch = 0;
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        int sent = 0;
        /* Batches do not end with an epoch: each is counted where it begins. */
        for (; (uint64_t)batch * BATCH < (uint64_t)(epoch + 1) * RECORDS; batch++) {
            if (happening->change_every && batch && batch % happening->change_every == 0)
                change_shares(&run);
            if (batch && (batch == happening->leaves_at || batch == happening->returns_at)) {
                run.n_ranks = batch == happening->leaves_at ? WORKERS - 1 : WORKERS;
                run.alive[WORKERS - 1] = run.n_ranks == WORKERS;
                equal_shares(&run);
            }
            sent += play_batch(&run, (uint64_t)batch * BATCH);
        }
        double part = (double)sent / RECORDS;
        if (epoch) {
            print_message(" %.2f%%", 100 * part);
            assert_true(part <= happening->most[order]);
            assert_true(epoch < EPOCHS - 1 || part <= happening->last[order]);
        } else {
            assert_true(part > 0.99);
        }
    }
    print_message("\n");
    shoal_free(run.epoch_order);
    shoal_holdings_destroy(run.holdings);
}

static void a_run_sends_only_what_moves(void **state) {
    (void)state;
    const Happening happenings[] = {
        {"nothing happens", 0, 0, 0, {.004, .08, 0}, {.002, .04, 0}},
        {"shares change", 60, 0, 0, {.09, .11, .09}, {.06, .06, .06}},
        {"one leaves", 0, 300, 0, {.08, .12, .08}, {.003, .045, 0}},
        {"one leaves and returns", 0, 300, 450, {.08, .12, .08}, {.003, .04, 0}},
    };
    for (size_t h = 0; h < sizeof happenings / sizeof *happenings; h++)
        for (int order = 0; order < ORDERS; order++)
            play(&happenings[h], (Order)order);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_added_is_held_until_forgotten),
        cmocka_unit_test(nonsense_is_ignored),
        cmocka_unit_test(the_highest_store_works),
        cmocka_unit_test(a_budget_is_used_up),
        cmocka_unit_test(two_keep_a_record_and_no_third),
        cmocka_unit_test(nothing_held_is_shared_out_in_order),
        cmocka_unit_test(counts_that_do_not_add_up_give_the_plain_order),
        cmocka_unit_test(records_go_where_they_are_held),
        cmocka_unit_test(a_chain_of_second_holders_makes_room),
        cmocka_unit_test(as_many_as_possible_are_where_they_are_held),
        cmocka_unit_test(a_store_of_two_ranks_is_the_first_ones),
        cmocka_unit_test(a_run_sends_only_what_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
