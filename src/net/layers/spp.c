/* SPDX-License-Identifier: Apache-2.0 */
#include "net/layers/layers.h"

#include <string.h>

/* SPP, spatial pyramid pooling (He et al. 2014): level i pools the image into 2^i x 2^i windows,
 * MAX or AVE; the results of all levels, flattened, one after the other: [N][C * (1 + 4 + 16 ...)].
 * With one level only the top is [N][C][1][1], as in Caffe. */

enum { MOST_LEVELS = 16 };

typedef struct SppState {
    int levels;
    bool max;
    ShoalPoolShape shapes[MOST_LEVELS];
    size_t places[MOST_LEVELS]; /* of a level's maxima in layer->saved */
} SppState;

static ShoalStatus spp_setup(ShoalLayer *layer, ShoalError *err) {
    SppState *state = layer->state;
    const Caffe__SPPParameter *param = layer->param->spp_param;
    if (!param || !param->has_pyramid_height || param->pyramid_height < 1 ||
        param->pyramid_height > MOST_LEVELS)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "spp_param.pyramid_height is missing or not 1 to %d", MOST_LEVELS);
    if (param->pool == CAFFE__SPPPARAMETER__POOL_METHOD__STOCHASTIC)
        return shoal_layer_fail(layer, SHOAL_ERR_UNSUPPORTED, err,
                                "pool STOCHASTIC is not supported here; expected MAX or AVE");
    state->levels = (int)param->pyramid_height;
    state->max = param->pool == CAFFE__SPPPARAMETER__POOL_METHOD__MAX;
    return SHOAL_OK;
}

/* Windows as large as they must be, so that `bins` of them cover the axis; what they are too large
 * by is padding. */
static ShoalStatus cut_axis(const ShoalLayer *layer, int size, int bins, int *kernel, int *pad,
                            int *out, ShoalError *err) {
    *kernel = (size + bins - 1) / bins;
    *pad = (*kernel * bins - size + 1) / 2;
    if (*pad >= *kernel)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "an image of size %d is too small for %d windows; expected a "
                                "smaller pyramid_height",
                                size, bins);
    *out = (size + 2 * *pad - *kernel + *kernel - 1) / *kernel + 1;
    if (*pad && (*out - 1) * *kernel >= size + *pad)
        --*out;
    return SHOAL_OK;
}

static ShoalStatus spp_reshape(ShoalLayer *layer, ShoalError *err) {
    SppState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0];
    char text[128];
    if (bottom->axes != 4)
        return shoal_layer_fail(layer, SHOAL_ERR_MODEL, err,
                                "bottom '%s' is %s; expected 4 axes: N x C x H x W", bottom->name,
                                shoal_blob_shape_text(bottom, text, sizeof text));
    int64_t columns = 0;
    layer->saved_bytes = layer->scratch_bytes = 0;
    for (int i = 0; i < state->levels; i++) {
        ShoalPoolShape *shape = &state->shapes[i];
        *shape = (ShoalPoolShape){.planes = bottom->shape[0] * bottom->shape[1],
                                  .height = bottom->shape[2],
                                  .width = bottom->shape[3]};
        ShoalStatus status = cut_axis(layer, shape->height, 1 << i, &shape->kernel_h, &shape->pad_h,
                                      &shape->out_height, err);
        if (!status)
            status = cut_axis(layer, shape->width, 1 << i, &shape->kernel_w, &shape->pad_w,
                              &shape->out_width, err);
        if (status)
            return status;
        shape->stride_h = shape->kernel_h;
        shape->stride_w = shape->kernel_w;
        size_t windows = (size_t)shape->out_height * (size_t)shape->out_width;
        size_t bytes = (size_t)shape->planes * windows * sizeof(float);
        state->places[i] = layer->saved_bytes;
        layer->saved_bytes += state->max ? bytes : 0;
        layer->scratch_bytes = bytes > layer->scratch_bytes ? bytes : layer->scratch_bytes;
        columns += (int64_t)bottom->shape[1] * (int64_t)windows;
    }
    layer->scratch_bytes += bottom->count * sizeof(float);
    int top[4] = {bottom->shape[0], columns > INT32_MAX ? INT32_MAX : (int)columns, 1, 1};
    return shoal_layer_shape_top(layer, 0, state->levels == 1 ? 4 : 2, top, err);
}

static size_t row_of(const ShoalLayer *layer, int level) {
    const ShoalPoolShape *shape = &((const SppState *)layer->state)->shapes[level];
    return (size_t)layer->bottoms[0]->shape[1] * (size_t)shape->out_height *
           (size_t)shape->out_width;
}

static int32_t *places_of(const ShoalLayer *layer, int level) {
    const SppState *state = layer->state;
    return (int32_t *)((unsigned char *)layer->saved + state->places[level]);
}

static ShoalStatus spp_forward(ShoalLayer *layer, const ShoalCompute *compute, ShoalError *err) {
    (void)err;
    const SppState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0], *top = layer->tops[0];
    size_t samples = (size_t)bottom->shape[0], whole = samples ? top->count / samples : 0, at = 0;
    float *part = layer->scratch;
    for (int i = 0; i < state->levels; i++) {
        size_t row = row_of(layer, i);
        if (state->max)
            shoal_pool_max_fwd(compute, &state->shapes[i], bottom->data, part, places_of(layer, i));
        else
            shoal_pool_ave_fwd(compute, &state->shapes[i], bottom->data, part);
        for (size_t n = 0; n < samples; n++)
            memcpy(top->data + n * whole + at, part + n * row, row * sizeof *part);
        at += row;
    }
    return SHOAL_OK;
}

static void spp_backward(ShoalLayer *layer, const ShoalCompute *compute) {
    const SppState *state = layer->state;
    const ShoalBlob *bottom = layer->bottoms[0], *top = layer->tops[0];
    size_t samples = (size_t)bottom->shape[0], whole = samples ? top->count / samples : 0, at = 0;
    if (!layer->propagate[0])
        return;
    float *sum = layer->scratch, *part = sum + bottom->count;
    memset(bottom->diff, 0, bottom->count * sizeof(float));
    for (int i = 0; i < state->levels; i++) {
        size_t row = row_of(layer, i);
        for (size_t n = 0; n < samples; n++)
            memcpy(part + n * row, top->diff + n * whole + at, row * sizeof *part);
        if (state->max)
            shoal_pool_max_bwd(compute, &state->shapes[i], part, places_of(layer, i), sum);
        else
            shoal_pool_ave_bwd(compute, &state->shapes[i], part, sum);
        shoal_vec_add(compute, bottom->count, bottom->diff, sum, bottom->diff);
        at += row;
    }
}

const ShoalLayerClass shoal_layer_spp_class = {
    .type = "SPP",
    .flags = SHOAL_LAYER_BWD_NO_BOTTOM | SHOAL_LAYER_BWD_NO_TOP,
    .min_bottoms = 1,
    .max_bottoms = 1,
    .min_tops = 1,
    .max_tops = 1,
    .state_bytes = sizeof(SppState),
    .setup = spp_setup,
    .reshape = spp_reshape,
    .forward = spp_forward,
    .backward = spp_backward,
};
