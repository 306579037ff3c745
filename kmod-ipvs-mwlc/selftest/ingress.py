# SPDX-License-Identifier: GPL-2.0-only
"""Packets that are taken as they arrive at a device, before the IP layer; and those that must not be.

The IP layer counts each packet that it sees (Ip: InReceives), so a datagram that was balanced without being
counted there was taken at the device.
"""

import socket
import struct

from attack import frames_to_director, mac_of
from balancing import segment
from lab import CLIENT, PATIENCE, SERVERS, UDP_PORT, VIP, ask_udp, director, inside, service, sh, until
from services import Nftables, expression, nest, restore
from nl import attribute
from settings import setting

COUNT = 20
# Nobody else listens there.
LOCAL_PORT = 5300


def received():
    """Packets that the director's IP layer has seen."""
    lines = [line.split() for line in director("cat /proc/net/snmp").splitlines() if line.startswith("Ip:")]
    return int(lines[1][lines[0].index("InReceives")])


def counted():
    """(connections, packets, bytes) of the one service, as it counts them."""
    line = director("ipvsadm -Ln --stats --exact").splitlines()[3].split()
    return tuple(int(word) for word in (line[2], line[3], line[5]))


def client_socket(address=CLIENT, port=0):
    """A client's UDP socket. While it is open, the client answers no real server with an ICMP error, which would go
    through the director as well."""
    with inside("client"):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, port))
    return udp


def datagrams(udp, count=COUNT, port=UDP_PORT):
    """Sends so many datagrams of 4 bytes; none is waited for."""
    for _ in range(count):
        udp.sendto(b"1234", (VIP, port))


def seen_by_ip(source=CLIENT, port=UDP_PORT):
    """How many of COUNT datagrams the IP layer saw; all are counted by the service, each once."""
    connections, packets, size = counted()
    before = received()
    with client_socket(source) as udp:
        datagrams(udp, port=port)
        wanted = (connections + 1, packets + COUNT, size + COUNT * 32)
        until(lambda: counted() == wanted, f"{COUNT} datagrams, counted once")
    return received() - before


def test_packets_are_taken_as_they_arrive_unless_the_sysctl_says_no():
    service("rr", protocol="u")
    assert seen_by_ip() < COUNT / 2
    with setting("ingress", 0):
        assert seen_by_ip() >= COUNT
    assert seen_by_ip() < COUNT / 2


class hooked:
    """with hooked(-300): nftables has an empty chain in PRE_ROUTING, as the raw table does."""

    def __init__(self, priority):
        self.priority = priority

    def __enter__(self):
        hook = nest(4, attribute(1, struct.pack("!I", 0)) + attribute(2, struct.pack("!i", self.priority)))
        Nftables().commit(
            [
                (0, attribute(1, b"hooked\0")),
                (3, attribute(1, b"hooked\0") + attribute(3, b"pre\0") + hook + attribute(7, b"filter\0")),
            ]
        )

    def __exit__(self, *_):
        Nftables().commit([(2, attribute(1, b"hooked\0"))])


def test_a_raw_table_is_not_passed_by():
    service("rr", protocol="u")
    with hooked(-300):
        assert seen_by_ip() >= COUNT
    # The mangle table comes after the director in any case.
    with hooked(-150):
        assert seen_by_ip() < COUNT / 2
    assert seen_by_ip() < COUNT / 2


def test_a_drop_at_the_device_comes_first():
    service("rr", protocol="u")
    director("tc qdisc add dev eth0 clsact && tc filter add dev eth0 ingress matchall action drop")
    try:
        with client_socket() as udp:
            datagrams(udp)
        assert counted() == (0, 0, 0), counted()
    finally:
        director("tc qdisc del dev eth0 clsact")


def frame(payload, kind=b"\x08\x00", to=None):
    return (to or mac_of("director")) + mac_of("client") + kind + payload


