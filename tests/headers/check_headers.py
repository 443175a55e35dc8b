#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every header compiles alone, twice in a row, without a warning.

    check_headers.py SOURCE BUILD [--cxx=COMPILER]

Those of include/shoal as strict C11 and as C++17; those of src/ as C, with the flags that
BUILD/compile_commands.json has for their folder. Templates (*_tmpl.h) are no headers of their own.
"""
import glob
import json
import os
import re
import shlex
import subprocess
import sys

STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"]


def compile_twice(command, language, header):
    text = '#include "%s"\n#include "%s"\n' % (header, header)
    run = subprocess.run(command + ["-x", language, "-"], input=text, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    return run.stdout if run.returncode else None


def commands_by_folder(build):
    """{folder: compiler and flags, without source and output}."""
    commands = {}
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        entries = json.load(file)
    for entry in entries:
        words = shlex.split(entry["command"])
        flags, skip = [], False
        for word in words:
            if skip or word == "-c" or word == entry["file"]:
                skip = False
            elif word in ("-o", "-MF", "-MT", "-MQ"):
                skip = True
            elif word not in ("-MD", "-MMD") and not word.startswith("-fsanitize"):
                flags.append(word)
        commands.setdefault(os.path.dirname(entry["file"]), flags)
    return commands


def command_for(folder, commands, source):
    """That of the folder, or of the nearest one above or below it."""
    near = folder
    while near.startswith(source):
        if near in commands:
            return commands[near]
        below = [other for other in sorted(commands) if other.startswith(near + os.sep)]
        if below:
            return commands[below[0]]
        near = os.path.dirname(near)
    return None


def check_public(source, cc, cxx):
    include = ["-I" + os.path.join(source, "include")]
    for path in sorted(glob.glob(os.path.join(source, "include/shoal/*.h"))):
        header = "shoal/" + os.path.basename(path)
        yield header + " (C11)", compile_twice(cc + ["-std=c11"] + STRICT + include, "c", header)
        yield header + " (C++17)", compile_twice(cxx + ["-std=c++17"] + STRICT + include, "c++",
                                                 header)


def check_internal(source, build):
    commands = commands_by_folder(build)
    src = os.path.join(source, "src")
    for path in sorted(glob.glob(os.path.join(src, "**/*.h"), recursive=True)):
        header = os.path.relpath(path, src)
        if re.search(r"_tmpl\.h$", header):
            continue
        command = command_for(os.path.dirname(path), commands, source)
        if command is None:
            yield header, "no compile command for its folder\n"
            continue
        yield header, compile_twice(command + ["-Wall", "-Wextra", "-Werror", "-fsyntax-only"],
                                    "c", header)


def main(arguments):
    cxx = [word[len("--cxx="):] for word in arguments if word.startswith("--cxx=")]
    folders = [word for word in arguments if not word.startswith("--")]
    if len(folders) != 2:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    source, build = map(os.path.realpath, folders)
    cc = next(iter(commands_by_folder(build).values()))[:1]
    results = list(check_public(source, cc, cxx or ["c++"])) + list(check_internal(source, build))
    failed = 0
    for header, output in results:
        if output is not None:
            failed += 1
            print("%s does not compile alone:\n%s" % (header, output))
    print("%d of %d compile alone" % (len(results) - failed, len(results)))
    return 1 if failed or not results else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
