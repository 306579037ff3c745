# SPDX-License-Identifier: GPL-2.0-only
"""Just enough generic netlink to speak to the module's two families, well or badly."""

import contextlib
import os
import select
import socket
import struct

from lab import HOSTS, HOSTS6, PATIENCE, TCP_PORT, VIP, inside

NETLINK_ADD_MEMBERSHIP = 1
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11


def attribute(kind, payload):
    return struct.pack("=HH", len(payload) + 4, kind) + payload + b"\0" * (-len(payload) % 4)


def attributes(data):
    """{type: payload} of a well-formed sequence."""
    found = {}
    while data:
        length, kind = struct.unpack_from("=HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[(length + 3) & ~3 :]
    return found


class Refused(Exception):
    def __init__(self, errno, message):
        super().__init__(errno, message)
        self.errno, self.message = errno, message


class Family:
    """A generic-netlink family, in the director's namespace; None is the one that the process is in."""

    def __init__(self, name, ns="director"):
        with inside(ns) if ns else contextlib.nullcontext():
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
        self.socket.settimeout(10 * PATIENCE)
        for option in (NETLINK_EXT_ACK, NETLINK_CAP_ACK):
            self.socket.setsockopt(SOL_NETLINK, option, 1)
        self.sequence = 0
        self.id = 16
        found = attributes(self.call(3, attribute(2, name.encode() + b"\0"))[0])
        self.id = struct.unpack("=H", found[1])[0]
        groups = [attributes(group) for group in attributes(found.get(7, b"")).values()]
        self.groups = {group[1].rstrip(b"\0").decode(): struct.unpack("=I", group[2])[0] for group in groups}

    def call(self, command, payload=b"", dump=False):
        """The attribute bytes of each answer; Refused if there is an error."""
        self.sequence += 1
        flags = NLM_F_REQUEST | NLM_F_ACK | (NLM_F_DUMP if dump else 0)
        body = struct.pack("=BBH", command, 1, 0) + payload
        header = struct.pack("=IHHII", 16 + len(body), self.id, flags, self.sequence, 0)
        self.socket.send(header + body)
        return self.answers()

    def listen(self, group):
        """From now on `message` gives what is sent to this group."""
        self.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, self.groups[group])

    def message(self):
        """(command, {type: payload}) of the next message of a group; None if there is none now."""
        if not select.select([self.socket], [], [], 0)[0]:
            return None
        data = self.socket.recv(1 << 16)
        assert struct.unpack_from("=I", data)[0] == len(data), data
        return data[16], attributes(data[20:])

    def answers(self):
        answers = []
        while True:
            data = self.socket.recv(1 << 20)
            while data:
                length, kind, flags, sequence, _ = struct.unpack_from("=IHHII", data)
                message, data = data[16:length], data[(length + 3) & ~3 :]
                if sequence != self.sequence:
                    continue
                if kind in (NLMSG_ERROR, NLMSG_DONE):
                    self.check(kind, message)
                    return answers
                answers.append(message[4:])

    def check(self, kind, message):
        error = struct.unpack_from("=i", message)[0]
        if error < 0:
            extra = attributes(message[20 if kind == NLMSG_ERROR else 4 :])
            raise Refused(-error, extra.get(1, b"").rstrip(b"\0").decode())


def address(text):
    """An address of either family as 16 bytes."""
    return socket.inet_pton(socket.AF_INET6, text) if ":" in text else socket.inet_aton(text) + bytes(12)


def text_of(family, address):
    """The same back: the attributes AF and ADDR."""
    is_ipv6 = struct.unpack("=H", family)[0] == socket.AF_INET6
    return socket.inet_ntop(socket.AF_INET6, address) if is_ipv6 else socket.inet_ntoa(address[:4])


def family_of(text):
    return struct.pack("=H", socket.AF_INET6 if ":" in text else socket.AF_INET)


