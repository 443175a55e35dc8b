/* SPDX-License-Identifier: Apache-2.0 */
#include "caffe/upgrade.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "caffe/field.h"
#include "caffe/model.h"

#define TYPE(x) CAFFE__V1_LAYER_PARAMETER__LAYER_TYPE__##x

static const struct {
    Caffe__V1LayerParameter__LayerType type;
    const char *name;
} type_names[] = {
    {TYPE(NONE), ""},
    {TYPE(ABSVAL), "AbsVal"},
    {TYPE(ACCURACY), "Accuracy"},
    {TYPE(ARGMAX), "ArgMax"},
    {TYPE(BNLL), "BNLL"},
    {TYPE(CONCAT), "Concat"},
    {TYPE(CONTRASTIVE_LOSS), "ContrastiveLoss"},
    {TYPE(CONVOLUTION), "Convolution"},
    {TYPE(DATA), "Data"},
    {TYPE(DECONVOLUTION), "Deconvolution"},
    {TYPE(DROPOUT), "Dropout"},
    {TYPE(DUMMY_DATA), "DummyData"},
    {TYPE(ELTWISE), "Eltwise"},
    {TYPE(EUCLIDEAN_LOSS), "EuclideanLoss"},
    {TYPE(EXP), "Exp"},
    {TYPE(FLATTEN), "Flatten"},
    {TYPE(HDF5_DATA), "HDF5Data"},
    {TYPE(HDF5_OUTPUT), "HDF5Output"},
    {TYPE(HINGE_LOSS), "HingeLoss"},
    {TYPE(IM2COL), "Im2col"},
    {TYPE(IMAGE_DATA), "ImageData"},
    {TYPE(INFOGAIN_LOSS), "InfogainLoss"},
    {TYPE(INNER_PRODUCT), "InnerProduct"},
    {TYPE(LRN), "LRN"},
    {TYPE(MEMORY_DATA), "MemoryData"},
    {TYPE(MULTINOMIAL_LOGISTIC_LOSS), "MultinomialLogisticLoss"},
    {TYPE(MVN), "MVN"},
    {TYPE(POOLING), "Pooling"},
    {TYPE(POWER), "Power"},
    {TYPE(RELU), "ReLU"},
    {TYPE(SIGMOID), "Sigmoid"},
    {TYPE(SIGMOID_CROSS_ENTROPY_LOSS), "SigmoidCrossEntropyLoss"},
    {TYPE(SILENCE), "Silence"},
    {TYPE(SLICE), "Slice"},
    {TYPE(SOFTMAX), "Softmax"},
    {TYPE(SOFTMAX_LOSS), "SoftmaxWithLoss"},
    {TYPE(SPLIT), "Split"},
    {TYPE(TANH), "TanH"},
    {TYPE(THRESHOLD), "Threshold"},
    {TYPE(WINDOW_DATA), "WindowData"},
};

const char *shoal_caffe_v1_type_name(Caffe__V1LayerParameter__LayerType type) {
    for (size_t i = 0; i < sizeof type_names / sizeof *type_names; i++)
        if (type_names[i].type == type)
            return type_names[i].name;
    return NULL;
}

static size_t max4(size_t a, size_t b, size_t c, size_t d) {
    size_t ab = a > b ? a : b, cd = c > d ? c : d;
    return ab > cd ? ab : cd;
}

/* `n` empty ParamSpecs. */
static bool add_params(Caffe__LayerParameter *layer, size_t n) {
    layer->param = calloc(n, sizeof *layer->param);
    if (!layer->param)
        return false;
    for (; layer->n_param < n; layer->n_param++) {
        ProtobufCMessage *param = shoal_field_new_message(&caffe__param_spec__descriptor);
        if (!param)
            return false;
        layer->param[layer->n_param] = (Caffe__ParamSpec *)param;
    }
    return true;
}

static ShoalStatus check_share_modes(ShoalCaffeUpgrade *u, const Caffe__V1LayerParameter *old) {
    for (size_t i = 0; i < old->n_blob_share_mode; i++)
        if (old->blob_share_mode[i] != CAFFE__V1_LAYER_PARAMETER__DIM_CHECK_MODE__STRICT &&
            old->blob_share_mode[i] != CAFFE__V1_LAYER_PARAMETER__DIM_CHECK_MODE__PERMISSIVE)
            return shoal_caffe_upgrade_fail(u, old,
                                            "blob_share_mode %d, expected STRICT or PERMISSIVE",
                                            (int)old->blob_share_mode[i]);
    return SHOAL_OK;
}

