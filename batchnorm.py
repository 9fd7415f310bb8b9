"""Stage 4: start the net right, normalise it, make it deep, and look inside while it trains.

Stage 3 starts out far too confident and with most of its tanh units saturated, where they pass no
gradient. Here each of the repairs of the lecture "Building makemore, part 3" can be switched on by
itself: sane initialisation, Batch Normalisation (Ioffe and Szegedy 2015), depth with residual
connections (He et al. 2015). For a batch of B contexts and an alphabet of V characters,

    h = C[X]                                    (B, context * embedding)
    for each layer:
        pre = h @ W                             (B, hidden)
        z   = gain * (pre - mean) / std + bias  (B, hidden), mean and std over the batch, per unit
        h   = tanh(z)         [+ h, from the second layer on, if residual]
    logits = h @ W_out + b_out                  (B, V)
    loss   = mean of -log softmax(logits)[Y]    in nats

Without BatchNorm, z = pre + bias. `forward` and `backward` mirror each other line by line;
the gradient through BatchNorm is derived twice, the long way and the short way.

    python batchnorm.py --steps 50000                   train, with instruments before and after
    python batchnorm.py --compare --steps 50000         the repairs one after the other
    python batchnorm.py --layers 4 --residual --context 8 --hidden 100 --steps 50000
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=1.25", "click>=8.2"]
# ///

import json
import math
import os
import shutil
import signal
import sys
import time
import zlib
from array import array
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# ------------------------------------------------------------------------------------- parameters


class Arrays(NamedTuple):
    """The arrays of the net; W, gain and bias are tuples with an array for each layer."""

    C: np.ndarray  # (V, embedding), a row for each character
    W: tuple  # the first (context * embedding, hidden), the others (hidden, hidden)
    gain: tuple  # of (hidden,); () without BatchNorm
    bias: tuple  # of (hidden,)
    W_out: np.ndarray  # (hidden, V)
    b_out: np.ndarray  # (V,)


class Params(Arrays):
    """Arrays that are windows on one flat vector, and how their layers are put together."""

    residual = False
    activation = "tanh"

    @property
    def flat(self):
        """The vector behind the windows: an update is one line on it, a gradient check one loop."""
        return self.C.base


def shapes(vocab, context, embedding, hidden, layers=1, batchnorm=True):
    """The shape of every array -> Arrays of tuples."""
    W = ((context * embedding, hidden), *[(hidden, hidden)] * (layers - 1))
    units = ((hidden,),) * layers
    return Arrays((vocab, embedding), W, units * batchnorm, units, (hidden, vocab), (vocab,))


def leaves(arrays):
    """(name, array) of every array, those of a tuple numbered: C, W1, W2, ..., b_out."""
    for name, entry in zip(Arrays._fields, arrays):
        if name in ("W", "gain", "bias"):
            yield from ((f"{name}{i}", each) for i, each in enumerate(entry, 1))
        else:
            yield name, entry


def windows(flat, shapes, residual=False, activation="tanh"):
    """Lay out arrays of these shapes on a flat vector, one after the other -> Params.

    W_out lies there column by column: its three matrix products are then a quarter faster.
    """
    sizes = [math.prod(shape) for _, shape in leaves(shapes)]
    pieces = iter(np.split(flat, np.cumsum(sizes)[:-1]))

    def window(shape, order="C"):
        return next(pieces).reshape(shape, order=order)

    C = window(shapes.C)
    W, gain, bias = (tuple(map(window, entry)) for entry in (shapes.W, shapes.gain, shapes.bias))
    params = Params(C, W, gain, bias, window(shapes.W_out, "F"), window(shapes.b_out))
    params.residual, params.activation = residual, activation
    return params


INITS = ("naive", "small-logits", "scaled", "kaiming")


def init_params(
    rng, vocab, context, embedding, hidden, dtype=np.float32,
    layers=1, batchnorm=True, residual=False, init="kaiming", activation="tanh",
):  # fmt: skip
    """Everything drawn from N(0, 1), then scaled -> Params. `init` names how:

    naive         as drawn: the logits have a standard deviation of sqrt(hidden), so the net is sure
                  of its guesses before it has seen anything, and loses ten times ln V
    small-logits  W_out * 0.01, b_out = 0: all logits near 0, the loss starts at ln V
    scaled        also W * 0.2 and bias * 0.01: sums of context * embedding = 30 products with
                  a standard deviation of 1, not 5.5, so that tanh is not saturated
    kaiming       W * g / sqrt(fan-in) instead, for any size: sums of fan-in products keep the
                  standard deviation of their inputs; g = 5/3 makes up for what tanh squashes,
                  sqrt(2) for the half that relu cuts off (He et al. 2015)

    With BatchNorm, gain = 1 and bias = 0.
    """
    layout = shapes(vocab, context, embedding, hidden, layers, batchnorm)
    flat = rng.standard_normal(sum(math.prod(shape) for _, shape in leaves(layout))).astype(dtype)
    params = windows(flat, layout, residual, activation)
    if init != "naive":
        params.W_out[:] *= 0.01
        params.b_out[:] = 0
    for W, bias in zip(params.W, params.bias):
        if init == "kaiming":
            W *= (5 / 3 if activation == "tanh" else math.sqrt(2)) / math.sqrt(len(W))
        elif init == "scaled":
            W *= 0.2
        if init in ("scaled", "kaiming"):
            bias *= 0.01
        if batchnorm:
            bias[:] = 0
    for gain in params.gain:
        gain[:] = 1
    return params


def zeros_like(params):
    """Room for the gradients of params -> Params."""
    layout = Arrays(*(tuple(map(np.shape, x)) if type(x) is tuple else x.shape for x in params))
    flat = np.zeros(sum(math.prod(shape) for _, shape in leaves(layout)), params.C.dtype)
    return windows(flat, layout, params.residual, params.activation)


# ------------------------------------------------------------------------------------- BatchNorm

EPSILON = 1e-5  # keeps a unit without variance from a division by zero


def batchnorm_forward(pre, gain, bias):
    """pre (B, hidden) -> z, centred (B, hidden), inv_std, mean, variance (hidden,).

    Over the batch each unit gets mean 0 and standard deviation 1, then a mean and deviation of
    its own to learn. The variance is the mean square, over n = B, as in the paper; only the running
    averages for inference take n - 1. Works in the memory of pre.
    """
    average = constant(len(pre), 1 / len(pre), pre.dtype)  # (B,); average.dot(a) is a.mean(axis=0)
    mean = average.dot(pre)  # (hidden,)
    centred = np.subtract(pre, mean, out=pre)  # (B, hidden)
    variance = average.dot(centred * centred)  # (hidden,)
    inv_std = 1 / np.sqrt(variance + EPSILON)  # (hidden,)
    z = centred * (gain * inv_std)  # (B, hidden)
    z += bias
    return z, centred, inv_std, mean, variance


def batchnorm_backward(dz, gain, centred, inv_std, dgain, dbias):
    """dz (B, hidden) -> dpre (B, hidden); fills dgain and dbias (hidden,).

    With x = centred * inv_std, z = gain * x + bias, so that dgain = sum(dz * x), dbias = sum(dz),
    and dx = gain * dz. pre enters x three times: by itself, through the mean, and through the
    standard deviation, by which x changes along x itself. Taken together, with means over n = B,

        dpre = inv_std * (dx - mean(dx) - x * mean(dx * x))
             = inv_std * gain * (dz - dbias / n - x * dgain / n)

    that is, dx without its part along 1 and its part along x. In the memory of dz and centred.
    """
    n, ones = len(dz), constant(len(dz), 1, dz.dtype)
    ones.dot(dz, out=dbias)
    ones.dot(dz * centred, out=dgain)
    dgain *= inv_std
    dz -= dbias / n
    centred *= dgain * inv_std / n
    dz -= centred
    dz *= gain * inv_std
    return dz


def batchnorm_step_by_step(pre, gain, bias, dz):
    """The same the long way, a line for each operation and one for its gradient, in reverse.

    -> z, dpre, dgain, dbias. It is what the short form is tested against.
    """
    n = len(pre)
    mean = pre.sum(axis=0) / n  # (hidden,)
    centred = pre - mean  # (B, hidden)
    square = centred**2  # (B, hidden)
    variance = square.sum(axis=0) / n  # (hidden,)
    inv_std = (variance + EPSILON) ** -0.5  # (hidden,)
    x = centred * inv_std  # (B, hidden)
    z = gain * x + bias  # (B, hidden)

    dbias = dz.sum(axis=0)
    dgain = (dz * x).sum(axis=0)
    dx = gain * dz
    dinv_std = (dx * centred).sum(axis=0)
    dcentred = dx * inv_std
    dvariance = -0.5 * (variance + EPSILON) ** -1.5 * dinv_std
    dsquare = np.ones_like(square) / n * dvariance
    dcentred += 2 * centred * dsquare
    dmean = -dcentred.sum(axis=0)
    dpre = dcentred + np.ones_like(pre) / n * dmean
    return z, dpre, dgain, dbias


# -------------------------------------------------------------------- forward and backward passes


def forward(params, X, statistics=None):
    """Contexts X (B, context) -> logits (B, V), and for backward: h, the outputs of the embedding
    and of each layer, and what each layer remembers.

    statistics (layers, 2, hidden), where given, receives the mean and variance of each unit.
    """
    h, memory = [params.C.take(X, axis=0).reshape(len(X), -1)], []
    for i, W in enumerate(params.W):
        z = h[-1].dot(W)  # (B, hidden)
        remembered = ()
        if params.gain:
            z, *remembered, mean, variance = batchnorm_forward(z, params.gain[i], params.bias[i])
            if statistics is not None:
                statistics[i, 0], statistics[i, 1] = mean, variance
        else:
            z += params.bias[i]
        active = np.tanh(z, out=z) if params.activation == "tanh" else np.maximum(z, 0, out=z)
        memory.append((active, *remembered))
        h.append(active + h[-1] if params.residual and i else active)
    logits = h[-1].dot(params.W_out)  # (B, V)
    logits += params.b_out
    return logits, h, memory


def backward(params, X, h, memory, dlogits, grads, seen=None):
    """From dlogits (B, V) back to every parameter, into grads; `dh` is the gradient of an h.

    seen, a list, receives the gradient of every layer's output, the last first.
    """
    ones = constant(len(X), 1, params.C.dtype)  # (B,); ones.dot(d) is d.sum(axis=0), but faster
    ones.dot(dlogits, out=grads.b_out)
    dlogits.T.dot(h[-1], out=grads.W_out.T)  # dW_out = h.T @ dlogits, transposed as it lies there
    dh, tanh = dlogits.dot(params.W_out.T), params.activation == "tanh"  # (B, hidden)
    for i in reversed(range(len(params.W))):
        if seen is not None:
            seen.append(dh.copy())
        active, *remembered = memory[i]
        slope = 1 - active * active if tanh else active > 0  # (B, hidden)
        dz = dh * slope  # (B, hidden)
        if params.gain:
            dz = batchnorm_backward(dz, params.gain[i], *remembered, grads.gain[i], grads.bias[i])
        else:
            ones.dot(dz, out=grads.bias[i])
        h[i].T.dot(dz, out=grads.W[i])
        dinput = dz.dot(params.W[i].T)  # (B, hidden), for the first layer (B, context * embedding)
        if params.residual and i:
            dinput += dh
        dh = dinput
    # Looking up is one_hot(X) @ C: a row of C collects from every place it went to.
    demb = dh.reshape(-1, params.C.shape[1])  # (B * context, embedding)
    one_hot(X.ravel(), len(params.C), params.C.dtype).T.dot(demb, out=grads.C)


def cross_entropy(logits, Y):
    """Mean of -log softmax(logits)[Y] in nats, and its gradient -> (loss, dlogits (B, V)).

    Shifting a row does not change its softmax; with 0 as its largest entry, exp cannot overflow.
    For one row z with target y, and p = softmax(z),

        loss = log(sum_j exp z_j) - z_y
        dloss/dz_i = exp z_i / sum_j exp z_j - [i = y] = p_i - [i = y]

    which the mean divides by B. Both passes work in the memory of logits.
    """
    targets = one_hot(Y, logits.shape[1], logits.dtype)  # (B, V)
    logits -= logits.max(axis=1, keepdims=True)
    correct = np.vdot(logits, targets)  # the sum of all z_y
    probs = np.exp(logits, out=logits)  # (B, V), still to be divided by
    total = probs.sum(axis=1, keepdims=True)  # (B, 1)
    loss = (np.log(total).sum() - correct) / len(Y)
    probs /= total
    dlogits = np.subtract(probs, targets, out=probs)  # (B, V)
    dlogits /= len(Y)
    return float(loss), dlogits


def one_hot(tokens, vocab, dtype):
    """Tokens (N,) -> (N, vocab) with a single 1 in each row."""
    if vocab > 1024:
        return (tokens[:, None] == np.arange(vocab)).astype(dtype)
    return identity(vocab, dtype).take(tokens, axis=0)


@cache
def constant(n, value, dtype):
    """(n,) of a value, made once for a batch size."""
    return np.full(n, value, dtype)


@cache
def identity(vocab, dtype):
    """All one-hot rows, made once for an alphabet that is not huge."""
    return np.eye(vocab, dtype=dtype)


def loss_and_gradients(params, X, Y, grads=None, statistics=None):
    """Contexts X (B, context), targets Y (B,) -> (mean loss in nats, gradients as Params).

    The gradients go into `grads`, the mean and variance of each unit into `statistics`, where
    these are given. Raises ValueError for BatchNorm with a batch of one: it has no variance.
    """
    if params.gain and len(X) < 2:
        raise ValueError("BatchNorm needs a batch of at least 2: a single sample has no variance")
    grads = grads or zeros_like(params)
    logits, h, memory = forward(params, X, statistics)
    loss, dlogits = cross_entropy(logits, Y)
    backward(params, X, h, memory, dlogits, grads)
    return loss, grads


# ---------------------------------------------------------------- training, evaluating, sampling

# From the share of the steps that are done to a share of --lr. "step" is the lecture's; "linear"
# ended lower on dev in stage 3 for every seed, step count and rate that was tried.
SCHEDULES = {
    "linear": lambda done: 1.0 - done,
    "step": lambda done: 1.0 if done < 0.5 else 0.1,
    "none": lambda done: 1.0,
}


def train(params, X, Y, rng, steps, batch_size, rate, running, start=0):
    """Minibatch gradient descent, in place: yields (step, loss in nats) after each update.

    `rate` maps the share of the steps that are done to a learning rate. `running`, of shape
    (layers, 2, hidden), follows the means and variances of the batches. To go on from `start`,
    pass the generator as it was before step 0: it passes over the batches that had their turn.
    """
    theta, grads = params.flat, zeros_like(params)
    gradient, statistics = grads.flat, np.zeros_like(running)
    unbiased = np.array([[1], [batch_size / max(1, batch_size - 1)]], running.dtype)  # n / (n - 1)
    drawn = max(1, 32_768 // batch_size)  # batches at once
    for first in range(0, steps, drawn):
        batches = rng.integers(len(X), size=(drawn, batch_size))  # rows of X
        for step in range(max(start, first), min(first + drawn, steps)):
            batch = batches[step - first]  # (B,)
            X_batch, Y_batch = X.take(batch, axis=0), Y.take(batch)
            loss, _ = loss_and_gradients(params, X_batch, Y_batch, grads, statistics)
            gradient *= rate(step / steps)
            theta -= gradient
            if params.gain:
                running += MOMENTUM * (unbiased * statistics - running)
            yield step + 1, loss


MOMENTUM = 0.001  # the share of the newest batch in the running averages, as in the lecture


def fresh_statistics(params):
    """Mean 0 and variance 1 for each unit -> (layers, 2, hidden)."""
    running = np.zeros((len(params.gain), 2, len(params.W_out)), np.float32)
    running[:, 1] = 1
    return running


def calibrated(params, X):
    """The mean and variance (over n) of each unit over all examples X -> (layers, 2, hidden).

    A layer after the other: what reaches the second depends on the statistics of the first.
    """
    contexts, count = np.unique(X, axis=0, return_counts=True)  # (D, context), (D,)
    share = (count / len(X)).astype(params.C.dtype)  # (D,)
    h = params.C.take(contexts, axis=0).reshape(len(contexts), -1)  # (D, context * embedding)
    statistics = fresh_statistics(params)
    for i in range(len(params.gain)):
        pre = h.dot(params.W[i])  # (D, hidden)
        mean = share.dot(pre)  # (hidden,)
        pre -= mean
        variance = share.dot(pre * pre)  # (hidden,)
        statistics[i] = mean, variance
        pre *= params.gain[i] / np.sqrt(variance + EPSILON)
        pre += params.bias[i]
        active = np.tanh(pre) if params.activation == "tanh" else np.maximum(pre, 0)
        h = active + h if params.residual and i else active
    return statistics


def folded(params, statistics):
    """The net with its statistics fixed, as one without BatchNorm -> Params.

    gain * (h @ W - mean) / std + bias is linear in h, so that W * gain / std and
    bias - mean * gain / std make a plain layer of it. Such a net takes a single word.
    """
    if not params.gain:
        return params
    scale = [g / np.sqrt(variance + EPSILON) for g, (_, variance) in zip(params.gain, statistics)]
    W = tuple(W * each for W, each in zip(params.W, scale))
    bias = tuple(b - mean * e for b, (mean, _), e in zip(params.bias, statistics, scale))
    plain = Params(params.C, W, (), bias, params.W_out, params.b_out)
    plain.residual, plain.activation = params.residual, params.activation
    return plain


def evaluate(params, X, Y):
    """Mean loss in nats over all examples, exact, of a net without BatchNorm (see `folded`).

    Names share contexts: each distinct one goes through the net once, and each pair of context
    and target counts as often as it occurs.
    """
    contexts, row, target, count = distinct(X, Y, len(params.C))
    loss, size = 0.0, max(1, 2**20 // sum(params.W_out.shape))  # contexts at a time
    for first in range(0, len(contexts), size):
        logits = forward(params, contexts[first : first + size])[0]  # (size, V)
        logits -= logits.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(logits).sum(axis=1))  # (size,)
        here = slice(*np.searchsorted(row, [first, first + size]))
        at = row[here] - first
        loss += count[here] @ (log_total[at] - logits[at, target[here]])
    return float(loss) / len(X)


def distinct(X, Y, vocab):
    """X (N, context), Y (N,) -> each distinct context (D, context), and for each pair of a context
    and a target: row of the context (P,), ascending; target (P,); count (P,)."""
    base = (vocab,) * X.shape[1]
    if math.prod(base) * vocab >= 2**63:  # an example, read as a number to base V, fits no int64
        return X, np.arange(len(X)), Y, np.ones(len(X))
    pairs, count = np.unique(np.ravel_multi_index((*X.T, Y), (*base, vocab)), return_counts=True)
    contexts, row = np.unique(pairs // vocab, return_inverse=True)
    return np.stack(np.unravel_index(contexts, base), axis=1), row, pairs % vocab, count


def sample(params, rng, itos, number, prefix="", temperature=1.0, longest=100):
    """Make up words that begin with `prefix` -> list[str], cut at `longest` characters.

    All unfinished words advance together, a character at a time, drawn from
    softmax(logits / temperature), by a net without BatchNorm (see `folded`). Raises KeyError for a
    prefix character without a token.
    """
    stoi = {character: token for token, character in itos.items()}
    context = len(params.W[0]) // params.C.shape[1]
    start = context + len(prefix)
    tokens = np.zeros((number, start + longest), int)  # `context` dots before every word
    tokens[:, context:start] = [stoi[character] for character in prefix]
    unfinished = np.arange(number)  # (U,), the rows that have not drawn a dot
    for end in range(start, context + longest):
        if not len(unfinished):
            break
        X = tokens[unfinished, end - context : end]  # (U, context)
        logits = forward(params, X)[0].astype(float)  # (U, V)
        logits -= logits.max(axis=1, keepdims=True)
        cumulative = np.exp(logits / temperature).cumsum(axis=1)  # (U, V)
        drawn = rng.random((len(unfinished), 1)) * cumulative[:, -1:]  # (U, 1)
        token = (cumulative[:, :-1] <= drawn).sum(axis=1)  # (U,)
        tokens[unfinished, end] = token
        unfinished = unfinished[token != 0]
    return ["".join(itos[t] for t in word).split(".")[0] for word in tokens[:, context:].tolist()]



def check_gradients(rng, epsilon=1e-5, batch=6, **options):
    """Hold backward to central differences on a small net in float64 -> {array: error}.

    dloss/dx is about (loss(x + epsilon) - loss(x - epsilon)) / (2 epsilon). The error is the
    largest difference in an array over its largest gradient. options: those of init_params.
    """
    vocab, context, embedding, hidden = 7, 3, 4, 5
    params = init_params(rng, vocab, context, embedding, hidden, np.float64, **options)
    theta = params.flat
    theta += 0.1 * rng.standard_normal(theta.size)  # no gain of exactly 1, no bias of exactly 0
    X, Y = rng.integers(vocab, size=(batch, context)), rng.integers(vocab, size=batch)
    by_hand, numeric = loss_and_gradients(params, X, Y)[1], zeros_like(params)
    for i, value in enumerate(theta):
        theta[i] = value + epsilon
        above, _ = loss_and_gradients(params, X, Y)
        theta[i] = value - epsilon
        below, _ = loss_and_gradients(params, X, Y)
        theta[i] = value
        numeric.flat[i] = (above - below) / (2 * epsilon)
    pairs = zip(leaves(by_hand), leaves(numeric))
    return {name: np.abs(a - n).max() / np.abs(n).max() for (name, a), (_, n) in pairs}


# ------------------------------------------------------------------------------------ instruments


class Reading(NamedTuple):
    """What one batch does in every layer, and how large the gradients are beside the weights."""

    active: list  # outputs of each layer before a residual is added, (B, hidden)
    slopes: list  # gradients of the outputs of each layer, (B, hidden)
    weights: list  # (name, weight matrix, its gradient)


def inspect(params, X, Y):
    """Run a batch forward and backward, and keep what is seen on the way -> Reading."""
    grads, seen = zeros_like(params), []
    logits, h, memory = forward(params, X)
    active = [layer[0].copy() for layer in memory]
    _, dlogits = cross_entropy(logits, Y)
    backward(params, X, h, memory, dlogits, grads, seen)
    pairs = zip(leaves(params), leaves(grads))
    weights = [(name, array, grad) for (name, array), (_, grad) in pairs if name[0] in "CW"]
    return Reading(active, seen[::-1], weights)


def saturated(active, activation):
    """Where a unit passes hardly any gradient -> (B, hidden) of bool: |tanh| > 0.97, or relu 0."""
    return np.abs(active) > 0.97 if activation == "tanh" else active == 0


def histogram(numbers, low, high, bins=24):
    """The distribution of numbers between low and high as a line of block characters."""
    counts, _ = np.histogram(numbers, bins, (low, high))
    levels = np.ceil(8 * counts / max(1, counts.max())).astype(int)
    return "".join(" ▁▂▃▄▅▆▇█"[level] for level in levels)


def show_reading(title, reading, rate, activation):
    """The instruments as tables: a line for each layer, a line for each weight matrix."""
    click.echo(f"\n{title}: outputs of each layer")
    low, high = (-1, 1) if activation == "tanh" else (0, 3)
    click.echo(f"layer    mean     std  saturated  dead units  from {low} to {high}")
    for i, active in enumerate(reading.active, 1):
        stuck = saturated(active, activation)
        click.echo(
            f"{i:5}{active.mean():8.3f}{active.std():8.3f}{stuck.mean():11.1%}"
            f"{int(stuck.all(axis=0).sum()):12}  {histogram(active, low, high)}"
        )
    click.echo("gradients of these outputs")
    click.echo("layer        mean         std  from -3 std to 3 std")
    for i, slope in enumerate(reading.slopes, 1):
        std = slope.std() or 1.0
        click.echo(
            f"{i:5}{slope.mean():12.1e}{slope.std():12.1e}  {histogram(slope, -3 * std, 3 * std)}"
        )
    click.echo(f"log10 of standard deviations; update/data, at --lr {rate:g}: about -3 is healthy")
    click.echo("weights   gradient/data  update/data")
    for name, weight, grad in reading.weights:
        ratio = log_ratio(grad, weight)
        click.echo(f"{name:8}{ratio:15.2f}{ratio + math.log10(max(rate, 1e-300)):13.2f}")


def log_ratio(grad, weight):
    """log10(std(grad) / std(weight))."""
    return math.log10(max(float(grad.std()), 1e-30) / max(float(weight.std()), 1e-30))


# --------------------------------------------------------------------------------------- pictures


def smoothed(losses, width):
    """The mean of each window of `width` steps -> (steps - width + 1,)."""
    return np.convolve(losses, np.full(width, 1 / width), mode="valid")


def draw_run(path, losses, start, reading, ratios, activation):
    """Loss, distributions of outputs, gradients and weight gradients, update ratios, saturation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 12), layout="constrained")
    (loss, outputs), (slopes, grads), (updates, stuck) = figure.subplots(3, 2)
    width = max(1, len(losses) // 100)
    if len(losses):
        curve = smoothed(losses, width)
        loss.plot(start + width + np.arange(len(curve)), curve, linewidth=1)
    loss.set(xlabel="step", ylabel="loss in nats", title=f"Training loss, mean of {width:,} steps")

    def distributions(axes, named, title):
        for name, numbers in named:
            density, edges = np.histogram(numbers, 80, density=True)
            label = f"{name}, std {numbers.std():.1e}"
            axes.plot((edges[1:] + edges[:-1]) / 2, density, label=label)
        axes.set(title=title, yticks=[])
        axes.legend(fontsize=8)

    layers = [f"layer {i}" for i in range(1, len(reading.active) + 1)]
    distributions(outputs, zip(layers, reading.active), f"Outputs ({activation})")
    distributions(slopes, zip(layers, reading.slopes), "Gradients of the outputs")
    matrices = [(name, grad) for name, _, grad in reading.weights if name != "C"]
    distributions(grads, matrices, "Gradients of the weights")
    if ratios:
        steps, values = [step for step, _ in ratios], np.array([row for _, row in ratios])
        for (name, *_), column in zip(reading.weights, values.T):
            updates.plot(steps, column, label=name, linewidth=1)
        updates.legend(fontsize=8)
    updates.axhline(-3, color="black", linestyle=":")
    updates.set(xlabel="step", ylim=(-6, 0.5), title="log10 of update / data; dotted: healthy")
    picture = np.concatenate([saturated(each[:40], activation) for each in reading.active])
    stuck.imshow(picture, cmap="gray", aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    stuck.set(xlabel="unit", ylabel="40 examples a layer", title="White: saturated")
    figure.savefig(path)


def draw_rates(path, rates, losses, best):
    """The smoothed loss over the rate that rose from step to step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(rates, losses)
    axes.axvline(best, color="C3", linestyle=":")
    axes.set(xlabel="learning rate", ylabel="loss in nats", title=f"Lowest at {best:.2g}")
    figure.savefig(path)


# ------------------------------------------------------------------------------------ checkpoints

SHAPE = ("context", "embedding", "hidden", "layers", "batchnorm", "residual", "activation")
FIXED = (*SHAPE, "init", "seed")
KEPT = {*FIXED, "steps", "batch_size", "lr", "lr_decay", "bn_stats"}


class Run(NamedTuple):
    """A training at some step: all that is needed to go on."""

    params: Params
    running: np.ndarray  # (layers, 2, hidden), averages of the batches' means and variances
    step: int  # steps done
    options: dict  # those in KEPT
    alphabet: str  # characters in the order of their tokens
    words: int  # CRC-32 of the data
    generator: dict  # the state before the first batch was drawn


def save_run(path, run):
    """Write a file beside `path`, then rename it: there is always the old one or the new, whole."""
    facts = {"script": "batchnorm.py", **run._asdict()}
    tables = {"theta": facts.pop("params").flat, "running": facts.pop("running")}
    target = Path(path).resolve()
    beside = target.with_name(target.name + ".tmp")
    try:
        with beside.open("wb") as file:
            np.savez(file, **tables, run=json.dumps(facts))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def load_run(path):
    """Read what save_run wrote. Raises OSError, or ValueError with what is wrong."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            if any(item.compress_type for item in archive.zip.infolist()):
                raise ValueError("save_run does not compress; this could unpack to any size")
            facts = json.loads(archive["run"].item()) if "run" in archive else {}
            script = facts.pop("script", None)
            if script == "batchnorm.py":
                theta, running, options = archive["theta"], archive["running"], facts["options"]
                sizes = [options[name] for name in SHAPE]
                layout = shapes(len(facts["alphabet"]), *sizes[:5])
                run = Run(windows(theta, layout, *sizes[5:]), running, **facts)
                np.random.default_rng().bit_generator.state = run.generator
                layers = options["layers"] if options["batchnorm"] else 0
                damaged = (
                    theta.dtype != np.float32
                    or theta.shape != (sum(math.prod(shape) for _, shape in leaves(layout)),)
                    or not np.isfinite(theta).all()
                    or running.dtype != np.float32
                    or running.shape != (layers, 2, options["hidden"])
                    or not np.isfinite(running).all()
                    or (running[:, 1] < 0).any()
                    or type(run.step) is not int
                    or run.step < 0
                    or run.options.keys() != KEPT
                    or run.alphabet[0] != "."
                    or len(set(run.alphabet)) < len(run.alphabet)
                )
    except OSError:
        raise
    except Exception:  # zipfile, zlib, NumPy and json each raise their own
        with open(path, "rb") as file:
            kind = "a damaged" if file.read(2) == b"PK" else "not a"
        raise ValueError(f"{path} is {kind} checkpoint") from None
    if script != "batchnorm.py":
        known = f", but of {repr(script)[:40]}" if script else ""
        raise ValueError(f"{path} is no model of batchnorm.py{known}")
    if damaged:
        raise ValueError(f"{path} is damaged: its parts do not fit together")
    return run


# ----------------------------------------------------------------------------------- command line

SAVE_EVERY = 5.0  # seconds


class Finite(click.FloatRange):
    """A range of real numbers, nan and inf left out."""

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


@contextmanager
def on_signal(handler):
    """Within, `handler` answers Ctrl-C and SIGTERM."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before):
            signal.signal(number, old)


@contextmanager
def plain_endings():
    """What goes wrong ends in one line and exit code 1, Ctrl-C in 130, SIGTERM in 143."""
    try:
        # Overflow shows in the loss, which run_training watches: no need for NumPy to warn.
        with on_signal(lambda number, frame: sys.exit(128 + number)), np.errstate(all="ignore"):
            yield
    except BrokenPipeError:  # `| head` has seen enough, click ends without a word
        raise
    except OSError as error:
        name = " ".join(str(error.filename or "output").removesuffix(".tmp").splitlines())
        raise click.ClickException(f"{name}: {error.strerror}") from None
    except ValueError as error:
        raise click.ClickException(" ".join(str(error).splitlines())) from None
    except (MemoryError, OverflowError):
        raise click.ClickException("not enough memory for a net and data of this size") from None


def use_checkpoint(ctx, param, path):
    """Make the options of a checkpoint the defaults -> Run."""
    if path is None:
        return None
    with plain_endings():
        run = load_run(path)
    ctx.default_map = {name: str(value) for name, value in run.options.items()}
    return run


def check_targets(save, load, plot):
    """Refuse, before training, what cannot be drawn or written, or would destroy another file."""
    if plot:
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ValueError("--plot needs matplotlib: pip install matplotlib") from None
        endings = Figure().canvas.get_supported_filetypes()
        if Path(plot).suffix[1:].lower() not in endings:
            raise ValueError(f"{plot}: the name of a picture ends in .{', .'.join(endings)}")
    if save and os.path.isfile(save) and os.path.getsize(save):
        try:
            load_run(save)
        except ValueError as error:
            raise ValueError(f"{error}; it is not overwritten") from None
        if not load:
            shutil.copy2(save, f"{save}.old")
            click.echo(f"{save} holds another run, which is kept in {save}.old", err=True)
    for path in filter(None, (save, plot)):
        target = Path(path).resolve()
        if target.exists() and not (target.is_file() and os.access(target, os.W_OK)):
            raise ValueError(f"{path} is no file that can be written")
        beside = target.with_name(target.name + ".tmp")
        beside.touch()
        beside.unlink()


def new_run(words, options, init_rng, batch_rng):
    """A net that has learnt nothing yet -> Run."""
    alphabet = "".join(build_vocab(words)[0])
    sizes = [options[name] for name in ("context", "embedding", "hidden")]
    names = ("layers", "batchnorm", "residual", "init", "activation")
    how = {name: options[name] for name in names}
    params = init_params(init_rng, len(alphabet), *sizes, **how)
    state = batch_rng.bit_generator.state
    return Run(params, fresh_statistics(params), 0, options, alphabet, checksum(words), state)


def check_run(run, options, words, prefix):
    """Refuse options that the net cannot follow; warn of words that it was not made of."""
    for name in FIXED:
        if options[name] != run.options[name]:
            raise click.UsageError(f"--{name}: the checkpoint has {run.options[name]}")
    if options["batchnorm"] and options["batch_size"] < 2:
        message = "BatchNorm needs at least 2: a single sample has no variance"
        raise click.BadParameter(message, param_hint="--batch-size")
    for character in prefix:
        if character not in run.alphabet[1:]:
            raise click.BadParameter(f"the model never saw {character!r}", param_hint="--prefix")
    if checksum(words) != run.words:
        click.echo("Warning: the checkpoint was made of other words: is --data right?", err=True)


def checksum(words):
    return zlib.crc32("\n".join(words).encode())


def reported(training, start, steps, vocab):
    """Pass on (step, loss) and show it: ten lines on stdout, on a terminal a bar on stderr too."""
    live, every, losses, drawn = sys.stderr.isatty(), max(1, steps // 10), [], 0.0
    click.echo("    step      loss")
    with click.progressbar(
        length=steps - start,
        width=20,
        item_show_func=lambda shown: shown,
        file=sys.stderr,
        hidden=not live,
    ) as bar:
        for step, loss in training:
            yield step, loss
            losses.append(loss)
            if step == 1 or step % every == 0:
                note = f"   (knowing nothing: ln {vocab} = {math.log(vocab):.4f})" * (step == 1)
                click.echo("\r\033[K" * live, err=True, nl=False)
                click.echo(f"{step:8,}{figure(np.mean(losses), 10)}{note}")
                losses.clear()
            if live and (time.perf_counter() - drawn > 0.1 or step == steps):
                bar.update(step - start - bar.pos, f"{step:,}/{steps:,} steps  loss {loss:.4f}")
                drawn = time.perf_counter()


def run_training(run, X, Y, save, watch=False):
    """Train to the last step, with progress -> (Run, loss of each step, update ratios, signal).

    Saves every few seconds and at the end, whatever ends it; but a loss that is no longer a number
    is not saved, and raises ValueError. The signal is the one that ended it, or None. With `watch`,
    the log10 of update to data of each weight matrix is taken a thousand times on the way.
    """
    options, start, rng = run.options, run.step, np.random.default_rng()
    rng.bit_generator.state = run.generator
    steps, lr, schedule = options["steps"], options["lr"], SCHEDULES[options["lr_decay"]]
    training = train(
        run.params, X, Y, rng, steps, options["batch_size"], lambda done: lr * schedule(done),
        run.running, start,
    )  # fmt: skip
    losses, ratios, caught, often = array("f"), [], [], max(1, steps // 1000)
    began = saved = time.perf_counter()
    with on_signal(lambda number, frame: caught.append(number)):
        try:
            for step, loss in reported(training, start, steps, len(run.alphabet)):
                losses.append(loss)
                if caught or not math.isfinite(loss):
                    break
                if watch and step % often == 0:
                    rate = math.log10(lr * schedule((step - 1) / steps))
                    weights = inspect(run.params, X[:32], Y[:32]).weights
                    ratios.append((step, [rate + log_ratio(grad, W) for _, W, grad in weights]))
                due = time.perf_counter() - saved > SAVE_EVERY
                if save and due and np.isfinite(run.params.flat).all():
                    try:
                        save_run(save, run._replace(step=step))
                    except OSError as error:
                        click.echo(f"Warning: {save}: {error.strerror}", err=True)
                    saved = time.perf_counter()
        finally:
            run = run._replace(step=start + len(losses))
            sound = np.isfinite([*losses[-1:], *run.params.flat]).all()
            if save and sound:
                save_run(save, run)
    if not sound:
        raise ValueError(f"the loss is no longer a number at step {run.step:,}: try a lower --lr")
    seconds, done = time.perf_counter() - began, len(losses)
    click.echo(f"{done:,} steps in {seconds:.1f} s ({seconds / done * 1e6:.0f} µs/step)")
    return run, losses, ratios, caught[0] if caught else None


def show_stop(run, save):
    after = f"saved: go on with --load {save} --save {save}" if save else "not saved: no --save"
    click.echo(f"stopped at step {run.step:,}; {after}", err=True)


def figure(number, width, decimals=4):
    """A number in so many columns, whatever its size."""
    return f"{number:{width}.{decimals}f}" if number < 1e4 else f"{number:{width}.2e}"


def show_losses(params, parts):
    click.echo("split      loss  perplexity")
    for name, (X, Y) in zip(("train", "dev", "test"), parts):
        loss = evaluate(params, X, Y)
        click.echo(f"{name:5}{figure(loss, 10)}{figure(np.exp(loss), 12, 3)}")


def show_samples(params, rng, itos, words, number, prefix, temperature):
    known = set(words)
    for first in range(0, number, 1024):
        for word in sample(params, rng, itos, min(1024, number - first), prefix, temperature):
            click.echo(word if word in known else f"{word:19} new")


def show_gradient_check(rng):
    click.echo("layers  batchnorm  residual  activation  largest relative error of any array")
    worst = 0.0
    for layers in (1, 3):
        for batchnorm in (True, False):
            for residual in (True, False):
                for activation in ("tanh", "relu"):
                    options = dict(
                        layers=layers, batchnorm=batchnorm, residual=residual, activation=activation
                    )
                    error = max(check_gradients(rng, **options).values())
                    worst = max(worst, error)
                    flags = f"{batchnorm!s:>9}  {residual!s:>8}"
                    click.echo(f"{layers:6}  {flags}  {activation:>10}  {error:8.1e}")
    if worst > 1e-6:
        raise ValueError("backward and the central differences disagree")


def show_learning_rates(run, X, Y, rng, plot):
    """1,000 steps while the rate rises from 0.001 to 1: it is good where the loss is lowest."""
    batch_size, rising = run.options["batch_size"], lambda done: 10 ** (3 * done - 3)
    training = train(run.params, X, Y, rng, 1000, batch_size, rising, run.running)
    losses = smoothed([loss for _, loss in training], 101)  # (900,)
    rates = 10 ** (3 * np.arange(50, 950) / 1000 - 3)  # (900,), each in the middle of its window
    click.echo("    rate      loss")
    for i in range(0, 900, 50):
        click.echo(f"{rates[i]:8.4f}{figure(losses[i], 10)}")
    best = rates[np.nanargmin(losses)]
    click.echo(f"lowest at {best:.2g}: try --lr {best:.1g}")
    if plot:
        draw_rates(plot, rates, losses, best)


# The five rows of the lecture's loss log.
REPAIRS = {
    "original": {"init": "naive", "batchnorm": False},
    "softmax fixed": {"init": "small-logits", "batchnorm": False},
    "tanh fixed": {"init": "scaled", "batchnorm": False},
    "kaiming": {"init": "kaiming", "batchnorm": False},
    "BatchNorm": {"init": "kaiming", "batchnorm": True},
}


def show_comparison(words, options, seed, parts):
    """Train each repair on the same data, batches and steps, and show it when it is done."""
    (X, Y), dev, _ = parts
    steps, schedule = options["steps"], SCHEDULES[options["lr_decay"]]
    live = sys.stderr.isatty()
    click.echo(f"{'net':14}first loss     train       dev")
    for name, repair in REPAIRS.items():
        _, init_rng, batch_rng, _ = np.random.default_rng(seed).spawn(4)
        run = new_run(words, options | repair, init_rng, batch_rng)
        training = train(
            run.params, X, Y, batch_rng, steps, options["batch_size"],
            lambda done: options["lr"] * schedule(done), run.running,
        )  # fmt: skip
        with click.progressbar(
            training, steps, f"{name:14}", width=20, update_min_steps=max(1, steps // 200),
            file=sys.stderr, hidden=not live,
        ) as bar:  # fmt: skip
            losses = [loss for _, loss in bar]
        click.echo("\033[A\033[2K" * live, err=True, nl=False)  # the row takes the bar's place
        if not np.isfinite(losses).all():
            raise ValueError(f"{name}: the loss is no longer a number: try a lower --lr")
        net = folded(run.params, calibrated(run.params, X))
        figures = losses[:1] + [evaluate(net, X, Y), evaluate(net, *dev)]
        click.echo(f"{name:14}" + "".join(figure(each, 10) for each in figures))


STATISTICS, SQUASH = click.Choice(["calibrated", "running"]), click.Choice(["tanh", "relu"])
COUNT, REAL, FILE = click.IntRange(1), Finite(0, min_open=True), click.Path()
DECAY = "linear: to 0. step: to a tenth, at half of the steps."
RESUME = "Checkpoint to go on from, with its options."


@click.command(context_settings={"show_default": True})
@click.option("--data", type=FILE, default=NAMES, show_default="names.txt", help="Word list.")
@click.option("--steps", type=click.IntRange(0), default=200_000, help="Steps of training in all.")
@click.option("--batch-size", type=COUNT, default=32, help="Examples in a step.")
@click.option("--lr", type=REAL, default=0.1, help="Learning rate.")
@click.option("--lr-decay", type=click.Choice([*SCHEDULES]), default="linear", help=DECAY)
@click.option("--context", type=click.IntRange(1, 100), default=3, help="Characters it sees.")
@click.option("--embedding", type=COUNT, default=10, help="Numbers that stand for a character.")
@click.option("--hidden", type=COUNT, default=200, help="Neurons in a hidden layer.")
@click.option("--layers", type=click.IntRange(1, 100), default=1, help="Hidden layers.")
@click.option("--batchnorm/--no-batchnorm", default=True, help="Normalise, or a plain bias.")
@click.option("--residual/--no-residual", default=False, help="Add inputs to outputs.")
@click.option("--activation", type=SQUASH, default="tanh", help="Of every hidden layer.")
@click.option("--init", type=click.Choice(INITS), default="kaiming", help="How weights start.")
@click.option("--bn-stats", type=STATISTICS, default="calibrated", help="What inference uses.")
@click.option("--seed", type=click.IntRange(0), default=42, help="Where all randomness comes from.")
@click.option("--samples", type=click.IntRange(0), default=20, help="Words to make up.")
@click.option("--prefix", default="", show_default=False, help="What they begin with.")
@click.option("--temperature", type=REAL, default=1.0, help="Below 1 tamer, above 1 wilder.")
@click.option("--save", type=FILE, help="Checkpoint to write, every 5 seconds and at the end.")
@click.option("--load", type=FILE, callback=use_checkpoint, is_eager=True, help=RESUME)
@click.option("--plot", type=FILE, help="Picture to draw of the instruments (needs matplotlib).")
@click.option("--compare", is_flag=True, help="Train the five repairs of the lecture, no more.")
@click.option("--gradcheck", is_flag=True, help="Check the gradients by differences, no more.")
@click.option("--find-lr", is_flag=True, help="Try 1,000 steps at a rising learning rate, no more.")
def main(
    data, samples, prefix, temperature, save, load, plot, compare, gradcheck, find_lr, **options
):  # fmt: skip
    """Learn from a list of names to make up new ones, with BatchNorm, depth and instruments."""
    with plain_endings():
        split_rng, init_rng, batch_rng, sample_rng = np.random.default_rng(options["seed"]).spawn(4)
        if gradcheck:
            return show_gradient_check(init_rng)
        check_targets(save, load, plot)
        words = load_words(data)
        run = load or new_run(words, options, init_rng, batch_rng)
        check_run(run, options, words, prefix)
        run, losses, ratios, stopped = run._replace(options=options), (), [], None
        itos = dict(enumerate(run.alphabet))
        stoi = {character: token for token, character in itos.items()}
        splits = split_words(words, split_rng)
        (X, Y), *_ = parts = [build_dataset(split, stoi, options["context"]) for split in splits]
        click.echo(
            f"{len(words):,} words, {len(itos)} characters, {len(X):,} training examples, "
            f"{run.params.flat.size:,} parameters"
        )
        if compare:
            return show_comparison(words, options, options["seed"], parts)
        if find_lr:
            return show_learning_rates(run, X, Y, batch_rng, plot)
        if run.step < options["steps"]:
            lr, activation = options["lr"], options["activation"]
            show_reading("before", inspect(run.params, X[:1024], Y[:1024]), lr, activation)
            click.echo()
            run, losses, ratios, stopped = run_training(run, X, Y, save, watch=bool(plot))
            show_reading("after", inspect(run.params, X[:1024], Y[:1024]), lr, activation)
            click.echo()
        elif save:
            save_run(save, run)
        running = options["bn_stats"] == "running"
        net = folded(run.params, run.running if running else calibrated(run.params, X))
        show_losses(net, parts)
        if stopped:
            show_stop(run, save)
            sys.exit(128 + stopped)
        show_samples(net, sample_rng, itos, words, samples, prefix, temperature)
        if plot:
            reading, start = inspect(run.params, X[:1024], Y[:1024]), run.step - len(losses)
            draw_run(plot, losses, start, reading, ratios, options["activation"])


if __name__ == "__main__":
    main()
