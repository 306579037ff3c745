# SPDX-License-Identifier: GPL-2.0-only
"""ipvsadm with every option that applies, on the stock module and on this one, in one guest: what it prints and its
status have to be the same. Where they are meant to differ, the group stands in DIFFERENT with the reason."""

import os
import re

from cluster import NODES, PATIENCE_S, VIP, fetch
from lab import sh, until

S1, S2, S3 = NODES.values()
TCP = f"-t {VIP}:80"
TCP81 = f"-t {VIP}:81"
UDP = f"-u {VIP}:53"
SCHEDULERS = "rr wrr lc wlc sh sed nq fo ovf mh twos nosuch".split()

# Groups of commands, ipvsadm's arguments; each group starts with an empty table. Ours are `fetch PORT N` (a client's
# downloads), `counted PORT N` (waits until so many connections are in the statistics, which the stock module folds
# now and then only) and `restore TEXT`.
GROUPS = {
    "schedulers": [line for name in SCHEDULERS for line in (f"-A {TCP} -s {name}", "-Sn", f"-D {TCP}")],
    "services": [
        "-Ln",
        f"-A {TCP} -s rr",
        f"-A {TCP} -s rr",
        f"-A {UDP}",
        f"-A {TCP81}",
        "-Sn",
        f"-E {TCP} -s wlc",
        "-Sn",
        f"-E -t {VIP}:9 -s rr",
        f"-D -t {VIP}:9",
        f"-E {TCP}",
        "-Sn",
        f"-D {TCP}",
        f"-D {TCP}",
        "-Ln",
        "-C",
        "-Ln",
        f"-A -t {VIP}:0 -s rr",
        f"-A -t {VIP}:0 -s rr -p 60",
        "-Sn",
        f"-A -t {VIP} -s rr",
        f"-A -t {VIP}:http -s rr",
        "-S",
        "-Sn",
    ],
    "marks": [
        "-A -f 7 -s rr",
        "-A -f 7 -s rr",
        "-A -f 0 -s rr",
        f"-a -f 7 -r {S1} -g",
        f"-a -f 7 -r {S2}:0 -g -w 3",
        "-Sn",
        "-Ln",
        "-Ln -f 7",
        f"-e -f 7 -r {S1}:0 -g -w 9",
        f"-d -f 7 -r {S2}:0",
        "-Sn",
        "-D -f 7",
        "-D -f 9",
        "-Sn",
    ],
    "flags": [
        f"-A {TCP} -s sh -b sh-port",
        "-Sn",
        f"-E {TCP} -s sh -b sh-fallback,sh-port",
        "-Sn",
        f"-E {TCP} -s sh",
        "-Sn",
        "-C",
        f"-A {TCP} -s mh -b mh-port,mh-fallback",
        "-Sn",
        "-Ln",
        "-C",
        f"-A {TCP} -s rr -b flag-1,flag-3",
        "-Sn",
        "-C",
        f"-A {TCP} -s rr -b nosuch",
        f"-A {UDP} -s rr -o",
        "-Sn",
        "-Ln",
        f"-A {TCP} -s rr -o",
        "-Sn",
        "-C",
        f"-A {TCP} -s wlc --pe nosuch",
    ],
    "persistence": [
        f"-A {TCP} -s rr -p",
        "-Sn",
        "-Ln",
        "-C",
        f"-A {TCP} -s rr -p 1",
        f"-A {UDP} -s rr -p 600 -M 255.255.255.0",
        "-Sn",
        "-Ln",
        f"-E {TCP} -s rr",
        "-Sn",
        f"-E {TCP} -s rr -p 90 -M 255.255.0.0",
        "-Sn",
        f"-A {TCP81} -s rr -p 0",
        f"-A {TCP81} -s rr -M 255.0.0.0",
        f"-A -t {VIP}:82 -s rr -p 60 -M 255.0.255.0",
        f"-A -t {VIP}:82 -s rr -p 99999999",
        "-Sn",
        "-Ln --persistent-conn",
    ],
    "real servers": [
        f"-A {TCP} -s wlc",
        f"-a {TCP} -r {S1}:80",
        f"-a {TCP} -r {S1}:80",
        f"-a {TCP} -r {S2} -g -w 0",
        f"-a {TCP} -r {S3}:80 -g -w 65535",
        "-Sn",
        "-Ln",
        f"-e {TCP} -r {S1}:80 -g -w 7",
        f"-e {TCP} -r 10.9.9.9:80 -g",
        f"-d {TCP} -r 10.9.9.9:80",
        "-Sn",
        f"-e {TCP} -r {S1}:80 -g -w -1",
        f"-e {TCP} -r {S1}:80 -g -w x",
        "-Sn",
        f"-e {TCP} -r {S1}:80 -g -x 100 -y 50",
        "-Sn",
        "-Ln --thresholds",
        f"-e {TCP} -r {S1}:80 -g -x 10 -y 50",
        f"-e {TCP} -r {S1}:80 -g -x 10",
        "-Ln --thresholds",
        f"-e {TCP} -r {S1}:80 -g -y 10",
        "-Ln --thresholds",
        f"-d {TCP} -r {S1}:80",
        "-Sn",
        f"-a -t {VIP}:9 -r {S1}:9 -g",
        f"-a {TCP} -r {S1}:8080 -g",
        "-Sn",
        f"-a {TCP} -r 10.0.0.1:80 -g -w 2",
        "-Ln",
        "-Sn",
        f"-a {TCP} -r 0.0.0.0:80 -g",
        f"-a {TCP} -r 224.0.0.1:80 -g",
        f"-a {TCP} -r 255.255.255.255:80 -g",
        f"-a {TCP} -r 127.0.0.1:80 -g",
        "-Sn",
        f"-a {TCP} -r {S1}:80 -g -i",
    ],
    "listing": [
        f"-A {TCP} -s wlc",
        f"-a {TCP} -r {S2}:80 -g -w 3",
        f"-a {TCP} -r {S1}:80 -g",
        f"-a {TCP} -r {S3}:80 -g -w 0",
        f"-A {UDP} -s rr",
        "-L -n",
        "-l -n",
        "-Ln --sort",
        "-Ln --exact",
        "-Ln --stats",
        "-Ln --stats --exact",
        "-Ln --rate",
        "-Ln --rate --exact",
        "-Ln --thresholds",
        "-Ln --persistent-conn",
        f"-Ln {TCP}",
        f"-Ln {UDP}",
        f"-Ln -t {VIP}:9",
        f"-Ln {TCP} --stats",
        "-Lnc",
        "-Ln --timeout",
        "-Ln --daemon",
        "-Ln --stats --rate",
        "-Lnc --stats",
        "-L",
        "-Z",
        f"-Z {TCP}",
        f"-Z -t {VIP}:9",
        "-Ln -6",
        "-v",
        "-h",
    ],
    "traffic": [
        f"-A {TCP} -s rr",
        f"-a {TCP} -r {S1}:80 -g",
        f"-a {TCP} -r {S2}:80 -g",
        f"-a {TCP} -r {S3}:80 -g",
        "fetch 80 6",
        "-Ln",
        "-Lnc",
        "counted 80 6",
        "-Ln --stats --exact",
        "-Ln --persistent-conn",
        "-Z",
        "-Ln --stats --exact",
        "-Ln",
        f"-e {TCP} -r {S1}:80 -g -w 0",
        "fetch 80 4",
        "-Ln",
        "counted 80 4",
        "-Ln --stats --exact",
        f"-Z {TCP}",
        "-Ln --stats --exact",
    ],
    "persistent traffic": [
        f"-A {TCP81} -s rr -p 300",
        f"-a {TCP81} -r {S1}:81 -g",
        f"-a {TCP81} -r {S2}:81 -g -w 0",
        "fetch 81 4",
        "-Ln",
        "-Lnc",
        "-Ln --persistent-conn",
        f"-e {TCP81} -r {S2}:81 -g -w 1",
        f"-e {TCP81} -r {S1}:81 -g -w 0",
        "fetch 81 2",
        "-Ln",
        "-Lnc",
    ],
    "timeouts": [
        "-L --timeout",
        "--set 100 50 25",
        "-L --timeout",
        "--set 0 0 30",
        "-L --timeout",
        "--set 900 120 300",
        "-L --timeout",
        "--set -1 1 1",
        "--set 1 1",
        "-L --timeout",
    ],
    "save and restore": [
        "restore -A -t 10.1.0.1:80 -s wlc -b flag-1\n-a -t 10.1.0.1:80 -r 10.2.0.1:80 -g -w 5 -x 100 -y 10\n"
        "-A -u 10.1.0.1:53 -s rr -p 70 -M 255.255.255.0\n-a -u 10.1.0.1:53 -r 10.2.0.1:53 -g -w 1\n"
        "-A -f 3 -s sh -b sh-port\n"
        "-a -f 3 -r 10.2.0.3:0 -g -w 4\n",
        "-Sn",
        "-S",
        "restore -A -t 10.1.0.1:80 -s wlc\n",
        "restore -A -t nonsense\n",
        "-C",
        "-Sn",
    ],
    "order": [f"-A {TCP} -s wlc", f"-a {TCP} -r {S2}:80 -g", f"-a {TCP} -r {S1}:80 -g", "-Ln --nosort"],
    "schedulers of caches": [
        line for name in ("lblc", "lblcr", "dh") for line in (f"-A {TCP} -s {name}", f"-D {TCP}")
    ],
    "NAT and tunnels": [
        f"-A {TCP} -s wlc",
        f"-a {TCP} -r {S2}:80 -g",
        f"-a {TCP} -r {S1}:80 -m",
        f"-a {TCP} -r {S1}:80 -i",
        f"-e {TCP} -r {S2}:80 -m",
        f"-e {TCP} -r {S2}:80 -i",
        "-Sn",
    ],
    "persistence engines": [f"-A -u {VIP}:5060 -s rr -p 60 --pe sip"],
    "large weights": [f"-A {TCP} -s wlc", f"-a {TCP} -r {S1}:80 -g -w 65536", "-Sn"],
    "sync daemon": [
        "--start-daemon master --mcast-interface eth0 --syncid 7",
        "-L --daemon",
        "--stop-daemon master",
        "-L --daemon",
        "--stop-daemon backup",
    ],
}

