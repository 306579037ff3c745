# SPDX-License-Identifier: GPL-2.0-only
"""keepalived's health checks: a dead node goes out, comes back, and no client notices more than it must."""

import os
import time

from cluster import NODES, PATIENCE_S, VIP, VIP6, WEB, Asking, Downloads, Keepalived, Web, fetch, weights
from lab import sh, until
from nl import Mwlc, attributes

EVERY = {"s1": 1, "s2": 1, "s3": 1}

HTTP_CHECK = """
      HTTP_GET {
        url { path /health
              status_code 200 }
        connect_timeout 3
        retry 1
        delay_before_retry 1
      }"""
TCP_CHECK = """
      TCP_CHECK {
        connect_timeout 3
        retry 1
        delay_before_retry 1
      }"""


def configuration(check=HTTP_CHECK, weight=None, service="", server="", nodes=NODES):
    """A virtual server with the nodes; `service` and `server` are more lines for it and for each real server."""
    weight = weight or EVERY
    servers = "".join(
        f"\n    real_server {NODES[name]} 80 {{\n      weight {weight[name]}\n      {server}{check}\n    }}"
        for name in nodes
    )
    return f"""
global_defs {{
  router_id director
  checker_log_all_failures
  script_user root
  enable_script_security
}}
virtual_server {VIP} 80 {{
    delay_loop 1
    lb_algo wlc
    lb_kind DR
    protocol TCP
    {service}{servers}
}}
"""


class Running:
    """with Running(configuration) as keepalived: in the director's namespace, over when the block is."""

    def __init__(self, text):
        sh("ipvsadm -C", ns="director")
        self.text = text

    def __enter__(self):
        self.keepalived = Keepalived("director", self.text)
        return self.keepalived

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.keepalived.said())
        for name in NODES:
            if WEB[name].process.poll() is not None:
                WEB[name] = Web(name)
        self.keepalived.stop()


def script(path, line):
    """An executable of one line, put in place at once, for it may be run any time."""
    with open(path + ".new", "w") as file:
        file.write(f"#!/bin/sh\n{line}\n")
    os.chmod(path + ".new", 0o755)
    os.rename(path + ".new", path)


def becomes(expected, ns="director"):
    """Until the real servers and their weights are these."""
    try:
        until(lambda: weights(ns) == expected, f"weights {expected} on {ns}", PATIENCE_S)
    except AssertionError as failure:
        raise AssertionError(f"{failure}; they are {weights(ns)}: {sh('ipvsadm -Sn', ns=ns)}") from failure


def dies_and_returns(check):
    with Running(configuration(check)):
        becomes(EVERY)
        assert {fetch() for _ in range(9)} == set(NODES)
        with Asking() as asking:
            asking.wait_for(6)
            WEB["s2"].kill()
            becomes({"s1": 1, "s3": 1})
            removed = time.monotonic()
            until(
                lambda: sum(row[0] >= removed for row in asking.asked) > 12, "downloads after the removal", PATIENCE_S
            )
            WEB["s2"] = Web("s2")
            becomes(EVERY)
            until(
                lambda: any(row[0] > removed and row[2] == "s2" for row in asking.asked),
                "s2 serves again",
                PATIENCE_S,
            )
        assert not asking.failed_since(removed), asking.failed_since(removed)
        assert all(row[2] != "s2" or row[1] for row in asking.asked), asking.asked


def test_http_check_takes_a_dead_node_out_and_back():
    dies_and_returns(HTTP_CHECK)


def test_tcp_check_takes_a_dead_node_out_and_back():
    dies_and_returns(TCP_CHECK)


def test_downloads_from_live_nodes_go_on_while_another_dies():
    with Running(configuration()):
        becomes(EVERY)
        with Downloads("large", 6) as downloads:
            until(lambda: sh("ipvsadm -Lnc", ns="director").count("ESTABLISHED") >= 6, "six downloads", PATIENCE_S)
            WEB["s2"].kill()
            becomes({"s1": 1, "s3": 1})
        broken = [row for row in downloads.results if row[0] != 0]
        assert all(row[2] == "s2" for row in broken), downloads.results
        assert sum(row[2] in ("s1", "s3") and row[0] == 0 for row in downloads.results) >= 4, downloads.results


class refusing_checks:
    """with refusing_checks("s2"): its check fails and its connections live, for it refuses what the director itself
    opens."""

    def __init__(self, node):
        self.node = node

    def __enter__(self):
        sh(
            "nft add table ip t && nft add chain ip t i '{ type filter hook input priority 0; }' && "
            "nft add rule ip t i ip saddr 10.0.0.1 tcp dport 80 tcp flags syn reject with tcp reset",
            ns=self.node,
        )

    def __exit__(self, *_):
        sh("nft delete table ip t", ns=self.node)


def test_inhibit_on_failure_lets_running_downloads_end():
    with Running(configuration(server="inhibit_on_failure")):
        becomes(EVERY)
        with Downloads("large", 3) as downloads:
            until(lambda: sh("ipvsadm -Lnc", ns="director").count("ESTABLISHED") >= 3, "three downloads", PATIENCE_S)
            with refusing_checks("s2"):
                becomes({"s1": 1, "s2": 0, "s3": 1})
                assert {fetch() for _ in range(6)} == {"s1", "s3"}
        downloads.all_whole()
        assert {row[2] for row in downloads.results} == set(NODES), downloads.results
        becomes(EVERY)


