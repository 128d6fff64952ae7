# What one types. Each goal first sees to what it needs (scripts/setup), which does nothing where all is there.

# Where rustup puts cargo; the calling shell may not know it yet.
export PATH := $(HOME)/.cargo/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup setup-build setup-test demo test example-service examples bench chaos disk-sweep simulate fuzz check fmt clippy doc deny

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r goal what; do printf '  make %-10s %s\n' "$$goal" "$$what"; done

setup: setup-test ## install what building and testing need and this machine lacks

setup-build:
	@scripts/setup build

setup-test:
	@scripts/setup test

demo: setup-build ## count words, killed again and again; ARGS="--kills 3 --input FILE"
	cargo run --release -p millpond-cli -- demo $(ARGS)

# One profile (dev) and one set of features (all) for tests, clippy and docs: RocksDB and librdkafka are built once.
test: setup-test ## all tests, those against a real Apache Kafka included
	cargo test --workspace --all-features --no-run
	"$${CARGO_TARGET_DIR:-target}/debug/millpond-kafka" --fetch-only
	cargo test --workspace --all-features --no-fail-fast
	$(MAKE) example-service

# Outside of the workspace, as a user's service is; in the same target directory, so that RocksDB and librdkafka are there.
example-service: setup-test ## the chaos suite on the service of fault-injection/example-service
	CARGO_TARGET_DIR="$${CARGO_TARGET_DIR:-$(CURDIR)/target}" \
		cargo test --manifest-path fault-injection/example-service/Cargo.toml --all-features

examples: setup-build ## the example programs, into target/release/examples
	cargo build --release --examples --all-features

bench: setup-test ## a benchmark; ARGS="keyed-count --against previous.json"
	cargo run --release -p millpond-benches -- $(ARGS)

# The dev profile and the features of the workspace: it is there when the tests have run.
chaos: setup-test ## faults at random; KILLS=100, MINUTES=10, SEED=1, FAULT=list, VICTIM=list, ARGS="--soak-minutes 30"
	cargo build --workspace --all-features --bin millpond-fault-injection
	"$${CARGO_TARGET_DIR:-target}/debug/millpond-fault-injection" \
		$(if $(KILLS),--kills $(KILLS)) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SECONDS),--seconds $(SECONDS)) \
		$(if $(SEED),--seed $(SEED)) $(if $(FAULT),--fault $(FAULT)) $(if $(VICTIM),--victim $(VICTIM)) $(ARGS)

disk-sweep: setup-test ## every call to the disk of a short life fails once; SEED=1, ARGS="--every 10 --workers 4"
	cargo build --workspace --all-features --bin disk_sweep
	"$${CARGO_TARGET_DIR:-target}/debug/disk_sweep" $(if $(SEED),--seed $(SEED)) $(ARGS)

simulate: setup-build ## simulated lives with faults from seeds; SECONDS=600, SEED=1
	cargo run -p millpond-fault-injection --all-features --bin simulate -- \
		$(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

fuzz: setup-build ## coverage-guided fuzzing of a decoder; TARGET=cursors (or all), SECONDS=60
	scripts/fuzz $(or $(TARGET),all) $(or $(SECONDS),60)

check: fmt clippy doc deny ## format, lints, docs, dependencies

fmt:
	cargo fmt --all --check

clippy: setup-build
	cargo clippy --locked --workspace --all-targets --all-features -- -D warnings

doc: setup-build
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps

deny: setup-build
	scripts/deny
