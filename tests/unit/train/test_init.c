/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "net/net.h"
#include "solver/rate.h"
#include "solver/solver.h"
#include "train/init_nets.h"
#include "train/init_recipe.h"

static char *text_of(void (*write)(FILE *out, const char *folder, int batch), int batch,
                     size_t *size) {
    char *text = NULL;
    FILE *out = open_memstream(&text, size);
    assert_non_null(out);
    write(out, "dir", batch);
    fclose(out);
    return text;
}

static ShoalStatus image_shape(void *context, const Caffe__LayerParameter *layer, int top,
                               int *axes, int *dims, ShoalError *err) {
    (void)context;
    (void)err;
    const Caffe__TransformationParameter *param = layer->transform_param;
    bool crop = param && param->crop_size;
    *axes = top == 0 ? 3 : 0;
    if (top)
        return SHOAL_OK;
    dims[0] = crop ? 3 : 1;
    dims[1] = dims[2] = crop ? (int)param->crop_size : 28;
    return SHOAL_OK;
}

static void parse(const char *name, ShoalCaffeNet *model) {
    size_t size;
    char *text = text_of(shoal_init_net_find(name)->train_val, 48, &size);
    ShoalError err = {0};
    if (shoal_caffe_net_from_text(text, size, name, model, &err))
        fail_msg("%s", err.text);
    free(text);
}

static ShoalNet *build(const ShoalCaffeNet *model, Caffe__Phase phase) {
    const ShoalNetOptions options = {.phase = phase,
                                     .capacity = 1,
                                     .backward = phase == CAFFE__PHASE__TRAIN,
                                     .source_shape = image_shape};
    ShoalError err = {0};
    ShoalNet *net = NULL;
    if (shoal_net_create(model, &options, &net, &err))
        fail_msg("%s", err.text);
    return net;
}

/* Published sizes: torchvision's resnet50 has 25,557,032 (v1 has the bias of its stem besides);
 * the others follow from the tables of the papers and files. */
static void sizes_are_the_known_ones(void **state) {
    (void)state;
    static const struct {
        const char *name;
        size_t weights;
    } known[] = {{"resnet50", 25557032},
                 {"resnet50_v1", 25557096},
                 {"mobilenet_v1", 4231976},
                 {"alexnet", 60965224},
                 {"lenet", 431080}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        ShoalCaffeNet model;
        parse(known[i].name, &model);
        ShoalNet *net = build(&model, CAFFE__PHASE__TRAIN);
        ShoalNetParams params = shoal_net_params(net);
        size_t learnable = 0;
        for (int p = 0; p < params.count; p++)
            learnable += params.items[p]->learns ? params.items[p]->blob.count : 0;
        assert_int_equal(learnable, known[i].weights);
        shoal_net_destroy(net);
        shoal_caffe_net_close(&model);
    }
}

static void test_phase_tells_accuracy(void **state) {
    (void)state;
    for (int n = 0; shoal_init_net_at(n); n++) {
        const char *name = shoal_init_net_at(n)->name;
        bool lenet = !strcmp(name, "lenet");
        ShoalCaffeNet model;
        parse(name, &model);
        ShoalNet *net = build(&model, CAFFE__PHASE__TEST);
        assert_int_equal(shoal_net_outputs(net), lenet ? 2 : 3);
        assert_string_equal(shoal_net_output(net, 0)->name, lenet ? "accuracy" : "accuracy/top1");
        shoal_net_destroy(net);
        shoal_caffe_net_close(&model);
    }
}

static int stride_of(const ShoalCaffeNet *model, const char *layer) {
    for (size_t i = 0; i < model->param->n_layer; i++) {
        const Caffe__LayerParameter *param = model->param->layer[i];
        if (!strcmp(param->name, layer))
            return param->convolution_param->n_stride ? (int)param->convolution_param->stride[0]
                                                      : 1;
    }
    fail_msg("no layer %s", layer);
    return 0;
}

static void versions_differ_in_the_stride(void **state) {
    (void)state;
    ShoalCaffeNet modern, first;
    parse("resnet50", &modern);
    parse("resnet50_v1", &first);
    for (char stage = '2'; stage <= '5'; stage++) {
        int stride = stage == '2' ? 1 : 2;
        char a[] = "res0a_branch2a", b[] = "res0a_branch2b", side[] = "res0a_branch1";
        a[3] = b[3] = side[3] = stage;
        assert_int_equal(stride_of(&modern, a), 1);
        assert_int_equal(stride_of(&modern, b), stride);
        assert_int_equal(stride_of(&first, a), stride);
        assert_int_equal(stride_of(&first, b), 1);
        assert_int_equal(stride_of(&modern, side), stride);
        assert_int_equal(stride_of(&first, side), stride);
    }
    shoal_caffe_net_close(&modern);
    shoal_caffe_net_close(&first);
}

static Caffe__SolverParameter *solver_of(const ShoalInitNet *net, int batch) {
    size_t size;
    char *text = text_of(net->solver, batch, &size);
    ShoalError err = {0};
    Caffe__SolverParameter *solver = NULL;
    if (shoal_caffe_solver_from_text(text, size, "solver", NULL, &solver, &err) ||
        shoal_solver_check(solver, &err))
        fail_msg("%s, batch %d: %s", net->name, batch, err.text);
    free(text);
    return solver;
}

