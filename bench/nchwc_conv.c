/* SPDX-License-Identifier: Apache-2.0 */
/* Times the convolutions on channel-blocked tensors pass by pass, at the shapes of bench/shapes.h:
 * GFLOP/s and per cent of what a loop of nothing but multiply-adds reaches on as many threads. By
 * default with what surrounds a convolution in training: the input through a normalisation and
 * ReLU, statistics of the output; the input's gradient through the ReLU, with the sums that a
 * normalisation needs. Best of several rounds. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/memory.h"
#include "base/rng.h"
#include "kernels/nchwc.h"
#include "shapes.h"

typedef struct Bench {
    ShoalCompute compute;
    int batch, rounds;
    bool bare, winograd;
    const char *only;
    double peak; /* GFLOP/s */
    double ns[3], flops[3];
} Bench;

static bool own_time;

/* With --own-time what this thread itself has run: for one thread on a machine that others use. */
static uint64_t now_ns(void) {
    struct timespec time;
    if (!own_time)
        return shoal_clock_ns();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void *numbers(size_t count, size_t size) {
    void *data = shoal_calloc(count, size);
    if (!data) {
        fprintf(stderr, "bench_nchwc_conv: out of memory (%zu numbers)\n", count);
        exit(1);
    }
    return data;
}

static float *tensor(size_t count) {
    float *data = numbers(count, sizeof *data);
    ShoalRng rng;
    shoal_rng_init(&rng, 1, SHOAL_RNG_TEST, 0);
    shoal_rng_fill_uniform(&rng, -1, 1, count, data);
    return data;
}

/* --- The machine's limit ------------------------------------------------------------------ */

enum { PEAK_STEPS = 100000, PEAK_SUMS = 12 };

/* Twelve sums that do not wait for each other; the compiler may contract (bench/CMakeLists.txt). */
#define PEAK(name, lanes, attributes)                                                              \
    typedef float Vector##name __attribute__((vector_size(lanes * sizeof(float))));                \
    attributes static float peak_##name(void) {                                                    \
        const Vector##name a = (Vector##name){0} + 0.999f, b = (Vector##name){0} + 0.001f;         \
        Vector##name s0 = a, s1 = a + 1, s2 = a + 2, s3 = a + 3, s4 = a + 4, s5 = a + 5,           \
                     s6 = a + 6, s7 = a + 7, s8 = a + 8, s9 = a + 9, s10 = a + 10, s11 = a + 11;   \
        for (int i = 0; i < PEAK_STEPS; i++) {                                                     \
            s0 = s0 * a + b, s1 = s1 * a + b, s2 = s2 * a + b, s3 = s3 * a + b;                    \
            s4 = s4 * a + b, s5 = s5 * a + b, s6 = s6 * a + b, s7 = s7 * a + b;                    \
            s8 = s8 * a + b, s9 = s9 * a + b, s10 = s10 * a + b, s11 = s11 * a + b;                \
        }                                                                                          \
        s0 += s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9 + s10 + s11;                              \
        return s0[0];                                                                              \
    }
#if defined(__x86_64__)
PEAK(8, 8, __attribute__((noinline, target("avx2,fma"))))
PEAK(16, 16, __attribute__((noinline, target("avx512f"))))
#else
PEAK(4, 4, __attribute__((noinline)))
#endif

static void peak_task(void *context, size_t index, unsigned thread) {
    volatile float *out = context;
    (void)index;
    (void)thread;
#if defined(__x86_64__)
    *out = out[1] == 16 ? peak_16() : peak_8();
#else
    *out = peak_4();
#endif
}

static double measure_peak(const ShoalCompute *c) {
    const unsigned threads = shoal_pool_threads(c->pool);
    const int lanes = shoal_nchwc_lanes(c->kernels);
    float out[2] = {0, (float)lanes};
    double best = 1e300;
    for (int i = 0; i < 40; i++) {
        uint64_t start = now_ns();
        shoal_pool_run(c->pool, threads, peak_task, out);
        double ns = (double)(now_ns() - start);
        best = ns < best ? ns : best;
    }
    return 2.0 * lanes * PEAK_SUMS * PEAK_STEPS * threads / best;
}

