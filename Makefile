# `make help` lists the targets.
CARGO ?= cargo
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release

.PHONY: help deps build demo down reset test bench lint gen

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## Install what this machine lacks (Debian, root)
	@tests/deps

build: deps ## Build kctl and kserver in release
	$(CARGO) build --release --bin kctl --bin kserver

demo: build ## Start the cluster and run the main job on it
	@BIN=$(abspath $(RELEASE)) tests/demo/run

down: ## Stop the demo's cluster; its state stays
	@$(RELEASE)/kserver down

reset: ## Stop the demo's cluster and remove its state
	@$(RELEASE)/kserver reset

test: deps ## Run all tests: unit, property, end to end with real etcd and real containers
	@tests/run

bench: build ## Measure kserver against etcd's, containerd's and kubectl's own pace
	$(CARGO) build --release --bin bench
	@$(RELEASE)/bench

gen: ## Write completions/ and man/ anew
	$(CARGO) run -q --bin gen

lint: ## Check formatting, lints and that completions/ and man/ are up to date
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -q -- -D warnings
	$(CARGO) run -q --bin gen -- --check

