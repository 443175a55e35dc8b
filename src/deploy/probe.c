/* SPDX-License-Identifier: Apache-2.0 */
#include "deploy/probe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void copy(char *out, size_t size, const char *text, size_t length) {
    if (length >= size)
        length = size - 1;
    memcpy(out, text, length);
    out[length] = '\0';
}

/* ---- devices ---- */

bool shoal_probe_adb_line(const char *line, ShoalTarget *target) {
    static const char TITLE[] = "List of devices";
    *target = (ShoalTarget){.adb = true};
    size_t length = strcspn(line, "\r\n"), name = strcspn(line, " \t\r\n");
    if (!name || *line == '*' || !strncmp(line, TITLE, sizeof TITLE - 1))
        return false; /* '*': "* daemon started successfully" */
    if (name >= sizeof target->name || name == length)
        return false;
    for (size_t i = 0; i < name; i++)
        if ((unsigned char)line[i] <= ' ' || (unsigned char)line[i] >= 0x7f)
            return false;
    copy(target->name, sizeof target->name, line, name);
    const char *state = line + name + strspn(line + name, " \t");
    size_t rest = length - (size_t)(state - line);
    static const char FORBIDDEN[] = "no permissions"; /* the only state of two words */
    size_t word = strcspn(state, " \t\r\n");
    if (!strncmp(state, FORBIDDEN, sizeof FORBIDDEN - 1))
        word = rest;
    copy(target->state, sizeof target->state, state, word);
    return word > 0;
}

static bool is_host_character(unsigned char c) {
    return c > ' ' && c != 0x7f && !strchr("'\"`\\$;&|<>(){}*?!#,", c);
}

static bool take_port(const char *text, size_t length, int *port) {
    char digits[8];
    if (length < 1 || length > 5 || strspn(text, "0123456789") < length)
        return false;
    copy(digits, sizeof digits, text, length);
    *port = atoi(digits);
    return *port > 0 && *port < 65536;
}

/* Where host's last `length` bytes are "[ADDRESS]" or "[ADDRESS]:PORT": takes the brackets away. */
static bool take_brackets(ShoalTarget *target, char *open) {
    char *close = strchr(open, ']');
    if (!close || close == open + 1)
        return false;
    if (close[1] && (close[1] != ':' || !take_port(close + 2, strlen(close + 2), &target->port)))
        return false;
    *close = '\0';
    memmove(open, open + 1, strlen(open + 1) + 1);
    return true;
}

bool shoal_probe_host(const char *text, size_t length, ShoalTarget *target) {
    *target = (ShoalTarget){.state = "device"};
    if (!length || length >= sizeof target->name || text[0] == '-')
        return false;
    for (size_t i = 0; i < length; i++)
        if (!is_host_character((unsigned char)text[i]))
            return false;
    copy(target->name, sizeof target->name, text, length);
    copy(target->host, sizeof target->host, text, length);
    char *at = strrchr(target->host, '@'), *address = at ? at + 1 : target->host;
    if (at == target->host || !*address || *address == '-')
        return false;
    if (*address == '[')
        return take_brackets(target, address);
    char *colon = strchr(address, ':');
    if (!colon || strchr(colon + 1, ':')) /* none, or an IPv6 address */
        return true;
    *colon = '\0';
    return colon > address && take_port(colon + 1, strlen(colon + 1), &target->port);
}

/* ---- scripts ---- */

static void take_number(const char *value, size_t length, int *number) {
    char digits[16];
    if (!length || length > 9 || strspn(value, "0123456789") < length)
        return;
    copy(digits, sizeof digits, value, length);
    *number = atoi(digits);
}

static bool is(const char *name, const char *line, size_t key) {
    return strlen(name) == key && !memcmp(name, line, key);
}

static void take_line(const char *line, size_t length, ShoalProbe *probe) {
    const struct {
        const char *name;
        char *text;
        size_t size;
    } texts[] = {
        {"dir", probe->dir, sizeof probe->dir},
        {"abi", probe->abi, sizeof probe->abi},
        {"machine", probe->machine, sizeof probe->machine},
        {"model", probe->model, sizeof probe->model},
        {"boot", probe->boot, sizeof probe->boot},
        {"hash", probe->hash, sizeof probe->hash},
        {"stamp", probe->stamp, sizeof probe->stamp},
        {"state", probe->state, sizeof probe->state},
        {"trial", probe->trial, sizeof probe->trial},
        {"last", probe->last, sizeof probe->last},
    };
    const char *equals = memchr(line, '=', length);
    if (!equals)
        return;
    size_t key = (size_t)(equals - line), size = length - key - 1;
    const char *value = equals + 1;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (is(texts[i].name, line, key))
            copy(texts[i].text, texts[i].size, value, size);
    if (is("pid", line, key))
        take_number(value, size, &probe->pid);
    if (is("code", line, key))
        take_number(value, size, &probe->code);
    if (is("end", line, key))
        probe->complete = size == 2 && !memcmp(value, "ok", 2);
}

void shoal_probe_read(const char *text, ShoalProbe *probe) {
    probe->complete = false;
    while (*text) {
        size_t length = strcspn(text, "\n"), used = length;
        while (used && text[used - 1] == '\r')
            used--;
        take_line(text, used, probe);
        text += length + (text[length] == '\n');
    }
}

/* The last place where `what` begins a line; NULL: none. */
static char *last_line(char *text, const char *what) {
    char *found = NULL;
    size_t length = strlen(what);
    for (char *line = text; line; line = strchr(line, '\n'), line = line ? line + 1 : NULL)
        if (!strncmp(line, what, length) && (!line[length] || strchr("\r\n", line[length])))
            found = line;
    return found;
}

char *shoal_probe_output(char *text) {
    char *end = last_line(text, "end=ok"), *begin = strstr(text, "output=begin");
    if (!begin || !end || end < begin || (begin > text && begin[-1] != '\n'))
        return NULL;
    begin += strcspn(begin, "\n");
    begin += *begin == '\n';
    if (end < begin)
        return NULL;
    while (end > begin && strchr("\r\n", end[-1]))
        end--;
    *end = '\0';
    return begin;
}

/* ---- binaries ---- */

/* Names of Android's ABIs (developer.android.com/ndk/guides/abis) and of uname -m. */
static const struct {
    const char *name, *arch;
} ARCHES[] = {{"arm64-v8a", "aarch64"}, {"aarch64", "aarch64"}, {"x86_64", "x86_64"}};

static const char *arch_of(const char *name, size_t length) {
    for (size_t i = 0; i < sizeof ARCHES / sizeof ARCHES[0]; i++)
        if (is(ARCHES[i].name, name, length))
            return ARCHES[i].arch;
    return NULL;
}

const char *shoal_probe_arch(const ShoalProbe *probe) {
    const char *list = probe->abi[0] ? probe->abi : probe->machine;
    while (*list) { /* the device's own comes first, what it emulates later */
        size_t length = strcspn(list, ",");
        const char *arch = arch_of(list, length);
        if (arch)
            return arch;
        list += length + (list[length] == ',');
    }
    return NULL;
}
