# SPDX-License-Identifier: Apache-2.0
"""Reads what the tools write: the records of an LMDB, and fields of protobuf messages. LMDB's format:
see src/data/lmdb_tree.h."""

import os
import struct


def records(folder):
    """The (key, value) pairs of an LMDB, in order."""
    with open(os.path.join(folder, "data.mdb"), "rb") as file:
        image = file.read()
    metas = []
    page_size = struct.unpack_from("<I", image, 16 + 24)[0]
    for page in (0, page_size):
        root, = struct.unpack_from("<Q", image, page + 16 + 24 + 48 + 40)
        txnid, = struct.unpack_from("<Q", image, page + 16 + 24 + 96 + 8)
        metas.append((txnid, root))
    found = []

    def walk(number):
        page = number * page_size
        flags, lower = struct.unpack_from("<HH", image, page + 10)
        for i in range((lower - 16) // 2):
            node = page + struct.unpack_from("<H", image, page + 16 + 2 * i)[0]
            low, high, node_flags, key_size = struct.unpack_from("<HHHH", image, node)
            if flags & 1:  # a branch
                walk(low | high << 16 | node_flags << 32)
                continue
            key, size = image[node + 8:node + 8 + key_size], low | high << 16
            value = node + 8 + key_size
            if node_flags & 1:  # the value has pages of its own
                value = struct.unpack_from("<Q", image, value)[0] * page_size + 16
            found.append((key, image[value:value + size]))

    root = max(metas)[1]
    if root != 2**64 - 1:
        walk(root)
    return found


def fields(message):
    """[(number, value)] of a message: integers, and bytes of what is longer."""
    found, at = [], 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        if tag & 7 == 0:
            value = varint()
        else:
            size = varint() if tag & 7 == 2 else {1: 8, 5: 4}[tag & 7]
            value = message[at:at + size]
            at += size
        found.append((tag >> 3, value))
    return found
