# SPDX-License-Identifier: GPL-2.0-only
"""Services of every kind: firewall marks, port 0, persistence, one packet; and what stock ip_vs says to the same
commands."""

import os
import re
import socket
import struct
import threading

from balancing import close_all, ends_at_zero, servers_of
from lab import CLIENT, MODULE, PATIENCE, SERVERS, VIP, Connection, ask_udp, director, inside, sh, until
from nl import Mwlc, attribute

SERVERS_AT = list(SERVERS.values())


def restore(*rules):
    director("ipvsadm -C")
    director("ipvsadm -R", stdin="\n".join(rules) + "\n")


def with_servers(service, port, more="-g"):
    return [f"-a {service} -r {address}:{port} {more}" for address in SERVERS_AT]


def echo(name, port):
    """One more TCP port of a server that says its name and keeps the connection until the client ends it."""
    with inside(name):
        listener = socket.create_server((VIP, port), backlog=200)

    def talk(connection):
        try:
            connection.send(name.encode() + b"\n")
            connection.recv(1)
        except OSError:
            pass
        finally:
            connection.close()

    def accept():
        while True:
            try:
                threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()
            except OSError:
                return

    threading.Thread(target=accept, daemon=True).start()
    return listener


def who_at(port, client=CLIENT):
    """Which server answers at this port of the VIP; the connection is closed at once."""
    with inside("client"):
        connection = socket.create_connection((VIP, port), timeout=5 * PATIENCE, source_address=(client, 0))
    with connection:
        return connection.recv(10).decode().strip()


class ports:
    """with ports(81, 443): every server listens there as well."""

    def __init__(self, *numbers):
        self.numbers = numbers

    def __enter__(self):
        self.listeners = [echo(name, port) for name in SERVERS for port in self.numbers]

    def __exit__(self, *_):
        for listener in self.listeners:
            # Wakes the thread that accepts.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


class marked:
    """with marked(7): every packet that reaches the director bears this firewall mark."""

    def __init__(self, mark):
        self.mark = mark

    def __enter__(self):
        director(
            "tc qdisc add dev eth0 clsact && "
            f"tc filter add dev eth0 ingress matchall action skbedit mark {self.mark}"
        )

    def __exit__(self, *_):
        director("tc qdisc del dev eth0 clsact")


class marked_by_the_firewall(marked):
    """The same as an administrator does it: nftables, in a chain of the mangle table's priority. There is no nft
    here."""

    def __enter__(self):
        nft = Nftables()
        hook = nest(4, attribute(1, struct.pack("!I", 0)) + attribute(2, struct.pack("!i", -150)))
        value = nest(2, attribute(1, struct.pack("=I", self.mark)))
        immediate = expression(b"immediate", attribute(1, struct.pack("!I", 8)) + value)
        set_mark = expression(b"meta", attribute(2, struct.pack("!I", 3)) + attribute(3, struct.pack("!I", 8)))
        nft.commit(
            [
                (0, attribute(1, b"marks\0")),
                (3, attribute(1, b"marks\0") + attribute(3, b"pre\0") + hook + attribute(7, b"filter\0")),
                (6, attribute(1, b"marks\0") + attribute(2, b"pre\0") + nest(4, immediate + set_mark)),
            ]
        )

    def __exit__(self, *_):
        Nftables().commit([(2, attribute(1, b"marks\0"))])


def nest(kind, payload):
    return attribute(kind | 0x8000, payload)


def expression(name, data):
    return nest(1, attribute(1, name + b"\0") + nest(2, data))


class Nftables:
    """Just enough of nf_tables to commit a batch of messages of IPv4 in the director's namespace."""

    BEGIN, END, SUBSYSTEM = 0x10, 0x11, 10

    def __init__(self):
        with inside("director"):
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
        self.socket.settimeout(10 * PATIENCE)

    def commit(self, messages):
        batch = self.message(self.BEGIN, struct.pack("!BBH", 0, 0, self.SUBSYSTEM), 1)
        for number, (kind, payload) in enumerate(messages):
            # Request, create, append; the last one is acknowledged when all are committed.
            flags = 0xC01 | (4 if number == len(messages) - 1 else 0)
            batch += self.message(
                self.SUBSYSTEM << 8 | kind, struct.pack("!BBH", socket.AF_INET, 0, 0) + payload, flags
            )
        batch += self.message(self.END, struct.pack("!BBH", 0, 0, self.SUBSYSTEM), 1)
        self.socket.send(batch)
        answer = self.socket.recv(65536)
        error = struct.unpack_from("=i", answer, 16)[0]
        assert error == 0, f"nf_tables: {os.strerror(-error)}"
        self.socket.close()

    @staticmethod
    def message(kind, payload, flags):
        return struct.pack("=IHHII", 16 + len(payload), kind, flags, 1, 0) + payload


