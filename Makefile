# make demo   erase "tiger" from the bundled MiniFlux and look at it (CONCEPT=car for another)
# make test   everything that a change must pass
# make browser  the front end in a real browser, on a real ComfyUI
# make cluster  two machines of a Ray cluster as processes, one of them killed
# make checks  what others' checkers say of the package as the registry gets it
# make slow   the tests that train for minutes
# All of them set up .venv first, from the package registry, and again only when needed.

PYTHON ?= python3
CONCEPT ?= tiger
SEED ?= 0
OUT ?= out/$(subst $(eval) ,-,$(CONCEPT))

BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints-dev.txt

.PHONY: demo test browser slow cluster checks

demo: .venv/run.stamp
	$(BIN)/eraseanything demo --concept "$(CONCEPT)" --seed $(SEED) --out "$(OUT)" --overwrite

test: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	mkdir -p build/types && ln -sfn ../.. build/types/eraseanything
	cd build/types && ../../$(BIN)/mypy --config-file ../../pyproject.toml -p eraseanything.nodes
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist loadfile

browser: .venv/dev.stamp
	$(BIN)/pytest -m browser tests/browser

slow: .venv/dev.stamp
	$(BIN)/pytest -m slow

cluster: .venv/dev.stamp
	$(PIP) --editable ".[cluster]"
	OMP_NUM_THREADS=1 $(BIN)/pytest -m cluster

checks: .venv/dev.stamp build/checks.stamp
	$(BIN)/pytest -m checks tests/checks

# torch comes first and is held by the constraints, so that nothing later brings another build.
.venv/torch.stamp: constraints-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) torch
	touch $@

.venv/run.stamp: .venv/torch.stamp pyproject.toml
	$(PIP) --editable .
	touch $@

.venv/dev.stamp: .venv/run.stamp
	$(PIP) --editable ".[dev]"
	touch $@

build/checks.stamp: Makefile
	test -x build/checks/bin/python || $(PYTHON) -m venv build/checks
	build/checks/bin/pip install --quiet --disable-pip-version-check comfy-cli comfy-test comfy-lint nodesafe
	touch $@
