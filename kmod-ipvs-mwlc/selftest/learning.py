# SPDX-License-Identifier: GPL-2.0-only
"""What the director tells those who listen."""

import socket
import struct

from lab import SERVERS, TCP_PORT, VIP, Connection, director, inside, service, sh
from nl import Mwlc, attributes

(SERVICE_ADDED, SERVICE_EDITED, SERVICE_REMOVED, DEST_ADDED, DEST_EDITED, DEST_REMOVED, DEST_OVERLOADED, DEST_RELIEVED,
 DEST_DRAINED, NO_DEST, FLOOD_BEGAN, FLOOD_ENDED) = range(1, 13)


def told(mwlc):
    """The next event as (kind, real server's address or None, cause)."""
    found = mwlc.message()
    if found is None:
        return None
    command, message = found
    assert command == 14, command
    event = attributes(message[7])
    if 1 in message:
        key = attributes(message[1])
        assert key[3][:4] == socket.inet_aton(VIP) and key[4] == struct.pack("!H", TCP_PORT)
    server = socket.inet_ntoa(attributes(message[2])[2][:4]) if 2 in message else None
    return event[1][0], server, event.get(2, b"").rstrip(b"\0").decode()


def all_told(mwlc):
    events = []
    while (event := told(mwlc)) is not None:
        events.append(event)
    return events


def test_events_tell_of_every_change():
    director("ipvsadm -C")
    mwlc = Mwlc()
    mwlc.listen("events")
    server = SERVERS["s1"]
    for command in (
        f"-A -t {VIP}:{TCP_PORT} -s wlc",
        f"-a -t {VIP}:{TCP_PORT} -r {server} -g -w 1",
        f"-e -t {VIP}:{TCP_PORT} -r {server} -g -w 0",
        f"-E -t {VIP}:{TCP_PORT} -s rr",
        f"-d -t {VIP}:{TCP_PORT} -r {server}",
        f"-D -t {VIP}:{TCP_PORT}",
        f"-A -t {VIP}:{TCP_PORT} -s wlc",
        "-C",
    ):
        director(f"ipvsadm {command}")
    events = all_told(mwlc)
    assert events == [
        (SERVICE_ADDED, None, ""),
        (DEST_ADDED, server, ""),
        (DEST_EDITED, server, ""),
        (SERVICE_EDITED, None, ""),
        (DEST_REMOVED, server, ""),
        (SERVICE_REMOVED, None, ""),
        (SERVICE_ADDED, None, ""),
        (SERVICE_REMOVED, None, ""),
    ], events


def test_events_tell_why_a_client_was_turned_away():
    service("wlc", weights=(0, 0, 0))
    mwlc = Mwlc()
    mwlc.listen("events")
    for _ in range(3):
        try:
            Connection()
            raise AssertionError("connected without a real server")
        except ConnectionRefusedError:
            pass
    causes = [event for event in all_told(mwlc) if event[0] == NO_DEST]
    assert len(causes) == 3 and all("weight 0" in cause for _, _, cause in causes), causes


def test_a_flood_of_refusals_is_no_flood_of_events():
    service("wlc", weights=(0, 0, 0))
    mwlc = Mwlc()
    mwlc.listen("events")
    for _ in range(400):
        with inside("client"):
            one = socket.socket()
        one.setblocking(False)
        one.connect_ex((VIP, TCP_PORT))
        one.close()
    # 100 at once, and 20 a second after that; 400 in a row take less than ten seconds even here.
    events = len(all_told(mwlc))
    assert 100 <= events <= 300, events
    director("ipvsadm -C")


def test_strangers_hear_nothing():
    """Only CAP_NET_ADMIN may listen: others would learn whom the clients talk to."""
    code = "import os, socket; os.setgid(1000); os.setuid(1000); s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16); "
    code += f"s.setsockopt(270, 1, {Mwlc().groups['events']})"
    status, output = sh(f'python3 -c "{code}"', ns="director", check=False)
    assert status != 0 and "Operation not permitted" in output, (status, output)
