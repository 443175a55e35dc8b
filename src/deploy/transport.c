/* SPDX-License-Identifier: Apache-2.0 */
#include "deploy/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

/* ---- programs ---- */

enum { ARGUMENTS_MAX = 24 };

/* The arguments of ssh up to the command. It never asks (there is no one to answer for 138
 * devices), and is told when the other end is gone; all else, host keys above all, is as the user
 * has it. port: storage. */
static int ssh_arguments(const ShoalTarget *target, int default_port, char port[8], char **argv) {
    static const char *const FIXED[] = {"ssh", "-T",
                                        "-o",  "BatchMode=yes",
                                        "-o",  "ConnectTimeout=10",
                                        "-o",  "ServerAliveInterval=5",
                                        "-o",  "ServerAliveCountMax=3",
                                        "-o",  "ClearAllForwardings=yes"};
    int n = 0;
    for (size_t i = 0; i < sizeof FIXED / sizeof FIXED[0]; i++)
        argv[n++] = (char *)FIXED[i];
    int number = target->port ? target->port : default_port;
    if (number) {
        snprintf(port, 8, "%d", number);
        argv[n++] = "-p";
        argv[n++] = port;
    }
    argv[n++] = "--";
    argv[n++] = (char *)target->host;
    return n;
}

ShoalStatus shoal_transport_script(const ShoalTarget *target, int default_port,
                                   const ShoalScript *script, unsigned timeout_ms, ShoalRun *run,
                                   ShoalError *err) {
    if (script->overflow || (target->adb && script->used > SHOAL_SCRIPT_ADB_MAX))
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "the worker's flags are too long for a device: use fewer");
    char port[8], *argv[ARGUMENTS_MAX] = {NULL};
    if (target->adb) {
        char *const words[] = {"adb", "-s", (char *)target->name, "shell", (char *)script->text};
        memcpy(argv, words, sizeof words);
        return shoal_run_start(run, argv, NULL, -1, timeout_ms, err);
    }
    /* Through standard input: whatever shell the user has there, it has nothing to quote. */
    int n = ssh_arguments(target, default_port, port, argv);
    argv[n] = "exec sh -s";
    return shoal_run_start(run, argv, script->text, -1, timeout_ms, err);
}

static ShoalStatus push_ssh(const ShoalTarget *target, int default_port, const char *text, int file,
                            const char *destination, unsigned timeout_ms, ShoalRun *run,
                            ShoalError *err) {
    char port[8], *argv[ARGUMENTS_MAX] = {NULL};
    ShoalScript command = {0};
    shoal_script_add(&command, "exec sh -c 'umask 077; cat >\"$0\" || { rm -f \"$0\"; exit 1; }' ");
    shoal_script_add_quoted(&command, destination);
    int n = ssh_arguments(target, default_port, port, argv);
    argv[n] = command.text;
    return shoal_run_start(run, argv, text, file, timeout_ms, err);
}

ShoalStatus shoal_transport_push(const ShoalTarget *target, int default_port, const char *path,
                                 const char *text, const char *dir, const char *name,
                                 unsigned timeout_ms, ShoalRun *run, ShoalError *err) {
    char destination[640];
    snprintf(destination, sizeof destination, "%s/%s", dir, name);
    if (target->adb) {
        char *argv[] = {"adb", "-s", (char *)target->name, "push", (char *)path, destination, NULL};
        return shoal_run_start(run, argv, NULL, -1, timeout_ms, err);
    }
    if (text)
        return push_ssh(target, default_port, text, -1, destination, timeout_ms, run, err);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return shoal_error_set(err, SHOAL_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    ShoalStatus status =
        push_ssh(target, default_port, NULL, file, destination, timeout_ms, run, err);
    close(file);
    return status;
}

ShoalStatus shoal_transport_missing(bool adb, ShoalError *err) {
    if (adb)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                               "there is no program \"adb\": install it (Debian: apt install adb; "
                               "else Android's platform-tools), or use --ssh");
    return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                           "there is no program \"ssh\": install OpenSSH's client (Debian: apt "
                           "install openssh-client)");
}

/* ---- what went wrong ---- */

