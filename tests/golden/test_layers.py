# SPDX-License-Identifier: Apache-2.0
"""Every layer type against real Caffe's numbers (layers/README.md): values, gradients and moved
weights of small nets of one layer, in every plan and at every level of kernels.

The limit. Both programs add at most some hundred terms per value in float; each rounds at 2^-24 and
two such sums differ by less than 2 * 2^-24 * sqrt(100) = 1.2e-6 of the blob's norm. exp, log and
pow add a few units each, and steps in a chain (LSTM, SPP) as much again: 4e-6 is room for three.
Seen are 4e-7; a wrong rule shows as 1e-2, a coefficient off by a thousandth as 1e-4 and more. Below
a root mean square of 1e-2 errors count absolutely."""
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
LAYERS = os.path.join(HERE, "layers")
sys.path.insert(0, os.path.join(HERE, ".."))
sys.path.insert(0, LAYERS)
import cases
import harness

LIMIT = 4e-6
FLOOR = 1e-2
LOSS = "loss"


def parse(text):
    """{case: {(kind, name): (shape, values)}}; a failed case is {"error": text}."""
    found = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "case":
            rows = found[rest] = {}
        elif kind == "error":
            rows["error"] = rest
        elif kind == "saved":
            rows["saved"] = rest
        elif kind == LOSS:
            rows[LOSS, ""] = ("-", [float(rest)])
        else:
            name, shape, *values = rest.split()
            rows[kind, name] = (shape, [float(v) for v in values])
    return found


def numbers(shape):
    """Caffe counts what has no axes as one value; a label of it may be written 1."""
    return [] if shape in ("-", "1") else [int(n) for n in shape.split("x")]


def difference(want, got):
    """Why two blobs are not the same, or None."""
    if numbers(want[0]) != numbers(got[0]) or len(want[1]) != len(got[1]):
        return "shape %s (%d values), Caffe's %s" % (got[0], len(got[1]), want[0])
    size = max(harness.norm(want[1]), FLOOR * len(want[1]) ** 0.5)
    error = harness.norm([a - b for a, b in zip(want[1], got[1])]) / size if size else 0
    if error <= LIMIT:
        return None
    worst = max(range(len(want[1])), key=lambda i: abs(want[1][i] - got[1][i]))
    return "error %.2g; [%d] is %.9g, Caffe's %.9g" % (
        error, worst, got[1][worst], want[1][worst])


def compare(want, got, complete):
    """What differs between two cases. complete: all that Caffe has must be there."""
    if "error" in got:
        return ["refused: " + got["error"]]
    wrong = []
    for key, row in want.items():
        if key in got:
            why = difference(row, got[key])
            wrong += ["%s %s: %s" % (key + (why,))] if why else []
        elif complete:
            wrong.append("%s %s is missing" % key)
    return wrong


def expected():
    return parse(harness.read_text(os.path.join(LAYERS, "expected.txt")))


class Layers(harness.Case):
    def outcome(self, level, plan):
        self.write("cases.txt", "".join(text for _, text in cases.CASES))
        with open(self.path("infogain.binaryproto"), "wb") as f:
            f.write(cases.infogain())
        runner = os.path.join(os.path.dirname(harness.binary), "tests", "tools", "layer_cases")
        done = subprocess.run([runner, "cases.txt", level, plan], cwd=self.path(), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              timeout=harness.PATIENCE)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return parse(done.stdout)

    def test_saved_weights(self):
        """A .caffemodel of real Caffe, loaded and written again, is the same to the byte."""
        names = [f for f in os.listdir(LAYERS) if f.endswith(".caffemodel")]
        self.assertGreaterEqual(len(names), 7)
        for name in names:
            shutil.copyfile(os.path.join(LAYERS, name), self.path(name))
        got = self.outcome("c", "plain")
        wrong = {name: got[name[:-11]].get("saved", got[name[:-11]].get("error"))
                 for name in names if got[name[:-11]].get("saved") != "same"}
        self.assertEqual(wrong, {})

    def check(self, level, plan):
        want, got = expected(), self.outcome(level, plan)
        self.assertEqual(sorted(want), sorted(name for name, _ in cases.CASES))
        self.assertEqual(sorted(want), sorted(got))
        wrong = []
        for name, rows in want.items():
            wrong += ["%s: %s" % (name, w) for w in compare(rows, got[name], plan == "plain")]
        self.assertEqual(wrong, [], "%d differences:\n%s" % (len(wrong), "\n".join(wrong)))

    def test_reference_kernels(self):
        self.check("c", "plain")

    def test_best_kernels(self):
        self.check("best", "plain")

    def test_shared(self):
        self.check("best", "shared")

    def test_fused(self):
        self.check("best", "fused")

    def test_recompute(self):
        self.check("best", "recompute")

    def test_comparison_can_fail(self):
        row = ("2x2", [1.0, -2.0, 0.5, 3.0])
        self.assertIsNone(difference(row, row))
        self.assertIn("shape", difference(row, ("4", row[1])))
        self.assertIn("[1]", difference(row, ("2x2", [1.0, -2.001, 0.5, 3.0])))
        self.assertIn("error", difference(row, ("2x2", [1.0, float("nan"), 0.5, 3.0])))
        self.assertEqual(len(compare({("diff", "x"): row}, {}, True)), 1)


if __name__ == "__main__":
    harness.main()
