/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/device/fake_root.h"

#include "device/power.h"

#define BATTERY "sys/class/power_supply/battery/"

static ShoalDoctorBattery battery;

static void put_battery(const char *status, const char *current) {
    put(BATTERY "type", "Battery");
    put(BATTERY "status", status);
    put(BATTERY "current_now", current);
}

static void test_nothing(void **state) {
    (void)state;
    shoal_power_read(root, &battery);
    assert_int_equal(battery.present, -1);
    assert_int_equal(battery.level, -1);
    assert_int_equal(battery.limit, -1);
    assert_false(battery.current_known);
}

static void test_all(void **state) {
    (void)state;
    put_battery("Charging", "903000");
    put(BATTERY "capacity", "64");
    put(BATTERY "health", "Good");
    put(BATTERY "technology", "Li-ion");
    put(BATTERY "voltage_now", "4012000");
    put(BATTERY "cycle_count", "412");
    put(BATTERY "charge_full", "3280000");
    put(BATTERY "charge_full_design", "4100000");
    shoal_power_read(root, &battery);
    assert_int_equal(battery.present, 1);
    assert_int_equal(battery.level, 64);
    assert_string_equal(battery.status, "charging");
    assert_string_equal(battery.health, "good");
    assert_true(battery.current_known);
    assert_int_equal(battery.current_ma, 903);
    assert_int_equal(battery.millivolts, 4012);
    assert_int_equal(battery.cycles, 412);
    assert_int_equal(battery.capacity_left, 80);
}

/* Units and signs differ between makers. */
static void test_current(void **state) {
    (void)state;
    static const struct {
        const char *status, *current;
        int known, ma;
    } CASES[] = {
        {"Charging", "1500", 1, 1500},      {"Charging", "-1500000", 1, 1500},
        {"Discharging", "350000", 1, -350}, {"Discharging", "-350", 1, -350},
        {"Not charging", "-20000", 1, -20}, {"Full", "0", 1, 0},
        {"Charging", "7000", 0, 0},         {"Charging", "99999999999", 0, 0},
        {"Charging", "many", 0, 0},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        put_battery(CASES[i].status, CASES[i].current);
        shoal_power_read(root, &battery);
        assert_int_equal(battery.current_known, CASES[i].known);
        if (CASES[i].known)
            assert_int_equal(battery.current_ma, CASES[i].ma);
    }
}

/* A mouse's battery is not ours. */
static void test_not_ours(void **state) {
    (void)state;
    put(BATTERY "type", "Battery");
    put(BATTERY "scope", "Device");
    put("sys/class/power_supply/usb/type", "USB");
    shoal_power_read(root, &battery);
    assert_int_equal(battery.present, 0);
}

static void test_zones(void **state) {
    (void)state;
    ShoalDoctorZone zones[4];
    put("sys/class/thermal/thermal_zone0/type", "cpu-big");
    put("sys/class/thermal/thermal_zone0/temp", "51500");
    put("sys/class/thermal/thermal_zone0/trip_point_0_type", "active");
    put("sys/class/thermal/thermal_zone0/trip_point_0_temp", "60000");
    put("sys/class/thermal/thermal_zone0/trip_point_1_type", "passive");
    put("sys/class/thermal/thermal_zone0/trip_point_1_temp", "85000");
    put("sys/class/thermal/thermal_zone0/trip_point_2_type", "passive");
    put("sys/class/thermal/thermal_zone0/trip_point_2_temp", "-1");
    put("sys/class/thermal/thermal_zone1/type", "nonsense");
    put("sys/class/thermal/thermal_zone1/temp", "999999999");
    put("sys/class/thermal/cooling_device0/type", "cpufreq");
    assert_int_equal(shoal_power_zones(root, zones, 4), 1);
    assert_string_equal(zones[0].type, "cpu-big");
    assert_true(zones[0].celsius == 51.5);
    assert_true(zones[0].limit == 85);
    put("sys/class/thermal/thermal_zone1/temp", "30");
    assert_int_equal(shoal_power_zones(root, zones, 4), 2);
    assert_int_equal(shoal_power_zones(root, zones, 1), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {ROOT_TEST(test_nothing), ROOT_TEST(test_all),
                                       ROOT_TEST(test_current), ROOT_TEST(test_not_ours),
                                       ROOT_TEST(test_zones)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
