/* SPDX-License-Identifier: Apache-2.0 */
#include "helpers.h"

#include "base/log.h"
#include "caffe/field.h"

#define NET (&caffe__net_parameter__descriptor)

/* The net that old text, read as text and as bytes, becomes, against the net that `today` is. */
static void becomes(const char *old, const char *today) {
    ShoalError err = {0};
    ShoalCaffeNet from_text, from_bytes;
    if (shoal_caffe_net_from_text(old, strlen(old), "f", &from_text, &err))
        fail_msg("%s\nin: %s", err.text, old);
    ProtobufCMessage *message = parse_ok(NET, old);
    void *bytes;
    size_t size;
    assert_int_equal(shoal_caffe_pack(message, &bytes, &size, &err), SHOAL_OK);
    if (shoal_caffe_net_from_bytes(bytes, size, "f", &from_bytes, &err))
        fail_msg("%s\nin: %s", err.text, old);
    ProtobufCMessage *expected = parse_ok(NET, today);
    char *expected_text = printed(expected), *text = printed(from_text.param),
         *bytes_text = printed(from_bytes.param);
    assert_string_equal(text, expected_text);
    assert_string_equal(bytes_text, expected_text);
    assert_same_bytes(from_text.param, expected);
    shoal_free(text);
    shoal_free(bytes_text);
    shoal_free(expected_text);
    shoal_free(bytes);
    protobuf_c_message_free_unpacked(message, NULL);
    protobuf_c_message_free_unpacked(expected, NULL);
    shoal_caffe_net_close(&from_text);
    shoal_caffe_net_close(&from_bytes);
}

static void refused(const char *old, const char *expected) {
    ShoalError err = {0};
    ShoalCaffeNet net = {0};
    assert_int_equal(shoal_caffe_net_from_text(old, strlen(old), "f", &net, &err), SHOAL_ERR_MODEL);
    assert_string_equal(err.text, expected);
    assert_null(net.param);
}

/* ---- V1: layers { type: CONVOLUTION } ---- */

static void test_v1_layer(void **state) {
    (void)state;
    becomes(
        "name: 'n' debug_info: true state { phase: TRAIN }\n"
        "layers { name: 'c' type: CONVOLUTION bottom: 'x' top: 'y' param: 'w' param: 'b'\n"
        "  blob_share_mode: [PERMISSIVE] blobs_lr: [1, 2] weight_decay: [1, 0, 3]\n"
        "  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: 'xavier' } }\n"
        "  blobs { num: 1 channels: 1 height: 1 width: 2 data: [1, 2] }\n"
        "  include { phase: TRAIN } exclude { stage: 's' } loss_weight: 0.5 }\n"
        "layers { name: 'r' type: RELU bottom: 'y' top: 'y' relu_param { engine: CUDNN } }\n"
        "layers { }",
        "name: 'n' debug_info: true state { phase: TRAIN }\n"
        "layer { name: 'c' type: 'Convolution' bottom: 'x' top: 'y'\n"
        "  param { name: 'w' share_mode: PERMISSIVE lr_mult: 1 decay_mult: 1 }\n"
        "  param { name: 'b' lr_mult: 2 decay_mult: 0 }\n"
        "  param { decay_mult: 3 }\n"
        "  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: 'xavier' } }\n"
        "  blobs { num: 1 channels: 1 height: 1 width: 2 data: [1, 2] }\n"
        "  include { phase: TRAIN } exclude { stage: 's' } loss_weight: 0.5 }\n"
        "layer { name: 'r' type: 'ReLU' bottom: 'y' top: 'y' relu_param { engine: CUDNN } }\n"
        "layer { }");
}

