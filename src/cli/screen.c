/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"

enum { REDRAW_MS = 100, LINES_OF_WORKERS_MAX = 16, LINE_SIZE = 512 };

struct ShoalScreen {
    bool terminal;
    FILE *out; /* of lines */
    uint64_t drawn_ms;
    char title[64];
    char last_test[256];
    char *last_panel; /* as it was after the last iteration; NULL before */
    ShoalPanel panel; /* lines: what stands above the cursor and will be replaced */
    int expected;     /* workers that the run waits for; 0: it has begun */
    int members;      /* now */
    uint64_t generation;
};

ShoalScreen *shoal_screen_create(int workers, bool plain) {
    ShoalScreen *screen = calloc(1, sizeof *screen);
    if (!screen)
        return NULL;
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    screen->terminal = !plain && isatty(STDOUT_FILENO) && term && strcmp(term, "dumb") != 0;
    screen->panel.colour = screen->terminal && !(no_colour && no_colour[0]);
    screen->panel.size = 128 * 1024;
    screen->panel.text = malloc(screen->panel.size);
    screen->expected = workers;
    screen->out = stdout;
    if (screen->panel.text)
        return screen;
    free(screen);
    return NULL;
}

void shoal_screen_destroy(ShoalScreen *screen) {
    if (!screen)
        return;
    free(screen->last_panel);
    free(screen->panel.text);
    free(screen);
}

/* ---- the panel ---- */

static void home(ShoalScreen *screen) {
    if (screen->panel.lines)
        printf("\033[%dA\r", screen->panel.lines);
    screen->panel.lines = 0;
}

/* A line that is too long is cut, not wrapped. */
static void put_panel(const char *text, size_t size) {
    fputs("\033[?7l", stdout);
    fwrite(text, 1, size, stdout);
    fputs("\033[J\033[?7h", stdout);
}

static void measure_window(ShoalPanel *panel) {
    struct winsize window;
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_row > 0;
    panel->rows = known ? window.ws_row : 24;
    panel->columns = known ? window.ws_col : 80;
}

static void draw(ShoalScreen *screen, const ShoalEvent *event) {
    uint64_t now = shoal_clock_ms();
    bool last = event->iter + 1 >= event->max_iter;
    if (!last && screen->drawn_ms && now - screen->drawn_ms < REDRAW_MS)
        return;
    screen->drawn_ms = now;
    home(screen);
    ShoalPanel *panel = &screen->panel;
    measure_window(panel);
    shoal_panel_draw(panel, screen->title, screen->last_test, event);
    put_panel(panel->text, panel->used);
    fflush(stdout);
    if (last) {
        free(screen->last_panel); /* the last iteration may be computed twice */
        screen->last_panel = strndup(panel->text, panel->used);
    }
}

/* Lines that stay: written where the panel was; the next event draws it again below. */
static void clear_panel(ShoalScreen *screen) {
    if (!screen->terminal || !screen->panel.lines)
        return;
    home(screen);
    fputs("\033[J", stdout);
    screen->drawn_ms = 0;
}

/* ---- lines ---- */

static void print_outputs(FILE *out, const char *kind, const ShoalEvent *event) {
    for (int i = 0; i < event->n_outputs; i++) {
        const ShoalOutput *output = &event->outputs[i];
        double value = (double)output->value, weight = (double)output->loss_weight;
        fprintf(out, "    %s net output #%d: %s = %g", kind, i, output->name, value);
        if (weight != 0)
            fprintf(out, " (* %g = %g loss)", weight, weight * value);
        fprintf(out, "\n");
    }
}

/* What is known of a device: ", 41 C, clock 62%, battery 87% (charging), computes 60% of the time
 * (the processor has 76 C; its ceiling is 77 C)". */
static void print_device(FILE *out, const ShoalWorkerStatus *w) {
    if (w->temperature > 0)
        fprintf(out, ", %.0f C", w->temperature);
    if (w->clock > 0)
        fprintf(out, ", clock %.0f%%", 100 * w->clock);
    if (w->battery >= 0)
        fprintf(out, ", battery %d%%%s", w->battery, w->charging ? " (charging)" : "");
    if (w->duty < 1)
        fprintf(out, ", computes %.0f%% of the time", 100 * w->duty);
    if (w->remark[0]) {
        char text[192];
        shoal_text_clean(w->remark, false, text, sizeof text);
        fprintf(out, " (%s)", text);
    }
}

