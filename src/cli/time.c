/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "cli/cli.h"

/* ---- sums and quotients ---- */

static double both_ms(const ShoalLayerTime *row) {
    return row->forward_ms + row->backward_ms;
}

static double both_gflop(const ShoalLayerTime *row) {
    return row->forward_gflop + row->backward_gflop;
}

static double both_gb(const ShoalLayerTime *row) {
    return row->forward_gb + row->backward_gb;
}

/* `amount` in `ms`, a second; 0 where no time passed. */
static double per_second(double amount, double ms) {
    return ms > 0 ? amount / ms * 1e3 : 0;
}

static double percent(double part, double whole) {
    return whole > 0 ? 100 * part / whole : 0;
}

static ShoalLayerTime add_rows(const ShoalTimes *times, const char *type) {
    ShoalLayerTime sum = {.name = "", .type = type};
    for (int i = 0; i < times->n_layers; i++) {
        const ShoalLayerTime *row = &times->layers[i];
        if (type && strcmp(row->type, type))
            continue;
        sum.forward_ms += row->forward_ms;
        sum.backward_ms += row->backward_ms;
        sum.forward_gflop += row->forward_gflop;
        sum.backward_gflop += row->backward_gflop;
        sum.forward_gb += row->forward_gb;
        sum.backward_gb += row->backward_gb;
    }
    return sum;
}

/* ---- table ---- */

static void print_head(const char *first, int width, const char *last) {
    printf("%-*s  %-15s %11s %11s %6s %9s %8s %6s %8s %6s%s\n", width, first, "type", "forward ms",
           "backward ms", "share", "GFLOP", "GFLOP/s", "peak", "GB moved", "GB/s", last);
}

static void print_row(const ShoalTimes *times, const char *first, int width,
                      const ShoalLayerTime *row) {
    if (row->fused_into) {
        printf("%-*s  %-15s %11s %11s %6s %9s %8s %6s %8s %6s  %s\n", width, first, row->type, "-",
               "-", "-", "-", "-", "-", "-", "-", row->fused_into);
        return;
    }
    double total = times->forward_ms + times->backward_ms, ms = both_ms(row);
    printf("%-*s  %-15s %11.3f %11.3f %5.1f%%", width, first, row->type, row->forward_ms,
           row->backward_ms, percent(ms, total));
    double flop = both_gflop(row), rate = per_second(flop, ms);
    if (flop > 0)
        printf(" %9.3f %8.1f %5.1f%%", flop, rate, percent(rate, times->peak_gflops));
    else
        printf(" %9s %8s %6s", "-", "-", "-");
    if (both_gb(row) > 0)
        printf(" %8.4f %6.1f\n", both_gb(row), per_second(both_gb(row), ms));
    else
        printf(" %8s %6s\n", "-", "-");
}

static void print_layers(const ShoalTimes *times) {
    int width = 8;
    bool fused = false;
    for (int i = 0; i < times->n_layers; i++) {
        int n = snprintf(NULL, 0, "%s", times->layers[i].name);
        width = n > width ? n : width;
        fused = fused || times->layers[i].fused_into;
    }
    print_head("layer", width, fused ? "  fused into" : "");
    for (int i = 0; i < times->n_layers; i++)
        print_row(times, times->layers[i].name, width, &times->layers[i]);
}

static bool is_first_of_type(const ShoalTimes *times, int row) {
    for (int i = 0; i < row; i++)
        if (!strcmp(times->layers[i].type, times->layers[row].type))
            return false;
    return true;
}

static void print_types(const ShoalTimes *times) {
    putchar('\n');
    print_head("layers", 8, "");
    for (int i = 0; i < times->n_layers; i++) {
        if (!is_first_of_type(times, i))
            continue;
        ShoalLayerTime sum = add_rows(times, times->layers[i].type);
        int count = 0;
        for (int k = i; k < times->n_layers; k++)
            count += !strcmp(times->layers[k].type, sum.type);
        char number[16];
        snprintf(number, sizeof number, "%d", count);
        print_row(times, number, 8, &sum);
    }
}

static void print_summary(const ShoalTimes *times) {
    ShoalLayerTime sum = add_rows(times, NULL);
    printf("\nAverage Forward pass: %.3f ms.\n", times->forward_ms);
    printf("Average Backward pass: %.3f ms.\n", times->backward_ms);
    printf("Average Forward-Backward: %.3f ms.\n", times->forward_ms + times->backward_ms);
    printf("Average Update: %.3f ms.\n", times->update_ms);
    printf("Average Iteration: %.3f ms.\n", times->iteration_ms);
    double rate = per_second(both_gflop(&sum), times->iteration_ms);
    printf("GFLOP of an iteration: %.2f; %.1f GFLOP/s, %.1f%% of the measured peak of %.1f "
           "(level %s, %d thread%s)\n",
           both_gflop(&sum), rate, percent(rate, times->peak_gflops), times->peak_gflops,
           times->level, times->threads, times->threads == 1 ? "" : "s");
    printf("Images per second: %.1f (batch %d, %d iterations)\n",
           per_second(times->batch, times->iteration_ms), times->batch, times->iterations);
    printf("Memory for weights and blobs: %.1f MB\n", (double)times->memory_bytes / 1048576);
    printf("Peak resident memory: %.1f MB\n", (double)times->peak_resident_bytes / 1048576);
}

