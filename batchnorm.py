#!/usr/bin/env -S uv run --script
"""Stage 4: start the net right, normalise it, make it deep, and look inside while it trains.

The net of stage 3 starts out far too confident, with most of its tanh units saturated, where they
pass hardly any gradient. Here each repair of the lecture "Building makemore, part 3" is an option
of its own: initialisation (He et al. 2015, "Delving Deep into Rectifiers"), Batch Normalisation
(Ioffe and Szegedy 2015), and depth with residual connections (He et al. 2015, "Deep Residual
Learning"). For a batch of B contexts X with the targets Y and an alphabet of V characters, the
forward pass is

    h = C[X]                                    (B, context * embedding)
    for each layer:
        pre = h @ W                             (B, hidden)
        z   = gain * (pre - mean) / std + bias  (B, hidden), mean and std over the batch
        h   = tanh(z)                           [+ h, from the second layer on, if residual]
    logits = h @ W_out + b_out                  (B, V)
    loss   = mean(-log softmax(logits)[Y])      in nats

Without BatchNorm, z = pre + bias. The backward pass applies the chain rule in reverse. With dx for
the gradient of the loss with respect to x, and sums over the batch,

    dlogits = (softmax(logits) - one_hot(Y)) / B
    dW_out  = h.T @ dlogits                     db_out = sum(dlogits)
    dh      = dlogits @ W_out.T
    for each layer, the last first:
        dz   = dh * (1 - tanh(z)^2)             or dh * [z > 0] for relu
        dpre = see batchnorm_backward           or dz without BatchNorm
        dW   = h.T @ dpre                       with the h that went into the layer
        dbias = sum(dz)                         dgain = sum(dz * (pre - mean) / std)
        dh   = dpre @ W.T                       [+ dh, down to the second layer, if residual]
    dC = one_hot(X).T @ dh

    python batchnorm.py --steps 50000              train, with instruments before and after
    python batchnorm.py --compare --steps 50000    the repairs one after the other
    python batchnorm.py --gradcheck                compare every gradient with central differences
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import json
import math
import os
import signal
import sys
import time
import zlib
from collections import namedtuple
from copy import copy
from functools import cache
from itertools import product
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # on matrices this small, threads only wait

import click
import numpy as np

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# ---------------------------------------------------------------------------------------- the net

ACTIVATIONS = ("tanh", "relu")
INITS = ("naive", "small-logits", "scaled", "kaiming")
Arrays = namedtuple("Arrays", "C W1 W gain bias W_out b_out")


class Net:
    """The parameters, each drawn from N(0, 1) and then scaled, and their gradients.

    The arrays in `params` are views into one flat vector, theta, and those in `grads` into another,
    dtheta: an update or a checkpoint needs only these two, and `running` (layers, 2, hidden), the
    running averages of mean and variance. `init` names how the parameters are scaled:

    naive         as drawn: the logits have a standard deviation of sqrt(hidden), so that the net is
                  confident and wrong: with 200 hidden units its loss starts at about 8 ln V
    small-logits  W_out * 0.01, b_out = 0: all logits are near 0, and the loss starts at ln V
    scaled        also W * 0.2 and bias * 0.01: sums of context * embedding = 30 products with a
                  standard deviation of 1 instead of 5.5, so that tanh is not saturated
    kaiming       W * g / sqrt(fan-in) instead, for any size: sums of fan-in products keep the
                  standard deviation of their inputs; g = 5/3 makes up for what tanh squashes,
                  sqrt(2) for the half that relu cuts off

    With BatchNorm, gain = 1 and bias = 0; without, gain is empty.
    """

    def __init__(
        self, rng, vocab, context, embedding, hidden, layers=1, batchnorm=True, residual=False,
        activation="tanh", init="kaiming", dtype=np.float32,
    ):  # fmt: skip
        if activation not in ACTIVATIONS or init not in INITS:
            raise ValueError(f"no such activation or init: {activation!r}, {init!r}")
        shapes = [
            (vocab, embedding),  # C, a row for each character
            (context * embedding, hidden),  # W1, of the first layer
            (layers - 1, hidden, hidden),  # W, of the other layers
            (layers if batchnorm else 0, hidden),  # gain
            (layers, hidden),  # bias
            (hidden, vocab),  # W_out
            (vocab,),  # b_out
        ]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        self.theta = rng.standard_normal(ends[-1]).astype(dtype)
        self.dtheta = np.zeros_like(self.theta)
        self.params, self.grads = (
            Arrays(*(part.reshape(shape) for part, shape in zip(np.split(flat, ends), shapes)))
            for flat in (self.theta, self.dtheta)
        )
        self.residual, self.activation = residual, activation
        _, W1, W, gain, bias, W_out, b_out = self.params
        if init != "naive":
            W_out *= 0.01
            b_out[:] = 0
        if init == "kaiming":
            g = 5 / 3 if activation == "tanh" else math.sqrt(2)
            W1 *= g / math.sqrt(len(W1))
            W *= g / math.sqrt(hidden)
        elif init == "scaled":
            W1 *= 0.2
            W *= 0.2
        if batchnorm:
            gain[:], bias[:] = 1, 0
        elif init in ("scaled", "kaiming"):
            bias *= 0.01
        self.running = np.zeros((len(gain), 2, hidden), dtype)
        self.running[:, 1] = 1

    def __setattr__(self, name, array):
        """Refuse to put another array in place of one: its views would still show the old one."""
        if vars(self).setdefault(name, array) is not array:
            raise AttributeError(f"net.{name} cannot be replaced: change its elements in place")


ones, identity = cache(np.ones), cache(np.identity)  # made once instead of every step
averages = cache(lambda n, dtype: np.full(n, 1 / n, dtype))  # likewise


def one_hot(tokens, vocab, dtype):
    """Tokens (N,) -> (N, vocab), a single 1 in each row: row i of the identity matrix for i."""
    if vocab > 1000:  # too large a matrix to keep
        return (tokens[:, None] == np.arange(vocab)).astype(dtype)
    return identity(vocab, dtype).take(tokens, axis=0)


# ------------------------------------------------------------------------------------- BatchNorm

EPSILON = 1e-5  # no division by zero for a unit without variance


def batchnorm_forward(pre, gain, bias):
    """pre (B, hidden) -> z, centred (B, hidden), inv_std, mean, variance (hidden,).

    Over the batch, each unit gets mean 0 and standard deviation 1, then a mean and a deviation of
    its own to learn. The variance is divided by n = B, as in the paper; only the running averages
    for inference divide by n - 1. Raises ValueError for a batch of one.
    """
    if len(pre) == 1:
        raise ValueError("a single sample has no variance: fold the net to use it")
    average = averages(len(pre), pre.dtype)  # (B,); average.dot(a) is a.mean(axis=0), but faster
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
    deviation. The path through the mean subtracts mean(dx) from every row, the path through the
    standard deviation x * mean(dx * x):

        dpre = inv_std * (dx - mean(dx) - x * mean(dx * x))
             = inv_std * gain * (dz - dbias / n - x * dgain / n)

    with means over n = B. batchnorm_step_by_step derives the same line by line.
    """
    n, row = len(dz), ones(len(dz), dz.dtype)  # (B,); row.dot(d) is d.sum(axis=0), but faster
    row.dot(dz, out=dbias)
    row.dot(dz * centred, out=dgain)
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