static void print_cluster(FILE *out, const ShoalClusterStatus *cluster) {
    fprintf(
        out,
        "    Cluster: generation %llu, %d worker%s, sums %.1f ms (%.1f ms exposed) and %.4g MB, ",
        (unsigned long long)cluster->generation, cluster->n_workers,
        cluster->n_workers == 1 ? "" : "s", cluster->communication_ms, cluster->exposed_ms,
        cluster->reduced_mb);
    fprintf(out, "samples %.4g MB (%.0f%% cached)\n", cluster->samples_mb, 100 * cluster->cached);
    int shown =
        cluster->n_workers <= LINES_OF_WORKERS_MAX ? cluster->n_workers : LINES_OF_WORKERS_MAX - 1;
    for (int i = 0; i < shown; i++) {
        const ShoalWorkerStatus *w = &cluster->workers[i];
        char name[128];
        shoal_text_clean(w->name, false, name, sizeof name);
        fprintf(
            out,
            "    Worker %d (%s): share %d, %.1f images/s, compute %.0f%%, communication %.0f%%, "
            "waiting %.0f%%",
            i, name, w->share, w->images_per_s, 100 * w->compute, 100 * w->communication,
            100 * w->waiting);
        print_device(out, w);
        fprintf(out, "\n");
    }
    char rest[192];
    shoal_text_group(cluster->workers + shown, cluster->n_workers - shown, rest, sizeof rest);
    if (shown < cluster->n_workers)
        fprintf(out, "    ... and %d more: %s\n", cluster->n_workers - shown, rest);
}

static void print_iteration(FILE *out, const ShoalEvent *event) {
    if (event->kind == SHOAL_EVENT_ITERATION && event->clipped_norm > 0)
        fprintf(out, "Gradient clipping: L2 norm %g\n", event->clipped_norm);
    fprintf(out, "Iteration %d, loss = %g\n", event->iter, (double)event->loss);
    if (event->kind == SHOAL_EVENT_LOSS)
        return;
    print_outputs(out, "Train", event);
    fprintf(out, "Iteration %d, lr = %g\n", event->iter, (double)event->rate);
    fprintf(out, "    Speed: %.1f images/s\n", event->images_per_s);
    if (event->cluster)
        print_cluster(out, event->cluster);
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
    fprintf(screen->out, "Solving %s: iterations %d to %d, batch %d", screen->title, event->iter,
            event->max_iter, event->batch);
    if (event->n_workers > 1)
        fprintf(screen->out, ", %d workers", event->n_workers);
    fprintf(screen->out, "\n");
}

/* ---- who comes and goes ---- */

static void print_text(FILE *out, const char *text) {
    char clean[4096];
    shoal_text_clean(text, true, clean, sizeof clean);
    fprintf(out, "%s\n", clean);
}

static const char *plural(int n) {
    return n == 1 ? "" : "s";
}

static void print_in(const ShoalScreen *screen, const char *colour, const char *line) {
    if (screen->panel.colour)
        fprintf(screen->out, "\033[%sm%s\033[0m\n", colour, line);
    else
        fprintf(screen->out, "%s\n", line);
}

/* Before the run begins a terminal has one line for all of them. */
static void show_joined(ShoalScreen *screen, const ShoalEvent *event) {
    screen->members = event->n_workers;
    bool begin = screen->expected > 0;
    int expected = screen->expected;
    if (event->n_workers >= expected)
        screen->expected = 0;
    char who[LINE_SIZE];
    shoal_text_clean(event->text, false, who, sizeof who);
    if (begin && screen->terminal) {
        fprintf(screen->out, "Workers: %d of %d\n", event->n_workers, expected);
        screen->panel.lines = screen->expected > 0;
    } else if (begin) {
        fprintf(screen->out, "Worker %d of %d joined: %s\n", event->n_workers, expected, who);
    } else {
        fprintf(screen->out, "Worker joined: %s (%d worker%s)\n", who, event->n_workers,
                plural(event->n_workers));
    }
}

static void show_lost(ShoalScreen *screen, const ShoalEvent *event) {
    screen->members = event->n_workers;
    char who[LINE_SIZE], line[LINE_SIZE + 64];
    shoal_text_clean(event->text, false, who, sizeof who);
    snprintf(line, sizeof line, "Worker lost: %s (%d worker%s left)", who, event->n_workers,
             plural(event->n_workers));
    print_in(screen, "31", line);
}

static void show_resting(ShoalScreen *screen, const ShoalEvent *event) {
    screen->members = event->n_workers;
    char who[LINE_SIZE], line[LINE_SIZE + 64];
    shoal_text_clean(event->text, false, who, sizeof who);
    snprintf(line, sizeof line, "Worker rests: %s (%d worker%s at work)", who, event->n_workers,
             plural(event->n_workers));
    print_in(screen, "33", line);
}

/* What to type, or to scan, on a phone. */
static void show_waiting(const ShoalScreen *screen, const ShoalEvent *event) {
    print_text(screen->out, event->text);
    if (event->command && screen->terminal && shoal_qr_print(event->command, screen->panel.colour))
        fprintf(screen->out, "The same command, for a phone's camera.\n");
}

