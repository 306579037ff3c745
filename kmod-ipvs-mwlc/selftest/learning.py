# SPDX-License-Identifier: GPL-2.0-only
"""What the director tells those who listen, and what it learns of connections' sizes."""

import os
import socket
import struct
import subprocess
import time

from lab import CLIENT, HOSTS, SERVERS, TCP_PORT, VIP, Connection, client_socket, director, inside, service, sh, until
from nl import Mwlc, Refused, attribute, attributes

(
    SERVICE_ADDED,
    SERVICE_EDITED,
    SERVICE_REMOVED,
    DEST_ADDED,
    DEST_EDITED,
    DEST_REMOVED,
    DEST_OVERLOADED,
    DEST_RELIEVED,
    DEST_DRAINED,
    NO_DEST,
    FLOOD_BEGAN,
    FLOOD_ENDED,
) = range(1, 13)


def told(mwlc):
    """The next event as (kind, real server's address or None, cause)."""
    found = mwlc.message()
    if found is None:
        return None
    command, message = found
    assert command == 14, command
    event = attributes(message[7])
    if 1 in message:
        key = attributes(message[1])
        assert key[3][:4] == socket.inet_aton(VIP) and key[4] == struct.pack("!H", TCP_PORT)
    server = socket.inet_ntoa(attributes(message[2])[2][:4]) if 2 in message else None
    return event[1][0], server, event.get(2, b"").rstrip(b"\0").decode()


def all_told(mwlc):
    events = []
    while (event := told(mwlc)) is not None:
        events.append(event)
    return events


def test_events_tell_of_every_change():
    director("ipvsadm -C")
    mwlc = Mwlc()
    mwlc.listen("events")
    server = SERVERS["s1"]
    for command in (
        f"-A -t {VIP}:{TCP_PORT} -s wlc",
        f"-a -t {VIP}:{TCP_PORT} -r {server} -g -w 1",
        f"-e -t {VIP}:{TCP_PORT} -r {server} -g -w 0",
        f"-E -t {VIP}:{TCP_PORT} -s rr",
        f"-d -t {VIP}:{TCP_PORT} -r {server}",
        f"-D -t {VIP}:{TCP_PORT}",
        f"-A -t {VIP}:{TCP_PORT} -s wlc",
        "-C",
    ):
        director(f"ipvsadm {command}")
    events = all_told(mwlc)
    assert events == [
        (SERVICE_ADDED, None, ""),
        (DEST_ADDED, server, ""),
        (DEST_EDITED, server, ""),
        (SERVICE_EDITED, None, ""),
        (DEST_REMOVED, server, ""),
        (SERVICE_REMOVED, None, ""),
        (SERVICE_ADDED, None, ""),
        (SERVICE_REMOVED, None, ""),
    ], events


def test_events_tell_why_a_client_was_turned_away():
    service("wlc", weights=(0, 0, 0))
    mwlc = Mwlc()
    mwlc.listen("events")
    for _ in range(3):
        try:
            Connection()
            raise AssertionError("connected without a real server")
        except ConnectionRefusedError:
            pass
    causes = [event for event in all_told(mwlc) if event[0] == NO_DEST]
    assert len(causes) == 3 and all("weight 0" in cause for _, _, cause in causes), causes


def test_a_flood_of_refusals_is_no_flood_of_events():
    service("wlc", weights=(0, 0, 0))
    mwlc = Mwlc()
    mwlc.listen("events")
    for _ in range(400):
        with inside("client"):
            one = socket.socket()
        one.setblocking(False)
        one.connect_ex((VIP, TCP_PORT))
        one.close()
    # 100 at once, and 20 a second after that; 400 in a row take less than ten seconds even here.
    events = len(all_told(mwlc))
    assert 100 <= events <= 300, events
    director("ipvsadm -C")


def test_strangers_hear_nothing():
    """Only CAP_NET_ADMIN may listen: others would learn whom the clients talk to."""
    code = "import os, socket; os.setgid(1000); os.setuid(1000); "
    code += "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16); "
    code += f"s.setsockopt(270, 1, {Mwlc().groups['events']})"
    status, output = sh(f'python3 -c "{code}"', ns="director", check=False)
    assert status != 0 and "Operation not permitted" in output, (status, output)


EXPECTED = 1000


class Browser:
    """A kept-alive HTTP connection to the VIP, or another address and port."""

    def __init__(self, to=(VIP, TCP_PORT)):
        self.socket = client_socket(to, 0, 20)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self.socket.getsockname()[1]
        self.stream = self.socket.makefile("rb")

    def ask(self, path, method="GET", headers="", host="files"):
        request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n"
        self.socket.send(request.encode())
        self.finish()

    def finish(self):
        """Reads an answer."""
        length = 0
        while line := self.stream.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        assert len(self.stream.read(length)) == length

    def close(self):
        self.stream.close()
        self.socket.close()


