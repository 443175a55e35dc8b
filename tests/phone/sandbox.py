# SPDX-License-Identifier: Apache-2.0
"""Runs a program with the system calls that an app of Android may make, on x86-64:

    sandbox.py PROGRAM ARGUMENT...

Any other call raises SIGSYS, as with bionic's filter for apps (libc/seccomp/seccomp_policy.cpp:
SECCOMP_RET_TRAP)."""
import ctypes
import os
import re
import struct
import sys

import android

NUMBERS = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"

# <linux/prctl.h>, <linux/seccomp.h>, <linux/bpf_common.h>
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
RET_TRAP, RET_ALLOW = 0x00030000, 0x7FFF0000
LOAD_WORD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06


def numbers():
    """System call names -> numbers."""
    with open(NUMBERS) as f:
        found = re.findall(r"#define __NR_(\w+) (\d+)", f.read())
    return {name: int(number) for name, number in found}


def build_filter(allowed):
    """A program for the kernel's filter, as bytes: one comparison a call."""
    code = [(LOAD_WORD, 0, 0, 0)]  # struct seccomp_data begins with the call's number
    for number in sorted(allowed):
        code += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, RET_ALLOW)]
    code.append((RETURN, 0, 0, RET_TRAP))
    return b"".join(struct.pack("<HBBI", *line) for line in code)


def confine():
    """For this process and what it becomes or starts."""
    known = numbers()
    code = build_filter({known[name] for name in android.ALLOWED | {"arch_prctl"}})
    memory = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(memory))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    if prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")


if __name__ == "__main__":
    confine()
    os.execv(sys.argv[1], sys.argv[1:])