static void show_paused(const ShoalScreen *screen, const ShoalEvent *event) {
    char why[LINE_SIZE], line[LINE_SIZE + 64];
    shoal_text_clean(event->text, false, why, sizeof why);
    snprintf(line, sizeof line, "Paused: %s", why);
    print_in(screen, "33", line);
}

static void show_generation(FILE *out, const ShoalEvent *event) {
    fprintf(out, "Generation %llu: %d worker%s\n", (unsigned long long)event->generation,
            event->n_workers, plural(event->n_workers));
}

static void show_recovered(const ShoalScreen *screen, const ShoalEvent *event) {
    int members = event->n_workers > 0 ? event->n_workers : screen->members;
    uint64_t generation = event->generation > 0 ? event->generation : screen->generation;
    fprintf(screen->out, "Going on with %d worker%s (generation %llu), %.2f s after the loss.\n",
            members, plural(members), (unsigned long long)generation, event->recovery_s);
}

static void print_event(ShoalScreen *screen, const ShoalEvent *event) {
    switch (event->kind) {
    case SHOAL_EVENT_START:
        show_start(screen, event);
        break;
    case SHOAL_EVENT_ITERATION:
    case SHOAL_EVENT_LOSS:
        print_iteration(screen->out, event);
        break;
    case SHOAL_EVENT_TESTING:
        fprintf(screen->out, "Iteration %d, Testing net (#%d)\n", event->iter, event->test_net);
        break;
    case SHOAL_EVENT_TEST:
        keep_test(screen, event);
        print_outputs(screen->out, "Test", event);
        break;
    case SHOAL_EVENT_SNAPSHOT:
        fprintf(screen->out, "Snapshotting to %s\n", event->text);
        break;
    case SHOAL_EVENT_JOINED:
        show_joined(screen, event);
        break;
    case SHOAL_EVENT_LOST:
        show_lost(screen, event);
        break;
    case SHOAL_EVENT_RESTING:
        show_resting(screen, event);
        break;
    case SHOAL_EVENT_WAITING:
        show_waiting(screen, event);
        break;
    case SHOAL_EVENT_PAUSED:
        show_paused(screen, event);
        break;
    case SHOAL_EVENT_GENERATION:
        show_generation(screen->out, event);
        break;
    case SHOAL_EVENT_RECOVERED:
        show_recovered(screen, event);
        break;
    default:
        print_text(screen->out, event->text);
        break;
    }
}

/* ---- a log as Caffe writes it ---- */

/* What stands before each line, as glog has it (parse_log.py and its like take the time from it):
 * level and date, time, thread, place. */
static void print_prefix(void) {
    struct timespec now;
    struct tm date;
    clock_gettime(CLOCK_REALTIME, &now);
    if (localtime_r(&now.tv_sec, &date))
        printf("I%02d%02d %02d:%02d:%02d.%06ld %5ld shoal] ", date.tm_mon + 1, date.tm_mday,
               date.tm_hour, date.tm_min, date.tm_sec, now.tv_nsec / 1000, (long)getpid());
}

static void print_logged(const char *text) {
    while (*text) {
        size_t length = strcspn(text, "\n");
        print_prefix();
        fwrite(text, 1, length, stdout);
        fputc('\n', stdout);
        text += length + (text[length] == '\n');
    }
}

/* People see plain lines; a file or a program gets a log. What is to be typed on other machines is
 * for people, wherever it goes. */
static void print_lines(ShoalScreen *screen, const ShoalEvent *event) {
    char *text = NULL;
    size_t size;
    bool log = !screen->terminal && event->kind != SHOAL_EVENT_WAITING;
    FILE *lines = log ? open_memstream(&text, &size) : NULL;
    screen->out = lines ? lines : stdout;
    print_event(screen, event);
    screen->out = stdout;
    if (lines && !fclose(lines))
        print_logged(text);
    free(text);
    fflush(stdout);
}

void shoal_screen_show(ShoalScreen *screen, const ShoalEvent *event) {
    if (event->kind == SHOAL_EVENT_GENERATION) {
        screen->members = event->n_workers;
        screen->generation = event->generation;
        if (screen->terminal) /* the panel says it */
            return;
    }
    if (event->kind == SHOAL_EVENT_ITERATION && screen->terminal) {
        draw(screen, event);
        return;
    }
    if (event->kind == SHOAL_EVENT_ITERATION && !event->displayed)
        return;
    clear_panel(screen);
    if (event->kind == SHOAL_EVENT_END && screen->last_panel)
        put_panel(screen->last_panel, strlen(screen->last_panel)); /* for good, below the rest */
    print_lines(screen, event);
}
