# SPDX-License-Identifier: GPL-2.0-only
"""Real servers that go and come: draining with a deadline, re-dispatch, thresholds, slow start, and why a client was
refused."""

import socket
import struct

from balancing import close_all, ends_at_zero, servers_of
from lab import CLIENT, HOSTS, HOSTS6, PATIENCE, SERVERS, UDP_PORT, VIP, Connection, director, inside, service, until
from nl import Mwlc, address, attribute, attributes, family_of
from services import restore, templates, with_servers

DRAIN, DRAIN_LEFT_MS, DRAIN_POLICY, RAMP_PERMILLE = 6, 13, 14, 15
RESET, REDISPATCH = 0, 1
SLOW_START_MS = 12


class Director(Mwlc):
    """Our family, with what concerns draining."""

    def service_of(self, protocol, *more):
        key = attribute(1, family_of(self.vip)) + attribute(2, struct.pack("=H", protocol))
        key += attribute(3, address(self.vip)) + attribute(4, struct.pack("!H", self.port_of(protocol)))
        return attribute(1, key + b"".join(more))

    def port_of(self, protocol):
        return self.port if protocol == 6 else UDP_PORT

    def address_of(self, server):
        return (HOSTS6 if ":" in self.vip else HOSTS)[server]

    def drain(self, server, left_ms=None, policy=RESET, protocol=6):
        dest = attribute(1, family_of(self.vip)) + attribute(2, address(self.address_of(server)))
        dest += attribute(3, struct.pack("!H", self.port_of(protocol))) + attribute(DRAIN_POLICY, bytes([policy]))
        if left_ms is not None:
            dest += attribute(DRAIN_LEFT_MS, struct.pack("=Q", left_ms))
        self.call(DRAIN, self.service_of(protocol) + attribute(2, dest))

    def slow_start(self, milliseconds):
        self.call(self.SET_SERVICE, self.service_of(6, attribute(SLOW_START_MS, struct.pack("=I", milliseconds))))

    def dest(self, server):
        """The attributes of a real server."""
        for answer in self.call(self.GET_DEST, dump=True):
            dest = attributes(attributes(answer)[2])
            if dest[2] == address(self.address_of(server)):
                return dest
        raise AssertionError(f"no {server}")

    def ramp(self, server):
        return struct.unpack("=I", self.dest(server)[RAMP_PERMILLE])[0]

    def service(self):
        return attributes(attributes(self.call(self.GET_SERVICE, dump=True)[0])[1])


def is_reset(connection):
    try:
        connection.fetch(10)
        return False
    except ConnectionResetError:
        return True


def on(server, kept):
    return next(connection for connection in kept if connection.server == server)


def test_a_drain_resets_what_is_left_at_its_deadline():
    service("rr")
    mwlc, kept = Director(), []
    servers_of(3, keep=kept)
    mwlc.drain("s2", 3_600_000)
    left = struct.unpack("=Q", mwlc.dest("s2")[DRAIN_LEFT_MS])[0]
    assert 3_500_000 < left <= 3_600_000 and mwlc.dest("s2")[DRAIN_POLICY] == b"\0", left
    assert "s2" not in servers_of(4) and on("s2", kept).fetch(10) == "s2", "old connections go on"
    mwlc.drain("s2", 0)
    until(lambda: mwlc.loads()["s2"][2] == 0, "s2 is empty")
    gone = on("s2", kept)
    assert is_reset(gone)
    kept.remove(gone)
    # A weight ends the drain.
    director(f"ipvsadm -e -t {VIP}:80 -r {SERVERS['s2']}:80 -g -w 1")
    assert DRAIN_POLICY not in mwlc.dest("s2")
    assert "s2" in servers_of(3)
    close_all(kept)
    ends_at_zero()


def test_a_drain_without_deadline_waits_and_tells_when_it_is_done():
    service("rr")
    mwlc, kept = Director(), []
    servers_of(3, keep=kept)
    mwlc.drain("s1")
    assert DRAIN_LEFT_MS not in mwlc.dest("s1") and DRAIN_POLICY in mwlc.dest("s1")
    with listening() as events:
        director("ipvsadm --set 0 1 0")
        on("s1", kept).close()
        kept.remove(on("s1", kept))
        until(lambda: (9, address(SERVERS["s1"])) in events(), "the event: drained")
    director("ipvsadm --set 900 120 300")
    close_all(kept)


