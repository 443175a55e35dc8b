/* SPDX-License-Identifier: Apache-2.0 */
#include "deploy/script.h"

#include <stdio.h>
#include <string.h>

/* ---- text ---- */

static void add_bytes(ShoalScript *script, const char *bytes, size_t n) {
    if (n >= sizeof script->text - script->used) {
        script->overflow = true;
        return;
    }
    memcpy(script->text + script->used, bytes, n);
    script->used += n;
    script->text[script->used] = '\0';
}

void shoal_script_add(ShoalScript *script, const char *text) {
    add_bytes(script, text, strlen(text));
}

void shoal_script_add_quoted(ShoalScript *script, const char *word) {
    shoal_script_add(script, "'");
    while (*word) {
        size_t plain = strcspn(word, "'");
        add_bytes(script, word, plain);
        word += plain;
        if (*word == '\'') {
            shoal_script_add(script, "'\\''");
            word++;
        }
    }
    shoal_script_add(script, "'");
}

static void add_number(ShoalScript *script, long long number) {
    char text[32];
    snprintf(text, sizeof text, "%lld", number);
    shoal_script_add(script, text);
}

static void add_flags(ShoalScript *script, const char *const *flags, int n_flags) {
    for (int i = 0; i < n_flags; i++) {
        shoal_script_add(script, " ");
        shoal_script_add_quoted(script, flags[i]);
    }
}

/* ---- parts ---- */

/* The braces make the shell read all before it does anything: a script that was cut short by a
 * broken connection does nothing. */
static void begin(ShoalScript *script, bool adb) {
    *script = (ShoalScript){0};
    shoal_script_add(script, "{\nLC_ALL=C; export LC_ALL; umask 077; set -f\n"
                             "say() { printf '%s=%s\\n' \"$1\" \"$2\"; }\n"
                             "end() { printf '\\n%s=%s\\n' end ok; exit 0; }\n");
    shoal_script_add(script,
                     adb ? "dir=" SHOAL_SCRIPT_ADB_FOLDER "\n" : "dir=${HOME:-$(pwd)}/.shoal\n");
}

static void enter(ShoalScript *script) {
    shoal_script_add(script, "cd \"$dir\" || exit 1\n");
}

/* A process is the worker that was started when number and start time are those that were kept
 * (field 22 of /proc/PID/stat, see proc(5); the name before may hold blanks): numbers are used
 * again. Fills pid, and now with the start time. */
static void add_alive(ShoalScript *script) {
    shoal_script_add(script, "look() { now=; [ -r \"/proc/$1/stat\" ] || return 0\n"
                             "IFS= read -r now <\"/proc/$1/stat\"; now=${now##*) }\n"
                             "set -- $now; now=${20}; [ \"$1\" != Z ]; }\n"
                             "alive() { pid=; was=; [ -r pid ] && read -r pid was <pid\n"
                             "case $pid in ''|*[!0-9]*) pid=; return 1;; esac\n"
                             "kill -0 \"$pid\" 2>/dev/null && look \"$pid\" &&\n"
                             "{ [ -z \"$was\" ] || [ \"$was\" = \"$now\" ]; }; }\n");
}

static void add_stop(ShoalScript *script) {
    shoal_script_add(script, "halt() { kill -TERM \"$pid\" 2>/dev/null; n=0\n"
                             "while [ $n -lt 5 ] && alive; do sleep 1; n=$((n+1)); done\n"
                             "if alive; then kill -KILL \"$pid\" 2>/dev/null; sleep 1; fi\n"
                             "rm -f pid stamp; }\n");
}

/* Fills h; without sha256sum (toybox has it, some boards' busybox has not) with nothing. */
static const char SUM[] = "sum() { h=$(sha256sum \"$1\" 2>/dev/null); h=${h%% *}; }\n";

/* ---- scripts ---- */

void shoal_script_probe(ShoalScript *script, bool adb, bool make) {
    begin(script, adb);
    if (make) /* the mode keeps out others while adbd gives files modes of its own */
        shoal_script_add(script, "mkdir -p \"$dir\" && chmod 700 \"$dir\" || exit 1\n");
    shoal_script_add(script, "say dir \"$dir\"\n"
                             "prop() { getprop \"$1\" 2>/dev/null; }\n"
                             "say abi \"$(prop ro.product.cpu.abilist)\"\n"
                             "say machine \"$(uname -m)\"\n"
                             "model=$(prop ro.product.model)\n"
                             "f=/proc/device-tree/model\n"
                             "[ -n \"$model\" ] || [ ! -r $f ] || model=$(tr -d '\\000' <$f)\n"
                             "[ -n \"$model\" ] || model=$(uname -n)\n"
                             "say model \"$model\"\n"
                             "say boot \"$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)\"\n"
                             "cd \"$dir\" 2>/dev/null || { say state absent; end; }\n");
    shoal_script_add(script, SUM);
    add_alive(script);
    shoal_script_add(script,
                     "sum shoal; [ -n \"$h\" ] || h=$(cat hash 2>/dev/null)\n"
                     "[ -f shoal ] && say hash \"$h\"\n"
                     "if alive; then say pid \"$pid\"; say stamp \"$(cat stamp 2>/dev/null)\"\n"
                     "say last \"$(tail -n 1 log 2>/dev/null)\"; say state running\n"
                     "else say state idle; fi\nend\n}\n");
}

