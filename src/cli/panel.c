/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

enum { BAR_WIDTH = 32, ROWS_MAX = 200, WIDE_COLUMNS = 104, WIDE_COLUMNS_PLAIN = 80 };

__attribute__((format(printf, 2, 3))) static void add(ShoalPanel *panel, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = vsnprintf(panel->text + panel->used, panel->size - panel->used, format, args);
    va_end(args);
    if (n > 0)
        panel->used +=
            (size_t)n < panel->size - panel->used ? (size_t)n : panel->size - panel->used - 1;
}

static void colour(ShoalPanel *panel, const char *code) {
    if (panel->colour)
        add(panel, "\033[%sm", code);
}

static void end_line(ShoalPanel *panel) {
    add(panel, "\033[K\n");
    panel->lines++;
}

/* Lines that still fit above the one with the cursor. */
static int lines_left(const ShoalPanel *panel) {
    return panel->rows - 1 - panel->lines;
}

/* ---- the run ---- */

static void add_bar(ShoalPanel *panel, double fraction, int width) {
    int full = (int)lround(fraction * width);
    for (int i = 0; i < width; i++)
        add(panel, "%s", i < full ? "█" : "░");
}

static void add_duration(ShoalPanel *panel, double seconds) {
    long s = seconds < 0 || !isfinite(seconds) ? 0 : lround(seconds);
    if (s >= 3600)
        add(panel, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        add(panel, "%ld:%02ld", s / 60, s % 60);
}

static void add_progress(ShoalPanel *panel, const char *title, const ShoalEvent *event) {
    int done = event->iter + 1;
    double fraction = event->max_iter > 0 ? (double)done / event->max_iter : 1;
    colour(panel, "1");
    add(panel, "%s  ", title);
    colour(panel, "0;36");
    add_bar(panel, fraction, BAR_WIDTH);
    colour(panel, "0");
    add(panel, " %3.0f %%  iteration %d/%d  ", 100 * fraction, done, event->max_iter);
    double left = event->images_per_s > 0
                      ? (double)(event->max_iter - done) * event->batch / event->images_per_s
                      : 0;
    add(panel, "ETA ");
    add_duration(panel, left);
    end_line(panel);
}

static void add_loss(ShoalPanel *panel, const char *last_test, const ShoalEvent *event) {
    add(panel, "loss ");
    colour(panel, "1");
    add(panel, "%-10.4g", (double)event->loss);
    colour(panel, "0");
    add(panel, "lr %-11.4g%.0f images/s", (double)event->rate, event->images_per_s);
    if (last_test[0])
        add(panel, "   test: %s", last_test);
    end_line(panel);
}

/* ---- the cluster ---- */

static void add_cluster(ShoalPanel *panel, const ShoalClusterStatus *cluster) {
    add(panel, "%d worker%s, generation %llu   sums %.1f ms, ", cluster->n_workers,
        cluster->n_workers == 1 ? "" : "s", (unsigned long long)cluster->generation,
        cluster->communication_ms);
    add(panel, "%.1f ms exposed, %.3g MB", cluster->exposed_ms, cluster->reduced_mb);
    if (panel->columns >= WIDE_COLUMNS)
        add(panel, "   ");
    else
        end_line(panel);
    if (lines_left(panel) <= 0)
        return;
    add(panel, "samples %.3g MB, %.0f %% cached", cluster->samples_mb, 100 * cluster->cached);
    end_line(panel);
}

/* ---- its workers ---- */

/* The columns of the table, as wide as the window allows. */
typedef struct Table {
    int name, bar;
    bool device; /* whether any worker tells how it is */
} Table;

static bool tells(const ShoalWorkerStatus *worker) {
    return worker->temperature > 0 || worker->clock > 0 || worker->battery >= 0;
}

static void add_name(ShoalPanel *panel, const char *name, int width) {
    char text[128];
    shoal_text_clean(name, false, text, sizeof text);
    const char *end = text;
    for (; *end && width > 0; width--) /* a character is a byte and those that continue it */
        do
            end++;
        while ((*end & 0xc0) == 0x80);
    add(panel, "%.*s%*s", (int)(end - text), text, width, "");
}

/* The time of a worker as a bar in three parts: compute, communication, waiting. */
static void add_split(ShoalPanel *panel, const ShoalWorkerStatus *worker, int width) {
    static const char *const COLOURS[] = {"32", "33", "90"};
    static const char *const MARKS[] = {"█", "▓", "░"};
    double parts[] = {worker->compute, worker->communication, worker->waiting};
    int drawn = 0;
    double sum = 0;
    for (int p = 0; p < 3; p++) {
        sum += parts[p];
        int end = p == 2 ? width : (int)lround(fmin(fmax(sum, 0), 1) * width);
        colour(panel, COLOURS[p]);
        for (; drawn < end; drawn++)
            add(panel, "%s", MARKS[p]);
    }
    colour(panel, "0");
    add(panel, " %3.0f %3.0f %3.0f %%", 100 * parts[0], 100 * parts[1], 100 * parts[2]);
}

/* "41C  62%   80%  87%+", yellow where the device is throttled, or lets itself compute less. */
static void add_device(ShoalPanel *panel, const ShoalWorkerStatus *worker) {
    char temperature[16] = "", clock[16] = "", duty[16] = "", battery[16] = "";
    if (worker->temperature > 0 && worker->temperature < 1000)
        snprintf(temperature, sizeof temperature, "%.0fC", worker->temperature);
    if (worker->clock > 0 && worker->clock <= 1)
        snprintf(clock, sizeof clock, "%.0f%%", 100 * worker->clock);
    if (worker->duty < 1)
        snprintf(duty, sizeof duty, "%.0f%%", 100 * worker->duty);
    if (worker->battery >= 0 && worker->battery <= 100)
        snprintf(battery, sizeof battery, "%d%%%s", worker->battery, worker->charging ? "+" : " ");
    bool throttled = shoal_is_throttled(worker) || worker->duty < 1;
    if (throttled)
        colour(panel, "33");
    add(panel, "  %4s %5s %5s %5s", temperature, clock, duty, battery);
    if (throttled)
        colour(panel, "0");
}

static void add_worker(ShoalPanel *panel, const Table *table, int rank,
                       const ShoalWorkerStatus *worker) {
    add(panel, "%3d ", rank);
    add_name(panel, worker->name, table->name);
    add(panel, " %5d %9.*f  ", worker->share, worker->images_per_s < 9.95 ? 1 : 0,
        worker->images_per_s);
    add_split(panel, worker, table->bar);
    if (table->device)
        add_device(panel, worker);
    end_line(panel);
}

static void add_rest(ShoalPanel *panel, const ShoalWorkerStatus *workers, int n, bool all) {
    char text[192];
    shoal_text_group(workers, n, text, sizeof text);
    if (all)
        add(panel, "    %d worker%s: %s", n, n == 1 ? "" : "s", text);
    else
        add(panel, "    ... and %d more: %s", n, text);
    end_line(panel);
}

/* As many workers as fit, by rank, and the rest in one line. */
static void add_workers(ShoalPanel *panel, const ShoalClusterStatus *cluster) {
    Table table = {0};
    for (int i = 0; i < cluster->n_workers; i++)
        table.device = table.device || tells(&cluster->workers[i]);
    bool wide = panel->columns >= (table.device ? WIDE_COLUMNS : WIDE_COLUMNS_PLAIN);
    table.name = wide ? 24 : 16;
    table.bar = wide ? 20 : 10;
    int fit = lines_left(panel) - 1, shown = cluster->n_workers;
    if (fit > ROWS_MAX)
        fit = ROWS_MAX;
    if (shown > fit)
        shown = fit > 1 ? fit - 1 : 0;
    if (shown > 0) {
        add(panel, "%-3s %-*s %5s %9s  %-*s%s", "", table.name, "worker", "share", "images/s",
            table.device ? table.bar + 14 : 0,
            wide ? "compute/comm./waiting" : "compute/comm./wait",
            table.device ? "  temp clock  duty  batt" : "");
        end_line(panel);
    }
    for (int i = 0; i < shown; i++)
        add_worker(panel, &table, i, &cluster->workers[i]);
    if (shown < cluster->n_workers)
        add_rest(panel, cluster->workers + shown, cluster->n_workers - shown, shown == 0);
}

/* Those that rest, one a line, as far as they fit. */
static void add_resting(ShoalPanel *panel, const ShoalClusterStatus *cluster) {
    for (int i = 0; i < cluster->n_resting && lines_left(panel) > 0; i++) {
        colour(panel, "33");
        add(panel, "    ");
        add_name(panel, cluster->resting[i].name, 24);
        add(panel, " rests: ");
        add_name(panel, cluster->resting[i].reason, panel->columns > 40 ? panel->columns - 40 : 0);
        colour(panel, "0");
        end_line(panel);
    }
}

void shoal_panel_draw(ShoalPanel *panel, const char *title, const char *last_test,
                      const ShoalEvent *event) {
    panel->lines = 0;
    panel->used = 0;
    add_progress(panel, title, event);
    if (lines_left(panel) > 0)
        add_loss(panel, last_test, event);
    const ShoalClusterStatus *cluster = event->cluster;
    if (!cluster || cluster->n_workers <= 0)
        return;
    if (lines_left(panel) > 0)
        add_cluster(panel, cluster);
    if (lines_left(panel) > 0)
        add_workers(panel, cluster);
    add_resting(panel, cluster);
}
