/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/device/fake_root.h"

#include <fcntl.h>
#include <math.h>

#include "device/vitals.h"

static void put_zone(int number, const char *type, const char *temp) {
    char name[96];
    snprintf(name, sizeof name, "sys/class/thermal/thermal_zone%d/type", number);
    put(name, type);
    snprintf(name, sizeof name, "sys/class/thermal/thermal_zone%d/temp", number);
    put(name, temp);
}

static void put_trip(int zone, int trip, const char *type, const char *temp) {
    char name[96];
    snprintf(name, sizeof name, "sys/class/thermal/thermal_zone%d/trip_point_%d_type", zone, trip);
    put(name, type);
    snprintf(name, sizeof name, "sys/class/thermal/thermal_zone%d/trip_point_%d_temp", zone, trip);
    put(name, temp);
}

static void put_core(int number, const char *now, const char *full) {
    char name[96];
    snprintf(name, sizeof name, "sys/devices/system/cpu/cpu%d/cpufreq/scaling_max_freq", number);
    put(name, now);
    snprintf(name, sizeof name, "sys/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq", number);
    put(name, full);
}

static void put_cooling(int number, const char *type, const char *now, const char *last) {
    char name[96];
    snprintf(name, sizeof name, "sys/class/thermal/cooling_device%d/type", number);
    put(name, type);
    snprintf(name, sizeof name, "sys/class/thermal/cooling_device%d/cur_state", number);
    put(name, now);
    snprintf(name, sizeof name, "sys/class/thermal/cooling_device%d/max_state", number);
    put(name, last);
}

static void put_supply(const char *supply, const char *file, const char *text) {
    char name[96];
    snprintf(name, sizeof name, "sys/class/power_supply/%s/%s", supply, file);
    put(name, text);
}

static void put_battery(const char *supply, const char *capacity, const char *status) {
    put_supply(supply, "type", "Battery\n");
    put_supply(supply, "capacity", capacity);
    put_supply(supply, "status", status);
}

static ShoalVitals vitals(void) {
    ShoalVitals v;
    memset(&v, 0x5a, sizeof v); /* nothing may be left as it was */
    shoal_vitals_read(root, &v);
    return v;
}

static void assert_near(double a, double b) {
    if (!(fabs(a - b) < 1e-4))
        fail_msg("%g is not %g", a, b);
}

static void assert_unknown(void) {
    ShoalVitals v = vitals();
    assert_near((double)v.temperature, 0);
    assert_near((double)v.ceiling, 0);
    assert_near((double)v.battery_temperature, 0);
    assert_near((double)v.clock, 0);
    assert_int_equal(v.battery, -1);
    assert_false(v.charging);
    assert_int_equal(v.plugged, -1);
    assert_int_equal(v.used, -1);
}

/* ---- tests ---- */

static void test_nothing_is_there(void **state) {
    (void)state;
    assert_unknown();
    put("sys/class/thermal/thermal_zone0/mode", "enabled\n");
    put("sys/class/power_supply/usb/online", "1\n");
    put("sys/devices/system/cpu/cpu0/topology/core_id", "0\n");
    put("sys/devices/system/cpu/online", "0-7\n");
    assert_unknown();
    ShoalVitals v;
    shoal_vitals_read("/no/such/folder", &v);
    assert_int_equal(v.battery, -1);
    char long_root[1024];
    memset(long_root, 'a', sizeof long_root - 1);
    long_root[sizeof long_root - 1] = '\0';
    shoal_vitals_read(long_root, &v);
    assert_int_equal(v.battery, -1);
}

static void test_a_phone(void **state) {
    (void)state;
    put_zone(0, "aoss0-usr\n", "99000\n"); /* none of ours */
    put_zone(1, "cpu-0-0-usr\n", "48200\n");
    put_zone(2, "cpu-1-3-usr\n", "51300\n");
    put_zone(17, "gpuss-0-usr\n", "44000\n");
    put_zone(63, "battery\n", "33100\n");
    put_trip(1, 0, "passive\n", "95000\n");
    put_trip(2, 0, "active\n", "70000\n");
    put_trip(2, 1, "passive\n", "85000\n");
    put_trip(2, 2, "critical\n", "115000\n");
    put_trip(63, 0, "passive\n", "65000\n"); /* no processor's */
    put("sys/class/backlight/panel0-backlight/brightness", "0\n");
    put_supply("usb", "online", "1\n");
    put_core(0, "1785600\n", "1785600\n");
    put_core(4, "1200000\n", "2419200\n"); /* throttled */
    put_core(7, "2841600\n", "2841600\n");
    put_supply("usb", "type", "USB\n");
    put_supply("bms", "type", "BMS\n");
    put_supply("bms", "capacity", "12\n");
    put_battery("battery", "87\n", "Charging\n");
    ShoalVitals v = vitals();
    assert_near((double)v.temperature, 51.3);
    assert_near((double)v.ceiling, 85);
    assert_near((double)v.battery_temperature, 33.1);
    assert_int_equal(v.plugged, 1);
    assert_int_equal(v.used, 0);
    assert_near((double)v.clock, 1200000.0 / 2419200.0);
    assert_int_equal(v.battery, 87);
    assert_true(v.charging);
}

