# The two commands: `make demo` and `make test`. Everything lives in .venv and artifacts/.
PYTHON ?= python3
BIN := .venv/bin
export ORT_DISABLE_TELEMETRY := 1
# One process a core, each with one thread of its own; tests of one file stay together, for they share what they made.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --basetemp=.venv/pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

.PHONY: demo test test-slow test-long test-reliability check serve clean

demo: .venv/run
	$(BIN)/bonsai run resnet-edge

test: .venv/dev
	$(PYTEST)

test-slow: .venv/dev  # what `.ci/run` runs beside them
	$(PYTEST) --durations=20 -m "slow and not long"

test-long: .venv/dev  # whole servers, fresh environments, the shipped recipe: hours
	$(PYTEST) --durations=0 --ignore=tests/reliability -m long

test-reliability: .venv/dev
	$(PYTEST) --dist=load --durations=30 tests/reliability -m "long or not long"

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

serve: .venv/run
	$(BIN)/bonsai serve

clean:
	git clean -qfdX artifacts && rm -rf .venv

.venv/run: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[train,rtx,openvino]'
	touch $@

.venv/dev: .venv/run
	$(BIN)/pip install --quiet --editable '.[dev,rtx,openvino]'
	touch $@
