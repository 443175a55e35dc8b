/* SPDX-License-Identifier: Apache-2.0 */
/* Announcement and search against each other, in a network namespace that has only loopback. */
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "discovery/discovery.h"
#include "shoal/shoal.h"

enum { MOST = 8 };

static bool has_lab;

static void set_loopback(bool up) {
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(ioctl(fd, SIOCGIFFLAGS, &request), 0);
    request.ifr_flags = (short)(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
    assert_int_equal(ioctl(fd, SIOCSIFFLAGS, &request), 0);
    close(fd);
}

static int enter_lab(void **state) {
    (void)state;
    has_lab = !unshare(CLONE_NEWNET) || !unshare(CLONE_NEWUSER | CLONE_NEWNET);
    if (has_lab)
        set_loopback(true);
    else
        print_message("no network namespaces for this user: skipped\n");
    return 0;
}

static int need_lab(void **state) {
    (void)state;
    if (!has_lab)
        skip();
    return 0;
}

static ShoalAddress address(const char *text) {
    ShoalAddress parsed;
    assert_int_equal(shoal_address_parse(text, &parsed, NULL), SHOAL_OK);
    return parsed;
}

static ShoalAnnouncement *begin(const char *listen) {
    ShoalAddress where = address(listen);
    ShoalAnnouncement *announcement = NULL;
    ShoalError error = {0};
    if (shoal_announce_begin("a\nname that is much longer than what is kept of it", &where,
                             &announcement, &error))
        fail_msg("%s", error.text);
    return announcement;
}

static int find(ShoalAddress *found, int max, unsigned patience_ms) {
    ShoalError error = {0};
    int n = -1;
    if (shoal_discover(shoal_clock_ms() + patience_ms, NULL, found, max, &n, &error))
        fail_msg("%s", error.text);
    return n;
}

static void assert_found(const ShoalAddress *found, int n, const char *expected) {
    char text[SHOAL_ADDRESS_TEXT];
    for (int i = 0; i < n; i++) {
        shoal_address_format(&found[i], text);
        if (!strcmp(text, expected))
            return;
    }
    fail_msg("%s is not among the %d that were found", expected, n);
}

static void test_found(void **state) {
    need_lab(state);
    ShoalAddress found[MOST];
    ShoalAnnouncement *announcement = begin("127.0.0.1:4710");
    assert_int_equal(find(found, MOST, 20000), 1);
    assert_found(found, 1, "127.0.0.1:4710");
    shoal_announce_end(announcement);
    assert_int_equal(find(found, MOST, 700), 0);
}

static void test_several_on_one_machine(void **state) {
    need_lab(state);
    ShoalAddress found[MOST];
    ShoalAnnouncement *a = begin("127.0.0.1:4710"), *b = begin("127.0.0.1:4711");
    int n = 0;
    for (int turn = 0; turn < 20 && n < 2; turn++) /* the second may answer a moment late */
        n = find(found, MOST, 20000);
    assert_int_equal(n, 2);
    assert_found(found, n, "127.0.0.1:4710");
    assert_found(found, n, "127.0.0.1:4711");
    assert_int_equal(find(found, 1, 20000), 1);
    shoal_announce_end(a);
    shoal_announce_end(b);
}

/* The any-address is not told as loopback, which would be another machine's own. */
static void test_any_address_is_not_loopback(void **state) {
    need_lab(state);
    ShoalAddress found[MOST];
    ShoalAnnouncement *announcement = begin("0.0.0.0:4710");
    assert_int_equal(find(found, MOST, 700), 0);
    shoal_announce_end(announcement);
}

static void test_ipv6_is_refused(void **state) {
    (void)state;
    ShoalAddress listen = address("[::1]:4710");
    ShoalAnnouncement *announcement = NULL;
    ShoalError error = {0};
    assert_int_equal(shoal_announce_begin(NULL, &listen, &announcement, &error), SHOAL_ERR_NETWORK);
    assert_null(announcement);
    assert_non_null(strstr(error.text, "--join"));
    shoal_announce_end(NULL);
}

static void test_stopped(void **state) {
    need_lab(state);
    volatile sig_atomic_t stop = SHOAL_STOP_NOW;
    ShoalAddress found[MOST];
    int n = -1;
    ShoalError error = {0};
    assert_int_equal(shoal_discover(UINT64_MAX, &stop, found, MOST, &n, &error), SHOAL_ERR_STOPPED);
    assert_int_equal(n, 0);
}

static void test_no_network(void **state) {
    need_lab(state);
    ShoalAddress found[MOST];
    int n = -1;
    ShoalError error = {0};
    set_loopback(false);
    ShoalStatus status = shoal_discover(shoal_clock_ms() + 20000, NULL, found, MOST, &n, &error);
    set_loopback(true);
    assert_int_equal(status, SHOAL_ERR_NETWORK);
    assert_int_equal(n, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found),
        cmocka_unit_test(test_several_on_one_machine),
        cmocka_unit_test(test_any_address_is_not_loopback),
        cmocka_unit_test(test_ipv6_is_refused),
        cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_no_network),
    };
    return cmocka_run_group_tests(tests, enter_lab, NULL);
}
