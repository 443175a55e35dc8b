/* SPDX-License-Identifier: Apache-2.0 */
/* Times the kernels: the calls of one LeNet training step (examples of BVLC Caffe: conv 20@5x5 on
 * 1x28x28, max pool 2x2, conv 50@5x5, max pool 2x2, 500 units with ReLU, 10 units, softmax, SGD
 * with momentum), then some other shapes. Prints the best of several rounds per operation, and
 * images/s for a step out of those calls alone. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "kernels/kernels.h"

typedef struct Bench {
    ShoalCompute compute;
    int batch, rounds;
    const char *only; /* part of the names of the operations to time, or NULL */
    double step_ns;   /* sum of the best times of the step so far */
} Bench;

typedef struct Options {
    const char *level, *only;
    int threads, batch, rounds;
} Options;

static float *tensor(size_t count) {
    float *data = shoal_calloc(count, sizeof *data);
    if (!data) {
        fprintf(stderr, "bench_kernels: out of memory (%zu numbers)\n", count);
        exit(1);
    }
    ShoalRng rng;
    shoal_rng_init(&rng, 1, SHOAL_RNG_TEST, 0);
    shoal_rng_fill_uniform(&rng, -1, 1, count, data);
    return data;
}

/* No more rounds of an operation after this time. */
static const double most_ns = 2e9;

/* Times the statement, which may use the names in scope, and prints a line. */
#define TIME(bench, counted, name, flops, statement)                                               \
    do {                                                                                           \
        double best_ = 1e300, all_ = 0;                                                            \
        if ((bench)->only && !strstr(name, (bench)->only))                                         \
            break;                                                                                 \
        for (int round_ = 0; round_ < (bench)->rounds && all_ < most_ns; round_++) {               \
            uint64_t start_ = shoal_clock_ns();                                                    \
            statement;                                                                             \
            double ns_ = (double)(shoal_clock_ns() - start_);                                      \
            best_ = ns_ < best_ ? ns_ : best_;                                                     \
            all_ += ns_;                                                                           \
        }                                                                                          \
        print_line(name, best_, flops);                                                            \
        if (counted)                                                                               \
            (bench)->step_ns += best_;                                                             \
    } while (0)

static void print_line(const char *name, double ns, double flops) {
    printf("  %-34s %10.1f us", name, ns / 1e3);
    if (flops > 0)
        printf(" %8.1f GFLOP/s", flops / ns);
    printf("\n");
}

static double conv_flops(const ShoalConvShape *s) {
    return 2.0 * s->batch * s->outputs * s->out_height * s->out_width * (s->channels / s->group) *
           s->kernel_h * s->kernel_w;
}

static ShoalConvShape square_conv(int batch, int channels, int size, int outputs, int kernel,
                                  int stride, int pad, int group) {
    int out = (size + 2 * pad - kernel) / stride + 1;
    return (ShoalConvShape){.batch = batch,
                            .channels = channels,
                            .height = size,
                            .width = size,
                            .outputs = outputs,
                            .out_height = out,
                            .out_width = out,
                            .kernel_h = kernel,
                            .kernel_w = kernel,
                            .stride_h = stride,
                            .stride_w = stride,
                            .pad_h = pad,
                            .pad_w = pad,
                            .dilation_h = 1,
                            .dilation_w = 1,
                            .group = group};
}

static void bench_conv(Bench *b, bool counted, bool data, const char *name, ShoalConvShape s) {
    const ShoalCompute *c = &b->compute;
    size_t in = (size_t)s.batch * (size_t)(s.channels * s.height * s.width);
    size_t out = (size_t)s.batch * (size_t)(s.outputs * s.out_height * s.out_width);
    size_t weights = (size_t)(s.outputs * (s.channels / s.group) * s.kernel_h * s.kernel_w);
    float *x = tensor(in), *y = tensor(out), *w = tensor(weights), *bias = tensor(out);
    char line[64];
    snprintf(line, sizeof line, "%s forward", name);
    TIME(b, counted, line, conv_flops(&s), shoal_conv_fwd(c, &s, x, w, bias, y));
    snprintf(line, sizeof line, "%s backward weights", name);
    TIME(b, counted, line, conv_flops(&s), shoal_conv_bwd_weights(c, &s, x, y, w, bias));
    snprintf(line, sizeof line, "%s backward data", name);
    if (data)
        TIME(b, counted, line, conv_flops(&s), shoal_conv_bwd_data(c, &s, y, w, x));
    shoal_free(x);
    shoal_free(y);
    shoal_free(w);
    shoal_free(bias);
}