def templates():
    """{(client, virtual address, port): (server, state)} of the persistence templates, which are from port 0."""
    found = {}
    for line in director("cat /proc/net/ip_vs_conn").splitlines()[1:]:
        words = line.split()
        if words[2] == "0000":
            found[words[1], words[3], int(words[4], 16)] = (words[5], words[7])
    return found


def test_firewall_marks_name_a_service_of_many_ports():
    restore("-A -f 7 -s rr", *with_servers("-f 7", 0))
    with ports(81), marked(7):
        assert [who_at(80) if port == 80 else who_at(port) for port in (81, 81, 81, 81)] == ["s1", "s2", "s3", "s1"]
        assert servers_of(1) == ["s2"], "another port, the same turn"
        # A mark comes before an address.
        director(f"ipvsadm -A -t {VIP}:81 -s rr")
        assert who_at(81) == "s3"
    with marked(8):
        # No service has this mark, and no address this port: it is for the director itself.
        try:
            who_at(82)
            raise AssertionError("somebody answered")
        except ConnectionRefusedError:
            pass
    assert "FWM  7 rr" in director("ipvsadm -Ln")
    assert "-A -f 7 -s rr" in director("ipvsadm -Sn")
    assert "FWM  00000007 rr " in director("cat /proc/net/ip_vs")
    director("ipvsadm -D -f 7 && ipvsadm -C")
    ends_at_zero()


def test_marks_are_those_of_the_mangle_table():
    restore(f"-A -t {VIP}:80 -s rr", f"-a -t {VIP}:80 -r {SERVERS_AT[0]}:80 -g")
    with marked_by_the_firewall(7):
        assert servers_of(2) == ["s1"] * 2, "no service has the mark"
        director("ipvsadm -A -f 7 -s rr")
        director(f"ipvsadm -a -f 7 -r {SERVERS_AT[1]}:0 -g")
        first = Connection()
        assert first.server == "s2" and servers_of(2) == ["s2"] * 2, "a mark comes before an address"
        assert first.fetch(1000) == "s2"
        director("ipvsadm -D -f 7")
        assert servers_of(1) == ["s1"]
        first.close()
    # Without the mark, the address counts while a mark's service is there.
    director("ipvsadm -A -f 7 -s rr")
    assert servers_of(2) == ["s1"] * 2
    director("ipvsadm -C")


def test_a_persistent_client_stays_on_its_server():
    restore(f"-A -t {VIP}:80 -s rr -p 100", *with_servers(f"-t {VIP}:80", 80))
    kept = []
    order = servers_of(5, keep=kept)
    assert set(order) == {order[0]}, order
    network, server = hex_of(CLIENT), hex_of(SERVERS[order[0]])
    assert templates() == {(network, hex_of(VIP), 80): (server, "ASSURED")}, templates()
    assert persistent_counts() == {SERVERS[order[0]]: 1}
    listing = director("ipvsadm -Ln")
    assert "rr persistent 100" in listing, listing
    # A template outlives its connections, and ends by its timeout once they have.
    close_all(kept)
    ends_at_zero()
    assert len(templates()) == 1
    director(f"ipvsadm -E -t {VIP}:80 -s rr -p 1 && ipvsadm --set 0 1 0")
    servers_of(1)
    until(lambda: not templates(), "the template has ended")
    assert persistent_counts() == {}
    director("ipvsadm --set 900 120 300")


def test_a_template_lives_while_its_connections_live():
    restore(f"-A -t {VIP}:80 -s rr -p 1", *with_servers(f"-t {VIP}:80", 80))
    first = Connection()
    until(lambda: expired_template(), "the template's time has come")
    again = Connection()
    assert again.server == first.server, "it held because of the connection"
    close_all([first, again])


