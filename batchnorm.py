#!/usr/bin/env -S uv run --script
"""Stage 4: start the net right, normalise it, make it deep, and look inside while it trains.

The net of stage 3 starts out far too confident, with most of its tanh units saturated, where they
pass hardly any gradient. Here each repair of the lecture "Building makemore, part 3" is an option
of its own: initialisation (He et al. 2015, "Delving Deep into Rectifiers"), Batch Normalisation
(Ioffe and Szegedy 2015), and depth with residual connections (He et al. 2015, "Deep Residual
Learning"). For a batch of B contexts X with targets Y, and an alphabet of V characters, the forward
pass is

    h = C[X]                                    (B, context * embedding)
    for each layer:
        pre = h @ W                             (B, hidden)
        x   = (pre - mean) / std                (B, hidden), mean and std over the batch
        z   = gain * x + bias                   (B, hidden)
        h   = tanh(z)                           [+ h, if residual; not in the first layer]
    logits = h @ W_out + b_out                  (B, V)
    probs  = softmax(logits)                    (B, V)
    loss   = mean(-log probs[i, Y[i]])          over the rows i, in nats

Without BatchNorm, z = pre + bias. `backward` takes these lines in reverse, by the four rules of
stage 3. New are the slope of relu, [z > 0], the residual connection, where h is used twice, so that
two gradients add up, and BatchNorm, whose derivation stands at `batchnorm_backward`.

BatchNorm subtracts the mean, so that a bias added to `pre` would do nothing: `bias` comes after it.
What is the same as in mlp.py stands together near the end, under "as in stage 3".

    python batchnorm.py --steps 50000                              with diagnostics
    python batchnorm.py --steps 1000 --init naive --no-batchnorm   the net of stage 3, inspected
    python tests/gradcheck.py batchnorm                            check every gradient
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import copy
import functools
import math
import os
import sys
import time
import zlib
from collections import namedtuple
from dataclasses import dataclass

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # more threads only add overhead here

import click
import numpy as np

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# ------------------------------------------------------------------------------------------ the net

ACTIVATIONS = {"tanh": 5 / 3, "relu": math.sqrt(2)}  # each with its g, see new_net
INITS = "naive", "small-logits", "scaled", "kaiming", "zero"

Parameters = namedtuple("Parameters", "C W1 W gain bias W_out b_out")


@dataclass
class Net:
    """The parameters and settings of a net.

    C (V, embedding), W1 (context * embedding, hidden) of the first layer, W (layers - 1, hidden,
    hidden) of the others, gain (layers, hidden), or (0, hidden) without BatchNorm, bias (layers,
    hidden), W_out (hidden, V), b_out (V,).
    """

    parameters: Parameters  # their gradients take the same form
    residual: bool
    activation: str


def new_net(
    rng, vocab, context, embedding, hidden, layers=1, batchnorm=True, residual=False,
    activation="tanh", init="kaiming", dtype=np.float32,
):  # fmt: skip
    """Every parameter drawn from N(0, 1), then scaled as `init` says -> Net.

    naive         as drawn: the logits are sums of hidden products, far too large, and the net is
                  confident and wrong: with 200 hidden units its loss starts at about 8 ln V
    small-logits  W_out * 0.01, b_out = 0: all logits are near 0, and the loss starts at ln V
    scaled        also W1 * 0.2, W * 0.2 and bias * 0.01, the lecture's choice for 30 inputs: sums
                  with a standard deviation of about 1 instead of 5.5, so that tanh is not saturated
    kaiming       W1 and W * g / sqrt(fan-in) instead: the outputs of tanh or relu keep the same
                  scale from layer to layer, whatever the fan-in, the number of inputs; g = 5/3
                  makes up for what tanh squashes, sqrt(2) for the half that relu cuts off
    zero          all 0: only b_out learns, as every other gradient has a zero factor

    With BatchNorm, gain = 1 and bias = 0, and the scale of W1 and W changes no output, only how
    fast they learn.
    """
    shapes = {
        "C": (vocab, embedding), "W1": (context * embedding, hidden),
        "W": (layers - 1, hidden, hidden), "bias": (layers, hidden),
        "W_out": (hidden, vocab), "b_out": (vocab,),
    }  # fmt: skip
    g, small = ACTIVATIONS[activation], {"W_out": 0.01, "b_out": 0}
    kaiming = {"W1": g / math.sqrt(context * embedding), "W": g / math.sqrt(hidden), "bias": 0.01}
    scales = {
        "naive": {},
        "small-logits": small,
        "scaled": small | {"W1": 0.2, "W": 0.2, "bias": 0.01},
        "kaiming": small | kaiming,
        "zero": dict.fromkeys(shapes, 0),
    }[init]
    if batchnorm:
        scales = scales | {"bias": 0}
    arrays = {
        name: rng.standard_normal(shape).astype(dtype) * scales.get(name, 1)
        for name, shape in shapes.items()
    }
    gain = np.ones((layers if batchnorm else 0, hidden), dtype)
    return Net(Parameters(gain=gain, **arrays), residual, activation)


# ---------------------------------------------------------------------------------------- BatchNorm

EPSILON = 1e-5  # no division by zero for a unit without variance


def batchnorm_forward(pre, gain, bias):
    """pre (B, hidden) -> z, x (B, hidden), std, mean (hidden,).

    Each unit is normalised over the batch to mean 0 and standard deviation 1, then scaled and
    shifted by learnt parameters: gain and bias. The sum of squares is divided by n = B, as in the
    paper. The output for an example depends on the others of its batch; that is a kind of noise,
    and regularises a little. Raises ValueError for a batch of one.
    """
    n = len(pre)
    if n == 1:
        raise ValueError("a single sample has no variance: fold the net to use it")
    mean = pre.sum(axis=0) / n  # (hidden,)
    centred = pre - mean  # (B, hidden)
    variance = (centred**2).sum(axis=0) / n  # (hidden,)
    std = np.sqrt(variance + EPSILON)  # (hidden,)
    x = centred / std  # (B, hidden)
    z = gain * x + bias  # (B, hidden)
    return z, x, std, mean


def batchnorm_backward(dz, gain, x, std):
    """dz (B, hidden) -> dpre (B, hidden), dgain, dbias (hidden,).

    As z = gain * x + bias, dgain = sum(dz * x), dbias = sum(dz), and dx = gain * dz. Three paths
    lead from one number pre[i] of a unit to its x = (pre - mean) / std. With sums over the batch,

        directly      dx[i] / std
        through mean  x changes with mean by -1 / std, and mean with pre[i] by 1 / n:
                      -sum(dx) / (n * std)
        through std   x changes with std by -(pre - mean) / std^2 = -x / std, and as std^2 is
                      sum((pre - mean)^2) / n + EPSILON, std with pre[i] by (pre[i] - mean) /
                      (n * std) = x[i] / n:  -x[i] * sum(dx * x) / (n * std)

    (std does not change with mean, as sum(pre - mean) = 0.) Added up,

        dpre = (dx - sum(dx) / n - x * sum(dx * x) / n) / std
             = gain / std * (dz - dbias / n - x * dgain / n)
    """
    n = len(dz)
    dbias = dz.sum(axis=0)  # (hidden,)
    dgain = (dz * x).sum(axis=0)  # (hidden,)
    dpre = gain / std * (dz - dbias / n - x * (dgain / n))  # (B, hidden)
    return dpre, dgain, dbias


# ---------------------------------------------------------------------- forward and backward passes


def forward(net, X):
    """Contexts X (B, context) -> h, cache, logits (B, V).

    h holds the input of each layer, and the output of the last one: (B, hidden), the first of them
    (B, context * embedding). cache holds (out, x, std, mean) of each layer.
    """
    C, W1, W, gain, bias, W_out, b_out = net.parameters
    emb = C.take(X, axis=0).reshape(len(X), -1)  # (B, context * embedding): C[X], but faster
    h, cache = [emb], []
    for i, weights in enumerate([W1, *W]):
        pre = h[i] @ weights  # (B, hidden)
        if len(gain):
            z, x, std, mean = batchnorm_forward(pre, gain[i], bias[i])
        else:
            z, x, std, mean = pre + bias[i], None, None, None
        out = np.tanh(z) if net.activation == "tanh" else np.maximum(z, 0)  # (B, hidden)
        cache.append((out, x, std, mean))
        h.append((out + h[i]) if net.residual and i else out)  # (B, hidden)
    logits = h[-1] @ W_out + b_out  # (B, V)
    return h, cache, logits


def backward(net, X, h, cache, dlogits):
    """Backpropagate dlogits (B, V) -> gradients as Parameters, and those of h, a list like h."""
    C, W1, W, gain, bias, W_out, b_out = net.parameters
    db_out = dlogits.sum(axis=0)  # (V,)
    dW_out = h[-1].T @ dlogits  # (hidden, V)
    weights = [W1, *W]
    dweights, dh = [None] * len(weights), [None] * len(h)
    dgain, dbias = np.zeros(gain.shape, C.dtype), np.zeros(bias.shape, C.dtype)
    dh[-1] = dlogits @ W_out.T  # (B, hidden)
    for i in reversed(range(len(weights))):
        out, x, std, _ = cache[i]
        slope = 1 - out * out if net.activation == "tanh" else out > 0  # (B, hidden): z > 0
        dz = dh[i + 1] * slope  # (B, hidden)
        if len(gain):
            dpre, dgain[i], dbias[i] = batchnorm_backward(dz, gain[i], x, std)
        else:
            dpre, dbias[i] = dz, dz.sum(axis=0)
        dweights[i] = h[i].T @ dpre  # shaped like W1, or W[i - 1]
        dh[i] = dpre @ weights[i].T  # (B, hidden), at the first layer (B, context * embedding)
        if net.residual and i:
            dh[i] += dh[i + 1]
    onehot = one_hot(X.ravel(), len(C), C.dtype)  # (B * context, V)
    dC = onehot.T @ dh[0].reshape(len(onehot), -1)  # (V, embedding)
    dW = np.reshape(dweights[1:], W.shape)  # also where there is only one layer
    return Parameters(dC, dweights[0], dW, dgain, dbias, dW_out, db_out), dh


def loss_and_gradients(net, X, Y):
    """Contexts X (B, context), targets Y (B,) -> (mean loss in nats, its gradients)."""
    h, cache, logits = forward(net, X)
    loss, dlogits = cross_entropy(logits, Y)
    gradients, _ = backward(net, X, h, cache, dlogits)
    return loss, gradients


# ------------------------------------------------------------------------------ training, inference


def train(net, X, Y, steps, batch_size, rate, seed, start=0, weight_decay=0.0):
    """Minibatch gradient descent from step `start` on: yields (steps done, loss before the step).

    As in stage 3, but for weight decay: it adds weight_decay / 2 * sum(parameter^2) to the loss
    that is minimised, not to the loss that is yielded.
    """
    for step in range(start, steps):
        if step == start or step % 1000 == 0:
            rng = np.random.default_rng([seed, 1 + step // 1000])
            batches = rng.integers(len(X), size=(1000, batch_size))  # (1000, B)
        batch = batches[step % 1000]  # (B,)
        loss, gradients = loss_and_gradients(net, X.take(batch, axis=0), Y.take(batch))
        lr = rate(step / steps)
        for parameter, gradient in zip(net.parameters, gradients):
            if weight_decay:
                gradient = gradient + weight_decay * parameter
            parameter -= lr * gradient
        yield step + 1, loss


def folded(net, X):
    """The net as it is used after the training -> a net without BatchNorm that shares no array.

    A single context is no batch to normalise with. The mean and the standard deviation over up to
    8,192 training examples X take the place of the batch's (most libraries keep running averages of
    them during the training instead). As constants, they can be folded into the weights:

        z = gain * (h @ W - mean) / std + bias = h @ (W * gain / std) + (bias - mean * gain / std)
    """
    plain = copy.deepcopy(net)
    C, W1, W, gain, bias, W_out, b_out = plain.parameters
    if len(gain):
        _, cache, _ = forward(net, X[:8192])
        scale = gain / [std for _, _, std, _ in cache]  # (layers, hidden)
        bias = bias - scale * [mean for _, _, _, mean in cache]  # (layers, hidden)
        W1, W = W1 * scale[0], W * scale[1:, None]  # shaped as before
        plain.parameters = Parameters(C, W1, W, gain[:0], bias, W_out, b_out)
    return plain


# ---------------------------------------------------------------------------- diagnostics, pictures


def inspect(net, X, Y):
    """Run a batch forward and backward -> the outputs of each layer, and their gradients.

    Two lists of (B, hidden). Raises click.ClickException if the outputs overflow.
    """
    h, cache, logits = forward(net, X)
    if not np.isfinite(logits).all():
        raise click.ClickException("the outputs overflow: try another --init, or fewer layers")
    _, dlogits = cross_entropy(logits, Y)
    _, dh = backward(net, X, h, cache, dlogits)
    return [out.astype(float) for out, *_ in cache], dh[1:]  # squares of float32 might overflow


def histogram(numbers, ends):
    """The distribution of the numbers between two ends as a line of 24 characters."""
    counts, _ = np.histogram(numbers, 24, ends)
    levels = np.ceil(8 * counts / max(1, counts.max())).astype(int)
    return "".join(" .:-=+*#@"[level] for level in levels)


def show_activations(title, net, X, Y):
    """Print a row for each layer: its outputs for a batch, and the loss's gradients there.

    Where |tanh| > 0.97, or relu is 0, a unit is saturated: it passes hardly any gradient. If it is
    so for every example, it is dead: it hardly learns from any of them. `gradient` is the median of
    the sizes, as a mean or a standard deviation would hide that nearly all are 0 beside a few.
    """
    click.echo(f"\n{title}: each layer's outputs for {len(X):,} examples, and their gradients")
    click.echo("layer    mean     std  saturated  dead  gradient  distribution of the outputs")
    outs, dh = inspect(net, X, Y)
    ends = np.min(outs), np.max(outs)
    for i, (out, grad) in enumerate(zip(outs, dh), 1):
        saturated = np.abs(out) > 0.97 if net.activation == "tanh" else out == 0  # (B, hidden)
        row = f"{i:5} {out.mean():7.3f} {out.std():7.3f}{saturated.mean():11.1%}"
        row += f"{saturated.all(axis=0).sum():6}{np.median(np.abs(grad)):10.1e}"
        click.echo(f"{row}  {histogram(out[out != 0], ends)}")
    click.echo(f"{'':50}{ends[0]:<12.3g}{ends[1]:12.3g}")


def snapshot(net):
    """The arrays whose updates are measured, one for each layer -> {name: a copy in float64}."""
    C, W1, W, _, _, W_out, b_out = net.parameters
    layers = {f"W{i}": weights for i, weights in enumerate([W1, *W], 1)}
    arrays = {"C": C, **layers, "W_out": W_out, "b_out": b_out}
    return {name: array.astype(float) for name, array in arrays.items()}


def record_ratios(net, training, steps, ratios):
    """Pass on the steps of `training`, and put into `ratios` {step: {array: number}} for a hundred.

    The number is log10 of std(update) / std(data). Healthy is about -3: a step changes the numbers
    by a thousandth of their spread. At -1, by a tenth, they jump about (W_out, which starts near 0,
    stays high for long, and it does no harm); at -5, training barely moves. It is necessary, not
    sufficient: a net with saturated units can show -3.
    """
    before = snapshot(net)
    for step, loss in training:
        if before:
            after = snapshot(net)
            ratios[step] = {
                name: np.log10((after[name] - old).std() / old.std())
                for name, old in before.items()
            }
        due = (step + 1) % math.ceil(steps / 100) == 0  # is the next step to be measured?
        before = snapshot(net) if due else None
        yield step, loss


def show_ratios(ratios):
    """Print the ratios at a quarter, half, and three quarters of the steps that were measured.

    At first, all that starts near 0 changes much, and at last the rate is about 0.
    """
    steps = sorted(ratios)
    steps = sorted({steps[len(steps) * quarter // 4] for quarter in (1, 2, 3)})
    click.echo("\nlog10(update/data)" + "".join(f"{f'step {step:,}':>16}" for step in steps))
    for name in ratios[steps[0]]:
        click.echo(f"{name:18}" + "".join(f"{ratios[step][name]:16.2f}" for step in steps))
    click.echo("About -3 is healthy, but no proof. nan, inf: the array was 0; -inf: no update.")


def draw_shares(axes, arrays, title, **limits):
    """The distribution of each layer's numbers, a curve for each."""
    for i, numbers in enumerate(arrays, 1):
        shares, edges = np.histogram(numbers, 50, density=True)
        axes.plot(edges[:-1], shares, label=f"layer {i}", color=f"C{i}")  # as its W below
    axes.set(title=title, ylabel="density", **limits)


