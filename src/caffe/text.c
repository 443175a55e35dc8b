/* SPDX-License-Identifier: Apache-2.0 */
#include "caffe/text.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "caffe/field.h"
#include "caffe/text_lexer.h"
#include "caffe/text_value.h"

enum { DEPTH_MAX = 100, FIELDS_MAX = 256 };

typedef struct Parser {
    ShoalTextLexer lexer;
    ShoalError *err;
    bool want_origins;
    ShoalTextOrigins origins;
    size_t origins_capacity;
    int depth;
} Parser;

/* A message that is being read, and which of its fields were seen (a bit for each). */
typedef struct Frame {
    ProtobufCMessage *message;
    ShoalTextToken opened; /* the word that began it */
    uint64_t seen[FIELDS_MAX / 64];
} Frame;

/* ---- origins ---- */

void shoal_text_origins_close(ShoalTextOrigins *origins) {
    shoal_free(origins->items);
    *origins = (ShoalTextOrigins){0};
}

static int compare_origins(const void *a, const void *b) {
    const uintptr_t left = (uintptr_t)((const ShoalTextOrigin *)a)->message;
    const uintptr_t right = (uintptr_t)((const ShoalTextOrigin *)b)->message;
    return (left > right) - (left < right);
}

void shoal_text_origins_sort(ShoalTextOrigins *origins) {
    if (origins->count)
        qsort(origins->items, origins->count, sizeof *origins->items, compare_origins);
}

const ShoalTextOrigin *shoal_text_origins_find(const ShoalTextOrigins *origins,
                                               const ProtobufCMessage *message) {
    const ShoalTextOrigin key = {.message = message};
    if (!origins->count)
        return NULL;
    return bsearch(&key, origins->items, origins->count, sizeof key, compare_origins);
}

static ShoalStatus add_origin(Parser *p, const ProtobufCMessage *message,
                              const ShoalTextToken *token) {
    if (!p->want_origins)
        return SHOAL_OK;
    if (p->origins.count == p->origins_capacity) {
        size_t capacity = p->origins_capacity ? 2 * p->origins_capacity : 32;
        ShoalTextOrigin *items = shoal_calloc(capacity, sizeof *items);
        if (!items)
            return shoal_error_memory(p->err, "line numbers", capacity * sizeof *items);
        if (p->origins.count)
            memcpy(items, p->origins.items, p->origins.count * sizeof *items);
        shoal_free(p->origins.items);
        p->origins.items = items;
        p->origins_capacity = capacity;
    }
    p->origins.items[p->origins.count++] =
        (ShoalTextOrigin){.message = message, .line = token->line, .column = token->column};
    return SHOAL_OK;
}

/* ---- fields ---- */

static size_t field_index(const Frame *frame, const ProtobufCFieldDescriptor *field) {
    return (size_t)(field - frame->message->descriptor->fields);
}

static bool was_seen(const Frame *frame, const ProtobufCFieldDescriptor *field) {
    size_t i = field_index(frame, field);
    return frame->seen[i / 64] >> (i % 64) & 1;
}

static const char *field_name_at(const void *context, size_t i) {
    return ((const ProtobufCMessageDescriptor *)context)->fields[i].name;
}

static ShoalStatus fail_unknown(Parser *p, const Frame *frame) {
    const ProtobufCMessageDescriptor *type = frame->message->descriptor;
    const ShoalTextToken *token = &p->lexer.token;
    ShoalTextQuote name = shoal_text_quote(token);
    const size_t nearest = shoal_text_nearest(token, field_name_at, type, type->n_fields);
    if (nearest < type->n_fields)
        return shoal_text_lexer_fail(
            &p->lexer, token, "%s has no field named %s; did you mean \"%.*s\"?", type->short_name,
            name.text, (int)shoal_field_name_size(&type->fields[nearest]),
            type->fields[nearest].name);
    return shoal_text_lexer_fail(&p->lexer, token,
                                 "%s has no field named %s; remove it or correct its name",
                                 type->short_name, name.text);
}

/* The field that the current word names. */
static ShoalStatus find_field(Parser *p, const Frame *frame,
                              const ProtobufCFieldDescriptor **field) {
    if (shoal_text_lexer_is(&p->lexer, '['))
        return shoal_text_lexer_fail(&p->lexer, &p->lexer.token,
                                     "found \"[\", expected a field name; extensions and Any "
                                     "values are not supported");
    if (p->lexer.token.kind != SHOAL_TEXT_NAME)
        return shoal_text_lexer_expected(&p->lexer, "a field name");
    ShoalTextName name = shoal_text_name(&p->lexer.token);
    *field = shoal_field_find(frame->message->descriptor, name.text);
    return *field ? SHOAL_OK : fail_unknown(p, frame);
}

