/* SPDX-License-Identifier: Apache-2.0 */
/* The fuzzer's corpus goes through the fuzzer's own function, which aborts when a promise is
 * broken. */
#define LLVMFuzzerTestOneInput fuzz_mdns
#include "../../../fuzz/fuzz_mdns.c"
#undef LLVMFuzzerTestOneInput

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/memory.h"
#include "base/rng.h"
#include "discovery/mdns.h"

static const unsigned char HOST[4] = {192, 168, 1, 10};
static const ShoalMdnsService SERVICE = {
    .instance = "desk:4710 (1a2b3c4d)", .host = "shoal-1a2b3c4d", .port = 4710};

/* A packet that a test builds. */
static unsigned char packet[SHOAL_MDNS_MOST + 100];
static size_t size;

static void put(const void *bytes, size_t n) {
    memcpy(packet + size, bytes, n);
    size += n;
}

static void put_16(unsigned value) {
    put((unsigned char[]){(unsigned char)(value >> 8), (unsigned char)value}, 2);
}

static void begin(unsigned id, unsigned flags, unsigned questions, unsigned answers) {
    size = 0;
    put_16(id);
    put_16(flags);
    put_16(questions);
    put_16(answers);
    put_16(0);
    put_16(0);
}

/* "_shoal._tcp.local", without compression. */
static void put_name(const char *dotted) {
    while (*dotted) {
        size_t n = strcspn(dotted, ".");
        put((unsigned char[]){(unsigned char)n}, 1);
        put(dotted, n);
        dotted += n + (dotted[n] == '.');
    }
    put("", 1);
}

static void put_question(const char *name, unsigned type, unsigned class) {
    put_name(name);
    put_16(type);
    put_16(class);
}

static void put_srv(const char *name, unsigned port, const char *host, unsigned ttl) {
    put_name(name);
    put_16(33);
    put_16(0x8001);
    put_16(0);
    put_16(ttl);
    put_16((unsigned)(6 + strlen(host) + 2));
    put_16(0);
    put_16(0);
    put_16(port);
    put_name(host);
}

static void put_a(const char *name, const unsigned char *address) {
    put_name(name);
    put_16(1);
    put_16(0x8001);
    put_16(0);
    put_16(120);
    put_16(4);
    put(address, 4);
}

static bool is_asked(ShoalMdnsQuery *query) {
    return shoal_mdns_read_query(packet, size, &SERVICE, query);
}

static int read_found(ShoalMdnsFound *found) {
    return shoal_mdns_read_answer(packet, size, 7, found, 4);
}

/* ---- both sides together ---- */

static void test_question_and_answer(void **state) {
    (void)state;
    unsigned char answer[SHOAL_MDNS_PACKET];
    ShoalMdnsQuery query;
    ShoalMdnsFound found[4];
    size = shoal_mdns_write_query(0xabcd, packet);
    assert_true(is_asked(&query));
    assert_int_equal(query.id, 0xabcd);
    assert_false(query.unicast);
    size_t n = shoal_mdns_write_answer(&query, &SERVICE, HOST, true, answer);
    assert_true(n > 0 && n < 300); /* small: nobody's flood grows here */
    assert_int_equal(shoal_mdns_read_answer(answer, n, 0xabcd, found, 4), 1);
    assert_int_equal(found[0].port, 4710);
    assert_true(found[0].has_address);
    assert_memory_equal(found[0].address, HOST, 4);
    assert_int_equal(shoal_mdns_read_answer(answer, n, 0xabce, found, 4), 0);
    assert_int_equal(shoal_mdns_read_answer(answer, n, 0xabcd, found, 0), 0);
    assert_int_equal(shoal_mdns_read_answer(packet, size, 0xabcd, found, 4), 0); /* no answer */
    assert_false(shoal_mdns_read_query(answer, n, &SERVICE, &query));            /* no question */
}

/* RFC 6762, section 6.7: id and question come back, no record claims to be the only one, and none
 * is kept for long. RFC 1035: counts. */
static void test_legacy_answer(void **state) {
    (void)state;
    unsigned char answer[SHOAL_MDNS_PACKET];
    ShoalMdnsQuery query;
    begin(0x1234, 0, 1, 0);
    put_question("_SHOAL._tcp.Local", 12, 1);
    assert_true(is_asked(&query));
    size_t n = shoal_mdns_write_answer(&query, &SERVICE, HOST, true, answer);
    const unsigned char head[] = {0x12, 0x34, 0x84, 0, 0, 1, 0, 1, 0, 0, 0, 3};
    assert_memory_equal(answer, head, sizeof head);
    assert_memory_equal(answer + 12, "\x06_shoal\x04_tcp\x05local\0\0\x0c\0\x01", 23);
    /* The record: a pointer to the question's name, PTR, IN, 10 s. */
    assert_memory_equal(answer + 35, "\xc0\x0c\0\x0c\0\x01\0\0\0\x0a", 10);
    n = shoal_mdns_write_answer(&query, &SERVICE, HOST, false, answer);
    assert_memory_equal(answer, "\0\0\x84\0\0\0\0\x01\0\0\0\x03", 12);
    assert_true(n > 0);
}

