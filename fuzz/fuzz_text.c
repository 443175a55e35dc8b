/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "caffe/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Promises of the text format: any bytes give a message or an error with a text, never both, and
 * what was printed parses and prints the same again. */
static void check_text(const ProtobufCMessageDescriptor *type, const char *text, size_t size) {
    ShoalError err = {0};
    ShoalTextOrigins origins = {0};
    ProtobufCMessage *message, *again;
    char *first, *second;
    size_t first_size, second_size;
    if (shoal_text_parse(type, text, size, "f", &origins, &message, &err)) {
        if (!err.text[0] || origins.items)
            abort();
        return;
    }
    if (err.text[0] || shoal_text_print(message, &first, &first_size, &err) ||
        shoal_text_parse(type, first, first_size, "f", NULL, &again, &err) ||
        shoal_text_print(again, &second, &second_size, &err))
        abort();
    if (first_size != second_size || memcmp(first, second, first_size) != 0)
        abort();
    shoal_free(first);
    shoal_free(second);
    shoal_text_origins_close(&origins);
    protobuf_c_message_free_unpacked(message, NULL);
    protobuf_c_message_free_unpacked(again, NULL);
}

/* Each origin that is left after an upgrade belongs to a living message (the sanitizer sees). */
static void check_upgrades(const char *text, size_t size) {
    ShoalError err = {0};
    ShoalCaffeNet net;
    Caffe__SolverParameter *solver;
    if (shoal_caffe_net_from_text(text, size, "f", &net, &err) == SHOAL_OK) {
        for (size_t i = 0; i < net.origins.count; i++)
            if (net.origins.items[i].message->descriptor->magic !=
                PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC)
                abort();
        if (net.param->n_layers || net.param->n_input)
            abort();
        shoal_caffe_net_close(&net);
    } else if (!err.text[0]) {
        abort();
    }
    err = (ShoalError){0};
    if (shoal_caffe_solver_from_text(text, size, "f", NULL, &solver, &err) == SHOAL_OK)
        caffe__solver_parameter__free_unpacked(solver, NULL);
    else if (!err.text[0])
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    shoal_log_set_level(SHOAL_LOG_ERROR);
    check_text(&caffe__net_parameter__descriptor, text, size);
    check_text(&caffe__solver_parameter__descriptor, text, size);
    check_text(&caffe__datum__descriptor, text, size);
    check_upgrades(text, size);
    return 0;
}
