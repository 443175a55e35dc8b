/* SPDX-License-Identifier: Apache-2.0 */
#include "train/init_nets.h"

#include <string.h>

#include "train/init_layers.h"

enum { NAME_SIZE = 48 };

/* ---- ImageNet ---- */

/* "train_val.prototxt" begins with where the images come from. */
static void imagenet_head(FILE *out, const char *name, const char *remark,
                          const ShoalInitData *data) {
    fprintf(
        out,
        "# %s%s\n"
        "# Data: LMDBs of Datum with the images of ILSVRC 2012, scaled to 256x256, channels in\n"
        "# the order blue, green, red, labels 0 to 999, in random order: what Caffe's\n"
        "# convert_imageset makes with --resize_height=256 --resize_width=256 --shuffle (here\n"
        "# without --encoded). Paths are relative to the working folder. batch_size is the\n"
        "# batch of all workers together.\n"
        "name: \"%s\"\n",
        name, remark, name);
    shoal_init_data(out, data);
}

static ShoalInitData imagenet_data(const char *folder, int batch, int crop) {
    return (ShoalInitData){.train_lmdb = "ilsvrc12_train_lmdb",
                           .test_lmdb = "ilsvrc12_val_lmdb",
                           .folder = folder,
                           .train_batch = batch,
                           .test_batch = 50,
                           .crop = crop,
                           .mirror = true,
                           .means = {"104", "117", "123"}};
}

enum { IMAGENET_TRAIN = 1281167 };

/* Iterations of so many passes over the training images. */
static int imagenet_iterations(int passes, int batch) {
    return (int)((long long)passes * IMAGENET_TRAIN / batch);
}

/* ---- solvers ---- */

typedef struct Recipe {
    const char *name; /* of the snapshots */
    const char *remark;
    int test_iter, test_interval, max_iter, display, snapshot;
    const char *base_lr, *policy; /* policy: lines of text */
    const char *decay;
} Recipe;

static void write_solver(FILE *out, const char *folder, const Recipe *recipe) {
    fprintf(out, "%snet: ", recipe->remark);
    shoal_init_quoted(out, folder, "train_val.prototxt");
    fprintf(out,
            "\ntest_iter: %d\ntest_interval: %d\ntest_initialization: false\n"
            "type: \"SGD\"\nbase_lr: %s\n%smomentum: 0.9\nweight_decay: %s\n"
            "max_iter: %d\ndisplay: %d\nsnapshot: %d\nsnapshot_prefix: ",
            recipe->test_iter, recipe->test_interval, recipe->base_lr, recipe->policy,
            recipe->decay, recipe->max_iter, recipe->display, recipe->snapshot);
    shoal_init_quoted(out, folder, recipe->name);
    fputc('\n', out);
}

#define SCALE_REMARK                                                                               \
    "# For another batch_size, change base_lr in proportion and max_iter against it (Goyal et\n"   \
    "# al. 2017, \"Accurate, Large Minibatch SGD\").\n"

/* ---- ResNet-50 (He et al. 2015, "Deep Residual Learning", table 1) ---- */

enum { RESNET_BATCH = 32, STAGES = 4 };

typedef struct Resnet {
    bool stride_in_3x3; /* v1.5: torchvision, as in Gross and Wilber 2016; else v1: in the 1x1 */
    bool stem_bias;     /* He's files have one, so their weights fit */
} Resnet;

static const ShoalInitWeights resnet_conv = {.filler = SHOAL_INIT_MSRA};

/* A convolution with its normalisation: "res2a_branch2b", "bn2a_branch2b", "scale2a_branch2b". */
static void resnet_unit(FILE *out, const char *place, const char *bottom,
                        const ShoalInitConv *conv) {
    char name[NAME_SIZE], norm[NAME_SIZE], scale[NAME_SIZE];
    snprintf(name, sizeof name, "res%.24s", place);
    snprintf(norm, sizeof norm, "bn%.24s", place);
    snprintf(scale, sizeof scale, "scale%.24s", place);
    shoal_init_conv(out, name, bottom, conv, &resnet_conv);
    shoal_init_norm(out, norm, scale, name);
}

