# SPDX-License-Identifier: GPL-2.0-only
"""Large uploads: segments that the devices put together pass whole, and a smaller MTU behind the director is learned.
"""

import hashlib
import os
import socket
import threading

from lab import CLIENT, PATIENCE, SERVERS, VIP, director, inside, sh

PORT = 8080
BYTES = 4_000_000


def serve(name):
    """Answers what a client has sent with its digest."""
    with inside(name):
        listener = socket.create_server((VIP, PORT))

    def run():
        while True:
            connection = listener.accept()[0]
            digest = hashlib.sha256()
            while data := connection.recv(1 << 16):
                digest.update(data)
            connection.sendall(digest.digest())
            connection.close()

    threading.Thread(target=run, daemon=True).start()


def upload():
    """Sends some MB through the virtual address; every byte arrives, once and in order."""
    data = os.urandom(BYTES)
    with inside("client"):
        connection = socket.socket()
    with connection:
        connection.settimeout(30 * PATIENCE)
        connection.bind((CLIENT, 0))
        connection.connect((VIP, PORT))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while more := connection.recv(64):
            received += more
    assert received == hashlib.sha256(data).digest()


def packets_in():
    """Packets and bytes that the service counted."""
    line = next(line for line in director("ipvsadm -Ln --stats --exact").splitlines() if f"{VIP}:{PORT}" in line)
    return int(line.split()[3]), int(line.split()[5])


def test_segments_put_together_pass_whole():
    for name in SERVERS:
        serve(name)
    director(f"ipvsadm -C && ipvsadm -A -t {VIP}:{PORT} -s rr")
    for address in SERVERS.values():
        director(f"ipvsadm -a -t {VIP}:{PORT} -r {address}:{PORT} -g")
    sh("ip link set eth0 gro_max_size 65536", ns="director")
    for _ in SERVERS:
        upload()
    packets, size = packets_in()
    # Each segment of 1,448 bytes by itself would be more than this many packets.
    assert size > 3 * BYTES and packets < size // 1448, (packets, size)


def test_an_upload_learns_a_smaller_mtu_behind_the_director():
    for address in SERVERS.values():
        director(f"ip route add {address} dev eth0 mtu lock 1300")
    upload()
    assert "mtu 1300" in sh(f"ip route get {VIP}", ns="client")
    for address in SERVERS.values():
        director(f"ip route del {address}")
    sh("ip route flush cache", ns="client")
    director("ipvsadm -C")
