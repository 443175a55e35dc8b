/* SPDX-License-Identifier: Apache-2.0 */
#include "caffe/text_value.h"

#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/error.h"

ShoalTextName shoal_text_name(const ShoalTextToken *token) {
    ShoalTextName name = {{0}};
    if (token->size < sizeof name.text)
        memcpy(name.text, token->start, token->size);
    return name;
}

/* ---- the nearest name ---- */

enum { NEAREST_MAX = 63 }; /* longer names are not compared */

static size_t min3(size_t a, size_t b, size_t c) {
    size_t ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Edits (insert, remove, replace) from a[0..na) to b[0..nb); both at most NEAREST_MAX. */
static size_t edit_distance(const char *a, size_t na, const char *b, size_t nb) {
    size_t row[NEAREST_MAX + 1];
    for (size_t j = 0; j <= nb; j++)
        row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t above = row[j];
            row[j] = min3(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[nb];
}

size_t shoal_text_nearest(const ShoalTextToken *token, ShoalTextNameAt *name_at,
                          const void *context, size_t n) {
    size_t best = n;
    /* Beyond a third of the letters, names are not alike but just short. */
    size_t best_distance = (token->size + 1) / 3 + 1;
    if (token->size > NEAREST_MAX)
        return n;
    for (size_t i = 0; i < n; i++) {
        const char *name = name_at(context, i);
        const size_t size = strlen(name);
        if (size > NEAREST_MAX)
            continue;
        const size_t distance = edit_distance(token->start, token->size, name, size);
        if (distance < best_distance) {
            best = i;
            best_distance = distance;
        }
    }
    return best;
}

/* ---- numbers ---- */

static ShoalStatus take_minus(ShoalTextLexer *lexer, bool *negative) {
    *negative = shoal_text_lexer_is(lexer, '-');
    return *negative ? shoal_text_lexer_next(lexer) : SHOAL_OK;
}

/* The integer token in its base; false when above max. */
static bool integer_value(const ShoalTextToken *token, uint64_t max, uint64_t *value) {
    const char *p = token->start, *end = token->start + token->size;
    unsigned base = 10;
    if (token->size > 1 && p[0] == '0') {
        base = p[1] == 'x' || p[1] == 'X' ? 16 : 8;
        p += base == 16 ? 2 : 1;
    }
    uint64_t sum = 0;
    for (; p < end; p++) {
        unsigned digit = (unsigned)(*p <= '9' ? *p - '0' : (*p | 0x20) - 'a' + 10);
        if (digit > max || sum > (max - digit) / base)
            return false;
        sum = sum * base + digit;
    }
    *value = sum;
    return true;
}

static ShoalStatus fail_range(ShoalTextLexer *lexer, const ProtobufCFieldDescriptor *field,
                              bool negative, const char *range) {
    ShoalTextName text = shoal_text_name(&lexer->token);
    return shoal_text_lexer_fail(
        lexer, &lexer->token, "found %s%s for \"%s\", expected an integer from %s",
        negative ? "-" : "", *text.text ? text.text : "a huge number", field->name, range);
}

static ShoalStatus read_unsigned(ShoalTextLexer *lexer, const ProtobufCFieldDescriptor *field,
                                 uint64_t max, const char *range, uint64_t *value) {
    if (lexer->token.kind != SHOAL_TEXT_INTEGER)
        return shoal_text_lexer_expected(lexer, "an integer of 0 or more");
    if (!integer_value(&lexer->token, max, value))
        return fail_range(lexer, field, false, range);
    return shoal_text_lexer_next(lexer);
}

static ShoalStatus read_signed(ShoalTextLexer *lexer, const ProtobufCFieldDescriptor *field,
                               int64_t max, const char *range, int64_t *value) {
    bool negative;
    uint64_t magnitude;
    ShoalStatus status = take_minus(lexer, &negative);
    if (status)
        return status;
    if (lexer->token.kind != SHOAL_TEXT_INTEGER)
        return shoal_text_lexer_expected(lexer, "an integer");
    if (!integer_value(&lexer->token, (uint64_t)max + negative, &magnitude))
        return fail_range(lexer, field, negative, range);
    /* Negated as unsigned: the magnitude may be 2^63. */
    *value = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return shoal_text_lexer_next(lexer);
}

/* strtod in the C locale: a program around the library may have set another one. */
static ShoalStatus decimal_value(ShoalTextLexer *lexer, double *value) {
    char text[1100]; /* exact doubles have at most some 770 digits */
    const ShoalTextToken *token = &lexer->token;
    if (token->size >= sizeof text)
        return shoal_text_lexer_fail(lexer, token, "a number of %zu digits; at most %zu",
                                     token->size, sizeof text - 1);
    memcpy(text, token->start, token->size);
    text[token->size] = '\0';
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c_locale)
        return shoal_error_memory(lexer->err, "a locale", 0);
    *value = strtod_l(text, NULL, c_locale);
    freelocale(c_locale);
    return SHOAL_OK;
}

static bool is_based(const ShoalTextToken *token) {
    return token->kind == SHOAL_TEXT_INTEGER && token->size > 1 && token->start[0] == '0';
}

static ShoalStatus read_double(ShoalTextLexer *lexer, double *value) {
    bool negative;
    double magnitude = 0;
    ShoalStatus status = take_minus(lexer, &negative);
    if (status)
        return status;
    const ShoalTextToken *token = &lexer->token;
    if ((token->kind == SHOAL_TEXT_INTEGER && !is_based(token)) ||
        token->kind == SHOAL_TEXT_FLOAT) {
        status = decimal_value(lexer, &magnitude);
        if (status)
            return status;
    } else if (token->kind == SHOAL_TEXT_NAME) {
        ShoalTextName name = shoal_text_name(token);
        if (strcasecmp(name.text, "inf") == 0 || strcasecmp(name.text, "infinity") == 0)
            magnitude = (double)INFINITY;
        else if (strcasecmp(name.text, "nan") == 0)
            magnitude = (double)NAN;
        else
            return shoal_text_lexer_expected(lexer, "a number");
    } else {
        return shoal_text_lexer_expected(lexer, "a decimal number");
    }
    *value = negative ? -magnitude : magnitude;
    return shoal_text_lexer_next(lexer);
}

/* ---- names ---- */

static ShoalStatus read_bool(ShoalTextLexer *lexer, protobuf_c_boolean *value) {
    ShoalTextName name = shoal_text_name(&lexer->token);
    const char *text = name.text;
    uint64_t number = 0;
    if (lexer->token.kind == SHOAL_TEXT_INTEGER && integer_value(&lexer->token, 1, &number))
        *value = (protobuf_c_boolean)number;
    else if (!strcmp(text, "true") || !strcmp(text, "True") || !strcmp(text, "t"))
        *value = 1;
    else if (!strcmp(text, "false") || !strcmp(text, "False") || !strcmp(text, "f"))
        *value = 0;
    else
        return shoal_text_lexer_expected(lexer, "true or false");
    return shoal_text_lexer_next(lexer);
}

static const char *enum_name_at(const void *context, size_t i) {
    return ((const ProtobufCEnumDescriptor *)context)->values[i].name;
}

/* "A, B, C" of an enum, cut with "..." where it gets long. */
static void list_names(const ProtobufCEnumDescriptor *type, char *out, size_t size) {
    size_t used = 0;
    out[0] = '\0';
    for (unsigned i = 0; i < type->n_values; i++) {
        const char *name = type->values[i].name;
        const char *comma = i ? ", " : "";
        if (used + strlen(comma) + strlen(name) + sizeof ", ..." > size) {
            snprintf(out + used, size - used, "%s...", comma);
            return;
        }
        used += (size_t)snprintf(out + used, size - used, "%s%s", comma, name);
    }
}

static ShoalStatus fail_enum(ShoalTextLexer *lexer, const ProtobufCFieldDescriptor *field,
                             const ShoalTextToken *token) {
    const ProtobufCEnumDescriptor *type = field->descriptor;
    ShoalTextQuote found = shoal_text_quote(token);
    char names[160];
    list_names(type, names, sizeof names);
    size_t nearest = type->n_values;
    if (token->kind == SHOAL_TEXT_NAME)
        nearest = shoal_text_nearest(token, enum_name_at, type, type->n_values);
    const bool hint = nearest < type->n_values;
    return shoal_text_lexer_fail(lexer, token, "found %s for \"%s\", expected one of %s%s%s%s",
                                 found.text, field->name, names, hint ? "; did you mean " : "",
                                 hint ? type->values[nearest].name : "", hint ? "?" : "");
}

static ShoalStatus read_enum(ShoalTextLexer *lexer, const ProtobufCFieldDescriptor *field,
                             int32_t *value) {
    const ProtobufCEnumDescriptor *type = field->descriptor;
    const ShoalTextToken token = lexer->token;
    const ProtobufCEnumValue *known = NULL;
    if (token.kind == SHOAL_TEXT_NAME) {
        ShoalTextName name = shoal_text_name(&token);
        known = protobuf_c_enum_descriptor_get_value_by_name(type, name.text);
    } else if (token.kind == SHOAL_TEXT_INTEGER || shoal_text_lexer_is(lexer, '-')) {
        int64_t number = 0;
        ShoalStatus status =
            read_signed(lexer, field, INT32_MAX, "-2147483648 to 2147483647", &number);
        if (status)
            return status;
        known = protobuf_c_enum_descriptor_get_value(type, (int)number);
    }
    if (!known)
        return fail_enum(lexer, field, &token);
    *value = known->value;
    return token.kind == SHOAL_TEXT_NAME ? shoal_text_lexer_next(lexer) : SHOAL_OK;
}

/* ---- strings ---- */

static ShoalStatus read_string(ShoalTextLexer *lexer, const ProtobufCFieldDescriptor *field,
                               char **value) {
    const ShoalTextToken token = lexer->token;
    char *text;
    size_t size;
    ShoalStatus status = shoal_text_lexer_string(lexer, &text, &size);
    if (status)
        return status;
    if (memchr(text, '\0', size)) {
        free(text);
        return shoal_text_lexer_fail(
            lexer, &token, "a zero byte in \"%s\", expected text without one", field->name);
    }
    *value = text;
    return SHOAL_OK;
}

static ShoalStatus read_bytes(ShoalTextLexer *lexer, ProtobufCBinaryData *value) {
    char *data;
    size_t size;
    ShoalStatus status = shoal_text_lexer_string(lexer, &data, &size);
    if (!status)
        *value = (ProtobufCBinaryData){.len = size, .data = (uint8_t *)data};
    return status;
}

static ShoalStatus read_int32(ShoalTextLexer *lexer, const ProtobufCFieldDescriptor *field,
                              int32_t *value) {
    int64_t number = 0;
    ShoalStatus status = read_signed(lexer, field, INT32_MAX, "-2147483648 to 2147483647", &number);
    if (!status)
        *value = (int32_t)number;
    return status;
}

static ShoalStatus read_uint32(ShoalTextLexer *lexer, const ProtobufCFieldDescriptor *field,
                               uint32_t *value) {
    uint64_t number = 0;
    ShoalStatus status = read_unsigned(lexer, field, UINT32_MAX, "0 to 4294967295", &number);
    if (!status)
        *value = (uint32_t)number;
    return status;
}

static ShoalStatus read_float(ShoalTextLexer *lexer, float *value) {
    double number;
    ShoalStatus status = read_double(lexer, &number);
    if (!status)
        *value = (float)number; /* through double, as protobuf; too large becomes inf there too */
    return status;
}

ShoalStatus shoal_text_value_read(ShoalTextLexer *lexer, const ProtobufCFieldDescriptor *field,
                                  ShoalTextValue *value) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return read_int32(lexer, field, &value->i32);
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return read_signed(lexer, field, INT64_MAX, "-2^63 to 2^63-1", &value->i64);
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        return read_uint32(lexer, field, &value->u32);
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return read_unsigned(lexer, field, UINT64_MAX, "0 to 2^64-1", &value->u64);
    case PROTOBUF_C_TYPE_FLOAT:
        return read_float(lexer, &value->f32);
    case PROTOBUF_C_TYPE_DOUBLE:
        return read_double(lexer, &value->f64);
    case PROTOBUF_C_TYPE_BOOL:
        return read_bool(lexer, &value->boolean);
    case PROTOBUF_C_TYPE_ENUM:
        return read_enum(lexer, field, &value->i32);
    case PROTOBUF_C_TYPE_STRING:
        return read_string(lexer, field, &value->string);
    case PROTOBUF_C_TYPE_BYTES:
        return read_bytes(lexer, &value->bytes);
    default:
        return shoal_text_lexer_expected(lexer, "a value");
    }
}
