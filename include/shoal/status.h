/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_STATUS_H
#define SHOAL_STATUS_H

/* How every call of Shoal reports failure.
 *
 * A function that can fail returns a ShoalStatus: SHOAL_OK (0) or a negative code. Its outputs are
 * set only on success. Functions that read files, peers or user input also take a `ShoalError *`
 * (never NULL) and fill it with one message for a person: where (file:line:column), what was
 * found, what was expected, what to do. */

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SHOAL_API __attribute__((visibility("default")))
#else
#define SHOAL_API
#endif

typedef enum ShoalStatus {
    SHOAL_OK = 0,
    SHOAL_ERR_ARGUMENT = -1,    /* a wrong flag, option or combination of them */
    SHOAL_ERR_MEMORY = -2,      /* not enough memory */
    SHOAL_ERR_IO = -3,          /* a file, folder or disk */
    SHOAL_ERR_PARSE = -4,       /* malformed text or bytes */
    SHOAL_ERR_MODEL = -5,       /* a net or solver that makes no sense: layer, shape, rule */
    SHOAL_ERR_DATA = -6,        /* a dataset or one of its records */
    SHOAL_ERR_NETWORK = -7,     /* a connection or an address */
    SHOAL_ERR_AUTH = -8,        /* a peer that cannot prove membership */
    SHOAL_ERR_PROTOCOL = -9,    /* a peer that breaks the protocol or speaks another version */
    SHOAL_ERR_LOST = -10,       /* a worker or the coordinator is gone */
    SHOAL_ERR_STOPPED = -11,    /* stopped on request (Ctrl-C); nothing is wrong */
    SHOAL_ERR_UNSUPPORTED = -12 /* valid, but not in this version */
} ShoalStatus;

typedef struct ShoalError {
    ShoalStatus status;
    char text[1024]; /* one message, no trailing newline; empty when status is SHOAL_OK */
} ShoalError;

/* The name of a code in a few words ("out of memory"); static storage, never NULL. */
SHOAL_API const char *shoal_status_text(ShoalStatus status);

#ifdef __cplusplus
}
#endif
#endif