/* That a singular field, and no other one of its oneof, has a value yet. */
static ShoalStatus check_single(Parser *p, const Frame *frame,
                                const ProtobufCFieldDescriptor *field,
                                const ShoalTextToken *token) {
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return SHOAL_OK;
    if (was_seen(frame, field))
        return shoal_text_lexer_fail(&p->lexer, token,
                                     "\"%s\" is given a second time; it takes one value: keep the "
                                     "one that is meant",
                                     field->name);
    if ((field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
        *(const uint32_t *)(const void *)((const char *)frame->message + field->quantifier_offset))
        return shoal_text_lexer_fail(
            &p->lexer, token, "\"%s\" excludes a field that is given above: keep one", field->name);
    return SHOAL_OK;
}

static void mark_seen(Frame *frame, const ProtobufCFieldDescriptor *field) {
    size_t i = field_index(frame, field);
    frame->seen[i / 64] |= (uint64_t)1 << (i % 64);
}

static ShoalStatus check_required(Parser *p, const Frame *frame) {
    const ProtobufCMessageDescriptor *type = frame->message->descriptor;
    for (unsigned i = 0; i < type->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &type->fields[i];
        if (field->label == PROTOBUF_C_LABEL_REQUIRED && !was_seen(frame, field))
            return shoal_text_lexer_fail(&p->lexer, &frame->opened,
                                         "%s needs a value for \"%s\" and has none",
                                         type->short_name, field->name);
    }
    return SHOAL_OK;
}

/* ---- values ---- */

static ShoalStatus parse_fields(Parser *p, Frame *frame, char close);

static ShoalStatus check_descriptor(const ProtobufCMessageDescriptor *type, ShoalError *err) {
    if (type->n_fields > FIELDS_MAX)
        return shoal_error_set(err, SHOAL_ERR_UNSUPPORTED, "%s has more than %d fields",
                               type->short_name, FIELDS_MAX);
    return SHOAL_OK;
}

/* `{ ... }` or `< ... >` as one more value of a field; it hangs in its parent from the start, so
 * that freeing the root frees it. */
static ShoalStatus parse_submessage(Parser *p, Frame *parent, const ProtobufCFieldDescriptor *field,
                                    const ShoalTextToken *opened) {
    const bool angle = shoal_text_lexer_is(&p->lexer, '<');
    if (!angle && !shoal_text_lexer_is(&p->lexer, '{'))
        return shoal_text_lexer_expected(&p->lexer, "\"{\"");
    if (p->depth == DEPTH_MAX)
        return shoal_text_lexer_fail(&p->lexer, &p->lexer.token,
                                     "messages are nested deeper than %d", DEPTH_MAX);
    ShoalStatus status = check_descriptor(field->descriptor, p->err);
    if (status)
        return status;
    ProtobufCMessage *message = shoal_field_new_message(field->descriptor);
    ProtobufCMessage **slot = message ? shoal_field_add(parent->message, field) : NULL;
    if (!slot) {
        free(message);
        return shoal_error_memory(p->err, "a message", sizeof *message);
    }
    *slot = message;
    status = add_origin(p, message, opened);
    if (!status)
        status = shoal_text_lexer_next(&p->lexer);
    if (status)
        return status;
    Frame frame = {.message = message, .opened = *opened};
    p->depth++;
    status = parse_fields(p, &frame, angle ? '>' : '}');
    p->depth--;
    return status;
}

static ShoalStatus parse_scalar(Parser *p, Frame *frame, const ProtobufCFieldDescriptor *field) {
    ShoalTextValue value;
    ShoalStatus status = shoal_text_value_read(&p->lexer, field, &value);
    if (status)
        return status;
    void *slot = shoal_field_add(frame->message, field);
    if (!slot) {
        if (field->type == PROTOBUF_C_TYPE_STRING)
            free(value.string);
        else if (field->type == PROTOBUF_C_TYPE_BYTES)
            free(value.bytes.data);
        return shoal_error_memory(p->err, field->name, sizeof value);
    }
    memcpy(slot, &value, shoal_field_value_size(field->type));
    return SHOAL_OK;
}

static ShoalStatus parse_value(Parser *p, Frame *frame, const ProtobufCFieldDescriptor *field,
                               const ShoalTextToken *opened) {
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return parse_submessage(p, frame, field, opened);
    return parse_scalar(p, frame, field);
}

/* `[a, b, ...]`; the current word is the bracket. */
static ShoalStatus parse_list(Parser *p, Frame *frame, const ProtobufCFieldDescriptor *field) {
    ShoalStatus status = shoal_text_lexer_next(&p->lexer);
    if (status)
        return status;
    if (shoal_text_lexer_is(&p->lexer, ']'))
        return shoal_text_lexer_next(&p->lexer);
    for (;;) {
        const ShoalTextToken opened = p->lexer.token;
        status = parse_value(p, frame, field, &opened);
        if (status)
            return status;
        const bool more = shoal_text_lexer_is(&p->lexer, ',');
        if (!more && !shoal_text_lexer_is(&p->lexer, ']'))
            return shoal_text_lexer_expected(&p->lexer, "\",\" or \"]\"");
        status = shoal_text_lexer_next(&p->lexer);
        if (status || !more)
            return status;
    }
}

/* The colon: a message may do without, any other value may not. */
static ShoalStatus parse_colon(Parser *p, const ProtobufCFieldDescriptor *field) {
    if (shoal_text_lexer_is(&p->lexer, ':'))
        return shoal_text_lexer_next(&p->lexer);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return SHOAL_OK;
    return shoal_text_lexer_expected(&p->lexer, "\":\" and a value");
}

static ShoalStatus parse_field(Parser *p, Frame *frame) {
    const ProtobufCFieldDescriptor *field;
    const ShoalTextToken opened = p->lexer.token;
    ShoalStatus status = find_field(p, frame, &field);
    if (!status)
        status = check_single(p, frame, field, &opened);
    if (!status)
        status = shoal_text_lexer_next(&p->lexer);
    if (!status)
        status = parse_colon(p, field);
    if (status)
        return status;
    mark_seen(frame, field);
    if (field->label == PROTOBUF_C_LABEL_REPEATED && shoal_text_lexer_is(&p->lexer, '['))
        status = parse_list(p, frame, field);
    else
        status = parse_value(p, frame, field, &opened);
    if (!status && (shoal_text_lexer_is(&p->lexer, ';') || shoal_text_lexer_is(&p->lexer, ',')))
        status = shoal_text_lexer_next(&p->lexer);
    return status;
}

/* Fields up to the closing symbol ('\0': up to the end of the text), and past it. */
static ShoalStatus parse_fields(Parser *p, Frame *frame, char close) {
    ShoalStatus status = SHOAL_OK;
    while (!status) {
        if (close && shoal_text_lexer_is(&p->lexer, close)) {
            status = shoal_text_lexer_next(&p->lexer);
            break;
        }
        if (p->lexer.token.kind == SHOAL_TEXT_END) {
            if (!close)
                break;
            return shoal_text_lexer_fail(&p->lexer, &p->lexer.token,
                                         "the file ends inside the %s that begins in line %d; a "
                                         "\"%c\" is missing",
                                         frame->message->descriptor->short_name, frame->opened.line,
                                         close);
        }
        status = parse_field(p, frame);
    }
    return status ? status : check_required(p, frame);
}

ShoalStatus shoal_text_parse(const ProtobufCMessageDescriptor *descriptor, const char *text,
                             size_t size, const char *file, ShoalTextOrigins *origins,
                             ProtobufCMessage **out, ShoalError *err) {
    Parser parser = {.err = err, .want_origins = origins != NULL};
    ShoalStatus status = check_descriptor(descriptor, err);
    if (status)
        return status;
    ProtobufCMessage *message = shoal_field_new_message(descriptor);
    if (!message)
        return shoal_error_memory(err, descriptor->short_name, descriptor->sizeof_message);
    status = shoal_text_lexer_init(&parser.lexer, text, size, file, err);
    if (status)
        goto err_free;
    Frame frame = {.message = message, .opened = parser.lexer.token};
    status = parse_fields(&parser, &frame, '\0');
    if (status)
        goto err_free;
    shoal_text_origins_sort(&parser.origins);
    if (origins)
        *origins = parser.origins;
    *out = message;
    return SHOAL_OK;

err_free:
    shoal_text_origins_close(&parser.origins);
    protobuf_c_message_free_unpacked(message, NULL);
    return status;
}
