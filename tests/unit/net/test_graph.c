/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdbool.h>
#include <stdio.h>

#include "built_net.h"
#include "net/graph.h"

/* The graph as text, one layer a line: "NAME: BOTTOMS -> TOPS [loss weights]". */
static const char *graph_text(const ShoalGraph *graph) {
    static char text[8192];
    size_t used = 0;
#define ADD(...) (used += (size_t)snprintf(text + used, sizeof text - used, __VA_ARGS__))
    text[0] = '\0';
    for (int i = 0; i < graph->count; i++) {
        const Caffe__LayerParameter *layer = graph->layers[i].param;
        assert_int_equal(!graph->layers[i].source, !strcmp(layer->type, "Split"));
        ADD("%s:", layer->name);
        for (size_t j = 0; j < layer->n_bottom; j++)
            ADD(" %s", layer->bottom[j]);
        ADD(" ->");
        for (size_t j = 0; j < layer->n_top; j++)
            ADD(" %s", layer->top[j]);
        for (size_t j = 0; j < layer->n_loss_weight; j++)
            ADD(" %s%g", j ? "" : "* ", (double)layer->loss_weight[j]);
        ADD("\n");
    }
#undef ADD
    return text;
}

static void expect(const char *net, Caffe__Phase phase, const Caffe__NetState *net_state,
                   const char *expected) {
    ShoalCaffeNet model;
    ShoalGraph graph;
    ShoalError err = {0};
    built_net_parse(net, &model);
    if (shoal_graph_build(&model, phase, net_state, &graph, &err))
        fail_msg("%s", err.text);
    for (int i = 0; i < graph.count; i++) {
        assert_true(graph.layers[i].param->has_phase);
        assert_int_equal(graph.layers[i].param->phase, phase);
    }
    assert_string_equal(graph_text(&graph), expected);
    shoal_graph_close(&graph);
    shoal_caffe_net_close(&model);
}

#define TRAIN CAFFE__PHASE__TRAIN
#define TEST CAFFE__PHASE__TEST

#define DATA "layer { name: 'data' type: 'Data' top: 'data' top: 'label' } "

/* ---- splits: the nets and names of BVLC Caffe's insert_splits.cpp ---- */

static void no_split_where_none_is_needed(void **state) {
    (void)state;
    expect(DATA "layer { name: 'ip' type: 'InnerProduct' bottom: 'data' top: 'ip' } "
                "layer { name: 'loss' type: 'SoftmaxWithLoss' bottom: 'ip' bottom: 'label' }",
           TRAIN, NULL, "data: -> data label\nip: data -> ip\nloss: ip label ->\n");
}

static void shared_top_is_split(void **state) {
    (void)state;
    expect(DATA "layer { name: 'a' type: 'InnerProduct' bottom: 'data' top: 'a' } "
                "layer { name: 'b' type: 'InnerProduct' bottom: 'data' top: 'b' } "
                "layer { name: 'c' type: 'InnerProduct' bottom: 'data' top: 'c' } "
                "layer { name: 'l1' type: 'EuclideanLoss' bottom: 'a' bottom: 'b' } "
                "layer { name: 'l2' type: 'EuclideanLoss' bottom: 'b' bottom: 'c' } ",
           TRAIN, NULL,
           "data: -> data label\n"
           "data_data_0_split: data -> data_data_0_split_0 data_data_0_split_1 "
           "data_data_0_split_2\n"
           "a: data_data_0_split_0 -> a\n"
           "b: data_data_0_split_1 -> b\n"
           "b_b_0_split: b -> b_b_0_split_0 b_b_0_split_1\n"
           "c: data_data_0_split_2 -> c\n"
           "l1: a b_b_0_split_0 ->\n"
           "l2: b_b_0_split_1 c ->\n");
}

static void one_layer_that_reads_twice_counts_twice(void **state) {
    (void)state;
    expect(DATA "layer { name: 'l' type: 'EuclideanLoss' bottom: 'data' bottom: 'data' }", TRAIN,
           NULL,
           "data: -> data label\n"
           "data_data_0_split: data -> data_data_0_split_0 data_data_0_split_1\n"
           "l: data_data_0_split_0 data_data_0_split_1 ->\n");
}

