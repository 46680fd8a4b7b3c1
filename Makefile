# The few commands of daily work; the work itself is in deploy/ and in cargo.

SHELL := /bin/bash
.DEFAULT_GOAL := help

SCRIPTS := .ci/run deploy/setup deploy/test deploy/bench deploy/kafka/broker
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help run test check bench fault kafka kafka-stop setup deny

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## build and start the reference backend with demo data (more options: make run ARGS="--log kafka")
	@test -x $(TARGET)/quick/commerce || echo "run: building; the first time takes about ten minutes on two cores" >&2
	cargo build --profile quick -p commerce --bin commerce --locked
	@exec $(TARGET)/quick/commerce dev --demo $(ARGS)

test: ## run every test, on a private Postgres and a real Apache Kafka (less: make test ARGS="-p annals-log")
	@deploy/test $(ARGS)

check: setup ## formatting, lints, documentation and scripts, warnings being errors
	@for script in $(SCRIPTS); do bash -n "$$script" || exit 1; done
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --exclude annals-benches --no-deps --locked --quiet

bench: setup ## the short form of every benchmark, each beside its floor (one: make bench BENCHES=engine)
	@deploy/bench $(BENCHES)

fault: setup ## break a running cluster on purpose, under load, and check every promise (options: make fault ARGS="--help")
	@cargo build --locked -p commerce --bin commerce -p annals-tests --bin fault
	@exec $(TARGET)/debug/fault $(ARGS)

kafka: setup ## start a local Apache Kafka broker under .annals/kafka and print its address
	@deploy/kafka/broker start .annals/kafka

kafka-stop: ## stop that broker
	@deploy/kafka/broker stop .annals/kafka

setup: ## install what is missing (Debian), or say what is
	@deploy/setup

deny: ## licences, sources and banned crates (needs cargo-deny)
	cargo deny --all-features check bans licenses sources
