# Two commands: `make demo` runs the whole path, `make test` proves it. Both install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out/demo
# Two processes of one thread each; tests that share Ray or a trained grid stay in one of them.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: demo test test-full lint format install clean-demo

demo: $(VENV)/.installed
	$(BIN)/hipray demo --out $(OUT)

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -m "not full"

test-full: $(VENV)/.installed
	$(PYTEST)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/.installed

# uv installs in seconds where it can be had; pip does the same in minutes. Both compile: each of
# Ray's processes imports torch, and starts in half the time where that is compiled.
# UV_TORCH_BACKEND=cpu in the environment chooses the smaller CPU build of torch.
# cluster/constraints.txt begins with the command that pins what is new in pyproject.toml; with
# --upgrade it renews all pins.
$(VENV)/.installed: pyproject.toml cluster/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("hipray needs Python 3.11 or newer, found " + sys.version.split()[0] + "; run make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || uv venv --seed --python $(PYTHON) $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv -c cluster/constraints.txt 2>/dev/null || true
	@if [ -x $(BIN)/uv ]; then echo "installing with uv"; \
	  $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -c cluster/constraints.txt -e ".[demo]" --group dev; \
	else echo "installing with pip"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check "pip>=25.1" && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check -c cluster/constraints.txt -e ".[demo]" --group dev; fi
	@$(BIN)/python -m compileall -q hipray
	@touch $@

clean-demo:
	rm -rf $(OUT)
