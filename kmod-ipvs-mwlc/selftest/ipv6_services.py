# SPDX-License-Identifier: GPL-2.0-only
"""What services can do, over IPv6: persistence by prefix, draining, sizes from requests and acknowledgements, node
reports, the tools."""

import json
import os
import socket
import struct

from balancing import close_all
from draining import DRAIN_LEFT_MS, REDISPATCH, Director, is_reset, listening, on
from ipv6 import CLIENT6, DIRECTOR6, PORT6, SERVERS6, service6
from lab import PATIENCE, UDP_PORT, VIP6, Connection, director, inside, sh, until
from learning import EXPECTED, Browser, Mwlcd, learns, size_of, total
from nl import address, attributes
from services import templates
from tools import ADM, background, complaints

SERVICE6 = (VIP6, PORT6)


def connect(count, kept):
    """Which server each of `count` connections gets."""
    for _ in range(count):
        kept.append(Connection(to=SERVICE6))
    return [connection.server for connection in kept[-count:]]


def in_proc(address_text):
    """An address as /proc/net/ip_vs_conn has it."""
    return ":".join(f"{word:04x}" for word in struct.unpack("!8H", socket.inet_pton(socket.AF_INET6, address_text)))


def test_ipv6_networks_persist_by_their_prefix():
    neighbour, stranger = "fd00::1:11", "fd00:0:0:1::10"
    service6("rr", port=PORT6, options=" -p 3600 -M 64")
    kept = []
    first = connect(1, kept)[0]
    assert connect(3, kept) == [first] * 3
    with also_at(neighbour, stranger):
        assert who_answers(neighbour) == first, "of the same /64"
        assert who_answers(stranger) != first, "of another network"
    servers = {key[0]: (server, state) for key, (server, state) in templates().items()}
    assert servers[in_proc("fd00::")] == (in_proc(SERVERS6[first]), "ASSURED") and len(servers) == 2, servers
    listing = director("ipvsadm -Ln --persistent-conn")
    assert sum(int(row.split()[3]) for row in listing.splitlines()[3:] if "->" in row) == 2, listing
    listing = director("ipvsadm -Lcn")
    assert (
        "[fd00::]:0" in listing and director(f"{ADM} -Lcn").count("[fd00::]:0") == listing.count("[fd00::]:0") == 1
    ), listing
    # A removed real server's template goes with it.
    director(f"ipvsadm -d -t [{VIP6}]:{PORT6} -r [{SERVERS6[first]}]:{PORT6}")
    assert all(is_reset(connection) for connection in kept)
    close_all(kept)
    assert first not in connect(2, kept)
    close_all(kept)
    director("ipvsadm -C")
    assert not templates()


class also_at:
    """with also_at(addresses): the client has these addresses as well, and the servers answer there."""

    def __init__(self, *addresses):
        self.addresses = addresses

    def __enter__(self):
        for one in self.addresses:
            sh(f"ip addr add {one}/128 dev eth0 nodad", ns="client")
            for ns in ("director", *SERVERS6):
                sh(f"ip -6 route add {one}/128 via {CLIENT6}", ns=ns)

    def __exit__(self, *_):
        for one in self.addresses:
            sh(f"ip addr del {one}/128 dev eth0", ns="client")
            for ns in ("director", *SERVERS6):
                sh(f"ip -6 route del {one}/128", ns=ns)


def who_answers(client):
    with inside("client"):
        connection = socket.create_connection(SERVICE6, timeout=10 * PATIENCE, source_address=(client, 0))
    with connection:
        connection.send(b"1\n")
        return connection.recv(100).split()[0].decode()


def test_ipv6_real_servers_drain():
    service6("rr", port=PORT6)
    mwlc, kept = Director(vip=VIP6, port=PORT6), []
    connect(3, kept)
    with listening() as events:
        mwlc.drain("s2", 3_600_000)
        assert 3_500_000 < struct.unpack("=Q", mwlc.dest("s2")[DRAIN_LEFT_MS])[0] <= 3_600_000
        assert "s2" not in connect(4, kept) and on("s2", kept).fetch(10) == "s2", "old connections go on"
        mwlc.drain("s2", 0)
        until(lambda: mwlc.loads()["s2"][2] == 0, "s2 is empty")
        assert is_reset(on("s2", kept))
        until(lambda: (9, address(SERVERS6["s2"])) in events(), "the event: drained")
    close_all(kept)
    until(lambda: all(load[:3] == (0, 0, 0) for load in mwlc.loads().values()), "every Ci is 0")


