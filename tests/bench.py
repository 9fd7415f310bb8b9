"""Measure speed side by side: ours, the floor below it, and every peer that is installed.

    make bench                         all stages
    python tests/bench.py mlp          one of them

Both sides of a row do the same work from the same weights in one process, in turn, several times;
the row shows the median of each and the median of their ratios. One thread each. Before anything
is timed, both sides are checked to compute the same numbers.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before NumPy is imported
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mlp
from common import build_dataset, build_vocab, load_words, split_words

REPEATS = 7
UNITS = {"s": 1, "ms": 1e3, "µs": 1e6}


def in_turn(ours, theirs, repeats=REPEATS):
    """Call both, which return seconds, in turn -> (median of ours, of theirs, of theirs / ours)."""
    times = [(ours(), theirs()) for _ in range(repeats)]
    a, b = zip(*times)
    return median(a), median(b), median(y / x for x, y in times)


def timed(function, *arguments, calls=1):
    """A function without arguments that makes so many calls and returns the seconds for one."""

    def run():
        began = time.perf_counter()
        for _ in range(calls):
            function(*arguments)
        return (time.perf_counter() - began) / calls

    return run


def row(measure, ours, theirs, unit, ratio, target, reached):
    scale = UNITS[unit]
    print(
        f"{measure:44} {ours * scale:8.1f} {theirs * scale:9.1f} {unit:2} {ratio:7.2f}"
        f"  {target:11} {'reached' if reached else 'MISSED'}",
        flush=True,
    )


def figure(measure, value, target, reached):
    verdict = "reached" if reached else "MISSED"
    print(f"{measure:44} {value:8.4g} {'':20}  {target:11} {verdict}", flush=True)


def missing(measure, package):
    print(f"{measure:44} not measured: pip install {package}", flush=True)


def names():
    words = load_words()
    stoi, itos = build_vocab(words)
    splits = split_words(words, np.random.default_rng(0))
    return words, stoi, itos, [build_dataset(split, stoi, 3) for split in splits]


# -------------------------------------------------------------------------------------------- mlp

STEPS, BATCH = 2000, 32
SIZES = (27, 3, 10, 200)


def our_steps(X, Y):
    params, rng = mlp.init_params(np.random.default_rng(0), *SIZES), np.random.default_rng(1)

    def run():
        began = time.perf_counter()
        for _ in mlp.train(params, X, Y, rng, STEPS, BATCH, lambda done: 0.1):
            pass
        return (time.perf_counter() - began) / STEPS

    return run


def six_products():
    rng = np.random.default_rng(0)
    vocab, context, embedding, hidden = SIZES
    shapes = [(BATCH, context * embedding), (context * embedding, hidden), (BATCH, hidden)]
    shapes += [(hidden, vocab), (BATCH, vocab)]
    emb, W1, h, W2, dlogits = (rng.normal(size=shape).astype(np.float32) for shape in shapes)

    def products():
        emb @ W1, h @ W2, h.T @ dlogits, dlogits @ W2.T, emb.T @ h, h @ W1.T

    return timed(products, calls=STEPS)


def torch_steps(X, Y):
    import torch

    torch.set_num_threads(1)
    start = mlp.init_params(np.random.default_rng(0), *SIZES)
    params = [torch.tensor(np.ascontiguousarray(array), requires_grad=True) for array in start]
    C, W1, b1, W2, b2 = params
    X, Y = torch.tensor(X.astype(int)), torch.tensor(Y.astype(int))

    def loss_of(batch):
        h = torch.tanh(C[X[batch]].view(len(batch), -1) @ W1 + b1)
        return torch.nn.functional.cross_entropy(h @ W2 + b2, Y[batch])

    def run():
        began = time.perf_counter()
        for _ in range(STEPS // 2):
            loss = loss_of(torch.randint(0, len(X), (BATCH,)))
            for array in params:
                array.grad = None
            loss.backward()
            for array in params:
                array.data += -0.1 * array.grad
        return (time.perf_counter() - began) / (STEPS // 2)

    return run, loss_of(torch.arange(BATCH)).item()


def jax_steps(X, Y):
    import jax
    import jax.numpy as jnp

    params = mlp.Params(*map(jnp.array, mlp.init_params(np.random.default_rng(0), *SIZES)))
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


def direct_loss(params, X, Y, size=4096):
    total = 0.0
    for first in range(0, len(X), size):
        logits = mlp.forward(params, X[first : first + size])[-1]
        logits -= logits.max(axis=1, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        total -= log_probs[np.arange(len(logits)), Y[first : first + size]].sum(dtype=float)
    return total / len(X)


def textbook_dataset(words, stoi, context=3):
    X, Y = [], []
    for word in words:
        window = [0] * context
        for character in word + ".":
            X.append(window)
            Y.append(stoi[character])
            window = window[1:] + [stoi[character]]
    return np.array(X), np.array(Y)


def process(*command):
    """Seconds of a whole process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - began


