/* SPDX-License-Identifier: Apache-2.0 */
#include "device/android.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/tool.h"

enum { TOOL_MS = 3000, OUTPUT_SIZE = 4096 };

/* The first line that `system/bin/WORD ...` prints; false for none, "null" and "undefined", which
 * stand for settings that nobody has made. */
static bool ask(const char *root, char *line, size_t size, const char *const *argv) {
    char program[64], output[OUTPUT_SIZE];
    snprintf(program, sizeof program, "system/bin/%s", argv[0]);
    line[0] = '\0';
    if (!shoal_tool_run(root, program, argv, TOOL_MS, output, sizeof output))
        return false;
    output[strcspn(output, "\n")] = '\0';
    snprintf(line, size, "%.*s", (int)size - 1, output);
    return line[0] && strcmp(line, "null") != 0 && strcmp(line, "undefined") != 0;
}

static bool property(const char *root, const char *name, char *line, size_t size) {
    return ask(root, line, size, (const char *const[]){"getprop", name, NULL});
}

static bool setting(const char *root, const char *name, char *line, size_t size) {
    return ask(root, line, size, (const char *const[]){"settings", "get", "global", name, NULL});
}

static bool device_config(const char *root, const char *space, const char *name, char *line,
                          size_t size) {
    return ask(root, line, size, (const char *const[]){"device_config", "get", space, name, NULL});
}

/* A whole number, else -1. */
static int number(const char *text) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    return end == text || *end || errno || value < 0 || value > INT_MAX ? -1 : (int)value;
}

static int number_setting(const char *root, const char *name) {
    char line[32];
    return setting(root, name, line, sizeof line) ? number(line) : -1;
}

static int truth(const char *text) {
    if (!strcmp(text, "true") || !strcmp(text, "1") || !strcmp(text, "enabled"))
        return 1;
    return !strcmp(text, "false") || !strcmp(text, "0") || !strcmp(text, "disabled") ? 0 : -1;
}

/* From Android 12 on (AOSP: PhantomProcessList, ActivityManagerConstants; the flag since 12L:
 * issuetracker.google.com/issues/205156966, github.com/agnostic-apollo/Android-Docs): of the
 * processes that apps have forked, the 32 newest may live; the feature flag of the name below turns
 * that off (in the developer options since Android 14). */
static void read_phantoms(const char *root, ShoalDoctorAndroid *out) {
    char line[64];
    if (out->sdk < 31)
        return;
    out->phantom_monitor = 1;
    if (setting(root, "settings_enable_monitor_phantom_procs", line, sizeof line) &&
        truth(line) >= 0)
        out->phantom_monitor = truth(line);
    out->max_phantoms = 32;
    if (device_config(root, "activity_manager", "max_phantom_processes", line, sizeof line) &&
        number(line) >= 0)
        out->max_phantoms = number(line);
}

/* From Android 11 on (AOSP: CachedAppOptimizer): the setting goes before the device's own
 * configuration, whose default is on since Android 12. */
static void read_freezer(const char *root, ShoalDoctorAndroid *out) {
    char line[64];
    if (out->sdk < 30)
        return;
    if (setting(root, "cached_apps_freezer", line, sizeof line) && truth(line) >= 0)
        out->freezer = truth(line);
    else if (device_config(root, "activity_manager_native_boot", "use_freezer", line,
                           sizeof line) &&
             truth(line) >= 0)
        out->freezer = truth(line);
    else
        out->freezer = out->sdk >= 31 ? 1 : -1;
}

static int value_after(const char *text, const char *label) {
    const char *at = strstr(text, label);
    return at ? atoi(at + strlen(label)) : 0;
}

/* `cmd wifi status` (Android 11 on) prints what WifiInfo.toString() has: "RSSI: -52, ... Link
 * speed: 433Mbps, ... Frequency: 5180MHz". */
static void read_wifi(const char *root, ShoalDoctorAndroid *out) {
    char text[OUTPUT_SIZE];
    const char *const argv[] = {"cmd", "wifi", "status", NULL};
    if (out->sdk < 30 || !shoal_tool_run(root, "system/bin/cmd", argv, TOOL_MS, text, sizeof text))
        return;
    int mbit = value_after(text, "Link speed: "), mhz = value_after(text, "Frequency: ");
    int dbm = value_after(text, "RSSI: ");
    out->wifi_mbit = mbit > 0 && mbit < 100000 ? mbit : 0;
    out->wifi_mhz = mhz > 0 && mhz < 100000 ? mhz : 0;
    out->wifi_dbm = dbm < 0 && dbm > -127 ? dbm : 0; /* -127 stands for unknown */
}

void shoal_android_read(const char *root, ShoalDoctorAndroid *out) {
    memset(out, 0, sizeof *out);
    out->sdk = out->phantom_monitor = out->max_phantoms = out->freezer = out->doze = -1;
    out->battery_saver = out->stay_awake = out->wifi_sleep = -1;
    char line[64];
    if (!property(root, "ro.build.version.sdk", line, sizeof line) || number(line) <= 0)
        return;
    out->is_android = 1;
    out->sdk = number(line);
    property(root, "ro.build.version.release", out->release, sizeof out->release);
    property(root, "ro.product.model", out->model, sizeof out->model);
    property(root, "sys.usb.state", out->usb, sizeof out->usb);
    read_phantoms(root, out);
    read_freezer(root, out);
    /* `dumpsys deviceidle enabled`: 1 where doze is in use (AOSP: DeviceIdleController). */
    if (ask(root, line, sizeof line,
            (const char *const[]){"dumpsys", "deviceidle", "enabled", NULL}))
        out->doze = truth(line);
    out->battery_saver = number_setting(root, "low_power");
    out->stay_awake = number_setting(root, "stay_on_while_plugged_in");
    out->wifi_sleep = number_setting(root, "wifi_sleep_policy");
    read_wifi(root, out);
}