/* What the programs say, and what it means. The first that is found counts. */
static const struct {
    const char *said;
    const char *means;
} MEANINGS[] = {
    {"REMOTE HOST IDENTIFICATION HAS CHANGED",
     "its host key is not the one that is known: another device has this address, or somebody "
     "pretends to be it. If it was set up anew: ssh-keygen -R '%h'"},
    {"Host key verification failed",
     "its host key is not known yet: connect once by hand and compare it: ssh %a"},
    {"No matching host key fingerprint", "its host key is not known yet"},
    {"Permission denied (",
     "it refuses this computer's key: ssh-copy-id %a (in Termux: put it into "
     "~/.ssh/authorized_keys)"},
    {"Too many authentication failures",
     "it refuses this computer's keys: name the right one in ~/.ssh/config (IdentityFile, "
     "IdentitiesOnly)"},
    {"Connection refused", "nothing listens there: is sshd running, and on that port? (Termux: "
                           "sshd, port 8022: --ssh-port=8022)"},
    {"Could not resolve hostname", "no such host: check the name, or give the address"},
    {"No route to host", "the network has no way to it: is it on, and in this network?"},
    {"Network is unreachable", "the network has no way to it: is it on, and in this network?"},
    {"Connection timed out", "it does not answer: is it on, and in this network?"},
    {"banner exchange", "it does not answer as ssh: is that the right port?"},
    {"unauthorized",
     "not authorised: allow USB debugging on the phone's screen, and tick \"always allow\""},
    {"device offline", "offline: unplug it and plug it in again, or: adb -s '%h' reconnect"},
    {"No space left on device", "no space is left on the device: delete something there"},
    {"Disk quota exceeded", "no space is left for this user on the device"},
    {"Read-only file system", "its folder for workers cannot be written"},
};

static void explain(const char *means, const ShoalTarget *target, int default_port, char *out,
                    size_t size) {
    const char *name = target->adb ? target->name : target->host;
    int port = target->port ? target->port : default_port;
    char address[300];
    if (port && !target->adb)
        snprintf(address, sizeof address, "-p %d %s", port, name);
    else
        snprintf(address, sizeof address, "%s", name);
    size_t used = 0;
    out[0] = '\0';
    while (*means && used + 1 < size) {
        const char *put = means[0] != '%' ? NULL : means[1] == 'h' ? name : address;
        int n = put ? snprintf(out + used, size - used, "%s", put)
                    : snprintf(out + used, size - used, "%c", *means);
        used += (size_t)n < size - used ? (size_t)n : size - used - 1;
        means += put ? 2 : 1;
    }
}

static void copy_line(const char *line, char *out, size_t size) {
    size_t length = strcspn(line, "\r\n");
    snprintf(out, size, "%.*s", (int)(length > 300 ? 300 : length), line);
}

/* The line that says what is wrong, else the last one with something in it. */
static bool pick_line(const char *text, bool any, char *out, size_t size) {
    const char *best = NULL;
    for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        char one[320];
        copy_line(line, one, sizeof one);
        if (strstr(one, "error: ") || (any && one[strspn(one, " ")]))
            best = line;
    }
    if (best)
        copy_line(best, out, size);
    return best != NULL;
}

/* adb tells of files that it could not send on its standard output, before a line of sums. */
static bool what_it_said(const ShoalRun *run, char *out, size_t size) {
    return pick_line(run->errors.bytes, false, out, size) ||
           pick_line(run->text.bytes, false, out, size) ||
           pick_line(run->errors.bytes, true, out, size) ||
           pick_line(run->text.bytes, true, out, size);
}

void shoal_transport_explain(const ShoalTarget *target, int default_port, const ShoalRun *run,
                             char *out, size_t size) {
    if (run->late) {
        snprintf(out, size, "it took too long and was given up (--timeout says how long)");
        return;
    }
    for (size_t i = 0; i < sizeof MEANINGS / sizeof MEANINGS[0]; i++)
        if (strstr(run->errors.bytes, MEANINGS[i].said) ||
            strstr(run->text.bytes, MEANINGS[i].said)) {
            explain(MEANINGS[i].means, target, default_port, out, size);
            return;
        }
    char said[320];
    if (what_it_said(run, said, sizeof said))
        snprintf(out, size, "%s", said);
    else
        snprintf(out, size, "%s ended with code %d and said nothing", target->adb ? "adb" : "ssh",
                 run->code);
}

void shoal_transport_explain_state(const ShoalTarget *target, char *out, size_t size) {
    const char *state = target->state;
    if (!strcmp(state, "unauthorized") || !strcmp(state, "authorizing"))
        snprintf(out, size,
                 "not authorised: allow USB debugging on the phone's screen, and tick \"always "
                 "allow\"");
    else if (!strcmp(state, "offline"))
        snprintf(out, size, "offline: unplug it and plug it in again, or: adb -s '%s' reconnect",
                 target->name);
    else if (!strncmp(state, "no permissions", 14))
        snprintf(out, size,
                 "this computer's user may not use the USB device: install udev rules (Debian: apt "
                 "install android-sdk-platform-tools-common) and plug it in again");
    else if (!state[0])
        snprintf(out, size, "not attached: adb devices -l shows those that are");
    else
        snprintf(out, size, "it is in state \"%.64s\", not started as usual: restart it", state);
}

bool shoal_transport_lost(const ShoalRun *run) {
    static const char *const BREAKS[] = {"error: closed",    "protocol fault",
                                         "Connection reset", "Connection closed by",
                                         "Broken pipe",      "kex_exchange_identification"};
    for (size_t i = 0; i < sizeof BREAKS / sizeof BREAKS[0] && !run->late; i++)
        if (strstr(run->errors.bytes, BREAKS[i]))
            return true;
    return false;
}
