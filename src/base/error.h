/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_BASE_ERROR_H
#define SHOAL_BASE_ERROR_H

#include <stdarg.h>

#include "shoal/status.h"

/* Fills err with a code and a printf-style message and returns the code, so that a failing path
 * is one line: `return shoal_error_set(err, SHOAL_ERR_IO, "%s: ...", path);`
 * Only the first failure is kept: when err already holds one, nothing changes and the code held is
 * returned. err may be NULL: then the message is dropped and `status` returned. */
__attribute__((format(printf, 3, 4))) ShoalStatus
shoal_error_set(ShoalError *err, ShoalStatus status, const char *format, ...);

/* Puts "WHERE: " in front of the message that err holds; nothing when it holds none. */
__attribute__((format(printf, 2, 3))) void shoal_error_prefix(ShoalError *err, const char *format,
                                                              ...);

/* Makes err empty again. */
void shoal_error_clear(ShoalError *err);

/* shoal_error_set for "out of memory while allocating N bytes for WHAT". */
ShoalStatus shoal_error_memory(ShoalError *err, const char *what, unsigned long long bytes);

#endif
