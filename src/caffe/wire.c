/* SPDX-License-Identifier: Apache-2.0 */
#include "caffe/wire.h"

enum { REPETITIONS_MAX = 1000, FIELDS_MAX = 256 };

typedef struct Scan {
    const uint8_t *at;
    unsigned repetitions; /* of messages that are not repeated, in the whole file */
} Scan;

/* A varint of at most `most` bytes at scan->at, which moves behind it. */
static bool scan_varint(Scan *scan, const uint8_t *end, size_t most, uint64_t *value) {
    *value = 0;
    for (size_t i = 0; i < most && scan->at + i < end; i++) {
        *value |= (uint64_t)(scan->at[i] & 0x7f) << (7 * i);
        if (!(scan->at[i] & 0x80)) {
            scan->at += i + 1;
            return true;
        }
    }
    return false;
}

static bool skip(Scan *scan, const uint8_t *end, uint64_t size) {
    if (size > (uint64_t)(end - scan->at))
        return false;
    scan->at += size;
    return true;
}

/* Notes that a field is there; false when the patience with repetitions is over. */
static bool note_field(Scan *scan, const ProtobufCMessageDescriptor *type,
                       const ProtobufCFieldDescriptor *field, uint64_t *seen) {
    const size_t i = (size_t)(field - type->fields);
    if (field->label == PROTOBUF_C_LABEL_REPEATED || i >= FIELDS_MAX)
        return true;
    const uint64_t bit = (uint64_t)1 << (i % 64);
    if (seen[i / 64] & bit)
        scan->repetitions++;
    seen[i / 64] |= bit;
    return scan->repetitions <= REPETITIONS_MAX;
}

static bool scan_message(Scan *scan, const ProtobufCMessageDescriptor *type, const uint8_t *end);

/* A field of `size` bytes: a message is looked into, all else skipped. Nesting is as deep as the
 * schema, which has no cycles. */
static bool scan_prefixed(Scan *scan, const ProtobufCMessageDescriptor *type, unsigned number,
                          uint64_t size, uint64_t *seen, const uint8_t *end) {
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(type, number);
    if (size > (uint64_t)(end - scan->at))
        return false;
    if (!field || field->type != PROTOBUF_C_TYPE_MESSAGE)
        return skip(scan, end, size);
    return note_field(scan, type, field, seen) &&
           scan_message(scan, field->descriptor, scan->at + size);
}

static bool scan_field(Scan *scan, const ProtobufCMessageDescriptor *type, uint64_t *seen,
                       const uint8_t *end) {
    uint64_t tag, value;
    if (!scan_varint(scan, end, 5, &tag) || tag >> 3 == 0 || tag > UINT32_MAX)
        return false;
    switch (tag & 7) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        return scan_varint(scan, end, 10, &value);
    case PROTOBUF_C_WIRE_TYPE_64BIT:
        return skip(scan, end, 8);
    case PROTOBUF_C_WIRE_TYPE_32BIT:
        return skip(scan, end, 4);
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        return scan_varint(scan, end, 5, &value) &&
               scan_prefixed(scan, type, (unsigned)(tag >> 3), value, seen, end);
    default: /* groups, which Caffe's schema has none of */
        return false;
    }
}

static bool scan_message(Scan *scan, const ProtobufCMessageDescriptor *type, const uint8_t *end) {
    uint64_t seen[FIELDS_MAX / 64] = {0};
    while (scan->at < end)
        if (!scan_field(scan, type, seen, end))
            return false;
    return true;
}

bool shoal_caffe_wire_check(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes,
                            size_t size, size_t *where) {
    Scan scan = {.at = bytes};
    if (size == 0 || scan_message(&scan, descriptor, bytes + size))
        return true;
    *where = (size_t)(scan.at - bytes);
    return false;
}
