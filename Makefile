# SPDX-License-Identifier: GPL-2.0-only
#
# The one front door. What builds for a kernel of your own (all, install, clean) uses this machine's
# tools; everything else brings its own tools and kernel, kept in ~/.cache/sleepy (SLEEPY_CACHE).

KDIR ?= /lib/modules/$(shell uname -r)/build
FLAVOUR ?= base
HOURS ?= 0.1
MINUTES ?= 10
PREFIX ?= /usr/local
CARGO ?= cargo
CARGO_TARGET_DIR ?= $(CURDIR)/userspace/target

export CARGO_TARGET_DIR

manifest := --manifest-path userspace/Cargo.toml
sleepyctl := $(CARGO_TARGET_DIR)/release/sleepyctl
docs := $(CARGO_TARGET_DIR)/docs-sleepyctl
# Tests end with such a line, even if they cannot begin.
ready = scripts/in-tools true || { echo '0 passed, 1 failed, 0 skipped'; exit 1; }

# Not the variables of a tool that prefers its own (kbuild reads O=, V= and so on from the command line).
.PHONY: all module tool install clean setup kernel demo bench bench-levers test test-full soak fuzz fuzz-front vm check help check-kdir
.DEFAULT_GOAL := all

##@ For your kernel
all: module tool ## sleepy.ko for KDIR (default: the running kernel), sleepyctl

check-kdir:
	@scripts/check-kdir '$(KDIR)'

module: check-kdir ## sleepy.ko alone; MO=DIR builds it in that directory
	+$(MAKE) -C '$(KDIR)' M='$(CURDIR)' $(if $(MO),MO='$(abspath $(MO))') $$(scripts/check-kdir --make-args '$(KDIR)') modules

tool: ## sleepyctl alone
	$(CARGO) build $(manifest) --release --locked --bin sleepyctl

install: all ## install both, with manual pages; PREFIX=/usr/local, DESTDIR=
	+$(MAKE) -C '$(KDIR)' M='$(CURDIR)' $(if $(MO),MO='$(abspath $(MO))') $(if $(DESTDIR),INSTALL_MOD_PATH='$(DESTDIR)') \
		$$(scripts/check-kdir --make-args '$(KDIR)') modules_install
	install -D -m 755 '$(sleepyctl)' '$(DESTDIR)$(PREFIX)/sbin/sleepyctl'
	'$(sleepyctl)' generate '$(docs)'
	install -D -m 644 -t '$(DESTDIR)$(PREFIX)/share/man/man8' '$(docs)'/*.8
	install -D -m 644 '$(docs)/sleepyctl.bash' '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/sleepyctl'
	install -D -m 644 -t '$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d' '$(docs)/sleepyctl.fish'
	install -D -m 644 -t '$(DESTDIR)$(PREFIX)/share/zsh/site-functions' '$(docs)/_sleepyctl'

clean: ## remove what was built in this tree
	+[ ! -e '$(KDIR)/Makefile' ] || $(MAKE) -C '$(KDIR)' M='$(CURDIR)' clean
	rm -rf userspace/target

##@ To try it and to work on it, on any Linux machine (as root)
setup: ## make the tool root: compilers, emulator
	@scripts/setup

kernel: ## a test kernel; FLAVOUR=NAME of tests/kernel, KERNEL_SRC=
	@scripts/kernel $(FLAVOUR)

demo: ## real requests to microVMs, without and with sleepy; OUT=DIR
	@scripts/demo

bench: ## the paper's experiment, with sleepy's peers; FULL=1, OUT=DIR
	@scripts/bench

bench-levers: ## what each lever reaches in each layout of a host; OUT=DIR
	@scripts/bench-levers

test: ## all tests; on the debug kernels the most telling ones
	@$(ready)
	@scripts/in-tools scripts/run-tests

test-full: ## all tests on all kernels
	@$(ready)
	@scripts/in-tools scripts/run-tests --full

soak: ## random operations for a while; HOURS=, SEED=, FLAVOUR=
	@scripts/soak '$(FLAVOUR)' '$(HOURS)' '$(SEED)' '$(ROUND)'

fuzz: ## calls and packets that nobody would make; MINUTES=, FULL=1
	@scripts/fuzz $(FLAVOUR) $(MINUTES) $(SEED)

fuzz-front: ## fuzz what sleepyctl reads; MINUTES= for each target
	@scripts/fuzz-front $(MINUTES)

vm: ## a shell in a test host with the module; FLAVOUR=, ACCEL=
	@scripts/shell $(FLAVOUR)

check: ## formatting, lints and warnings of every file
	@scripts/check

help: ## this list
	@awk -F ':.*## ' '/^##@/ { printf "\n%s:\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