static void resnet_branch(FILE *out, const char *block, char letter, const char *bottom,
                          const ShoalInitConv *conv) {
    char place[NAME_SIZE / 2], relu[NAME_SIZE];
    snprintf(place, sizeof place, "%.8s_branch2%c", block, letter);
    resnet_unit(out, place, bottom, conv);
    if (letter == 'c')
        return;
    char blob[NAME_SIZE];
    snprintf(blob, sizeof blob, "res%.24s", place);
    snprintf(relu, sizeof relu, "res%.24s_relu", place);
    shoal_init_relu(out, relu, blob);
}

/* One block; `bottom` is replaced by the name of its output. */
static void resnet_block(FILE *out, const Resnet *net, const char *block, int width, int stride,
                         bool project, char bottom[NAME_SIZE]) {
    char top[NAME_SIZE], name[NAME_SIZE], branch[4][NAME_SIZE];
    snprintf(branch[0], NAME_SIZE, "%.8s_branch1", block);
    if (project)
        resnet_unit(out, branch[0], bottom,
                    &(ShoalInitConv){.outputs = 4 * width, .kernel = 1, .stride = stride});
    snprintf(branch[0], NAME_SIZE, "res%.8s_branch1", block);
    for (int i = 1; i < 4; i++)
        snprintf(branch[i], NAME_SIZE, "res%.8s_branch2%c", block, 'a' + i - 1);
    int first = net->stride_in_3x3 ? 1 : stride, second = net->stride_in_3x3 ? stride : 1;
    resnet_branch(out, block, 'a', bottom,
                  &(ShoalInitConv){.outputs = width, .kernel = 1, .stride = first});
    resnet_branch(out, block, 'b', branch[1],
                  &(ShoalInitConv){.outputs = width, .kernel = 3, .stride = second, .pad = 1});
    resnet_branch(out, block, 'c', branch[2], &(ShoalInitConv){.outputs = 4 * width, .kernel = 1});
    snprintf(top, sizeof top, "res%.8s", block);
    snprintf(name, sizeof name, "res%.8s_relu", block);
    shoal_init_sum(out, top, project ? branch[0] : bottom, branch[3]);
    shoal_init_relu(out, name, top);
    memcpy(bottom, top, sizeof top);
}

static void resnet_stem(FILE *out, const Resnet *net) {
    ShoalInitWeights weights = resnet_conv;
    weights.bias = net->stem_bias;
    shoal_init_conv(out, "conv1", "data",
                    &(ShoalInitConv){.outputs = 64, .kernel = 7, .stride = 2, .pad = 3}, &weights);
    shoal_init_norm(out, "bn_conv1", "scale_conv1", "conv1");
    shoal_init_relu(out, "conv1_relu", "conv1");
    /* Both give 56x56: torchvision pads, Caffe's last window hangs over. */
    if (net->stride_in_3x3)
        shoal_init_max_pool_padded(out, "pool1", "conv1", 3, 2, 1);
    else
        shoal_init_max_pool(out, "pool1", "conv1", 3, 2);
}

static void resnet_body(FILE *out, const Resnet *net) {
    static const int blocks[STAGES] = {3, 4, 6, 3};
    char blob[NAME_SIZE] = "pool1";
    for (int stage = 0; stage < STAGES; stage++)
        for (int i = 0; i < blocks[stage]; i++) {
            char block[8];
            snprintf(block, sizeof block, "%d%c", stage + 2, 'a' + i);
            int stride = stage > 0 && i == 0 ? 2 : 1;
            resnet_block(out, net, block, 64 << stage, stride, i == 0, blob);
        }
    shoal_init_global_pool(out, "pool5", blob);
}

static void write_resnet(FILE *out, const char *folder, const char *remark, const Resnet *net) {
    ShoalInitData data = imagenet_data(folder, RESNET_BATCH, 224);
    imagenet_head(out, "ResNet-50", remark, &data);
    resnet_stem(out, net);
    resnet_body(out, net);
    shoal_init_inner_product(
        out, "fc1000", "pool5", 1000,
        &(ShoalInitWeights){.filler = "type: \"gaussian\" std: 0.01", .bias = true});
    shoal_init_ends(out, "fc1000", true);
}

static void resnet50_train_val(FILE *out, const char *folder) {
    write_resnet(out, folder, " v1.5: stride in the 3x3 of a block",
                 &(Resnet){.stride_in_3x3 = true});
}

