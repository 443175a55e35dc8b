# SPDX-License-Identifier: Apache-2.0
"""`shoal deploy --adb`: the real adb client, with a stand-in for its server (fake_adb.py)."""
import os
import shutil
import signal
import stat
import sys

from common import ABI, STUB, TOKEN, Deployment, harness
import fake_adb

JOIN = "--join=127.0.0.1:9"  # the stub does not connect
HOSTILE = "P 'x'; touch /tmp/shoal-hostile $(id) \\ \"\x1b[2J"


class Adb(Deployment):
    def setUp(self):
        super().setUp()
        os.environ[harness.MARK] = self.mark  # also of what devices run: none may be left
        self.devices, self.server = [], None

    def tearDown(self):
        if self.server:
            self.server.close()
        del os.environ[harness.MARK]
        super().tearDown()

    def attach(self, *devices):
        self.devices = list(devices)
        self.server = fake_adb.Server(self.devices)
        self.environment.update(self.server.environment())

    def device(self, serial, **how):
        return fake_adb.Device(serial, self.folder, abi=how.pop("abi", ABI), **how)

    def pid(self, device):
        return int(harness.read_text(device.file("pid")).split()[0])

    def check_worker(self, device, pid):
        """It is in a session of its own, has no terminal and no pipe, and shows no token."""
        with open("/proc/%d/stat" % pid, encoding="utf-8") as f:
            fields = f.read().rpartition(") ")[2].split()
        self.assertNotEqual(os.getsid(pid), os.getsid(0))
        self.assertEqual(fields[4], "0", "it has a terminal")
        targets = [os.readlink("/proc/%d/fd/%d" % (pid, n)) for n in range(3)]
        self.assertEqual(targets, ["/dev/null", device.file("log"), device.file("log")])
        self.assertNotIn(TOKEN, harness.read_text("/proc/%d/cmdline" % pid))

    def test_life_of_a_worker(self):
        self.use_binary(STUB)
        old, new = self.device("OLD1", modern=False), self.device("10.0.0.7:5555", model=HOSTILE)
        self.attach(old, new)
        told = self.deploy("--adb", JOIN, "--", "--threads=2")
        self.assertEqual(set(self.states(told).values()), {"started"})
        self.assertEqual(told["OLD1"]["model"], "Phone")
        self.assertEqual(told["10.0.0.7:5555"]["model"], HOSTILE.replace("\x1b", "?"))
        pids = {}
        for device in self.devices:
            pids[device] = self.pid(device)
            self.check_worker(device, pids[device])
            self.assertEqual(told[device.serial]["pid"], pids[device])
            self.assertIn(JOIN, told[device.serial]["text"])
            self.assertIn("--threads=2", told[device.serial]["text"])
            self.assertEqual([name for name, _ in device.pushes], ["shoal.new", "token.new"])
            self.assertFalse([c for c in device.commands if TOKEN in c])
            self.assertEqual(harness.read_text(device.file("token")), TOKEN + "\n")
            self.assertEqual(stat.S_IMODE(os.stat(device.file("token")).st_mode), 0o600)
            self.assertEqual(stat.S_IMODE(os.stat(device.file("")).st_mode), 0o700)
        self.assertFalse(os.path.exists("/tmp/shoal-hostile"))

        # The same again: nothing is done.
        told = self.deploy("--adb", JOIN, "--", "--threads=2")
        self.assertEqual(set(self.states(told).values()), {"runs"})
        self.assertEqual([self.pid(d) for d in self.devices], list(pids.values()))
        self.assertEqual([len(d.pushes) for d in self.devices], [2, 2])

        # Other flags: another worker, the same binary. Another token or binary: likewise.
        for flags, text, pushes in (
                (("--threads=3",), STUB, 3), (("--threads=3",), STUB + "#\n", 5)):
            self.use_binary(text)
            told = self.deploy("--adb", JOIN, "--", *flags)
            self.assertEqual(set(self.states(told).values()), {"started"})
            for device in self.devices:
                self.assertNotEqual(self.pid(device), pids[device])
                self.check_gone(pids[device])
                pids[device] = self.pid(device)
                self.assertEqual(len(device.pushes), pushes)
        self.environment["SHOAL_TOKEN"] = "another-secret-0123456789"
        told = self.deploy("--serial=OLD1", JOIN, "--", *flags)
        self.assertEqual(self.states(told), {"OLD1": "started"})
        self.environment["SHOAL_TOKEN"] = TOKEN
        last = self.pid(old)
        self.assertNotEqual(last, pids[old])

        told = self.deploy("--adb", "--status", token=False)
        self.assertEqual(set(self.states(told).values()), {"runs"})
        told = self.deploy("--adb", "--logs=1", token=False)
        self.assertIn("Joined with", told["OLD1"]["output"])
        told = self.deploy("--adb", "--doctor", JOIN, "--", "--seconds=1")
        self.assertEqual({line["verdict"] for line in told.values()}, {"warning"})
        report = told["OLD1"]["report"]
        self.assertEqual(report["arguments"], "doctor --json %s --seconds=1" % JOIN)
        self.assertEqual(report["token"], TOKEN)
        told = self.deploy("--adb", "--stop", token=False)
        self.assertEqual(set(self.states(told).values()), {"stopped"})
        told = self.deploy("--adb", "--stop", token=False)
        self.assertEqual(set(self.states(told).values()), {"idle"})
        for device in self.devices:
            self.check_gone(pids[device] if device is new else last)
            self.assertFalse(os.path.exists(device.file("token")))
            self.assertFalse(os.path.exists(device.file("token.new")))

    def test_many_devices(self):
        """138 of them, of which some are of no use and one hangs; none holds up the others."""
        self.use_binary(STUB)
        many = [self.device("S%03d" % i, modern=i % 3 != 0) for i in range(130)]
        odd = {"locked": self.device("locked", state="unauthorized"),
               "away": self.device("away", state="offline"),
               "hung": self.device("hung", hangs=True),
               "full": self.device("full", full=True),
               "small": self.device("small", abi="armeabi-v7a,armeabi"),
               "broken": self.device("broken", breaks=100),
               "once": self.device("once", breaks=1),
               "twice": self.device("twice", boot="S000")}
        self.attach(*many, *odd.values())
        told = self.deploy("--adb", JOIN, "--parallel=24", "--timeout=30", code=1)
        self.assertEqual(len(told), 138)
        wanted = {device.serial: "started" for device in many}
        wanted.update({name: "failed" for name in odd}, once="started", twice="same")
        # Whichever of the two was asked first.
        if told["S000"]["state"] == "same":
            wanted.update(S000="same", twice="started")
        self.assertEqual(self.states(told), wanted)
        for name, text in (("locked", "allow USB debugging"), ("away", "reconnect"),
                           ("hung", "took too long"), ("full", "no space"),
                           ("small", "64-bit ARM"), ("broken", "closed")):
            self.assertIn(text, told[name]["text"])
        self.assertFalse(os.path.exists(odd["full"].file("shoal")))
        self.assertEqual(odd["small"].pushes, [])
        good = [name for name, state in wanted.items() if state == "started"]
        told = self.deploy("--serial=" + ",".join(good), "--stop", token=False)
        self.assertEqual(set(self.states(told).values()), {"stopped"})

    def test_binaries_that_do_not_run(self):
        device = self.device("S1")
        self.attach(device)
        told = self.deploy("--adb", JOIN, code=1)
        self.assertIn("make phone", told["S1"]["text"])
        for text, said in (("#!/bin/sh\necho no luck; exit 3\n", "no luck (code 3)"),
                           ("#!/bin/sh\nkill -SYS $$\n", "Android forbids apps a system call"),
                           ("#!/there/is/none\n", "does not run there")):
            self.use_binary(text)
            told = self.deploy("--adb", JOIN, code=1)
            self.assertIn(said, told["S1"]["text"])
            self.assertFalse(os.path.exists(device.file("shoal")))
            self.assertFalse(os.path.exists(device.file("shoal.new")))
        self.use_binary("#!/bin/sh\n[ $1 = version ] || { echo error: wrong flag >&2; exit 2; }\n")
        told = self.deploy("--adb", JOIN, code=1)
        self.assertIn("ended at once: error: wrong flag", told["S1"]["text"])

    def test_trains(self):
        """The program itself, with a coordinator; the worker goes on after its session's end."""
        self.use_binary()
        self.attach(self.device("S1"), self.device("S2"))
        coordinator = self.listen(workers=2)
        told = self.deploy("--adb", "--join=" + self.address(coordinator), "--", "--threads=1")
        self.assertEqual(set(self.states(told).values()), {"started"})
        self.wait_joined(coordinator, 2)
        self.server.close()  # nothing of adb is left
        self.server = None
        self.wait_more(coordinator)
        names = {m["name"].rpartition(" #")[0] for m in coordinator.iterations()[-1]["members"]}
        self.assertEqual(names, {"Phone-S1", "Phone-S2"})
        self.stop(coordinator)

    def test_what_is_refused(self):
        self.use_binary(STUB)
        self.attach()
        for flags, text in (
                ((JOIN,), "which devices?"),
                (("--adb",), "where is the coordinator?"),
                (("--adb", JOIN, "--discover"), "not both"),
                (("--adb", JOIN, "--", "--token=x"), "the token is no flag"),
                (("--adb", JOIN, "--", "-tok", "x"), "the token is no flag"),
                (("--adb", "--stop", "--status"), "give one of"),
                (("--adb", "--logs=x"), "--logs=LINES"),
                (("--ssh=-oProxyCommand=x", JOIN), "is no host"),
                (("--ssh=a b", JOIN), "is no host")):
            process = self.start("deploy", *flags, environment=self.environment)
            self.assertEqual(process.wait(), 2, process.text())
            self.assertIn(text, process.err())
        process = self.start("deploy", "--adb", JOIN, environment=self.environment)
        self.assertEqual(process.wait(), 1)
        self.assertIn("adb has no device", process.err())
        environment = dict(self.environment, PATH=self.empty)
        process = self.start("deploy", "--adb", JOIN, environment=environment)
        self.assertEqual(process.wait(), 1)
        self.assertIn("apt install adb", process.err())
        process = self.start("deploy", "--adb", JOIN,
                             environment=dict(self.environment, SHOAL_TOKEN=None))
        self.assertEqual(process.wait(), 2)
        self.assertIn("secret is missing", process.err())
        self.assertEqual(self.states(self.deploy("--serial=S9", JOIN, code=1)), {"S9": "failed"})

    def test_interrupted(self):
        self.use_binary(STUB)
        device = self.device("S1", hangs=True)
        self.attach(device)
        temporary = self.temporary
        process = self.start("deploy", "--adb", JOIN, environment=self.environment)
        harness.wait_for("a command", lambda: device.commands, process)
        names = os.listdir(temporary)
        self.assertEqual(len(names), 1)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.join(temporary, names[0])).st_mode), 0o600)
        process.kill(signal.SIGINT)
        self.assertEqual(process.wait(), 1, process.text())
        self.assertIn("stopped on request", process.err())
        self.assertEqual(os.listdir(temporary), [])


if __name__ == "__main__":
    if not shutil.which("adb"):
        print("skipped: there is no program adb (Debian: apt install adb)")
        sys.exit(harness.SKIPPED)
    harness.main()
