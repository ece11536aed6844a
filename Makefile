# Everything a user or a test machine runs. `make help` lists it.

VENV  ?= .venv
BUILD ?= build/venv
# Python to make the environment with; empty: the first CPython 3.11 that is found.
PYTHON ?=
# Test files that run side by side; a graph of nodes keeps two processors busy by itself.
TEST_JOBS ?= 2
# Extra arguments, as in: make test PYTEST_ARGS="-k shield -x"; make demo DEMO_ARGS="--seed 3".
PYTEST_ARGS ?=
DEMO_ARGS ?=
PIP_ARGS ?=
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

# make's own defaults (cc, g++) would hide whether the caller chose a compiler.
ifeq ($(origin CC),default)
CC :=
endif
ifeq ($(origin CXX),default)
CXX :=
endif

# A sourced ROS or another environment must not leak into this one.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV LD_LIBRARY_PATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH \
	COLCON_PREFIX_PATH _ROS_WHEELS_BOOTSTRAP_COMPLETE

PREFIX      := $(abspath $(VENV))
PIP_STAMP   := $(VENV)/.stamp-requirements
BUILD_STAMP := $(VENV)/.stamp-package
LINK_STAMP  := $(VENV)/.stamp-links
ENTRIES     := $(BUILD)/entries
# By file, in the order of test/conftest.py: what is shared within a file is made once.
PYTEST       = $(VENV)/bin/pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder
MKDOCS       = NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs
LINT_FILES   = git ls-files --cached --others --exclude-standard

# Stamps are written last, by one command, so that an interrupted set-up leaves none.
# An environment holds absolute paths: one that was moved or copied is made anew.
ifneq ($(shell cat $(PIP_STAMP) 2>/dev/null),$(PREFIX))
$(shell rm -f $(PIP_STAMP) $(BUILD_STAMP))
endif

.DEFAULT_GOAL := help
.PHONY: help setup test test-long test-fast demo docs docs-serve peers lint lock clean FORCE

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

setup: $(LINK_STAMP) ## make .venv: pinned wheels, messages, this package

test: setup ## set up, then run the tests but for the longest (PYTEST_ARGS=...)
	$(PYTEST) -m "not long" $(PYTEST_ARGS)

test-long: setup ## the tests that take tens of seconds each
	$(PYTEST) -m long $(PYTEST_ARGS)

test-fast: setup ## what needs neither nodes nor patience: for every day
	$(PYTEST) -m "not slow and not long and not ros" $(PYTEST_ARGS)

demo: setup ## set up, then run the main job (DEMO_ARGS=...)
	$(VENV)/bin/ssql demo $(DEMO_ARGS)

docs: setup ## build the documentation site, strictly, into build/site
	$(MKDOCS) build --strict

docs-serve: setup ## show the site at localhost:8000, made anew with every change
	$(MKDOCS) serve

peers: setup ## make .venv-peers: what `ssql bench train` compares with
	$(VENV)/bin/python -m venv --clear .venv-peers
	.venv-peers/bin/python scripts/install_requirements.py requirements-peers.lock $(PIP_ARGS)

lint: setup ## format, lint and type checks (the pre-commit set) over all files
	$(VENV)/bin/pre-commit run --files $$($(LINT_FILES))

lock: setup ## write requirements.lock anew from requirements.in
	scripts/lock.sh $(VENV)/bin/uv

clean: ## remove everything that was built, the environment included
	rm -rf $(VENV) build install log *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PIP_STAMP): requirements.lock
	@rm -f $@ $(BUILD_STAMP) $(LINK_STAMP)
	@python=$$(PYTHON='$(PYTHON)' CC='$(CC)' CXX='$(CXX)' sh scripts/check_tools.sh) && \
		echo "Making $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)
	@echo "Installing the pinned packages (about 1 GB, a few minutes)"
	@$(VENV)/bin/python scripts/install_requirements.py requirements.lock $(PIP_ARGS)
	@echo '$(PREFIX)' > $@

$(BUILD_STAMP): $(PIP_STAMP) CMakeLists.txt package.xml setup.py scripts/build_package.sh $(wildcard msg/*.msg cmake/*)
	@rm -f $@ $(LINK_STAMP)
	@echo "Building the messages (log: $(BUILD)/build.log)"
	@scripts/build_package.sh $(PREFIX) $(BUILD) $(JOBS)
	@touch $@

# What lies at the top of ssql_ros/ is linked entry by entry: a new entry needs a new link.
$(LINK_STAMP): $(BUILD_STAMP) $(ENTRIES)
	@cmake --install $(BUILD)/tree --component links >/dev/null
	@touch $@

$(ENTRIES): FORCE
	@mkdir -p $(@D)
	@ls ssql_ros 2>/dev/null | grep -v __pycache__ > $@.new || true
	@if cmp -s $@ $@.new; then rm $@.new; else mv $@.new $@; fi
