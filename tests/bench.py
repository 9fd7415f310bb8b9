"""Measure speed side by side: ours, the floor below it, and every peer that is installed.

    make bench                         all stages, beside the peers that are installed
    make bench-peers                   the same, with PyTorch, JAX and micrograd installed
    python tests/bench.py mlp          one stage: micrograd, bigram, mlp, batchnorm
    taskset -c 0 make bench-peers      everything on one core

Both sides of a row do the same work from the same weights in one process, in turn, several times;
the row shows the median of each and the median of their ratios. One thread each. Before anything
is timed, both sides are checked to compute the same numbers.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before NumPy is imported
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import gc
import math
import platform
import random
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import batchnorm
import bigram
import micrograd
import mlp
from common import build_dataset, build_vocab, load_words, split_words

UNITS = {"ms": 1e3, "µs": 1e6}


def row(measure, theirs, ours, unit, repeats=9):
    """Call both, which return seconds, in turn, and print the medians and that of theirs / ours."""

    def alone(side):
        gc.collect()  # what the other side left behind is no work of this one
        return side()

    pairs = [(alone(theirs), alone(ours)) for _ in range(repeats)]
    a, b = (median(side) * UNITS[unit] for side in zip(*pairs))
    ratio = median(a / b for a, b in pairs)
    print(f"{measure:45}{a:10.1f}{b:9.1f} {unit}{ratio:10.2f}", flush=True)


def line(measure, text):
    print(f"{measure:45}{text}", flush=True)


def timed(function, *arguments, calls=1):
    """A function without arguments that makes so many calls and returns the seconds for one."""

    def run():
        began = time.perf_counter()
        for _ in range(calls):
            function(*arguments)
        return (time.perf_counter() - began) / calls

    return run


def installed(package, measure):
    if not find_spec(package):
        line(measure, f"not measured: pip install {package}")
    return find_spec(package)


def names():
    words = load_words()
    stoi, itos = build_vocab(words)
    train, _, _ = split_words(words, np.random.default_rng(0))
    return words, stoi, itos, build_dataset(train, stoi, 3)


def peak_memory(code):
    """Run Python code in a process of its own -> (lines of stdout, peak resident MB)."""
    code += "\nprint(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    *lines, peak = output.splitlines()
    return lines, int(peak) / 1024


# -------------------------------------------------------------------------------------- micrograd


class Textbook:
    """The plainest scalar engine: four slots, an operation a line, a recursive sort."""

    __slots__ = ("data", "grad", "children", "slopes")

    def __init__(self, data, children=(), slopes=()):
        self.data, self.grad, self.children, self.slopes = data, 0.0, children, slopes

    def __add__(self, other):
        other = other if isinstance(other, Textbook) else Textbook(other)
        return Textbook(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        other = other if isinstance(other, Textbook) else Textbook(other)
        return Textbook(self.data * other.data, (self, other), (other.data, self.data))

    def __pow__(self, n):
        return Textbook(self.data**n, (self,), (n * self.data ** (n - 1),))

    def exp(self):
        e = math.exp(self.data)
        return Textbook(e, (self,), (e,))

    def log(self):
        return Textbook(math.log(self.data), (self,), (1 / self.data,))

    def relu(self):
        return Textbook(max(0.0, self.data), (self,), (float(self.data > 0),))

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + (-other)

    def __truediv__(self, other):
        return self * other**-1

    __radd__, __rmul__ = __add__, __mul__

    def sort(self, order, seen):
        if self not in seen:
            seen.add(self)
            for child in self.children:
                child.sort(order, seen)
            order.append(self)
        return order

    def backward(self):
        self.grad = 1.0
        for node in reversed(self.sort([], set())):
            for child, slope in zip(node.children, node.slopes):
                child.grad += slope * node.grad


def classifier_step(cls, nin=16, hidden=32, classes=10, examples=60):
    """A training step of a softmax classifier in plain expressions, 100,000 nodes."""
    rng = random.Random(0)
    W1 = [[cls(rng.gauss(0, 0.3)) for _ in range(nin)] for _ in range(hidden)]
    W2 = [[cls(rng.gauss(0, 0.3)) for _ in range(hidden)] for _ in range(classes)]
    X = [[rng.gauss(0, 1) for _ in range(nin)] for _ in range(examples)]
    Y = [rng.randrange(classes) for _ in range(examples)]
    parameters = sum(W1 + W2, [])

    def step():
        losses = []
        for x, y in zip(X, Y):
            h = [sum(w * each for w, each in zip(row, x)).relu() for row in W1]
            logits = [sum(w * each for w, each in zip(row, h)) for row in W2]
            largest = max(logit.data for logit in logits)
            counts = [(logit - largest).exp() for logit in logits]
            losses.append(-(counts[y] / sum(counts)).log())
        loss = sum(losses) / examples
        for p in parameters:
            p.grad = 0.0
        loss.backward()
        for p in parameters:
            p.data -= 0.1 * p.grad
        return loss.data

    return step


def our_moons_step(model, X, y, lr=0.1):
    loss = micrograd.margin_loss(model, X, y)
    model.zero_grad()
    loss.backward()
    for p in model.parameters():
        p.data -= lr * p.grad
    return loss.data


def original_moons_step(model, value, X, y, lr=0.1):
    """As in the demo of karpathy's micrograd."""
    inputs = [list(map(value, row)) for row in X.tolist()]
    losses = [(1 + -yi * model(x)).relu() for yi, x in zip(y.tolist(), inputs)]
    loss = sum(losses) * (1.0 / len(losses)) + 1e-4 * sum(p * p for p in model.parameters())
    model.zero_grad()
    loss.backward()
    for p in model.parameters():
        p.data -= lr * p.grad
    return loss.data