def test_ipv6_datagrams_are_sent_elsewhere_by_a_drain():
    service6("rr", "u")
    mwlc = Director(vip=VIP6, port=PORT6)
    with inside("client"):
        udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with udp:
        udp.settimeout(10 * PATIENCE)
        udp.connect((VIP6, UDP_PORT))

        def ask():
            udp.send(b"x")
            return udp.recv(100).split()[0].decode()

        first = ask()
        assert ask() == first
        mwlc.drain(first, 0, REDISPATCH, protocol=17)
        until(lambda: ask() != first, "another server answers")


def test_ipv6_requests_ask_for_sizes_and_acknowledgements_shrink_them():
    service6("mwlc", port=PORT6)
    mwlc = learns(Director(vip=VIP6, port=PORT6), remaining=1)
    browser = Browser(SERVICE6)
    browser.ask("/100?query", host="[FD00::100]:80")
    host, path, message = mwlc.question()
    assert (host, path) == ("[fd00::100]", "/100"), (host, path)
    conn = attributes(message[3])
    assert (
        struct.unpack("=H", conn[1])[0] == socket.AF_INET6
        and conn[3] == address(CLIENT6)
        and conn[5] == address(VIP6)
    ), conn
    assert conn[4] == struct.pack("!H", browser.port) and conn[6] == struct.pack("!H", PORT6), conn
    assert size_of(mwlc, browser) == EXPECTED
    # The client has got a head and 100 bytes by now.
    mwlc.answer(message, 5_000_000)
    left = size_of(mwlc, browser)
    assert 5_000_000 - 65_536 <= left <= 5_000_000, left
    # A kept connection's next request replaces the size; what is known is not asked for.
    for path, headers, size in (
        ("/7", "Range: bytes=10-19\r\n", 10),
        ("/7", "", 7_000_000),
        ("/7", "If-None-Match: x\r\n", EXPECTED),
    ):
        mwlc.tell_size("files", "/7", 7_000_000)
        browser.ask(path, headers=headers)
        got = size_of(mwlc, browser)
        assert size - 65_536 <= got <= size, (headers, got)
        assert total(mwlc) == got
    assert mwlc.question() is None
    # What is acknowledged counts no more.
    size = 2_000_000
    mwlc.tell_size("files", f"/{size}", size)
    browser.ask(f"/{size}")
    until(lambda: size_of(mwlc, browser) == 0, "all is delivered")
    browser.close()
    until(lambda: total(mwlc) == 0, "every Ci is 0")


