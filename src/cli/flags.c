/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/cli.h"

enum { MAX_FLAGS = 32, HELP_COLUMN = 28 };

/* ---- the manual ---- */

static void print_help_lines(const char *help) {
    for (bool first = true; *help; first = false) {
        size_t length = strcspn(help, "\n");
        printf("%*s%.*s\n", first ? 0 : HELP_COLUMN, "", (int)length, help);
        help += length + (help[length] == '\n');
    }
}

static void print_flag(const ShoalFlag *flag) {
    bool optional = flag->kind == SHOAL_FLAG_OPTIONAL;
    int n = printf("  --%s", flag->name);
    if (flag->what)
        n += printf("%s=%s%s", optional ? "[" : "", flag->what, optional ? "]" : "");
    if (n >= HELP_COLUMN - 1)
        printf("\n%*s", HELP_COLUMN, "");
    else
        printf("%*s", HELP_COLUMN - n, "");
    print_help_lines(flag->help);
}

static void print_manual(const ShoalUsage *usage) {
    printf("usage: shoal %s%s%s%s\n\n%s\n", usage->command, usage->n_flags ? " [flags]" : "",
           usage->operands ? " " : "", usage->operands ? usage->operands : "", usage->purpose);
    printf("\nFlags (--flag=value or --flag value):\n");
    for (int i = 0; i < usage->n_flags; i++)
        print_flag(&usage->flags[i]);
    print_flag(&(ShoalFlag){"help", SHOAL_FLAG_SWITCH, NULL, NULL, "print this page"});
    if (usage->caffe)
        printf("\nCaffe's -gpu and the flags of its log (-logtostderr, -minloglevel=N, ...)\n"
               "are taken and ignored.\n");
    if (usage->notes)
        printf("\n%s", usage->notes);
}

/* ---- values ---- */

static int usage_error(const ShoalUsage *usage, const char *what, const char *which) {
    fprintf(stderr, "shoal %s: %s%s; see: shoal %s --help\n", usage->command, what, which,
            usage->command);
    return SHOAL_EXIT_USAGE;
}

static int value_error(const ShoalUsage *usage, const ShoalFlag *flag, const char *text,
                       const char *expected) {
    char which[256];
    snprintf(which, sizeof which, "--%s=%.128s: %s", flag->name, text, expected);
    return usage_error(usage, "", which);
}

static int store_count(const ShoalUsage *usage, const ShoalFlag *flag, const char *text) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end || errno || value < 0 || value > INT_MAX)
        return value_error(usage, flag, text, "a whole number is expected");
    *(int *)flag->value = (int)value;
    return -1;
}

static int store_size(const ShoalUsage *usage, const ShoalFlag *flag, const char *text) {
    static const char UNITS[] = "kKmMgG";
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    const char *unit = *end ? strchr(UNITS, *end) : NULL;
    int shift = unit ? 10 * (1 + (int)(unit - UNITS) / 2) : 0;
    if (end == text || end[unit != NULL] || errno || value < 0 || value > LLONG_MAX >> shift)
        return value_error(usage, flag, text, "a size is expected, such as 512M or 2G");
    *(long long *)flag->value = value << shift;
    return -1;
}

/* The words that gflags has for a bool; text: NULL when none was given. */
static int store_switch(const ShoalUsage *usage, const ShoalFlag *flag, const char *text) {
    static const char *const WORDS[] = {"false", "0", "no", "f", "n", "true", "1", "yes", "t", "y"};
    enum { N_WORDS = sizeof WORDS / sizeof WORDS[0] };
    int word = N_WORDS - 1;
    while (text && word >= 0 && strcmp(text, WORDS[word]))
        word--;
    if (word < 0)
        return value_error(usage, flag, text, "true or false is expected, or nothing");
    *(bool *)flag->value = word >= N_WORDS / 2;
    return -1;
}

