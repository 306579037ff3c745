# SPDX-License-Identifier: GPL-2.0-only
"""VRRP: the master director dies during downloads, the other takes the virtual IP, and every file arrives whole.

Both directors run keepalived with the same virtual server; whoever is VRRP's master has the VIP. The first
master is either a namespace beside the backup, or a machine of its own: a second guest, on the same switch by
a virtual cable, that the host kills when this one asks for it on its console.
"""

import hashlib
import os
import re
import subprocess
import threading

from cluster import HASHES, HOSTS, NODES, PATIENCE_S, PORT, VIP, Asking, Keepalived, fetch
from health import EVERY, HTTP_CHECK, becomes
from lab import sh, until

# The machine's address; its director namespace has the lab's own name and another address.
MACHINE = "10.0.0.3"
MACHINE_MAC = "52:54:00:00:00:02"


# Seconds between two advertisements: three are missed before another takes over. Two machines that take turns on a
# busy host are each silent for seconds, and shall not take that for death.
ADVERT_S, ADVERT_OF_MACHINES_S = 1, 5


def configuration(priority, scheduler="wlc", advert_s=ADVERT_S):
    servers = "".join(
        f"\n    real_server {address} 80 {{\n      weight 1{HTTP_CHECK}\n    }}" for address in NODES.values()
    )
    return f"""
global_defs {{
  router_id director{priority}
  vrrp_version 3
}}
vrrp_instance web {{
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int {advert_s}
    virtual_ipaddress {{
        {VIP}/32
    }}
}}
virtual_server {VIP} 80 {{
    delay_loop 1
    lb_algo {scheduler}
    lb_kind DR
    protocol TCP{servers}
}}
"""


def has_vip(ns):
    return f" {VIP}/32 " in sh("ip -4 addr show dev eth0", ns=ns)


def client_sends_to():
    """The hardware address that the client has for the VIP."""
    found = re.search(r"lladdr (\S+)", sh(f"ip neigh show {VIP}", ns="client"))
    return found and found[1]


def mac(ns):
    return re.search(r"link/ether (\S+)", sh("ip link show dev eth0", ns=ns))[1]


class Resuming:
    """A client that downloads again and again, and resumes where it broke off, as `curl -C -` does; it counts how
    often."""

    BREAKS_MAX = 30

    def __init__(self, n):
        self.path, self.breaks, self.digests, self.enough = f"/run/download-{n}", 0, [], False
        self.thread = threading.Thread(target=self.download, daemon=True)
        self.thread.start()

    def download(self):
        while not self.enough and self.breaks < self.BREAKS_MAX:
            self.one_file()

    def one_file(self):
        url = f"http://{VIP}:{PORT}/large"
        limits = "--connect-timeout 2 --speed-limit 1 --speed-time 10"
        words = f"curl --silent {limits} --continue-at - --output {self.path} {url}"
        while (
            subprocess.run(["ip", "netns", "exec", "client", *words.split()]).returncode
            and self.breaks < self.BREAKS_MAX
        ):
            self.breaks += 1
        with open(self.path, "rb") as file:
            self.digests.append(hashlib.sha256(file.read()).hexdigest())
        os.remove(self.path)

    def runs(self):
        """Whether a file is on its way."""
        try:
            return os.path.getsize(self.path) > 1 << 20
        except FileNotFoundError:
            return False

    def all(self):
        """The digests of all files, when the last of them is there."""
        self.enough = True
        self.thread.join()
        return self.digests


def fails_over(die, come_back, first_mac):
    """The first master dies, the backup serves; the first comes back and takes over again. Nothing is lost either
    time."""
    for change, successor in ((die, mac("backup")), (come_back, first_mac)):
        downloads = [Resuming(n) for n in range(3)]
        with Asking() as asking:
            # On a busy host the backup may have taken over for a moment already.
            until(
                lambda: client_sends_to() != successor and all(download.runs() for download in downloads),
                "downloads run by way of the other",
                PATIENCE_S,
            )
            change()
            until(lambda: client_sends_to() == successor, f"the director at {successor} takes over", PATIENCE_S)
            taken = len(asking.asked)
            asking.wait_for(taken + 7)
        # The one that was under way at that moment may have been asked before.
        assert all(row[1] for row in asking.asked[taken + 1 :]), asking.asked[taken:]
        digests = [digest for download in downloads for digest in download.all()]
        assert set(digests) == {HASHES["large"]}, f"a file is not what was served: {digests}"
        # A dead director's connections break off, for its successor knows nothing of them and resets them.
        assert change != die or any(download.breaks for download in downloads), "no download was running"
        print(
            f"downloads that broke off and were resumed: {[d.breaks for d in downloads]}, "
            f"files {len(digests)}; small ones that "
            f"failed: {sum(not row[1] for row in asking.asked)} of {len(asking.asked)}",
            flush=True,
        )


