# SPDX-License-Identifier: GPL-2.0-only
"""IPv6 through the director: balancing, errors both ways, what is too long, fragments, extension headers, the tools."""

import socket
import struct
import threading

from lab import (
    CLIENT,
    HOSTS6,
    PATIENCE,
    SERVERS,
    UDP_PORT,
    VIP,
    VIP6,
    Connection,
    director,
    inside,
    serve_tcp,
    serve_udp,
    sh,
    until,
)

CLIENT6, DIRECTOR6 = HOSTS6["client"], HOSTS6["director"]
SERVERS6 = {name: HOSTS6[name] for name in SERVERS}
# There servers speak as over IPv4; at port 80 they count what they get.
PORT6 = 8080
ICMPV6, NEXT_TCP, NEXT_OPTIONS = 58, 6, 60
prepared = False


def prepare():
    """Gives the lab IPv6 addresses and servers, once."""
    global prepared
    if prepared:
        return
    prepared = True
    # The longest prefix would make the VIP the source of what the director itself sends, as to ask a real server,
    # which has it too.
    sh(
        f"ip -n client addr add {CLIENT6}/64 dev eth0 nodad && "
        f"ip -n director addr add {DIRECTOR6}/64 dev eth0 nodad && "
        f"ip -n director addr add {VIP6}/128 dev eth0 nodad preferred_lft 0"
    )
    for name, address in SERVERS6.items():
        sh(f"ip -n {name} addr add {address}/64 dev eth0 nodad && ip -n {name} addr add {VIP6}/128 dev lo nodad")
        serve(name)


def serve(name):
    serve_tcp(name, VIP6, PORT6)
    serve_udp(name, VIP6, UDP_PORT)
    with inside(name):
        listener = socket.create_server((VIP6, 80), family=socket.AF_INET6, backlog=100)

    def accept():
        while True:
            connection = listener.accept()[0]
            connection.sendall(name.encode() + b"\n")
            threading.Thread(target=count, args=(connection,), daemon=True).start()

    def count(connection):
        """Answers how many bytes came, once the client has no more."""
        total = 0
        while data := connection.recv(1 << 16):
            total += len(data)
        connection.sendall(b"%d\n" % total)
        connection.close()

    threading.Thread(target=accept, daemon=True).start()


def service6(scheduler, protocol="t", port=None, options=""):
    prepare()
    port = port or (80 if protocol == "t" else UDP_PORT)
    rules = f"-A -{protocol} [{VIP6}]:{port} -s {scheduler}{options}\n" + "".join(
        f"-a -{protocol} [{VIP6}]:{port} -r [{address}]:{port} -g -w 1\n" for address in SERVERS6.values()
    )
    director("ipvsadm -C")
    director("ipvsadm -R", stdin=rules)
    assert director("ipvsadm -Sn") == rules, director("ipvsadm -Sn")


def connect6():
    with inside("client"):
        connection = socket.socket(socket.AF_INET6)
    connection.settimeout(10 * PATIENCE)
    connection.connect((VIP6, 80))
    stream = connection.makefile("rwb")
    return stream.readline().strip().decode(), connection, stream


def ask_udp6(data):
    with inside("client"):
        udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with udp:
        udp.settimeout(10 * PATIENCE)
        udp.connect((VIP6, 53))
        udp.send(data)
        server, length = udp.recv(100).split()
        assert int(length) == len(data)
        return server.decode()


def test_ipv6_connections_are_balanced():
    service6("mwlc")
    kept = [connect6() for _ in range(6)]
    assert sorted(server for server, _, _ in kept) == ["s1", "s1", "s2", "s2", "s3", "s3"]
    listing = director("ipvsadm -Lcn")
    assert listing.count(f"[{CLIENT6}]:") == 6 and listing.count("ESTABLISHED") == 6, listing
    for _, connection, stream in kept:
        stream.write(b"x" * 2_000_000)
        stream.flush()
        connection.shutdown(socket.SHUT_WR)
        assert stream.readline() == b"2000000\n"
        stream.close()
        connection.close()