def forward(net, X, statistics=None):
    """Contexts X (B, context) -> h, memory, logits (B, V).

    h holds the input of each layer, and the output of the last one: (B, hidden), the first of them
    (B, context * embedding). memory holds what each layer keeps for backward. The mean and the
    variance of each unit are written into `statistics` (layers, 2, hidden) if given.
    """
    C, W1, W, gain, bias, W_out, b_out = net.params
    emb = C.take(X, axis=0).reshape(len(X), -1)  # (B, context * embedding): C[X], but faster
    h, memory = [emb], []
    for i, weights in enumerate([W1, *W]):
        pre = h[i] @ weights  # (B, hidden)
        if len(gain):
            z, centred, inv_std, mean, variance = batchnorm_forward(pre, gain[i], bias[i])
            if statistics is not None:
                statistics[i, 0], statistics[i, 1] = mean, variance
        else:
            z, centred, inv_std = pre + bias[i], None, None  # (B, hidden)
        active = np.tanh(z) if net.activation == "tanh" else np.maximum(z, 0)  # (B, hidden)
        memory.append((z, active, centred, inv_std))
        h.append(active + h[i] if net.residual and i else active)  # (B, hidden)
    logits = h[-1] @ W_out + b_out  # (B, V)
    return h, memory, logits


def backward(net, X, h, memory, dlogits):
    """Backpropagate dlogits (B, V) to every parameter, writing the gradients into net.grads.

    -> the gradients of h, shaped like h.
    """
    C, W1, W, gain, bias, W_out, b_out = net.params
    dC, dW1, dW, dgain, dbias, dW_out, db_out = net.grads
    row = ones(len(X), C.dtype)  # (B,)
    h[-1].T.dot(dlogits, out=dW_out)
    row.dot(dlogits, out=db_out)
    dh = [dlogits @ W_out.T]  # (B, hidden), that of the last layer first
    weights, dweights = [W1, *W], [dW1, *dW]
    for i in reversed(range(len(weights))):
        z, active, centred, inv_std = memory[i]
        slope = 1 - active * active if net.activation == "tanh" else z > 0  # (B, hidden)
        dz = dh[-1] * slope  # (B, hidden)
        if len(gain):
            dpre = batchnorm_backward(dz, gain[i], centred, inv_std, dgain[i], dbias[i])
        else:
            dpre = dz  # (B, hidden)
            row.dot(dz, out=dbias[i])
        h[i].T.dot(dpre, out=dweights[i])
        dinput = dpre @ weights[i].T  # (B, hidden), at the first layer (B, context * embedding)
        dh.append(dinput + dh[-1] if net.residual and i else dinput)
    onehot = one_hot(X.ravel(), len(C), C.dtype)  # (B * context, V)
    onehot.T.dot(dh[-1].reshape(-1, C.shape[1]), out=dC)
    return dh[::-1]


