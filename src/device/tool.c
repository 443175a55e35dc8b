/* SPDX-License-Identifier: Apache-2.0 */
#include "device/tool.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

extern char **environ;

enum { PATH_SIZE = 512, WAIT_STEP_MS = 10 };

static bool start(const char *path, const char *const *argv, int out, pid_t *pid) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    if (posix_spawn_file_actions_init(&actions))
        return false;
    if (posix_spawnattr_init(&attributes)) {
        posix_spawn_file_actions_destroy(&actions);
        return false;
    }
    /* A group of its own, so that what a script has started ends with it. */
    bool good =
        !posix_spawnattr_setpgroup(&attributes, 0) &&
        !posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP) &&
        !posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0) &&
        !posix_spawn_file_actions_adddup2(&actions, out, 1) &&
        !posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0) &&
        !posix_spawn(pid, path, &actions, &attributes, (char *const *)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return good;
}

/* Until the end of what it prints, or the deadline. More than fits is read and dropped. */
static bool collect(int fd, uint64_t deadline_ms, char *out, size_t size) {
    size_t used = 0;
    for (;;) {
        uint64_t now = shoal_clock_ms();
        struct pollfd item = {.fd = fd, .events = POLLIN};
        if (now >= deadline_ms)
            return false;
        if (poll(&item, 1, (int)(deadline_ms - now)) <= 0)
            continue;
        char rest[512];
        bool room = used + 1 < size;
        ssize_t n = read(fd, room ? out + used : rest, room ? size - used - 1 : sizeof rest);
        if (n <= 0)
            return true;
        used += room ? (size_t)n : 0;
        out[used] = '\0';
    }
}

static bool reap(pid_t pid, uint64_t deadline_ms) {
    int status = 0;
    pid_t done;
    while ((done = waitpid(pid, &status, WNOHANG)) == 0 && shoal_clock_ms() < deadline_ms)
        shoal_clock_sleep_ms(WAIT_STEP_MS);
    if (done == 0) {
        (void)kill(-pid, SIGKILL);
        (void)waitpid(pid, &status, 0);
        return false;
    }
    return done == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool shoal_tool_run(const char *root, const char *program, const char *const *argv,
                    unsigned timeout_ms, char *out, size_t size) {
    char path[PATH_SIZE];
    int n = snprintf(path, sizeof path, "%s/%s", root, program), ends[2];
    memset(out, 0, size);
    if (n <= 0 || n >= PATH_SIZE || access(path, X_OK) || pipe2(ends, O_CLOEXEC))
        return false;
    pid_t pid;
    bool good = start(path, argv, ends[1], &pid);
    close(ends[1]);
    uint64_t deadline_ms = shoal_clock_ms() + timeout_ms;
    if (good) {
        bool all = collect(ends[0], deadline_ms, out, size);
        good = reap(pid, all ? deadline_ms : 0);
    }
    close(ends[0]);
    for (char *c = out; *c; c++)
        if (((unsigned char)*c < ' ' || (unsigned char)*c > '~') && *c != '\n')
            *c = '?';
    return good;
}
