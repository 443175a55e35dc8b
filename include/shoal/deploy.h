/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEPLOY_H
#define SHOAL_DEPLOY_H

#include <signal.h>

#include "shoal/status.h"

/* Brings workers onto phones and boards: through Android's `adb`, through OpenSSH's `ssh`, or both
 * at once. The user's own programs of these names are run, with the user's own settings.
 *
 *     ShoalDeployOptions options = {.adb = 1, .join = "192.168.1.10:4710", .token = token};
 *     ShoalError error = {0};
 *     if (shoal_deploy(&options, &error))
 *         fprintf(stderr, "%s\n", error.text);
 *
 * On a device all is in one folder that only its user may enter: /data/local/tmp/shoal with adb,
 * ~/.shoal with ssh. The binary is sent where its SHA-256 differs; a worker that runs with the same
 * binary, flags and token is left alone; any other is stopped and started anew. It is no child of
 * adb's or ssh's session and outlives it. The token travels as a file, never on a command line. */

#ifdef __cplusplus
extern "C" {
#endif

typedef enum ShoalDeployAction {
    SHOAL_DEPLOY_START,  /* a worker */
    SHOAL_DEPLOY_STOP,   /* it */
    SHOAL_DEPLOY_STATUS, /* whether it runs */
    SHOAL_DEPLOY_LOGS,   /* the last lines that it wrote */
    SHOAL_DEPLOY_DOCTOR  /* run `shoal doctor --json` there; nothing is started or stopped */
} ShoalDeployAction;

typedef enum ShoalDeployState {
    SHOAL_DEPLOYING,   /* text says what is being done */
    SHOAL_DEPLOYED,    /* START: a worker was started */
    SHOAL_DEPLOY_RUNS, /* START: it already runs, nothing was done; STATUS: it runs */
    SHOAL_DEPLOY_IDLE, /* STOP, STATUS: no worker runs there */
    SHOAL_DEPLOY_STOPPED,
    SHOAL_DEPLOY_TOLD, /* LOGS, DOCTOR: output */
    SHOAL_DEPLOY_SAME, /* it is a device that is reached in another way, too: left out */
    SHOAL_DEPLOY_FAILED
} ShoalDeployState;

/* Of one device. Pointers are valid only during the call of the handler. What devices say may hold
 * any character. */
typedef struct ShoalDeployEvent {
    int index, n_devices;
    const char *device;    /* adb's serial number, or the host as it was given */
    const char *transport; /* "adb", "ssh" */
    const char *model;     /* "" before it is known */
    const char *abi;       /* "aarch64", "x86_64", else what the device says; "" before */
    ShoalDeployState state;
    int step, steps;    /* DEPLOYING: how far */
    int pid;            /* of the worker there; 0: none */
    const char *text;   /* one line for people */
    const char *output; /* TOLD, else NULL */
} ShoalDeployEvent;

typedef void ShoalDeployHandler(void *context, const ShoalDeployEvent *event);

typedef struct ShoalDeployOptions {
    ShoalDeployAction action;
    int adb;              /* all devices that adb has */
    const char *serials;  /* those of adb's devices, separated by commas */
    const char *hosts;    /* [USER@]HOST[:PORT] for ssh, separated by commas; @FILE: one a line */
    int ssh_port;         /* where a host has none; 0: what ssh's configuration says */
    const char *binaries; /* folder with shoal-aarch64 and shoal-x86_64; NULL: phone/ beside this
                             program, else ../lib/shoal/phone */
    const char *join;     /* START: the coordinator's ADDR:PORT, or */
    int discover;         /* let the workers look for it; DOCTOR: join is optional */
    const char *token;    /* START: the cluster's secret; DOCTOR: where join is given */
    const char *const *flags; /* further flags for worker or doctor */
    int n_flags;
    int log_lines;                /* LOGS; 0: 20 */
    int parallel;                 /* devices at a time, not counting those that take long; 0: 32 */
    int timeout_s;                /* of each step on a device; 0: what suits the step */
    volatile sig_atomic_t *stop;  /* SHOAL_STOP_NOW (shoal.h) ends it; may be NULL */
    ShoalDeployHandler *on_event; /* may be NULL */
    void *context;
} ShoalDeployOptions;

/* Does it on all devices, in parallel. An error when anything failed on any of them (its events
 * say what), when there is none, or when adb or ssh is missing; SHOAL_ERR_STOPPED when stopped. */
SHOAL_API ShoalStatus shoal_deploy(const ShoalDeployOptions *options, ShoalError *error);

#ifdef __cplusplus
}
#endif
#endif
