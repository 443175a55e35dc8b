/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
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
    enum { KEYS = 8 };
    ShoalAuthKey key, keys[KEYS];
    unsigned char mine[N] = {1}, theirs[N] = {2}, secret[N] = {3}, other[N] = {4};
    memset(&key, 5, sizeof(key));
    shoal_auth_session_key(&key, SHOAL_AUTH_WORKER, mine, theirs, NULL, &keys[0]);
    shoal_auth_session_key(&key, SHOAL_AUTH_COORDINATOR, mine, theirs, NULL, &keys[1]);
    shoal_auth_ring_key(secret, 1, &keys[2]);
    shoal_auth_ring_key(secret, 2, &keys[3]);
    shoal_auth_prove(&key, SHOAL_AUTH_WORKER, mine, theirs, NULL, 0, keys[4].bytes);
    shoal_auth_session_key(&key, SHOAL_AUTH_WORKER, mine, theirs, secret, &keys[5]);
    shoal_auth_session_key(&key, SHOAL_AUTH_COORDINATOR, mine, theirs, secret, &keys[6]);
    shoal_auth_session_key(&key, SHOAL_AUTH_WORKER, mine, theirs, other, &keys[7]);
    for (int i = 0; i < KEYS; i++)
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

static void unhex(const char *hex, unsigned char *bytes) {
    for (size_t i = 0; hex[2 * i]; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        bytes[i] = (unsigned char)byte;
    }
}

/* RFC 7748, 6.1. */
static void test_agree_known_answer(void **state) {
    (void)state;
    unsigned char secret[N], other[N], expected[N], shared[N];
    unhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a", secret);
    unhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f", other);
    unhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742", expected);
    assert_true(shoal_auth_agree(secret, other, shared));
    assert_memory_equal(shared, expected, N);
}

static void test_both_sides_agree(void **state) {
    (void)state;
    unsigned char secrets[3][N], publics[3][N], ab[N], ba[N], cb[N];
    for (int i = 0; i < 3; i++)
        shoal_auth_keypair(publics[i], secrets[i]);
    assert_memory_not_equal(publics[0], publics[1], N);
    assert_true(shoal_auth_agree(secrets[0], publics[1], ab));
    assert_true(shoal_auth_agree(secrets[1], publics[0], ba));
    assert_true(shoal_auth_agree(secrets[2], publics[1], cb));
    assert_memory_equal(ab, ba, N);
    assert_memory_not_equal(ab, cb, N);
}

/* All points of low order, with and without the bit that does not count: whoever sends one would
 * know the secret without a key of its own. */
static void test_agree_refuses_points_of_low_order(void **state) {
    (void)state;
    static const char *const points[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"};
    unsigned char public_key[N], secret[N], shared[N];
    for (size_t i = 0; i < 2 * sizeof(points) / sizeof(points[0]); i++) {
        unhex(points[i / 2], public_key);
        public_key[N - 1] |= i & 1 ? 0x80 : 0;
        shoal_auth_random(secret, N);
        assert_false(shoal_auth_agree(secret, public_key, shared));
    }
}

/* RFC 8439, A.5; its nonce is one that a running number can make. */
static void test_seal_known_answer(void **state) {
    (void)state;
    static const char plain[] =
        "Internet-Drafts are draft documents valid for a maximum of six months and may be updated, "
        "replaced, or obsoleted by other documents at any time. It is inappropriate to use "
        "Internet-Drafts as reference material or to cite them other than as "
        "/\xe2\x80\x9cwork in progress./\xe2\x80\x9d";
    enum { SIZE = sizeof(plain) - 1 };
    unsigned char header[12], expected[SIZE + SHOAL_AUTH_SEAL_BYTES];
    unsigned char sealed[SIZE + SHOAL_AUTH_SEAL_BYTES];
    ShoalAuthKey key;
    unhex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0", key.bytes);
    unhex("f33388860000000000004e91", header);
    unhex("64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb24c6cfc18755d"
          "43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf332f830e710b97ce98c8a84a"
          "bd0b948114ad176e008d33bd60f982b1ff37c8559797a06ef4f0ef61c186324e2b3506383606"
          "907b6a7c02b0f9f6157b53c867e4b9166c767b804d46a59b5216cde7a4e99040c5a40433225e"
          "e282a1b0a06c523eaf4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548"
          "271a0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a1049e617d9"
          "1d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709bee"
          "ad9d67890cbb22392336fea1851f38",
          expected);
    shoal_auth_seal(&key, 0x0807060504030201u, header, sizeof(header), plain, SIZE, sealed);
    assert_memory_equal(sealed, expected, sizeof(expected));
    memcpy(sealed, plain, SIZE);
    shoal_auth_seal(&key, 0x0807060504030201u, header, sizeof(header), sealed, SIZE, sealed);
    assert_memory_equal(sealed, expected, sizeof(expected));
    assert_true(shoal_auth_open(&key, 0x0807060504030201u, header, sizeof(header), sealed,
                                sizeof(sealed), sealed));
    assert_memory_equal(sealed, plain, SIZE);
}

/* What was sealed opens with exactly that key, number, header and text. */
static void test_seal_covers_everything(void **state) {
    (void)state;
    ShoalAuthKey key, wrong;
    unsigned char sealed[7 + SHOAL_AUTH_SEAL_BYTES], plain[8 + SHOAL_AUTH_SEAL_BYTES];
    memset(&key, 9, sizeof(key));
    wrong = key;
    wrong.bytes[0] ^= 1;
    shoal_auth_seal(&key, 5, "head", 4, "payload", 7, sealed);
    assert_true(shoal_auth_open(&key, 5, "head", 4, sealed, sizeof(sealed), plain));
    assert_memory_equal(plain, "payload", 7);
    assert_false(shoal_auth_open(&wrong, 5, "head", 4, sealed, sizeof(sealed), plain));
    assert_false(shoal_auth_open(&key, 6, "head", 4, sealed, sizeof(sealed), plain));
    assert_false(
        shoal_auth_open(&key, 5 + (UINT64_C(1) << 32), "head", 4, sealed, sizeof(sealed), plain));
    assert_false(shoal_auth_open(&key, 5, "heae", 4, sealed, sizeof(sealed), plain));
    assert_false(shoal_auth_open(&key, 5, "head", 3, sealed, sizeof(sealed), plain));
    for (size_t size = 0; size < sizeof(sealed); size++)
        assert_false(shoal_auth_open(&key, 5, "head", 4, sealed, size, plain));
    for (size_t bit = 0; bit < 8 * sizeof(sealed); bit++) {
        sealed[bit / 8] ^= (unsigned char)(1u << bit % 8);
        assert_false(shoal_auth_open(&key, 5, "head", 4, sealed, sizeof(sealed), plain));
        sealed[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    shoal_auth_seal(&key, 1, NULL, 0, NULL, 0, sealed);
    assert_true(shoal_auth_open(&key, 1, NULL, 0, sealed, SHOAL_AUTH_SEAL_BYTES, plain));
}

static int set_up(void **state) {
    (void)state;
    return shoal_auth_init(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_known_answers),
        cmocka_unit_test(test_token),
        cmocka_unit_test(test_token_limits),
        cmocka_unit_test(test_proof_covers_everything),
        cmocka_unit_test(test_derived_keys_differ),
        cmocka_unit_test(test_tag),
        cmocka_unit_test(test_agree_known_answer),
        cmocka_unit_test(test_both_sides_agree),
        cmocka_unit_test(test_agree_refuses_points_of_low_order),
        cmocka_unit_test(test_seal_known_answer),
        cmocka_unit_test(test_seal_covers_everything),

    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
