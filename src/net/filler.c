/* SPDX-License-Identifier: Apache-2.0 */
#include "net/filler.h"

#include <math.h>
#include <string.h>

#include "base/error.h"
#include "net/layers/layers.h"

/* A filler's settings, worked out for the shape that it fills. */
typedef struct FillRule {
    enum { CONSTANT, UNIFORM, GAUSSIAN, UNIT_BALL, BILINEAR } kind;
    float a, b;  /* CONSTANT: value; UNIFORM: low, high; GAUSSIAN: mean, standard deviation */
    double keep; /* GAUSSIAN: part of the values that is not set to 0 */
    int side;    /* BILINEAR: height and width */
} FillRule;

static size_t axis_size(const ShoalBlob *blob, int axis) {
    return axis < blob->axes ? (size_t)blob->shape[axis] : 1;
}

/* The n in xavier's sqrt(3 / n) and msra's sqrt(2 / n). */
static ShoalStatus fan(const Caffe__FillerParameter *filler, const ShoalBlob *blob, double *n,
                       ShoalError *err) {
    double in = (double)(blob->count / axis_size(blob, 0));
    double out = (double)(blob->count / axis_size(blob, 1));
    switch (filler->variance_norm) {
    case CAFFE__FILLER_PARAMETER__VARIANCE_NORM__FAN_IN:
        *n = in;
        return SHOAL_OK;
    case CAFFE__FILLER_PARAMETER__VARIANCE_NORM__FAN_OUT:
        *n = out;
        return SHOAL_OK;
    case CAFFE__FILLER_PARAMETER__VARIANCE_NORM__AVERAGE:
        *n = (in + out) / 2;
        return SHOAL_OK;
    default:
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "filler '%s' has the unknown variance_norm %d; expected FAN_IN, "
                               "FAN_OUT or AVERAGE",
                               filler->type, (int)filler->variance_norm);
    }
}

static ShoalStatus constant_rule(const Caffe__FillerParameter *filler, const ShoalBlob *blob,
                                 FillRule *rule, ShoalError *err) {
    (void)blob;
    if (!isfinite(filler->value))
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "filler 'constant' has value %g; expected a finite number",
                               (double)filler->value);
    *rule = (FillRule){.kind = CONSTANT, .a = filler->value};
    return SHOAL_OK;
}

static ShoalStatus uniform_rule(const Caffe__FillerParameter *filler, const ShoalBlob *blob,
                                FillRule *rule, ShoalError *err) {
    (void)blob;
    if (!isfinite(filler->min) || !isfinite(filler->max) || filler->min > filler->max)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "filler 'uniform' has min %g and max %g; expected finite numbers, "
                               "min not above max",
                               (double)filler->min, (double)filler->max);
    *rule = (FillRule){.kind = UNIFORM, .a = filler->min, .b = filler->max};
    return SHOAL_OK;
}

static ShoalStatus gaussian_rule(const Caffe__FillerParameter *filler, const ShoalBlob *blob,
                                 FillRule *rule, ShoalError *err) {
    size_t rows = axis_size(blob, 0);
    if (!isfinite(filler->mean) || !isfinite(filler->std) || !(filler->std > 0))
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "filler 'gaussian' has mean %g and std %g; expected finite numbers, "
                               "std above 0",
                               (double)filler->mean, (double)filler->std);
    if (filler->sparse < -1 || (filler->sparse >= 0 && (size_t)filler->sparse > rows))
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "filler 'gaussian' has sparse %d; expected 0 to the first size of "
                               "the weights, %zu (or -1: not sparse)",
                               (int)filler->sparse, rows);
    double keep = filler->sparse < 0 ? 1 : (double)filler->sparse / (double)rows;
    *rule = (FillRule){.kind = GAUSSIAN, .a = filler->mean, .b = filler->std, .keep = keep};
    return SHOAL_OK;
}

static ShoalStatus xavier_rule(const Caffe__FillerParameter *filler, const ShoalBlob *blob,
                               FillRule *rule, ShoalError *err) {
    double n = 1;
    ShoalStatus status = fan(filler, blob, &n, err);
    if (status != SHOAL_OK)
        return status;
    float scale = (float)sqrt(3 / n);
    *rule = (FillRule){.kind = UNIFORM, .a = -scale, .b = scale};
    return SHOAL_OK;
}

static ShoalStatus msra_rule(const Caffe__FillerParameter *filler, const ShoalBlob *blob,
                             FillRule *rule, ShoalError *err) {
    double n = 1;
    ShoalStatus status = fan(filler, blob, &n, err);
    if (status != SHOAL_OK)
        return status;
    *rule = (FillRule){.kind = GAUSSIAN, .b = (float)sqrt(2 / n), .keep = 1};
    return SHOAL_OK;
}

static ShoalStatus unit_ball_rule(const Caffe__FillerParameter *filler, const ShoalBlob *blob,
                                  FillRule *rule, ShoalError *err) {
    (void)filler;
    (void)blob;
    (void)err;
    *rule = (FillRule){.kind = UNIT_BALL};
    return SHOAL_OK;
}

static ShoalStatus bilinear_rule(const Caffe__FillerParameter *filler, const ShoalBlob *blob,
                                 FillRule *rule, ShoalError *err) {
    (void)filler;
    if (blob->axes != 4 || blob->shape[2] != blob->shape[3]) {
        char text[128];
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "filler 'bilinear' is to fill %s; expected 4 axes, the last two of "
                               "one size",
                               shoal_blob_shape_text(blob, text, sizeof text));
    }
    *rule = (FillRule){.kind = BILINEAR, .side = blob->shape[3]};
    return SHOAL_OK;
}

