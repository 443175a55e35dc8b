/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/holdings.h"

#include "base/error.h"
#include "base/memory.h"

/* records[] of a dataset: two stores each, NOBODY where there is none.
 *
 * To assign a batch is a matching: a record may go to either of the ranks that hold it, and a rank
 * has room for so many. First every record goes where it can without a second thought; then those
 * that found their holders full push others aside, along a shortest chain of records that have a
 * second holder (augmenting paths, as in Hopcroft, Karp: "An n^(5/2) algorithm for maximum
 * matchings in bipartite graphs", SIAM J. Comput. 2, 1973, but one at a time). */

#define NOBODY 65535

enum {
    NONE = -1,
    STEPS_PER_PLACE = 32 /* of work on chains, at most; seldom more than 1 is needed */
};

typedef struct Pair {
    uint16_t store[2];
} Pair;

typedef struct Store {
    uint64_t budget;
    /* What follows is scratch of one shoal_holdings_assign. */
    int rank;   /* whose store it is; NONE between calls */
    int room;   /* for so many records more */
    int first;  /* of the places that it has; linked through order[] */
    int cursor; /* where in order[] its next place goes */
    int via;    /* the place that would come here, in the chain that is looked for */
    int from;   /* the store that has this place; NONE: it has no store yet */
    int next;   /* in the queue of stores to look at */
    bool seen;
    bool closed; /* no chain from here leads to room */
} Store;

typedef struct Dataset {
    uint64_t count;
    Pair *records;
} Dataset;

struct ShoalHoldings {
    int n_datasets;
    Dataset *datasets;
    int n_stores; /* 1 + the highest number that has a budget */
    int capacity;
    Store *stores;
};

ShoalStatus shoal_holdings_create(int n_datasets, const uint64_t *counts, ShoalHoldings **holdings,
                                  ShoalError *err) {
    if (n_datasets < 0)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT, "holdings of %d datasets", n_datasets);
    ShoalHoldings *made = shoal_calloc(1, sizeof *made);
    if (!made)
        return shoal_error_memory(err, "holdings", sizeof *made);
    made->datasets = shoal_calloc((size_t)n_datasets, sizeof *made->datasets);
    if (!made->datasets) {
        shoal_holdings_destroy(made);
        return shoal_error_memory(err, "holdings", (size_t)n_datasets * sizeof *made->datasets);
    }
    made->n_datasets = n_datasets;
    for (int d = 0; d < n_datasets; d++) {
        Dataset *dataset = &made->datasets[d];
        if (counts[d] <= SIZE_MAX)
            dataset->records = shoal_calloc((size_t)counts[d], sizeof *dataset->records);
        if (!dataset->records) {
            shoal_holdings_destroy(made);
            return shoal_error_memory(err, "who holds which record",
                                      counts[d] * sizeof *dataset->records);
        }
        dataset->count = counts[d];
        for (uint64_t i = 0; i < counts[d]; i++)
            dataset->records[i] = (Pair){{NOBODY, NOBODY}};
    }
    *holdings = made;
    return SHOAL_OK;
}

void shoal_holdings_destroy(ShoalHoldings *holdings) {
    if (!holdings)
        return;
    for (int d = 0; d < holdings->n_datasets; d++)
        shoal_free(holdings->datasets[d].records);
    shoal_free(holdings->datasets);
    shoal_free(holdings->stores);
    shoal_free(holdings);
}

static bool known(const ShoalHoldings *holdings, int store) {
    return store >= 0 && store < holdings->n_stores;
}

static Pair *find(const ShoalHoldings *holdings, int dataset, uint64_t number) {
    if (dataset < 0 || dataset >= holdings->n_datasets ||
        number >= holdings->datasets[dataset].count)
        return NULL;
    return &holdings->datasets[dataset].records[number];
}

static bool holds(const Pair *pair, int store) {
    return pair->store[0] == store || pair->store[1] == store;
}

static ShoalStatus grow(ShoalHoldings *holdings, int n, ShoalError *err) {
    if (n > holdings->capacity) {
        int capacity = n + n / 2;
        Store *stores = shoal_calloc((size_t)capacity, sizeof *stores);
        if (!stores)
            return shoal_error_memory(err, "the workers' caches", (size_t)n * sizeof *stores);
        for (int s = 0; s < holdings->n_stores; s++)
            stores[s] = holdings->stores[s];
        shoal_free(holdings->stores);
        holdings->stores = stores;
        holdings->capacity = capacity;
    }
    while (holdings->n_stores < n)
        holdings->stores[holdings->n_stores++] = (Store){.rank = NONE};
    return SHOAL_OK;
}

