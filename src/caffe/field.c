/* SPDX-License-Identifier: Apache-2.0 */
#include "caffe/field.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

size_t shoal_field_name_size(const ProtobufCFieldDescriptor *field) {
    size_t size = strlen(field->name);
    return size && field->name[size - 1] == '_' ? size - 1 : size;
}

const ProtobufCFieldDescriptor *shoal_field_find(const ProtobufCMessageDescriptor *descriptor,
                                                 const char *name) {
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(descriptor, name);
    char c_name[128];
    const size_t size = strlen(name);
    if (!field && size + 2 <= sizeof c_name) {
        memcpy(c_name, name, size);
        memcpy(c_name + size, "_", 2);
        field = protobuf_c_message_descriptor_get_field_by_name(descriptor, c_name);
    }
    return field && shoal_field_name_size(field) == size ? field : NULL;
}

size_t shoal_field_value_size(ProtobufCType type) {
    switch (type) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

static void *at(const ProtobufCMessage *message, unsigned offset) {
    return (char *)(uintptr_t)message + offset;
}

void *shoal_field_value(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
    return at(message, field->offset);
}

static size_t *repeated_count(const ProtobufCMessage *message,
                              const ProtobufCFieldDescriptor *field) {
    return at(message, field->quantifier_offset);
}

static bool is_pointer(ProtobufCType type) {
    return type == PROTOBUF_C_TYPE_STRING || type == PROTOBUF_C_TYPE_MESSAGE;
}

/* proto3 fields without a quantifier: present when they differ from zero. */
static bool is_nonzero(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
    const unsigned char *value = shoal_field_value(message, field);
    if (field->type == PROTOBUF_C_TYPE_BYTES)
        return ((const ProtobufCBinaryData *)(const void *)value)->len > 0;
    for (size_t i = 0; i < shoal_field_value_size(field->type); i++)
        if (value[i])
            return true;
    return false;
}

static bool is_present(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        return *(const uint32_t *)at(message, field->quantifier_offset) == field->id;
    if (is_pointer(field->type)) {
        const char *pointer = *(char *const *)shoal_field_value(message, field);
        if (field->label == PROTOBUF_C_LABEL_NONE && field->type == PROTOBUF_C_TYPE_STRING)
            return pointer && *pointer;
        return pointer != NULL && pointer != field->default_value;
    }
    if (field->label == PROTOBUF_C_LABEL_OPTIONAL)
        return *(const protobuf_c_boolean *)at(message, field->quantifier_offset);
    if (field->label == PROTOBUF_C_LABEL_NONE)
        return is_nonzero(message, field);
    return true;
}

size_t shoal_field_count(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return *repeated_count(message, field);
    return is_present(message, field);
}

const void *shoal_field_item(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                             size_t i) {
    const char *value = shoal_field_value(message, field);
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        value = *(const char *const *)(const void *)value;
    return value + i * shoal_field_value_size(field->type);
}

/* The array doubles when its count is a power of two, so its capacity needs no record. */
static void *add_repeated(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
    const size_t size = shoal_field_value_size(field->type);
    size_t *count = repeated_count(message, field);
    void **array = shoal_field_value(message, field);
    if ((*count & (*count - 1)) == 0) {
        size_t bytes;
        if (!shoal_size_mul(*count ? 2 * *count : 1, size, &bytes))
            return NULL;
        void *grown = realloc(*array, bytes);
        if (!grown)
            return NULL;
        *array = grown;
    }
    void *item = (char *)*array + (*count)++ * size;
    return memset(item, 0, size);
}

void *shoal_field_add(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
    if (field->label == PROTOBUF_C_LABEL_REPEATED)
        return add_repeated(message, field);
    if (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
        *(uint32_t *)at(message, field->quantifier_offset) = field->id;
    else if (field->label == PROTOBUF_C_LABEL_OPTIONAL && !is_pointer(field->type))
        *(protobuf_c_boolean *)at(message, field->quantifier_offset) = 1;
    return shoal_field_value(message, field);
}

ProtobufCMessage *shoal_field_new_message(const ProtobufCMessageDescriptor *descriptor) {
    ProtobufCMessage *message = malloc(descriptor->sizeof_message);
    if (message)
        protobuf_c_message_init(descriptor, message);
    return message;
}

static void release_string(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field) {
    if (field->type == PROTOBUF_C_TYPE_STRING && is_present(message, field))
        free(*(char **)shoal_field_value(message, field));
}

void shoal_field_move(ProtobufCMessage *from, const ProtobufCFieldDescriptor *from_field,
                      ProtobufCMessage *to, const ProtobufCFieldDescriptor *to_field) {
    if (shoal_field_count(from, from_field) == 0)
        return;
    void *value = shoal_field_value(from, from_field);
    if (from_field->label == PROTOBUF_C_LABEL_REPEATED) {
        *(void **)shoal_field_value(to, to_field) = *(void **)value;
        *repeated_count(to, to_field) = *repeated_count(from, from_field);
        *(void **)value = NULL;
        *repeated_count(from, from_field) = 0;
        return;
    }
    const size_t size = shoal_field_value_size(from_field->type);
    release_string(to, to_field);
    memcpy(shoal_field_add(to, to_field), value, size);
    if (is_pointer(from_field->type))
        *(const void **)value = from_field->default_value;
    else if (from_field->default_value)
        memcpy(value, from_field->default_value, size);
    else
        memset(value, 0, size);
    if (from_field->label == PROTOBUF_C_LABEL_OPTIONAL && !is_pointer(from_field->type))
        *(protobuf_c_boolean *)at(from, from_field->quantifier_offset) = 0;
}
