# SPDX-License-Identifier: GPL-2.0-only
"""The bounds of the connection table: what a flood may take, what makes room for what, and that entries end in time."""

import contextlib
import socket
import struct

from balancing import NOTHING, close_all, ends_at_zero, segment, servers_of
from lab import CLIENT, MODULE, SERVERS, VIP, Connection, director, inside, service, sh, until
from nl import Mwlc

SYN, RST, ACK = 0x02, 0x04, 0x10
FLOOD = 20_000


@contextlib.contextmanager
def module_with(parameters):
    """The module loaded anew with these parameters, and without them afterwards."""
    director("ipvsadm -C")
    sh(f"rmmod ipvs_mwlc && insmod {MODULE} {parameters}")
    try:
        yield
    finally:
        sh(f"rmmod ipvs_mwlc && insmod {MODULE}")


class Clients:
    """A client's raw socket, for segments of connections that nobody else knows of."""

    def __enter__(self):
        with inside("client"):
            self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        return self

    def send(self, port, flags, source=CLIENT):
        data = segment(port, flags)
        self.raw.sendto(data[:12] + socket.inet_aton(source) + data[16:], (VIP, 0))

    def __exit__(self, *_):
        self.raw.close()


def states():
    """How many connections are in which state; one that has just ended is in none."""
    counts = {}
    for state, _ in Mwlc().connections().values():
        counts[state] = counts.get(state, 0) + 1
    return counts


HALF_OPEN, ESTABLISHED = 1, 2


def test_a_full_table_drops_and_says_so():
    with module_with("connections_max=10"), Clients() as clients:
        service("rr")
        for port in range(32000, 32030):
            clients.send(port, SYN)
            clients.send(port, ACK)
        until(lambda: "the table has its 10 entries" in sh("dmesg"), "a line in the log")
        assert states() == {ESTABLISHED: 10}, states()


def test_half_open_connections_have_a_share_of_the_table_and_no_more():
    with module_with("connections_max=400"), Clients() as clients:
        service("mwlc")
        for port in range(20000, 20100):
            clients.send(port, SYN)
            clients.send(port, ACK)
        until(lambda: states() == {ESTABLISHED: 100}, "a hundred established")
        for port in range(30000, 31000):
            clients.send(port, SYN)
        until(lambda: states().get(HALF_OPEN, 0) == 100, f"a quarter of 400 half-open: {states()}")
        assert states()[ESTABLISHED] == 100, states()
        # It is full of established ones; half-open ones go first.
        for port in range(21000, 21290):
            clients.send(port, SYN)
            clients.send(port, ACK)
        until(lambda: states().get(ESTABLISHED, 0) == 390, f"established ones make their way: {states()}")
        assert sum(states().values()) <= 400, states()
        assert sum(load[1] for load in Mwlc().loads().values()) == states().get(HALF_OPEN, 0)


def test_a_flood_of_syns_leaves_connections_alone():
    with module_with("connections_max=4000"), Clients() as clients:
        service("mwlc")
        kept = []
        servers_of(6, keep=kept)
        before = {server: load[0] for server, load in Mwlc().loads().items()}
        for number in range(FLOOD):
            source = socket.inet_ntoa(struct.pack("!I", 0x0B000000 + number * 7919 % (1 << 24)))
            clients.send(1024 + number % 60000, SYN, source)
            if number % 1000 == 0:
                # Who is there goes on, and who comes gets in.
                assert len(kept[0].fetch(100)) == 2
                servers_of(1)
        assert {server: load[0] for server, load in Mwlc().loads().items()} == before
        assert states().get(HALF_OPEN, 0) <= 1000, states()
        for connection in kept:
            connection.fetch(1000)
        close_all(kept)


def test_idle_connections_end_within_two_seconds_of_their_time():
    service("mwlc")
    mwlc = Mwlc()
    connections = [Connection() for _ in range(20)]
    # None is kept as a quiet one on a real server of weight 0.
    for server in SERVERS.values():
        director(f"ipvsadm -e -t {VIP}:80 -r {server}:80 -g -w 0")
    director("ipvsadm --set 2 1 2")
    until(lambda: not mwlc.connections(), "all ended", seconds=2 + 2 + 1)
    assert all(load == NOTHING for load in mwlc.loads().values()), mwlc.loads()
    director("ipvsadm --set 900 120 300")
    close_all(connections)


def test_a_reset_in_syn_received_closes_the_entry_at_once():
    service("mwlc")
    with Clients() as clients:
        clients.send(33000, SYN)
        until(lambda: states().get(HALF_OPEN) == 1, "half-open")
        clients.send(33000, RST)
        until(lambda: HALF_OPEN not in states(), "closed")
        # The port is free again at once.
        clients.send(33000, SYN)
        until(lambda: states() == {HALF_OPEN: 1}, f"half-open anew: {states()}")
        clients.send(33000, RST)
    ends_at_zero()
