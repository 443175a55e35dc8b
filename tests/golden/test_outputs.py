# SPDX-License-Identifier: Apache-2.0
"""`shoal test` prints what `caffe test` prints: every number of every batch, then the means.

The limit. Both sides print 6 digits, so 2 * 5e-6 of a value are lost. A probability is exp of a
score, so the absolute error of the score is its relative error: a score is a sum of 64 terms over
values that are sums of 256, 200 and 25, and below 32 in size. Independent errors of u * sqrt(n) add
to u * sqrt(64 + 256 + 200 + 25) of the size, and there are two implementations: 1e-4 in all. The
residual net's scores are below 8; its sums have 16, 64 (the mean of a plane), 144, 72 (three times)
and 27 terms."""
import math
import os
import re

import golden
import harness

SCORE = 32
LIMIT = 2 * golden.SIX_DIGITS + 2 * golden.UNIT * SCORE * math.sqrt(64 + 256 + 200 + 25)
RESNET_LIMIT = 2 * golden.SIX_DIGITS + 2 * golden.UNIT * 8 * math.sqrt(16 + 64 + 144 + 3 * 72 + 27)
LINE = re.compile(r"(Batch \d+, )?(\w+) = (\S+)(?: \(\* (\S+) = (\S+) loss\))?")


def parse(text):
    """[(place, name, value, loss weight)] of the lines of a test log."""
    found = []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        if match:
            batch, name, value, weight, _ = match.groups()
            found.append((batch or "mean", name, float(value), weight))
    return found


def check(want, got, exact=(), limit=LIMIT):
    assert [w[:2] + w[3:] for w in want] == [g[:2] + g[3:] for g in got], "other lines"
    assert want, "no lines"
    worst = 0
    for (place, name, a, _), (_, _, b, _) in zip(want, got):
        error = abs(a - b) / abs(a) if a else abs(b)
        bound = 0 if name in exact else limit
        assert error <= bound, "%s%s: %.6g, Caffe's %.6g" % (place, name, b, a)
        worst = max(worst, error)
    return worst


class Outputs(harness.Case):
    def run_test(self, where, *flags, iterations=4):
        return self.run_shoal(
            "test",
            "--model=net.prototxt",
            "--weights=weights.caffemodel",
            "--iterations=%d" % iterations,
            *flags,
            folder=where
        ).out()

    def reference(self, name):
        return parse(harness.read_text(golden.reference(name, "test.txt")))

    def test_lenet(self):
        where = golden.prepare(self, "07-test-lenet")
        want = self.reference("07-test-lenet")
        self.assertEqual(len(want), 5 * 253)
        self.check_all(where, want, 4, LIMIT)

    def test_resnet(self):
        where = golden.prepare(self, "07-test-resnet")
        want = self.reference("07-test-resnet")
        self.assertEqual(len(want), 6 * 163)
        self.check_all(where, want, 5, RESNET_LIMIT)

    def check_all(self, where, want, iterations, limit):
        for plan in golden.PLANS:
            for level in self.levels():
                for threads in (1, 2, 3):
                    with self.subTest(plan=plan, level=level, threads=threads):
                        flags = plan + ("--cpu=" + level, "--threads=%d" % threads)
                        text = self.run_test(where, *flags, iterations=iterations)
                        worst = check(want, parse(text), ("top1", "top5"), limit)
                        print("%s: worst %.2g, limit %.2g" % (" ".join(flags), worst, limit))

    def test_the_sum_of_losses_is_printed(self):
        where = golden.prepare(self, "07-test-lenet")
        line = re.compile(r"^Loss: (\S+)$", re.M)
        want = line.findall(harness.read_text(golden.reference("07-test-lenet", "test.txt")))
        got = line.findall(self.run_test(where))
        self.assertEqual(len(got), 1)
        self.assertAlmostEqual(float(got[0]), float(want[0]), delta=LIMIT)

    def test_a_wrong_value_is_seen(self):
        where = golden.prepare(self, "07-test-lenet")
        want, got = self.reference("07-test-lenet"), parse(self.run_test(where))
        for at in (0, 1, 251, len(want) - 3):
            place, name, value, weight = want[at]
            wrong = list(want)
            wrong[at] = (place, name, value * 1.0002, weight)
            with self.assertRaises(AssertionError):
                check(wrong, got)
        with self.assertRaises(AssertionError):
            check(want[:-1], got)

    def test_accuracy_of_ties(self):
        where = golden.prepare(self, "07-accuracy-ties")
        want = self.reference("07-accuracy-ties")
        for level in self.levels():
            with self.subTest(level=level):
                check(want, parse(self.run_test(where, "--cpu=" + level)))


if __name__ == "__main__":
    harness.main(needs_goldens=True)
