# SPDX-License-Identifier: GPL-2.0-only
"""The cluster of these tests: clients, two directors and three web servers on one switch, as namespaces of the guest.

    client .10   director .1   backup .2    s1 .21    s2 .22    s3 .23      10.0.0.0/24
       |             |             |           |         |         |        VIP .100: one of the directors has it;
       +-------------+-------------+-- br0 ----+---------+---------+        on lo of each web server, unheard by ARP

Everything that serves or asks is a program of Debian's: nginx, curl, keepalived, ipvsadm.
"""

import hashlib
import os
import re
import signal
import subprocess
import threading
import time

from lab import sh, until

VIP = "10.0.0.100"
VIP6 = "fd00::100"
NODES = {"s1": "10.0.0.21", "s2": "10.0.0.22", "s3": "10.0.0.23"}
HOSTS = {"client": "10.0.0.10", "director": "10.0.0.1", "backup": "10.0.0.2", **NODES}
PORT = 80
FILES = "/run/www"
SIZES_MIB = {"small": 0, "medium": 4, "large": 24}
HASHES = {}

# One emulated processor, on a machine that may be busy, does everything: this tells hung from slow, and measures
# nothing.
PATIENCE_S = 600


def address6(name):
    """fd00::21 for 10.0.0.21."""
    return "fd00::" + HOSTS[name].rsplit(".", 1)[1]


def build():
    """Makes the namespaces and starts the web servers. The director has the VIP until somebody says otherwise."""
    lines = [
        "ip netns add switch",
        "ip -n switch link add br0 type bridge forward_delay 0 mcast_snooping 0",
        "ip -n switch link set br0 up",
    ]
    for name, address in HOSTS.items():
        lines += [
            f"ip netns add {name}",
            f"ip link add to_{name} netns switch type veth peer name eth0 netns {name}",
            f"ip -n switch link set to_{name} master br0 up",
            f"ip -n {name} link set lo up",
            f"ip netns exec {name} sh -c 'echo 0 >/proc/sys/net/ipv6/conf/all/accept_dad; "
            "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'",
            f"ip -n {name} link set eth0 up",
            f"ip -n {name} addr add {address}/24 dev eth0",
            f"ip -n {name} addr add {address6(name)}/64 dev eth0 nodad",
        ]
    lines.append(f"ip -n director addr add {VIP}/32 dev eth0")
    sh(" && ".join(lines))
    make_files()
    for name in NODES:
        sh(
            "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore && echo 2 >/proc/sys/net/ipv4/conf/all/arp_announce && "
            f"ip addr add {VIP}/32 dev lo && ip addr add {VIP6}/128 dev lo nodad",
            ns=name,
        )
        WEB[name] = Web(name)


def make_files():
    os.makedirs(FILES)
    for name, size_mib in SIZES_MIB.items():
        data = os.urandom(size_mib * 1024 * 1024 or 1000)
        HASHES[name] = hashlib.sha256(data).hexdigest()
        with open(f"{FILES}/{name}", "wb") as file:
            file.write(data)


