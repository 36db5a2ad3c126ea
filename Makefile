# Thin doors: each does what it says from a fresh clone, and only calls a script or cargo.
# Needed beforehand: Linux with bash, make, a C compiler, and rustup's stable Rust.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup deb demo test lint golden live races spread bench budgets bench-ipvs bench-failover bench-peers bench-scale fuzz random stories lab shots

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

setup: ## the BPF compiler and linker; says what it installs, does nothing twice
	@scripts/setup.sh

demo: ## real clients reach real servers through one address, every packet shown
	@scripts/demo.sh

test: ## build and test everything (as root: namespaces and BPF)
	@scripts/test.sh

lint: ## formatting, clippy, shell scripts
	@scripts/lint.sh

golden: ## run the recordings below DIR=... in memory, on XDP and on tc
	@scripts/golden.sh "$(DIR)"

live: ## SCENARIOS=40 at random on the real kernel with IPVS and here, which must agree; SEED=n again
	@scripts/live.sh "$(or $(SEED),$$RANDOM$$RANDOM)" "$(or $(SCENARIOS),40)"

bench: ## nanoseconds a packet against floors, into target/bench/latest.json; ARGS=--write, ARGS="--only nat" or ARGS="--against REV"
	@scripts/bench.sh $(ARGS)

budgets: ## what BPF programs may take, saved anew in bpf/budgets.txt; REASON="..." (make test holds them to it)
	@scripts/budgets.sh "$(REASON)"

bench-ipvs: ## instructions a packet beside the kernel's IPVS, in a guest that counts them; ARGS=--write for docs/performance.md
	@scripts/bench-ipvs.sh $(ARGS)

bench-failover: ## what failovers cost clients, beside keepalived; ARGS="--only kill" or ARGS=--fast
	@scripts/bench-failover.sh $(ARGS)

bench-scale: ## 10,000 services with 100 servers each, two CPUs, and the model of larger machines, into docs/capacity.md
	@scripts/bench-scale.sh $(ARGS)

bench-peers: ## ours beside nftables, HAProxy, nginx and plain routing; ARGS=--quick or ARGS="--only requests"
	@scripts/bench-peers.sh $(ARGS)

fuzz: ## fuzz the packet path for TIME=60 seconds (needs a nightly Rust)
	@scripts/fuzz.sh "$(or $(TIME),60)"

random: ## FRAMES=10000000 random packets in memory, on XDP and on tc, which must agree (as root)
	@scripts/random.sh "$(or $(FRAMES),10000000)"

races: ## PACKETS=10000000 on two CPUs while connections come and go (as root)
	@scripts/races.sh "$(or $(PACKETS),10000000)"

spread: ## draw docs/schedulers.svg anew: how each scheduler spreads load, from real runs
	@cargo run --quiet --release -p dirigent-testkit --bin spread -- docs/schedulers.svg

stories: ## docs/why-replies-must-return.md anew: what its commands print now (as root)
	@scripts/stories.sh
shots: ## the pictures below docs/ anew: dirigent top and the web page in a lab with traffic (as root)
	@scripts/shots.sh

deb: ## a Debian package of a release build: target/deb/dirigent_VERSION_ARCH.deb
	@scripts/deb.sh

lab: ## a lab of network namespaces; ARGS="up --mode nat --family 4 --servers 3"
	@scripts/lab.sh $(ARGS)