static void test_zones_count_that_concern_us(void **state) {
    (void)state;
    static const char *const OURS[] = {
        "x86_pkg_temp", "acpitz",           "BIG",         "LITTLE",           "MID",     "AP",
        "mtktscpu",     "tsens_tz_sensor4", "soc-thermal", "bigcore0-thermal", "soc_dts0"};
    static const char *const BATTERIES[] = {"Battery", "mtktsbattery", "batt_therm"};
    static const char *const OTHERS[] = {"iwlwifi_1",
                                         "modem1-pa0-usr",
                                         "soc",
                                         "socd",
                                         "soft_ocp_cpu1",
                                         "battery_cycle",
                                         "pm8150b-ibat-lvl0",
                                         "nvme",
                                         "camera-therm",
                                         "battery_power",
                                         ""};
    for (size_t i = 0; i < sizeof OURS / sizeof OURS[0]; i++) {
        put_zone(0, OURS[i], "61000");
        if (vitals().temperature < 60 || vitals().battery_temperature > 0)
            fail_msg("%s is taken for no processor", OURS[i]);
    }
    for (size_t i = 0; i < sizeof BATTERIES / sizeof BATTERIES[0]; i++) {
        put_zone(0, BATTERIES[i], "61000");
        if (vitals().temperature > 0 || vitals().battery_temperature < 60)
            fail_msg("%s is taken for no battery", BATTERIES[i]);
    }
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
        put_zone(0, OTHERS[i], "61000");
        if (vitals().temperature > 0 || vitals().battery_temperature > 0)
            fail_msg("%s counts", OTHERS[i]);
    }
}

static void test_values_of_zones(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double degrees; /* 0: unknown */
    } CASES[] = {
        {"41000\n", 41},
        {"41\n", 41},
        {"41", 41},
        {"150\n", 150},
        {"150000\n", 150},
        {"-12000\n", -12},
        {"-40\n", -40},
        {"1500\n", 1.5},
        {"  37000 \n", 37},
        {"150001\n", 0},
        {"151\n", 0},
        {"999\n", 0},
        {"-41\n", 0},
        {"-40001\n", 0},
        {"-274000\n", 0},
        {"0\n", 0},
        {"\n", 0},
        {"", 0},
        {"hot\n", 0},
        {"41000x\n", 0},
        {"41 000\n", 0},
        {"0x29\n", 0},
        {"4.1e4\n", 0},
        {"99999999999999999999\n", 0},
        {"41000                                                            x\n", 0},
        {"2147483647\n", 0},
        {"-9223372036854775808\n", 0},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        put_zone(0, "cpu-thermal\n", CASES[i].text);
        double degrees = (double)vitals().temperature;
        if (fabs(degrees - CASES[i].degrees) > 1e-4)
            fail_msg("'%s' is taken for %g", CASES[i].text, degrees);
    }
}

/* One bad zone does not hide another. */
static void test_files_that_are_none(void **state) {
    (void)state;
    static char huge[100000];
    memset(huge, '4', sizeof huge);
    put_zone(0, "cpu0\n", "40000\n");
    put_bytes("sys/class/thermal/thermal_zone1/type", huge, sizeof huge);
    put("sys/class/thermal/thermal_zone1/temp", "90000\n");
    put("sys/class/thermal/thermal_zone2/type", "cpu2\n");
    put_bytes("sys/class/thermal/thermal_zone2/temp", huge, sizeof huge);
    put("sys/class/thermal/thermal_zone3/type", "cpu3\n");
    put_bytes("sys/class/thermal/thermal_zone3/temp", "\0\0\0\0", 4);
    char path[256];
    make_way("sys/class/thermal/thermal_zone4/type", path);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not wait for a writer */
    make_way("sys/class/thermal/thermal_zone5/temp/x", path);
    put("sys/class/thermal/thermal_zone5/type", "cpu5\n");
    put("sys/class/thermal/thermal_zone6", "no folder\n");
    make_way("sys/class/thermal/thermal_zone7", path);
    assert_int_equal(symlink("thermal_zone7", path), 0); /* a loop */
    assert_near((double)vitals().temperature, 40);
}

