# SPDX-License-Identifier: Apache-2.0
"""Runs that go well: what they print, log and write, and every way a solver can name its nets."""

import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
import unittest

from harness import BINARY, NET, SANITIZER, SOLVER, TIMEOUT_S, Case, read

TRAIN = ("train", "--solver=solver.prototxt")
ESCAPE = "\033"
COLOUR = re.compile("\033\\[[0-9;]*m")
PREFIX = r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ shoal\] "

NET_BODY = NET.strip()


class Logs(Case):
    def events(self, *flags):
        self.small()
        self.succeeds(*TRAIN, "--log-json=log", *flags)
        lines = read(self.path("log")).decode().splitlines()
        return [json.loads(line) for line in lines]

    def check(self, events, *more):
        iterations = [e for e in events if e["event"] == "iteration"]
        self.assertEqual([e["iter"] for e in iterations], [0, 2, 4])
        for event in iterations:
            self.assertEqual(set(event), {"event", "iter", "loss", "lr", "images_per_s", *more})
            self.assertAlmostEqual(event["lr"], 0.05, places=7)
            self.assertGreater(event["loss"], 0)
            self.assertGreater(event["images_per_s"], 0)
        tests = [e for e in events if e["event"] == "test"]
        self.assertEqual([e["iter"] for e in tests], [0, 4])
        for event in tests:
            self.assertEqual(set(event), {"event", "iter", "outputs"})
            self.assertEqual(set(event["outputs"]), {"accuracy", "loss"})
            self.assertTrue(0 <= event["outputs"]["accuracy"] <= 1)

    def test_one_process(self):
        events = self.events()
        self.check(events)
        self.assertEqual([e["event"] for e in events],
                         ["start", "test", "iteration", "iteration", "snapshot", "snapshot", "test",
                          "iteration", "snapshot", "snapshot", "final_loss", "end"])

    def test_cluster(self):
        events = self.events("--workers=2")
        self.check(events, "generation", "workers", "communication_ms", "exposed_ms",
                   "samples_mb", "reduced_mb", "cached", "members", "resting", "shares",
                   "images_per_s_by_worker")
        for event in (e for e in events if e["event"] == "iteration"):
            self.assertEqual((event["generation"], event["workers"]), (1, 2))
            self.assertLessEqual(event["exposed_ms"], event["communication_ms"])
            self.assertEqual(sum(m["share"] for m in event["members"]), 8)

    def test_same_numbers_as_on_screen(self):
        self.small()
        out = self.succeeds(*TRAIN, "--log-json=log").out
        for line in read(self.path("log")).decode().splitlines():
            event = json.loads(line)
            if event["event"] == "iteration":
                self.assertIn("Iteration %d, loss = %g\n" % (event["iter"], event["loss"]), out)

    def test_values_that_json_lacks(self):
        self.small(solver=SOLVER.replace("base_lr: 0.05", "base_lr: 1e30"))
        self.succeeds(*TRAIN, "--log-json=log")
        events = [json.loads(line, parse_constant=self.fail)
                  for line in read(self.path("log")).decode().splitlines()]
        self.assertIn(None, [e["loss"] for e in events if e["event"] == "iteration"])

    def test_outputs_of_several_values(self):
        net = NET + ('layer { name: "p" type: "Softmax" bottom: "ip2" top: "p" '
                     "include { phase: TEST } }\n")
        self.small(net=net)
        self.succeeds(*TRAIN, "--log-json=log")
        events = [json.loads(line) for line in read(self.path("log")).decode().splitlines()]
        values = [e["outputs"]["p"] for e in events if e["event"] == "test"][0]
        self.assertEqual(len(values), 8 * 10)
        self.assertAlmostEqual(sum(values), 8, places=3)


