/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CLI_CLI_H
#define SHOAL_CLI_CLI_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/shoal.h"
#include "shoal/tools.h"

/* The command line: one file per subcommand, each a ShoalCommand in the table of main.c. */

enum { SHOAL_EXIT_OK = 0, SHOAL_EXIT_FAILURE = 1, SHOAL_EXIT_USAGE = 2 };

typedef struct ShoalCommand {
    const char *name;
    const char *summary;               /* one line for `shoal --help` */
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit code */
} ShoalCommand;

extern const ShoalCommand shoal_command_train, shoal_command_worker, shoal_command_test,
    shoal_command_time, shoal_command_init, shoal_command_convert_mnist_data,
    shoal_command_convert_cifar_data, shoal_command_convert_imageset,
    shoal_command_compute_image_mean, shoal_command_extract_features,
    shoal_command_upgrade_net_proto_text, shoal_command_upgrade_net_proto_binary,
    shoal_command_upgrade_solver_proto_text, shoal_command_device_query, shoal_command_deploy,
    shoal_command_doctor, shoal_command_version;

/* ---- flags.c ---- */

typedef enum ShoalFlagKind {
    SHOAL_FLAG_TEXT,
    SHOAL_FLAG_COUNT,   /* 0 or more */
    SHOAL_FLAG_SIZE,    /* bytes, with K, M or G for powers of 1024 */
    SHOAL_FLAG_SWITCH,  /* alone, or as gflags has it: --name=false, --noname */
    SHOAL_FLAG_OPTIONAL /* with a value or without */
} ShoalFlagKind;

/* One flag: --name=VALUE or --name VALUE (or -name, as Caffe's tools have it). - and _ are alike in
 * names, and a name may be cut short where no other begins like that. */
typedef struct ShoalFlag {
    const char *name;
    ShoalFlagKind kind;
    void *value;      /* const char **, int *, long long *, bool * or ShoalOptionalText * */
    const char *what; /* "FILE", "N"; NULL for a switch */
    const char *help; /* lines of the manual, separated by '\n' */
} ShoalFlag;

/* --name, --name=TEXT, or --name TEXT where TEXT does not begin with '-'. */
typedef struct ShoalOptionalText {
    bool given;
    const char *text; /* NULL: without a value */
} ShoalOptionalText;

/* The flag that every command with kernels has; target: const char **. */
#define SHOAL_FLAG_CPU(target)                                                                     \
    {                                                                                              \
        "cpu", SHOAL_FLAG_TEXT, target, "LEVEL",                                                   \
            "level of the kernels: c, avx2, avx512, neon\n(default: the best that this CPU has)"   \
    }

/* The flag of every command that shows who it is to a cluster; target: const char **; more: what
 * follows in its help. */
#define SHOAL_FLAG_TOKEN(target, more)                                                             \
    {                                                                                              \
        "token", SHOAL_FLAG_TEXT, target, "TEXT",                                                  \
            "the cluster's secret (default: SHOAL_TOKEN); other\nusers of this machine can see "   \
            "it on a command line" more                                                            \
    }

/* The flags of every command that computes, but for --threads; target: a ShoalEngineOptions. */
#define SHOAL_FLAGS_ENGINE(target)                                                                 \
    SHOAL_FLAG_CPU(&(target).cpu),                                                                 \
        {"plan", SHOAL_FLAG_TEXT, &(target).plan, "PLAN",                                          \
         "auto: fuse layers where it pays (default);\nfused: wherever it is possible; plain: "     \
         "never"},                                                                                 \
        {"winograd", SHOAL_FLAG_TEXT, &(target).winograd, "on|off",                                \
         "3x3 convolutions by Winograd's transforms\n(default: on)"},                              \
    {                                                                                              \
        "recompute", SHOAL_FLAG_TEXT, &(target).recompute, "on|off",                               \
            "keep less memory from forward to backward, and\nmake again what is quickly made "     \
            "(default: on)"                                                                        \
    }

/* Which layers the net has; target: a ShoalNetChoice. */
#define SHOAL_FLAGS_CHOICE(target)                                                                 \
    {"level", SHOAL_FLAG_COUNT, &(target).level, "N",                                              \
     "level of the net, for include and exclude"},                                                 \
    {                                                                                              \
        "stage", SHOAL_FLAG_TEXT, &(target).stages, "NAME[,NAME...]",                              \
            "stages of the net, for include and exclude"                                           \
    }

typedef struct ShoalUsage {
    const char *command;  /* "train" */
    const char *purpose;  /* paragraph that opens the manual */
    const char *operands; /* "IMAGES LABELS LMDB"; NULL: none */
    int n_operands;
    int n_optional; /* of these, at their end: may be left out, and are NULL then */
    bool caffe;     /* a command of Caffe: takes and ignores its --gpu and the flags of its
                       log (glog), which people have in their scripts */
    const ShoalFlag *flags;
    int n_flags;
    const char *notes; /* what follows the flags: examples; may be NULL */
} ShoalUsage;

