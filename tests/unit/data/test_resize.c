/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include "data/resize.h"

static uint64_t hash(const uint8_t *bytes, size_t size) {
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        h = (h ^ bytes[i]) * 0x100000001b3u;
    return h;
}

/* Height, width, channels, the new height and width, and the hashes of what cv::resize (OpenCV 4.6,
 * x86-64) makes with INTER_LINEAR, INTER_CUBIC and INTER_NEAREST of the pixels of make_input. */
static const struct {
    int height, width, channels, new_height, new_width;
    uint64_t hashes[3];
} CASES[] = {
    {1, 1, 1, 3, 4, {0x5467b0da1d106495, 0x5467b0da1d106495, 0x5467b0da1d106495}},
    {5, 7, 1, 13, 11, {0xdc38992da070733c, 0xf4d98435f1bad099, 0x5855d657ee661715}},
    {24, 28, 3, 12, 14, {0x953c77ea29132f43, 0xf273b8deb1a045e5, 0x934873037f51c6e2}},
    {24, 28, 3, 12, 15, {0xa5cd7541259ff369, 0x45136941a4c3624a, 0x433ec96b1da32324}},
    {31, 17, 3, 9, 9, {0x5188b7513b869af6, 0x8815d825b92a3533, 0x84e6f4666fc83f65}},
    {9, 9, 3, 31, 17, {0xde5507f9e794fc25, 0xe9303eb13c1c25e4, 0xf994753415303108}},
    {40, 48, 3, 24, 28, {0x84f528eceb788012, 0xe710b159fcf19180, 0x7eb75ca7e99f5665}},
    {64, 64, 4, 20, 33, {0x9609b5bd3b2657c5, 0xaee1e25c41c9810a, 0x8b3dff560df6309d}},
    {3, 100, 1, 7, 50, {0x156be2564d3441b6, 0x1971e80d9281d75c, 0x992d702bebd3d704}},
    {50, 37, 3, 224, 224, {0x669feae75279de6f, 0x3d5799a46f8a9e08, 0x9eb7c6c743d63189}},
    {16, 16, 3, 8, 8, {0x404dbde691f258a9, 0x281294758bbdd068, 0x59b49b8565020ead}},
    {100, 1, 3, 1, 1, {0x6e22471950b69588, 0x6e22471950b69588, 0xd7aabf186aab8161}},
    {12, 14, 3, 24, 28, {0x358ee6201aa6a3c1, 0x8f0e85a86834b690, 0xe11e0abcc14c368d}},
    {33, 65, 1, 32, 64, {0xfd21d968e6f2139f, 0x3f5dda9b7b3967d2, 0x33b34c73a96a6dde}},
    {2, 2, 1, 1, 1, {0xaf64144c86024bb4, 0xaf64144c86024bb4, 0xaf63bd4c8601b7df}},
    {20, 30, 3, 20, 15, {0xf82b9b3619a1253b, 0x1733da82defddaf2, 0x3fc1c2d3d121ba4f}},
};

static uint8_t *make_input(size_t n) {
    uint8_t *pixels = shoal_calloc(n, 1);
    for (size_t i = 0; i < n; i++)
        pixels[i] = (uint8_t)((uint32_t)i * 2654435761u >> 13);
    return pixels;
}

static void pixels_are_opencvs(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        size_t channels = (size_t)CASES[i].channels, row = channels * (size_t)CASES[i].width;
        size_t n = row * (size_t)CASES[i].height;
        size_t made = channels * (size_t)CASES[i].new_height * (size_t)CASES[i].new_width;
        uint8_t *pixels = make_input(n), *out = shoal_calloc(made, 1);
        void *scratch_space =
            shoal_calloc(shoal_resize_scratch(CASES[i].channels, CASES[i].new_width), 1);
        ShoalPixels in = {pixels, row, CASES[i].channels, CASES[i].height, CASES[i].width};
        for (int how = 0; how < 3; how++) {
            shoal_resize_u8(&in, (ShoalInterpolation)how, CASES[i].new_height, CASES[i].new_width,
                            scratch_space, out);
            if (hash(out, made) != CASES[i].hashes[how])
                fail_msg("case %zu, interpolation %d: other pixels than OpenCV's", i, how);
        }
        shoal_free(pixels);
        shoal_free(out);
        shoal_free(scratch_space);
    }
}

/* A part of an image is resized as if it were alone. */
static void a_part_is_an_image(void **state) {
    (void)state;
    enum { H = 20, W = 31, C = 3, TOP = 3, LEFT = 5, PART_H = 11, PART_W = 17 };
    uint8_t *pixels = make_input(H * W * C), part[PART_H * PART_W * C];
    for (int y = 0; y < PART_H; y++)
        memcpy(part + (size_t)y * PART_W * C, pixels + ((y + TOP) * W + LEFT) * C, PART_W * C);
    uint8_t a[9 * 23 * C], b[9 * 23 * C];
    void *scratch_space = shoal_calloc(shoal_resize_scratch(C, 23), 1);
    ShoalPixels in = {pixels + (TOP * W + LEFT) * C, W * C, C, PART_H, PART_W},
                alone = {part, PART_W * C, C, PART_H, PART_W};
    for (int how = 0; how < 3; how++) {
        shoal_resize_u8(&in, (ShoalInterpolation)how, 9, 23, scratch_space, a);
        shoal_resize_u8(&alone, (ShoalInterpolation)how, 9, 23, scratch_space, b);
        assert_memory_equal(a, b, sizeof a);
    }
    shoal_free(scratch_space);
    shoal_free(pixels);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_are_opencvs),
        cmocka_unit_test(a_part_is_an_image),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
