# Two commands: `make demo` shows the main job, `make test` runs every check. Each sets up by itself.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test install clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[export,test]'
	touch $@

demo: install
	rm -rf demo && mkdir demo
	$(BIN)/python -m tests.clips demo/clip.mp4
	$(BIN)/sam2-edge export sam2.1-hiera-tiny --random-init 1 --image-size 256 --output demo/bundle
	$(BIN)/sam2-edge track demo/clip.mp4 --bundle demo/bundle \
	    --object 1 --point 80,96 --object 2 --box 205,190,290,280 \
	    --video demo/overlay.mp4 --masks demo/masks --jsonl demo/results.jsonl
	@echo "The weights are random, so the masks mean nothing; the whole path has run."
	@echo "Look at demo/overlay.mp4, demo/masks/ and demo/results.jsonl."

test: install
	$(BIN)/ruff check sam2_edge tests benchmarks
	$(BIN)/ruff format --check sam2_edge tests benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest

clean:
	rm -rf .venv demo build *.egg-info