ShoalStatus shoal_holdings_budget(ShoalHoldings *holdings, int store, uint64_t bytes,
                                  ShoalError *err) {
    if (store < 0 || store >= SHOAL_HOLDINGS_MAX_STORES)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "cache number %d; there may be %d of them in all", store,
                               SHOAL_HOLDINGS_MAX_STORES);
    ShoalStatus status = grow(holdings, store + 1, err);
    if (!status)
        holdings->stores[store].budget = bytes;
    return status;
}

void shoal_holdings_add(ShoalHoldings *holdings, int store, int dataset, uint64_t first,
                        uint64_t count) {
    if (!known(holdings, store) || !find(holdings, dataset, first))
        return;
    uint64_t most = holdings->datasets[dataset].count - first;
    Pair *records = holdings->datasets[dataset].records + first;
    for (uint64_t i = 0; i < count && i < most; i++) {
        if (holds(&records[i], store))
            continue;
        for (int k = 0; k < 2; k++)
            if (records[i].store[k] == NOBODY) {
                records[i].store[k] = (uint16_t)store;
                break;
            }
    }
}

static void remove_from(Pair *pair, int store) {
    for (int k = 0; k < 2; k++)
        if (pair->store[k] == store)
            pair->store[k] = NOBODY;
}

void shoal_holdings_forget(ShoalHoldings *holdings, int store, int dataset, uint64_t number) {
    Pair *pair = find(holdings, dataset, number);
    if (pair && known(holdings, store))
        remove_from(pair, store);
}

void shoal_holdings_forget_all(ShoalHoldings *holdings, int store) {
    if (!known(holdings, store))
        return;
    for (int d = 0; d < holdings->n_datasets; d++)
        for (uint64_t i = 0; i < holdings->datasets[d].count; i++)
            remove_from(&holdings->datasets[d].records[i], store);
}

bool shoal_holdings_has(const ShoalHoldings *holdings, int store, int dataset, uint64_t number) {
    const Pair *pair = find(holdings, dataset, number);
    return pair && known(holdings, store) && holds(pair, store);
}

bool shoal_holdings_keep(ShoalHoldings *holdings, int store, int dataset, uint64_t number,
                         size_t bytes, const unsigned char *alive) {
    Pair *pair = find(holdings, dataset, number);
    if (!pair || !known(holdings, store))
        return false;
    if (holds(pair, store))
        return true;
    uint64_t *budget = &holdings->stores[store].budget;
    if (*budget < SHOAL_HOLDINGS_OVERHEAD || *budget - SHOAL_HOLDINGS_OVERHEAD < bytes)
        return false;
    int slot = NONE;
    for (int k = 1; k >= 0; k--)
        if (pair->store[k] != NOBODY && !alive[pair->store[k]])
            slot = k;
    for (int k = 1; k >= 0; k--)
        if (pair->store[k] == NOBODY)
            slot = k;
    if (slot == NONE)
        return false;
    pair->store[slot] = (uint16_t)store;
    *budget -= SHOAL_HOLDINGS_OVERHEAD + bytes;
    return true;
}

/* ---- shoal_holdings_assign ---- */

typedef struct Assignment {
    Store *stores;
    const ShoalHoldings *holdings;
    int dataset;
    const uint64_t *numbers;
    int n;
    int *next;      /* [n]: the next place in the list of a store */
    int *placed;    /* [n]: the store that a place is at; NONE */
    long long left; /* steps of work on chains */
} Assignment;

/* The stores of ranks that hold the record of a place; returns how many. */
static int holders(const Assignment *a, int place, int found[2]) {
    const Pair *pair = find(a->holdings, a->dataset, a->numbers[place]);
    int n = 0;
    for (int k = 0; pair && k < 2; k++) {
        int store = pair->store[k];
        if (known(a->holdings, store) && a->stores[store].rank != NONE)
            found[n++] = store;
    }
    return n;
}

static void put(Assignment *a, int place, int store) {
    a->placed[place] = store;
    a->next[place] = a->stores[store].first;
    a->stores[store].first = place;
    a->stores[store].room--;
}

static void take(Assignment *a, int place) {
    Store *store = &a->stores[a->placed[place]];
    int *link = &store->first;
    while (*link != place) {
        link = &a->next[*link];
        a->left--;
    }
    *link = a->next[place];
    a->placed[place] = NONE;
    store->room++;
}

