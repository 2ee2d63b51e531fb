# Everything here sets itself up: Python >= 3.11, pip and make are all it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check format bench wheel-demo clean

demo: .venv/.installed  ## distil the bundled Pong player; minutes on two cores
	$(BIN)/potstill demo

# A process a core, a file at a time; threads that wait for work don't spin on the cores of the other tests.
test: check  ## everything a pull request needs
	OMP_WAIT_POLICY=PASSIVE $(BIN)/pytest -n auto --dist loadfile

check: .venv/.installed-dev  ## style, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: .venv/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.installed-dev  ## the loop's stages beside their limits, by pytest-benchmark
	$(BIN)/pytest benchmarks

wheel-demo: .venv/.installed-dev  ## the built wheel, alone in an empty environment, runs the demo
	rm -rf dist build/wheel-demo
	$(BIN)/pip wheel --no-deps --wheel-dir dist .
	$(PYTHON) -m venv build/wheel-demo
	build/wheel-demo/bin/pip install --quiet --constraint constraints.txt dist/potstill-*.whl
	cd build/wheel-demo && bin/potstill demo

.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch .venv/.installed $@

clean:
	rm -rf .venv build dist
