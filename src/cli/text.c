/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

/* Bytes of the UTF-8 character at s that may be shown; 0: none is there. */
static size_t character(const unsigned char *s) {
    if (s[0] < 0x80)
        return s[0] >= 0x20 && s[0] != 0x7f;
    size_t n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    unsigned long code = s[0] & (0xffu >> (n + 1));
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) /* the end of the text, too */
            return 0;
        code = code << 6 | (s[i] & 0x3f);
    }
    static const unsigned long SMALLEST[] = {0, 0, 0x80, 0x800, 0x10000};
    bool valid = code >= SMALLEST[n] && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff);
    bool control = code < 0xa0; /* of C1: some terminals take them for the begin of a command */
    bool direction = (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) ||
                     code == 0x2028 || code == 0x2029;
    return valid && !control && !direction ? n : 0;
}

size_t shoal_text_clean(const char *text, bool lines, char *out, size_t size) {
    const unsigned char *in = (const unsigned char *)(text ? text : "");
    size_t used = 0;
    while (*in) {
        size_t n = *in == '\n' && lines ? 1 : character(in);
        size_t length = n ? n : 1;
        if (used + length >= size)
            break;
        if (n)
            memcpy(out + used, in, n);
        else
            out[used] = '?';
        used += length;
        in += length;
    }
    out[used] = '\0';
    return used;
}

const char *shoal_text_rate(double rate, char out[32]) {
    if (!isfinite(rate) || rate < 0 || rate > 1e12)
        rate = 0;
    if (rate < 99.95) {
        snprintf(out, 32, "%.1f", rate);
        return out;
    }
    char digits[24];
    int n = snprintf(digits, sizeof digits, "%.0f", rate), used = 0;
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0)
            out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = '\0';
    return out;
}

bool shoal_is_throttled(const ShoalWorkerStatus *worker) {
    return worker->clock > 0 && worker->clock < 0.9;
}

void shoal_text_group(const ShoalWorkerStatus *workers, int n, char *out, size_t size) {
    double sum = 0;
    int slowest = 0, throttled = 0;
    for (int i = 0; i < n; i++) {
        sum += workers[i].images_per_s;
        throttled += shoal_is_throttled(&workers[i]);
        if (workers[i].images_per_s < workers[slowest].images_per_s)
            slowest = i;
    }
    char all[32], one[32], name[64], hot[32] = "";
    shoal_text_clean(n > 0 ? workers[slowest].name : "", false, name, sizeof name);
    if (throttled)
        snprintf(hot, sizeof hot, "; %d throttled", throttled);
    snprintf(out, size, "%s images/s; slowest %s %s images/s%s", shoal_text_rate(sum, all), name,
             shoal_text_rate(n > 0 ? workers[slowest].images_per_s : 0, one), hot);
}
