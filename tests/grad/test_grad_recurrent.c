/* SPDX-License-Identifier: Apache-2.0 */
/* The gradients of the recurrent layers, through several steps. */
#include "grad/grad.h"

#define STREAMS 3

/* cont: sequences begin at the first step, and one more later on. */
static bool draw_cont(ShoalRng *rng, int bottom, size_t n, float *values) {
    (void)rng;
    for (size_t i = 0; bottom == 1 && i < n; i++)
        values[i] = i < STREAMS || i == 2 * STREAMS + 1 ? 0 : 1;
    return bottom == 1;
}

/* The state before the first step counts, but for one stream. */
static bool draw_going_on(ShoalRng *rng, int bottom, size_t n, float *values) {
    (void)rng;
    for (size_t i = 0; bottom == 1 && i < n; i++)
        values[i] = i == 1 ? 0 : 1;
    return bottom == 1;
}

static bool draw_cont_last(ShoalRng *rng, int bottom, size_t n, float *values) {
    return draw_going_on(rng, bottom - 1, n, values);
}

#define RECURRENT(type, bottoms, tops, settings)                                                   \
    "name: 'l' type: '" type "' " bottoms " " tops " recurrent_param { num_output: 2 " settings " }"

static const GradCase CASES[] = {
    {.text = RECURRENT("LSTM", "bottom: 'x' bottom: 'c'", "top: 'y'", ""),
     .bottoms = {SHAPE(4, STREAMS, 2), SHAPE(4, STREAMS)},
     .n_bottoms = 2,
     .draw = draw_cont},
    {.text = RECURRENT("LSTM", "bottom: 'x' bottom: 'c' bottom: 's'", "top: 'y'", ""),
     .bottoms = {SHAPE(3, STREAMS, 2, 2), SHAPE(3, STREAMS), SHAPE(STREAMS, 3)},
     .n_bottoms = 3,
     .draw = draw_cont},
    {.text = RECURRENT("LSTM", "bottom: 'x' bottom: 'c' bottom: 'h' bottom: 'k'",
                       "top: 'y' top: 'ht' top: 'ct'", "expose_hidden: true"),
     .bottoms = {SHAPE(3, STREAMS, 2), SHAPE(3, STREAMS), SHAPE(1, STREAMS, 2),
                 SHAPE(1, STREAMS, 2)},
     .n_bottoms = 4,
     .draw = draw_going_on},
    {.text = RECURRENT("LSTM", "bottom: 'x' bottom: 'c' bottom: 's' bottom: 'h' bottom: 'k'",
                       "top: 'y' top: 'ht' top: 'ct'", "expose_hidden: true"),
     .bottoms = {SHAPE(2, STREAMS, 2), SHAPE(2, STREAMS), SHAPE(STREAMS, 1), SHAPE(1, STREAMS, 2),
                 SHAPE(1, STREAMS, 2)},
     .n_bottoms = 5,
     .draw = draw_going_on},
    {.text = RECURRENT("RNN", "bottom: 'x' bottom: 'c'", "top: 'y'", ""),
     .bottoms = {SHAPE(4, STREAMS, 2), SHAPE(4, STREAMS)},
     .n_bottoms = 2,
     .draw = draw_cont},
    {.text = RECURRENT("RNN", "bottom: 'x' bottom: 'c' bottom: 's'", "top: 'y'", ""),
     .bottoms = {SHAPE(3, STREAMS, 2), SHAPE(3, STREAMS), SHAPE(STREAMS, 2)},
     .n_bottoms = 3,
     .draw = draw_cont},
    {.text = RECURRENT("RNN", "bottom: 'x' bottom: 'c' bottom: 'h'", "top: 'y' top: 'ht'",
                       "expose_hidden: true"),
     .bottoms = {SHAPE(3, STREAMS, 2), SHAPE(3, STREAMS), SHAPE(1, STREAMS, 2)},
     .n_bottoms = 3,
     .draw = draw_going_on},
    {.text = "name: 'u' type: 'LSTMUnit' bottom: 'c' bottom: 'x' bottom: 'k' top: 'y' top: 'h'",
     .bottoms = {SHAPE(1, STREAMS, 2), SHAPE(1, STREAMS, 8), SHAPE(1, STREAMS)},
     .n_bottoms = 3,
     .draw = draw_cont_last},
};

GRAD_MAIN(CASES)