/* Every old type, against the name that Caffe registers. */
static void test_v1_types(void **state) {
    (void)state;
    static const struct {
        const char *old, *now;
    } types[] = {
        {"NONE", ""},
        {"ABSVAL", "AbsVal"},
        {"ACCURACY", "Accuracy"},
        {"ARGMAX", "ArgMax"},
        {"BNLL", "BNLL"},
        {"CONCAT", "Concat"},
        {"CONTRASTIVE_LOSS", "ContrastiveLoss"},
        {"CONVOLUTION", "Convolution"},
        {"DATA", "Data"},
        {"DECONVOLUTION", "Deconvolution"},
        {"DROPOUT", "Dropout"},
        {"DUMMY_DATA", "DummyData"},
        {"EUCLIDEAN_LOSS", "EuclideanLoss"},
        {"ELTWISE", "Eltwise"},
        {"EXP", "Exp"},
        {"FLATTEN", "Flatten"},
        {"HDF5_DATA", "HDF5Data"},
        {"HDF5_OUTPUT", "HDF5Output"},
        {"HINGE_LOSS", "HingeLoss"},
        {"IM2COL", "Im2col"},
        {"IMAGE_DATA", "ImageData"},
        {"INFOGAIN_LOSS", "InfogainLoss"},
        {"INNER_PRODUCT", "InnerProduct"},
        {"LRN", "LRN"},
        {"MEMORY_DATA", "MemoryData"},
        {"MULTINOMIAL_LOGISTIC_LOSS", "MultinomialLogisticLoss"},
        {"MVN", "MVN"},
        {"POOLING", "Pooling"},
        {"POWER", "Power"},
        {"RELU", "ReLU"},
        {"SIGMOID", "Sigmoid"},
        {"SIGMOID_CROSS_ENTROPY_LOSS", "SigmoidCrossEntropyLoss"},
        {"SILENCE", "Silence"},
        {"SOFTMAX", "Softmax"},
        {"SOFTMAX_LOSS", "SoftmaxWithLoss"},
        {"SPLIT", "Split"},
        {"SLICE", "Slice"},
        {"TANH", "TanH"},
        {"WINDOW_DATA", "WindowData"},
        {"THRESHOLD", "Threshold"},
    };
    const ProtobufCEnumDescriptor *type = &caffe__v1_layer_parameter__layer_type__descriptor;
    assert_int_equal(type->n_values, sizeof types / sizeof *types);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        char old[128], now[128];
        snprintf(old, sizeof old, "layers { type: %s }", types[i].old);
        snprintf(now, sizeof now, "layer { type: '%s' }", types[i].now);
        becomes(old, now);
    }
    assert_null(shoal_caffe_v1_type_name((Caffe__V1LayerParameter__LayerType)99));
}

/* What the upgrade moves by name must be there today, with the same type. */
static void test_v1_fields_exist(void **state) {
    (void)state;
    const ProtobufCMessageDescriptor *old = &caffe__v1_layer_parameter__descriptor;
    size_t same = 0;
    for (unsigned i = 0; i < old->n_fields; i++) {
        const ProtobufCFieldDescriptor *from = &old->fields[i];
        const ProtobufCFieldDescriptor *to =
            shoal_field_find(&caffe__layer_parameter__descriptor, from->name);
        if (strcmp(from->name, "param") == 0 || strcmp(from->name, "type") == 0 || !to)
            continue;
        assert_int_equal(from->type, to->type);
        assert_int_equal(from->label, to->label);
        assert_ptr_equal(from->descriptor, to->descriptor);
        same++;
    }
    assert_int_equal(same, old->n_fields - 6);
}

static void test_v1_errors(void **state) {
    (void)state;
    refused("layers { type: RELU }\nlayer { name: 'x' }",
            "f:2:1: the net has both \"layer\" and the old \"layers\"; write all of them as layer "
            "{ type: \"...\" }");
    /* Enum values that no text can have. */
    static const unsigned char type_99[] = {0x12, 0x02, 0x28, 99};
    static const unsigned char share_9[] = {0x12, 0x03, 0xd0, 0x3e, 9};
    ShoalError err = {0};
    ShoalCaffeNet net;
    assert_int_equal(shoal_caffe_net_from_bytes(type_99, sizeof type_99, "f", &net, &err),
                     SHOAL_ERR_MODEL);
    assert_string_equal(err.text, "f: layer type 99 is none of Caffe's; is the file damaged?");
    shoal_error_clear(&err);
    assert_int_equal(shoal_caffe_net_from_bytes(share_9, sizeof share_9, "f", &net, &err),
                     SHOAL_ERR_MODEL);
    assert_string_equal(err.text, "f: blob_share_mode 9, expected STRICT or PERMISSIVE");
}

