/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/stop.h"
#include "cli/cli.h"

static volatile sig_atomic_t stop;

static void on_stop(int signal_number) {
    if (shoal_stop_asked(&stop) == SHOAL_STOP_NOW && signal_number == SIGINT)
        _exit(130); /* asked twice */
    shoal_stop_ask(&stop, SHOAL_STOP_NOW);
}

static void on_snapshot(int signal_number) {
    (void)signal_number;
    (void)shoal_stop_change(&stop, 0, SHOAL_STOP_SNAPSHOT);
}

volatile sig_atomic_t *shoal_cli_catch_signals(void) {
    struct sigaction action = {.sa_handler = on_stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = on_snapshot;
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    return &stop;
}

static ShoalStatus set_effect(const int *signals, const char *flag, const char *effect,
                              ShoalError *error) {
    static const struct {
        const char *name;
        void (*handler)(int);
    } EFFECTS[] = {{"stop", on_stop}, {"snapshot", on_snapshot}, {"none", SIG_IGN}};
    for (size_t i = 0; effect && i < sizeof EFFECTS / sizeof EFFECTS[0]; i++) {
        if (strcmp(effect, EFFECTS[i].name))
            continue;
        struct sigaction action = {.sa_handler = EFFECTS[i].handler};
        for (; *signals; signals++)
            sigaction(*signals, &action, NULL);
        return SHOAL_OK;
    }
    return effect ? shoal_error_set(error, SHOAL_ERR_ARGUMENT,
                                    "--%s is '%s'; there are stop, snapshot and none", flag, effect)
                  : SHOAL_OK;
}

ShoalStatus shoal_cli_signal_effects(const char *sigint, const char *sighup, ShoalError *error) {
    ShoalStatus status =
        set_effect((const int[]){SIGINT, SIGTERM, 0}, "sigint_effect", sigint, error);
    return status ? status : set_effect((const int[]){SIGHUP, 0}, "sighup_effect", sighup, error);
}
