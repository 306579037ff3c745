# SPDX-License-Identifier: GPL-2.0-only
"""The bounds of the connection table: what a flood may take, what makes room for what, and that entries end in time."""

import contextlib
import re
import socket
import struct
import subprocess

from attack import mac_of
from balancing import NOTHING, close_all, ends_at_zero, segment, servers_of
from lab import CLIENT, MODULE, SERVERS, TCP_PORT, VIP, Connection, director, inside, service, sh, until
from nl import Mwlc
from services import restore, with_servers

SYN, RST, ACK = 0x02, 0x04, 0x10


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


class Flood:
    """with Flood("syn", 1000): so many clients, each with an address of its own, send while the block runs; at its
    end all have."""

    def __init__(self, kind, clients, first="11.0.0.0", port=TCP_PORT):
        mac = ":".join(f"{byte:02x}" for byte in mac_of("director"))
        which = f"--first {first} --clients {clients} --count {clients}"
        words = f"/vm-packets {kind} --interface eth0 --to {mac} --service {VIP}:{port} {which}"
        self.words = ["ip", "netns", "exec", "client", *words.split()]

    def __enter__(self):
        self.process = subprocess.Popen(self.words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return self

    def goes_on(self):
        return self.process.poll() is None

    def __exit__(self, *_):
        said, _ = self.process.communicate()
        assert self.process.returncode == 0, said


def pending():
    return sum(load[1] for load in Mwlc().loads().values())


def flood_clients():
    """How many clients a flood has: FLOOD of scripts/kmod-test.sh."""
    with open("/selftest/flood_clients", encoding="utf-8") as file:
        return int(file.read())


class sources_that_nobody_reaches:
    """with sources_that_nobody_reaches(): the servers drop what comes from there as soon as they see it, which saves
    an emulated machine most of its work; what is tested is the director."""

    def set(self, number):
        for name in SERVERS:
            sh(f"for d in all eth0; do echo {number} >/proc/sys/net/ipv4/conf/$d/rp_filter; done", ns=name)

    def __enter__(self):
        self.set(1)

    def __exit__(self, *_):
        self.set(0)


def test_a_flood_of_syns_leaves_connections_alone():
    """Each SYN is of another address: a million of them in `make test-flood`. What they take is bounded, they weigh
    nothing, and who is there or comes does not notice."""
    clients = flood_clients()
    # The bound is reached, and then as much again comes five times and more.
    connections_max = clients // 6
    with module_with(f"connections_max={connections_max}"), sources_that_nobody_reaches():
        service("mwlc")
        mwlc, kept = Mwlc(), []
        servers_of(6, keep=kept)
        mwlc.set_size(CLIENT, kept[0].port, 1 << 30)
        before = {server: load[0] for server, load in mwlc.loads().items()}
        come, most = [], 0
        sh("echo flood begins >/dev/kmsg")
        with Flood("syn", clients) as flood:
            while flood.goes_on():
                assert kept[0].fetch(100) == kept[0].server, "who is there goes on"
                come += servers_of(1)
                most = max(most, pending())
        bound = connections_max // 4
        # The real servers' numbers are read one after the other, while connections go from one to the other.
        assert bound // 2 < most <= bound + bound // 20, f"a quarter of the table, half-open: {most}"
        assert pending() <= bound + 2, pending()
        assert len(come) >= 3 and kept[0].server not in come, f"a gigabyte weighs more than any flood: {come}"
        until(lambda: {server: load[0] for server, load in mwlc.loads().items()} == before, "every Ci is as it was")
        assert [connection.fetch(1000) for connection in kept] == [connection.server for connection in kept]
        # Every SYN found room: one made way for it.
        assert "a connection was dropped" not in sh(
            "dmesg | grep -A1000000 'flood begins' || true"
        ), "a SYN found no room"
        print(f"     {clients} SYNs, at most {most} half-open, {len(come)} connections meanwhile", flush=True)
        close_all(kept)
        director("ipvsadm -C")


def persistent():
    """How many templates there are."""
    return sum(
        int(row.split()[3]) for row in director("ipvsadm -Ln --persistent-conn").splitlines()[3:] if "->" in row
    )


def test_a_flood_takes_no_persistence_from_who_has_it():
    """SYNs fill the templates up to their bound and push out each other; established clients keep theirs, and at last
    there is no room. In `make test-flood` the bound is the one by the RAM."""
    clients, asked = flood_clients(), 5_000
    by_ram = clients >= 1_000_000
    with module_with("" if by_ram else f"templates_max={asked}"):
        restore(f"-A -t {VIP}:80 -s rr -p 3600", *with_servers(f"-t {VIP}:80", 80))
        ram = int(re.search(r"MemTotal: +(\d+) kB", sh("cat /proc/meminfo"))[1]) * 1024
        at_most = min(ram // 64 // 256, 1 << 18) if by_ram else asked
        beyond = at_most // 2
        mine = Connection()
        with sources_that_nobody_reaches(), Flood("syn", at_most + beyond):
            pass
        assert at_most // 2 < persistent() <= at_most, (persistent(), at_most)
        again = Connection()
        assert again.server == mine.server, "an established client's template is not pushed out"
        assert "a client is not persistent" not in sh("dmesg"), "SYNs make room for SYNs"
        close_all([mine, again])
        # Who opens connections is no flood: those templates stay, until there is no room.
        with sources_that_nobody_reaches(), Flood("open", at_most + beyond, first="12.0.0.0"):
            pass
        until(lambda: "a client is not persistent: the table has its " in sh("dmesg"), "a line in the log")
        assert persistent() <= at_most, (persistent(), at_most)
        assert len(set(servers_of(1) + servers_of(1))) >= 1, "and clients are served all the same"
        director("ipvsadm -C")
        assert persistent() == 0


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
