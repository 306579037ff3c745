# SPDX-License-Identifier: GPL-2.0-only
"""mwlcadm on the live module: beside stock ipvsadm, saving and restoring."""

import json
import os
import re
import signal
import subprocess

from lab import PATIENCE, SERVERS, VIP, Connection, ask_udp, director, service, sh, until
from nl import Mwlc

ADM = "/mwlcadm"
EXPIRES = re.compile(r"\b\d\d:\d\d(?=  )")
V6 = "2001:db8::100"

# Each is run by both tools on the same start; what is configured then must be the same.
COMMANDS = [
    "-A -t {vip}:80",
    "-A -t {vip}:80 -s rr",
    "-A -t {vip}:http -s wrr",
    "-A -u {vip}:53 -s wlc -b flag-1,flag-3",
    "-A -t {vip}:80 -s sh -b sh-fallback,sh-port",
    "-A -t {vip}:80 -s nosuch",
    "-A -t {vip}:80 -s rr -b sh-port",
    "-A -t {vip}:80 -p",
    "-A -t {vip}:80 -p 60",
    "-A -t {vip}:80 -p 60 -M 255.255.255.0",
    "-A -t {vip} -p 10",
    "-A -t {vip}",
    "-A -t [{v6}]:80 -s lc",
    "-A -t [{v6}]:80 -s lc -p -M 64",
    "-A -f 7 -s rr",
    "-A -f 7 -6 -s rr",
    "-A -f 0",
    "-A -u {vip}:53 -o -s rr",
    "-A -t {vip}:80 -o",
    "-A --sctp-service {vip}:80",
    "-A -t {vip}:80 --pe sip",
    "-A",
    "-A -t {vip}:99999",
    "-A -t {vip}:81 -s rr",
    "-E -t {vip}:81 -s wlc -p 5",
    "-E -t {vip}:82",
    "-D -t {vip}:81",
    "-D -t {vip}:82",
    "-a -t {vip}:81 -r 10.0.0.21",
    "-a -t {vip}:81 -r 10.0.0.21:81 -g -w 7",
    "-a -t {vip}:81 -r 10.0.0.21:9999 -g",
    "-a -t {vip}:81 -r 10.0.0.21 -w 65536",
    "-a -t {vip}:81 -r 10.0.0.21 -x 9 -y 4",
    "-a -t {vip}:81 -r 10.0.0.21 -m",
    "-a -t {vip}:81 -r 10.0.0.21 -i",
    "-a -t {vip}:81 -r 10.0.0.21 -i --tun-type gue --tun-port 6080",
    "-a -t {vip}:81 -r 10.0.0.21 --tun-type gre",
    "-a -t {vip}:81 -r [{v6}]",
    "-a -t {vip}:81 -r 10.0.0.22",
    "-a -t {vip}:81",
    "-a -t {vip}:82 -r 10.0.0.21",
    "-a -f 9 -r 10.0.0.21 -w 3",
    "-a -f 9 -r 10.0.0.21:8080",
    "-e -t {vip}:81 -r 10.0.0.22 -w 0",
    "-e -t {vip}:81 -r 10.0.0.23 -w 0",
    "-d -t {vip}:81 -r 10.0.0.22",
    "-d -t {vip}:81 -r 10.0.0.23",
    "--set 600 0 77",
    "--set 1 2",
    "--set 1 2 x",
    "-Z",
    "-Z -t {vip}:81",
    "-Z -t {vip}:82",
    "-C",
    "--start-daemon master --mcast-interface eth0 --syncid 7",
    "--start-daemon both",
    "--stop-daemon backup",
    "-L -t {vip}:82",
    "-Lc --stats",
    "-S -t {vip}:81",
    "-h",
    "--nonsense",
]
START = ["-A -t {vip}:81 -s rr", "-a -t {vip}:81 -r 10.0.0.22 -w 2", "-A -f 9 -s rr"]

