/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"

enum { REDRAW_MS = 100, PANEL_ROWS_MAX = 64, BAR_WIDTH = 32, SHARE_BAR_WIDTH = 20 };

struct ShoalScreen {
    bool terminal, colour;
    int panel_lines; /* drawn below the cursor's home */
    uint64_t drawn_ms;
    char title[64];
    char last_test[256];
    char *last_panel; /* as it was after the last iteration; NULL before */
    int rows, columns;
    /* the panel under construction */
    char *text;
    size_t size, used;
};

ShoalScreen *shoal_screen_create(void) {
    ShoalScreen *screen = calloc(1, sizeof *screen);
    if (!screen)
        return NULL;
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    screen->terminal = isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
    screen->colour = screen->terminal && !(no_colour && no_colour[0]);
    screen->size = 64 * 1024;
    screen->text = malloc(screen->size);
    if (screen->text)
        return screen;
    free(screen);
    return NULL;
}

void shoal_screen_destroy(ShoalScreen *screen) {
    if (!screen)
        return;
    free(screen->last_panel);
    free(screen->text);
    free(screen);
}

/* ---- the panel ---- */

__attribute__((format(printf, 2, 3))) static void add(ShoalScreen *screen, const char *format,
                                                      ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(screen->text + screen->used, screen->size - screen->used, format, args);
    va_end(args);
    if (n > 0)
        screen->used +=
            (size_t)n < screen->size - screen->used ? (size_t)n : screen->size - screen->used - 1;
}

static void colour(ShoalScreen *screen, const char *code) {
    if (screen->colour)
        add(screen, "\033[%sm", code);
}

static void end_line(ShoalScreen *screen) {
    add(screen, "\033[K\n");
    screen->panel_lines++;
}

static void add_bar(ShoalScreen *screen, double fraction, int width) {
    int full = (int)lround(fraction * width);
    for (int i = 0; i < width; i++)
        add(screen, "%s", i < full ? "█" : "░");
}

