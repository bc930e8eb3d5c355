# Both commands set up what they need in .venv, on the first call only.
VENV := .venv
PYTHON ?= python3
READY := $(VENV)/.ready
BIN := $(VENV)/bin

.PHONY: demo test format clean

demo: $(READY)
	$(BIN)/python examples/01_demo.py

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) .cache
