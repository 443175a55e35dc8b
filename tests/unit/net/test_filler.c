/* SPDX-License-Identifier: Apache-2.0 */
/* Fillers against the statistics of real Caffe's (SHOAL_SHARED/caffe-goldens/00-fillers), and the
 * settings that are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "caffe/model.h"
#include "net/filler.h"

enum { MAX_VALUES = 65536, SEEDS = 3 };

typedef struct Stats {
    double min, max, mean, std, zeros;
} Stats;

static Stats stats_of(size_t n, const float *values) {
    Stats s = {.min = INFINITY, .max = -INFINITY};
    for (size_t i = 0; i < n; i++) {
        s.min = fmin(s.min, (double)values[i]);
        s.max = fmax(s.max, (double)values[i]);
        s.mean += (double)values[i] / (double)n;
        s.zeros += values[i] == 0 ? 1 / (double)n : 0;
    }
    for (size_t i = 0; i < n; i++)
        s.std += pow((double)values[i] - s.mean, 2) / (double)n;
    s.std = sqrt(s.std);
    return s;
}

/* ---- the file of golden statistics ---- */

static char *read_shared(const char *name, size_t *size) {
    char path[1024];
    snprintf(path, sizeof path, "%s/caffe-goldens/00-fillers/%s", SHOAL_SHARED, name);
    FILE *file = fopen(path, "rb");
    if (!file)
        skip();
    char *text = calloc(1, 1 << 20);
    assert_non_null(text);
    *size = fread(text, 1, (1 << 20) - 1, file);
    fclose(file);
    return text;
}

static const Caffe__LayerParameter *find_layer(const ShoalCaffeNet *net, const char *name,
                                               size_t length) {
    for (size_t i = 0; i < net->param->n_layer; i++) {
        const char *have = net->param->layer[i]->name;
        if (have && strlen(have) == length && strncmp(have, name, length) == 0)
            return net->param->layer[i];
    }
    return NULL;
}

/* The filler of weights (0) or bias (1) of a layer; false for layers that this version lacks. */
static bool find_filler(const Caffe__LayerParameter *layer, int index,
                        const Caffe__FillerParameter **filler) {
    if (layer->convolution_param)
        *filler =
            index ? layer->convolution_param->bias_filler : layer->convolution_param->weight_filler;
    else if (layer->inner_product_param)
        *filler = index ? layer->inner_product_param->bias_filler
                        : layer->inner_product_param->weight_filler;
    else
        return false;
    return true;
}

/* ---- comparison ---- */

/* Means of fourth powers: a normal variable's kurtosis is 3, a uniform one's 1.8; one that is 0
 * with probability 1 - p and normal otherwise has 3/p. p is the golden's own part of non-zeros. */
static double kurtosis(const char *type, double zeros) {
    if (strcmp(type, "gaussian") == 0 || strcmp(type, "msra") == 0)
        return 3 / (1 - zeros);
    return 1.8;
}

/* Both sides are samples of n values of one distribution with standard deviation s and kurtosis k.
 * Then the difference of two means has deviation s sqrt(2/n), that of two standard deviations
 * s sqrt(2 (k-1)/(4n)), that of two parts of zeros sqrt(2 p(1-p)/n): bounds are 5 of these (one
 * draw in 1.7 million lies outside). */
static void compare_bulk(const char *where, const char *type, size_t n, const Stats *golden,
                         const Stats *found) {
    double s = golden->std, p = golden->zeros, count = (double)n;
    double mean = 5 * s * sqrt(2 / count) + 1e-6;
    double std = 5 * s * sqrt((kurtosis(type, p) - 1) / (2 * count)) + 1e-6;
    double zeros = 5 * sqrt(2 * p * (1 - p) / count) + 1e-6;
    if (strcmp(type, "positive_unitball") == 0) {
        /* Rows are divided by their sum, which varies by 1/sqrt(3 row): the mean is fixed. */
        mean = 1e-6;
        std *= 2;
    }
    if (fabs(found->mean - golden->mean) > mean || fabs(found->std - golden->std) > std ||
        fabs(found->zeros - golden->zeros) > zeros)
        fail_msg("%s: mean %g std %g zeros %g; Caffe has %g %g %g; allowed differences %g %g %g",
                 where, found->mean, found->std, found->zeros, golden->mean, golden->std,
                 golden->zeros, mean, std, zeros);
}

