# SPDX-License-Identifier: MIT
# What the measurements are made of, in the guest. The clock counts instructions (-icount shift=0), so each line that
# `udp` and `tcp` print is: what, how many packets, how many instructions, how many packets arrived.
#
#   generator          director (namespace dir)            server (namespace sink)
#   c0 --------------- d0 10.1.0.1      d1 10.2.0.1 ------ s0 drops at ingress, answers no ARP
#                      VIP 10.1.0.100                         10.2.x.y are all its neighbour entries
#   With set_up6 the director also has fd00:1::1, fd00:2::1 and the VIP fd00:1::100; fd00:2::x are all the server's.
#
# Nothing here may wait: while the guest idles its clock races ahead, and connections time out.
set -e
VIP=10.1.0.100
VIP6=fd00:1::100
C0=02:00:00:00:00:c0
D0=02:00:00:00:00:d0
S0=02:00:00:00:00:05

# The real server number $1.
server() { echo "10.2.$(($1 / 250)).$(($1 % 250 + 2))"; }
server6() { echo "fd00:2::$(($1 + 2))"; }

set_up() {
    for module in veth pktgen sch_ingress cls_matchall act_mirred act_gact; do modprobe $module; done
    sysctl -q -w net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    ip netns add dir
    ip netns add sink
    ip netns exec dir sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 \
        net.ipv4.conf.default.rp_filter=0 \
        net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.default.send_redirects=0 \
        net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    ip link add c0 address $C0 type veth peer name d0 address $D0 netns dir
    ip -n dir link add d1 type veth peer name s0 address $S0 netns sink
    ip link set c0 up
    ip -n dir link set d0 up
    ip -n dir link set d1 up
    ip -n sink link set s0 up
    ip -n dir address add 10.1.0.1/24 dev d0
    ip -n dir address add $VIP/32 dev d0
    ip -n dir address add 10.2.0.1/16 dev d1
    ip -n dir route add default via 10.1.0.2 dev d0
    number=0
    while [ $number -lt 300 ]; do
        echo "neigh add $(server $number) lladdr $S0 dev d1 nud permanent"
        number=$((number + 1))
    done | ip -n dir -batch -
    tc -n sink qdisc add dev s0 clsact
    tc -n sink filter add dev s0 ingress matchall action drop
    echo add_device c0 >/proc/net/pktgen/kpktgend_0
    for word in "delay 0" "pkt_size 60" "clone_skb 0" "dst_mac $D0" "udp_src_min 20000" "udp_src_max 20000" \
        "udp_dst_min 53" "udp_dst_max 53"; do echo "$word" >/proc/net/pktgen/c0; done
}

# Packets that the server's link carried.
arrived() { ip netns exec sink sed -n 's/^ *s0: *[0-9]* *\([0-9]*\).*/\1/p' /proc/net/dev; }

# udp WHAT FLAG ADDRESS FIRST LAST COUNT: datagrams to ADDRESS from the clients FIRST to LAST, in turn. With
# FLAG SHARED, pktgen's default, the generator holds a second reference to the packet, so the stack has to clone
# it and to copy its headers before it may write; with !SHARED it is the stack's alone, as from a network card.
udp() {
    before=$(arrived)
    for word in "flag $2" "dst $3" "src_min $4" "src_max $5" "count $6"; do echo "$word" >/proc/net/pktgen/c0; done
    echo start >/proc/net/pktgen/pgctrl
    took=$(sed -n 's/^Result: OK: \([0-9]*\)(.*/\1/p' /proc/net/pktgen/c0)
    [ -n "$took" ] || { cat /proc/net/pktgen/c0 >&2; exit 1; }
    echo "$1 $6 ${took}000 $(($(arrived) - before))"
}

# tcp WHAT KIND ADDRESS FIRST CLIENTS COUNT: the segments KIND to ADDRESS from CLIENTS clients, in turn.
tcp() {
    before=$(arrived)
    took=$(vm-packets "$2" --interface c0 --to $D0 --service "$3:80" --first "$4" --clients "$5" --count "$6")
    echo "$1 $6 $took $(($(arrived) - before))"
}

