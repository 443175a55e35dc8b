/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "built_net.h"

#define DATA                                                                                       \
    "layer { name: 'data' type: 'DummyData' top: 'data' top: 'label' dummy_data_param { "          \
    "shape { dim: 4 dim: 6 } shape { dim: 4 } "                                                    \
    "data_filler { type: 'gaussian' std: 1 } data_filler { type: 'constant' value: 1 } } } "
#define IP(name, bottom, outputs, more)                                                            \
    "layer { name: '" name "' type: 'InnerProduct' bottom: '" bottom "' top: '" name "' " more     \
    " inner_product_param { num_output: " outputs                                                  \
    " weight_filler { type: 'gaussian' std: 0.5 } bias_filler { type: 'uniform' max: 0.1 } } } "
#define LOSS(name, bottom, more)                                                                   \
    "layer { name: '" name "' type: 'SoftmaxWithLoss' bottom: '" bottom                            \
    "' bottom: 'label' top: '" name "' " more "} "
#define RELU(name, blob)                                                                           \
    "layer { name: '" name "' type: 'ReLU' bottom: '" blob "' top: '" blob "' } "

/* Two ways from `a`, one of them forked again, three losses, a loss weight on a blob that is read
 * too, a branch that nobody learns from (Accuracy), and in-place layers. */
#define BRANCHES(activation)                                                                       \
    DATA IP("a", "data", "5", "") activation IP("b", "a", "5", "") IP(                             \
        "c", "a", "4",                                                                             \
        "loss_weight: 0.01 ") "layer { name: 'p' type: 'Softmax' bottom: 'b' top: 'p' } " IP("d",  \
                                                                                             "p",  \
                                                                                             "3",  \
                                                                                             "")   \
        LOSS("l1", "d", "") LOSS("l2", "c", "loss_weight: 0.5 ")                                   \
            LOSS("l3", "b", "loss_weight: 2 ") "layer { name: 'acc' type: 'Accuracy' bottom: 'b' " \
                                               "bottom: 'label' top: 'acc' "                       \
                                               "} "

/* ---- gradients ---- */

static void check_numerically(BuiltNet *b, double tolerance) {
    ShoalNetParams params = shoal_net_params(b->net);
    built_net_run(b);
    for (int i = 0; i < params.count; i++) {
        const ShoalParam *param = params.items[i];
        for (size_t k = 0; param->learns && k < param->blob.count; k++) {
            const float step = 1e-2f;
            float *w = &param->blob.data[k], kept = *w;
            *w = kept + step;
            double above = (double)built_net_forward(b);
            *w = kept - step;
            double below = (double)built_net_forward(b);
            *w = kept;
            double numeric = (above - below) / (2 * (double)step);
            if (!(fabs(numeric - (double)param->blob.diff[k]) < tolerance))
                fail_msg("layer %s, blob %d, value %zu: gradient %g, by differences %g",
                         param->layer->param->name, param->index, k, (double)param->blob.diff[k],
                         numeric);
        }
    }
}

static void branches_add_up(void **state) {
    (void)state;
    BuiltNet b;
    built_net_open(&b, BRANCHES(""), false);
    check_numerically(&b, 1e-3);
    built_net_close(&b);
}

static void sum_of_losses(void **state) {
    (void)state;
    BuiltNet b;
    built_net_open(&b, BRANCHES(""), true);
    double expected = 0, loss = (double)built_net_forward(&b);
    expected += (double)shoal_net_blob(b.net, "l1")->data[0];
    expected += 0.5 * (double)shoal_net_blob(b.net, "l2")->data[0];
    expected += 2.0 * (double)shoal_net_blob(b.net, "l3")->data[0];
    const ShoalBlob *c = shoal_net_blob(b.net, "c_c_0_split_0");
    assert_int_equal(c->count, 16);
    for (size_t i = 0; i < c->count; i++)
        expected += 0.01 * (double)c->data[i];
    assert_true(fabs(loss - expected) < 1e-5);
    built_net_close(&b);
}

