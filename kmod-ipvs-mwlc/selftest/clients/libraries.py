# SPDX-License-Identifier: GPL-2.0-only
"""Libraries and exporters that speak to the director, as they ship: moby/ipvs, pyroute2, the Prometheus node
exporter."""

import re

from cluster import NODES, PATIENCE_S, VIP, Program, fetch
from lab import sh, until


class namespace:
    """with namespace() as ns: an empty network namespace."""

    def __enter__(self):
        sh("ip netns add library && ip -n library link set lo up")
        return "library"

    def __exit__(self, *_):
        sh("ip netns del library")


def test_moby_ipvs():
    with namespace() as ns:
        output = sh("moby-ipvs", ns=ns)
    assert output.endswith("moby/ipvs: all steps as expected\n"), output


PYROUTE2 = """
from socket import IPPROTO_TCP, IPPROTO_UDP
from pyroute2 import IPVS, IPVSDest, IPVSService
from pyroute2.netlink.exceptions import NetlinkError

ipvs = IPVS()
kinds = [
    ({"addr": "10.1.0.1", "port": 80, "protocol": IPPROTO_TCP}, "10.2.0.%d"),
    ({"addr": "10.1.0.1", "port": 53, "protocol": IPPROTO_UDP}, "10.2.0.%d"),
    # It sends no netmask of an IPv6 service by itself, and has no word for one but IPv4's: a prefix length of 128, as
    # stock wants it.
    ({"addr": "2001:db8:1::1", "port": 80, "protocol": IPPROTO_TCP, "netmask": "128.0.0.0"}, "2001:db8::%d"),
]
for key, server in kinds:
    service = IPVSService(sched_name="rr", **key)
    ipvs.service("add", service=service)
    try:
        ipvs.service("add", service=IPVSService(sched_name="rr", **key))
        raise AssertionError("the same service twice")
    except NetlinkError as refused:
        assert refused.code == 17, refused
    for n in range(1, 101):
        ipvs.dest("add", service=service, dest=IPVSDest(addr=server % n, port=key["port"], weight=n))
    listed = [s for s in ipvs.service("dump")]
    assert len(listed) == 1, listed
    found = IPVSService.from_message(listed[0])
    assert (found["addr"], found["port"], found["protocol"]) == (key["addr"], key["port"], key["protocol"]), dict(found)
    assert listed[0].get_nested("IPVS_CMD_ATTR_SERVICE", "IPVS_SVC_ATTR_SCHED_NAME") == "rr"
    dests = [IPVSDest.from_message(d) for d in ipvs.dest("dump", service=service)]
    assert sorted(d["weight"] for d in dests) == list(range(1, 101)), dests
    assert all(
        d["addr"] == server % d["weight"] and d["port"] == key["port"] and d["fwd_method"] == 3 for d in dests
    ), dests
    ipvs.dest("set", service=service, dest=IPVSDest(addr=server % 7, port=key["port"], weight=0))
    ipvs.dest("del", service=service, dest=IPVSDest(addr=server % 8, port=key["port"]))
    found = [IPVSDest.from_message(dest) for dest in ipvs.dest("dump", service=service)]
    dests = {dest["addr"]: dest["weight"] for dest in found}
    assert dests[server % 7] == 0 and server % 8 not in dests and len(dests) == 99, dests
    ipvs.service("del", service=IPVSService(**key))
    assert not [s for s in ipvs.service("dump")]
print("pyroute2: all steps as expected")
"""


def test_pyroute2():
    with namespace() as ns:
        output = sh("python3 -", ns=ns, stdin=PYROUTE2)
    assert output == "pyroute2: all steps as expected\n", output


class Exporter(Program):
    """The Prometheus node exporter with its collector for IPVS alone."""

    def __init__(self, ns):
        super().__init__(
            ns,
            [
                "prometheus-node-exporter",
                "--collector.disable-defaults",
                "--collector.ipvs",
                "--web.listen-address=127.0.0.1:9100",
            ],
        )
        self.ns = ns
        until(lambda: sh("ss -Hltn sport = :9100", ns=ns).strip(), f"the exporter listens: {self.said()}", PATIENCE_S)

    def scrape(self):
        """{metric with its labels: number}"""
        text = sh("curl --silent --fail http://127.0.0.1:9100/metrics", ns=self.ns)
        return {
            name: float(number)
            for name, number in re.findall(r"^(node_(?:ipvs|scrape_collector_success)\S*) (\S+)$", text, re.M)
        }


def test_node_exporter_reads_what_ipvsadm_shows():
    rules = [f"-A -t {VIP}:80 -s rr"]
    rules += [f"-a -t {VIP}:80 -r {address}:80 -g -w {weight}" for weight, address in enumerate(NODES.values(), 1)]
    sh("ipvsadm -C && ipvsadm -R", ns="director", stdin="\n".join(rules) + "\n")
    for _ in range(6):
        fetch()
    exporter = Exporter("director")
    try:
        metrics = exporter.scrape()
    finally:
        exporter.stop()
    assert metrics['node_scrape_collector_success{collector="ipvs"}'] == 1, (metrics, exporter.said())
    for weight, address in enumerate(NODES.values(), 1):
        local = f'local_address="{VIP}",local_mark="",local_port="80"'
        labels = f'{{{local},proto="TCP",remote_address="{address}",remote_port="80"}}'
        assert metrics[f"node_ipvs_backend_weight{labels}"] == weight, metrics
        assert metrics[f"node_ipvs_backend_connections_inactive{labels}"] == 2, metrics
    shown = sh("ipvsadm -Ln --stats --exact", ns="director").splitlines()[3].split()
    # The service's line: TCP VIP:80 Conns InPkts OutPkts InBytes OutBytes.
    assert metrics["node_ipvs_connections_total"] >= int(shown[2]) == 6, (metrics, shown)
    assert metrics["node_ipvs_incoming_packets_total"] >= int(shown[3]), (metrics, shown)
    assert metrics["node_ipvs_incoming_bytes_total"] >= int(shown[5]), (metrics, shown)
    sh("ipvsadm -C", ns="director")
