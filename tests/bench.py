"""Measure speed side by side: ours, and every peer that is installed.

    make bench                       everything, beside the peers that are installed
    make bench-peers                 the same, with PyTorch, JAX and micrograd installed
    make bench ARGS="job mlp"        some of it: job, micrograd, bigram, mlp, batchnorm
    taskset -c 0 make bench-peers    everything on one core

"job" is all that a user waits for: stage 3 from words to names, as a process, with its imports, in
processor seconds. In the other rows both sides do the same work from the same weights in one
process, and are first checked to compute the same numbers. Both take turns, with one thread each;
a row shows the median of each side and the median of their ratios.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before NumPy is imported
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import gc
import platform
import re
import subprocess
import sys
import time
import tracemalloc
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np

JOB = sys.argv[2] if sys.argv[1:] in (["job", "torch"], ["job", "jax"]) else ""
INSTALLED = [name for name in ("numpy", "torch", "jax", "micrograd") if find_spec(name)]
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

if not JOB:
    import batchnorm
    import bigram
    import micrograd
    import mlp
if "torch" in INSTALLED and JOB != "jax":
    import torch
    from torch.nn.functional import batch_norm, cross_entropy, one_hot

    torch.set_num_threads(1)
if "jax" in INSTALLED and JOB != "torch":
    import jax
    import jax.numpy as jnp
from common import build_dataset, build_vocab, load_words, split_words

STEPS, BATCH, BLOCK = 50_000, 32, 1000
UNITS = {"s": 1, "ms": 1e3, "µs": 1e6}
WORDS = load_words()
STOI, ITOS = build_vocab(WORDS)
V = len(STOI)


def row(name, theirs, ours, unit, repeats=9):
    """Call both, which return seconds, in turn, and print the medians and that of theirs / ours."""
    pairs = [(theirs(), ours()) for _ in range(repeats)]
    a, b = (median(side) * UNITS[unit] for side in zip(*pairs))
    print(f"{name:45}{a:9.1f}{b:9.1f} {unit:2}{median(a / b for a, b in pairs):9.2f}", flush=True)


def timed(function, *arguments, calls=1):
    """A function that makes so many calls and returns the seconds of one."""

    def run():
        gc.collect()  # the garbage of the other side
        began = time.perf_counter()
        for _ in range(calls):
            function(*arguments)
        return (time.perf_counter() - began) / calls

    return run


# ------------------------------------------------------------------------------- PyTorch and JAX


def torch_mlp(params, X):
    C, W1, b1, W2, b2 = params
    return (C[X].view(len(X), -1) @ W1 + b1).tanh() @ W2 + b2


def torch_step(forward, params, X, Y, lr=0.1, batch=None):
    """A step of the training as the lectures write it -> its loss."""
    batch = torch.randint(len(X), (BATCH,)) if batch is None else batch
    loss = cross_entropy(forward(params, X[batch]), Y[batch])
    for p in params:
        p.grad = None
    loss.backward()
    for p in params:
        p.data -= lr * p.grad
    return loss


def torch_steps(net, X, Y):
    """-> (a function that measures a step of the net in PyTorch, the loss of the first batch)."""
    forward, arrays = torch_mlp, net
    if len(net) > 5:  # a net of batchnorm.py
        layers, hidden = net.gain.shape
        arrays = net.C, net.W_out, net.b_out, net.W1, *net.W, *net.gain, *net.bias
        averages = torch.zeros(hidden), torch.ones(hidden)

        def forward(params, X):
            C, W_out, b_out, *params = params
            h = C[X].view(len(X), -1)
            for i in range(layers):
                W, gain, bias = params[i::layers]
                out = batch_norm(h @ W, *averages, gain, bias, training=True).tanh()
                h = out + h if net.residual and i else out
            return h @ W_out + b_out

    params = [torch.tensor(array, requires_grad=True) for array in arrays]
    data = forward, params, torch.tensor(X).long(), torch.tensor(Y).long()
    loss = torch_step(*data, lr=0.0, batch=torch.arange(BATCH))
    return timed(torch_step, *data, calls=300), loss.item()


def torch_job(shapes, splits):
    """Train -> two functions: the loss of a split, and the next character of a sample."""
    torch.manual_seed(42)
    params = [torch.randn(shape, requires_grad=True) for shape in shapes]
    X, Y = (torch.tensor(array).long() for array in splits[0])
    for step in range(STEPS):
        torch_step(torch_mlp, params, X, Y, lr=0.1 * (1 - step / STEPS))

    @torch.no_grad()
    def evaluate(X, Y):
        return cross_entropy(torch_mlp(params, torch.tensor(X).long()), torch.tensor(Y).long())

    @torch.no_grad()
    def draw(context):
        probs = torch_mlp(params, torch.tensor([context])).softmax(dim=1)
        return torch.multinomial(probs, 1)

    return evaluate, draw


def jax_mlp(params, X):
    C, W1, b1, W2, b2 = params
    return jnp.tanh(C[X].reshape(len(X), -1) @ W1 + b1) @ W2 + b2


def jax_loss(params, X, Y):
    log_probs = jax.nn.log_softmax(jax_mlp(params, X))
    return -jnp.take_along_axis(log_probs, Y[:, None], axis=1).mean()


def jax_training(X, Y):
    """A compiled function of parameters, batches (steps, BATCH) and learning rates (steps,)."""
    X, Y = jnp.array(X, int), jnp.array(Y, int)

    def step(params, batch_and_rate):
        batch, rate = batch_and_rate
        loss, gradients = jax.value_and_grad(jax_loss)(params, X[batch], Y[batch])
        return jax.tree.map(lambda p, g: p - rate * g, params, gradients), loss

    return jax.jit(lambda params, *rows: jax.lax.scan(step, params, rows))


def jax_steps(net, X, Y):
    training, rng, params = jax_training(X, Y), np.random.default_rng(1), [*map(jnp.array, net)]
    rates = np.full(BLOCK, 0.1, np.float32)

    def run():
        batches = rng.integers(len(X), size=(BLOCK, BATCH))
        jax.block_until_ready(training(params, batches, rates))

    run()  # compiles
    return lambda: timed(run)() / BLOCK, float(jax_loss(params, X[:BATCH], Y[:BATCH]))


def jax_job(shapes, splits):
    """Train -> two functions: the loss of a split, and the next character of a sample."""
    keys = jax.random.split(jax.random.key(42), len(shapes))
    params = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes)]
    training, rng, seeds = jax_training(*splits[0]), np.random.default_rng(42), count()
    for start in range(0, STEPS, BLOCK):
        batches = rng.integers(len(splits[0][0]), size=(BLOCK, BATCH))
        rates = 0.1 * (1 - np.arange(start, start + BLOCK, dtype=np.float32) / STEPS)
        params, _ = training(params, batches, rates)

    @jax.jit
    def token(params, seed, context):
        return jax.random.categorical(jax.random.key(seed), jax_mlp(params, jnp.array([context])))

    evaluate = jax.jit(jax_loss)
    return partial(evaluate, params), lambda context: token(params, next(seeds), context)


def job(train):
    """What `python mlp.py --steps 50000` does, with torch_job or jax_job."""
    split_rng = np.random.default_rng(42).spawn(1)[0]  # the split of mlp.py
    splits = [build_dataset(part, STOI, 3) for part in split_words(WORDS, split_rng)]
    evaluate, draw = train([(V, 10), (30, 200), (200,), (200, V), (V,)], splits)
    for name, split in zip(("train", "dev", "test"), splits):
        print(f"{name:5} {evaluate(*split).item():9.4f}")
    for _ in range(20):
        tokens = [0, 0, 0]
        while len(tokens) == 3 or tokens[-1]:
            tokens.append(draw(tokens[-3:]).item())
        print("".join(ITOS[token] for token in tokens[3:-1]))


# ----------------------------------------------------------------------------------------- stages


def used():
    """Processor seconds of the child processes that have ended; on Windows the time of day."""
    try:
        import resource
    except ImportError:
        return time.perf_counter()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def bench_job():
    losses = []

    def process(*command):
        def run():
            before = used()
            output = subprocess.check_output([sys.executable, *map(str, command)])
            losses.append(float(re.search(rb"\ndev +([\d.]+)", output)[1]))
            return used() - before

        return run

    for name, package in (("PyTorch", "torch"), ("JAX", "jax")):
        if package in INSTALLED:
            theirs, ours = (
                process(__file__, "job", package),
                process(ROOT / "mlp.py", "--steps", STEPS),
            )
            row(f"job: {name}, words to names", theirs, ours, "s", 3)
    assert not losses or max(losses) - min(losses) < 0.05, losses  # on dev


def bench_micrograd():
    def step(model, loss_function, *data):
        loss = loss_function(model, *data)
        for p in model.parameters():
            p.grad = 0.0
        loss.backward()
        for p in model.parameters():
            p.data -= 0.1 * p.grad
        return loss.data

    def demo_loss(model, X, y):
        """As in the demo of karpathy's micrograd."""
        inputs = [list(map(Value, row)) for row in X.tolist()]
        losses = [(1 + -yi * model(x)).relu() for yi, x in zip(y.tolist(), inputs)]
        penalty = 1e-4 * sum(p * p for p in model.parameters())
        return sum(losses) * (1.0 / len(losses)) + penalty

    def chain(length):
        total = one = micrograd.Value(0.0)
        for _ in range(length):
            total = total + one
        total.backward()

    if "micrograd" in INSTALLED:
        del sys.modules["micrograd"]  # ours, which has the same name
        sys.path[:] = [folder for folder in sys.path if folder != str(ROOT)]
        from micrograd.nn import MLP, Value

        data = micrograd.make_moons(np.random.default_rng(0))
        model, original = micrograd.MLP(2, [16, 16, 1], "relu", "linear"), MLP(2, [16, 16, 1])
        for p, q in zip(original.parameters(), model.parameters()):
            p.data = q.data
        ours, theirs = (model, micrograd.margin_loss, *data), (original, demo_loss, *data)
        for _ in range(2):
            assert abs(step(*ours) - step(*theirs)) < 1e-12
        theirs, ours = timed(step, *theirs, calls=2), timed(step, *ours, calls=20)
        row("micrograd: the original, a step on the moons", theirs, ours, "ms", 5)

    gc.disable()  # as main does
    seconds = timed(chain, 1_000_000)()
    tracemalloc.start()
    chain(100_000)
    size = tracemalloc.get_traced_memory()[1] / 100_000
    tracemalloc.stop()
    gc.enable()
    print(f"micrograd: 1,000,000 additions in a chain, {seconds:.2f} s, {size:.0f} bytes each")


