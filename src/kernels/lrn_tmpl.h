/* SPDX-License-Identifier: Apache-2.0 */
/* Part of elementwise_tmpl.h: the pieces of local response normalisation. s is the sum under the
 * power; BODY sees its power s^-beta as `power`. The powers of AlexNet and its kin go by square
 * roots, which vectorise; others by powf. */

#define SHOAL_LRN_LOOP(POWER, BODY)                                                                \
    for (size_t i = 0; i < n; i++) {                                                               \
        const float power = POWER;                                                                 \
        BODY;                                                                                      \
    }

#define SHOAL_LRN_LOOPS(BODY)                                                                      \
    if (beta == 0.75f) {                                                                           \
        SHOAL_INDEPENDENT                                                                          \
        SHOAL_LRN_LOOP(1 / (sqrtf(s[i]) * sqrtf(sqrtf(s[i]))), BODY)                               \
    } else if (beta == 0.5f) {                                                                     \
        SHOAL_INDEPENDENT                                                                          \
        SHOAL_LRN_LOOP(1 / sqrtf(s[i]), BODY)                                                      \
    } else {                                                                                       \
        SHOAL_LRN_LOOP(powf(s[i], -beta), BODY)                                                    \
    }

static void SHOAL_ISA(lrn_square)(size_t n, float factor, const float *x, float *s) {
    SHOAL_INDEPENDENT
    for (size_t i = 0; i < n; i++)
        s[i] += factor * (x[i] * x[i]);
}

static void SHOAL_ISA(lrn_fwd)(size_t n, float beta, const float *x, const float *s, float *y) {
    SHOAL_LRN_LOOPS(y[i] = x[i] * power)
}

static void SHOAL_ISA(lrn_ratio)(size_t n, float beta, const float *x, const float *s,
                                 const float *dy, float *r) {
    SHOAL_LRN_LOOPS(r[i] = dy[i] * (x[i] * power) / s[i])
}

static void SHOAL_ISA(lrn_bwd)(size_t n, float beta, float factor, const float *x, const float *s,
                               const float *dy, const float *t, float *dx) {
    SHOAL_LRN_LOOPS(dx[i] = dy[i] * power - factor * x[i] * t[i])
}

#undef SHOAL_LRN_LOOPS
#undef SHOAL_LRN_LOOP