static void second_top_has_its_number_in_the_name(void **state) {
    (void)state;
    expect(DATA "layer { name: 'x' type: 'EuclideanLoss' bottom: 'data' bottom: 'label' } "
                "layer { name: 'y' type: 'EuclideanLoss' bottom: 'data' bottom: 'label' } ",
           TRAIN, NULL,
           "data: -> data label\n"
           "data_data_0_split: data -> data_data_0_split_0 data_data_0_split_1\n"
           "label_data_1_split: label -> label_data_1_split_0 label_data_1_split_1\n"
           "x: data_data_0_split_0 label_data_1_split_0 ->\n"
           "y: data_data_0_split_1 label_data_1_split_1 ->\n");
}

static void in_place_layers_split_their_own_version(void **state) {
    (void)state;
    expect(DATA "layer { name: 'ip1' type: 'InnerProduct' bottom: 'data' top: 'ip1' } "
                "layer { name: 'relu1' type: 'ReLU' bottom: 'ip1' top: 'ip1' } "
                "layer { name: 'ip2' type: 'InnerProduct' bottom: 'ip1' top: 'ip2' } "
                "layer { name: 'l1' type: 'EuclideanLoss' bottom: 'ip1' bottom: 'label' } "
                "layer { name: 'l2' type: 'EuclideanLoss' bottom: 'ip2' bottom: 'data' } ",
           TRAIN, NULL,
           "data: -> data label\n"
           "data_data_0_split: data -> data_data_0_split_0 data_data_0_split_1\n"
           "ip1: data_data_0_split_0 -> ip1\n"
           "relu1: ip1 -> ip1\n"
           "ip1_relu1_0_split: ip1 -> ip1_relu1_0_split_0 ip1_relu1_0_split_1\n"
           "ip2: ip1_relu1_0_split_0 -> ip2\n"
           "l1: ip1_relu1_0_split_1 label ->\n"
           "l2: ip2 data_data_0_split_1 ->\n");
}

static void loss_weight_moves_to_the_first_top_of_the_split(void **state) {
    (void)state;
    expect(DATA "layer { name: 'ip1' type: 'InnerProduct' bottom: 'data' top: 'ip1' "
                "loss_weight: 2.5 } "
                "layer { name: 'ip2' type: 'InnerProduct' bottom: 'ip1' top: 'ip2' } "
                "layer { name: 'l' type: 'EuclideanLoss' bottom: 'ip2' bottom: 'label' } ",
           TRAIN, NULL,
           "data: -> data label\n"
           "ip1: data -> ip1\n"
           "ip1_ip1_0_split: ip1 -> ip1_ip1_0_split_0 ip1_ip1_0_split_1 * 2.5 0\n"
           "ip2: ip1_ip1_0_split_1 -> ip2\n"
           "l: ip2 label ->\n");
    /* Nobody else reads it: it stays where it is. */
    expect(DATA "layer { name: 'ip1' type: 'InnerProduct' bottom: 'data' top: 'ip1' "
                "loss_weight: 2.5 } ",
           TRAIN, NULL, "data: -> data label\nip1: data -> ip1 * 2.5\n");
}

/* ---- what a phase and state keep ---- */

static const char *const RULED =
    "layer { name: 'both' type: 'Silence' } "
    "layer { name: 'train' type: 'Silence' include { phase: TRAIN } } "
    "layer { name: 'not_train' type: 'Silence' exclude { phase: TRAIN } } "
    "layer { name: 'either' type: 'Silence' include { phase: TRAIN } include { stage: 'a' } } "
    "layer { name: 'a_and_b' type: 'Silence' include { stage: 'a' stage: 'b' } } "
    "layer { name: 'a_not_b' type: 'Silence' include { stage: 'a' not_stage: 'b' } } "
    "layer { name: 'level_1_2' type: 'Silence' include { min_level: 1 max_level: 2 } } "
    "layer { name: 'no_rule_holds' type: 'Silence' exclude { stage: 'a' } exclude { max_level: -1 "
    "} "
    "} ";

