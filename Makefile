# The commands of a working day. `make` alone lists them.
#
# Everything is built in release: llama.cpp, which takes minutes, is then built once for programs, tests and lints.
# CARGO_FLAGS goes to every cargo command (the CI passes --locked); CARGO_TARGET_DIR is respected.

SHELL := /bin/sh
CARGO := ./scripts/cargo.sh
CARGO_FLAGS ?=
TARGET_DIR := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),./target)

# Which GPU backend is compiled in: auto, vulkan, cuda or none. All targets of one build need the same, or llama.cpp
# is built twice. scripts/gpu.sh says what auto takes.
GPU ?= auto
FEATURES = $(shell ./scripts/gpu.sh features '$(GPU)')

# About a third of the experts fit, so most of the model streams from the disk while it answers.
DEMO_FLAGS ?= --residency stream --stream-cache 33% --temperature 0 -n 128
DEMO_PROMPT ?= What is a lynx?

.PHONY: help demo build backend man test test-own test-gpu test-backend test-metal test-scripts test-clients test-ui ui hostile lint fmt-check clippy fuzz-check fuzz sanitize sanitize-storage sanitize-llama deny tidy docs dist test-packages test-dist clean bootstrap

# One recipe at a time: cargo commands would only wait for each other's lock.
.NOTPARALLEL:

help:
	@echo 'make demo     install what the build lacks, build, and let the demo model answer with a third of its experts in memory'
	@echo 'make build    the hypura program, in $(TARGET_DIR)/release; GPU=vulkan, cuda or none instead of what is found'
	@echo 'make backend  GPU=cuda or vulkan: that backend as a library that the program loads, in $(TARGET_DIR)/lib/hypura'
	@echo 'make man      manual pages and shell completions, in $(TARGET_DIR)/man and $(TARGET_DIR)/completions'
	@echo 'make test     all tests of our own, and the quick ones of other people'"'"'s clients'
	@echo 'make test-gpu  the tests of GPUs, with GPU=vulkan on a software driver where there is none; part of `make test` there'
	@echo 'make test-backend  the same with the Vulkan backend as a library: no second build of llama.cpp'
	@echo 'make test-metal  those of GPUs that share the memory of the host, on a Mac'
	@echo 'make test-clients  all clients of Ollama, OpenAI and Anthropic, from PyPI and npm, against our server'
	@echo 'make test-ui  the page at /ui in a headless Chromium; pictures of it in $(TARGET_DIR)/ui'
	@echo 'make ui       the page from its sources, in crates/ui/assets, which are committed'
	@echo 'make lint     formatting, clippy, tidy and documentation, warnings as errors'
	@echo 'make fuzz     every fuzz target for 40 seconds; FUZZ_SECONDS=600 for longer (Linux)'
	@echo 'make hostile  files that strangers made through run and a server; FILES=5000 SEED=7 for more and others (Linux)'
	@echo 'make sanitize the crate for disks and memory, and llama.cpp with hostile files, under sanitizers; the second builds llama.cpp (Linux)'
	@echo 'make deny     licences and sources of dependencies; needs cargo-deny'
	@echo 'make dist     archive and Debian package for processors of all kinds, in $(TARGET_DIR)/packages: a build of its own'
	@echo 'make test-packages  packages of the program as it is built here, installed into a home of their own'
	@echo 'make test-dist  those of `make dist`, on older processors (qemu) and in a bare Debian (root, debootstrap)'
	@echo 'make clean    remove everything that was built'

demo: build
	$(TARGET_DIR)/release/hypura run demo $(DEMO_FLAGS) '$(subst ','\'',$(DEMO_PROMPT))'

# The program alone: neither tests nor tools.
build: bootstrap
	@./scripts/build.sh --package hypura --bin hypura $(FEATURES) $(CARGO_FLAGS)

# A backend as a library of its own, which the program finds beside its folder: GPU=cuda or GPU=vulkan.
backend:
	./scripts/backend.sh '$(GPU)' '$(TARGET_DIR)/lib/hypura'

man: build
	$(TARGET_DIR)/release/hypura man --dir $(TARGET_DIR)/man
	mkdir -p $(TARGET_DIR)/completions
	$(TARGET_DIR)/release/hypura completions bash >$(TARGET_DIR)/completions/hypura.bash
	$(TARGET_DIR)/release/hypura completions zsh >$(TARGET_DIR)/completions/_hypura
	$(TARGET_DIR)/release/hypura completions fish >$(TARGET_DIR)/completions/hypura.fish

# The tests of the program have built it, so its clients can be let loose on it at once.
test: test-own
	@./scripts/bootstrap.sh --clients
	./scripts/test-clients --fast

# Without the clients, for who runs all of those next.
test-own: bootstrap test-scripts
	$(CARGO) test --release --workspace $(FEATURES) $(CARGO_FLAGS)
	$(if $(FEATURES),$(GPU_TEST) --skip alone_)
	$(if $(FEATURES),$(GPU_TEST) alone_)

# The GPU suite alone: `make test-gpu GPU=vulkan` runs it on a software driver where there is no GPU.
test-gpu: bootstrap
	$(GPU_TEST) --skip alone_
	$(GPU_TEST) alone_

