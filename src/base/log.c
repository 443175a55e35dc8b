/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>

static atomic_int max_level = SHOAL_LOG_WARNING;
static const char *const LEVEL_NAMES[] = {"error", "warning", "info", "debug"};

void shoal_log_set_level(ShoalLogLevel level) {
    atomic_store(&max_level, (int)level);
}

void shoal_log(ShoalLogLevel level, const char *format, ...) {
    if ((int)level > atomic_load(&max_level))
        return;
    char line[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    fprintf(stderr, "shoal: %s: %s\n", LEVEL_NAMES[level], line);
}