def learning(remaining=0):
    """A service whose connections are expected to fetch 1000 bytes, and learn more from their requests."""
    service("mwlc")
    return learns(Mwlc(), remaining)


def learns(mwlc, remaining=0):
    mwlc.expect(EXPECTED)
    mwlc.watch(learn=1, remaining=remaining)
    mwlc.forget_sizes()
    mwlc.listen("sizes")
    return mwlc


def size_of(mwlc, browser):
    return mwlc.connections()[browser.port][1]


def total(mwlc):
    return sum(load[0] for load in mwlc.loads().values())


def test_a_request_asks_once_and_the_answer_counts():
    mwlc = learning()
    first, second = Browser(), Browser()
    first.ask("/100?query", host="Files:80")
    host, path, message = mwlc.question()
    assert (host, path) == ("files", "/100"), (host, path)
    conn = attributes(message[3])
    assert conn[3][:4] == socket.inet_aton(CLIENT) and conn[4] == struct.pack("!H", first.port)
    assert size_of(mwlc, first) == EXPECTED
    mwlc.answer(message, 5000)
    assert size_of(mwlc, first) == 5000
    # The next client's size is known from its request.
    second.ask("/100")
    assert mwlc.question() is None
    assert size_of(mwlc, second) == 5000
    assert total(mwlc) == 10_000
    assert mwlc.sizes() == {("files", "/100"): 5000}
    first.close()
    second.close()
    until(lambda: total(mwlc) == 0, "every Ci is 0")


def test_each_request_of_a_kept_connection_replaces_its_size():
    mwlc = learning()
    mwlc.tell_size("files", "/7", 7_000_000)
    browser = Browser()
    assert size_of(mwlc, browser) == EXPECTED
    for method, path, headers, size in (
        ("GET", "/7", "", 7_000_000),
        ("HEAD", "/7", "", 0),
        ("GET", "/x/../7", "Range: bytes=10-19\r\n", 10),
        ("GET", "/7", "Range: bytes=-500\r\n", 500),
        ("GET", "/7", "Range: bytes=6999000-\r\n", 1000),
        ("GET", "//7", "", 7_000_000),
        ("GET", "/7", "If-None-Match: x\r\n", EXPECTED),
        ("GET", "/7", "", 7_000_000),
        ("POST", "/7", "Content-Length: 0\r\n", EXPECTED),
    ):
        browser.ask(path, method, headers)
        assert size_of(mwlc, browser) == size, (method, path, headers, size_of(mwlc, browser))
        assert total(mwlc) == size
    browser.close()
    until(lambda: total(mwlc) == 0, "every Ci is 0")


def test_an_answer_that_comes_late_is_not_the_next_requests():
    mwlc = learning()
    browser = Browser()
    browser.ask("/1")
    late = mwlc.question()[2]
    browser.ask("/2")
    in_time = mwlc.question()[2]
    mwlc.answer(late, 111)
    assert size_of(mwlc, browser) == EXPECTED
    mwlc.answer(in_time, 222)
    assert size_of(mwlc, browser) == 222
    browser.close()
    # Nobody waits any more; the cache learns it all the same.
    until(lambda: total(mwlc) == 0, "every Ci is 0")
    mwlc.forget_sizes()
    mwlc.answer(in_time, 333)
    assert mwlc.sizes() == {("files", "/2"): 333}
    assert total(mwlc) == 0


def test_what_is_no_whole_request_leaves_the_expected_size():
    mwlc = learning()
    mwlc.tell_size("files", "/5", 5_000_000)
    browser = Browser()
    for part in (b"GE", b"T /5 HTTP/1.1\r\nHost: files\r\n\r\n"):
        browser.socket.send(part)
    browser.finish()
    assert size_of(mwlc, browser) == EXPECTED
    browser.socket.send(b"GET /5 HTTP/1.1\r\nHost: fi")
    browser.socket.send(b"les\r\n\r\n")
    browser.finish()
    assert size_of(mwlc, browser) == EXPECTED
    assert mwlc.question() is None
    # A head in more than one buffer of the kernel.
    browser.ask("/5", headers="Cookie: " + "c" * 3000 + "\r\n")
    assert size_of(mwlc, browser) == 5_000_000 or size_of(mwlc, browser) == EXPECTED
    browser.close()
    until(lambda: total(mwlc) == 0, "every Ci is 0")


