# SPDX-License-Identifier: Apache-2.0
"""A phone that heats up with the processor time of a real process: a folder that looks like sysfs
(SHOAL_SYSTEM_ROOT names it), which a thread keeps up to date. Standard library only."""
import math
import os
import threading
import time

TICK_S = 0.1
TICK_LONGEST_S = 0.3  # of the phone's time: where this thread was kept waiting, its time stood still


def processor_seconds(pid):
    """User and system time of a process; None: it is gone."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            words = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


class PhoneSim:
    """One mass that loses heat to a warm case. Temperatures in degrees Celsius; `load` is how much
    hotter it becomes in the end with one core at work all the time, `lag_s` how long it takes to
    come to two thirds of that."""

    def __init__(self, root, ambient=45.0, load=110.0, lag_s=20.0, trip=80.0):
        self.root, self.ambient, self.load, self.lag_s, self.trip = root, ambient, load, lag_s, trip
        self.temperature = self.hottest = ambient
        self.ending = threading.Event()
        self.thread = None
        self.put("class/thermal/thermal_zone0/type", "cpu-0-0-usr")
        self.put("class/thermal/thermal_zone0/trip_point_0_type", "passive")
        self.put("class/thermal/thermal_zone0/trip_point_0_temp", "%d" % (trip * 1000))
        self.tell()
        self.set_battery(80, "Charging")

    def put(self, name, text):
        """In one step, as the kernel does it: nobody reads half a file."""
        path = os.path.join(self.root, "sys", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".new", "w") as f:
            f.write(text + "\n")
        os.replace(path + ".new", path)

    def set_battery(self, percent, status):
        folder = "class/power_supply/battery/"
        self.put(folder + "status", status)
        self.put(folder + "capacity", "%d" % percent)
        self.put(folder + "temp", "300")
        self.put(folder + "type", "Battery")

    def tell(self):
        self.put("class/thermal/thermal_zone0/temp", "%d" % (self.temperature * 1000))

    def heat(self, busy, seconds):
        """`busy` is the part of that time for which the process had a core."""
        end = self.ambient + self.load * busy
        self.temperature = end + (self.temperature - end) * math.exp(-seconds / self.lag_s)
        self.hottest = max(self.hottest, self.temperature)

    def follow(self, pid):
        """Until stop()."""
        self.thread = threading.Thread(target=self._run, args=(pid,), daemon=True)
        self.thread.start()

    def _run(self, pid):
        before, used = time.monotonic(), processor_seconds(pid)
        while not self.ending.wait(TICK_S):
            now, total = time.monotonic(), processor_seconds(pid)
            if used is None or total is None:
                return
            passed = now - before
            # The clock that counts processor time is coarse: nothing is lost, some comes later.
            self.heat((total - used) / passed, min(passed, TICK_LONGEST_S))
            self.tell()
            before, used = now, total

    def stop(self):
        self.ending.set()
        if self.thread:
            self.thread.join()
