/* SPDX-License-Identifier: Apache-2.0 */
#include "data/resize.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { TAPS = 4, WEIGHT_BITS = 11, WEIGHT_ONE = 1 << WEIGHT_BITS, OPENCV_LANES = 8 };

/* Where an output column or row comes from: taps pixels and their weights. */
typedef struct Tap {
    int at[TAPS]; /* inside the image */
    int weight[TAPS];
} Tap;

/* The last rows that were summed along x, by their number in the image. */
typedef struct Rows {
    int *row[TAPS];
    int number[TAPS];
} Rows;

size_t shoal_resize_scratch(int channels, int width) {
    size_t values = (size_t)channels * (size_t)width;
    return sizeof(Tap) * (size_t)width + sizeof(int) * values * TAPS;
}

static int clip(int i, int n) {
    return i < 0 ? 0 : i < n ? i : n - 1;
}

static int weight(float w) {
    return (int)lrintf(w * WEIGHT_ONE);
}

/* The share of the pixel at floor(place) and its neighbours. Float, in this order: the last bit
 * decides about weights. */
static void cubic_weights(float x, int *out) {
    const float a = -0.75f;
    float w[TAPS];
    w[0] = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
    w[1] = ((a + 2) * x - (a + 3)) * x * x + 1;
    w[2] = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1;
    w[3] = 1.0f - w[0] - w[1] - w[2];
    for (int i = 0; i < TAPS; i++)
        out[i] = weight(w[i]);
}

/* Output i of n_out along an axis of n pixels. Along x, LINEAR beyond the first and the last pixel
 * has one tap of weight 1; along y it has two on the same row, which round otherwise. */
static Tap place(ShoalInterpolation how, int i, int n, int n_out, bool along_x) {
    double scale = 1.0 / ((double)n_out / (double)n);
    float where = (float)(((double)i + 0.5) * scale - 0.5);
    int first = (int)floorf(where);
    float rest = where - (float)first;
    Tap tap = {{0}, {0}};
    if (how == SHOAL_RESIZE_CUBIC) {
        cubic_weights(rest, tap.weight);
        for (int k = 0; k < TAPS; k++)
            tap.at[k] = clip(first - 1 + k, n);
        return tap;
    }
    if (along_x && (first < 0 || first >= n - 1))
        rest = 0;
    tap.at[0] = clip(first, n);
    tap.at[1] = clip(first + 1, n);
    tap.weight[0] = weight(1.0f - rest);
    tap.weight[1] = weight(rest);
    return tap;
}

/* ---- along x ---- */

static void sum_linear(const uint8_t *in, const Tap *taps, int width, int channels, int *out) {
    for (int x = 0; x < width; x++) {
        const uint8_t *a = in + (size_t)taps[x].at[0], *b = in + (size_t)taps[x].at[1];
        int wa = taps[x].weight[0], wb = taps[x].weight[1];
        for (int c = 0; c < channels; c++)
            *out++ = a[c] * wa + b[c] * wb;
    }
}

static void sum_cubic(const uint8_t *in, const Tap *taps, int width, int channels, int *out) {
    for (int x = 0; x < width; x++)
        for (int c = 0; c < channels; c++) {
            int sum = 0;
            for (int k = 0; k < TAPS; k++)
                sum += in[(size_t)taps[x].at[k] + (size_t)c] * taps[x].weight[k];
            *out++ = sum;
        }
}

/* The sums of one row, from before or new; never in the place of one that is used now. */
static const int *row_sums(Rows *rows, const ShoalPixels *in, ShoalInterpolation how,
                           const Tap *taps, int width, int number, int lowest) {
    int place_of = -1;
    for (int i = 0; i < TAPS; i++)
        if (rows->number[i] == number)
            return rows->row[i];
    for (int i = 0; i < TAPS; i++)
        if (rows->number[i] < lowest)
            place_of = i;
    rows->number[place_of] = number;
    const uint8_t *pixels = in->at + (size_t)number * in->stride;
    if (how == SHOAL_RESIZE_CUBIC)
        sum_cubic(pixels, taps, width, in->channels, rows->row[place_of]);
    else
        sum_linear(pixels, taps, width, in->channels, rows->row[place_of]);
    return rows->row[place_of];
}

/* ---- along y ---- */

