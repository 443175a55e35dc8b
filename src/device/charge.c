/* SPDX-License-Identifier: Apache-2.0 */
#include "device/charge.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device/entries.h"

/* Only files that take a percentage and say which one counts. There are many more that switch
 * charging on and off, one or several a phone, some of which charge a battery to the end when the
 * one who watches it dies: those are left alone. */
static const struct {
    const char *folder; /* below the root; its entries are looked at */
    const char *begin;  /* of an entry's name */
    const char *file;
} KNOWN[] = {
    /* The kernel's Documentation/ABI/testing/sysfs-class-power: "Represents a battery percentage
     * level, above which charging will stop." Drivers may round to what they can do. */
    {"sys/class/power_supply", "", "charge_control_end_threshold"},
    /* Google's phones (drivers/power/supply/google/google_charger.c): percent, 100 is no limit; a
     * value at or below charge_start_level is ignored without an error. */
    {"sys/devices/platform", "google,charger", "charge_stop_level"},
    {"sys/devices/platform/soc", "soc:google,charger", "charge_stop_level"},
    /* Samsung's (drivers/battery/common/sb_full_soc.c): percent, 0 and 100 are no limit. */
    {"sys/class/power_supply", "battery", "batt_full_capacity"},
};

enum { N_KNOWN = sizeof KNOWN / sizeof KNOWN[0], ROUNDING = 10 };

/* ---- one file ---- */

/* Percent; -1: not known. Where 0 stands for no limit, it is 100. */
static int read_limit(const char *path, char *line, size_t size) {
    char *end;
    if (!shoal_entry_raw(AT_FDCWD, path, line, size))
        return -1;
    long value = strtol(line, &end, 10);
    if (end == line || end[strspn(end, " \t\r")] || value < 0 || value > 100)
        return -1;
    return value > 0 ? (int)value : 100;
}

static bool write_line(const char *path, const char *line) {
    /* The system's files ignore O_TRUNC; those of a test do not. */
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    char text[40];
    int length = snprintf(text, sizeof text, "%s\n", line);
    ssize_t n = write(fd, text, (size_t)length);
    int failure = n < 0 ? errno : EIO;
    close(fd);
    errno = n == length ? 0 : failure;
    return n == length;
}

/* access() alone is true of whatever root asks for. */
static bool is_writable(const char *path) {
    struct stat info;
    return !stat(path, &info) && S_ISREG(info.st_mode) && (info.st_mode & 0222) &&
           !access(path, W_OK);
}

/* ---- finding it ---- */

typedef struct Search {
    ShoalCharge *charge;
    char folder[sizeof((ShoalCharge *)NULL)->path];
    int kind;
} Search;

/* Takes FOLDER/NAME/FILE, if it is there and comes first among those of its kind. */
static void consider(void *context, int folder, const char *name) {
    Search *search = context;
    ShoalCharge *charge = search->charge;
    char path[sizeof charge->path], line[sizeof charge->saved];
    int n = snprintf(path, sizeof path, "%s/%s/%s", search->folder, name, KNOWN[search->kind].file);
    if (n < 0 || (size_t)n >= sizeof path || access(path, F_OK) ||
        (charge->path[0] && strcmp(charge->path, path) <= 0))
        return;
    if (shoal_entry_line_at(folder, name, "scope", line, sizeof line) && !strcmp(line, "Device"))
        return; /* a mouse has a battery, too */
    memcpy(charge->path, path, sizeof path);
    charge->kind = search->kind;
    charge->limit = read_limit(path, line, sizeof line);
    charge->writable = charge->limit >= 0 && is_writable(path);
}

static void look(const char *root, int kind, ShoalCharge *charge) {
    Search search = {.charge = charge, .kind = kind};
    int n = snprintf(search.folder, sizeof search.folder, "%s/%s",
                     root[strspn(root, "/")] ? root : "", KNOWN[kind].folder);
    if (n > 0 && (size_t)n < sizeof search.folder)
        shoal_entry_each(root, KNOWN[kind].folder, KNOWN[kind].begin, consider, &search);
}

void shoal_charge_find(const char *root, ShoalCharge *charge) {
    *charge = (ShoalCharge){.limit = -1};
    for (int kind = 0; kind < N_KNOWN && !charge->path[0]; kind++)
        look(root, kind, charge);
}

/* ---- using it ---- */

static bool fail(int number) {
    errno = number;
    return false;
}

bool shoal_charge_set(ShoalCharge *charge, int percent) {
    char line[sizeof charge->saved], wanted[16];
    if (percent < 1 || percent > 100)
        return fail(EINVAL);
    if (!charge->path[0])
        return fail(ENOENT);
    int before = read_limit(charge->path, line, sizeof line);
    if (before < 0) /* what cannot be read cannot be restored */
        return fail(ENOTSUP);
    charge->limit = before;
    if (before <= percent && !charge->saved[0])
        return true; /* somebody wants even less */
    snprintf(wanted, sizeof wanted, "%d", percent);
    if (!write_line(charge->path, wanted))
        return false;
    if (!charge->saved[0])
        memcpy(charge->saved, line, sizeof line);
    char now[sizeof line];
    charge->limit = read_limit(charge->path, now, sizeof now);
    if (charge->limit >= 0 && charge->limit <= percent + ROUNDING &&
        (charge->limit < 100 || percent == 100))
        return true;
    shoal_charge_restore(charge);
    return fail(ERANGE);
}

void shoal_charge_restore(ShoalCharge *charge) {
    char line[sizeof charge->saved];
    if (!charge->saved[0])
        return;
    /* Unless somebody else has said something since. */
    int now = read_limit(charge->path, line, sizeof line);
    if (now == charge->limit || now < 0)
        (void)write_line(charge->path, charge->saved);
    charge->saved[0] = '\0';
    charge->limit = read_limit(charge->path, line, sizeof line);
}
