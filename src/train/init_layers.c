/* SPDX-License-Identifier: Apache-2.0 */
#include "train/init_layers.h"

void shoal_init_quoted(FILE *out, const char *folder, const char *name) {
    fputc('"', out);
    for (const char *c = folder; *c; c++) {
        if (*c == '"' || *c == '\\')
            fputc('\\', out);
        fputc(*c, out);
    }
    fprintf(out, "%s%s\"", folder[0] ? "/" : "", name);
}

static void begin(FILE *out, const char *name, const char *type) {
    fprintf(out, "layer {\n  name: \"%s\"\n  type: \"%s\"\n", name, type);
}

static void bottom_of(FILE *out, const char *blob) {
    fprintf(out, "  bottom: \"%s\"\n", blob);
}

static void top_of(FILE *out, const char *blob) {
    fprintf(out, "  top: \"%s\"\n", blob);
}

static void end(FILE *out) {
    fputs("}\n", out);
}

/* ---- data ---- */

static void data_layer(FILE *out, const ShoalInitData *data, bool train) {
    begin(out, "data", "Data");
    top_of(out, "data");
    top_of(out, "label");
    fprintf(out, "  include { phase: %s }\n", train ? "TRAIN" : "TEST");
    if (data->scale || data->crop || data->means[0]) {
        fputs("  transform_param {\n", out);
        if (data->scale)
            fprintf(out, "    scale: %s\n", data->scale);
        if (data->mirror)
            fprintf(out, "    mirror: %s\n", train ? "true" : "false");
        if (data->crop)
            fprintf(out, "    crop_size: %d\n", data->crop);
        for (int i = 0; i < 3 && data->means[i]; i++)
            fprintf(out, "    mean_value: %s\n", data->means[i]);
        fputs("  }\n", out);
    }
    fputs("  data_param {\n    source: ", out);
    shoal_init_quoted(out, data->folder, train ? data->train_lmdb : data->test_lmdb);
    fprintf(out, "\n    batch_size: %d\n    backend: LMDB\n  }\n",
            train ? data->train_batch : data->test_batch);
    end(out);
}

void shoal_init_data(FILE *out, const ShoalInitData *data) {
    data_layer(out, data, true);
    data_layer(out, data, false);
}

/* ---- layers with weights ---- */

static void multipliers(FILE *out, const ShoalInitWeights *weights) {
    if (!weights->bias && !weights->decay)
        return;
    fprintf(out, "  param { lr_mult: 1 decay_mult: %s }\n", weights->decay ? weights->decay : "1");
    if (weights->bias)
        fprintf(out, "  param { lr_mult: %s decay_mult: 0 }\n",
                weights->bias_lr ? weights->bias_lr : "1");
}

static void fillers(FILE *out, const ShoalInitWeights *weights) {
    fprintf(out, "    weight_filler { %s }\n", weights->filler);
    if (weights->bias)
        fprintf(out, "    bias_filler { type: \"constant\" value: %s }\n",
                weights->bias_value ? weights->bias_value : "0");
    else
        fputs("    bias_term: false\n", out);
}

void shoal_init_conv(FILE *out, const char *name, const char *bottom, const ShoalInitConv *conv,
                     const ShoalInitWeights *weights) {
    begin(out, name, "Convolution");
    bottom_of(out, bottom);
    top_of(out, name);
    multipliers(out, weights);
    fprintf(out, "  convolution_param {\n    num_output: %d\n    kernel_size: %d\n", conv->outputs,
            conv->kernel);
    if (conv->stride > 1)
        fprintf(out, "    stride: %d\n", conv->stride);
    if (conv->pad)
        fprintf(out, "    pad: %d\n", conv->pad);
    if (conv->group > 1)
        fprintf(out, "    group: %d\n", conv->group);
    fillers(out, weights);
    fputs("  }\n", out);
    end(out);
}

void shoal_init_inner_product(FILE *out, const char *name, const char *bottom, int outputs,
                              const ShoalInitWeights *weights) {
    begin(out, name, "InnerProduct");
    bottom_of(out, bottom);
    top_of(out, name);
    multipliers(out, weights);
    fprintf(out, "  inner_product_param {\n    num_output: %d\n", outputs);
    fillers(out, weights);
    fputs("  }\n", out);
    end(out);
}

