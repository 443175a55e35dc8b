/* SPDX-License-Identifier: Apache-2.0 */
#include <unistd.h>

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
