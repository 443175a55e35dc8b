/* SPDX-License-Identifier: Apache-2.0 */
#include "shoal/tools.h"

#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "caffe/model.h"
#include "caffe/text.h"
#include "caffe/upgrade.h"

/* Old files into today's form, as tools/upgrade_*.cpp of Caffe. */

/* NetNeedsUpgrade of Caffe's upgrade_proto.cpp. Old fields for transforms are in old layers only.
 */
static bool is_old_net(const Caffe__NetParameter *net) {
    bool old = net->n_layers || net->n_input;
    for (size_t i = 0; i < net->n_layer && !old; i++)
        old = net->layer[i]->type && !strcmp(net->layer[i]->type, "BatchNorm") &&
              net->layer[i]->n_param == 3;
    return old;
}

static ShoalStatus read_message(ShoalUpgradeKind kind, const char *file, ShoalTextOrigins *origins,
                                ProtobufCMessage **out, ShoalError *err) {
    const ProtobufCMessageDescriptor *descriptor = kind == SHOAL_UPGRADE_SOLVER_TEXT
                                                       ? &caffe__solver_parameter__descriptor
                                                       : &caffe__net_parameter__descriptor;
    unsigned char *bytes;
    size_t size;
    ShoalStatus status = shoal_file_read(file, &bytes, &size, err);
    if (status)
        return status;
    if (kind == SHOAL_UPGRADE_NET_BINARY)
        status = shoal_caffe_unpack(descriptor, bytes, size, file, out, err);
    else
        status = shoal_text_parse(descriptor, (const char *)bytes, size, file, origins, out, err);
    shoal_free(bytes);
    return status;
}

static ShoalStatus upgrade_net(Caffe__NetParameter *net, const char *file,
                               ShoalTextOrigins *origins, int *current, ShoalError *err) {
    ShoalCaffeUpgrade upgrade = {.file = file, .origins = origins, .err = err};
    *current = !is_old_net(net);
    return shoal_caffe_upgrade_finish(&upgrade, shoal_caffe_upgrade_net(&upgrade, net));
}

static ShoalStatus write_message(ShoalUpgradeKind kind, const char *file,
                                 const ProtobufCMessage *message, ShoalError *err) {
    void *bytes;
    size_t size;
    ShoalStatus status;
    if (kind == SHOAL_UPGRADE_NET_BINARY) {
        status = shoal_caffe_pack(message, &bytes, &size, err);
    } else {
        char *text;
        status = shoal_text_print(message, &text, &size, err);
        bytes = text;
    }
    if (status)
        return status;
    status = shoal_file_replace(file, bytes, size, err);
    shoal_free(bytes);
    return status;
}

ShoalStatus shoal_upgrade(ShoalUpgradeKind kind, const char *input, const char *output,
                          int *current, ShoalError *err) {
    ProtobufCMessage *message;
    ShoalTextOrigins origins = {0};
    bool text = kind != SHOAL_UPGRADE_NET_BINARY;
    ShoalStatus status = read_message(kind, input, &origins, &message, err);
    if (status)
        return status;
    if (kind == SHOAL_UPGRADE_SOLVER_TEXT) {
        /* Nets within it stay as they are, as in Caffe's tool. */
        Caffe__SolverParameter *solver = (Caffe__SolverParameter *)(void *)message;
        *current = !solver->has_solver_type;
        status = shoal_caffe_upgrade_solver(solver, input, err);
    } else {
        status = upgrade_net((Caffe__NetParameter *)(void *)message, input, text ? &origins : NULL,
                             current, err);
    }
    if (!status)
        status = write_message(kind, output, message, err);
    shoal_text_origins_close(&origins);
    protobuf_c_message_free_unpacked(message, NULL);
    return status;
}
