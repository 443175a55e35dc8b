# SPDX-License-Identifier: Apache-2.0
"""The static programs where nothing of a system is: roots with nothing but /data/local/tmp. ARM's
runs under qemu, as the oldest processor that counts, beside workers of this machine."""
import signal

import android
import common
import harness

LEVELS = ("avx512", "avx2", "c")


class Alone(android.Phone):
    def test_commands(self):
        for arch in ("aarch64", "x86_64"):
            version = self.run_on_phone(arch, "version").out()
            self.assertEqual(version, self.run_shoal("version").out())
            self.assertIn("--join", self.run_on_phone(arch, "worker", "--help").out())
            self.run_on_phone(arch, "device_query")

    def test_names(self):
        """No name is looked up, since that takes files of a system."""
        for arch in ("aarch64", "x86_64"):
            process = self.run_on_phone(arch, "worker", "--join=localhost:4710", code=2)
            self.assertIn("'localhost' is no number", process.err())


class Beside(android.Phone):
    """Gradients of different levels differ in their last bits, but all ranks get the same finished
    sums, and an update has one rounding an operation, whatever it is compiled to. So replicas stay
    equal to the bit. --check_interval=1 compares them after every update: who differs is lost."""

    batch = 12

    def begin_mixed(self, arch, level):
        """A coordinator, workers of this machine's levels, one of the phone."""
        levels = [level for level in LEVELS if level in self.levels()]
        coordinator = self.listen("--balance=off", workers=len(levels) + 1)
        address = self.address(coordinator)
        workers = []
        for level in levels:
            workers.append(self.join(address, "--cpu=" + level, "--name=" + level))
        phone = self.join_from_phone(arch, address, "--cpu=" + level)
        return coordinator, address, workers, phone

    def check_phone(self, arch, level):
        coordinator, address, workers, phone = self.begin_mixed(arch, level)
        everybody = len(workers) + 1
        self.wait_crew(coordinator, everybody)
        self.wait_more(coordinator)
        phone.kill(signal.SIGKILL)
        phone.wait()
        self.wait_crew(coordinator, everybody - 1)
        phone = self.join_from_phone(arch, address, "--cpu=" + level)
        self.wait_crew(coordinator, everybody)
        self.wait_more(coordinator)
        self.stop(coordinator, workers + [phone])
        self.assertEqual(len(self.lost(coordinator)), 1, self.lost(coordinator))
        self.check_same(coordinator)

    def test_aarch64(self):
        self.check_phone("aarch64", "neon")

    def test_x86_64(self):
        self.check_phone("x86_64", "avx2" if "avx2" in self.levels() else "c")


if __name__ == "__main__":
    android.main()