def peak_memory(script, *arguments):
    """Run a script in a process of its own -> (its stdout, its largest resident size in MB)."""
    code = (
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: print(open('/proc/self/status').read(), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, script, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    peak = next(line for line in process.stderr.splitlines() if line.startswith("VmHWM"))
    return process.stdout, int(peak.split()[1]) / 1024


def bench_mlp():
    words, stoi, _, parts = names()
    X, Y = parts[0]
    ours = our_steps(X, Y)
    params = mlp.init_params(np.random.default_rng(0), *SIZES)
    loss, _ = mlp.loss_and_gradients(params, X[:BATCH], Y[:BATCH])

    a, b, ratio = in_turn(ours, six_products(), 15)
    row("mlp: a step / its six matrix products", a, b, "µs", 1 / ratio, "<= 2.5", 1 / ratio <= 2.5)
    for name, package, peer, target in [
        ("PyTorch eager", "torch", torch_steps, 4),
        ("JAX jit scan", "jax", jax_steps, 1),
    ]:
        measure = f"mlp: {name} / a step"
        if not find_spec(package):
            missing(measure, package)
            continue
        theirs, their_loss = peer(X, Y)
        assert abs(their_loss - loss) < 1e-4 * loss, (their_loss, loss)
        a, b, ratio = in_turn(ours, theirs)
        row(measure, a, b, "µs", ratio, f">= {target}", ratio >= target)

    def all_splits(evaluate):
        return [evaluate(params, *part) for part in parts]

    assert np.allclose(all_splits(mlp.evaluate), all_splits(direct_loss), rtol=0, atol=1e-5)
    a, b, ratio = in_turn(timed(all_splits, mlp.evaluate), timed(all_splits, direct_loss))
    row("mlp: evaluating directly / by contexts", a, b, "ms", ratio, ">= 10", ratio >= 10)

    for x, y in zip(build_dataset(words, stoi, 3), textbook_dataset(words, stoi)):
        assert np.array_equal(x, y)
    a, b, ratio = in_turn(
        timed(build_dataset, words, stoi, 3), timed(textbook_dataset, words, stoi)
    )
    row("common: the textbook loop / build_dataset", a, b, "ms", ratio, ">= 20", ratio >= 20)

    a, b, ratio = in_turn(
        lambda: process(sys.executable, "mlp.py", "--help"),
        lambda: process(sys.executable, "-c", "import numpy, click"),
        11,
    )
    row("mlp: --help / import numpy, click", a, b, "ms", 1 / ratio, "<= 1.3", 1 / ratio <= 1.3)

    _, peak = peak_memory("mlp.py", "--steps", "50000")
    figure("mlp: memory of --steps 50000, MB", peak, "< 150", peak < 150)
    output, _ = peak_memory("mlp.py")
    dev = float(output.split("\ndev")[1].split()[0])
    figure("mlp: dev loss of 200,000 steps, defaults", dev, "<= 2.19", dev <= 2.19)


# --------------------------------------------------------------------------------------------------


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def installed(package):
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


STAGES = {"mlp": bench_mlp}

if __name__ == "__main__":
    packages = ", ".join(map(installed, ("numpy", "torch", "jax")))
    print(f"{processor()}, Python {platform.python_version()}, {packages}")
    print(f"{'measure':44} {'ours':>8} {'theirs':>9}    {'ratio':>7}  target")
    for stage in sys.argv[1:] or STAGES:
        STAGES[stage]()