LISTINGS = [
    "-L",
    "-Ln",
    "-ln",
    "-L --sort",
    "-Ln --stats",
    "-Ln --stats --exact",
    "-L --stats",
    "-Ln --rate",
    "-Ln --rate --exact",
    "-Ln --thresholds",
    "-Ln --persistent-conn",
    "-Ln --tun-info",
    "-Ln -t {vip}:80",
    "-L -t {vip}:80 --stats",
    "-Ln -u {vip}:53",
    "-Ln -f 7",
    "-Lnc",
    "-Lc",
    "-Lnc --persistent-conn",
    "-Ln --timeout",
    "-Ln --daemon",
    "-Sn",
    "-S",
]


def fill(command):
    return command.format(vip=VIP, v6=V6)


def fresh():
    director("ipvsadm -C && ipvsadm --set 900 120 300")


def test_mwlcadm_configures_as_ipvsadm_does():
    # One shell for all: a process more for each step takes minutes in an emulated machine.
    script = []
    for command in COMMANDS:
        for tool in ("ipvsadm", ADM):
            script += [
                "ipvsadm -C; ipvsadm -R </tmp/start",
                f"{tool} {fill(command)} >/dev/null 2>&1 && echo accepted || echo refused",
                "ipvsadm -Sn; ipvsadm -Ln --thresholds; ipvsadm -L --timeout; echo '%'",
            ]
    with open("/tmp/start", "w") as start:
        start.write(fill("\n".join(["--set 900 120 300", *START])) + "\n")
    results = director("\n".join(script)).split("%\n")[:-1]
    fresh()
    assert len(results) == 2 * len(COMMANDS)
    different = [
        f"{command}: ipvsadm {stock}mwlcadm {ours}"
        for command, stock, ours in zip(COMMANDS, results[::2], results[1::2])
        if stock != ours
    ]
    assert not different, "\n".join(different)


def test_mwlcadm_lists_as_ipvsadm_does():
    with open("/etc/hosts", "w") as hosts:
        hosts.write(f"127.0.0.1 localhost\n{VIP} web\n10.0.0.21 first-of-the-servers-with-a-long-name.example\n")
    with open("/etc/services", "w") as services:
        services.write("http 80/tcp\ndomain 53/udp\n")
    service("wrr", (1, 2, 3))
    for command in (
        "-A -u {vip}:53 -s rr -o",
        "-a -u {vip}:53 -r 10.0.0.21 -w 1",
        "-A -f 7 -s sh -b sh-port -p 300 -M 255.255.0.0",
        "-a -f 7 -r 10.0.0.22",
        "-A -t {vip}:0 -s mwlc -p",
        "-A -t {vip}:8080 -s sh -b sh-port",
        "-a -t {vip}:8080 -r 10.0.0.22 -w 65535",
        "-e -t {vip}:80 -r 10.0.0.23 -x 1000000 -y 999",
    ):
        director(f"ipvsadm {fill(command)}")
    connections = [Connection(size=1000) for _ in range(4)]
    ask_udp(b"x")
    for listing in LISTINGS:
        # Rates are estimated anew every two seconds, and both tools must fall between: on a slow machine they
        # only do so when all rates have come down to 0.
        def both():
            # Meanwhile the connections' time goes on.
            stock, ours = (EXPIRES.sub("mm:ss", director(f"{tool} {fill(listing)}")) for tool in ("ipvsadm", ADM))
            # ipvsadm saves neither thresholds nor timeouts.
            if listing.startswith("-S"):
                ours = ours.replace(" -x 1000000 -y 999", "")
            both.last = f"{listing}:\n{stock}---\n{ours}"
            return stock == ours

        try:
            until(both, "equal listings", 60)
        except AssertionError:
            raise AssertionError(both.last)
    for connection in connections:
        connection.close()
    fresh()


