/* SPDX-License-Identifier: Apache-2.0 */
/* MPI's allreduce, to compare with, on buckets of float32.
 *
 *   mpirun ... mpi --bytes B --buckets K --repeat R [--inflight 0|1]
 *
 * Of several buckets, all are in flight (MPI_Iallreduce), or one after the other with --inflight 0.
 * Rank 0 prints a line of JSON per repetition, from a barrier to the end of all buckets:
 * {"seconds", "cpu_seconds"}: those of the slowest rank and the average of all. */
#include <math.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

typedef struct Options {
    size_t count;
    int buckets, repeat;
    bool inflight;
} Options;

static int parse(int argc, char **argv, Options *options) {
    *options = (Options){.count = 25000000, .buckets = 1, .repeat = 5, .inflight = true};
    for (int i = 1; i + 1 < argc; i += 2) {
        double value = strtod(argv[i + 1], NULL);
        if (!strcmp(argv[i], "--bytes"))
            options->count = (size_t)(value / sizeof(float));
        else if (!strcmp(argv[i], "--buckets"))
            options->buckets = (int)value;
        else if (!strcmp(argv[i], "--repeat"))
            options->repeat = (int)value;
        else if (!strcmp(argv[i], "--inflight"))
            options->inflight = value != 0;
        else
            return -1;
    }
    return options->buckets > 0 ? 0 : -1;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void reduce(const Options *options, float *values, MPI_Request *requests) {
    for (int k = 0; k < options->buckets; k++) {
        size_t first = options->count * (size_t)k / (size_t)options->buckets;
        size_t end = options->count * (size_t)(k + 1) / (size_t)options->buckets;
        if (options->inflight)
            MPI_Iallreduce(MPI_IN_PLACE, values + first, (int)(end - first), MPI_FLOAT, MPI_SUM,
                           MPI_COMM_WORLD, &requests[k]);
        else
            MPI_Allreduce(MPI_IN_PLACE, values + first, (int)(end - first), MPI_FLOAT, MPI_SUM,
                          MPI_COMM_WORLD);
    }
    if (options->inflight)
        MPI_Waitall(options->buckets, requests, MPI_STATUSES_IGNORE);
}

/* One repetition; false when a sum is wrong. */
static bool measure(const Options *options, float *values, MPI_Request *requests) {
    int rank, size;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (size_t i = 0; i < options->count; i++)
        values[i] = (float)(rank + 1);
    MPI_Barrier(MPI_COMM_WORLD);
    double cpu = cpu_seconds(), start = MPI_Wtime();
    reduce(options, values, requests);
    double seconds = MPI_Wtime() - start;
    cpu = cpu_seconds() - cpu;
    float sum = (float)size * (float)(size + 1) / 2;
    for (size_t i = 0; i < options->count; i++)
        if (fabsf(values[i] - sum) > 0)
            return false;
    double slowest, total;
    MPI_Reduce(&seconds, &slowest, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);
    MPI_Reduce(&cpu, &total, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
    if (rank == 0) {
        printf("{\"seconds\":%.6f,\"cpu_seconds\":%.6f}\n", slowest, total / size);
        fflush(stdout);
    }
    return true;
}

int main(int argc, char **argv) {
    Options options;
    MPI_Init(&argc, &argv);
    if (parse(argc, argv, &options) < 0) {
        fprintf(stderr, "see the head of mpi.c for the flags\n");
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    float *values = malloc((options.count + 1) * sizeof(*values));
    MPI_Request *requests = malloc((size_t)options.buckets * sizeof(*requests));
    if (!values || !requests) {
        fprintf(stderr, "out of memory\n");
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    for (int i = 0; i < options.repeat; i++)
        if (!measure(&options, values, requests)) {
            fprintf(stderr, "a wrong sum\n");
            MPI_Abort(MPI_COMM_WORLD, 1);
        }
    free(requests);
    free(values);
    MPI_Finalize();
    return 0;
}