# The GPU suite with the Vulkan backend as a library, so that llama.cpp is not built a second time for it.
test-backend: bootstrap
	@./scripts/bootstrap.sh --vulkan
	./scripts/backend.sh vulkan '$(TARGET_DIR)/lib/hypura'
	HYPURA_BACKENDS="$$(cd '$(TARGET_DIR)/lib/hypura' && pwd)" $(GPU_TEST) --skip alone_
	HYPURA_BACKENDS="$$(cd '$(TARGET_DIR)/lib/hypura' && pwd)" $(GPU_TEST) alone_

# On a Mac: that what streams is computed by the GPU in the memory that both share, with the bits of resident weights.
test-metal: bootstrap
	$(CARGO) test --release -p hypura-engine --test gpu $(CARGO_FLAGS) -- --ignored --test-threads 1 in_the_hosts_memory

# On the first device of Vulkan's list: ggml leaves software drivers out unless they are named. The second run is of
# what needs a process in which nothing was decorated.
GPU_TEST = GGML_VK_VISIBLE_DEVICES=$${GGML_VK_VISIBLE_DEVICES-0} timeout 1200 \
	$(CARGO) test --release $(FEATURES) -p hypura-engine --test gpu $(CARGO_FLAGS) -- --ignored --test-threads 1

# What others install: scripts/dist. LIBRARIES names a folder of GPU backends to pack.
dist: bootstrap
	rm -rf '$(TARGET_DIR)/packages'
	CARGO_FLAGS='$(CARGO_FLAGS)' ./scripts/dist/dist.sh '$(TARGET_DIR)/packages' '$(LIBRARIES)'

test-packages:
	sh scripts/tests/packages.sh '$(TARGET_DIR)/release/hypura'

test-dist: dist
	sh scripts/tests/processors.sh '$(TARGET_DIR)/dist/release/hypura' '$(TARGET_DIR)/dist/lib/hypura'
	sh scripts/tests/packages.sh '$(TARGET_DIR)/dist/release/hypura' '$(TARGET_DIR)/dist/lib/hypura'
	sh scripts/tests/chroot.sh '$(TARGET_DIR)'/packages/hypura_*.deb

test-scripts:
	sh scripts/tests/install.sh
	sh scripts/tests/bootstrap.sh
	sh scripts/tests/build.sh
	sh scripts/tests/benchmarks.sh
	sh scripts/tests/service.sh

# These need the network once: the clients come from PyPI and npm, into $(TARGET_DIR)/clients.
test-clients: build
	@./scripts/bootstrap.sh --clients
	./scripts/test-clients

# The page in a browser: packages from npm, once.
test-ui: build
	@./scripts/bootstrap.sh --ui
	./scripts/test-ui

ui:
	@./scripts/bootstrap.sh --ui
	cd crates/ui/web && npm ci --no-audit --no-fund --ignore-scripts && node build.mjs

lint: fmt-check clippy fuzz-check tidy docs

fmt-check:
	$(CARGO) fmt --all --check

clippy: bootstrap
	$(CARGO) clippy --release --workspace --all-targets $(FEATURES) $(CARGO_FLAGS) -- -D warnings

# Stable Rust checks the fuzz targets, which a nightly one runs; they are a workspace of their own.
fuzz-check: bootstrap
	$(CARGO) check --manifest-path fuzz/Cargo.toml --target-dir $(TARGET_DIR)/fuzz $(CARGO_FLAGS)

# Every target for a while.
fuzz: bootstrap
	CARGO_FLAGS='$(CARGO_FLAGS)' ./scripts/fuzz.sh $(FUZZ_SECONDS)

# SEED and a number make a file: FIRST=123 FILES=1 KEEP=DIR makes one again, and keeps it.
hostile: bootstrap
	HYPURA_HOSTILE_SEED=$(SEED) HYPURA_HOSTILE_FILES=$(FILES) HYPURA_HOSTILE_FIRST=$(FIRST) HYPURA_HOSTILE_KEEP=$(KEEP) \
		$(CARGO) test --release -p hypura --test hostile $(CARGO_FLAGS) -- --nocapture

sanitize: sanitize-storage sanitize-llama

# The CI has this one alone.
sanitize-storage: bootstrap
	CARGO_FLAGS='$(CARGO_FLAGS)' ./scripts/sanitize.sh

# After a build of the program, whose llama.cpp is built again: six minutes of one core the first time.
sanitize-llama: build
	CARGO_FLAGS='$(CARGO_FLAGS)' ./scripts/sanitize-llama.sh '$(or $(FILES),240)' '$(or $(SEED),14)'

deny:
	$(CARGO) deny --locked check licenses bans sources

tidy:
	$(CARGO) run --release --quiet --package xtask $(CARGO_FLAGS) -- tidy --strict

# The documentation is for those who work here: private items are part of it, so links to them are right.
docs: bootstrap
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' $(CARGO) doc --release --workspace --no-deps --document-private-items $(FEATURES) $(CARGO_FLAGS)

clean:
	$(CARGO) clean

bootstrap:
	@./scripts/bootstrap.sh
	@choice=$$(./scripts/gpu.sh choose '$(GPU)') || exit; \
		[ "$$choice" != vulkan ] || ./scripts/bootstrap.sh --vulkan
