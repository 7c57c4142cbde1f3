# `make` says what there is. CARGO_TARGET_DIR is honoured.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test campaign-agents campaign-large campaign-stopped-agent bench bench-quick bench-instructions bench-tools campaign-audit bench-messages bench-statements fuzz lint build fmt clean-demo test-tools postgresql

target := $(or $(CARGO_TARGET_DIR),target)
cargo ?= cargo

help: ## this text
	@echo "make TARGET; first: make demo, make test"
	@awk '/^[a-z-]+:.*## / { printf "  %-16s %s\n", substr($$0, 1, index($$0, ":") - 1), substr($$0, index($$0, "## ") + 3) }' $(MAKEFILE_LIST)

demo: postgresql ## a query through a whole cluster on this machine, until Ctrl-C (DEMO_ONCE=1 ends after the query)
	@echo "building Postern; the first time takes some minutes"
	@$(cargo) build --locked
	@scripts/demo.sh "$(target)/debug/postern"

test: postgresql test-tools ## every test, with real processes and a real PostgreSQL
	@scripts/test.sh

campaign-agents: build ## 300 agents, one process each, and a proxy that is restarted: memory, CPU, time (CAMPAIGN_AGENTS=N)
	@POSTERN_PROGRAM="$(abspath $(target))/release/postern" $(cargo) test --locked --features fault-points --test it -- \
		--ignored --nocapture hundreds_of_agents

campaign-large: postgresql test-tools ## a row of 500 MB, a statement of 512 MB and the like through nodes apart: time and memory of each node
	@$(cargo) test --locked --features fault-points --test it -- --ignored --nocapture largest_things

campaign-stopped-agent: postgresql test-tools ## an agent that stands still for 60 s under 100 sessions: what they read, and the proxy's memory
	@$(cargo) test --locked --features fault-points --test it -- --ignored --nocapture a_hundred_sessions

campaign-audit: build postgresql ## what strict mode costs: pgbench through the optimised program, with it and without
	@POSTERN_PROGRAM="$(abspath $(target))/release/postern" $(cargo) test --locked --features fault-points --test it -- \
		--ignored --nocapture strict_mode_against_default

bench: build bench-tools ## Postern beside direct, pgbouncer and haproxy: three quarters of an hour; writes bench/RESULTS.md (BENCH_ONLY=…, see bench/README.md)
	@POSTERN="$${POSTERN:-$(abspath $(target))/release/postern}" python3 -B bench/run.py

bench-quick: build bench-tools ## the main table of it in less than three minutes, printed (BENCH_WRITE=1 writes it as well)
	@POSTERN="$${POSTERN:-$(abspath $(target))/release/postern}" python3 -B bench/run.py --quick

bench-instructions: build bench-tools ## instructions for a statement, a connection and a MB, by callgrind; fails beyond a bound, whatever the machine does
	@POSTERN="$${POSTERN:-$(abspath $(target))/release/postern}" BENCH_ONLY=postern-apart,postern-one,instructions python3 -B bench/run.py --quick

bench-tools: ## install what only the bench needs: pgbouncer, haproxy, strace, valgrind
	@bench/install.sh

bench-messages: ## what a message between actors costs with the record on and off, and an actor at rest; fails beyond a bound
	@program=$$($(cargo) bench --locked --no-run --bench messages --message-format json | \
		sed -n 's/.*"executable":"\([^"]*messages[^"]*\)".*/\1/p' | tail -1); scripts/bench-messages.sh "$$program"

bench-statements: ## what the audit trail costs an agent for each statement, with and without its result
	@$(cargo) bench --locked --bench statements

fuzz: ## the fuzz targets from their corpus, a minute each (FUZZ_SECONDS=N, FUZZ_TARGET=NAME)
	@scripts/fuzz.sh

lint: ## formatting, clippy with and without fault-points, documentation, and cargo deny where it is installed
	$(cargo) fmt --all --check
	$(cargo) clippy --locked --all-targets -- -D warnings
	$(cargo) clippy --locked --all-targets --features fault-points -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(cargo) doc --locked --no-deps
	@if command -v cargo-deny >/dev/null; then $(cargo) deny check bans licenses sources; \
	else echo "cargo-deny is not installed, so dependencies were not checked (cargo install cargo-deny)"; fi

build: ## the optimised program, in target/release/postern
	$(cargo) build --locked --release

fmt: ## bring the source into its form
	$(cargo) fmt --all

clean-demo: ## remove what the demo keeps when it was killed
	@scripts/demo.sh --clean

postgresql: ## install PostgreSQL where it is missing
	@scripts/install-postgresql.sh

test-tools: ## install what only the tests need: iproute2, Chromium, strace, a JDK with JDBC; in target/, psycopg 3 and a newer PostgreSQL
	@scripts/install-test-tools.sh "$(target)"
