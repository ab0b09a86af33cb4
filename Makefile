# make demo     shows the main job: export, track, score
# make test     checks, documentation and every test; `make test ARGS="tests/runtime -k prompt"` runs those tests alone
# make check    lint, format, types, import contracts
# make fmt      fixes format and imports
# make docs     builds the documentation site into site/
# make fuzz     feeds random inputs to everything that reads some; `make fuzz SECONDS=60` for that long in all
# make soak     runs the camera loop over 20,000 frames with faults, then three loops in one process over 7,000 each
# make soak-million   the same over 1,000,000 small frames with a small random model, for hours
# make aarch64  runs the installation for a CPU on an emulated aarch64 machine, compared with x86-64
# make triton   runs the model for Triton in a real server, and its client, without a GPU
# make installs installs each engine into a fresh environment and runs it up to where a GPU is needed
# Each sets itself up in .venv.

PYTHON ?= python3
BIN := .venv/bin
CODE := sam2_edge tests tools benchmarks
# A held-out clip in which one of two objects is hidden for a while.
DEMO_SEED := 55
# Tests check names in the Python bindings of classic TensorRT: JetPack 6's, the last 10, and 11.
TENSORRT_VERSIONS := 10.3.0 10.16.1.11 11.4.0.106
# Time of make fuzz.
SECONDS := 600
# Arguments for pytest.
ARGS ?=

.PHONY: demo test check fmt docs fuzz soak soak-million aarch64 triton installs install clean

install: .venv/installed

# The original packages, which tests compare with, come by themselves: their torchvision would bring another torch.
# Original EdgeTAM is a package named sam2, too, so it has a folder of its own, as timm, which it is built with.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[cpu,export,ray,serve,test,docs]'
	SAM2_BUILD_CUDA=0 $(BIN)/pip install --quiet --no-deps --no-build-isolation sam2==1.1.0
	$(BIN)/pip install --quiet --no-deps --target .venv/edgetam edgetam-dimos==1.0.1 timm==1.0.31
	for version in $(TENSORRT_VERSIONS); do $(BIN)/pip install --quiet --no-deps \
	    --target .venv/tensorrt_bindings/$$version tensorrt_cu12_bindings==$$version || exit 1; done
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

check: install
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: install
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

ifeq ($(strip $(ARGS)),)
test: check docs
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal
else
test: install
	$(BIN)/python -m pytest $(ARGS)
endif

soak: install
	MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=131072 $(BIN)/python benchmarks/soak.py
	MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=131072 $(BIN)/python benchmarks/soak_streams.py

fuzz: install
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

soak-million: install
	MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=131072 $(BIN)/python benchmarks/soak.py \
	    --model random --threads 1 --pixels 64 --objects 1 --frames 1000000 --json soak.json

aarch64: install
	$(BIN)/python -m tools.aarch64 $(ARGS)

# The server is 55 MB, its Python backend was built for NumPy 1, and the client wants an older protobuf: each has a folder.
triton: install
	$(BIN)/pip install --quiet --upgrade --no-deps --target .venv/triton/server nvidia-pytriton==0.7.0 'numpy<2'
	$(BIN)/pip install --quiet --upgrade --target .venv/triton/client 'tritonclient[grpc]'
	rm -rf .venv/triton/client/numpy*
	PYTHONPATH=.venv/triton/client $(BIN)/pytest tests/triton/test_server.py

installs: install
	$(BIN)/python -m tools.installs $(ARGS)

clean:
	rm -rf .venv .aarch64 .installs demo build fuzz site *.egg-info
