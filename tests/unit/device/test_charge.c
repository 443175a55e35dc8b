/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/device/fake_root.h"

#include <fcntl.h>

#include "device/charge.h"

static void assert_says(const char *name, const char *text) {
    char path[256], found[64] = "";
    snprintf(path, sizeof path, "%s/%s", root, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t n = fread(found, 1, sizeof found - 1, file);
    fclose(file);
    found[n] = '\0';
    assert_string_equal(found, text);
}

static ShoalCharge find(void) {
    ShoalCharge charge;
    memset(&charge, 0x5a, sizeof charge);
    shoal_charge_find(root, &charge);
    return charge;
}

static void assert_found(const ShoalCharge *charge, const char *name, int limit) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    assert_string_equal(charge->path, path);
    assert_int_equal(charge->limit, limit);
    assert_string_equal(charge->saved, "");
}

#define KERNEL "sys/class/power_supply/battery/charge_control_end_threshold"
#define PIXEL "sys/devices/platform/google,charger/charge_stop_level"
#define OLDER_PIXEL "sys/devices/platform/soc/soc:google,charger/charge_stop_level"
#define SAMSUNG "sys/class/power_supply/battery/batt_full_capacity"

/* ---- tests ---- */

static void test_none(void **state) {
    (void)state;
    ShoalCharge charge = find();
    assert_string_equal(charge.path, "");
    assert_int_equal(charge.limit, -1);
    assert_false(charge.writable);
    assert_false(shoal_charge_set(&charge, 80));
    assert_int_equal(errno, ENOENT);
    shoal_charge_restore(&charge);
    shoal_charge_find("/no/such/folder", &charge);
    assert_string_equal(charge.path, "");
    char long_root[1024];
    memset(long_root, 'a', sizeof long_root - 1);
    long_root[sizeof long_root - 1] = '\0';
    shoal_charge_find(long_root, &charge);
    assert_string_equal(charge.path, "");
}

static void test_each_kind(void **state) {
    (void)state;
    static const struct {
        const char *file, *before;
        int limit;
    } CASES[] = {
        {KERNEL, "100\n", 100}, {PIXEL, "100\n", 100}, {OLDER_PIXEL, "90\n", 90},
        {SAMSUNG, "0\n", 100},  {SAMSUNG, "85\n", 85},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        put(CASES[i].file, CASES[i].before);
        ShoalCharge charge = find();
        assert_found(&charge, CASES[i].file, CASES[i].limit);
        assert_true(charge.writable);
        assert_true(shoal_charge_set(&charge, 70));
        assert_says(CASES[i].file, "70\n");
        assert_int_equal(charge.limit, 70);
        assert_true(shoal_charge_set(&charge, 75)); /* once more: the first one is kept */
        assert_says(CASES[i].file, "75\n");
        shoal_charge_restore(&charge);
        assert_says(CASES[i].file, CASES[i].before);
        assert_int_equal(charge.limit, CASES[i].limit);
        shoal_charge_restore(&charge); /* nothing is left to restore */
        char path[256];
        snprintf(path, sizeof path, "%s/%s", root, CASES[i].file);
        assert_int_equal(remove(path), 0);
    }
}

/* The kernel's own interface first. */
static void test_order(void **state) {
    (void)state;
    put(SAMSUNG, "0\n");
    put(PIXEL, "100\n");
    put("sys/class/power_supply/BAT1/charge_control_end_threshold", "99\n");
    put("sys/class/power_supply/BAT0/charge_control_end_threshold", "98\n");
    put("sys/class/power_supply/A-mouse/charge_control_end_threshold", "97\n");
    put("sys/class/power_supply/A-mouse/scope", "Device\n");
    ShoalCharge charge = find();
    assert_found(&charge, "sys/class/power_supply/BAT0/charge_control_end_threshold", 98);
}

