/* SPDX-License-Identifier: Apache-2.0 */
/* Filter in a net: what lies above it has as many samples as it lets through. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "built_net.h"
#include "net_harness.h"

#define INPUTS(batch)                                                                              \
    "layer { name: 'in' type: 'Input' top: 'x' top: 'l' input_param { shape { dim: " batch         \
    " dim: 3 dim: 6 dim: 6 } shape { dim: " batch " } } } "
#define ABOVE(x, l)                                                                                \
    "layer { name: 'conv' type: 'Convolution' bottom: '" x "' top: 'c' convolution_param { "       \
    "num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: 'xavier' } } } "                    \
    "layer { name: 'bn' type: 'BatchNorm' bottom: 'c' top: 'c' } "                                 \
    "layer { name: 'relu' type: 'ReLU' bottom: 'c' top: 'c' } "                                    \
    "layer { name: 'deconv' type: 'Deconvolution' bottom: 'c' top: 'd' convolution_param { "       \
    "num_output: 4 kernel_size: 2 stride: 2 weight_filler { type: 'xavier' } } } "                 \
    "layer { name: 'norm' type: 'LRN' bottom: 'd' top: 'n' } "                                     \
    "layer { name: 'drop' type: 'Sigmoid' bottom: 'n' top: 'n' } "                                 \
    "layer { name: 'pool' type: 'Pooling' bottom: 'n' top: 'p' pooling_param { kernel_size: 3 "    \
    "stride: 2 } } "                                                                               \
    "layer { name: 'spp' type: 'SPP' bottom: 'p' top: 's' spp_param { pyramid_height: 2 } } "      \
    "layer { name: 'flat' type: 'Reshape' bottom: 's' top: 'r' reshape_param { shape { dim: 0 "    \
    "dim: 2 dim: -1 } } } "                                                                        \
    "layer { name: 'ip' type: 'InnerProduct' bottom: 'r' top: 'y' inner_product_param { "          \
    "num_output: 5 weight_filler { type: 'xavier' } } } "                                          \
    "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'y' bottom: '" l "' top: 'loss' } "
#define FILTERED                                                                                   \
    INPUTS("6")                                                                                    \
    "layer { name: 'sel' type: 'Input' top: 'sel' input_param { shape { dim: 6 } } } "             \
    "layer { name: 'f' type: 'Filter' bottom: 'x' bottom: 'l' bottom: 'sel' top: 'fx' top: 'fl' "  \
    "} " ABOVE("fx", "fl")

enum { SAMPLE = 3 * 6 * 6, MOST = 6 };

typedef struct Samples {
    float x[MOST * SAMPLE], label[MOST], chosen[MOST];
} Samples;

/* Points the inputs to those samples, all of them or the chosen ones in `room`. */
static void feed(BuiltNet *b, Samples *from, Samples *room) {
    size_t n = 0;
    for (size_t i = 0; room && i < MOST; i++)
        if (from->chosen[i] != 0) {
            harness_set(room->x + n * SAMPLE, SAMPLE, from->x + i * SAMPLE);
            room->label[n++] = from->label[i];
        }
    shoal_net_source(b->net, 0)->tops[0]->data = room ? room->x : from->x;
    shoal_net_source(b->net, 0)->tops[1]->data = room ? room->label : from->label;
    if (!room)
        shoal_net_source(b->net, 1)->tops[0]->data = from->chosen;
}

static void same_as_the_chosen_alone(BuiltNet *filtered, BuiltNet *plain, Samples *samples,
                                     int chosen) {
    static Samples room;
    ShoalNetParams p = shoal_net_params(filtered->net), q = shoal_net_params(plain->net);
    feed(filtered, samples, NULL);
    float loss = built_net_run(filtered);
    assert_int_equal(shoal_net_blob(filtered->net, "fx")->shape[0], chosen);
    assert_int_equal(shoal_net_blob(filtered->net, "y")->shape[0], chosen);
    if (chosen == 0) {
        assert_true(loss == 0);
        for (size_t i = 0; i < p.gradient_count; i++)
            assert_true(p.gradients[i] == 0);
        return;
    }
    assert_int_equal(shoal_net_set_share(plain->net, chosen, 0, NULL, &plain->err), SHOAL_OK);
    feed(plain, samples, &room);
    float expected = built_net_run(plain);
    assert_memory_equal(&loss, &expected, sizeof loss);
    assert_int_equal(p.gradient_count, q.gradient_count);
    assert_memory_equal(p.gradients, q.gradients, p.gradient_count * sizeof(float));
}

