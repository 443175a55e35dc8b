/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CLUSTER_HOLDINGS_H
#define SHOAL_CLUSTER_HOLDINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/status.h"

/* Who holds which record in its cache, and who should compute it then. Pure. Stores are numbered by
 * the caller (a worker's cache is a store, also while the worker is away). A record is kept by one
 * store, at most by two (when it had to move once); the others do not keep it. */

typedef struct ShoalHoldings ShoalHoldings;

#define SHOAL_HOLDINGS_MAX_STORES 65535

/* What a record costs a store beside its own bytes, at most (see data/cache.h). */
#define SHOAL_HOLDINGS_OVERHEAD 72

/* counts[n_datasets]: how many records each dataset has. Memory: 4 bytes a record.
 * SHOAL_ERR_MEMORY, SHOAL_ERR_ARGUMENT. */
ShoalStatus shoal_holdings_create(int n_datasets, const uint64_t *counts, ShoalHoldings **holdings,
                                  ShoalError *err);
void shoal_holdings_destroy(ShoalHoldings *holdings);

/* Store `store` may take so many bytes more (limit - used). A new store begins empty; what one that
 * is known holds stays noted. SHOAL_ERR_ARGUMENT: no such number; SHOAL_ERR_MEMORY. */
ShoalStatus shoal_holdings_budget(ShoalHoldings *holdings, int store, uint64_t bytes,
                                  ShoalError *err);
/* It holds count records from first on (as it says itself). What is out of range, and records that
 * two other stores hold, are ignored. Takes time in proportion to count: from a peer, ask for
 * ranges that ascend. */
void shoal_holdings_add(ShoalHoldings *holdings, int store, int dataset, uint64_t first,
                        uint64_t count);
/* It has lost this record, or everything. */
void shoal_holdings_forget(ShoalHoldings *holdings, int store, int dataset, uint64_t number);
void shoal_holdings_forget_all(ShoalHoldings *holdings, int store);
bool shoal_holdings_has(const ShoalHoldings *holdings, int store, int dataset, uint64_t number);

/* The store is to keep the record, `bytes` long: false when its budget does not allow it, or two
 * other stores of workers that are here (alive[store], up to the highest number that has a budget)
 * hold it already. True: noted, in place of a store that is not here if need be, and taken off the
 * budget.
 */
bool shoal_holdings_keep(ShoalHoldings *holdings, int store, int dataset, uint64_t number,
                         size_t bytes, const unsigned char *alive);

/* Shares out a part of a batch: numbers[n] are the records of its places (of the first dataset that
 * feeds the net; a dataset out of range: nobody holds any), counts[n_ranks] how many each rank
 * computes (their sum is n; if not, the order is 0, 1, 2, ...), stores[n_ranks] the store of each
 * rank, -1 for none. *order gets the places, rank by rank, each rank's ascending: as many as
 * possible where they are held; the rest, in order, to whoever has room. Deterministic. work: n
 * ints of scratch. Allocates nothing, but uses fields of the stores: one thread at a time. */
void shoal_holdings_assign(const ShoalHoldings *holdings, int dataset, const uint64_t *numbers,
                           int n, int n_ranks, const int *counts, const int *stores, int *order,
                           int *work);

#endif
