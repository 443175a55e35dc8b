/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "collective/auth.h"
#include "collective/crc32c.h"

#define N SHOAL_AUTH_BYTES

static void test_crc32c_known_answers(void **state) {
    (void)state;
    unsigned char zeros[32] = {0}, ones[32], up[32]; /* RFC 3720, B.4 */
    memset(ones, 0xff, sizeof(ones));
    for (int i = 0; i < 32; i++)
        up[i] = (unsigned char)i;
    assert_int_equal(shoal_crc32c(0, zeros, 32), 0x8a9136aau);
    assert_int_equal(shoal_crc32c(0, ones, 32), 0x62a8ab43u);
    assert_int_equal(shoal_crc32c(0, up, 32), 0x46dd794eu);
    assert_int_equal(shoal_crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(shoal_crc32c(shoal_crc32c(0, "1234", 4), "56789", 5), 0xe3069283u);
    assert_int_equal(shoal_crc32c(0, "", 0), 0);
}

static void test_token(void **state) {
    (void)state;
    char token[SHOAL_AUTH_TOKEN_TEXT], other[SHOAL_AUTH_TOKEN_TEXT];
    shoal_auth_token_generate(token);
    shoal_auth_token_generate(other);
    assert_int_equal(strlen(token), SHOAL_AUTH_TOKEN_TEXT - 1);
    assert_int_equal(strspn(token, "abcdefghijkmnpqrstuvwxyz23456789"), strlen(token));
    assert_string_not_equal(token, other);
    ShoalAuthKey a, b;
    ShoalError err = {0};
    assert_int_equal(shoal_auth_token_key(token, &a, &err), 0);
    assert_int_equal(shoal_auth_token_key(other, &b, &err), 0);
    assert_memory_not_equal(&a, &b, sizeof(a));
    char padded[64] = " \t";
    strcat(strcat(padded, token), "\r\n");
    assert_int_equal(shoal_auth_token_key(padded, &b, &err), 0);
    assert_memory_equal(&a, &b, sizeof(a));
}

static void test_token_limits(void **state) {
    (void)state;
    ShoalAuthKey key;
    static char text[SHOAL_AUTH_TOKEN_MAX + 2];
    const struct {
        size_t length;
        ShoalStatus status;
    } cases[] = {{0, SHOAL_ERR_ARGUMENT},
                 {15, SHOAL_ERR_ARGUMENT},
                 {16, 0},
                 {SHOAL_AUTH_TOKEN_MAX, 0},
                 {SHOAL_AUTH_TOKEN_MAX + 1, SHOAL_ERR_ARGUMENT}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ShoalError err = {0};
        memset(text, 'a', cases[i].length);
        text[cases[i].length] = '\0';
        assert_int_equal(shoal_auth_token_key(text, &key, &err), cases[i].status);
    }
    ShoalError err = {0};
    assert_int_equal(shoal_auth_token_key("    short          ", &key, &err), SHOAL_ERR_ARGUMENT);
    assert_non_null(strstr(err.text, "5 characters; expected 16"));
}

/* A proof holds for exactly one key, role, pair of nonces and context. */
static void test_proof_covers_everything(void **state) {
    (void)state;
    ShoalAuthKey key, wrong;
    unsigned char mine[N], theirs[N], proof[N];
    shoal_auth_random(&key, sizeof(key));
    shoal_auth_random(mine, N);
    shoal_auth_random(theirs, N);
    shoal_auth_prove(&key, SHOAL_AUTH_WORKER, mine, theirs, "v1", 2, proof);
    assert_true(shoal_auth_verify(&key, SHOAL_AUTH_WORKER, mine, theirs, "v1", 2, proof, N));
    wrong = key;
    wrong.bytes[31] ^= 1;
    assert_false(shoal_auth_verify(&wrong, SHOAL_AUTH_WORKER, mine, theirs, "v1", 2, proof, N));
    assert_false(shoal_auth_verify(&key, SHOAL_AUTH_COORDINATOR, mine, theirs, "v1", 2, proof, N));
    assert_false(shoal_auth_verify(&key, SHOAL_AUTH_WORKER, theirs, mine, "v1", 2, proof, N));
    assert_false(shoal_auth_verify(&key, SHOAL_AUTH_WORKER, mine, theirs, "v2", 2, proof, N));
    assert_false(shoal_auth_verify(&key, SHOAL_AUTH_WORKER, mine, theirs, "v1", 1, proof, N));
    assert_false(shoal_auth_verify(&key, SHOAL_AUTH_WORKER, mine, theirs, "v1", 2, proof, N - 1));
    assert_false(shoal_auth_verify(&key, SHOAL_AUTH_WORKER, mine, theirs, "v1", 2, NULL, 0));
    mine[0] ^= 1;
    assert_false(shoal_auth_verify(&key, SHOAL_AUTH_WORKER, mine, theirs, "v1", 2, proof, N));
    mine[0] ^= 1;
    for (int i = 0; i < N; i++) {
        proof[i] ^= 0x80;
        assert_false(shoal_auth_verify(&key, SHOAL_AUTH_WORKER, mine, theirs, "v1", 2, proof, N));
        proof[i] ^= 0x80;
    }
}

static void test_derived_keys_differ(void **state) {
    (void)state;
    ShoalAuthKey key, keys[5];
    unsigned char mine[N] = {1}, theirs[N] = {2}, secret[N] = {3};
    memset(&key, 5, sizeof(key));
    shoal_auth_session_key(&key, SHOAL_AUTH_WORKER, mine, theirs, &keys[0]);
    shoal_auth_session_key(&key, SHOAL_AUTH_COORDINATOR, mine, theirs, &keys[1]);
    shoal_auth_ring_key(secret, 1, &keys[2]);
    shoal_auth_ring_key(secret, 2, &keys[3]);
    shoal_auth_prove(&key, SHOAL_AUTH_WORKER, mine, theirs, NULL, 0, keys[4].bytes);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(&keys[i], &keys[j], sizeof(key));
    ShoalAuthKey again;
    shoal_auth_ring_key(secret, 2, &again);
    assert_memory_equal(&again, &keys[3], sizeof(again));
}

static void test_tag(void **state) {
    (void)state;
    ShoalAuthKey key;
    memset(&key, 5, sizeof(key));
    uint32_t tag = shoal_auth_tag(&key, 1, "head", 4, "body", 4);
    assert_int_equal(tag, shoal_auth_tag(&key, 1, "head", 4, "body", 4));
    assert_int_not_equal(tag, shoal_auth_tag(&key, 2, "head", 4, "body", 4));
    assert_int_not_equal(tag, shoal_auth_tag(&key, 1, "Head", 4, "body", 4));
    assert_int_not_equal(tag, shoal_auth_tag(&key, 1, "head", 4, "bodz", 4));
    assert_int_not_equal(tag, shoal_auth_tag(&key, 1, "head", 4, NULL, 0));
}

static int set_up(void **state) {
    (void)state;
    return shoal_auth_init(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_known_answers), cmocka_unit_test(test_token),
        cmocka_unit_test(test_token_limits),         cmocka_unit_test(test_proof_covers_everything),
        cmocka_unit_test(test_derived_keys_differ),  cmocka_unit_test(test_tag),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
