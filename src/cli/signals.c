/* SPDX-License-Identifier: Apache-2.0 */
#include <unistd.h>

#include "cli/cli.h"

static volatile sig_atomic_t stop;

static void on_stop(int signal_number) {
    if (stop == SHOAL_STOP_NOW && signal_number == SIGINT)
        _exit(130); /* asked twice */
    stop = SHOAL_STOP_NOW;
}

static void on_snapshot(int signal_number) {
    (void)signal_number;
    if (stop == 0)
        stop = SHOAL_STOP_SNAPSHOT;
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
