/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "collective/mpi.h"

/* One rank of a test of the engine over MPI: sums, copies, small messages, and what it refuses.
 * With an argument rank 1 does something wrong, which must be seen. */

enum { SIZES = 7, MOST = 300001, PIECES = 3 };

static const size_t COUNTS[SIZES] = {1, 2, 1000, 0, 4099, MOST, 17};

static ShoalCollective *mpi;
static bool wrong;
static int failures;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("FAILED rank %u line %d: %s\n", mpi->rank, __LINE__, #condition);               \
            failures++;                                                                            \
        }                                                                                          \
    } while (0)

/* Small whole numbers: their sums are exact in any order. */
static float value(unsigned rank, size_t at) {
    return (float)((at * 7 + rank * 13) % 101);
}

static float sum(size_t at) {
    float total = 0;
    for (unsigned r = 0; r < mpi->size; r++)
        total += value(r, at);
    return total;
}

/* Several at once, waited for in the middle and at the end. */
static void test_sums(void) {
    float *blocks[SIZES];
    uint64_t tickets[SIZES];
    ShoalError err = {0};
    for (int i = 0; i < SIZES; i++) {
        blocks[i] = malloc((COUNTS[i] + 1) * sizeof(float));
        if (!blocks[i])
            exit(1);
        for (size_t k = 0; k < COUNTS[i]; k++)
            blocks[i][k] = value(mpi->rank, k + (size_t)i) + (wrong && k == 5 ? 1 : 0);
        CHECK(!shoal_collective_submit(mpi, blocks[i], COUNTS[i], NULL, &tickets[i], &err));
        CHECK(i == 0 || tickets[i] == tickets[i - 1] + 1);
    }
    CHECK(!shoal_collective_wait(mpi, tickets[2], &err));
    for (size_t k = 0; k < COUNTS[2]; k++)
        CHECK(blocks[2][k] == sum(k + 2));
    CHECK(!shoal_collective_wait(mpi, tickets[SIZES - 1], &err));
    for (int i = 0; i < SIZES; i++) {
        int odd = 0;
        for (size_t k = 0; k < COUNTS[i]; k++)
            odd += blocks[i][k] != sum(k + (size_t)i);
        CHECK(odd == 0);
        free(blocks[i]);
    }
    ShoalCollectiveStats stats = shoal_collective_stats(mpi);
    CHECK(stats.calls == (mpi->size > 1 ? SIZES : 0));
    CHECK(mpi->size == 1 || (stats.bytes_sent > MOST && stats.busy_ns >= stats.waited_ns / 2));
}

/* Sums that are not exact: all ranks must hold the same bits. */
static void test_same_bits(void) {
    ShoalError err = {0};
    float *mine = malloc(MOST * sizeof(float)), *first = malloc(MOST * sizeof(float));
    if (!mine || !first)
        exit(1);
    for (size_t k = 0; k < MOST; k++)
        mine[k] = 1.0f / (float)(k % 977 + 1 + mpi->rank * 31);
    CHECK(!shoal_collective_allreduce(mpi, mine, MOST, &err));
    memcpy(first, mine, MOST * sizeof(float));
    CHECK(!shoal_mpi_broadcast(mpi, first, MOST * sizeof(float), &err));
    CHECK(!memcmp(first, mine, MOST * sizeof(float)));
    free(mine);
    free(first);
}

static void test_copies(void) {
    static unsigned char bytes[PIECES][5000];
    static const size_t sizes[PIECES] = {5000, 0, 17};
    unsigned char *needy = calloc(mpi->size, 1);
    ShoalPiece pieces[PIECES];
    ShoalError err = {0};
    uint64_t ticket;
    if (!needy)
        exit(1);
    for (unsigned r = 1; r < mpi->size; r++)
        needy[r] = 1;
    for (int i = 0; i < PIECES; i++) {
        pieces[i] = (ShoalPiece){bytes[i], sizes[i]};
        for (size_t k = 0; k < sizes[i]; k++)
            bytes[i][k] = mpi->rank ? 0 : (unsigned char)(k * 3 + (size_t)i);
    }
    CHECK(!shoal_collective_relay(mpi, pieces, PIECES, needy, &ticket, &err));
    CHECK(!shoal_collective_wait(mpi, ticket, &err));
    for (int i = 0; i < PIECES; i++)
        for (size_t k = 0; k < sizes[i]; k++)
            CHECK(bytes[i][k] == (unsigned char)(k * 3 + (size_t)i));
    needy[0] = 1;
    CHECK(shoal_collective_relay(mpi, pieces, PIECES, needy, &ticket, &err) ==
          SHOAL_ERR_UNSUPPORTED);
    free(needy);
}

static void test_messages(void) {
    ShoalError err = {0};
    unsigned first, all[64] = {0};
    unsigned char bits = (unsigned char)(1u << mpi->rank % 8), near = 1;
    int ranks = 0;
    CHECK(!shoal_mpi_first(mpi, mpi->rank >= 1, &first, &err));
    CHECK(first == 1);
    CHECK(!shoal_mpi_first(mpi, false, &first, &err));
    CHECK(first == mpi->size);
    CHECK(!shoal_mpi_merge(mpi, &bits, 1, &err));
    CHECK(bits == (unsigned char)((1u << mpi->size) - 1));
    CHECK(!shoal_mpi_merge_near(mpi, &near, 1, &ranks, &err));
    CHECK(near == 1 && ranks == (int)mpi->size);
    CHECK(!shoal_mpi_gather(mpi, &mpi->rank, sizeof mpi->rank, mpi->rank ? NULL : all, &err));
    for (unsigned r = 0; r < mpi->size && !mpi->rank; r++)
        CHECK(all[r] == r);
}

/* Of an older generation: nothing; of this one: the end. */
static void test_abort(void) {
    ShoalError err = {0};
    float one = 1;
    uint64_t ticket;
    shoal_collective_abort(mpi, 1);
    CHECK(!shoal_collective_allreduce(mpi, &one, 1, &err));
    shoal_collective_abort(mpi, UINT64_MAX);
    CHECK(shoal_collective_submit(mpi, &one, 1, NULL, &ticket, &err) == SHOAL_ERR_STOPPED);
    CHECK(shoal_collective_wait(mpi, 1, &err) == SHOAL_ERR_STOPPED);
}

int main(int argc, char **argv) {
    (void)argv;
    ShoalError err = {0};
    if (shoal_mpi_create(&mpi, &err)) {
        printf("FAILED %s\n", err.text);
        return 1;
    }
    wrong = argc > 1 && mpi->rank == 1;
    test_sums();
    test_same_bits();
    test_copies();
    test_messages();
    test_abort();
    if (!failures)
        printf("rank %u passed\n", mpi->rank);
    shoal_collective_destroy(mpi);
    return failures ? 1 : 0;
}
