# SPDX-License-Identifier: GPL-2.0-only
"""Runs the tests in the guest; the exit status says whether all passed and the kernel's log has nothing to complain of."""

import re
import sys
import time
import traceback

sys.path.insert(0, "/selftest")

import attack
import balancing
import lab
import learning
import schedulers

SPLAT = re.compile(r"BUG|WARNING|Oops|panic|general protection|rcu.*stall|soft lockup|Call Trace|refcount|KASAN|leaked", re.I)
# The kernel's own start-up says these.
HARMLESS = re.compile(r"out-of-tree|verification failed|rcu: |RCU |Command line|calibrate|PCI:|report a bug", re.I)


def main():
    wanted = sys.argv[1:]
    lab.sh(f"insmod {lab.MODULE}")
    lab.build()
    passed, failed = [], []
    for module in (balancing, schedulers, learning, attack):
        for name, test in list(vars(module).items()):
            if not name.startswith("test_") or (wanted and name not in wanted):
                continue
            started = time.monotonic()
            try:
                test()
                passed.append(name)
                print(f"ok   {name} ({time.monotonic() - started:.1f} s)", flush=True)
            except BaseException:
                failed.append(name)
                print(f"FAIL {name}", flush=True)
                traceback.print_exc()
    lab.sh("rmmod ipvs_mwlc")
    splats = [line for line in lab.sh("dmesg").splitlines() if SPLAT.search(line) and not HARMLESS.search(line)]
    for line in splats:
        print("dmesg:", line)
    print(f"{len(splats)} lines of complaint in the kernel's log", flush=True)
    print(f"{len(passed)} passed, {len(failed)} failed", flush=True)
    return 1 if failed or splats or not passed else 0


sys.exit(main())