static void test_announcement(void **state) {
    (void)state;
    ShoalMdnsFound found[4];
    size = shoal_mdns_write_announcement(&SERVICE, HOST, SHOAL_MDNS_TTL, packet);
    assert_int_equal(shoal_mdns_read_answer(packet, size, 0, found, 4), 1);
    size = shoal_mdns_write_announcement(&SERVICE, HOST, 0, packet); /* gone */
    assert_int_equal(shoal_mdns_read_answer(packet, size, 0, found, 4), 0);
}

static void test_largest_answer(void **state) {
    (void)state;
    unsigned char answer[SHOAL_MDNS_PACKET + 64];
    ShoalMdnsService service = {.port = 65535};
    ShoalMdnsQuery query;
    memset(service.instance, 'i', sizeof service.instance - 1);
    memset(service.host, 'h', sizeof service.host - 1);
    begin(7, 0, 6, 0);
    char name[200];
    snprintf(name, sizeof name, "%s._shoal._tcp.local", service.instance);
    put_question("_services._dns-sd._udp.local", 255, 1);
    put_question("_shoal._tcp.local", 255, 1);
    put_question(name, 255, 1);
    snprintf(name, sizeof name, "%s.local", service.host);
    put_question(name, 255, 1);
    put_question(name, 1, 1);
    put_question(name, 1, 1);
    assert_true(shoal_mdns_read_query(packet, size, &service, &query));
    assert_int_equal(query.n_questions, SHOAL_MDNS_QUESTIONS);
    memset(answer, 0xee, sizeof answer);
    size_t n = shoal_mdns_write_answer(&query, &service, HOST, true, answer);
    assert_true(n > 0 && n <= SHOAL_MDNS_PACKET);
    assert_int_equal(answer[n], 0xee);
    ShoalMdnsFound found[4];
    assert_int_equal(shoal_mdns_read_answer(answer, n, 7, found, 4), 1);
    assert_int_equal(found[0].port, 65535);
}

/* ---- questions ---- */

static void check_question(const char *name, unsigned type, unsigned class, bool expected) {
    ShoalMdnsQuery query;
    begin(1, 0, 1, 0);
    put_question(name, type, class);
    if (is_asked(&query) != expected)
        fail_msg("%s, type %u, class %x", name, type, class);
}

static void test_questions(void **state) {
    (void)state;
    check_question("_shoal._tcp.local", 12, 1, true);
    check_question("_shoal._tcp.local", 255, 255, true);
    check_question("_services._dns-sd._udp.local", 12, 0x8001, true);
    check_question("desk:4710 (1a2b3c4d)._shoal._tcp.local", 33, 1, true);
    check_question("desk:4710 (1a2b3c4d)._shoal._tcp.local", 16, 1, true);
    check_question("shoal-1a2b3c4d.local", 1, 1, true);
    check_question("_shoal._tcp.local", 33, 1, false);
    check_question("_shoal._tcp.local", 12, 3, false);
    check_question("_shoal._tcp", 12, 1, false);
    check_question("_shoal._udp.local", 12, 1, false);
    check_question("x._shoal._tcp.local", 33, 1, false);
    check_question("shoal-1a2b3c4d.local", 28, 1, false); /* there is no IPv6 address */
}

static void test_unicast_is_asked_for(void **state) {
    (void)state;
    ShoalMdnsQuery query;
    begin(1, 0, 2, 0);
    put_question("_shoal._tcp.local", 12, 0x8001);
    put_question("_shoal._tcp.local", 12, 0x8001);
    assert_true(is_asked(&query) && query.unicast);
    begin(1, 0, 2, 0);
    put_question("_shoal._tcp.local", 12, 0x8001);
    put_question("_shoal._tcp.local", 12, 1);
    assert_true(is_asked(&query) && !query.unicast);
}

static void put_known(const char *instance, unsigned ttl) {
    begin(1, 0, 1, 1);
    put_question("_shoal._tcp.local", 12, 1);
    put_name("_shoal._tcp.local");
    put_16(12);
    put_16(1);
    put_16(0);
    put_16(ttl);
    put_16((unsigned)strlen(instance) + 2);
    put_name(instance);
}