def checksum(header):
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def packet(data=b"1234", ttl=64, options=b"", version=4, length=None, wrong=0, port=40000, words=None):
    """A UDP datagram over IPv4 to the VIP, right unless asked otherwise."""
    udp = struct.pack("!HHHH", port, UDP_PORT, 8 + len(data), 0) + data
    words = words or 5 + len(options) // 4
    length = 20 + len(options) + len(udp) if length is None else length
    header = (
        struct.pack(
            "!BBHHHBBH4s4s",
            version << 4 | words,
            0,
            length,
            1,
            0,
            ttl,
            17,
            0,
            socket.inet_aton(CLIENT),
            socket.inet_aton(VIP),
        )
        + options
    )
    total = checksum(header) ^ wrong
    return header[:10] + struct.pack("!H", total) + header[12:] + udp


def test_padding_does_not_count_and_does_not_go_on():
    service("rr", protocol="u")
    sender, _ = frames_to_director()
    answered = client_socket(port=40000)
    with inside("s1"):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    tap.bind(("eth0", 0x0800))
    tap.settimeout(5 * PATIENCE)
    sender.send(frame(packet(b"x")).ljust(60, b"\xee"))
    until(lambda: counted() == (1, 1, 29), "one datagram of 29 bytes")
    while (data := tap.recv(2000))[20:24] != struct.pack("!HH", 40000, UDP_PORT):
        pass
    assert len(data) == 29 and data[8] == 63, data
    sender.close()
    answered.close()
    tap.close()


def test_what_is_not_right_is_left_to_the_ip_layer():
    service("rr", protocol="u")
    sender, _ = frames_to_director()
    answered = client_socket(port=40001)
    director("ip link set eth0 promisc on")
    wrong = [
        frame(packet(wrong=1)),
        frame(packet(length=200)),
        frame(packet(length=19)),
        frame(packet(version=5)),
        frame(packet(words=4)),
        frame(packet(words=15)),
        frame(packet(), to=bytes.fromhex("0200000000ee")),
        frame(packet(), to=b"\xff" * 6),
        # A VLAN that the director is not in.
        frame(b"\x00\x07\x08\x00" + packet(), kind=b"\x81\x00"),
        # IPv4 in a frame that says IPv6.
        frame(packet(), kind=b"\x86\xdd"),
    ]
    for each in wrong:
        sender.send(each)
    # What comes last shows that all others have been looked at.
    sender.send(frame(packet(options=b"\x01" * 4, port=40001)))
    until(lambda: counted()[1] == 1, "the right one")
    assert counted() == (1, 1, 36), counted()
    director("ip link set eth0 promisc off")
    sender.close()
    answered.close()


def test_time_to_live_ends_at_the_director():
    service("rr", protocol="u")
    sender, _ = frames_to_director()
    with inside("client"):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw.settimeout(5 * PATIENCE)
    sender.send(frame(packet(ttl=1)))
    while (answer := raw.recv(2000))[20] != 11:
        pass
    assert answer[28:48][16:20] == socket.inet_aton(VIP)
    sender.close()
    raw.close()


def test_a_local_node_is_counted_once():
    director("ipvsadm -C")
    restore(f"-A -u {VIP}:{LOCAL_PORT} -s rr", f"-a -u {VIP}:{LOCAL_PORT} -r 10.0.0.1:{LOCAL_PORT} -g -w 1")
    with inside("director"):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((VIP, LOCAL_PORT))
    server.settimeout(5 * PATIENCE)
    assert seen_by_ip(port=LOCAL_PORT) >= COUNT
    for _ in range(COUNT):
        assert server.recv(10) == b"1234"
    server.close()


# Devices upon eth0, in the client's and in the director's namespace.
UPPER = {
    "vlan": "ip link add link eth0 name up0 type vlan id 5",
    "macvlan": "ip link add link eth0 name up0 type macvlan mode bridge",
}


def through(name, addresses):
    """How many of COUNT datagrams the director's IP layer saw that came through its device `name`; each is counted
    once. `addresses` are the client's and the director's at that link."""
    director(f"ip addr replace {addresses[1]}/24 dev {name} && ip link set {name} up")
    service("rr", protocol="u")
    # The director answers ARP for its addresses on all its devices.
    mac = director(f"cat /sys/class/net/{name}/address").strip() if name != "up2" else None
    device = "up0" if name == "up0" else "up1"
    sh(f"ip route replace {VIP} via {addresses[1]} src {addresses[0]} dev {device}", ns="client")
    if mac:
        sh(f"ip neigh replace {addresses[1]} lladdr {mac} dev {device} nud permanent", ns="client")
    for server in SERVERS:
        sh(f"ip route replace {addresses[0]} via {CLIENT}", ns=server)
    try:
        return seen_by_ip(addresses[0])
    finally:
        sh(f"ip route del {VIP}", ns="client")