/* As in sysfs: a class has links to devices. */
static void test_links(void **state) {
    (void)state;
    put("sys/devices/virtual/thermal/thermal_zone0/type", "cpu-thermal\n");
    put("sys/devices/virtual/thermal/thermal_zone0/temp", "45500\n");
    char path[256];
    make_way("sys/class/thermal/thermal_zone0", path);
    assert_int_equal(symlink("../../devices/virtual/thermal/thermal_zone0", path), 0);
    assert_near((double)vitals().temperature, 45.5);
}

static void test_many_zones(void **state) {
    (void)state;
    for (int i = 0; i < 200; i++)
        put_zone(i, "cpu-therm\n", i == 137 ? "77000\n" : "30000\n");
    assert_near((double)vitals().temperature, 77);
}

static void test_clock(void **state) {
    (void)state;
    put_core(0, "1000000\n", "0\n");
    assert_near((double)vitals().clock, 0);
    put_core(0, "1000000\n", "2000000\n");
    assert_near((double)vitals().clock, 0.5);
    put_core(0, "3000000\n", "2000000\n"); /* a boost */
    assert_near((double)vitals().clock, 1);
    put_core(11, "1900000\n", "2000000\n");
    assert_near((double)vitals().clock, 0.95);
    put_core(11, "-1000000\n", "2000000\n");
    assert_near((double)vitals().clock, 1);
    put_core(11, "0\n", "2000000\n");
    assert_near((double)vitals().clock, 1);
    put_core(11, "1\n", "0\n");
    assert_near((double)vitals().clock, 1);
    put_core(11, "<unsupported>\n", "2000000\n");
    assert_near((double)vitals().clock, 1);
    put("sys/devices/system/cpu/cpufreq/cpufreq/scaling_max_freq", "1\n");
    put("sys/devices/system/cpu/cpufreq/cpufreq/cpuinfo_max_freq", "10\n");
    put("sys/devices/system/cpu/cpu-x/cpufreq/scaling_max_freq", "1\n");
    put("sys/devices/system/cpu/cpu-x/cpufreq/cpuinfo_max_freq", "10\n");
    assert_near((double)vitals().clock, 1); /* no core */
}

static void test_cooling_devices(void **state) {
    (void)state;
    put_cooling(0, "backlight\n", "9\n", "9\n");
    assert_near((double)vitals().clock, 0);
    put_cooling(1, "thermal-cpufreq-0\n", "0\n", "19\n");
    assert_near((double)vitals().clock, 1);
    put_cooling(2, "thermal-cpufreq-4\n", "5\n", "19\n");
    assert_near((double)vitals().clock, 0.75);
    put_cooling(3, "Processor\n", "30\n", "19\n");
    put_cooling(4, "Processor\n", "-1\n", "19\n");
    put_cooling(5, "Processor\n", "1\n", "0\n");
    put_cooling(6, "Processor\n", "1\n", "99999999999\n");
    assert_near((double)vitals().clock, 0.75);
    put_core(0, "1900000\n", "2000000\n"); /* cores know better */
    assert_near((double)vitals().clock, 0.95);
}

static void test_battery_states(void **state) {
    (void)state;
    static const struct {
        const char *status;
        bool charging;
    } CASES[] = {{"Charging\n", true},      {"Full\n", true},     {"Discharging\n", false},
                 {"Not charging\n", false}, {"Unknown\n", false}, {"", false}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        put_battery("BAT0", "55\n", CASES[i].status);
        assert_int_equal(vitals().battery, 55);
        assert_int_equal(vitals().charging, CASES[i].charging);
    }
    static const char *const BAD[] = {"101\n", "-1\n", "many\n", "", "300\n"};
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        put_battery("BAT0", BAD[i], "Charging\n");
        assert_int_equal(vitals().battery, -1);
        assert_false(vitals().charging);
    }
    put_battery("BAT0", "0\n", "Discharging\n");
    assert_int_equal(vitals().battery, 0);
}

