/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_BUILT_NET_H
#define SHOAL_TESTS_BUILT_NET_H

/* A whole net from prototxt text, with its memory, ready to run. Include after cmocka.h. */

#include <string.h>

#include "base/memory.h"
#include "caffe/model.h"
#include "net/net.h"

typedef struct BuiltNet {
    ShoalCaffeNet model;
    ShoalNet *net;
    void *arena;
    ShoalCompute compute;
    ShoalError err;
} BuiltNet;

static inline void built_net_parse(const char *text, ShoalCaffeNet *model) {
    ShoalError err = {0};
    if (shoal_caffe_net_from_text(text, strlen(text), "net", model, &err))
        fail_msg("the test's own text: %s", err.text);
}

static inline void built_net_open_with(BuiltNet *b, const char *text,
                                       const ShoalNetOptions *options) {
    *b = (BuiltNet){0};
    built_net_parse(text, &b->model);
    if (shoal_net_create(&b->model, options, &b->net, &b->err))
        fail_msg("%s", b->err.text);
    b->arena = shoal_calloc(shoal_net_arena_bytes(b->net), 1);
    b->compute.workspace_bytes = shoal_net_workspace_bytes(b->net);
    b->compute.workspace = shoal_calloc(b->compute.workspace_bytes, 1);
    b->compute.kernels = shoal_kernels_for(SHOAL_CPU_C);
    assert_non_null(b->arena);
    assert_non_null(b->compute.workspace);
    shoal_net_bind(b->net, b->arena);
    if (shoal_net_init_weights(b->net, &b->err))
        fail_msg("%s", b->err.text);
}

/* In phase TRAIN, planned for backward passes. */
static inline void built_net_open(BuiltNet *b, const char *text, bool keep_all) {
    const ShoalNetOptions options = {
        .phase = CAFFE__PHASE__TRAIN, .seed = 7, .backward = true, .keep_all = keep_all};
    built_net_open_with(b, text, &options);
}

/* Of shoal_net_unit, which must not fail. */
static inline int built_net_unit(const BuiltNet *b) {
    ShoalError err = {0};
    int unit;
    assert_int_equal(shoal_net_unit(b->net, &unit, &err), SHOAL_OK);
    return unit;
}

static inline void built_net_close(BuiltNet *b) {
    shoal_net_destroy(b->net);
    shoal_caffe_net_close(&b->model);
    shoal_free(b->arena);
    shoal_free(b->compute.workspace);
}

/* That a net cannot be built, and the whole message. */
static inline void built_net_refused(const char *text, const char *message) {
    const ShoalNetOptions options = {.phase = CAFFE__PHASE__TRAIN, .backward = true};
    ShoalError err = {0};
    ShoalCaffeNet model;
    ShoalNet *net = NULL;
    built_net_parse(text, &model);
    assert_int_equal(shoal_net_create(&model, &options, &net, &err), SHOAL_ERR_MODEL);
    assert_string_equal(err.text, message);
    assert_null(net);
    shoal_caffe_net_close(&model);
}

static inline float built_net_forward(BuiltNet *b) {
    float loss = 0;
    if (shoal_net_forward(b->net, &b->compute, &loss, &b->err))
        fail_msg("%s", b->err.text);
    return loss;
}

/* Forward and backward from gradients of 0. */
static inline float built_net_run(BuiltNet *b) {
    ShoalNetParams params = shoal_net_params(b->net);
    memset(params.gradients, 0, params.gradient_count * sizeof(float));
    float loss = built_net_forward(b);
    shoal_net_backward(b->net, &b->compute, 1, NULL, NULL);
    return loss;
}

static inline ShoalLayer *built_net_layer(const BuiltNet *b, const char *name) {
    for (int i = 0; i < shoal_net_layers(b->net); i++)
        if (!strcmp(shoal_net_layer(b->net, i)->param->name, name))
            return shoal_net_layer(b->net, i);
    fail_msg("no layer %s", name);
    return NULL;
}

#endif