static const struct {
    const char *type;
    ShoalStatus (*rule)(const Caffe__FillerParameter *filler, const ShoalBlob *blob, FillRule *rule,
                        ShoalError *err);
} FILLERS[] = {
    {"constant", constant_rule}, {"uniform", uniform_rule}, {"gaussian", gaussian_rule},
    {"xavier", xavier_rule},     {"msra", msra_rule},       {"positive_unitball", unit_ball_rule},
    {"bilinear", bilinear_rule},
};

static ShoalStatus find_rule(const Caffe__FillerParameter *filler, const ShoalBlob *blob,
                             FillRule *rule, ShoalError *err) {
    const Caffe__FillerParameter zero = CAFFE__FILLER_PARAMETER__INIT;
    if (!filler)
        filler = &zero;
    const char *type = filler->type ? filler->type : "constant";
    if (blob->count == 0)
        return shoal_error_set(err, SHOAL_ERR_MODEL,
                               "filler '%s' is to fill a blob without values; expected sizes above "
                               "0",
                               type);
    for (size_t i = 0; i < sizeof FILLERS / sizeof FILLERS[0]; i++) {
        if (strcmp(type, FILLERS[i].type))
            continue;
        if (filler->sparse != -1 && FILLERS[i].rule != gaussian_rule)
            return shoal_error_set(err, SHOAL_ERR_MODEL,
                                   "filler '%s' has sparse %d; only 'gaussian' can be sparse", type,
                                   (int)filler->sparse);
        return FILLERS[i].rule(filler, blob, rule, err);
    }
    return shoal_error_set(err, SHOAL_ERR_MODEL,
                           "filler type '%s' is unknown; expected constant, uniform, gaussian, "
                           "xavier, msra, positive_unitball or bilinear",
                           type);
}

static void fill_constant(float value, size_t n, float *out) {
    for (size_t i = 0; i < n; i++)
        out[i] = value;
}

/* Keeps each value with probability `keep`, sets the others to 0. */
static void thin_out(ShoalRng *rng, double keep, size_t n, float *out) {
    for (size_t i = 0; i < n; i++)
        if ((double)shoal_rng_u32(rng) >= keep * 0x1p32)
            out[i] = 0;
}

/* Rows of `row` values, each uniform in [0, 1) and then divided by its sum. */
static void fill_unit_ball(ShoalRng *rng, size_t n, size_t row, float *out) {
    shoal_rng_fill_uniform(rng, 0, 1, n, out);
    for (size_t begin = 0; begin < n; begin += row) {
        double sum = 0;
        for (size_t i = begin; i < begin + row; i++)
            sum += (double)out[i];
        for (size_t i = begin; i < begin + row; i++) /* all drawn 0: share evenly */
            out[i] = (float)(sum > 0 ? (double)out[i] / sum : 1 / (double)row);
    }
}

/* The weights of a bilinear interpolation, the same side x side square for every plane. */
static void fill_bilinear(int side, size_t n, float *out) {
    double f = (side + 1) / 2, c = (side - 1) / (2.0 * f);
    for (size_t i = 0; i < n; i++) {
        double x = (double)(i % (size_t)side), y = (double)(i / (size_t)side % (size_t)side);
        out[i] = (float)((1 - fabs(x / f - c)) * (1 - fabs(y / f - c)));
    }
}

static void fill(const FillRule *rule, ShoalRng *rng, size_t n, size_t row, float *out) {
    switch (rule->kind) {
    case CONSTANT:
        fill_constant(rule->a, n, out);
        break;
    case UNIFORM:
        shoal_rng_fill_uniform(rng, rule->a, rule->b, n, out);
        break;
    case GAUSSIAN:
        shoal_rng_fill_gaussian(rng, rule->a, rule->b, n, out);
        if (rule->keep < 1)
            thin_out(rng, rule->keep, n, out);
        break;
    case UNIT_BALL:
        fill_unit_ball(rng, n, row, out);
        break;
    case BILINEAR:
        fill_bilinear(rule->side, n, out);
        break;
    }
}

ShoalStatus shoal_filler_check(const Caffe__FillerParameter *filler, const ShoalBlob *blob,
                               ShoalError *err) {
    FillRule rule;
    return find_rule(filler, blob, &rule, err);
}

ShoalStatus shoal_filler_fill(const Caffe__FillerParameter *filler, ShoalRng *rng, ShoalBlob *blob,
                              ShoalError *err) {
    FillRule rule;
    ShoalStatus status = find_rule(filler, blob, &rule, err);
    if (status != SHOAL_OK)
        return status;
    fill(&rule, rng, blob->count, blob->count / axis_size(blob, 0), blob->data);
    return SHOAL_OK;
}

ShoalStatus shoal_filler_fill_slice(const Caffe__FillerParameter *filler, ShoalRng *rng,
                                    const ShoalBlob *whole, size_t n, float *out, ShoalError *err) {
    FillRule rule;
    ShoalStatus status = find_rule(filler, whole, &rule, err);
    if (status != SHOAL_OK)
        return status;
    fill(&rule, rng, n, n, out);
    return SHOAL_OK;
}

uint64_t shoal_filler_draws(size_t n) {
    return 2 * ((uint64_t)n + 1); /* gaussian: n rounded up to even; sparse: n more */
}
