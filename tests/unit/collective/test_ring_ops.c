/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "base/error.h"
#include "base/memory.h"
#include "unit/collective/ring_cluster.h"

/* Operations of a ring that comes up and stays up: many at once, relays, 16-bit formats. */

/* --- plans: the same operations on all ranks ------------------------------------------------- */

enum { MAX_OPS = 96, MAX_PIECES = 5 };

typedef struct PlannedOp {
    bool is_relay;
    size_t count;             /* of a sum */
    size_t sizes[MAX_PIECES]; /* of a relay */
    size_t n_pieces;
    unsigned char needy[MAX_RANKS];
} PlannedOp;

typedef struct Plan {
    PlannedOp ops[MAX_OPS];
    size_t n_ops;
    uint64_t seed;
    bool dawdles; /* ranks submit and wait at different times */
} Plan;

/* What one rank holds of one operation. */
typedef struct Held {
    float *values;
    unsigned char *pieces[MAX_PIECES];
    uint64_t ticket;
} Held;

static unsigned char piece_byte(unsigned source, size_t op, size_t piece, size_t i) {
    return (unsigned char)(source * 101 + op * 37 + piece * 17 + i * 3 + (i >> 8));
}

/* The rank that a needy one gets its bytes from. */
static unsigned source_of(const PlannedOp *op, unsigned size, unsigned rank) {
    while (op->needy[rank])
        rank = (rank + size - 1) % size;
    return rank;
}

static void hold(const Rank *rank, const PlannedOp *op, size_t number, Held *held) {
    memset(held, 0, sizeof(*held));
    if (!op->is_relay) {
        held->values = calloc(op->count + 1, sizeof(float));
        for (size_t i = 0; i < op->count; i++)
            held->values[i] = whole(rank->rank, i + number);
        return;
    }
    for (size_t p = 0; p < op->n_pieces; p++) {
        held->pieces[p] = calloc(op->sizes[p] + 1, 1);
        for (size_t i = 0; i < op->sizes[p] && !op->needy[rank->rank]; i++)
            held->pieces[p][i] = piece_byte(rank->rank, number, p, i);
    }
}

static bool holds_result(const Rank *rank, const PlannedOp *op, size_t number, const Held *held) {
    unsigned size = rank->cluster->size;
    if (!op->is_relay) {
        if (find_wrong_sum(held->values, op->count, size, number) < op->count)
            return false;
        return held->values[op->count] == 0;
    }
    unsigned source = source_of(op, size, rank->rank);
    for (size_t p = 0; p < op->n_pieces; p++) {
        for (size_t i = 0; i < op->sizes[p]; i++)
            if (held->pieces[p][i] != piece_byte(source, number, p, i))
                return false;
        if (held->pieces[p][op->sizes[p]] != 0)
            return false;
    }
    return true;
}

static void let_go(const PlannedOp *op, Held *held) {
    free(held->values);
    for (size_t p = 0; op->is_relay && p < op->n_pieces; p++)
        free(held->pieces[p]);
}

static ShoalStatus submit(Rank *rank, const PlannedOp *op, Held *held) {
    if (!op->is_relay)
        return shoal_collective_submit(collective_of(rank), held->values, op->count, NULL,
                                       &held->ticket, &rank->err);
    ShoalPiece pieces[MAX_PIECES];
    for (size_t p = 0; p < op->n_pieces; p++)
        pieces[p] = (ShoalPiece){held->pieces[p], op->sizes[p]};
    return shoal_collective_relay(collective_of(rank), pieces, op->n_pieces, op->needy,
                                  &held->ticket, &rank->err);
}