static void check_state(Caffe__Phase phase, int level, const char *stage0, const char *stage1,
                        const char *expected) {
    char *stages[2] = {(char *)stage0, (char *)stage1};
    Caffe__NetState net_state = CAFFE__NET_STATE__INIT;
    net_state.has_level = 1;
    net_state.level = level;
    net_state.stage = stages;
    net_state.n_stage = (size_t)(stage0 != NULL) + (stage1 != NULL);
    expect(RULED, phase, &net_state, expected);
}

static void rules(void **state) {
    (void)state;
    expect(RULED, TRAIN, NULL, "both: ->\ntrain: ->\neither: ->\nno_rule_holds: ->\n");
    expect(RULED, TEST, NULL, "both: ->\nnot_train: ->\nno_rule_holds: ->\n");
    check_state(TEST, 0, "a", NULL, "both: ->\nnot_train: ->\neither: ->\na_not_b: ->\n");
    check_state(TEST, 0, "b", "a", "both: ->\nnot_train: ->\neither: ->\na_and_b: ->\n");
    check_state(TRAIN, 1, NULL, NULL,
                "both: ->\ntrain: ->\neither: ->\nlevel_1_2: ->\nno_rule_holds: ->\n");
    check_state(TEST, 2, "b", NULL, "both: ->\nnot_train: ->\nlevel_1_2: ->\nno_rule_holds: ->\n");
    check_state(TEST, 3, NULL, NULL, "both: ->\nnot_train: ->\nno_rule_holds: ->\n");
    check_state(TEST, -1, NULL, NULL, "both: ->\nnot_train: ->\n");
}

static void state_of_the_net_itself_is_merged(void **state) {
    (void)state;
    char net[4096], *stages[] = {(char *)"b"};
    snprintf(net, sizeof net, "state { level: 1 stage: 'a' } %s", RULED);
    expect(net, TEST, NULL, "both: ->\nnot_train: ->\neither: ->\na_not_b: ->\nlevel_1_2: ->\n");
    Caffe__NetState more = CAFFE__NET_STATE__INIT;
    more.stage = stages;
    more.n_stage = 1;
    expect(net, TEST, &more, "both: ->\nnot_train: ->\neither: ->\na_and_b: ->\nlevel_1_2: ->\n");
    more.has_level = 1; /* the solver's level wins */
    expect(net, TEST, &more, "both: ->\nnot_train: ->\neither: ->\na_and_b: ->\n");
}

static void splits_count_only_kept_layers(void **state) {
    (void)state;
    const char *net =
        DATA "layer { name: 'acc' type: 'Accuracy' bottom: 'data' bottom: 'label' top: 'acc' "
             "include { phase: TEST } } "
             "layer { name: 'l' type: 'SoftmaxWithLoss' bottom: 'data' bottom: 'label' } ";
    expect(net, TRAIN, NULL, "data: -> data label\nl: data label ->\n");
    expect(net, TEST, NULL,
           "data: -> data label\n"
           "data_data_0_split: data -> data_data_0_split_0 data_data_0_split_1\n"
           "label_data_1_split: label -> label_data_1_split_0 label_data_1_split_1\n"
           "acc: data_data_0_split_0 label_data_1_split_0 -> acc\n"
           "l: data_data_0_split_1 label_data_1_split_1 ->\n");
}

/* ---- errors ---- */

static void refused(const char *net, const char *message) {
    ShoalCaffeNet model;
    ShoalGraph graph = {0};
    ShoalError err = {0};
    built_net_parse(net, &model);
    assert_int_equal(shoal_graph_build(&model, TRAIN, NULL, &graph, &err), SHOAL_ERR_MODEL);
    assert_string_equal(err.text, message);
    assert_null(graph.layers);
    shoal_caffe_net_close(&model);
}

/* ---- BatchNorm of other Caffes ---- */

