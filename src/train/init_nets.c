/* SPDX-License-Identifier: Apache-2.0 */
#include "train/init_nets.h"

#include <string.h>

#include "train/init_layers.h"
#include "train/init_recipe.h"

enum { NAME_SIZE = 48 };

/* ---- ImageNet ---- */

/* "train_val.prototxt" begins with where the images come from. */
static void imagenet_head(FILE *out, const char *name, const char *remark, const char *notes,
                          const ShoalInitData *data) {
    fprintf(
        out,
        "# %s%s\n"
        "# Data: LMDBs of Datum with the images of ILSVRC 2012, scaled to 256x256, channels in\n"
        "# the order blue, green, red, labels 0 to 999, in random order: what Caffe's\n"
        "# convert_imageset makes with --resize_height=256 --resize_width=256 --shuffle (here\n"
        "# without --encoded). Paths are relative to the working folder. batch_size is the\n"
        "# batch of all workers together.\n"
        "%s"
        "name: \"%s\"\n",
        name, remark, notes, name);
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

/* Of every use of ImageNet: 50,000 images to test with, batches of 50, every 320,000 samples. */
static ShoalInitRecipe imagenet_recipe(const char *name, int passes) {
    return (ShoalInitRecipe){.name = name,
                             .images = SHOAL_INIT_IMAGENET,
                             .warm_passes = 5,
                             .test_iter = 1000,
                             .samples = (long long)passes * SHOAL_INIT_IMAGENET,
                             .test_every = 320000,
                             .show_every = 3200,
                             .keep_every = 320000};
}

/* ---- ResNet-50 (He et al. 2015, "Deep Residual Learning", table 1) ---- */

enum { STAGES = 4 };

typedef struct Resnet {
    bool stride_in_3x3; /* v1.5: torchvision, as in Gross and Wilber 2016; else v1: in the 1x1 */
    bool stem_bias;     /* He's files have one, so their weights fit */
} Resnet;

static const ShoalInitWeights resnet_conv = {.filler = SHOAL_INIT_MSRA};

/* A convolution with its normalisation: "res2a_branch2b", "bn2a_branch2b", "scale2a_branch2b". */
static void resnet_unit(FILE *out, const char *place, const char *bottom, const ShoalInitConv *conv,
                        const char *factor) {
    char name[NAME_SIZE], norm[NAME_SIZE], scale[NAME_SIZE];
    snprintf(name, sizeof name, "res%.24s", place);
    snprintf(norm, sizeof norm, "bn%.24s", place);
    snprintf(scale, sizeof scale, "scale%.24s", place);
    shoal_init_conv(out, name, bottom, conv, &resnet_conv);
    shoal_init_norm_from(out, norm, scale, name, factor);
}

static void resnet_branch(FILE *out, const char *block, char letter, const char *bottom,
                          const ShoalInitConv *conv) {
    char place[NAME_SIZE / 2], relu[NAME_SIZE];
    snprintf(place, sizeof place, "%.8s_branch2%c", block, letter);
    /* A block begins as nothing but its shortcut (Goyal et al. 2017, section 5.1). */
    resnet_unit(out, place, bottom, conv, letter == 'c' ? "0" : NULL);
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
                    &(ShoalInitConv){.outputs = 4 * width, .kernel = 1, .stride = stride}, NULL);
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

static void write_resnet(FILE *out, const char *folder, int batch, const char *remark,
                         const Resnet *net) {
    ShoalInitData data = imagenet_data(folder, batch, 224);
    imagenet_head(
        out, "ResNet-50", remark,
        "# BatchNorm takes its averages over the share of one worker; Goyal et al. 2017 had 32\n"
        "# images in each. The factors of the last Scale of a block begin with 0: at first a\n"
        "# block is its shortcut. Factors, shifts and biases have no decay.\n",
        &data);
    resnet_stem(out, net);
    resnet_body(out, net);
    shoal_init_inner_product(
        out, "fc1000", "pool5", 1000,
        &(ShoalInitWeights){.filler = "type: \"gaussian\" std: 0.01", .bias = true});
    shoal_init_ends(out, "fc1000", true);
}

static void resnet50_train_val(FILE *out, const char *folder, int batch) {
    write_resnet(out, folder, batch, " v1.5: stride in the 3x3 of a block",
                 &(Resnet){.stride_in_3x3 = true});
}

static void resnet50_v1_train_val(FILE *out, const char *folder, int batch) {
    write_resnet(out, folder, batch, " v1: stride in the first 1x1 of a block",
                 &(Resnet){.stem_bias = true});
}

static void resnet_policy(FILE *out, int batch) {
    fputs("lr_policy: \"multistep\"\ngamma: 0.1\n", out);
    static const int passes[] = {30, 60, 80};
    for (size_t i = 0; i < sizeof passes / sizeof passes[0]; i++)
        fprintf(out, "stepvalue: %d\n",
                shoal_init_iterations((long long)passes[i] * SHOAL_INIT_IMAGENET, batch));
}

static void resnet_solver(FILE *out, const char *folder, int batch, const char *name) {
    ShoalInitRecipe recipe = imagenet_recipe(name, 90);
    recipe.remark =
        batch > SHOAL_INIT_LARS_BATCH
            ? "# 90 passes over the images of ILSVRC 2012; the rate falls in a square to 0.\n"
            : "# 90 passes over the images of ILSVRC 2012; the rate falls to a tenth after "
              "30, 60 and 80.\n";
    recipe.rate = 0.1;
    recipe.rate_batch = 256;
    recipe.decay = "0.0001";
    recipe.policy = resnet_policy;
    shoal_init_solver(out, folder, batch, &recipe);
}

static void resnet50_solver(FILE *out, const char *folder, int batch) {
    resnet_solver(out, folder, batch, "resnet50");
}

static void resnet50_v1_solver(FILE *out, const char *folder, int batch) {
    resnet_solver(out, folder, batch, "resnet50_v1");
}

/* ---- MobileNet-v1 (Howard et al. 2017, table 1) ---- */

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

static void mobilenet_v1_train_val(FILE *out, const char *folder, int batch) {
    static const struct {
        const char *place;
        int outputs, stride;
    } pairs[] = {{"2_1", 64, 1},  {"2_2", 128, 2}, {"3_1", 128, 1}, {"3_2", 256, 2},
                 {"4_1", 256, 1}, {"4_2", 512, 2}, {"5_1", 512, 1}, {"5_2", 512, 1},
                 {"5_3", 512, 1}, {"5_4", 512, 1}, {"5_5", 512, 1}, {"5_6", 1024, 2},
                 {"6", 1024, 1}};
    static const ShoalInitWeights stem = {.filler = SHOAL_INIT_MSRA};
    ShoalInitData data = imagenet_data(folder, batch, 224);
    data.scale = "0.017";
    char blob[NAME_SIZE] = "conv1";
    int channels = 32;
    imagenet_head(out, "MobileNet-v1", ", width 1.0", "", &data);
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

static void mobilenet_policy(FILE *out, int batch) {
    (void)batch;
    fputs("lr_policy: \"poly\"\npower: 1\n", out);
}

static void mobilenet_v1_solver(FILE *out, const char *folder, int batch) {
    ShoalInitRecipe recipe = imagenet_recipe("mobilenet_v1", 100);
    recipe.remark =
        batch > SHOAL_INIT_LARS_BATCH
            ? "# 100 passes over the images of ILSVRC 2012, the rate falling in a square to 0.\n"
            : "# 100 passes over the images of ILSVRC 2012, the rate falling in a line to 0.\n";
    recipe.rate = 0.1;
    recipe.rate_batch = 256;
    recipe.decay = "0.00004";
    recipe.policy = mobilenet_policy;
    shoal_init_solver(out, folder, batch, &recipe);
}

/* ---- AlexNet (Krizhevsky et al. 2012, in the form of BVLC Caffe's models/bvlc_alexnet) ---- */

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

static void alexnet_train_val(FILE *out, const char *folder, int batch) {
    static const ShoalInitWeights hidden = {.filler = "type: \"gaussian\" std: 0.005",
                                            .bias = true,
                                            .bias_value = "0.1",
                                            .bias_lr = "2"};
    static const ShoalInitWeights last = {
        .filler = "type: \"gaussian\" std: 0.01", .bias = true, .bias_lr = "2"};
    ShoalInitData data = imagenet_data(folder, batch, 227);
    imagenet_head(out, "AlexNet", "", "", &data);
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

enum { ALEXNET_STEP = 100000 * 256 }; /* samples */

static void alexnet_policy(FILE *out, int batch) {
    fprintf(out, "lr_policy: \"step\"\ngamma: 0.1\nstepsize: %d\n",
            shoal_init_iterations(ALEXNET_STEP, batch));
}

static void alexnet_solver(FILE *out, const char *folder, int batch) {
    ShoalInitRecipe recipe = imagenet_recipe("alexnet", 90);
    recipe.remark = batch > SHOAL_INIT_LARS_BATCH
                        ? "# About 90 passes over the images of ILSVRC 2012, the rate falling in a "
                          "square to 0.\n"
                        : "# About 90 passes over the images of ILSVRC 2012; the rate falls to a "
                          "tenth every 20.\n"
                          "# Having no BatchNorm, it loses accuracy in batches of more than some "
                          "1000 images (You et\n"
                          "# al. 2017, section 4).\n";
    recipe.rate = 0.01;
    recipe.rate_batch = 256;
    recipe.decay = "0.0005";
    recipe.samples = 450000LL * 256;
    recipe.test_every = 1000 * 256;
    recipe.show_every = 20 * 256;
    recipe.keep_every = 10000 * 256;
    recipe.policy = alexnet_policy;
    shoal_init_solver(out, folder, batch, &recipe);
}

/* ---- LeNet (LeCun et al. 1998, in the form of BVLC Caffe's examples/mnist) ---- */

static void lenet_train_val(FILE *out, const char *folder, int batch) {
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
                                          .train_batch = batch,
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

enum { LENET_BATCH = 64 };

static void lenet_policy(FILE *out, int batch) {
    fputs("lr_policy: \"inv\"\ngamma: ", out);
    shoal_init_number(out, 0.0001 * batch / LENET_BATCH); /* of an iteration */
    fputs("\npower: 0.75\n", out);
}

static void lenet_solver(FILE *out, const char *folder, int batch) {
    shoal_init_solver(
        out, folder, batch,
        &(ShoalInitRecipe){.name = "lenet",
                           .remark = "# About 11 passes over MNIST's 60,000 images.\n",
                           .images = 60000,
                           .rate = 0.01,
                           .rate_batch = LENET_BATCH,
                           .warm_passes = 1,
                           .decay = "0.0005",
                           .test_iter = 100,
                           .samples = 10000 * LENET_BATCH,
                           .test_every = 500 * LENET_BATCH,
                           .show_every = 100 * LENET_BATCH,
                           .keep_every = 5000 * LENET_BATCH,
                           .policy = lenet_policy});
}

/* ---- table ---- */

static const ShoalInitNet NETS[] = {
    {"resnet50", "ResNet-50 v1.5: stride in the 3x3, as torchvision's", 32, resnet50_train_val,
     resnet50_solver},
    {"resnet50_v1", "ResNet-50 as He et al. published it: stride in the 1x1", 32,
     resnet50_v1_train_val, resnet50_v1_solver},
    {"mobilenet_v1", "MobileNet-v1, width 1.0, 224x224", 32, mobilenet_v1_train_val,
     mobilenet_v1_solver},
    {"alexnet", "AlexNet as BVLC Caffe has it: groups, LRN, 227x227", 256, alexnet_train_val,
     alexnet_solver},
    {"lenet", "LeNet for MNIST", LENET_BATCH, lenet_train_val, lenet_solver},
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
