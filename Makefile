# Every verb says what it does in its ## comment; `make help` prints them. CI runs `make test` and nothing else.
SHELL := /bin/sh
export PATH := $(PATH):/usr/local/go/bin
export CGO_ENABLED ?= 0
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FLAGS := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
FOR ?=
FUZZTIME ?= 30s
PRODUCTS := $(patsubst products/%/manifest.toml,%,$(wildcard products/*/manifest.toml))
EXAMPLES := $(patsubst sdk/examples/%/manifest.toml,%,$(wildcard sdk/examples/*/manifest.toml))

.DEFAULT_GOAL := help
.PHONY: help setup build run test lint generate bench fuzz vm fmt clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the Debian packages that building and testing need (as root or with sudo)
	@sh tools/setup.sh test

build: ## build dist/bailey and the installable product folders dist/products/NAME
	@sh tools/build.sh dist $(VERSION)

run: ## start the agent with both products on this machine and show the live view; Ctrl-C ends it (FOR=20s: by itself)
	@sh tools/setup.sh run
	@$(MAKE) --no-print-directory build
	@$(GO) build -trimpath -o .cache/demo ./test/demo
	@exec .cache/demo -bailey dist/bailey -products dist/products $(if $(FOR),-for $(FOR))

test: ## everything: lint, tests (as root where possible), races, scripts, kernels in VMs, demo, benches and fuzzers in short
	@sh tools/test.sh

lint: ## check style, the usual mistakes, and that arm64 compiles
	@$(GO) vet ./... && GOARCH=arm64 $(GO) vet ./...
	@$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

generate: ## generate the committed code again (protoc, clang-14)
	@sh tools/generate.sh

bench: ## measure no agent, agent and fapolicyd in one run; results in test/bench/results (root; about half an hour)
	@sh tools/setup.sh bench
	@$(MAKE) --no-print-directory build
	@mkdir -p .cache && $(GO) build -trimpath -o .cache/bench ./test/bench
	@exec .cache/bench -bailey dist/bailey -products dist/products -out test/bench/results $(BENCH)

fuzz: ## run every fuzz test for FUZZTIME (30s) each
	@sh tools/fuzz.sh $(FUZZTIME)

vm: ## run the kernel-facing tests as root in Debian's 6.1 kernel under QEMU
	@sh tools/setup.sh test
	@$(GO) run ./test/vm

fmt: ## format the Go code
	@gofmt -w $$(git ls-files '*.go' | grep -v -e '\.pb\.go$$' -e '_vtproto\.pb\.go$$')

clean: ## remove what was built and cached here
	@rm -rf dist .cache
