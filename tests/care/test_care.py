# SPDX-License-Identifier: Apache-2.0
"""Workers that take care of their device: one of two is a simulated phone, which heats up with the
processor time that the worker takes."""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "cluster")]
import common
import harness
import phone_sim


class Care(common.Cluster):
    batch = 192  # computing is most of what a worker does

    def setUp(self):
        super().setUp()
        self.phones = []

    def tearDown(self):
        for phone in self.phones:
            phone.stop()
        super().tearDown()

    def phone(self, **how):
        phone = phone_sim.PhoneSim(self.make("phone%d" % len(self.phones)), **how)
        self.phones.append(phone)
        return phone

    def join_with(self, address, root, name, *flags):
        return self.start(
            "worker",
            "--join=" + address,
            "--threads=1",
            "--name=" + name,
            *flags,
            folder=self.empty,
            environment={"SHOAL_TOKEN": common.TOKEN, "SHOAL_SYSTEM_ROOT": root}
        )

    def begin_with(self, phone, *flags, train_flags=()):
        """A coordinator, the phone's worker, and one of a device that says nothing."""
        coordinator = self.listen(*train_flags)
        address = self.address(coordinator)
        hot = self.join_with(address, phone.root, "hot", *flags)
        cool = self.join_with(address, self.make("nothing"), "cool")
        coordinator.wait_iteration(3)
        phone.follow(hot.pid)
        return coordinator, hot, cool

    def member(self, event, process):
        """What an iteration's event says of a worker; None: it was no member."""
        found = [i for i, m in enumerate(event["members"]) if common.pid_of(m) == process.pid]
        return event["members"][found[0]] if found else None

    def wait_member(self, what, coordinator, process, check):
        """An iteration of which check(its event, what it says of the worker) is true. Each is
        looked at once."""
        seen = 0

        def found():
            nonlocal seen
            events = coordinator.iterations()
            new, seen = events[seen:], len(events)
            told = [(e, self.member(e, process)) for e in new]
            return [e for e, m in told if m and check(e, m)]

        return harness.wait_for(what, found, coordinator)[0]

    def test_heat(self):
        phone = self.phone()
        coordinator, hot, cool = self.begin_with(phone, train_flags=("--balance=on",))
        # It computes less, before the kernel would lower the clock...
        event = self.wait_member("a lower duty", coordinator, hot, lambda e, m: m["duty"] < 0.8)
        self.assertRegex(self.member(event, hot)["remark"], r"processor has \d+ C; its ceiling is 77")
        # ... and gets less to do.
        self.wait_member(
            "smaller share",
            coordinator,
            hot,
            lambda e, m: m["share"] < 0.8 * self.member(e, cool)["share"],
        )
        seen = len(coordinator.iterations())
        self.wait_member(
            "its temperature",
            coordinator,
            hot,
            lambda e, m: m["temperature"] and m["temperature"] > 60,
        )
        self.wait_more(coordinator)
        self.stop(coordinator, (hot, cool))
        phone.stop()
        self.assertGreater(phone.hottest, 60)  # it was warm at all
        self.assertLess(phone.hottest, phone.trip)
        for event in coordinator.iterations()[seen:]:
            self.assertEqual(event["workers"], 2)
            self.assertEqual(self.member(event, cool)["duty"], 1)
            self.assertIsNone(self.member(event, cool)["temperature"])
        self.assertEqual(coordinator.events("resting"), [])
        self.assertEqual(coordinator.events("lost"), [])
        self.check_unbroken(coordinator)

    def test_without_care(self):
        """The same phone, told not to mind: the simulator can become too hot."""
        phone = self.phone()
        coordinator, hot, cool = self.begin_with(phone, "--max-temp=0")
        harness.wait_for("heat", lambda: phone.hottest > phone.trip, coordinator)
        self.wait_more(coordinator)
        self.stop(coordinator, (hot, cool))
        for event in coordinator.iterations():
            self.assertEqual([m["duty"] for m in event["members"]], [1] * event["workers"])

    def test_low_battery(self):
        phone = self.phone(load=0)
        coordinator, hot, cool = self.begin_with(phone)
        joined = len(coordinator.events("joined"))
        phone.set_battery(5, "Discharging")
        harness.wait_for("rest", lambda: coordinator.events("resting"), coordinator)
        text = coordinator.events("resting")[0]["text"]
        self.assertIn("battery 5 %, not charging; goes on at 20 %", text)
        self.assertIn("hot", text)
        self.wait_crew(coordinator, 1)
        self.assertEqual(coordinator.events("lost"), [])
        self.assertIsNone(hot.poll())  # it waits
        self.wait_more(coordinator)
        told = [r for r in coordinator.iterations()[-1]["resting"] if "hot" in r["name"]]
        self.assertEqual(len(told), 1)
        self.assertIn("battery 5 %", told[0]["reason"])

        phone.set_battery(90, "Charging")
        harness.wait_for(
            "return", lambda: len(coordinator.events("joined")) > joined, coordinator
        )
        self.wait_crew(coordinator, 2)
        self.wait_more(coordinator)
        self.assertEqual(coordinator.iterations()[-1]["resting"], [])
        self.assertEqual(len(coordinator.events("resting")), 1)
        self.stop(coordinator, (hot, cool))
        self.check_unbroken(coordinator)

    def test_charge_limit(self):
        """The kernel's file is set, and set back in the end; where there is none, people are told."""
        for file in (True, False):
            with self.subTest(file=file), self.inside("limit%d" % file):
                self.empty = self.make("empty")
                self.write("net.prototxt", self.net())
                self.write("solver.prototxt", harness.solver(common.ENDLESS))
                phone = self.phone(load=0)
                phone.set_battery(95, "Charging")
                where = os.path.join(phone.root, "sys/class/power_supply/battery",
                                     "charge_control_end_threshold")
                if file:
                    with open(where, "w") as f:
                        f.write("100\n")
                coordinator, hot, cool = self.begin_with(phone, "--charge-limit=80")
                event = self.wait_member(
                    "alarm", coordinator, hot, lambda e, m: "should have 80 % at most" in m["remark"]
                )
                self.assertEqual(self.member(event, cool)["remark"], "")
                said = "is charged to 80 % at most" if file else "cannot be limited from here"
                self.assertIn(said, hot.out())
                if file:
                    self.assertEqual(harness.read_text(where).strip(), "80")
                self.stop(coordinator, (hot, cool))
                if file:
                    self.assertEqual(harness.read_text(where).strip(), "100")

    def test_rests_at_the_begin(self):
        """It does not join before it may; it can be ended while it rests."""
        phone = self.phone(load=0)
        phone.set_battery(5, "Discharging")
        coordinator = self.listen()
        address = self.address(coordinator)
        hot = self.join_with(address, phone.root, "hot")
        harness.wait_for("rest", lambda: "Resting: battery 5 %" in hot.text(), hot)
        self.assertEqual(coordinator.events("joined"), [])
        hot.kill(harness.signal.SIGINT)
        hot.wait()
        coordinator.kill(harness.signal.SIGINT)
        coordinator.wait()


if __name__ == "__main__":
    harness.main()
