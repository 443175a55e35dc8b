/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <limits.h>

/* Pooling: MAX, AVE or STOCHASTIC over windows of [N][C][H][W]. Output sizes are rounded up (or
 * down, with round_mode FLOOR or ceil_mode false); with a pad, a last window that would begin at or
 * after size + pad is dropped. MAX keeps the place of each maximum for backward; an optional second
 * top gets it as numbers. STOCHASTIC (Zeiler, Fergus 2013) takes one value of the window, each with
 * a chance in proportion to itself; in phase TEST the mean with those weights. Values are meant to
 * be 0 or more. */

typedef struct PoolState {
    ShoalPoolShape shape;
    bool max, stochastic, global, round_down;
} PoolState;

static ShoalStatus fail(const ShoalLayer *layer, ShoalError *err, const char *text) {
    return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err, "%s", text);
}

static ShoalStatus check_fields(const ShoalLayer *layer, const Caffe__PoolingParameter *param,
                                ShoalError *err) {
    bool both = param->has_kernel_h && param->has_kernel_w;
    bool any = param->has_kernel_size || param->has_kernel_h || param->has_kernel_w;
    if (param->global_pooling && any)
        return fail(layer, err,
                    "pooling_param has global_pooling and a kernel size; expected one of the two");
    if (!param->global_pooling && param->has_kernel_size == both)
        return fail(layer, err,
                    "pooling_param needs kernel_size, or both kernel_h and kernel_w, not both "
                    "kinds");
    if ((param->has_pad_h != param->has_pad_w) || (param->has_pad && param->has_pad_h))
        return fail(layer, err, "pooling_param needs pad, or both pad_h and pad_w, not both kinds");
    if ((param->has_stride_h != param->has_stride_w) || (param->has_stride && param->has_stride_h))
        return fail(layer, err,
                    "pooling_param needs stride, or both stride_h and stride_w, not both kinds");
    return SHOAL_OK;
}

static ShoalStatus check_pads(const ShoalLayer *layer, ShoalError *err) {
    const PoolState *state = layer->state;
    const ShoalPoolShape *shape = &state->shape;
    if (state->stochastic && (shape->pad_h || shape->pad_w))
        return fail(layer, err, "pool STOCHASTIC goes with pad 0 only");
    if (state->global) {
        if (shape->pad_h || shape->pad_w || shape->stride_h != 1 || shape->stride_w != 1)
            return fail(layer, err, "global_pooling goes with pad 0 and stride 1 only");
        return SHOAL_OK;
    }
    if ((shape->pad_h || shape->pad_w) &&
        (shape->pad_h >= shape->kernel_h || shape->pad_w >= shape->kernel_w))
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "pad %dx%d; expected less than the kernel %dx%d", shape->pad_h,
                                shape->pad_w, shape->kernel_h, shape->kernel_w);
    return SHOAL_OK;
}

static ShoalStatus read_window(const ShoalLayer *layer, const Caffe__PoolingParameter *param,
                               ShoalError *err) {
    ShoalPoolShape *shape = &((PoolState *)layer->state)->shape;
    const struct {
        const char *field;
        uint32_t value;
        int min, *out;
    } settings[] = {
        {"stride_h", param->has_stride_h ? param->stride_h : param->stride, 1, &shape->stride_h},
        {"stride_w", param->has_stride_w ? param->stride_w : param->stride, 1, &shape->stride_w},
        {"pad_h", param->has_pad_h ? param->pad_h : param->pad, 0, &shape->pad_h},
        {"pad_w", param->has_pad_w ? param->pad_w : param->pad, 0, &shape->pad_w},
        {"kernel_h", param->has_kernel_size ? param->kernel_size : param->kernel_h, 1,
         &shape->kernel_h},
        {"kernel_w", param->has_kernel_size ? param->kernel_size : param->kernel_w, 1,
         &shape->kernel_w},
    };
    size_t n = sizeof settings / sizeof settings[0];
    if (param->global_pooling)
        n -= 2; /* reshape sets the kernel */
    for (size_t i = 0; i < n; i++) {
        ShoalStatus status = shoal_layer_int(layer, settings[i].field, settings[i].value,
                                             settings[i].min, settings[i].out, err);
        if (status != SHOAL_OK)
            return status;
    }
    return SHOAL_OK;
}