def test_save_and_restore_lose_nothing():
    fresh()
    lines = [
        "--set 600 60 77",
        f"-A -t {VIP}:80 -s mwlc",
        f"set -t {VIP}:80 --expected-size 30000000 --size-policy learned --learn http --remaining on --slow-start 90s",
        f"-a -t {VIP}:80 -r 10.0.0.21:80 -g -w 3 -x 100 -y 50",
        f"-a -t {VIP}:80 -r 10.0.0.22:80 -g -w 0",
        f"-A -u {VIP}:53 -s wlc -p 60 -M 255.255.255.0 -o -b flag-1",
        f"set -u {VIP}:53 --expected-size 7",
        f"-a -u {VIP}:53 -r 10.0.0.21:53 -g -w 1",
        "-A -f 7 -s rr",
        "set -f 7 --remaining on",
    ]
    text = "\n".join(lines) + "\n"
    director(f"{ADM} restore", stdin=f"# a comment\n\n{text}")
    assert director(f"{ADM} save") == text, director(f"{ADM} save")
    assert director(f"{ADM} -Sn") == text
    director(f"{ADM} restore --clear", stdin=text)
    assert director(f"{ADM} save") == text
    # What stock ipvsadm saves is restored too, and the other way round.
    stock = director("ipvsadm -Sn")
    director("ipvsadm -C")
    director(f"{ADM} -R", stdin=stock)
    assert director("ipvsadm -Sn") == stock
    fresh()


def test_a_wrong_restore_changes_nothing():
    fresh()
    director(f"ipvsadm -A -t {VIP}:80 -s rr")
    before = director(f"{ADM} save")
    for number, text, words in (
        (2, f"-C\n-A -t {VIP}:80 -s nosuch\n", "unknown scheduler"),
        (3, f"-A -t {VIP}:81 -s rr\n# why\n-A -t {VIP}:81 -s rr\n", "exists"),
        (1, f"-A -t {VIP}:80 -s rr\n", "exists"),
        (2, f"-D -t {VIP}:80\n-a -t {VIP}:80 -r 10.0.0.21\n", ""),
        (2, f"-A -t {VIP}:81\n-a -t {VIP}:81 -r 10.0.0.21 -m\n", "rout"),
        (2, f"-C\nset -t {VIP}:81 --expected-size 5\n", ""),
        (2, "-C\n-A -t nonsense\n", ""),
        (1, "frobnicate\n", "frobnicate"),
    ):
        status, said = director(f"{ADM} restore", check=False, stdin=text)
        assert status == 1 and f"line {number}: " in said and words in said, (status, said)
        assert director(f"{ADM} save") == before, text
        status, again = director(f"{ADM} restore --check", check=False, stdin=text)
        assert status == 1 and f"line {number}: " in again, again
    assert "1 commands" in director(f"{ADM} restore --check", stdin=f"-D -t {VIP}:80\n")
    assert director(f"{ADM} save") == before
    fresh()


def test_refusals_come_in_the_directors_words():
    fresh()
    director(f"ipvsadm -A -t {VIP}:80 -s rr")
    for command, words in (
        (f"-A -t {VIP}:81 -s nosuch", "scheduler"),
        (f"-a -t {VIP}:80 -r 10.0.0.21 -m", "rout"),
        (f"-a -t {VIP}:80 -r 10.0.0.21 -i", "rout"),
        (f"-A -t {VIP}:81 --pe sip", "persistence engine"),
        ("--start-daemon master", "daemon"),
        (f"-D -t {VIP}:82", "service"),
    ):
        status, said = director(f"{ADM} {command}", check=False)
        assert status == 1 and words in said, (command, status, said)
    fresh()


def complaints():
    """What `check` finds wrong: pairs of what it looked at and the whole finding's text."""
    status, said = director(f"{ADM} check --json --wait 300ms", check=False)
    # The last line is the error's, on the other channel.
    findings = json.loads(said[: said.rindex("]") + 1])
    wrong = [
        (finding["subject"], finding["what"] + " ".join(finding["fix"]))
        for finding in findings
        if finding["verdict"] == "wrong"
    ]
    assert status == (1 if wrong else 0), said
    assert len(findings) >= 5, said
    return wrong


def test_check_names_the_real_server_that_answers_arp():
    service("mwlc")
    assert complaints() == []
    for name in ("s2", "s3"):
        sh("echo 0 >/proc/sys/net/ipv4/conf/all/arp_ignore", ns=name)
        ((subject, text),) = complaints()
        assert (
            subject == VIP and f"real server {SERVERS[name]} (" in text and f"on {SERVERS[name]}: sysctl" in text
        ), text
        sh("echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore", ns=name)
        assert complaints() == []
    fresh()


