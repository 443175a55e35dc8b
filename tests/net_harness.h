/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_NET_HARNESS_H
#define SHOAL_TESTS_NET_HARNESS_H

/* One layer without a net: from prototxt text and the shapes of its bottoms, set up by hand, with
 * memory of exactly the sizes that it asks for. Include after cmocka.h. */

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/rng.h"
#include "caffe/text.h"
#include "net/layer.h"

enum { HARNESS_BLOBS = 6, HARNESS_NUMBER = 3 };

typedef struct Harness {
    ShoalLayer layer;
    ShoalLayerContext context;
    Caffe__LayerParameter *param;
    ShoalBlob blobs[2 * HARNESS_BLOBS]; /* bottoms, then tops */
    ShoalBlob *bottoms[HARNESS_BLOBS], *tops[HARNESS_BLOBS];
    bool propagate[HARNESS_BLOBS];
    float loss_weights[HARNESS_BLOBS];
    ShoalCompute compute;
    ShoalError err;
    bool allocated;
} Harness;

/* A shape, to be written SHAPE(2, 3) or SCALAR. */
typedef struct Shape {
    int axes;
    int dims[SHOAL_MAX_AXES];
} Shape;

#define SHAPE(...)                                                                                 \
    {                                                                                              \
        sizeof((int[]){__VA_ARGS__}) / sizeof(int), {                                              \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define SCALAR                                                                                     \
    {                                                                                              \
        0, {                                                                                       \
            0                                                                                      \
        }                                                                                          \
    }

static inline void harness_parse(Harness *h, const char *text) {
    ProtobufCMessage *message = NULL;
    ShoalStatus status = shoal_text_parse(&caffe__layer_parameter__descriptor, text, strlen(text),
                                          "test", NULL, &message, &h->err);
    if (status != SHOAL_OK)
        fail_msg("cannot parse the test's own text: %s", h->err.text);
    h->param = (Caffe__LayerParameter *)message;
}

/* Layer and blobs, nothing of the class called yet. bottoms: n_bottoms shapes. class NULL: the one
 * that the text's type names. */
static inline void harness_init(Harness *h, const char *text, const ShoalLayerClass *class,
                                int n_bottoms, const Shape *bottoms) {
    memset(h, 0, sizeof *h);
    harness_parse(h, text);
    h->context = (ShoalLayerContext){.phase = CAFFE__PHASE__TRAIN, .seed = 1, .threads = 1};
    h->context.batch_full = n_bottoms && bottoms[0].axes ? bottoms[0].dims[0] : 1;
    h->context.batch_now = h->context.batch_full;
    ShoalLayer *layer = &h->layer;
    layer->class = class ? class : shoal_layer_class_find(h->param->type);
    assert_non_null(layer->class);
    layer->param = h->param;
    layer->context = &h->context;
    layer->number = HARNESS_NUMBER;
    layer->n_bottoms = n_bottoms;
    layer->n_tops = (int)h->param->n_top;
    layer->bottoms = h->bottoms;
    layer->tops = h->tops;
    layer->propagate = h->propagate;
    layer->loss_weights = h->loss_weights;
    assert_true(n_bottoms <= HARNESS_BLOBS && layer->n_tops <= HARNESS_BLOBS);
    for (int i = 0; i < n_bottoms; i++) {
        h->bottoms[i] = &h->blobs[i];
        h->bottoms[i]->name = (size_t)i < h->param->n_bottom ? h->param->bottom[i] : "?";
        assert_int_equal(
            shoal_blob_reshape(h->bottoms[i], bottoms[i].axes, bottoms[i].dims, &h->err), SHOAL_OK);
    }
    for (int i = 0; i < layer->n_tops; i++) {
        h->tops[i] = &h->blobs[HARNESS_BLOBS + i];
        h->tops[i]->name = h->param->top[i];
        if (i < n_bottoms && strcmp(h->bottoms[i]->name, h->tops[i]->name) == 0)
            h->tops[i] = h->bottoms[i];
    }
    layer->state = shoal_calloc(1, layer->class->state_bytes);
    assert_non_null(layer->state);
}

static inline ShoalStatus harness_setup(Harness *h) {
    ShoalStatus status =
        h->layer.class->setup ? h->layer.class->setup(&h->layer, &h->err) : SHOAL_OK;
    if (status == SHOAL_OK)
        status = h->layer.class->reshape(&h->layer, &h->err);
    return status;
}

static inline float *harness_floats(size_t n) {
    float *values = shoal_calloc(n ? n : 1, sizeof(float));
    assert_non_null(values);
    return values;
}

/* Memory for data and diffs of everything; propagate on but where the class cannot. */
static inline void harness_allocate(Harness *h) {
    ShoalLayer *layer = &h->layer;
    h->allocated = true;
    bool sources = layer->class->flags & SHOAL_LAYER_NO_BACKWARD;
    for (int i = 0; i < layer->n_bottoms; i++) {
        h->propagate[i] = !sources && !(layer->class->no_gradient_bottoms >> i & 1);
        layer->bottoms[i]->data = harness_floats(layer->bottoms[i]->count);
        layer->bottoms[i]->diff = h->propagate[i] ? harness_floats(layer->bottoms[i]->count) : NULL;
    }
    bool shares = layer->class->flags & SHOAL_LAYER_SHARES_DATA;
    for (int i = 0; i < layer->n_tops; i++) {
        if (layer->tops[i] == (i < layer->n_bottoms ? layer->bottoms[i] : NULL))
            continue;
        layer->tops[i]->data =
            shares ? layer->bottoms[0]->data : harness_floats(layer->tops[i]->count);
        layer->tops[i]->diff = harness_floats(layer->tops[i]->count);
    }
    for (int i = 0; i < layer->n_params; i++) {
        ShoalParam *param = layer->params[i];
        param->learns = param->lr_mult != 0;
        param->blob.data = harness_floats(param->blob.count);
        param->blob.diff = param->learns ? harness_floats(param->blob.count) : NULL;
    }
    layer->scratch = shoal_calloc(1, layer->scratch_bytes);
    layer->saved = shoal_calloc(1, layer->saved_bytes);
    h->compute.workspace = shoal_calloc(1, layer->workspace_bytes);
    h->compute.workspace_bytes = layer->workspace_bytes;
    if (!h->compute.kernels)
        h->compute.kernels = shoal_kernels_for(SHOAL_CPU_C);
    assert_non_null(h->compute.kernels);
    layer->needs_backward = true;
}

static inline void harness_close(Harness *h) {
    ShoalLayer *layer = &h->layer;
    bool shares = layer->class->flags & SHOAL_LAYER_SHARES_DATA;
    for (int i = 0; h->allocated && i < layer->n_tops; i++) {
        if (layer->tops[i] == (i < layer->n_bottoms ? layer->bottoms[i] : NULL))
            continue;
        if (!shares)
            shoal_free(layer->tops[i]->data);
        shoal_free(layer->tops[i]->diff);
    }
    for (int i = 0; h->allocated && i < layer->n_bottoms; i++) {
        shoal_free(layer->bottoms[i]->data);
        shoal_free(layer->bottoms[i]->diff);
    }
    for (int i = 0; i < layer->n_params; i++) {
        if (h->allocated) {
            shoal_free(layer->params[i]->blob.data);
            shoal_free(layer->params[i]->blob.diff);
        }
        shoal_free(layer->params[i]);
    }
    shoal_free(layer->params);
    if (layer->class->close)
        layer->class->close(layer);
    shoal_free(layer->scratch);
    shoal_free(layer->saved);
    shoal_free(layer->state);
    shoal_free(h->compute.workspace);
    protobuf_c_message_free_unpacked(&h->param->base, NULL);
}

/* init, set up (must succeed) and allocate. */
static inline void harness_open(Harness *h, const char *text, int n_bottoms, const Shape *bottoms) {
    harness_init(h, text, NULL, n_bottoms, bottoms);
    ShoalStatus status = harness_setup(h);
    if (status != SHOAL_OK)
        fail_msg("%s: %s", text, h->err.text);
    harness_allocate(h);
}

static inline void harness_forward(Harness *h) {
    if (!h->layer.class->forward)
        return;
    ShoalStatus status = h->layer.class->forward(&h->layer, &h->compute, &h->err);
    if (status != SHOAL_OK)
        fail_msg("forward: %s", h->err.text);
}

static inline void harness_backward(Harness *h) {
    if (h->layer.class->backward)
        h->layer.class->backward(&h->layer, &h->compute);
}

static inline void harness_set(float *to, size_t n, const float *values) {
    memcpy(to, values, n * sizeof *to);
}

static inline void harness_assert_near(const float *found, const float *expected, size_t n,
                                       double tolerance) {
    for (size_t i = 0; i < n; i++) {
        double error = (double)found[i] - (double)expected[i];
        if (!(error <= tolerance && error >= -tolerance))
            fail_msg("value %zu is %.9g; expected %.9g within %g", i, (double)found[i],
                     (double)expected[i], tolerance);
    }
}

#endif
