/* SPDX-License-Identifier: Apache-2.0 */
#include "unit/device/fake_root.h"

#include "device/links.h"

#define NET "sys/class/net/"

static ShoalDoctorLink links[4];

static void test_nothing(void **state) {
    (void)state;
    assert_int_equal(shoal_links_read(root, links, 4), 0);
}

/* A USB adapter: eth0/device is an interface of the USB device above it. */
static void test_usb_adapter(void **state) {
    (void)state;
    put("sys/devices/usb1/1-1/speed", "480\n");
    put("sys/devices/usb1/1-1/1-1:1.0/x", "");
    put("sys/bus/usb/drivers/r8152/x", "");
    put_link("sys/devices/usb1/1-1/1-1:1.0/subsystem", "../../../../bus/usb");
    put_link("sys/devices/usb1/1-1/1-1:1.0/driver", "../../../../bus/usb/drivers/r8152");
    put(NET "eth0/operstate", "up\n");
    put(NET "eth0/speed", "1000\n");
    put(NET "eth0/duplex", "full\n");
    put_link(NET "eth0/device", "../../../devices/usb1/1-1/1-1:1.0");
    assert_int_equal(shoal_links_read(root, links, 4), 1);
    assert_string_equal(links[0].name, "eth0");
    assert_int_equal(links[0].kind, SHOAL_DOCTOR_LINK_ETHERNET);
    assert_int_equal(links[0].up, 1);
    assert_int_equal(links[0].mbit, 1000);
    assert_int_equal(links[0].full_duplex, 1);
    assert_string_equal(links[0].driver, "r8152");
    assert_int_equal(links[0].usb_mbit, 480);
}

static void test_kinds(void **state) {
    (void)state;
    put(NET "rmnet0/operstate", "unknown\n");
    put(NET "wlan0/operstate", "down\n");
    put(NET "odd0/phy80211/x", "");
    put("proc/net/wireless", "Inter-| sta-|\n face | tus |\n wlan0: 0000   58.  -52.  -256  0\n");
    assert_int_equal(shoal_links_read(root, links, 4), 3);
    assert_string_equal(links[0].name, "odd0");
    assert_int_equal(links[0].kind, SHOAL_DOCTOR_LINK_WIFI);
    assert_int_equal(links[1].kind, SHOAL_DOCTOR_LINK_MOBILE);
    assert_int_equal(links[1].up, -1);
    assert_int_equal(links[2].kind, SHOAL_DOCTOR_LINK_WIFI);
    assert_int_equal(links[2].up, 0);
    assert_int_equal(links[2].signal_dbm, -52);
    assert_int_equal(links[2].usb_mbit, 0);
}

/* Those without a wire, nonsense, and more than fit. */
static void test_left_out(void **state) {
    (void)state;
    put(NET "lo/operstate", "unknown\n");
    put(NET "veth12/operstate", "up\n");
    put(NET "br0/bridge/x", "");
    put(NET "eth0/speed", "-1\n");
    put(NET "eth0/duplex", "unknown\n");
    assert_int_equal(shoal_links_read(root, links, 4), 1);
    assert_int_equal(links[0].mbit, 0);
    assert_int_equal(links[0].full_duplex, -1);
    put(NET "eth1/speed", "10\n");
    assert_int_equal(shoal_links_read(root, links, 1), 1);
}

/* The real machine: whatever it has, no more than fit. */
static void test_this_machine(void **state) {
    (void)state;
    int n = shoal_links_read("/", links, 4);
    assert_true(n >= 0 && n <= 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {ROOT_TEST(test_nothing), ROOT_TEST(test_usb_adapter),
                                       ROOT_TEST(test_kinds), ROOT_TEST(test_left_out),
                                       ROOT_TEST(test_this_machine)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
