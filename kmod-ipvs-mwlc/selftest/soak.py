# SPDX-License-Identifier: GPL-2.0-only
"""Everything at once, for minutes: soak.py MINUTES [SEED].

    churn        services, real servers and schedulers come, change and go by stock ipvsadm
    namespaces   directors of their own, with traffic in them, are made and destroyed
    floods       SYNs, ACKs and datagrams from a hundred thousand addresses, at the services of the transfers too
    garbage      malformed netlink in a namespace with the module, malformed packets at the services
    transfers    random bytes to a real server and back, compared
    the module   is taken out and put in under all of this but the transfers

It goes in rounds. Each begins with insmod and ends, when the traffic has stopped, with every Ci at 0 and
rmmod. In the end the kernel's log has no complaint, and memory is what it was after the first round, within
MEMORY_KIB_MAX.
"""

import os
import random as random_module
import socket
import struct
import sys
import threading
import time

sys.path.insert(0, "/selftest")

import lab
from attack import mac_of
from lab import SERVERS, VIP, director, inside, sh, until
from nl import Mwlc
from splats import splats

ECHO_PORT = 8080
TRANSFER_BYTES_MAX = 256 * 1024
TRANSFERS_AT_ONCE = 4
FLOOD_CLIENTS = 100_000
FLOOD_PACKETS = 5_000
GARBAGE_MESSAGES = 2_000
GARBAGE_PACKETS = 2_000
ROUND_S = 25
INSERTIONS = 3
# Slabs that the kernel keeps half empty, per-CPU caches, entries of routes: 1.5 MiB were seen between two rounds.
MEMORY_KIB_MAX = 8 * 1024
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "mwlc", "sed", "nq", "sh", "mh", "fo", "ovf", "twos")


def serve_echo(name):
    """A TCP server on VIP:8080 that sends back what it gets, after four bytes with its length."""
    with inside(name):
        listener = socket.create_server((VIP, ECHO_PORT), backlog=200)

    def talk(connection):
        with connection:
            try:
                stream = connection.makefile("rwb")
                while head := stream.read(4):
                    stream.write(stream.read(struct.unpack("!I", head)[0]))
                    stream.flush()
            except (OSError, struct.error):
                pass

    def accept():
        while True:
            threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


class Worker:
    """Calls `step(random)` again and again until told to stop; what it raises is kept, the count of its steps too."""

    def __init__(self, name, step, seed, may_fail=False):
        self.name, self.step, self.may_fail = name, step, may_fail
        self.random = random_module.Random(f"{name} {seed}")
        self.steps, self.error = 0, None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.is_set():
            try:
                self.step(self.random)
                self.steps += 1
            except Exception as error:
                if not self.may_fail:
                    self.error = error
                    return

    def stop(self):
        self.stopping.set()
        self.thread.join(timeout=120)
        assert not self.thread.is_alive(), f"{self.name} does not end"
        if self.error:
            raise AssertionError(f"{self.name}, step {self.steps}: {self.error!r}")


def stable_service():
    """The service of the transfers, which nobody changes; short timeouts, so that floods pass."""
    director(f"ipvsadm --set 20 2 2 && ipvsadm -A -t {VIP}:{ECHO_PORT} -s mwlc")
    for address in SERVERS.values():
        director(f"ipvsadm -a -t {VIP}:{ECHO_PORT} -r {address}:{ECHO_PORT} -g")


def churn(random):
    """One change of the services on ports 1000 to 1007. What is not there cannot be changed, so refusals are right."""
    service = f"{random.choice('tu')} {VIP}:{1000 + random.randrange(8)}"
    service = f"-{service}"
    server = f"-r {random.choice(list(SERVERS.values()))}"
    scheduler = random.choice(SCHEDULERS)
    flags = random.choice(["", "", "-b flag-1", "-p 10"])
    change = random.choice(
        [
            f"-A {service} -s {scheduler} {flags}",
            f"-E {service} -s {scheduler} {flags}",
            f"-a {service} {server} -g -w {random.randrange(4)}",
            f"-a {service} {server} -g -w {random.randrange(1, 65536)}",
            f"-e {service} {server} -g -w {random.randrange(4)} -x {random.randrange(3) * 100}",
            f"-d {service} {server}",
            f"-D {service}",
            "-Ln --stats",
            "-Lcn",
            "-Z",
            f"--set {random.randrange(15, 30)} 2 2",
        ]
    )
    status, said = director(f"ipvsadm {change}", check=False)
    assert status in (0, 1, 2, 255) and "memory" not in said.lower(), f"{change}: {status} {said}"


def namespaces(random):
    """A director in a namespace of its own, that goes while packets come."""
    name = f"soak{random.randrange(1 << 30)}"
    sh(f"ip netns add {name} && ip -n {name} link set lo up && ip -n {name} addr add {VIP}/32 dev lo")
    try:
        sh(
            f"ipvsadm -A -u {VIP}:53 -s {random.choice(SCHEDULERS)} && ipvsadm -a -u {VIP}:53 -r 10.0.0.21:53 -g && "
            f"ipvsadm -a -u {VIP}:53 -r 127.0.0.1:53 -g",
            ns=name,
        )
        with inside(name):
            sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
        for udp in sockets:
            udp.setblocking(False)
            try:
                udp.sendto(b"x", (VIP, 53))
            except OSError:
                # There is no route to the real server: an answer that a socket may get.
                pass
        for udp in sockets[random.randrange(20) :]:
            udp.close()
    finally:
        sh(f"ip netns del {name}")
        for udp in sockets if "sockets" in locals() else []:
            udp.close()