/* Largest and smallest: of n uniform values on a range r, one falls within r * 14/n of an end with
 * probability 1 - e^-14; of n normal ones the largest lies between 1 and sqrt(2 ln n) + 2.5
 * deviations from the mean (outside: less than 1e-6 each for the n here). */
static void compare_extremes(const char *where, const char *type, size_t n, const Stats *golden,
                             const Stats *found) {
    double low, high;
    bool uniform = strcmp(type, "uniform") == 0 || strcmp(type, "xavier") == 0;
    if (uniform) {
        double range = golden->std * sqrt(12) * 1.1; /* the golden's std is itself a draw */
        low = high = 14 * range / (double)n;
    } else if (strcmp(type, "gaussian") == 0 || strcmp(type, "msra") == 0) {
        double s = golden->std / sqrt(1 - golden->zeros);
        low = high = s * (sqrt(2 * log((double)n)) + 2.5 - 1);
    } else if (strcmp(type, "positive_unitball") == 0) {
        low = high = golden->max; /* found below: rows differ in size */
        assert_true(found->min >= 0);
    } else {
        low = high = 1e-6;
    }
    if (fabs(found->min - golden->min) > low || fabs(found->max - golden->max) > high)
        fail_msg("%s: min %g max %g; Caffe has %g %g; allowed difference %g", where, found->min,
                 found->max, golden->min, golden->max, low);
}

static void compare_line(const char *where, const Caffe__FillerParameter *filler,
                         const ShoalBlob *shape, const Stats golden[SEEDS]) {
    static float values[MAX_VALUES];
    assert_true(shape->count <= MAX_VALUES);
    const char *type = filler ? filler->type : "constant";
    for (int seed = 0; seed < SEEDS; seed++) {
        ShoalBlob blob = *shape;
        blob.data = values;
        ShoalError err = {0};
        ShoalRng rng;
        shoal_rng_init(&rng, (uint64_t)seed + 1, SHOAL_RNG_FILLER, 0);
        if (shoal_filler_fill(filler, &rng, &blob, &err) != SHOAL_OK)
            fail_msg("%s: %s", where, err.text);
        Stats found = stats_of(blob.count, values);
        compare_bulk(where, type, blob.count, &golden[seed], &found);
        compare_extremes(where, type, blob.count, &golden[seed], &found);
    }
}

/* "name[index] [2,3,4] min max mean std zeros | ... | ..." */
static bool compare_text_line(const ShoalCaffeNet *net, const char *line) {
    char name[64];
    int index, used = 0, axes = 0, dims[SHOAL_MAX_AXES];
    if (sscanf(line, "%63[^[][%d] [%n", name, &index, &used) != 2 || !used)
        return false;
    const char *at = line + used;
    for (char *end; axes < SHOAL_MAX_AXES && *at != ']'; at = *end == ',' ? end + 1 : end)
        dims[axes++] = (int)strtol(at, &end, 10);
    Stats golden[SEEDS];
    for (int i = 0; i < SEEDS; i++) {
        Stats *g = &golden[i];
        at++; /* the ']' or '|' before */
        assert_int_equal(sscanf(at, "%lf %lf %lf %lf %lf%n", &g->min, &g->max, &g->mean, &g->std,
                                &g->zeros, &used),
                         5);
        at = strchr(at + used, '|') ? strchr(at + used, '|') : at + used;
    }
    const Caffe__LayerParameter *layer = find_layer(net, name, strlen(name));
    const Caffe__FillerParameter *filler = NULL;
    if (!layer || !find_filler(layer, index, &filler))
        return false;
    ShoalBlob shape = {.name = name};
    assert_int_equal(shoal_blob_reshape(&shape, axes, dims, NULL), SHOAL_OK);
    compare_line(line, filler, &shape, golden);
    return true;
}