static void test_several_batteries(void **state) {
    (void)state;
    put_battery("BAT0", "80\n", "Full\n");
    put_battery("BAT1", "30\n", "Discharging\n");
    put_battery("hidpp_battery_0", "5\n", "Discharging\n");
    put_supply("hidpp_battery_0", "scope", "Device\n"); /* a mouse */
    put_battery("BAT2", "3\n", "Discharging\n");
    put_supply("BAT2", "present", "0\n"); /* an empty bay */
    ShoalVitals v = vitals();
    assert_int_equal(v.battery, 30);
    assert_false(v.charging);
}

static void test_temperature_of_a_battery(void **state) {
    (void)state;
    put_battery("battery", "50\n", "Discharging\n");
    put_supply("battery", "temp", "384\n"); /* tenths */
    assert_near((double)vitals().battery_temperature, 38.4);
    assert_near((double)vitals().temperature, 0);
    put_supply("battery", "temp", "38400\n");
    assert_near((double)vitals().battery_temperature, 0);
    put_zone(0, "cpu-thermal\n", "35000\n");
    put_supply("battery", "temp", "384\n");
    assert_near((double)vitals().battery_temperature, 38.4);
    assert_near((double)vitals().temperature, 35);
    put_supply("usb", "type", "USB\n");
    put_supply("usb", "temp", "900\n");
    assert_near((double)vitals().battery_temperature, 38.4);
    put_zone(1, "battery\n", "41000\n"); /* the hottest */
    assert_near((double)vitals().battery_temperature, 41);
}

static void test_ceiling(void **state) {
    (void)state;
    static const struct {
        const char *type, *temp;
        double ceiling;
    } CASES[] = {
        {"passive\n", "80000\n", 80},  {"passive\n", "80\n", 80},
        {"passive\n", "60000\n", 60},  {"passive\n", "130000\n", 130},
        {"passive\n", "59999\n", 0},   {"passive\n", "130001\n", 0},
        {"passive\n", "20000\n", 0},   {"passive\n", "0\n", 0},
        {"passive\n", "-274000\n", 0}, {"passive\n", "hot\n", 0},
        {"passive\n", "", 0},          {"active\n", "80000\n", 0},
        {"critical\n", "80000\n", 0},  {"hot\n", "80000\n", 0},
        {"passively\n", "80000\n", 0}, {"", "80000\n", 0},
    };
    put_zone(0, "cpu-thermal\n", "35000\n");
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        put_trip(0, 0, CASES[i].type, CASES[i].temp);
        assert_near((double)vitals().ceiling, CASES[i].ceiling);
    }
    /* A bad one does not hide those after it; the lowest of all zones counts. */
    put_trip(0, 0, "passive\n", "-1\n");
    put_trip(0, 1, "passive\n", "90000\n");
    put_trip(0, 2, "passive\n", "88000\n");
    assert_near((double)vitals().ceiling, 88);
    put_zone(1, "gpu\n", "35000\n");
    put_trip(1, 0, "passive\n", "75000\n");
    assert_near((double)vitals().ceiling, 75);
    put_zone(1, "nvme\n", "35000\n");
    assert_near((double)vitals().ceiling, 88);
    for (int i = 3; i < 40; i++)
        put_trip(0, i, "passive\n", "70000\n");
    assert_near((double)vitals().ceiling, 70);
}

static void test_charger(void **state) {
    (void)state;
    static const struct {
        const char *type, *online, *status;
        int plugged;
    } CASES[] = {
        {"Mains\n", "1\n", "Unknown\n", 1},       {"USB\n", "1\n", "Discharging\n", 1},
        {"USB_PD\n", "2\n", "Not charging\n", 1}, {"Wireless\n", "1\n", "", 1},
        {"Mains\n", "0\n", "Unknown\n", 0},       {"USB\n", "0\n", "Full\n", 0},
        {"USB\n", "0\n", "Charging\n", 1},        {"UPS\n", "1\n", "Unknown\n", -1},
        {"USB\n", "-1\n", "Unknown\n", -1},       {"USB\n", "", "Not charging\n", -1},
        {"BMS\n", "1\n", "Discharging\n", 0},     {"BMS\n", "1\n", "Charging\n", 1},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        put_supply("a-charger", "type", CASES[i].type);
        put_supply("a-charger", "online", CASES[i].online);
        put_battery("battery", "50\n", CASES[i].status);
        if (vitals().plugged != CASES[i].plugged)
            fail_msg("case %zu: plugged is %d", i, vitals().plugged);
    }
    put_battery("battery", "50\n", "Discharging\n");
    put_supply("a-charger", "type", "USB\n");
    put_supply("a-charger", "online", "0\n");
    put_supply("wireless", "type", "Wireless\n");
    put_supply("wireless", "online", "1\n");
    put_supply("z-charger", "type", "USB\n");
    put_supply("z-charger", "online", "0\n");
    assert_int_equal(vitals().plugged, 1);
    put_supply("wireless", "scope", "Device\n");
    assert_int_equal(vitals().plugged, 0);
}

