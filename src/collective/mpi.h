/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_MPI_H
#define SHOAL_COLLECTIVE_MPI_H

#include <stdbool.h>

#include "collective/collective.h"

/* The engine over MPI, for clusters where MPI and a batch scheduler are at home, and what else the
 * processes of an MPI job tell each other. Only in builds with SHOAL_MPI.
 *
 * All ranks make the same calls in the same order, from the thread that made the engine, which must
 * be the one that started MPI (MPI_THREAD_FUNNELED); abort alone may come from any thread. Nothing
 * here survives the loss of a rank: then MPI, or mpirun, ends the job.
 *
 * What differs from the ring:
 *  - MPI moves on only while somebody calls it. submit gives it a chance, wait the rest.
 *  - A relay goes from rank 0 to all others, no other way (else SHOAL_ERR_UNSUPPORTED).
 *  - The MPI standard only advises that MPI_Allreduce give all ranks the same bits. Open MPI and
 *    MPICH do so among equal machines; whoever relies on it compares.
 *  - bytes_sent and bytes_received are what a ring would send: MPI does not tell.
 *  - A residual is never touched: 32 bits travel. */

enum { SHOAL_MPI_HOST = 64 };

/* All processes of the job. Starts MPI, unless it runs already: then destroying the engine does not
 * end it. SHOAL_ERR_UNSUPPORTED: MPI was ended before, or lacks MPI_THREAD_FUNNELED. */
ShoalStatus shoal_mpi_create(ShoalCollective **mpi, ShoalError *err);

/* The name of this machine, cut to fit. */
void shoal_mpi_host(char host[SHOAL_MPI_HOST]);

/* bytes[size] becomes what rank 0 has there. */
ShoalStatus shoal_mpi_broadcast(ShoalCollective *mpi, void *bytes, size_t size, ShoalError *err);

/* Rank 0 gets item[size] of every rank: all[ranks][size]. all: NULL on other ranks. */
ShoalStatus shoal_mpi_gather(ShoalCollective *mpi, const void *item, size_t size, void *all,
                             ShoalError *err);

/* bits[size] becomes the bitwise or over all ranks. */
ShoalStatus shoal_mpi_merge(ShoalCollective *mpi, void *bits, size_t size, ShoalError *err);

/* The same over the ranks of this machine, and how many they are. */
ShoalStatus shoal_mpi_merge_near(ShoalCollective *mpi, void *bits, size_t size, int *ranks,
                                 ShoalError *err);

/* *first: the lowest rank that says `mine`; the number of ranks when none does. */
ShoalStatus shoal_mpi_first(ShoalCollective *mpi, bool mine, unsigned *first, ShoalError *err);

/* Ends all processes of the job with this exit code. */
_Noreturn void shoal_mpi_end_job(ShoalCollective *mpi, int code);

/* Waits for another rank to do that; if it does not, does it. */
_Noreturn void shoal_mpi_await_end(ShoalCollective *mpi, int code);

#endif
