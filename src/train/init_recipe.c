/* SPDX-License-Identifier: Apache-2.0 */
#include "train/init_recipe.h"

#include <math.h>
#include <stdbool.h>

#include "train/init_layers.h"

int shoal_init_iterations(long long samples, int batch) {
    long long iterations = samples / batch;
    return iterations < 1 ? 1 : (int)iterations;
}

void shoal_init_number(FILE *out, double value) {
    long long billionths = llround(value * 1e9);
    char digits[16];
    int used = snprintf(digits, sizeof digits, "%09lld", billionths % 1000000000);
    while (used > 0 && digits[used - 1] == '0')
        digits[--used] = '\0';
    fprintf(out, "%lld%s%s", billionths / 1000000000, used ? "." : "", digits);
}

static void field(FILE *out, const char *name, double value) {
    fprintf(out, "%s: ", name);
    shoal_init_number(out, value);
    fputc('\n', out);
}

/* Intel Caffe's fields: its warm-up is in a line, as Goyal et al. have it, NVCaffe's is not. */
static void warm_up(FILE *out, int batch, const ShoalInitRecipe *recipe, double start) {
    long long samples = (long long)recipe->warm_passes * recipe->images;
    fprintf(out,
            "# A large rate does harm while the weights are still far off: %d pass%s of growth\n"
            "# in a line come first. These are Intel Caffe's fields; BVLC Caffe does not know\n"
            "# them and refuses the file: take them out there.\n"
            "warmup_iter: %d\n",
            recipe->warm_passes, recipe->warm_passes > 1 ? "es" : "",
            shoal_init_iterations(samples + batch - 1, batch));
    field(out, "warmup_start_lr", start);
}

/* Rates as in Intel Caffe's models/intel_optimized_models/multinode/alexnet_bn_64nodes: 2 for a
 * batch of 1k, 10 for 8k, 32 for 32k; from 1. */
static void lars_rates(FILE *out, int batch, const ShoalInitRecipe *recipe) {
    fputs("# Past a batch of 8192 one rate does not fit all layers any more. LARS gives each\n"
          "# blob of weights w with gradient g its own, lr * ratio * |w| / (|g| + decay * |w|)\n"
          "# (You et al. 2017). These, too, are Intel Caffe's fields, not BVLC Caffe's.\n"
          "local_lr_auto: true\nlocal_gw_ratio: 0.001\n",
          out);
    field(out, "base_lr", batch / 1024.0);
    warm_up(out, batch, recipe, 1);
    fputs("lr_policy: \"poly\"\npower: 2\n", out);
}

static void rates(FILE *out, int batch, const ShoalInitRecipe *recipe) {
    fprintf(out, "# In proportion to the batch; it is ");
    shoal_init_number(out, recipe->rate);
    fprintf(out, " for %d (Goyal et al. 2017, \"Accurate, Large Minibatch\n# SGD\").\n",
            recipe->rate_batch);
    field(out, "base_lr", recipe->rate * batch / recipe->rate_batch);
    if (batch > recipe->rate_batch)
        warm_up(out, batch, recipe, recipe->rate);
    recipe->policy(out, batch);
}

void shoal_init_solver(FILE *out, const char *folder, int batch, const ShoalInitRecipe *recipe) {
    bool lars = batch > SHOAL_INIT_LARS_BATCH;
    fprintf(
        out,
        "%s# Made for a batch of %d: for another one, run `shoal init` with --batch again, do not\n"
        "# change batch_size alone.\nnet: ",
        recipe->remark, batch);
    shoal_init_quoted(out, folder, "train_val.prototxt");
    fprintf(out, "\ntest_iter: %d\ntest_interval: %d\ntest_initialization: false\ntype: \"SGD\"\n",
            recipe->test_iter, shoal_init_iterations(recipe->test_every, batch));
    (lars ? lars_rates : rates)(out, batch, recipe);
    fprintf(out,
            "momentum: 0.9\nweight_decay: %s\nmax_iter: %d\ndisplay: %d\nsnapshot: %d\n"
            "snapshot_prefix: ",
            lars ? "0.0005" : recipe->decay, shoal_init_iterations(recipe->samples, batch),
            shoal_init_iterations(recipe->show_every, batch),
            shoal_init_iterations(recipe->keep_every, batch));
    shoal_init_quoted(out, folder, recipe->name);
    fputc('\n', out);
}
