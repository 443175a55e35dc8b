/* SPDX-License-Identifier: Apache-2.0 */
#include "caffe/text.h"

#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "caffe/field.h"

typedef struct Printer {
    char *text; /* shoal_calloc */
    size_t size, capacity;
    int depth;
    ShoalStatus status; /* the first failure; nothing is put after it */
    ShoalError *err;
} Printer;

static void put(Printer *p, const char *bytes, size_t size) {
    if (p->status)
        return;
    if (size >= p->capacity - p->size) {
        size_t capacity = 2 * p->capacity + size + 1;
        char *text = shoal_calloc(capacity, 1);
        if (!text) {
            p->status = shoal_error_memory(p->err, "a printed message", capacity);
            return;
        }
        if (p->size)
            memcpy(text, p->text, p->size);
        shoal_free(p->text);
        p->text = text;
        p->capacity = capacity;
    }
    memcpy(p->text + p->size, bytes, size);
    p->size += size;
}

static void put_text(Printer *p, const char *text) {
    put(p, text, strlen(text));
}

__attribute__((format(printf, 2, 3))) static void put_format(Printer *p, const char *format, ...) {
    char text[64];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    put_text(p, text);
}

static void put_indent(Printer *p) {
    for (int i = 0; i < p->depth; i++)
        put(p, "  ", 2);
}

static void put_string(Printer *p, const unsigned char *bytes, size_t size) {
    put(p, "\"", 1);
    for (size_t i = 0; i < size; i++) {
        const unsigned char c = bytes[i];
        if (c == '\n')
            put(p, "\\n", 2);
        else if (c == '\r')
            put(p, "\\r", 2);
        else if (c == '\t')
            put(p, "\\t", 2);
        else if (c == '"' || c == '\'' || c == '\\')
            put_format(p, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            put_format(p, "\\%03o", c);
        else
            put(p, (const char *)&bytes[i], 1);
    }
    put(p, "\"", 1);
}

static void put_float(Printer *p, float value) {
    char text[32];
    if (isnan(value)) {
        put_text(p, "nan");
        return;
    }
    for (int digits = 6; digits <= 9; digits += 3) { /* as protobuf 3.21 */
        snprintf(text, sizeof text, "%.*g", digits, (double)value);
        if ((float)strtod(text, NULL) == value)
            break;
    }
    put_text(p, text);
}

static void put_double(Printer *p, double value) {
    char text[32];
    if (isnan(value)) {
        put_text(p, "nan");
        return;
    }
    for (int digits = 15; digits <= 17; digits += 2) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    put_text(p, text);
}

static void put_enum(Printer *p, const ProtobufCEnumDescriptor *type, int value) {
    const ProtobufCEnumValue *known = protobuf_c_enum_descriptor_get_value(type, value);
    if (known)
        put_text(p, known->name);
    else
        put_format(p, "%d", value);
}

static void put_scalar(Printer *p, const ProtobufCFieldDescriptor *field, const void *value) {
    switch (field->type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        put_format(p, "%" PRId64, *(const int64_t *)value);
        break;
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        put_format(p, "%" PRIu64, *(const uint64_t *)value);
        break;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
        put_format(p, "%" PRIu32, *(const uint32_t *)value);
        break;
    case PROTOBUF_C_TYPE_FLOAT:
        put_float(p, *(const float *)value);
        break;
    case PROTOBUF_C_TYPE_DOUBLE:
        put_double(p, *(const double *)value);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        put_text(p, *(const protobuf_c_boolean *)value ? "true" : "false");
        break;
    case PROTOBUF_C_TYPE_ENUM:
        put_enum(p, field->descriptor, *(const int *)value);
        break;
    case PROTOBUF_C_TYPE_STRING: {
        const char *text = *(const char *const *)value;
        put_string(p, (const unsigned char *)(text ? text : ""), text ? strlen(text) : 0);
        break;
    }
    case PROTOBUF_C_TYPE_BYTES: {
        const ProtobufCBinaryData *bytes = value;
        put_string(p, bytes->data, bytes->len);
        break;
    }
    default: /* int32, sint32, sfixed32 */
        put_format(p, "%" PRId32, *(const int32_t *)value);
    }
}

static void put_message(Printer *p, const ProtobufCMessage *message);

static void put_field(Printer *p, const ProtobufCFieldDescriptor *field, const void *value) {
    put_indent(p);
    put(p, field->name, shoal_field_name_size(field));
    if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
        put_text(p, " {\n");
        p->depth++;
        put_message(p, *(const ProtobufCMessage *const *)value);
        p->depth--;
        put_indent(p);
        put_text(p, "}\n");
    } else {
        put_text(p, ": ");
        put_scalar(p, field, value);
        put_text(p, "\n");
    }
}

/* Descriptors have their fields in number order. */
static void put_message(Printer *p, const ProtobufCMessage *message) {
    const ProtobufCMessageDescriptor *type = message->descriptor;
    for (unsigned i = 0; i < type->n_fields && !p->status; i++) {
        const size_t count = shoal_field_count(message, &type->fields[i]);
        for (size_t j = 0; j < count && !p->status; j++)
            put_field(p, &type->fields[i], shoal_field_item(message, &type->fields[i], j));
    }
}

ShoalStatus shoal_text_print(const ProtobufCMessage *message, char **out, size_t *size,
                             ShoalError *err) {
    Printer printer = {.err = err};
    /* snprintf and strtod must not write a decimal comma, whatever the program set. */
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!c_locale)
        return shoal_error_memory(err, "a locale", 0);
    locale_t before = uselocale(c_locale);
    put_message(&printer, message);
    put(&printer, "", 1);
    uselocale(before);
    freelocale(c_locale);
    if (printer.status) {
        shoal_free(printer.text);
        return printer.status;
    }
    *out = printer.text;
    *size = printer.size - 1;
    return SHOAL_OK;
}
