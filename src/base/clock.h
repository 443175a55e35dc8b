/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_BASE_CLOCK_H
#define SHOAL_BASE_CLOCK_H

#include <stdint.h>

/* Monotonic time in nanoseconds or milliseconds since an arbitrary start; never goes back. */
uint64_t shoal_clock_ns(void);
uint64_t shoal_clock_ms(void);

/* Sleeps about ms milliseconds (may wake early on a signal). */
void shoal_clock_sleep_ms(unsigned ms);

#endif
