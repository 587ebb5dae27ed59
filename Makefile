# Thin names for what cargo and npm do. `make demo` and `make test` need a Debian machine with the Rust toolchain,
# Node.js, make and python3; what else the tests need, tests/setup.sh installs.
.PHONY: demo web build deb deb-test release sbom audit test torture simulate simulate-day scenarios fuzz lint bench layout pictures setup clean
CARGO ?= cargo
export ANMIN_PYTHON ?= $(CURDIR)/target/test-python/bin/python3

WEB := gateway/web
PAGE := $(WEB)/dist/page/index.html
TOOLS := $(WEB)/node_modules/.package-lock.json

demo: web ## a sample community on this machine: readings, alarms, a station call, a page to look at
	$(CARGO) run --quiet --release -p anmin -- demo

web: $(PAGE) ## the duty desk's page, which the binary carries from its next build on

$(PAGE): $(TOOLS) $(WEB)/index.html $(WEB)/vite.config.ts $(shell find $(WEB)/src -type f)
	npm --prefix $(WEB) run --silent build

$(TOOLS): $(WEB)/package-lock.json
	npm --prefix $(WEB) ci --no-progress --loglevel=error
	@touch $@

build: web ## the release binary: target/release/anmin
	$(CARGO) build --release -p anmin

deb: build ## the Debian package: target/deb/anmin_VERSION_ARCHITECTURE.deb
	sh systemd/deb/build.sh target/release/anmin target/deb

deb-test: setup ## the package's life in a fresh Debian instead of over this machine's: needs root and some minutes
	[ -d target/debian ] || mmdebstrap --variant=essential --include=systemd,iproute2 bookworm target/debian
	ANMIN_DEBIAN_ROOT=$(CURDIR)/target/debian $(CARGO) test --workspace --locked --test service -- --nocapture a_package_is_installed

release: deb sbom ## package, list of parts and their sums, signed: make release KEY=fingerprint
	sh systemd/deb/sign.sh target/deb target/anmin.cdx.json $(KEY)

sbom: ## what is in the binary, as CycloneDX: target/anmin.cdx.json
	$(CARGO) run --quiet --locked -p anmin-tests --bin sbom >target/anmin.cdx.json

audit: ## licences, sources and, with cargo-deny and a network, what is known to be unsafe
	$(CARGO) test --workspace --locked --test supply
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check; \
	else echo "cargo install --locked cargo-deny: then advisories are looked up, too"; fi

setup: ## what the tests need from Debian and PyPI
	@sh tests/setup.sh

lint: web ## formatting, clippy and the page's types, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	npm --prefix $(WEB) run --silent lint

test: setup lint ## everything that proves anmin
	npm --prefix $(WEB) test
	$(CARGO) test --workspace --locked --no-run --quiet
	@sh tests/earlier.sh
	@if $(CARGO) nextest --version >/dev/null 2>&1; \
	then $(CARGO) nextest run --workspace --locked --no-fail-fast; \
	else $(CARGO) test --workspace --locked --no-fail-fast; fi
	$(CARGO) test --workspace --locked --doc

torture: setup web ## the kill test for a night: make torture ROUNDS=1000, SEED=7 to play one again
	$(CARGO) build --release --locked -p anmin
	ANMIN_KILL_ROUNDS=$(or $(ROUNDS),1000) $(if $(SEED),ANMIN_KILL_SEED=$(SEED)) \
	$(CARGO) test --release --locked -p anmin-tests --test kill -- --nocapture nothing_acknowledged

simulate: ## thousands of simulated hours with faults at every commit: make simulate SEEDS=10000
	ANMIN_SEEDS=$(or $(SEEDS),1000) ANMIN_FIRST_SEED=$(or $(FIRST_SEED),1) \
	$(CARGO) test --release --locked -p anmin --test simulation whatever_happens -- --nocapture

simulate-day: ## one simulated day of 1,000 points at 1 Hz, with the same faults: make simulate-day SEED=7 HOURS=2
	ANMIN_SEED=$(or $(SEED),1) ANMIN_HOURS=$(or $(HOURS),24) \
	$(CARGO) test --release --locked -p anmin --test simulation a_thousand_points -- --ignored --nocapture

scenarios: ## the shipped rules against plain thresholds, with the truth known: make scenarios SEEDS=200
	ANMIN_SEEDS=$(or $(SEEDS),20) \
	$(CARGO) test --locked --config profile.dev.opt-level=1 -p anmin-tests --test scenarios -- --nocapture

fuzz: setup ## everything that reads, led by coverage: make fuzz MINUTES=30, TARGET=json for one, INPUT=file to play one again
	python3 tests/fuzz/run.py --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED)) \
	$(if $(WORKERS),--workers $(WORKERS)) $(addprefix --target ,$(TARGET)) $(if $(INPUT),--input $(INPUT))

bench: setup web ## figures beside yardsticks, in one run
	$(CARGO) build --release --locked -p anmin -p anmin-tests
	$(CARGO) run --quiet --release --locked -p anmin-tests --bin bench -- $(BENCH)

layout: setup web ## which code lies together in the program, anew: gateway/layout.ld, from a daemon watched by valgrind
	@valgrind --version >/dev/null || { echo "valgrind watches the daemon: apt-get install valgrind" >&2; exit 1; }
	ANMIN_LAYOUT=off $(CARGO) rustc --release --locked -p anmin --bin anmin -- -C link-arg=-Wl,-Map=$(CURDIR)/target/layout.map
	ANMIN_LAYOUT=off $(CARGO) run --quiet --release --locked -p anmin-tests --bin layout -- target/layout.map gateway/layout.ld

pictures: web ## the README's pictures, of a demo that runs: `make demo` in another terminal, then this within a minute
	cd $(WEB) && node pictures.mjs http://127.0.0.1:8420/ ../docs/pictures

clean:
	$(CARGO) clean
