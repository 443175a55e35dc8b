/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_CAFFE_VALUES_H
#define SHOAL_TESTS_CAFFE_VALUES_H

/* One layer against BVLC Caffe's layer of the same text, on inputs, weights and diffs of tops that
 * a formula gives (the numbers were printed by a program over Caffe's library that has the same
 * formula). Of each tensor there are two numbers: a sum with irregular weights, and the sum of the
 * absolute values. Include after cmocka.h. */

#include <math.h>
#include <stdlib.h>

#include "net_harness.h"

typedef struct CaffeCase {
    const char *text;
    const char *kinds; /* of the bottoms; see caffe_pattern. 'v' and 'p' get a gradient */
    int passes;        /* forward and backward passes, which may depend on each other */
    Shape bottoms[5];
    const double *values; /* per pass: tops; then, where a bottom gets one, gradients: of these
                             bottoms, of all weights */
} CaffeCase;

static inline float caffe_pattern(char kind, int salt, size_t i) {
    size_t s = (size_t)salt;
    switch (kind) {
    case 'a': /* labels */
        return (float)((i * 7 + 1) % 3);
    case 'c': /* whether a sequence goes on */
        return (float)((i * 5 + 2 + s) % 7 > 2);
    case 'f': /* the same, in part */
        return (float)(i % 3) / 2;
    case 'p': /* probabilities */
        return (float)(1 + (i * 7 + s) % 10) / 11;
    case 'q': /* scores with ties */
        return (float)((i * i * 7 / 3 + s) % 4) / 2;
    case 's': /* whether a pair is similar */
        return (float)(i % 2);
    case 't': /* targets */
        return (float)((i * 13 + s) % 11) / 10;
    case 'u': /* targets, some of them to be ignored */
        return i % 4 == 2 ? 7 : (float)(i % 2);
    default: /* 'v', and 'h' for one without a gradient */
        return ((float)((i * 37 + s * 17 + 11) % 41) - 20) / 20;
    }
}

static inline void caffe_fill(float *to, size_t n, char kind, int salt) {
    for (size_t i = 0; i < n; i++)
        to[i] = caffe_pattern(kind, salt, i);
}

static inline bool caffe_has_gradient(char kind) {
    return kind == 'v' || kind == 'p';
}

/* Rounding of float sums over some ten to a hundred values. */
static inline const double *caffe_compare(const CaffeCase *what, const char *name, int number,
                                          const ShoalBlob *blob, const float *found,
                                          const double *expected) {
    double dot = 0, all = 0, limit = 1e-5 * expected[1] + 1e-6;
    for (size_t i = 0; i < blob->count; i++) {
        dot += (double)found[i] * ((double)((i * 53 + 7) % 64) - 31.5) / 32;
        all += fabs((double)found[i]);
    }
    if (!(fabs(dot - expected[0]) <= limit && fabs(all - expected[1]) <= limit))
        fail_msg("%s: %s %d: %.8g and %.8g; expected %.8g and %.8g", what->text, name, number, dot,
                 all, expected[0], expected[1]);
    return expected + 2;
}

static inline const double *caffe_gradients(const CaffeCase *what, Harness *h,
                                            const double *expected) {
    ShoalLayer *layer = &h->layer;
    for (int i = 0; i < layer->n_tops; i++)
        caffe_fill(layer->tops[i]->diff, layer->tops[i]->count, 'v', 100 + i);
    for (int i = 0; i < layer->n_params; i++)
        memset(layer->params[i]->blob.diff, 0, layer->params[i]->blob.count * sizeof(float));
    harness_backward(h);
    for (int i = 0; i < layer->n_bottoms; i++)
        if (caffe_has_gradient(what->kinds[i]))
            expected = caffe_compare(what, "gradient of bottom", i, layer->bottoms[i],
                                     layer->bottoms[i]->diff, expected);
    for (int i = 0; i < layer->n_params; i++)
        expected = caffe_compare(what, "gradient of weights", i, &layer->params[i]->blob,
                                 layer->params[i]->blob.diff, expected);
    return expected;
}

static inline const double *caffe_pass(const CaffeCase *what, Harness *h, int pass,
                                       const double *expected) {
    ShoalLayer *layer = &h->layer;
    bool any = false;
    for (int i = 0; i < layer->n_bottoms; i++) {
        caffe_fill(layer->bottoms[i]->data, layer->bottoms[i]->count, what->kinds[i], i + 5 * pass);
        any = any || caffe_has_gradient(what->kinds[i]);
    }
    harness_forward(h);
    for (int i = 0; i < layer->n_tops; i++)
        expected = caffe_compare(what, "top", i, layer->tops[i], layer->tops[i]->data, expected);
    return any ? caffe_gradients(what, h, expected) : expected;
}

static inline void caffe_check(const CaffeCase *what) {
    Harness *h = calloc(1, sizeof *h);
    assert_non_null(h);
    harness_open(h, what->text, (int)strlen(what->kinds), what->bottoms);
    for (int i = 0; i < h->layer.n_params; i++)
        caffe_fill(h->layer.params[i]->blob.data, h->layer.params[i]->blob.count, 'v', 50 + i);
    const double *expected = what->values;
    for (int pass = 0; pass < what->passes; pass++)
        expected = caffe_pass(what, h, pass, expected);
    harness_close(h);
    free(h);
}

#endif
