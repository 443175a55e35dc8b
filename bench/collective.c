/* SPDX-License-Identifier: Apache-2.0 */
/* Times sums over a ring: one rank of it, as a process. See usage() below; rank 0 of a ring on one
 * machine would be
 *     bench_collective --rank 0 --size 2 --hosts 127.0.0.1,127.0.0.2 --port 4800
 * Prints one line of JSON for each repeat. Its sums are checked. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/memory.h"
#include "collective/ring.h"

enum { CONNECT_MS = 60000, MAX_BUCKETS = 1024 };

typedef struct Options {
    unsigned rank, size, buckets, repeats;
    uint16_t port;
    size_t count; /* values of one bucket */
    double line_mbit;
    const char *hosts;
    bool feedback;
    ShoalWireFormat format;
    bool encrypt;
} Options;

static const char *const FORMATS[] = {"fp32", "fp16", "bf16"};

static int usage(void) {
    fprintf(stderr,
            "usage: bench_collective --rank=R --size=N --hosts=A.B.C.D,... --port=P\n"
            "  --hosts      where each rank listens, by rank, all at port P\n"
            "  --bytes      of float32 gradients in all (100000000)\n"
            "  --buckets    as many sums at once, over equal parts (1)\n"
            "  --format     fp32, fp16 or bf16 on the wire (fp32)\n"
            "  --feedback   with error feedback\n"
            "  --encrypt    encrypted\n"
            "  --repeat     how many times (5)\n"
            "  --line-mbit  rate of the line, for the percentage of the ring bound (1000)\n");
    return 2;
}

static void fail(const Options *options, const char *what, const ShoalError *err) {
    fprintf(stderr, "bench_collective: rank %u: %s: %s\n", options->rank, what, err->text);
    exit(1);
}

static bool read_format(const char *text, ShoalWireFormat *format) {
    for (int i = 0; i < 3; i++) {
        if (!strcmp(text, FORMATS[i])) {
            *format = (ShoalWireFormat)i;
            return true;
        }
    }
    return false;
}

static bool read_options(int argc, char **argv, Options *options) {
    static const struct option known[] = {
        {"rank", 1, NULL, 'r'},   {"size", 1, NULL, 'n'},      {"hosts", 1, NULL, 'h'},
        {"port", 1, NULL, 'p'},   {"bytes", 1, NULL, 'b'},     {"buckets", 1, NULL, 'k'},
        {"format", 1, NULL, 'f'}, {"feedback", 0, NULL, 'e'},  {"encrypt", 0, NULL, 'x'},
        {"repeat", 1, NULL, 'i'}, {"line-mbit", 1, NULL, 'l'}, {NULL, 0, NULL, 0}};
    double bytes = 1e8;
    *options = (Options){.buckets = 1, .repeats = 5, .line_mbit = 1000};
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (c) {
        case 'r':
            options->rank = (unsigned)atoi(optarg);
            break;
        case 'n':
            options->size = (unsigned)atoi(optarg);
            break;
        case 'h':
            options->hosts = optarg;
            break;
        case 'p':
            options->port = (uint16_t)atoi(optarg);
            break;
        case 'b':
            bytes = atof(optarg);
            break;
        case 'k':
            options->buckets = (unsigned)atoi(optarg);
            break;
        case 'i':
            options->repeats = (unsigned)atoi(optarg);
            break;
        case 'l':
            options->line_mbit = atof(optarg);
            break;
        case 'e':
            options->feedback = true;
            break;
        case 'x':
            options->encrypt = true;
            break;
        case 'f':
            if (!read_format(optarg, &options->format))
                return false;
            break;
        default:
            return false;
        }
    }
    if (options->buckets < 1 || options->buckets > MAX_BUCKETS || options->size < 1 ||
        options->size > SHOAL_RING_MAX_SIZE || options->rank >= options->size || !options->hosts ||
        options->port == 0 || bytes < 0)
        return false;
    options->count = (size_t)(bytes / sizeof(float) / options->buckets);
    return true;
}

/* --- the ring -------------------------------------------------------------------------------- */

static void read_hosts(const Options *options, ShoalAddress *members) {
    char *hosts = shoal_strdup(options->hosts), *rest = NULL;
    ShoalError err = {0};
    unsigned n = 0;
    for (char *host = strtok_r(hosts, ",", &rest); host && n < options->size;
         host = strtok_r(NULL, ",", &rest))
        if (shoal_address_from_host(host, options->port, &members[n++], &err))
            fail(options, "--hosts", &err);
    if (n < options->size) {
        snprintf(err.text, sizeof(err.text), "%u hosts for %u ranks", n, options->size);
        fail(options, "--hosts", &err);
    }
    shoal_free(hosts);
}

static ShoalRing *connect_ring(const Options *options) {
    ShoalError err = {0};
    ShoalRing *ring = NULL;
    uint16_t port;
    char where[SHOAL_ADDRESS_TEXT];
    ShoalAddress *members = shoal_calloc(options->size, sizeof(*members));
    if (!members)
        exit(1);
    read_hosts(options, members);
    shoal_address_format(&members[options->rank], where);
    ShoalRingConfig config = {.generation = 1,
                              .rank = options->rank,
                              .size = options->size,
                              .members = members,
                              .format = options->format,
                              .encrypt = options->encrypt};
    if (shoal_auth_init(&err) || shoal_ring_create(where, &ring, &port, &err) ||
        shoal_ring_connect(ring, &config, shoal_clock_ms() + CONNECT_MS, &err))
        fail(options, "connecting", &err);
    shoal_free(members);
    return ring;
}

