// SPDX-License-Identifier: GPL-2.0-only

// Drives the director through moby/ipvs, the library of Docker Swarm and kube-proxy, in the network namespace that
// it is started in. Prints what it found, one line a step; the first difference ends it with status 1.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/moby/ipvs"
)

// What the library has no name for: linux/ip_vs.h.
const (
	flagHashed     = 0x0002
	methodMasq     = 0
	methodTunnel   = 2
	methodDirect   = 3
	methodMask     = 7
	wholeAddressV4 = 0xffffffff
	wholeAddressV6 = 128
)

func main() {
	handle, err := ipvs.New("")
	check(err, "opening the family")
	defer handle.Close()
	check(handle.Flush(), "flush")
	for _, kind := range kinds() {
		services(handle, kind)
		destinations(handle, kind)
	}
	refusals(handle)
	timeouts(handle)
	check(handle.Flush(), "flush")
	fmt.Println("moby/ipvs: all steps as expected")
}

type kind struct {
	name    string
	service ipvs.Service
	server  func(n int) net.IP
}

func kinds() []kind {
	v4 := func(n int) net.IP { return net.IPv4(10, 2, 0, byte(n)) }
	v6 := func(n int) net.IP { return net.ParseIP(fmt.Sprintf("2001:db8::%d", n)) }
	return []kind{
		{"TCP over IPv4", ipvs.Service{AddressFamily: syscall.AF_INET, Protocol: syscall.IPPROTO_TCP, Port: 80,
			Address: net.ParseIP("10.1.0.1"), Netmask: wholeAddressV4}, v4},
		{"UDP over IPv4", ipvs.Service{AddressFamily: syscall.AF_INET, Protocol: syscall.IPPROTO_UDP, Port: 53,
			Address: net.ParseIP("10.1.0.1"), Netmask: wholeAddressV4}, v4},
		{"TCP over IPv6", ipvs.Service{AddressFamily: syscall.AF_INET6, Protocol: syscall.IPPROTO_TCP, Port: 80,
			Address: net.ParseIP("2001:db8:1::1"), Netmask: wholeAddressV6}, v6},
		{"UDP over IPv6", ipvs.Service{AddressFamily: syscall.AF_INET6, Protocol: syscall.IPPROTO_UDP, Port: 53,
			Address: net.ParseIP("2001:db8:1::1"), Netmask: wholeAddressV6}, v6},
		{"mark over IPv4", ipvs.Service{AddressFamily: syscall.AF_INET, FWMark: 1234, Netmask: wholeAddressV4}, v4},
		{"mark over IPv6", ipvs.Service{AddressFamily: syscall.AF_INET6, FWMark: 1234, Netmask: wholeAddressV6}, v6},
	}
}

// services makes, finds, changes and removes a service with each scheduler.
func services(handle *ipvs.Handle, kind kind) {
	service := kind.service
	for _, scheduler := range []string{"rr", "wrr", "lc", "wlc", "sed", "nq", "sh", "mh", "fo", "ovf"} {
		service.SchedName = scheduler
		check(handle.NewService(&service), kind.name, "new with", scheduler)
		expect(handle.IsServicePresent(&service), kind.name, "is present")
		expectErrno(handle.NewService(&service), syscall.EEXIST, kind.name, "the same again")
		found, err := handle.GetService(&service)
		check(err, kind.name, "get")
		expect(found.SchedName == scheduler, kind.name, "scheduler", scheduler, "reads back as", found.SchedName)
		expect(found.Address.Equal(service.Address) || service.FWMark != 0, kind.name, "address reads back as", found.Address)
		expect(found.Port == service.Port && found.Protocol == service.Protocol && found.FWMark == service.FWMark,
			kind.name, "reads back as", *found)
		// kube-proxy compares flags with this one set.
		expect(found.Flags&flagHashed != 0, kind.name, "has not the flag HASHED")
		changed := service
		changed.SchedName = "rr"
		check(handle.UpdateService(&changed), kind.name, "change to rr")
		all, err := handle.GetServices()
		check(err, kind.name, "list")
		expect(len(all) == 1 && all[0].SchedName == "rr", kind.name, "lists", len(all))
		check(handle.DelService(&service), kind.name, "delete")
		expect(!handle.IsServicePresent(&service), kind.name, "is gone")
		expectErrno(handle.DelService(&service), syscall.ESRCH, kind.name, "delete again")
	}
	fmt.Println("moby/ipvs: services of", kind.name)
}