static void *run_plan(void *argument) {
    Rank *rank = argument;
    const Plan *plan = rank->context;
    static _Thread_local Held held[MAX_OPS];
    ShoalRng rng;
    shoal_rng_init(&rng, plan->seed, SHOAL_RNG_TEST, 1 + rank->rank);
    rank->status = SHOAL_OK;
    for (size_t k = 0; k < plan->n_ops; k++)
        hold(rank, &plan->ops[k], k, &held[k]);
    for (size_t k = 0; k < plan->n_ops && !rank->status; k++) {
        rank->status = submit(rank, &plan->ops[k], &held[k]);
        uint32_t what = plan->dawdles ? shoal_rng_u32(&rng) % 16 : 15;
        if (!rank->status && what < 3)
            shoal_clock_sleep_ms(what);
        if (!rank->status && what == 3) /* an older one, sometimes this one */
            rank->status = shoal_collective_wait(
                collective_of(rank), held[k - shoal_rng_u32(&rng) % (k + 1)].ticket, &rank->err);
    }
    for (size_t k = 0; k < plan->n_ops; k++) {
        if (!rank->status)
            rank->status = shoal_collective_wait(collective_of(rank), held[k].ticket, &rank->err);
        if (!rank->status && !holds_result(rank, &plan->ops[k], k, &held[k]))
            rank->status = shoal_error_set(&rank->err, SHOAL_ERR_DATA,
                                           "operation %zu of seed %llu: wrong result", k,
                                           (unsigned long long)plan->seed);
    }
    if (!rank->status) /* after a failure, too, nothing is in use; but no test here fails */
        for (size_t k = 0; k < plan->n_ops; k++)
            let_go(&plan->ops[k], &held[k]);
    return NULL;
}

static void check_plan(Cluster *cluster, Plan *plan) {
    for (unsigned r = 0; r < cluster->size; r++)
        cluster->ranks[r].context = plan;
    run_all(cluster, run_plan);
    check_all_well(cluster);
}

/* --- many at once ---------------------------------------------------------------------------- */

static size_t any_count(ShoalRng *rng) {
    static const size_t most[] = {1, 20, 500, 9000, 40000, 200000};
    return shoal_rng_u32(rng) % (most[shoal_rng_u32(rng) % 6] + 1);
}

static void make_plan(Plan *plan, uint64_t seed, unsigned size, size_t n_ops) {
    ShoalRng rng;
    shoal_rng_init(&rng, seed, SHOAL_RNG_TEST, 0);
    memset(plan, 0, sizeof(*plan));
    plan->seed = seed;
    plan->n_ops = n_ops;
    plan->dawdles = seed % 4 != 0;
    for (size_t k = 0; k < n_ops; k++) {
        PlannedOp *op = &plan->ops[k];
        op->is_relay = shoal_rng_u32(&rng) % 4 == 0;
        op->count = any_count(&rng);
        op->n_pieces = shoal_rng_u32(&rng) % (MAX_PIECES + 1);
        for (size_t p = 0; p < op->n_pieces; p++)
            op->sizes[p] = shoal_rng_u32(&rng) % 3 ? any_count(&rng) : 0;
        for (unsigned r = 0; r < size; r++)
            op->needy[r] = (unsigned char)(shoal_rng_u32(&rng) % 3);
        op->needy[shoal_rng_u32(&rng) % size] = 0;
    }
}

static void check_plans(bool encrypt, uint64_t first_seed, unsigned n_seeds) {
    const unsigned sizes[] = {1, 2, 3, 4, 5, 8, 17};
    static Plan plan;
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        Cluster cluster;
        open_cluster(&cluster, sizes[s]);
        cluster.encrypt = encrypt;
        connect_all(&cluster);
        unsigned n = sizes[s] > 8 ? n_seeds / 4 : n_seeds; /* slow where cores are few */
        for (uint64_t seed = first_seed; seed < first_seed + n; seed++) {
            make_plan(&plan, seed, sizes[s], 1 + seed * 7 % MAX_OPS);
            check_plan(&cluster, &plan);
        }
        close_cluster(&cluster);
    }
}

static void test_many_at_once(void **state) {
    (void)state;
    check_plans(false, 1, 12);
}

static void test_many_at_once_encrypted(void **state) {
    (void)state;
    check_plans(true, 100, 4);
}

