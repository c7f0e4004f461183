# Two commands do everything on a machine with Python (3.11-3.13) and make:
#   make demo   collect demonstrations, imitate, make reliable with EXPO, compare with RLPD, report (about six minutes)
#   make test   all tests
# While working: make test-fast runs what takes no more than two minutes on two cores; make lint, make format.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-fast lint format tables clean
PYTEST = $(BIN)/python -m pytest -n auto --dist worksteal
AS_USERS_RUN_THEM := tests/test_golden.py tests/test_probes.py

demo: $(VENV)/.demo
	$(BIN)/exporl demo

# Tests compile in a hurry; golden numbers and learning are tested with all of XLA's optimisations, as users run them.
test: $(VENV)/.dev $(VENV)/openpi/.installed
	$(PYTEST) $(AS_USERS_RUN_THEM:%=--ignore %)
	$(PYTEST) --optimized $(AS_USERS_RUN_THEM)

test-fast: $(VENV)/.dev
	$(PYTEST) -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks

tables: $(VENV)/.dev
	$(BIN)/python benchmarks/tables.py
	$(BIN)/python benchmarks/reference.py

clean:
	rm -rf $(VENV)

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "exporl needs Python 3.11-3.13; found $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: requirements/demo.txt pyproject.toml | $(VENV)/.created
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/demo.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/.created
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# openpi's client for robots needs numpy before 2: an environment of its own. Where it cannot be had, its tests are skipped.
$(VENV)/openpi/.installed: requirements/openpi.txt | $(VENV)/.created
	@rm -rf $(VENV)/openpi
	@{ $(BIN)/python -m venv $(VENV)/openpi && \
	  $(VENV)/openpi/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --no-deps \
	    --only-binary :all: -r requirements/openpi.txt && touch $@; } || \
	  echo "openpi-client could not be installed: its tests are skipped."