/* The lists param, blob_share_mode, blobs_lr and weight_decay become one list of ParamSpecs. */
static ShoalStatus upgrade_params(ShoalCaffeUpgrade *u, Caffe__V1LayerParameter *old,
                                  Caffe__LayerParameter *now) {
    const size_t n =
        max4(old->n_param, old->n_blob_share_mode, old->n_blobs_lr, old->n_weight_decay);
    ShoalStatus status = check_share_modes(u, old);
    if (status || n == 0)
        return status;
    if (!add_params(now, n))
        return shoal_error_memory(u->err, "an upgrade", n * sizeof(Caffe__ParamSpec));
    for (size_t i = 0; i < old->n_param; i++) {
        now->param[i]->name = old->param[i];
        old->param[i] = NULL;
    }
    for (size_t i = 0; i < old->n_blob_share_mode; i++) {
        now->param[i]->has_share_mode = 1;
        now->param[i]->share_mode =
            old->blob_share_mode[i] == CAFFE__V1_LAYER_PARAMETER__DIM_CHECK_MODE__STRICT
                ? CAFFE__PARAM_SPEC__DIM_CHECK_MODE__STRICT
                : CAFFE__PARAM_SPEC__DIM_CHECK_MODE__PERMISSIVE;
    }
    for (size_t i = 0; i < old->n_blobs_lr; i++) {
        now->param[i]->has_lr_mult = 1;
        now->param[i]->lr_mult = old->blobs_lr[i];
    }
    for (size_t i = 0; i < old->n_weight_decay; i++) {
        now->param[i]->has_decay_mult = 1;
        now->param[i]->decay_mult = old->weight_decay[i];
    }
    return SHOAL_OK;
}

static ShoalStatus upgrade_type(ShoalCaffeUpgrade *u, const Caffe__V1LayerParameter *old,
                                Caffe__LayerParameter *now) {
    if (!old->has_type)
        return SHOAL_OK;
    const char *name = shoal_caffe_v1_type_name(old->type);
    if (!name)
        return shoal_caffe_upgrade_fail(
            u, old, "layer type %d is none of Caffe's; is the file damaged?", (int)old->type);
    if (!shoal_caffe_string_set(&now->type, NULL, name))
        return shoal_error_memory(u->err, "an upgrade", strlen(name));
    return SHOAL_OK;
}

/* Fields that change their meaning; all others of a V1 layer have the same name and type today. */
static bool is_special(const char *name) {
    static const char *const special[] = {"type",     "param",        "blob_share_mode",
                                          "blobs_lr", "weight_decay", "layer"};
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (strcmp(name, special[i]) == 0)
            return true;
    return false;
}

static ShoalStatus upgrade_layer(ShoalCaffeUpgrade *u, Caffe__V1LayerParameter *old,
                                 Caffe__LayerParameter *now) {
    ShoalStatus status = upgrade_type(u, old, now);
    if (!status)
        status = upgrade_params(u, old, now);
    if (status)
        return status;
    const ProtobufCMessageDescriptor *type = old->base.descriptor;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        if (!is_special(field->name))
            shoal_field_move(&old->base, field, &now->base,
                             shoal_field_find(now->base.descriptor, field->name));
    }
    return SHOAL_OK;
}

ShoalStatus shoal_caffe_upgrade_v1(ShoalCaffeUpgrade *u) {
    Caffe__NetParameter *net = u->net;
    if (net->n_layer)
        return shoal_caffe_upgrade_fail(u, net->layer[0],
                                        "the net has both \"layer\" and the old \"layers\"; write "
                                        "all of them as layer { type: \"...\" }");
    net->layer = calloc(net->n_layers, sizeof *net->layer);
    if (!net->layer)
        return shoal_error_memory(u->err, "an upgrade", net->n_layers * sizeof *net->layer);
    ShoalStatus status = SHOAL_OK;
    for (size_t i = 0; i < net->n_layers && !status; i++) {
        ProtobufCMessage *now = shoal_field_new_message(&caffe__layer_parameter__descriptor);
        if (!now)
            return shoal_error_memory(u->err, "an upgrade", sizeof *net->layer[0]);
        net->layer[net->n_layer++] = (Caffe__LayerParameter *)now;
        status = upgrade_layer(u, net->layers[i], net->layer[i]);
    }
    /* From here on the husks own the old layers, one by one. */
    while (net->n_layers && !status) {
        const size_t last = net->n_layers - 1;
        status = shoal_caffe_upgrade_retire(u, &net->layers[last]->base, &net->layer[last]->base);
        if (!status)
            net->n_layers = last;
    }
    if (status)
        return status;
    free(net->layers);
    net->layers = NULL;
    return SHOAL_OK;
}