static void reused_memory_changes_no_bit(void **state) {
    (void)state;
    BuiltNet all, reused;
    built_net_open(&all, BRANCHES(RELU("relu", "a")), true);
    built_net_open(&reused, BRANCHES(RELU("relu", "a")), false);
    assert_true(shoal_net_arena_bytes(reused.net) < shoal_net_arena_bytes(all.net));
    ShoalNetParams p = shoal_net_params(all.net), q = shoal_net_params(reused.net);
    assert_int_equal(p.gradient_count, q.gradient_count);
    for (int round = 0; round < 3; round++) {
        float a = built_net_run(&all), b = built_net_run(&reused);
        assert_memory_equal(&a, &b, sizeof a);
        assert_memory_equal(p.gradients, q.gradients, p.gradient_count * sizeof(float));
        /* Nothing may depend on what the memory held before. */
        memset(reused.arena, 0xff, shoal_net_arena_bytes(reused.net));
        memset(reused.compute.workspace, 0xff, reused.compute.workspace_bytes);
    }
    double sum = 0;
    for (size_t i = 0; i < p.gradient_count; i++)
        sum += fabs((double)p.gradients[i]);
    assert_true(sum > 1);
    built_net_close(&all);
    built_net_close(&reused);
}

static void weight_scales_the_gradient(void **state) {
    (void)state;
    BuiltNet b;
    built_net_open(&b, BRANCHES(""), false);
    ShoalNetParams params = shoal_net_params(b.net);
    built_net_run(&b);
    float *once = shoal_calloc(params.gradient_count, sizeof *once);
    memcpy(once, params.gradients, params.gradient_count * sizeof *once);
    /* Two passes of a quarter each add up to a half. */
    memset(params.gradients, 0, params.gradient_count * sizeof(float));
    for (int pass = 0; pass < 2; pass++) {
        built_net_forward(&b);
        shoal_net_backward(b.net, &b.compute, 0.25f, NULL, NULL);
    }
    for (size_t i = 0; i < params.gradient_count; i++)
        assert_true(fabsf(params.gradients[i] - once[i] / 2) < 1e-6f);
    shoal_free(once);
    built_net_close(&b);
}

static void record_ready(void *context, const ShoalParam *param) {
    char *text = context;
    snprintf(text + strlen(text), 256 - strlen(text), "%s%d ", param->layer->param->name,
             param->index);
}

static void gradients_are_ready_last_layer_first(void **state) {
    (void)state;
    BuiltNet b;
    built_net_open(&b,
                   DATA IP("a", "data", "6", "param { name: 'w' } param { lr_mult: 0 } ")
                       IP("b", "a", "6", "param { name: 'w' } ") LOSS("l", "b", ""),
                   false);
    char order[256] = "";
    built_net_forward(&b);
    shoal_net_backward(b.net, &b.compute, 1, record_ready, order);
    assert_string_equal(order, "b1 a0 "); /* w is complete only at its owner */
    built_net_close(&b);
}

/* ---- who runs backward ---- */

static void lr_mult_zero_stops_backward(void **state) {
    (void)state;
    BuiltNet b;
    built_net_open(&b,
                   DATA IP("a", "data", "5", "param { lr_mult: 0 } param { lr_mult: 0 } ")
                       RELU("relu", "a") IP("b", "a", "3", "param { lr_mult: 0 } param { } ")
                           LOSS("l", "b", ""),
                   false);
    assert_false(built_net_layer(&b, "a")->needs_backward);
    assert_false(built_net_layer(&b, "relu")->needs_backward);
    ShoalLayer *layer = built_net_layer(&b, "b");
    assert_true(layer->needs_backward);
    assert_false(layer->propagate[0]);
    assert_null(shoal_net_blob(b.net, "a")->diff);
    assert_null(layer->params[0]->blob.diff);
    assert_non_null(layer->params[1]->blob.diff);
    ShoalNetParams params = shoal_net_params(b.net);
    assert_int_equal(params.count, 4);
    assert_int_equal(params.gradient_count, 16); /* 3 values, padded */
    check_numerically(&b, 1e-3);
    built_net_close(&b);
}