def test_what_nobody_can_tell_is_not_asked_for_again_at_once():
    mwlc = learning()
    browser = Browser()
    browser.ask("/3")
    mwlc.answer(mwlc.question()[2], None)
    assert mwlc.sizes() == {("files", "/3"): None}
    for _ in range(5):
        browser.ask("/3")
    assert mwlc.question() is None
    assert size_of(mwlc, browser) == EXPECTED
    # Clients that want the same file before there is an answer all ask, but not without bound.
    started = time.monotonic()
    for _ in range(100):
        browser.ask("/4")
    seconds = time.monotonic() - started
    asked = 0
    while mwlc.question() is not None:
        asked += 1
    # A second without an answer later, the question is new.
    assert 64 <= asked <= 64 * (1 + seconds), (asked, seconds)
    browser.close()


def test_the_cache_has_a_bound_and_forgets():
    mwlc = learning()
    mwlc.tell_sizes("files", {f"/{number}": number for number in range(1000)})
    known = mwlc.sizes()
    assert len(known) == 1000 and known[("files", "/999")] == 999, len(known)
    mwlc.forget_sizes("files", "/999")
    assert ("files", "/999") not in mwlc.sizes()
    try:
        mwlc.forget_sizes("files", "/999")
        raise AssertionError("forgotten twice")
    except Refused as refused:
        assert refused.errno == 2, refused
    mwlc.tell_sizes("f", {f"/{number}": number for number in range(20_000)})
    known = mwlc.sizes()
    assert 10_000 < len(known) <= 16_384 and known[("f", "/19999")] == 19_999, len(known)
    mwlc.forget_sizes()
    assert mwlc.sizes() == {}
    mwlc.tell_size("f", "/gone", 1, ttl_ms=100)
    until(lambda: mwlc.sizes() == {}, "what is too old is forgotten")


def test_the_expected_size_follows_what_is_learned():
    mwlc = learning()
    mwlc.expect(EXPECTED, policy=1)
    before = mwlc.expected_now()[1]
    browser = Browser()
    for _ in range(3):
        mwlc.tell_size("files", "/9", 40_000)
        browser.ask("/9")
    now, learned = mwlc.expected_now()
    assert (now, learned) == (40_000, before + 3), (now, learned)
    browser.close()
    other = Browser()
    assert size_of(mwlc, other) == 40_000
    other.close()


def test_remaining_shrinks_as_the_client_acknowledges():
    mwlc = learning(remaining=1)
    size = 3_000_000
    mwlc.tell_size("files", f"/{size}", size)
    browser = Browser()
    seen = []
    browser.socket.send(f"GET /{size} HTTP/1.1\r\nHost: files\r\n\r\n".encode())
    for _ in range(29):
        # The client's buffer holds the sender back, so what is left is seen on its way.
        browser.stream.read(100_000)
        seen.append(size_of(mwlc, browser))
    while b"x" * 100 in browser.stream.peek():
        browser.stream.read1(65536)
        if size_of(mwlc, browser) == 0:
            break
    assert size_of(mwlc, browser) == 0 and total(mwlc) == 0, seen
    assert seen == sorted(seen, reverse=True) and any(0 < left < size for left in seen), seen
    browser.close()
    # A size that is learned late is less what was delivered meanwhile.
    browser = Browser()
    browser.ask("/2000000")
    message = mwlc.question()[2]
    assert size_of(mwlc, browser) == EXPECTED
    mwlc.answer(message, 5_000_000)
    left = size_of(mwlc, browser)
    assert 2_999_000 <= left <= 3_000_000 + 65536, left
    # And the next request begins anew.
    mwlc.tell_size("files", "/1000", 1000)
    browser.ask("/1000")
    until(lambda: size_of(mwlc, browser) == 0, "all is delivered")
    browser.close()
    until(lambda: total(mwlc) == 0, "every Ci is 0")


def test_learning_can_be_switched_off():
    mwlc = learning()
    mwlc.watch(learn=0)
    mwlc.tell_size("files", "/6", 66)
    browser = Browser()
    browser.ask("/6")
    assert size_of(mwlc, browser) == EXPECTED
    browser.close()
    until(lambda: total(mwlc) == 0, "every Ci is 0")


