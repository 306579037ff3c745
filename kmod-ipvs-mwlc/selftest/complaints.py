# SPDX-License-Identifier: GPL-2.0-only
"""What operators of LVS complain of most, one test each; docs/OPERATING.md has the table with the answers."""

import re
import socket
import struct

import tools
from balancing import close_all, ends_at_zero, segment, servers_of
from draining import RAMP_PERMILLE, Director, is_reset, on
from lab import CLIENT, SERVERS, VIP, Connection, director, inside, service, sh, until


def test_complaint_1_a_drain_has_an_end():
    """Weight 0 alone lingers as long as the last client does; a drain says until when."""
    service("wlc")
    mwlc, kept = Director(), []
    servers_of(3, keep=kept)
    mwlc.drain("s1", 3_600_000)
    assert "s1" not in servers_of(4) and on("s1", kept).fetch(1000) == "s1", "its clients go on"
    mwlc.drain("s1", 0)
    until(lambda: mwlc.loads()["s1"] == (0, 0, 0, 0), "nothing is left of s1")
    close_all(kept)
    ends_at_zero()


def test_complaint_1_nothing_that_is_removed_is_a_black_hole():
    """Whatever goes, its clients hear of it with their next segment."""
    for gone, command in (
        ("s2", f"ipvsadm -d -t {VIP}:80 -r {SERVERS['s2']}:80"),
        (None, f"ipvsadm -D -t {VIP}:80"),
        (None, "ipvsadm -C"),
    ):
        service("rr")
        kept = []
        servers_of(3, keep=kept)
        director(command)
        for connection in kept:
            assert is_reset(connection) == (gone in (None, connection.server)), (command, connection.server)
        close_all(kept)
    ends_at_zero()


def syn_retransmissions():
    """How often the client had to say a SYN again so far."""
    names, numbers = [
        line.split() for line in sh("cat /proc/net/netstat", ns="client").splitlines() if line.startswith("TcpExt:")
    ]
    return int(dict(zip(names, numbers))["TCPSynRetrans"])


def has_socket(server, client_port):
    """Whether a real server still has a socket for a port of the client's."""
    remote_ends = [line.split()[2] for line in sh("cat /proc/net/tcp", ns=server).splitlines()[1:]]
    return any(end.endswith(f":{client_port:04X}") for end in remote_ends)


def test_complaint_2_a_reused_port_costs_no_retransmission():
    """A SYN that finds an entry in a closing state begins a new connection: it is not sent to a server that drops it.
    """
    service("rr")
    sh("echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse; echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse_delay", ns="client")
    before = syn_retransmissions()
    servers = []

    def connects(how_it_ends):
        try:
            connection = Connection(port=40123)
        except OSError as error:
            # The client's own TIME_WAIT has to be a tick old.
            assert error.errno == 99, error
            return False
        servers.append(connection.server)
        how_it_ends(connection)
        # With a tick for TIME_WAIT the next SYN can overtake this connection's last ACK. A real server that waits for
        # that one in LAST_ACK answers its next SYN with an ACK, with a director or without, and the SYN has to be
        # said again.
        until(lambda: not has_socket(connection.server, connection.port), "the real server has ended it too")
        return True

    for how_it_ends in [Connection.close, Connection.reset] * 5:
        until(lambda: connects(how_it_ends), "the port can be used again")
    assert servers == (["s1", "s2", "s3"] * 4)[:10], f"each was scheduled: {servers}"
    assert syn_retransmissions() == before
    sh("echo 2 >/proc/sys/net/ipv4/tcp_tw_reuse; echo 1000 >/proc/sys/net/ipv4/tcp_tw_reuse_delay", ns="client")
    ends_at_zero()


QUIET = 6


def test_complaint_3_a_long_quiet_connection_is_not_cut():
    """After its timeout it counts for nothing, and goes on when the client speaks again."""
    service("mwlc")
    mwlc = Director()
    quiet = Connection()
    mwlc.set_size(CLIENT, quiet.port, 5000)
    director("ipvsadm --set 1 1 1")
    until(lambda: mwlc.connections()[quiet.port][0] == QUIET, "it is quiet")
    assert mwlc.loads()[quiet.server] == (0, 0, 0, 1)
    assert f"{quiet.port}" in director("ipvsadm -Lcn") and "QUIET" in director("ipvsadm -Lcn")
    director("ipvsadm --set 900 120 300")
    assert quiet.fetch(1000) == quiet.server
    assert mwlc.connections()[quiet.port] == (2, 5000) and mwlc.loads()[quiet.server] == (5000, 0, 1, 0)
    quiet.close()
    ends_at_zero()


def test_complaint_3_no_quiet_connection_holds_up_a_drain():
    """They are kept on real servers that may have connections, and while half of the table is free."""
    mwlc, kept = Director(), []

    def all_quiet():
        states = mwlc.connections()
        return all(states[connection.port][0] == QUIET for connection in kept)

    service("rr")
    servers_of(3, keep=kept)
    director("ipvsadm --set 1 1 1")
    until(all_quiet, "three are quiet")
    gone = on("s2", kept)
    director(f"ipvsadm -e -t {VIP}:80 -r {SERVERS['s2']}:80 -g -w 0")
    director("ipvsadm --set 900 120 300")
    # Nobody that is quiet holds up who drains one. A sweep looks once a minute, and when a timeout has become shorter.
    director("ipvsadm --set 900 120 299")
    until(lambda: gone.port not in mwlc.connections(), "the one of s2 has ended")
    assert is_reset(gone), "and its client is told when it speaks"
    director("ipvsadm --set 900 120 300")
    kept.remove(gone)
    assert [connection.fetch(10) for connection in kept] == [connection.server for connection in kept]
    close_all(kept)
    ends_at_zero()


