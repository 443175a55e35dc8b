/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CAFFE_FIELD_H
#define SHOAL_CAFFE_FIELD_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

/* Fields of a message by descriptor, in the memory layout that protoc-c generates. Storage is
 * malloc's, as protobuf-c's default allocator frees it. */

/* The field that a file calls by this name, or NULL. A "_" at the end of a schema name is not part
 * of the name in files (see caffe.proto). */
const ProtobufCFieldDescriptor *shoal_field_find(const ProtobufCMessageDescriptor *descriptor,
                                                 const char *name);

/* Length of a field's name in files: name[0..this). */
size_t shoal_field_name_size(const ProtobufCFieldDescriptor *field);

/* Bytes that one value of a type takes in the message's struct (or in the array, if repeated). */
size_t shoal_field_value_size(ProtobufCType type);

/* Address of a field's value; of a repeated one, of the pointer to its array. */
void *shoal_field_value(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);

/* Number of values: of a singular field 0 or 1, by presence. A required number counts as
 * present. */
size_t shoal_field_count(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);

/* Address of value i of a field that has more than i values. */
const void *shoal_field_item(const ProtobufCMessage *message, const ProtobufCFieldDescriptor *field,
                             size_t i);

/* Address of one more value, for the caller to write: of a singular field its only one, now marked
 * present; of a repeated field a zeroed one at its end. A repeated field must have been empty once
 * and filled by this function alone (it counts on its own growth). NULL when memory is short. */
void *shoal_field_add(ProtobufCMessage *message, const ProtobufCFieldDescriptor *field);

/* A new message of a type, all defaults; NULL when memory is short. */
ProtobufCMessage *shoal_field_new_message(const ProtobufCMessageDescriptor *descriptor);

/* Takes the value (or all values) of a field away from one message and gives it to another, whose
 * field has the same label and a type of the same layout; nothing happens when `from` has none. A
 * number or string that `to` has is replaced; a message or repeated field of `to` must be empty. */
void shoal_field_move(ProtobufCMessage *from, const ProtobufCFieldDescriptor *from_field,
                      ProtobufCMessage *to, const ProtobufCFieldDescriptor *to_field);

#endif