static void bench_pool(Bench *b, const char *name, int channels, int size) {
    const ShoalCompute *c = &b->compute;
    ShoalPoolShape s = {b->batch * channels, size, size, size / 2, size / 2, 2, 2, 2, 2, 0, 0};
    size_t in = (size_t)s.planes * (size_t)(size * size), out = in / 4;
    float *x = tensor(in), *y = tensor(out);
    int32_t *index = shoal_calloc(out, sizeof *index);
    char line[64];
    snprintf(line, sizeof line, "%s forward", name);
    TIME(b, true, line, 0, shoal_pool_max_fwd(c, &s, x, y, index));
    snprintf(line, sizeof line, "%s backward", name);
    TIME(b, true, line, 0, shoal_pool_max_bwd(c, &s, y, index, x));
    shoal_free(x);
    shoal_free(y);
    shoal_free(index);
}

static void bench_inner_product(Bench *b, const char *name, size_t in, size_t out) {
    const ShoalCompute *c = &b->compute;
    size_t m = (size_t)b->batch;
    double flops = 2.0 * (double)m * (double)in * (double)out;
    float *x = tensor(m * in), *y = tensor(m * out), *w = tensor(in * out), *bias = tensor(out);
    char line[64];
    snprintf(line, sizeof line, "%s forward", name);
    TIME(b, true, line, flops, {
        shoal_gemm(c, false, true, m, out, in, 1, x, in, w, in, 0, y, out);
        shoal_bias_add(c, m, out, bias, y);
    });
    snprintf(line, sizeof line, "%s backward weights", name);
    TIME(b, true, line, flops, {
        shoal_gemm(c, true, false, out, in, m, 1, y, out, x, in, 1, w, in);
        shoal_bias_grad(c, m, out, y, bias);
    });
    snprintf(line, sizeof line, "%s backward data", name);
    TIME(b, true, line, flops, shoal_gemm(c, false, false, m, in, out, 1, y, out, w, in, 0, x, in));
    shoal_free(x);
    shoal_free(y);
    shoal_free(w);
    shoal_free(bias);
}

/* The small layers and the update, on all the numbers of LeNet. */
static void bench_rest(Bench *b) {
    const ShoalCompute *c = &b->compute;
    size_t hidden = (size_t)b->batch * 500, params = 431080, rows = (size_t)b->batch;
    float *x = tensor(hidden), *g = tensor(params), *h = tensor(params), *w = tensor(params);
    ShoalSgdRule rule = {.scale = 1, .rate = 0.01f, .momentum = 0.9f, .decay = 0.0005f};
    TIME(b, true, "relu forward", 0, shoal_relu_fwd(c, hidden, 0, x, x));
    TIME(b, true, "relu backward", 0, shoal_relu_bwd(c, hidden, 0, x, x, x));
    TIME(b, true, "softmax forward", 0, shoal_softmax_fwd(c, rows, 10, 1, x, x));
    TIME(b, true, "zero gradients", 0, memset(g, 0, params * sizeof *g));
    TIME(b, true, "sgd update", 0, shoal_update_sgd(c, &rule, params, g, h, w));
    shoal_free(x);
    shoal_free(g);
    shoal_free(h);
    shoal_free(w);
}

static void bench_lenet(Bench *b) {
    printf("LeNet, batch %d\n", b->batch);
    bench_conv(b, true, false, "conv1", square_conv(b->batch, 1, 28, 20, 5, 1, 0, 1));
    bench_pool(b, "pool1", 20, 24);
    bench_conv(b, true, true, "conv2", square_conv(b->batch, 20, 12, 50, 5, 1, 0, 1));
    bench_pool(b, "pool2", 50, 8);
    bench_inner_product(b, "ip1", 800, 500);
    bench_inner_product(b, "ip2", 500, 10);
    bench_rest(b);
    if (b->step_ns > 0 && !b->only)
        printf("  %-34s %10.1f us %8.0f images/s\n", "step", b->step_ns / 1e3,
               b->batch / (b->step_ns / 1e9));
}