def test_check_finds_what_else_is_wrong():
    service("mwlc")
    sh("ip link set eth0 down", ns="s1")
    ((subject, text),) = complaints()
    assert subject == SERVERS["s1"] and "does not answer" in text, text
    sh("ip link set eth0 up", ns="s1")
    director(f"ip address del {VIP}/32 dev eth0")
    ((subject, text),) = complaints()
    assert subject == VIP and "ip address add" in text, text
    director(f"ip address add {VIP}/32 dev eth0")
    director(f"ipvsadm -a -t {VIP}:80 -r 10.77.0.1")
    ((subject, text),) = complaints()
    assert subject == "10.77.0.1" and "no segment" in text, text
    director(f"ipvsadm -d -t {VIP}:80 -r 10.77.0.1")
    for address in SERVERS.values():
        director(f"ipvsadm -e -t {VIP}:80 -r {address}:80 -w 0")
    ((subject, text),) = complaints()
    assert subject == f"TCP {VIP}:80" and "weight 0" in text, text
    assert "WRONG" in director(f"{ADM} check", check=False)[1]
    fresh()


def background(command):
    """A command of mwlcadm's in the director's namespace, its output line by line."""
    words = ["ip", "netns", "exec", "director", ADM, *command.split()]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_monitor_tells_what_changes():
    fresh()
    monitor = background("monitor --count 5")
    assert monitor.stdout.readline() == "listening\n"
    for command in (
        "-A -t {vip}:80 -s rr",
        "-a -t {vip}:80 -r 10.0.0.21 -w 0",
        "-e -t {vip}:80 -r 10.0.0.21 -w 3",
        "-E -t {vip}:80 -s wlc",
    ):
        director(f"{ADM} {fill(command)}")
    director(f"{ADM} -D -t {VIP}:80")
    said, _ = monitor.communicate(timeout=30 * PATIENCE)
    events = [line.split(" ", 1)[1] for line in said.splitlines()]
    service_name, dest = f"TCP {VIP}:80", "10.0.0.21:80"
    assert events == [
        f"service-added {service_name}",
        f"real-server-added {service_name} {dest}",
        f"real-server-edited {service_name} {dest}",
        f"service-edited {service_name}",
        f"service-removed {service_name}",
    ], said
    assert monitor.returncode == 0


def test_drain_waits_for_the_last_connection():
    service("mwlc")
    connections = [Connection() for _ in range(6)]
    mine = [connection for connection in connections if connection.server == "s2"]
    assert mine
    drain = background(f"drain -t {VIP}:80 -r {SERVERS['s2']} --deadline 1h --policy redispatch --wait")
    until(lambda: weights()[SERVERS["s2"]] == 0, "it takes no more connections")
    assert all(Connection().server != "s2" for _ in range(4))
    assert drain.poll() is None, drain.stdout.read()
    for connection in mine:
        connection.close()
    said, _ = drain.communicate(timeout=30 * PATIENCE)
    assert drain.returncode == 0 and f"{len(mine)} connections are gone" in said, said
    status, said = director(f"{ADM} drain -t {VIP}:80 -r 10.0.0.99", check=False)
    assert status == 1 and "10.0.0.99" in said, said
    # Who gives it a weight again ends the drain, and who waits hears of it.
    held = Connection()
    waiting = background(f"drain -t {VIP}:80 -r {SERVERS[held.server]} --wait")
    until(lambda: weights()[SERVERS[held.server]] == 0, "it takes no more connections")
    director(f"ipvsadm -e -t {VIP}:80 -r {SERVERS[held.server]}:80 -g -w 1")
    said, _ = waiting.communicate(timeout=30 * PATIENCE)
    assert waiting.returncode == 1 and "given a weight again" in said, said
    held.close()
    # At the deadline those that are left are reset.
    left = [connection for connection in connections if connection.server == "s1"]
    assert "drained" in director(f"{ADM} drain -t {VIP}:80 -r {SERVERS['s1']} --deadline 500ms --wait")
    for connection in left:
        try:
            connection.fetch(10)
            raise AssertionError("a connection outlived its real server's deadline")
        except OSError:
            pass
    for connection in connections:
        connection.close()
    fresh()


