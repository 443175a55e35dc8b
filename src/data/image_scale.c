/* SPDX-License-Identifier: Apache-2.0 */
#include "data/image_scale.h"

#include <math.h>

#include "base/error.h"
#include "base/rng.h"

/* Random numbers set aside per sample: five an attempt, two interpolations, and redraws. They are
 * not those of crop and mirror: the index of the stream is another. */
enum { DRAWS_PER_SAMPLE = 1024, STREAM = 1, ATTEMPTS_MAX = 128, SIDE_MAX = 1 << 16 };

bool shoal_image_scale_wanted(const Caffe__TransformationParameter *param) {
    return param &&
           (param->resize_param || param->random_resize_param || param->random_aspect_ratio_param);
}

/* ---- what makes sense ---- */

static ShoalStatus check_resize(const Caffe__ResizeParameter *param, const char *name, bool sized,
                                ShoalError *err) {
    if (!param)
        return SHOAL_OK;
    for (size_t i = 0; i < param->n_interp_mode; i++)
        if (param->interp_mode[i] == CAFFE__RESIZE_PARAMETER__INTERP_MODE__AREA ||
            param->interp_mode[i] == CAFFE__RESIZE_PARAMETER__INTERP_MODE__LANCZOS4)
            return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                                   "transform_param: %s: interp_mode AREA and LANCZOS4 are not in "
                                   "this version; LINEAR, CUBIC and NEAREST are",
                                   name);
    if (param->resize_mode == CAFFE__RESIZE_PARAMETER__RESIZE_MODE__FIT_LARGE_SIZE_AND_PAD)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                               "transform_param: %s: FIT_LARGE_SIZE_AND_PAD is not in this "
                               "version; WARP and FIT_SMALL_SIZE are",
                               name);
    if (sized && (param->height < 1 || param->width < 1 || param->height > SIDE_MAX ||
                  param->width > SIDE_MAX))
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "transform_param: %s: height %u and width %u; expected 1 to %d",
                               name, (unsigned)param->height, (unsigned)param->width, SIDE_MAX);
    return SHOAL_OK;
}

static ShoalStatus check_random_resize(const Caffe__RandomResizeParameter *param, ShoalError *err) {
    if (param->min_size > SIDE_MAX || param->max_size > SIDE_MAX ||
        (param->max_size && param->max_size < param->min_size))
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "transform_param: random_resize_param: min_size %u, max_size %u; "
                               "expected rising numbers up to %d",
                               (unsigned)param->min_size, (unsigned)param->max_size, SIDE_MAX);
    return check_resize(param->resize_param, "random_resize_param", false, err);
}

static ShoalStatus check_aspect(const Caffe__RandomAspectRatioParameter *param, ShoalError *err) {
    bool good = param->min_area_ratio > 0 && param->max_area_ratio >= param->min_area_ratio &&
                param->max_area_ratio <= 1 && param->aspect_ratio_change >= 0.01f &&
                param->aspect_ratio_change <= 1 && param->max_attempt <= ATTEMPTS_MAX;
    if (!good)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "transform_param: random_aspect_ratio_param: areas %g to %g, "
                               "aspect_ratio_change %g, max_attempt %u; expected rising areas in "
                               "(0, 1], a change in [0.01, 1] and at most %d attempts",
                               (double)param->min_area_ratio, (double)param->max_area_ratio,
                               (double)param->aspect_ratio_change, (unsigned)param->max_attempt,
                               ATTEMPTS_MAX);
    return check_resize(param->resize_param, "random_aspect_ratio_param", false, err);
}

ShoalStatus shoal_image_scale_init(ShoalImageScale *scale,
                                   const Caffe__TransformationParameter *param, uint64_t seed,
                                   ShoalError *err) {
    *scale = (ShoalImageScale){param, seed};
    bool random = param->random_resize_param || param->random_aspect_ratio_param;
    ShoalStatus status = SHOAL_OK;
    if (random && (param->crop_size < 1 || param->crop_size > SIDE_MAX))
        status = shoal_error_set(err, SHOAL_ERR_MODEL,
                                 "transform_param: crop_size %u with random_resize_param or "
                                 "random_aspect_ratio_param; expected 1 to %d",
                                 (unsigned)param->crop_size, SIDE_MAX);
    if (!status && param->random_resize_param)
        status = check_random_resize(param->random_resize_param, err);
    if (!status && param->random_aspect_ratio_param)
        status = check_aspect(param->random_aspect_ratio_param, err);
    if (!status)
        status = check_resize(param->resize_param, "resize_param", true, err);
    return status;
}

/* ---- one image ---- */

static int to_int(float x) {
    const float most = 1 << 30; /* what is larger is refused later */
    return (int)(x < most ? x : most);
}

