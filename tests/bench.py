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
import platform
import random
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import batchnorm
import bigram
import micrograd
import mlp
from common import build_dataset, build_vocab, load_words

UNITS = {"ms": 1e3, "µs": 1e6}
STEPS, FOREVER, BATCH = 2000, 10**9, 32
WORDS = load_words()
STOI, _ = build_vocab(WORDS)


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

    def relu(self):
        return Textbook(max(0.0, self.data), (self,), (float(self.data > 0),))

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


def descend(parameters, loss, lr=0.1):
    for p in parameters:
        p.grad = 0.0
    loss.backward()
    for p in parameters:
        p.data -= lr * p.grad
    return loss.data


def plain_step(cls, X, y):
    """A step of a net like MLP(2, [16, 16, 1]) in plain expressions: 70,000 nodes."""
    rng, layers = random.Random(0), []
    for nin, nout in ((2, 16), (16, 16), (16, 1)):
        layers.append([[cls(rng.uniform(-1, 1)) for _ in range(nin + 1)] for _ in range(nout)])
    parameters = [p for layer in layers for neuron in layer for p in neuron]

    def step():
        losses = []
        for x, target in zip(X.tolist(), y.tolist()):
            for layer in layers:
                x = [sum((wi * xi for wi, xi in zip(w, x)), b).relu() for *w, b in layer]
            losses.append((x[0] * -target + 1).relu())
        return descend(parameters, sum(losses) * (1 / len(losses)))

    return step


def original_step(model, value, X, y):
    """As in the demo of karpathy's micrograd."""
    inputs = [list(map(value, row)) for row in X.tolist()]
    losses = [(1 + -yi * model(x)).relu() for yi, x in zip(y.tolist(), inputs)]
    penalty = 1e-4 * sum(p * p for p in model.parameters())
    return descend(model.parameters(), sum(losses) * (1.0 / len(losses)) + penalty)


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


CHAIN = """
import gc, micrograd, time

def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024

gc.disable()
before, began = peak(), time.perf_counter()
v = w = micrograd.Value(0.0)
for _ in range(1_000_000):
    v = v + w
v.backward()
seconds, size = time.perf_counter() - began, (peak() - before) / 1e6
print(f"{seconds:.2f} µs and {size:.0f} bytes per addition")
"""


def bench_micrograd():
    X, y = micrograd.make_moons(np.random.default_rng(0))
    theirs, ours = plain_step(Textbook, X, y), plain_step(micrograd.Value, X, y)
    for _ in range(2):
        assert abs(theirs() - ours()) < 1e-12
    row("micrograd: textbook engine, plain expressions", timed(theirs), timed(ours), "ms")
    nn, measure = original_micrograd(), "micrograd: the original, a step on the moons"
    if nn is None:
        line(measure, "not measured: pip install micrograd")
    else:
        ours, theirs = micrograd.MLP(2, [16, 16, 1], "relu", "linear"), nn.MLP(2, [16, 16, 1])
        for p, q in zip(theirs.parameters(), ours.parameters()):
            p.data = q.data

        def our_step():
            return descend(ours.parameters(), micrograd.margin_loss(ours, X, y))

        for _ in range(2):
            a, b = our_step(), original_step(theirs, nn.Value, X, y)
            assert abs(a - b) < 1e-12, (a, b)
        theirs = timed(original_step, theirs, nn.Value, X, y, calls=2)
        row(measure, theirs, timed(our_step, calls=20), "ms", 5)
    command = [sys.executable, "-c", CHAIN]
    output = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
    line("micrograd: a chain of 1,000,000 additions", output.strip())


# ---------------------------------------------------------------------------------------- PyTorch


def torch_step(loss_of, params, lr=0.1):
    """A step of the textbook's training loop -> its loss."""

    def step():
        loss = loss_of()
        for array in params:
            array.grad = None
        loss.backward()
        for array in params:
            array.data += -lr * array.grad
        return loss

    return step


def tensor(array):
    import torch

    torch.set_num_threads(1)
    return torch.tensor(np.ascontiguousarray(array), requires_grad=True)


# ----------------------------------------------------------------------------------------- bigram


def torch_bigram(X, Y, start):
    import torch

    inputs = torch.nn.functional.one_hot(torch.tensor(X.ravel().astype(int)), 27).float()
    Y, rows = torch.tensor(Y.astype(int)), torch.arange(len(Y))
    W = tensor(start.astype(np.float32))

    def loss_of():
        counts = (inputs @ W).exp()
        return -(counts / counts.sum(1, keepdim=True))[rows, Y].log().mean()

    return torch_step(loss_of, [W], lr=50)


