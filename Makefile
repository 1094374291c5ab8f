# `make demo` and `make test` work from a bare clone: they make the environment .venv themselves.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# A CPU build of torch, so that nobody downloads gigabytes for a demo. For a GPU: make demo TORCH='torch>=2.13'
TORCH  ?= torch==2.13.0+cpu
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PIP    := $(BIN)/python -m pip --disable-pip-version-check
DEMO_EPOCHS ?= 8
# The demo's network is small: a second thread gains little, and on a busy machine the two wait for each other.
DEMO   := OMP_NUM_THREADS=1 $(BIN)/morphable

.PHONY: demo test lint docs clean setup

setup: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# The CPU build is taken from where pip looks anyway, else from PyTorch's own index; elsewhere than on Linux the plain one is it.
	@if [ "$$(uname -s)" = Linux ]; then \
	  $(PIP) install -q "$(TORCH)" 2>/dev/null || $(PIP) install -q "$(TORCH)" --extra-index-url $(TORCH_INDEX); \
	else $(PIP) install -q "$$(echo '$(TORCH)' | sed 's/+cpu//')"; fi
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	rm -rf runs/demo data/demo-hands
	mkdir -p runs
	$(DEMO) data make hands --count 4000 --seed 3 --out data/demo-hands
	$(DEMO) train spiralnet++ --data data/demo-hands --latent 8 --epochs $(DEMO_EPOCHS) --out runs/demo
	$(DEMO) evaluate runs/demo
	$(DEMO) sample runs/demo -n 6 --seed 1 --out runs/demo/samples
	$(DEMO) reconstruct runs/demo runs/demo/samples/*.ply --out runs/demo/reconstructions
	$(DEMO) report runs/demo
	@echo "Open runs/demo/report.html"

lint: setup
	$(BIN)/ruff check src tests benchmarks scripts examples
	$(BIN)/ruff format --check src tests benchmarks scripts examples
	$(BIN)/mypy

docs: setup
	$(BIN)/mkdocs build --strict --quiet

test: lint docs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --durations 10

clean:
	rm -rf $(VENV) site build
