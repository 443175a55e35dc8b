/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_COLLECTIVE_CRC32C_H
#define SHOAL_COLLECTIVE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli; RFC 3720, appendix B.4) of bytes that follow those whose sum is `before`;
 * 0 for none. For headers and handshakes: half a byte at a time, small rather than fast. */
uint32_t shoal_crc32c(uint32_t before, const void *bytes, size_t size);

#endif
