/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_BASE_SYSTEM_H
#define SHOAL_BASE_SYSTEM_H

/* The folder that /sys and /proc/meminfo are read below: "/", or what the environment variable
 * SHOAL_SYSTEM_ROOT names, so that a test can show another machine. Static storage. */
const char *shoal_system_root(void);

#endif