static void print_table(const ShoalTimes *times) {
    if (times->data[0])
        printf("Data: %s\n\n", times->data);
    print_layers(times);
    print_types(times);
    print_summary(times);
}

/* ---- JSON ---- */

static json_t *json_layer(const ShoalTimes *times, const ShoalLayerTime *row) {
    double rate = per_second(both_gflop(row), both_ms(row));
    return json_pack("{ss ss ss? sf sf sf sf sf sf sf sf}", "name", row->name, "type", row->type,
                     "fused_into", row->fused_into, "forward_ms", row->forward_ms, "backward_ms",
                     row->backward_ms, "forward_gflop", row->forward_gflop, "backward_gflop",
                     row->backward_gflop, "gflops", rate, "peak_percent",
                     percent(rate, times->peak_gflops), "forward_gb", row->forward_gb,
                     "backward_gb", row->backward_gb);
}

static json_t *json_times(const ShoalTimes *times) {
    json_t *layers = json_array();
    for (int i = 0; i < times->n_layers; i++)
        json_array_append_new(layers, json_layer(times, &times->layers[i]));
    ShoalLayerTime sum = add_rows(times, NULL);
    return json_pack(
        "{ss si si si ss sf sf sf sf sf sf sf sf sI sI so}", "data", times->data, "batch",
        times->batch, "iterations", times->iterations, "threads", times->threads, "level",
        times->level, "forward_ms", times->forward_ms, "backward_ms", times->backward_ms,
        "update_ms", times->update_ms, "iteration_ms", times->iteration_ms, "images_per_s",
        per_second(times->batch, times->iteration_ms), "gflop", both_gflop(&sum), "gflops",
        per_second(both_gflop(&sum), times->iteration_ms), "peak_gflops", times->peak_gflops,
        "memory_bytes", (json_int_t)times->memory_bytes, "peak_resident_bytes",
        (json_int_t)times->peak_resident_bytes, "layers", layers);
}

static ShoalStatus print_json(const ShoalTimes *times, ShoalError *err) {
    json_t *object = json_times(times);
    if (!object || json_dumpf(object, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9)))
        shoal_error_memory(err, "the JSON", (unsigned long long)times->n_layers);
    else
        putchar('\n');
    json_decref(object);
    return err->status;
}

/* ---- command ---- */

static int run(int argc, char **argv) {
    ShoalTimeOptions options = {.stop = shoal_cli_catch_signals()};
    const char *phase = NULL;
    bool json = false, dummy = false;
    const ShoalFlag flags[] = {
        {"model", SHOAL_FLAG_TEXT, &options.model, "FILE", "the net, a prototxt (required)"},
        {"iterations", SHOAL_FLAG_COUNT, &options.iterations, "N",
         "iterations to time (default 50), after one that is\nnot timed"},
        {"batch", SHOAL_FLAG_COUNT, &options.batch, "N",
         "samples of an iteration, instead of what the net says"},
        {"dummy-data", SHOAL_FLAG_SWITCH, &dummy, NULL,
         "random images and labels in place of Data layers: no\ndataset is opened"},
        {"shape", SHOAL_FLAG_TEXT, &options.shape, "CxHxW",
         "with --dummy-data: shape of the images (default: 3\nchannels, height and width by "
         "crop_size; or that of\nmean_file)"},
        {"threads", SHOAL_FLAG_COUNT, &options.engine.threads, "N",
         "threads (default: one for each of the fastest cores)"},
        {"json", SHOAL_FLAG_SWITCH, &json, NULL, "print one JSON object instead of the table"},
        {"phase", SHOAL_FLAG_TEXT, &phase, "TRAIN|TEST",
         "phase of the net (default TRAIN); TEST: forward\npasses only"},
        SHOAL_FLAGS_CHOICE(options.choice),
        SHOAL_FLAGS_ENGINE(options.engine),
    };
    const ShoalUsage usage = {
        .command = "time",
        .purpose = "Times training a net: the forward and backward pass of every layer in phase "
                   "TRAIN, and\nthe update of the weights. \"peak\" is the part of the "
                   "multiply-adds that the same threads\ndo on registers alone; \"GB moved\" what "
                   "the passes must read and write.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof flags[0],
        .caffe = true,
        .notes = "Examples:\n  shoal time --model=lenet_train_test.prototxt --iterations=100\n"
                 "  shoal time --model=my_resnet/train_val.prototxt --dummy-data --batch=8 "
                 "--iterations=5\n"};
    int code = shoal_flags_parse(&usage, argc, argv, NULL);
    if (code >= 0)
        return code;
    ShoalError error = {0};
    ShoalTimes times;
    options.dummy_data = dummy;
    if (!options.model)
        shoal_error_set(&error, SHOAL_ERR_ARGUMENT, "--model=FILE is missing");
    options.phase_test = phase && !strcmp(phase, "TEST");
    if (phase && !options.phase_test && strcmp(phase, "TRAIN"))
        shoal_error_set(&error, SHOAL_ERR_ARGUMENT, "--phase is '%s'; there are TRAIN and TEST",
                        phase);
    if (error.status || shoal_time(&options, &times, &error))
        return shoal_cli_fail("time", &error);
    if (json)
        print_json(&times, &error);
    else
        print_table(&times);
    shoal_times_close(&times);
    return error.status ? shoal_cli_fail("time", &error) : SHOAL_EXIT_OK;
}

const ShoalCommand shoal_command_time = {"time", "time a net's passes, layer by layer", run};
