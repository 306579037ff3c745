# SPDX-License-Identifier: GPL-2.0-only
"""Runs tests in the guest, and judges them and the kernel's log."""

import time
import traceback

from lab import sh
from splats import splats


def verdict(tests, finish=lambda: None):
    """Runs tests, given as (name, function), then `finish`. The exit status: 0 if there were some, all passed, and
    the kernel's log has nothing to complain of."""
    passed, failed = [], []
    for name, test in tests:
        started = time.monotonic()
        try:
            test()
            passed.append(name)
            print(f"ok   {name} ({time.monotonic() - started:.1f} s)", flush=True)
        except BaseException:
            failed.append(name)
            print(f"FAIL {name}", flush=True)
            traceback.print_exc()
    finish()
    found = splats(sh("dmesg"))
    for line in found:
        print("dmesg:", line)
    print(f"{len(found)} lines of complaint in the kernel's log", flush=True)
    print(f"{len(passed)} passed, {len(failed)} failed", flush=True)
    return 1 if failed or found or not passed else 0
