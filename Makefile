# The commands of the project; `make help` lists them.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export RUST_BACKTRACE ?= 0

.PHONY: run web test check gen help

run: web ## Build and start a server with the web app on SQLite at http://localhost:8080
	cargo run -p parlor-server --bin parlor -- serve

web: ## Build the web app into web/dist, from where the server takes it
	npm ci --no-audit --no-fund
	npm run build --workspace web

test: web check ## Everything

check: ## Formatting, lints, guards, unit and integration tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace

gen: ## Write the descriptions of the interface to docs/api
	cargo run -q -p parlor-server --bin parlor -- api openapi > docs/api/openapi.json.new
	cargo run -q -p parlor-server --bin parlor -- api asyncapi > docs/api/asyncapi.json.new
	mv docs/api/openapi.json.new docs/api/openapi.json
	mv docs/api/asyncapi.json.new docs/api/asyncapi.json

help: ## This list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
