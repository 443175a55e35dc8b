/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CAFFE_WIRE_H
#define SHOAL_CAFFE_WIRE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Whether bytes[0..size) have the form of a message (https://protobuf.dev/programming-guides/
 * encoding/), before protobuf-c reads them; else false, and about where they have not.
 * Also refused, because protobuf-c is no match for it: field number 0, which it may accept but
 * cannot read again after packing, and more than 1000 repetitions of messages that are not
 * repeated, which it merges in quadratic time (no encoder writes even one). */
bool shoal_caffe_wire_check(const ProtobufCMessageDescriptor *descriptor, const uint8_t *bytes,
                            size_t size, size_t *where);

#endif