static void test_known_answers_are_not_repeated(void **state) {
    (void)state;
    ShoalMdnsQuery query;
    put_known("desk:4710 (1a2b3c4d)._shoal._tcp.local", 100);
    assert_false(is_asked(&query));
    put_known("desk:4710 (1a2b3c4d)._shoal._tcp.local", 20); /* about to be forgotten */
    assert_true(is_asked(&query));
    put_known("else:4710 (1a2b3c4d)._shoal._tcp.local", 100);
    assert_true(is_asked(&query));
}

/* ---- answers of others ---- */

static void test_answer_without_address(void **state) {
    (void)state;
    ShoalMdnsFound found[4];
    begin(7, 0x8400, 0, 1);
    put_srv("a._shoal._tcp.local", 4711, "a.local", 10);
    assert_int_equal(read_found(found), 1);
    assert_false(found[0].has_address);
    assert_int_equal(found[0].port, 4711);
}

static void test_two_services_and_the_address_of_each(void **state) {
    (void)state;
    const unsigned char other[4] = {10, 0, 0, 1};
    ShoalMdnsFound found[4];
    begin(7, 0x8400, 0, 4);
    put_a("B.local", other); /* the order does not matter */
    put_srv("a._shoal._tcp.local", 4711, "a.local", 10);
    put_srv("b._shoal._tcp.local", 4712, "b.local", 10);
    put_a("a.local", HOST);
    assert_int_equal(read_found(found), 2);
    assert_memory_equal(found[0].address, HOST, 4);
    assert_memory_equal(found[1].address, other, 4);
}

static void check_nothing_in(const char *what) {
    ShoalMdnsFound found[4];
    if (read_found(found))
        fail_msg("%s", what);
}

static void test_answers_that_are_none(void **state) {
    (void)state;
    begin(7, 0x8400, 0, 1);
    put_srv("a._ipp._tcp.local", 4711, "a.local", 10);
    check_nothing_in("another service");
    begin(7, 0x8400, 0, 1);
    put_srv("_shoal._tcp.local", 4711, "a.local", 10);
    check_nothing_in("no instance");
    begin(7, 0x8400, 0, 1);
    put_srv("a._shoal._tcp.local", 0, "a.local", 10);
    check_nothing_in("port 0");
    begin(7, 0x8400, 0, 1);
    put_srv("a._shoal._tcp.local", 4711, "a.local", 0);
    check_nothing_in("goodbye");
    begin(7, 0x8403, 0, 1);
    put_srv("a._shoal._tcp.local", 4711, "a.local", 10);
    check_nothing_in("an error");
    begin(7, 0x9400, 0, 1);
    put_srv("a._shoal._tcp.local", 4711, "a.local", 10);
    check_nothing_in("another operation");
    begin(7, 0x8400, 65535, 1);
    put_srv("a._shoal._tcp.local", 4711, "a.local", 10);
    check_nothing_in("too many questions");
}

static void test_addresses_of_nobody(void **state) {
    (void)state;
    const unsigned char bad[][4] = {{0, 0, 0, 0}, {224, 0, 0, 251}, {255, 255, 255, 255}};
    for (int i = 0; i < 3; i++) {
        ShoalMdnsFound found[4];
        begin(7, 0x8400, 0, 2);
        put_srv("a._shoal._tcp.local", 4711, "a.local", 10);
        put_a("a.local", bad[i]);
        assert_int_equal(read_found(found), 1);
        assert_false(found[0].has_address);
    }
}

/* ---- hostile packets ---- */

/* Reads a copy that ends where its memory does, so that a sanitizer sees one byte too many. */
static void read_both(const unsigned char *bytes, size_t n) {
    unsigned char *copy = malloc(n ? n : 1);
    ShoalMdnsQuery query;
    ShoalMdnsFound found[4];
    assert_non_null(copy);
    memcpy(copy, bytes, n);
    (void)shoal_mdns_read_query(copy, n, &SERVICE, &query);
    assert_in_range(shoal_mdns_read_answer(copy, n, 7, found, 4), 0, 4);
    free(copy);
}

static void test_truncated(void **state) {
    (void)state;
    ShoalMdnsQuery query;
    begin(7, 0, 1, 0);
    put_question("_shoal._tcp.local", 12, 1);
    size_t whole = size;
    for (size = 0; size < whole; size++) {
        assert_false(is_asked(&query));
        read_both(packet, size);
    }
    begin(7, 0x8400, 0, 2);
    put_srv("a._shoal._tcp.local", 4711, "a.local", 10);
    size_t srv = size;
    put_a("a.local", HOST);
    whole = size;
    for (size = 0; size < whole; size++) {
        ShoalMdnsFound found[4];
        assert_int_equal(read_found(found), size >= srv);
        assert_true(size < srv || !found[0].has_address);
        read_both(packet, size);
    }
}

