/* SPDX-License-Identifier: Apache-2.0 */
/* Times the Winograd convolutions of ResNet-50's shapes, all passes, beside the direct way: GF/s of
 * the direct way's count (2 per multiply-add), best of several rounds, and the ratio to the
 * machine's measured multiply-add peak. --busy (one thread): processor time. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "kernels/nchwc.h"
#include "kernels/nchwc/winograd.h"
#include "kernels/peak.h"
#include "kernels/table.h"

typedef struct Options {
    const char *level;
    int threads, batch, rounds, budget_ms;
    bool direct, busy;
} Options;

typedef struct Bench {
    Options options;
    ShoalCompute compute;
    double peak; /* GF/s */
} Bench;

/* On a busy machine the processor time of one thread says more than the time that passes. */
static double now_ns(const Options *o) {
    struct timespec t;
    if (!o->busy)
        return (double)shoal_clock_ns();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

typedef struct Tensors {
    float *x, *y, *w, *scale, *shift;
    double *mean, *variance;
} Tensors;

static void *zeros(size_t count, size_t size) {
    void *data = shoal_calloc(count, size);
    if (!data) {
        fprintf(stderr, "bench_nchwc_winograd: out of memory\n");
        exit(1);
    }
    return data;
}

static float *tensor(size_t count) {
    float *data = zeros(count, sizeof *data);
    ShoalRng rng;
    shoal_rng_init(&rng, 1, SHOAL_RNG_TEST, 0);
    shoal_rng_fill_uniform(&rng, -1, 1, count, data);
    return data;
}

static ShoalNchwcConv conv_of(int batch, int channels, int size, bool winograd) {
    return (ShoalNchwcConv){.shape = {.batch = batch,
                                      .channels = channels,
                                      .height = size,
                                      .width = size,
                                      .outputs = channels,
                                      .out_height = size,
                                      .out_width = size,
                                      .kernel_h = 3,
                                      .kernel_w = 3,
                                      .stride_h = 1,
                                      .stride_w = 1,
                                      .pad_h = 1,
                                      .pad_w = 1,
                                      .dilation_h = 1,
                                      .dilation_w = 1,
                                      .group = 1},
                            .winograd = winograd};
}

typedef enum Pass { FORWARD, FORWARD_FUSED, BACKWARD_DATA, BACKWARD_WEIGHTS, PASSES } Pass;
static const char *const pass_names[] = {"forward", "forward, fused", "backward data",
                                         "backward weights"};

static void call(const Bench *b, const ShoalNchwcConv *conv, Pass pass, const Tensors *t) {
    const ShoalNchwcInput plain = {.x = t->x};
    const ShoalNchwcInput function = {
        .x = t->x, .scale = t->scale, .shift = t->shift, .relu = true};
    const ShoalNchwcStats stats = {t->mean, t->variance};
    const ShoalNchwcGradient gradient = {.g = t->x};
    const ShoalCompute *c = &b->compute;
    const bool direct = !conv->winograd;
    if (pass == FORWARD)
        (direct ? shoal_nchwc_conv_fwd : shoal_nchwc_winograd_fwd)(c, conv, &plain, t->w, NULL,
                                                                   t->y, NULL);
    else if (pass == FORWARD_FUSED)
        (direct ? shoal_nchwc_conv_fwd : shoal_nchwc_winograd_fwd)(c, conv, &function, t->w, NULL,
                                                                   t->y, &stats);
    else if (pass == BACKWARD_DATA)
        (direct ? shoal_nchwc_conv_bwd_data : shoal_nchwc_winograd_bwd_data)(c, conv, t->y, t->w,
                                                                             &gradient);
    else if (direct)
        shoal_nchwc_conv_bwd_weights(c, conv, &plain, t->y, t->w, NULL);
    else
        shoal_nchwc_winograd_bwd_weights(c, conv, &plain, t->y, t->w);
}

static void bench_pass(const Bench *b, const ShoalNchwcConv *conv, Pass pass, const Tensors *t) {
    const ShoalConvShape *s = &conv->shape;
    const double flops = 18.0 * s->batch * s->outputs * s->out_height * s->out_width * s->channels;
    double best = 1e300, all = 0;
    for (int round = 0; round < b->options.rounds && all < b->options.budget_ms * 1e6; round++) {
        double start = now_ns(&b->options);
        call(b, conv, pass, t);
        double ns = now_ns(&b->options) - start;
        best = ns < best ? ns : best;
        all += ns;
    }
    printf("  %3d@%-3d %-9s %-17s %9.3f ms %7.0f GF/s %5.2f of the peak\n", s->channels, s->height,
           conv->winograd ? "Winograd" : "direct", pass_names[pass], best / 1e6, flops / best,
           flops / best / b->peak);
}

static void bench_shape(Bench *b, int channels, int size) {
    const size_t count = (size_t)b->options.batch * (size_t)(channels * size * size);
    Tensors t = {tensor(count),
                 tensor(count),
                 tensor((size_t)(channels * channels * 9)),
                 tensor((size_t)channels),
                 tensor((size_t)channels),
                 zeros((size_t)channels, sizeof(double)),
                 zeros((size_t)channels, sizeof(double))};
    for (int winograd = 1; winograd >= (b->options.direct ? 0 : 1); winograd--) {
        const ShoalNchwcConv conv = conv_of(b->options.batch, channels, size, winograd);
        const unsigned threads = (unsigned)b->options.threads;
        const size_t bytes =
            winograd
                ? shoal_nchwc_winograd_workspace_bytes(b->compute.kernels->nchwc, &conv, threads)
                : shoal_nchwc_conv_workspace_bytes(b->compute.kernels, &conv, threads);
        b->compute.workspace = zeros(bytes, 1);
        b->compute.workspace_bytes = bytes;
        for (Pass pass = 0; pass < PASSES; pass++)
            bench_pass(b, &conv, pass, &t);
        shoal_free(b->compute.workspace);
    }
    shoal_free(t.x);
    shoal_free(t.y);
    shoal_free(t.w);
    shoal_free(t.scale);
    shoal_free(t.shift);
    shoal_free(t.mean);
    shoal_free(t.variance);
}

static int parse(int argc, char **argv, Options *o) {
    static const struct option known[] = {{"batch", required_argument, NULL, 'b'},
                                          {"threads", required_argument, NULL, 't'},
                                          {"rounds", required_argument, NULL, 'r'},
                                          {"cpu", required_argument, NULL, 'c'},
                                          {"direct", no_argument, NULL, 'd'},
                                          {"busy", no_argument, NULL, 'B'},
                                          {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        if (c == 'b')
            o->batch = atoi(optarg);
        else if (c == 't')
            o->threads = atoi(optarg);
        else if (c == 'r')
            o->rounds = atoi(optarg);
        else if (c == 'c')
            o->level = optarg;
        else if (c == 'd')
            o->direct = true;
        else if (c == 'B')
            o->busy = true;
        else
            return 2;
    }
    return o->batch > 0 && o->threads > 0 && o->rounds > 0 ? 0 : 2;
}

int main(int argc, char **argv) {
    Bench b = {.options = {.threads = 1, .batch = 32, .rounds = 200, .budget_ms = 300}};
    ShoalError err = {0};
    ShoalCpuLevel level;
    if (parse(argc, argv, &b.options) != 0) {
        fprintf(stderr, "usage: bench_nchwc_winograd [--batch=N] [--threads=N] [--rounds=N] "
                        "[--cpu=LEVEL] [--direct] [--busy] [CHANNELS@SIZE...]\n");
        return 2;
    }
    if (shoal_cpu_level_choose(b.options.level, &level, &err) != SHOAL_OK) {
        fprintf(stderr, "bench_nchwc_winograd: %s\n", err.text);
        return 2;
    }
    b.compute.kernels = shoal_kernels_for(level);
    b.compute.pool = shoal_pool_create((unsigned)b.options.threads);
    if (!b.compute.pool || shoal_nchwc_lanes(b.compute.kernels) == 0) {
        fprintf(stderr, "bench_nchwc_winograd: no thread pool, or no blocked tensors at level %s\n",
                shoal_cpu_level_name(level));
        return 1;
    }
    for (int i = 0; i < 10; i++) {
        double start = now_ns(&b.options);
        double operations = shoal_kernels_peak(&b.compute, 100000);
        double peak = operations / (now_ns(&b.options) - start);
        b.peak = peak > b.peak ? peak : b.peak;
    }
    printf("level %s, batch %d, %d threads, peak %.0f GF/s\n", shoal_cpu_level_name(level),
           b.options.batch, b.options.threads, b.peak);
    static char *resnet[] = {"64@56", "128@28", "256@14", "512@7"};
    const bool given = optind < argc;
    for (int i = given ? optind : 0; i < (given ? argc : 4); i++) {
        int channels, size;
        if (sscanf(given ? argv[i] : resnet[i], "%d@%d", &channels, &size) == 2 && channels > 0 &&
            size > 0)
            bench_shape(&b, channels, size);
    }
    shoal_pool_destroy(b.compute.pool);
    return 0;
}
