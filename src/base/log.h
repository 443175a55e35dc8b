/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_BASE_LOG_H
#define SHOAL_BASE_LOG_H

/* Diagnostic lines on standard error ("shoal: warning: ..."). What the user asked to see goes
 * through events to the command line, not through here. Thread-safe; one write per line. */
typedef enum ShoalLogLevel {
    SHOAL_LOG_ERROR = 0,
    SHOAL_LOG_WARNING = 1,
    SHOAL_LOG_INFO = 2,
    SHOAL_LOG_DEBUG = 3
} ShoalLogLevel;

/* Lines above this level are dropped; the default is SHOAL_LOG_WARNING. */
void shoal_log_set_level(ShoalLogLevel level);

__attribute__((format(printf, 2, 3))) void shoal_log(ShoalLogLevel level, const char *format, ...);

#endif