# {group: why it is not the same}; docs/OPERATING.md has this table for the operator.
DIFFERENT = {
    "order": "unsorted lists are in the order of configuration; stock's in none that means anything",
    "schedulers of caches": "lblc, lblcr and dh choose by the packet's destination: refused as unknown",
    "NAT and tunnels": "only direct routing: refused, and nothing is changed",
    "large weights": "a weight over 65535 is refused, so that no product of a load and a weight overflows",
    "sync daemon": "there is none: refused",
}


def one(group, command):
    """Status and words of a command, less what is different each time."""
    verb, _, rest = command.partition(" ")
    if verb == "fetch":
        port, count = rest.split()
        for _ in range(int(count)):
            fetch(port=int(port))
        return ""
    if verb == "counted":
        port, count = rest.split()
        until(
            lambda: re.search(
                rf"^TCP +{VIP}:{port} +{count} ", sh("ipvsadm -Ln --stats --exact", ns="director"), re.M
            ),
            command,
            PATIENCE_S,
        )
        return ""
    if verb == "restore":
        status, output = sh("ipvsadm -R", ns="director", check=False, stdin=rest)
    else:
        status, output = sh(f"ipvsadm {command}", ns="director", check=False)
    return f"status {status}\n" + steady(group, command, output)


def steady(group, command, output):
    """Without a client's port, what is left of a timer, packets (an ACK more or less), how many buckets a table has."""
    output = re.sub(r"\(size=\d+\)", "(size=N)", output)
    if "-Lnc" in command:
        lines = [
            re.sub(
                r"^(\w+) \d\d:\d\d ", r"\1 MM:SS ", " ".join(re.sub(r"(10\.0\.0\.10):\d+", r"\1:PORT", line).split())
            )
            for line in output.splitlines()
        ]
        if group == "persistent traffic":
            # Stock keeps the entries of services that are gone until their time is over.
            lines = [line for line in lines if f" {VIP}:80 " not in line]
        output = "\n".join(lines[:2] + sorted(lines[2:])) + "\n"
    if "--stats" in command:
        output = re.sub(r"^((?:TCP|UDP|  ->)\s+\S+\s+\d+) .*", r"\1 ...", output, flags=re.M)
    return output


