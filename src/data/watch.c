/* SPDX-License-Identifier: Apache-2.0 */
#include "data/watch.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/error.h"
#include "base/stop.h"

void shoal_watch_progress(const ShoalToolWatch *watch, uint64_t done, uint64_t total) {
    if (watch && watch->progress)
        watch->progress(watch->context, done, total);
}

ShoalStatus shoal_watch_stopped(const ShoalToolWatch *watch, ShoalError *err) {
    if (!watch || shoal_stop_asked(watch->stop) != SHOAL_STOP_NOW)
        return SHOAL_OK;
    return shoal_error_set(err, SHOAL_ERR_STOPPED, "stopped on request; nothing was kept");
}

void shoal_watch_note(const ShoalToolWatch *watch, const char *format, ...) {
    if (!watch || !watch->note)
        return;
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    watch->note(watch->context, text);
}
