# SPDX-License-Identifier: Apache-2.0
"""What is built for phones, and whether Android's own C library would do. bionic's headers are not
at hand: glibc's for aarch64 stand in, so what bionic lacks is found by the names that the objects
import."""
import concurrent.futures
import glob
import os
import re
import shutil
import subprocess
import unittest

import android
import harness

API = 28
BUILD = os.path.join(android.ROOT, "build-phone-aarch64")
SYSROOT = os.path.join(android.ROOT, "build-phone-sysroot", "usr")
TOOLS = "aarch64-linux-gnu-"
WARNINGS = "-Wall -Wextra -Wshadow -Wpointer-arith -Wstrict-prototypes -Wmissing-prototypes -Wvla"
WARNINGS += " -Wformat=2 -Wundef"


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


class Program(unittest.TestCase):
    def test_loads_everywhere(self):
        """Nothing to be loaded besides; pages of 4, 16 and 64 KiB; nothing writable is executed."""
        for arch in ("aarch64", "x86_64"):
            headers = output("readelf", "-lWd", android.binary(arch))
            self.assertNotIn("INTERP", headers)
            self.assertNotIn("NEEDED", headers)
            loads = re.findall(
                r"^ +LOAD +(\w+) (\w+) \w+ \w+ \w+ ([RWE ]{3}) (\w+)$", headers, re.M
            )
            self.assertGreaterEqual(len(loads), 2)
            pages = {}
            for offset, address, flags, align in loads:
                self.assertFalse("W" in flags and "E" in flags, flags)
                self.assertEqual(int(align, 16) % 65536, 0, headers)
                self.assertEqual((int(address, 16) - int(offset, 16)) % 65536, 0, headers)
                page = int(address, 16) // 65536
                self.assertEqual(pages.setdefault(page, flags), flags, "one page, two kinds")


class Bionic(unittest.TestCase):
    def known(self):
        """Names -> API level, and what stands for names that only glibc has."""
        levels, other, section = {}, {}, None
        for line in harness.read_text(os.path.join(android.HERE, "bionic.txt")).splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif section == "glibc":
                other.update(pair.split("=") for pair in line.split())
            elif not line.startswith("#"):
                levels.update((name, int(section)) for name in line.split())
        return levels, other

    def symbols(self, *arguments):
        text = output(TOOLS + "nm", "--format=posix", *arguments)
        return {line.split()[0] for line in text.splitlines() if len(line.split()) > 1}

    def test_imports(self):
        if not os.path.isdir(BUILD):
            self.skipTest("`make phone` leaves the objects in build-phone-aarch64")
        objects = glob.glob(BUILD + "/CMakeFiles/**/*.o", recursive=True)
        objects = [name for name in objects if "/phone_start.c" not in name]
        self.assertGreater(len(objects), 100)
        used = self.symbols("--undefined-only", *objects)
        used -= self.symbols("--defined-only", *objects, *glob.glob(SYSROOT + "/lib/*/*.a"))
        used = {name for name in used if not re.match(r"__aarch64_|_GLOBAL_OFFSET_TABLE_", name)}
        used.discard("shoal_qr_print")  # of phone_start.c
        levels, other = self.known()
        strange = sorted(used - set(levels) - set(other))
        self.assertEqual(strange, [], "not in tests/phone/bionic.txt")
        late = sorted(name for name in used & set(levels) if levels[name] > API)
        self.assertEqual(late, [], "not in API %d" % API)

    def test_syntax(self):
        if not shutil.which("clang"):
            self.skipTest("there is no clang; scripts/install_deps.sh test-phone installs it")
        folders = [os.path.join(SYSROOT, "include"), "/usr/aarch64-linux-gnu/include"]
        command = "clang --target=aarch64-linux-android%d -fsyntax-only -std=c11 -Werror" % API
        command = command.split() + WARNINGS.split()
        command += ["-D_GNU_SOURCE", "-DSHOAL_VERSION=\"0\""]
        command += [word for folder in folders for word in ("-isystem", folder)]
        command += ["-I" + os.path.join(android.ROOT, name) for name in ("include", "src")]
        command += ["-isystem", os.path.join(BUILD, "generated")]
        sources = glob.glob(android.ROOT + "/src/**/*.c", recursive=True)
        self.assertGreater(len(sources), 100)

        def check(source):
            return subprocess.run(command + [source], capture_output=True, text=True)

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in pool.map(check, sources):
                self.assertEqual(done.returncode, 0, done.stderr)


class Toolchain(harness.Case):
    """cmake/android-ndk.cmake, with a folder that stands for an NDK."""

    def cmake(self, *flags):
        command = ["cmake", *flags, "-P", os.path.join(android.ROOT, "cmake", "android-ndk.cmake")]
        environment = {k: v for k, v in os.environ.items() if k != "ANDROID_NDK"}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    def test_without(self):
        done = self.cmake()
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no Android NDK", done.stderr)

    def test_defaults(self):
        self.make("ndk/build/cmake")
        self.write(
            "ndk/build/cmake/android.toolchain.cmake",
            'message("${ANDROID_ABI} ${ANDROID_PLATFORM} $ENV{PKG_CONFIG_LIBDIR}")\n',
        )
        ndk = "-DANDROID_NDK=" + self.path("ndk")
        self.assertEqual(self.cmake(ndk).stderr.split(), ["arm64-v8a", "android-%d" % API])
        given = self.cmake(ndk, "-DANDROID_ABI=x86_64", "-DSHOAL_PREFIX=/there")
        self.assertEqual(
            given.stderr.split(), ["x86_64", "android-%d" % API, "/there/lib/pkgconfig"]
        )


if __name__ == "__main__":
    android.main()
