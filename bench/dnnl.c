/* SPDX-License-Identifier: Apache-2.0 */
/* Times oneDNN's convolutions, pass by pass, at the shapes and in the form of bench/nchwc_conv.c,
 * for bench/run.py to put side by side. oneDNN chooses the layouts; nothing is reordered inside of
 * what is timed. The number of threads is that of OMP_NUM_THREADS. Best of several rounds. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <dnnl.h>

#include "base/clock.h"
#include "shapes.h"

enum { PASSES = 3, BATCH = 32, ROUNDS = 12 };

/* No more rounds of a pass after this time. */
static const double most_ns = 1.5e8;

static void check(dnnl_status_t status, const char *what) {
    if (status == dnnl_success)
        return;
    fprintf(stderr, "bench_dnnl: %s: status %d\n", what, (int)status);
    exit(1);
}

typedef struct Bench {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int batch;
    dnnl_alg_kind_t algorithm;
} Bench;

/* The tensors of a layer in no layout yet. */
typedef struct Tensors {
    dnnl_memory_desc_t source, weights, target;
    dnnl_dims_t strides, pads;
} Tensors;

static dnnl_memory_desc_t any_layout(int n, const dnnl_dims_t dims) {
    dnnl_memory_desc_t desc;
    check(dnnl_memory_desc_init_by_tag(&desc, n, dims, dnnl_f32, dnnl_format_tag_any), "a tensor");
    return desc;
}

static Tensors tensors_of(const Bench *b, const Layer *l) {
    const int out = layer_out(l);
    const dnnl_dims_t source = {b->batch, l->channels, l->size, l->size};
    const dnnl_dims_t target = {b->batch, l->outputs, out, out};
    const dnnl_dims_t plain = {l->outputs, l->channels, l->kernel, l->kernel};
    const dnnl_dims_t grouped = {l->group, l->outputs / l->group, l->channels / l->group, l->kernel,
                                 l->kernel};
    return (Tensors){.source = any_layout(4, source),
                     .weights = l->group > 1 ? any_layout(5, grouped) : any_layout(4, plain),
                     .target = any_layout(4, target),
                     .strides = {l->stride, l->stride},
                     .pads = {l->pad, l->pad}};
}

/* pass 0: forward, 1: backward data, 2: backward weights; hint: the forward one. */
static dnnl_primitive_desc_t describe(const Bench *b, const Tensors *t, int pass,
                                      const_dnnl_primitive_desc_t hint) {
    dnnl_convolution_desc_t desc;
    dnnl_primitive_desc_t found;
    if (pass == 0)
        check(dnnl_convolution_forward_desc_init(&desc, dnnl_forward_training, b->algorithm,
                                                 &t->source, &t->weights, NULL, &t->target,
                                                 t->strides, t->pads, t->pads),
              "forward");
    else if (pass == 1)
        check(dnnl_convolution_backward_data_desc_init(&desc, b->algorithm, &t->source, &t->weights,
                                                       &t->target, t->strides, t->pads, t->pads),
              "backward data");
    else
        check(dnnl_convolution_backward_weights_desc_init(&desc, b->algorithm, &t->source,
                                                          &t->weights, NULL, &t->target, t->strides,
                                                          t->pads, t->pads),
              "backward weights");
    check(dnnl_primitive_desc_create(&found, &desc, NULL, b->engine, hint), "a primitive");
    return found;
}

static dnnl_memory_t memory_for(const Bench *b, const_dnnl_primitive_desc_t desc,
                                dnnl_query_t what) {
    const dnnl_memory_desc_t *layout = dnnl_primitive_desc_query_md(desc, what, 0);
    dnnl_memory_t memory;
    void *data;
    check(dnnl_memory_create(&memory, layout, b->engine, DNNL_MEMORY_ALLOCATE), "memory");
    check(dnnl_memory_get_data_handle(memory, &data), "memory");
    float *numbers = data;
    for (size_t i = 0; i < dnnl_memory_desc_get_size(layout) / sizeof *numbers; i++)
        numbers[i] = (float)(i % 13) * 0.01f;
    return memory;
}