static void propagate_down_false_stops_backward(void **state) {
    (void)state;
    BuiltNet b;
    built_net_open(&b,
                   DATA IP("a", "data", "5", "") IP("b", "a", "3", "propagate_down: false ")
                       LOSS("l", "b", ""),
                   false);
    assert_false(built_net_layer(&b, "a")->needs_backward);
    assert_true(built_net_layer(&b, "b")->needs_backward);
    built_net_run(&b);
    const ShoalBlob *gradient = &built_net_layer(&b, "a")->params[0]->blob;
    for (size_t i = 0; i < gradient->count; i++)
        assert_true(gradient->diff[i] == 0);
    built_net_close(&b);
    /* On one of two ways: the other still brings a gradient, and only its own. */
    built_net_open(&b,
                   DATA IP("a", "data", "5", "") IP("b", "a", "3", "propagate_down: false ")
                       IP("c", "a", "3", "") LOSS("l1", "b", "") LOSS("l2", "c", ""),
                   false);
    assert_true(built_net_layer(&b, "a")->needs_backward);
    built_net_run(&b);
    BuiltNet alone;
    built_net_open(&alone, DATA IP("a", "data", "5", "") IP("c", "a", "3", "") LOSS("l2", "c", ""),
                   false);
    ShoalLayer *from = built_net_layer(&b, "c"), *to = built_net_layer(&alone, "c");
    for (int i = 0; i < 2; i++)
        memcpy(to->params[i]->blob.data, from->params[i]->blob.data,
               to->params[i]->blob.count * sizeof(float));
    built_net_run(&alone);
    const ShoalBlob *x = &built_net_layer(&b, "a")->params[0]->blob;
    const ShoalBlob *y = &built_net_layer(&alone, "a")->params[0]->blob;
    assert_memory_equal(x->diff, y->diff, x->count * sizeof(float));
    built_net_close(&alone);
    built_net_close(&b);
}

static void branch_without_loss_runs_no_backward(void **state) {
    (void)state;
    BuiltNet b;
    built_net_open(&b, DATA IP("a", "data", "5", "") IP("end", "a", "5", "") LOSS("l", "a", ""),
                   false);
    assert_true(built_net_layer(&b, "a")->needs_backward);
    assert_false(built_net_layer(&b, "end")->needs_backward);
    check_numerically(&b, 1e-3);
    built_net_close(&b);
}

static void force_backward_reaches_the_data(void **state) {
    (void)state;
    BuiltNet b;
    built_net_open(&b, "force_backward: true " BRANCHES(RELU("relu", "a")), true);
    const ShoalBlob *data = shoal_net_blob(b.net, "data");
    assert_non_null(data->diff);
    assert_false(built_net_layer(&b, "acc")->needs_backward);
    built_net_run(&b);
    /* dL/dx = W' dL/da, from the gradient of the bias alone for the whole batch. */
    const ShoalLayer *a = built_net_layer(&b, "a");
    const float *w = a->params[0]->blob.data, *db = a->params[1]->blob.diff;
    for (int i = 0; i < 6; i++) {
        double expected = 0, found = 0;
        for (int o = 0; o < 5; o++)
            expected += (double)db[o] * (double)w[6 * o + i];
        for (int n = 0; n < 4; n++)
            found += (double)data->diff[6 * n + i];
        assert_true(fabs(found - expected) < 1e-5);
    }
    built_net_close(&b);
}

/* ---- shared parameters ---- */

static void shared_weights_are_one(void **state) {
    (void)state;
    BuiltNet b;
    built_net_open(&b,
                   DATA IP("a", "data", "6", "param { name: 'w' } param { name: 'b' } ")
                       IP("b", "a", "6", "param { name: 'w' } param { name: 'b' } ")
                           IP("c", "b", "6", "param { name: 'w' } ") LOSS("l", "c", ""),
                   false);
    assert_int_equal(shoal_net_params(b.net).count, 3);
    const ShoalParam *first = built_net_layer(&b, "a")->params[0];
    for (const char *name = "bc"; *name; name++) {
        char text[2] = {*name, '\0'};
        const ShoalParam *other = built_net_layer(&b, text)->params[0];
        assert_ptr_equal(other->owner, first);
        assert_ptr_equal(other->blob.data, first->blob.data);
        assert_ptr_equal(other->blob.diff, first->blob.diff);
    }
    check_numerically(&b, 2e-3);
    built_net_close(&b);
}

static void permissive_sharing_compares_counts(void **state) {
    (void)state;
    BuiltNet b;
    built_net_open(&b,
                   DATA IP("a", "data", "4", "param { name: 'w' } ")
                       IP("b", "a", "6", "param { name: 'w' share_mode: PERMISSIVE } ")
                           LOSS("l", "b", ""),
                   false);
    assert_ptr_equal(built_net_layer(&b, "b")->params[0]->blob.data,
                     built_net_layer(&b, "a")->params[0]->blob.data);
    check_numerically(&b, 1e-3);
    built_net_close(&b);
    built_net_refused(DATA IP("a", "data", "4", "param { name: 'w' } ")
                          IP("b", "a", "6", "param { name: 'w' } ") LOSS("l", "b", ""),
                      "net: layers 'a' and 'b' share parameter 'w', but its shapes differ: 4x6 "
                      "(24) and 6x4 (24) (share_mode: PERMISSIVE compares only the counts)");
    built_net_refused(
        DATA IP("a", "data", "4", "param { name: 'w' } ")
            IP("b", "a", "5", "param { name: 'w' share_mode: PERMISSIVE } ") LOSS("l", "b", ""),
        "net: layers 'a' and 'b' share parameter 'w', but its shapes differ: 4x6 (24) and 5x4 "
        "(20)");
}

