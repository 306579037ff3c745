# SPDX-License-Identifier: GPL-2.0-only
"""What the director promises: order of every scheduler, exact Ci, draining, reuse of ports, statistics, the stock
tools."""

import socket
import struct

from lab import (
    CLIENT,
    HOSTS,
    PATIENCE,
    SERVERS,
    TCP_PORT,
    VIP,
    Connection,
    ask_udp,
    director,
    inside,
    serve,
    service,
    sh,
    until,
)
from nl import Family, Mwlc, address, attribute, family_of

SET_DEST, LOCALNODE = 6, 1

NOTHING = (0, 0, 0, 0)


def servers_of(count, size=10, keep=None):
    """Which server each of `count` connections gets; closed at once, or kept."""
    order = []
    for _ in range(count):
        connection = Connection(size=size)
        order.append(connection.server)
        if keep is None:
            connection.close()
        else:
            keep.append(connection)
    return order


def close_all(connections):
    for connection in connections:
        connection.close()
    connections.clear()


def ends_at_zero():
    """After all connections, every Ci is 0 and nobody is active or pending."""
    mwlc = Mwlc()
    until(lambda: all(load[:3] == (0, 0, 0) for load in mwlc.loads().values()), "every Ci is 0")


def test_rr_goes_round():
    service("rr", (1, 5, 1))
    order = servers_of(6)
    assert order == ["s1", "s2", "s3"] * 2, order
    ends_at_zero()


def test_wrr_interleaves_by_weight():
    service("wrr", (4, 3, 2))
    order = "".join(server[1] for server in servers_of(18))
    assert order == "112123123" * 2, order


def test_lc_takes_the_least_connections():
    service("lc", (1, 1, 1))
    kept = []
    servers_of(3, keep=kept)
    busy = [connection for connection in kept if connection.server == "s2"]
    busy[0].close()
    kept.remove(busy[0])
    mwlc = Mwlc()
    until(lambda: mwlc.loads()["s2"][2] == 0, "s2 free")
    assert servers_of(1, keep=kept) == ["s2"]
    close_all(kept)
    ends_at_zero()


def test_wlc_takes_the_least_connections_for_the_weight():
    service("wlc", (3, 1, 1))
    kept = []
    order = servers_of(10, keep=kept)
    assert [order.count(server) for server in SERVERS] == [6, 2, 2], order
    close_all(kept)
    ends_at_zero()


def test_mwlc_takes_the_least_bytes_for_the_weight():
    service("mwlc", (1, 1, 1))
    mwlc = Mwlc()
    mwlc.expect(1000)
    first = Connection()
    mwlc.set_size(CLIENT, first.port, 1_000_000)
    assert mwlc.loads()[first.server][0] == 1_000_000, mwlc.loads()
    kept = [first]
    order = servers_of(6, keep=kept)
    assert first.server not in order, order
    loads = {server: load[0] for server, load in mwlc.loads().items()}
    assert sorted(loads.values()) == [3000, 3000, 1_000_000], loads
    # Its size is released by the client's FIN.
    first.close()
    until(lambda: mwlc.loads()[first.server][0] == 0, "released by FIN")
    kept.remove(first)
    assert servers_of(1, keep=kept) == [first.server]
    close_all(kept)
    ends_at_zero()


def test_wlc_with_flag_1_is_mwlc():
    director("ipvsadm -C")
    director(f"ipvsadm -A -t {VIP}:80 -s wlc -b flag-1")
    for address in SERVERS.values():
        director(f"ipvsadm -a -t {VIP}:80 -r {address}:80 -g")
    first = Connection()
    Mwlc().set_size(CLIENT, first.port, 1 << 30)
    kept = [first]
    assert first.server not in servers_of(6, keep=kept)
    assert "wlc" in director("ipvsadm -Sn") and "flag-1" in director("ipvsadm -Sn")
    close_all(kept)
    ends_at_zero()


def test_reset_and_timeout_release_the_size():
    service("mwlc")
    mwlc = Mwlc()
    connection = Connection()
    mwlc.set_size(CLIENT, connection.port, 5000)
    connection.reset()
    until(lambda: all(load[0] == 0 for load in mwlc.loads().values()), "released by RST")
    idle = Connection()
    director("ipvsadm --set 1 1 1")
    until(lambda: mwlc.loads()[idle.server][:3] == (0, 0, 0), "released by timeout")
    director("ipvsadm --set 900 120 300")


def test_half_open_connections_count_for_nothing_but_spread():
    service("mwlc")
    mwlc = Mwlc()
    sh("ip link set lo up", ns="client")
    with inside("client"):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for port in range(30000, 30030):
        raw.sendto(segment(port, 0x02), (VIP, 0))
    until(lambda: sum(load[1] for load in mwlc.loads().values()) == 30, f"30 pending: {mwlc.loads()}")
    loads = mwlc.loads()
    assert all(load[0] == 0 and load[2] == 0 for load in loads.values()), loads
    assert [load[1] for load in loads.values()] == [10, 10, 10], loads
    # A reset in SYN_RECV closes the entry.
    for port in range(30000, 30030):
        raw.sendto(segment(port, 0x04), (VIP, 0))
    ends_at_zero()
    raw.close()


