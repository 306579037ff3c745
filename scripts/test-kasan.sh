#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Tests of the module on the debugging kernel (scripts/kmod-debug.config: KASAN, lockdep, RCU and object debugging), which must not
# complain: scripts/test-kasan.sh [TEST...]. The kernel is built once (25 minutes of a processor's time) and stays in the cache; a test
# takes about ten times as long as on the stock kernel.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

# Each lock and what is taken under it, every way by which an entry ends, load, churn, namespaces, garbage, insmod and rmmod; none needs
# a module (ip_vs, act_skbedit) that this kernel was built without.
[ $# -gt 0 ] || set -- test_rr_goes_round test_mwlc_takes_the_least_bytes_for_the_weight test_udp_and_its_fragments \
    test_a_persistent_client_stays_on_its_server test_ipv6_networks_persist_by_their_prefix test_a_drain_can_send_connections_elsewhere \
    test_what_is_removed_is_listed_no_more test_thresholds_as_in_ipvs test_ipv6_requests_ask_for_sizes_and_acknowledgements_shrink_them \
    test_half_open_connections_have_a_share_of_the_table_and_no_more test_the_log_says_why_a_variable_stays \
    test_malformed_packets_are_harmless test_configuration_changes_under_load test_namespaces_go_with_services_in_them \
    test_the_module_goes_and_comes_under_load

export KMOD_OUT=${KMOD_OUT:-$here/../build/kmod-debug} KMOD_KERNEL=debug
mkdir -p "$KMOD_OUT"
KMOD_OUT=$(cd "$KMOD_OUT" && pwd)
"$here/kmod-build.sh"
# This kernel routes no interrupt to a random number device when the machine is too busy for ACPI's patience; the processor has one.
RNG='' QEMU_ARGS="-cpu max ${QEMU_ARGS:-}" MEM=${MEM:-2048} TIMEOUT=${TIMEOUT:-3600} "$here/kmod-test.sh" "$@"
