/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CAFFE_TEXT_VALUE_H
#define SHOAL_CAFFE_TEXT_VALUE_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

#include "caffe/text_lexer.h"

/* One value of a field that is not a message. */
typedef union ShoalTextValue {
    int32_t i32;
    int64_t i64;
    uint32_t u32;
    uint64_t u64;
    float f32;
    double f64;
    protobuf_c_boolean boolean;
    char *string;              /* malloc storage */
    ProtobufCBinaryData bytes; /* malloc storage */
} ShoalTextValue;

/* Reads the value at the current word as one of the field's type and goes past it. The bytes of
 * *value that the type needs (shoal_field_value_size) lie at its start. On success the caller owns
 * what *value points to. Rules are those of protobuf's text parser: integers are not floats (20.0
 * is no int32), a float may be written as integer, bools are true, True, t, 1, false, False, f, 0,
 * enums are a name or a known number. SHOAL_ERR_PARSE, SHOAL_ERR_MEMORY. */
ShoalStatus shoal_text_value_read(ShoalTextLexer *lexer, const ProtobufCFieldDescriptor *field,
                                  ShoalTextValue *value);

/* The index of the name among name_at(context, 0..n-1) that is nearest to a token (Levenshtein), or
 * n when none is near. */
typedef const char *ShoalTextNameAt(const void *context, size_t i);
size_t shoal_text_nearest(const ShoalTextToken *token, ShoalTextNameAt *name_at,
                          const void *context, size_t n);

/* A copy of a token as a C string; "" when it does not fit (then it is nothing that is known). */
typedef struct ShoalTextName {
    char text[128];
} ShoalTextName;
ShoalTextName shoal_text_name(const ShoalTextToken *token);

#endif
