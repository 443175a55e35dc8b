/* SPDX-License-Identifier: Apache-2.0 */
#include "collective/auth.h"

#include <ctype.h>
#include <string.h>

#include <sodium.h>

#include "base/error.h"
#include "collective/wire.h"

#define LABEL_BYTES 16

_Static_assert(SHOAL_AUTH_BYTES >= crypto_generichash_KEYBYTES_MIN &&
                   SHOAL_AUTH_BYTES <= crypto_generichash_KEYBYTES_MAX,
               "a key fits BLAKE2b");
_Static_assert(SHOAL_AUTH_BYTES == crypto_scalarmult_BYTES, "a public key fits X25519");
_Static_assert(SHOAL_AUTH_BYTES == crypto_scalarmult_SCALARBYTES, "a secret key fits X25519");
_Static_assert(SHOAL_AUTH_BYTES == crypto_aead_chacha20poly1305_ietf_KEYBYTES &&
                   SHOAL_AUTH_SEAL_BYTES == crypto_aead_chacha20poly1305_ietf_ABYTES &&
                   crypto_aead_chacha20poly1305_ietf_NPUBBYTES == 4 + 8,
               "a key and a running number fit ChaCha20-Poly1305");

typedef crypto_generichash_state Hash;

/* Every hash starts with a label of fixed length that says what it is for, so no hash can stand in
 * for one of another purpose. */
static void hash_start(Hash *hash, const ShoalAuthKey *key, size_t out_bytes, const char *label) {
    unsigned char padded[LABEL_BYTES] = {0};
    size_t length = strlen(label);
    memcpy(padded, label, length < LABEL_BYTES ? length : LABEL_BYTES);
    crypto_generichash_init(hash, key ? key->bytes : NULL, key ? SHOAL_AUTH_BYTES : 0, out_bytes);
    crypto_generichash_update(hash, padded, LABEL_BYTES);
}

static void hash_add(Hash *hash, const void *bytes, size_t size) {
    if (size > 0)
        crypto_generichash_update(hash, bytes, size);
}

static void hash_add_u64(Hash *hash, uint64_t value) {
    unsigned char bytes[8];
    shoal_wire_put64(bytes, value);
    crypto_generichash_update(hash, bytes, sizeof(bytes));
}

static void hash_end(Hash *hash, unsigned char *out, size_t size) {
    crypto_generichash_final(hash, out, size);
    sodium_memzero(hash, sizeof(*hash));
}

ShoalStatus shoal_auth_init(ShoalError *err) {
    if (sodium_init() < 0)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED,
                               "libsodium cannot start: this system offers no random numbers "
                               "(getrandom or /dev/urandom)");
    return SHOAL_OK;
}

void shoal_auth_random(void *bytes, size_t size) {
    randombytes_buf(bytes, size);
}

void shoal_auth_token_generate(char token[SHOAL_AUTH_TOKEN_TEXT]) {
    /* No 0, 1, l, o: people type tokens from one screen into another. */
    static const char digits[] = "abcdefghijkmnpqrstuvwxyz23456789";
    _Static_assert(sizeof(digits) == 33, "base 32");
    unsigned char random[SHOAL_AUTH_TOKEN_TEXT - 1];
    randombytes_buf(random, sizeof(random));
    for (size_t i = 0; i < sizeof(random); i++)
        token[i] = digits[random[i] & 31];
    token[sizeof(random)] = '\0';
    sodium_memzero(random, sizeof(random));
}

ShoalStatus shoal_auth_token_key(const char *token, ShoalAuthKey *key, ShoalError *err) {
    size_t size = strlen(token);
    while (size > 0 && isspace((unsigned char)token[size - 1]))
        size--;
    while (size > 0 && isspace((unsigned char)*token)) {
        token++;
        size--;
    }
    if (size < SHOAL_AUTH_TOKEN_MIN || size > SHOAL_AUTH_TOKEN_MAX)
        return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                               "the token has %zu characters; expected %d to %d (random ones: "
                               "whoever guesses it may join)",
                               size, SHOAL_AUTH_TOKEN_MIN, SHOAL_AUTH_TOKEN_MAX);
    Hash hash;
    hash_start(&hash, NULL, SHOAL_AUTH_BYTES, "shoal token");
    hash_add(&hash, token, size);
    hash_end(&hash, key->bytes, SHOAL_AUTH_BYTES);
    return SHOAL_OK;
}

static void hash_connection(const ShoalAuthKey *key, const char *label, ShoalAuthRole role,
                            const unsigned char *connector_nonce,
                            const unsigned char *acceptor_nonce, const void *context,
                            size_t context_size, unsigned char out[SHOAL_AUTH_BYTES]) {
    Hash hash;
    hash_start(&hash, key, SHOAL_AUTH_BYTES, label);
    hash_add_u64(&hash, (uint64_t)role);
    hash_add(&hash, connector_nonce, SHOAL_AUTH_BYTES);
    hash_add(&hash, acceptor_nonce, SHOAL_AUTH_BYTES);
    hash_add(&hash, context, context_size);
    hash_end(&hash, out, SHOAL_AUTH_BYTES);
}

