# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own test of ip_vs, tools/testing/selftests/net/netfilter/ipvs.sh, unmodified, with this module in its
place."""

import re
import subprocess

from lab import sh

DIRECTORY = "/kselftest/net/netfilter"


def test_the_kernels_own_selftest_passes_for_direct_routing():
    """Its three parts are direct routing, NAT and tunnels. This module does the first, and refuses the others with a
    reason; the stock module, which DIRECTOR=ip_vs puts here, passes all three."""
    done = subprocess.run(["bash", "-x", "./ipvs.sh"], cwd=DIRECTORY, capture_output=True, text=True)
    parts = re.findall(r"^Testing (\w+) mode", done.stdout, re.M)
    assert parts == ["DR", "NAT", "Tunnel"], done.stdout + done.stderr
    # The script sums up; -x shows the sum after each part.
    sums = [int(total) for total in re.findall(r"^\+ errors=(\d+)$", done.stderr, re.M)]
    ours = sh("lsmod | grep -q ^ipvs_mwlc", check=False)[0] == 0
    assert sums == ([0, 1, 2] if ours else [0, 0, 0]), (sums, done.stdout, done.stderr)
    if ours:
        assert done.stderr.count("Operation not supported") == 2, done.stderr