def test_ipv6_datagrams_and_their_fragments():
    service6("rr", "u")
    assert [ask_udp6(b"x" * size) for size in (10, 1000, 20000)] == ["s1", "s2", "s3"]


def test_ipv6_without_a_server_is_refused_at_once():
    service6("rr")
    for address in SERVERS6.values():
        director(f"ipvsadm -e -t [{VIP6}]:80 -r [{address}]:80 -g -w 0")
    try:
        connect6()
        raise AssertionError("a connection without a server")
    except (ConnectionRefusedError, OSError) as error:
        assert error.errno in (111, 13), error


def raw6(ns, protocol):
    with inside(ns):
        raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, protocol)
    raw.settimeout(10 * PATIENCE)
    return raw


def syn(port):
    return struct.pack("!HHIIBBHHH", port, 80, 1, 1, 0x50, 0x02, 8192, 0, 0)


def test_the_hop_limit_ends_here():
    service6("rr")
    icmp, raw = raw6("client", ICMPV6), raw6("client", NEXT_TCP)
    raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
    raw.sendto(syn(31000), (VIP6, 0))
    while icmp.recv(2000)[0] != 3:
        pass
    icmp.close()
    raw.close()


def test_extension_headers_are_passed_over():
    service6("rr")
    raw = raw6("client", NEXT_OPTIONS)
    # Destination options with a padding of six bytes.
    raw.sendto(bytes([NEXT_TCP, 0, 1, 4, 0, 0, 0, 0]) + syn(32000), (VIP6, 0))
    until(lambda: "32000" in director("ipvsadm -Lcn"), "a connection of the segment behind the options")
    raw.close()


def test_icmpv6_errors_reach_the_server_that_they_are_about():
    service6("rr")
    server, connection, stream = connect6()
    port = connection.getsockname()[1]
    icmp, raw = raw6(server, ICMPV6), raw6("client", ICMPV6)
    embedded = struct.pack("!IHBB", 0x60000000, 1000, NEXT_TCP, 60) + socket.inet_pton(socket.AF_INET6, VIP6)
    embedded += socket.inet_pton(socket.AF_INET6, CLIENT6) + struct.pack("!HHI", 80, port, 7) + bytes(12)
    # The kernel fills the checksum in. Type 3 would be too old a packet: nobody acts on it.
    raw.sendto(struct.pack("!BBHI", 3, 0, 0, 0) + embedded, (VIP6, 0))
    while (got := icmp.recv(2000))[0] != 3:
        pass
    assert got[8:] == embedded, got
    for one in (icmp, raw, stream, connection):
        one.close()


def test_too_long_an_ipv6_packet_is_answered_with_the_mtu():
    service6("rr", "u")
    for address in SERVERS6.values():
        director(f"ip -6 route add {address} dev eth0 mtu lock 1300")
    with inside("client"):
        udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, 23, 2)  # IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO
    udp.connect((VIP6, 53))

    def learned():
        try:
            udp.send(b"x" * 1400)
        except OSError as error:
            assert error.errno == 90, error
            return True
        return False

    until(learned, "the client learns the MTU")
    assert udp.getsockopt(socket.IPPROTO_IPV6, 24) == 1300  # IPV6_MTU
    udp.close()
    for address in SERVERS6.values():
        director(f"ip -6 route del {address}")
    sh("ip -6 route flush cache", ns="client")


def test_both_families_side_by_side():
    prepare()
    director(f"ipvsadm -C && ipvsadm -A -t {VIP}:80 -s rr && ipvsadm -a -t {VIP}:80 -r 10.0.0.21:80 -g")
    director(f"ipvsadm -A -t [{VIP6}]:80 -s rr && ipvsadm -a -t [{VIP6}]:80 -r [{SERVERS6['s2']}]:80 -g")
    assert director(f"ipvsadm -a -t [{VIP6}]:80 -r 10.0.0.21:80 -g", check=False)[0] != 0
    server, connection, stream = connect6()
    assert server == "s2"
    four = Connection()
    assert four.server == "s1"
    listing = director("ipvsadm -Lcn")
    assert f"[{CLIENT6}]:" in listing and f"{CLIENT}:{four.port}" in listing, listing
    for one in (stream, connection, four):
        one.close()
