# Relevo's habits. Everything runs as root on a machine with git, python3 and make; the rest is installed here.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
APT := iproute2 util-linux e2fsprogs xfsprogs btrfs-progs procps kmod curl drbd-utils fio qemu-system-x86 zstd lvm2
APT_LAB := heartbeat nftables apache2 systemd dbus python3-aiosmtpd litmus cadaver $(APT_DRIVES)
APT_DRIVES := samba samba-vfs-modules smbclient libnss-wrapper nfs-ganesha nfs-ganesha-vfs libnfs-utils
APT_BROWSER := chromium fonts-dejavu-core
APT_INTEROP := heartbeat systemd dbus pacemaker corosync pacemaker-cli-utils resource-agents $(APT_DRIVES)
APT_BENCH_FILES := nginx apache2 rclone
APT_BENCH := qemu-system-common nbdkit glusterfs-server glusterfs-client
export DEBIAN_FRONTEND := noninteractive
DEMO_ARGS ?=
TUS_VERSION := 4.3.1
TUS_SHA512 := ZLeYmjrkaU1fUsKbIi8JML52uAocjEZtBx4DKjRrqzrZa0O4MYwT6db+oqePlspV+FxXJAyFBc/L5gwUi2OFsg==
AXE_VERSION := 4.14.1
AXE_SHA512 := FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==
AXE := $(VENV)/axe-$(AXE_VERSION).min.js
STATIC := src/relevo/files/pages/static/vendor

.PHONY: help setup demo test lint unit sim sim-mirror sim-others lab browser screenshots vendor lab-cluster lab-parts steady interop interop-short bench bench-mirror bench-failover bench-listing bench-drives bench-files torture clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/ready ## install what is needed (Debian packages, virtual environment), start nothing

$(VENV)/ready: requirements.lock pyproject.toml
	@tools/install-packages $(APT)
	@python=$$(tools/python) && { $$python -c 'import ensurepip' 2>/dev/null || tools/install-packages $$python-venv; }
	@test -x $(BIN)/python || $$(tools/python) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

demo: setup ## the main job: two servers, one address, a power cut, nothing lost
	@$(BIN)/relevo demo $(DEMO_ARGS)

test: setup lint ## everything that must hold (within 20 minutes)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target sim-mirror unit sim-others  # one thread each: two cores
	@$(MAKE) --no-print-directory lab steady
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target browser interop-short

lint: setup ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

unit: setup ## pure parts, formats, captures
	@$(BIN)/pytest -q tests/unit

sim: sim-mirror sim-others ## seeded simulations of the pure cores

SIM_MIRROR := tests/sim/test_mirror_simulation.py
sim-mirror: setup
	@$(BIN)/pytest -q $(SIM_MIRROR)

sim-others: setup
	@$(BIN)/pytest -q tests/sim --ignore $(SIM_MIRROR)

lab: setup ## real processes in namespaces, power cuts included
	@tools/install-packages $(APT_LAB) || echo "without $(APT_LAB): the lab tests with the originals are skipped"
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lab-cluster lab-parts  # they wait more than they work

LAB_CLUSTER := $(wildcard tests/lab/test_cluster*.py) tests/lab/test_demo.py tests/lab/test_power_loss_of_both.py \
	tests/lab/test_mirror_handlers.py tests/lab/test_mirror_resume.py
lab-cluster: setup
	@$(BIN)/pytest -q $(LAB_CLUSTER)

lab-parts: setup
	@$(BIN)/pytest -q tests/lab $(addprefix --ignore ,$(LAB_CLUSTER) $(STEADY))

STEADY := tests/lab/test_steady.py
steady: setup ## nobody is declared dead on a machine that is saturated for a minute
	@$(BIN)/pytest -q $(STEADY)

$(VENV)/browser: $(VENV)/ready tests/browser/requirements.lock
	@tools/install-packages $(APT_BROWSER)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r tests/browser/requirements.lock
	@touch $@

$(AXE):
	@tools/npm-file axe-core $(AXE_VERSION) $(AXE_SHA512) axe.min.js $@

browser: setup $(VENV)/browser $(AXE) ## the pages in a real Chromium, a failover in the middle included
	@RELEVO_AXE=$(AXE) $(BIN)/pytest -q tests/browser

screenshots: setup $(VENV)/browser ## every page in both languages and themes, desk and telephone, into build/screenshots
	@PYTHONPATH=tests $(BIN)/python tests/browser/screenshots.py build/screenshots

vendor: ## fetch and verify what of other projects is shipped with the pages
	@tools/npm-file tus-js-client $(TUS_VERSION) $(TUS_SHA512) dist/tus.min.js $(STATIC)/tus.min.js LICENSE $(STATIC)/tus.LICENSE
	@git diff --stat -- $(STATIC)

SCHEMATHESIS := $(VENV)/schemathesis
$(SCHEMATHESIS)/ready: $(VENV)/ready tests/torture/schemathesis.lock
	@$$(tools/python) -m venv $(SCHEMATHESIS)
	@$(SCHEMATHESIS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r tests/torture/schemathesis.lock
	@touch $@

torture: setup ## hours: seeds, every fault at every step, power cuts under file systems, fuzzed packets and requests; stops at the first failure
	@$(BIN)/python tests/torture/simulation.py
	@$(BIN)/python tests/torture/cluster.py
	@$(BIN)/python tests/torture/cuts.py
	@$(BIN)/python tests/torture/steady.py
	@$(MAKE) --no-print-directory $(SCHEMATHESIS)/ready
	@$(BIN)/python tests/torture/api.py $(SCHEMATHESIS)/bin/st
	@RELEVO_FUZZ_EXAMPLES=5000 $(BIN)/pytest -q tests/unit/test_mirror_wire_fuzz.py --timeout 3600
	@if $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r tests/torture/requirements.lock; \
	then $(BIN)/python tests/torture/wire_fuzz.py; \
	else echo "atheris cannot be installed here: the coverage-guided part is left out"; fi

interop: setup ## the kernel's drbd, systemd, Pacemaker, every case; prints their list and writes it into the docs
	@tools/install-packages $(APT_INTEROP) || echo "without $(APT_INTEROP): the cases that need them are skipped"
	@$(BIN)/pytest -q tests/interop --interop-table docs/internals/interop.md

interop-short: setup ## the same in a short form
	@$(BIN)/pytest -q tests/interop -m short

bench: bench-mirror bench-failover bench-listing bench-files ## every measurement, written to bench/results

bench-mirror: setup ## the mirror beside plain disks, qemu and GlusterFS; its growth; its resync
	@tools/install-packages $(APT_BENCH)
	@PYTHONPATH=tests $(BIN)/python -m bench mirror growth resync

bench-failover: setup ## how long the service is away: an address and Apache beside Heartbeat and Pacemaker, the whole stack
	@tools/install-packages $(APT_LAB) $(APT_INTEROP) || echo "what is not installed is left out"
	@PYTHONPATH=tests $(BIN)/python -m bench address failover

bench-drives: setup ## what network drives cost that keep what they acknowledge
	@tools/install-packages $(APT_DRIVES)
	@$(BIN)/python bench/drives.py

bench-files: setup ## the file service beside nginx, Apache mod_dav and rclone: uploads, downloads, listings
	@tools/install-packages $(APT_BENCH_FILES) || echo "what is not installed is left out"
	@PYTHONPATH=tests $(BIN)/python -m bench files

bench-listing: setup ## the first page of a folder of 100,000 entries
	@PYTHONPATH=tests $(BIN)/python bench/listing.py

clean: ## remove the virtual environment and caches
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
