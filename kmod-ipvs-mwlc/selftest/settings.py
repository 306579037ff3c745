# SPDX-License-Identifier: GPL-2.0-only
"""The variables under net.ipv4.vs, what they do, and who may change anything."""

import os
import socket
import struct

from balancing import close_all, ends_at_zero, segment, servers_of
from draining import Director
from lab import CLIENT, MODULE, SERVERS, TCP_PORT, VIP, Connection, director, inside, service, sh, until
from nl import Family, Mwlc, Refused, attribute, attributes
from services import restore, templates, with_servers

VARIABLES = {
    "am_droprate": 10,
    "amemthresh": 1024,
    "backup_only": 0,
    "cache_bypass": 0,
    "conn_reuse_mode": 2,
    "conntrack": 0,
    "drop_entry": 0,
    "drop_packet": 0,
    "expire_nodest_conn": 1,
    "expire_quiescent_template": 0,
    "ignore_tunneled": 0,
    "ingress": 1,
    "nat_icmp_send": 0,
    "pmtu_disc": 1,
    "run_estimation": 1,
    "schedule_icmp": 0,
    "secure_tcp": 0,
    "sloppy_sctp": 0,
    "sloppy_tcp": 0,
    "snat_reroute": 1,
}


def value(name, ns="director"):
    return int(sh(f"cat /proc/sys/net/ipv4/vs/{name}", ns=ns))


class setting:
    """with setting("sloppy_tcp", 1): as it was afterwards."""

    def __init__(self, name, number):
        self.name, self.number = name, number

    def __enter__(self):
        director(f"echo {self.number} > /proc/sys/net/ipv4/vs/{self.name}")

    def __exit__(self, *_):
        director(f"echo {VARIABLES[self.name]} > /proc/sys/net/ipv4/vs/{self.name}")


def test_variables_have_ranges_and_belong_to_a_namespace():
    assert {name: value(name) for name in director("ls /proc/sys/net/ipv4/vs").split()} == VARIABLES
    for name, number in (
        ("drop_entry", 4),
        ("drop_entry", -1),
        ("sloppy_tcp", 2),
        ("am_droprate", 0),
        ("conntrack", 1),
        ("expire_nodest_conn", 0),
    ):
        status, _ = director(f"echo {number} > /proc/sys/net/ipv4/vs/{name}", check=False)
        assert status != 0 and value(name) == VARIABLES[name], name
    with setting("drop_entry", 3):
        assert value("drop_entry", ns="client") == 0
    with setting("expire_nodest_conn", 1):
        pass


def test_the_log_says_why_a_variable_stays():
    """What kube-proxy, keepalived's users and guides write: it is taken if it is so, else refused with a reason."""
    for name, refused, taken, words in (
        ("conntrack", 1, 0, "stays 0: connections are balanced before connection tracking"),
        ("conn_reuse_mode", 0, 2, "stays 2: a reused port is scheduled anew"),
        ("secure_tcp", 3, 0, "stays 0: half-open connections count for nothing"),
        ("backup_only", 1, 0, "stays 0: there is no sync daemon"),
        ("expire_nodest_conn", 0, 1, "stays 1: clients of a removed real server are told"),
    ):
        file = f"/proc/sys/net/ipv4/vs/{name}"
        director(f"echo {taken} > {file}")

        def said():
            # Another test may have heard the reason in these ten seconds.
            status, _ = director(f"echo {refused} > {file}", check=False)
            assert status != 0 and value(name) == taken, name
            return f"net.ipv4.vs.{name} {words}" in sh("dmesg")

        until(said, f"the reason of {name}", 15)
    for name, number in (("expire_nodest_conn", 1), ("expire_quiescent_template", 1), ("sloppy_tcp", 1)):
        with setting(name, number):
            assert value(name) == number


TCP_S, FIN_S, UDP_S = 4, 5, 6
SET_CONFIG, GET_CONFIG = 12, 13


def timeouts(family):
    answer = attributes(family.call(GET_CONFIG)[0])
    return [struct.unpack("=I", answer[kind])[0] for kind in (TCP_S, FIN_S, UDP_S)]


def test_timeouts_are_set_and_read_as_one():
    """SET_CONFIG and GET_CONFIG themselves: 0 or nothing leaves a timeout as it is, one that is refused changes none,
    a namespace that was never configured has the defaults."""
    director("ipvsadm -C")
    family = Family("IPVS")
    of = {
        kind: lambda number, kind=kind: attribute(kind, struct.pack("=I", number)) for kind in (TCP_S, FIN_S, UDP_S)
    }
    try:
        for request, expected in (
            ([(TCP_S, 600), (FIN_S, 60), (UDP_S, 30)], [600, 60, 30]),
            ([(TCP_S, 0), (FIN_S, 61), (UDP_S, 0)], [600, 61, 30]),
            ([(UDP_S, 31)], [600, 61, 31]),
            ([(TCP_S, 2_147_483)], [2_147_483, 61, 31]),
        ):
            family.call(SET_CONFIG, b"".join(of[kind](number) for kind, number in request))
            assert timeouts(family) == expected, (request, timeouts(family))
            shown = director("ipvsadm -L --timeout")
            assert shown.split(":")[1].split() == [str(number) for number in expected], shown
        for request in ([(TCP_S, 5), (UDP_S, 2_147_484)], [(FIN_S, 0xFFFFFFFF)]):
            try:
                family.call(SET_CONFIG, b"".join(of[kind](number) for kind, number in request))
                raise AssertionError(f"{request} was taken")
            except Refused as refused:
                assert refused.errno == 22 and "2147483 seconds" in refused.message, refused
            assert timeouts(family) == [2_147_483, 61, 31], timeouts(family)
        try:
            family.call(SET_CONFIG, attribute(TCP_S, b"xy"))
            raise AssertionError("two bytes are no number")
        except Refused as refused:
            assert refused.errno == 34 or refused.errno == 22, refused
    finally:
        director("ipvsadm --set 900 120 300")
    sh("ip netns add fresh")
    assert timeouts(Family("IPVS", ns="fresh")) == [900, 120, 300]
    sh("ip netns del fresh")


