/* SPDX-License-Identifier: Apache-2.0 */
#include "deploy/binaries.h"

#include <libgen.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

void shoal_binary_hash(const void *bytes, unsigned long long size, char *out) {
    unsigned char hash[crypto_hash_sha256_BYTES];
    crypto_hash_sha256(hash, bytes, size);
    sodium_bin2hex(out, 2 * sizeof hash + 1, hash, sizeof hash);
}

/* Whether the file FOLDER/shoal-ARCH is there; its path goes to binary->path. */
static bool look_in(const char *folder, const char *arch, ShoalBinary *binary) {
    int n = snprintf(binary->path, sizeof binary->path, "%s/shoal-%s", folder, arch);
    return n > 0 && (size_t)n < sizeof binary->path && access(binary->path, R_OK) == 0;
}

static bool look_beside(const char *arch, ShoalBinary *binary) {
    char program[2048], folder[2304];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0)
        return false;
    program[n] = '\0';
    const char *here = dirname(program);
    snprintf(folder, sizeof folder, "%s/phone", here);
    if (look_in(folder, arch, binary))
        return true;
    snprintf(folder, sizeof folder, "%s/../lib/shoal/phone", here);
    return look_in(folder, arch, binary);
}

ShoalStatus shoal_binary_find(const char *folder, const char *arch, ShoalBinary *binary,
                              ShoalError *err) {
    unsigned char *bytes;
    size_t size;
    if (!(folder ? look_in(folder, arch, binary) : look_beside(arch, binary)))
        return shoal_error_set(err, SHOAL_ERR_IO,
                               "there is no binary for it, shoal-%s in %s: `make phone` makes it, "
                               "--binaries=DIR says where it is",
                               arch, folder ? folder : "phone/ beside this program");
    ShoalStatus status = shoal_file_read(binary->path, &bytes, &size, err);
    if (status)
        return status;
    shoal_binary_hash(bytes, size, binary->hash);
    binary->size = (long long)size;
    shoal_free(bytes);
    return SHOAL_OK;
}