static ShoalStatus read_method(ShoalLayer *layer, const Caffe__PoolingParameter *param,
                               ShoalError *err) {
    PoolState *state = layer->state;
    state->stochastic = param->pool == CAFFE__POOLING_PARAMETER__POOL_METHOD__STOCHASTIC;
    if ((unsigned)param->pool > CAFFE__POOLING_PARAMETER__POOL_METHOD__STOCHASTIC)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "pool is the unknown method %d; expected MAX, AVE or STOCHASTIC",
                                (int)param->pool);
    state->max = param->pool == CAFFE__POOLING_PARAMETER__POOL_METHOD__MAX;
    state->global = param->global_pooling;
    state->round_down =
        param->round_mode == CAFFE__POOLING_PARAMETER__ROUND_MODE__FLOOR || !param->ceil_mode;
    if (!state->max && layer->n_tops > 1)
        return fail(layer, err, "2 tops; expected 1: only pool MAX gives a mask");
    return SHOAL_OK;
}

static ShoalStatus pool_setup(ShoalLayer *layer, ShoalError *err) {
    const Caffe__PoolingParameter *param = layer->param->pooling_param;
    if (!param)
        return fail(layer, err, "no pooling_param; expected one with kernel_size");
    ShoalStatus status = read_method(layer, param, err);
    if (status == SHOAL_OK)
        status = check_fields(layer, param, err);
    if (status == SHOAL_OK)
        status = read_window(layer, param, err);
    if (status == SHOAL_OK)
        status = check_pads(layer, err);
    return status;
}

/* Caffe's rule for one axis. `padded`: either axis has a pad. A kernel that sticks out of the input
 * by less than a stride still gives one window, as in Caffe; windows without any input do not. */
static ShoalStatus out_size(const ShoalLayer *layer, const char *axis, int size, int kernel,
                            int stride, int pad, bool padded, int *out, ShoalError *err) {
    const PoolState *state = layer->state;
    int64_t room = size + 2 * (int64_t)pad - kernel;
    /* Division that rounds down, or up, also below 0. */
    int64_t steps = room / stride;
    int64_t rest = room % stride;
    if (state->round_down && rest < 0)
        steps--;
    if (!state->round_down && rest > 0)
        steps++;
    int64_t n = steps + 1;
    if (padded && (n - 1) * stride >= (int64_t)size + pad)
        n--;
    if (n < 1 || size < 1)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "the kernel's %s %d does not fit the input's %s %d with pad %d; "
                                "expected a kernel that fits",
                                axis, kernel, axis, size, pad);
    if (n > INT_MAX || (n - 1) * stride - pad >= size)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "the last window begins at %s %lld, beyond the input's %d: it has "
                                "nothing to pool; expected a stride (now %d) of at most the kernel "
                                "(%d), or round_mode: FLOOR",
                                axis, (long long)((n - 1) * stride - pad), size, stride, kernel);
    *out = (int)n;
    return SHOAL_OK;
}

static ShoalStatus find_windows(const ShoalLayer *layer, ShoalError *err) {
    PoolState *state = layer->state;
    ShoalPoolShape *shape = &state->shape;
    const ShoalBlob *bottom = layer->bottoms[0];
    char text[128];
    size_t planes = shoal_blob_count(bottom, 0, bottom->axes < 2 ? bottom->axes : 2);
    if (bottom->axes != 4 || planes > INT_MAX)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' is %s; expected 4 axes: N x C x H x W", bottom->name,
                                shoal_blob_shape_text(bottom, text, sizeof text));
    shape->planes = (int)planes;
    shape->height = bottom->shape[2];
    shape->width = bottom->shape[3];
    if (state->global) {
        shape->kernel_h = shape->height;
        shape->kernel_w = shape->width;
    }
    bool padded = shape->pad_h || shape->pad_w;
    ShoalStatus status = out_size(layer, "height", shape->height, shape->kernel_h, shape->stride_h,
                                  shape->pad_h, padded, &shape->out_height, err);
    if (status == SHOAL_OK)
        status = out_size(layer, "width", shape->width, shape->kernel_w, shape->stride_w,
                          shape->pad_w, padded, &shape->out_width, err);
    return status;
}

static ShoalStatus pool_reshape(ShoalLayer *layer, ShoalError *err) {
    const PoolState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    ShoalStatus status = find_windows(layer, err);
    if (status != SHOAL_OK)
        return status;
    int top[4] = {bottom->shape[0], bottom->shape[1], state->shape.out_height,
                  state->shape.out_width};
    for (int i = 0; i < layer->n_tops; i++) {
        status = shoal_layer_shape_top(layer, i, 4, top, err);
        if (status != SHOAL_OK)
            return status;
    }
    layer->saved_bytes =
        state->max || state->stochastic ? layer->tops[0]->count * sizeof(int32_t) : 0;
    return SHOAL_OK;
}

/* ---- stochastic ---- */

typedef struct Window {
    int top, left, bottom, right;
} Window;