/* crop, mirror, mean and scale move to transform_param and replace what stands there. */
static void test_data_transform(void **state) {
    (void)state;
    becomes("layers { type: DATA data_param { source: 's' batch_size: 3 scale: 0.5 mean_file: 'm' "
            "crop_size: 7 mirror: true } transform_param { scale: 9 mean_file: 'old' "
            "force_color: true } }\n"
            "layers { type: IMAGE_DATA image_data_param { source: 'i' mirror: false } }\n"
            "layers { type: WINDOW_DATA window_data_param { crop_size: 3 crop_mode: 'square' } }",
            "layer { type: 'Data' data_param { source: 's' batch_size: 3 } transform_param { "
            "scale: 0.5 mean_file: 'm' crop_size: 7 mirror: true force_color: true } }\n"
            "layer { type: 'ImageData' image_data_param { source: 'i' } transform_param { "
            "mirror: false } }\n"
            "layer { type: 'WindowData' window_data_param { crop_mode: 'square' } "
            "transform_param { crop_size: 3 } }");
    /* Today's layers keep theirs, as in Caffe. */
    becomes("layer { type: 'Data' data_param { scale: 0.5 } }",
            "layer { type: 'Data' data_param { scale: 0.5 } }");
    /* What was moved away reads as its default again. */
    const char text[] = "layers { type: DATA data_param { scale: 0.5 } }";
    ShoalError err = {0};
    ShoalCaffeNet net;
    assert_int_equal(shoal_caffe_net_from_text(text, strlen(text), "f", &net, &err), SHOAL_OK);
    assert_true(net.param->layer[0]->data_param->scale == 1.0f);
    shoal_caffe_net_close(&net);
}

/* ---- V0: layers { layer { type: "conv" } } ---- */

static void test_v0_net(void **state) {
    (void)state;
    becomes(
        "name: 'v0' force_backward: true\n"
        "layers { layer { name: 'd' type: 'data' source: 'db' meanfile: 'm' batchsize: 9 "
        "cropsize: 5 mirror: true scale: 0.25 rand_skip: 4 } top: 'data' top: 'label' }\n"
        "layers { layer { name: 'p1' type: 'padding' pad: 2 } bottom: 'data' top: 'p1' }\n"
        "layers { layer { name: 'c1' type: 'conv' num_output: 6 kernelsize: 3 group: 2 stride: 4 "
        "biasterm: false weight_filler { type: 'gaussian' std: 0.01 } bias_filler { value: 1 } "
        "blobs_lr: 1 blobs_lr: 2 weight_decay: 1 blobs { num: 1 } } bottom: 'p1' top: 'c1' }\n"
        "layers { layer { name: 'r1' type: 'relu' } bottom: 'c1' top: 'c1' }\n"
        "layers { layer { name: 'q' type: 'pool' pool: AVE kernelsize: 2 stride: 3 pad: 1 } "
        "bottom: 'c1' top: 'q' }\n"
        "layers { layer { name: 'n' type: 'lrn' local_size: 7 alpha: 2 beta: 3 k: 4 } bottom: 'q' "
        "top: 'n' }\n"
        "layers { layer { name: 'f' type: 'innerproduct' num_output: 8 biasterm: true "
        "weight_filler { } bias_filler { } } bottom: 'n' top: 'f' }\n"
        "layers { layer { name: 'o' type: 'dropout' dropout_ratio: 0.25 } bottom: 'f' top: 'f' }\n"
        "layers { layer { name: 'l' type: 'softmax_loss' } bottom: 'f' bottom: 'label' }",

        "name: 'v0' force_backward: true\n"
        "layer { name: 'd' type: 'Data' top: 'data' top: 'label' data_param { source: 'db' "
        "batch_size: 9 rand_skip: 4 } transform_param { scale: 0.25 mean_file: 'm' crop_size: 5 "
        "mirror: true } }\n"
        "layer { name: 'c1' type: 'Convolution' bottom: 'data' top: 'c1' param { lr_mult: 1 "
        "decay_mult: 1 } param { lr_mult: 2 } blobs { num: 1 } convolution_param { num_output: 6 "
        "kernel_size: 3 group: 2 stride: 4 pad: 2 bias_term: false weight_filler { type: "
        "'gaussian' std: 0.01 } bias_filler { value: 1 } } }\n"
        "layer { name: 'r1' type: 'ReLU' bottom: 'c1' top: 'c1' }\n"
        "layer { name: 'q' type: 'Pooling' bottom: 'c1' top: 'q' pooling_param { pool: AVE "
        "kernel_size: 2 stride: 3 pad: 1 } }\n"
        "layer { name: 'n' type: 'LRN' bottom: 'q' top: 'n' lrn_param { local_size: 7 alpha: 2 "
        "beta: 3 k: 4 } }\n"
        "layer { name: 'f' type: 'InnerProduct' bottom: 'n' top: 'f' inner_product_param { "
        "num_output: 8 bias_term: true weight_filler { } bias_filler { } } }\n"
        "layer { name: 'o' type: 'Dropout' bottom: 'f' top: 'f' dropout_param { dropout_ratio: "
        "0.25 } }\n"
        "layer { name: 'l' type: 'SoftmaxWithLoss' bottom: 'f' bottom: 'label' }");
}