def test_complaint_4_who_answers_arp_for_the_virtual_address_is_found():
    service("wlc")
    assert tools.complaints() == []
    sh("echo 0 >/proc/sys/net/ipv4/conf/all/arp_ignore", ns="s2")
    ((subject, text),) = tools.complaints()
    assert subject == VIP and SERVERS["s2"] in text and "arp_ignore" in text, text
    sh("echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore", ns="s2")


def test_complaint_5_a_refusal_says_why():
    """Not "no destination available": which service, why, what to do."""
    director("ipvsadm -C")
    causes = []
    for command, words in (
        (f"ipvsadm -A -t {VIP}:80 -s wlc", "no real server"),
        (f"ipvsadm -a -t {VIP}:80 -r {SERVERS['s1']}:80 -g -w 0", "weight 0"),
        (f"ipvsadm -e -t {VIP}:80 -r {SERVERS['s1']}:80 -g -w 1 -x 1", "threshold"),
    ):
        director(command)
        held = Connection() if "-x 1" in command else None
        try:
            Connection()
            raise AssertionError(f"after {command} somebody serves")
        except ConnectionRefusedError:
            causes.append(words)
        if held:
            held.close()
    # The log has one line of a service in 10 s, with the cause of that moment; every refusal is in the counters.
    log = [line for line in sh("dmesg").splitlines() if f"TCP {VIP}:80: a client was refused" in line]
    assert log and re.search(r"no real server|weight 0|threshold", log[-1]), log
    counts = [struct.unpack("=Q", Director().service()[kind])[0] for kind in (14, 15, 16)]
    assert counts == [1, 1, 1], counts


def test_complaint_6_what_is_saved_is_all():
    """Thresholds, timeouts and what this director adds: stock ipvsadm -S has none of them."""
    tools.fresh()
    text = (
        f"--set 600 60 77\n-A -t {VIP}:80 -s mwlc\nset -t {VIP}:80 --expected-size 30000000 --size-policy learned\n"
        f"-a -t {VIP}:80 -r 10.0.0.21:80 -g -w 3 -x 100 -y 50\n"
    )
    director(f"{tools.ADM} restore", stdin=text)
    saved = director(f"{tools.ADM} save")
    tools.fresh()
    director(f"{tools.ADM} restore --clear", stdin=saved)
    assert director(f"{tools.ADM} save") == saved
    assert all(word in saved for word in ("--set 600 60 77", "-x 100 -y 50", "--expected-size 30000000")), saved
    assert "-x" not in director("ipvsadm -Sn")
    tools.fresh()


def test_complaint_7_counters_are_exact_when_they_are_read():
    """They are summed by the reader, whenever it reads; no walk over all of them runs behind packets' backs."""
    service("rr")
    for round in range(1, 6):
        servers_of(3)
        rows = [line.split() for line in director("ipvsadm -Ln --stats --exact").splitlines() if "->" in line][1:]
        assert [row[2] for row in rows] == [str(round)] * 3, rows
    ends_at_zero()


def test_complaint_8_a_large_download_and_a_new_server_are_known():
    """Who fetches 1 GB counts as 1 GB, and who is new does not get every connection at once."""
    service("mwlc")
    mwlc, kept = Director(), []
    first = Connection()
    kept.append(first)
    mwlc.set_size(CLIENT, first.port, 1 << 30)
    assert first.server not in servers_of(6, keep=kept)
    mwlc.slow_start(3_600_000)
    director(
        f"ipvsadm -d -t {VIP}:80 -r {SERVERS[first.server]}:80 && "
        f"ipvsadm -a -t {VIP}:80 -r {SERVERS[first.server]}:80 -g -w 1"
    )
    assert struct.unpack("=I", mwlc.dest(first.server)[RAMP_PERMILLE])[0] < 1000
    order = servers_of(6, keep=kept)
    assert order.count(first.server) <= 1, f"a newcomer counts with a twentieth of its weight: {order}"
    kept.remove(first)
    first.close()
    close_all(kept)
    ends_at_zero()


def test_complaint_also_a_flood_of_syns_does_not_steer():
    """Half-open connections are no load, and a reset ends them."""
    service("lc")
    mwlc = Director()
    with inside("client"):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for port in range(33000, 33060):
        raw.sendto(segment(port, 0x02), (VIP, 0))
    until(lambda: sum(load[1] for load in mwlc.loads().values()) == 60, "60 half-open connections")
    assert all(load[0] == load[2] == 0 for load in mwlc.loads().values()), mwlc.loads()
    for port in range(33000, 33060):
        raw.sendto(segment(port, 0x04), (VIP, 0))
    raw.close()
    ends_at_zero()