def flood(random):
    kind = random.choice(["syn", "syn", "ack", "udp", "open", "rst"])
    port = random.choice([ECHO_PORT, 1000 + random.randrange(8)])
    first = f"{random.choice([11, 12, 13])}.{random.randrange(2)}.{random.randrange(256)}.0"
    sh(
        f"/vm-packets {kind} --interface eth0 --to {MAC} --service {VIP}:{port} --first {first} "
        f"--clients {FLOOD_CLIENTS} --count {FLOOD_PACKETS} --payload {random.choice([0, 10, 1000])}",
        ns="client",
    )


def garbage(random):
    sh(f"/netlink-garbage --messages {GARBAGE_MESSAGES} --seed {random.randrange(1 << 30)}", ns="garbage")
    sh(
        f"/netlink-garbage --messages 0 --packets {GARBAGE_PACKETS} --interface eth0 --to {MAC} "
        f"--service {VIP}:{ECHO_PORT} --seed {random.randrange(1 << 30)}",
        ns="client",
    )


def transfer(random):
    """Some requests on one connection; each answer must be what was sent."""
    with inside("client"):
        connection = socket.socket()
    with connection:
        connection.settimeout(60)
        connection.connect((VIP, ECHO_PORT))
        stream = connection.makefile("rwb")
        for _ in range(random.randrange(1, 4)):
            data = random.randbytes(random.randrange(TRANSFER_BYTES_MAX))
            # Another thread sends, for both ends' buffers are smaller than the data.
            sending = threading.Thread(
                target=lambda: (stream.write(struct.pack("!I", len(data)) + data), stream.flush())
            )
            sending.start()
            answer = stream.read(len(data))
            sending.join()
            assert answer == data, f"{len(data)} bytes came back as {len(answer)} others"


def reinsert():
    director("ipvsadm -C", check=False)
    remove()
    sh(f"insmod {lab.MODULE}")


def remove():
    """A listing that is under way holds the module for that moment."""
    until(lambda: sh("rmmod ipvs_mwlc", check=False)[0] == 0, "rmmod", 60)


def memory_kib():
    """What the kernel cannot give back now."""
    sh("echo 3 > /proc/sys/vm/drop_caches")
    found = dict(line.split(":") for line in open("/proc/meminfo"))
    return sum(int(found[name].split()[0]) for name in ("Slab", "PageTables", "KernelStack", "Percpu", "VmallocUsed"))


def one_round(number, seed):
    """Counts of what was done."""
    sh(f"insmod {lab.MODULE}")
    stable_service()
    seed = f"{seed} {number}"
    transfers = [Worker(f"transfer {n}", transfer, seed) for n in range(TRANSFERS_AT_ONCE)]
    # While the module is out, their commands fail and are none the worse for it.
    others = [
        Worker("churn", churn, seed),
        Worker("namespaces", namespaces, seed),
        Worker("flood", flood, seed),
        Worker("garbage", garbage, seed),
    ]
    ending = time.monotonic() + ROUND_S
    while time.monotonic() < ending and not any(worker.error for worker in transfers + others):
        time.sleep(0.2)
    for worker in transfers:
        worker.stop()
    for worker in others:
        worker.may_fail = True
    for _ in range(INSERTIONS):
        reinsert()
        stable_service()
    for worker in others:
        worker.stop()
    # After all this the service still works, and in the end nothing is counted.
    last = Worker("transfer", transfer, seed)
    until(lambda: last.steps > 3 or last.error, "transfers after the floods", 60)
    last.stop()
    mwlc = Mwlc()
    director("ipvsadm --set 1 1 1")
    until(lambda: all(load[0] == 0 and load[2] == 0 for load in mwlc.loads().values()), "every Ci is 0", 60)
    mwlc.socket.close()
    remove()
    return {worker.name.split()[0]: worker.steps for worker in transfers + others}


def main():
    global MAC
    minutes = float(sys.argv[1])
    seed = sys.argv[2] if len(sys.argv) > 2 else "1"
    lab.build()
    for name in SERVERS:
        serve_echo(name)
    sh("ip netns add garbage")
    MAC = ":".join(f"{byte:02x}" for byte in mac_of("director"))
    ending = time.monotonic() + 60 * minutes
    number, first, done = 0, None, {}
    while number < 2 or time.monotonic() < ending:
        for name, count in one_round(number, seed).items():
            done[name] = done.get(name, 0) + count
        number += 1
        now = memory_kib()
        first = now if first is None else first
        print(f"round {number}: {done}, kernel memory {now - first:+} KiB since the first", flush=True)
        complaints = splats(sh("dmesg"))
        assert not complaints, "\n".join(complaints[:20])
    assert all(done.values()), f"something was never done: {done}"
    grown = now - first
    assert grown <= MEMORY_KIB_MAX, f"{grown} KiB of kernel memory are gone"
    print(f"soak: {number} rounds, no complaint, every Ci 0, memory {grown:+} KiB", flush=True)


main()
