# SPDX-License-Identifier: Apache-2.0
"""The engine over MPI by itself: runs engine.c with several numbers of ranks. The program is the
first argument that is left for this script."""
import sys

import launch
import harness


class Engine(launch.Case):
    program = None

    def test_sums_and_copies(self):
        for n in (1, 2, 3, 5):
            with self.subTest(ranks=n):
                process = self.start_ranks(n, self.program)
                self.check_end(process, 0)
                self.assertEqual(process.out().count("passed"), n, process.text())

    def test_it_can_fail(self):
        process = self.start_ranks(2, self.program, "break")
        self.check_end(process, None)
        self.assertIn("FAILED", process.text())


if __name__ == "__main__":
    Engine.program = sys.argv.pop(3)
    harness.main()
