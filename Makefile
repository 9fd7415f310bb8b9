# Neural networks from scratch. `make` lists the targets; options of a script go into ARGS:
# make mlp ARGS="--hidden 300 --prefix mar"

PYTHON ?= python3
DEEP := --layers 5 --hidden 100 --steps 10000 --samples 0
BEST := --layers 4 --residual --context 8 --embedding 16 --hidden 128 --lr 0.2 --weight-decay 1e-4

.PHONY: help micrograd bigram mlp batchnorm compare depth best ladder pictures \
	test test-long lint bench bench-peers clean

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

compare: .venv/ready ## stage 4: the repairs of the lecture, one after the other
	@.venv/bin/python batchnorm.py --compare $(ARGS)

depth: .venv/ready ## stage 4: what BatchNorm is good for, in a deep net (a minute)
	@.venv/bin/python tests/ladder.py depth

best: .venv/ready ## stage 4: a deep residual net, better than the lectures' best
	@.venv/bin/python batchnorm.py $(BEST) $(ARGS)

ladder: .venv/ready ## train all models on the same split, for one table
	@.venv/bin/python tests/ladder.py

pictures: .venv/ready ## draw the pictures of the README (installs matplotlib)
	@.venv/bin/python -m pip install --quiet matplotlib
	@.venv/bin/python mlp.py --embedding 2 --samples 0 --plot docs/embedding.png
	@.venv/bin/python batchnorm.py $(DEEP) --init naive --no-batchnorm --plot docs/naive.png
	@.venv/bin/python batchnorm.py $(DEEP) --plot docs/repaired.png
	@.venv/bin/python -c "import glob, PIL.Image as I; [I.open(f).convert('RGB').quantize(256, \
	method=1, dither=0).save(f, optimize=True) for f in glob.glob('docs/*.png')]"  # below 100 kB

test: .venv/ready ## run the tests (half a minute)
	@.venv/bin/python -m pytest -q $(ARGS)

test-long: .venv/ready ## run them with more kills and more random inputs
	@LONG=1 .venv/bin/python -m pytest -q $(ARGS)

lint: .venv/ready ## check the style with ruff
	@.venv/bin/python -m pip install --quiet ruff && .venv/bin/ruff check .

bench: .venv/ready ## measure the speed, beside the peers that are installed
	@.venv/bin/python tests/bench.py $(ARGS)

bench-peers: .venv-peers/ready ## the same beside PyTorch, JAX and micrograd (installs 1 GB)
	@.venv-peers/bin/python tests/bench.py $(ARGS)

clean: ## remove the virtual environments and the caches
	rm -rf .venv .venv-peers __pycache__ tests/__pycache__ .pytest_cache .ruff_cache

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv-peers/ready: requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet -r requirements.txt torch==2.13.0 jax micrograd
	@touch $@
