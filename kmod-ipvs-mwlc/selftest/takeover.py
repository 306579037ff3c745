# SPDX-License-Identifier: GPL-2.0-only
"""A second director takes over in the middle of connections. What keepalived does is done by hand: the addresses
move, and the client forgets whose they were (clients/failover.py has keepalived itself and two machines).

    client .10 --- br0 --- director .1, then standby .2 --- s1 s2 s3
"""

from ipv6 import PORT6, SERVERS6, prepare
from lab import SERVERS, TCP_PORT, VIP, VIP6, Connection, director, sh, until
from nl import Mwlc

STANDBY, STANDBY6 = "10.0.0.2", "fd00::2"
ESTABLISHED = 2
SERVICES = (
    (f"{VIP}:{TCP_PORT}", [f"{address}:{TCP_PORT}" for address in SERVERS.values()]),
    (f"[{VIP6}]:{PORT6}", [f"[{address}]:{PORT6}" for address in SERVERS6.values()]),
)


def rules(scheduler):
    lines = []
    for service, servers in SERVICES:
        lines += [f"-A -t {service} -s {scheduler}", *(f"-a -t {service} -r {server} -g" for server in servers)]
    return "\n".join(lines) + "\n"


class Standby:
    """with Standby(scheduler, sloppy): a director beside the other with the same services; the addresses are not
    there yet."""

    def __init__(self, scheduler, sloppy):
        self.rules, self.sloppy = rules(scheduler), sloppy

    def __enter__(self):
        prepare()
        director("ipvsadm -C && ipvsadm -R", stdin=self.rules)
        sh(
            "ip netns add standby && ip link add to_standby type veth peer name at_standby && "
            "ip link set to_standby netns switch && ip link set at_standby netns standby name eth0 && "
            "ip -n switch link set to_standby master br0 && ip -n switch link set to_standby up && "
            "ip -n standby link set lo up && "
            f"ip -n standby link set eth0 up && ip -n standby addr add {STANDBY}/24 dev eth0 && "
            f"ip -n standby addr add {STANDBY6}/64 dev eth0 nodad"
        )
        sh(f"ipvsadm -R && echo {self.sloppy} >/proc/sys/net/ipv4/vs/sloppy_tcp", ns="standby", stdin=self.rules)
        return self

    def takes_over(self, back=False):
        here, there = ("standby", "director") if back else ("director", "standby")
        for ns, verb in ((here, "del"), (there, "add")):
            sh(
                f"ip -n {ns} addr {verb} {VIP}/32 dev eth0 && "
                f"ip -n {ns} addr {verb} {VIP6}/128 dev eth0" + (" nodad preferred_lft 0" if verb == "add" else "")
            )
        # What a gratuitous ARP and an unsolicited neighbour advertisement are for.
        sh("ip neigh flush dev eth0", ns="client")

    def __exit__(self, *_):
        if VIP in sh("ip addr show dev eth0", ns="standby"):
            self.takes_over(back=True)
        sh("ip netns del standby")
        # It takes with it what packets have left behind: nothing holds its device.
        until(lambda: "to_standby" not in sh("ip -n switch link"), "the namespace is gone", 30)
        director("ipvsadm -C")


def opened():
    """Three connections of each family."""
    return [Connection(to=to) for to in ((VIP, TCP_PORT), (VIP6, PORT6)) for _ in range(3)]


def test_a_sloppy_standby_takes_up_live_connections():
    """With sh or mh it finds the real server that each has, over IPv4 and IPv6; then it goes on as if it had been
    there from the start."""
    for scheduler in ("sh -b sh-port", "mh -b mh-port"):
        with Standby(scheduler, 1) as standby:
            kept = opened()
            # A port each, so not one server for all, but six may well have the same.
            while len({connection.server for connection in kept}) == 1:
                assert len(kept) < 60, "one server for all ports"
                kept += opened()
            standby.takes_over()
            for connection in kept:
                assert connection.fetch(100_000) == connection.server, scheduler
            there = Mwlc(ns="standby")
            assert {there.connections()[connection.port][0] for connection in kept} == {
                ESTABLISHED
            }, there.connections()
            there.socket.close()
            # And what is new is scheduled as ever.
            new = opened()
            for connection in kept + new:
                connection.close()


def test_a_strict_standby_resets_what_it_does_not_know():
    """Nobody waits for a timeout: the client hears at once, and its next try succeeds."""
    with Standby("sh", 0) as standby:
        kept = opened()
        standby.takes_over()
        for connection in kept:
            try:
                connection.fetch(10)
                raise AssertionError("a connection without a SYN")
            except ConnectionResetError:
                pass
        for connection in opened() + kept:
            connection.close()
