/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <stdio.h>
#include <string.h>

static const struct {
    ShoalStatus status;
    const char *text;
} STATUS_TEXTS[] = {
    {SHOAL_OK, "ok"},
    {SHOAL_ERR_ARGUMENT, "wrong argument"},
    {SHOAL_ERR_MEMORY, "out of memory"},
    {SHOAL_ERR_IO, "input/output error"},
    {SHOAL_ERR_PARSE, "malformed input"},
    {SHOAL_ERR_MODEL, "invalid model"},
    {SHOAL_ERR_DATA, "invalid data"},
    {SHOAL_ERR_NETWORK, "network error"},
    {SHOAL_ERR_AUTH, "authentication failed"},
    {SHOAL_ERR_PROTOCOL, "protocol error"},
    {SHOAL_ERR_LOST, "peer lost"},
    {SHOAL_ERR_STOPPED, "stopped on request"},
    {SHOAL_ERR_UNSUPPORTED, "not supported in this version"},
};

const char *shoal_status_text(ShoalStatus status) {
    for (size_t i = 0; i < sizeof STATUS_TEXTS / sizeof STATUS_TEXTS[0]; i++)
        if (STATUS_TEXTS[i].status == status)
            return STATUS_TEXTS[i].text;
    return "unknown status";
}

ShoalStatus shoal_error_set(ShoalError *err, ShoalStatus status, const char *format, ...) {
    if (!err)
        return status;
    if (err->status != SHOAL_OK)
        return err->status;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    err->status = status;
    return status;
}

void shoal_error_prefix(ShoalError *err, const char *format, ...) {
    if (!err || err->status == SHOAL_OK)
        return;
    char where[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(where, sizeof where - 2, format, args);
    va_end(args);
    if (n < 0)
        return;
    strcat(where, ": ");
    size_t length = strlen(where), kept = strnlen(err->text, sizeof err->text - 1 - length);
    memmove(err->text + length, err->text, kept);
    memcpy(err->text, where, length);
    err->text[length + kept] = '\0';
}

void shoal_error_clear(ShoalError *err) {
    if (!err)
        return;
    err->status = SHOAL_OK;
    err->text[0] = '\0';
}

ShoalStatus shoal_error_memory(ShoalError *err, const char *what, unsigned long long bytes) {
    return shoal_error_set(err, SHOAL_ERR_MEMORY,
                           "out of memory: could not allocate %llu bytes for %s", bytes, what);
}