/* All ranks needy but one, none needy, everything between; alone and with sums around it. */
static void test_relay_patterns(void **state) {
    (void)state;
    static Plan plan;
    for (unsigned size = 1; size <= 5; size++) {
        Cluster cluster;
        open_cluster(&cluster, size);
        connect_all(&cluster);
        for (unsigned pattern = 0; pattern + 1 < 1u << size; pattern++) {
            memset(&plan, 0, sizeof(plan));
            plan.n_ops = 4;
            plan.ops[0].count = 1000;
            for (int k = 1; k <= 2; k++) {
                PlannedOp *op = &plan.ops[k];
                op->is_relay = true;
                op->n_pieces = 3;
                op->sizes[0] = 17;
                op->sizes[2] = k == 1 ? 300001 : 1;
                for (unsigned r = 0; r < size; r++)
                    op->needy[r] = (pattern >> r & 1) != 0;
            }
            plan.ops[3].count = 3;
            check_plan(&cluster, &plan);
        }
        close_cluster(&cluster);
    }
}

/* One rank is as far ahead as it may be; the others come later, one by one. */
static void *fill_queue(void *argument) {
    Rank *rank = argument;
    uint64_t ticket = 0, before = UINT64_MAX;
    rank->status = SHOAL_OK;
    shoal_clock_sleep_ms(40 * rank->rank);
    for (unsigned k = 0; k < 1024 && !rank->status; k++) {
        rank->status = shoal_collective_submit(collective_of(rank), rank->values + k % 7 * 50,
                                               k % 3        ? 0
                                               : k % 7 == 6 ? 50000
                                                            : 50,
                                               NULL, &ticket, &rank->err);
        if (k > 0 && ticket != before + 1)
            rank->status = SHOAL_ERR_DATA;
        before = ticket;
    }
    if (!rank->status && rank->rank == 0) {
        ShoalError err = {0};
        uint64_t none;
        if (shoal_collective_submit(collective_of(rank), NULL, 0, NULL, &none, &err) !=
            SHOAL_ERR_ARGUMENT)
            rank->status = SHOAL_ERR_DATA;
    }
    if (!rank->status)
        rank->status = shoal_collective_wait(collective_of(rank), ticket, &rank->err);
    return NULL;
}

static void test_queue_is_bounded(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 3);
    connect_all(&cluster);
    give_values(&cluster, 60000, 1);
    run_all(&cluster, fill_queue);
    check_all_well(&cluster);
    check_whole_sums(&cluster, 1000);
    close_cluster(&cluster);
}

/* A rank that computes for longer than dead_ms is not dead, whatever the others have submitted. */
static void *come_late(void *argument) {
    Rank *rank = argument;
    ShoalRingConfig config = config_of(rank);
    config.dead_ms = 1500;
    uint64_t tickets[3];
    rank->status = shoal_ring_connect(rank->ring, &config, shoal_clock_ms() + 60000, &rank->err);
    if (rank->rank == 1)
        shoal_clock_sleep_ms(3000);
    for (int k = 0; k < 3 && !rank->status; k++)
        rank->status = shoal_collective_submit(collective_of(rank), rank->values + 2000000 * k,
                                               2000000, NULL, &tickets[k], &rank->err);
    if (!rank->status)
        rank->status = shoal_collective_wait(collective_of(rank), tickets[2], &rank->err);
    return NULL;
}

static void test_late_is_not_dead(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 3);
    give_values(&cluster, 6000000, 1);
    run_all(&cluster, come_late);
    check_all_well(&cluster);
    close_cluster(&cluster);
}

/* Who has given all that the others need may leave, however late they come. */
static void *give_and_leave(void *argument) {
    Rank *rank = argument;
    unsigned char needy[3] = {0, 1, 1}, bytes[3][9000];
    uint64_t ticket = 0;
    rank->status = SHOAL_OK;
    for (unsigned k = 0; k < 3 && !rank->status; k++) {
        ShoalPiece piece = {bytes[k], sizeof(bytes[k])};
        memset(bytes[k], rank->rank == 0 ? (int)k + 1 : 0, sizeof(bytes[k]));
        if (rank->rank > 0)
            shoal_clock_sleep_ms(k == 1 ? 5 : 0);
        rank->status =
            shoal_collective_relay(collective_of(rank), &piece, 1, needy, &ticket, &rank->err);
    }
    if (!rank->status)
        rank->status = shoal_collective_wait(collective_of(rank), ticket, &rank->err);
    shoal_ring_disconnect(rank->ring);
    for (unsigned k = 0; k < 3 && !rank->status; k++)
        for (size_t i = 0; i < sizeof(bytes[k]); i++)
            if (bytes[k][i] != k + 1)
                rank->status = SHOAL_ERR_DATA;
    return NULL;
}

