/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "doctor/diagnose.h"

static ShoalDoctorReport report;

/* A phone that is well: plugged in, cool, gigabit. */
static int healthy(void **state) {
    (void)state;
    memset(&report, 0, sizeof report);
    report.cores = (ShoalDoctorCores){.present = 8, .online = 8, .usable = 8, .gflops = 100};
    report.memory = (ShoalDoctorMemory){.total = 8ull << 30, .available = 4ull << 30};
    report.heat = (ShoalDoctorHeat){
        .temperature = 40, .battery_temperature = 30, .ceiling = 85, .clock = 1, .n_seconds = 10};
    for (int i = 0; i < 10; i++)
        report.heat.seconds[i] = (ShoalDoctorSecond){
            .gflops = 100, .temperature = 41 + i, .battery_temperature = 30, .clock = 1};
    report.battery = (ShoalDoctorBattery){.present = 1,
                                          .level = 60,
                                          .status = "charging",
                                          .health = "good",
                                          .current_known = 1,
                                          .current_ma = 900,
                                          .capacity_left = 92,
                                          .plugged = 1,
                                          .cycles = -1,
                                          .limit = -1};
    report.n_links = 1;
    report.links[0] = (ShoalDoctorLink){.name = "eth0",
                                        .kind = SHOAL_DOCTOR_LINK_ETHERNET,
                                        .up = 1,
                                        .mbit = 1000,
                                        .full_duplex = 1,
                                        .driver = "r8152",
                                        .usb_mbit = 5000,
                                        .used = 1};
    report.n_probes = 1;
    report.probes[0] = (ShoalDoctorProbe){.to = "coordinator",
                                          .address = "10.0.0.1:4710",
                                          .reached = 1,
                                          .up_mbit = 930,
                                          .down_mbit = 935,
                                          .latency_us = 300,
                                          .latency_p99_us = 900,
                                          .up_loss = 0.0005,
                                          .down_loss = -1};
    report.android = (ShoalDoctorAndroid){.is_android = 1,
                                          .sdk = 34,
                                          .phantom_monitor = 0,
                                          .max_phantoms = 32,
                                          .freezer = 0,
                                          .doze = 1,
                                          .battery_saver = 0,
                                          .stay_awake = 7,
                                          .wifi_sleep = 2};
    return 0;
}

/* The worst finding about this whose text has that. */
static const ShoalFinding *finding(const char *what, const char *text) {
    for (int i = 0; i < report.n_findings; i++)
        if (!strcmp(report.findings[i].what, what) && strstr(report.findings[i].text, text))
            return &report.findings[i];
    return NULL;
}

static void expect(const char *what, ShoalVerdict verdict, const char *text) {
    shoal_diagnose(&report);
    const ShoalFinding *found = finding(what, text);
    if (!found)
        for (int i = 0; i < report.n_findings; i++)
            print_message("%s: %s\n", report.findings[i].what, report.findings[i].text);
    assert_non_null(found);
    assert_int_equal(found->verdict, verdict);
    assert_true(report.verdict >= verdict);
    if (verdict != SHOAL_VERDICT_OK)
        assert_true(found->fix[0]);
}

static void test_healthy(void **state) {
    (void)state;
    shoal_diagnose(&report);
    assert_int_equal(report.verdict, SHOAL_VERDICT_OK);
    for (int i = 0; i < report.n_findings; i++)
        assert_int_equal(report.findings[i].verdict, SHOAL_VERDICT_OK);
    expect("link", SHOAL_VERDICT_OK, "930.0 Mbit/s there");
    expect("heat", SHOAL_VERDICT_OK, "no throttling within 10 s (40 to 50 C)");
    expect("battery", SHOAL_VERDICT_OK, "60 %, charging");
    expect("android", SHOAL_VERDICT_OK, "no setting");
}

/* A system that tells nothing is no reason to warn. */
static void test_unknown(void **state) {
    (void)state;
    memset(&report, 0, sizeof report);
    report.battery = (ShoalDoctorBattery){
        .present = -1, .level = -1, .plugged = -1, .screen_on = -1, .limit = -1, .cycles = -1};
    report.n_links = 1;
    report.links[0] = (ShoalDoctorLink){.name = "eth0", .up = -1, .full_duplex = -1};
    report.android = (ShoalDoctorAndroid){.is_android = 1,
                                          .sdk = 29,
                                          .phantom_monitor = -1,
                                          .max_phantoms = -1,
                                          .freezer = -1,
                                          .doze = -1,
                                          .battery_saver = -1,
                                          .stay_awake = -1,
                                          .wifi_sleep = -1};
    shoal_diagnose(&report);
    assert_int_equal(report.verdict, SHOAL_VERDICT_OK);
}

