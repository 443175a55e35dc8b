/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/error.h"
#include "cli/cli.h"

/* The sum of all losses, as Caffe has it above the means. */
static void print_loss(const ShoalEvent *event) {
    double loss = 0;
    for (int i = 0; i < event->n_outputs; i++)
        loss += (double)event->outputs[i].loss_weight * (double)event->outputs[i].value;
    printf("Loss: %g\n", loss);
}

static void on_event(void *context, const ShoalEvent *event) {
    (void)context;
    for (int i = 0; i < event->n_outputs && event->kind == SHOAL_EVENT_TEST_BATCH; i++)
        printf("Batch %d, %s = %g\n", event->iter, event->outputs[i].name,
               (double)event->outputs[i].value);
    if (event->kind == SHOAL_EVENT_TEST)
        print_loss(event);
    for (int i = 0; i < event->n_outputs && event->kind == SHOAL_EVENT_TEST; i++) {
        const ShoalOutput *output = &event->outputs[i];
        double value = (double)output->value, weight = (double)output->loss_weight;
        printf("%s = %g", output->name, value);
        if (weight != 0)
            printf(" (* %g = %g loss)", weight, weight * value);
        printf("\n");
    }
    if (event->kind == SHOAL_EVENT_TEST)
        printf("%.1f images/s\n", event->images_per_s);
}

static int run(int argc, char **argv) {
    ShoalTestOptions options = {.stop = shoal_cli_catch_signals(), .on_event = on_event};
    const ShoalFlag flags[] = {
        {"model", SHOAL_FLAG_TEXT, &options.model, "FILE", "the net, a prototxt (required)"},
        {"weights", SHOAL_FLAG_TEXT, &options.weights, "FILE[,FILE...]",
         "its weights, .caffemodel (required)"},
        {"iterations", SHOAL_FLAG_COUNT, &options.iterations, "N", "batches to test (default 50)"},
        {"threads", SHOAL_FLAG_COUNT, &options.engine.threads, "N",
         "threads (default: one for each of the fastest cores)"},
        SHOAL_FLAGS_CHOICE(options.choice),
        SHOAL_FLAGS_ENGINE(options.engine),
    };
    const ShoalUsage usage = {
        .command = "test",
        .purpose = "Runs a net in phase TEST over its data and prints its outputs, batch by batch, "
                   "then\ntheir means.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .caffe = true,
        .notes = "Example:\n  shoal test --model=lenet_train_test.prototxt "
                 "--weights=lenet_iter_10000.caffemodel \\\n             --iterations=100\n"};
    int code = shoal_flags_parse(&usage, argc, argv, NULL);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    if (!options.model || !options.weights) {
        shoal_error_set(&error, SHOAL_ERR_ARGUMENT, "--%s=FILE is missing",
                        options.model ? "weights" : "model");
        return shoal_cli_fail("test", &error);
    }
    return shoal_test(&options, &error) ? shoal_cli_fail("test", &error) : SHOAL_EXIT_OK;
}

const ShoalCommand shoal_command_test = {"test", "test a trained net", run};