static void blend_linear(const int *restrict a, const int *restrict b, const int *w, size_t n,
                         uint8_t *restrict out) {
    int wa = w[0], wb = w[1];
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(((wa * (a[i] >> 4) >> 16) + (wb * (b[i] >> 4) >> 16) + 2) >> 2);
}

static void blend_cubic(const int *const *rows, const int *w, size_t n, uint8_t *restrict out) {
    const float unit = 1.0f / (WEIGHT_ONE * WEIGHT_ONE), shift = 12582912.0f; /* 1.5 * 2^23 */
    const float w0 = (float)w[0] * unit, w1 = (float)w[1] * unit, w2 = (float)w[2] * unit,
                w3 = (float)w[3] * unit;
    const int *restrict a = rows[0], *restrict b = rows[1], *restrict c = rows[2],
                        *restrict d = rows[3];
    size_t i = 0;
    for (; i < n / OPENCV_LANES * OPENCV_LANES; i++) {
        float sum = (float)a[i] * w0 + ((float)b[i] * w1 + ((float)c[i] * w2 + (float)d[i] * w3));
        sum = (sum + shift) - shift; /* to the nearest integer, halves to the even one */
        out[i] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
    }
    for (; i < n; i++) {
        int sum = (a[i] * w[0] + b[i] * w[1] + c[i] * w[2] + d[i] * w[3] +
                   (1 << (2 * WEIGHT_BITS - 1))) >>
                  (2 * WEIGHT_BITS);
        out[i] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
    }
}

/* ---- the special cases ---- */

static void halve(const ShoalPixels *in, int height, int width, uint8_t *out) {
    int channels = in->channels;
    for (int y = 0; y < height; y++) {
        const uint8_t *a = in->at + (size_t)(2 * y) * in->stride, *b = a + in->stride;
        for (int x = 0; x < width; x++, a += channels, b += channels)
            for (int c = 0; c < channels; c++, a++, b++)
                *out++ = (uint8_t)((a[0] + a[channels] + b[0] + b[channels] + 2) >> 2);
    }
}

static void nearest(const ShoalPixels *in, int height, int width, uint8_t *out) {
    double scale_y = 1.0 / ((double)height / in->height),
           scale_x = 1.0 / ((double)width / in->width);
    size_t channels = (size_t)in->channels;
    for (int y = 0; y < height; y++) {
        const uint8_t *row =
            in->at + (size_t)clip((int)floor((double)y * scale_y), in->height) * in->stride;
        for (int x = 0; x < width; x++, out += channels)
            memcpy(out, row + (size_t)clip((int)floor((double)x * scale_x), in->width) * channels,
                   channels);
    }
}

static void copy(const ShoalPixels *in, uint8_t *out) {
    size_t row = (size_t)in->width * (size_t)in->channels;
    for (int y = 0; y < in->height; y++)
        memcpy(out + (size_t)y * row, in->at + (size_t)y * in->stride, row);
}

void shoal_resize_u8(const ShoalPixels *in, ShoalInterpolation how, int height, int width,
                     void *scratch, uint8_t *out) {
    if (in->height == height && in->width == width) {
        copy(in, out);
        return;
    }
    if (how == SHOAL_RESIZE_NEAREST) {
        nearest(in, height, width, out);
        return;
    }
    if (how == SHOAL_RESIZE_LINEAR && in->height == 2 * height && in->width == 2 * width) {
        halve(in, height, width, out);
        return;
    }
    Tap *taps = scratch;
    for (int x = 0; x < width; x++) {
        taps[x] = place(how, x, in->width, width, true);
        for (int k = 0; k < TAPS; k++)
            taps[x].at[k] *= in->channels;
    }
    size_t values = (size_t)width * (size_t)in->channels;
    Rows rows;
    for (int i = 0; i < TAPS; i++) {
        rows.row[i] = (int *)(taps + width) + (size_t)i * values;
        rows.number[i] = -1;
    }
    int n = how == SHOAL_RESIZE_CUBIC ? TAPS : 2;
    for (int y = 0; y < height; y++) {
        Tap tap = place(how, y, in->height, height, false);
        const int *sums[TAPS];
        for (int k = 0; k < n; k++)
            sums[k] = row_sums(&rows, in, how, taps, width, tap.at[k], tap.at[0]);
        if (how == SHOAL_RESIZE_CUBIC)
            blend_cubic(sums, tap.weight, values, out + (size_t)y * values);
        else
            blend_linear(sums[0], sums[1], tap.weight, values, out + (size_t)y * values);
    }
}
