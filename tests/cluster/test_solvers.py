# SPDX-License-Identifier: Apache-2.0
"""A solver with more state than momentum, in clusters that change: those who join get all of it, and
a run goes on from it to the bit."""
import os
import shutil
import signal

import common
import harness

# delta: what bounds how much a step can tell from rounding where a gradient is all but 0.
ADAM = dict(type='"Adam"', base_lr=0.002, momentum2=0.99, delta=1e-3, snapshot_diff="true")


class Elastic(common.Cluster):
    def rates(self):
        return ADAM

    def test_joined_and_returned(self):
        coordinator, address, workers = self.begin_listening(workers=2)
        workers.append(self.join(address))
        self.wait_crew(coordinator, 3)
        self.wait_more(coordinator, 5)
        victim = workers.pop(0)
        victim.kill(signal.SIGKILL)
        victim.wait()
        self.wait_crew(coordinator, 2)
        workers.append(self.join(address))
        self.wait_crew(coordinator, 3)
        self.wait_more(coordinator, 5)
        self.stop(coordinator, workers)
        self.check_same(coordinator)


class Resume(harness.Case):
    def place(self, name, **solver):
        where = self.make(name)
        os.symlink(self.path("digits"), os.path.join(where, "digits"))
        self.write(os.path.join(name, "net.prototxt"), common.smooth_net(28))
        text = harness.solver(12, snapshot=5, **dict(ADAM, **solver))
        self.write(os.path.join(name, "solver.prototxt"), text)
        return where

    def test_every_type_goes_on_to_the_bit(self):
        harness.make_digits(self)
        adaptive = dict(base_lr=0.01, delta=1e-3)
        types = (
            ("AdaGrad", dict(adaptive, momentum=0)),
            ("RMSProp", dict(adaptive, momentum=0, rms_decay=0.9)),
            ("AdaDelta", dict(adaptive, base_lr=0.1)),
            ("Adam", {}),
            ("Nesterov", {}),
            ("SGD", dict(larc="true", larc_eta=0.05, rampup_interval=7, base_lr=1)),
            ("SGD", dict(local_lr_auto="true", local_gw_ratio=0.02, warmup_iter=7, base_lr=1)),
        )
        for i, (name, solver) in enumerate(types):
            for flags in ((), ("--workers=3", "--check_interval=1")):
                with self.subTest(type=name, flags=flags):
                    label = "%d-%d" % (i, len(flags))
                    solver = dict(solver, type='"%s"' % name)
                    whole = self.place(label, **solver)
                    part = self.place(label + "-part", **solver)
                    run = ("--solver=solver.prototxt", "--threads=1") + flags
                    process = self.train(*run, folder=whole)
                    told = [e["loss"] for e in process.iterations()]
                    self.assertLess(told[-1], told[0])
                    for ending in (".caffemodel", ".solverstate"):
                        shutil.copy(os.path.join(whole, "snap_iter_5" + ending), part)
                    self.train(*run, "--resume=snap_iter_5.solverstate", folder=part)
                    for ending in (".caffemodel", ".solverstate"):
                        file = "snap_iter_12" + ending
                        self.assert_same_file(os.path.join(whole, file), os.path.join(part, file))


if __name__ == "__main__":
    harness.main()
