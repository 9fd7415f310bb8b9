#!/usr/bin/env -S uv run --script
"""Stage 4: start the net right, normalise it, make it deep, and look inside while it trains.

The net of stage 3 starts out far too confident, with most of its tanh units saturated, where they
pass hardly any gradient. Here each repair of the lecture "Building makemore, part 3" is an option
of its own: initialisation (He et al. 2015, "Delving Deep into Rectifiers"), Batch Normalisation
(Ioffe and Szegedy 2015), and depth with residual connections (He et al. 2015, "Deep Residual
Learning").
For a batch of B contexts X with the targets Y and an alphabet of V characters, the forward pass is

    h = C[X]                                    (B, context * embedding)
    for each layer:
        pre = h @ W                             (B, hidden)
        z   = gain * (pre - mean) / std + bias  (B, hidden), mean and std over the batch
        h   = tanh(z)                           [+ h, from the second layer on, if residual]
    logits = h @ W_out + b_out                  (B, V)
    loss   = mean(-log softmax(logits)[Y])      in nats

Without BatchNorm, z = pre + bias. The backward pass reverses it, where dx is the gradient of x:

    dlogits = (softmax(logits) - one_hot(Y)) / B
    dW_out  = h.T @ dlogits                     db_out = sum(dlogits)
    dh      = dlogits @ W_out.T
    for each layer, the last first:
        dz   = dh * (1 - tanh(z)^2)
        dpre = see batchnorm_backward           or dz without BatchNorm
        dW   = h.T @ dpre                       with the h that went into the layer
        dbias = sum(dz)                         dgain = sum(dz * (pre - mean) / std)
        dh   = dpre @ W.T                       [+ dh, down to the second layer, if residual]
    dC = one_hot(X).T @ dh

    python batchnorm.py --steps 50000                   train, with instruments before and after
    python batchnorm.py --compare --steps 50000         the repairs one after the other
    python batchnorm.py --layers 4 --residual --context 8 --hidden 100 --steps 50000
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import io
import json
import math
import os
import sys
import time
from functools import cache
from itertools import count, product
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # on matrices this small, threads only wait

import click
import numpy as np

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# ------------------------------------------------------------------------------------- parameters


class Params(NamedTuple):
    """The parameters of the net, or their gradients: views into one flat vector.

    W, gain and bias are tuples with an array for each layer. The last two fields are not
    parameters: they say how the layers are put together.
    """

    C: np.ndarray  # (V, embedding), a row for each character
    W: tuple  # the first (context * embedding, hidden), the others (hidden, hidden)
    gain: tuple  # of (hidden,); () without BatchNorm
    bias: tuple  # of (hidden,)
    W_out: np.ndarray  # (hidden, V)
    b_out: np.ndarray  # (V,)
    residual: bool
    activation: str  # "tanh" or "relu"

    @property
    def flat(self):
        """The vector that all arrays view: an update or a checkpoint needs only this."""
        return self.C.base


def arrays(params):
    """Every array by its name: C, W1, W2, ..., gain1, ..., bias1, ..., W_out, b_out -> dict."""
    named = {"C": params.C}
    for name in ("W", "gain", "bias"):
        named |= {f"{name}{i}": array for i, array in enumerate(getattr(params, name), 1)}
    return named | {"W_out": params.W_out, "b_out": params.b_out}


def views(flat, shapes, layers, residual, activation):
    """Lay out arrays of these shapes one after another on a flat vector -> Params."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = np.split(flat, ends[:-1])
    C, *inner, W_out, b_out = (part.reshape(shape) for part, shape in zip(parts, shapes))
    W, gain, bias = inner[:layers], inner[layers:-layers], inner[-layers:]
    return Params(C, tuple(W), tuple(gain), tuple(bias), W_out, b_out, residual, activation)


ACTIVATIONS = ("tanh", "relu")
INITS = ("naive", "small-logits", "scaled", "kaiming")


def init_params(
    rng, vocab, context, embedding, hidden, dtype=np.float32,
    layers=1, batchnorm=True, residual=False, init="kaiming", activation="tanh",
):  # fmt: skip
    """Every parameter drawn from N(0, 1), then scaled -> Params. `init` names how:

    naive         as drawn: the logits have a standard deviation of sqrt(hidden), so that the net is
                  confident and wrong: with 200 hidden units its loss starts at about 8 ln V
    small-logits  W_out * 0.01, b_out = 0: all logits are near 0, and the loss starts at ln V
    scaled        also W * 0.2 and bias * 0.01: sums of context * embedding = 30 products with a
                  standard deviation of 1 instead of 5.5, so that tanh is not saturated
    kaiming       W * g / sqrt(fan-in) instead, for any size: sums of fan-in products keep the
                  standard deviation of their inputs; g = 5/3 makes up for what tanh squashes,
                  sqrt(2) for the half that relu cuts off

    With BatchNorm, gain = 1 and bias = 0.
    """
    shapes = [(vocab, embedding), (context * embedding, hidden)]
    shapes += [(hidden, hidden)] * (layers - 1)
    shapes += [(hidden,)] * (2 * layers if batchnorm else layers)
    shapes += [(hidden, vocab), (vocab,)]
    flat = rng.standard_normal(sum(math.prod(shape) for shape in shapes)).astype(dtype)
    params = views(flat, shapes, layers, residual, activation)
    if init != "naive":
        params.W_out[:] *= 0.01
        params.b_out[:] = 0
    for W, bias in zip(params.W, params.bias):
        if init == "kaiming":
            W *= (5 / 3 if activation == "tanh" else math.sqrt(2)) / math.sqrt(len(W))
        elif init == "scaled":
            W *= 0.2
        if batchnorm:
            bias[:] = 0
        elif init in ("scaled", "kaiming"):
            bias *= 0.01
    for gain in params.gain:
        gain[:] = 1
    return params