static void test_filter_in_a_net(void **state) {
    (void)state;
    static const char *const patterns[] = {"101100", "111111", "000000", "000001",
                                           "110111", "000000", "011111"};
    static Samples samples;
    ShoalRng rng;
    BuiltNet filtered, plain;
    built_net_open(&filtered, FILTERED, false);
    built_net_open(&plain, INPUTS("6") ABOVE("x", "l"), false);
    assert_int_equal(built_net_unit(&filtered), 6);
    assert_int_equal(built_net_unit(&plain), 0);
    ShoalNetParams p = shoal_net_params(filtered.net), q = shoal_net_params(plain.net);
    assert_int_equal(p.data_count, q.data_count);
    harness_set(p.data, p.data_count, q.data);
    shoal_rng_init(&rng, 5, SHOAL_RNG_TEST, 0);
    shoal_rng_fill_uniform(&rng, -1, 1, MOST * SAMPLE, samples.x);
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        int chosen = 0;
        for (size_t k = 0; k < MOST; k++) {
            samples.label[k] = (float)((k + i) % 5);
            samples.chosen[k] = patterns[i][k] == '1' ? -0.5f : 0;
            chosen += patterns[i][k] == '1';
        }
        same_as_the_chosen_alone(&filtered, &plain, &samples, chosen);
    }
    /* Also what the batches have moved. */
    assert_memory_equal(p.data, q.data, p.data_count * sizeof(float));
    built_net_close(&filtered);
    built_net_close(&plain);
}

static void test_filter_at_the_end(void **state) {
    (void)state;
    static Samples samples;
    BuiltNet b;
    built_net_open(&b,
                   INPUTS("6") "layer { name: 'sel' type: 'Input' top: 'sel' input_param { shape { "
                               "dim: 6 } } } layer { name: 'f' type: 'Filter' bottom: 'x' bottom: "
                               "'l' bottom: 'sel' top: 'fx' top: 'fl' } layer { name: 's' type: "
                               "'Silence' bottom: 'fx' }",
                   false);
    assert_int_equal(shoal_net_outputs(b.net), 1);
    for (int round = 0; round < 2; round++) {
        for (size_t k = 0; k < MOST; k++)
            samples.chosen[k] = round == 0 && k == 4;
        samples.label[4] = 3;
        feed(&b, &samples, NULL);
        built_net_forward(&b);
        assert_int_equal(shoal_net_output(b.net, 0)->count, round == 0);
        assert_int_equal(shoal_net_output_most(b.net, 0), 6);
        assert_true(round == 1 || shoal_net_output(b.net, 0)->data[0] == 3);
    }
    built_net_close(&b);
}

/* Gradients go where their samples came from; the others get 0. */
static void test_filter_backward(void **state) {
    (void)state;
    const Shape bottoms[] = {SHAPE(4, 2), SHAPE(4, 1, 1)};
    Harness h;
    harness_open(&h, "name: 'f' type: 'Filter' bottom: 'x' bottom: 's' top: 'y'", 2, bottoms);
    harness_set(h.bottoms[1]->data, 4, (float[]){0, 1, 0, 2});
    harness_forward(&h);
    assert_int_equal(h.tops[0]->shape[0], 2);
    harness_set(h.tops[0]->diff, 4, (float[]){1, 2, 3, 4});
    for (int i = 0; i < 8; i++)
        h.bottoms[0]->diff[i] = NAN;
    harness_backward(&h);
    harness_assert_near(h.bottoms[0]->diff, (float[]){0, 0, 1, 2, 0, 0, 3, 4}, 8, 0);
    harness_close(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filter_in_a_net),
        cmocka_unit_test(test_filter_at_the_end),
        cmocka_unit_test(test_filter_backward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
