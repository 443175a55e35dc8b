/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_LAYER_CHECKS_H
#define SHOAL_TESTS_LAYER_CHECKS_H

/* Tables of shapes and of refusals of single layers. Include after cmocka.h. */

#include "net_harness.h"

typedef struct ShapeCase {
    const char *text;
    Shape bottom, top;
} ShapeCase;

typedef struct Refusal {
    const char *text;
    int n_bottoms;
    Shape bottoms[3];
    ShoalStatus status;
    const char *says; /* part of the message */
} Refusal;

static inline void assert_shape(const ShoalBlob *blob, const Shape *shape, const char *what) {
    ShoalBlob expected = {.name = "expected"};
    char have[128], want[128];
    assert_int_equal(shoal_blob_reshape(&expected, shape->axes, shape->dims, NULL), SHOAL_OK);
    if (!shoal_blob_same_shape(blob, &expected))
        fail_msg("%s: %s is %s; expected %s", what, blob->name,
                 shoal_blob_shape_text(blob, have, sizeof have),
                 shoal_blob_shape_text(&expected, want, sizeof want));
}

static inline void check_shapes(const ShapeCase *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        Harness h;
        harness_init(&h, cases[i].text, NULL, 1, &cases[i].bottom);
        if (harness_setup(&h) != SHOAL_OK)
            fail_msg("%s: %s", cases[i].text, h.err.text);
        assert_shape(h.tops[0], &cases[i].top, cases[i].text);
        harness_close(&h);
    }
}

static inline void check_refusals(const Refusal *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        Harness h;
        harness_init(&h, cases[i].text, NULL, cases[i].n_bottoms, cases[i].bottoms);
        ShoalStatus status = harness_setup(&h);
        char name[64];
        snprintf(name, sizeof name, "layer '%s': ", h.param->name);
        if (status != cases[i].status || h.err.status != status ||
            strncmp(h.err.text, name, strlen(name)) || !strstr(h.err.text, cases[i].says))
            fail_msg("%s: status %d, \"%s\"; expected %d, \"%s...%s\"", cases[i].text, (int)status,
                     h.err.text, (int)cases[i].status, name, cases[i].says);
        harness_close(&h);
    }
}

#define CHECK_SHAPES(cases) check_shapes(cases, sizeof cases / sizeof cases[0])
#define CHECK_REFUSALS(cases) check_refusals(cases, sizeof cases / sizeof cases[0])

#endif