static void test_statistics_of_caffe(void **state) {
    (void)state;
    size_t size = 0, compared = 0;
    ShoalCaffeNet net;
    ShoalError err = {0};
    char *text = read_shared("net.prototxt", &size);
    if (shoal_caffe_net_from_text(text, size, "net.prototxt", &net, &err) != SHOAL_OK)
        fail_msg("%s", err.text);
    free(text);
    text = read_shared("fillers.txt", &size);
    for (char *rest = text, *line; (line = strsep(&rest, "\n"));)
        compared += line[0] != '#' && compare_text_line(&net, line);
    assert_true(compared >= 40);
    free(text);
    shoal_caffe_net_close(&net);
}

/* ---- without the shared files ---- */

static void parse_filler(const char *text, Caffe__FillerParameter **filler) {
    ProtobufCMessage *message = NULL;
    ShoalError err = {0};
    if (shoal_text_parse(&caffe__filler_parameter__descriptor, text, strlen(text), "test", NULL,
                         &message, &err) != SHOAL_OK)
        fail_msg("%s", err.text);
    *filler = (Caffe__FillerParameter *)message;
}

static void fill_text(const char *text, int axes, const int *dims, uint64_t seed, float *values) {
    Caffe__FillerParameter *filler = NULL;
    ShoalBlob blob = {.name = "w", .data = values};
    ShoalError err = {0};
    ShoalRng rng;
    parse_filler(text, &filler);
    assert_int_equal(shoal_blob_reshape(&blob, axes, dims, NULL), SHOAL_OK);
    shoal_rng_init(&rng, seed, SHOAL_RNG_FILLER, 0);
    if (shoal_filler_fill(filler, &rng, &blob, &err) != SHOAL_OK)
        fail_msg("%s: %s", text, err.text);
    caffe__filler_parameter__free_unpacked(filler, NULL);
}

static void test_bilinear_is_exact(void **state) {
    (void)state;
    /* Side 4: f 2, centre 3/4: 1/4, 3/4, 3/4, 1/4 each way. Side 5: f 3, centre 2/3: thirds. */
    const double four[] = {0.25, 0.75, 0.75, 0.25},
                 five[] = {1 / 3.0, 2 / 3.0, 1, 2 / 3.0, 1 / 3.0};
    float values[3 * 25];
    fill_text("type: 'bilinear'", 4, (int[]){3, 1, 4, 4}, 1, values);
    for (int i = 0; i < 48; i++)
        assert_true((double)values[i] == four[i % 4] * four[i / 4 % 4]);
    fill_text("type: 'bilinear'", 4, (int[]){3, 1, 5, 5}, 1, values);
    for (int i = 0; i < 75; i++)
        assert_true(fabs((double)values[i] - five[i % 5] * five[i / 5 % 5]) < 1e-7);
}

static void test_rows_of_the_unit_ball_sum_to_one(void **state) {
    (void)state;
    float values[70];
    fill_text("type: 'positive_unitball'", 3, (int[]){10, 7, 1}, 5, values);
    for (int row = 0; row < 10; row++) {
        double sum = 0;
        for (int i = 0; i < 7; i++)
            sum += (double)values[row * 7 + i];
        assert_true(fabs(sum - 1) < 1e-6);
    }
}

/* Shapes with fewer axes than a fan looks at: xavier's range is sqrt(3 / n). */
static void test_fans(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int axes, dims[4];
        double n;
    } cases[] = {
        {"type: 'xavier'", 4, {1000, 3, 2, 2}, 12},
        {"type: 'xavier' variance_norm: FAN_OUT", 4, {4, 1000, 2, 2}, 16},
        {"type: 'xavier' variance_norm: AVERAGE", 2, {100, 300}, 200},
        {"type: 'xavier'", 1, {3000}, 1},
        {"type: 'xavier' variance_norm: FAN_OUT", 1, {3000}, 3000},
    };
    static float values[MAX_VALUES];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t n = 1;
        for (int j = 0; j < cases[i].axes; j++)
            n *= (size_t)cases[i].dims[j];
        fill_text(cases[i].text, cases[i].axes, cases[i].dims, 9, values);
        Stats s = stats_of(n, values);
        double range = sqrt(3 / cases[i].n);
        /* The largest of n lies within 14/n of the range (see compare_extremes). */
        assert_true(s.max <= range && s.max > range * (1 - 28.0 / (double)n));
        assert_true(s.min >= -range && s.min < -range * (1 - 28.0 / (double)n));
    }
}

