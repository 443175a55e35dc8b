/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEPLOY_TRANSPORT_H
#define SHOAL_DEPLOY_TRANSPORT_H

#include "deploy/probe.h"
#include "deploy/run.h"
#include "deploy/script.h"

/* Scripts and files to a device, through adb or ssh. */

/* Runs a script there. default_port: for ssh hosts without one; 0: none. */
ShoalStatus shoal_transport_script(const ShoalTarget *target, int default_port,
                                   const ShoalScript *script, unsigned timeout_ms, ShoalRun *run,
                                   ShoalError *err);

/* Sends the file `path` to dir/name there; only its user can read it. text: what is in the file, so
 * that with ssh none is needed (path may be NULL then); NULL for what is no text. */
ShoalStatus shoal_transport_push(const ShoalTarget *target, int default_port, const char *path,
                                 const char *text, const char *dir, const char *name,
                                 unsigned timeout_ms, ShoalRun *run, ShoalError *err);

/* Whether the connection, not the device, is to blame for how a run ended. */
bool shoal_transport_lost(const ShoalRun *run);

/* What went wrong with a run and what to do, for people. */
void shoal_transport_explain(const ShoalTarget *target, int default_port, const ShoalRun *run,
                             char *out, size_t size);

/* The same for a state that adb tells of a device ("unauthorized"). */
void shoal_transport_explain_state(const ShoalTarget *target, char *out, size_t size);

/* Error for a program that is missing: how to get it. */
ShoalStatus shoal_transport_missing(bool adb, ShoalError *err);

#endif
