/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of LSTM, RNN and LSTMUnit over several steps, with sequences that begin within the
 * batch. A layer that carries its state begins all sequences anew, since each forward pass of the
 * comparison would start from another state else; start states that are bottoms do not. */
#include "grad/grad.h"

enum { STREAMS = 2 };

static bool draw_cont(ShoalRng *rng, int bottom, size_t n, float *values) {
    (void)rng;
    for (size_t i = 0; bottom == 1 && i < n; i++)
        values[i] = i >= STREAMS && i % 5 != 3;
    return bottom == 1;
}

static bool draw_going_on(ShoalRng *rng, int bottom, size_t n, float *values) {
    bool drawn = draw_cont(rng, bottom, n, values);
    for (size_t i = 0; drawn && i < STREAMS; i++)
        values[i] = 1;
    return drawn;
}

static bool draw_unit_cont(ShoalRng *rng, int bottom, size_t n, float *values) {
    (void)rng;
    for (size_t i = 0; bottom == 2 && i < n; i++)
        values[i] = i != 1;
    return bottom == 2;
}

/* As Caffe, the layers pass no gradient to start states (nor from end states: `graded`). A class
 * that is broken on purpose is a copy of this one already. */
static void not_the_starts(Harness *h) {
    static ShoalLayerClass classes[2];
    bool lstm = strcmp(h->param->type, "LSTM") == 0;
    unsigned starts = (lstm ? 3u : 1u) << (h->layer.n_bottoms - (lstm ? 2 : 1));
    if (h->layer.class->no_gradient_bottoms & starts)
        return;
    classes[lstm] = *h->layer.class;
    classes[lstm].no_gradient_bottoms |= starts;
    h->layer.class = &classes[lstm];
}

#define LAYER(type, blobs, more)                                                                   \
    "name: 'r' type: '" type "' bottom: 'x' bottom: 'c' top: 'y' " blobs                           \
    " recurrent_param { num_output: 3 " more " }"
#define EXPOSED "expose_hidden: true"

static const GradCase CASES[] = {
    {.text = LAYER("LSTM", "", ""),
     .bottoms = {SHAPE(4, STREAMS, 3), SHAPE(4, STREAMS)},
     .n_bottoms = 2,
     .draw = draw_cont},
    {.text = LAYER("LSTM", "", "debug_info: true"),
     .bottoms = {SHAPE(1, STREAMS, 2, 2), SHAPE(1, STREAMS)},
     .n_bottoms = 2,
     .draw = draw_cont},
    {.text = LAYER("LSTM", "bottom: 's'", ""),
     .bottoms = {SHAPE(3, STREAMS, 2), SHAPE(3, STREAMS), SHAPE(STREAMS, 2, 2)},
     .n_bottoms = 3,
     .draw = draw_cont},
    {.text = LAYER("LSTM", "bottom: 'h0' bottom: 'c0' top: 'h' top: 'e'", EXPOSED),
     .bottoms = {SHAPE(3, STREAMS, 2), SHAPE(3, STREAMS), SHAPE(1, STREAMS, 3),
                 SHAPE(1, STREAMS, 3)},
     .n_bottoms = 4,
     .graded = 1,
     .draw = draw_going_on,
     .prepare = not_the_starts},
    {.text = LAYER("LSTM", "bottom: 's' bottom: 'h0' bottom: 'c0' top: 'h' top: 'e'", EXPOSED),
     .bottoms = {SHAPE(3, STREAMS, 2), SHAPE(3, STREAMS), SHAPE(STREAMS, 4), SHAPE(1, STREAMS, 3),
                 SHAPE(1, STREAMS, 3)},
     .n_bottoms = 5,
     .graded = 1,
     .draw = draw_going_on,
     .prepare = not_the_starts},
    {.text = LAYER("RNN", "", ""),
     .bottoms = {SHAPE(4, STREAMS, 3), SHAPE(4, STREAMS)},
     .n_bottoms = 2,
     .draw = draw_cont},
    {.text = LAYER("RNN", "bottom: 's'", ""),
     .bottoms = {SHAPE(3, STREAMS, 2), SHAPE(3, STREAMS), SHAPE(STREAMS, 4)},
     .n_bottoms = 3,
     .draw = draw_cont},
    {.text = LAYER("RNN", "bottom: 's' bottom: 'h0' top: 'h'", EXPOSED),
     .bottoms = {SHAPE(3, STREAMS, 2), SHAPE(3, STREAMS), SHAPE(STREAMS, 4), SHAPE(1, STREAMS, 3)},
     .n_bottoms = 4,
     .graded = 1,
     .draw = draw_going_on,
     .prepare = not_the_starts},
    {.text = "name: 'u' type: 'LSTMUnit' bottom: 'c' bottom: 'g' bottom: 'n' top: 'y' top: 'h'",
     .bottoms = {SHAPE(1, 3, 2), SHAPE(1, 3, 8), SHAPE(1, 3)},
     .n_bottoms = 3,
     .draw = draw_unit_cont},
};

GRAD_MAIN(CASES)