def run_all():
    """{(group, number, command): what it said}"""
    said = {}
    for group, commands in GROUPS.items():
        sh("ipvsadm -C && ipvsadm --set 900 120 300", ns="director")
        for number, command in enumerate(commands):
            said[group, number, command] = one(group, command)
    sh("ipvsadm -C", ns="director")
    return said


def on_stock():
    """The same with the kernel's own module, in place of this one for that time."""
    os.makedirs("/run/no-aliases", exist_ok=True)
    sh("rmmod ipvs_mwlc && modprobe -C /run/no-aliases ip_vs")
    try:
        return run_all()
    finally:
        sh("rmmod $(lsmod | sed -n 's/^\\(ip_vs_[a-z_]*\\) .*/\\1/p') ip_vs && modprobe ip_vs")


def test_ipvsadm_prints_what_it_prints_on_the_stock_module():
    ours, stock = run_all(), on_stock()
    different = sorted(key for key in stock if ours[key] != stock[key])
    for group, number, command in different:
        if group not in DIFFERENT:
            key = group, number, command
            print(f"--- {group} {number}: ipvsadm {command}\nstock: {stock[key]}ours:  {ours[key]}", flush=True)
    groups = {group for group, _, _ in different}
    print(f"ipvsadm: {len(stock)} commands, {len(different)} answered differently, in {sorted(groups)}", flush=True)
    assert groups == set(
        DIFFERENT
    ), f"unexplained: {groups - set(DIFFERENT)}; not different any more: {set(DIFFERENT) - groups}"
    refused = [
        key
        for key in different
        if key[0] != "order" and " -Sn" not in f" {key[2]}" and "-L" not in key[2] and "-D" not in key[2]
    ]
    assert all(ours[key].startswith("status 255\n") for key in refused), [(key, ours[key]) for key in refused]
