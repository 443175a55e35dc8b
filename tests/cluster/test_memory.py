# SPDX-License-Identifier: Apache-2.0
"""Workers with little memory take smaller shares, in several passes, and the training is the same."""
import os
import unittest

import common  # finds harness
import harness

BATCH = 1024


class Memory(common.Cluster):
    batch = BATCH

    def root(self, free_mb, total_mb=1600):
        """A machine with so much memory that a worker may take, as its kernel describes it: a
        sixteenth of all is left to others."""
        free_mb += total_mb // 16
        name = "phone%d" % free_mb
        self.make(os.path.join(name, "proc"))
        self.write(
            os.path.join(name, "proc", "meminfo"),
            "MemTotal: %d kB\nMemFree: 1000 kB\nMemAvailable: %d kB\n"
            % (total_mb << 10, free_mb << 10),
        )
        return {"SHOAL_SYSTEM_ROOT": self.path(name)}

    def shares(self, coordinator):
        return coordinator.iterations()[-1]["shares"]

    def test_small_phones(self):
        """Neither can take half of the batch: each iteration is made in several rounds."""
        small = self.root(free_mb=12)
        coordinator = self.listen(workers=2)
        address = self.address(coordinator)
        workers = []
        for i in range(2):
            workers.append(self.join(address, environment=small))
            self.wait_joined(coordinator, i + 1)
        coordinator.wait_iteration(4)
        # All of the batch is done, though no worker can hold half of it at a time.
        self.assertLess(sum(self.shares(coordinator)), BATCH)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_a_small_one_beside_a_large_one(self):
        coordinator = self.listen("--balance=off", workers=2)
        address = self.address(coordinator)
        workers = [self.join(address, environment=self.root(free_mb=12))]
        self.wait_joined(coordinator, 1)
        workers.append(self.join(address))
        coordinator.wait_iteration(4)
        small, large = self.shares(coordinator)
        self.assertLess(small, large)
        self.assertEqual(small + large, BATCH)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_too_small(self):
        """Not even one sample: that worker says so and ends; the others need not know."""
        coordinator, address, workers = self.begin_listening(workers=1)
        tiny = self.join(address, environment=self.root(free_mb=0))
        self.assertEqual(tiny.wait(), 1, tiny.text())
        self.assertIn("not even a batch of 1 fits", tiny.err())
        self.wait_more(coordinator, 2)
        self.stop(coordinator, workers)
        self.check_same(coordinator)


if __name__ == "__main__":
    harness.main()
