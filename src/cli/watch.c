/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"

enum { TEXT_BYTES = 2048 };
static const uint64_t REFRESH_NS = 100000000;

static void clear(ShoalCliWatch *watch) {
    if (watch->shown)
        fputs("\r\033[K", stderr);
    watch->shown = false;
}

static void on_progress(void *context, uint64_t done, uint64_t total) {
    ShoalCliWatch *watch = context;
    uint64_t now = shoal_clock_ns();
    if (!watch->live || now < watch->next_ns)
        return;
    watch->next_ns = now + REFRESH_NS;
    watch->shown = true;
    fprintf(stderr, "\r\033[K%" PRIu64 " of %" PRIu64 " records", done, total);
    fflush(stderr);
}

static void on_note(void *context, const char *text) {
    ShoalCliWatch *watch = context;
    char clean[TEXT_BYTES];
    shoal_text_clean(text, false, clean, sizeof clean);
    clear(watch);
    fprintf(stderr, "shoal %s: %s\n", watch->command, clean);
}

void shoal_cli_watch_begin(ShoalCliWatch *watch, const char *command) {
    *watch = (ShoalCliWatch){.command = command, .live = isatty(STDERR_FILENO)};
    watch->watch = (ShoalToolWatch){.progress = on_progress,
                                    .note = on_note,
                                    .context = watch,
                                    .stop = shoal_cli_catch_signals()};
}

int shoal_cli_watch_end(ShoalCliWatch *watch, const ShoalError *error) {
    clear(watch);
    if (!error->status)
        return SHOAL_EXIT_OK;
    ShoalError shown = *error;
    shoal_text_clean(error->text, true, shown.text, sizeof shown.text);
    int code = shoal_cli_fail(watch->command, &shown);
    return code == SHOAL_EXIT_OK ? SHOAL_EXIT_FAILURE : code;
}
