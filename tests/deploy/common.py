# SPDX-License-Identifier: Apache-2.0
"""What the tests of `shoal deploy` share."""
import importlib.util
import json
import os
import shutil
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
import harness


def load(name, *path):
    """A module by its file: tests/cluster/common.py has the same name as this one."""
    spec = importlib.util.spec_from_file_location(name, os.path.join(HERE, "..", *path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cluster = load("cluster_common", "cluster", "common.py")
TOKEN = cluster.TOKEN

MACHINE = os.uname().machine
ABI = {"aarch64": "arm64-v8a"}.get(MACHINE, MACHINE)

# Stands for the binary where many devices are the subject: what a device runs, only smaller.
STUB = """#!/bin/sh
case $1 in
version) echo shoal 0.1.0 ;;
worker) echo "Joined with $#: $*"; exec sleep 1000 ;;
doctor) echo '{"verdict": "warning", "findings": [{"what": "link", "verdict": "bad",
"text": "94 Mbit/s", "fix": "another adapter"}], "arguments": "'"$*"'", "token": "'"$SHOAL_TOKEN"'"}' ;;
esac
"""


class Deployment(cluster.Cluster):
    def setUp(self):
        super().setUp()
        self.binaries = self.make("binaries")
        self.temporary = self.make("tmp")
        self.environment = {"SHOAL_TOKEN": TOKEN, "NO_COLOR": "1", "TMPDIR": self.temporary}

    def tearDown(self):
        left = os.listdir(self.temporary)
        super().tearDown()
        self.assertEqual(left, [], "files with the token")

    def use_binary(self, text=None, machine=MACHINE):
        """What is to be sent: the program under test, or a script."""
        path = os.path.join(self.binaries, "shoal-" + machine)
        if text is None:
            shutil.copy(harness.binary, path)
        else:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        return path

    def deploy(self, *flags, code=0, token=True):
        """Runs it with --json; {device: what was told}."""
        environment = dict(self.environment)
        if not token:
            environment["SHOAL_TOKEN"] = None
        flags = list(flags)
        at = flags.index("--") if "--" in flags else len(flags)
        flags[at:at] = ["--json", "--binaries=" + self.binaries]
        process = self.start("deploy", *flags, environment=environment)
        self.assertEqual(process.wait(), code, process.text())
        self.assertNotIn(TOKEN, process.text().replace('"token":"' + TOKEN, ""))
        told = [json.loads(line) for line in process.out().splitlines()]
        found = {line["device"]: line for line in told}
        self.assertEqual(len(found), len(told))
        return found

    def check_gone(self, pid):
        """Nobody may take note of a process that a device has lost: then it stays a zombie."""
        found = harness.stat_of(pid)
        self.assertTrue(found is None or found[0] == "Z", found)

    def states(self, told):
        return {device: line["state"] for device, line in told.items()}