static void resnet50_v1_train_val(FILE *out, const char *folder) {
    write_resnet(out, folder, " v1: stride in the first 1x1 of a block",
                 &(Resnet){.stem_bias = true});
}

static void resnet_solver(FILE *out, const char *folder, const char *name) {
    char policy[160];
    snprintf(policy, sizeof policy,
             "lr_policy: \"multistep\"\ngamma: 0.1\nstepvalue: %d\nstepvalue: %d\nstepvalue: %d\n",
             imagenet_iterations(30, RESNET_BATCH), imagenet_iterations(60, RESNET_BATCH),
             imagenet_iterations(80, RESNET_BATCH));
    write_solver(out, folder,
                 &(Recipe){.name = name,
                           .remark =
                               "# 90 passes over the images of ILSVRC 2012; the rate falls "
                               "to a tenth after 30, 60 and 80.\n"
                               "# It is 0.1 for a batch of 256, so 0.0125 for 32.\n" SCALE_REMARK,
                           .test_iter = 1000,
                           .test_interval = 10000,
                           .max_iter = imagenet_iterations(90, RESNET_BATCH),
                           .display = 100,
                           .snapshot = 10000,
                           .base_lr = "0.0125",
                           .policy = policy,
                           .decay = "0.0001"});
}

static void resnet50_solver(FILE *out, const char *folder) {
    resnet_solver(out, folder, "resnet50");
}

static void resnet50_v1_solver(FILE *out, const char *folder) {
    resnet_solver(out, folder, "resnet50_v1");
}

/* ---- MobileNet-v1 (Howard et al. 2017, table 1) ---- */

enum { MOBILENET_BATCH = 32 };

static void mobilenet_unit(FILE *out, const char *name, const char *relu, const char *bottom,
                           const ShoalInitConv *conv, const ShoalInitWeights *weights) {
    char norm[NAME_SIZE], scale[NAME_SIZE];
    snprintf(norm, sizeof norm, "%.32s/bn", name);
    snprintf(scale, sizeof scale, "%.32s/scale", name);
    shoal_init_conv(out, name, bottom, conv, weights);
    shoal_init_norm(out, norm, scale, name);
    shoal_init_relu(out, relu, name);
}

/* A depthwise 3x3 and a pointwise 1x1; `bottom` is replaced by the name of the output. */
static void mobilenet_pair(FILE *out, const char *place, int channels, int outputs, int stride,
                           char bottom[NAME_SIZE]) {
    /* Depthwise filters are small and few: the paper gives them little or no decay. */
    static const ShoalInitWeights depthwise = {.filler = SHOAL_INIT_MSRA, .decay = "0"};
    static const ShoalInitWeights pointwise = {.filler = SHOAL_INIT_MSRA};
    char dw[NAME_SIZE], sep[NAME_SIZE], relu[NAME_SIZE];
    snprintf(dw, sizeof dw, "conv%.8s/dw", place);
    snprintf(relu, sizeof relu, "relu%.8s/dw", place);
    mobilenet_unit(
        out, dw, relu, bottom,
        &(ShoalInitConv){
            .outputs = channels, .kernel = 3, .stride = stride, .pad = 1, .group = channels},
        &depthwise);
    snprintf(sep, sizeof sep, "conv%.8s/sep", place);
    snprintf(relu, sizeof relu, "relu%.8s/sep", place);
    mobilenet_unit(out, sep, relu, dw, &(ShoalInitConv){.outputs = outputs, .kernel = 1},
                   &pointwise);
    memcpy(bottom, sep, sizeof sep);
}

