/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_BENCH_SHAPES_H
#define SHOAL_BENCH_SHAPES_H

/* The convolutions that nchwc_conv.c and dnnl.c time, so that run.py finds the same rows in both:
 * those of ResNet-50 (v1.5 and v1), MobileNet-v1 and AlexNet. Square images, kernels, strides and
 * pads; a name has at most 24 characters. */
typedef struct Layer {
    const char *name;
    int channels, size, outputs, kernel, stride, pad, group;
} Layer;

static const Layer layers[] = {
    {"stem 7x7 s2", 3, 224, 64, 7, 2, 3, 1},
    {"1x1 64-64 @56", 64, 56, 64, 1, 1, 0, 1},
    {"1x1 64-256 @56", 64, 56, 256, 1, 1, 0, 1},
    {"1x1 256-64 @56", 256, 56, 64, 1, 1, 0, 1},
    {"1x1 256-128 @56", 256, 56, 128, 1, 1, 0, 1},
    {"1x1 128-512 @28", 128, 28, 512, 1, 1, 0, 1},
    {"1x1 512-128 @28", 512, 28, 128, 1, 1, 0, 1},
    {"1x1 512-256 @28", 512, 28, 256, 1, 1, 0, 1},
    {"1x1 256-1024 @14", 256, 14, 1024, 1, 1, 0, 1},
    {"1x1 1024-256 @14", 1024, 14, 256, 1, 1, 0, 1},
    {"1x1 512-2048 @7", 512, 7, 2048, 1, 1, 0, 1},
    {"1x1 2048-512 @7", 2048, 7, 512, 1, 1, 0, 1},
    {"1x1 s2 256-512 @56", 256, 56, 512, 1, 2, 0, 1},
    {"1x1 s2 1024-2048 @14", 1024, 14, 2048, 1, 2, 0, 1},
    {"3x3 64 @56", 64, 56, 64, 3, 1, 1, 1},
    {"3x3 128 @28", 128, 28, 128, 3, 1, 1, 1},
    {"3x3 256 @14", 256, 14, 256, 3, 1, 1, 1},
    {"3x3 512 @7", 512, 7, 512, 3, 1, 1, 1},
    {"3x3 s2 128 @56", 128, 56, 128, 3, 2, 1, 1},
    {"3x3 s2 256 @28", 256, 28, 256, 3, 2, 1, 1},
    {"3x3 s2 512 @14", 512, 14, 512, 3, 2, 1, 1},
    {"MobileNet stem 3x3 s2", 3, 224, 32, 3, 2, 1, 1},
    {"MobileNet 32-64 @112", 32, 112, 64, 1, 1, 0, 1},
    {"MobileNet 128-128 @56", 128, 56, 128, 1, 1, 0, 1},
    {"MobileNet 512-512 @14", 512, 14, 512, 1, 1, 0, 1},
    {"MobileNet 1024-1024 @7", 1024, 7, 1024, 1, 1, 0, 1},
    {"depthwise 32 @112", 32, 112, 32, 3, 1, 1, 32},
    {"depthwise 128 @56", 128, 56, 128, 3, 1, 1, 128},
    {"depthwise 256 @28", 256, 28, 256, 3, 1, 1, 256},
    {"depthwise 512 @14", 512, 14, 512, 3, 1, 1, 512},
    {"depthwise 1024 @7", 1024, 7, 1024, 3, 1, 1, 1024},
    {"depthwise s2 64 @112", 64, 112, 64, 3, 2, 1, 64},
    {"depthwise s2 128 @56", 128, 56, 128, 3, 2, 1, 128},
    {"depthwise s2 256 @28", 256, 28, 256, 3, 2, 1, 256},
    {"depthwise s2 512 @14", 512, 14, 512, 3, 2, 1, 512},
    {"AlexNet 11x11 s4", 3, 227, 96, 11, 4, 0, 1},
    {"AlexNet 5x5 group 2", 96, 27, 256, 5, 1, 2, 2},
};

enum { LAYERS = sizeof layers / sizeof *layers };

/* Height and width of the output. */
static inline int layer_out(const Layer *l) {
    return (l->size + 2 * l->pad - l->kernel) / l->stride + 1;
}

/* Of one pass: two for every multiplication with its addition. */
static inline double layer_flops(const Layer *l, int batch) {
    double outputs = (double)batch * l->outputs * layer_out(l) * layer_out(l);
    return 2 * outputs * (l->channels / l->group) * l->kernel * l->kernel;
}

#endif