static void test_numbers_follow_the_seed(void **state) {
    (void)state;
    static const char *const texts[] = {"type: 'uniform'", "type: 'gaussian' sparse: 2",
                                        "type: 'xavier'", "type: 'msra'",
                                        "type: 'positive_unitball'"};
    const int dims[] = {5, 9};
    float first[45], again[45], other[45];
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        fill_text(texts[i], 2, dims, 1, first);
        fill_text(texts[i], 2, dims, 1, again);
        fill_text(texts[i], 2, dims, 2, other);
        assert_memory_equal(first, again, sizeof first);
        assert_true(memcmp(first, other, sizeof first) != 0);
    }
}

static void test_no_filler_is_zero(void **state) {
    (void)state;
    float values[3] = {1, 2, 3};
    ShoalBlob blob = {.name = "w", .data = values};
    ShoalRng rng;
    shoal_rng_init(&rng, 1, SHOAL_RNG_FILLER, 0);
    assert_int_equal(shoal_blob_reshape(&blob, 1, (int[]){3}, NULL), SHOAL_OK);
    assert_int_equal(shoal_filler_fill(NULL, &rng, &blob, NULL), SHOAL_OK);
    assert_true(values[0] == 0 && values[1] == 0 && values[2] == 0);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int axes, dims[4];
        const char *says;
    } cases[] = {
        {"type: 'glorot'", 2, {3, 3}, "filler type 'glorot' is unknown; expected constant"},
        {"type: ''", 2, {3, 3}, "unknown"},
        {"type: 'constant' value: nan", 2, {3, 3}, "finite"},
        {"type: 'constant' sparse: 1", 2, {3, 3}, "only 'gaussian' can be sparse"},
        {"type: 'uniform' min: 2", 2, {3, 3}, "min 2 and max 1"},
        {"type: 'uniform' max: inf", 2, {3, 3}, "finite"},
        {"type: 'uniform' sparse: 0", 2, {3, 3}, "sparse 0"},
        {"type: 'gaussian' std: 0", 2, {3, 3}, "std 0"},
        {"type: 'gaussian' std: -1", 2, {3, 3}, "std -1"},
        {"type: 'gaussian' std: nan", 2, {3, 3}, "std"},
        {"type: 'gaussian' mean: inf", 2, {3, 3}, "mean inf"},
        {"type: 'gaussian' sparse: 4",
         2,
         {3, 3},
         "sparse 4; expected 0 to the first size of the "
         "weights, 3"},
        {"type: 'gaussian' sparse: -2", 2, {3, 3}, "sparse -2"},
        {"type: 'xavier' sparse: 1", 2, {3, 3}, "sparse 1"},
        {"type: 'msra' sparse: 1", 2, {3, 3}, "sparse 1"},
        {"type: 'positive_unitball' sparse: 1", 2, {3, 3}, "sparse 1"},
        {"type: 'bilinear'", 2, {3, 3}, "4 axes"},
        {"type: 'bilinear'", 4, {3, 3, 4, 5}, "3x3x4x5"},
        {"type: 'bilinear' sparse: 1", 4, {3, 3, 4, 4}, "sparse 1"},
        {"type: 'xavier'", 2, {0, 3}, "without values"},
        {"type: 'positive_unitball'", 2, {3, 0}, "without values"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        Caffe__FillerParameter *filler = NULL;
        ShoalBlob blob = {.name = "w"};
        ShoalError err = {0};
        parse_filler(cases[i].text, &filler);
        assert_int_equal(shoal_blob_reshape(&blob, cases[i].axes, cases[i].dims, NULL), SHOAL_OK);
        ShoalStatus status = shoal_filler_check(filler, &blob, &err);
        if (status != SHOAL_ERR_MODEL || !strstr(err.text, cases[i].says))
            fail_msg("%s: status %d, \"%s\"; expected \"...%s...\"", cases[i].text, (int)status,
                     err.text, cases[i].says);
        caffe__filler_parameter__free_unpacked(filler, NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statistics_of_caffe),
        cmocka_unit_test(test_bilinear_is_exact),
        cmocka_unit_test(test_rows_of_the_unit_ball_sum_to_one),
        cmocka_unit_test(test_fans),
        cmocka_unit_test(test_numbers_follow_the_seed),
        cmocka_unit_test(test_no_filler_is_zero),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