static Window window_at(const ShoalPoolShape *shape, int i, int j) {
    int top = i * shape->stride_h, left = j * shape->stride_w;
    int bottom = top + shape->kernel_h, right = left + shape->kernel_w;
    return (Window){top, left, bottom < shape->height ? bottom : shape->height,
                    right < shape->width ? right : shape->width};
}

/* The sum of the window's values, and of their squares. */
static double sum_window(const ShoalPoolShape *shape, const float *x, Window w, double *squares) {
    double sum = 0;
    *squares = 0;
    for (int i = w.top; i < w.bottom; i++)
        for (int j = w.left; j < w.right; j++) {
            double value = (double)x[(size_t)i * (size_t)shape->width + (size_t)j];
            sum += value;
            *squares += value * value;
        }
    return sum;
}

/* The first place at which the running sum reaches so much. */
static int32_t place_in(const ShoalPoolShape *shape, const float *x, Window w, double share) {
    double sum = 0;
    int32_t last = -1;
    for (int i = w.top; i < w.bottom; i++)
        for (int j = w.left; j < w.right; j++) {
            last = i * shape->width + j;
            sum += (double)x[last];
            if (sum >= share)
                return last;
        }
    return last;
}

static void draw_sample(const ShoalLayer *layer, const ShoalSampleRange *range, size_t sample,
                        size_t planes, bool train) {
    const PoolState *state = layer->state;
    const ShoalPoolShape *shape = &state->shape;
    size_t in = (size_t)shape->height * (size_t)shape->width;
    size_t out = (size_t)shape->out_height * (size_t)shape->out_width, first = sample * planes;
    ShoalRng rng;
    shoal_rng_init(&rng, layer->context->seed, SHOAL_RNG_DROPOUT, (uint32_t)layer->number);
    shoal_rng_seek(&rng, shoal_layer_sample_number(range, sample) * planes * out);
    for (size_t p = first; p < first + planes; p++)
        for (size_t k = 0; k < out; k++) {
            const float *x = layer->bottoms[0]->data + p * in;
            Window w = window_at(shape, (int)(k / (size_t)shape->out_width),
                                 (int)(k % (size_t)shape->out_width));
            double squares, sum = sum_window(shape, x, w, &squares);
            float *y = layer->tops[0]->data + p * out + k;
            if (train) {
                int32_t place = place_in(shape, x, w, (double)shoal_rng_unit(&rng) * sum);
                ((int32_t *)layer->saved)[p * out + k] = place;
                *y = place < 0 ? 0 : x[place];
            } else {
                *y = sum > 0 ? (float)(squares / sum) : 0;
            }
        }
}

static void stochastic_forward(ShoalLayer *layer) {
    const PoolState *state = layer->state;
    bool train = layer->context->phase == CAFFE__PHASE__TRAIN;
    ShoalSampleRange range = shoal_layer_sample_range(layer, layer->tops[0]->count, true);
    size_t planes = (size_t)state->shape.planes / range.samples;
    for (size_t n = 0; n < range.samples; n++)
        draw_sample(layer, &range, n, planes, train);
}

/* ---- passes ---- */

static ShoalStatus pool_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)err;
    const PoolState *state = layer->state;
    const float *x = layer->bottoms[0]->data;
    float *y = layer->tops[0]->data;
    if (state->stochastic) {
        stochastic_forward(layer);
        return SHOAL_OK;
    }
    if (!state->max) {
        shoal_pool_ave_fwd(compute, &state->shape, x, y);
        return SHOAL_OK;
    }
    int32_t *index = layer->saved;
    shoal_pool_max_fwd(compute, &state->shape, x, y, index);
    for (size_t i = 0; layer->n_tops > 1 && i < layer->tops[1]->count; i++)
        layer->tops[1]->data[i] = (float)index[i];
    return SHOAL_OK;
}

static void pool_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const PoolState *state = layer->state;
    if (!layer->propagate[0])
        return;
    const float *dy = layer->tops[0]->diff;
    float *dx = layer->bottoms[0]->diff;
    if (state->max || state->stochastic)
        shoal_pool_max_bwd(compute, &state->shape, dy, layer->saved, dx);
    else
        shoal_pool_ave_bwd(compute, &state->shape, dy, dx);
}

const ShoalPoolShape *shoal_pooling_shape(const ShoalLayer *layer, bool *max) {
    const PoolState *state = layer->state;
    *max = state->max;
    return state->stochastic ? NULL : &state->shape;
}

const ShoalLayerClass shoal_layer_pooling_class = {
    .type = "Pooling",
    .flags = SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 2,
    .state_bytes = sizeof(PoolState),
    .setup = pool_setup,
    .reshape = pool_reshape,
    .forward = pool_forward,
    .backward = pool_backward,
};