/* ---- layers in place ---- */

static void in_place(FILE *out, const char *name, const char *type, const char *blob) {
    begin(out, name, type);
    bottom_of(out, blob);
    top_of(out, blob);
}

void shoal_init_norm_from(FILE *out, const char *norm, const char *scale, const char *blob,
                          const char *factor) {
    in_place(out, norm, "BatchNorm", blob);
    fputs("  batch_norm_param { moving_average_fraction: 0.9 eps: 1e-5 }\n", out);
    end(out);
    in_place(out, scale, "Scale", blob);
    fputs("  param { lr_mult: 1 decay_mult: 0 }\n"
          "  param { lr_mult: 1 decay_mult: 0 }\n"
          "  scale_param {",
          out);
    if (factor)
        fprintf(out, " filler { type: \"constant\" value: %s }", factor);
    fputs(" bias_term: true }\n", out);
    end(out);
}

void shoal_init_norm(FILE *out, const char *norm, const char *scale, const char *blob) {
    shoal_init_norm_from(out, norm, scale, blob, NULL);
}

void shoal_init_relu(FILE *out, const char *name, const char *blob) {
    in_place(out, name, "ReLU", blob);
    end(out);
}

void shoal_init_dropout(FILE *out, const char *name, const char *blob) {
    in_place(out, name, "Dropout", blob);
    fputs("  dropout_param { dropout_ratio: 0.5 }\n", out);
    end(out);
}

/* ---- the rest ---- */

void shoal_init_lrn(FILE *out, const char *name, const char *bottom) {
    begin(out, name, "LRN");
    bottom_of(out, bottom);
    top_of(out, name);
    fputs("  lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }\n", out);
    end(out);
}

static void pool(FILE *out, const char *name, const char *bottom, const char *settings) {
    begin(out, name, "Pooling");
    bottom_of(out, bottom);
    top_of(out, name);
    fprintf(out, "  pooling_param { %s }\n", settings);
    end(out);
}

void shoal_init_max_pool(FILE *out, const char *name, const char *bottom, int kernel, int stride) {
    char settings[96];
    snprintf(settings, sizeof settings, "pool: MAX kernel_size: %d stride: %d", kernel, stride);
    pool(out, name, bottom, settings);
}

void shoal_init_max_pool_padded(FILE *out, const char *name, const char *bottom, int kernel,
                                int stride, int pad) {
    char settings[96];
    snprintf(settings, sizeof settings,
             "pool: MAX kernel_size: %d stride: %d pad: %d round_mode: FLOOR", kernel, stride, pad);
    pool(out, name, bottom, settings);
}

void shoal_init_global_pool(FILE *out, const char *name, const char *bottom) {
    pool(out, name, bottom, "pool: AVE global_pooling: true");
}

void shoal_init_sum(FILE *out, const char *name, const char *a, const char *b) {
    begin(out, name, "Eltwise");
    bottom_of(out, a);
    bottom_of(out, b);
    top_of(out, name);
    fputs("  eltwise_param { operation: SUM }\n", out);
    end(out);
}

static void accuracy(FILE *out, const char *name, const char *bottom, int top_k) {
    begin(out, name, "Accuracy");
    bottom_of(out, bottom);
    bottom_of(out, "label");
    top_of(out, name);
    fputs("  include { phase: TEST }\n", out);
    if (top_k > 1)
        fprintf(out, "  accuracy_param { top_k: %d }\n", top_k);
    end(out);
}

void shoal_init_ends(FILE *out, const char *bottom, bool five) {
    begin(out, "loss", "SoftmaxWithLoss");
    bottom_of(out, bottom);
    bottom_of(out, "label");
    top_of(out, "loss");
    end(out);
    accuracy(out, five ? "accuracy/top1" : "accuracy", bottom, 1);
    if (five)
        accuracy(out, "accuracy/top5", bottom, 5);
}