def cross_entropy(logits, Y):
    """Mean of -log softmax(logits)[Y] in nats, and its gradient -> (loss, dlogits (B, V)).

    For one row z with target y, and p = softmax(z),

        loss = -log p_y = log(sum_j exp z_j) - z_y
        dloss/dz_i = exp z_i / sum_j exp z_j - [i = y] = p_i - [i = y]

    which the mean divides by B. Shifting a row by its maximum does not change its softmax, and
    exp cannot overflow.
    """
    B, V = logits.shape
    onehot = one_hot(Y, V, logits.dtype)  # (B, V)
    shifted = logits - logits.max(axis=1, keepdims=True)  # (B, V)
    counts = np.exp(shifted)  # (B, V)
    total = counts.dot(ones(V, logits.dtype))  # (B,)
    loss = (np.log(total).sum() - np.vdot(shifted, onehot)) / B
    probs = counts / total[:, None]  # (B, V)
    dlogits = (probs - onehot) / B  # (B, V)
    return float(loss), dlogits


def loss_and_gradients(net, X, Y, statistics=None):
    """Contexts X (B, context), targets Y (B,) -> mean loss in nats; fills net.grads."""
    h, memory, logits = forward(net, X, statistics)
    loss, dlogits = cross_entropy(logits, Y)
    backward(net, X, h, memory, dlogits)
    return loss


# ---------------------------------------------------------------- training, evaluating, sampling

# The learning rate as a share of --lr, from the share of the steps that are done. "step" is the
# lecture's; "linear" reached a lower dev loss in stage 3.
SCHEDULES = {
    "linear": lambda done: 1.0 - done,
    "step": lambda done: 1.0 if done < 0.5 else 0.1,
    "none": lambda done: 1.0,
}

MOMENTUM = 0.001  # weight of the newest batch in the running averages, as in the lecture


