/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEVICE_ENTRIES_H
#define SHOAL_DEVICE_ENTRIES_H

#include <stdbool.h>
#include <stddef.h>

/* Small files in which a system describes itself. Nothing here allocates. */

/* The first line of ROOT/PATH (printf-style) into line, without control characters; false: missing,
 * denied, empty, or longer. */
__attribute__((format(printf, 4, 5))) bool shoal_entry_line(const char *root, char *line,
                                                            size_t size, const char *path, ...);

/* The same as a whole number. */
__attribute__((format(printf, 3, 4))) bool shoal_entry_number(const char *root, long long *number,
                                                              const char *path, ...);

/* The last part of what the symbolic link ROOT/PATH points to. */
__attribute__((format(printf, 4, 5))) bool shoal_entry_link(const char *root, char *name,
                                                            size_t size, const char *path, ...);

/* Calls visit for the entries of the folder ROOT/PATH whose names begin like that, at most 256, in
 * no order; folder: open meanwhile, for shoal_entry_line_at. */
typedef void ShoalEntryVisit(void *context, int folder, const char *name);
void shoal_entry_each(const char *root, const char *path, const char *begin, ShoalEntryVisit *visit,
                      void *context);

/* shoal_entry_line of NAME/FILE in an open folder, and shoal_entry_number. */
bool shoal_entry_line_at(int folder, const char *name, const char *file, char *line, size_t size);
bool shoal_entry_number_at(int folder, const char *name, const char *file, long long *number);

/* The first line of a file as it is, which may be empty; path: seen from the open folder, or from
 * AT_FDCWD. False: missing, denied, or longer. */
bool shoal_entry_raw(int folder, const char *path, char *line, size_t size);

/* The lower-case letters of a text. */
void shoal_entry_lower(char *text);
/* Puts '?' for what is no printable ASCII. */
void shoal_entry_clean(char *text);

#endif