static void mobilenet_v1_train_val(FILE *out, const char *folder) {
    static const struct {
        const char *place;
        int outputs, stride;
    } pairs[] = {{"2_1", 64, 1},  {"2_2", 128, 2}, {"3_1", 128, 1}, {"3_2", 256, 2},
                 {"4_1", 256, 1}, {"4_2", 512, 2}, {"5_1", 512, 1}, {"5_2", 512, 1},
                 {"5_3", 512, 1}, {"5_4", 512, 1}, {"5_5", 512, 1}, {"5_6", 1024, 2},
                 {"6", 1024, 1}};
    static const ShoalInitWeights stem = {.filler = SHOAL_INIT_MSRA};
    ShoalInitData data = imagenet_data(folder, MOBILENET_BATCH, 224);
    data.scale = "0.017";
    char blob[NAME_SIZE] = "conv1";
    int channels = 32;
    imagenet_head(out, "MobileNet-v1", ", width 1.0", &data);
    mobilenet_unit(out, "conv1", "relu1", "data",
                   &(ShoalInitConv){.outputs = channels, .kernel = 3, .stride = 2, .pad = 1},
                   &stem);
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        mobilenet_pair(out, pairs[i].place, channels, pairs[i].outputs, pairs[i].stride, blob);
        channels = pairs[i].outputs;
    }
    shoal_init_global_pool(out, "pool6", blob);
    /* A convolution, as in the weights that go round for Caffe. */
    shoal_init_conv(out, "fc7", "pool6", &(ShoalInitConv){.outputs = 1000, .kernel = 1},
                    &(ShoalInitWeights){.filler = SHOAL_INIT_MSRA, .bias = true, .bias_lr = "2"});
    shoal_init_ends(out, "fc7", true);
}

static void mobilenet_v1_solver(FILE *out, const char *folder) {
    write_solver(out, folder,
                 &(Recipe){.name = "mobilenet_v1",
                           .remark =
                               "# 100 passes over the images of ILSVRC 2012, the rate falling "
                               "in a line to 0.\n" SCALE_REMARK,
                           .test_iter = 1000,
                           .test_interval = 10000,
                           .max_iter = imagenet_iterations(100, MOBILENET_BATCH),
                           .display = 100,
                           .snapshot = 10000,
                           .base_lr = "0.0125",
                           .policy = "lr_policy: \"poly\"\npower: 1\n",
                           .decay = "0.00004"});
}

/* ---- AlexNet (Krizhevsky et al. 2012, in the form of BVLC Caffe's models/bvlc_alexnet) ---- */

enum { ALEXNET_BATCH = 256 };