/* text: NULL when none was given. */
static int store(const ShoalUsage *usage, const ShoalFlag *flag, const char *text) {
    switch (flag->kind) {
    case SHOAL_FLAG_COUNT:
        return store_count(usage, flag, text);
    case SHOAL_FLAG_SIZE:
        return store_size(usage, flag, text);
    case SHOAL_FLAG_SWITCH:
        return store_switch(usage, flag, text);
    case SHOAL_FLAG_OPTIONAL:
        *(ShoalOptionalText *)flag->value = (ShoalOptionalText){.given = true, .text = text};
        break;
    case SHOAL_FLAG_TEXT:
        *(const char **)flag->value = text;
        break;
    }
    return -1;
}

/* ---- names ---- */

enum { HELP = -1, UNKNOWN = -2, AMBIGUOUS = -3, IGNORED = -4 };

static char with_dash(char c) {
    return c == '_' ? '-' : c;
}

static bool begins_with(const char *name, const char *start, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (!name[i] || with_dash(name[i]) != with_dash(start[i]))
            return false;
    return true;
}

static bool is_called(const char *name, const char *other, size_t length) {
    return begins_with(name, other, length) && !name[length];
}

/* What Caffe's programs have and we do not: GPUs, and glog's flags (its logging.cc). */
static const struct {
    const char *name;
    bool takes_value; /* the next argument, where there is no '=' */
} IGNORED_FLAGS[] = {
    {"gpu", true},         {"logtostderr", false},      {"alsologtostderr", false},
    {"log_dir", true},     {"colorlogtostderr", false}, {"log_prefix", false},
    {"minloglevel", true}, {"stderrthreshold", true},   {"logbuflevel", true},
    {"logbufsecs", true},  {"max_log_size", true},      {"stop_logging_if_full_disk", false},
    {"v", true},           {"vmodule", true},
};

/* Is it one of these? with its "no" in front, too, as gflags has it for a bool. */
static bool is_ignored(const char *name, size_t length, bool *takes_value) {
    for (size_t i = 0; i < sizeof IGNORED_FLAGS / sizeof IGNORED_FLAGS[0]; i++) {
        bool value = IGNORED_FLAGS[i].takes_value;
        *takes_value = value && !name[length];
        if (is_called(IGNORED_FLAGS[i].name, name, length) ||
            (!value && length > 2 && !strncmp(name, "no", 2) &&
             is_called(IGNORED_FLAGS[i].name, name + 2, length - 2)))
            return true;
    }
    return false;
}

/* The switch that "noNAME" turns off; UNKNOWN if there is none. */
static int find_off(const ShoalUsage *usage, const char *name, size_t length) {
    for (int i = 0; i < usage->n_flags && length > 2 && !strncmp(name, "no", 2); i++)
        if (usage->flags[i].kind == SHOAL_FLAG_SWITCH &&
            is_called(usage->flags[i].name, name + 2, length - 2))
            return i;
    return UNKNOWN;
}

/* The flag of that name, or the only one whose name begins like that. */
static int find(const ShoalUsage *usage, const char *name, size_t length) {
    bool takes_value;
    int found = UNKNOWN;
    if (length == 1 && name[0] == 'h')
        return HELP;
    for (int i = -1; i < usage->n_flags && length > 0; i++) {
        const char *candidate = i < 0 ? "help" : usage->flags[i].name;
        if (!begins_with(candidate, name, length))
            continue;
        if (!candidate[length])
            return i;
        found = found == UNKNOWN ? i : AMBIGUOUS;
    }
    return usage->caffe && is_ignored(name, length, &takes_value) ? IGNORED : found;
}

/* ---- arguments ---- */

typedef struct Arguments {
    const ShoalUsage *usage;
    int argc;
    char **argv;
    int at; /* the next one */
    bool seen[MAX_FLAGS];
    const char **operands;
    int n_operands;
    const char *unexpected; /* the first operand too many */
} Arguments;

/* Whether a flag takes the argument after it as its value. */
static bool takes_next(const Arguments *a, const ShoalFlag *flag) {
    if (flag->kind == SHOAL_FLAG_SWITCH || a->at >= a->argc)
        return false;
    return flag->kind != SHOAL_FLAG_OPTIONAL || a->argv[a->at][0] != '-';
}