def train(net, X, Y, steps, batch_size, lr, schedule, seed, weight_decay=0.0, start=0):
    """Minibatch gradient descent from step `start` on: a generator of (steps done, loss before).

    Every thousand steps have a generator of their own: a step gets the same minibatch wherever
    training started. Weight decay adds the penalty weight_decay / 2 * sum(theta^2) to the loss.
    net.dtheta holds the last update, and net.running follows the statistics of the batches.
    """
    running, statistics = net.running, np.zeros_like(net.running)  # (layers, 2, hidden)
    unbiased = batch_size / max(1, batch_size - 1)  # the variance over n - 1, not n
    newest = np.array([[MOMENTUM], [MOMENTUM * unbiased]], running.dtype)  # (2, 1)
    for step in range(start, steps):
        if step == start or step % 1000 == 0:
            rng = np.random.default_rng([seed, 1 + step // 1000])
            batches = rng.integers(len(X), size=(1000, batch_size))  # (1000, B)
        batch = batches[step % 1000]  # (B,)
        loss = loss_and_gradients(net, X.take(batch, axis=0), Y.take(batch), statistics)
        if weight_decay:
            net.dtheta += weight_decay * net.theta
        net.dtheta *= lr * schedule(step / steps)  # from the gradient to the update
        net.theta -= net.dtheta
        if len(statistics):
            running *= 1 - MOMENTUM
            running += newest * statistics
        yield step + 1, loss


def calibrated(net, X):
    """The mean and variance of each unit over up to 8,192 examples -> (layers, 2, hidden)."""
    statistics = np.zeros_like(net.running)
    forward(net, X[:8192], statistics)
    return statistics


def folded(net, statistics):
    """The net with fixed statistics, as a net without BatchNorm, to evaluate and sample from.

    gain * (h @ W - mean) / std + bias is linear in h: a plain layer with the weights
    W * gain / std and the bias bias - mean * gain / std. Such a net takes a batch of one.
    """
    C, W1, W, gain, bias, W_out, b_out = net.params
    if not len(gain):
        return net
    mean, variance = statistics[:, 0], statistics[:, 1]  # (layers, hidden), (layers, hidden)
    scale = gain / np.sqrt(variance + EPSILON)  # (layers, hidden)
    W1, W, bias = W1 * scale[0], W * scale[1:, None], bias - mean * scale
    plain = copy(net)
    vars(plain)["params"] = Arrays(C, W1, W, gain[:0], bias, W_out, b_out)  # not views into theta
    return plain


def evaluate(net, X, Y, chunk=1024):
    """Mean loss in nats over all examples, a chunk at a time.

    With BatchNorm each chunk counts as a batch: fold the net for the loss at inference.
    """
    total = 0.0
    for i in range(0, len(X), chunk):
        x, y = X[i : i + chunk], Y[i : i + chunk]  # (chunk, context), (chunk,)
        loss, _ = cross_entropy(forward(net, x)[-1], y)
        total += loss * len(y)
    return total / len(X)


def sample(net, rng, itos, context, number, prefix="", temperature=1.0, longest=100):
    """Make up words that start with `prefix` -> list[str], cut at `longest` characters.

    All unfinished words advance together, each by a character drawn from
    softmax(logits / temperature). With BatchNorm, fold the net first. Raises KeyError for a prefix
    character without a token.
    """
    stoi = {character: token for token, character in itos.items()}
    tokens = np.tile([0] * context + [stoi[c] for c in prefix], (number, 1))  # (number, length)
    unfinished = np.arange(number)  # (U,), the rows that have not drawn a dot yet
    while len(unfinished) and tokens.shape[1] < context + longest:
        logits = forward(net, tokens[unfinished, -context:])[-1].astype(float)  # (U, V)
        logits -= logits.max(axis=1, keepdims=True)
        cumulative = np.exp(logits / temperature).cumsum(axis=1)  # (U, V)
        drawn = rng.random((len(unfinished), 1)) * cumulative[:, -1:]  # (U, 1)
        token = (cumulative[:, :-1] <= drawn).sum(axis=1)  # (U,)
        tokens = np.pad(tokens, ((0, 0), (0, 1)))  # append a dot to every word
        tokens[unfinished, -1] = token
        unfinished = unfinished[token != 0]
    return ["".join(itos[t] for t in word).split(".")[0] for word in tokens[:, context:].tolist()]


# ------------------------------------------------------------------------------ checking gradients


def check_gradients(rng, epsilon=1e-6, batch=6, **options):
    """Compare the gradients with central differences in float64 -> {array: relative error}.

    dloss/dx is about (loss(x + epsilon) - loss(x - epsilon)) / (2 epsilon). The error is the
    largest difference in an array over its largest gradient (at least 1e-4). `options` are Net's.
    """
    vocab, context, embedding, hidden = 7, 3, 4, 5
    errors, smooth = {}, False
    while not smooth:  # at the kink of relu there is no derivative: no z may come near it
        net = Net(rng, vocab, context, embedding, hidden, dtype=np.float64, **options)
        net.theta += 0.5 * rng.standard_normal(net.theta.size)  # no gain of exactly 1, no bias of 0
        X, Y = rng.integers(vocab, size=(batch, context)), rng.integers(vocab, size=batch)
        _, memory, _ = forward(net, X)
        smooth = net.activation == "tanh" or min(np.abs(z).min() for z, *_ in memory) > 1e-3
    net.dtheta[:] = np.nan  # a pass that adds to old gradients, or leaves one out, shows
    loss_and_gradients(net, X, Y)
    for name, array, by_hand in zip(Arrays._fields, net.params, net.grads):
        numeric = np.zeros_like(array)
        for i, value in np.ndenumerate(array):
            array[i] = value + epsilon
            above = evaluate(net, X, Y)
            array[i] = value - epsilon
            below = evaluate(net, X, Y)
            array[i] = value
            numeric[i] = (above - below) / (2 * epsilon)
        if array.size:
            errors[name] = np.abs(by_hand - numeric).max() / max(np.abs(numeric).max(), 1e-4)
    return errors


# ------------------------------------------------------------------------------------ instruments


def inspect(net, X, Y):
    """Run a batch forward and backward, filling net.grads -> outputs, gradients.

    The outputs of each layer, before a residual is added, and the gradients of the layer's output:
    lists of (B, hidden).
    """
    h, memory, logits = forward(net, X)
    _, dlogits = cross_entropy(logits, Y)
    _, *gradients = backward(net, X, h, memory, dlogits)
    return [active for _, active, *_ in memory], gradients


def matrices(arrays):
    """The weight matrices and C -> {name: array}: C, W1, W2, ..., W_out."""
    layers = {f"W{i}": array for i, array in enumerate([arrays.W1, *arrays.W], 1)}
    return {"C": arrays.C, **layers, "W_out": arrays.W_out}


def log_ratios(net):
    """log10 of std(dtheta) / std(theta) for each weight matrix and C -> {name: float}.

    After a step of `train`, dtheta is the update, and this is the update-to-data ratio.

    Healthy is about -3: a step changes the parameters by a thousandth of their size. At -1, updates
    wreck what was learnt; at -5, training barely moves.
    """
    data, update = (
        {name: math.log10(max(array.std(), 1e-30)) for name, array in matrices(arrays).items()}
        for arrays in (net.params, net.grads)
    )
    return {name: update[name] - data[name] for name in data}


def stuck(active, activation):
    """Where a unit passes hardly any gradient -> (B, hidden) of bool: |tanh| > 0.97, or relu 0.

    A unit that is stuck for every example is dead: it learns nothing any more.
    """
    return np.abs(active) > 0.97 if activation == "tanh" else active == 0


def histogram(numbers, low, high, bins=24):
    """The distribution of numbers between low and high as a line of block characters."""
    if not 0 < high - low < math.inf:
        return ""
    counts, _ = np.histogram(numbers, bins, (low, high))
    levels = np.ceil(8 * counts / max(1, counts.max())).astype(int)
    return "".join(" ▁▂▃▄▅▆▇█"[level] for level in levels)


def output_range(outputs, activation):
    """What tanh can be, or what most outputs of relu are."""
    return (-1, 1) if activation == "tanh" else (0, 3 * float(max(out.std() for out in outputs)))


def show_reading(title, net, X, Y, lr):
    """Print two tables for a batch: the outputs and the gradients of every layer."""
    outputs, gradients = inspect(net, X, Y)
    ratios, (low, high) = log_ratios(net), output_range(outputs, net.activation)
    closed = "saturated" if net.activation == "tanh" else "zero"
    scale = f"{low} to {high:.2g}, zeros left out"
    click.echo(f"\n{title}: outputs for {len(X):,} examples")
    click.echo(f"layer    mean     std  {closed:>9}  dead units  {scale}")
    for i, out in enumerate(outputs, 1):
        row = f"{i:5}{out.mean():8.3f}{out.std():8.3f}{stuck(out, net.activation).mean():11.1%}"
        dead = stuck(out, net.activation).all(axis=0).sum()
        click.echo(f"{row}{dead:12}  {histogram(out[out != 0], low, high)}")
    edge = 3 * max(grad.std(dtype=float) for grad in gradients)
    click.echo(f"{title}: gradients of the outputs; log10(update/data) of W, healthy: about -3")
    click.echo(f"layer      std  update/data  from {-edge:.0e} to {edge:.0e}")
    for i, grad in enumerate(gradients, 1):
        row = f"{i:5}{grad.std(dtype=float):9.1e}{math.log10(lr) + ratios[f'W{i}']:13.2f}"
        click.echo(f"{row}  {histogram(grad, -edge, edge)}")


# --------------------------------------------------------------------------------------- pictures


def draw_shares(axes, named, low, high, title):
    """The shares of each array's numbers in 31 bins between low and high, a curve for each."""
    for name, numbers in named.items():
        counts, edges = np.histogram(numbers, 31, (low, high))
        label = f"{name}, std {numbers.std(dtype=float):.1e}"
        axes.plot((edges[1:] + edges[:-1]) / 2, counts / max(1, numbers.size), label=label)
    axes.set(title=title, ylabel="share")
    axes.set_ylim(bottom=0)
    axes.locator_params(axis="x", nbins=5)
    if len(named) <= 12:
        axes.legend(fontsize=8)


def draw_run(path, losses, start, ratios, net, X, Y):
    """Loss, distributions of outputs, gradients and weight gradients, update ratios, saturation."""
    from matplotlib.figure import Figure

    outs, grads = inspect(net, X, Y)
    figure = Figure(figsize=(11, 9), layout="constrained")
    (loss, outputs), (gradients, weights), (updates, units) = figure.subplots(3, 2)
    width = math.ceil(len(losses) / 100)
    if losses:
        curve = np.convolve(losses, np.full(width, 1 / width), mode="valid")  # (steps - width + 1,)
        loss.plot(start + width + np.arange(len(curve)), curve, linewidth=1)
        rest = curve[len(curve) // 20 :]
        loss.set_ylim(rest.min() - 0.05, rest.max() + 0.05)
    loss.set(xlabel="step", ylabel="loss in nats", title=f"Training loss, mean of {width:,} steps")

    layers = [f"layer {i}" for i in range(1, len(outs) + 1)]
    dW = {name: grad for name, grad in matrices(net.grads).items() if name != "C"}
    title = f"Outputs ({net.activation}, zeros left out)"
    named = {layer: out[out != 0] for layer, out in zip(layers, outs)}
    draw_shares(outputs, named, *output_range(outs, net.activation), title)
    edge = 3 * max(grad.std(dtype=float) for grad in grads)
    draw_shares(gradients, dict(zip(layers, grads)), -edge, edge, "Gradients of the outputs")
    edge = 3 * max(grad.std(dtype=float) for grad in dW.values())
    draw_shares(weights, dW, -edge, edge, "Gradients of the weights")
    for name in ["C", *dW] if ratios else []:
        updates.plot(ratios.keys(), [row[name] for row in ratios.values()], label=name, linewidth=1)
    updates.axhline(-3, color="black", linestyle=":", label="healthy")
    if len(dW) <= 12:
        updates.legend(fontsize=8, ncols=4, loc="upper right")
    updates.set(xlabel="step", ylim=(-6, 1.5), title="log10 of update / data")
    picture = np.concatenate([stuck(out[:40], net.activation) for out in outs])
    units.imshow(picture, cmap="gray", aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    for i in range(1, len(outs)):
        units.axhline(40 * i - 0.5, color="C3")
    white = "saturated" if net.activation == "tanh" else "zero"
    units.set(xlabel="unit", ylabel="40 examples for each layer", title=f"White: {white}")
    figure.savefig(path)


# ------------------------------------------------------------------------------------ checkpoints

SAVE_EVERY = 5.0  # seconds


def save(path, net, step, run):
    """Write a checkpoint beside `path`, then rename it: the file at `path` is always whole."""
    path = os.path.realpath(path)
    beside = f"{path}.{os.getpid()}.tmp"  # a name of its own for each process
    try:
        with open(beside, "wb") as file:
            np.savez(file, theta=net.theta, running=net.running, step=step, run=json.dumps(run))
        os.replace(beside, path)
    except OSError:
        Path(beside).unlink(missing_ok=True)
        raise


def load(path):
    """Read a checkpoint -> its arrays by name, and the settings of its run."""
    with open(path, "rb") as file:
        try:
            arrays = dict(np.load(file))
            return arrays, dict(json.loads(str(arrays["run"])))
        except Exception:  # zipfile, zlib, NumPy and json each raise their own
            raise click.ClickException(f"{path} is damaged or not a checkpoint") from None


def restore(path, net, run):
    """Fill theta and running from a checkpoint of this very run -> the number of steps done."""
    arrays, saved = load(path)
    for name, value in run.items():
        if saved.get(name) != value:
            difference = f"{name} {saved.get(name)!r:.50}, not {value!r:.50}"
            raise click.ClickException(f"{path} belongs to another run, with {difference}")
    expected = {"theta": net.theta, "running": net.running, "step": np.int64(0)}
    damaged = click.ClickException(f"{path} is damaged or not a checkpoint")
    for name, array in expected.items():
        found = arrays.get(name, np.array("missing"))
        if (found.shape, found.dtype) != (array.shape, array.dtype) or not np.isfinite(found).all():
            raise damaged
    if not 0 <= arrays["step"] <= run["steps"]:
        raise damaged
    net.theta[:], net.running[:] = arrays["theta"], arrays["running"]
    return int(arrays["step"])


def resume(ctx, option, path):
    """Make the settings in a checkpoint the defaults of the other options."""
    if path == "":
        raise click.BadParameter("the name of a file is missing.")
    if path and os.path.exists(path):
        ctx.default_map = {name: str(value) for name, value in load(path)[1].items()}
    return path


# ----------------------------------------------------------------------------------- command line


def fit(net, training, start, steps, checkpoint, run):
    """Train with a progress bar, ten lines of losses and checkpoints.

    -> the loss of each step, and {step: log_ratios} for about a hundred steps. Ctrl-C ends
    the training after the step it falls into. Raises click.ClickException if the loss diverges.
    """
    losses, ratios, shown, stop, vocab = [], {}, 0, [], len(net.params.C)
    live = sys.stdout.isatty() and sys.stderr.isatty()
    options = {"hidden": not live, "file": sys.stderr, "update_min_steps": 100}
    options["item_show_func"] = lambda item: item and f"loss {item[1]:.4f}"
    guess = f"uniform guess: ln {vocab} = {math.log(vocab):.4f}"
    interrupt = signal.signal(signal.SIGINT, lambda *_: stop.append("Ctrl-C"))
    click.echo(f"    step      loss, mean since the row above; {guess}")
    began = saved = time.perf_counter()
    try:
        with click.progressbar(training, steps - start, **options) as bar:
            for step, loss in bar:
                losses.append(loss)
                last = step == steps or bool(stop)
                due = last or time.perf_counter() - saved > SAVE_EVERY
                if not math.isfinite(loss) or due and not np.isfinite(net.theta).all():
                    message = "try a lower --lr, or --gradcheck if you changed the code"
                    raise click.ClickException(f"the loss diverged at step {step:,}: {message}")
                if step % math.ceil(steps / 100) == 0:
                    ratios[step] = log_ratios(net)
                if step == 1 or last or step % math.ceil(steps / 10) == 0:
                    clear = "\r\033[K" if live else ""  # the bar
                    click.echo(f"{clear}{step:8,} {np.mean(losses[shown:]):9.4f}")
                    shown = len(losses)
                if due:
                    if checkpoint:
                        save(checkpoint, net, step, run)
                    saved = time.perf_counter()
                if stop:
                    break
    finally:
        signal.signal(signal.SIGINT, interrupt)
    seconds, done = time.perf_counter() - began, len(losses)
    click.echo(f"{done:,} steps in {seconds:.1f} s ({seconds / max(1, done) * 1e6:.0f} µs/step)")
    return losses, ratios


def show_gradient_check(rng):
    pre, dz = rng.standard_normal((2, 32, 5))  # (32, 5), (32, 5)
    gain, bias = rng.standard_normal((2, 5))  # (5,), (5,)
    dgain, dbias = np.empty((2, 5))  # (5,), (5,)
    z, centred, inv_std, _, _ = batchnorm_forward(pre, gain, bias)
    short = z, batchnorm_backward(dz, gain, centred, inv_std, dgain, dbias), dgain, dbias
    long = batchnorm_step_by_step(pre, gain, bias, dz)
    error = np.max([np.abs(a - b).max() / np.abs(b).max() for a, b in zip(short, long)])
    worst = {"BatchNorm": (error, "the short way against the long way")}
    kinds = product((1, 3), (True, False), (True, False), ACTIVATIONS)
    for layers, batchnorm, residual, activation in kinds:
        net = {"layers": layers, "batchnorm": batchnorm, "residual": residual}
        for name, error in check_gradients(rng, **net, activation=activation).items():
            if not error <= worst.get(name, (0, ""))[0]:  # nan is worse than any error
                worst[name] = error, f"{layers=} {batchnorm=} {residual=} {activation}"
    click.echo("array      largest error         of 16 nets, in that with")
    for name, (error, where) in worst.items():
        click.echo(f"{name:9}  {error:13.1e}  {'ok   ' if error < 1e-6 else 'WRONG'}  {where}")
    if wrong := [name for name, (error, _) in worst.items() if not error < 1e-6]:
        raise click.ClickException(f"wrong gradients: {', '.join(wrong)}")
    click.echo("every gradient agrees with central differences within 1e-6")


# The five rows of the lecture's loss log: name, init, BatchNorm.
REPAIRS = [
    ("original", "naive", False),
    ("softmax fixed", "small-logits", False),
    ("tanh fixed", "scaled", False),
    ("kaiming", "kaiming", False),
    ("BatchNorm", "kaiming", True),
]


def show_comparison(net_options, splits, training, bn_stats):
    """Train each repair on the same data and minibatches, and show its losses."""
    (X, Y), dev, _ = splits
    live, dev_losses = sys.stdout.isatty() and sys.stderr.isatty(), {}
    click.echo(f"{'net':13}first loss     train       dev")
    for name, init, batchnorm in REPAIRS:
        options = net_options | {"init": init, "batchnorm": batchnorm}
        net = Net(np.random.default_rng(training["seed"]), **options)
        steps = train(net, X, Y, **training)
        options = {"hidden": not live, "file": sys.stderr, "update_min_steps": 100}
        with click.progressbar(steps, training["steps"], name, **options) as bar:
            losses = [loss for _, loss in bar]
        if not (np.isfinite(losses).all() and np.isfinite(net.theta).all()):
            raise click.ClickException(f"{name}: the loss diverged: try a lower --lr")
        plain = folded(net, net.running if bn_stats == "running" else calibrated(net, X))
        dev_losses[name] = evaluate(plain, *dev)
        row = losses[0], evaluate(plain, X, Y), dev_losses[name]
        clear = "\033[A\033[K" if live else ""  # the bar
        click.echo(f"{clear}{name:13}" + "".join(f" {loss:9.4f}" for loss in row))
    vocab = len(net.params.C)
    click.echo(f"first loss: a uniform guess costs ln {vocab} = {math.log(vocab):.4f}")
    best = min(dev_losses, key=dev_losses.get)
    click.echo(f"lowest on dev: {best}. What BatchNorm is good for, make depth shows.")


def positive(text):
    """Read a positive real number from the command line."""
    if not 1e-6 <= float(text) <= 1e6:
        raise click.BadParameter(f"{text} is not between 1e-6 and 1e6.")
    return float(text)


def not_negative(text):
    """Read 0 or a positive real number from the command line."""
    return 0.0 if float(text) == 0 else positive(text)


FILE, WORDS = click.Path(dir_okay=False), click.Path(exists=True, dir_okay=False)
STATS = click.Choice(["calibrated", "running"])
DECAY = "linear: to 0. step: to a tenth after half of the steps."
BN_STATS = "For inference: statistics of 8,192 examples, or running averages."
PLOT = "Picture of the instruments to draw, .png, .svg or .pdf (needs matplotlib)."
CHECKPOINT = "Save here every 5 seconds; resume from here, with its settings (except --data)."
COMPARE = "Train the five nets of the lecture's log, each with its own --init, and exit."


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
@click.option("--bn-stats", type=STATS, show_default="calibrated", help=BN_STATS)
@click.option("--seed", type=click.IntRange(0), default=42, help="Random seed.")
@click.option("--samples", type=click.IntRange(0, 10_000), default=20, help="Words to make up.")
@click.option("--prefix", default="", show_default=False, help="Prefix of every sample.")
@click.option("--temperature", type=positive, default=1.0, help="Sampling temperature.")
@click.option("--checkpoint", type=FILE, is_eager=True, callback=resume, help=CHECKPOINT)
@click.option("--plot", type=FILE, help=PLOT)
@click.option("--compare", is_flag=True, help=COMPARE)
@click.option("--gradcheck", is_flag=True, help="Check the gradients and exit.")
@np.errstate(all="ignore")  # what overflows shows in the loss
def main(
    data, steps, batch_size, lr, lr_decay, weight_decay, context, embedding, hidden, layers,
    residual, activation, init, no_batchnorm, bn_stats, seed, samples, prefix, temperature,
    checkpoint, plot, compare, gradcheck,
):  # fmt: skip
    """Train a deep net with BatchNorm on a list of words, and make up new ones."""
    rng = np.random.default_rng(seed)
    split_rng = rng.spawn(1)[0]  # the split stays the same, whatever else is drawn
    if gradcheck:
        return show_gradient_check(rng)
    if compare and (checkpoint or plot or prefix or no_batchnorm or not steps):
        message = "--compare takes no --checkpoint, --plot, --prefix, --no-batchnorm or --steps 0"
        raise click.UsageError(message)
    if bn_stats and no_batchnorm:
        raise click.UsageError("--bn-stats needs BatchNorm: it goes without --no-batchnorm")
    if batch_size == 1 and not no_batchnorm:
        message = "BatchNorm needs at least 2: a single sample has no variance"
        raise click.BadParameter(message, param_hint="--batch-size")
    if plot is not None and not plot.endswith((".png", ".svg", ".pdf")):
        raise click.BadParameter("draws .png, .svg or .pdf", param_hint="--plot")
    words = load_words(data)
    stoi, itos = build_vocab(words)
    splits = [build_dataset(part, stoi, context) for part in split_words(words, split_rng)]
    X, Y = splits[0]
    net_options = {
        "vocab": len(stoi), "context": context, "embedding": embedding, "hidden": hidden,
        "layers": layers, "batchnorm": not no_batchnorm, "residual": residual,
        "activation": activation, "init": init,
    }  # fmt: skip
    training = {
        "steps": steps, "batch_size": batch_size, "lr": lr, "schedule": SCHEDULES[lr_decay],
        "weight_decay": weight_decay, "seed": seed,
    }  # fmt: skip
    if compare:
        return show_comparison(net_options, splits, training, bn_stats)
    net = Net(rng, **net_options)
    checksum = zlib.crc32("\n".join(words).encode())
    run = {
        "script": "batchnorm.py", "words": f"{len(words):,} ({checksum:08x})", "seed": seed,
        "context": context, "embedding": embedding, "hidden": hidden, "layers": layers,
        "no_batchnorm": no_batchnorm, "residual": residual, "activation": activation,
        "init": init, "steps": steps, "batch_size": batch_size, "lr": lr, "lr_decay": lr_decay,
        "weight_decay": weight_decay,
    }  # fmt: skip
    start, losses, ratios, some = 0, [], {}, (X[:1024], Y[:1024])
    if checkpoint and os.path.exists(checkpoint):
        start = restore(checkpoint, net, run)
        click.echo(f"{checkpoint}: {start:,} of {steps:,} steps done")
    if unknown := set(prefix) - set("".join(words)):
        raise click.BadParameter(f"no word contains {min(unknown)!r}", param_hint="--prefix")
    click.echo(
        f"{len(words):,} words, {len(stoi)} characters, {len(X):,} training examples, "
        f"{net.theta.size:,} parameters"
    )

    if plot:
        draw_run(plot, losses, start, ratios, net, *some)  # fails now, if it must
    if start < steps:
        if checkpoint:
            save(checkpoint, net, start, run)  # likewise
        show_reading("before", net, *some, lr)
        click.echo()
        steps_of_training = train(net, X, Y, **training, start=start)
        losses, ratios = fit(net, steps_of_training, start, steps, checkpoint, run)
    show_reading("after", net, *some, lr)

    plain = folded(net, net.running if bn_stats == "running" else calibrated(net, X))
    click.echo("\nsplit      loss  perplexity = exp(loss): like a uniform guess among this many")
    for name, (x, y) in zip(("train", "dev", "test"), splits):
        loss = evaluate(plain, x, y)
        click.echo(f"{name:5} {loss:9.4f} {np.exp(loss):#11.4g}")
    known = set(words)
    for word in sample(plain, rng, itos, context, samples, prefix, temperature):
        click.echo(word if word in known else f"{word:19} new")
    if plot:
        draw_run(plot, losses, start, ratios, net, *some)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a character that the terminal lacks becomes a ?
    try:
        main()
    except (ImportError, MemoryError, OSError) as error:
        sys.exit(f"Error: {error}")
