# SPDX-License-Identifier: Apache-2.0
"""The static programs do with the system calls that an app of Android may make (see
src/cli/phone_start.c)."""
import os
import re
import signal
import subprocess
import sys

import android
import common
import harness

SANDBOX = [sys.executable, os.path.join(android.HERE, "sandbox.py")]
COMPILERS = {"x86_64": ["cc"], "aarch64": ["aarch64-linux-gnu-gcc"]}


class Confined(android.Phone):
    """On x86-64, under a filter as bionic's."""

    batch = 12

    def confined(self, *arguments, **how):
        program = how.pop("program", android.binary("x86_64"))
        return self.start(*arguments, program=program, prefix=SANDBOX, **how)

    def test_filter(self):
        """An ordinary program does not even start there."""
        process = self.confined("version", program=harness.binary)
        self.assertEqual(process.wait(), -signal.SIGSYS, process.text())

    def test_workers_of_its_own(self):
        self.write("short.prototxt", harness.solver(6))
        process = self.confined("train", "--solver=short.prototxt", "--workers=2")
        self.assertEqual(process.wait(), 0, process.text())

    def test_one_process(self):
        self.write("short.prototxt", harness.solver(6))
        process = self.confined("train", "--solver=short.prototxt", "--log-json=@LOG")
        self.assertEqual(process.wait(), 0, process.text())
        self.assertEqual(len(process.iterations()), 6)
        calm = self.train("--solver=short.prototxt")
        self.assertEqual(common.losses_of(calm), common.losses_of(process))

    def test_worker(self):
        """With a cache, whose files it makes, renames and removes."""
        coordinator = self.listen("--balance=off", workers=2)
        address = self.address(coordinator)
        worker = self.join(address)
        cache = self.path("cache")
        flags = ("worker", "--join=" + address, "--name=phone", "--cache-dir=" + cache)
        secret = {"SHOAL_TOKEN": common.TOKEN}
        phone = self.confined(*flags, environment=secret)
        self.wait_crew(coordinator, 2)
        self.wait_more(coordinator)
        phone.kill(signal.SIGKILL)
        phone.wait()
        self.wait_crew(coordinator, 1)
        phone = self.confined(*flags, environment=secret)
        self.wait_crew(coordinator, 2)
        self.wait_more(coordinator)
        self.stop(coordinator, [worker, phone])
        self.check_same(coordinator)


class Seen(android.Phone):
    """What ARM's program calls: qemu tells."""

    batch = 12

    def test_worker(self):
        coordinator = self.listen("--balance=off", workers=1)
        phone = self.join_from_phone(
            "aarch64", self.address(coordinator), "--cache-dir=cache", qemu=["-strace"]
        )
        coordinator.wait_iteration(5)
        self.stop(coordinator, [phone])
        calls = re.findall(r"^\d+ (\w+)\(", phone.err(), re.M)
        self.assertIn("clone", calls)
        self.assertIn("sendmsg" if "sendmsg" in calls else "sendto", calls)
        strange = set(calls) - android.ALLOWED - android.TOLERATED
        self.assertEqual(strange, set(), "no app of Android may call these")
        self.check_tolerated(phone.err())

    def check_tolerated(self, text):
        """In each thread SIGSYS is no longer blocked before the first of those that raise it."""
        ready = 0
        for line in text.splitlines():
            if re.match(r"\d+ rt_sigprocmask\(SIG_UNBLOCK,", line):
                ready += 1
            elif re.match(r"\d+ set_robust_list\(", line):
                ready -= 1
                self.assertGreaterEqual(ready, 0, line)


class Start(harness.Case):
    def test_handler(self):
        for arch, compiler in COMPILERS.items():
            program = self.path(arch)
            sources = ["tests/phone/start.c", "src/cli/phone_start.c"]
            command = compiler + ["-D_GNU_SOURCE", "-DSHOAL_PHONE", "-std=c11", "-O2"]
            command += ["-static-pie", "-fPIE", "-fno-stack-protector", "-o", program]
            command += ["-I" + os.path.join(android.ROOT, name) for name in ("src", "include")]
            command += [os.path.join(android.ROOT, source) for source in sources]
            for entry, code in ("shoal_phone_start", 0), ("_start", -signal.SIGSYS):
                subprocess.run(command + ["-Wl,--wrap=pthread_sigmask,-e," + entry], check=True)
                run = [android.QEMU, program] if arch == "aarch64" else [program]
                done = subprocess.run(run + ["two", "words"], capture_output=True, text=True)
                self.assertEqual(done.returncode, code, "%s %s: %s" % (arch, entry, done.stderr))


if __name__ == "__main__":
    android.main()
