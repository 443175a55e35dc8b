/* SPDX-License-Identifier: Apache-2.0 */
#include "deploy/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"

/* Ends of processes are asked for so often: a signal handler is not ours to set in a library. */
enum { TICK_MS = 20, CHUNK = 16384, TEXT_MAX = 4 << 20, ERRORS_MAX = 64 << 10 };

static void close_end(int *fd) {
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- what it writes ---- */

static bool text_open(ShoalRunText *text, size_t limit) {
    *text = (ShoalRunText){.bytes = shoal_calloc(1, 1), .capacity = 1, .limit = limit};
    return text->bytes != NULL;
}

static bool text_grow(ShoalRunText *text, size_t needed) {
    if (needed <= text->capacity)
        return true;
    size_t capacity = 2 * needed;
    char *larger = shoal_calloc(capacity, 1);
    if (!larger)
        return false;
    memcpy(larger, text->bytes, text->used);
    shoal_free(text->bytes);
    text->bytes = larger;
    text->capacity = capacity;
    return true;
}

static void text_add(ShoalRunText *text, const char *bytes, size_t n) {
    if (n > text->limit - text->used)
        n = text->limit - text->used;
    if (!text_grow(text, text->used + n + 1))
        return;
    for (size_t i = 0; i < n; i++)
        if (bytes[i])
            text->bytes[text->used++] = bytes[i];
    text->bytes[text->used] = '\0';
}

/* What is there now; closes the descriptor at the end. Whether it may have more. */
static bool take(int *fd, ShoalRunText *text) {
    char bytes[CHUNK];
    if (*fd < 0)
        return false;
    ssize_t n = read(*fd, bytes, sizeof bytes);
    if (n > 0)
        text_add(text, bytes, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        close_end(fd);
    return n == sizeof bytes;
}

/* ---- what it reads ---- */

static void give(ShoalRun *run) {
    while (run->in >= 0 && run->input_sent < run->input_size) {
        ssize_t n = send(run->in, run->input + run->input_sent, run->input_size - run->input_sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0)
            break; /* it reads no more */
        run->input_sent += (size_t)n;
    }
    close_end(&run->in);
}

/* ---- its begin ---- */

/* Three descriptors for the process, and our ends of them. */
typedef struct Ends {
    int in, out, err;
} Ends;

static void close_ends(Ends *ends) {
    close_end(&ends->in);
    close_end(&ends->out);
    close_end(&ends->err);
}

static bool open_pipe(int *read_end, int *write_end) {
    int fds[2];
    if (pipe2(fds, O_CLOEXEC))
        return false;
    *read_end = fds[0];
    *write_end = fds[1];
    return !fcntl(fds[0], F_SETFL, O_NONBLOCK);
}

static bool open_ends(ShoalRun *run, int input_file, Ends *ends) {
    if (!open_pipe(&run->out, &ends->out) || !open_pipe(&run->err, &ends->err))
        return false;
    int fds[2];
    if (run->input) { /* a socket: writing to one that is gone must be no signal */
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
            return false;
        run->in = fds[0];
        ends->in = fds[1];
        return true;
    }
    ends->in = input_file >= 0 ? fcntl(input_file, F_DUPFD_CLOEXEC, 3)
                               : open("/dev/null", O_RDONLY | O_CLOEXEC);
    return ends->in >= 0;
}

/* In a group of its own, so that Ctrl-C is ours to handle, with signals as a shell would have
 * them. */
static int spawn(ShoalRun *run, char *const *argv, const Ends *ends) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, usual;
    sigemptyset(&none);
    sigemptyset(&usual);
    for (const int *s = (const int[]){SIGPIPE, SIGINT, SIGTERM, SIGHUP, 0}; *s; s++)
        sigaddset(&usual, *s);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_adddup2(&actions, ends->in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends->out, STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends->err, STDERR_FILENO);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                              POSIX_SPAWN_SETSIGDEF);
    int failure = posix_spawnp(&run->pid, argv[0], &actions, &attributes, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (failure)
        run->pid = 0;
    return failure;
}

ShoalStatus shoal_run_start(ShoalRun *run, char *const *argv, const char *input, int input_file,
                            unsigned timeout_ms, ShoalError *err) {
    *run = (ShoalRun){.in = -1, .out = -1, .err = -1};
    run->input = shoal_strdup(input);
    run->input_size = input ? strlen(input) : 0;
    run->deadline_ms = shoal_clock_ms() + timeout_ms;
    Ends ends = {-1, -1, -1};
    int failure = 0;
    if (!text_open(&run->text, TEXT_MAX) || !text_open(&run->errors, ERRORS_MAX) ||
        (input && !run->input))
        failure = ENOMEM;
    else if (!open_ends(run, input_file, &ends) || (failure = spawn(run, argv, &ends)))
        failure = failure ? failure : errno;
    close_ends(&ends);
    if (!failure) {
        give(run);
        return SHOAL_OK;
    }
    shoal_run_close(run);
    if (failure == ENOENT)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED, "there is no program \"%s\"", argv[0]);
    return shoal_error_set(err, SHOAL_ERR_IO, "cannot start %s: %s", argv[0], strerror(failure));
}

/* ---- its end ---- */

/* Not before the process itself is gone counts that all was said: what it started may hold its
 * descriptors for ever, as the server does that adb starts. */
static void look(ShoalRun *run) {
    int state = 0; /* stays so where the system forgets children at once (SIGCHLD ignored) */
    if (waitpid(run->pid, &state, WNOHANG) == 0) {
        if (shoal_clock_ms() < run->deadline_ms || run->late)
            return;
        run->late = true;
        kill(-run->pid, SIGKILL);
        return;
    }
    run->code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    run->pid = 0;
    run->ended = true;
    while (take(&run->out, &run->text) || take(&run->err, &run->errors))
        ;
    close_end(&run->in);
    close_end(&run->out);
    close_end(&run->err);
}

void shoal_run_wait(ShoalRun *const *runs, int n, unsigned wait_ms) {
    struct pollfd *fds = shoal_calloc((size_t)n * 3 + 1, sizeof *fds);
    unsigned ms = wait_ms < TICK_MS ? wait_ms : TICK_MS;
    nfds_t used = 0;
    for (int i = 0; i < n && fds; i++) {
        if (!runs[i]->pid)
            continue;
        fds[used++] = (struct pollfd){.fd = runs[i]->out, .events = POLLIN};
        fds[used++] = (struct pollfd){.fd = runs[i]->err, .events = POLLIN};
        fds[used++] = (struct pollfd){.fd = runs[i]->in, .events = POLLOUT};
    }
    poll(fds, used, (int)ms);
    shoal_free(fds);
    for (int i = 0; i < n; i++) {
        if (!runs[i]->pid)
            continue;
        give(runs[i]);
        take(&runs[i]->out, &runs[i]->text);
        take(&runs[i]->err, &runs[i]->errors);
        look(runs[i]);
    }
}

void shoal_run_close(ShoalRun *run) {
    if (run->pid) {
        kill(-run->pid, SIGKILL);
        waitpid(run->pid, NULL, 0);
    }
    close_end(&run->in);
    close_end(&run->out);
    close_end(&run->err);
    shoal_free(run->input);
    shoal_free(run->text.bytes);
    shoal_free(run->errors.bytes);
    *run = (ShoalRun){.in = -1, .out = -1, .err = -1};
}
