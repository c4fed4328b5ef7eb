# NeonHub: `make demo` runs the main job on the embedded stack with real events; `make test` passes every test.
# What they fetch goes into a cache folder outside the tree (NEONHUB_CACHE_DIR, else in $XDG_CACHE_HOME or ~/.cache).
# DEMO_FLAGS=--json prints one JSON object.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TEST_THREADS ?= 2

# Of `make chaos`, for each backbone; NEONHUB_CHAOS_SEED=n plays the faults of a run in the same order again.
MINUTES ?= 10
RATE ?= 5000

# Of `make load`.
SCENARIO ?= average
BACKBONE ?= embedded
WHAT ?= ingest

# Of `make fuzz`, for each decoder.
SECONDS ?= 60

.PHONY: help demo test setup build libchdb demo-data real-stack test-clients-setup native-tools rust \
        format lint unit integration bench instructions chaos chaos-minute fuzz fuzz-short mutants compose-check k8s-check watch-check docs-check postman-check load prometheus test-clients coverage

help: ## Lists the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

demo: libchdb demo-data build ## Posts 60,000 real impressions and clicks through the embedded stack and compares three counts.
	@data="$$(deploy/fetch-demo-data.sh | tail -n 1)"; exec target/release/neonhub demo --data "$$data" $(DEMO_FLAGS)

test: setup format lint unit instructions integration chaos-minute fuzz-short compose-check k8s-check watch-check docs-check postman-check ## Sets up what is needed and runs every test.

setup: native-tools rust libchdb demo-data real-stack prometheus test-clients-setup ## Fetches everything that tests need.

build: native-tools rust
	@$(CARGO) build --release --locked --bin neonhub

format: rust ## Checks the formatting.
	$(CARGO) fmt --all --check

lint: native-tools rust ## Clippy, warnings denied.
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

unit: native-tools rust ## Unit tests of all crates, and the simulation.
	$(CARGO) test --workspace --locked --lib --bins --test simulation
	$(CARGO) test --workspace --locked --doc

# All of them with --workspace: another choice of crates would unify other features and build everything again.
integration: libchdb demo-data real-stack prometheus test-clients-setup ## Each crate's tests, and scenarios on real servers.
	$(CARGO) test --workspace --locked --test it -- --test-threads=$(TEST_THREADS)

bench: libchdb real-stack build ## Measures every speed beside its limit, on the embedded stack and on a broker of its own.
	@deploy/bench.sh

instructions: native-tools rust ## Instructions of the hot paths against those kept in deploy/instructions.tsv; a tenth more fails.
	@CARGO=$(CARGO) deploy/check-instructions.sh

# One backbone after the other: they would slow each other down.
chaos: libchdb real-stack ## Faults under 5,000 events/s, MINUTES=10 on each backbone; then counts and audits.
	NEONHUB_CHAOS_MINUTES=$(MINUTES) NEONHUB_CHAOS_RATE=$(RATE) NEONHUB_CHAOS_RECOVERY_LIMIT_SECONDS=60 \
	    NEONHUB_CHAOS_KILL_RECOVERY_LIMIT_SECONDS=10 \
	    $(CARGO) test --release --workspace --locked --test chaos -- --nocapture --test-threads=1

chaos-minute: libchdb real-stack
	$(CARGO) test --workspace --locked --test chaos -- --nocapture --test-threads=1

coverage: libchdb demo-data real-stack prometheus test-clients-setup ## Lines that the tests reach, those of the scenarios too; half an hour.
	@CARGO=$(CARGO) deploy/coverage.sh

mutants: native-tools rust ## Changes stages, engine and landing in one place after the other, and says what no test notices. Takes hours.
	@CARGO=$(CARGO) deploy/mutants.sh

fuzz: native-tools rust ## Looks for input that breaks a promise of a decoder, SECONDS=60 for each of them.
	@SECONDS_EACH=$(SECONDS) CARGO=$(CARGO) deploy/fuzz.sh

# The corpora themselves are run by the unit tests; this is to notice when the fuzzer does not build or finds at once.
fuzz-short: native-tools rust
	@SECONDS_EACH=2 CARGO=$(CARGO) deploy/fuzz.sh

compose-check: ## docker-compose.yml and the load tests, as far as a machine without a Docker engine can tell.
	deploy/check-compose.sh

k8s-check: ## The Kubernetes manifests: rendered, against their schemas, against each other and the code.
	deploy/check-k8s.sh

# Both ask the binary that the integration tests have built.
docs-check: libchdb ## docs/reference against the code, and every link, command, setting and target that the Markdown names.
	@deploy/check-docs.sh

postman-check: libchdb ## A Postman collection made of the OpenAPI documents, played with newman.
	@deploy/check-postman.sh --strict

load: libchdb demo-data build ## Load by k6: SCENARIO=average, BACKBONE=embedded|kafka, WHAT=ingest|dashboards|all; the count must be right.
	@BACKBONE=$(BACKBONE) WHAT=$(WHAT) load-tests/run.sh $(SCENARIO)

watch-check: prometheus ## Alert rules with their tests, and what the dashboards name.
	deploy/check-watching.sh

native-tools:
	@deploy/check-tools.sh

rust:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install rustup, the toolchain is pinned in rust-toolchain.toml" >&2; exit 1; }

libchdb: ## Fetches the ClickHouse library once, through npm.
	@deploy/fetch-libchdb.sh | tail -n 1 >&2

demo-data: ## Fetches the Open Bandit sample once, from PyPI.
	@deploy/fetch-demo-data.sh | tail -n 1 >&2

real-stack: ## Fetches Apache Kafka and Apache Cassandra once, from Maven Central.
	@deploy/fetch-real-stack.sh

prometheus: ## Fetches Prometheus and promtool once, from Debian.
	@deploy/fetch-prometheus.sh | tail -n 1 >&2

test-clients: libchdb real-stack test-clients-setup ## Clients that nobody here wrote: SDKs, a browser, ClickHouse's clients, kcat.
	$(CARGO) test --workspace --locked --test it -- --test-threads=1 clients browser_client

test-clients-setup: ## Fetches the clients that tests use: SDKs, ClickHouse's, schemathesis, Chromium, kcat; and Redis.
	@deploy/fetch-test-clients.sh
	@deploy/fetch-chromium.sh | tail -n 1 >&2
	@deploy/fetch-program.sh kcat -V | tail -n 1 >&2
	@deploy/fetch-program.sh redis-server --version | tail -n 1 >&2
