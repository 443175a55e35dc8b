/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CAFFE_TEXT_H
#define SHOAL_CAFFE_TEXT_H

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>

#include "shoal/status.h"

/* Protobuf's text format (https://protobuf.dev/reference/protobuf/textformat-spec/), driven by
 * protobuf-c's descriptors; protobuf-c itself has none. What is accepted and refused is what
 * protobuf's C++ TextFormat::Parser accepts and refuses, with these differences: no extensions and
 * Any values, a zero byte in a string field is refused (C cannot hold it; bytes fields may have
 * it), so are octal escapes above \377 and lone surrogates, numbers of more than 1,099 digits, and
 * nesting deeper than 100. Thread-safe: no state is shared. */

/* Where each message of a parsed text began, so that a later complaint about a layer can name its
 * line. Keyed by the address of the message; valid while that message lives. */
typedef struct ShoalTextOrigin {
    const ProtobufCMessage *message;
    int line, column; /* 1-based; of the field name that opened the message */
} ShoalTextOrigin;

typedef struct ShoalTextOrigins {
    ShoalTextOrigin *items; /* sorted by message address; shoal_calloc storage */
    size_t count;
} ShoalTextOrigins;

/* Restores the order after changes to items[].message. */
void shoal_text_origins_sort(ShoalTextOrigins *origins);

void shoal_text_origins_close(ShoalTextOrigins *origins);

/* The origin of a message, or NULL when it did not come from a text. */
const ShoalTextOrigin *shoal_text_origins_find(const ShoalTextOrigins *origins,
                                               const ProtobufCMessage *message);

/* Parses text[0..size) (need not be '\0'-terminated) as a message of type `descriptor`. `file` is
 * used in messages only. *out is owned by the caller: protobuf_c_message_free_unpacked(*out, NULL).
 * origins may be NULL. Errors: SHOAL_ERR_PARSE with file:line:column, what was found, what was
 * expected (unknown field: the nearest known name; missing required field; a value out of range;
 * nesting deeper than 100; a second value for a singular field is an error, as in protobuf),
 * SHOAL_ERR_MEMORY. */
ShoalStatus shoal_text_parse(const ProtobufCMessageDescriptor *descriptor, const char *text,
                             size_t size, const char *file, ShoalTextOrigins *origins,
                             ProtobufCMessage **out, ShoalError *err);

/* Prints a message as protobuf's TextFormat does: two blanks of indent, fields in number order,
 * floats with 6 to 9 digits (doubles 15 to 17), as many as read back to the same bits, strings
 * escaped. Not printed: unknown fields, the sign and payload of a NaN. *out is '\0'-terminated,
 * shoal_calloc storage, owned by the caller. Errors: SHOAL_ERR_MEMORY. */
ShoalStatus shoal_text_print(const ProtobufCMessage *message, char **out, size_t *size,
                             ShoalError *err);

#endif