def zeros_like(params):
    """Gradient arrays for params, zeroed -> Params."""
    shapes = [array.shape for array in arrays(params).values()]
    flat = np.zeros_like(params.flat)
    return views(flat, shapes, len(params.W), params.residual, params.activation)


# ------------------------------------------------------------------------------------- BatchNorm

EPSILON = 1e-5  # no division by zero for a unit without variance


def batchnorm_forward(pre, gain, bias):
    """pre (B, hidden) -> z, centred (B, hidden), inv_std, mean, variance (hidden,).

    Over the batch, each unit gets mean 0 and standard deviation 1, then a mean and a deviation of
    its own to learn. The variance is divided by n = B, as in the paper; only the running averages
    for inference divide by n - 1.
    """
    average = constant(1 / len(pre), len(pre), pre.dtype)  # (B,); average.dot(a) is a.mean(axis=0)
    mean = average.dot(pre)  # (hidden,)
    centred = pre - mean  # (B, hidden)
    variance = average.dot(centred * centred)  # (hidden,)
    inv_std = 1 / np.sqrt(variance + EPSILON)  # (hidden,)
    z = centred * (gain * inv_std) + bias  # (B, hidden)
    return z, centred, inv_std, mean, variance


def batchnorm_backward(dz, gain, centred, inv_std, dgain, dbias):
    """dz (B, hidden) -> dpre (B, hidden); fills dgain and dbias (hidden,).

    With x = centred * inv_std, z = gain * x + bias, so that dgain = sum(dz * x), dbias = sum(dz),
    and dx = gain * dz. pre enters x directly, through the mean, and through the standard
    deviation. The mean takes mean(dx) off every row, the standard deviation x * mean(dx * x):

        dpre = inv_std * (dx - mean(dx) - x * mean(dx * x))
             = inv_std * gain * (dz - dbias / n - x * dgain / n)

    with means over n = B. batchnorm_step_by_step derives the same line by line.
    """
    n, ones = len(dz), constant(1, len(dz), dz.dtype)  # (B,)
    ones.dot(dz, out=dbias)
    ones.dot(dz * centred, out=dgain)
    dgain *= inv_std
    return inv_std * gain * (dz - dbias / n - centred * (inv_std * dgain / n))  # (B, hidden)


def batchnorm_step_by_step(pre, gain, bias, dz):
    """Both passes the long way, a line for each operation, and one for its gradient in reverse.

    -> z, dpre (B, hidden), dgain, dbias (hidden,). --gradcheck compares the short way with it.
    """
    n = len(pre)
    mean = pre.sum(axis=0) / n  # (hidden,)
    centred = pre - mean  # (B, hidden)
    square = centred**2  # (B, hidden)
    variance = square.sum(axis=0) / n  # (hidden,)
    inv_std = (variance + EPSILON) ** -0.5  # (hidden,)
    x = centred * inv_std  # (B, hidden)
    z = gain * x + bias  # (B, hidden)

    dbias = dz.sum(axis=0)  # (hidden,)
    dgain = (dz * x).sum(axis=0)  # (hidden,)
    dx = gain * dz  # (B, hidden)
    dinv_std = (dx * centred).sum(axis=0)  # (hidden,)
    dcentred = dx * inv_std  # (B, hidden)
    dvariance = -0.5 * (variance + EPSILON) ** -1.5 * dinv_std  # (hidden,)
    dsquare = np.ones_like(square) / n * dvariance  # (B, hidden)
    dcentred += 2 * centred * dsquare
    dmean = -dcentred.sum(axis=0)  # (hidden,)
    dpre = dcentred + np.ones_like(pre) / n * dmean  # (B, hidden)
    return z, dpre, dgain, dbias


# -------------------------------------------------------------------- forward and backward passes