/* The fields of the rarer layers, and all the type names. */
static void test_v0_layers(void **state) {
    (void)state;
    static const struct {
        const char *old, *now;
    } cases[] = {
        {"type: 'hdf5_data' source: 's' batchsize: 2",
         "type: 'HDF5Data' hdf5_data_param { source: 's' batch_size: 2 }"},
        {"type: 'images' source: 's' batchsize: 2 rand_skip: 3 shuffle_images: true new_height: 4 "
         "new_width: 5 scale: 2",
         "type: 'ImageData' image_data_param { source: 's' batch_size: 2 rand_skip: 3 shuffle: "
         "true new_height: 4 new_width: 5 } transform_param { scale: 2 }"},
        {"type: 'window_data' source: 's' batchsize: 2 det_fg_threshold: 0.1 det_bg_threshold: "
         "0.2 det_fg_fraction: 0.3 det_context_pad: 4 det_crop_mode: 'square' cropsize: 6 mirror: "
         "false meanfile: 'm'",
         "type: 'WindowData' window_data_param { source: 's' batch_size: 2 fg_threshold: 0.1 "
         "bg_threshold: 0.2 fg_fraction: 0.3 context_pad: 4 crop_mode: 'square' } "
         "transform_param { crop_size: 6 mirror: false mean_file: 'm' }"},
        {"type: 'infogain_loss' source: 's'",
         "type: 'InfogainLoss' infogain_loss_param { source: 's' }"},
        {"type: 'concat' concat_dim: 2", "type: 'Concat' concat_param { concat_dim: 2 }"},
        {"type: 'hdf5_output' hdf5_output_param { file_name: 'f' }",
         "type: 'HDF5Output' hdf5_output_param { file_name: 'f' }"},
        {"type: 'accuracy'", "type: 'Accuracy'"},
        {"type: 'bnll'", "type: 'BNLL'"},
        {"type: 'euclidean_loss'", "type: 'EuclideanLoss'"},
        {"type: 'flatten'", "type: 'Flatten'"},
        {"type: 'im2col'", "type: 'Im2col'"},
        {"type: 'multinomial_logistic_loss'", "type: 'MultinomialLogisticLoss'"},
        {"type: 'sigmoid'", "type: 'Sigmoid'"},
        {"type: 'softmax'", "type: 'Softmax'"},
        {"type: 'split'", "type: 'Split'"},
        {"type: 'tanh'", "type: 'TanH'"},
        {"name: 'typeless'", "name: 'typeless'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char old[512], now[512];
        snprintf(old, sizeof old, "layers { layer { %s } }", cases[i].old);
        snprintf(now, sizeof now, "layer { %s }", cases[i].now);
        becomes(old, now);
    }
    /* A field that means nothing there is dropped, with a warning, as Caffe does. */
    shoal_log_set_level(SHOAL_LOG_ERROR);
    becomes("layers { layer { type: 'relu' num_output: 3 group: 2 new_num: 1 } }",
            "layer { type: 'ReLU' }");
    shoal_log_set_level(SHOAL_LOG_WARNING);
}

static void test_v0_errors(void **state) {
    (void)state;
    refused("layers { layer { type: 'relu' } }\nlayers { layer { type: 'convolve' } }",
            "f:2:1: unknown layer type \"convolve\"");
    refused("layers { layer { type: 'relu' } }\nlayers { type: RELU }",
            "f:2:1: this one of the \"layers\" has no \"layer\" inside while others have; write "
            "all of them alike");
    refused("layers { layer { type: 'relu' } bottom: 'x' }",
            "f:1:1: bottom \"x\" is no top of a layer above");
    refused("input: 'x' layers { layer { type: 'padding' } bottom: 'x' top: 'p' }\n"
            "layers { layer { type: 'relu' } bottom: 'p' }",
            "f:2:1: a layer of type \"relu\" reads a padding layer; only conv and pool can");
    refused("input: ['x', 'y'] layers { layer { type: 'padding' } bottom: 'x' top: 'p' }\n"
            "layers { layer { type: 'conv' } bottom: 'p' bottom: 'y' }",
            "f:2:1: 2 bottoms behind a padding layer, expected 1");
    refused("layers { layer { type: 'padding' } top: 'p' }\n"
            "layers { layer { type: 'pool' } bottom: 'p' }",
            "f:1:1: a padding layer with 0 bottoms and 1 tops, expected 1 and 1");
    refused("input: 'x' layers { layer { type: 'padding' } bottom: 'x' top: ['p', 'q'] }\n"
            "layers { layer { type: 'pool' } bottom: 'p' }",
            "f:1:12: a padding layer with 1 bottoms and 2 tops, expected 1 and 1");
    /* A failure behind a padding layer that is out already. */
    refused("input: 'x' layers { layer { type: 'padding' } bottom: 'x' top: 'p' }\n"
            "layers { layer { type: 'pool' } bottom: 'p' }\n"
            "layers { layer { type: 'nonsense' } }",
            "f:3:1: unknown layer type \"nonsense\"");
}

/* ---- inputs and batch norm ---- */

static void test_inputs(void **state) {
    (void)state;
    becomes(
        "name: 'n' input: 'a' input: 'b' input_dim: [1, 2, 3, 4, 5, 6, 7, 8] layer { name: 'l' }",
        "name: 'n' layer { name: 'input' type: 'Input' top: 'a' top: 'b' input_param { shape { "
        "dim: [1, 2, 3, 4] } shape { dim: [5, 6, 7, 8] } } } layer { name: 'l' }");
    becomes("input: 'a' input_shape { dim: [1, 2] } input_dim: 9",
            "layer { name: 'input' type: 'Input' top: 'a' input_param { shape { dim: [1, 2] } } }");
    becomes("input: 'a' layers { name: 'l' }", "layer { name: 'l' }");
    becomes("input: 'a' input_dim: [1, 2, 3, 4] layers { layer { type: 'relu' } bottom: 'a' }",
            "layer { name: 'input' type: 'Input' top: 'a' input_param { shape { dim: [1, 2, 3, 4] "
            "} } } layer { type: 'ReLU' bottom: 'a' }");
    refused("input: 'a' input: 'b' input_dim: [1, 2, 3, 4]",
            "f: 2 \"input\" but 4 \"input_dim\"; give four for each input");
    refused("input: 'a' input_dim: [1, 2, 3]",
            "f: 1 \"input\" but 3 \"input_dim\"; give four for each input");
    refused("input: 'a' input_shape { } input_shape { }",
            "f: 1 \"input\" but 2 \"input_shape\"; give one shape for each input");
}

static void test_batch_norm(void **state) {
    (void)state;
    becomes("layer { type: 'BatchNorm' param { lr_mult: 1 decay_mult: 2 } param { name: 'v' } "
            "param { } }\n"
            "layer { type: 'BatchNorm' param { lr_mult: 1 } }\n"
            "layer { type: 'Scale' param { } param { } param { } }",
            "layer { type: 'BatchNorm' param { lr_mult: 0 decay_mult: 0 } param { name: 'v' "
            "lr_mult: 0 decay_mult: 0 } param { lr_mult: 0 decay_mult: 0 } }\n"
            "layer { type: 'BatchNorm' param { lr_mult: 1 } }\n"
            "layer { type: 'Scale' param { } param { } param { } }");
}

/* ---- places ---- */

static void expect_where(const ShoalCaffeNet *net, const void *message, const char *expected) {
    char where[64];
    assert_string_equal(shoal_caffe_net_where(net, message, where, sizeof where), expected);
}

static void test_origins(void **state) {
    (void)state;
    const char v1[] = "input: 'x' input_dim: [1,1,1,1]\n"
                      "layers { type: POOLING\n"
                      "  pooling_param { } include { } }\n"
                      "layers { type: RELU }";
    ShoalError err = {0};
    ShoalCaffeNet net;
    assert_int_equal(shoal_caffe_net_from_text(v1, strlen(v1), "f", &net, &err), SHOAL_OK);
    expect_where(&net, net.param->layer[0], "f");
    expect_where(&net, net.param->layer[1], "f:2:1");
    expect_where(&net, net.param->layer[1]->pooling_param, "f:3:3");
    expect_where(&net, net.param->layer[1]->include[0], "f:3:21");
    expect_where(&net, net.param->layer[2], "f:4:1");
    assert_int_equal(net.origins.count, 4);
    shoal_caffe_net_close(&net);

    const char v0[] = "input: 'x'\n"
                      "layers { layer { type: 'padding' } bottom: 'x' top: 'p' }\n"
                      "layers { layer { type: 'conv'\n"
                      "  weight_filler { } } bottom: 'p' top: 'q' }";
    assert_int_equal(shoal_caffe_net_from_text(v0, strlen(v0), "f", &net, &err), SHOAL_OK);
    assert_int_equal(net.param->n_layer, 1);
    expect_where(&net, net.param->layer[0], "f:3:1");
    expect_where(&net, net.param->layer[0]->convolution_param->weight_filler, "f:4:3");
    expect_where(&net, net.param->layer[0]->convolution_param, "f");
    /* Those of the padding layer and of the V0 layers inside are gone. */
    assert_int_equal(net.origins.count, 2);
    shoal_caffe_net_close(&net);
}

/* Many layers, names all different: the table of producers and the origins stay fast. */
static void test_many_layers(void **state) {
    (void)state;
    const size_t n = 100000;
    char *text = malloc(96 * n), *p = text;
    p += sprintf(p, "input: 't0'\n");
    for (size_t i = 0; i < n; i++)
        p += sprintf(p, "layers { layer { type: '%s' } bottom: 't%zu' top: 't%zu' }\n",
                     i % 2 ? "conv" : "padding", i, i + 1);
    ShoalError err = {0};
    ShoalCaffeNet net;
    if (shoal_caffe_net_from_text(text, (size_t)(p - text), "f", &net, &err))
        fail_msg("%s", err.text);
    assert_int_equal(net.param->n_layer, n / 2);
    assert_string_equal(net.param->layer[n / 2 - 1]->bottom[0], "t99998");
    expect_where(&net, net.param->layer[n / 2 - 1], "f:100001:1");
    shoal_caffe_net_close(&net);
    free(text);
}

/* ---- solvers ---- */

static Caffe__SolverParameter *solver(const char *text, ShoalTextOrigins *origins) {
    ShoalError err = {0};
    Caffe__SolverParameter *out;
    if (shoal_caffe_solver_from_text(text, strlen(text), "s", origins, &out, &err))
        fail_msg("%s", err.text);
    return out;
}

static void test_solver_type(void **state) {
    (void)state;
    static const char *const types[][2] = {{"SGD", "SGD"},           {"NESTEROV", "Nesterov"},
                                           {"ADAGRAD", "AdaGrad"},   {"RMSPROP", "RMSProp"},
                                           {"ADADELTA", "AdaDelta"}, {"ADAM", "Adam"}};
    for (size_t i = 0; i < 6; i++) {
        char text[64], expected[64];
        snprintf(text, sizeof text, "solver_type: %s base_lr: 0.5", types[i][0]);
        snprintf(expected, sizeof expected, "base_lr: 0.5\ntype: \"%s\"\n", types[i][1]);
        Caffe__SolverParameter *param = solver(text, NULL);
        char *now = printed(param);
        assert_string_equal(now, expected);
        shoal_free(now);
        caffe__solver_parameter__free_unpacked(param, NULL);
    }
    Caffe__SolverParameter *param = solver("type: 'Adam'", NULL);
    assert_string_equal(param->type, "Adam");
    caffe__solver_parameter__free_unpacked(param, NULL);
    ShoalError err = {0};
    const char both[] = "type: 'SGD' solver_type: SGD";
    param = NULL;
    assert_int_equal(shoal_caffe_solver_from_text(both, strlen(both), "s", NULL, &param, &err),
                     SHOAL_ERR_MODEL);
    assert_string_equal(err.text,
                        "s: both \"type\" and the old \"solver_type\" are given; keep type");
    assert_null(param);
}

static void test_solver_nets(void **state) {
    (void)state;
    ShoalTextOrigins origins;
    Caffe__SolverParameter *param = solver("net_param { layers { type: RELU } }\n"
                                           "train_net_param { input: 'x' input_dim: [1,1,1,1] }\n"
                                           "test_net_param { layers { layer { type: 'tanh' } } }\n"
                                           "test_net_param { layer { type: 'X' } } train_state { }",
                                           &origins);
    assert_string_equal(param->net_param->layer[0]->type, "ReLU");
    assert_string_equal(param->train_net_param->layer[0]->type, "Input");
    assert_string_equal(param->test_net_param[0]->layer[0]->type, "TanH");
    assert_string_equal(param->test_net_param[1]->layer[0]->type, "X");
    const ShoalTextOrigin *origin =
        shoal_text_origins_find(&origins, &param->test_net_param[0]->layer[0]->base);
    assert_int_equal(origin->line, 3);
    assert_non_null(shoal_text_origins_find(&origins, &param->train_state->base));
    /* 4 nets, 3 layers (the Input layer came from nowhere), 1 state. */
    assert_int_equal(origins.count, 8);
    shoal_text_origins_close(&origins);
    caffe__solver_parameter__free_unpacked(param, NULL);
    ShoalError err = {0};
    const char bad[] = "test_net_param { layers { layer { type: 'x' } } }";
    assert_int_equal(shoal_caffe_solver_from_text(bad, strlen(bad), "s", NULL, &param, &err),
                     SHOAL_ERR_MODEL);
    assert_string_equal(err.text, "s:1:18: unknown layer type \"x\"");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v1_layer),        cmocka_unit_test(test_v1_types),
        cmocka_unit_test(test_v1_fields_exist), cmocka_unit_test(test_v1_errors),
        cmocka_unit_test(test_data_transform),  cmocka_unit_test(test_v0_net),
        cmocka_unit_test(test_v0_layers),       cmocka_unit_test(test_v0_errors),
        cmocka_unit_test(test_inputs),          cmocka_unit_test(test_batch_norm),
        cmocka_unit_test(test_origins),         cmocka_unit_test(test_many_layers),
        cmocka_unit_test(test_solver_type),     cmocka_unit_test(test_solver_nets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
