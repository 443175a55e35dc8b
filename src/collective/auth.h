/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_AUTH_H
#define SHOAL_COLLECTIVE_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shoal/status.h"

/* Who belongs to the cluster: whoever knows the token. Both sides of a connection send a nonce and
 * prove with it that they know the token, without sending it; whoever listens in learns nothing
 * that helps with the next connection (but could try guesses offline: tokens must be random).
 * Proofs and keys are keyed BLAKE2b (RFC 7693). All of it comes from libsodium, which needs
 * shoal_auth_init once per process; every function here but shoal_auth_init is thread-safe. */

#define SHOAL_AUTH_BYTES 32       /* of a key, a nonce, a proof, a secret */
#define SHOAL_AUTH_TOKEN_MIN 16   /* shortest token, characters */
#define SHOAL_AUTH_TOKEN_MAX 4096 /* longest token, characters */
#define SHOAL_AUTH_TOKEN_TEXT 33  /* a generated token with its '\0': 160 bits, base 32 */

typedef struct ShoalAuthKey {
    unsigned char bytes[SHOAL_AUTH_BYTES];
} ShoalAuthKey;

/* Which side proves: a proof of one side is no proof of the other. */
typedef enum ShoalAuthRole {
    SHOAL_AUTH_COORDINATOR = 1,
    SHOAL_AUTH_WORKER = 2,
    SHOAL_AUTH_RING_CONNECTOR = 3,
    SHOAL_AUTH_RING_ACCEPTOR = 4
} ShoalAuthRole;

/* SHOAL_ERR_UNSUPPORTED when the system has no random numbers. May be called again. */
ShoalStatus shoal_auth_init(ShoalError *err);

/* Random bytes from the system. */
void shoal_auth_random(void *bytes, size_t size);

/* A new token: letters and digits only, fit for a command line. */
void shoal_auth_token_generate(char token[SHOAL_AUTH_TOKEN_TEXT]);

/* The key of a token. SHOAL_ERR_ARGUMENT: shorter or longer than the limits. White space at both
 * ends (a line end in a file) does not count. */
ShoalStatus shoal_auth_token_key(const char *token, ShoalAuthKey *key, ShoalError *err);

/* The proof of `role` for a connection: keyed hash of the role, both nonces (of the side that
 * connected first, of the side that accepted second) and `context`, which is everything else both
 * sides must agree on (versions, numbers). */
void shoal_auth_prove(const ShoalAuthKey *key, ShoalAuthRole role,
                      const unsigned char connector_nonce[SHOAL_AUTH_BYTES],
                      const unsigned char acceptor_nonce[SHOAL_AUTH_BYTES], const void *context,
                      size_t context_size, unsigned char proof[SHOAL_AUTH_BYTES]);

/* Is `proof` (proof_size bytes from a peer) that of shoal_auth_prove? Constant time. */
bool shoal_auth_verify(const ShoalAuthKey *key, ShoalAuthRole role,
                       const unsigned char connector_nonce[SHOAL_AUTH_BYTES],
                       const unsigned char acceptor_nonce[SHOAL_AUTH_BYTES], const void *context,
                       size_t context_size, const void *proof, size_t proof_size);

/* The key of what `sender` sends on one connection: other nonces, another key. shared: what both
 * sides got from shoal_auth_agree, or NULL. */
void shoal_auth_session_key(const ShoalAuthKey *key, ShoalAuthRole sender,
                            const unsigned char connector_nonce[SHOAL_AUTH_BYTES],
                            const unsigned char acceptor_nonce[SHOAL_AUTH_BYTES],
                            const unsigned char *shared, ShoalAuthKey *session);

/* An X25519 key pair (RFC 7748) for one connection. With it, who records a connection and learns
 * the token later still cannot read it. */
void shoal_auth_keypair(unsigned char public_key[SHOAL_AUTH_BYTES],
                        unsigned char secret_key[SHOAL_AUTH_BYTES]);

/* What both sides compute from their own secret key and the other's public key. False: the public
 * key is one of the few that allow no secret; the peer is no honest one. */
bool shoal_auth_agree(const unsigned char secret_key[SHOAL_AUTH_BYTES],
                      const unsigned char public_key[SHOAL_AUTH_BYTES],
                      unsigned char shared[SHOAL_AUTH_BYTES]);

/* Authenticated encryption (ChaCha20-Poly1305-IETF) with the running number as nonce: sealed gets
 * size + SHOAL_AUTH_SEAL_BYTES bytes; in place works (sealed == plain). header is covered. open
 * returns false when anything was changed; plain is then of no use. One key never seals two texts
 * with the same number. */
#define SHOAL_AUTH_SEAL_BYTES 16
void shoal_auth_seal(const ShoalAuthKey *key, uint64_t sequence, const void *header,
                     size_t header_size, const void *plain, size_t size, unsigned char *sealed);
bool shoal_auth_open(const ShoalAuthKey *key, uint64_t sequence, const void *header,
                     size_t header_size, const unsigned char *sealed, size_t sealed_size,
                     unsigned char *plain);

/* The key of a generation's ring from the secret that the coordinator made for it. */
void shoal_auth_ring_key(const unsigned char secret[SHOAL_AUTH_BYTES], uint64_t generation,
                         ShoalAuthKey *ring);

/* The first 4 bytes (little-endian number) of the keyed hash of sequence, header and payload. */
uint32_t shoal_auth_tag(const ShoalAuthKey *key, uint64_t sequence, const void *header,
                        size_t header_size, const void *payload, size_t payload_size);

/* Overwrites secrets before their storage is reused. */
void shoal_auth_forget(void *bytes, size_t size);

#endif
