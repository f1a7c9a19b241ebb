# xrec: make demo | test | check | bench | simulate | chaos | kill-loops | test-spark | test-api | fuzz | other-cpus; each makes its own .venv. test-js and storefront need Node 20
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check bench simulate chaos kill-loops test-spark test-api test-js storefront fuzz other-cpus clean

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt -e '.[demo,dev]'
	touch $@

demo: $(VENV)/ready
	$(BIN)/python demo/demo.py --out build/demo

test: $(VENV)/ready check
	$(BIN)/python -m pytest

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A library that can't be installed here is named so in the table.
bench: $(VENV)/ready
	-$(BIN)/pip install --quiet --constraint constraints.txt -e '.[bench]'
	mkdir -p build/bench
	$(BIN)/python -m pytest benchmarks/suites --benchmark-json=build/bench/suites.json
	for items in 100000 1000000; do OMP_NUM_THREADS=1 $(BIN)/python benchmarks/side_by_side.py --items $$items --out build/bench/side_by_side_$$items || exit 1; done

simulate: $(VENV)/ready
	$(BIN)/python tests/sync/simulator.py --histories 20000

chaos: $(VENV)/ready
	$(BIN)/python tests/e2e/chaos.py --events 10000 --devices 3
	$(BIN)/python tests/e2e/chaos.py --events 10000 --devices 3 --postgres --servers 2

kill-loops: $(VENV)/ready
	$(BIN)/python tests/sdk/kill_loop.py --rounds 40 --cuts 250

test-spark: $(VENV)/ready
	$(BIN)/pip install --quiet --constraint constraints.txt -e '.[spark]'
	$(BIN)/python -m pytest -m spark tests/spark

# Not a part of `make test`, which CI runs: Node is not sure to be there.
test-api: $(VENV)/ready
	test -x $(VENV)-api/bin/st || $(PYTHON) -m venv $(VENV)-api
	$(VENV)-api/bin/pip install --quiet schemathesis==4.32.5
	$(BIN)/python tests/server/fuzz_api.py $(VENV)-api/bin/st

test-js:
	@if node -e 'process.exit(Number(parseInt(process.versions.node) < 20))' 2>/dev/null; \
	then cd bindings/js && npm ci --ignore-scripts && npm run typecheck && npm test; \
	else echo "SKIPPED test-js: Node 20 or newer is missing (found: $$(node --version 2>/dev/null || echo none))"; fi

build/demo/shop.xrec/manifest.json:
	$(MAKE) demo

storefront: build/demo/shop.xrec/manifest.json
	cd bindings/js && npm ci --ignore-scripts && npm run build && npm run storefront

fuzz: $(VENV)/ready
	$(BIN)/pip install --quiet --constraint constraints.txt atheris
	for reader in manifest ids catalog zip delta graph; do $(BIN)/python tests/fuzz/fuzz_readers.py $$reader -max_total_time=600 || exit 1; done

other-cpus: $(VENV)/ready
	$(BIN)/python benchmarks/other_cpus.py build/demo/shop.xrec

clean:
	rm -rf $(VENV) build