static ShoalInterpolation draw_how(const Caffe__ResizeParameter *param, ShoalRng *rng) {
    if (!param || !param->n_interp_mode)
        return SHOAL_RESIZE_LINEAR;
    switch (param->interp_mode[shoal_rng_below(rng, (uint32_t)param->n_interp_mode)]) {
    case CAFFE__RESIZE_PARAMETER__INTERP_MODE__CUBIC:
        return SHOAL_RESIZE_CUBIC;
    case CAFFE__RESIZE_PARAMETER__INTERP_MODE__NEAREST:
        return SHOAL_RESIZE_NEAREST;
    default:
        return SHOAL_RESIZE_LINEAR;
    }
}

/* Adds the step that brings a part to height x width as `param` says. Float, in Intel's order. */
static void add_step(ShoalImageSteps *out, const Caffe__ResizeParameter *param,
                     const ShoalImagePart *part, int height, int width, ShoalRng *rng) {
    ShoalInterpolation how = draw_how(param, rng);
    if (param && param->resize_mode == CAFFE__RESIZE_PARAMETER__RESIZE_MODE__FIT_SMALL_SIZE) {
        float own = (float)part->width / (float)part->height, wanted = (float)width / (float)height;
        if (own < wanted)
            height = to_int((float)width / own);
        else
            width = to_int(own * (float)height);
    }
    out->steps[out->n].part = *part;
    out->steps[out->n].height = height;
    out->steps[out->n].width = width;
    out->steps[out->n++].how = how;
}

/* The whole image, so that its shorter side becomes `side`. */
static void add_shorter(ShoalImageSteps *out, const Caffe__ResizeParameter *param, int height,
                        int width, int side, ShoalRng *rng) {
    int to_height = side, to_width = side;
    if (height < width)
        to_width = to_int((float)width / (float)height * (float)side);
    else
        to_height = to_int((float)height / (float)width * (float)side);
    ShoalImagePart all = {0, 0, height, width};
    add_step(out, param, &all, to_height, to_width, rng);
}

static void plan_random_resize(const Caffe__RandomResizeParameter *param, int height, int width,
                               ShoalRng *rng, ShoalImageSteps *out) {
    int shorter = height < width ? height : width, longer = height < width ? width : height;
    int least = param->min_size ? (int)param->min_size : shorter,
        most = param->max_size ? (int)param->max_size : longer;
    int side =
        most > least ? least + (int)shoal_rng_below(rng, (uint32_t)(most - least) + 1) : least;
    add_shorter(out, param->resize_param, height, width, side, rng);
}

/* In steps of 1/1000. */
static float draw_ratio(float least, float most, ShoalRng *rng) {
    uint32_t steps = (uint32_t)((most - least) * 1000 + 1);
    return ((float)shoal_rng_below(rng, steps) + least * 1000) / 1000;
}

static void plan_aspect(const Caffe__RandomAspectRatioParameter *param, int crop, int height,
                        int width, ShoalRng *rng, ShoalImageSteps *out) {
    float area = (float)height * (float)width;
    for (uint32_t i = 0; i < param->max_attempt; i++) {
        float share = draw_ratio(param->min_area_ratio, param->max_area_ratio, rng);
        float change = draw_ratio(param->aspect_ratio_change, 1 / param->aspect_ratio_change, rng);
        float side = sqrtf(share * area);
        int part_height = to_int(side * change), part_width = to_int(side / change);
        if (draw_ratio(0, 1, rng) < 0.5f) {
            int other = part_height;
            part_height = part_width;
            part_width = other;
        }
        if (part_height < 1 || part_width < 1 || part_height > height || part_width > width)
            continue;
        ShoalImagePart part = {0, 0, part_height, part_width};
        part.top = (int)shoal_rng_below(rng, (uint32_t)(height - part_height) + 1);
        part.left = (int)shoal_rng_below(rng, (uint32_t)(width - part_width) + 1);
        add_step(out, param->resize_param, &part, crop, crop, rng);
        return;
    }
    add_shorter(out, param->resize_param, height, width, crop, rng);
}

void shoal_image_scale_plan(const ShoalImageScale *scale, int height, int width, uint64_t sample,
                            ShoalImageSteps *out) {
    const Caffe__TransformationParameter *param = scale->param;
    ShoalRng rng;
    shoal_rng_init(&rng, scale->seed, SHOAL_RNG_TRANSFORM, STREAM);
    shoal_rng_seek(&rng, sample * DRAWS_PER_SAMPLE);
    *out = (ShoalImageSteps){0};
    if (param->random_resize_param)
        plan_random_resize(param->random_resize_param, height, width, &rng, out);
    else if (param->random_aspect_ratio_param)
        plan_aspect(param->random_aspect_ratio_param, (int)param->crop_size, height, width, &rng,
                    out);
    if (!param->resize_param)
        return;
    ShoalImagePart all = {0, 0, height, width};
    if (out->n) {
        all.height = out->steps[0].height;
        all.width = out->steps[0].width;
    }
    add_step(out, param->resize_param, &all, (int)param->resize_param->height,
             (int)param->resize_param->width, &rng);
}
