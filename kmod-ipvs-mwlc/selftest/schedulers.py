# SPDX-License-Identifier: GPL-2.0-only
"""The schedulers that are not in balancing.py, as the module runs them: where real connections go."""

from balancing import close_all, ends_at_zero, servers_of
from lab import CLIENT, SERVERS, TCP_PORT, VIP, Connection, director, service
from nl import Mwlc


def edit(server, weight):
    director(f"ipvsadm -e -t {VIP}:{TCP_PORT} -r {SERVERS[server]}:{TCP_PORT} -g -w {weight}")


def flags(scheduler, names):
    director(f"ipvsadm -E -t {VIP}:{TCP_PORT} -s {scheduler} -b {names}")


def kept_counts(scheduler, weights, count):
    """How many of so many connections that stay each server has."""
    service(scheduler, weights)
    kept = []
    order = servers_of(count, keep=kept)
    close_all(kept)
    ends_at_zero()
    return order, [order.count(server) for server in SERVERS]


def test_sed_expects_the_new_connection_too():
    order, _ = kept_counts("sed", (1, 2, 3), 6)
    assert order == ["s3", "s2", "s3", "s1", "s2", "s3"], order


def test_nq_takes_an_idle_one():
    order, _ = kept_counts("nq", (1, 2, 3), 5)
    assert order == ["s1", "s2", "s3", "s3", "s2"], order


def test_fo_stays_with_the_highest_weight():
    service("fo", (1, 3, 2))
    assert servers_of(3) == ["s2"] * 3
    edit("s2", 0)
    assert servers_of(3) == ["s3"] * 3
    edit("s2", 3)
    assert servers_of(1) == ["s2"]


def test_ovf_flows_over_at_the_weight():
    order, _ = kept_counts("ovf", (1, 2, 1), 5)
    assert order == ["s2", "s2", "s2", "s1", "s1"], order


def test_twos_draws_by_weight():
    _, counts = kept_counts("twos", (0, 1, 3), 60)
    # Two draws and the lesser load keep it near 15 and 45.
    assert counts[0] == 0 and 5 <= counts[1] <= 25, counts


def test_msed_counts_bytes_up_to_what_is_expected():
    for scheduler, more in (("msed", None), ("sed", "flag-1")):
        service(scheduler)
        if more:
            flags(scheduler, more)
        mwlc = Mwlc()
        mwlc.expect(1 << 20)
        kept = []
        assert servers_of(3, keep=kept) == ["s1", "s2", "s3"]
        # 1 GiB counts as the 1 MiB that was expected, 10 bytes as 10.
        mwlc.set_size(CLIENT, kept[0].port, 1 << 30)
        mwlc.set_size(CLIENT, kept[1].port, 10)
        assert servers_of(3, keep=kept) == ["s2", "s3", "s1"]
        # Each has two now; of the large one less is left than of s2's small one.
        mwlc.set_size(CLIENT, kept[0].port, 5)
        assert servers_of(1, keep=kept) == ["s1"]
        close_all(kept)
        ends_at_zero()


def hashing(scheduler):
    """A client stays, its ports spread when they are hashed, and a fallback finds another."""
    service(scheduler)
    home = Connection().server
    assert servers_of(5) == [home] * 5
    edit(home, 0)
    try:
        Connection()
        raise AssertionError("connected although its server has weight 0")
    except OSError:
        pass
    flags(scheduler, f"{scheduler}-fallback")
    other = servers_of(5)
    assert len(set(other)) == 1 and other[0] != home, other
    edit(home, 1)
    assert servers_of(3) == [home] * 3
    flags(scheduler, f"{scheduler}-port")
    assert set(servers_of(60)) == set(SERVERS), "ports spread"


def test_sh_hashes_the_client():
    hashing("sh")


def test_mh_hashes_the_client():
    hashing("mh")


def test_mh_follows_a_server_that_comes_and_goes():
    service("mh")
    home = Connection().server
    director(f"ipvsadm -d -t {VIP}:{TCP_PORT} -r {SERVERS[home]}:{TCP_PORT}")
    others = servers_of(4)
    assert len(set(others)) == 1 and others[0] != home, others
    director(f"ipvsadm -a -t {VIP}:{TCP_PORT} -r {SERVERS[home]}:{TCP_PORT} -g")
    assert servers_of(2) == [home] * 2
    # Changed to another scheduler and back, it needs its table anew.
    director(f"ipvsadm -E -t {VIP}:{TCP_PORT} -s rr")
    assert len(set(servers_of(3))) == 3
    director(f"ipvsadm -E -t {VIP}:{TCP_PORT} -s mh")
    assert servers_of(2) == [home] * 2
