# SPDX-License-Identifier: GPL-2.0-only
"""What must not hurt: garbage from netlink and from the network, namespaces that go, the module taken out under load.
"""

import os
import random as random_module
import socket
import struct
import threading

from balancing import ends_at_zero, segment, servers_of
from lab import CLIENT, MODULE, SERVERS, VIP, director, inside, service, sh
from nl import Family, Mwlc, Refused, attribute, random_attributes

NETLINK_INPUTS = 10_000
PACKET_INPUTS = 10_000


def test_malformed_netlink_gets_an_errno_and_a_message():
    random = random_module.Random(1)
    service("mwlc")
    valid = valid_requests()
    silent = 0
    for name in ("IPVS", "ipvs_mwlc"):
        family = Family(name)
        for _ in range(NETLINK_INPUTS // 2):
            command = random.choice([random.randrange(1, 19), random.randrange(256)])
            payload = random_attributes(random) if random.random() < 0.5 else mutate(random, random.choice(valid))
            try:
                family.call(command, payload, dump=random.random() < 0.3)
            except Refused as refused:
                assert refused.errno in (1, 2, 3, 12, 16, 17, 22, 28, 34, 90, 95, 97), refused
                # A command that the family does not have is refused by the kernel, without words of ours.
                silent += refused.message == "" and refused.errno != 95
    assert silent == 0, f"{silent} refusals without a message"
    director("ipvsadm -C")


def valid_requests():
    address = socket.inet_aton(VIP) + bytes(12)
    key = attribute(1, struct.pack("=H", 2)) + attribute(2, struct.pack("=H", 6)) + attribute(3, address)
    key += attribute(4, struct.pack("!H", 80))
    full = key + attribute(6, b"mwlc\0") + attribute(7, bytes(8)) + attribute(8, bytes(4)) + attribute(9, b"\xff" * 4)
    dest = attribute(1, address) + attribute(2, struct.pack("!H", 80)) + attribute(3, struct.pack("=I", 3))
    dest += b"".join(attribute(kind, struct.pack("=I", 1)) for kind in (4, 5, 6))
    return [
        attribute(1, key),
        attribute(1, full),
        attribute(1, key) + attribute(2, dest),
        attribute(3, key),
        attribute(1, key + attribute(6, struct.pack("=Q", 1 << 20))),
        attribute(4, struct.pack("=I", 5)),
    ]


def mutate(random, payload):
    data = bytearray(payload)
    for _ in range(random.randrange(1, 4)):
        if data:
            data[random.randrange(len(data))] = random.choice([0, 1, 4, 255, random.randrange(256)])
    return bytes(data[: random.randrange(len(data) + 1)] if random.random() < 0.2 else data)


def frames_to_director():
    """A packet socket of the client, and the frame header that reaches the director."""
    mac = mac_of("director")
    with inside("client"):
        packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        packet.bind(("eth0", 0))
    return packet, mac + mac_of("client") + b"\x08\x00"


def mac_of(ns):
    line = sh("ip -o link show eth0", ns=ns)
    return bytes.fromhex(line.split("link/ether ")[1].split()[0].replace(":", ""))


def test_malformed_packets_are_harmless():
    random = random_module.Random(2)
    service("mwlc")
    director("ipvsadm -A -u 10.0.0.100:53 -s rr && ipvsadm -a -u 10.0.0.100:53 -r 10.0.0.21:53 -g")
    packet, frame = frames_to_director()
    for _ in range(PACKET_INPUTS):
        packet.send((frame + malformed(random))[:1514].ljust(14 + 20, b"\0"))
    packet.close()
    # The service still works, and the flood has left no bytes behind.
    assert len(servers_of(3)) == 3
    director("ipvsadm -C")


def malformed(random):
    """An IPv4 packet to the VIP, in most of which something does not fit."""
    options = os.urandom(4 * random.choice([0, 0, 1, 10]))
    protocol = random.choice([6, 6, 17, 17, 1, random.randrange(256)])
    if protocol == 6:
        body = segment(random.randrange(65536), random.randrange(256))[20:]
    elif protocol == 17:
        body = struct.pack("!HHHH", random.randrange(65536), 53, random.choice([8, 9, 0, 7, 65535]), 0) + b"x"
    elif protocol == 1:
        inner = segment(random.randrange(65536), 0x10, options=os.urandom(4 * random.choice([0, 1, 10])))
        swapped = inner[:12] + inner[16:20] + inner[12:16] + inner[20:]
        body = bytes([random.choice([3, 11, 12, 8]), random.randrange(6)]) + os.urandom(6) + swapped
    else:
        body = os.urandom(random.randrange(100))
    total = 20 + len(options) + len(body)
    header = bytearray(
        struct.pack(
            "!BBHHHBBH4s4s",
            0x40 | (5 + len(options) // 4),
            0,
            total,
            random.randrange(4),
            random.choice([0, 0, 0, 0x2000, 0x2001, 0x0001, 0x1FFF, 0x4000]),
            random.choice([0, 1, 64]),
            protocol,
            0,
            socket.inet_aton(CLIENT),
            socket.inet_aton(VIP),
        )
    )
    if random.random() < 0.3:
        header[random.choice([0, 2, 3, 6, 7])] = random.randrange(256)
    # The stack would drop a wrong checksum before the hook sees it.
    if random.random() < 0.95:
        words = struct.unpack("!10H", header)
        total = sum(words)
        if not options:
            header[10:12] = struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
        else:
            total += sum(struct.unpack(f"!{len(options) // 2}H", options))
            total = (total & 0xFFFF) + (total >> 16)
            total = (total & 0xFFFF) + (total >> 16)
            header[10:12] = struct.pack("!H", ~total & 0xFFFF)
    data = bytes(header) + options + body
    return data[: random.randrange(len(data) + 1)] if random.random() < 0.1 else data


class Load:
    """TCP segments of ever new clients, and UDP, until stopped."""

    def __enter__(self):
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        return self

    def run(self):
        packet, frame = frames_to_director()
        random = random_module.Random(3)
        while not self.stop.is_set():
            data = bytearray(segment(random.randrange(65536), random.choice([0x02, 0x10, 0x11, 0x04])))
            words = struct.unpack("!10H", data[:20])
            total = sum(words)
            data[10:12] = struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
            packet.send(frame + bytes(data))
        packet.close()

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def test_configuration_changes_under_load():
    with Load():
        for round_number in range(5):
            service(("mwlc", "wlc", "rr", "wrr", "lc")[round_number])
            director(f"ipvsadm -d -t {VIP}:80 -r {SERVERS['s1']}:80")
            director("ipvsadm -Lcn && ipvsadm -Ln --stats && ipvsadm -Z && cat /proc/net/ip_vs_stats")
            Mwlc().connections()
    director("ipvsadm -C")


def test_namespaces_go_with_services_in_them():
    for number in range(10):
        sh("ip netns add passing && ip link add passing0 netns passing type veth peer name p1 netns switch")
        sh(
            "ip -n switch link set p1 master br0 up && ip -n passing link set passing0 up && ip -n passing addr add "
            f"10.0.0.{200 + number}/24 dev passing0"
        )
        sh(f"ipvsadm -A -t {VIP}:80 -s mwlc && ipvsadm -a -t {VIP}:80 -r 10.0.0.21:80 -g", ns="passing")
        mac = sh("ip -o link show passing0", ns="passing").split("link/ether ")[1].split()[0]
        with inside("client"):
            packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            packet.bind(("eth0", 0))
        frame = bytes.fromhex(mac.replace(":", "")) + mac_of("client") + b"\x08\x00"
        for port in range(1000, 1050):
            data = bytearray(segment(port, 0x02))
            total = sum(struct.unpack("!10H", data[:20]))
            data[10:12] = struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
            packet.send(frame + bytes(data))
        packet.close()
        if number == 0:
            assert sh("ipvsadm -Lcn", ns="passing").count("SYN_RECV") == 50
        sh("ip netns del passing")


def test_the_module_goes_and_comes_under_load():
    with Load():
        for _ in range(5):
            service("mwlc")
            director("ipvsadm -Ln")
            sh("rmmod ipvs_mwlc")
            sh(f"insmod {MODULE}")
    service("mwlc")
    assert len(servers_of(3)) == 3
    ends_at_zero()
