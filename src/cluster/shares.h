/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CLUSTER_SHARES_H
#define SHOAL_CLUSTER_SHARES_H

#include "shoal/status.h"

/* Splits a batch of `batch` samples among n ranks into counts[n], which sum to batch.
 * weights NULL: equal shares, the first batch % n ranks take one more. Otherwise weights[n] are
 * relative speeds (finite, not negative, not all 0) and the rule is that of largest remainders
 * (Hamilton): floor(batch * w / sum) each, what is left goes one each to the largest fractional
 * parts, ties to the lower rank. The same arguments give the same counts on every machine.
 * SHOAL_ERR_ARGUMENT for batch < 0, n < 1 or weights that are no speeds; counts is then untouched.
 */
ShoalStatus shoal_cluster_shares(int batch, int n, const double *weights, int *counts);

#endif
