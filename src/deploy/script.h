/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEPLOY_SCRIPT_H
#define SHOAL_DEPLOY_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>

/* What is run on a device: plain POSIX shell, for Android's mksh and toybox as for dash and bash.
 * A script says what it found in lines KEY=VALUE and ends with "end=ok": old versions of adb tell
 * neither exit codes nor that a connection broke.
 *
 * The first argument of all is whether the device is reached with adb; that decides the folder. */

enum {
    SHOAL_SCRIPT_SIZE = 16384,
    /* Devices before Android 7 take no longer command from adb (MAX_PAYLOAD_V1 in adb's sources).
     */
    SHOAL_SCRIPT_ADB_MAX = 4000
};

typedef struct ShoalScript {
    char text[SHOAL_SCRIPT_SIZE];
    size_t used;
    bool overflow; /* it did not fit */
} ShoalScript;

/* The folder on devices with adb: the one place where adb's user may write and execute. */
#define SHOAL_SCRIPT_ADB_FOLDER "/data/local/tmp/shoal"

void shoal_script_add(ShoalScript *script, const char *text);

/* As one word that a POSIX shell takes as it is, whatever it holds: in single quotes, with each
 * single quote as '\''. */
void shoal_script_add_quoted(ShoalScript *script, const char *word);

/* Makes the folder where `make`, and tells: dir, abi or machine, model, boot, hash of the binary,
 * state ("absent", "idle", "running"), pid, stamp and the last line of the log. */
void shoal_script_probe(ShoalScript *script, bool adb, bool make);

/* shoal.new, which has arrived, becomes shoal when it has that SHA-256 and size and can be run:
 * state=installed; else state=damaged or state=broken with code and trial. */
void shoal_script_install(ShoalScript *script, bool adb, const char *hash, long long size);

/* Stops the worker, if any, and starts one: `shoal worker FLAGS`. Waits until it has said
 * something, or ended, or wait_s have passed. state=running or state=ended; pid, last. The stamp
 * is what the next probe tells while it runs. */
void shoal_script_start(ShoalScript *script, bool adb, const char *const *flags, int n_flags,
                        const char *stamp, int wait_s);

/* state=stopped or state=idle. The token is removed. */
void shoal_script_stop(ShoalScript *script, bool adb);

/* Output (see shoal_probe_output): the last lines of the log. */
void shoal_script_logs(ShoalScript *script, bool adb, int lines);

/* Output: `shoal doctor --json FLAGS`. */
void shoal_script_doctor(ShoalScript *script, bool adb, const char *const *flags, int n_flags);

#endif