# path drop|mirred|forward: what happens to packets without a director.
path() {
    tc -n dir qdisc del dev d0 ingress 2>/dev/null || true
    case $1 in
    drop)
        tc -n dir qdisc add dev d0 ingress
        tc -n dir filter add dev d0 ingress matchall action drop
        ;;
    mirred)
        tc -n dir qdisc add dev d0 ingress
        tc -n dir filter add dev d0 ingress matchall action mirred egress redirect dev d1
        ;;
    esac
}

# set_up6: what IPv6 needs of the director, and time until it has said all that it says of itself (guest time:
# the clock races).
set_up6() {
    ip netns exec dir sysctl -q -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0 \
        net.ipv6.conf.d0.addr_gen_mode=1 net.ipv6.conf.d1.addr_gen_mode=1 \
        net.ipv6.conf.d0.disable_ipv6=0 net.ipv6.conf.d1.disable_ipv6=0 net.ipv6.conf.all.forwarding=1
    ip -n dir address add fd00:1::1/64 dev d0 nodad
    ip -n dir address add $VIP6/128 dev d0 nodad
    ip -n dir address add fd00:2::1/64 dev d1 nodad
    ip -n dir -6 route add default via fd00:1::2 dev d0
    number=0
    while [ $number -lt 3 ]; do
        ip -n dir neigh add "$(server6 $number)" lladdr $S0 dev d1 nud permanent
        number=$((number + 1))
    done
    sleep 60
}

# director MODULE: that one, with an empty table; the stock one's table as large as it gets.
director() {
    path none
    # A service holds its scheduler's module.
    [ ! -e /proc/net/ip_vs ] || ip netns exec dir ipvsadm -C
    for module in ipvs_mwlc ip_vs_wlc ip_vs; do
        [ ! -e /sys/module/$module ] || rmmod $module
    done
    case $1 in
    ip_vs)
        modprobe ip_vs conn_tab_bits=20
        modprobe ip_vs_wlc
        ;;
    *) modprobe "$1" ;;
    esac
}

# services SCHEDULER COUNT [LARGEST]: a UDP and a TCP service with COUNT real servers each, whose weights are 1
# to LARGEST (1) in turn, and timeouts that do not run out.
services() {
    for service in "-u $VIP:53" "-t $VIP:80"; do
        echo "-A $service -s $1"
        number=0
        while [ $number -lt "$2" ]; do
            echo "-a $service -r $(server $number):${service##*:} -g -w $((number % ${3:-1} + 1))"
            number=$((number + 1))
        done
    done | ip netns exec dir ipvsadm -R
    ip netns exec dir ipvsadm --set 100000 100000 100000
}

# services6 SCHEDULER: a TCP service over IPv6 with three real servers.
services6() {
    ip netns exec dir ipvsadm -A -t "[$VIP6]:80" -s "$1"
    for number in 0 1 2; do ip netns exec dir ipvsadm -a -t "[$VIP6]:80" -r "[$(server6 $number)]:80" -g -w 1; done
    ip netns exec dir ipvsadm --set 100000 100000 100000
}

# scheduler NAME: another one for both services, which keep their connections.
scheduler() {
    ip netns exec dir ipvsadm -E -u $VIP:53 -s "$1"
    ip netns exec dir ipvsadm -E -t $VIP:80 -s "$1"
}

# memory WHAT: KiB of memory that are free, with the pages that each processor keeps for itself, which MemFree
# leaves out.
memory() {
    echo 3 >/proc/sys/vm/drop_caches
    kept=$(sed -n 's/^ *count: *\([0-9]*\)$/\1/p' /proc/zoneinfo | while read -r pages; do echo "+ $pages"; done)
    free=$(sed -n 's/^MemFree: *\([0-9]*\).*/\1/p' /proc/meminfo)
    echo "$1 0 $((free + 4 * (0 $kept))) 0"
}
