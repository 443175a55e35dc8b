/* SPDX-License-Identifier: Apache-2.0 */
/* layer_cases: runs the nets of a file of cases (tests/golden/layers/README.md) forward and
 * backward and prints what they computed, for tests/golden/test_layers.py to compare. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "caffe/model.h"
#include "cpu/cpu.h"
#include "net/net.h"

enum { MAX_INPUTS = 8, MAX_TEXT = 1 << 16, MAX_LIST = 256, LINE = 4096, WEIGHTS_FROM = 10 };

typedef struct Input {
    char name[64], kind[16];
    double list[MAX_LIST];
    int n_list;
} Input;

typedef struct Case {
    char name[64], phase[8], weights[16];
    Input inputs[MAX_INPUTS];
    int n_inputs;
    char text[MAX_TEXT];
    float *before[MAX_INPUTS]; /* the inputs' values */
} Case;

typedef struct Run {
    const ShoalKernels *kernels;
    bool keep, fused, recompute; /* the plan */
    ShoalCaffeNet model;
    ShoalNet *net;
    void *arena;
    ShoalCompute compute;
    ShoalError err;
} Run;

/* The file that an InfogainLoss names, beside the cases. */
static char file_bytes[4096];
static ShoalStatus named_file(void *context, const char *name, const void **bytes, size_t *size,
                              ShoalError *err) {
    (void)context, (void)err;
    FILE *f = fopen(name, "rb");
    if (!f)
        return SHOAL_ERR_IO;
    *size = fread(file_bytes, 1, sizeof file_bytes, f);
    *bytes = file_bytes;
    fclose(f);
    return SHOAL_OK;
}

/* ---- values that both sides know ---- */

/* Near-uniform in -0.78..0.79, never 0, and exact in float. */
static float pattern(size_t i, size_t seed) {
    return ((float)((i * 37 + seed * 53) % 101) - 49.5f) / 64;
}

static float value_of(const Input *input, size_t i, size_t seed) {
    if (!strcmp(input->kind, "labels"))
        return input->n_list > 1 && i % 3 == 1 ? (float)input->list[1]
                                               : (float)((i * 7 + 3) % (size_t)input->list[0]);
    if (!strcmp(input->kind, "list"))
        return (float)input->list[i % (size_t)input->n_list];
    if (!strcmp(input->kind, "positive"))
        return 1.25f + 0.75f * pattern(i, seed);
    return pattern(i, seed);
}

static void set_inputs(Case *c, ShoalNet *net) {
    for (int n = 0; n < c->n_inputs; n++) {
        ShoalBlob *blob = shoal_net_blob(net, c->inputs[n].name);
        if (!blob)
            continue;
        c->before[n] = shoal_calloc(blob->count + 1, sizeof(float));
        for (size_t i = 0; i < blob->count; i++)
            c->before[n][i] = value_of(&c->inputs[n], i, (size_t)n);
        if (!blob->data) /* bound from outside */
            blob->data = c->before[n];
        memcpy(blob->data, c->before[n], blob->count * sizeof(float));
    }
}

static float weight_of(const Case *c, size_t i, size_t seed) {
    bool positive = !strcmp(c->weights, "positive");
    return positive ? 1.25f + 0.75f * pattern(i, seed) : 0.5f * pattern(i, seed);
}

static void set_weights(const Case *c, const ShoalNet *net) {
    size_t seed = WEIGHTS_FROM;
    for (int l = 0; l < shoal_net_layers(net); l++) {
        ShoalLayer *layer = shoal_net_layer(net, l);
        for (int p = 0; p < layer->n_params; p++, seed++)
            for (size_t i = 0; i < layer->params[p]->blob.count; i++)
                layer->params[p]->blob.data[i] = weight_of(c, i, seed);
    }
}

/* ---- results ---- */

static void print_row(const char *kind, const char *name, const ShoalBlob *blob,
                      const float *values) {
    printf("%s %s ", kind, name);
    if (!blob->axes)
        printf("-");
    for (int i = 0; i < blob->axes; i++)
        printf("%s%d", i ? "x" : "", blob->shape[i]);
    for (size_t i = 0; i < blob->count; i++)
        printf(" %.9g", (double)values[i]);
    printf("\n");
}

