# SPDX-License-Identifier: GPL-2.0-only
"""Runs the tests in the guest; the exit status says whether all passed and the kernel's log has nothing to complain
of."""

import sys

sys.path.insert(0, "/selftest")

import attack
import balancing
import bounds
import complaints
import draining
import flood
import ingress
import ipv6
import ipv6_services
import lab
import learning
import schedulers
import services
import settings
import takeover
import tools
import uploads
from splats import splats
from verdict import verdict

# The kernel has complained before the module was loaded: it reports no more of the kind, and its lock debugging is off.
UNFIT = 3
FILES = (
    balancing,
    ingress,
    flood,
    ipv6,
    ipv6_services,
    schedulers,
    services,
    draining,
    settings,
    takeover,
    learning,
    tools,
    uploads,
    complaints,
    bounds,
    attack,
)


def chosen(words):
    """The tests that are asked for, as (name, function): a word is a test's name or a file's, and `-` before it takes
    what it names away. All, if nothing is asked for."""
    tests = {
        name: (file.__name__, test) for file in FILES for name, test in vars(file).items() if name.startswith("test_")
    }
    named = {word: {name for name, (file, _) in tests.items() if word.lstrip("-") in (name, file)} for word in words}
    unknown = [word for word, names in named.items() if not names]
    if unknown:
        sys.exit(f"there is no test and no file {' '.join(unknown)}")
    added = [names for word, names in named.items() if not word.startswith("-")]
    taken = [names for word, names in named.items() if word.startswith("-")]
    names = set().union(*added or [tests]) - set().union(*taken)
    return [(name, test) for name, (_, test) in tests.items() if name in names]


def main():
    tests = chosen(sys.argv[1:])
    complaints = splats(lab.sh("dmesg"))
    if complaints:
        print("dmesg, before the module:", *complaints, sep="\n", flush=True)
        return UNFIT
    lab.sh(f"insmod {lab.MODULE}")
    lab.build()
    return verdict(tests, finish=lambda: lab.sh("rmmod ipvs_mwlc"))


sys.exit(main())