/* Says that a flag of Caffe has no effect. */
static void ignore(Arguments *a, const char *argument, const char *name, size_t length) {
    bool takes_value;
    (void)is_ignored(name, length, &takes_value);
    bool next = takes_value && a->at < a->argc;
    fprintf(stderr, "shoal %s: %s%s%s is ignored\n", a->usage->command, argument, next ? " " : "",
            next ? a->argv[a->at] : "");
    a->at += next;
}

/* Returns -1 to go on, else the exit code. */
static int take_flag(Arguments *a, const char *argument) {
    const char *name = argument + 1 + (argument[1] == '-');
    size_t length = strcspn(name, "=");
    int i = find(a->usage, name, length);
    if (i == HELP && !name[length]) {
        print_manual(a->usage);
        return SHOAL_EXIT_OK;
    }
    if (i == IGNORED) {
        ignore(a, argument, name, length);
        return -1;
    }
    bool off = i == UNKNOWN && !name[length];
    if (off)
        i = find_off(a->usage, name, length);
    if (i < 0)
        return usage_error(
            a->usage, i == AMBIGUOUS ? "several flags begin like " : "unknown flag: ", argument);
    const ShoalFlag *flag = &a->usage->flags[i];
    const char *value = name[length] ? name + length + 1 : NULL;
    if (off)
        value = "false";
    if (!value && takes_next(a, flag))
        value = a->argv[a->at++];
    if (!value && flag->kind != SHOAL_FLAG_SWITCH && flag->kind != SHOAL_FLAG_OPTIONAL)
        return usage_error(a->usage, "a value is missing after ", argument);
    if (a->seen[i])
        return usage_error(a->usage, "given twice: --", flag->name);
    a->seen[i] = true;
    return store(a->usage, flag, value);
}

static void take_operand(Arguments *a, const char *argument) {
    if (a->n_operands < a->usage->n_operands)
        a->operands[a->n_operands++] = argument;
    else if (!a->unexpected)
        a->unexpected = argument;
}

int shoal_flags_parse(const ShoalUsage *usage, int argc, char **argv, const char **operands) {
    Arguments a = {.usage = usage, .argc = argc, .argv = argv, .at = 1, .operands = operands};
    bool only_operands = false;
    while (a.at < argc) {
        const char *argument = argv[a.at++];
        if (only_operands || argument[0] != '-' || !argument[1]) {
            take_operand(&a, argument);
        } else if (!strcmp(argument, "--")) {
            only_operands = true;
        } else {
            int code = take_flag(&a, argument);
            if (code >= 0)
                return code;
        }
    }
    if (a.unexpected)
        return usage_error(usage, "unexpected argument: ", a.unexpected);
    if (a.n_operands < usage->n_operands - usage->n_optional)
        return usage_error(usage, "missing arguments: ", usage->operands);
    while (a.n_operands < usage->n_operands)
        operands[a.n_operands++] = NULL;
    return -1;
}

int shoal_cli_fail(const char *command, const ShoalError *error) {
    char text[2 * sizeof error->text]; /* names in it may come from any file */
    shoal_text_clean(error->text, true, text, sizeof text);
    if (error->status == SHOAL_ERR_STOPPED) { /* as Caffe: to stop when asked is no failure */
        fprintf(stderr, "shoal %s: %s\n", command, text);
        return SHOAL_EXIT_OK;
    }
    fprintf(stderr, "shoal %s: error: %s\n", command, text);
    return error->status == SHOAL_ERR_ARGUMENT ? SHOAL_EXIT_USAGE : SHOAL_EXIT_FAILURE;
}

ShoalStatus shoal_cli_check_backend(const char *what, const char *backend, ShoalError *error) {
    if (!strcmp(backend, "lmdb"))
        return SHOAL_OK;
    return shoal_error_set(error, SHOAL_ERR_ARGUMENT, "%s%s: only lmdb is supported", what,
                           backend);
}