static void test_screen(void **state) {
    (void)state;
    static const struct {
        const char *power, *actual, *asked;
        int used;
    } CASES[] = {
        {"0\n", "120\n", "120\n", 1},
        {"4\n", "120\n", "120\n", 0},
        {"0\n", "0\n", "120\n", 0},
        {"0\n", "120\n", "0\n", 0},
        {"", "", "", -1},
        {"", "", "7\n", 1},
        {"", "", "0\n", 0},
        {"", "3\n", "", 1},
        {"0\n", "", "", 1},
        {"1\n", "", "", 0},
        {"on\n", "x\n", "y\n", -1},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        put("sys/class/backlight/panel0/bl_power", CASES[i].power);
        put("sys/class/backlight/panel0/actual_brightness", CASES[i].actual);
        put("sys/class/backlight/panel0/brightness", CASES[i].asked);
        if (vitals().used != CASES[i].used)
            fail_msg("case %zu: used is %d", i, vitals().used);
    }
    put("sys/class/leds/torch/brightness", "9\n"); /* no screen */
    assert_int_equal(vitals().used, -1);
    put("sys/class/leds/lcd-backlight/brightness", "0\n");
    assert_int_equal(vitals().used, 0);
    put("sys/class/leds/lcd-backlight/brightness", "9\n");
    assert_int_equal(vitals().used, 1);
    put("sys/class/backlight/panel0/brightness", "0\n"); /* one that is lit is enough */
    assert_int_equal(vitals().used, 1);
}

static int count_descriptors(void) {
    int n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_no_descriptor_is_left_open(void **state) {
    (void)state;
    put_zone(0, "cpu-thermal\n", "35000\n");
    put_core(0, "1\n", "1\n");
    put_trip(0, 0, "passive\n", "80000\n");
    put_battery("battery", "50\n", "Discharging\n");
    put_supply("usb", "type", "USB\n");
    put_supply("usb", "online", "1\n");
    put("sys/class/backlight/panel0/brightness", "0\n");
    int before = count_descriptors();
    for (int i = 0; i < 50; i++)
        (void)vitals();
    assert_int_equal(count_descriptors(), before);
}

/* Whatever this machine says, it is plausible. */
static void test_this_machine(void **state) {
    (void)state;
    ShoalVitals v;
    shoal_vitals_read("/", &v);
    assert_true(v.temperature >= -40 && v.temperature <= 150);
    assert_true(v.clock >= 0 && v.clock <= 1);
    assert_true(v.battery >= -1 && v.battery <= 100);
    assert_true((v.ceiling >= 60 && v.ceiling <= 130) || !(v.ceiling > 0 || v.ceiling < 0));
    assert_true(v.battery_temperature >= -40 && v.battery_temperature <= 150);
    assert_in_range(v.plugged + 1, 0, 2);
    assert_in_range(v.used + 1, 0, 2);
}

#define IN_A_ROOT(test) cmocka_unit_test_setup_teardown(test, make_root, remove_root)

int main(void) {
    const struct CMUnitTest tests[] = {
        IN_A_ROOT(test_nothing_is_there),
        IN_A_ROOT(test_a_phone),
        IN_A_ROOT(test_zones_count_that_concern_us),
        IN_A_ROOT(test_values_of_zones),
        IN_A_ROOT(test_files_that_are_none),
        IN_A_ROOT(test_links),
        IN_A_ROOT(test_many_zones),
        IN_A_ROOT(test_clock),
        IN_A_ROOT(test_cooling_devices),
        IN_A_ROOT(test_battery_states),
        IN_A_ROOT(test_several_batteries),
        IN_A_ROOT(test_temperature_of_a_battery),
        IN_A_ROOT(test_ceiling),
        IN_A_ROOT(test_charger),
        IN_A_ROOT(test_screen),
        IN_A_ROOT(test_no_descriptor_is_left_open),
        cmocka_unit_test(test_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