/* --- Layers ------------------------------------------------------------------------------- */

/* No more rounds of a pass after this time. */
static const double most_ns = 1.5e8;

#define BEST(bench, best, statement)                                                               \
    do {                                                                                           \
        double all_ = 0;                                                                           \
        for (int round_ = 0; round_ < (bench)->rounds && all_ < most_ns; round_++) {               \
            uint64_t start_ = now_ns();                                                            \
            statement;                                                                             \
            double ns_ = (double)(now_ns() - start_);                                              \
            best = ns_ < best ? ns_ : best;                                                        \
            all_ += ns_;                                                                           \
        }                                                                                          \
    } while (0)

static ShoalNchwcConv conv_of(const Bench *b, const Layer *l) {
    const int out = layer_out(l);
    return (ShoalNchwcConv){.shape = {.batch = b->batch,
                                      .channels = l->channels,
                                      .height = l->size,
                                      .width = l->size,
                                      .outputs = l->outputs,
                                      .out_height = out,
                                      .out_width = out,
                                      .kernel_h = l->kernel,
                                      .kernel_w = l->kernel,
                                      .stride_h = l->stride,
                                      .stride_w = l->stride,
                                      .pad_h = l->pad,
                                      .pad_w = l->pad,
                                      .dilation_h = 1,
                                      .dilation_w = 1,
                                      .group = l->group},
                            .plain_input = l->channels <= 3,
                            .winograd = b->winograd};
}

static void print_layer(Bench *b, const Layer *l, double flops, const double ns[3]) {
    printf("%-24s", l->name);
    for (int i = 0; i < 3; i++) {
        if (ns[i] > 1e299) {
            printf(" %22s", "");
            continue;
        }
        printf("  %7.1f GF/s (%5.1f %%)", flops / ns[i], 100 * flops / ns[i] / b->peak);
        b->ns[i] += ns[i];
        b->flops[i] += flops;
    }
    printf("\n");
    fflush(stdout);
}

static void bench_layer(Bench *b, const Layer *l) {
    const ShoalNchwcConv conv = conv_of(b, l);
    const ShoalConvShape *s = &conv.shape;
    const int lanes = shoal_nchwc_lanes(b->compute.kernels);
    const size_t channels =
        conv.plain_input ? (size_t)s->channels : shoal_nchwc_padded(s->channels, lanes);
    const size_t outputs = shoal_nchwc_padded(s->outputs, lanes);
    const size_t in = (size_t)s->batch * channels * (size_t)(s->height * s->width);
    const size_t out = (size_t)s->batch * outputs * (size_t)(s->out_height * s->out_width);
    const size_t weights =
        (size_t)(s->outputs * (s->channels / s->group) * s->kernel_h * s->kernel_w);
    float *x = tensor(in), *y = tensor(out), *dx = tensor(in), *w = tensor(weights);
    float *dw = tensor(weights), *scale = tensor(channels), *shift = tensor(channels);
    double *sums = numbers(4 * (outputs + channels), sizeof *sums);
    ShoalNchwcInput input = {x, NULL, NULL, false};
    ShoalNchwcStats stats = {sums, sums + outputs};
    ShoalNchwcGradient grad = {.g = dx};
    const bool bare = b->bare || conv.plain_input;
    if (!bare) {
        input = (ShoalNchwcInput){x, scale, shift, true};
        grad.finish = true;
        grad.mask = x;
        grad.mask_scale = scale;
        grad.mask_shift = shift;
        grad.sum_g = sums + 2 * outputs;
        grad.terms = 1;
        grad.term[0].z = x;
        grad.term[0].center = shift;
        grad.term[0].sum = sums + 2 * outputs + channels;
    }
    ShoalCompute *c = &b->compute;
    c->workspace_bytes =
        shoal_nchwc_conv_workspace_bytes(c->kernels, &conv, shoal_pool_threads(c->pool));
    c->workspace = numbers(c->workspace_bytes, 1);
    double ns[3] = {1e300, 1e300, 1e300};
    BEST(b, ns[0], shoal_nchwc_conv_fwd(c, &conv, &input, w, NULL, y, b->bare ? NULL : &stats));
    if (!conv.plain_input)
        BEST(b, ns[1], shoal_nchwc_conv_bwd_data(c, &conv, y, w, &grad));
    BEST(b, ns[2], shoal_nchwc_conv_bwd_weights(c, &conv, &input, y, dw, NULL));
    print_layer(b, l, layer_flops(l, b->batch), ns);
    void *all[] = {x, y, dx, w, dw, scale, shift, sums, c->workspace};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        shoal_free(all[i]);
}

