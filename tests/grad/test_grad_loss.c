/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of the losses. */
#include "grad/grad.h"

#define GRAD_TWO(kind, a, b, what)                                                                 \
    { .text = (what), .bottoms = {a, b}, .n_bottoms = 2, .inputs = (kind) }

/* Pairs: the last of three bottoms tells which are similar. */
static bool draw_pairs(ShoalRng *rng, int bottom, size_t n, float *values) {
    (void)rng;
    for (size_t i = 0; bottom == 2 && i < n; i++)
        values[i] = (float)(i % 2);
    return bottom == 2;
}

/* Targets in [0, 1]. */
static bool draw_targets(ShoalRng *rng, int bottom, size_t n, float *values) {
    if (bottom == 1)
        shoal_rng_fill_uniform(rng, 0, 1, n, values);
    return bottom == 1;
}

static bool draw_some_ignored(ShoalRng *rng, int bottom, size_t n, float *values) {
    for (size_t i = 0; bottom == 1 && i < n; i++)
        values[i] = i % 4 == 2 ? 7 : (float)shoal_rng_below(rng, 2);
    return bottom == 1;
}

/* Scores a step away from the kinks at -1 and 1, and labels. */
static bool draw_scores(ShoalRng *rng, int bottom, size_t n, float *values) {
    for (size_t i = 0; i < n; i++)
        values[i] = bottom == 1 ? (float)shoal_rng_below(rng, 3)
                                : 0.1f * (float)shoal_rng_below(rng, 30) - 1.45f;
    return true;
}

#define PAIRS(settings)                                                                            \
    {                                                                                              \
        .text = "name: 'c' type: 'ContrastiveLoss' bottom: 'x' bottom: 'z' bottom: 's' top: 'y' "  \
                "contrastive_loss_param { " settings " }",                                         \
        .bottoms = {SHAPE(6, 4), SHAPE(6, 4), SHAPE(6)}, .n_bottoms = 3, .draw = draw_pairs        \
    }
#define CROSS(more, how)                                                                           \
    {                                                                                              \
        .text =                                                                                    \
            "name: 's' type: 'SigmoidCrossEntropyLoss' bottom: 'x' bottom: 't' top: 'y' " more,    \
        .bottoms = {SHAPE(4, 3, 2), SHAPE(4, 3, 2)}, .n_bottoms = 2, .draw = how                   \
    }
#define HINGE(norm)                                                                                \
    {                                                                                              \
        .text = "name: 'h' type: 'HingeLoss' bottom: 'x' bottom: 't' top: 'y' hinge_loss_param { " \
                "norm: " norm " }",                                                                \
        .bottoms = {SHAPE(5, 3), SHAPE(5)}, .n_bottoms = 2, .draw = draw_scores                    \
    }
#define INFOGAIN(scores, labels, how_many, more)                                                   \
    {                                                                                              \
        .text =                                                                                    \
            "name: 'i' type: 'InfogainLoss' bottom: 'x' bottom: 't' bottom: 'h' top: 'y' " more,   \
        .bottoms = {scores, labels, SHAPE(how_many, how_many)}, .n_bottoms = 3,                    \
        .classes = how_many                                                                        \
    }
#define SMOOTHED(scores, labels, more)                                                             \
    {                                                                                              \
        .text = "name: 'l' type: 'SoftmaxWithLoss' bottom: 'x' bottom: 't' top: 'y' loss_param { " \
                "label_smoothing: 0.1 " more " }",                                                 \
        .bottoms = {scores, labels}, .n_bottoms = 2, .classes = 4                                  \
    }

static const GradCase CASES[] = {
    GRAD_TWO(SMOOTH, SHAPE(4, 3, 2), SHAPE(4, 6),
             "name: 'e' type: 'EuclideanLoss' bottom: 'x' bottom: 'z' top: 'y'"),
    PAIRS(""),
    PAIRS("margin: 2.5"),
    PAIRS("margin: 2 legacy_version: true"),
    CROSS("", draw_targets),
    CROSS("loss_param { normalization: FULL }", draw_targets),
    CROSS("loss_param { normalization: NONE }", draw_targets),
    CROSS("loss_param { normalize: true ignore_label: 7 }", draw_some_ignored),
    CROSS("loss_param { normalization: VALID ignore_label: 7 }", draw_some_ignored),
    CROSS("loss_param { ignore_label: 7 }", draw_some_ignored),
    HINGE("L1"),
    HINGE("L2"),
    {.text = "name: 'm' type: 'MultinomialLogisticLoss' bottom: 'x' bottom: 't' top: 'y'",
     .bottoms = {SHAPE(5, 4), SHAPE(5)},
     .n_bottoms = 2,
     .inputs = POSITIVE,
     .classes = 4},
    INFOGAIN(SHAPE(5, 4), SHAPE(5), 4, ""),
    INFOGAIN(SHAPE(2, 3, 2), SHAPE(2, 2), 3, "loss_param { normalization: FULL }"),
    INFOGAIN(SHAPE(2, 2, 3), SHAPE(2, 2), 3, "infogain_loss_param { axis: -1 }"),
    INFOGAIN(SHAPE(4, 3), SHAPE(4), 3, "loss_param { ignore_label: 1 normalization: BATCH_SIZE }"),
    SMOOTHED(SHAPE(5, 4), SHAPE(5), ""),
    SMOOTHED(SHAPE(2, 4, 3), SHAPE(2, 3), "ignore_label: 1"),
};

GRAD_MAIN(CASES)