static double best_ns(const Bench *b, const_dnnl_primitive_desc_t desc, int pass) {
    static const struct {
        dnnl_query_t query;
        int argument;
    } uses[PASSES][3] = {
        {{dnnl_query_src_md, DNNL_ARG_SRC},
         {dnnl_query_weights_md, DNNL_ARG_WEIGHTS},
         {dnnl_query_dst_md, DNNL_ARG_DST}},
        {{dnnl_query_diff_src_md, DNNL_ARG_DIFF_SRC},
         {dnnl_query_weights_md, DNNL_ARG_WEIGHTS},
         {dnnl_query_diff_dst_md, DNNL_ARG_DIFF_DST}},
        {{dnnl_query_src_md, DNNL_ARG_SRC},
         {dnnl_query_diff_weights_md, DNNL_ARG_DIFF_WEIGHTS},
         {dnnl_query_diff_dst_md, DNNL_ARG_DIFF_DST}},
    };
    dnnl_exec_arg_t arguments[3];
    for (int i = 0; i < 3; i++)
        arguments[i] =
            (dnnl_exec_arg_t){uses[pass][i].argument, memory_for(b, desc, uses[pass][i].query)};
    dnnl_primitive_t primitive;
    check(dnnl_primitive_create(&primitive, desc), "a primitive");
    double best = 1e300, all = 0;
    for (int round = 0; round < ROUNDS && all < most_ns; round++) {
        double start = (double)shoal_clock_ns();
        check(dnnl_primitive_execute(primitive, b->stream, 3, arguments), "a pass");
        check(dnnl_stream_wait(b->stream), "a pass");
        double ns = (double)shoal_clock_ns() - start;
        best = ns < best ? ns : best;
        all += ns;
    }
    dnnl_primitive_destroy(primitive);
    for (int i = 0; i < 3; i++)
        dnnl_memory_destroy(arguments[i].memory);
    return best;
}

static void bench_layer(const Bench *b, const Layer *l) {
    const double flops = layer_flops(l, b->batch);
    Tensors tensors = tensors_of(b, l);
    dnnl_primitive_desc_t forward = describe(b, &tensors, 0, NULL);
    printf("%-24s", l->name);
    for (int pass = 0; pass < PASSES; pass++) {
        if (pass == 1 && l->channels <= 3) { /* images get no gradient */
            printf("  %12s", "");
            continue;
        }
        dnnl_primitive_desc_t desc = pass ? describe(b, &tensors, pass, forward) : forward;
        printf("  %7.1f GF/s", flops / best_ns(b, desc, pass));
        if (pass)
            dnnl_primitive_desc_destroy(desc);
    }
    printf("\n");
    fflush(stdout);
    dnnl_primitive_desc_destroy(forward);
}

int main(int argc, char **argv) {
    Bench bench = {.batch = BATCH, .algorithm = dnnl_convolution_direct};
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "--batch=", 8) && atoi(argv[i] + 8) > 0) {
            bench.batch = atoi(argv[i] + 8);
        } else if (!strcmp(argv[i], "--winograd")) {
            bench.algorithm = dnnl_convolution_auto;
        } else {
            fprintf(stderr, "usage: bench_dnnl [--batch=N] [--winograd]\n");
            return 2;
        }
    }
    check(dnnl_engine_create(&bench.engine, dnnl_cpu, 0), "the engine");
    check(dnnl_stream_create(&bench.stream, bench.engine, dnnl_stream_default_flags), "a stream");
    for (int i = 0; i < LAYERS; i++)
        bench_layer(&bench, &layers[i]);
    dnnl_stream_destroy(bench.stream);
    dnnl_engine_destroy(bench.engine);
    return 0;
}