void shoal_script_install(ShoalScript *script, bool adb, const char *hash, long long size) {
    begin(script, adb);
    enter(script);
    shoal_script_add(script, SUM);
    shoal_script_add(script, "want=");
    shoal_script_add_quoted(script, hash);
    shoal_script_add(script, "\nsum shoal.new\n"
                             "[ -n \"$h\" ] || [ \"$(wc -c <shoal.new | tr -d ' ')\" != ");
    add_number(script, size);
    shoal_script_add(
        script, " ] || h=$want\n"
                "if [ \"$h\" != \"$want\" ]; then rm -f shoal.new; say state damaged; end; fi\n"
                "chmod 700 shoal.new\n"
                "t=$(./shoal.new version 2>&1 </dev/null); code=$?\n"
                "if [ $code -ne 0 ]; then rm -f shoal.new; say state broken; say code $code\n"
                "say trial \"$t\"; end; fi\n"
                "mv -f shoal.new shoal && printf '%s\\n' \"$want\" >hash || exit 1\n"
                "say state installed; end\n}\n");
}

void shoal_script_start(ShoalScript *script, bool adb, const char *const *flags, int n_flags,
                        const char *stamp, int wait_s) {
    begin(script, adb);
    enter(script);
    add_alive(script);
    add_stop(script);
    /* A moment later the one who started all this may be gone: from here on nothing may stop it
     * half-way. setsid(1) may fork, so the worker's shell itself says which process it is. */
    shoal_script_add(script,
                     "trap '' HUP INT PIPE\nalive && halt\nrm -f pid stamp\n"
                     "if [ -f token.new ]; then chmod 600 token.new; mv -f token.new token; fi\n"
                     "SHOAL_TOKEN=; IFS= read -r SHOAL_TOKEN <token; export SHOAL_TOKEN\n"
                     "[ ! -f log ] || mv -f log log.1\n"
                     "if command -v termux-wake-lock >/dev/null 2>&1; then\n"
                     "termux-wake-lock </dev/null >/dev/null 2>&1 & fi\n"
                     "s=; command -v setsid >/dev/null 2>&1 && s=setsid\n"
                     "$s sh -c 'echo $$ >pid; exec ./shoal \"$@\"' sh worker");
    add_flags(script, flags, n_flags);
    shoal_script_add(script, " </dev/null >log 2>&1 &\nn=0; while [ $n -lt ");
    add_number(script, wait_s);
    shoal_script_add(script, " ]; do sleep 1; n=$((n+1)); [ -s pid ] || continue\n"
                             "alive || break; [ -s log ] && break; done\n"
                             "grep -q error: log 2>/dev/null && sleep 1\n"
                             "if alive; then printf '%s %s\\n' \"$pid\" \"$now\" >pid\n"
                             "printf '%s\\n' ");
    shoal_script_add_quoted(script, stamp);
    shoal_script_add(script, " >stamp; say pid \"$pid\"; say state running\n"
                             "else rm -f pid; say state ended; fi\n"
                             "say last \"$(tail -n 1 log 2>/dev/null)\"; end\n}\n");
}

void shoal_script_stop(ShoalScript *script, bool adb) {
    begin(script, adb);
    enter(script);
    add_alive(script);
    add_stop(script);
    shoal_script_add(script, "if alive; then halt; say state stopped; else say state idle; fi\n"
                             "if command -v termux-wake-unlock >/dev/null 2>&1; then\n"
                             "termux-wake-unlock </dev/null >/dev/null 2>&1 & fi\n"
                             "rm -f token token.new pid stamp; end\n}\n");
}

void shoal_script_logs(ShoalScript *script, bool adb, int lines) {
    begin(script, adb);
    enter(script);
    shoal_script_add(script, "say output begin; tail -n ");
    add_number(script, lines);
    shoal_script_add(script, " log 2>/dev/null\nend\n}\n");
}

void shoal_script_doctor(ShoalScript *script, bool adb, const char *const *flags, int n_flags) {
    begin(script, adb);
    enter(script);
    shoal_script_add(script, "trap 'rm -f token.new' 0\n"
                             "if [ -f token.new ]; then chmod 600 token.new\n"
                             "IFS= read -r SHOAL_TOKEN <token.new; export SHOAL_TOKEN\n"
                             "rm -f token.new; fi\nsay output begin\n./shoal doctor --json");
    add_flags(script, flags, n_flags);
    shoal_script_add(script, " </dev/null\nend\n}\n");
}
