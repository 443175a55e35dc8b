/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_BASE_CGROUP_H
#define SHOAL_BASE_CGROUP_H

#include <stdbool.h>

/* What control groups (versions 1 and 2) leave a process of memory: containers and batch systems
 * set such limits, and to go beyond them ends the process.
 * membership: the file that names the groups ("/proc/self/cgroup"); root: where they are mounted
 * ("/sys/fs/cgroup"). *limit: the smallest limit, *left: the least that is left under any of them,
 * counting file pages that can be dropped; bytes. False when there is no limit. */
bool shoal_cgroup_memory(const char *membership, const char *root, unsigned long long *limit,
                         unsigned long long *left);

#endif