def original_micrograd():
    """karpathy's package of the same name as our script -> its nn module, or None."""
    ours, path = sys.modules.pop("micrograd"), sys.path[:]
    sys.path[:] = [entry for entry in path if Path(entry or ".").resolve() != ROOT]
    try:
        from micrograd import nn
    except ImportError:
        nn = None
    sys.path[:], sys.modules["micrograd"] = path, ours
    return nn


def bench_micrograd():
    theirs, ours = classifier_step(Textbook), classifier_step(micrograd.Value)
    for _ in range(2):
        assert abs(theirs() - ours()) < 1e-12
    row("micrograd: textbook engine, plain expressions", timed(theirs), timed(ours), "ms")
    gc.disable()
    row("    the same without garbage collector", timed(theirs), timed(ours), "ms")
    gc.enable()

    X, y = micrograd.make_moons(np.random.default_rng(0))
    nn, measure = original_micrograd(), "micrograd: the original, a step on the moons"
    if nn is None:
        line(measure, "not measured: pip install micrograd")
    else:
        ours, theirs = micrograd.MLP(2, [16, 16, 1], "relu", "linear"), nn.MLP(2, [16, 16, 1])
        for p, q in zip(theirs.parameters(), ours.parameters()):
            p.data = q.data
        for _ in range(2):
            a, b = our_moons_step(ours, X, y), original_moons_step(theirs, nn.Value, X, y)
            assert abs(a - b) < 1e-12, (a, b)
        theirs = timed(original_moons_step, theirs, nn.Value, X, y, calls=2)
        row(measure, theirs, timed(our_moons_step, ours, X, y, calls=20), "ms", 5)
    code = (
        "import gc, micrograd, time; gc.disable(); t = time.perf_counter()\n"
        "v = w = micrograd.Value(0.0)\n"
        "for _ in range(1_000_000): v = v + w\n"
        "v.backward(); print(time.perf_counter() - t)"
    )
    (_, base), ((seconds,), peak) = peak_memory("import micrograd"), peak_memory(code)
    size = (peak - base) * 2**20 / 1e6
    text = f"{float(seconds):.2f} µs and {size:.0f} bytes per addition"
    line("micrograd: a chain of 1,000,000 additions", text)


# ----------------------------------------------------------------------------------------- bigram