def bench_bigram():
    N, W = bigram.count(WORDS, STOI), np.random.default_rng(0).standard_normal((27, 27))
    measure = "bigram: PyTorch, a full-batch step"
    if installed("torch", measure):
        theirs = torch_bigram(*build_dataset(WORDS, STOI, 1), W)
        training = bigram.train(W, N, FOREVER, 50.0)
        assert abs(theirs().item() - next(training)[1]) < 1e-5
        row(measure, timed(theirs), timed(next, training, calls=500), "µs")


# ------------------------------------------------------------------------------ mlp and batchnorm


def our_steps(module, net, X, Y):
    """The training of mlp.py or batchnorm.py at a constant rate."""
    training = module.train(net, X, Y, FOREVER, BATCH, 0.1, lambda done: 1.0, seed=0)
    return timed(next, training, calls=STEPS)


def torch_steps(net, X, Y):
    """The same in PyTorch, and the loss of the first examples."""
    import torch
    from torch.nn.functional import batch_norm, cross_entropy

    if isinstance(net, mlp.Net):
        C, W1, b1, W_out, b_out = net.params
        arrays, residual = ([W1], [], [b1]), False
    else:
        C, W1, W, gain, bias, W_out, b_out = net.params
        arrays, residual = ([W1, *W], gain, bias), net.residual
    C, W_out, b_out = map(tensor, (C, W_out, b_out))
    W, gain, bias = ([tensor(array) for array in layers] for layers in arrays)
    means = [torch.zeros(len(each)) for each in gain]
    variances = [torch.ones(len(each)) for each in gain]
    X, Y = torch.tensor(X.astype(int)), torch.tensor(Y.astype(int))

    def loss_of(batch=None):
        batch = torch.randint(0, len(X), (BATCH,)) if batch is None else batch
        h = C[X[batch]].view(len(batch), -1)
        for i in range(len(W)):
            if gain:
                statistics = means[i], variances[i], gain[i], bias[i]
                out = torch.tanh(batch_norm(h @ W[i], *statistics, True, momentum=0.001))
            else:
                out = torch.tanh(h @ W[i] + bias[i])
            h = out + h if residual and i else out
        return cross_entropy(h @ W_out + b_out, Y[batch])

    loss, params = loss_of(torch.arange(BATCH)).item(), [C, *W, *gain, *bias, W_out, b_out]
    return timed(torch_step(loss_of, params), calls=300), loss


def six_products(net, X, Y):
    """The floor below a step of mlp.py: its matrix products alone."""
    _, W1, _, W2, _ = net.params
    emb, h, dlogits = mlp.forward(net, X[:BATCH])  # logits in the place of dlogits

    def products():
        emb @ W1, h @ W2, h.T @ dlogits, dlogits @ W2.T, emb.T @ h, h @ W1.T

    return timed(products, calls=STEPS), mlp.evaluate(net, X[:BATCH], Y[:BATCH])


def jax_steps(net, X, Y):
    import jax
    import jax.numpy as jnp

    params = mlp.Arrays(*map(jnp.array, net.params))
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


def bench_net(module, name, sizes, peers, **options):
    X, Y = build_dataset(WORDS, STOI, sizes[1])
    for peer, package, steps in peers:
        measure = f"{name}: {peer}, a step"
        if installed(package, measure):
            net = module.Net(np.random.default_rng(0), *sizes, **options)
            loss = module.loss_and_gradients(net, X[:BATCH], Y[:BATCH])
            theirs, their_loss = steps(net, X, Y)
            assert abs(their_loss - loss) < 1e-4 * loss, (their_loss, loss)
            row(measure, theirs, our_steps(module, net, X, Y), "µs")


TORCH, JAX = ("PyTorch", "torch", torch_steps), ("JAX", "jax", jax_steps)
FLOOR = "the six products", "numpy", six_products


def bench_mlp():
    bench_net(mlp, "mlp", (27, 3, 10, 200), [FLOOR, TORCH, JAX])


def bench_batchnorm():
    bench_net(batchnorm, "batchnorm 1 x 200", (27, 3, 10, 200), [TORCH])
    deep = {"layers": 4, "residual": True}
    bench_net(batchnorm, "batchnorm 4 x 100, context 8", (27, 8, 16, 100), [TORCH], **deep)


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