def test_ipv6_requests_behind_options_are_read():
    """A destination option in every packet: the segment is found behind it."""
    service6("mwlc", port=PORT6)
    mwlc = learns(Director(vip=VIP6, port=PORT6))
    mwlc.tell_size("files", "/3", 3_000_000)
    with inside("client"):
        plain = socket.socket(socket.AF_INET6)
    # IPV6_DSTOPTS: six bytes of padding.
    plain.setsockopt(socket.IPPROTO_IPV6, 59, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
    with plain:
        plain.settimeout(20 * PATIENCE)
        plain.connect(SERVICE6)
        plain.send(b"GET /3 HTTP/1.1\r\nHost: files\r\n\r\n")
        assert plain.recv(15) == b"HTTP/1.1 200 OK"
        assert mwlc.connections()[plain.getsockname()[1]][1] == 3_000_000
    until(lambda: total(mwlc) == 0, "every Ci is 0")


def test_ipv6_mwlcd_answers_and_passes_reports_on():
    service6("mwlc", port=PORT6)
    mwlc = learns(Director(vip=VIP6, port=PORT6))
    place = "/run/ipv6-root"
    os.mkdir(place)
    for name, content in (("100", b"x" * 54_321), ("key", b"a key of sixteen bytes")):
        with open(f"{place}/{name}", "wb") as file:
            file.write(content)
    listen = f"[{DIRECTOR6}]:7800"
    with Mwlcd("director", f"--root {place} --listen {listen} --key-file {place}/key") as mwlcd:
        until(lambda: "answering questions" in mwlcd.log(), "mwlcd is ready")
        browser = Browser(SERVICE6)
        browser.ask("/100", host="[fd00::100]:8080")
        until(lambda: size_of(mwlc, browser) == 54_321, "the size was answered")
        sizes = json.loads(director(f"{ADM} sizes --json"))["files"]
        assert [(file["host"], file["path"], file["size_bytes"]) for file in sizes] == [
            ("[fd00::100]:8080", "/100", 54_321)
        ], sizes
        browser.close()
        with Mwlcd("s1", f"--node --director {listen} --mount {place} --interval-ms 200 --key-file {place}/key"):
            until(lambda: SERVERS6["s1"] in mwlc.nodes(), "the node's report")
            assert SERVERS6["s1"] in director(f"{ADM} nodes")
    until(lambda: total(mwlc) == 0, "every Ci is 0")


def test_ipv6_asks_a_node_with_head():
    """A director without the mount asks a real server, over IPv6."""
    service6("mwlc", port=PORT6)
    mwlc = learns(Director(vip=VIP6, port=PORT6))
    with inside("s1"):
        listener = socket.create_server((SERVERS6["s1"], 8081), family=socket.AF_INET6)
    with listener, Mwlcd("director", f"--head [{SERVERS6['s1']}]:8081") as mwlcd:
        until(lambda: "answering questions" in mwlcd.log(), "mwlcd is ready")
        browser = Browser(SERVICE6)
        browser.ask("/9")
        listener.settimeout(20 * PATIENCE)
        try:
            node = listener.accept()[0]
        except TimeoutError:
            raise AssertionError(mwlcd.log())
        with node:
            assert node.recv(4096).startswith(b"HEAD /9 HTTP/1.1\r\nHost: files\r\n")
            node.send(b"HTTP/1.1 200 OK\r\nContent-Length: 990000\r\n\r\n")
        until(lambda: size_of(mwlc, browser) == 990_000, "the node's answer counts")
        browser.close()
    until(lambda: total(mwlc) == 0, "every Ci is 0")


def test_ipv6_names_in_the_tools():
    service6("mwlc", port=PORT6)
    service, server = f"[{VIP6}]:{PORT6}", f"[{SERVERS6['s1']}]:{PORT6}"
    monitor = background("monitor --count 1")
    assert monitor.stdout.readline() == "listening\n"
    director(f"{ADM} -e -t {service} -r {server} -w 3")
    said, _ = monitor.communicate(timeout=30 * PATIENCE)
    assert said.split(" ", 1)[1] == f"real-server-edited TCP {service} {server}\n", said
    connection = Connection(to=SERVICE6)
    director(f"{ADM} conn-size [{CLIENT6}]:{connection.port} {service} 5000")
    conns = json.loads(director(f"{ADM} conns --json"))
    mine = [conn for conn in conns if conn["client"] == f"[{CLIENT6}]:{connection.port}"]
    assert [conn["size_bytes"] for conn in mine] == [5000], conns
    assert service in director(f"{ADM} top --once") and server in director(f"{ADM} loads")
    connection.close()
    saved = director(f"{ADM} save")
    director(f"{ADM} restore --clear", stdin=saved)
    assert director(f"{ADM} save") == saved and service in saved
    assert "drained" in director(f"{ADM} drain -t {service} -r {server} --deadline 100ms --wait")
    director("ipvsadm -C")


def test_ipv6_check_finds_the_director_that_speaks_from_the_virtual_address():
    """IPv6 takes the address with the longest prefix for its own, unless that is deprecated: real servers would
    answer themselves."""
    service6("rr", port=PORT6)
    assert complaints() == []
    director(f"ip address change {VIP6}/128 dev eth0 preferred_lft forever")
    found = complaints()
    assert {subject for subject, _ in found} == set(SERVERS6.values()) and all(
        "preferred_lft 0" in text for _, text in found
    ), found
    director(f"ip address change {VIP6}/128 dev eth0 preferred_lft 0")
    assert complaints() == []
    director("ipvsadm -C")