// destinations adds, changes and removes real servers. The library sends no scheduler with these commands.
func destinations(handle *ipvs.Handle, kind kind) {
	service := kind.service
	service.SchedName = "wlc"
	check(handle.NewService(&service), kind.name, "new")
	service.SchedName = ""
	for n := 1; n <= 20; n++ {
		server := ipvs.Destination{Address: kind.server(n), Port: service.Port, Weight: n,
			AddressFamily: service.AddressFamily,
			ConnectionFlags: methodDirect, UpperThreshold: 100, LowerThreshold: 50}
		check(handle.NewDestination(&service, &server), kind.name, "new real server")
		expectErrno(handle.NewDestination(&service, &server), syscall.EEXIST, kind.name, "the same real server again")
	}
	found, err := handle.GetDestinations(&service)
	check(err, kind.name, "list real servers")
	expect(len(found) == 20, kind.name, "lists", len(found), "real servers of 20")
	for _, server := range found {
		n := server.Weight
		expect(server.Address.Equal(kind.server(n)) && server.Port == service.Port && server.UpperThreshold == 100 &&
			server.LowerThreshold == 50 && server.ConnectionFlags&methodMask == methodDirect &&
			server.AddressFamily == service.AddressFamily, kind.name, "real server reads back as", *server)
		server.Weight = 0
		check(handle.UpdateDestination(&service, server), kind.name, "quiesce")
		expect(server.ActiveConnections == 0 && server.InactiveConnections == 0 && server.Stats.Connections == 0,
			kind.name, "counts of an idle real server", *server)
	}
	for n := 1; n <= 20; n++ {
		server := ipvs.Destination{Address: kind.server(n), Port: service.Port, AddressFamily: service.AddressFamily,
			ConnectionFlags: methodDirect}
		check(handle.DelDestination(&service, &server), kind.name, "delete a real server")
		expectErrno(handle.DelDestination(&service, &server), syscall.ENOENT, kind.name, "delete it again")
		expectErrno(handle.UpdateDestination(&service, &server), syscall.ENOENT, kind.name, "change it when it is gone")
	}
	check(handle.DelService(&service), kind.name, "delete")
	fmt.Println("moby/ipvs: real servers of", kind.name)
}

// refusals asks for what the director does not do: it has to say so and change nothing.
func refusals(handle *ipvs.Handle) {
	service := kinds()[0].service
	service.SchedName = "rr"
	check(handle.NewService(&service), "new")
	for _, method := range []uint32{methodMasq, methodTunnel} {
		server := ipvs.Destination{Address: net.IPv4(10, 2, 0, 1), Port: 80, Weight: 1, AddressFamily: syscall.AF_INET,
			ConnectionFlags: method}
		expectErrno(handle.NewDestination(&service, &server), syscall.EOPNOTSUPP, "forwarding method", method)
	}
	unknown := service
	unknown.Port = 81
	unknown.SchedName = "nosuch"
	expectErrno(handle.NewService(&unknown), syscall.ENOENT, "an unknown scheduler")
	servers, err := handle.GetDestinations(&service)
	check(err, "list real servers")
	expect(len(servers) == 0, "a refusal left a real server")
	check(handle.DelService(&service), "delete")
	fmt.Println("moby/ipvs: refusals")
}

// timeouts sets all, then two with a zero between, which keeps the third.
func timeouts(handle *ipvs.Handle) {
	before, err := handle.GetConfig()
	check(err, "get timeouts")
	check(handle.SetConfig(&ipvs.Config{TimeoutTCP: 66 * time.Second, TimeoutTCPFin: 55 * time.Second,
		TimeoutUDP: 44 * time.Second}),
		"set timeouts")
	check(handle.SetConfig(&ipvs.Config{TimeoutTCP: 77 * time.Second, TimeoutUDP: 33 * time.Second}), "set two timeouts")
	after, err := handle.GetConfig()
	check(err, "get timeouts")
	expect(*after == ipvs.Config{TimeoutTCP: 77 * time.Second, TimeoutTCPFin: 55 * time.Second,
		TimeoutUDP: 33 * time.Second},
		"timeouts read back as", *after)
	check(handle.SetConfig(before), "set timeouts back")
	fmt.Println("moby/ipvs: timeouts")
}

func check(err error, doing ...any) {
	if err != nil {
		fail(append(doing, err)...)
	}
}

func expect(holds bool, otherwise ...any) {
	if !holds {
		fail(otherwise...)
	}
}

func expectErrno(err error, errno syscall.Errno, doing ...any) {
	if !errors.Is(err, errno) {
		fail(append(doing, fmt.Sprintf("should be refused with %q and got: %v", errno.Error(), err))...)
	}
}

func fail(words ...any) {
	fmt.Println(append([]any{"moby/ipvs: FAIL:"}, words...)...)
	os.Exit(1)
}