void shoal_auth_prove(const ShoalAuthKey *key, ShoalAuthRole role,
                      const unsigned char connector_nonce[SHOAL_AUTH_BYTES],
                      const unsigned char acceptor_nonce[SHOAL_AUTH_BYTES], const void *context,
                      size_t context_size, unsigned char proof[SHOAL_AUTH_BYTES]) {
    hash_connection(key, "shoal proof", role, connector_nonce, acceptor_nonce, context,
                    context_size, proof);
}

bool shoal_auth_verify(const ShoalAuthKey *key, ShoalAuthRole role,
                       const unsigned char connector_nonce[SHOAL_AUTH_BYTES],
                       const unsigned char acceptor_nonce[SHOAL_AUTH_BYTES], const void *context,
                       size_t context_size, const void *proof, size_t proof_size) {
    unsigned char expected[SHOAL_AUTH_BYTES];
    shoal_auth_prove(key, role, connector_nonce, acceptor_nonce, context, context_size, expected);
    bool same = proof_size == sizeof(expected) && sodium_memcmp(expected, proof, proof_size) == 0;
    sodium_memzero(expected, sizeof(expected));
    return same;
}

void shoal_auth_session_key(const ShoalAuthKey *key, ShoalAuthRole sender,
                            const unsigned char connector_nonce[SHOAL_AUTH_BYTES],
                            const unsigned char acceptor_nonce[SHOAL_AUTH_BYTES],
                            const unsigned char *shared, ShoalAuthKey *session) {
    hash_connection(key, "shoal session", sender, connector_nonce, acceptor_nonce, shared,
                    shared ? SHOAL_AUTH_BYTES : 0, session->bytes);
}

void shoal_auth_keypair(unsigned char public_key[SHOAL_AUTH_BYTES],
                        unsigned char secret_key[SHOAL_AUTH_BYTES]) {
    randombytes_buf(secret_key, SHOAL_AUTH_BYTES);
    crypto_scalarmult_base(public_key, secret_key);
}

bool shoal_auth_agree(const unsigned char secret_key[SHOAL_AUTH_BYTES],
                      const unsigned char public_key[SHOAL_AUTH_BYTES],
                      unsigned char shared[SHOAL_AUTH_BYTES]) {
    /* It fails for points of low order: the result would be zero whatever the secret is. */
    return crypto_scalarmult(shared, secret_key, public_key) == 0;
}

/* 4 zero bytes, then the running number: no number comes twice under one key. */
static void put_nonce(uint64_t sequence,
                      unsigned char nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES]) {
    memset(nonce, 0, 4);
    shoal_wire_put64(nonce + 4, sequence);
}

void shoal_auth_seal(const ShoalAuthKey *key, uint64_t sequence, const void *header,
                     size_t header_size, const void *plain, size_t size, unsigned char *sealed) {
    unsigned char nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];
    put_nonce(sequence, nonce);
    crypto_aead_chacha20poly1305_ietf_encrypt(sealed, NULL, plain, size, header, header_size, NULL,
                                              nonce, key->bytes);
}

bool shoal_auth_open(const ShoalAuthKey *key, uint64_t sequence, const void *header,
                     size_t header_size, const unsigned char *sealed, size_t sealed_size,
                     unsigned char *plain) {
    unsigned char nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES];
    if (sealed_size < SHOAL_AUTH_SEAL_BYTES)
        return false;
    put_nonce(sequence, nonce);
    return crypto_aead_chacha20poly1305_ietf_decrypt(plain, NULL, NULL, sealed, sealed_size, header,
                                                     header_size, nonce, key->bytes) == 0;
}

void shoal_auth_ring_key(const unsigned char secret[SHOAL_AUTH_BYTES], uint64_t generation,
                         ShoalAuthKey *ring) {
    ShoalAuthKey key;
    memcpy(key.bytes, secret, SHOAL_AUTH_BYTES);
    Hash hash;
    hash_start(&hash, &key, SHOAL_AUTH_BYTES, "shoal ring");
    hash_add_u64(&hash, generation);
    hash_end(&hash, ring->bytes, SHOAL_AUTH_BYTES);
    sodium_memzero(&key, sizeof(key));
}

uint32_t shoal_auth_tag(const ShoalAuthKey *key, uint64_t sequence, const void *header,
                        size_t header_size, const void *payload, size_t payload_size) {
    unsigned char digest[crypto_generichash_BYTES_MIN];
    Hash hash;
    hash_start(&hash, key, sizeof(digest), "shoal frame");
    hash_add_u64(&hash, sequence);
    hash_add(&hash, header, header_size);
    hash_add(&hash, payload, payload_size);
    hash_end(&hash, digest, sizeof(digest));
    return shoal_wire_get32(digest);
}

void shoal_auth_forget(void *bytes, size_t size) {
    sodium_memzero(bytes, size);
}
