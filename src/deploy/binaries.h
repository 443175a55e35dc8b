/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DEPLOY_BINARIES_H
#define SHOAL_DEPLOY_BINARIES_H

#include "shoal/status.h"

/* The static binary for one kind of device. */
typedef struct ShoalBinary {
    char path[4096];
    char hash[65]; /* SHA-256, hexadecimal */
    long long size;
} ShoalBinary;

/* Finds shoal-ARCH in folder; NULL: in phone/ beside this program, else in ../lib/shoal/phone.
 * SHOAL_ERR_IO says how to make it. */
ShoalStatus shoal_binary_find(const char *folder, const char *arch, ShoalBinary *binary,
                              ShoalError *err);

/* out: 65 characters. */
void shoal_binary_hash(const void *bytes, unsigned long long size, char *out);

#endif