class pair:
    """with pair(scheduler): keepalived on both directors of this guest, the VIP with the first."""

    def __init__(self, scheduler="wlc"):
        self.scheduler = scheduler

    def __enter__(self):
        sh(f"ipvsadm -C; ip addr del {VIP}/32 dev eth0", ns="director")
        self.backup = Keepalived("backup", configuration(100, self.scheduler))
        self.first = Keepalived("director", configuration(200, self.scheduler))
        try:
            self.stands()
        except BaseException as failure:
            self.__exit__(type(failure))
            raise
        return self

    def stands(self):
        becomes(EVERY)
        becomes(EVERY, "backup")
        until(lambda: has_vip("director") and not has_vip("backup"), "the first is master", PATIENCE_S)
        fetch()

    def die(self):
        """The power goes: the cable is silent, and nobody says goodbye."""
        sh("ip link set eth0 down", ns="director")
        self.first.kill()
        sh(f"ip addr del {VIP}/32 dev eth0; ipvsadm -C", ns="director")

    def come_back(self):
        sh("ip link set eth0 up", ns="director")
        self.first = Keepalived("director", configuration(200, self.scheduler))

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.first.said() + self.backup.said())
        self.first.stop()
        self.backup.stop()
        sh(f"ip addr replace {VIP}/32 dev eth0", ns="director")
        sh("ip neigh flush dev eth0", ns="client")


def test_a_backup_takes_over_during_downloads():
    with pair() as directors:
        fails_over(directors.die, directors.come_back, mac("director"))


def host(request):
    """Asks the host, which reads this console, for what only it can do."""
    print(f"@host {request}", flush=True)


def test_a_second_machine_dies_during_downloads_and_comes_back():
    sh("modprobe virtio_net && ip link set eth0 netns switch name cable")
    sh("ip link set cable master br0 up", ns="switch")
    sh(f"ipvsadm -C; ip addr del {VIP}/32 dev eth0", ns="director")
    backup = Keepalived("backup", configuration(100, advert_s=ADVERT_OF_MACHINES_S))
    try:
        host("boot director")
        until(
            lambda: sh(f"ping -c 1 -W 1 {MACHINE}", ns="client", check=False)[0] == 0, "the machine is up", PATIENCE_S
        )
        becomes(EVERY, "backup")
        until(
            lambda: not has_vip("backup") and sh(f"arping -c 1 -I eth0 {VIP}", ns="client", check=False)[0] == 0,
            "the machine is master",
            PATIENCE_S,
        )
        until(lambda: fetch_quietly() is not None, "the machine serves", PATIENCE_S)
        fails_over(lambda: host("kill director"), lambda: host("boot director"), MACHINE_MAC)
    except BaseException:
        print(backup.said())
        raise
    finally:
        host("kill director")
        backup.stop()
        sh(f"ip addr replace {VIP}/32 dev eth0", ns="director")
        sh("ip neigh flush dev eth0", ns="client")


def fetch_quietly():
    try:
        return fetch(seconds=20)
    except AssertionError:
        return None


def machine():
    """The second guest: a director that is nothing else, until it is killed."""
    HOSTS["director"] = MACHINE
    sh(
        "modprobe ip_vs && modprobe virtio_net && ip netns add director && ip link set eth0 netns director && "
        "ip -n director link set lo up && ip -n director link set eth0 up && "
        f"ip -n director addr add {MACHINE}/24 dev eth0"
    )
    keepalived = Keepalived("director", configuration(200, advert_s=ADVERT_OF_MACHINES_S))
    keepalived.process.wait()
    print(keepalived.said())
    return 1
