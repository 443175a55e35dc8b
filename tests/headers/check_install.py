#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Installs into a folder and builds programs against what is there, with pkg-config alone: in C and
C++, with the shared and the static library.

    check_install.py BUILD --cc=COMPILER --cxx=COMPILER [--flags=FLAGS]
"""
import os
import shlex
import subprocess
import sys
import tempfile

PROGRAM = """
#include <shoal/shoal.h>
#include <stdio.h>
#include <string.h>
int main(void) {
    ShoalTrainOptions options;
    ShoalError error;
    memset(&options, 0, sizeof options);
    memset(&error, 0, sizeof error);
    options.solver = "nowhere.prototxt";
    ShoalStatus status = shoal_train(&options, &error);
    printf("%s|%s|%s\\n", shoal_version(), shoal_status_text(status), error.text);
    return status == SHOAL_ERR_IO ? 0 : 1;
}
"""


def run(command, **keywords):
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            timeout=300, **keywords)
    if result.returncode:
        sys.exit("%s\n%s" % (" ".join(command), result.stdout))
    return result.stdout


def pkg_config(root, *arguments):
    folders = [folder for folder, _, names in os.walk(root) if "shoal.pc" in names]
    if not folders:
        sys.exit("shoal.pc is not installed")
    path = os.pathsep.join(folders + os.environ.get("PKG_CONFIG_PATH", "").split(os.pathsep))
    words = run(["pkg-config", *arguments, "shoal"], env=dict(os.environ, PKG_CONFIG_PATH=path))
    return shlex.split(words)


def build_and_run(root, compiler, suffix, flags, static):
    source = os.path.join(root, "program" + suffix)
    program = os.path.join(root, "program")
    with open(source, "w", encoding="utf-8") as file:
        file.write(PROGRAM)
    words = pkg_config(root, "--cflags", "--libs", *(["--static"] if static else []))
    folder = [word[2:] for word in words if word.startswith("-L")][0]
    if static:
        words = [os.path.join(folder, "libshoal.a") if w == "-lshoal" else w for w in words]
    run(shlex.split(compiler) + ["-Wall", "-Werror", *flags, source, *words, "-o", program])
    environment = dict(os.environ)
    if not static:
        environment["LD_LIBRARY_PATH"] = folder
    output = run([program], env=environment, cwd=root)
    if "nowhere.prototxt" not in output:
        sys.exit("the program says: " + output)


def main(arguments):
    options = dict(word[2:].split("=", 1) for word in arguments if word.startswith("--"))
    build = os.path.abspath([word for word in arguments if not word.startswith("--")][0])
    flags = shlex.split(options.get("flags", ""))
    with tempfile.TemporaryDirectory() as root:
        prefix = os.path.join(root, "any where")
        run(["cmake", "--install", build, "--prefix", prefix],
            env={name: value for name, value in os.environ.items() if name != "DESTDIR"})
        for name in ("bin/shoal", "share/man/man1/shoal.1", "include/shoal/status.h"):
            if not os.path.isfile(os.path.join(prefix, name)):
                sys.exit(name + " is not installed")
        for static in (False, True):
            build_and_run(root, options["cc"], ".c", ["-std=c11", *flags], static)
            build_and_run(root, options["cxx"], ".cc", ["-std=c++17", *flags], static)
    print("4 programs built against the installed library")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