/* Reads the flags; operands go to operands[n_operands]. Notes about what is ignored go to standard
 * error. Returns -1 to go on, else the exit code
 * (--help was asked for and printed, or an error was printed). */
int shoal_flags_parse(const ShoalUsage *usage, int argc, char **argv, const char **operands);

/* Prints an error as "shoal COMMAND: error: TEXT" and returns the exit code for it; for
 * SHOAL_ERR_STOPPED, which is none, "shoal COMMAND: TEXT" and SHOAL_EXIT_OK. */
int shoal_cli_fail(const char *command, const ShoalError *error);

/* "lmdb" is the only format of datasets; SHOAL_ERR_ARGUMENT names the flag or operand `what`. */
ShoalStatus shoal_cli_check_backend(const char *what, const char *backend, ShoalError *error);

/* The flag by which Caffe's tools choose it; target: const char **. */
#define SHOAL_FLAG_BACKEND(target)                                                                 \
    { "backend", SHOAL_FLAG_TEXT, target, "lmdb", "the only format there is" }

/* ---- watch.c: tools at work ---- */

/* Shows on standard error how far a tool is, where that is a terminal, and its notes. Ctrl-C makes
 * it give up. */
typedef struct ShoalCliWatch {
    ShoalToolWatch watch; /* give this to the tool */
    const char *command;
    bool live, shown; /* a terminal; there is a line about the progress */
    uint64_t next_ns; /* not before then the next one */
} ShoalCliWatch;

void shoal_cli_watch_begin(ShoalCliWatch *watch, const char *command);

/* Ends the line, prints an error; returns the exit code. A tool that was stopped has failed. */
int shoal_cli_watch_end(ShoalCliWatch *watch, const ShoalError *error);

/* ---- signals.c ---- */

/* SIGINT and SIGTERM store SHOAL_STOP_NOW, SIGHUP SHOAL_STOP_SNAPSHOT, as Caffe's tools do; a
 * second SIGINT ends the process at once. SIGPIPE is ignored. Returns where they store it. */
volatile sig_atomic_t *shoal_cli_catch_signals(void);

/* What SIGINT (and SIGTERM) and SIGHUP do, as in Caffe: "stop", "snapshot", "none"; NULL: as they
 * are. SHOAL_ERR_ARGUMENT. */
ShoalStatus shoal_cli_signal_effects(const char *sigint, const char *sighup, ShoalError *error);

/* ---- text.c: what others have written, such as the names that workers give themselves ---- */

/* Copies text, cut at a whole character: what is no UTF-8 and what would move the cursor becomes
 * '?'; line ends stay with `lines`. Returns the length. size: 1 or more. */
size_t shoal_text_clean(const char *text, bool lines, char *out, size_t size);

/* "4,210"; "12.3" below 100, so that slow devices differ. Returns out. */
const char *shoal_text_rate(double rate, char out[32]);

/* "4,210 images/s; slowest pixel-7 12.0 images/s; 3 throttled" of workers[0 .. n). */
void shoal_text_group(const ShoalWorkerStatus *workers, int n, char *out, size_t size);

/* Whether a worker may not use its full clock. */
bool shoal_is_throttled(const ShoalWorkerStatus *worker);

/* ---- panel.c ---- */

/* The live panel: a text of as many lines as the window has rows, or fewer. */
typedef struct ShoalPanel {
    bool colour;
    int rows, columns; /* of the window */
    int lines;         /* of the panel */
    char *text;
    size_t size, used;
} ShoalPanel;

/* Writes the panel to panel->text, panel->used bytes, and sets panel->lines. last_test: "" when
 * there is none. */
void shoal_panel_draw(ShoalPanel *panel, const char *title, const char *last_test,
                      const ShoalEvent *event);

/* ---- qr.c ---- */

/* Prints text as a QR code for phones to read, when standard output is a terminal that is wide
 * enough; else nothing. Returns whether it did. */
bool shoal_qr_print(const char *text, bool colour);

/* ---- screen.c ---- */

/* What people see of a run: Caffe's log lines on standard output, and below them, when it is a
 * terminal, a live panel. */
typedef struct ShoalScreen ShoalScreen;

/* workers: that the run waits for at its begin; 0: none. */
ShoalScreen *shoal_screen_create(int workers, bool plain);
void shoal_screen_destroy(ShoalScreen *screen);
void shoal_screen_show(ShoalScreen *screen, const ShoalEvent *event);

/* ---- json_log.c ---- */

/* --log-json: one object a line. */
typedef struct ShoalJsonLog ShoalJsonLog;

ShoalStatus shoal_json_log_open(const char *path, ShoalJsonLog **out, ShoalError *err);
/* SHOAL_ERR_IO when the disk is full or the like. */
ShoalStatus shoal_json_log_close(ShoalJsonLog *log, ShoalError *err);
void shoal_json_log_event(ShoalJsonLog *log, const ShoalEvent *event);

#endif
