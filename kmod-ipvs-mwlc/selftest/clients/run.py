# SPDX-License-Identifier: GPL-2.0-only
"""Runs the clients' tests in the guest; the exit status says whether all passed and the kernel's log is clean."""

import re
import sys
import time
import traceback

import cluster
import failover
import health
import kernel_tests
import lab
import libraries
import matrix
from splats import splats

MODULES = (health, failover, kernel_tests, libraries, matrix)


def argument(name):
    """A word of the kernel's command line: `name=word`."""
    with open("/proc/cmdline") as file:
        return re.search(rf"\b{name}=(\S+)", file.read())[1]


def main():
    wanted = sys.argv[1:]
    # The stock module's name, for that is what the clients ask for; modprobe's configuration makes it ours.
    lab.sh("modprobe ip_vs")
    lab.sh(f"lsmod | grep -q ^{argument('director')}")
    cluster.build()
    passed, failed = [], []
    for module in MODULES:
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
    found = splats(lab.sh("dmesg"))
    for line in found:
        print("dmesg:", line)
    print(f"{len(found)} lines of complaint in the kernel's log", flush=True)
    print(f"{len(passed)} passed, {len(failed)} failed", flush=True)
    return 1 if failed or found or not passed else 0


sys.exit(failover.machine() if argument("role") == "director" else main())