class listening:
    """with listening() as events: events() are (kind, real server) of what was told since."""

    def __enter__(self):
        self.family = Director()
        answer = attributes(self.family_info())
        groups = attributes(answer[7])
        group = attributes(next(iter(groups.values())))
        self.family.socket.setsockopt(270, 1, struct.unpack("=I", group[2])[0])  # NETLINK_ADD_MEMBERSHIP
        self.family.socket.setblocking(False)
        self.seen = []
        return self.events

    def family_info(self):
        mine, self.family.id = self.family.id, 16
        answer = self.family.call(3, attribute(2, b"ipvs_mwlc\0"))[0]
        self.family.id = mine
        return answer

    def events(self):
        while True:
            try:
                message = attributes(self.family.socket.recv(65536)[20:])
            except BlockingIOError:
                return self.seen
            dest = attributes(message.get(2, b""))
            self.seen.append((attributes(message[7])[1][0], dest.get(2)))

    def __exit__(self, *_):
        self.family.socket.close()


def test_a_drain_can_send_connections_elsewhere():
    restore(f"-A -u {VIP}:53 -s rr", *with_servers(f"-u {VIP}:53", 53))
    mwlc = Director()
    with inside("client"):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(5 * PATIENCE)
    udp.connect((VIP, 53))

    def ask():
        udp.send(b"x")
        return udp.recv(100).split()[0].decode()

    first = ask()
    assert ask() == first
    mwlc.drain(first, 0, REDISPATCH, protocol=17)
    until(lambda: ask() != first, "another server answers")
    other = ask()
    assert ask() == other
    # The same when a real server is removed that would re-dispatch.
    third = next(server for server in SERVERS if server not in (first, other))
    mwlc.drain(other, 3_600_000, REDISPATCH, protocol=17)
    director(f"ipvsadm -d -u {VIP}:53 -r {SERVERS[other]}:53")
    assert ask() == third
    udp.close()


def test_a_redispatched_tcp_client_is_reset_and_comes_back():
    service("rr")
    mwlc = Director()
    # It meets a server that knows nothing of it, and its next try succeeds.
    connection = Connection()
    was = connection.server
    mwlc.set_size(CLIENT, connection.port, 64_000)
    mwlc.drain(was, 0, REDISPATCH)
    until(lambda: mwlc.loads()[was][2] == 0, f"{was} is empty")
    elsewhere = [load for load in mwlc.loads().values() if load[2]]
    assert len(elsewhere) == 1, "it is counted elsewhere"
    # It goes on as it was: with its state and its size.
    assert elsewhere[0][0] == mwlc.connections()[connection.port][1] == 64_000
    assert is_reset(connection)
    assert was not in servers_of(3)


def test_a_removed_service_resets_its_clients():
    service("rr")
    kept = []
    servers_of(3, keep=kept)
    director("ipvsadm -C")
    assert all(is_reset(connection) for connection in kept)


def test_what_is_removed_is_listed_no_more():
    """Neither its connections nor its templates, from the moment on at which the command returns; and the others
    stay."""
    rules = (f"-A -t {VIP}:80 -s rr -p 100 -M 255.255.255.255", *with_servers(f"-t {VIP}:80", 80))
    mwlc, kept = Director(), []

    def listed():
        return director("ipvsadm -Lcn").splitlines()[2:], mwlc.connections()

    for command in ("ipvsadm -C", f"ipvsadm -D -t {VIP}:80"):
        restore(*rules)
        servers_of(5, keep=kept)
        assert [len(one) for one in listed()] == [6, 5], "five connections, and their template where templates are"
        director(command)
        assert [len(one) for one in listed()] == [0, 0], command
        close_all(kept)
    service("rr")
    servers_of(6, keep=kept)
    director(f"ipvsadm -d -t {VIP}:80 -r {SERVERS['s2']}:80")
    lines, connections = listed()
    assert len(lines) == len(connections) == 4 and not any(SERVERS["s2"] in line for line in lines), lines
    assert all(is_reset(connection) == (connection.server == "s2") for connection in kept)
    # A real server that is added again at once begins without them.
    director(f"ipvsadm -a -t {VIP}:80 -r {SERVERS['s2']}:80 -g")
    assert mwlc.loads()["s2"] == (0, 0, 0, 0)
    close_all(kept)
    director("ipvsadm -C")


def test_a_draining_server_has_no_persistent_clients():
    restore(f"-A -t {VIP}:80 -s rr -p 100", *with_servers(f"-t {VIP}:80", 80))
    first = servers_of(1)[0]
    Director().drain(first)
    other = servers_of(2)
    assert first not in other and len(templates()) == 1, other