static void bench_gemm(Bench *b, bool trans_a, bool trans_b, size_t m, size_t n, size_t k) {
    float *x = tensor(m * k), *w = tensor(k * n), *y = tensor(m * n);
    char line[64];
    snprintf(line, sizeof line, "gemm %s%s %zux%zux%zu", trans_a ? "t" : "n", trans_b ? "t" : "n",
             m, n, k);
    TIME(b, false, line, 2.0 * (double)m * (double)n * (double)k,
         shoal_gemm(&b->compute, trans_a, trans_b, m, n, k, 1, x, trans_a ? m : k, w,
                    trans_b ? k : n, 0, y, n));
    shoal_free(x);
    shoal_free(w);
    shoal_free(y);
}

static void bench_others(Bench *b) {
    printf("Other shapes\n");
    bench_gemm(b, false, false, 1024, 1024, 1024);
    bench_gemm(b, true, false, 1024, 1024, 1024);
    bench_gemm(b, false, true, 1024, 1024, 1024);
    bench_gemm(b, false, true, 16, 4096, 4096);
    bench_conv(b, false, true, "3x3 64@56", square_conv(4, 64, 56, 64, 3, 1, 1, 1));
    bench_conv(b, false, true, "1x1 256@28", square_conv(4, 256, 28, 256, 1, 1, 0, 1));
    bench_conv(b, false, true, "3x3 512@7", square_conv(4, 512, 7, 512, 3, 1, 1, 1));
    bench_conv(b, false, true, "3x3 s2 128@28", square_conv(4, 128, 28, 128, 3, 2, 1, 1));
    bench_conv(b, false, true, "depthwise 3x3 128@56", square_conv(4, 128, 56, 128, 3, 1, 1, 128));
}

static int usage(FILE *to) {
    fprintf(to, "usage: bench_kernels [--level=c|avx2|avx512] [--threads=N] [--batch=N]"
                " [--rounds=N] [--only=PART-OF-A-NAME]\n");
    return to == stdout ? 0 : 2;
}

/* -1 when all is well, else the exit code. */
static int parse(int argc, char **argv, Options *o) {
    static const struct option long_options[] = {{"level", required_argument, NULL, 'l'},
                                                 {"threads", required_argument, NULL, 't'},
                                                 {"batch", required_argument, NULL, 'b'},
                                                 {"rounds", required_argument, NULL, 'r'},
                                                 {"only", required_argument, NULL, 'o'},
                                                 {"help", no_argument, NULL, 'h'},
                                                 {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", long_options, NULL)) != -1;)
        switch (c) {
        case 'l':
            o->level = optarg;
            break;
        case 't':
            o->threads = atoi(optarg);
            break;
        case 'b':
            o->batch = atoi(optarg);
            break;
        case 'r':
            o->rounds = atoi(optarg);
            break;
        case 'o':
            o->only = optarg;
            break;
        default:
            return usage(c == 'h' ? stdout : stderr);
        }
    bool sane = o->threads >= 1 && o->threads <= 1024 && o->batch >= 1 && o->batch <= 65536 &&
                o->rounds >= 1;
    return sane && optind == argc ? -1 : usage(stderr);
}

int main(int argc, char **argv) {
    Options options = {.threads = 1, .batch = 64, .rounds = 30};
    int code = parse(argc, argv, &options);
    if (code >= 0)
        return code;
    ShoalError err = {0};
    ShoalCpuLevel level;
    if (shoal_cpu_level_choose(options.level, &level, &err) != SHOAL_OK) {
        fprintf(stderr, "bench_kernels: %s\n", err.text);
        return 2;
    }
    size_t bytes = (size_t)64 << 20;
    Bench bench = {.batch = options.batch, .rounds = options.rounds, .only = options.only};
    bench.compute = (ShoalCompute){.kernels = shoal_kernels_for(level),
                                   .pool = shoal_pool_create((unsigned)options.threads),
                                   .workspace = shoal_calloc(bytes, 1),
                                   .workspace_bytes = bytes};
    if (!bench.compute.pool || !bench.compute.workspace) {
        fprintf(stderr, "bench_kernels: out of memory\n");
        return 1;
    }
    char model[128];
    shoal_cpu_model(model, sizeof model);
    printf("%s, level %s, %d thread%s\n", model, shoal_cpu_level_name(level), options.threads,
           options.threads == 1 ? "" : "s");
    bench_lenet(&bench);
    bench_others(&bench);
    shoal_pool_destroy(bench.compute.pool);
    shoal_free(bench.compute.workspace);
    return 0;
}
