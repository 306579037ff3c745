# SPDX-License-Identifier: GPL-2.0-only
"""The lab: a client, a director and three real servers on one switch, as namespaces of the guest.

    client .10     director .1       s1 .21   s2 .22   s3 .23
       |           VIP .100             |        |        |      each server has the VIP on lo,
       |               |                |        |        |      and does not answer ARP for it
       +---------------+----- br0 ------+--------+--------+      10.0.0.0/24

Everything runs in one Python process: a thread enters a namespace to make a socket, and the socket stays there.
"""

import itertools
import os
import socket
import struct
import subprocess
import threading
import time

VIP = "10.0.0.100"
CLIENT = "10.0.0.10"
SERVERS = {"s1": "10.0.0.21", "s2": "10.0.0.22", "s3": "10.0.0.23"}
HOSTS = {"client": "10.0.0.10", "director": "10.0.0.1", **SERVERS}
# Of those who have asked for IPv6: see ipv6.py.
VIP6 = "fd00::100"
HOSTS6 = {name: "fd00::" + address.rsplit(".", 1)[1] for name, address in HOSTS.items()}
TCP_PORT, UDP_PORT = 80, 53
MODULE = "/ipvs_mwlc.ko"
# Whatever is waited for takes this many times as long on a kernel that checks itself (`make test-kasan`).
PATIENCE = 8 if os.uname().release.endswith("-debug") else 1


def sh(command, ns=None, check=True, stdin=None):
    """Runs a shell command, in a namespace if one is named; its output."""
    words = ["sh", "-c", command] if ns is None else ["ip", "netns", "exec", ns, "sh", "-c", command]
    done = subprocess.run(words, capture_output=True, text=True, input=stdin)
    if check and done.returncode:
        raise AssertionError(f"{command}: status {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout if check else (done.returncode, done.stdout + done.stderr)


def director(command, **how):
    return sh(command, ns="director", **how)


class inside:
    """with inside("client"): sockets made here belong to that namespace."""

    def __init__(self, ns):
        self.ns = ns

    def __enter__(self):
        self.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/run/netns/{self.ns}", os.O_RDONLY)
        os.setns(there, os.CLONE_NEWNET)
        os.close(there)

    def __exit__(self, *_):
        os.setns(self.home, os.CLONE_NEWNET)
        os.close(self.home)


def build():
    """Makes the namespaces and starts the servers."""
    lines = ["ip netns add switch", "ip -n switch link add br0 type bridge", "ip -n switch link set br0 up"]
    for name, address in HOSTS.items():
        lines += [
            f"ip netns add {name}",
            f"ip link add to_{name} netns switch type veth peer name eth0 netns {name}",
            f"ip -n switch link set to_{name} master br0",
            f"ip -n switch link set to_{name} up",
            f"ip -n {name} link set lo up",
            f"ip -n {name} link set eth0 up",
            f"ip -n {name} addr add {address}/24 dev eth0",
        ]
    lines.append(f"ip -n director addr add {VIP}/32 dev eth0")
    sh(" && ".join(lines))
    for name in SERVERS:
        sh(
            "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore && echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce && "
            f"ip addr add {VIP}/32 dev lo",
            ns=name,
        )
        serve(name)


def serve(name):
    """What a server answers at the VIP: TCP as `serve_tcp` says, UDP as `serve_udp` does."""
    serve_tcp(name, VIP, TCP_PORT)
    serve_udp(name, VIP, UDP_PORT)


def serve_tcp(name, address, port):
    """A TCP server that answers `N\\n` with its name and N bytes, and an HTTP request for /N with N bytes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(name):
        listener = socket.create_server((address, port), family=family, backlog=200)

    def talk(connection):
        try:
            stream = connection.makefile("rwb")
            for line in stream:
                if b" HTTP/1." in line:
                    answer_http(stream, line)
                else:
                    stream.write(name.encode() + b"\n" + b"x" * int(line))
                stream.flush()
        except OSError:
            pass
        finally:
            connection.close()

    def answer_http(stream, request_line):
        body = 0
        while header := stream.readline().strip():
            if header.lower().startswith(b"content-length:"):
                body = int(header[15:])
        stream.read(body)
        method, path, _ = request_line.split()
        size = int(path[1:]) if method == b"GET" and path[1:].isdigit() else 0
        stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)

    def accept():
        while True:
            threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def serve_udp(name, address, port):
    """A UDP server that answers its name and the datagram's length."""
    with inside(name):
        udp = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((address, port))

    def answer():
        while True:
            data, peer = udp.recvfrom(65535)
            udp.sendto(b"%s %d" % (name.encode(), len(data)), peer)

    threading.Thread(target=answer, daemon=True).start()


class Connection:
    """A client's TCP connection to the VIP, or to another address and port that speak as `serve_tcp` does."""

    def __init__(self, port=0, size=10, to=(VIP, TCP_PORT)):
        self.socket = client_socket(to, port, 5)
        self.port = self.socket.getsockname()[1]
        self.stream = self.socket.makefile("rwb")
        self.server = self.fetch(size)

    def fetch(self, size):
        self.stream.write(b"%d\n" % size)
        self.stream.flush()
        server = self.stream.readline().strip().decode()
        assert len(self.stream.read(size)) == size
        return server

    def close(self):
        self.stream.close()
        self.socket.close()

    def reset(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


# The client's ports in turn, none twice within a run: a real server may still have a connection that its director was
# made to forget (`ipvsadm -C`). It would answer a SYN from the same port with an ACK, and the SYN said again would be
# scheduled again.
CLIENT_PORTS = itertools.cycle(range(1024, 20_000))


def client_socket(to, port, timeout_s):
    """A TCP socket of the client's that is connected; from this port, unless it is 0."""
    port = port or next(CLIENT_PORTS)
    is_ipv6 = ":" in to[0]
    with inside("client"):
        connection = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connection.settimeout(timeout_s * PATIENCE)
    connection.bind((HOSTS6["client"] if is_ipv6 else CLIENT, port))
    connection.connect(to)
    return connection


def ask_udp(data):
    with inside("client"):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with udp:
        udp.settimeout(5 * PATIENCE)
        udp.connect((VIP, UDP_PORT))
        udp.send(data)
        server, length = udp.recv(100).split()
        assert int(length) == len(data)
        return server.decode()


def service(scheduler, weights=(1, 1, 1), protocol="t"):
    """One virtual service with the three servers, and no other."""
    port = TCP_PORT if protocol == "t" else UDP_PORT
    restore = [f"-A -{protocol} {VIP}:{port} -s {scheduler}"]
    for address, weight in zip(SERVERS.values(), weights):
        restore.append(f"-a -{protocol} {VIP}:{port} -r {address}:{port} -g -w {weight}")
    director("ipvsadm -C")
    director("ipvsadm -R", stdin="\n".join(restore) + "\n")


def until(condition, what, seconds=10):
    """Waits for a condition, for the kernel may be a packet behind."""
    seconds *= PATIENCE
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"still not after {seconds} s: {what}"
        time.sleep(0.02)
