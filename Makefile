# The commands of the project; `make help` lists them.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export RUST_BACKTRACE ?= 0

.PHONY: run web test check planted browser simulation bench torture gen help

run: web ## Build and start a server with the web app on SQLite at http://localhost:8080
	cargo run -p parlor-server --bin parlor -- serve

node_modules: package-lock.json
	npm ci --no-audit --no-fund
	touch node_modules

web: node_modules ## Build the web app into web/dist, from where the server takes it
	npm run build --workspace web

test: web check planted browser ## Everything: check, the tests of the tests, and the journeys in a real browser

check: node_modules ## Formatting, lints, types, guards, unit and integration tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace
	npm run check
	npm run lint
	npm run gen:check --workspace sdk/ts
	npm test --workspace sdk/ts
	npm test --workspace web

planted: ## Tests of the tests: the simulator finds every planted bug
	cargo test --workspace --features parlor-server/planted --test it every_planted_bug -- --nocapture 2>/dev/null

browser: web ## Journeys of people through the real app and the real binary, in Debian's Chromium
	command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -q && apt-get install -qy chromium; } \
	  || { echo "the browser tests need Debian's chromium: install it first" >&2; exit 1; }
	cargo test -q --workspace --no-run
	npm run e2e --workspace web

simulation: ## 300 seeds of the simulation in a release build; SEEDS=1-50000 for a night
	SIMULATION_SEEDS=$${SEEDS:-1-300} cargo test --release -p parlor-server --test it under_faults -- --nocapture

bench: ## Measure a release build on this machine; writes a report to target/parlor-load
	cargo build --release -p parlor-server -p parlor-load
	"$${CARGO_TARGET_DIR:-target}"/release/parlor-load bench --binary "$${CARGO_TARGET_DIR:-target}"/release/parlor

torture: ## Kills, power cuts, failing disks, cut streams, storms, overload: the checker judges; FULL=1 for the long lengths
	cargo build $(if $(FULL),--release) -p parlor-server -p parlor-load
	bin="$${CARGO_TARGET_DIR:-target}"/$(if $(FULL),release,debug); "$$bin"/parlor-load torture --binary "$$bin"/parlor $(if $(FULL),--full)

gen: node_modules ## Write the descriptions of the interface to docs/api, and the types of the SDK
	cargo run -q -p parlor-server --bin parlor -- api openapi > docs/api/openapi.json.new
	cargo run -q -p parlor-server --bin parlor -- api asyncapi > docs/api/asyncapi.json.new
	mv docs/api/openapi.json.new docs/api/openapi.json
	mv docs/api/asyncapi.json.new docs/api/asyncapi.json
	npm run gen --workspace sdk/ts

help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
