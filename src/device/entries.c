/* SPDX-License-Identifier: Apache-2.0 */
#include "device/entries.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_SIZE = 1024, ENTRIES_MAX = 256, NUMBER_SIZE = 64 };

__attribute__((format(printf, 3, 0))) static bool make_path(char path[PATH_SIZE], const char *root,
                                                            const char *format, va_list list) {
    int n = snprintf(path, PATH_SIZE, "%s/", root);
    if (n < 0 || n >= PATH_SIZE)
        return false;
    int m = vsnprintf(path + n, PATH_SIZE - (size_t)n, format, list);
    return m >= 0 && m < PATH_SIZE - n;
}

static bool read_line(const char *path, char *line, size_t size) {
    /* Not to wait for the writer of a pipe, should it be one. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, line, size);
    close(fd);
    if (n <= 0)
        return false;
    char *end = memchr(line, '\n', (size_t)n);
    if (!end && (size_t)n == size)
        return false;
    line[end ? end - line : n] = '\0';
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~')
            *c = '?';
    return line[0] != '\0';
}

bool shoal_entry_line(const char *root, char *line, size_t size, const char *format, ...) {
    char path[PATH_SIZE];
    va_list list;
    va_start(list, format);
    bool made = make_path(path, root, format, list);
    va_end(list);
    bool read_it = made && read_line(path, line, size);
    if (!read_it)
        line[0] = '\0';
    return read_it;
}

bool shoal_entry_number(const char *root, long long *number, const char *format, ...) {
    char path[PATH_SIZE], line[NUMBER_SIZE], *end;
    va_list list;
    va_start(list, format);
    bool made = make_path(path, root, format, list);
    va_end(list);
    if (!made || !read_line(path, line, sizeof line))
        return false;
    errno = 0;
    long long value = strtoll(line, &end, 10);
    if (end == line || errno || end[strspn(end, " \t\r?")])
        return false;
    *number = value;
    return true;
}

bool shoal_entry_link(const char *root, char *name, size_t size, const char *format, ...) {
    char path[PATH_SIZE], target[PATH_SIZE];
    va_list list;
    va_start(list, format);
    bool made = make_path(path, root, format, list);
    va_end(list);
    name[0] = '\0';
    ssize_t n = made ? readlink(path, target, sizeof target - 1) : -1;
    if (n <= 0)
        return false;
    target[n] = '\0';
    const char *slash = strrchr(target, '/');
    const char *last = slash ? slash + 1 : target;
    snprintf(name, size, "%s", last);
    for (char *c = name; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~')
            *c = '?';
    return name[0] != '\0';
}

void shoal_entry_each(const char *root, const char *path, ShoalEntryVisit *visit, void *context) {
    char full[PATH_SIZE];
    int n = snprintf(full, sizeof full, "%s/%s", root, path);
    DIR *folder = n > 0 && n < PATH_SIZE ? opendir(full) : NULL;
    if (!folder)
        return;
    struct dirent *entry;
    for (int left = ENTRIES_MAX; left > 0 && (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        left--;
        visit(context, entry->d_name);
    }
    closedir(folder);
}

void shoal_entry_lower(char *text) {
    for (char *c = text; *c; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
}