static void add_duration(ShoalScreen *screen, double seconds) {
    long s = seconds < 0 || !isfinite(seconds) ? 0 : lround(seconds);
    if (s >= 3600)
        add(screen, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        add(screen, "%ld:%02ld", s / 60, s % 60);
}

static void add_head(ShoalScreen *screen, const ShoalEvent *event) {
    int done = event->iter + 1;
    double fraction = event->max_iter > 0 ? (double)done / event->max_iter : 1;
    colour(screen, "1");
    add(screen, "%s  ", screen->title);
    colour(screen, "0;36");
    add_bar(screen, fraction, BAR_WIDTH);
    colour(screen, "0");
    add(screen, " %3.0f %%  iteration %d/%d  ", 100 * fraction, done, event->max_iter);
    double left = event->images_per_s > 0
                      ? (double)(event->max_iter - done) * event->batch / event->images_per_s
                      : 0;
    add(screen, "ETA ");
    add_duration(screen, left);
    end_line(screen);
    add(screen, "loss ");
    colour(screen, "1");
    add(screen, "%-10.4g", (double)event->loss);
    colour(screen, "0");
    add(screen, "lr %-11.4g%.0f images/s", (double)event->rate, event->images_per_s);
    if (screen->last_test[0])
        add(screen, "   test: %s", screen->last_test);
    end_line(screen);
}

/* The time of a worker as a bar in three parts: compute, communication, waiting. */
static void add_split(ShoalScreen *screen, const ShoalWorkerStatus *worker) {
    static const char *const COLOURS[] = {"32", "33", "90"};
    static const char *const MARKS[] = {"█", "▓", "░"};
    double parts[] = {worker->compute, worker->communication, worker->waiting};
    int drawn = 0;
    double sum = 0;
    for (int p = 0; p < 3; p++) {
        sum += parts[p];
        int end = p == 2 ? SHARE_BAR_WIDTH : (int)lround(sum * SHARE_BAR_WIDTH);
        colour(screen, COLOURS[p]);
        for (; drawn < end && drawn < SHARE_BAR_WIDTH; drawn++)
            add(screen, "%s", MARKS[p]);
    }
    colour(screen, "0");
    add(screen, " %3.0f %3.0f %3.0f %%", 100 * parts[0], 100 * parts[1], 100 * parts[2]);
}

static void add_workers(ShoalScreen *screen, const ShoalEvent *event) {
    if (event->n_workers == 0)
        return;
    add(screen, "%-3s %-24s %5s %9s  %-*s", "", "worker", "share", "images/s", SHARE_BAR_WIDTH,
        "compute/comm./waiting");
    end_line(screen);
    int fit = screen->rows - 6 < PANEL_ROWS_MAX ? screen->rows - 6 : PANEL_ROWS_MAX;
    int shown = event->n_workers <= fit ? event->n_workers : fit > 1 ? fit - 1 : 1;
    for (int i = 0; i < shown; i++) {
        const ShoalWorkerStatus *worker = &event->workers[i];
        add(screen, "%3d %-24.24s %5d %9.0f  ", i, worker->name, worker->share,
            worker->images_per_s);
        add_split(screen, worker);
        end_line(screen);
    }
    if (shown < event->n_workers) {
        add(screen, "    ... and %d more", event->n_workers - shown);
        end_line(screen);
    }
}

static void home(ShoalScreen *screen) {
    if (screen->panel_lines)
        add(screen, "\033[%dA\r", screen->panel_lines);
    screen->panel_lines = 0;
}

static void flush(ShoalScreen *screen) {
    fwrite(screen->text, 1, screen->used, stdout);
    fflush(stdout);
    screen->used = 0;
}

static void measure_window(ShoalScreen *screen) {
    struct winsize window;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_row > 0;
    screen->rows = known ? window.ws_row : 24;
    screen->columns = known ? window.ws_col : 80;
}

static void draw(ShoalScreen *screen, const ShoalEvent *event) {
    uint64_t now = shoal_clock_ms();
    bool last = event->iter + 1 >= event->max_iter;
    if (!last && screen->drawn_ms && now - screen->drawn_ms < REDRAW_MS)
        return;
    screen->drawn_ms = now;
    measure_window(screen);
    screen->used = 0;
    home(screen);
    size_t body = screen->used;
    add(screen, "\033[?7l"); /* a line that is too long is cut, not wrapped */
    add_head(screen, event);
    add_workers(screen, event);
    add(screen, "\033[J\033[?7h");
    if (last)
        screen->last_panel = strndup(screen->text + body, screen->used - body);
    flush(screen);
}

/* Lines that stay: written where the panel was; the next event draws it again below. */
static void clear_panel(ShoalScreen *screen) {
    if (!screen->terminal || !screen->panel_lines)
        return;
    screen->used = 0;
    home(screen);
    add(screen, "\033[J");
    flush(screen);
    screen->drawn_ms = 0;
}

/* ---- lines ---- */

static void print_outputs(const char *kind, const ShoalEvent *event) {
    for (int i = 0; i < event->n_outputs; i++) {
        const ShoalOutput *output = &event->outputs[i];
        double value = (double)output->value, weight = (double)output->loss_weight;
        printf("    %s net output #%d: %s = %g", kind, i, output->name, value);
        if (weight != 0)
            printf(" (* %g = %g loss)", weight, weight * value);
        printf("\n");
    }
}

static void print_iteration(const ShoalEvent *event) {
    printf("Iteration %d, loss = %g\n", event->iter, (double)event->loss);
    print_outputs("Train", event);
    if (event->kind == SHOAL_EVENT_LOSS)
        return;
    printf("Iteration %d, lr = %g, %.1f images/s\n", event->iter, (double)event->rate,
           event->images_per_s);
    for (int i = 0; i < event->n_workers; i++) {
        const ShoalWorkerStatus *w = &event->workers[i];
        printf("    Worker %d (%s): share %d, %.1f images/s, compute %.0f%%, communication %.0f%%, "
               "waiting %.0f%%\n",
               i, w->name, w->share, w->images_per_s, 100 * w->compute, 100 * w->communication,
               100 * w->waiting);
    }
}

static void keep_test(ShoalScreen *screen, const ShoalEvent *event) {
    size_t used = 0;
    screen->last_test[0] = '\0';
    for (int i = 0; i < event->n_outputs && i < 4; i++) {
        int n = snprintf(screen->last_test + used, sizeof screen->last_test - used, "%s%s %.4g",
                         i ? ", " : "", event->outputs[i].name, (double)event->outputs[i].value);
        if (n < 0 || (size_t)n >= sizeof screen->last_test - used)
            return;
        used += (size_t)n;
    }
}

static void show_start(ShoalScreen *screen, const ShoalEvent *event) {
    snprintf(screen->title, sizeof screen->title, "%.40s",
             event->text && event->text[0] ? event->text : "net");
    printf("Solving %s: iterations %d to %d, batch %d", screen->title, event->iter, event->max_iter,
           event->batch);
    if (event->n_workers > 1)
        printf(", %d workers", event->n_workers);
    printf("\n");
}

static void print_event(ShoalScreen *screen, const ShoalEvent *event) {
    switch (event->kind) {
    case SHOAL_EVENT_START:
        show_start(screen, event);
        break;
    case SHOAL_EVENT_ITERATION:
    case SHOAL_EVENT_LOSS:
        print_iteration(event);
        break;
    case SHOAL_EVENT_TESTING:
        printf("Iteration %d, Testing net (#%d)\n", event->iter, event->test_net);
        break;
    case SHOAL_EVENT_TEST:
        keep_test(screen, event);
        print_outputs("Test", event);
        break;
    case SHOAL_EVENT_SNAPSHOT:
        printf("Snapshotting to %s\n", event->text);
        break;
    default:
        printf("%s\n", event->text ? event->text : "");
        break;
    }
    fflush(stdout);
}

void shoal_screen_show(ShoalScreen *screen, const ShoalEvent *event) {
    if (event->kind == SHOAL_EVENT_ITERATION && screen->terminal) {
        draw(screen, event);
        return;
    }
    if (event->kind == SHOAL_EVENT_ITERATION && event->clipped_norm > 0 && event->displayed)
        printf("Gradient clipping: L2 norm %g\n", event->clipped_norm);
    if (event->kind == SHOAL_EVENT_ITERATION && !event->displayed)
        return;
    clear_panel(screen);
    if (event->kind == SHOAL_EVENT_END && screen->last_panel)
        fputs(screen->last_panel, stdout); /* for good, below everything that came after it */
    print_event(screen, event);
}
