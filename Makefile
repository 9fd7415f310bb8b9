# Neural networks from scratch. `make` lists what can be made.
# Options of a script are variables here: make mlp STEPS=50000 HIDDEN=300 PREFIX=mar
# Whatever else it takes goes into ARGS: make batchnorm ARGS="--residual --layers 3"

PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
NEED := name a Python 3.11 or newer with make PYTHON=...
OPTIONS := DATA STEPS BATCH_SIZE LR LR_DECAY CONTEXT EMBEDDING HIDDEN SEED SAMPLES PREFIX TEMPERATURE SAVE LOAD PLOT \
	DATASET GRAPH ORDER SMOOTHING WORD L2 MODEL LAYERS ACTIVATION INIT BN_STATS
# From the environment only names that no other program has a use for.
OWN := STEPS BATCH_SIZE LR LR_DECAY EMBEDDING HIDDEN SAMPLES TEMPERATURE
lower = $(shell echo $(1) | tr A-Z_ a-z-)
meant = $(and $($(1)),$(or $(filter $(1),$(OWN)),$(findstring command,$(origin $(1)))))
FLAGS = $(foreach option,$(OPTIONS),$(if $(call meant,$(option)),--$(call lower,$(option)) '$(subst ','\'',$($(option)))')) $(ARGS)

BEST := --layers 5 --residual --context 8 --embedding 16 --hidden 100 --lr 0.2 --steps 200000

.DEFAULT_GOAL := help
.PHONY: help micrograd bigram mlp batchnorm compare best ladder test test-long lint bench bench-peers clean
.PRECIOUS: %/ready

help: ## this list
	@awk -F ' ?## ' '/^[a-z-]+:.*## / { sub(/:.*/, "", $$1); printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

micrograd: $(VENV)/ready ## stage 1: an autograd engine, derivatives and a tiny training
	@$(VENV)/bin/python micrograd.py $(FLAGS)

bigram: $(VENV)/ready ## stage 2: count pairs of characters, and learn the same table
	@$(VENV)/bin/python bigram.py $(FLAGS)

mlp: $(VENV)/ready ## stage 3: train the multilayer perceptron, make up names
	@$(VENV)/bin/python mlp.py $(FLAGS)

batchnorm: $(VENV)/ready ## stage 4: BatchNorm, depth and instruments to look inside
	@$(VENV)/bin/python batchnorm.py $(FLAGS)

compare: $(VENV)/ready ## stage 4: the repairs of the lecture, one after the other
	@$(VENV)/bin/python batchnorm.py --compare $(FLAGS)

best: $(VENV)/ready ## stage 4: a deep residual net, better than the lectures' best
	@$(VENV)/bin/python batchnorm.py $(BEST) $(FLAGS)

ladder: $(VENV)/ready ## all models on the same split, one table (about two minutes)
	@$(VENV)/bin/python tests/ladder.py

test: $(VENV)/ready ## run the tests (about half a minute)
	@$(VENV)/bin/python -m pytest -q $(ARGS)

test-long: $(VENV)/ready ## run them with more kills and thousands of random inputs
	@LONG=1 $(VENV)/bin/python -m pytest -q $(ARGS)

lint: $(VENV)/ready ## check the style with ruff
	@$(VENV)/bin/python -m pip install --quiet ruff && $(VENV)/bin/ruff check .

bench: $(VENV)/ready ## measure speed beside the floor and the peers that are installed
	@$(VENV)/bin/python tests/bench.py $(ARGS)

bench-peers: $(PEERS)/ready ## the same beside PyTorch, JAX and micrograd (installs 1 GB)
	@$(PEERS)/bin/python tests/bench.py $(ARGS)

clean: ## remove the virtual environments and the caches
	rm -rf $(VENV) $(PEERS) __pycache__ tests/__pycache__ .pytest_cache .ruff_cache

%/ready: requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: $(NEED)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: $(NEED)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) lacks venv or pip; on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@echo "installing numpy, click and pytest into $*" >&2
	@$(PYTHON) -m venv $*
	@$*/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@if [ $* = $(PEERS) ]; then $*/bin/python -m pip install --quiet torch==2.13.0 jax micrograd; fi
	@touch $@