/* Places with one holder, then those with two, each where there is more room. */
static void place_greedily(Assignment *a, int n_holders) {
    for (int p = 0; p < a->n; p++) {
        int at[2], n = holders(a, p, at);
        if (n != n_holders)
            continue;
        int best = n == 2 && a->stores[at[1]].room > a->stores[at[0]].room;
        if (a->stores[at[best]].room > 0)
            put(a, p, at[best]);
    }
}

/* Stores that a place could go to, into the queue. Returns the first with room, or NONE. */
static int reach(Assignment *a, int place, int **tail) {
    int at[2], n = holders(a, place, at);
    for (int k = 0; k < n; k++) {
        Store *store = &a->stores[at[k]];
        if (store->seen || store->closed)
            continue;
        store->seen = true;
        store->via = place;
        store->from = a->placed[place];
        store->next = NONE;
        **tail = at[k];
        *tail = &store->next;
        if (store->room > 0)
            return at[k];
    }
    return NONE;
}

/* Every place of the chain moves on by one store; the last one goes to `end`. */
static void shift_chain(Assignment *a, int end) {
    while (end != NONE) {
        int place = a->stores[end].via, from = a->stores[end].from;
        if (from != NONE)
            take(a, place);
        put(a, place, end);
        end = from;
    }
}

/* Looks for a chain, breadth first, that makes room for a place at one of its holders. */
static void push_aside(Assignment *a, int place) {
    int head = NONE, *tail = &head, end = reach(a, place, &tail);
    for (int s = head; s != NONE && end == NONE; s = a->stores[s].next)
        for (int p = a->stores[s].first; p != NONE && end == NONE; p = a->next[p]) {
            end = reach(a, p, &tail);
            a->left--;
        }
    for (int s = head; s != NONE; s = a->stores[s].next) {
        a->stores[s].seen = false;
        a->stores[s].closed = end == NONE;
    }
    shift_chain(a, end);
}

/* Which stores take part, and with how much room. */
static void open_stores(Assignment *a, int n_ranks, const int *counts, const int *stores) {
    int at = 0;
    for (int r = 0; r < n_ranks; at += counts[r++])
        if (known(a->holdings, stores[r]) && a->stores[stores[r]].rank == NONE) {
            Store *store = &a->stores[stores[r]];
            store->rank = r;
            store->room = counts[r];
            store->first = NONE;
            store->cursor = at;
            store->seen = store->closed = false;
        }
}

static void close_stores(Assignment *a, int n_ranks, const int *stores) {
    for (int r = 0; r < n_ranks; r++)
        if (known(a->holdings, stores[r]))
            a->stores[stores[r]].rank = NONE;
}

/* The places that are left, in order, to the ranks that have room, in order. Those of ranks without
 * a store are written down at once; the others' come with what they hold. */
static void place_the_rest(Assignment *a, int n_ranks, const int *counts, const int *stores,
                           int *order) {
    int p = 0, at = 0;
    for (int r = 0; r < n_ranks; at += counts[r++]) {
        int store = stores[r];
        bool own = known(a->holdings, store) && a->stores[store].rank == r;
        int room = own ? a->stores[store].room : counts[r];
        for (int i = 0; i < room; i++, p++) {
            while (a->placed[p] != NONE)
                p++;
            if (own)
                a->placed[p] = store;
            else
                order[at + i] = p;
        }
    }
}

static bool adds_up(int n, int n_ranks, const int *counts) {
    long long sum = 0;
    for (int r = 0; r < n_ranks; r++) {
        if (counts[r] < 0)
            return false;
        sum += counts[r];
    }
    return sum == n;
}

void shoal_holdings_assign(const ShoalHoldings *holdings, int dataset, const uint64_t *numbers,
                           int n, int n_ranks, const int *counts, const int *stores, int *order,
                           int *work) {
    for (int p = 0; p < n; p++)
        order[p] = p;
    if (!adds_up(n, n_ranks, counts))
        return;
    Assignment a = {.stores = holdings->stores,
                    .holdings = holdings,
                    .dataset = dataset,
                    .numbers = numbers,
                    .n = n,
                    .next = order,
                    .placed = work,
                    .left = (long long)STEPS_PER_PLACE * n};
    for (int p = 0; p < n; p++)
        work[p] = NONE;
    open_stores(&a, n_ranks, counts, stores);
    place_greedily(&a, 1);
    place_greedily(&a, 2);
    for (int p = 0; p < n && a.left > 0; p++)
        if (work[p] == NONE)
            push_aside(&a, p);
    place_the_rest(&a, n_ranks, counts, stores, order);
    for (int p = 0; p < n; p++)
        if (work[p] != NONE)
            order[holdings->stores[work[p]].cursor++] = p;
    close_stores(&a, n_ranks, stores);
}
