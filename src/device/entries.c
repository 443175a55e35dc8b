/* SPDX-License-Identifier: Apache-2.0 */
#include "device/entries.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
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

bool shoal_entry_raw(int folder, const char *path, char *line, size_t size) {
    /* Not to wait for the writer of a pipe, should it be one. */
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, line, size);
    close(fd);
    if (n <= 0)
        return false;
    const char *end = memchr(line, '\n', (size_t)n);
    if (!end && (size_t)n == size)
        return false;
    line[end ? end - line : n] = '\0';
    return true;
}

void shoal_entry_clean(char *text) {
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < ' ' || (unsigned char)*c > '~')
            *c = '?';
}

static bool read_line(int folder, const char *path, char *line, size_t size) {
    if (!shoal_entry_raw(folder, path, line, size))
        return false;
    shoal_entry_clean(line);
    return line[0] != '\0';
}

bool shoal_entry_line(const char *root, char *line, size_t size, const char *format, ...) {
    char path[PATH_SIZE];
    va_list list;
    va_start(list, format);
    bool made = make_path(path, root, format, list);
    va_end(list);
    bool read_it = made && read_line(AT_FDCWD, path, line, size);
    if (!read_it)
        line[0] = '\0';
    return read_it;
}

static bool to_number(const char *line, long long *number) {
    char *end;
    errno = 0;
    long long value = strtoll(line, &end, 10);
    if (end == line || errno || end[strspn(end, " \t\r?")])
        return false;
    *number = value;
    return true;
}

bool shoal_entry_number(const char *root, long long *number, const char *format, ...) {
    char path[PATH_SIZE], line[NUMBER_SIZE];
    va_list list;
    va_start(list, format);
    bool made = make_path(path, root, format, list);
    va_end(list);
    return made && read_line(AT_FDCWD, path, line, sizeof line) && to_number(line, number);
}

static bool join(char path[PATH_SIZE], const char *name, const char *file) {
    int n = snprintf(path, PATH_SIZE, "%s/%s", name, file);
    return n > 0 && n < PATH_SIZE;
}

bool shoal_entry_line_at(int folder, const char *name, const char *file, char *line, size_t size) {
    char path[PATH_SIZE];
    return join(path, name, file) && read_line(folder, path, line, size);
}

bool shoal_entry_number_at(int folder, const char *name, const char *file, long long *number) {
    char path[PATH_SIZE], line[NUMBER_SIZE];
    return join(path, name, file) && read_line(folder, path, line, sizeof line) &&
           to_number(line, number);
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
    shoal_entry_clean(name);
    return name[0] != '\0';
}

/* As the kernel writes it; readdir() would allocate. */
typedef struct Entry {
    uint64_t inode;
    int64_t offset;
    uint16_t length;
    uint8_t type;
    char name[];
} Entry;

static void visit_entries(int folder, const char *begin, const char *bytes, size_t size,
                          ShoalEntryVisit *visit, void *context, int *left) {
    for (size_t at = 0; at + offsetof(Entry, name) < size && *left > 0;) {
        uint16_t length;
        memcpy(&length, bytes + at + offsetof(Entry, length), sizeof length);
        if (length <= offsetof(Entry, name) || length > size - at)
            return;
        const char *name = bytes + at + offsetof(Entry, name);
        at += length;
        if (name[0] == '.' || strncmp(name, begin, strlen(begin)))
            continue;
        (*left)--;
        visit(context, folder, name);
    }
}

void shoal_entry_each(const char *root, const char *path, const char *begin, ShoalEntryVisit *visit,
                      void *context) {
    char full[PATH_SIZE];
    int folder = join(full, root, path) ? open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (folder < 0)
        return;
    _Alignas(Entry) char bytes[4096];
    int left = ENTRIES_MAX;
    for (long size; left > 0 && (size = syscall(SYS_getdents64, folder, bytes, sizeof bytes)) > 0;)
        visit_entries(folder, begin, bytes, (size_t)size, visit, context, &left);
    close(folder);
}

void shoal_entry_lower(char *text) {
    for (char *c = text; *c; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
}
