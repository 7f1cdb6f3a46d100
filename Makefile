# Everything is made by these, each with all of its own set-up, on Debian 12 or Ubuntu 22.04 and later, as root:
#
#   make run              start a daemon of its own, run a first container, show what one sees, leave nothing
#   make test             all that CI runs: lint, unit tests, the package, its tests in a booted test host
#   make setup            .venv alone: pydockerd and pydocker of this checkout, and the tools
#
#   make lint             ruff and mypy
#   make test-unit        the unit tests                     (T='-k words' or files choose)
#   make deb              dist/pydockerd_<version>_all.deb
#   make test-host        the host tests, on the package     (T='tests/host/test_x.py -k words' choose)
#   make testhost-shell   a shell in such a host, to look around by hand
#   make bench            the figures of docs/performance.md, beside dockerd
#   make clean

# A pyenv or the like in front of the distribution's Python doesn't see the distribution's packages.
PYTHON := /usr/bin/python3
VENV := .venv
CONTROL := packaging/debian/control

TOOLS := 'mypy==2.4.*' 'ruff==0.17.*' 'pytest==9.*' 'pytest-timeout==2.*' 'hypothesis==6.*' 'docker==7.*' 'testcontainers==4.*'

T :=

.PHONY: help run test setup lint test-unit deb lint-deb test-host testhost-shell bench clean
.NOTPARALLEL:

help:
	@sed -n 's/^#   //p' Makefile

setup: $(VENV)/.tools

$(VENV)/.run: $(CONTROL) contrib/make-venv $(wildcard packaging/bin/*)
	@contrib/apt-satisfy python3-venv busybox-static
	@contrib/apt-satisfy --but python3-dbus-next --of $(CONTROL) Depends
	contrib/make-venv $(VENV)
	@# Ubuntu 22.04 has no package of it.
	@contrib/apt-satisfy python3-dbus-next 2>/dev/null || $(VENV)/bin/pip install --quiet dbus-next==0.2.3
	@touch $@

$(VENV)/.tools: $(VENV)/.run Makefile
	@contrib/apt-satisfy python3-rich
	@# Recommended only, as some releases have none; tests of that backend are skipped where it is missing.
	@contrib/apt-satisfy python3-iptables 2>/dev/null || true
	@# Ubuntu 22.04 has no package of this one either.
	@contrib/apt-satisfy python3-zstandard 2>/dev/null || $(VENV)/bin/pip install --quiet 'zstandard>=0.19'
	$(VENV)/bin/pip install --quiet $(TOOLS)
	@touch $@

run: $(VENV)/.run
	@contrib/first-container $(VENV)/bin

lint: $(VENV)/.tools
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy tests/host/testhost

test-unit: $(VENV)/.tools
	@contrib/apt-satisfy btrfs-progs e2fsprogs iproute2 iptables libarchive-tools nftables python3-dnslib util-linux
	@# Later releases have a docker-compose of another kind, or none: its tests are skipped there.
	@contrib/apt-satisfy 'docker-compose (<< 2)' 2>/dev/null || true
	$(VENV)/bin/pytest $(T)

deb:
	@contrib/apt-satisfy build-essential
	@contrib/apt-satisfy --of $(CONTROL) Build-Depends
	packaging/build-deb

lint-deb: deb
	@contrib/apt-satisfy lintian
	lintian --fail-on error dist/pydockerd_*_all.deb

test-host: deb $(VENV)/.run
	@contrib/apt-satisfy mmdebstrap util-linux
	packaging/build-missing $(VENV)/bin/pip
	cd tests/host && $(PYTHON) -B -m testhost run $(T)

testhost-shell: deb $(VENV)/.run
	@contrib/apt-satisfy mmdebstrap util-linux
	@packaging/build-missing $(VENV)/bin/pip
	@cd tests/host && $(PYTHON) -B -m testhost shell

test: lint test-unit run lint-deb test-host

bench: $(VENV)/.run
	@$(PYTHON) bench/beside_dockerd.py $(VENV)/bin $(T)

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
