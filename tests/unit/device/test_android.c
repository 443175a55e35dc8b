/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/device/fake_root.h"

#include "base/clock.h"
#include "device/android.h"
#include "device/tool.h"

static ShoalDoctorAndroid android;

static void test_no_android(void **state) {
    (void)state;
    shoal_android_read(root, &android);
    assert_int_equal(android.is_android, 0);
    assert_int_equal(android.freezer, -1);
}

static void put_getprop(const char *sdk) {
    char script[256];
    snprintf(script, sizeof script,
             "#!/bin/sh\ncase $1 in ro.build.version.sdk) echo %s;; *release) echo 14;; "
             "sys.usb.state) echo mtp,adb;; *) echo "
             "Pixel 7;; esac\n",
             sdk);
    put_program("system/bin/getprop", script);
}

static void test_all(void **state) {
    (void)state;
    put_getprop("34");
    put_program("system/bin/settings",
                "#!/bin/sh\ncase $3 in settings_enable_monitor_phantom_procs) echo false;;"
                " cached_apps_freezer) echo disabled;; low_power) echo 0;;"
                " stay_on_while_plugged_in) echo 7;; *) echo null;; esac\n");
    put_program("system/bin/device_config", "#!/bin/sh\necho 2147483647\n");
    put_program("system/bin/dumpsys", "#!/bin/sh\necho 1\n");
    put_program("system/bin/cmd", "#!/bin/sh\necho 'WifiInfo: RSSI: -61, Link speed: 433Mbps, "
                                  "Tx Link speed: 390Mbps, Frequency: 5180MHz'\n");
    shoal_android_read(root, &android);
    assert_int_equal(android.is_android, 1);
    assert_int_equal(android.sdk, 34);
    assert_string_equal(android.release, "14");
    assert_string_equal(android.model, "Pixel 7");
    assert_string_equal(android.usb, "mtp,adb");
    assert_int_equal(android.phantom_monitor, 0);
    assert_int_equal(android.max_phantoms, 2147483647);
    assert_int_equal(android.freezer, 0);
    assert_int_equal(android.doze, 1);
    assert_int_equal(android.battery_saver, 0);
    assert_int_equal(android.stay_awake, 7);
    assert_int_equal(android.wifi_sleep, -1);
    assert_int_equal(android.wifi_mbit, 433);
    assert_int_equal(android.wifi_mhz, 5180);
    assert_int_equal(android.wifi_dbm, -61);
}

/* What an app may not ask: then what the version does by itself. */
static void test_denied(void **state) {
    (void)state;
    put_getprop("33");
    put_program("system/bin/settings", "#!/bin/sh\necho denied\nexit 255\n");
    shoal_android_read(root, &android);
    assert_int_equal(android.phantom_monitor, 1);
    assert_int_equal(android.max_phantoms, 32);
    assert_int_equal(android.freezer, 1);
    assert_int_equal(android.doze, -1);
    put_getprop("28");
    shoal_android_read(root, &android);
    assert_int_equal(android.phantom_monitor, -1);
    assert_int_equal(android.freezer, -1);
}

static void test_nonsense(void **state) {
    (void)state;
    static const char *const SDKS[] = {"-1", "99999999999999", "''", "33x",
                                       "\"$(yes | head -9999)\""};
    for (size_t i = 0; i < sizeof SDKS / sizeof SDKS[0]; i++) {
        put_getprop(SDKS[i]);
        shoal_android_read(root, &android);
        assert_int_equal(android.is_android, 0);
    }
}

static void test_tool(void **state) {
    (void)state;
    char out[16];
    const char *const argv[] = {"tool", "a b", NULL};
    put_program("tool", "#!/bin/sh\nprintf '%s\\033[2J\\n' \"$1\"\n");
    assert_true(shoal_tool_run(root, "tool", argv, 20000, out, sizeof out));
    assert_string_equal(out, "a b?[2J\n");
    put_program("tool", "#!/bin/sh\necho 0123456789012345678901234567890\n");
    assert_true(shoal_tool_run(root, "tool", argv, 20000, out, sizeof out));
    assert_string_equal(out, "012345678901234");
    put_program("tool", "#!/bin/sh\nexit 3\n");
    assert_false(shoal_tool_run(root, "tool", argv, 20000, out, sizeof out));
    assert_false(shoal_tool_run(root, "missing", argv, 20000, out, sizeof out));
}

/* It ends, and so does what it has started: else the pipe would stay open. */
static void test_tool_hangs(void **state) {
    (void)state;
    char out[16];
    const char *const argv[] = {"tool", NULL};
    put_program("tool", "#!/bin/sh\nsleep 600 & echo here; wait\n");
    assert_false(shoal_tool_run(root, "tool", argv, 200, out, sizeof out));
    put_program("tool", "#!/bin/sh\nexec >&-\nsleep 600\n");
    assert_false(shoal_tool_run(root, "tool", argv, 200, out, sizeof out));
}

int main(void) {
    const struct CMUnitTest tests[] = {ROOT_TEST(test_no_android), ROOT_TEST(test_all),
                                       ROOT_TEST(test_denied),     ROOT_TEST(test_nonsense),
                                       ROOT_TEST(test_tool),       ROOT_TEST(test_tool_hangs)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