static void solvers_are_complete(void **state) {
    (void)state;
    static const int batches[] = {1, 7, 32, 256, 1000, 8192, 8193, SHOAL_INIT_MOST_BATCH};
    for (int n = 0; shoal_init_net_at(n); n++)
        for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
            Caffe__SolverParameter *solver = solver_of(shoal_init_net_at(n), batches[i]);
            assert_string_equal(solver->net, "dir/train_val.prototxt");
            assert_int_equal(strncmp(solver->snapshot_prefix, "dir/", 4), 0);
            assert_true(solver->max_iter > 0 && solver->n_test_iter == 1);
            assert_true(solver->warmup_iter < solver->max_iter);
            assert_true(solver->display > 0 && solver->snapshot > 0 && solver->test_interval > 0);
            assert_int_equal(solver->local_lr_auto, batches[i] > 8192);
            caffe__solver_parameter__free_unpacked(solver, NULL);
        }
}

static void expect_rate(const Caffe__SolverParameter *solver, int iter, double expected) {
    int step = 0;
    float rate = 0;
    for (int i = 0; i <= iter; i++)
        rate = shoal_rate_at(solver, i, &step);
    if (!(fabs((double)rate - expected) <= 1e-6 * expected))
        fail_msg("iteration %d has rate %.9g; expected %.9g", iter, (double)rate, expected);
}

/* ResNet-50 as Goyal et al. 2017 trained it: 0.1 for 256 images in proportion, 5 passes of warm-up
 * from 0.1, a tenth after 30, 60 and 80 of 90 passes. */
static void the_rate_goes_with_the_batch(void **state) {
    (void)state;
    enum { PASS = 1281167 };
    static const int batches[] = {32, 256, 1024, 8192};
    for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
        int batch = batches[i];
        double rate = 0.1 * batch / 256;
        Caffe__SolverParameter *solver = solver_of(shoal_init_net_find("resnet50"), batch);
        assert_int_equal(solver->max_iter, 90LL * PASS / batch);
        expect_rate(solver, 0, batch > 256 ? 0.1 : rate);
        expect_rate(solver, 5 * PASS / batch + 1, rate);
        expect_rate(solver, (int)(30LL * PASS / batch) - 1, rate);
        expect_rate(solver, (int)(30LL * PASS / batch), rate / 10);
        expect_rate(solver, solver->max_iter - 1, rate / 1000);
        caffe__solver_parameter__free_unpacked(solver, NULL);
    }
}

/* The default is the training that the nets were published with. */
static void defaults_are_the_published_ones(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int batch, max_iter;
        double rate;
    } known[] = {{"resnet50", 32, 3603282, 0.0125},
                 {"mobilenet_v1", 32, 4003646, 0.0125},
                 {"alexnet", 256, 450000, 0.01},
                 {"lenet", 64, 10000, 0.01}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        const ShoalInitNet *net = shoal_init_net_find(known[i].name);
        assert_int_equal(net->batch, known[i].batch);
        Caffe__SolverParameter *solver = solver_of(net, net->batch);
        assert_int_equal(solver->max_iter, known[i].max_iter);
        assert_int_equal(solver->warmup_iter, 0);
        expect_rate(solver, 0, known[i].rate);
        caffe__solver_parameter__free_unpacked(solver, NULL);
    }
}

static int zero_factors(const ShoalCaffeNet *model) {
    int count = 0;
    for (size_t i = 0; i < model->param->n_layer; i++) {
        const Caffe__LayerParameter *layer = model->param->layer[i];
        if (layer->scale_param && layer->scale_param->filler) {
            const char *name = layer->name;
            assert_string_equal(name + strlen(name) - 9, "_branch2c");
            assert_true(layer->scale_param->filler->value == 0);
            count++;
        }
    }
    return count;
}

static void blocks_begin_as_their_shortcuts(void **state) {
    (void)state;
    ShoalCaffeNet model;
    parse("resnet50", &model);
    assert_int_equal(zero_factors(&model), 3 + 4 + 6 + 3);
    assert_int_equal(model.param->layer[0]->data_param->batch_size, 48);
    shoal_caffe_net_close(&model);
    parse("mobilenet_v1", &model);
    assert_int_equal(zero_factors(&model), 0);
    shoal_caffe_net_close(&model);
}

static void numbers_are_plain(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } known[] = {{0, "0"}, {64, "64"}, {0.4, "0.4"}, {0.1 / 256, "0.000390625"}, {12.5, "12.5"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        char text[32] = "";
        FILE *out = fmemopen(text, sizeof text, "w");
        shoal_init_number(out, known[i].value);
        fclose(out);
        assert_string_equal(text, known[i].text);
    }
}

static void table_ends(void **state) {
    (void)state;
    assert_null(shoal_init_net_at(-1));
    assert_null(shoal_init_net_at(5));
    assert_null(shoal_init_net_find("vgg"));
    assert_null(shoal_init_net_find(""));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_the_known_ones),
        cmocka_unit_test(test_phase_tells_accuracy),
        cmocka_unit_test(versions_differ_in_the_stride),
        cmocka_unit_test(solvers_are_complete),
        cmocka_unit_test(the_rate_goes_with_the_batch),
        cmocka_unit_test(defaults_are_the_published_ones),
        cmocka_unit_test(blocks_begin_as_their_shortcuts),
        cmocka_unit_test(numbers_are_plain),
        cmocka_unit_test(table_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