def test_quorum_and_sorry_server():
    notes = "/run/quorum"
    script(notes + ".sh", f"echo $1 >>{notes}")
    text = configuration(
        nodes=("s1", "s2"),
        service=f"""
    quorum 2
    hysteresis 0
    quorum_up "{notes}.sh up"
    quorum_down "{notes}.sh down"
    sorry_server {NODES['s3']} 80
""",
    )
    with Running(text):
        becomes({"s1": 1, "s2": 1})
        WEB["s1"].kill()
        # Below the quorum the sorry server takes over from those that are left as well.
        becomes({"s3": 1})
        until(lambda: sh(f"cat {notes}", check=False)[1].endswith("down\n"), "quorum_down was run", PATIENCE_S)
        assert {fetch() for _ in range(4)} == {"s3"}
        WEB["s1"] = Web("s1")
        becomes({"s1": 1, "s2": 1})
        assert {fetch() for _ in range(4)} == {"s1", "s2"}
        until(lambda: sh(f"cat {notes}").endswith("up\n"), "quorum_up was run", PATIENCE_S)


def test_alpha_and_delay_start_without_anybody():
    """With `alpha` nobody serves before its first check succeeded."""
    WEB["s3"].kill()
    with Running(configuration(service="alpha\n    omega\n    delay_before_retry 1\n    warmup 1\n")):
        becomes({"s1": 1, "s2": 1})
        assert {fetch() for _ in range(4)} == {"s1", "s2"}
        WEB["s3"] = Web("s3")
        becomes(EVERY)


def test_weights_follow_a_check_and_a_reload():
    path = "/run/load-of-s2"
    script(path, "exit 12")
    misc = f"""
      MISC_CHECK {{
        misc_path "{path}"
        misc_timeout 5
        misc_dynamic
      }}"""
    mixed = configuration().replace(
        f"real_server {NODES['s2']} 80 {{\n      weight 1\n      {HTTP_CHECK}",
        f"real_server {NODES['s2']} 80 {{\n      weight 1\n      {misc}",
    )
    with Running(mixed) as keepalived:
        # A status of 2 to 255 is the weight plus 2.
        becomes({"s1": 1, "s2": 10, "s3": 1})
        script(path, "exit 5")
        becomes({"s1": 1, "s2": 3, "s3": 1})
        with Downloads("large", 4) as downloads:
            until(lambda: sh("ipvsadm -Lnc", ns="director").count("ESTABLISHED") >= 4, "four downloads", PATIENCE_S)
            keepalived.reload(configuration(weight={"s1": 5, "s2": 7, "s3": 9}))
            becomes({"s1": 5, "s2": 7, "s3": 9})
        downloads.all_whole()
        # One server less, another scheduler: only what changed changes.
        keepalived.reload(configuration(weight={"s1": 5, "s2": 7, "s3": 9}, nodes=("s1", "s3")).replace("wlc", "wrr"))
        becomes({"s1": 5, "s3": 9})
        assert f"-A -t {VIP}:80 -s wrr" in sh("ipvsadm -Sn", ns="director")


def test_wlc_with_flag_1_is_mwlc():
    with Running(configuration(service="flag-1")):
        becomes(EVERY)
        saved = sh("ipvsadm -Sn", ns="director")
        assert f"-A -t {VIP}:80 -s wlc -b flag-1" in saved, saved
        policies = [attributes(attributes(answer)[1])[5] for answer in Mwlc().call(Mwlc.GET_SERVICE, dump=True)]
        assert policies == [b"mwlc\0"], policies
        assert {fetch() for _ in range(6)} == set(NODES)
    assert weights() is None, "keepalived takes its service with it"


EXAMPLE = "/selftest/keepalived.conf.example"


class addresses_are_keepaliveds:
    """with addresses_are_keepaliveds(): the director has the VIP from keepalived alone, and by itself again
    afterwards."""

    def __enter__(self):
        sh(f"ip addr del {VIP}/32 dev eth0", ns="director")

    def __exit__(self, *_):
        sh(f"ip addr show dev eth0 | grep -q {VIP}/ || ip addr add {VIP}/32 dev eth0", ns="director")


def test_the_example_configuration_does_what_the_manual_says():
    """As it is installed: addresses of both families, MWLC, a node whose check fails gets weight 0 and comes back."""
    with open(EXAMPLE) as file, addresses_are_keepaliveds(), Running(file.read()):
        both, service6 = {"s1": 1, "s2": 1}, f"-t [{VIP6}]:80"
        becomes(both)
        until(lambda: weights(service=service6) == both, "the service of IPv6", PATIENCE_S)
        until(
            lambda: f"{VIP}/32" in addresses() and f"{VIP6}/128" in addresses(), "the virtual addresses", PATIENCE_S
        )
        of_vip6 = next(line for line in addresses().splitlines() if f"{VIP6}/128" in line)
        assert "deprecated" in of_vip6, f"checks would come from it: {of_vip6}"
        policies = [attributes(attributes(answer)[1])[5] for answer in Mwlc().call(Mwlc.GET_SERVICE, dump=True)]
        assert policies == [b"mwlc\0"] * 2, policies
        assert {fetch() for _ in range(4)} == {fetch(vip=VIP6) for _ in range(4)} == {"s1", "s2"}
        with Downloads("large", 2) as downloads:
            until(lambda: sh("ipvsadm -Lnc", ns="director").count("ESTABLISHED") >= 2, "two downloads", PATIENCE_S)
            with refusing_checks("s2"):
                becomes({"s1": 1, "s2": 0})
                assert {fetch() for _ in range(4)} == {"s1"}
        downloads.all_whole()
        becomes(both)
    assert weights() is None and weights(service=service6) is None


def addresses():
    return sh("ip addr show dev eth0", ns="director")