static void a_batch_norm_that_scales_becomes_two_layers(void **state) {
    (void)state;
    static const char NET[] =
        "bn_stats_batch_size: 32 " DATA
        "layer { name: 'n' type: 'BatchNorm' bottom: 'data' top: 'n' param { lr_mult: 1 } "
        "  param { decay_mult: 0 } param { lr_mult: 0 } param { decay_mult: 0.25 } "
        "  param { lr_mult: 2 } batch_norm_param { scale_bias: true eps: 0.5 "
        "  scale_filler { value: 3 } bias_filler { value: 4 } } } "
        "layer { name: 'm' type: 'BatchNorm' bottom: 'n' top: 'n' } "
        "layer { name: 'e' type: 'Eltwise' bottom: 'n' bottom: 'n' top: 'e' }";
    ShoalCaffeNet model;
    ShoalGraph graph;
    ShoalError err = {0};
    built_net_parse(NET, &model);
    assert_int_equal(shoal_graph_build(&model, TRAIN, NULL, &graph, &err), SHOAL_OK);
    assert_int_equal(graph.count, 6);
    const Caffe__LayerParameter *norm = graph.layers[1].param, *scale = graph.layers[2].param;
    assert_int_equal(norm->n_param, 3);
    for (int i = 0; i < 3; i++)
        assert_true(norm->param[i]->has_lr_mult && norm->param[i]->lr_mult == 0);
    assert_true(norm->batch_norm_param->eps == 0.5f);
    assert_false(norm->batch_norm_param->scale_bias);
    assert_null(norm->batch_norm_param->scale_filler);
    assert_null(norm->batch_norm_param->bias_filler);
    assert_string_equal(scale->name, "n_scale_bias");
    assert_string_equal(scale->type, "Scale");
    assert_string_equal(scale->bottom[0], "n");
    assert_string_equal(scale->top[0], "n");
    assert_true(scale->scale_param->bias_term);
    assert_true(scale->scale_param->filler->value == 3);
    assert_true(scale->scale_param->bias_filler->value == 4);
    assert_int_equal(scale->n_param, 2);
    assert_true(scale->param[0]->decay_mult == 0.25f && scale->param[1]->lr_mult == 2);
    /* The net's word on statistics holds for all of them. */
    assert_int_equal(norm->batch_norm_param->stats_batch_size, 32);
    assert_string_equal(graph.layers[3].param->name, "m");
    assert_int_equal(graph.layers[3].param->batch_norm_param->stats_batch_size, 32);
    assert_string_equal(graph.layers[4].param->bottom[0], "n"); /* the split is behind all of it */
    /* The model is as it was. */
    assert_int_equal(model.param->layer[1]->n_param, 5);
    assert_non_null(model.param->layer[1]->batch_norm_param->scale_filler);
    shoal_graph_close(&graph);
    shoal_caffe_net_close(&model);
}

static void errors_name_the_place(void **state) {
    (void)state;
    refused("layer { name: 'a' type: 'Silence' }\n"
            "  layer { name: 'b' type: 'Silence' include { phase: TRAIN } exclude { stage: 'x' } }",
            "net:2:3: layer 'b' has both include and exclude rules; keep one kind");
    refused(DATA "\nlayer { name: 'b' type: 'ReLU' bottom: 'data' bottom: 'late' }\n"
                 "layer { name: 'c' type: 'ReLU' top: 'late' }",
            "net:2:1: layer 'b': bottom 1, 'late', is not a top of any layer before it in this "
            "phase");
    refused("layer { name: 'a' type: 'Data' top: 'x' include { phase: TEST } }\n"
            "layer { name: 'b' type: 'ReLU' bottom: 'x' }",
            "net:2:1: layer 'b': bottom 0, 'x', is not a top of any layer before it in this phase");
    /* After a split was made: nothing may leak. */
    refused(DATA "layer { name: 'a' type: 'X' bottom: 'data' bottom: 'data' } "
                 "\nlayer { name: 'b' type: 'X' bottom: 'nowhere' }",
            "net:2:1: layer 'b': bottom 0, 'nowhere', is not a top of any layer before it in this "
            "phase");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_split_where_none_is_needed),
        cmocka_unit_test(shared_top_is_split),
        cmocka_unit_test(one_layer_that_reads_twice_counts_twice),
        cmocka_unit_test(second_top_has_its_number_in_the_name),
        cmocka_unit_test(in_place_layers_split_their_own_version),
        cmocka_unit_test(loss_weight_moves_to_the_first_top_of_the_split),
        cmocka_unit_test(rules),
        cmocka_unit_test(state_of_the_net_itself_is_merged),
        cmocka_unit_test(splits_count_only_kept_layers),
        cmocka_unit_test(a_batch_norm_that_scales_becomes_two_layers),
        cmocka_unit_test(errors_name_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