def expired_template():
    """A template whose timeout has passed and that is still there."""
    lines = director("cat /proc/net/ip_vs_conn").splitlines()[1:]
    return any(line.split()[2] == "0000" and line.split()[8] == "0" for line in lines)


def hex_of(address):
    return socket.inet_aton(address).hex().upper()


def persistent_counts():
    """{server: templates} as ipvsadm shows them, without the zeros."""
    rows = [line.split() for line in director("ipvsadm -Ln --persistent-conn").splitlines() if "->" in line][1:]
    return {row[1].split(":")[0]: int(row[3]) for row in rows if int(row[3])}


def test_persistence_knows_networks_by_their_mask():
    sh("ip addr add 10.0.0.11/24 dev eth0 && ip addr add 10.0.0.130/24 dev eth0", ns="client")
    restore(f"-A -t {VIP}:80 -s rr -p 100 -M 255.255.255.128", *with_servers(f"-t {VIP}:80", 80))
    with inside("client"):
        kept = [
            socket.create_connection((VIP, 80), timeout=5 * PATIENCE, source_address=(client, 0))
            for client in (CLIENT, "10.0.0.11", "10.0.0.130")
        ]
    found = templates()
    assert len(found) == 2 and len({server for server, _ in found.values()}) == 2, found
    assert {key[0] for key in found} == {"0A000000", "0A000080"}, found
    close_all(kept)
    assert "-p 100 -M 255.255.255.128" in director("ipvsadm -Sn")
    sh("ip addr del 10.0.0.11/24 dev eth0 && ip addr del 10.0.0.130/24 dev eth0", ns="client")


def test_port_zero_takes_every_port_that_has_no_service():
    with ports(81, 443):
        restore(
            f"-A -t {VIP}:0 -s rr -p 100",
            *with_servers(f"-t {VIP}:0", 0),
            f"-A -t {VIP}:80 -s rr",
            f"-a -t {VIP}:80 -r {SERVERS_AT[2]}:80 -g",
        )
        assert servers_of(2) == ["s3", "s3"], "its own service comes first"
        first = who_at(81)
        assert who_at(443) == first and who_at(81) == first, "one server for all ports"
        assert list(templates()) == [(hex_of(CLIENT), hex_of(VIP), 0)]
    for command, word in ((f"-A -t {VIP}:0 -s rr", "persistent"), (f"-E -t {VIP}:0 -s rr", "persistent")):
        status, text = director(f"ipvsadm {command}", check=False)
        assert status != 0 and word in text, (command, text)
    director("ipvsadm -C")
    assert not templates(), "they go with their service"


def test_firewall_marks_persist_across_ports():
    restore("-A -f 7 -s rr -p 100", *with_servers("-f 7", 0))
    with ports(81), marked(7):
        first = who_at(81)
        assert servers_of(2) == [first] * 2
        assert list(templates()) == [(hex_of(CLIENT), "00000007", 0)], templates()


def test_a_template_of_a_quiesced_server_still_counts_and_of_a_removed_one_does_not():
    restore(f"-A -t {VIP}:80 -s rr -p 100", *with_servers(f"-t {VIP}:80", 80))
    first = servers_of(1)[0]
    director(f"ipvsadm -e -t {VIP}:80 -r {SERVERS[first]}:80 -g -w 0")
    assert servers_of(1) == [first], "as in IPVS, while expire_quiescent_template is 0"
    director(f"ipvsadm -d -t {VIP}:80 -r {SERVERS[first]}:80")
    assert not templates()
    other = servers_of(3)
    assert first not in other and len(set(other)) == 1, other


def test_one_packet_schedules_every_datagram():
    restore(f"-A -u {VIP}:53 -s rr -o", *with_servers(f"-u {VIP}:53", 53))
    with inside("client"):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(5 * PATIENCE)
    udp.bind((CLIENT, 0))
    answers = []
    for _ in range(6):
        udp.sendto(b"x", (VIP, 53))
        answers.append(udp.recv(100).split()[0].decode())
    port = udp.getsockname()[1]
    udp.close()
    assert answers == ["s1", "s2", "s3"] * 2, answers
    assert port not in Mwlc().connections()
    assert all(load[:4] == (0, 0, 0, 0) for load in Mwlc().loads().values())
    rows = [line.split() for line in director("ipvsadm -Ln --stats --exact").splitlines() if "->" in line][1:]
    numbers = [row[2] for row in rows]
    assert numbers == ["2", "2", "2"], numbers
    assert "ops" in director("ipvsadm -Ln") and director("ipvsadm -Sn").startswith(f"-A -u {VIP}:53 -s rr -o")
    restore(f"-A -u {VIP}:53 -s rr", *with_servers(f"-u {VIP}:53", 53))
    assert ask_udp(b"x") == "s1"