/* All blobs of the plain plan; of the others, where blobs share memory, the net's outputs. */
static void print_blobs(const Run *run) {
    for (int n = 0; !run->keep && n < shoal_net_outputs(run->net); n++) {
        const ShoalBlob *blob = shoal_net_output(run->net, n);
        print_row("data", blob->name, blob, blob->data);
    }
    for (int l = 0; run->keep && l < shoal_net_layers(run->net); l++) {
        ShoalLayer *layer = shoal_net_layer(run->net, l);
        for (int t = 0; t < layer->n_tops; t++)
            if (layer->tops[t]->data && !strstr(layer->tops[t]->name, "_split_"))
                print_row("data", layer->tops[t]->name, layer->tops[t], layer->tops[t]->data);
    }
}

static void print_diffs(const Case *c, const Run *run) {
    for (int n = 0; run->keep && n < c->n_inputs; n++) {
        const ShoalBlob *blob = shoal_net_blob(run->net, c->inputs[n].name);
        if (blob && blob->diff)
            print_row("diff", blob->name, blob, blob->diff);
    }
}

static void print_weights(const Run *run, bool gradients) {
    char name[256];
    for (int l = 0; l < shoal_net_layers(run->net); l++) {
        const ShoalLayer *layer = shoal_net_layer(run->net, l);
        for (int p = 0; p < layer->n_params; p++) {
            const ShoalBlob *blob = &layer->params[p]->blob;
            snprintf(name, sizeof name, "%s:%d", layer->param->name, p);
            print_row("weight", name, blob, blob->data);
            if (gradients && blob->diff)
                print_row("gradient", name, blob, blob->diff);
        }
    }
}

/* ---- weights that real Caffe saved ---- */

static ShoalStatus reads_back(Run *run, const void *bytes, size_t size, const char *path) {
    ShoalCaffeNet saved = {0};
    Caffe__NetParameter *proto = NULL;
    void *packed = NULL;
    size_t packed_size = 0;
    int copied = 0;
    ShoalStatus status = shoal_caffe_net_from_bytes(bytes, size, path, &saved, &run->err);
    if (!status)
        status = shoal_net_load_weights(run->net, &saved, &copied, &run->err);
    if (!status)
        status = shoal_net_to_proto(run->net, false, &proto, &run->err);
    if (!status)
        status = shoal_caffe_pack(&proto->base, &packed, &packed_size, &run->err);
    if (!status)
        printf("saved %s\n",
               packed_size == size && !memcmp(packed, bytes, size) ? "same" : "other");
    shoal_net_proto_free(proto);
    shoal_caffe_net_close(&saved);
    shoal_free(packed);
    return status;
}

/* CASE.caffemodel, if there is one: loaded and written again it must be the same bytes. */
static ShoalStatus check_saved(Run *run, const Case *c) {
    static char bytes[MAX_TEXT];
    char path[128];
    snprintf(path, sizeof path, "%s.caffemodel", c->name);
    FILE *f = fopen(path, "rb");
    if (!f)
        return SHOAL_OK;
    size_t size = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    return reads_back(run, bytes, size, path);
}

/* ---- one case ---- */

static ShoalStatus build(Run *run, const Case *c, ShoalError *err) {
    const ShoalNetOptions options = {.phase = strcmp(c->phase, "TEST") ? CAFFE__PHASE__TRAIN
                                                                       : CAFFE__PHASE__TEST,
                                     .seed = 1,
                                     .backward = strcmp(c->phase, "TEST") != 0,
                                     .keep_all = run->keep,
                                     .kernels = run->fused ? run->kernels : NULL,
                                     .fuse_all = run->fused,
                                     .recompute = run->recompute,
                                     .named_file = named_file};
    ShoalStatus status =
        shoal_caffe_net_from_text(c->text, strlen(c->text), c->name, &run->model, err);
    if (status)
        return status;
    status = shoal_net_create(&run->model, &options, &run->net, err);
    if (status)
        return status;
    run->arena = shoal_calloc(shoal_net_arena_bytes(run->net) + 1, 1);
    run->compute.workspace_bytes = shoal_net_workspace_bytes(run->net);
    run->compute.workspace = shoal_calloc(run->compute.workspace_bytes + 1, 1);
    run->compute.kernels = run->kernels;
    shoal_net_bind(run->net, run->arena);
    return shoal_net_init_weights(run->net, err);
}

