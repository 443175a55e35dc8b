/* SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"
#include "caffe/model.h"
#include "solver/solver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char NET[] = "layer { name: 'in' type: 'Input' top: 'x' input_param { "
                          "shape { dim: 2 dim: 2 } } }"
                          "layer { name: 'ip' type: 'InnerProduct' bottom: 'x' top: 'y' "
                          "inner_product_param { num_output: 2 } }"
                          "layer { name: 'l' type: 'Softmax' bottom: 'y' top: 'z' "
                          "loss_weight: 1 }";
static const char SOLVER[] = "base_lr: 0.1 lr_policy: 'fixed' momentum: 0.9";

static Caffe__SolverParameter *param;
static ShoalNet *net;

static void begin(void) {
    ShoalError err = {0};
    ShoalCaffeNet model;
    ShoalNetOptions options = {.backward = true};
    shoal_log_set_level(SHOAL_LOG_ERROR);
    if (shoal_caffe_net_from_text(NET, strlen(NET), "net", &model, &err) ||
        shoal_net_create(&model, &options, &net, &err) ||
        shoal_caffe_solver_from_text(SOLVER, strlen(SOLVER), "solver", NULL, &param, &err))
        abort();
    shoal_caffe_net_close(&model);
}

/* The state that was taken over is the one that is given back. */
static void check_kept(const ShoalSolver *solver, const Caffe__SolverState *state) {
    ShoalError err = {0};
    Caffe__SolverState *again;
    if (shoal_solver_to_proto(solver, state->iter, state->current_step, "w", &again, &err) ||
        again->n_history != state->n_history)
        abort();
    for (size_t i = 0; i < state->n_history; i++)
        if (memcmp(again->history[i]->data, state->history[i]->data,
                   again->history[i]->n_data * sizeof(float)) != 0)
            abort();
    shoal_solver_proto_free(again);
}

/* Promises of a .solverstate: any bytes are taken over whole, or give an error with a text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ShoalError err = {0};
    Caffe__SolverState *state;
    ShoalSolver *solver;
    if (!net)
        begin();
    if (shoal_caffe_unpack(&caffe__solver_state__descriptor, data, size, "f",
                           (ProtobufCMessage **)&state, &err)) {
        if (!err.text[0])
            abort();
        return 0;
    }
    if (shoal_solver_create(param, net, &solver, &err))
        abort();
    if (!shoal_solver_load_state(solver, state, &err))
        check_kept(solver, state);
    else if (!err.text[0])
        abort();
    shoal_solver_destroy(solver);
    caffe__solver_state__free_unpacked(state, NULL);
    return 0;
}