/* --- one repeat ------------------------------------------------------------------------------ */

typedef struct Use {
    double cpu_seconds, user_seconds;
    long sleeps; /* how often a thread had to wait */
} Use;

static double seconds_of(const struct timeval *time) {
    return (double)time->tv_sec + 1e-6 * (double)time->tv_usec;
}

static Use use_so_far(void) {
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return (Use){.cpu_seconds = seconds_of(&use.ru_utime) + seconds_of(&use.ru_stime),
                 .user_seconds = seconds_of(&use.ru_utime),
                 .sleeps = use.ru_nvcsw};
}

/* Small whole numbers: their sums are exact at 32 bits. */
static float value_of(unsigned rank, size_t i) {
    return (float)((i * 7 + rank * 13) % 101) - 50.0f;
}

static void fill(const Options *options, float *values) {
    for (size_t i = 0; i < options->count * options->buckets; i++)
        values[i] = value_of(options->rank, i);
}

static void check(const Options *options, const float *values) {
    double most = options->format == SHOAL_WIRE_FP32 ? 0 : 0.01 * 50 * options->size;
    for (size_t i = 0; i < options->count * options->buckets; i += 997) {
        float sum = 0;
        for (unsigned r = 0; r < options->size; r++)
            sum += value_of(r, i);
        double off = (double)values[i] - (double)sum;
        if (off > most || off < -most) {
            ShoalError err = {0};
            snprintf(err.text, sizeof(err.text), "value %zu is %g, expected %g", i,
                     (double)values[i], (double)sum);
            fail(options, "wrong sum", &err);
        }
    }
}

static void reduce(const Options *options, ShoalCollective *collective, float *values,
                   float *residual) {
    ShoalError err = {0};
    uint64_t ticket = 0;
    for (unsigned k = 0; k < options->buckets; k++) {
        size_t first = options->count * k;
        if (shoal_collective_submit(collective, values + first, options->count,
                                    residual ? residual + first : NULL, &ticket, &err))
            fail(options, "submit", &err);
    }
    if (shoal_collective_wait(collective, ticket, &err))
        fail(options, "wait", &err);
}

static void barrier(const Options *options, ShoalCollective *collective) {
    ShoalError err = {0};
    float one = 1;
    if (shoal_collective_allreduce(collective, &one, 1, &err))
        fail(options, "barrier", &err);
}

static void repeat(const Options *options, ShoalCollective *collective, float *values,
                   float *residual, unsigned number) {
    fill(options, values);
    barrier(options, collective);
    Use use = use_so_far();
    ShoalCollectiveStats before = shoal_collective_stats(collective);
    uint64_t start = shoal_clock_ns();
    reduce(options, collective, values, residual);
    double seconds = (double)(shoal_clock_ns() - start) * 1e-9;
    Use end = use_so_far();
    ShoalCollectiveStats after = shoal_collective_stats(collective);
    check(options, values);
    double bytes = (double)(options->count * options->buckets) *
                   (options->format == SHOAL_WIRE_FP32 ? 4.0 : 2.0);
    double bound =
        2.0 * (options->size - 1) / options->size * bytes * 8 / (options->line_mbit * 1e6);
    printf("{\"engine\": \"%s\", \"rank\": %u, \"size\": %u, \"repeat\": %u, \"bytes\": %.0f, "
           "\"buckets\": %u, \"format\": \"%s\", \"encrypt\": %s, \"seconds\": %.6f, "
           "\"cpu_seconds\": %.6f, \"user_seconds\": %.6f, \"sleeps\": %ld, "
           "\"bound_seconds\": %.6f, \"percent\": %.2f, \"bytes_sent\": %llu}\n",
           collective->engine->name, options->rank, options->size, number,
           (double)(options->count * options->buckets) * 4.0, options->buckets,
           FORMATS[options->format], options->encrypt ? "true" : "false", seconds,
           end.cpu_seconds - use.cpu_seconds, end.user_seconds - use.user_seconds,
           end.sleeps - use.sleeps, bound, 100 * bound / seconds,
           (unsigned long long)(after.bytes_sent - before.bytes_sent));
    fflush(stdout);
}

int main(int argc, char **argv) {
    Options options;
    if (!read_options(argc, argv, &options))
        return usage();
    size_t n = options.count * options.buckets;
    float *values = shoal_calloc(n, sizeof(float));
    float *residual = options.feedback ? shoal_calloc(n, sizeof(float)) : NULL;
    if (!values || (options.feedback && !residual)) {
        fprintf(stderr, "bench_collective: out of memory\n");
        return 1;
    }
    ShoalRing *ring = connect_ring(&options);
    for (unsigned i = 0; i < options.repeats; i++)
        repeat(&options, shoal_ring_collective(ring), values, residual, i);
    shoal_ring_destroy(ring);
    shoal_free(residual);
    shoal_free(values);
    return 0;
}
