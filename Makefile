# Neural networks from scratch. `make` lists the targets. Options of a script go into ARGS:
# make mlp ARGS="--hidden 300 --prefix mar"

PYTHON ?= python3
DEEP := --layers 5 --hidden 100 --steps 10000 --samples 0
BEST := --layers 4 --residual --context 8 --embedding 16 --hidden 128 --lr 0.2 --weight-decay 1e-4
unexport PYTHONHOME PYTHONPATH

.PHONY: help micrograd bigram mlp batchnorm compare depth best ladder gradcheck test \
	test-long lint bench bench-peers pictures clean

help: ## list the targets
	@awk -F ' ?## ' '/^[a-z-]+:.*## / { sub(/:.*/, "", $$1); printf "make %-12s %s\n", $$1, $$2 }' Makefile

micrograd: .venv/ready ## stage 1: an autograd engine and small networks
	@.venv/bin/python micrograd.py $(ARGS)
bigram: .venv/ready ## stage 2: count pairs of characters, and learn the same table
	@.venv/bin/python bigram.py $(ARGS)
mlp: .venv/ready ## stage 3: train a multilayer perceptron and make up names
	@.venv/bin/python mlp.py --steps 50000 $(ARGS)
batchnorm: .venv/ready ## stage 4: initialisation, BatchNorm, depth and instruments
	@.venv/bin/python batchnorm.py --steps 50000 $(ARGS)

compare: .venv/ready ## stage 4: the repairs of the lecture, one after the other (3 minutes)
	@.venv/bin/python tests/ladder.py compare $(ARGS)
depth: .venv/ready ## stage 4: what BatchNorm is good for, in a deep net (3 minutes)
	@.venv/bin/python tests/ladder.py depth $(ARGS)
best: .venv/ready ## stage 4: a deep residual net, better than the lectures' best
	@.venv/bin/python batchnorm.py $(BEST) $(ARGS)
ladder: .venv/ready ## train all models on the same split, for one table
	@.venv/bin/python tests/ladder.py models $(ARGS)

gradcheck: .venv/ready ## check every gradient of all four scripts
	@failed=0; for script in micrograd bigram mlp batchnorm; do echo "$$script.py"; \
	.venv/bin/python $$script.py --gradcheck $(ARGS) || failed=1; done; exit $$failed
test: .venv/ready ## run the tests (half a minute)
	@PYTHONUTF8=1 .venv/bin/python -m pytest -q $(ARGS)
test-long: .venv/ready ## run them with more kills and more random inputs
	@PYTHONUTF8=1 LONG=1 .venv/bin/python -m pytest -q $(ARGS)
lint: .venv/ready ## check the style with ruff
	@.venv/bin/python -m pip install --quiet ruff && .venv/bin/python -m ruff check $(ARGS)

bench: .venv/ready ## measure the speed, beside the peers that are installed
	@.venv/bin/python tests/bench.py $(ARGS)
bench-peers: .venv-peers/ready ## the same beside PyTorch, JAX and micrograd (installs 1 GB)
	@.venv-peers/bin/python tests/bench.py $(ARGS)
pictures: .venv/ready ## draw the pictures of the README (installs matplotlib)
	@.venv/bin/python -m pip install --quiet matplotlib
	@.venv/bin/python micrograd.py --dataset moons --plot docs/moons.png $(ARGS)
	@.venv/bin/python bigram.py --samples 0 --plot docs/counts.png $(ARGS)
	@.venv/bin/python mlp.py --embedding 2 --samples 0 --plot docs/embedding.png $(ARGS)
	@.venv/bin/python batchnorm.py $(DEEP) --init naive --no-batchnorm --plot docs/naive.png $(ARGS)
	@.venv/bin/python batchnorm.py $(DEEP) --plot docs/repaired.png $(ARGS)
	@.venv/bin/python -c "import glob, PIL.Image as I; [I.open(f).convert('RGB').quantize(64, \
	method=1, dither=0).save(f, optimize=True) for f in glob.glob('docs/*.png')]"  # below 100 kB

clean: ## remove the virtual environments and the caches
	rm -rf .venv .venv-peers __pycache__ tests/__pycache__ .pytest_cache .ruff_cache uv.lock

# "3.12", or nothing if that Python is missing, too old, or without one of the packages
version = $(shell $(1) -I -c 'import sys, importlib.util as u; \
	assert sys.version_info >= (3, 11) and all(map(u.find_spec, "$(2)".split())); \
	print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
# An environment is stale if it does not work, or if PYTHON is given and has another version.
WANTED := $(if $(filter file,$(origin PYTHON)),3.%,$(or $(call version,$(PYTHON)),none))
STALE := $(foreach venv,.venv .venv-peers,$(if $(filter $(WANTED),\
	$(call version,$(venv)/bin/python,click numpy pip pytest)),,$(venv)))
create = $(if $(call version,$(PYTHON)),@$(PYTHON) -m venv --clear $(@D),\
	$(error Python 3.11 or newer is needed, as in: make mlp PYTHON=python3.12))
.PHONY: $(STALE:=/ready)
.venv-peers/ready: PEERS := torch==2.13.0 jax micrograd
.venv/ready .venv-peers/ready: requirements.txt
	$(if $(filter $(@D),$(STALE)),$(create))
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $< $(PEERS)
	@touch $@