static void test_a_lower_limit_is_left(void **state) {
    (void)state;
    put(KERNEL, "60\n");
    ShoalCharge charge = find();
    assert_true(shoal_charge_set(&charge, 80));
    assert_int_equal(charge.limit, 60);
    assert_says(KERNEL, "60\n");
    put(KERNEL, "65\n");
    shoal_charge_restore(&charge);
    assert_says(KERNEL, "65\n");
}

static void test_what_others_set_since_is_left(void **state) {
    (void)state;
    put(KERNEL, "100\n");
    ShoalCharge charge = find();
    assert_true(shoal_charge_set(&charge, 80));
    put(KERNEL, "50\n");
    shoal_charge_restore(&charge);
    assert_says(KERNEL, "50\n");
    assert_int_equal(charge.limit, 50);
}

/* What cannot be read is never written. */
static void test_nonsense(void **state) {
    (void)state;
    static const char *const BAD[] = {"",
                                      "\n",
                                      "eighty\n",
                                      "101\n",
                                      "-1\n",
                                      "80 x\n",
                                      "8e1\n",
                                      "99999999999999999999\n",
                                      "80                                        \n"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        put(KERNEL, BAD[i]);
        ShoalCharge charge = find();
        assert_int_equal(charge.limit, -1);
        assert_false(charge.writable);
        assert_false(shoal_charge_set(&charge, 80));
        assert_int_equal(errno, ENOTSUP);
        assert_says(KERNEL, BAD[i]);
    }
    put(KERNEL, "100\n");
    ShoalCharge charge = find();
    static const int PERCENT[] = {0, -1, 101};
    for (size_t i = 0; i < 3; i++) {
        assert_false(shoal_charge_set(&charge, PERCENT[i]));
        assert_int_equal(errno, EINVAL);
    }
    assert_says(KERNEL, "100\n");
}

/* Files that take what is written and say something else. */
static void test_ignored(void **state) {
    (void)state;
    char path[256];
    put(KERNEL, "");
    snprintf(path, sizeof path, "%s/%s", root, KERNEL);
    assert_int_equal(remove(path), 0);
    assert_int_equal(symlink("/dev/null", path), 0);
    ShoalCharge charge = find();
    assert_false(charge.writable);
    assert_false(shoal_charge_set(&charge, 80));
    assert_int_equal(remove(path), 0);
    /* Nor does it wait for the reader of a pipe. */
    assert_int_equal(mkfifo(path, 0600), 0);
    charge = find();
    assert_false(charge.writable);
    assert_false(shoal_charge_set(&charge, 80));
}

static void test_not_writable(void **state) {
    (void)state;
    put(KERNEL, "100\n");
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, KERNEL);
    assert_int_equal(chmod(path, 0444), 0);
    ShoalCharge charge = find();
    assert_found(&charge, KERNEL, 100);
    assert_false(charge.writable); /* to root either: the system's files have no write then */
    if (geteuid() == 0)
        return;
    assert_false(shoal_charge_set(&charge, 80));
    assert_int_equal(errno, EACCES);
    assert_int_equal(charge.saved[0], 0);
}

static void test_no_descriptor_is_left_open(void **state) {
    (void)state;
    put(KERNEL, "100\n");
    int before = open("/dev/null", O_RDONLY);
    close(before);
    for (int i = 0; i < 20; i++) {
        ShoalCharge charge = find();
        assert_true(shoal_charge_set(&charge, 80));
        shoal_charge_restore(&charge);
    }
    int after = open("/dev/null", O_RDONLY);
    close(after);
    assert_int_equal(before, after);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ROOT_TEST(test_none),
        ROOT_TEST(test_each_kind),
        ROOT_TEST(test_order),
        ROOT_TEST(test_a_lower_limit_is_left),
        ROOT_TEST(test_what_others_set_since_is_left),
        ROOT_TEST(test_nonsense),
        ROOT_TEST(test_ignored),
        ROOT_TEST(test_not_writable),
        ROOT_TEST(test_no_descriptor_is_left_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