class Plain(Case):
    def test_no_escape_codes(self):
        self.small()
        for flags in ((), ("--workers=2",)):
            result = self.succeeds(*TRAIN, *flags, env={"TERM": "xterm-256color"})
            self.assertNotIn(ESCAPE, result.out + result.err)
            self.assertNotIn("\r", result.out)

    def test_lines_of_caffe(self):
        self.small()
        out = self.succeeds(*TRAIN).out
        number = r"[-+0-9.e]+"
        for line in (r"Iteration 0, Testing net \(#0\)",
                     r"    Test net output #0: accuracy = " + number,
                     r"    Test net output #1: loss = %s \(\* 1 = %s loss\)" % (number, number),
                     r"Iteration 2, loss = " + number,
                     r"    Train net output #0: loss = %s \(\* 1 = %s loss\)" % (number, number),
                     r"Iteration 2, lr = 0\.05",
                     r"    Speed: %s images/s" % number,
                     r"Snapshotting to snap_iter_4\.caffemodel",
                     r"Snapshotting to snap_iter_6\.solverstate",
                     r"Iteration 6, loss = " + number,
                     r"Optimization Done\."):
            self.assertRegex(out, "(?m)^" + PREFIX + line + "$")
        self.assertNotIn("Iteration 1,", out)
        self.assertEqual(sorted(f for f in self.files() if "snap" in f),
                         ["snap_iter_4.caffemodel", "snap_iter_4.solverstate",
                          "snap_iter_6.caffemodel", "snap_iter_6.solverstate"])

    def test_tools_that_read_caffes_logs(self):
        """The columns that BVLC Caffe's parse_log.py and parse_log.sh take from a log."""
        self.small()
        out = self.succeeds(*TRAIN).out
        at, rows = None, []
        for line in out.splitlines():
            match = re.search(r"Iteration (\d+)", line)
            at = int(match.group(1)) if match else at
            words = line.split()
            if at is None:
                continue
            month, day = int(words[0][1:3]), int(words[0][3:])
            hour, minute, second = words[1].split(":")
            self.assertTrue(1 <= month <= 12 and 1 <= day <= 31)
            self.assertTrue(int(hour) < 24 and int(minute) < 60 and float(second) < 61)
            for kind in ("Train", "Test"):
                match = re.search(kind + r" net output #(\d+): (\S+) = ([\.\deE+-]+)", line)
                if match:
                    rows.append((kind, at, match.group(2)))
                    self.assertEqual(words[9], "=")
                    self.assertEqual(float(words[10]), float(match.group(3)))
            if ", loss = " in line or ", lr = " in line:
                self.assertEqual(words[7], "=")
                float(words[8])
        self.assertRegex(out, r"(?m)\] Solving ")
        for row in (("Test", 0, "accuracy"), ("Train", 2, "loss"), ("Test", 4, "loss")):
            self.assertIn(row, rows)

    def test_paths_start_at_the_working_folder(self):
        self.small(solver=SOLVER.replace("net.prototxt", "models/net.prototxt")
                   .replace('"snap"', '"out/snap"'))
        for folder in ("models", "out", "elsewhere"):
            os.mkdir(self.path(folder))
        os.rename(self.path("net.prototxt"), self.path("models/net.prototxt"))
        os.rename(self.path("solver.prototxt"), self.path("models/solver.prototxt"))
        self.succeeds("train", "--solver=models/solver.prototxt")
        self.assertTrue(os.path.exists(self.path("out/snap_iter_6.caffemodel")))
        result = self.run_shoal("train", "--solver=models/solver.prototxt")
        self.assertEqual(result.code, 0)


