# Thin names for what cargo does. `make demo` and `make test` need a Debian machine with the Rust toolchain,
# Node.js, make and python3; what else the tests need, tests/setup.sh installs.
.PHONY: demo run build test lint bench setup clean
CARGO ?= cargo
export ANMIN_PYTHON ?= $(CURDIR)/target/test-python/bin/python3

demo: ## a sample community on this machine: readings, alarms, a station call, a page to look at
	$(CARGO) run --quiet --release -p anmin -- demo

build: ## the release binary: target/release/anmin
	$(CARGO) build --release -p anmin

setup: ## what the tests need from Debian and PyPI
	@sh tests/setup.sh

lint: ## formatting and clippy, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

test: setup lint ## everything that proves anmin
	@if $(CARGO) nextest --version >/dev/null 2>&1; \
	then $(CARGO) nextest run --workspace --locked --no-fail-fast; \
	else $(CARGO) test --workspace --locked --no-fail-fast; fi
	$(CARGO) test --workspace --locked --doc

bench: setup ## figures beside yardsticks, in one run
	$(CARGO) build --release --locked -p anmin -p anmin-tests
	$(CARGO) run --quiet --release --locked -p anmin-tests --bin bench -- $(BENCH)

clean:
	$(CARGO) clean