def test_upper_devices_get_their_packets_once():
    for kind, make in UPPER.items():
        for ns in ("client", "director"):
            sh(make, ns=ns)
        sh("ip addr add 10.5.0.10/24 dev up0 && ip link set up0 up", ns="client")
        try:
            assert through("up0", ("10.5.0.10", "10.5.0.1")) < COUNT / 2, kind
            # The lower device's own packets, too, are counted once.
            seen_by_ip()
        finally:
            for ns in ("client", "director"):
                sh("ip link del up0", ns=ns)


def second_link(master=None):
    """A second link from the client to the director, there in a bridge or a bond."""
    sh(
        "ip link add up1 netns client type veth peer name up1 netns director && "
        "ip -n client addr add 10.6.0.10/24 dev up1 && "
        "ip -n client link set up1 up"
    )
    if master:
        director(f"ip link add up2 type {master} && ip link set up1 down && ip link set up1 master up2")
    director("ip link set up1 up")
    return "up2" if master else "up1"


def test_members_of_a_bridge_or_bond_leave_packets_to_it():
    for master in ("bridge forward_delay 0", "bond mode active-backup miimon 100"):
        name = second_link(master)
        try:
            assert through(name, ("10.6.0.10", "10.6.0.1")) < COUNT / 2, master
        finally:
            director("ip link del up2; ip link del up1")


def test_devices_come_go_and_move():
    service("rr", protocol="u")
    name = second_link()
    assert through(name, ("10.6.0.10", "10.6.0.1")) < COUNT / 2
    director("ip link set up1 name up3")
    assert through("up3", ("10.6.0.10", "10.6.0.2")) < COUNT / 2
    # To a namespace without a director and back, while packets come.
    with client_socket() as udp:
        for _ in range(20):
            director("ip link set up3 netns s1")
            datagrams(udp, 5)
            sh("ip link set up3 netns director", ns="s1")
            datagrams(udp, 5)
    assert through("up3", ("10.6.0.10", "10.6.0.3")) < COUNT / 2
    director("ip link del up3")
    # A namespace goes with its service and its devices.
    for _ in range(5):
        sh(
            "ip netns add brief && ip link add b0 netns brief type veth peer name b1 netns brief && "
            "ip -n brief link set b0 up && ip -n brief link set b1 up && ip -n brief addr add 10.7.0.1/24 dev b0"
        )
        sh("ipvsadm -A -u 10.7.0.9:53 -s wlc && ipvsadm -a -u 10.7.0.9:53 -r 10.7.0.2 -g", ns="brief")
        sh("ip netns del brief")
    assert ask_udp(b"still there") in SERVERS


def test_a_marked_service_is_balanced_after_the_mangle_table():
    director("ipvsadm -C")
    restore("-A -f 7 -s rr", *(f"-a -f 7 -r {address}:0 -g -w 1" for address in SERVERS.values()))
    director("tc qdisc add dev eth0 clsact && tc filter add dev eth0 ingress matchall action skbedit mark 7")
    try:
        # The first datagram goes on to where marks are seen; what follows is known.
        assert seen_by_ip() < COUNT / 2
    finally:
        director("tc qdisc del dev eth0 clsact")


def test_a_segment_without_a_connection_is_reset_once():
    service("rr")
    with inside("client"):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    raw.settimeout(5 * PATIENCE)
    sender, _ = frames_to_director()
    header = segment(40002, 0x10)
    total = checksum(header[:20])
    before = received()
    sender.send(frame(header[:10] + struct.pack("!H", total) + header[12:]))
    until(lambda: received() > before, "the IP layer gets it")
    assert counted() == (0, 0, 0), counted()
    sender.close()
    raw.close()
