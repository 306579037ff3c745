# SPDX-License-Identifier: GPL-2.0-only
"""What happens at the configuration's limits (docs/DIRECTOR.md, Limits), and who may not configure at all. The limits
of what packets and files fill are tested where they are filled: flood.py, learning.py, services.py."""

import time

from lab import VIP, director, until
from nl import Mwlc, Refused

NODES_MAX = 1024
SERVICES_MAX = 1024
DESTINATIONS_MAX = 1024
NOBODY = 65534


def restored(lines):
    """How many of them `ipvsadm -R` took, and what it said."""
    _, said = director("ipvsadm -R", check=False, stdin="\n".join(lines) + "\n")
    return director("ipvsadm -Sn").splitlines(), said


def test_a_service_too_many_is_refused():
    director("ipvsadm -C")
    lines = [f"-A -t {VIP}:{port} -s wlc" for port in range(1, SERVICES_MAX + 1)]
    listed, said = restored(lines)
    assert len(listed) == SERVICES_MAX, f"{len(listed)}: {said}"
    status, said = director(f"ipvsadm -A -t {VIP}:2000 -s wlc", check=False)
    assert status != 0, "one too many was taken"
    # One goes, another fits; the rest was not touched.
    director(f"ipvsadm -D -t {VIP}:1 && ipvsadm -A -t {VIP}:2000 -s wlc")
    assert len(director("ipvsadm -Sn").splitlines()) == SERVICES_MAX
    director("ipvsadm -C")


def test_a_real_server_too_many_is_refused():
    director("ipvsadm -C")
    lines = [f"-A -t {VIP}:80 -s mwlc"]
    lines += [
        f"-a -t {VIP}:80 -r 10.1.{number // 250}.{number % 250 + 1}:80 -g" for number in range(DESTINATIONS_MAX)
    ]
    listed, said = restored(lines)
    assert len(listed) == DESTINATIONS_MAX + 1, f"{len(listed)}: {said}"
    status, said = director(f"ipvsadm -a -t {VIP}:80 -r 10.2.0.1:80 -g", check=False)
    assert status != 0, "one too many was taken"
    director(f"ipvsadm -d -t {VIP}:80 -r 10.1.0.1:80 && ipvsadm -a -t {VIP}:80 -r 10.2.0.1:80 -g")
    director("ipvsadm -C")


def test_a_node_too_many_is_refused():
    """Reports are taken of real servers alone, and of so many of them."""
    director("ipvsadm -C")
    servers = [f"10.1.{number // 250}.{number % 250 + 1}" for number in range(NODES_MAX + 1)]
    lines = [
        line
        for port, part in ((80, servers[:-1]), (81, servers[-1:]))
        for line in (f"-A -t {VIP}:{port} -s mwlc", *(f"-a -t {VIP}:{port} -r {one}:{port} -g" for one in part))
    ]
    listed, said = restored(lines)
    assert len(listed) == NODES_MAX + 3, f"{len(listed)}: {said}"
    # Those of other tests count as well until they are five seconds old.
    until(lambda: all(node[3] > 5000 for node in Mwlc().nodes().values()), "no other node reports")
    mwlc, started = Mwlc(), time.monotonic()
    for number, server in enumerate(servers[:-1]):
        mwlc.report(server, number)
    assert len(mwlc.nodes()) == NODES_MAX
    try:
        mwlc.report(servers[-1], 1)
        assert time.monotonic() - started > 5, "one too many was taken"
    except Refused as refused:
        assert refused.errno == 28, refused
    mwlc.report(servers[0], 77)
    assert mwlc.nodes()[servers[0]][0] == 77, "who is known goes on"
    # Who has not reported for five seconds makes room.
    until(lambda: all(node[3] > 5000 for node in mwlc.nodes().values()), "they are silent", 30)
    mwlc.report(servers[-1], 5)
    assert mwlc.nodes()[servers[-1]][0] == 5 and len(mwlc.nodes()) <= NODES_MAX
    director("ipvsadm -C")


def as_user(number, command):
    """The status of a command of user NUMBER in the director's namespace, and what it said."""
    with open("/run/as_user.py", "w", encoding="utf-8") as script:
        script.write(
            "import os, sys\nos.setgid(int(sys.argv[1]))\nos.setuid(int(sys.argv[1]))\n"
            "os.execvp(sys.argv[2], sys.argv[2:])\n"
        )
    return director(f"python3 /run/as_user.py {number} {command}", check=False)


def test_without_the_capability_nothing_is_configured():
    director(f"ipvsadm -C && ipvsadm -A -t {VIP}:80 -s mwlc")
    before = director("ipvsadm -Sn")
    for command in (
        f"ipvsadm -A -t {VIP}:81 -s rr",
        f"ipvsadm -a -t {VIP}:80 -r 10.0.0.21:80 -g",
        f"ipvsadm -E -t {VIP}:80 -s rr",
        f"ipvsadm -D -t {VIP}:80",
        "ipvsadm -Z",
        "ipvsadm --set 1 1 1",
        f"/mwlcadm expect -t {VIP}:80 5",
        "/mwlcadm -C",
        "ipvsadm -C",
    ):
        status, said = as_user(NOBODY, command)
        assert status != 0, f"{command} was obeyed: {said}"
        assert director("ipvsadm -Sn") == before, f"{command} changed something"
    status, said = as_user(0, "ipvsadm -C")
    assert status == 0 and director("ipvsadm -Sn") == "", f"root is refused: {status} {said}"