class Program:
    """A daemon in a namespace, in a process group of its own; its words go to a file."""

    def __init__(self, ns, words):
        self.log = f"/run/{ns}-{words[0]}.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", ns, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def said(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def kill(self):
        """Like a machine that loses its power: nothing is said to anybody."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.is_over()

    def is_over(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Web(Program):
    """nginx on a node. It sends `/large` slowly: were the client to read it slowly, buffers would have most of it at
    once."""

    CONFIGURATION = """
daemon off; pid /run/nginx-{name}.pid; error_log stderr; worker_processes 1;
events {{ }}
http {{
  access_log off; sendfile on; client_body_temp_path /run/nginx-{name}; proxy_temp_path /run/nginx-{name};
  fastcgi_temp_path /run/nginx-{name}; uwsgi_temp_path /run/nginx-{name}; scgi_temp_path /run/nginx-{name};
  server {{ listen 80; listen 81; listen [::]:80; root {files}; add_header X-Node {name};
            location = /health {{ return 200 "well\\n"; }} location = /large {{ limit_rate 3m; }} }}
}}"""

    def __init__(self, name):
        path = f"/run/nginx-{name}.conf"
        with open(path, "w") as file:
            file.write(self.CONFIGURATION.format(name=name, files=FILES))
        super().__init__(name, ["nginx", "-c", path])
        until(lambda: sh("ss -Hltn sport = :80", ns=name).strip(), f"nginx on {name}: {self.said()}", PATIENCE_S)


WEB = {}


class Keepalived(Program):
    """keepalived in a director's namespace, with this configuration."""

    def __init__(self, ns, configuration):
        self.ns = ns
        self.path = f"/run/keepalived-{ns}.conf"
        self.write(configuration)
        pids = [
            word
            for flag, kind in (("-p", "main"), ("-c", "check"), ("-r", "vrrp"), ("-b", "bfd"))
            for word in (flag, f"/run/ka-{ns}-{kind}.pid")
        ]
        super().__init__(
            ns, ["keepalived", "--dont-fork", "--log-console", "--no-syslog", "--log-detail", "-f", self.path, *pids]
        )

    def write(self, configuration):
        with open(self.path, "w") as file:
            file.write(configuration)

    def reload(self, configuration):
        self.write(configuration)
        with open(f"/run/ka-{self.ns}-main.pid") as file:
            os.kill(int(file.read()), signal.SIGHUP)


def weights(ns="director", service=f"-t {VIP}:{PORT}"):
    """{node: weight} of a service, as `ipvsadm -Sn` prints it; None without that service."""
    names = {address: name for name, address in HOSTS.items()} | {address6(name): name for name in HOSTS}
    listing = sh("ipvsadm -Sn", ns=ns)
    if not re.search(f"^-A {re.escape(service)} ", listing, re.M):
        return None
    rows = re.findall(rf"^-a {re.escape(service)} -r \[?([0-9a-f.:]+?)\]?:\d+ -g -w (\d+)", listing, re.M)
    return {names[address]: int(weight) for address, weight in rows}


def curl(path, arguments="", vip=VIP, port=PORT, seconds=PATIENCE_S):
    """(status, SHA-256 of what came, node) of one download through the VIP. 0 is curl's word for well."""
    url = f"http://{'[' + vip + ']' if ':' in vip else vip}:{port}/{path}"
    words = f"curl --silent --show-error --max-time {seconds} --dump-header /dev/stderr {arguments} {url}"
    done = subprocess.run(["ip", "netns", "exec", "client", *words.split()], capture_output=True)
    node = re.search(rb"X-Node: (\w+)", done.stderr)
    return done.returncode, hashlib.sha256(done.stdout).hexdigest(), node and node[1].decode()


def fetch(path="small", arguments="", **how):
    """Which node a download came from; it has to come whole."""
    status, digest, node = curl(path, arguments, **how)
    assert status == 0 and digest == HASHES[path], f"{path}: curl says {status}"
    return node


class Downloads:
    """with Downloads("large", 3) as running: downloads that go on meanwhile, each in a thread of its own."""

    def __init__(self, path, count, arguments="", **how):
        self.path, self.results = path, [None] * count
        self.threads = [
            threading.Thread(target=self.one, args=(n, arguments, how), daemon=True) for n in range(count)
        ]

    def one(self, n, arguments, how):
        self.results[n] = curl(self.path, arguments, **how)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        for thread in self.threads:
            thread.join()

    def all_whole(self):
        assert all(status == 0 and digest == HASHES[self.path] for status, digest, _ in self.results), self.results


class Asking:
    """with Asking() as asked: one small download after another until the end; what each brought, with its time."""

    def __init__(self):
        self.asked, self.over = [], threading.Event()
        self.thread = threading.Thread(target=self.ask, daemon=True)

    def ask(self):
        while not self.over.is_set():
            begun = time.monotonic()
            status, digest, node = curl("small", "--connect-timeout 3", seconds=20)
            self.asked.append((begun, status == 0 and digest == HASHES["small"], node))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def wait_for(self, count):
        """Until there were so many."""
        try:
            until(lambda: len(self.asked) >= count, f"{count} downloads", PATIENCE_S)
        except AssertionError as failure:
            raise AssertionError(f"{failure}; there were {self.asked}") from failure

    def failed_since(self, moment):
        return [row for row in self.asked if row[0] >= moment and not row[1]]
