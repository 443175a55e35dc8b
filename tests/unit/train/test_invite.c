/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "train/invite.h"

static ShoalAddress address(const char *text) {
    ShoalAddress parsed;
    ShoalError err = {0};
    assert_int_equal(shoal_address_parse(text, &parsed, &err), SHOAL_OK);
    return parsed;
}

static void test_command(void **state) {
    (void)state;
    char text[200];
    ShoalAddress at = address("192.0.2.7:4710");
    shoal_invite_command(&at, "sesame", text, sizeof text);
    assert_string_equal(text, "SHOAL_TOKEN=sesame shoal worker --join=192.0.2.7:4710");
    at = address("[2001:db8::7]:4710");
    shoal_invite_command(&at, "sesame", text, sizeof text);
    assert_string_equal(text, "SHOAL_TOKEN=sesame shoal worker --join=[2001:db8::7]:4710");
}

static void test_addresses(void **state) {
    (void)state;
    ShoalAddress found[SHOAL_INVITE_ADDRESSES];
    char text[SHOAL_ADDRESS_TEXT];
    ShoalAddress at = address("192.0.2.7:4710");
    assert_int_equal(shoal_invite_addresses(&at, found), 1);
    shoal_address_format(&found[0], text);
    assert_string_equal(text, "192.0.2.7:4710");
    /* Whatever this machine has: no any-address among them, and all with the port. */
    const char *const any[] = {"0.0.0.0:4710", "[::]:4710"};
    for (int k = 0; k < 2; k++) {
        at = address(any[k]);
        int n = shoal_invite_addresses(&at, found);
        assert_in_range(n, 1, SHOAL_INVITE_ADDRESSES);
        for (int i = 0; i < n; i++) {
            shoal_address_format(&found[i], text);
            size_t length = strlen(text);
            assert_string_equal(text + length - 5, ":4710");
            assert_int_not_equal(strncmp(text, "0.0.0.0", 7), 0);
        }
    }
}

static void test_local(void **state) {
    (void)state;
    const char *const local[] = {"127.0.0.1:1", "127.8.9.10:1", "[::1]:1"};
    const char *const others[] = {"128.0.0.1:1", "0.0.0.0:1", "[::]:1", "10.127.0.1:1"};
    for (int i = 0; i < 3; i++)
        assert_true(shoal_invite_is_local(&(ShoalAddress[]){address(local[i])}[0]));
    for (int i = 0; i < 4; i++)
        assert_false(shoal_invite_is_local(&(ShoalAddress[]){address(others[i])}[0]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_command),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_local),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