def test_thresholds_as_in_ipvs():
    director("ipvsadm -C")
    director(f"ipvsadm -A -t {VIP}:80 -s rr && ipvsadm -a -t {VIP}:80 -r {SERVERS['s1']}:80 -g -x 4 -y 2")
    director(f"ipvsadm -a -t {VIP}:80 -r {SERVERS['s2']}:80 -g")
    mwlc, kept = Director(), []
    with listening() as events:
        order = servers_of(9, keep=kept)
        assert order.count("s1") == 4 and order[-2:] == ["s2", "s2"], order
        until(lambda: (7, address(SERVERS["s1"])) in events(), "the event: overloaded")
        director("ipvsadm --set 0 1 0")
        for _ in range(2):
            on("s1", kept).close()
            kept.remove(on("s1", kept))
        until(lambda: sum(mwlc.loads()["s1"][1:]) == 2, "two are left")
        assert servers_of(1, keep=kept) == ["s2"], "not below the lower threshold yet"
        on("s1", kept).close()
        kept.remove(on("s1", kept))
        until(lambda: sum(mwlc.loads()["s1"][1:]) == 1, "one is left")
        assert "s1" in servers_of(2, keep=kept)
        until(lambda: (8, address(SERVERS["s1"])) in events(), "the event: relieved")
    director("ipvsadm --set 900 120 300")
    assert "4          2 " in director("ipvsadm -Ln --thresholds")
    close_all(kept)
    ends_at_zero()


def test_a_newcomer_starts_slowly():
    director("ipvsadm -C")
    director(f"ipvsadm -A -t {VIP}:80 -s wlc")
    for server in ("s1", "s2"):
        director(f"ipvsadm -a -t {VIP}:80 -r {SERVERS[server]}:80 -g -w 100")
    mwlc, kept = Director(), []
    assert struct.unpack("=I", mwlc.service()[SLOW_START_MS])[0] == 30_000
    assert mwlc.ramp("s1") == mwlc.ramp("s2") == 1000, "nobody has a connection: nothing to catch up with"
    mwlc.slow_start(3_600_000)
    servers_of(20, keep=kept)
    director(f"ipvsadm -a -t {VIP}:80 -r {SERVERS['s3']}:80 -g -w 100")
    assert mwlc.ramp("s3") == 50
    order = servers_of(10, keep=kept)
    assert 1 <= order.count("s3") <= 2, f"a twentieth of the weight: {order}"
    mwlc.slow_start(0)
    assert mwlc.ramp("s3") == 1000
    assert servers_of(5, keep=kept) == ["s3"] * 5
    # So does one that comes back from weight 0.
    mwlc.slow_start(3_600_000)
    director(
        f"ipvsadm -e -t {VIP}:80 -r {SERVERS['s3']}:80 -g -w 0 && ipvsadm -e -t {VIP}:80 -r {SERVERS['s3']}:80 -g -w 9"
    )
    assert mwlc.ramp("s3") == 50
    mwlc.slow_start(0)
    mwlc.slow_start(1)
    director(
        f"ipvsadm -e -t {VIP}:80 -r {SERVERS['s3']}:80 -g -w 0 && ipvsadm -e -t {VIP}:80 -r {SERVERS['s3']}:80 -g -w 9"
    )
    until(lambda: mwlc.ramp("s3") == 1000, "it has started")
    close_all(kept)
    ends_at_zero()


def test_refusals_are_counted_by_cause():
    director(f"ipvsadm -C && ipvsadm -A -t {VIP}:80 -s rr")
    mwlc = Director()

    def refused():
        try:
            Connection()
        except ConnectionRefusedError:
            return True
        return False

    assert refused()
    director(f"ipvsadm -a -t {VIP}:80 -r {SERVERS['s1']}:80 -g -w 0")
    assert refused() and refused()
    director(f"ipvsadm -e -t {VIP}:80 -r {SERVERS['s1']}:80 -g -w 1 -x 1")
    first = Connection()
    assert refused()
    counts = [struct.unpack("=Q", mwlc.service()[kind])[0] for kind in range(14, 19)]
    assert counts == [1, 2, 1, 0, 0], counts
    first.close()


def test_rates_are_steady():
    """A server that gets the same in every period has a rate that does not jump, whenever it is asked for."""
    restore(f"-A -u {VIP}:53 -s rr -o", *with_servers(f"-u {VIP}:53", 53))
    with inside("client"):
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def settled():
        for _ in range(30):
            udp.sendto(b"x", (VIP, 53))
        rows = [line.split() for line in director("ipvsadm -Ln --rate --exact").splitlines() if "->" in line][1:]
        rates = [int(row[2]) for row in rows]
        low, high = min(rates), max(rates)
        # The servers' periods do not begin together, so their first ones may differ.
        return low > 0 and high <= 2 * low + 2

    until(settled, "equal shares have like rates", 30)
    udp.close()
