PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# one process a core, each with one thread for its products; a file's tests share fixtures and stay together
PYTEST := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --dist loadfile
# tests start hundreds of short processes: what they import is compiled once, whatever the shell asks for
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup quickstart test test-all lint types layers clean

# the environment, from nothing; made again when the dependencies change
setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt peers.txt
	@$(PYTHON) -c 'import sys; sys.exit("poolproof needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	@echo "installing into $(VENV): several gigabytes, some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	# peers that the tests and benchmarks compare with; they ask for a second OpenCV, which is left out
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement peers.txt
	@touch $(STAMP)

# the main job on data made on the spot, then the report
quickstart: $(STAMP)
	$(BIN)/poolproof quickstart --out quickstart

test: $(STAMP)
	$(PYTEST) -m 'not slow'

test-all: $(STAMP)
	$(PYTEST)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/pyright

layers: $(STAMP)
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .venv-wheel build dist quickstart