static ShoalStatus run_case(Run *run, Case *c) {
    ShoalError *err = &run->err;
    ShoalStatus status = build(run, c, err);
    if (status)
        return status;
    set_inputs(c, run->net);
    set_weights(c, run->net);
    bool train = strcmp(c->phase, "TEST") != 0;
    ShoalNetParams params = shoal_net_params(run->net);
    if (train && params.gradient_count)
        memset(params.gradients, 0, params.gradient_count * sizeof(float));
    float loss = 0;
    status = shoal_net_forward(run->net, &run->compute, &loss, err);
    if (status)
        return status;
    printf("loss %.9g\n", (double)loss);
    print_blobs(run);
    if (train) {
        shoal_net_backward(run->net, &run->compute, 1, NULL, NULL);
        print_diffs(c, run);
    }
    print_weights(run, train);
    return check_saved(run, c);
}

static void run_and_close(const Run *how, Case *c) {
    Run run = *how;
    printf("case %s\n", c->name);
    if (run_case(&run, c))
        printf("error %s\n", run.err.text);
    fflush(stdout);
    shoal_net_destroy(run.net);
    shoal_caffe_net_close(&run.model);
    shoal_free(run.arena);
    shoal_free(run.compute.workspace);
    for (int n = 0; n < c->n_inputs; n++)
        shoal_free(c->before[n]);
}

/* ---- the file of cases ---- */

static void read_input(Case *c, char *rest) {
    Input *input = &c->inputs[c->n_inputs++];
    int used = 0;
    sscanf(rest, "%63s %15s%n", input->name, input->kind, &used);
    for (char *at = rest + used, *end; input->n_list < MAX_LIST; at = end) {
        double value = strtod(at, &end);
        if (end == at)
            break;
        input->list[input->n_list++] = value;
    }
}

static void read_cases(FILE *f, const Run *how) {
    static Case c;
    static char line[LINE];
    bool in_net = false;
    while (fgets(line, sizeof line, f)) {
        if (in_net && !strcmp(line, "end\n")) {
            run_and_close(how, &c);
            in_net = false;
        } else if (in_net) {
            strncat(c.text, line, sizeof c.text - strlen(c.text) - 1);
        } else if (!strncmp(line, "case ", 5)) {
            memset(&c, 0, sizeof c);
            sscanf(line, "case %63s %7s", c.name, c.phase);
        } else if (!strncmp(line, "input ", 6) && c.n_inputs < MAX_INPUTS) {
            read_input(&c, line + 6);
        } else if (!strncmp(line, "weights ", 8)) {
            sscanf(line, "weights %15s", c.weights);
        } else if (!strncmp(line, "net", 3)) {
            in_net = true;
        }
    }
}

/* plain: each blob has memory of its own. shared: blobs share it. fused: and layers are fused.
 * recompute: and backward makes again what it can. */
static bool choose_plan(const char *plan, Run *how) {
    how->keep = !strcmp(plan, "plain");
    how->recompute = !strcmp(plan, "recompute");
    how->fused = how->recompute || !strcmp(plan, "fused");
    return how->keep || how->fused || !strcmp(plan, "shared");
}

int main(int argc, char **argv) {
    ShoalError err = {0};
    ShoalCpuLevel level;
    Run how = {0};
    FILE *f = argc == 4 && choose_plan(argv[3], &how) ? fopen(argv[1], "r") : NULL;
    if (!f || shoal_cpu_level_choose(strcmp(argv[2], "best") ? argv[2] : NULL, &level, &err)) {
        fprintf(
            stderr,
            "usage: layer_cases CASES c|avx2|avx512|neon|best plain|shared|fused|recompute %s\n",
            err.text);
        return 2;
    }
    how.kernels = shoal_kernels_for(level);
    read_cases(f, &how);
    fclose(f);
    return 0;
}
