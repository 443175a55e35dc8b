/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"

static ShoalStatus read_all(int fd, const char *path, unsigned char *bytes, size_t size,
                            ShoalError *err) {
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, bytes + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
        if (n == 0)
            return shoal_error_set(err, SHOAL_ERR_IO,
                                   "%s: became shorter while it was read (%zu of %zu bytes)", path,
                                   done, size);
        done += (size_t)n;
    }
    return SHOAL_OK;
}

/* Not to wait for the writer of a pipe, which is no regular file. */
static ShoalStatus open_regular(const char *path, int *out, size_t *size, ShoalError *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    struct stat info;
    if (fstat(fd, &info) || !S_ISREG(info.st_mode)) {
        close(fd);
        return shoal_error_set(err, SHOAL_ERR_IO, "%s: not a regular file; give the name of a file",
                               path);
    }
    *out = fd;
    *size = (size_t)info.st_size;
    return SHOAL_OK;
}

ShoalStatus shoal_file_size(const char *path, size_t *size, ShoalError *err) {
    int fd;
    ShoalStatus status = open_regular(path, &fd, size, err);
    if (!status)
        close(fd);
    return status;
}

ShoalStatus shoal_file_read(const char *path, unsigned char **bytes, size_t *size,
                            ShoalError *err) {
    int fd;
    size_t length;
    ShoalStatus status = open_regular(path, &fd, &length, err);
    if (status)
        return status;
    unsigned char *buffer = shoal_calloc(length + 1, 1);
    if (!buffer) {
        status = shoal_error_memory(err, path, length + 1);
        goto err_close;
    }
    status = read_all(fd, path, buffer, length, err);
    if (status) {
        shoal_free(buffer);
        goto err_close;
    }
    *bytes = buffer;
    *size = length;
err_close:
    close(fd);
    return status;
}

bool shoal_file_number(const char *path, long long *number) {
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool found = fscanf(file, "%lld", number) == 1;
    fclose(file);
    return found;
}

static int write_all(int fd, const unsigned char *bytes, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, bytes + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        done += (size_t)n;
    }
    return 0;
}

static void sync_folder(const char *path) {
    char folder[4096];
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (length >= sizeof folder)
        return;
    memcpy(folder, path, length);
    folder[length] = '\0';
    const char *name = length ? folder : slash ? "/" : ".";
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    /* Some file systems refuse to sync a folder; the rename is then as safe as they make it. */
    (void)fsync(fd);
    close(fd);
}

ShoalStatus shoal_file_replace(const char *path, const void *bytes, size_t size, ShoalError *err) {
    char beside[4096];
    if (snprintf(beside, sizeof beside, "%s.tmp", path) >= (int)sizeof beside)
        return shoal_error_set(err, SHOAL_ERR_IO, "%.200s...: path too long", path);
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot create: %s; does the folder exist?",
                               beside, strerror(errno));
    int failed = write_all(fd, bytes, size) || fsync(fd);
    int reason = errno;
    if (close(fd) && !failed) {
        failed = 1;
        reason = errno;
    }
    if (!failed && rename(beside, path)) {
        failed = 1;
        reason = errno;
    }
    if (failed) {
        unlink(beside);
        return shoal_error_set(err, SHOAL_ERR_IO,
                               "%s: cannot write %zu bytes: %s; an older file of that name is "
                               "unchanged",
                               path, size, strerror(reason));
    }
    sync_folder(path);
    return SHOAL_OK;
}