def bench_bigram():
    if "torch" not in INSTALLED:
        return
    start = np.random.default_rng(0).standard_normal((V, V))
    X, Y = (torch.tensor(array).long() for array in build_dataset(WORDS, STOI, 1))
    inputs, rows = one_hot(X.ravel()).float(), torch.arange(len(Y))
    W = torch.tensor(start, dtype=torch.float32, requires_grad=True)

    def step():
        """As in the lecture: a one-hot row for every pair."""
        counts = (inputs @ W).exp()
        probs = counts / counts.sum(1, keepdim=True)
        loss = -probs[rows, Y].log().mean()
        W.grad = None
        loss.backward()
        W.data -= 50 * W.grad
        return loss.item()

    training = bigram.train(start, bigram.count(WORDS, STOI), 10**9, 50.0)
    assert abs(step() - next(training)[1]) < 1e-5
    row("bigram: PyTorch, a step on all pairs", timed(step), timed(next, training, calls=500), "µs")


def six_products(net, X, Y):
    """The lower limit for a step of mlp.py: its matrix products alone."""
    _, W1, _, W2, _ = net
    emb, h, dlogits = mlp.forward(net, X[:BATCH])  # logits, of the shape of dlogits

    def products():
        emb @ W1, h @ W2, h.T @ dlogits, dlogits @ W2.T, emb.T @ h, h @ W1.T

    return timed(products, calls=BLOCK), mlp.evaluate(net, X[:BATCH], Y[:BATCH])