def weights():
    services = json.loads(director(f"{ADM} loads --json"))
    return {
        server["address"].split(":")[0]: server["weight"]
        for service in services
        for server in service["real_servers"]
    }


def test_top_in_a_pipe():
    service("mwlc", (2, 1, 1))
    connection = Connection()
    look = director(f"{ADM} top --once")
    assert f"TCP {VIP}:80 mwlc" in look and all(address in look for address in SERVERS.values()), look
    services = json.loads(director(f"{ADM} top --once --json"))["services"]
    active = {server["address"]: server["active"] for server in services[0]["real_servers"]}
    assert sum(active.values()) == 1 and active[f"{SERVERS[connection.server]}:80"] == 1, active
    connection.close()
    fresh()


def on_a_terminal(end):
    """Runs `top` on a terminal of its own, ends it, and answers what it wrote last."""
    master, slave = os.openpty()
    settings = f"stty -g -F {os.ttyname(slave)}"
    before = sh(settings)
    words = ["ip", "netns", "exec", "director", ADM, "top", "-i", "250ms"]
    top = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave)
    written = b""
    while written.count(b"Real server") < 3:
        written += os.read(master, 65536)
    assert written.startswith(b"\x1b[?1049h"), written[:40]
    end(top, master)
    assert top.wait(30) == 0
    os.set_blocking(master, False)
    try:
        while True:
            written += os.read(master, 65536)
    except BlockingIOError:
        pass
    assert sh(settings) == before, "the terminal is not as it was"
    os.close(master)
    os.close(slave)
    return written


def test_top_gives_the_terminal_back():
    sh("mountpoint -q /dev/pts || { mkdir -p /dev/pts && mount -t devpts devpts /dev/pts; }")
    service("mwlc")
    for end in (
        lambda top, master: os.write(master, b"ssq"),
        lambda top, master: os.write(master, b"\x03"),
        lambda top, master: top.send_signal(signal.SIGINT),
        lambda top, master: top.send_signal(signal.SIGTERM),
    ):
        assert on_a_terminal(end).endswith(b"\x1b[?25h\x1b[?1049l")
    fresh()


def test_sizes_of_files_and_reports_of_nodes():
    service("mwlc")
    director(f"{ADM} sizes flush")
    director(f"{ADM} set -t {VIP}:80 --expected-size 5M --learn http")
    director(f"{ADM} sizes set --host Files /a 30M --ttl 10m && {ADM} sizes set /b 7")
    sizes = json.loads(director(f"{ADM} sizes --json"))
    assert [(file["host"], file["path"], file["size_bytes"]) for file in sizes["files"]] == [
        ("", "/b", 7),
        ("files", "/a", 30 << 20),
    ], sizes
    assert 590_000 < sizes["files"][1]["ttl_ms"] <= 600_000, sizes
    (of_service,) = sizes["services"]
    assert (of_service["expected_size_bytes"], of_service["learn"]) == (5 << 20, "http"), sizes
    director(f"{ADM} sizes delete --host files /a")
    text = director(f"{ADM} sizes")
    assert "/b" in text and "/a" not in text, text
    status, said = director(f"{ADM} sizes delete --host files /a", check=False)
    assert status == 1 and "files/a" in said, said
    director(f"{ADM} sizes flush")
    assert json.loads(director(f"{ADM} sizes --json"))["files"] == []
    mwlc = Mwlc()
    mwlc.report(SERVERS["s1"], 5000)
    # Other tests' nodes may have reported too.
    nodes = {node["address"]: node["open_bytes"] for node in json.loads(director(f"{ADM} nodes --json"))}
    assert nodes[SERVERS["s1"]] == 5000, nodes
    assert SERVERS["s1"] in director(f"{ADM} nodes")
    fresh()
