/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEVICE_TOOL_H
#define SHOAL_DEVICE_TOOL_H

#include <stdbool.h>
#include <stddef.h>

/* Runs ROOT/PROGRAM with these arguments (argv[0] first, NULL last), without input and errors, and
 * keeps what it printed, cut to `size` with its '\0', and nothing but printable ASCII and line
 * ends. False: there is no such program, it failed, or was not done in time (then it is ended). */
bool shoal_tool_run(const char *root, const char *program, const char *const *argv,
                    unsigned timeout_ms, char *out, size_t size);

#endif