static void test_order(void **state) {
    (void)state;
    report.links[0].full_duplex = 0;
    report.battery.current_ma = -200;
    shoal_diagnose(&report);
    assert_int_equal(report.verdict, SHOAL_VERDICT_BAD);
    for (int i = 1; i < report.n_findings; i++)
        assert_true(report.findings[i].verdict <= report.findings[i - 1].verdict);
}

static void test_cores(void **state) {
    (void)state;
    report.cores.usable = 4;
    expect("cores", SHOAL_VERDICT_WARNING, "only 4 of 8");
    report.cores.online = 6;
    expect("cores", SHOAL_VERDICT_WARNING, "2 of 8 cores are switched off");
}

static void test_memory(void **state) {
    (void)state;
    report.memory.available = 500ull << 20;
    expect("memory", SHOAL_VERDICT_WARNING, "500 MB of 8192 MB");
    report.memory.available = 200ull << 20;
    expect("memory", SHOAL_VERDICT_BAD, "200 MB");
}

/* A Galaxy S10+ without a fan: the big cores go from 2.7 to 1.9 GHz within a minute. */
static void test_throttling(void **state) {
    (void)state;
    for (int i = 5; i < 10; i++)
        report.heat.seconds[i] =
            (ShoalDoctorSecond){.gflops = 75, .temperature = 84, .clock = 0.75};
    expect("heat", SHOAL_VERDICT_WARNING, "throttles by 25 %");
    for (int i = 5; i < 10; i++)
        report.heat.seconds[i].clock = 0.5;
    expect("heat", SHOAL_VERDICT_BAD, "throttles by 50 %");
}

/* Hardware that throttles without telling: only the speed falls, near the ceiling. */
static void test_silent_throttling(void **state) {
    (void)state;
    for (int i = 0; i < 10; i++)
        report.heat.seconds[i] =
            (ShoalDoctorSecond){.gflops = 100 - 2 * i, .temperature = 70 + 2 * i};
    expect("heat", SHOAL_VERDICT_WARNING, "throttles by ");
    report.heat.ceiling = 0;
    for (int i = 5; i < 10; i++)
        report.heat.seconds[i].gflops = 70;
    expect("heat", SHOAL_VERDICT_WARNING, "the speed fell by 29 %");
}

/* Other work on a machine with a cool processor: a little less speed is no finding. */
static void test_noise(void **state) {
    (void)state;
    for (int i = 0; i < 10; i++)
        report.heat.seconds[i].gflops = i % 2 ? 90 : 100;
    expect("heat", SHOAL_VERDICT_OK, "no throttling");
}

static void test_heat_before(void **state) {
    (void)state;
    report.heat.temperature = 88;
    report.heat.clock = 0.8;
    expect("heat", SHOAL_VERDICT_BAD, "88 C before any load");
    expect("heat", SHOAL_VERDICT_WARNING, "limited to 80 % before");
}

static void test_battery(void **state) {
    (void)state;
    report.heat.seconds[9].battery_temperature = 42;
    expect("battery", SHOAL_VERDICT_WARNING, "42 C");
    report.heat.battery_temperature = 48;
    expect("battery", SHOAL_VERDICT_BAD, "48 C");
    snprintf(report.battery.health, sizeof report.battery.health, "over voltage");
    expect("battery", SHOAL_VERDICT_BAD, "over voltage");
    report.battery.capacity_left = 70;
    expect("battery", SHOAL_VERDICT_WARNING, "70 %");
    report.battery.current_ma = -340;
    expect("battery", SHOAL_VERDICT_WARNING, "empties by 340 mA");
    report.battery.plugged = 0;
    expect("battery", SHOAL_VERDICT_WARNING, "no charger");
    report.battery.level = 8;
    expect("battery", SHOAL_VERDICT_BAD, "no charger");
}

static void test_charge_limit(void **state) {
    (void)state;
    report.battery.level = 100;
    expect("battery", SHOAL_VERDICT_WARNING, "swell");
    assert_non_null(strstr(finding("battery", "swell")->fix, "Settings"));
    report.battery.limit_writable = 1;
    expect("battery", SHOAL_VERDICT_WARNING, "swell");
    assert_string_equal(finding("battery", "swell")->fix, "shoal worker --charge-limit=80");
    report.battery.limit = 80;
    shoal_diagnose(&report);
    assert_null(finding("battery", "swell"));
}

/* What 100 Mbit/s looks like, and whether the adapter knows. */
static void test_100_mbit(void **state) {
    (void)state;
    report.probes[0].up_mbit = 94.1;
    report.probes[0].down_mbit = 93.6;
    expect("link", SHOAL_VERDICT_WARNING, "a link of 100 Mbit/s");
    assert_non_null(finding("link", "it is further on"));
    report.links[0].mbit = 100;
    expect("link", SHOAL_VERDICT_WARNING, "eth0 is a link of 100 Mbit/s, by r8152");
    report.links[0].mbit = 10;
    expect("link", SHOAL_VERDICT_BAD, "eth0 is a link of 10 Mbit/s");
}