def syn(port, flags=0x02):
    with inside("client"):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:
        raw.sendto(segment(port, flags), (VIP, 0))


def test_drop_entry_ends_half_open_connections():
    service("rr")
    mwlc, kept = Mwlc(), []
    servers_of(1, keep=kept)
    for port in range(30000, 30100):
        syn(port)
    until(lambda: sum(load[1] for load in mwlc.loads().values()) == 100, "100 half-open")
    with setting("drop_entry", 3):
        # A thirty-second part of the table each second, at random.
        until(lambda: sum(load[1] for load in mwlc.loads().values()) <= 90, "ten of them are gone", 60)
    assert kept[0].fetch(10) == kept[0].server, "an established one is not touched"
    close_all(kept)
    until(lambda: value("drop_entry") == 0, "off")


def test_drop_packet_drops_one_new_flow_of_so_many():
    service("rr")
    mwlc = Mwlc()
    with setting("am_droprate", 4), setting("drop_packet", 3):
        until(lambda: drops_one(mwlc, 31000), "the rate counts", 20)
        before = total(mwlc)
        for port in range(32000, 32040):
            syn(port)
        until(lambda: total(mwlc) == before + 30, "three of four connections")
    for port in range(31000, 33000):
        syn(port, 0x04)


next_port = iter(range(31000, 32000))


def total(mwlc):
    return sum(load[1] for load in mwlc.loads().values())


def drops_one(mwlc, _):
    """Whether one of four new flows is dropped."""
    before = total(mwlc)
    for _ in range(4):
        syn(next(next_port))
    return total(mwlc) < before + 4


def test_automatic_modes_follow_memory():
    service("rr")
    # More than the machine has: memory is short.
    with setting("amemthresh", 2**31 - 1), setting("drop_entry", 1), setting("drop_packet", 2):
        until(lambda: value("drop_entry") == 2 and value("drop_packet") == 2, "both act")
        director(f"echo 0 > /proc/sys/net/ipv4/vs/amemthresh")
        until(lambda: value("drop_entry") == 1 and value("drop_packet") == 1, "both wait")


def test_sloppy_tcp_takes_connections_up_in_the_middle():
    service("sh")
    connection = Connection()
    # This director loses its memory, as one would that stands in for another.
    sh(f"rmmod ipvs_mwlc && insmod {MODULE}")
    with setting("sloppy_tcp", 1):
        service("sh")
        assert connection.fetch(1000) == connection.server
        assert Mwlc().connections()[connection.port][0] == 2, "established"
    connection.close()
    other = Connection()
    sh(f"rmmod ipvs_mwlc && insmod {MODULE}")
    service("sh")
    try:
        other.fetch(10)
        raise AssertionError("a connection without a SYN")
    except ConnectionResetError:
        pass


def test_expire_quiescent_template():
    restore(f"-A -t {VIP}:80 -s rr -p 100", *with_servers(f"-t {VIP}:80", 80))
    first = servers_of(1)[0]
    director(f"ipvsadm -e -t {VIP}:80 -r {SERVERS[first]}:80 -g -w 0")
    assert servers_of(1) == [first]
    with setting("expire_quiescent_template", 1):
        other = servers_of(2)
        assert first not in other and len(templates()) == 1, other
    director("ipvsadm -C")


def test_only_the_owner_of_the_namespace_configures():
    service("rr")
    saved = director("ipvsadm -Sn")
    for name in ("IPVS", "ipvs_mwlc"):
        for uid, user_namespace in ((1000, False), (1000, True)):
            errno = as_user(uid, user_namespace, name)
            assert errno == 1, (name, uid, user_namespace, errno)
    assert director("ipvsadm -Sn") == saved
    # As in IPVS, not even in a network namespace that the user made: each could take a part of the memory.
    assert as_user(1000, True, "IPVS", network=True) == 1
    assert as_user(0, False, "ipvs_mwlc") == 0


def as_user(uid, user_namespace, family, network=False):
    """The errno of flushing (IPVS) or dumping (ours) as a user in the director's namespace; 0 for none."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            # A user cannot come back, nor need the child.
            inside("director").__enter__()
            os.setgid(uid)
            os.setuid(uid)
            if user_namespace:
                os.unshare(os.CLONE_NEWUSER)
            if network:
                os.unshare(os.CLONE_NEWNET)
            own = Family(family, ns=None)
            own.call(17 if family == "IPVS" else 1, dump=family != "IPVS")
            code = 0
        except Refused as refused:
            code = refused.errno
        except OSError as error:
            code = 200 + error.errno % 50
        finally:
            os.write(writing, struct.pack("=i", code))
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    errno = struct.unpack("=i", os.read(reading, 4))[0]
    os.close(reading)
    return errno