static void test_leaving_early(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 3);
    for (int round = 0; round < 30; round++) {
        cluster.generation++;
        connect_all(&cluster);
        run_all(&cluster, give_and_leave);
        check_all_well(&cluster);
    }
    close_cluster(&cluster);
}

static void test_tickets(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 1);
    connect_all(&cluster);
    ShoalCollective *collective = collective_of(&cluster.ranks[0]);
    float value = 3;
    uint64_t first, second;
    assert_int_equal(shoal_collective_submit(collective, &value, 1, NULL, &first, NULL), 0);
    assert_int_equal(shoal_collective_submit(collective, &value, 1, NULL, &second, NULL), 0);
    assert_int_equal(second, first + 1);
    assert_int_equal(shoal_collective_wait(collective, second, NULL), SHOAL_OK);
    assert_int_equal(shoal_collective_wait(collective, first, NULL), SHOAL_OK);
    assert_true(value == 3);
    assert_int_equal(shoal_collective_wait(collective, second + 1, NULL), SHOAL_ERR_ARGUMENT);
    const unsigned char needy = 1;
    assert_int_equal(shoal_collective_relay(collective, NULL, 0, &needy, &first, NULL),
                     SHOAL_ERR_ARGUMENT);
    cluster.generation++;
    connect_all(&cluster);
    assert_int_equal(shoal_collective_wait(collective, second, NULL), SHOAL_ERR_STOPPED);
    assert_int_equal(shoal_collective_submit(collective, &value, 1, NULL, &first, NULL), 0);
    assert_int_equal(first, second + 1);
    close_cluster(&cluster);
}

static void test_steady_state_allocates_nothing(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 3);
    connect_all(&cluster);
    give_values(&cluster, 100000, 20);
    uint64_t before = shoal_memory_allocations();
    run_all(&cluster, reduce_rank);
    check_all_well(&cluster);
    assert_int_equal(shoal_memory_allocations(), before);
    close_cluster(&cluster);
}

/* --- 16 bits --------------------------------------------------------------------------------- */

typedef struct Series {
    bool feedback;
    unsigned calls;
    float *inputs;  /* of this rank */
    double *totals; /* of what it got, over all calls */
    float *residual;
} Series;

static void *run_series(void *argument) {
    Rank *rank = argument;
    Series *series = rank->context;
    uint64_t ticket = 0;
    rank->status = SHOAL_OK;
    for (unsigned c = 0; c < series->calls && !rank->status; c++) {
        memcpy(rank->values, series->inputs, rank->count * sizeof(float));
        /* In two sums, so that they share the way. */
        size_t half = rank->count / 2;
        float *residual = series->feedback ? series->residual : NULL;
        rank->status = shoal_collective_submit(collective_of(rank), rank->values, half, residual,
                                               &ticket, &rank->err);
        if (!rank->status)
            rank->status = shoal_collective_submit(
                collective_of(rank), rank->values + half, rank->count - half,
                residual ? residual + half : NULL, &ticket, &rank->err);
        if (!rank->status)
            rank->status = shoal_collective_wait(collective_of(rank), ticket, &rank->err);
        for (size_t i = 0; i < rank->count; i++)
            series->totals[i] += (double)rank->values[i];
    }
    return NULL;
}

static void free_series(Series *series) {
    free(series->inputs);
    free(series->totals);
    free(series->residual);
}

/* The largest error of the mean over all calls, relative to the largest sum. */
static double series_error(const Cluster *cluster, size_t count, unsigned calls) {
    double worst = 0, largest = 0;
    for (size_t i = 0; i < count; i++) {
        double sum = 0;
        for (unsigned r = 0; r < cluster->size; r++)
            sum += (double)((Series *)cluster->ranks[r].context)->inputs[i];
        double total = ((Series *)cluster->ranks[0].context)->totals[i];
        worst = fmax(worst, fabs(total / calls - sum));
        largest = fmax(largest, fabs(sum));
    }
    return worst / largest;
}

