/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_UNIT_CAFFE_HELPERS_H
#define SHOAL_TESTS_UNIT_CAFFE_HELPERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "caffe/model.h"
#include "caffe/text.h"

/* Parses text that must parse; free with protobuf_c_message_free_unpacked. */
static inline void *parse_ok(const ProtobufCMessageDescriptor *type, const char *text) {
    ShoalError err = {0};
    ProtobufCMessage *message = NULL;
    if (shoal_text_parse(type, text, strlen(text), "f", NULL, &message, &err))
        fail_msg("%s\nin: %s", err.text, text);
    return message;
}

/* Parses text that must not parse, and checks the whole message. */
static inline void parse_fails(const ProtobufCMessageDescriptor *type, const char *text,
                               size_t size, const char *expected) {
    ShoalError err = {0};
    ProtobufCMessage *message = NULL;
    ShoalTextOrigins origins = {0};
    assert_int_equal(shoal_text_parse(type, text, size, "f", &origins, &message, &err),
                     SHOAL_ERR_PARSE);
    assert_string_equal(err.text, expected);
    assert_null(message);
    assert_null(origins.items);
}

/* The printed form; shoal_free. */
static inline char *printed(const void *message) {
    ShoalError err = {0};
    char *text = NULL;
    size_t size;
    if (shoal_text_print(message, &text, &size, &err))
        fail_msg("%s", err.text);
    assert_int_equal(strlen(text), size);
    return text;
}

/* That two messages pack to the same bytes. */
static inline void assert_same_bytes(const void *a, const void *b) {
    ShoalError err = {0};
    void *left, *right;
    size_t left_size, right_size;
    assert_int_equal(shoal_caffe_pack(a, &left, &left_size, &err), SHOAL_OK);
    assert_int_equal(shoal_caffe_pack(b, &right, &right_size, &err), SHOAL_OK);
    assert_int_equal(left_size, right_size);
    assert_memory_equal(left, right, left_size);
    shoal_free(left);
    shoal_free(right);
}

typedef void FileCheck(const char *path, const unsigned char *bytes, size_t size);

/* Runs the check on every file that a pattern below SHOAL_SHARED matches; how many there were. */
static inline size_t for_each_file(const char *pattern, FileCheck *check) {
    char full[512];
    glob_t found;
    snprintf(full, sizeof full, "%s/%s", SHOAL_SHARED, pattern);
    if (glob(full, 0, NULL, &found))
        return 0;
    size_t n = found.gl_pathc;
    for (size_t i = 0; i < n; i++) {
        ShoalError err = {0};
        unsigned char *bytes;
        size_t size;
        if (shoal_file_read(found.gl_pathv[i], &bytes, &size, &err))
            fail_msg("%s", err.text);
        check(found.gl_pathv[i], bytes, size);
        shoal_free(bytes);
    }
    globfree(&found);
    return n;
}

#endif
