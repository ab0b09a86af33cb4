# `make demo` shows the main job, `make test` runs every check, `make soak` the camera loop for long
# under faults. Each sets up by itself.

PYTHON ?= python3
BIN := .venv/bin
# A held-out clip in which one of two objects is hidden for a while.
DEMO_SEED := 55

.PHONY: demo test soak install clean

install: .venv/installed

# The original package, which tests compare with, comes by itself: its torchvision would bring another torch.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[export,serve,test]'
	SAM2_BUILD_CUDA=0 $(BIN)/pip install --quiet --no-deps --no-build-isolation sam2==1.1.0
	touch $@

demo: install
	rm -rf demo && mkdir demo
	$(BIN)/sam2-edge export nano --output demo/nano
	$(BIN)/sam2-edge synth demo/data --seed $(DEMO_SEED)
	$(BIN)/sam2-edge track demo/data/JPEGImages/00000 --bundle demo/nano \
	    --prompts demo/data/prompts/00000.json \
	    --video demo/overlay.mp4 --masks demo/masks --jsonl demo/results.jsonl
	$(BIN)/sam2-edge score demo/masks demo/data/Annotations/00000
	@echo "Look at demo/overlay.mp4, demo/masks/ and demo/results.jsonl."

test: install
	$(BIN)/ruff check sam2_edge tests tools benchmarks
	$(BIN)/ruff format --check sam2_edge tests tools benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

soak: install
	MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=131072 $(BIN)/python benchmarks/soak.py

clean:
	rm -rf .venv demo build *.egg-info
