#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Tests of the module on the debugging kernel (scripts/kmod-debug.config: KASAN, lockdep, RCU and object
# debugging), which must not complain: scripts/test-kasan.sh [TEST...]. The kernel is built once (25 minutes of
# a processor's time) and stays in the cache; a test takes about ten times as long as on the stock kernel.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# Each lock and what is taken under it, every way of a packet in and out, every way by which an entry ends,
# load, churn, namespaces and devices that come and go, garbage, insmod and rmmod. Not what asks the programs,
# decides in pure code, measures time, needs the stock ip_vs, or floods (`make test-flood` does).
[ $# -gt 0 ] || set -- ingress uploads attack \
    test_mwlc_takes_the_least_bytes_for_the_weight test_reset_and_timeout_release_the_size test_udp_and_its_fragments \
    test_a_removed_server_resets_its_clients_instead_of_a_black_hole \
    test_icmp_errors_reach_the_server_that_they_are_about \
    test_too_long_a_packet_is_answered_with_the_mtu test_the_director_may_serve_as_well \
    test_half_open_connections_have_a_share_of_the_table_and_no_more \
    test_a_reset_in_syn_received_closes_the_entry_at_once \
    test_ipv6_connections_are_balanced test_ipv6_datagrams_and_their_fragments test_extension_headers_are_passed_over \
    test_icmpv6_errors_reach_the_server_that_they_are_about test_too_long_an_ipv6_packet_is_answered_with_the_mtu \
    test_ipv6_networks_persist_by_their_prefix test_ipv6_real_servers_drain \
    test_ipv6_datagrams_are_sent_elsewhere_by_a_drain \
    test_ipv6_requests_ask_for_sizes_and_acknowledgements_shrink_them test_mh_follows_a_server_that_comes_and_goes \
    test_marks_are_those_of_the_mangle_table test_a_persistent_client_stays_on_its_server \
    test_one_packet_schedules_every_datagram \
    test_a_drain_can_send_connections_elsewhere test_what_is_removed_is_listed_no_more test_thresholds_as_in_ipvs \
    test_the_log_says_why_a_variable_stays test_timeouts_are_set_and_read_as_one \
    test_drop_entry_ends_half_open_connections \
    test_sloppy_tcp_takes_connections_up_in_the_middle test_a_sloppy_standby_takes_up_live_connections \
    test_the_cache_has_a_bound_and_forgets test_what_nodes_report_counts_where_sizes_are_not_learned

export KMOD_OUT=${KMOD_OUT:-$here/../build/kmod-debug} KMOD_KERNEL=debug
mkdir -p "$KMOD_OUT"
KMOD_OUT=$(cd "$KMOD_OUT" && pwd)
"$here/kmod-build.sh"
# This kernel routes no interrupt to a random number device when the machine is too busy for ACPI's patience;
# the processor has one. On a busy machine it may complain of itself while it starts, and then reports nothing
# more: it is started anew.
UNFIT=3 # as in selftest/run.py
for _ in 1 2 3; do
    status=0
    RNG='' QEMU_ARGS="-cpu max ${QEMU_ARGS:-}" MEM=${MEM:-2048} TIMEOUT=${TIMEOUT:-7200} "$here/kmod-test.sh" "$@" ||
        status=$?
    [ "$status" = "$UNFIT" ] || break
done
exit "$status"