static double run_format(ShoalWireFormat format, unsigned size, size_t count, unsigned calls,
                         bool feedback, bool encrypt) {
    Cluster cluster;
    Series series[MAX_RANKS];
    open_cluster(&cluster, size);
    cluster.format = format;
    cluster.encrypt = encrypt;
    connect_all(&cluster);
    give_values(&cluster, count, 0);
    for (unsigned r = 0; r < size; r++) {
        series[r] = (Series){feedback, calls, calloc(count, 4), calloc(count, 8), calloc(count, 4)};
        ShoalRng rng;
        shoal_rng_init(&rng, 77, SHOAL_RNG_TEST, r);
        shoal_rng_fill_gaussian(&rng, 0, 1, count, series[r].inputs);
        cluster.ranks[r].context = &series[r];
    }
    run_all(&cluster, run_series);
    check_all_well(&cluster);
    for (unsigned r = 1; r < size; r++) {
        assert_memory_equal(cluster.ranks[r].values, cluster.ranks[0].values, 4 * count);
        assert_true(cluster.ranks[r].values[count] == 0);
    }
    double error = series_error(&cluster, count, calls);
    for (unsigned r = 0; r < size; r++)
        free_series(&series[r]);
    close_cluster(&cluster);
    return error;
}

static void test_formats(void **state) {
    (void)state;
    const unsigned sizes[] = {2, 3, 4, 7};
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        for (int encrypt = 0; encrypt < 2; encrypt++) {
            for (int feedback = 0; feedback < 2; feedback++) {
                size_t count = encrypt ? 5 : 150001;
                unsigned n = sizes[s];
                /* One rounding a hop, of no more than half a step each. */
                assert_true(run_format(SHOAL_WIRE_FP32, n, count, 1, feedback, encrypt) < 1e-6);
                assert_true(run_format(SHOAL_WIRE_FP16, n, count, 1, feedback, encrypt) <
                            n * 0x1p-11);
                assert_true(run_format(SHOAL_WIRE_BF16, n, count, 1, feedback, encrypt) <
                            n * 0x1p-8);
            }
        }
    }
    /* And it is really 16 bits that travel. */
    assert_true(run_format(SHOAL_WIRE_BF16, 3, 1000, 1, false, false) > 1e-4);
}

/* With error feedback the mean over many calls comes as near as you like; without, it does not. */
static void test_error_feedback(void **state) {
    (void)state;
    const ShoalWireFormat formats[] = {SHOAL_WIRE_FP16, SHOAL_WIRE_BF16};
    for (int f = 0; f < 2; f++) {
        for (unsigned size = 2; size <= 5; size += 3) {
            double once = run_format(formats[f], size, 2001, 1, true, false);
            double without = run_format(formats[f], size, 2001, 100, false, false);
            double with = run_format(formats[f], size, 2001, 100, true, false);
            assert_true(without > once * 0.5);
            assert_true(with < once * 0.1);
        }
    }
}

static void test_formats_must_agree(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 2);
    give_values(&cluster, 1000, 1);
    start(&cluster, connect_rank, 1);
    ShoalRingConfig config = config_of(&cluster.ranks[0]);
    config.format = SHOAL_WIRE_FP16;
    cluster.ranks[0].status = shoal_ring_connect(cluster.ranks[0].ring, &config,
                                                 shoal_clock_ms() + 60000, &cluster.ranks[0].err);
    join(&cluster, 1);
    check_all_well(&cluster);
    run_all(&cluster, reduce_rank);
    unsigned named = 0;
    for (unsigned r = 0; r < 2; r++) {
        ShoalStatus status = cluster.ranks[r].status;
        assert_true(status == SHOAL_ERR_PROTOCOL || status == SHOAL_ERR_LOST);
        named += strstr(cluster.ranks[r].err.text, "sum at fp16") != NULL;
    }
    assert_true(named > 0);
    close_cluster(&cluster);
}

static int set_up(void **state) {
    (void)state;
    return shoal_auth_init(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_many_at_once_encrypted),
        cmocka_unit_test(test_relay_patterns),
        cmocka_unit_test(test_queue_is_bounded),
        cmocka_unit_test(test_late_is_not_dead),
        cmocka_unit_test(test_leaving_early),
        cmocka_unit_test(test_tickets),
        cmocka_unit_test(test_steady_state_allocates_nothing),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_error_feedback),
        cmocka_unit_test(test_formats_must_agree),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
