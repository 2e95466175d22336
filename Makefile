# Every verb says what it does in its ## comment; `make help` prints them. CI runs `make test` and nothing else.
SHELL := /bin/sh
export PATH := $(PATH):/usr/local/go/bin
export CGO_ENABLED ?= 0
GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FLAGS := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'
FOR ?=
FUZZTIME ?= 30s
DURATION ?= 10m
ALL ?=
CUTS ?= 200
PRODUCTS := $(patsubst products/%/manifest.toml,%,$(wildcard products/*/manifest.toml))
EXAMPLES := $(patsubst sdk/examples/%/manifest.toml,%,$(wildcard sdk/examples/*/manifest.toml))

.DEFAULT_GOAL := help
.PHONY: help build run test lint generate bench bench-vm incidents soak fuzz vm package fmt clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build dist/bailey, dist/bailey-fleet and the installable product folders dist/products/NAME
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

bench-vm: ## the same in a virtual machine where figures repeat, with guard and rules; compared with the committed run (20 minutes)
	@sh tools/setup.sh bench-vm
	@$(GO) run ./test/vm/bench $(BENCH)

incidents: ## replay public incidents, print what the machine felt, and write docs/incidents.md (root; some minutes)
	@cd test/incident && BAILEY_TEST_ROOT=1 BAILEY_INCIDENTS=$(CURDIR)/docs/incidents.md $(GO) test -count=1 -timeout 30m -parallel 1

soak: ## run the whole under load and faults for DURATION (10m) and look for what grows (root)
	@cd test/soak && BAILEY_TEST_ROOT=1 $(GO) test -count=1 -timeout 0 -v -run TestSoak -duration $(DURATION)

fuzz: ## run every fuzz test for FUZZTIME (30s) each
	@sh tools/fuzz.sh $(FUZZTIME)

vm: ## run the kernel-facing tests as root in Debian's kernels under QEMU; boot, reboot and power cut of a whole Debian; write docs/tamper.md (20 minutes; ALL=1: and all that takes hours)
	@sh tools/setup.sh test
	@ALL=$(ALL) CUTS=$(CUTS) sh tools/vm.sh

package: ## build the deb and the rpm in dist
	@$(MAKE) --no-print-directory build
	@sh tools/package.sh dist $(VERSION)

fmt: ## format the Go code
	@gofmt -w $$(git ls-files '*.go' | grep -v -e '\.pb\.go$$' -e '_vtproto\.pb\.go$$')

clean: ## remove what was built and cached here
	@rm -rf dist .cache
