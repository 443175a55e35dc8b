/* SPDX-License-Identifier: Apache-2.0 */
/* Linked with src/cli/phone_start.c: does the handler of SIGSYS, which is there before main, answer
 * for a call with ENOSYS? Here the call is a tgkill() that sends SIGSYS, since a filter of system
 * calls is not to be had under qemu: the signal arrives as that call ends. The main thread and a
 * second one; exit code 0: yes. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *check(void *context) {
    (void)context;
    /* Not kill(2): a signal for the process may be taken by another thread. */
    for (int i = 0; i < 3; i++) {
        errno = 0;
        if (syscall(SYS_tgkill, getpid(), gettid(), SIGSYS) != -1 || errno != ENOSYS)
            return "the call was answered otherwise";
    }
    return NULL;
}

int main(int argc, char **argv) {
    (void)argv;
    void *wrong = check(NULL);
    pthread_t thread;
    if (!wrong && !pthread_create(&thread, NULL, check, NULL))
        pthread_join(thread, &wrong);
    if (!wrong && argc != 3)
        wrong = "the arguments are not those that were given";
    if (wrong)
        fprintf(stderr, "%s\n", (const char *)wrong);
    return wrong != NULL;
}
