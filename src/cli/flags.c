/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

enum { MAX_FLAGS = 32, HELP_COLUMN = 28 };

static void print_help_lines(const char *help) {
    for (bool first = true; *help; first = false) {
        size_t length = strcspn(help, "\n");
        printf("%*s%.*s\n", first ? 0 : HELP_COLUMN, "", (int)length, help);
        help += length + (help[length] == '\n');
    }
}

static void print_flag(const char *name, const char *what, const char *help) {
    char left[128];
    int n = snprintf(left, sizeof left, "  --%s%s%s", name, what ? "=" : "", what ? what : "");
    printf("%s", left);
    if (n >= HELP_COLUMN - 1)
        printf("\n%*s", HELP_COLUMN, "");
    else
        printf("%*s", HELP_COLUMN - n, "");
    print_help_lines(help);
}

static void print_manual(const ShoalUsage *usage) {
    printf("usage: shoal %s%s%s%s\n\n%s\n", usage->command, usage->n_flags ? " [flags]" : "",
           usage->operands ? " " : "", usage->operands ? usage->operands : "", usage->purpose);
    printf("\nFlags (--flag=value or --flag value):\n");
    for (int i = 0; i < usage->n_flags; i++)
        print_flag(usage->flags[i].name, usage->flags[i].what, usage->flags[i].help);
    print_flag("help", NULL, "print this page");
    if (usage->notes)
        printf("\n%s", usage->notes);
}

static int usage_error(const ShoalUsage *usage, const char *what, const char *which) {
    fprintf(stderr, "shoal %s: %s%s; see: shoal %s --help\n", usage->command, what, which,
            usage->command);
    return SHOAL_EXIT_USAGE;
}

static int store_count(const ShoalUsage *usage, const ShoalFlag *flag, const char *text) {
    char *end, which[256];
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end || errno || value < 0 || value > INT_MAX) {
        snprintf(which, sizeof which, "--%s=%s: a whole number is expected", flag->name, text);
        return usage_error(usage, "", which);
    }
    *(int *)flag->value = (int)value;
    return -1;
}

static int store(const ShoalUsage *usage, const ShoalFlag *flag, const char *text) {
    if (flag->kind == SHOAL_FLAG_COUNT)
        return store_count(usage, flag, text);
    if (flag->kind == SHOAL_FLAG_SWITCH)
        *(bool *)flag->value = true;
    else
        *(const char **)flag->value = text;
    return -1;
}

static int take_operands(const ShoalUsage *usage, int argc, char **argv, const char **operands) {
    if (argc - optind > usage->n_operands)
        return usage_error(usage, "unexpected argument: ", argv[optind + usage->n_operands]);
    if (argc - optind < usage->n_operands)
        return usage_error(usage, "missing arguments: ", usage->operands);
    for (int i = 0; i < usage->n_operands; i++)
        operands[i] = argv[optind + i];
    return -1;
}

int shoal_flags_parse(const ShoalUsage *usage, int argc, char **argv, const char **operands) {
    struct option options[MAX_FLAGS + 2] = {{0}};
    int n = 0;
    for (; n < usage->n_flags && n < MAX_FLAGS; n++)
        options[n] = (struct option){usage->flags[n].name,
                                     usage->flags[n].kind == SHOAL_FLAG_SWITCH ? no_argument
                                                                               : required_argument,
                                     NULL, n + 1};
    options[n] = (struct option){"help", no_argument, NULL, 'h'};
    opterr = 0;
    optind = 1;
    bool seen[MAX_FLAGS] = {false};
    for (;;) {
        int at = optind;
        /* Long options with one dash too: `-solver FILE` is how Caffe's manuals write it. */
        int c = getopt_long_only(argc, argv, ":", options, NULL);
        if (c == -1)
            return take_operands(usage, argc, argv, operands);
        if (c == 'h') {
            print_manual(usage);
            return SHOAL_EXIT_OK;
        }
        const char *shown = argv[at < argc ? at : argc - 1];
        if (c == ':')
            return usage_error(usage, "a value is missing after ", shown);
        if (c < 1 || c > usage->n_flags)
            return usage_error(usage, "unknown flag: ", shown);
        if (seen[c - 1])
            return usage_error(usage, "given twice: --", usage->flags[c - 1].name);
        seen[c - 1] = true;
        int code = store(usage, &usage->flags[c - 1], optarg);
        if (code >= 0)
            return code;
    }
}

int shoal_cli_fail(const char *command, const ShoalError *error) {
    if (error->status == SHOAL_ERR_STOPPED) { /* as Caffe: to stop when asked is no failure */
        fprintf(stderr, "shoal %s: %s\n", command, error->text);
        return SHOAL_EXIT_OK;
    }
    fprintf(stderr, "shoal %s: error: %s\n", command, error->text);
    return error->status == SHOAL_ERR_ARGUMENT ? SHOAL_EXIT_USAGE : SHOAL_EXIT_FAILURE;
}