# Commands, and how their answers are compared. Rules that both directors accept come first.
RULES = [
    f"-A -t {VIP}:80 -s rr",
    f"-A -t {VIP}:443 -s wrr -p 360 -M 255.255.255.0",
    f"-A -t {VIP}:0 -s lc -p 50",
    f"-A -u {VIP}:53 -s wlc -o",
    "-A -f 7 -s rr -p 10",
    "-A -f 8 -s wlc -b flag-1",
    "-A -t [fd00::100]:80 -s rr",
    "-A -u [fd00::100]:53 -s wrr -p 60 -M 64 -o",
    "-A -f 9 -6 -s lc -p 70",
    f"-a -t {VIP}:80 -r 10.0.0.21:80 -g -w 5 -x 100 -y 50",
    f"-a -t {VIP}:80 -r 10.0.0.22:80 -g -w 0",
    f"-a -t {VIP}:0 -r 10.0.0.21 -g",
    "-a -f 7 -r 10.0.0.22:0 -g -w 2",
    f"-a -u {VIP}:53 -r 10.0.0.23:53 -g",
    "-a -t [fd00::100]:80 -r [fd00::21]:80 -g -w 3",
    "-a -f 9 -6 -r [fd00::21]:0 -g",
]
COMMANDS = [
    "ipvsadm -Ln",
    "ipvsadm -Ln --stats",
    "ipvsadm -Ln --rate",
    "ipvsadm -Ln --thresholds",
    "ipvsadm -Ln --persistent-conn",
    "ipvsadm -Sn",
    "ipvsadm -Lcn",
    "ipvsadm -L --timeout",
    "ipvsadm -Ln --daemon",
    f"ipvsadm -Ln -t {VIP}:80",
    "ipvsadm -Ln -f 7",
    "cat /proc/net/ip_vs",
    "cat /proc/net/ip_vs_stats",
    "cat /proc/net/ip_vs_conn",
    "cat /proc/net/ip_vs_stats_percpu",
    "ipvsadm -Ln -t [fd00::100]:80",
    "ipvsadm -Ln -f 9 -6",
    # Errors.
    "ipvsadm -A -t [fd00::100]:81 -s rr -p 5 -M 129",
    "ipvsadm -a -t [fd00::100]:80 -r 10.0.0.21:80 -g",
    f"ipvsadm -a -t {VIP}:80 -r [fd00::21]:80 -g",
    "ipvsadm -a -t [fd00::100]:80 -r [fd00::21]:80 -g",
    "ipvsadm -D -t [fd00::100]:82",
    "ipvsadm -d -t [fd00::100]:80 -r [fd00::29]:80",
    f"ipvsadm -A -t {VIP}:80 -s rr",
    f"ipvsadm -A -t {VIP}:81 -s nonesuch",
    f"ipvsadm -E -t {VIP}:82 -s rr",
    f"ipvsadm -D -t {VIP}:82",
    f"ipvsadm -a -t {VIP}:82 -r 10.0.0.21:82 -g",
    f"ipvsadm -a -t {VIP}:80 -r 10.0.0.21:80 -g",
    f"ipvsadm -e -t {VIP}:80 -r 10.9.9.9:80 -g",
    f"ipvsadm -d -t {VIP}:80 -r 10.9.9.9:80",
    f"ipvsadm -A -t {VIP}:0 -s rr",
    f"ipvsadm -a -t {VIP}:80 -r 10.0.0.24:80 -g -x 5 -y 6",
    "ipvsadm -D -f 9",
    f"ipvsadm -Ln -t {VIP}:82",
    f"ipvsadm -Z -t {VIP}:82",
    "ipvsadm -Z",
    "ipvsadm --set 10 20 30",
    "ipvsadm -C",
]