static void test_half_working(void **state) {
    (void)state;
    report.links[0].full_duplex = 0;
    expect("link", SHOAL_VERDICT_BAD, "half duplex");
    report.probes[0].up_mbit = 12;
    report.probes[0].down_mbit = 90;
    expect("link", SHOAL_VERDICT_BAD, "directions differ");
    report.probes[0].up_loss = 0.06;
    expect("link", SHOAL_VERDICT_BAD, "6.0 % of the packets");
    report.probes[0].down_gap_ms = 400;
    expect("link", SHOAL_VERDICT_WARNING, "stood still for 400 ms");
    report.probes[0].latency_p99_us = 50000;
    expect("link", SHOAL_VERDICT_WARNING, "at times 50.0 ms");
}

static void test_slow(void **state) {
    (void)state;
    report.links[0].kind = SHOAL_DOCTOR_LINK_WIFI;
    report.links[0].signal_dbm = -83;
    report.android.wifi_sleep = 0;
    report.probes[0].up_mbit = 40;
    report.probes[0].down_mbit = 45;
    expect("link", SHOAL_VERDICT_WARNING, "it is slow");
    expect("link", SHOAL_VERDICT_BAD, "-83 dBm");
    expect("android", SHOAL_VERDICT_WARNING, "Wi-Fi sleeps");
    report.probes[0].up_mbit = 8;
    report.probes[0].down_mbit = 9;
    expect("link", SHOAL_VERDICT_BAD, "it is slow");
}

static void test_usb2(void **state) {
    (void)state;
    report.links[0].usb_mbit = 480;
    expect("link", SHOAL_VERDICT_WARNING, "USB 2");
}

static void test_neighbour(void **state) {
    (void)state;
    report.n_probes = 2;
    report.probes[1] = (ShoalDoctorProbe){.to = "neighbour"};
    expect("link", SHOAL_VERDICT_OK, "no other device");
    snprintf(report.probes[1].error, sizeof report.probes[1].error, "no answer");
    expect("link", SHOAL_VERDICT_BAD, "the neighbour cannot be reached");
    assert_non_null(strstr(finding("link", "neighbour")->fix, "isolation"));
}

static void test_android(void **state) {
    (void)state;
    report.android.phantom_monitor = 1;
    report.android.freezer = 1;
    report.android.battery_saver = 1;
    report.android.stay_awake = 0;
    report.battery.plugged = 0;
    expect("android", SHOAL_VERDICT_WARNING, "more than 32 processes");
    assert_non_null(strstr(finding("android", "32")->fix, "settings_enable_monitor_phantom_procs"));
    expect("android", SHOAL_VERDICT_WARNING, "freezes");
    expect("android", SHOAL_VERDICT_WARNING, "doze");
    expect("android", SHOAL_VERDICT_WARNING, "battery saver");
    expect("android", SHOAL_VERDICT_WARNING, "may sleep");
    strcpy(report.android.usb, "mtp,adb");
    expect("android", SHOAL_VERDICT_WARNING, "the USB port offers mtp,adb");
    strcpy(report.android.usb, "adb");
    shoal_diagnose(&report);
    assert_null(finding("android", "USB"));
    report.android.sdk = 31;
    expect("android", SHOAL_VERDICT_WARNING, "32 processes");
    assert_non_null(strstr(finding("android", "32")->fix, "max_phantom_processes"));
}

/* As many findings as there can be, and more: none is written beyond the end. */
static void test_full(void **state) {
    (void)state;
    report.n_links = SHOAL_DOCTOR_LINKS;
    for (int i = 0; i < report.n_links; i++) {
        report.links[i] = report.links[0];
        report.links[i].full_duplex = 0;
        report.links[i].mbit = 100;
        report.links[i].signal_dbm = -90;
    }
    test_battery(NULL);
    test_android(NULL);
    shoal_diagnose(&report);
    assert_true(report.n_findings <= SHOAL_DOCTOR_FINDINGS);
    assert_int_equal(report.verdict, SHOAL_VERDICT_BAD);
}

#define TEST(name) cmocka_unit_test_setup(name, healthy)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_healthy),      TEST(test_unknown),      TEST(test_order),
        TEST(test_cores),        TEST(test_memory),       TEST(test_throttling),
        TEST(test_noise),        TEST(test_heat_before),  TEST(test_silent_throttling),
        TEST(test_battery),      TEST(test_charge_limit), TEST(test_100_mbit),
        TEST(test_half_working), TEST(test_slow),         TEST(test_usb2),
        TEST(test_neighbour),    TEST(test_android),      TEST(test_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
