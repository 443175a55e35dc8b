/* SPDX-License-Identifier: Apache-2.0 */
#include "train/children.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "collective/auth.h"

/* environ with SHOAL_TOKEN=token, and SHOAL_OWN_WORKER so that a worker leaves it to the
 * coordinator to tell its errors; made before fork, where allocation is safe. */
static char **make_environment(char *token_entry) {
    static char own_entry[] = "SHOAL_OWN_WORKER=1";
    size_t n = 0;
    while (environ[n])
        n++;
    char **copy = shoal_calloc(n + 3, sizeof *copy);
    size_t used = 0;
    for (size_t i = 0; copy && i < n; i++)
        if (strncmp(environ[i], "SHOAL_TOKEN=", 12) != 0)
            copy[used++] = environ[i];
    if (copy)
        copy[used++] = token_entry;
    if (copy)
        copy[used] = own_entry;
    return copy;
}

static void become_worker(const char *program, char **argv, char **environment, pid_t parent) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(127); /* it ended in between */
    int null = open("/dev/null", O_RDWR);
    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
    }
    execve(program, argv, environment);
    _exit(127);
}

static const char *own_program(char *path, size_t size) {
    ssize_t n = readlink("/proc/self/exe", path, size - 1);
    if (n <= 0)
        return NULL;
    path[n] = '\0';
    return path;
}

enum { ENGINE_FLAGS = 4 };

/* --cpu, --plan and the like, as far as they were given, to argv (NULL at the end). */
static void add_engine_flags(const ShoalEngineOptions *engine, char flags[ENGINE_FLAGS][64],
                             char **argv) {
    const char *const names[] = {"cpu", "plan", "winograd", "recompute"};
    const char *const values[] = {engine->cpu, engine->plan, engine->winograd, engine->recompute};
    for (int i = 0; i < ENGINE_FLAGS; i++) {
        if (!values[i])
            continue;
        snprintf(flags[i], sizeof flags[i], "--%s=%s", names[i], values[i]);
        *argv++ = flags[i];
    }
    *argv = NULL;
}

ShoalStatus shoal_children_start(const char *program, int count, const char *join,
                                 const char *token, int threads, const ShoalEngineOptions *engine,
                                 ShoalChildren *children, ShoalError *err) {
    char path[4096], join_flag[128], threads_flag[32], name_flag[32], token_entry[4200];
    char engine_flags[ENGINE_FLAGS][64];
    char no_cache[] = "--cache-size=0"; /* the dataset is on this machine */
    if (!program && !(program = own_program(path, sizeof path)))
        return shoal_error_set(err, SHOAL_ERR_IO, "cannot find the program to start workers with");
    snprintf(join_flag, sizeof join_flag, "--join=%s", join);
    snprintf(threads_flag, sizeof threads_flag, "--threads=%d", threads);
    snprintf(token_entry, sizeof token_entry, "SHOAL_TOKEN=%s", token);
    char *argv[7 + ENGINE_FLAGS] = {(char *)program, "worker",  join_flag,
                                    threads_flag,    name_flag, no_cache};
    add_engine_flags(engine, engine_flags, argv + 6);
    char **environment = make_environment(token_entry);
    children->pids = shoal_calloc((size_t)count, sizeof *children->pids);
    if (!environment || !children->pids) {
        shoal_free(environment);
        return shoal_error_memory(err, "the workers", (size_t)count * sizeof(pid_t));
    }
    ShoalStatus status = SHOAL_OK;
    pid_t parent = getpid();
    for (int i = 0; i < count && !status; i++) {
        snprintf(name_flag, sizeof name_flag, "--name=worker-%d", i);
        pid_t pid = fork();
        if (pid == 0)
            become_worker(program, argv, environment, parent);
        if (pid < 0)
            status = shoal_error_set(err, SHOAL_ERR_MEMORY, "cannot start worker %d: %s", i,
                                     strerror(errno));
        else
            children->pids[children->count++] = pid;
    }
    shoal_auth_forget(token_entry, sizeof token_entry);
    shoal_free(environment);
    return status;
}

int shoal_children_ended(ShoalChildren *children, char *how, size_t size) {
    for (int i = 0; i < children->count; i++) {
        int state;
        if (!children->pids[i] || waitpid(children->pids[i], &state, WNOHANG) <= 0)
            continue;
        children->pids[i] = 0;
        if (WIFSIGNALED(state))
            snprintf(how, size, "signal %d", WTERMSIG(state));
        else
            snprintf(how, size, "exit code %d", WEXITSTATUS(state));
        return i;
    }
    return -1;
}

static int living(ShoalChildren *children) {
    char how[32];
    while (shoal_children_ended(children, how, sizeof how) >= 0)
        ;
    int n = 0;
    for (int i = 0; i < children->count; i++)
        n += children->pids[i] != 0;
    return n;
}

void shoal_children_finish(ShoalChildren *children, unsigned patience_ms) {
    uint64_t deadline = shoal_clock_ms() + patience_ms;
    while (living(children) && shoal_clock_ms() < deadline)
        shoal_clock_sleep_ms(5);
    for (int i = 0; i < children->count; i++)
        if (children->pids[i]) {
            kill(children->pids[i], SIGKILL);
            waitpid(children->pids[i], NULL, 0);
        }
    shoal_free(children->pids);
    *children = (ShoalChildren){0};
}
