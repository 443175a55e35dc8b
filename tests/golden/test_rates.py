# SPDX-License-Identifier: Apache-2.0
"""The learning rate of each iteration under every lr_policy, to all six digits that Caffe logs."""
import os

import golden
import harness

CASE = "03-lr-policies"


def table():
    """Column -> rate of each iteration, as text."""
    lines = golden.rows(golden.reference(CASE, "lr_table.txt"))
    return {name: [row[i] for row in lines[1:]] for i, name in enumerate(lines[0]) if i > 0}


class Rates(harness.Case):
    def rates(self, where, name, *flags):
        process = self.train("--solver=solver_%s.prototxt" % name, *flags, folder=where)
        events = process.iterations()
        self.assertEqual([e["iter"] for e in events], list(range(len(events))))
        return ["%g" % e["lr"] for e in events]

    def check(self, *flags):
        where = golden.prepare(self, CASE)
        columns = table()
        files = [f for f in os.listdir(where) if f.startswith("solver_")]
        self.assertEqual(sorted("solver_%s.prototxt" % c for c in columns), sorted(files))
        for name, want in columns.items():
            with self.subTest(policy=name):
                self.assertEqual(self.rates(where, name, *flags), want)
        return where

    def test_one_process(self):
        where = self.check()
        # snapshot_after_train: false leaves nothing behind.
        self.assertEqual([f for f in os.listdir(where) if f.startswith("x_iter")], [])

    def test_cluster(self):
        self.check("--workers=3")

    def test_another_policy_is_seen(self):
        where = golden.prepare(self, CASE)
        path = os.path.join(where, "solver_step.prototxt")
        text = harness.read_text(path)
        with open(path, "w") as f:
            f.write(text.replace("stepsize: 6", "stepsize: 5"))
        self.assertIn("stepsize: 6", text)
        self.assertNotEqual(self.rates(where, "step"), table()["step"])


if __name__ == "__main__":
    harness.main(needs_goldens=True)
