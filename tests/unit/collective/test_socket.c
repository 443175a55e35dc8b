/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "collective/socket.h"

static void check_good(const char *text, const char *host, unsigned port) {
    ShoalAddress address, again;
    ShoalError err = {0};
    char out[SHOAL_ADDRESS_TEXT];
    assert_int_equal(shoal_address_parse(text, &address, &err), 0);
    assert_int_equal(shoal_address_port(&address), port);
    shoal_address_format(&address, out);
    assert_string_equal(out, text);
    shoal_address_format_host(&address, out);
    assert_string_equal(out, host);
    assert_int_equal(shoal_address_from_host(out, (uint16_t)port, &again, &err), 0);
    assert_int_equal(again.size, address.size);
    assert_memory_equal(&again.storage, &address.storage, address.size);
}

static void test_addresses(void **state) {
    (void)state;
    check_good("127.0.0.1:4710", "127.0.0.1", 4710);
    check_good("0.0.0.0:0", "0.0.0.0", 0);
    check_good("255.255.255.255:65535", "255.255.255.255", 65535);
    check_good("[::1]:80", "::1", 80);
    check_good("[2001:db8::7]:1", "2001:db8::7", 1);
    check_good("[fe80::1%lo]:5", "fe80::1%lo", 5);
}

static void test_bad_addresses(void **state) {
    (void)state;
    const char *const bad[] = {
        "",          ":",           "127.0.0.1",     "127.0.0.1:",       ":80",
        "1.2.3.4:a", "1.2.3.4:-1",  "1.2.3.4:65536", "1.2.3.4:99999999", "1.2.3.4:1 ",
        "1.2.3:4",   "1.2.3.256:4", "::1:80",        "[::1]80",          "[::1",
        "[]:80",     "[::1]:",      "1.2.3.4:80:90", "1234:5",           "[::1]:080808"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ShoalAddress address;
        ShoalError err = {0};
        assert_int_equal(shoal_address_parse(bad[i], &address, &err), SHOAL_ERR_ARGUMENT);
        assert_non_null(strstr(err.text, "expected"));
    }
    char longer[600];
    memset(longer, 'a', sizeof(longer));
    memcpy(longer + sizeof(longer) - 4, ":80", 4);
    ShoalAddress address;
    ShoalError err = {0};
    assert_int_equal(shoal_address_parse(longer, &address, &err), SHOAL_ERR_ARGUMENT);
    ShoalError host = {0};
    assert_int_equal(shoal_address_from_host("localhost", 1, &address, &host), SHOAL_ERR_ARGUMENT);
    ShoalError scope = {0};
    assert_int_equal(shoal_address_from_host("fe80::1%nosuchlink", 1, &address, &scope),
                     SHOAL_ERR_ARGUMENT);
}

static void open_listener(int *fd, ShoalAddress *address) {
    ShoalError err = {0};
    assert_int_equal(shoal_address_parse("127.0.0.1:0", address, &err), 0);
    assert_int_equal(shoal_socket_listen(address, fd, &err), 0);
    assert_int_equal(shoal_socket_local(*fd, address, &err), 0);
    assert_int_not_equal(shoal_address_port(address), 0);
}

static void check_options(int fd) {
    int value = 0;
    socklen_t size = sizeof(value);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &size), 0);
    assert_true(value);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &size), 0);
    assert_true(value);
}

static void test_connect_and_accept(void **state) {
    (void)state;
    int listener, client = -1, server = -1;
    ShoalAddress address, peer, local;
    ShoalError err = {0};
    open_listener(&listener, &address);
    assert_int_equal(shoal_socket_accept(listener, &server, &peer, &err), 0);
    assert_int_equal(server, -1);
    assert_int_equal(shoal_socket_connect(&address, -1, shoal_clock_ms() + 10000, &client, &err),
                     0);
    assert_int_equal(shoal_socket_wait(listener, POLLIN, -1, shoal_clock_ms() + 10000, &err), 0);
    assert_int_equal(shoal_socket_accept(listener, &server, &peer, &err), 0);
    assert_true(server >= 0);
    check_options(client);
    check_options(server);
    assert_int_equal(shoal_socket_local(client, &local, &err), 0);
    assert_memory_equal(&local.storage, &peer.storage, peer.size);
    assert_int_equal(shoal_socket_wait(server, POLLIN, -1, shoal_clock_ms() + 1, &err),
                     SHOAL_ERR_NETWORK);
    close(client);
    close(server);
    close(listener);
}

static void test_errors_say_what_to_do(void **state) {
    (void)state;
    int listener, fd = -7;
    ShoalAddress address, foreign;
    open_listener(&listener, &address);
    ShoalError in_use = {0}, not_mine = {0}, refused = {0};
    assert_int_equal(shoal_socket_listen(&address, &fd, &in_use), SHOAL_ERR_NETWORK);
    assert_non_null(strstr(in_use.text, "another program uses this port"));
    assert_int_equal(shoal_address_from_host("192.0.2.77", 0, &foreign, &not_mine), 0);
    assert_int_equal(shoal_socket_listen(&foreign, &fd, &not_mine), SHOAL_ERR_NETWORK);
    assert_non_null(strstr(not_mine.text, "192.0.2.77"));
    close(listener);
    assert_int_equal(shoal_socket_connect(&address, -1, shoal_clock_ms() + 10000, &fd, &refused),
                     SHOAL_ERR_NETWORK);
    assert_non_null(strstr(refused.text, "cannot connect to 127.0.0.1:"));
    assert_int_equal(fd, -7);
}

static void test_wake_ends_waiting(void **state) {
    (void)state;
    int pipes[2], quiet[2];
    ShoalError err = {0};
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(pipe(quiet), 0);
    assert_int_equal(write(pipes[1], "x", 1), 1);
    assert_int_equal(shoal_socket_wait(quiet[0], POLLIN, pipes[0], UINT64_MAX, &err),
                     SHOAL_ERR_STOPPED);
    for (int i = 0; i < 2; i++) {
        close(pipes[i]);
        close(quiet[i]);
    }
    assert_int_equal(shoal_socket_timeout_ms(UINT64_MAX), -1);
    assert_int_equal(shoal_socket_timeout_ms(0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),          cmocka_unit_test(test_bad_addresses),
        cmocka_unit_test(test_connect_and_accept), cmocka_unit_test(test_errors_say_what_to_do),
        cmocka_unit_test(test_wake_ends_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