def forward(params, X, statistics=None):
    """Contexts X (B, context) -> h, memory, logits (B, V).

    h holds the output of the embedding and of each layer, memory what each layer keeps for
    backward. The mean and variance of each unit are written into `statistics` (layers, 2, hidden)
    if given.
    """
    emb = params.C.take(X, axis=0).reshape(len(X), -1)  # (B, context * embedding): C[X], but faster
    h, memory = [emb], []
    for i, (W, bias) in enumerate(zip(params.W, params.bias)):
        pre, kept = h[i] @ W, ()  # (B, hidden)
        if params.gain:
            z, *kept, mean, variance = batchnorm_forward(pre, params.gain[i], bias)
            if statistics is not None:
                statistics[i, 0], statistics[i, 1] = mean, variance
        else:
            z = pre + bias  # (B, hidden)
        active = np.tanh(z) if params.activation == "tanh" else np.maximum(z, 0)  # (B, hidden)
        memory.append((z, active, *kept))
        h.append(active + h[i] if params.residual and i else active)  # (B, hidden)
    logits = h[-1] @ params.W_out + params.b_out  # (B, V)
    return h, memory, logits


def backward(params, X, h, memory, dlogits, grads):
    """Backpropagate dlogits (B, V) to every parameter, writing the gradients into grads.

    -> the gradients of h, an array for each.
    """
    ones = constant(1, len(X), params.C.dtype)  # (B,); ones.dot(d) is d.sum(axis=0), but faster
    h[-1].T.dot(dlogits, out=grads.W_out)
    ones.dot(dlogits, out=grads.b_out)
    dh = [dlogits @ params.W_out.T]  # (B, hidden), the last layer first
    for i in reversed(range(len(params.W))):
        z, active, *kept = memory[i]
        slope = 1 - active * active if params.activation == "tanh" else z > 0  # (B, hidden)
        dz = dh[-1] * slope  # (B, hidden)
        if params.gain:
            dpre = batchnorm_backward(dz, params.gain[i], *kept, grads.gain[i], grads.bias[i])
        else:
            dpre = dz  # (B, hidden)
            ones.dot(dz, out=grads.bias[i])
        h[i].T.dot(dpre, out=grads.W[i])
        dinput = dpre @ params.W[i].T  # (B, hidden), for the first layer (B, context * embedding)
        dh.append(dinput + dh[-1] if params.residual and i else dinput)
    onehot = one_hot(X.ravel(), len(params.C), params.C.dtype)  # (B * context, V)
    onehot.T.dot(dh[-1].reshape(-1, params.C.shape[1]), out=grads.C)
    return dh[::-1]


def cross_entropy(logits, Y):
    """Mean of -log softmax(logits)[Y] in nats, and its gradient -> (loss, dlogits (B, V)).

    For one row z with target y, and p = softmax(z),

        loss = -log p_y = log(sum_j exp z_j) - z_y
        dloss/dz_i = exp z_i / sum_j exp z_j - [i = y] = p_i - [i = y]

    which the mean divides by B. Shifting a row by its maximum does not change its softmax, and
    exp cannot overflow. The shift overwrites logits.
    """
    B, V = logits.shape
    onehot = one_hot(Y, V, logits.dtype)  # (B, V)
    logits -= logits.max(axis=1, keepdims=True)
    counts = np.exp(logits)  # (B, V)
    total = counts.dot(constant(1, V, logits.dtype))  # (B,)
    loss = (np.log(total).sum() - np.vdot(logits, onehot)) / B
    probs = counts / total[:, None]  # (B, V)
    dlogits = (probs - onehot) / B  # (B, V)
    return float(loss), dlogits


def one_hot(tokens, vocab, dtype):
    """Tokens (N,) -> (N, vocab) with a single 1 in each row."""
    if vocab > 1024:  # an identity matrix too large to keep
        return (tokens[:, None] == np.arange(vocab)).astype(dtype)
    return identity(vocab, dtype).take(tokens, axis=0)


@cache
def identity(vocab, dtype):
    return np.eye(vocab, dtype=dtype)


@cache
def constant(value, n, dtype):
    return np.full(n, value, dtype)


def loss_and_gradients(params, X, Y, grads=None, statistics=None):
    """Contexts X (B, context), targets Y (B,) -> (mean loss in nats, gradients as Params).

    The gradients are written into `grads`, the mean and variance of each unit into `statistics`, if
    given. Raises ValueError for BatchNorm with a batch of one.
    """
    if params.gain and len(X) < 2:
        raise ValueError("BatchNorm needs a batch of at least 2: a single sample has no variance")
    grads = grads or zeros_like(params)
    h, memory, logits = forward(params, X, statistics)
    loss, dlogits = cross_entropy(logits, Y)
    backward(params, X, h, memory, dlogits, grads)
    return loss, grads


# ---------------------------------------------------------------- training, evaluating, sampling

# The learning rate as a share of --lr, from the share of the steps that are done. "step" is the
# lecture's; "linear" reached a lower dev loss in stage 3.
SCHEDULES = {
    "linear": lambda done: 1.0 - done,
    "step": lambda done: 1.0 if done < 0.5 else 0.1,
    "none": lambda done: 1.0,
}

MOMENTUM = 0.001  # weight of the newest batch in the running averages, as in the lecture