static void sharers_agree_on_multipliers(void **state) {
    (void)state;
    BuiltNet b;
    built_net_open(&b,
                   DATA IP("a", "data", "6", "param { name: 'w' } ")
                       IP("b", "a", "6", "param { name: 'w' lr_mult: 3 decay_mult: 0 } ")
                           LOSS("l", "b", ""),
                   false);
    assert_true(built_net_layer(&b, "a")->params[0]->lr_mult == 3);
    assert_true(built_net_layer(&b, "a")->params[0]->decay_mult == 0);
    built_net_close(&b);
    built_net_refused(DATA IP("a", "data", "6", "param { name: 'w' lr_mult: 1 } ")
                          IP("b", "a", "6", "param { name: 'w' lr_mult: 2 } ") LOSS("l", "b", ""),
                      "net: layers 'a' and 'b' share parameter 'w', but give it different lr_mult "
                      "or decay_mult");
}

/* ---- shares of a batch, and other nets' weights ---- */

static void shares_average_to_the_batch(void **state) {
    (void)state;
    BuiltNet b;
    built_net_open(&b, DATA IP("a", "data", "5", "") LOSS("l", "a", ""), false);
    ShoalNetParams params = shoal_net_params(b.net);
    float whole = built_net_run(&b);
    float *expected = shoal_calloc(params.gradient_count, sizeof *expected);
    memcpy(expected, params.gradients, params.gradient_count * sizeof *expected);
    for (int first = 0; first <= 4; first++) {
        memset(params.gradients, 0, params.gradient_count * sizeof(float));
        double loss = 0;
        for (int part = 0; part < 2; part++) {
            int samples = part ? 4 - first : first;
            if (!samples)
                continue;
            assert_int_equal(
                shoal_net_set_share(b.net, samples, (uint64_t)(part ? first : 0), NULL, &b.err),
                SHOAL_OK);
            loss += (double)built_net_forward(&b) * samples / 4;
            shoal_net_backward(b.net, &b.compute, (float)samples / 4, NULL, NULL);
        }
        assert_true(fabs(loss - (double)whole) < 1e-5);
        for (size_t i = 0; i < params.gradient_count; i++)
            assert_true(fabsf(params.gradients[i] - expected[i]) < 1e-5f);
    }
    assert_int_equal(shoal_net_set_share(b.net, 5, 0, NULL, &b.err), SHOAL_ERR_ARGUMENT);
    ShoalError err = {0};
    assert_int_equal(shoal_net_set_share(b.net, 0, 0, NULL, &err), SHOAL_ERR_ARGUMENT);
    shoal_free(expected);
    built_net_close(&b);
}

static void test_net_uses_the_train_nets_weights(void **state) {
    (void)state;
    const char *text = BRANCHES(RELU("relu", "a"));
    BuiltNet train, test;
    built_net_open(&train, text, false);
    const ShoalNetOptions options = {
        .phase = CAFFE__PHASE__TEST, .seed = 99, .weights_of = train.net};
    built_net_open_with(&test, text, &options);
    assert_int_equal(shoal_net_params(test.net).count, 0);
    assert_ptr_equal(built_net_layer(&test, "d")->params[1]->blob.data,
                     built_net_layer(&train, "d")->params[1]->blob.data);
    built_net_close(&test);
    built_net_close(&train);
}