static void check_name(const char *bytes, size_t n) {
    begin(7, 0, 1, 0);
    put(bytes, n);
    put_16(12);
    put_16(1);
    ShoalMdnsQuery query;
    assert_false(is_asked(&query));
    read_both(packet, size);
}

static void test_names_that_do_not_end(void **state) {
    (void)state;
    check_name("\xc0\x0c", 2);            /* to itself */
    check_name("\xc0\x0e\xc0\x0c", 4);    /* to and fro */
    check_name("\x01x\xc0\x0c", 4);       /* longer with every turn */
    check_name("\xff\xff", 2);            /* beyond the end */
    check_name("\x40", 1);                /* a reserved kind of label */
    check_name("\x06_shoal\x04_tcp", 12); /* no end */
    char label[65] = "\x3f";
    memset(label + 1, 'x', 63);
    begin(7, 0, 1, 0);
    for (int i = 0; i < 5; i++) /* more than 255 bytes */
        put(label, 64);
    put("", 1);
    put_16(12);
    put_16(1);
    ShoalMdnsQuery query;
    assert_false(is_asked(&query));
}

static void test_pointers_back(void **state) {
    (void)state;
    ShoalMdnsQuery query;
    begin(7, 0, 2, 0);
    put_question("_tcp.local", 12, 1); /* at 12 */
    put("\x06_shoal\xc0\x0c", 9);
    put_16(12);
    put_16(1);
    assert_true(is_asked(&query));
}

/* More records than are looked at, and data longer than the packet. */
static void test_lies_about_lengths(void **state) {
    (void)state;
    ShoalMdnsFound found[4];
    begin(7, 0x8400, 0, 65535);
    put_srv("a._shoal._tcp.local", 4711, "a.local", 10);
    assert_int_equal(read_found(found), 1);
    packet[12 + 21 + 8] = 0xff; /* the length of the data */
    assert_int_equal(read_found(found), 0);
    begin(7, 0x8400, 0, 400);
    for (int i = 0; i < 200; i++)
        put_a("a.local", HOST);
    put_srv("a._shoal._tcp.local", 4711, "a.local", 10);
    assert_int_equal(read_found(found), 0);
    begin(7, 0x8400, 0, 1);
    put_srv("a._shoal._tcp.local", 4711, "a.local", 10);
    size = SHOAL_MDNS_MOST + 1;
    assert_int_equal(read_found(found), 0);
}

static void test_random_damage(void **state) {
    (void)state;
    ShoalRng rng;
    shoal_rng_init(&rng, 1, SHOAL_RNG_TEST, 0);
    for (int i = 0; i < 20000; i++) {
        if (i & 1) {
            begin(7, 0, 1, 0);
            put_question("_shoal._tcp.local", 12, 1);
        } else {
            size = shoal_mdns_write_announcement(&SERVICE, HOST, 120, packet);
            packet[1] = 7;
        }
        for (int k = 0; k < 3; k++)
            packet[shoal_rng_below(&rng, (uint32_t)size)] = (unsigned char)shoal_rng_u32(&rng);
        read_both(packet, size - shoal_rng_below(&rng, 4));
    }
}

static void test_corpus(void **state) {
    (void)state;
    glob_t files;
    assert_int_equal(glob(SHOAL_SOURCE "/tests/fuzz/corpus/mdns/*", 0, NULL, &files), 0);
    assert_true(files.gl_pathc >= 5);
    for (size_t i = 0; i < files.gl_pathc; i++) {
        unsigned char *bytes;
        size_t n;
        assert_int_equal(shoal_file_read(files.gl_pathv[i], &bytes, &n, NULL), 0);
        read_both(bytes, n);
        assert_int_equal(fuzz_mdns(bytes, n), 0);
        shoal_free(bytes);
    }
    globfree(&files);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_question_and_answer),
        cmocka_unit_test(test_legacy_answer),
        cmocka_unit_test(test_announcement),
        cmocka_unit_test(test_largest_answer),
        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_unicast_is_asked_for),
        cmocka_unit_test(test_known_answers_are_not_repeated),
        cmocka_unit_test(test_answer_without_address),
        cmocka_unit_test(test_two_services_and_the_address_of_each),
        cmocka_unit_test(test_answers_that_are_none),
        cmocka_unit_test(test_addresses_of_nobody),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_names_that_do_not_end),
        cmocka_unit_test(test_pointers_back),
        cmocka_unit_test(test_lies_about_lengths),
        cmocka_unit_test(test_random_damage),
        cmocka_unit_test(test_corpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
