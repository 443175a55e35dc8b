/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEPLOY_PROBE_H
#define SHOAL_DEPLOY_PROBE_H

#include <stdbool.h>
#include <stddef.h>

/* Reads what adb, files of hosts and scripts on devices say. Nothing of it is believed. */

/* One way to one device. */
typedef struct ShoalTarget {
    bool adb;
    char name[256];  /* serial number, or the host as it was given */
    char host[256];  /* ssh: without the port */
    int port;        /* ssh; 0: none was given */
    char state[128]; /* adb: "device" when it can be used */
} ShoalTarget;

/* A line of `adb devices -l` (up to '\n' or '\0'); false where it is none of a device. */
bool shoal_probe_adb_line(const char *line, ShoalTarget *target);

/* [USER@]HOST[:PORT], [USER@][IPV6]:PORT or an IPv6 address by itself; false where it is not. What
 * ssh could take for a flag is refused. */
bool shoal_probe_host(const char *text, size_t length, ShoalTarget *target);

/* What a script told (see script.h). */
typedef struct ShoalProbe {
    char dir[512], abi[128], machine[32], model[96], boot[64], hash[72], stamp[72];
    char state[16], trial[256], last[256];
    int pid, code;
    bool complete; /* it came to its end */
} ShoalProbe;

/* Keys that are not there keep what *probe holds; lines may end with '\r'. */
void shoal_probe_read(const char *text, ShoalProbe *probe);

/* The text between the line "output=begin" and the end of a script's output; cuts `text`. NULL
 * when there is none. */
char *shoal_probe_output(char *text);

/* The name of the binary for a device ("aarch64", "x86_64"); NULL when there is none. */
const char *shoal_probe_arch(const ShoalProbe *probe);

#endif