static void alexnet_convs(FILE *out) {
    static const struct {
        const char *name, *bottom, *relu;
        ShoalInitConv conv;
        const char *bias, *lrn, *pool;
    } rows[] = {
        {"conv1", "data", "relu1", {96, 11, 4, 0, 1}, "0", "norm1", "pool1"},
        {"conv2", "pool1", "relu2", {256, 5, 1, 2, 2}, "0.1", "norm2", "pool2"},
        {"conv3", "pool2", "relu3", {384, 3, 1, 1, 1}, "0", NULL, NULL},
        {"conv4", "conv3", "relu4", {384, 3, 1, 1, 2}, "0.1", NULL, NULL},
        {"conv5", "conv4", "relu5", {256, 3, 1, 1, 2}, "0.1", NULL, "pool5"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const ShoalInitWeights weights = {.filler = "type: \"gaussian\" std: 0.01",
                                          .bias = true,
                                          .bias_value = rows[i].bias,
                                          .bias_lr = "2"};
        shoal_init_conv(out, rows[i].name, rows[i].bottom, &rows[i].conv, &weights);
        shoal_init_relu(out, rows[i].relu, rows[i].name);
        if (rows[i].lrn)
            shoal_init_lrn(out, rows[i].lrn, rows[i].name);
        if (rows[i].pool)
            shoal_init_max_pool(out, rows[i].pool, rows[i].lrn ? rows[i].lrn : rows[i].name, 3, 2);
    }
}

static void alexnet_train_val(FILE *out, const char *folder) {
    static const ShoalInitWeights hidden = {.filler = "type: \"gaussian\" std: 0.005",
                                            .bias = true,
                                            .bias_value = "0.1",
                                            .bias_lr = "2"};
    static const ShoalInitWeights last = {
        .filler = "type: \"gaussian\" std: 0.01", .bias = true, .bias_lr = "2"};
    ShoalInitData data = imagenet_data(folder, ALEXNET_BATCH, 227);
    imagenet_head(out, "AlexNet", "", &data);
    alexnet_convs(out);
    shoal_init_inner_product(out, "fc6", "pool5", 4096, &hidden);
    shoal_init_relu(out, "relu6", "fc6");
    shoal_init_dropout(out, "drop6", "fc6");
    shoal_init_inner_product(out, "fc7", "fc6", 4096, &hidden);
    shoal_init_relu(out, "relu7", "fc7");
    shoal_init_dropout(out, "drop7", "fc7");
    shoal_init_inner_product(out, "fc8", "fc7", 1000, &last);
    shoal_init_ends(out, "fc8", true);
}

static void alexnet_solver(FILE *out, const char *folder) {
    write_solver(out, folder,
                 &(Recipe){.name = "alexnet",
                           .remark = "# About 90 passes over the images of ILSVRC 2012; the rate "
                                     "falls to a tenth every 100,000\n# iterations.\n" SCALE_REMARK,
                           .test_iter = 1000,
                           .test_interval = 1000,
                           .max_iter = 450000,
                           .display = 20,
                           .snapshot = 10000,
                           .base_lr = "0.01",
                           .policy = "lr_policy: \"step\"\ngamma: 0.1\nstepsize: 100000\n",
                           .decay = "0.0005"});
}

/* ---- LeNet (LeCun et al. 1998, in the form of BVLC Caffe's examples/mnist) ---- */

static void lenet_train_val(FILE *out, const char *folder) {
    static const ShoalInitWeights weights = {
        .filler = SHOAL_INIT_XAVIER, .bias = true, .bias_lr = "2"};
    fputs(
        "# LeNet\n"
        "# Data: LMDBs that `shoal convert_mnist_data` makes of MNIST's files. Paths are relative\n"
        "# to the working folder. batch_size is the batch of all workers together.\n"
        "name: \"LeNet\"\n",
        out);
    shoal_init_data(out, &(ShoalInitData){.train_lmdb = "mnist_train_lmdb",
                                          .test_lmdb = "mnist_test_lmdb",
                                          .folder = folder,
                                          .train_batch = 64,
                                          .test_batch = 100,
                                          .scale = "0.00390625"});
    shoal_init_conv(out, "conv1", "data", &(ShoalInitConv){.outputs = 20, .kernel = 5}, &weights);
    shoal_init_max_pool(out, "pool1", "conv1", 2, 2);
    shoal_init_conv(out, "conv2", "pool1", &(ShoalInitConv){.outputs = 50, .kernel = 5}, &weights);
    shoal_init_max_pool(out, "pool2", "conv2", 2, 2);
    shoal_init_inner_product(out, "ip1", "pool2", 500, &weights);
    shoal_init_relu(out, "relu1", "ip1");
    shoal_init_inner_product(out, "ip2", "ip1", 10, &weights);
    shoal_init_ends(out, "ip2", false);
}

static void lenet_solver(FILE *out, const char *folder) {
    write_solver(out, folder,
                 &(Recipe){.name = "lenet",
                           .remark = "# About 11 passes over MNIST's 60,000 images.\n",
                           .test_iter = 100,
                           .test_interval = 500,
                           .max_iter = 10000,
                           .display = 100,
                           .snapshot = 5000,
                           .base_lr = "0.01",
                           .policy = "lr_policy: \"inv\"\ngamma: 0.0001\npower: 0.75\n",
                           .decay = "0.0005"});
}

/* ---- table ---- */

static const ShoalInitNet NETS[] = {
    {"resnet50", "ResNet-50 v1.5: stride in the 3x3, as torchvision's", resnet50_train_val,
     resnet50_solver},
    {"resnet50_v1", "ResNet-50 as He et al. published it: stride in the 1x1", resnet50_v1_train_val,
     resnet50_v1_solver},
    {"mobilenet_v1", "MobileNet-v1, width 1.0, 224x224", mobilenet_v1_train_val,
     mobilenet_v1_solver},
    {"alexnet", "AlexNet as BVLC Caffe has it: groups, LRN, 227x227", alexnet_train_val,
     alexnet_solver},
    {"lenet", "LeNet for MNIST", lenet_train_val, lenet_solver},
};

const ShoalInitNet *shoal_init_net_at(int n) {
    return n >= 0 && (size_t)n < sizeof NETS / sizeof NETS[0] ? &NETS[n] : NULL;
}

const ShoalInitNet *shoal_init_net_find(const char *name) {
    for (int n = 0; shoal_init_net_at(n); n++)
        if (!strcmp(NETS[n].name, name))
            return &NETS[n];
    return NULL;
}