def torch_bigram_step(X, Y, start):
    import torch

    torch.set_num_threads(1)
    inputs = torch.nn.functional.one_hot(torch.tensor(X.ravel().astype(int)), 27).float()
    Y, rows = torch.tensor(Y.astype(int)), torch.arange(len(Y))
    W = torch.tensor(start.astype(np.float32), requires_grad=True)

    def step():
        counts = (inputs @ W).exp()
        loss = -(counts / counts.sum(1, keepdim=True))[rows, Y].log().mean()
        W.grad = None
        loss.backward()
        W.data += -50 * W.grad
        return loss.item()

    return step


def bench_bigram():
    words, stoi, itos, _ = names()
    N = bigram.count(words, stoi)
    measure = "bigram: PyTorch, a full-batch step"
    if installed("torch", measure):
        W = np.random.default_rng(0).standard_normal((27, 27))
        theirs, ours = torch_bigram_step(*build_dataset(words, stoi, 1), W), W.copy()
        ((_, loss),) = bigram.train(ours.copy(), N, 1, 50.0)
        assert abs(theirs() - loss) < 1e-5

        def our_step():
            began = time.perf_counter()
            for _ in bigram.train(ours, N, 500, 50.0):
                pass
            return (time.perf_counter() - began) / 500

        row(measure, timed(theirs), our_step, "µs")


# -------------------------------------------------------------------------------------------- mlp

STEPS, BATCH = 2000, 32
SIZES = (27, 3, 10, 200)


def our_steps(module, net, X, Y, steps):
    """The training of mlp.py or batchnorm.py at a constant rate -> a function that times a step."""
    seeds = count()

    def run():
        began = time.perf_counter()
        for _ in module.train(net, X, Y, steps, BATCH, 0.1, lambda done: 1.0, next(seeds)):
            pass
        return (time.perf_counter() - began) / steps

    return run


def torch_steps(loss_of, params, examples, steps):
    """The same in PyTorch, with the loss of a batch of rows and the tensors to train."""
    import torch

    def run():
        began = time.perf_counter()
        for _ in range(steps):
            loss = loss_of(torch.randint(0, examples, (BATCH,)))
            for array in params:
                array.grad = None
            loss.backward()
            for array in params:
                array.data += -0.1 * array.grad
        return (time.perf_counter() - began) / steps

    return run, loss_of(torch.arange(BATCH)).item()


def tensor(array):
    import torch

    torch.set_num_threads(1)
    return torch.tensor(np.ascontiguousarray(array), requires_grad=True)


def six_products():
    rng = np.random.default_rng(0)
    vocab, context, embedding, hidden = SIZES
    shapes = [(BATCH, context * embedding), (context * embedding, hidden), (BATCH, hidden)]
    shapes += [(hidden, vocab), (BATCH, vocab)]
    emb, W1, h, W2, dlogits = (rng.normal(size=shape).astype(np.float32) for shape in shapes)

    def products():
        emb @ W1, h @ W2, h.T @ dlogits, dlogits @ W2.T, emb.T @ h, h @ W1.T

    return timed(products, calls=STEPS)


def torch_mlp(X, Y):
    import torch

    params = [tensor(array) for array in mlp.Net(np.random.default_rng(0), *SIZES).params]
    C, W1, b1, W2, b2 = params
    X, Y = torch.tensor(X.astype(int)), torch.tensor(Y.astype(int))

    def loss_of(batch):
        h = torch.tanh(C[X[batch]].view(len(batch), -1) @ W1 + b1)
        return torch.nn.functional.cross_entropy(h @ W2 + b2, Y[batch])

    return torch_steps(loss_of, params, len(X), STEPS // 2)


def jax_mlp(X, Y):
    import jax
    import jax.numpy as jnp

    params = mlp.Arrays(*map(jnp.array, mlp.Net(np.random.default_rng(0), *SIZES).params))
    X, Y = jnp.array(X.astype(np.int32)), jnp.array(Y.astype(np.int32))

    def loss_of(params, X, Y):
        h = jnp.tanh(params.C[X].reshape(len(X), -1) @ params.W1 + params.b1)
        logits = jax.nn.log_softmax(h @ params.W2 + params.b2)
        return -jnp.take_along_axis(logits, Y[:, None], axis=1).mean()

    def step(params, batch):
        loss, grads = jax.value_and_grad(loss_of)(params, X[batch], Y[batch])
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), loss

    scan = jax.jit(lambda params, batches: jax.lax.scan(step, params, batches))
    rng = np.random.default_rng(1)

    def run():
        began = time.perf_counter()
        jax.block_until_ready(scan(params, rng.integers(len(X), size=(STEPS, BATCH))))
        return (time.perf_counter() - began) / STEPS

    run()  # compiles
    return run, float(loss_of(params, X[:BATCH], Y[:BATCH]))


