# These commands set up what they need in .venv, on the first call only.
VENV := .venv
PYTHON ?= python3
OLDEST := .venv-oldest
READY := $(VENV)/.ready
BIN := $(VENV)/bin
SITE := 'import sysconfig; print(sysconfig.get_path("purelib"))'

.PHONY: demo test docs coverage fuzz compat pythons release pretrained format clean

demo: $(READY)
	$(BIN)/python examples/01_demo.py

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests/*.py tests/langchain_msat tests/msat_core examples
	MYPYPATH=tests $(BIN)/mypy tests/llamaindex_msat  # apart: some modules are named as of tests/langchain_msat
	$(MAKE) docs
	$(BIN)/pytest -n 2 --dist loadfile --cov --cov-report=  # below pyproject's share of lines and branches it fails
	$(BIN)/python tests/fresh_install.py

# Which lines and branches the last `make test` did not reach.
coverage: $(READY)
	$(BIN)/coverage report

# The site, in build/site; a broken link fails.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Damaged files and odd texts, for so many seconds: make fuzz MSAT_FUZZ_S=600
fuzz: $(READY)
	PYTHONPATH=tests $(BIN)/python tests/fuzz.py

# The tests on the lowest version of every floor in pyproject.toml; test tools and what has no floor come from .venv.
compat: $(READY)
	$(PYTHON) -m venv --clear $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/oldest.txt
	$(BIN)/python -c $(SITE) > "$$($(OLDEST)/bin/python -c $(SITE))/from_venv.pth"
	PYTHONPATH=. $(OLDEST)/bin/python -m pytest -W ignore tests/langchain_msat tests/llamaindex_msat tests/msat_core

# A route, and tests that need no torch, on other Pythons: make pythons PYTHONS="python3.10 python3.13"
PYTHONS ?= python3.10 python3.12 python3.13
FAST_TESTS := tests/msat_core/test_documents.py tests/msat_core/test_policy.py tests/msat_core/test_texts.py
pythons:
	for python in $(PYTHONS); do \
		$$python -m venv --clear .venv-$$python && \
		.venv-$$python/bin/python -m pip install --quiet --disable-pip-version-check \
			".[langchain,llamaindex]" pytest pytest-asyncio pytest-socket pytest-timeout hypothesis && \
		.venv-$$python/bin/python -c "from msat_core import Router; Router.from_pretrained().route('Hello?')" && \
		.venv-$$python/bin/python -m pytest -W ignore --noconftest $(FAST_TESTS) || exit 1; \
	done

# What goes to PyPI, in dist/, built and checked; CONTRIBUTING.md says what to do before and after.
release: $(READY)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m twine check --strict dist/*

# Rebuilds what is shipped from records and says what changed; ARGS="--skip encoder", "--only zoo card", "--install" …
pretrained: $(READY)
	$(BIN)/python examples/reproduce/pretrained.py $(ARGS)

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) $(OLDEST) .venv-python* .cache dist