/* --- The command line --------------------------------------------------------------------- */

static int usage(FILE *to) {
    fprintf(to, "usage: bench_nchwc_conv [--level=avx2|avx512] [--threads=N] [--batch=N]\n"
                "                        [--rounds=N] [--only=PART-OF-A-NAME] [--bare]"
                " [--winograd]\n                        [--own-time]\n");
    return to == stdout ? 0 : 2;
}

static void run(Bench *b) {
    b->peak = measure_peak(&b->compute);
    printf("%u threads, batch %d; multiply-adds alone %.1f GF/s%s\n",
           shoal_pool_threads(b->compute.pool), b->batch, b->peak, b->bare ? "; bare" : "");
    printf("%-24s  %-22s  %-22s  %-22s\n", "", "forward", "backward data", "backward weights");
    for (int i = 0; i < LAYERS; i++)
        if (!b->only || strstr(layers[i].name, b->only))
            bench_layer(b, &layers[i]);
    const Layer all = {.name = "all"};
    printf("%-24s", all.name);
    for (int i = 0; i < 3; i++)
        printf("  %7.1f GF/s (%5.1f %%)", b->flops[i] / b->ns[i],
               100 * b->flops[i] / b->ns[i] / b->peak);
    printf("\n");
}

/* -1 when all is well, else the exit code. */
static int parse(int argc, char **argv, Bench *b, const char **level, int *threads) {
    static const struct option options[] = {
        {"level", required_argument, NULL, 'l'}, {"threads", required_argument, NULL, 't'},
        {"batch", required_argument, NULL, 'b'}, {"rounds", required_argument, NULL, 'r'},
        {"only", required_argument, NULL, 'o'},  {"bare", no_argument, NULL, 'B'},
        {"winograd", no_argument, NULL, 'w'},    {"own-time", no_argument, NULL, 'T'},
        {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0}};
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
        switch (o) {
        case 'l':
            *level = optarg;
            break;
        case 't':
            *threads = atoi(optarg);
            break;
        case 'b':
            b->batch = atoi(optarg);
            break;
        case 'r':
            b->rounds = atoi(optarg);
            break;
        case 'o':
            b->only = optarg;
            break;
        case 'B':
            b->bare = true;
            break;
        case 'w':
            b->winograd = true;
            break;
        case 'T':
            own_time = true;
            break;
        default:
            return usage(o == 'h' ? stdout : stderr);
        }
    bool sane = *threads >= 1 && *threads <= 1024 && b->batch >= 1 && b->rounds >= 1;
    return sane && optind == argc ? -1 : usage(stderr);
}

int main(int argc, char **argv) {
    Bench bench = {.batch = 8, .rounds = 20};
    const char *name = NULL;
    int threads = 1, code = parse(argc, argv, &bench, &name, &threads);
    if (code >= 0)
        return code;
    ShoalError err = {0};
    ShoalCpuLevel level;
    if (shoal_cpu_level_choose(name, &level, &err) != SHOAL_OK) {
        fprintf(stderr, "bench_nchwc_conv: %s\n", err.text);
        return 2;
    }
    bench.compute = (ShoalCompute){.kernels = shoal_kernels_for(level),
                                   .pool = shoal_pool_create((unsigned)threads)};
    if (!bench.compute.pool || shoal_nchwc_lanes(bench.compute.kernels) == 0) {
        fprintf(stderr, "bench_nchwc_conv: no blocked tensors at this level, or no threads\n");
        return 1;
    }
    char model[128];
    shoal_cpu_model(model, sizeof model);
    printf("%s, level %s, ", model, shoal_cpu_level_name(level));
    run(&bench);
    shoal_pool_destroy(bench.compute.pool);
    return 0;
}
