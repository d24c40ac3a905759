# make demo   install into .venv, generate a video with the small model, say where it is
# make test   install into .venv, pass the tests, one process a core and four at most
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_PROMPT ?= a big yellow triangle bounces over the desert at sunset in clear weather, the camera is still

.PHONY: demo test lint clean

demo: $(VENV)/.base
	$(BIN)/helios generate "$(DEMO_PROMPT)" --num-frames 99 --out outputs/demo.mp4 --force
	$(BIN)/helios show outputs/demo.mp4 --sheet outputs/demo.png

test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

$(VENV)/.base: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) outputs