class Mwlc(Family):
    """Our own family, and one TCP service that questions are about."""

    GET_SERVICE, SET_SERVICE, GET_DEST, GET_CONN, SET_CONN = 1, 2, 3, 4, 5
    GET_SIZE, SET_SIZE, DEL_SIZE, REPORT, GET_NODE = 7, 8, 9, 10, 11

    def __init__(self, ns="director", vip=VIP, port=TCP_PORT):
        super().__init__("ipvs_mwlc", ns)
        self.vip, self.port = vip, port

    def service_key(self, *more):
        key = attribute(1, family_of(self.vip)) + attribute(2, struct.pack("=H", 6))
        key += attribute(3, address(self.vip)) + attribute(4, struct.pack("!H", self.port))
        return attribute(1, key + b"".join(more))

    def expect(self, size_bytes, policy=0):
        more = attribute(6, struct.pack("=Q", size_bytes)), attribute(7, bytes([policy]))
        self.call(self.SET_SERVICE, self.service_key(*more))

    def watch(self, learn=1, remaining=0):
        self.call(
            self.SET_SERVICE, self.service_key(attribute(11, bytes([remaining])), attribute(13, bytes([learn])))
        )

    def expected_now(self):
        """The size that a new connection starts with, and how many sizes were learned."""
        service = attributes(attributes(self.call(self.GET_SERVICE, dump=True)[0])[1])
        return struct.unpack("=Q", service[8])[0], struct.unpack("=Q", service[9])[0]

    def question(self):
        """(host, path, the message's attributes) of the next question for a size; None if there is none."""
        found = self.message()
        if found is None:
            return None
        assert found[0] == self.GET_SIZE, found
        size = attributes(found[1][4])
        return size[1].decode(), size[2].decode(), found[1]

    def answer(self, message, size_bytes):
        """Answers a question: it is repeated, and the size added unless it is None."""
        size = b"" if size_bytes is None else attribute(3, struct.pack("=Q", size_bytes))
        self.call(self.SET_SIZE, attribute(4, message[4] + size) + attribute(3, message[3]))

    def tell_size(self, host, path, size_bytes, ttl_ms=None):
        nest = attribute(1, host.encode()) + attribute(2, path.encode())
        nest += b"" if size_bytes is None else attribute(3, struct.pack("=Q", size_bytes))
        nest += b"" if ttl_ms is None else attribute(4, struct.pack("=Q", ttl_ms))
        self.call(self.SET_SIZE, attribute(4, nest))

    def tell_sizes(self, host, sizes, at_once=100):
        """Tells many sizes, {path: size}, several messages to a call and without acknowledgements."""
        messages = []
        for path, size_bytes in sizes.items():
            nest = (
                attribute(1, host.encode())
                + attribute(2, path.encode())
                + attribute(3, struct.pack("=Q", size_bytes))
            )
            body = struct.pack("=BBH", self.SET_SIZE, 1, 0) + attribute(4, nest)
            messages.append(struct.pack("=IHHII", 16 + len(body), self.id, NLM_F_REQUEST, 0, 0) + body)
        for start in range(0, len(messages), at_once):
            self.socket.send(b"".join(messages[start : start + at_once]))

    def report(self, server, open_bytes):
        nest = (
            attribute(1, family_of(server))
            + attribute(2, address(server))
            + attribute(3, struct.pack("=Q", open_bytes))
        )
        nest += (
            attribute(4, struct.pack("=I", 1))
            + attribute(5, struct.pack("=I", 500))
            + attribute(6, struct.pack("=I", 250))
        )
        self.call(self.REPORT, attribute(5, nest))

    def nodes(self):
        """{address: (open bytes, memory, CPU, age in ms)}"""
        found = {}
        for answer in self.call(self.GET_NODE, dump=True):
            node = attributes(attributes(answer)[5])
            numbers = struct.unpack("=QIIQ", node[3] + node[5] + node[6] + node[7])
            found[text_of(node[1], node[2])] = numbers
        return found

    def forget_sizes(self, host=None, path=None):
        nest = b"" if host is None else attribute(4, attribute(1, host.encode()) + attribute(2, path.encode()))
        self.call(self.DEL_SIZE, nest)

    def sizes(self):
        """{(host, path): size or None}"""
        found = {}
        for answer in self.call(self.GET_SIZE, dump=True):
            size = attributes(attributes(answer)[4])
            assert 0 < struct.unpack("=Q", size[4])[0] <= 3_600_000
            name = size[1].decode(), size[2].decode()
            assert name not in found, name
            found[name] = struct.unpack("=Q", size[3])[0] if 3 in size else None
        return found

    def set_size(self, client_address, client_port, size_bytes):
        conn = attribute(1, family_of(client_address)) + attribute(2, struct.pack("=H", 6))
        conn += attribute(3, address(client_address)) + attribute(4, struct.pack("!H", client_port))
        conn += attribute(5, address(self.vip)) + attribute(6, struct.pack("!H", self.port))
        conn += attribute(10, struct.pack("=Q", size_bytes))
        self.call(self.SET_CONN, attribute(3, conn))

    def loads(self):
        """{server: (Ci, pending, active, inactive)}"""
        names = {address: name for hosts in (HOSTS, HOSTS6) for name, address in hosts.items()}
        loads = {}
        for answer in self.call(self.GET_DEST, dump=True):
            dest = attributes(attributes(answer)[2])
            numbers = [struct.unpack("=Q", dest[5])[0]]
            numbers += [struct.unpack("=I", dest[kind])[0] for kind in (6, 7, 8)]
            loads[names[text_of(dest[1], dest[2])]] = tuple(numbers)
        return loads

    def connections(self):
        """{client port: (state, size)}"""
        found = {}
        for answer in self.call(self.GET_CONN, dump=True):
            conn = attributes(attributes(answer)[3])
            port = struct.unpack("!H", conn[4])[0]
            found[port] = (conn[9][0], struct.unpack("=Q", conn[10])[0])
        return found


def random_attributes(random, depth=0):
    """Attribute bytes that mean nothing: nested, cut off, of wrong length, of unknown type, or pure noise."""
    if random.random() < 0.1:
        return os.urandom(random.randrange(64))
    data = b""
    for _ in range(random.randrange(6)):
        kind = random.choice([random.randrange(1, 16), random.randrange(65536)])
        if depth < 3 and random.random() < 0.4:
            payload = random_attributes(random, depth + 1)
        else:
            payload = os.urandom(random.choice([0, 1, 2, 4, 4, 8, 16, random.randrange(40)]))
        data += attribute(kind, payload)
    if data and random.random() < 0.2:
        cut = random.randrange(len(data))
        data = random.choice([data[:cut], data[:cut] + os.urandom(2) + data[cut + 2 :]])
    return data