def test_what_nodes_report_counts_where_sizes_are_not_learned():
    service("mwlc")
    mwlc = Mwlc()
    mwlc.expect(EXPECTED)
    for name, open_bytes in (("s1", 50_000_000), ("s2", 1_000_000), ("s3", 80_000_000)):
        mwlc.report(SERVERS[name], open_bytes)
    connections = [Connection() for _ in range(3)]
    assert [connection.server for connection in connections] == ["s2"] * 3
    # Ci itself stays what the director knows.
    assert total(mwlc) == 3 * EXPECTED
    nodes = mwlc.nodes()
    assert {node: numbers[:3] for node, numbers in nodes.items()} == {
        SERVERS["s1"]: (50_000_000, 500, 250),
        SERVERS["s2"]: (1_000_000, 500, 250),
        SERVERS["s3"]: (80_000_000, 500, 250),
    }
    assert all(age_ms < 10_000 for *_, age_ms in nodes.values()), nodes
    # A service that learns sizes knows better than its nodes.
    mwlc.watch(learn=1)
    spread = [Connection() for _ in range(2)]
    assert {connection.server for connection in spread} == {"s1", "s3"}
    mwlc.watch(learn=0)
    for connection in spread:
        connection.close()
    until(lambda: [load[2] for load in mwlc.loads().values()].count(0) == 2, "s1 and s3 have no connection")
    # Reports that are too old say nothing.
    until(lambda: all(numbers[3] > 5_000 for numbers in mwlc.nodes().values()), "reports are old", seconds=20)
    later = [Connection() for _ in range(2)]
    assert {connection.server for connection in later} == {"s1", "s3"}
    for connection in connections + later:
        connection.close()
    try:
        mwlc.report("10.0.0.99", 1)
        raise AssertionError("a stranger's report was taken")
    except Refused as refused:
        assert refused.errno == 2, refused
    director("ipvsadm -C")


class Mwlcd:
    """with Mwlcd(namespace, arguments): the daemon runs there, and its log is `log`."""

    def __init__(self, ns, arguments):
        self.command = ["ip", "netns", "exec", ns, "/mwlcd", "--log", "debug", *arguments.split()]

    def __enter__(self):
        self.output = open(f"/run/mwlcd.{len(os.listdir('/run'))}", "w+")
        self.process = subprocess.Popen(self.command, stderr=self.output)
        return self

    def log(self):
        assert self.process.poll() is None, self.read()
        return self.read()

    def read(self):
        self.output.seek(0)
        return self.output.read()

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.output.close()


def test_mwlcd_answers_from_a_root():
    mwlc = learning()
    root = "/run/root"
    os.mkdir(root)
    os.mkdir(f"{root}/sub")
    for name, size in (("100", 123_456), ("sub/200", 7)):
        with open(f"{root}/{name}", "wb") as file:
            file.truncate(size)
    os.symlink("/etc/passwd", f"{root}/300")
    with Mwlcd("director", f"--root {root}") as mwlcd:
        until(lambda: "answering questions" in mwlcd.log(), "mwlcd is ready")
        browser = Browser()
        browser.ask("/x/..//100")
        until(lambda: size_of(mwlc, browser) == 123_456, "the size was answered")
        browser.ask("/100", headers="Range: bytes=-56\r\n")
        assert size_of(mwlc, browser) == 56
        browser.ask("/%73ub/200")
        until(lambda: size_of(mwlc, browser) == 7, "the size was answered")
        for path in ("/300", "/nothing"):
            browser.ask(path)
            until(lambda: mwlc.sizes().get(("files", path), 0) is None, "it is unknown")
            assert size_of(mwlc, browser) == EXPECTED
        browser.close()
    until(lambda: total(mwlc) == 0, "every Ci is 0")


def test_mwlcd_passes_on_what_nodes_report():
    service("mwlc")
    mwlc = Mwlc()
    director_address = HOSTS["director"]
    mount = "/run/mount"
    os.mkdir(mount)
    for name in ("key", "other"):
        with open(f"{mount}/{name}", "w") as file:
            file.write(f"the {name} that is shared\n")
    with open(f"{mount}/file", "wb") as file:
        file.truncate(5_000_000)
    listen = f"--listen {director_address}:7799 --key-file {mount}/key"
    report = f"--node --director {director_address}:7799 --mount {mount} --interval-ms 200 --key-file {mount}/"
    with Mwlcd("director", listen) as mwlcd:
        until(lambda: "answering questions" in mwlcd.log(), "mwlcd is ready")
        with Mwlcd("s1", report + "key"), Mwlcd("s2", report + "other"):
            server = SERVERS["s1"]
            until(lambda: mwlc.nodes().get(server, (1,))[0] == 0, "the node reports that nothing is open")
            with open(f"{mount}/file", "rb"):
                until(lambda: mwlc.nodes()[server][0] == 5_000_000, "the node reports what is open")
            until(lambda: mwlc.nodes()[server][0] == 0, "the node reports that it was closed")
            until(lambda: "code is wrong" in mwlcd.log(), "another key is noticed")
        nodes = mwlc.nodes()
        # Tests before this one have reported for s2: no newer report came.
        assert nodes.get(SERVERS["s2"], (0, 0, 0, 1 << 40))[3] > nodes[server][3], nodes
    director("ipvsadm -C")
