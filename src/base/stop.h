/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_BASE_STOP_H
#define SHOAL_BASE_STOP_H

#include <signal.h>
#include <stdbool.h>

/* The flag by which a signal handler asks something of a running call. The handler may run in any
 * thread, so `volatile` is not enough: all access is atomic, which for this size is also safe in a
 * handler. flag may be NULL. */

static inline int shoal_stop_asked(const volatile sig_atomic_t *flag) {
    return flag ? __atomic_load_n(flag, __ATOMIC_RELAXED) : 0;
}

static inline void shoal_stop_ask(volatile sig_atomic_t *flag, int what) {
    __atomic_store_n(flag, what, __ATOMIC_RELAXED);
}

/* Changes the flag from one value to another; false when it has not that value (any more), so what
 * was asked in between is not lost. */
static inline bool shoal_stop_change(volatile sig_atomic_t *flag, int from, int to) {
    sig_atomic_t expected = from;
    return flag && __atomic_compare_exchange_n(flag, &expected, to, false, __ATOMIC_RELAXED,
                                               __ATOMIC_RELAXED);
}

#endif