static void wrong_layers_are_refused(void **state) {
    (void)state;
    built_net_refused(DATA "\nlayer { name: 'x' type: 'ReLU' bottom: 'data' top: 'label' }",
                      "net:2:1: layer 'x': top 'label' is already the top of another layer");
    built_net_refused(DATA "\nlayer { name: 'x' type: 'Softmax' bottom: 'data' bottom: 'label' top:"
                           " 'y' }",
                      "net:2:1: layer 'x' (Softmax) has 2 bottoms; it takes 1");
    built_net_refused(DATA "\nlayer { name: 'x' type: 'ReLU' bottom: 'data' top: 'y' "
                           "param { } }",
                      "net:2:1: layer 'x' has 1 `param` entries, but only 0 weight blobs");
    built_net_refused(DATA "\nlayer { name: 'x' bottom: 'data' top: 'y' }",
                      "net:2:1: layer 'x' has no type");
    built_net_refused(DATA "\nlayer { name: 'x' type: 'ReLU' bottom: 'data' top: 'y' "
                           "loss_weight: 1 loss_weight: 2 }",
                      "net:2:1: layer 'x' has 2 loss_weight values for 1 tops");
    built_net_refused(DATA IP("a", "data", "1", "") IP(
                          "b", "data", "3",
                          "") "layer { name: 'l' type: 'SoftmaxWithLoss' bottom: 'b' bottom: 'a' }",
                      "net: layer 'l' (SoftmaxWithLoss) cannot pass a gradient to its bottom 'a', "
                      "but layers below that learn ask for one; set propagate_down: false for it "
                      "if that is meant");
}

/* Gradients first, then what is fixed, statistics at the very end with padding behind them. */
static void statistics_lie_last(void **state) {
    (void)state;
    static const char text[] =
        "layer { name: 'data' type: 'DummyData' top: 'x' top: 'label' dummy_data_param { "
        "shape { dim: 4 dim: 3 dim: 5 dim: 5 } shape { dim: 4 } "
        "data_filler { type: 'gaussian' std: 1 } data_filler { type: 'constant' value: 1 } } } "
        "layer { name: 'bn' type: 'BatchNorm' bottom: 'x' top: 'x' } "
        "layer { name: 'scale' type: 'Scale' bottom: 'x' top: 'x' param { lr_mult: 0 } "
        "param { lr_mult: 1 } scale_param { bias_term: true } } "
        "layer { name: 'global' type: 'BatchNorm' bottom: 'x' top: 'x' "
        "batch_norm_param { use_global_stats: true } } "
        "layer { name: 'flat' type: 'Flatten' bottom: 'x' top: 'flat' } "
        "layer { name: 'ip' type: 'InnerProduct' bottom: 'flat' top: 'ip' inner_product_param { "
        "num_output: 2 weight_filler { type: 'xavier' } } } "
        "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'ip' bottom: 'label' top: 'loss' } ";
    BuiltNet b;
    built_net_open(&b, text, false);
    ShoalNetParams params = shoal_net_params(b.net);
    assert_true(params.moves_statistics);
    assert_int_equal(params.count, 3 + 2 + 3 + 2);
    for (int i = 0; i < params.count; i++) {
        const ShoalParam *param = params.items[i];
        size_t at = (size_t)(param->blob.data - params.data);
        assert_int_equal(param->learns, at < params.gradient_count);
        assert_int_equal(param->statistic, at >= params.data_count - params.statistic_count);
        assert_int_equal(param->statistic, i < 3);
    }
    float loss;
    assert_int_equal(shoal_net_forward(b.net, &b.compute, &loss, &b.err), SHOAL_OK);
    shoal_net_backward(b.net, &b.compute, 1, NULL, NULL);
    assert_true(params.items[2]->blob.data[0] == 1 && params.data[params.data_count - 1] == 0);
    /* The sum of the bias's gradient: through the global normalisation, which divides by eps^1/2,
     * and the weights of the inner product. */
    assert_true(shoal_vec_asum(3, params.items[4]->blob.diff) > 0);
    built_net_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(branches_add_up),
        cmocka_unit_test(sum_of_losses),
        cmocka_unit_test(reused_memory_changes_no_bit),
        cmocka_unit_test(weight_scales_the_gradient),
        cmocka_unit_test(gradients_are_ready_last_layer_first),
        cmocka_unit_test(lr_mult_zero_stops_backward),
        cmocka_unit_test(propagate_down_false_stops_backward),
        cmocka_unit_test(branch_without_loss_runs_no_backward),
        cmocka_unit_test(force_backward_reaches_the_data),
        cmocka_unit_test(shared_weights_are_one),
        cmocka_unit_test(permissive_sharing_compares_counts),
        cmocka_unit_test(sharers_agree_on_multipliers),
        cmocka_unit_test(shares_average_to_the_batch),
        cmocka_unit_test(test_net_uses_the_train_nets_weights),
        cmocka_unit_test(wrong_layers_are_refused),
        cmocka_unit_test(statistics_lie_last),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
