"""Measure speed side by side: ours, the floor below it, and every peer that is installed.

    make bench                         all stages, beside the peers that are installed
    make bench-peers                   the same, with PyTorch, JAX and micrograd installed
    python tests/bench.py mlp          one stage: micrograd, bigram, mlp, batchnorm, growth

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

import batchnorm
import bigram
import micrograd
import mlp
from common import build_dataset, build_vocab, load_words, split_words

REPEATS = 7
UNITS = {"s": 1, "ms": 1e3, "µs": 1e6}


def in_turn(ours, theirs, repeats=REPEATS):
    """Call both, which return seconds, in turn -> (median of ours, of theirs, of theirs / ours)."""

    def alone(side):
        gc.collect()  # what the other side left behind is no work of this one
        return side()

    times = [(alone(ours), alone(theirs)) for _ in range(repeats)]
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


def peak_memory(program, *arguments):
    """Run a script, or a line of code, in a process of its own -> (stdout, peak resident MB)."""
    code = (
        "import runpy, sys\n"
        "sys.argv = sys.argv[1:]\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit: pass\n"
    )
    command = [code, program, *arguments] if program.endswith(".py") else [program]
    command[0] += "\nimport sys; print(open('/proc/self/status').read(), file=sys.stderr)"
    process = subprocess.run(
        [sys.executable, "-c", *command], capture_output=True, text=True, cwd=ROOT, check=True
    )
    peak = next(line for line in process.stderr.splitlines() if line.startswith("VmHWM"))
    return process.stdout, int(peak.split()[1]) / 1024


# -------------------------------------------------------------------------------------- micrograd


def our_moons_step(model, X, y, batch, lr=0.1):
    loss = micrograd.margin_loss(model, X, y, batch)
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
    X, y = micrograd.make_moons(np.random.default_rng(0))
    nn = original_micrograd()
    for name, batch, target, equal in (("scalars", False, 40, 1e-12), ("batch", True, 400, 1e-9)):
        measure = f"micrograd: the original / ours, {name}"
        if nn is None:
            missing(measure, "micrograd")
            continue
        ours = micrograd.MLP(2, [16, 16, 1], "relu", "linear", np.random.default_rng(0))
        theirs = nn.MLP(2, [16, 16, 1])
        for p, q in zip(theirs.parameters(), ours.parameters()):
            p.data = q.data
        for _ in range(2):
            a = our_moons_step(ours, X, y, batch)
            b = original_moons_step(theirs, nn.Value, X, y)
            assert abs(a - b) < equal, (a, b)
        a, b, ratio = in_turn(
            timed(our_moons_step, ours, X, y, batch, calls=50),
            timed(original_moons_step, theirs, nn.Value, X, y, calls=3),
            5,
        )
        row(measure, a, b, "ms", ratio, f">= {target}", ratio >= target)
    for length in (10_000, 100_000, 1_000_000):
        code = (
            "import micrograd, time; t = time.perf_counter(); v = w = micrograd.Value(0.0)\n"
            f"for _ in range({length}): v = v + w\n"
            f"v.backward(); assert w.grad == {length} + 1\n"
            f"print((time.perf_counter() - t) / {length} * 1e6)"
        )
        base, (output, peak) = peak_memory("import micrograd")[1], peak_memory(code)
        size = (peak - base) * 2**20 / length
        text = f"{float(output):8.2f} µs and {size:.0f} bytes a node"
        print(f"{f'micrograd: a chain of {length:,} additions':44} {text:32}  < 500 bytes")


# ----------------------------------------------------------------------------------------- bigram


def count_by_loops(words, stoi):
    N = np.zeros((len(stoi), len(stoi)), int)
    for word in words:
        padded = "." + word + "."
        for first, second in zip(padded, padded[1:]):
            N[stoi[first], stoi[second]] += 1
    return N


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


def sample_by_choice(P, rng, itos, number):
    words = []
    for _ in range(number):
        word, token = "", 0
        while True:
            token = rng.choice(len(P), p=P[token])
            if token == 0:
                break
            word += itos[token]
        words.append(word)
    return words


def bench_bigram():
    words, stoi, itos, parts = names()
    N = bigram.count(words, stoi)
    assert np.array_equal(N, count_by_loops(words, stoi))
    ours, theirs = timed(bigram.count, words, stoi, calls=9), timed(count_by_loops, words, stoi)
    a, b, ratio = in_turn(ours, theirs)
    row("bigram: the double loop / count", a, b, "ms", ratio, ">= 30", ratio >= 30)

    measure, start = "bigram: PyTorch / a full-batch step", np.random.default_rng(0)
    if find_spec("torch"):
        W = start.standard_normal((27, 27))
        theirs, ours = torch_bigram_step(*build_dataset(words, stoi, 1), W), W.copy()
        ((_, loss),) = bigram.train(ours.copy(), N, 1, 50.0)
        assert abs(theirs() - loss) < 1e-5
        a, b, ratio = in_turn(
            timed(lambda: [None for _ in bigram.train(ours, N, 500, 50.0)]), timed(theirs)
        )
        row(measure, a / 500, b, "µs", ratio * 500, ">= 500", ratio * 500 >= 500)
    else:
        missing(measure, "torch")

    P = bigram.probabilities(N, 0)
    rng = np.random.default_rng(0)
    a, b, ratio = in_turn(
        timed(bigram.sample, P, rng, itos, 100_000),
        timed(sample_by_choice, P, rng, itos, 2_000),
        3,
    )
    ratio *= 50
    row("bigram: rng.choice / 100,000 samples", a, b * 50, "ms", ratio, ">= 30", ratio >= 30)

    output, _ = peak_memory("bigram.py", "--order", "4", "--smoothing", "auto", "--samples", "0")
    dev = float(output.split("\ndev")[1].split()[0])
    figure("bigram: dev loss of 4-grams", dev, "<= 2.13", dev <= 2.13)


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


# -------------------------------------------------------------------------------------- batchnorm


def our_deep_steps(X, Y, sizes, options, steps=500):
    params = batchnorm.init_params(np.random.default_rng(0), *sizes, **options)
    running, rng = batchnorm.fresh_statistics(params), np.random.default_rng(1)

    def run():
        began = time.perf_counter()
        for _ in batchnorm.train(params, X, Y, rng, steps, BATCH, lambda done: 0.1, running):
            pass
        return (time.perf_counter() - began) / steps

    return run


def torch_deep_steps(X, Y, sizes, options, steps=300):
    import torch
    from torch.nn.functional import batch_norm, cross_entropy

    torch.set_num_threads(1)
    start = batchnorm.init_params(np.random.default_rng(0), *sizes, **options)

    def tensor(array):
        return torch.tensor(np.ascontiguousarray(array), requires_grad=True)

    C, W_out, b_out = map(tensor, (start.C, start.W_out, start.b_out))
    W, gain, bias = (list(map(tensor, entry)) for entry in (start.W, start.gain, start.bias))
    means = [torch.zeros(len(each)) for each in gain]
    variances = [torch.ones(len(each)) for each in gain]
    X, Y = torch.tensor(X.astype(int)), torch.tensor(Y.astype(int))
    params = [C, *W, *gain, *bias, W_out, b_out]

    def loss_of(batch):
        h = C[X[batch]].view(len(batch), -1)
        for i in range(len(W)):
            pre = batch_norm(
                h @ W[i], means[i], variances[i], gain[i], bias[i], True, momentum=0.001
            )
            out = torch.tanh(pre)
            h = out + h if options.get("residual") and i else out
        return cross_entropy(h @ W_out + b_out, Y[batch])

    def run():
        began = time.perf_counter()
        for _ in range(steps):
            loss = loss_of(torch.randint(0, len(X), (BATCH,)))
            for array in params:
                array.grad = None
            loss.backward()
            for array in params:
                array.data += -0.1 * array.grad
        return (time.perf_counter() - began) / steps

    return run, loss_of(torch.arange(BATCH)).item()


def bench_batchnorm():
    words, stoi, _, _ = names()
    for name, sizes, options, target in (
        ("1 layer of 200, context 3", (27, 3, 10, 200), {}, 3.5),
        ("4 residual of 100, context 8", (27, 8, 16, 100), dict(layers=4, residual=True), 2.5),
    ):
        measure = f"batchnorm: PyTorch / {name}"
        X, Y = build_dataset(words, stoi, sizes[1])
        ours = our_deep_steps(X, Y, sizes, options)
        if not find_spec("torch"):
            missing(measure, "torch")
            continue
        params = batchnorm.init_params(np.random.default_rng(0), *sizes, **options)
        loss, _ = batchnorm.loss_and_gradients(params, X[:BATCH], Y[:BATCH])
        theirs, their_loss = torch_deep_steps(X, Y, sizes, options)
        assert abs(their_loss - loss) < 1e-4, (their_loss, loss)
        a, b, ratio = in_turn(ours, theirs)
        row(measure, a, b, "µs", ratio, f">= {target}", ratio >= target)
    output, _ = peak_memory("batchnorm.py", "--samples", "0")
    dev = float(output.split("\ndev")[1].split()[0])
    figure("batchnorm: dev loss of 200,000 steps", dev, "<= 2.105", dev <= 2.105)


# ----------------------------------------------------------------------------------------- growth


def bench_growth():
    """How time and memory grow with the batch, the net and the data."""
    words, stoi, _, parts = names()
    X, Y = parts[0]
    for batch, hidden in ((32, 200), (256, 200), (4096, 200), (32, 400), (32, 1600)):
        params = mlp.init_params(np.random.default_rng(0), 27, 3, 10, hidden)
        params.W2[:] *= 0.01  # else probabilities of 1e-40, on which processors are slow
        grads, rows = mlp.zeros_like(params), np.arange(batch)
        step = timed(mlp.loss_and_gradients, params, X[rows], Y[rows], grads, calls=20)
        seconds = median(step() for _ in range(REPEATS))
        text = f"{seconds * 1e6:8.0f} µs, {seconds / batch * 1e6:.2f} µs an example"
        print(f"{f'growth: gradients, batch {batch:,}, hidden {hidden:,}':44} {text}", flush=True)
    for number in (30_000, 300_000, 3_000_000, 10_000_000):
        code = (
            "import numpy as np, tempfile, time, common\n"
            "names = np.array(common.load_words()); rng = np.random.default_rng(0)\n"
            "file = tempfile.NamedTemporaryFile('w', suffix='.txt')\n"
            f"for first in range(0, {number}, 100_000):\n"
            "    a, b = (names[rng.integers(len(names), size=100_000)] for _ in 'ab')\n"
            "    pairs = (x[:4] + y[-3:] for x, y in zip(a, b))\n"
            f"    lines = [next(pairs) for _ in range(min(100_000, {number} - first))]\n"
            "    file.write('\\n'.join(lines) + '\\n')\n"
            "file.flush(); del names; t = time.perf_counter()\n"
            "words = common.load_words(file.name); stoi, _ = common.build_vocab(words)\n"
            "X, Y = common.build_dataset(words, stoi, 3); print(time.perf_counter() - t, X.nbytes)"
        )
        output, peak = peak_memory(code)
        seconds, size = map(float, output.split())
        text = f"{seconds:8.2f} s, {peak:.0f} MB resident, {size / 2**20:.0f} MB of contexts"
        print(f"{f'growth: load and build {number:,} words':44} {text}", flush=True)


# ------------------------------------------------------------------------------------------------


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


STAGES = {
    "micrograd": bench_micrograd,
    "bigram": bench_bigram,
    "mlp": bench_mlp,
    "batchnorm": bench_batchnorm,
    "growth": bench_growth,
}

if __name__ == "__main__":
    packages = ", ".join(map(installed, ("numpy", "torch", "jax")))
    print(f"{processor()}, Python {platform.python_version()}, {packages}")
    print(f"{'measure':44} {'ours':>8} {'theirs':>9}    {'ratio':>7}  target")
    for stage in sys.argv[1:] or STAGES:
        STAGES[stage]()