def draw_run(path, losses, ratios, net, X, Y):
    """Loss, distributions of the outputs and of their gradients, and update ratios."""
    from matplotlib.figure import Figure

    outs, dh = inspect(net, X, Y)
    figure = Figure(figsize=(11, 8), layout="constrained")
    (loss, outputs), (gradients, updates) = figure.subplots(2, 2)
    draw_loss(loss, losses, len(net.parameters.C))
    draw_shares(outputs, outs, f"Outputs ({net.activation})", yscale="log", ylim=(0.01, 30))
    sizes = [np.log10(np.abs(grad[grad != 0])) for grad in dh]
    title = "log10 of the size of the outputs' gradients"
    draw_shares(gradients, sizes, title, xlim=(-13, 0), ylim=(0, 1.5))
    for name in next(iter(ratios.values()), []):
        updates.plot([*ratios], [row[name] for row in ratios.values()], label=name, linewidth=1)
    updates.axhline(-3, color="black", linestyle=":", label="healthy")
    updates.set(xlabel="step", ylim=(-6, 1), title="log10 of update / data")
    for axes in (outputs, gradients, updates):
        axes.legend(fontsize=8, ncols=1 + len(outs) // 12)
    figure.savefig(path)


# ------------------------------------------------------------------------------------ as in stage 3

# Fold a net with BatchNorm before evaluate and sample: each chunk would be a batch of its own.

identity = functools.cache(np.identity)  # made once: it would take a tenth of every step


def one_hot(tokens, vocab, dtype):
    """Tokens (N,) -> (N, vocab), a single 1 in each row: row i of the identity matrix for i."""
    return identity(vocab, dtype).take(tokens, axis=0)


def cross_entropy(logits, Y):
    """Mean of -log softmax(logits)[Y] in nats, and its gradient -> (loss, dlogits (B, V)).

    For one row z with target y, and p = softmax(z), where [i = y] is 1 if i = y, otherwise 0,

        loss = -log p_y = log(sum_j exp z_j) - z_y
        dloss/dz_i = exp z_i / sum_j exp z_j - [i = y] = p_i - [i = y]

    The mean divides both by B. Subtracting the maximum of a row does not change its softmax, and
    exp cannot overflow.
    """
    B, V = logits.shape
    shifted = logits - logits.max(axis=1, keepdims=True)  # (B, V)
    counts = np.exp(shifted)  # (B, V), as if counted
    total = counts.sum(axis=1)  # (B,)
    loss = (np.log(total) - shifted[np.arange(B), Y]).sum() / B
    probs = counts / total[:, None]  # (B, V)
    dlogits = (probs - one_hot(Y, V, logits.dtype)) / B  # (B, V)
    return float(loss), dlogits


def evaluate(net, X, Y, chunk=1024):
    """Mean loss in nats over all examples, a chunk at a time."""
    total = 0.0
    for i in range(0, len(X), chunk):
        x, y = X[i : i + chunk], Y[i : i + chunk]  # (chunk, context), (chunk,)
        loss, _ = cross_entropy(forward(net, x)[-1], y)
        total += loss * len(y)
    return total / len(X)


def sample(net, rng, stoi, itos, context, prefix="", temperature=1.0, longest=30):
    """Make up a word that starts with `prefix` -> str, cut at `longest` characters.

    Each next character is drawn from softmax(logits / temperature), until it is the dot. Raises
    KeyError for a prefix character without a token.
    """
    tokens = [0] * context + [stoi[character] for character in prefix]
    while len(tokens) < context + longest:
        logits = forward(net, np.array([tokens[-context:]]))[-1][0]  # (V,)
        scores = (logits.astype(float) - logits.max()) / temperature  # (V,)
        counts = np.exp(scores)  # (V,), the largest is 1
        token = rng.choice(len(counts), p=counts / counts.sum())
        if token == 0:
            break
        tokens.append(token)
    return "".join(itos[token] for token in tokens[context:])


def draw_loss(axes, losses, vocab):
    """The training loss on log axes; each point is the mean of more steps than the one before."""
    edges = np.unique(np.geomspace(1, len(losses) + 1, 300).astype(int))
    axes.loglog(edges[:-1], [np.mean(losses[i - 1 : j - 1]) for i, j in zip(edges, edges[1:])])
    axes.axhline(math.log(vocab), color="black", linestyle=":")
    axes.set(title="Training loss; dotted: a uniform guess", xlabel="step")
    axes.set_yticks([2, 3, 5, 10, 20, 30], [2, 3, 5, 10, 20, 30])
    axes.minorticks_off()


def save(path, run, net, losses):
    """Write a checkpoint beside `path`, then rename it: the file at `path` is always whole."""
    np.savez(f"{path}.tmp.npz", run=run, losses=losses, **net._asdict())
    os.replace(f"{path}.tmp.npz", path)


def load(path, run, net):
    """Read a checkpoint of this run into the net -> the losses of its steps.

    Raises click.ClickException if it is damaged, or of a run with other settings, words or arrays.
    """
    try:
        arrays = dict(np.load(path))
        found, losses = arrays.pop("run").item().split(), arrays.pop("losses").tolist()
    except Exception:  # zipfile, zlib and NumPy each raise their own
        raise click.ClickException(f"{path} cannot be read as a checkpoint") from None
    if found != run.split():
        differ = " ".join(setting for setting in found if setting not in run.split())
        raise click.ClickException(f"{path} belongs to another run: {differ}")
    if {k: v.shape for k, v in arrays.items()} != {k: v.shape for k, v in net._asdict().items()}:
        raise click.ClickException(f"{path} belongs to another net: {', '.join(arrays)}")
    for name, array in net._asdict().items():
        array[:] = arrays[name]
    return losses


def fit(training, losses, steps, net, checkpoint, run):
    """Train, appending to losses; print their mean, and save, about ten times and at the end.

    Ctrl-C ends the training early. Raises click.ClickException if the loss diverges.
    """
    start = shown = len(losses)
    guess = f"uniform guess: ln {len(net.C)} = {math.log(len(net.C)):.4f}"
    click.echo(f"    step      loss, mean since the row above; {guess}")
    began = time.perf_counter()
    try:
        for step, loss in training:
            if not math.isfinite(loss):
                advice = "try a lower --lr, or tests/gradcheck.py if you changed the code"
                raise click.ClickException(f"the loss diverged at step {step:,}: {advice}")
            losses.append(loss)
            if step in (1, steps) or step % math.ceil(steps / 10) == 0:
                if checkpoint:
                    save(checkpoint, run, net, losses)
                click.echo(f"{step:8,} {np.mean(losses[shown:]):9.4f}")
                shown = step
            elif step % 100 == 0 and sys.stderr and sys.stderr.isatty():  # until the next row
                left = (time.perf_counter() - began) / (step - start) * (steps - step)
                click.echo(f"{left:9.0f} s left\r", nl=False, err=True)
    except KeyboardInterrupt:
        held = f": {checkpoint} holds the first {shown:,} steps" if checkpoint else ""
        click.echo(f"\nstopped by Ctrl-C{held}")
    click.echo(f"{len(losses) - start:,} steps in {time.perf_counter() - began:.1f} s")


# ------------------------------------------------------------------------------------- command line

TEXT = click.Path(exists=True, dir_okay=False)
FILE = click.Path(dir_okay=False, resolve_path=True)
COUNT, SIZE = click.IntRange(0), click.IntRange(1, 10_000)
POSITIVE = click.FloatRange(0, 10**6, min_open=True)


@click.command(context_settings={"show_default": True})
@click.option("--data", type=TEXT, help="Text file, one word per line.  [default: names.txt]")
@click.option("--steps", type=COUNT, default=200_000, help="Training steps.")
@click.option("--batch-size", type=click.IntRange(2, 10_000), default=32, help="Examples per step.")
@click.option("--lr", type=POSITIVE, default=0.1, help="Learning rate at first; it falls to 0.")
@click.option("--weight-decay", type=click.FloatRange(0, 1), default=0.0, help="L2 penalty.")
@click.option("--context", type=SIZE, default=3, help="Context length.")
@click.option("--embedding", type=SIZE, default=10, help="Embedding size.")
@click.option("--hidden", type=SIZE, default=200, help="Units per hidden layer.")
@click.option("--layers", type=click.IntRange(1, 50), default=1, help="Hidden layers.")
@click.option("--residual", is_flag=True, help="Add a layer's input to its output (--layers > 1).")
@click.option("--activation", type=click.Choice(ACTIVATIONS), default="tanh", help="Nonlinearity.")
@click.option("--init", type=click.Choice(INITS), default="kaiming", help="Scale of the weights.")
@click.option("--no-batchnorm", is_flag=True, help="Use a plain bias instead of BatchNorm.")
@click.option("--seed", type=COUNT, default=42, help="Random seed.")
@click.option("--samples", type=COUNT, default=20, help="Number of words to generate.")
@click.option("--prefix", default="", show_default=False, help="Start of every generated word.")
@click.option("--temperature", type=POSITIVE, default=1.0, help="Sampling temperature.")
@click.option("--checkpoint", type=FILE, help="Save here at every row; the same command resumes.")
@click.option("--plot", type=FILE, help="Draw diagnostics: .png, .svg, .pdf (needs matplotlib).")
@np.errstate(all="ignore")  # overflow shows up in the loss
def main(
    data, steps, batch_size, lr, weight_decay, context, embedding, hidden, layers, residual,
    activation, init, no_batchnorm, seed, samples, prefix, temperature, checkpoint, plot,
):  # fmt: skip
    """Train a deep net with BatchNorm on a list of words, and make up new ones."""
    if plot:  # it is drawn at the end, so that what cannot be drawn is refused here
        if not plot.endswith((".png", ".svg", ".pdf")):
            raise click.BadParameter("not a .png, .svg or .pdf file", param_hint="--plot")
        os.stat(f"{os.path.dirname(plot)}/")  # the folder
        __import__("matplotlib.figure")
    words = load_words(data or NAMES)
    if unknown := set(prefix) - set("".join(words)):
        raise click.BadParameter(f"no word contains {min(unknown)!r}", param_hint="--prefix")
    rng = np.random.default_rng(seed)
    stoi, itos = build_vocab(words)
    # The split has a generator of its own: it stays the same, whatever else is drawn.
    splits = [build_dataset(part, stoi, context) for part in split_words(words, rng.spawn(1)[0])]
    X, Y = splits[0]
    kind = layers, not no_batchnorm, residual, activation, init
    net = new_net(rng, len(stoi), context, embedding, hidden, *kind)
    known = set(words)
    sizes = f"{len(X):,} training examples, {sum(a.size for a in net.parameters):,} parameters"
    click.echo(f"{len(words):,} words ({len(known):,} distinct), {sizes}")
    click.echo(f"{len(stoi)} characters: {repr(''.join(stoi))[1:-1]}"[:80])

    run = f"batchnorm.py {steps=} {batch_size=} {lr=} {weight_decay=} {context=} {embedding=}"
    run += f" {hidden=} {layers=} {residual=} {activation=} {init=} {no_batchnorm=} {seed=}"
    run += f" words={zlib.crc32('.'.join(words).encode()):08x}"  # their checksum
    parameters, probe, ratios = net.parameters, (X[:1024], Y[:1024]), {}
    losses = load(checkpoint, run, parameters) if checkpoint and os.path.exists(checkpoint) else []
    if losses:
        click.echo(f"{checkpoint}: {len(losses):,} of {steps:,} steps done")
    if len(losses) < steps:

        def rate(done):
            return lr * (1 - done)

        show_activations("before", net, *probe)
        click.echo()
        training = train(net, X, Y, steps, batch_size, rate, seed, len(losses), weight_decay)
        training = record_ratios(net, training, steps, ratios)
        fit(training, losses, steps, parameters, checkpoint, run)
    show_activations("after", net, *probe)
    if ratios:
        show_ratios(ratios)

    plain = folded(net, X)
    click.echo("\nsplit      loss  perplexity = exp(loss): as a uniform choice among this many")
    for name, (x, y) in zip(("train", "dev", "test"), splits):
        loss = evaluate(plain, x, y)
        click.echo(f"{name:5} {loss:9.4f} {np.exp(loss):#11.4g}")
    longest = min(76, 2 * max(map(len, words)))  # an untrained net might not end its words
    for _ in range(samples):
        word = sample(plain, rng, stoi, itos, context, prefix, temperature, longest)
        click.echo(f"{word or '(empty)':19} {'' if word in known else 'new'}".rstrip())
    if plot:
        draw_run(plot, losses, ratios, net, *probe)


if __name__ == "__main__":
    try:
        main()
    except (ImportError, MemoryError, OSError, UnicodeEncodeError) as error:
        sys.exit(f"Error: {error}".splitlines()[0])