class Terminal(Case):
    """The live panel, on a pseudo terminal of 100 columns."""

    def on_terminal(self, *args, **env):
        try:
            master, slave = pty.openpty()
        except OSError as error:
            self.skipTest("no terminal can be had here: %s" % error)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        full_env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "SHOAL_TOKEN")}
        full_env.update({"TERM": "xterm-256color"}, **env)
        shown, deadline = b"", time.monotonic() + TIMEOUT_S
        with subprocess.Popen([BINARY] + list(args), cwd=self.folder, env=full_env, stdout=slave,
                              stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            os.close(slave)
            while time.monotonic() < deadline:
                if not select.select([master], [], [], 1)[0]:
                    continue
                try:
                    part = os.read(master, 65536)
                except OSError:  # how Linux tells that the other side is closed
                    break
                if not part:
                    break
                shown += part
            else:
                process.kill()
                self.fail("hangs")
            errors = process.stderr.read().decode()
        os.close(master)
        self.assertEqual(process.returncode, 0, errors)
        self.assertIsNone(SANITIZER.search(errors), errors)
        return shown.decode("utf-8")

    def test_panel(self):
        self.small()
        shown = self.on_terminal(*TRAIN)
        self.assertRegex(shown, COLOUR)
        plain = COLOUR.sub("", shown)
        for part in ("Small  ", "█", "░", "100 %  iteration 6/6", "ETA 0:00", "loss ", "lr 0.05",
                     " images/s", "test: accuracy ", "Optimization Done."):
            self.assertIn(part, plain)
        self.assertRegex(plain, r"17 %  iteration 1/6  ETA \d+:\d\d")
        self.assertNotIn("compute/comm./waiting", plain)

    def test_workers(self):
        self.small()
        plain = COLOUR.sub("", self.on_terminal(*TRAIN, "--workers=2"))
        self.assertRegex(plain, r"worker +share +images/s +compute/comm\./waiting")
        for rank in (0, 1):
            self.assertRegex(plain, r"  %d worker-\d #\d+ +4 +\d+(\.\d)?  [█▓░]{20} +\d+ +\d+ +\d+ %%"
                             % rank)

    def test_no_color(self):
        self.small()
        shown = self.on_terminal(*TRAIN, "--workers=2", NO_COLOR="1")
        self.assertNotRegex(shown, COLOUR)
        self.assertIn("iteration 6/6", shown)

    def test_dumb_terminal(self):
        self.small()
        shown = self.on_terminal(*TRAIN, TERM="dumb")
        self.assertNotIn(ESCAPE, shown)
        self.assertIn("Iteration 2, loss = ", shown)

    def test_lines_that_stay(self):
        self.small()
        shown = self.on_terminal(*TRAIN)
        for line in ("Snapshotting to snap_iter_4.caffemodel", "Iteration 4, Testing net (#0)"):
            self.assertEqual(shown.count(line), 1)


class WaysToNameNets(Case):
    def outputs_of(self, solver, files=None, net=NET):
        """Trains; the names of the outputs of every test, in order."""
        self.small(solver=solver, net=net)
        for name, content in (files or {}).items():
            self.write(name, content)
        out = self.succeeds(*TRAIN).out
        self.assertIn("Optimization Done.", out)
        found, names = [], None
        for line in out.splitlines():
            if "Testing net" in line:
                names = []
                found.append((int(line.split("#")[1][0]), names))
            match = re.search(r"\]     Test net output #\d+: (\w+) = ", line)
            if match:
                names.append(match.group(1))
        return found

    SHORT = SOLVER.replace('net: "net.prototxt"\n', "").replace("test_iter: 2\n", "").replace(
        "test_interval: 4", "test_interval: 6")
    BOTH = ["accuracy", "loss"]

    def test_net(self):
        self.assertEqual(self.outputs_of(SOLVER), [(0, self.BOTH)] * 2)

    def test_net_param_inline(self):
        solver = self.SHORT + "net_param {\n" + NET_BODY + "\n}\ntest_iter: 1\n"
        self.assertEqual(self.outputs_of(solver, net="not a net"), [(0, self.BOTH)] * 2)

    def test_train_net_and_test_net(self):
        solver = self.SHORT + 'train_net: "train.txt"\ntest_net: "test.txt"\ntest_iter: 1\n'
        train = NET.replace('layer { name: "accuracy"', 'layer { name: "unused"')
        test = NET.replace('top: "accuracy"', 'top: "hits"')
        self.assertEqual(self.outputs_of(solver, {"train.txt": train, "test.txt": test}),
                         [(0, ["hits", "loss"])] * 2)

    def test_params_inline(self):
        solver = (self.SHORT + "train_net_param {\n" + NET_BODY + "\n}\ntest_net_param {\n" +
                  NET_BODY.replace('top: "accuracy"', 'top: "hits"') + "\n}\ntest_iter: 1\n")
        self.assertEqual(self.outputs_of(solver), [(0, ["hits", "loss"])] * 2)

    def test_several(self):
        # In Caffe's order: test_net_param, test_net, then the net itself.
        solver = (self.SHORT + 'net: "net.prototxt"\ntest_net: "other.txt"\ntest_net_param {\n' +
                  NET_BODY.replace('top: "accuracy"', 'top: "inline"') +
                  "\n}\ntest_iter: 1\ntest_iter: 2\ntest_iter: 3\n")
        other = NET.replace('top: "accuracy"', 'top: "hits"')
        expected = [(0, ["inline", "loss"]), (1, ["hits", "loss"]), (2, self.BOTH)]
        self.assertEqual(self.outputs_of(solver, {"other.txt": other}), expected * 2)

    def test_stages_and_levels(self):
        net = NET.replace("include { phase: TEST }", 'include { phase: TEST stage: "deep" } '
                          "include { phase: TEST min_level: 2 }")
        solver = (self.SHORT + 'net: "net.prototxt"\ntest_iter: 1\ntest_iter: 1\ntest_iter: 1\n'
                  'test_state { stage: "deep" }\ntest_state { }\ntest_state { level: 2 }\n')
        expected = [(0, self.BOTH), (1, ["loss"]), (2, self.BOTH)]
        self.assertEqual(self.outputs_of(solver, net=net), expected * 2)

    def test_train_state(self):
        # The stage brings the only loss: without it, the training is refused.
        net = NET.replace('type: "SoftmaxWithLoss"',
                          'include { phase: TRAIN stage: "go" } include { phase: TEST } '
                          'type: "SoftmaxWithLoss"')
        solver = SOLVER + 'train_state { stage: "go" }\n'
        self.assertEqual(self.outputs_of(solver, net=net), [(0, self.BOTH)] * 2)
        self.write("solver.prototxt", SOLVER)
        self.fails(TRAIN, "no loss in phase TRAIN")

    def test_exclude(self):
        net = NET.replace("include { phase: TEST }", 'exclude { phase: TRAIN } exclude { stage: '
                          '"quiet" }')
        solver = (self.SHORT + 'net: "net.prototxt"\ntest_iter: 1\ntest_iter: 1\n'
                  'test_state { stage: "quiet" }\ntest_state { stage: "loud" }\n')
        self.assertEqual(self.outputs_of(solver, net=net),
                         [(0, ["loss"]), (1, self.BOTH)] * 2)

    def test_both_kinds_of_rules(self):
        net = NET.replace("include { phase: TEST }",
                          "include { phase: TEST } exclude { phase: TRAIN }")
        self.small(net=net)
        self.fails(TRAIN, "net.prototxt:16:1: layer 'accuracy' has both include and exclude rules")

    def test_prefix_from_the_solver_file(self):
        # Caffe: no prefix takes the solver's name, a folder takes it into the folder.
        self.small(solver=SOLVER.replace('snapshot_prefix: "snap"\n', ""))
        self.succeeds(*TRAIN)
        self.assertTrue(os.path.exists(self.path("solver_iter_6.caffemodel")))
        os.mkdir(self.path("out"))
        self.write("solver.prototxt", SOLVER.replace('"snap"', '"out"'))
        self.succeeds(*TRAIN)
        self.assertTrue(os.path.exists(self.path("out/solver_iter_6.caffemodel")))

    def test_force_backward(self):
        self.small(net="force_backward: true\n" + NET)
        self.succeeds(*TRAIN)
        forced = read(self.path("snap_iter_6.caffemodel"))
        self.write("net.prototxt", NET)
        self.succeeds(*TRAIN)
        self.assertEqual(read(self.path("snap_iter_6.caffemodel")), forced)


if __name__ == "__main__":
    unittest.main()