def segment(port, flags, ttl=64, options=b""):
    """An IPv4 packet with a TCP header; the checksum of TCP is left out, for the director does not look at it."""
    tcp = struct.pack("!HHIIBBHHH", port, TCP_PORT, 1, 1, 0x50, flags, 8192, 0, 0)
    words = 5 + len(options) // 4
    return (
        struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | words,
            0,
            words * 4 + len(tcp),
            1,
            0,
            ttl,
            6,
            0,
            socket.inet_aton(CLIENT),
            socket.inet_aton(VIP),
        )
        + options
        + tcp
    )


def test_weight_zero_quiesces_and_keeps_its_connections():
    service("mwlc")
    kept = []
    servers_of(3, keep=kept)
    director(f"ipvsadm -e -t {VIP}:80 -r {SERVERS['s2']}:80 -g -w 0")
    assert "s2" not in servers_of(6)
    mine = next(connection for connection in kept if connection.server == "s2")
    assert mine.fetch(1000) == "s2"
    close_all(kept)
    ends_at_zero()


def test_a_removed_server_resets_its_clients_instead_of_a_black_hole():
    service("rr")
    kept = []
    servers_of(3, keep=kept)
    gone = next(connection for connection in kept if connection.server == "s3")
    director(f"ipvsadm -d -t {VIP}:80 -r {SERVERS['s3']}:80")
    try:
        gone.fetch(10)
        raise AssertionError("the connection went on")
    except ConnectionResetError:
        pass
    kept.remove(gone)
    assert "s3" not in servers_of(4)
    close_all(kept)
    ends_at_zero()


def test_no_server_is_said_at_once():
    service("mwlc", (0, 0, 0))
    try:
        Connection()
        raise AssertionError("a connection without a server")
    except ConnectionRefusedError:
        pass


def test_a_reused_port_starts_a_new_connection_at_once():
    service("rr")
    connection = Connection(port=40000)
    first = connection.server
    connection.reset()
    again = Connection(port=40000)
    assert again.server != first
    again.close()
    ends_at_zero()


def test_udp_and_its_fragments():
    service("rr", protocol="u")
    assert [ask_udp(b"x" * size) for size in (10, 1000, 20000)] == ["s1", "s2", "s3"]


def test_ttl_ends_here():
    service("rr")
    with inside("client"):
        icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    icmp.settimeout(5 * PATIENCE)
    raw.sendto(segment(31000, 0x02, ttl=1), (VIP, 0))
    while True:
        reply = icmp.recv(1000)
        if reply[20:22] == b"\x0b\x00":
            break
    icmp.close()
    raw.close()


def test_icmp_errors_reach_the_server_that_they_are_about():
    service("rr")
    connection = Connection()
    with inside(connection.server):
        icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    icmp.settimeout(5 * PATIENCE)
    with inside("client"):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    embedded = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 1500, 1, 0x4000, 60, 6, 0, socket.inet_aton(VIP), socket.inet_aton(CLIENT)
    ) + struct.pack("!HHI", TCP_PORT, connection.port, 7)
    message = struct.pack("!BBHHH", 3, 4, 0, 0, 1400) + embedded
    checksum = sum(struct.unpack(f"!{len(message) // 2}H", message))
    checksum = ~((checksum & 0xFFFF) + (checksum >> 16)) & 0xFFFF
    message = message[:2] + struct.pack("!H", checksum) + message[4:]
    header = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(message),
        1,
        0,
        64,
        1,
        0,
        socket.inet_aton("10.0.0.10"),
        socket.inet_aton(VIP),
    )
    raw.sendto(header + message, (VIP, 0))
    got = icmp.recv(1000)
    assert got[20:22] == b"\x03\x04" and got[28:] == embedded, got
    icmp.close()
    raw.close()
    connection.close()


def test_too_long_a_packet_is_answered_with_the_mtu():
    service("rr", protocol="u")
    for address in SERVERS.values():
        director(f"ip route add {address} dev eth0 mtu lock 1300")
    with inside("client"):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    udp.connect((VIP, 53))

    def learned():
        try:
            udp.send(b"x" * 1400)
        except OSError as error:
            assert error.errno == 90, error
            return True
        return False

    until(learned, "the client learns the MTU")
    assert udp.getsockopt(socket.IPPROTO_IP, 14) == 1300  # IP_MTU
    udp.close()
    # What may be fragmented is.
    assert ask_udp(b"x" * 5000) in SERVERS
    for address in SERVERS.values():
        director(f"ip route del {address}")
    sh("ip route flush cache", ns="client")