def bench_net(module, name, package, steps, context, embedding, hidden, **options):
    """A step of ours beside `steps`, which returns what torch_steps does."""
    if package in INSTALLED:
        X, Y = build_dataset(WORDS, STOI, context)
        net = module.new_net(np.random.default_rng(0), V, context, embedding, hidden, **options)
        loss, _ = module.loss_and_gradients(net, X[:BATCH], Y[:BATCH])
        theirs, their_loss = steps(net, X, Y)
        assert abs(their_loss - loss) < 1e-4 * loss, (their_loss, loss)
        training = module.train(net, X, Y, 10**9, BATCH, lambda done: 0.1, seed=0)
        row(f"{name}, a step", theirs, timed(next, training, calls=BLOCK), "µs")


def bench_mlp():
    bench_net(mlp, "mlp: its six products", "numpy", six_products, 3, 10, 200)
    bench_net(mlp, "mlp: PyTorch", "torch", torch_steps, 3, 10, 200)
    bench_net(mlp, "mlp: JAX", "jax", jax_steps, 3, 10, 200)


def bench_batchnorm():
    deep = {"layers": 4, "residual": True}
    bench_net(batchnorm, "batchnorm 1 x 200: PyTorch", "torch", torch_steps, 3, 10, 200)
    bench_net(batchnorm, "batchnorm 4 x 100: PyTorch", "torch", torch_steps, 8, 16, 100, **deep)


def main():
    cpuinfo = Path("/proc/cpuinfo")  # Linux; elsewhere the platform module knows more
    model = re.search("model name.*: (.*)", cpuinfo.read_text() if cpuinfo.exists() else "")
    print(model[1] if model else platform.processor())
    versions = ", ".join(f"{name} {version(name)}" for name in INSTALLED)
    print(f"Python {platform.python_version()}, {versions}")
    print(f"{'measure':45}{'theirs':>9}{'ours':>9}    theirs/ours")
    gc.freeze()  # what was imported is not searched for garbage
    for stage in sys.argv[1:] or STAGES:
        STAGES[stage]()


STAGES = {
    "job": bench_job,
    "micrograd": bench_micrograd,
    "bigram": bench_bigram,
    "mlp": bench_mlp,
    "batchnorm": bench_batchnorm,
}

if __name__ == "__main__":
    job({"torch": torch_job, "jax": jax_job}[JOB]) if JOB else main()