def bench_mlp():
    _, _, _, (X, Y) = names()
    net = mlp.Net(np.random.default_rng(0), *SIZES)
    loss = mlp.loss_and_gradients(net, X[:BATCH], Y[:BATCH])
    ours = our_steps(mlp, net, X, Y, STEPS)
    row("mlp: the six matrix products, a step", six_products(), ours, "µs", 15)
    for name, package, peer in (("PyTorch", "torch", torch_mlp), ("JAX", "jax", jax_mlp)):
        if installed(package, f"mlp: {name}, a step"):
            theirs, their_loss = peer(X, Y)
            assert abs(their_loss - loss) < 1e-4 * loss, (their_loss, loss)
            row(f"mlp: {name}, a step", theirs, ours, "µs")


# -------------------------------------------------------------------------------------- batchnorm


def torch_batchnorm(X, Y, sizes, options):
    import torch
    from torch.nn.functional import batch_norm, cross_entropy

    start = batchnorm.Net(np.random.default_rng(0), *sizes, **options).params
    C, W_out, b_out = map(tensor, (start.C, start.W_out, start.b_out))
    layers = [start.W1, *start.W], start.gain, start.bias
    W, gain, bias = ([tensor(array) for array in arrays] for arrays in layers)
    means = [torch.zeros(len(each)) for each in gain]
    variances = [torch.ones(len(each)) for each in gain]
    X, Y = torch.tensor(X.astype(int)), torch.tensor(Y.astype(int))

    def loss_of(batch):
        h = C[X[batch]].view(len(batch), -1)
        for i in range(len(W)):
            statistics = means[i], variances[i], gain[i], bias[i]
            out = torch.tanh(batch_norm(h @ W[i], *statistics, True, momentum=0.001))
            h = out + h if options.get("residual") and i else out
        return cross_entropy(h @ W_out + b_out, Y[batch])

    return torch_steps(loss_of, [C, *W, *gain, *bias, W_out, b_out], len(X), 300)


def bench_batchnorm():
    words, stoi, _, _ = names()
    for name, sizes, options in (
        ("1 x 200, context 3", (27, 3, 10, 200), {}),
        ("4 residual x 100, context 8", (27, 8, 16, 100), dict(layers=4, residual=True)),
    ):
        measure = f"batchnorm: PyTorch, {name}"
        X, Y = build_dataset(words, stoi, sizes[1])
        if not installed("torch", measure):
            continue
        net = batchnorm.Net(np.random.default_rng(0), *sizes, **options)
        loss = batchnorm.loss_and_gradients(net, X[:BATCH], Y[:BATCH])
        theirs, their_loss = torch_batchnorm(X, Y, sizes, options)
        assert abs(their_loss - loss) < 1e-4, (their_loss, loss)
        row(measure, theirs, our_steps(batchnorm, net, X, Y, 500), "µs")


# ------------------------------------------------------------------------------------------------


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


STAGES = {
    "micrograd": bench_micrograd,
    "bigram": bench_bigram,
    "mlp": bench_mlp,
    "batchnorm": bench_batchnorm,
}

if __name__ == "__main__":
    packages = [f"{name} {version(name)}" for name in ("numpy", "torch", "jax") if find_spec(name)]
    print(f"{processor()}\nPython {platform.python_version()}, {', '.join(packages)}")
    print(f"{'measure':45}{'theirs':>10}{'ours':>9}    theirs/ours")
    for stage in sys.argv[1:] or STAGES:
        STAGES[stage]()
