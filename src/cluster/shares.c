/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/shares.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

static void split_equally(int batch, int n, int *counts) {
    for (int i = 0; i < n; i++)
        counts[i] = batch / n + (i < batch % n);
}

/* The largest weight; 0 when they are no speeds. */
static double largest(int n, const double *weights) {
    double top = 0;
    for (int i = 0; i < n; i++) {
        if (!isfinite(weights[i]) || weights[i] < 0)
            return 0;
        if (weights[i] > top)
            top = weights[i];
    }
    return top;
}

/* The exact share of one rank. Weights are divided by the largest one first, so that their sum
 * cannot overflow. */
static double quota(int batch, double weight, double top, double sum) {
    return batch * (weight / top / sum);
}

/* Gives one more sample to the rank with the largest fraction that has had none yet. */
static void give_one(int batch, int n, const double *weights, double top, double sum, int *counts) {
    int best = -1;
    double best_fraction = -1;
    for (int i = 0; i < n; i++) {
        double exact = quota(batch, weights[i], top, sum);
        double fraction = exact - floor(exact);
        bool had = counts[i] > (int)floor(exact);
        if (!had && fraction > best_fraction) {
            best = i;
            best_fraction = fraction;
        }
    }
    counts[best < 0 ? 0 : best]++;
}

/* Rounding can let one quota reach the next whole number; the last rank with any gives it back. */
static void take_one(int n, int *counts) {
    for (int i = n - 1; i >= 0; i--) {
        if (counts[i] > 0) {
            counts[i]--;
            return;
        }
    }
}

ShoalStatus shoal_cluster_shares(int batch, int n, const double *weights, int *counts) {
    if (batch < 0 || n < 1)
        return SHOAL_ERR_ARGUMENT;
    if (!weights) {
        split_equally(batch, n, counts);
        return SHOAL_OK;
    }
    double top = largest(n, weights), sum = 0;
    if (top <= 0)
        return SHOAL_ERR_ARGUMENT;
    for (int i = 0; i < n; i++)
        sum += weights[i] / top;
    long long left = batch;
    for (int i = 0; i < n; i++) {
        counts[i] = (int)floor(quota(batch, weights[i], top, sum));
        left -= counts[i];
    }
    for (; left > 0; left--)
        give_one(batch, n, weights, top, sum, counts);
    for (; left < 0; left++)
        take_one(n, counts);
    return SHOAL_OK;
}
