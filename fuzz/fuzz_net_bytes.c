/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "caffe/model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What packs unpacks, and packs the same again. */
static void check_pack(const ProtobufCMessage *message) {
    ShoalError err = {0};
    void *first, *second;
    size_t first_size, second_size;
    ProtobufCMessage *copy = shoal_caffe_copy(message);
    if (!copy || shoal_caffe_pack(message, &first, &first_size, &err) ||
        shoal_caffe_pack(copy, &second, &second_size, &err))
        abort();
    if (first_size != second_size || memcmp(first, second, first_size) != 0)
        abort();
    shoal_free(first);
    shoal_free(second);
    protobuf_c_message_free_unpacked(copy, NULL);
}

static void check_print(const ProtobufCMessage *message) {
    ShoalError err = {0};
    char *text;
    size_t size;
    if (shoal_text_print(message, &text, &size, &err) || strlen(text) != size)
        abort();
    shoal_free(text);
}

static void check_shapes(const Caffe__NetParameter *net) {
    for (size_t i = 0; i < net->n_layer; i++)
        for (size_t j = 0; j < net->layer[i]->n_blobs; j++) {
            ShoalError err = {0};
            int dims[8], axes = -1;
            ShoalStatus status =
                shoal_caffe_blob_shape(net->layer[i]->blobs[j], 8, dims, &axes, &err);
            if (status ? axes != -1 || !err.text[0] : axes < 0 || axes > 8)
                abort();
        }
}

static void check_message(const ProtobufCMessageDescriptor *type, const uint8_t *data,
                          size_t size) {
    ShoalError err = {0};
    ProtobufCMessage *message;
    if (shoal_caffe_unpack(type, data, size, "f", &message, &err)) {
        if (!err.text[0])
            abort();
        return;
    }
    check_pack(message);
    check_print(message);
    protobuf_c_message_free_unpacked(message, NULL);
}

/* Promises of the binary files: any bytes give an upgraded net or an error with a text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ShoalError err = {0};
    ShoalCaffeNet net;
    shoal_log_set_level(SHOAL_LOG_ERROR);
    check_message(&caffe__solver_state__descriptor, data, size);
    check_message(&caffe__datum__descriptor, data, size);
    if (shoal_caffe_net_from_bytes(data, size, "f", &net, &err)) {
        if (!err.text[0])
            abort();
        return 0;
    }
    if (net.param->n_layers || net.param->n_input)
        abort();
    check_pack(&net.param->base);
    check_print(&net.param->base);
    check_shapes(net.param);
    shoal_caffe_net_close(&net);
    return 0;
}