def minibatches(seed, examples, batch_size, start=0):
    """Yield the row numbers (B,) of the minibatch of each step from `start` on, endlessly.

    Every thousand steps have a generator of their own, seeded with [seed, thousand]: a step gets
    the same minibatch wherever training started.
    """
    for thousand in count(start // 1000):
        rng = np.random.default_rng([seed, thousand])
        batches = rng.integers(examples, size=(1000, batch_size))  # (1000, B)
        yield from batches[max(0, start - 1000 * thousand) :]


def train(params, running, grads, X, Y, steps, batch_size, rate, seed, weight_decay=0.0, start=0):
    """Minibatch gradient descent, in place: yield (steps done, loss before the step).

    `rate` maps the share of the steps that are done to a learning rate. `running` (layers, 2,
    hidden) follows the means and variances of the batches, and `grads` holds the last update. For
    gradient descent, weight decay is the same as a penalty of weight_decay / 2 * sum(theta^2).
    """
    theta, update, statistics = params.flat, grads.flat, np.zeros_like(running)
    unbiased = batch_size / max(1, batch_size - 1)  # the variance over n - 1, not n
    newest = np.array([[MOMENTUM], [MOMENTUM * unbiased]], running.dtype)  # (2, 1)
    batches = minibatches(seed, len(X), batch_size, start)
    for step, batch in zip(range(start, steps), batches):
        x, y = X.take(batch, axis=0), Y.take(batch)  # (B, context), (B,)
        loss, _ = loss_and_gradients(params, x, y, grads, statistics)
        lr = rate(step / steps)
        update *= lr
        if weight_decay:
            theta *= 1 - lr * weight_decay
        theta -= update
        if params.gain:
            running *= 1 - MOMENTUM
            running += newest * statistics
        yield step + 1, loss


def initial_statistics(params):
    """Mean 0 and variance 1 for each unit -> (layers, 2, hidden), empty without BatchNorm."""
    statistics = np.zeros((len(params.gain), 2, len(params.W_out)), params.C.dtype)
    statistics[:, 1] = 1
    return statistics


def calibrated(params, X):
    """The mean and variance of each unit over up to 8,192 examples -> (layers, 2, hidden)."""
    statistics = initial_statistics(params)
    forward(params, X[:8192], statistics)
    return statistics


def folded(params, statistics):
    """The net with fixed statistics, as a net without BatchNorm -> Params without a flat vector.

    gain * (h @ W - mean) / std + bias is linear in h: a plain layer with the weights
    W * gain / std and the bias bias - mean * gain / std. Such a net takes a batch of one.
    """
    if not params.gain:
        return params
    mean, variance = statistics[:, 0], statistics[:, 1]  # (layers, hidden), (layers, hidden)
    scale = params.gain / np.sqrt(variance + EPSILON)  # (layers, hidden)
    W = tuple(W * each for W, each in zip(params.W, scale))
    bias = tuple(params.bias - mean * scale)
    return params._replace(W=W, gain=(), bias=bias)


def evaluate(params, X, Y, chunk=1024):
    """Mean loss in nats over all examples, a chunk at a time.

    For inference, pass a net without BatchNorm (see `folded`): otherwise each chunk is normalised
    by its own statistics.
    """
    total = 0.0
    for i in range(0, len(X), chunk):
        x, y = X[i : i + chunk], Y[i : i + chunk]  # (chunk, context), (chunk,)
        loss, _ = cross_entropy(forward(params, x)[-1], y)
        total += loss * len(y)
    return total / len(X)


def sample(params, rng, itos, number, prefix="", temperature=1.0, longest=100):
    """Make up words that start with `prefix` -> list[str], cut at `longest` characters.

    All unfinished words advance together, each by a character drawn from
    softmax(logits / temperature), by a net without BatchNorm (see `folded`). Raises KeyError for a
    prefix character without a token.
    """
    stoi = {character: token for token, character in itos.items()}
    context = len(params.W[0]) // params.C.shape[1]
    start = context + len(prefix)
    tokens = np.zeros((number, start + longest), int)  # every word starts with `context` dots
    tokens[:, context:start] = [stoi[character] for character in prefix]
    unfinished = np.arange(number)  # (U,), the rows that have not drawn a dot yet
    for end in range(start, context + longest):
        if not len(unfinished):
            break
        X = tokens[unfinished, end - context : end]  # (U, context)
        logits = forward(params, X)[-1].astype(float)  # (U, V)
        logits -= logits.max(axis=1, keepdims=True)
        cumulative = np.exp(logits / temperature).cumsum(axis=1)  # (U, V)
        drawn = rng.random((len(unfinished), 1)) * cumulative[:, -1:]  # (U, 1)
        token = (cumulative[:, :-1] <= drawn).sum(axis=1)  # (U,)
        tokens[unfinished, end] = token
        unfinished = unfinished[token != 0]
    return ["".join(itos[t] for t in word).split(".")[0] for word in tokens[:, context:].tolist()]


def check_gradients(rng, epsilon=1e-6, batch=6, **options):
    """Check the gradients against central differences in float64 -> {array: relative error}.

    dloss/dx is about (loss(x + epsilon) - loss(x - epsilon)) / (2 epsilon). The error is the
    largest difference in an array over its largest gradient (at least 1e-4). `options` are those of
    init_params.
    """
    vocab, context, embedding, hidden = 7, 3, 4, 5
    smooth = False
    while not smooth:  # at the kink of relu there is no derivative: no z may come near it
        params = init_params(rng, vocab, context, embedding, hidden, np.float64, **options)
        theta = params.flat
        theta += 0.5 * rng.standard_normal(theta.size)  # no gain of exactly 1, no bias of exactly 0
        X, Y = rng.integers(vocab, size=(batch, context)), rng.integers(vocab, size=batch)
        _, memory, _ = forward(params, X)
        smooth = params.activation == "tanh" or min(np.abs(z).min() for z, *_ in memory) > 1e-3
    _, by_hand = loss_and_gradients(params, X, Y)
    numeric = zeros_like(params)
    for i, value in enumerate(theta):
        theta[i] = value + epsilon
        above = evaluate(params, X, Y)
        theta[i] = value - epsilon
        below = evaluate(params, X, Y)
        theta[i] = value
        numeric.flat[i] = (above - below) / (2 * epsilon)
    pairs = zip(arrays(by_hand).items(), arrays(numeric).values())
    return {name: np.abs(a - n).max() / max(np.abs(n).max(), 1e-4) for (name, a), n in pairs}


# ------------------------------------------------------------------------------------ instruments


def inspect(params, X, Y):
    """Run a batch forward and backward -> outputs, gradients, grads.

    The outputs of each layer, before a residual is added, and the gradients of the layer's output:
    lists of (B, hidden). The gradients of the parameters, as Params.
    """
    grads = zeros_like(params)
    h, memory, logits = forward(params, X)
    _, dlogits = cross_entropy(logits, Y)
    _, *gradients = backward(params, X, h, memory, dlogits, grads)
    return [active for _, active, *_ in memory], gradients, grads


def log_ratios(params, updates):
    """log10 of std(update) / std(data) of each weight matrix and of C -> {name: float}."""

    def log_std(array):
        return math.log10(max(array.std(), 1e-30))

    pairs = zip(arrays(params).items(), arrays(updates).values())
    return {name: log_std(new) - log_std(data) for (name, data), new in pairs if data.ndim == 2}


def saturated(active, activation):
    """Where a unit passes hardly any gradient -> (B, hidden) of bool: |tanh| > 0.97, or relu 0."""
    return np.abs(active) > 0.97 if activation == "tanh" else active == 0


def histogram(numbers, low, high, bins=24):
    """The distribution of numbers between low and high as a line of block characters."""
    counts, _ = np.histogram(numbers, bins, (low, high))
    levels = np.ceil(8 * counts / max(1, counts.max())).astype(int)
    return "".join(" ▁▂▃▄▅▆▇█"[level] for level in levels)


def show_reading(title, params, X, Y, lr):
    """Print two tables for a batch: the outputs and the gradients of every layer."""
    outputs, gradients, grads = inspect(params, X, Y)
    ratios = log_ratios(params, grads)
    low, high = (-1, 1) if params.activation == "tanh" else (0, 3)
    click.echo(f"\n{title}: outputs")
    click.echo(f"layer    mean     std  saturated  dead units  from {low} to {high}")
    for i, active in enumerate(outputs, 1):
        stuck = saturated(active, params.activation)  # (B, hidden)
        row = f"{i:5}{active.mean():8.3f}{active.std():8.3f}{stuck.mean():11.1%}"
        click.echo(f"{row}{stuck.all(axis=0).sum():12}  {histogram(active, low, high)}")
    click.echo(f"{title}: gradients, and log10(update/data) of W for {len(X):,} examples at --lr")
    click.echo("layer      std  update/data  from -3 std to 3 std")
    for i, grad in enumerate(gradients, 1):
        std, ratio = grad.std(dtype=float), ratios[f"W{i}"] + math.log10(lr)
        edge = 3 * std if 0 < std < math.inf else 1.0
        click.echo(f"{i:5}{std:9.1e}{ratio:13.2f}  {histogram(grad, -edge, edge)}")
    click.echo()


# --------------------------------------------------------------------------------------- pictures


def check_plot(path):
    """Fail before training, not after it, if the picture cannot be drawn or written."""
    try:
        from matplotlib.figure import Figure

        figure = Figure()
        figure.text(0, 0, "x")
        figure.savefig(io.BytesIO(), format=Path(path).suffix[1:] or "none")
    except (ImportError, ValueError, RuntimeError) as error:  # no matplotlib, no such format
        raise click.BadParameter(str(error), param_hint="--plot") from None
    open(path, "ab").close()


def draw_run(path, losses, start, ratios, params, X, Y):
    """Loss, distributions of outputs, gradients and weight gradients, update ratios, saturation."""
    from matplotlib.figure import Figure

    outs, grads, dparams = inspect(params, X, Y)
    figure = Figure(figsize=(15, 12), layout="constrained")
    (loss, outputs), (gradients, weights), (updates, stuck) = figure.subplots(3, 2)
    if losses:
        width = math.ceil(len(losses) / 100)
        curve = np.convolve(losses, np.full(width, 1 / width), mode="valid")  # (steps - width + 1,)
        loss.plot(start + width + np.arange(len(curve)), curve, linewidth=1)
        loss.set(title=f"Training loss, mean of {width:,} steps")
    loss.set(xlabel="step", ylabel="loss in nats")

    def distributions(axes, named, title):
        for name, numbers in named.items():
            finite = numbers[np.isfinite(numbers)].astype(float)
            density, edges = np.histogram(finite, 80, density=True)
            label = f"{name}, std {numbers.std():.1e}"
            axes.plot((edges[1:] + edges[:-1]) / 2, density, label=label)
        axes.set(title=title, yticks=[])
        if len(named) <= 12:
            axes.legend(fontsize=8)

    layers = [f"layer {i}" for i in range(1, len(outs) + 1)]
    matrices = {name: grad for name, grad in arrays(dparams).items() if name[0] == "W"}
    distributions(outputs, dict(zip(layers, outs)), f"Outputs ({params.activation})")
    distributions(gradients, dict(zip(layers, grads)), "Gradients of the outputs")
    distributions(weights, matrices, "Gradients of the weights")
    for name in ["C", *matrices] if ratios else []:
        updates.plot(ratios.keys(), [row[name] for row in ratios.values()], label=name, linewidth=1)
    updates.axhline(-3, color="black", linestyle=":", label="healthy")
    if len(matrices) <= 12:
        updates.legend(fontsize=8)
    updates.set(xlabel="step", ylim=(-6, 0.5), title="log10 of update / data")
    picture = np.concatenate([saturated(each[:40], params.activation) for each in outs])
    stuck.imshow(picture, cmap="gray", aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    stuck.set(xlabel="unit", ylabel="40 examples per layer", title="White: saturated")
    figure.savefig(path)


# ------------------------------------------------------------------------------------ checkpoints


def save(path, params, running, step, facts):
    """Write a checkpoint beside `path`, then rename it: the file at `path` is always whole."""
    path = Path(path).resolve()
    beside = path.with_name(f".{path.name}.tmp")
    with open(beside, "wb") as file:
        np.savez(file, theta=params.flat, running=running, step=step, facts=json.dumps(facts))
    os.replace(beside, path)


def restore(path, params, running, facts):
    """Fill params and running from a checkpoint -> the number of steps done.

    Raises click.ClickException if the file is not a checkpoint, or was made with other settings.
    """
    with open(path, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            saved, step = json.loads(archive["facts"].item()), int(archive["step"])
            assert step >= 0
            different = [name for name in facts if saved.get(name) != facts[name]]
            if not different:
                np.copyto(params.flat, archive["theta"], casting="no")
                np.copyto(running, archive["running"], casting="no")
        except Exception:  # zipfile, zlib, NumPy and json each raise their own
            raise click.ClickException(f"{path} is damaged or not a checkpoint") from None
    if different:
        name = different[0]
        difference = f"{name} is {saved.get(name)!r} in it and {facts[name]!r} here"
        raise click.ClickException(f"{path} is a checkpoint of another run: {difference}")
    return step


# ----------------------------------------------------------------------------------- command line

SAVE_EVERY = 5.0  # seconds


def fit(params, running, grads, training, start, steps, checkpoint, facts):
    """Train with a progress bar, ten lines of losses and checkpoints.

    -> the loss of each step, and {step: log_ratios} for about a thousand steps. Ctrl-C ends the
    training early. Raises click.ClickException if the loss diverges.
    """
    losses, shown, every, vocab = [], 0, math.ceil(steps / 10), len(params.C)
    ratios, often = {}, math.ceil(steps / 1000)
    live = sys.stdout.isatty() and sys.stderr.isatty()
    bar = click.progressbar(
        training,
        length=steps - start,
        item_show_func=lambda item: item and f"loss {item[1]:.4f}",
        update_min_steps=100,
        file=sys.stderr,
        hidden=not live,
    )
    if checkpoint:
        save(checkpoint, params, running, start, facts)
    began = saved = time.perf_counter()
    click.echo("    step      loss, mean since the row above")
    try:
        with bar:
            for step, loss in bar:
                losses.append(loss)
                if not math.isfinite(loss):
                    break
                if step % often == 0:
                    ratios[step] = log_ratios(params, grads)
                if step == 1 or step % every == 0:
                    if live:
                        click.echo("\r\033[K", err=True, nl=False)  # clear the bar
                    guess = f"   uniform guess: ln {vocab} = {math.log(vocab):.4f}"
                    note = guess if step == 1 else ""
                    click.echo(f"{step:8,} {np.mean(losses[shown:]):9.4f}{note}")
                    shown = len(losses)
                due = time.perf_counter() - saved > SAVE_EVERY
                if checkpoint and due and np.isfinite(params.flat).all():
                    save(checkpoint, params, running, step, facts)
                    saved = time.perf_counter()
    except KeyboardInterrupt:
        checkpoint = None  # an update may be applied but not counted: keep the last checkpoint
    seconds, done = time.perf_counter() - began, len(losses)
    if not (np.isfinite(losses[-1:]).all() and np.isfinite(params.flat).all()):
        raise click.ClickException(f"the loss diverged at step {start + done:,}: try a lower --lr")
    if checkpoint:
        save(checkpoint, params, running, steps, facts)
    click.echo(f"{done:,} steps in {seconds:.1f} s ({seconds / max(1, done) * 1e6:.0f} µs/step)")
    return losses, ratios


def show_losses(params, splits):
    click.echo("split      loss  perplexity")
    for name, (X, Y) in zip(("train", "dev", "test"), splits):
        loss = evaluate(params, X, Y)
        click.echo(f"{name:5} {loss:9.4f} {np.exp(loss):#11.4g}")


def show_samples(words, samples):
    known = set(words)
    for word in samples:
        click.echo(word if word in known else f"{word:19} new")


def show_gradient_check(rng):
    pre, dz = rng.standard_normal((2, 32, 5))  # (32, 5), (32, 5)
    gain, bias = rng.standard_normal((2, 5))  # (5,), (5,)
    dgain, dbias = np.empty((2, 5))  # (5,), (5,)
    z, centred, inv_std, _, _ = batchnorm_forward(pre, gain, bias)
    short = z, batchnorm_backward(dz, gain, centred, inv_std, dgain, dbias), dgain, dbias
    long = batchnorm_step_by_step(pre, gain, bias, dz)
    errors = [np.max([np.abs(a - b).max() / np.abs(b).max() for a, b in zip(short, long)])]
    click.echo(f"BatchNorm, the short way against the long way: {errors[0]:.1e}\n")
    click.echo("layers  batchnorm  residual  activation  largest relative error of any array")
    kinds = product((1, 3), (True, False), (True, False), ("tanh", "relu"))
    for layers, batchnorm, residual, activation in kinds:
        net = {"layers": layers, "batchnorm": batchnorm, "residual": residual}
        error = np.max([*check_gradients(rng, **net, activation=activation).values()])
        errors.append(error)
        click.echo(f"{layers:6}  {batchnorm!s:>9}  {residual!s:>8}  {activation:>10}  {error:8.1e}")
    if not np.max(errors) < 1e-6:  # not: nan is no agreement
        raise click.ClickException("the gradients and the central differences disagree")


# The five rows of the lecture's loss log: name, init, BatchNorm.
REPAIRS = [
    ("original", "naive", False),
    ("softmax fixed", "small-logits", False),
    ("tanh fixed", "scaled", False),
    ("kaiming", "kaiming", False),
    ("BatchNorm", "kaiming", True),
]
NOT_COMPARED = {"init", "no_batchnorm", "samples", "prefix", "temperature", "checkpoint", "plot"}


def show_comparison(net, splits, steps, batch_size, rate, seed, weight_decay, bn_stats):
    """Train each repair on the same data and minibatches, and show its losses."""
    (X, Y), dev, _ = splits
    live = sys.stdout.isatty() and sys.stderr.isatty()
    click.echo(f"{'net':13}first loss     train       dev")
    for name, init, batchnorm in REPAIRS:
        params = init_params(
            np.random.default_rng(seed), **net | {"init": init, "batchnorm": batchnorm}
        )
        running, grads = initial_statistics(params), zeros_like(params)
        training = train(params, running, grads, X, Y, steps, batch_size, rate, seed, weight_decay)
        with click.progressbar(training, steps, name, file=sys.stderr, hidden=not live) as bar:
            losses = [loss for _, loss in bar]
        if not (np.isfinite(losses).all() and np.isfinite(params.flat).all()):
            raise click.ClickException(f"{name}: the loss diverged: try a lower --lr")
        plain = folded(params, running if bn_stats == "running" else calibrated(params, X))
        row = losses[0], evaluate(plain, X, Y), evaluate(plain, *dev)
        if live:
            click.echo("\033[A\033[K", err=True, nl=False)  # clear the bar
        click.echo(f"{name:13}" + "".join(f" {loss:9.4f}" for loss in row))


def positive(text):
    """Read a positive real number from the command line."""
    if not 1e-6 <= float(text) <= 1e6:
        raise click.BadParameter(f"{text} is not between 1e-6 and 1e6.")
    return float(text)


def not_negative(text):
    """Read 0 or a positive real number from the command line."""
    return float(text) and positive(text)


FILE, WORDS = click.Path(dir_okay=False), click.Path(exists=True, dir_okay=False)
STATS = click.Choice(["calibrated", "running"])
DECAY = "linear: to 0. step: to a tenth after half of the steps."
BN_STATS = "For inference: statistics of 8,192 examples, or running averages."
PLOT = "Picture of the instruments to draw (needs matplotlib)."
CHECKPOINT = "Resume from this file if it exists; save to it every 5 seconds."
COMPARE = "Train the five nets of the lecture's log and exit."


@click.command(context_settings={"show_default": True})
@click.option("--data", type=WORDS, default=NAMES, show_default="names.txt", help="Word list.")
@click.option("--steps", type=click.IntRange(0, 10**7), default=200_000, help="Training steps.")
@click.option("--batch-size", type=click.IntRange(1, 10_000), default=32, help="Examples per step.")
@click.option("--lr", type=positive, default=0.1, help="Learning rate.")
@click.option("--lr-decay", type=click.Choice([*SCHEDULES]), default="linear", help=DECAY)
@click.option("--weight-decay", type=not_negative, default=0.0, help="Decay of all parameters.")
@click.option("--context", type=click.IntRange(1, 100), default=3, help="Characters of input.")
@click.option("--embedding", type=click.IntRange(1, 100), default=10, help="Numbers per character.")
@click.option("--hidden", type=click.IntRange(1, 1000), default=200, help="Units per hidden layer.")
@click.option("--layers", type=click.IntRange(1, 50), default=1, help="Hidden layers.")
@click.option("--residual", is_flag=True, help="Add the input of a layer to its output.")
@click.option("--activation", type=click.Choice(ACTIVATIONS), default="tanh", help="Nonlinearity.")
@click.option("--init", type=click.Choice(INITS), default="kaiming", help="Scale of the weights.")
@click.option("--no-batchnorm", is_flag=True, help="Use a plain bias instead of BatchNorm.")
@click.option("--bn-stats", type=STATS, default="calibrated", help=BN_STATS)
@click.option("--seed", type=click.IntRange(0), default=42, help="Random seed.")
@click.option("--samples", type=click.IntRange(0, 10_000), default=20, help="Words to make up.")
@click.option("--prefix", default="", show_default=False, help="Prefix of every sample.")
@click.option("--temperature", type=positive, default=1.0, help="Sampling temperature.")
@click.option("--checkpoint", type=FILE, help=CHECKPOINT)
@click.option("--plot", type=FILE, help=PLOT)
@click.option("--compare", is_flag=True, help=COMPARE)
@click.option("--gradcheck", is_flag=True, help="Check the gradients and exit.")
@click.pass_context
@np.errstate(all="ignore")  # what overflows shows in the loss
def main(
    ctx, data, steps, batch_size, lr, lr_decay, weight_decay, context, embedding, hidden, layers,
    residual, activation, init, no_batchnorm, bn_stats, seed, samples, prefix, temperature,
    checkpoint, plot, compare, gradcheck,
):  # fmt: skip
    """Train a deep net with BatchNorm on a list of words, and make up new ones."""
    rng = np.random.default_rng(seed)
    split_rng = rng.spawn(1)[0]  # the split stays the same, whatever else is drawn
    if gradcheck:
        return show_gradient_check(rng)
    given = {name for name in ctx.params if ctx.get_parameter_source(name).name == "COMMANDLINE"}
    if refused := compare and given & NOT_COMPARED:
        raise click.UsageError(f"--compare does not take --{min(refused).replace('_', '-')}")
    if compare and steps == 0:
        raise click.BadParameter("--compare needs at least 1", param_hint="--steps")
    if batch_size == 1 and not no_batchnorm:
        message = "BatchNorm needs at least 2: a single sample has no variance"
        raise click.BadParameter(message, param_hint="--batch-size")
    if plot:
        check_plot(plot)
    words = load_words(data)
    stoi, itos = build_vocab(words)
    if unknown := set(prefix) - set("".join(words)):
        raise click.BadParameter(f"no word contains {min(unknown)!r}", param_hint="--prefix")
    splits = [build_dataset(part, stoi, context) for part in split_words(words, split_rng)]
    X, Y = splits[0]
    net = {"context": context, "embedding": embedding, "hidden": hidden, "layers": layers}
    net |= {"residual": residual, "activation": activation, "init": init}
    net |= {"batchnorm": not no_batchnorm}
    facts = {"script": "batchnorm.py", "words": len(words), "alphabet": "".join(stoi)}
    facts |= {"seed": seed, **net}
    net |= {"vocab": len(stoi)}

    def rate(done):
        return lr * SCHEDULES[lr_decay](done)

    if compare:
        return show_comparison(net, splits, steps, batch_size, rate, seed, weight_decay, bn_stats)
    params = init_params(rng, **net)
    running, grads = initial_statistics(params), zeros_like(params)
    click.echo(
        f"{len(words):,} words, {len(stoi)} characters, {len(X):,} training examples, "
        f"{params.flat.size:,} parameters"
    )
    start, losses, ratios = 0, [], {}
    if checkpoint and os.path.exists(checkpoint):
        start = restore(checkpoint, params, running, facts)
        click.echo(f"{checkpoint}: {start:,} steps done")
    some = X[:1024], Y[:1024]
    if start < steps:
        show_reading("before", params, *some, lr)
        training = train(
            params, running, grads, X, Y, steps, batch_size, rate, seed, weight_decay, start
        )
        losses, ratios = fit(params, running, grads, training, start, steps, checkpoint, facts)
    show_reading("after", params, *some, lr)
    plain = folded(params, running if bn_stats == "running" else calibrated(params, X))
    show_losses(plain, splits)
    show_samples(words, sample(plain, rng, itos, samples, prefix, temperature))
    if plot:
        draw_run(plot, losses, start, ratios, params, *some)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a character that the terminal lacks becomes a ?
    try:
        main()
    except OSError as error:
        sys.exit(f"Error: {error}")