def test_the_director_may_serve_as_well():
    serve("director")
    director(f"ipvsadm -C && ipvsadm -A -t {VIP}:80 -s rr")
    director(
        f"ipvsadm -a -t {VIP}:80 -r {HOSTS['director']}:80 -g && ipvsadm -a -t {VIP}:80 -r {SERVERS['s1']}:80 -g"
    )
    assert servers_of(4) == ["director", "s1"] * 2
    ends_at_zero()
    # How packets are sent is the connection's: another method is for those to come, as in IPVS.
    director(f"ipvsadm -d -t {VIP}:80 -r {HOSTS['director']}:80")
    connection = Connection()
    assert connection.server == "s1"
    key = attribute(1, family_of(VIP)) + attribute(2, struct.pack("=H", 6))
    key += attribute(3, address(VIP)) + attribute(4, struct.pack("!H", TCP_PORT))
    dest = attribute(1, address(SERVERS["s1"])) + attribute(2, struct.pack("!H", TCP_PORT))
    numbers = ((3, LOCALNODE), (4, 1), (5, 0), (6, 0))
    dest += b"".join(attribute(kind, struct.pack("=I", number)) for kind, number in numbers)
    Family("IPVS").call(SET_DEST, attribute(1, key) + attribute(2, dest))
    connection.fetch(10)
    assert servers_of(2) == ["director"] * 2
    close_all([connection])
    ends_at_zero()


def test_expected_sizes_are_learned_when_asked():
    service("mwlc")
    mwlc = Mwlc()
    mwlc.expect(1000, policy=1)
    first = Connection()
    assert mwlc.connections()[first.port][1] == 1000
    mwlc.set_size(CLIENT, first.port, 64000)
    second = Connection()
    assert mwlc.connections()[second.port][1] == 64000, mwlc.connections()
    close_all([first, second])
    ends_at_zero()


def test_stock_ipvsadm_round_trip():
    director("ipvsadm -C")
    rules = "".join(
        f"-A -t 10.1.0.{n}:80 -s {scheduler}\n"
        + "".join(f"-a -t 10.1.0.{n}:80 -r 10.2.0.{d}:80 -g -w {d * n}\n" for d in range(1, 5))
        for n, scheduler in enumerate(("rr", "wrr", "lc", "wlc", "mwlc"), 1)
    )
    rules += "-A -u 10.1.0.1:53 -s wlc\n"
    director("ipvsadm -R", stdin=rules)
    assert director("ipvsadm -Sn") == rules, director("ipvsadm -Sn")
    assert "10.2.0.4:80" in director("ipvsadm -Ln -t 10.1.0.5:80")
    for command, word in (
        ("-A -t 10.1.0.1:80 -s rr", "Service already exists"),
        ("-a -t 10.1.0.1:80 -r 10.2.0.1:80 -g", "Destination already exists"),
        ("-d -t 10.1.0.1:80 -r 10.9.9.9:80", "No such destination"),
        ("-D -t 10.9.9.9:80", "No such service"),
        ("-A -t 10.1.0.9:80 -s nonesuch", "Scheduler or persistence engine not found"),
        ("-a -t 10.1.0.1:80 -r 10.2.0.9:80 -m", ""),
    ):
        status, text = director(f"ipvsadm {command}", check=False)
        assert status != 0 and word in text, (command, status, text)
    assert director("ipvsadm -Sn") == rules
    director("ipvsadm --set 100 0 30")
    assert "100 120 30" in director("ipvsadm -L --timeout")
    director("ipvsadm --set 900 120 300")
    # Two hundred servers do not fit one message of a dump.
    many = "-A -t 10.3.0.1:80 -s mwlc\n" + "".join(
        f"-a -t 10.3.0.1:80 -r 10.4.0.{n}:80 -g -w 1\n" for n in range(1, 201)
    )
    director("ipvsadm -C && ipvsadm -R", stdin=many)
    assert director("ipvsadm -Sn") == many
    director("ipvsadm -C")
    assert director("ipvsadm -Sn") == ""


def test_statistics_count_and_zero():
    service("rr")
    servers_of(6)
    numbers = [line.split()[2:] for line in director("ipvsadm -Ln --stats --exact").splitlines() if "->" in line][1:]
    assert [row[0] for row in numbers] == ["2", "2", "2"], numbers
    assert all(int(row[1]) >= 10 and int(row[3]) >= 400 and row[2] == row[4] == "0" for row in numbers), numbers
    until(
        lambda: any(
            int(line.split()[3])
            for line in director("ipvsadm -Ln --rate --exact").splitlines()
            if f"{VIP}:80" in line
        ),
        "a rate",
    )
    director("ipvsadm -Z")
    assert director("ipvsadm -Ln --stats --exact").splitlines()[3].split()[2:] == ["0"] * 5
    listing = director("ipvsadm -Lcn")
    assert listing.count("FIN_WAIT") >= 6, listing


def test_namespaces_are_apart():
    service("rr")
    assert sh("ipvsadm -Sn", ns="client") == ""
    sh(f"ipvsadm -A -t {VIP}:80 -s wlc", ns="client")
    assert director("ipvsadm -Sn").startswith(f"-A -t {VIP}:80 -s rr")
    sh("ipvsadm -C", ns="client")
    assert servers_of(3) == ["s1", "s2", "s3"]
