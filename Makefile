# SPDX-License-Identifier: MIT
# Verbs only: what each does stands in scripts/ or in the program it runs. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
CARGO ?= cargo
PREFIX ?= /usr/local
export CARGO_TERM_COLOR ?= auto

.PHONY: help setup setup-test build demo test test-posix test-histories test-simulation test-faults \
	test-clients test-programs check kmod install install-module uninstall bench-director bench-pvfs \
	test-kasan test-flood test-powercut test-damage soak fuzz simulate compare clean experiment

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building and the demo need (as root, Debian 12 or 13)
	scripts/setup.sh

setup-test: ## the same, and the test runner
	scripts/setup.sh test

build: setup ## build every program, release profile
	$(CARGO) build --locked --release --workspace --bins

kmod: setup ## build build/kmod/ipvs_mwlc.ko for the stock Debian 13 backports kernel (KSERIES=7.2 for the other)
	scripts/kmod-build.sh

demo: build kmod ## the whole cluster on this machine: KEEP=1 leaves it up, ACCEL=kvm, HOST=1
	target/release/cssns demo

test: setup-test kmod ## every test: pure code, real daemons and mounts, the module in the VM, the small demo
	$(CARGO) build --locked --workspace --bins
	scripts/kmod-test.sh
	$(CARGO) nextest run --locked --workspace
	$(CARGO) nextest run --locked -p cssns-simulation --features simulation

test-histories: setup-test ## HISTORIES (10000) random histories of three nodes, with kills, each judged
	$(CARGO) build --locked --release --workspace --bins
	PVFS_HISTORIES=$(or $(HISTORIES),10000) \
		$(CARGO) nextest run --locked --release -p cssns-tests --test pvfs_histories --no-capture

test-simulation: setup-test ## mgr, iods, clients under a virtual clock: SEEDS (5000) from FIRST_SEED (1), or SEED=N
	SEEDS=$(or $(SEEDS),5000) $(if $(SEED),SEED=$(SEED)) \
		$(CARGO) test --locked -p cssns-simulation --features simulation -- --nocapture

test-faults: setup-test ## FAULTS (2000) kills, stops and bad links under load, again by PVFS_FAULTS_SEED
	$(CARGO) build --locked --release --workspace --bins
	PVFS_FAULTS=$(or $(FAULTS),2000) $(CARGO) nextest run --locked --release -p cssns-tests --test pvfs_faults --no-capture

test-posix: setup-test ## POSIX at length: fsx (FSX_OPERATIONS, 1000000), a million entries, fio, dbench
	scripts/setup.sh test-posix
	$(CARGO) build --locked --workspace --bins
	FSX_OPERATIONS=$(or $(FSX_OPERATIONS),1000000) $(CARGO) nextest run --locked -p cssns-tests --run-ignored all \
		-E 'binary(pvfs_suites) + binary(pvfs_limits) + binary(pvfs_posix) + binary(fuse_space)'

test-clients: kmod ## keepalived, the kernel's selftest, client libraries in the VM (TEST="name ..." for some)
	scripts/clients-test.sh $(TEST)

test-programs: build ## an NFS export, PostgreSQL with a crash of it, Python's tests of files, on a mount (minutes)
	scripts/setup.sh test-programs
	PROFILE=release scripts/test-programs.sh

check: setup ## formatting, lints, documentation, dependencies
	scripts/check.sh

bench-director: build kmod ## the director's cost beside stock ip_vs (15 min; QUICK=1: 2 min), in PERFORMANCE.md
	target/release/bench-director $(if $(QUICK),--quick)

bench-pvfs: build ## PVFS beside null FUSE, raw TCP and tmpfs; writes docs/PERFORMANCE.md and build/bench-pvfs.json
	target/release/bench-pvfs

compare: build kmod ## schedulers by turns in a real cluster with narrow links (about 5 min); writes build/compare.json
	mkdir -p build
	target/release/cssns compare --json build/compare.json

experiment: build kmod ## the paper's experiment (20 min): GRID=full|paper-corners|quick, SCALE=K, FRESH=1, DOCS=1
	target/release/cssns experiment --grid $(or $(GRID),full) \
		$(if $(SCALE),--scale $(SCALE)) $(if $(FRESH),--fresh) $(if $(DOCS),--docs docs/EXPERIMENT.md)

simulate: build ## compare schedulers in simulated clusters (5 min); writes docs/SCHEDULING.md
	mkdir -p build
	target/release/cssns simulate --docs docs/SCHEDULING.md --requests 500000 --replications 6 --json build/simulate.json

test-kasan: setup-test ## the module under load on a kernel with KASAN, lockdep and RCU debugging (long)
	scripts/test-kasan.sh

test-flood: setup-test kmod ## SYNs from a million addresses at the module in the VM (some minutes)
	FLOOD=1000000 MEM=1024 TIMEOUT=3600 scripts/kmod-test.sh \
		test_a_flood_of_syns_leaves_connections_alone test_a_flood_takes_no_persistence_from_who_has_it

soak: setup kmod ## everything at once at the module in the VM, for MINUTES (2)
	MINUTES=$(or $(MINUTES),2) scripts/kmod-soak.sh

test-powercut: setup-test ## images of power cuts, RUNS (20000): of an iod's store and mgr's, from SEED (1)
	PVFS_POWERCUT_RUNS=$(or $(RUNS),20000) PVFS_POWERCUT_SEED=$(or $(SEED),1) \
		$(CARGO) test --locked -p pvfs-iod --lib crash_tests -- --nocapture
	PVFS_POWERCUT_RUNS=$(or $(RUNS),20000) PVFS_POWERCUT_SEED=$(or $(SEED),1) \
		$(CARGO) test --locked -p cssns-tests --test mgr_powercut -- --nocapture

test-damage: setup-test ## mgr's store and iods' data with flipped bits: IMAGES (10000) of each, from SEED (1)
	PVFS_DAMAGE_IMAGES=$(or $(IMAGES),10000) PVFS_DAMAGE_SEED=$(or $(SEED),1) \
		$(CARGO) test --locked -p pvfs-mgr -p pvfs-iod --test damaged_store -- --nocapture

fuzz: setup ## fuzz the director's code and what PVFS takes from the network, SECONDS (60) each
	FUZZ_SECONDS=$(or $(SECONDS),$(FUZZ_SECONDS),60) scripts/fuzz.sh

install: build ## install programs, pages, units, the module's source under PREFIX (/usr/local), DESTDIR
	scripts/install.sh install "$(DESTDIR)" "$(PREFIX)"

install-module: ## after install: have DKMS build the module for this host's kernel (Debian 13 backports)
	scripts/install.sh module

uninstall: ## take away what install put there; configuration and data stay
	scripts/install.sh uninstall "$(DESTDIR)" "$(PREFIX)"

clean: ## remove build outputs of this checkout (the cache stays)
	rm -rf build target
