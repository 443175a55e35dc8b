# SPDX-License-Identifier: Apache-2.0
"""The QR code that a waiting coordinator shows on a terminal; read by zbarimg (Debian: zbar-tools)
where there is one."""

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
import unittest

from harness import BINARY, SANITIZER, TIMEOUT_S, Case

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import netns

BLACK_ON_WHITE = "\033[30;107m"
BLOCKS = " \u2580\u2584\u2588"
CODE_LINE = re.compile("^(?:\033\\[30;107m)?([%s]{29,})(?:\033\\[0m)?\r?$" % BLOCKS, re.M)
SCALE = 4
HAS_LAB, WHY_NOT = netns.available()


@unittest.skipUnless(HAS_LAB, WHY_NOT)
class Code(Case):
    def setUp(self):
        super().setUp()
        self.lab = netns.Lab(1)
        self.addCleanup(self.lab.close)

    def shown(self, columns, **env):
        """What a coordinator prints on a terminal until it waits."""
        self.small()
        try:
            master, slave = pty.openpty()
        except OSError as error:
            self.skipTest("no terminal can be had here: %s" % error)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
        full_env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "SHOAL_TOKEN")}
        full_env.update({"TERM": "xterm-256color"}, **env)
        args = [BINARY, "train", "--solver=solver.prototxt", "--workers=1",
                "--listen=%s:0" % self.lab.address(0), "--announce=off"]
        text, asked, deadline = b"", False, time.monotonic() + TIMEOUT_S
        with subprocess.Popen(args, cwd=self.folder, env=full_env, stdin=subprocess.DEVNULL,
                              stdout=slave, stderr=slave,
                              preexec_fn=self.lab.entry(0)) as process:
            os.close(slave)
            while True:
                if time.monotonic() > deadline:
                    process.kill()
                    self.fail("hangs:\n%s" % text.decode("utf-8", "replace"))
                if not select.select([master], [], [], 1)[0]:
                    if not asked and b"Waiting for" in text:  # it has said all there is to say
                        process.send_signal(signal.SIGINT)
                        asked = True
                    continue
                try:
                    part = os.read(master, 65536)
                except OSError:  # how Linux tells that the other side is closed
                    break
                if not part:
                    break
                text += part
        os.close(master)
        text = text.decode("utf-8")
        self.assertIsNone(SANITIZER.search(text), text)
        return text

    def image(self, lines, light):
        """A PGM of the code; `light`: the module that a block stands for."""
        rows = []
        for line in lines:
            for half in (1, 2):
                rows.append([255 if bool(BLOCKS.index(c) & half) == light else 0 for c in line])
        width, pixels = len(rows[0]) * SCALE, bytearray()
        for row in rows:
            self.assertEqual(len(row) * SCALE, width)
            line = b"".join(bytes([p]) * SCALE for p in row)
            pixels += line * SCALE
        return b"P5 %d %d 255\n" % (width, len(rows) * SCALE) + bytes(pixels)

    def check(self, text, light):
        lines = [m.group(1) for m in CODE_LINE.finditer(text)]
        self.assertGreater(len(lines), 14, text)
        image = self.image(lines, light)
        width = len(lines[0]) * SCALE
        edge = image[-width * SCALE * 4 :]  # the quiet zone
        self.assertEqual(set(edge), {255})
        reader = shutil.which("zbarimg")
        if not reader:
            self.skipTest("no zbarimg here (Debian: zbar-tools): the code was not read")
        with open(self.path("code.pgm"), "wb") as f:
            f.write(image)
        done = subprocess.run([reader, "--quiet", "--raw", self.path("code.pgm")], check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        read = done.stdout.decode().strip()
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertIn("shoal worker --join=%s:" % self.lab.address(0), read)
        self.assertIn(read, [line.strip() for line in text.splitlines()])  # what is to be typed

    def test_in_colour(self):
        text = self.shown(100)
        self.assertIn(BLACK_ON_WHITE, text)
        self.check(text, light=False)

    def test_without_colour(self):
        """Blocks are what is light: most terminals are dark."""
        text = self.shown(100, NO_COLOR="1")
        self.assertNotIn("\033[30", text)
        self.check(text, light=True)

    def test_too_narrow(self):
        text = self.shown(40)
        self.assertIsNone(CODE_LINE.search(text), text)
        self.assertIn("Waiting for", text)


if __name__ == "__main__":
    unittest.main()
