/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_BASE_FILE_H
#define SHOAL_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "shoal/status.h"

/* The whole of a regular file into *bytes (shoal_calloc storage, a '\0' after the last byte that
 * is not counted in *size; the caller frees). SHOAL_ERR_IO names the path and the reason. */
ShoalStatus shoal_file_read(const char *path, unsigned char **bytes, size_t *size, ShoalError *err);

/* The size of a regular file that can be read, for those that others read. SHOAL_ERR_IO as above.
 */
ShoalStatus shoal_file_size(const char *path, size_t *size, ShoalError *err);

/* The whole number that a file begins with (such as those in which the system describes itself,
 * whose size is not known before); false when there is none. */
bool shoal_file_number(const char *path, long long *number);

/* Replaces path by `bytes` so that at any instant, crash and full disk included, path holds either
 * the whole old content or the whole new one: written beside as "PATH.tmp", fsynced, renamed, and
 * the folder fsynced. On failure the old file is untouched and the temporary one removed. */
ShoalStatus shoal_file_replace(const char *path, const void *bytes, size_t size, ShoalError *err);

#endif