def answers():
    """What the director that was just loaded answers to each of the commands, with a client's connections in its
    table."""
    restore(*RULES)
    spoken = {}
    first, persistent = Connection(port=50001), None
    with ports(81), inside("client"):
        persistent = socket.create_connection((VIP, 81), timeout=5 * PATIENCE, source_address=(CLIENT, 50002))
        persistent.recv(10)
    for command in COMMANDS:
        status, text = director(command, check=False)
        # Tables have different sizes and orders, and time goes by.
        text = re.sub(r"size=\d+", "size=", text)
        if "--stats" in command or "--rate" in command or "ip_vs_stats" in command:
            text = re.sub(r" +[\dA-F]+(?= |$)", " number", text, flags=re.M)
        elif command == "cat /proc/net/ip_vs":
            text = "".join(sorted(text.splitlines(keepends=True)))
        text = re.sub(r"(TCP|UDP|IP ) *\d\d:\d\d", r"\1 mm:ss", text)
        if "ip_vs_conn" in command or "-Lcn" in command:
            text = "".join(sorted(re.sub(r" +\d+$", " seconds", text, flags=re.M).splitlines(keepends=True)))
        spoken[command] = (status, text)
    first.close()
    persistent.close()
    return spoken


def test_stock_ip_vs_answers_the_same():
    sh(f"rmmod ipvs_mwlc && insmod {MODULE}")
    ours = answers()
    sh("rmmod ipvs_mwlc")
    # What ip_vs needs and was there already stays: others need it too.
    before = sh("cut -d' ' -f1 /proc/modules").split()
    try:
        sh(
            "for m in $(cat /lib/modules/stock/order); do insmod /lib/modules/stock/$m 2>/dev/null; done; "
            "test -e /proc/net/ip_vs"
        )
        stock = answers()
    finally:
        stock_modules = [name.split(".ko")[0] for name in sh("cat /lib/modules/stock/order").split()]
        gone = [name for name in reversed(stock_modules) if name.replace("-", "_") not in before]
        director("ipvsadm -C")
        sh(f"rmmod {' '.join(gone)} && insmod {MODULE}")
    different = {command: (stock[command], ours[command]) for command in COMMANDS if stock[command] != ours[command]}
    for command, (theirs, mine) in different.items():
        print(f"--- {command}\nstock: {theirs[0]}\n{theirs[1]}ours: {mine[0]}\n{mine[1]}", flush=True)
    assert not different, list(different)


def totals():
    """Connections, packets and bytes that the namespace has counted."""
    return [int(word, 16) for word in director("cat /proc/net/ip_vs_stats").splitlines()[2].split()]


def test_totals_do_not_go_back_when_services_go():
    restore(f"-A -t {VIP}:80 -s rr", *with_servers(f"-t {VIP}:80", 80))
    director("ipvsadm -Z")
    assert totals()[0] == 0
    servers_of(3)
    before = totals()
    assert before[0] == 3 and before[1] >= 9, before
    director(f"ipvsadm -d -t {VIP}:80 -r {SERVERS_AT[0]}:80")
    assert totals()[0] == 3
    director(f"ipvsadm -Z -t {VIP}:80")
    assert totals()[0] == 3, "one service's zeroing is not the namespace's"
    director("ipvsadm -C")
    assert totals()[0] == 3
    lines = director("cat /proc/net/ip_vs_stats_percpu").splitlines()
    assert int([line for line in lines if line.startswith("  ~")][0].split()[1], 16) == 3, lines
    director(f"ipvsadm -A -t {VIP}:80 -s rr && ipvsadm -Z")
    assert totals()[0] == 0


def test_what_is_not_supported_is_said_in_the_log():
    restore(f"-A -t {VIP}:80 -s rr")
    # Once in ten seconds, so other tests' refusals may come first.
    until(
        lambda: director(f"ipvsadm -a -t {VIP}:80 -r 10.0.0.21:80 -m", check=False)[0] != 0
        and "a request was refused: this director has no masquerading" in sh("dmesg"),
        "a line in the log",
        20,
    )
    for option in ("-i", "-m"):
        status, _ = director(f"ipvsadm -a -t {VIP}:80 -r 10.0.0.21:80 {option}", check=False)
        assert status != 0, option
    status, _ = director("ipvsadm --start-daemon master --mcast-interface eth0", check=False)
    assert status != 0
    assert director("ipvsadm -L --daemon") == ""
