/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_WATCH_H
#define SHOAL_DATA_WATCH_H

#include "shoal/tools.h"

/* What tools tell whoever follows them (shoal/tools.h). watch may be NULL. */

void shoal_watch_progress(const ShoalToolWatch *watch, uint64_t done, uint64_t total);

/* SHOAL_ERR_STOPPED when the user wants no more. */
ShoalStatus shoal_watch_stopped(const ShoalToolWatch *watch, ShoalError *err);

__attribute__((format(printf, 2, 3))) void shoal_watch_note(const ShoalToolWatch *watch,
                                                            const char *format, ...);

#endif
