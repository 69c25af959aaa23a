# Two commands on a fresh machine: `make demo` and `make test`. Python 3.11 or newer; another one: make PYTHON=python3.12
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-a test-b lint clean

demo: .venv/installed
	$(BIN)/torchrun sft.py
	$(BIN)/torchrun grpo.py
	$(BIN)/python evaluate.py
	$(BIN)/python report.py
	$(BIN)/python browse.py

# In two processes, since most tests use one core; what they print comes when they are done.
test: .venv/installed
	$(MAKE) --no-print-directory --jobs 2 --keep-going --output-sync test-a test-b

test-a:
	$(BIN)/python -m pytest tests/test_[a-fs]*.py

test-b:
	$(BIN)/python -m pytest tests/test_[g-rt-z]*.py

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "this needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv
