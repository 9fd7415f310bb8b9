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
        h   = tanh(z)                           [+ h, from the second layer on, if residual]
    logits = h @ W_out + b_out                  (B, V)
    loss   = mean(-log softmax(logits)[Y])      in nats

Without BatchNorm, z = pre + bias. The backward pass applies the chain rule in reverse. With dx for
the gradient of the loss with respect to x, and sums over the batch,

    dlogits = (softmax(logits) - one_hot(Y)) / B
    dW_out  = h.T @ dlogits                     db_out = sum(dlogits)
    dh      = dlogits @ W_out.T
    for each layer, the last first:
        dz    = dh * (1 - tanh(z)^2)            or dh * [z > 0] for relu
        dbias = sum(dz)                         dgain = sum(dz * x)
        dpre  = see batchnorm_backward          or dz without BatchNorm
        dW    = h.T @ dpre                      with the h that went into the layer
        dh    = dpre @ W.T                      [+ dh, down to the second layer, if residual]
    dC = one_hot(X).T @ dh                      with a row of dh for each character

BatchNorm subtracts the mean, so that a bias added to `pre` would do nothing: `bias` comes after it.
What is the same as in mlp.py stands together near the end, under "as in stage 3".

    python batchnorm.py --steps 50000                              with instruments
    python batchnorm.py --steps 1000 --init naive --no-batchnorm   the net of stage 3, looked into
    python batchnorm.py --gradcheck                                check every gradient
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import copy
import math
import os
import sys
import time
import warnings
import zlib
from collections import namedtuple
from functools import cache
from itertools import product
from unicodedata import normalize

if "numpy" in sys.modules and "OPENBLAS_NUM_THREADS" not in os.environ:
    warnings.warn("slower, as NumPy was imported first and uses several threads", stacklevel=2)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # on matrices this small, threads only wait
sys.path.insert(0, os.path.dirname(__file__))  # for common, also with python -I

try:
    import click
    import numpy as np
except ImportError as error:
    sys.exit(f"Error: {error}. Needed: Python 3.11 or newer with numpy and click, see README.md")

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# ---------------------------------------------------------------------------------------- the net

ACTIVATIONS = "tanh", "relu"
INITS = "naive", "small-logits", "scaled", "kaiming", "zero"


class Net(namedtuple("Net", "C W1 W gain bias W_out b_out")):
    """The parameters; their gradients take the same form.

    C (V, embedding), W1 (context * embedding, hidden) of the first layer, W (layers - 1, hidden,
    hidden) of the others, gain (layers, hidden), or (0, hidden) without BatchNorm, bias (layers,
    hidden), W_out (hidden, V), b_out (V,). What is not a parameter, `residual` and `activation`, is
    an attribute.
    """

    residual, activation = False, "tanh"

    def _replace(self, **arrays):
        """The same kind of net, with some arrays replaced."""
        net = super()._replace(**arrays)
        net.residual, net.activation = self.residual, self.activation
        return net


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
    zero          all 0: only b_out learns, as every other gradient is a product with a 0

    With BatchNorm, gain = 1 and bias = 0, and the scale of W1 and W matters little. Raises
    ValueError for an unknown activation or init.
    """
    if activation not in ACTIVATIONS or init not in INITS:
        raise ValueError(f"no such activation or init: {activation!r}, {init!r}")
    net = Net(
        C=rng.standard_normal((vocab, embedding)).astype(dtype),
        W1=rng.standard_normal((context * embedding, hidden)).astype(dtype),
        W=rng.standard_normal((layers - 1, hidden, hidden)).astype(dtype),
        gain=np.ones((layers if batchnorm else 0, hidden), dtype),
        bias=rng.standard_normal((layers, hidden)).astype(dtype),
        W_out=rng.standard_normal((hidden, vocab)).astype(dtype),
        b_out=rng.standard_normal(vocab).astype(dtype),
    )
    net.residual, net.activation = residual, activation
    C, W1, W, gain, bias, W_out, b_out = net
    if init != "naive":
        W_out *= 0.01
        b_out *= 0
    if init == "kaiming":
        g = 5 / 3 if activation == "tanh" else math.sqrt(2)
        W1 *= g / math.sqrt(len(W1))
        W *= g / math.sqrt(hidden)
        bias *= 0.01
    elif init == "scaled":
        W1 *= 0.2
        W *= 0.2
        bias *= 0.01
    elif init == "zero":
        for array in (C, W1, W, bias, W_out):
            array *= 0
    if batchnorm:
        bias *= 0
    return net


# -------------------------------------------------------------------------------------- BatchNorm

EPSILON = 1e-5  # no division by zero for a unit without variance


def batchnorm_forward(pre, gain, bias):
    """pre (B, hidden) -> z, x (B, hidden), std, mean (hidden,).

    Over the batch, each unit gets mean 0 and standard deviation 1, then a deviation and a mean of
    its own to learn: gain and bias. The sum of squares is divided by n = B, as in the paper. The
    output for an example depends on the others of its batch; that is a kind of noise, and
    regularises a little. Raises ValueError for a batch of one.
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

    As z = gain * x + bias, dgain = sum(dz * x), dbias = sum(dz), and dx = gain * dz. Adding the
    same number to all rows of pre changes no x, so dpre has no such part: subtract mean(dx).
    Stretching all rows changes no x either: subtract the part of dx along x, x * mean(dx * x).

        dpre = (dx - mean(dx) - x * mean(dx * x)) / std
             = gain / std * (dz - dbias / n - x * dgain / n)

    with means over n = B. batchnorm_step_by_step derives the same line by line.
    """
    n = len(dz)
    dbias = dz.sum(axis=0)  # (hidden,)
    dgain = (dz * x).sum(axis=0)  # (hidden,)
    dpre = gain / std * (dz - dbias / n - x * (dgain / n))  # (B, hidden)
    return dpre, dgain, dbias


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


def forward(net, X):
    """Contexts X (B, context) -> h, memory, logits (B, V).

    h holds the input of each layer, and the output of the last one: (B, hidden), the first of them
    (B, context * embedding). memory holds (z, out, x, std, mean) of each layer.
    """
    C, W1, W, gain, bias, W_out, b_out = net
    emb = C.take(X, axis=0).reshape(len(X), -1)  # (B, context * embedding): C[X], but faster
    h, memory = [emb], []
    for i, weights in enumerate([W1, *W]):
        pre = h[i] @ weights  # (B, hidden)
        if len(gain):
            z, x, std, mean = batchnorm_forward(pre, gain[i], bias[i])
        else:
            z, x, std, mean = pre + bias[i], None, None, None
        out = np.tanh(z) if net.activation == "tanh" else np.maximum(z, 0)  # (B, hidden)
        memory.append((z, out, x, std, mean))
        h.append(out + h[i] if net.residual and i else out)  # (B, hidden)
    logits = h[-1] @ W_out + b_out  # (B, V)
    return h, memory, logits


def backward(net, X, h, memory, dlogits):
    """Backpropagate dlogits (B, V) -> a Net of gradients, and the gradients of h, a list like h."""
    C, W1, W, gain, bias, W_out, b_out = net
    dW_out = h[-1].T @ dlogits  # (hidden, V)
    db_out = dlogits.sum(axis=0)  # (V,)
    weights = [W1, *W]
    dweights, dh = [None] * len(weights), [None] * len(h)
    dgain, dbias = np.zeros(gain.shape, C.dtype), np.zeros(bias.shape, C.dtype)
    dh[-1] = dlogits @ W_out.T  # (B, hidden)
    for i in reversed(range(len(weights))):
        z, out, x, std, _ = memory[i]
        slope = 1 - out * out if net.activation == "tanh" else z > 0  # (B, hidden)
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
    dW1, *dW = dweights
    dW = np.reshape(dW, W.shape)  # also where dW is an empty list
    return Net(dC, dW1, dW, dgain, dbias, dW_out, db_out), dh


def loss_and_gradients(net, X, Y):
    """Contexts X (B, context), targets Y (B,) -> (mean loss in nats, a Net of gradients)."""
    h, memory, logits = forward(net, X)
    loss, dlogits = cross_entropy(logits, Y)
    gradients, _ = backward(net, X, h, memory, dlogits)
    return loss, gradients


# ---------------------------------------------------------------------------- training, inference


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
        for parameter, gradient in zip(net, gradients):
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
    C, W1, W, gain, bias, W_out, b_out = net
    if not len(gain):
        return copy.deepcopy(net)
    _, memory, _ = forward(net, X[:8192])
    scale = gain / [std for *_, std, _ in memory]  # (layers, hidden)
    shift = bias - scale * [mean for *_, mean in memory]  # (layers, hidden)
    W = W * scale[1:, None]  # (layers - 1, hidden, hidden)
    return copy.deepcopy(net._replace(W1=W1 * scale[0], W=W, gain=gain[:0], bias=shift))


# ----------------------------------------------------------------------------- checking gradients


def check_gradients(rng, epsilon=1e-6, batch=6, **options):
    """Compare the gradients with central differences in float64 -> {array: relative error}.

    dloss/dx is about (loss(x + epsilon) - loss(x - epsilon)) / (2 epsilon). `options` are those of
    new_net.
    """
    smooth = False
    while not smooth:  # at the kink of relu there is no derivative: no z may come near it
        net = new_net(rng, 7, 3, 4, 5, dtype=np.float64, **options)
        for array in net:
            array += 0.5 * rng.standard_normal(array.shape)  # no gain of exactly 1, no bias of 0
        X, Y = rng.integers(7, size=(batch, 3)), rng.integers(7, size=batch)
        _, memory, _ = forward(net, X)
        smooth = net.activation == "tanh" or min(np.abs(z).min() for z, *_ in memory) > 1e-3
    loss, gradients = loss_and_gradients(net, X, Y)
    errors = {}
    for name, array, by_hand in zip(Net._fields, net, gradients):
        numeric = np.zeros_like(array)
        for i, value in np.ndenumerate(array):
            array[i] = value + epsilon
            above = evaluate(net, X, Y)
            array[i] = value - epsilon
            below = evaluate(net, X, Y)
            array[i] = value
            numeric[i] = (above - below) / (2 * epsilon)
        if array.size:
            errors[name] = relative_error(by_hand, numeric)
    errors["folded"] = relative_error(evaluate(folded(net, X), X, Y, chunk=4), loss)
    if math.inf in errors.values():  # missing or of a wrong shape: no step can be taken
        return errors
    # A step of train, from the middle of two, at a rate of 0.5 on the minibatch that it draws.
    batch = np.random.default_rng([0, 1]).integers(len(X), size=(1000, 4))[1]  # (4,)
    before, (_, gradients) = copy.deepcopy(net), loss_and_gradients(net, X[batch], Y[batch])
    next(train(net, X, Y, 2, 4, lambda done: done, seed=0, start=1, weight_decay=0.1))
    after = [array - 0.5 * (gradient + 0.1 * array) for array, gradient in zip(before, gradients)]
    errors["train"] = max(map(relative_error, net, after))
    return errors


def check_batchnorm(rng):
    """Compare BatchNorm with the long way -> the largest relative error of both passes."""
    pre, dz = rng.standard_normal((2, 32, 5))  # (32, 5), (32, 5)
    gain, bias = rng.standard_normal((2, 5))  # (5,), (5,)
    z, x, std, _ = batchnorm_forward(pre, gain, bias)
    short = z, *batchnorm_backward(dz, gain, x, std)
    return max(map(relative_error, short, batchnorm_step_by_step(pre, gain, bias, dz)))


def check_all(rng):
    """Check 12 kinds of nets and their parts -> {name: (largest error, in which net)}."""
    errors = {
        "BatchNorm": (check_batchnorm(rng), "against the long way"),
        "cross entropy": (check_cross_entropy(rng), "against the long way"),
    }
    depths = (3, True), (3, False), (1, False)
    for (layers, residual), batchnorm, activation in product(depths, (True, False), ACTIVATIONS):
        net = {"layers": layers, "residual": residual, "batchnorm": batchnorm}
        kind = f"{layers} layers", activation, "residual" * residual, "BatchNorm" * batchnorm
        where = ", ".join(filter(None, kind))
        for name, error in check_gradients(rng, **net, activation=activation).items():
            if name not in errors or error > errors[name][0]:
                errors[name] = error, where
    return errors


def report(errors):
    """Print a row for each error. Raises click.ClickException if one is not below 1e-6."""
    click.echo("checked      largest error         in which net")
    for name, (error, where) in errors.items():
        verdict = "ok" if error < 1e-6 else "WRONG"
        if error == 0 and name in Net._fields:
            verdict = "all zero"
        click.echo(f"{name:13}{error:13.1e}  {verdict:8}  {where}")
    if wrong := [name for name, (error, _) in errors.items() if not error < 1e-6]:
        raise click.ClickException(f"wrong gradients: {', '.join(wrong)}")
    click.echo("every gradient agrees with central differences within 1e-6")


# ------------------------------------------------------------------------------------ instruments


def log_ratios(before, net):
    """log10 of std(update) / std(data) of one step -> {array: float}; nan if one of them is 0.

    Healthy is about -3: a step changes the numbers by a thousandth of their spread. At -1, by a
    tenth, they jump about (harmless at first for W_out and b_out, which start near 0); at -5,
    training barely moves. It is necessary, not sufficient: a net with saturated units can show -3.
    """
    ratios = {}
    for (name, old), new in zip(matrices(before).items(), matrices(net).values()):
        data, update = old.std(dtype=float), (new - old).std(dtype=float)
        ratios[name] = math.log10(update / data) if update and data else math.nan
    return ratios


def matrices(net):
    """The arrays whose updates are measured, one for each layer -> {name: array}."""
    layers = {f"W{i}": weights for i, weights in enumerate([net.W1, *net.W], 1)}
    return {"C": net.C, **layers, "W_out": net.W_out, "b_out": net.b_out}


def measured(net, training, steps, ratios):
    """Pass on the steps of `training`, putting the log_ratios of about a hundred into `ratios`."""
    before = copy.deepcopy(net)
    for step, loss in training:
        if before:
            ratios[step] = log_ratios(before, net)
        due = (step + 1) % math.ceil(steps / 100) == 0 or step + 1 == steps
        before = copy.deepcopy(net) if due else None
        yield step, loss


def stuck(out, activation):
    """Where a unit passes hardly any gradient -> (B, hidden) of bool: |tanh| > 0.97, or relu 0.

    A unit that is stuck for every example is dead: it hardly learns from any of them.
    """
    return np.abs(out) > 0.97 if activation == "tanh" else out == 0


def histogram(numbers, low, high, bins=24):
    """The distribution of numbers between low and high as a line of block characters."""
    counts, _ = np.histogram(numbers, bins, (low, high))
    levels = np.ceil(8 * counts / max(1, counts.max())).astype(int)
    unicode = "utf" in str(getattr(sys.stdout, "encoding", None)).lower()
    blocks = " ▁▂▃▄▅▆▇█" if unicode else " .:-=+*#@"
    return "".join(blocks[level] for level in levels)


def inspect(net, X, Y):
    """Run a batch forward and backward -> the outputs of each layer, and their gradients.

    Two lists of (B, hidden). Raises click.ClickException if the outputs overflow.
    """
    h, memory, logits = forward(net, X)
    if not np.isfinite(logits).all():
        raise click.ClickException("the outputs overflow: try another --init, or fewer layers")
    _, dlogits = cross_entropy(logits, Y)
    _, dh = backward(net, X, h, memory, dlogits)
    return [out for _, out, *_ in memory], dh[1:]


def show_reading(title, net, X, Y):
    """Print a row for each layer: its outputs for a batch, and the loss's gradients there."""
    outs, dh = inspect(net, X, Y)
    shut = "saturated" if net.activation == "tanh" else "zero"
    low, high = output_range(net, outs)
    click.echo(f"\n{title}: each layer's outputs for {len(X):,} examples, and their gradients")
    click.echo(f"layer    mean     std  {shut:>9}  dead  gradient  outputs, {low} to {high:.2g}")
    for i, (out, grad) in enumerate(zip(outs, dh), 1):
        closed = stuck(out, net.activation)  # (B, hidden)
        row = f"{i:5}{out.mean():8.3f}{out.std():8.3f}{closed.mean():11.1%}"
        row += f"{closed.all(axis=0).sum():6}{grad.std(dtype=float):10.1e}"
        click.echo(f"{row}  {histogram(out[out != 0], low, high)}")
    first, last = dh[0].std(dtype=float), dh[-1].std(dtype=float)
    if not first:
        click.echo("No gradient reaches the first layer: it learns nothing.")
    elif len(outs) > 1:
        change = f"grow {first / last:.3g}" if first > last else f"shrink {last / first:.3g}"
        click.echo(f"From the last layer to the first, the gradients {change}-fold; best is 1.")


def show_ratios(ratios):
    """Print the log_ratios of the first, the middle and the last step in `ratios`."""
    steps = sorted(ratios)
    steps = sorted({steps[0], steps[len(steps) // 2], steps[-1]})
    click.echo("\nlog10(update/data)" + "".join(f"{f'step {step:,}':>16}" for step in steps))
    for name in ratios[steps[0]]:
        row = [f"{ratios[step][name]:.2f}".replace("nan", "-") for step in steps]
        click.echo(f"{name:18}" + "".join(f"{ratio:>16}" for ratio in row))
    click.echo("Healthy: about -3, but sick nets can show it too. -: array or update is 0.")


# --------------------------------------------------------------------------------------- pictures


def output_range(net, outs):
    """The range that the outputs are shown in -> (low, high)."""
    return (-1, 1) if net.activation == "tanh" else (0, 3 * max(float(out.std()) for out in outs))


def draw_shares(axes, named, low, high, title):
    """The shares of each array's numbers in 40 bins between low and high, a curve for each."""
    for name, numbers in named.items():
        counts, edges = np.histogram(numbers, 40, (low, high))
        axes.plot((edges[1:] + edges[:-1]) / 2, counts / max(1, numbers.size), label=name)
    axes.set(title=title, ylabel="share")


def draw_run(path, losses, ratios, net, X, Y):
    """Loss, distributions of the outputs and of their gradients, and update ratios."""
    from matplotlib.figure import Figure

    outs, dh = inspect(net, X, Y)
    outs = {f"layer {i}": out for i, out in enumerate(outs, 1)}
    figure = Figure(figsize=(11, 8), layout="constrained")
    (loss, outputs), (gradients, updates) = figure.subplots(2, 2)
    draw_loss(loss, losses, len(net.C))
    title = f"Outputs ({net.activation}, zeros left out)"
    named = {name: out[out != 0] for name, out in outs.items()}
    draw_shares(outputs, named, *output_range(net, outs.values()), title)
    # On a log axis, narrow distributions are seen beside wide ones.
    named = {name: np.log10(np.abs(grad[grad != 0])) for name, grad in zip(outs, dh)}
    low, high = np.percentile(np.concatenate([[-9, 0], *named.values()]), [1, 99])  # never empty
    draw_shares(gradients, named, low, high, "log10 of the size of the outputs' gradients")
    for name in matrices(net) if ratios else []:
        updates.plot(ratios.keys(), [row[name] for row in ratios.values()], label=name, linewidth=1)
    updates.axhline(-3, color="black", linestyle=":", label="healthy")
    updates.set(xlabel="step", ylim=(-6, 1), title="log10 of update / data")
    for axes in (outputs, gradients, updates):
        axes.legend(fontsize=8, ncols=1 + len(outs) // 12)
    figure.savefig(path)


# ---------------------------------------------------------------------------------- as in stage 3

# Fold a net with BatchNorm before evaluate and sample: each chunk would be a batch of its own.

identity = cache(np.identity)  # made once: in every step, it would take a tenth of the time


def one_hot(tokens, vocab, dtype):
    """Tokens (N,) -> (N, vocab), a single 1 in each row: row i of the identity matrix for i."""
    return identity(vocab, dtype).take(tokens, axis=0)


def cross_entropy(logits, Y):
    """Mean of -log softmax(logits)[Y] in nats, and its gradient -> (loss, dlogits (B, V)).

    For one row z with target y, and p = softmax(z),

        loss = -log p_y = log(sum_j exp z_j) - z_y
        dloss/dz_i = exp z_i / sum_j exp z_j - [i = y] = p_i - [i = y]

    The mean divides both by B. Subtracting the maximum of a row does not change its softmax, and
    exp cannot overflow.
    """
    B, V = logits.shape
    onehot = one_hot(Y, V, logits.dtype)  # (B, V)
    shifted = logits - logits.max(axis=1, keepdims=True)  # (B, V)
    counts = np.exp(shifted)  # (B, V)
    total = counts.sum(axis=1)  # (B,)
    loss = (np.log(total) - shifted[onehot == 1]).sum() / B
    probs = counts / total[:, None]  # (B, V)
    dlogits = (probs - onehot) / B  # (B, V)
    return float(loss), dlogits


def evaluate(net, X, Y, chunk=1024):
    """Mean loss in nats over all examples, a chunk at a time."""
    total = 0.0
    for i in range(0, len(X), chunk):
        x, y = X[i : i + chunk], Y[i : i + chunk]  # (chunk, context), (chunk,)
        loss, _ = cross_entropy(forward(net, x)[-1], y)
        total += loss * len(y)
    return total / len(X)


def sample(net, rng, stoi, itos, context, prefix="", temperature=1.0, longest=100):
    """Make up a word that starts with `prefix` -> str, cut at `longest` characters.

    Each next character is drawn from softmax(logits / temperature), until it is the dot. Raises
    KeyError for a prefix character without a token.
    """
    tokens = [0] * context + [stoi[character] for character in prefix]
    while len(tokens) < context + longest:
        *_, logits = forward(net, np.array([tokens[-context:]]))  # (1, V)
        scores = logits[0].astype(float) / temperature  # (V,)
        counts = np.exp(scores - scores.max())  # (V,)
        token = rng.choice(len(counts), p=counts / counts.sum())
        if token == 0:
            break
        tokens.append(token)
    return "".join(itos[token] for token in tokens[context:])


def relative_error(found, expected):
    """The largest difference over the largest expected number (at least 1e-4); inf for nan."""
    if np.shape(found) != np.shape(expected):
        return math.inf
    error = np.abs(found - expected).max(initial=0) / np.abs(expected).max(initial=1e-4)
    return math.inf if math.isnan(error) else error


def cross_entropy_step_by_step(logits, Y):
    """Both passes the long way, a line for each operation, and one for its gradient in reverse.

    -> (loss, dlogits (B, V)). --gradcheck compares cross_entropy with it.
    """
    rows = np.arange(len(Y))  # (B,)
    maximum = logits.max(axis=1, keepdims=True)  # (B, 1)
    shifted = logits - maximum  # (B, V)
    counts = np.exp(shifted)  # (B, V)
    total = counts.sum(axis=1, keepdims=True)  # (B, 1)
    probs = counts / total  # (B, V)
    log_probs = np.log(probs)  # (B, V)
    loss = -log_probs[rows, Y].mean()

    dlog_probs = np.zeros_like(logits)  # (B, V)
    dlog_probs[rows, Y] = -1 / len(Y)
    dprobs = dlog_probs / probs  # (B, V)
    dtotal = -(dprobs * counts / total**2).sum(axis=1, keepdims=True)  # (B, 1)
    dcounts = dprobs / total + dtotal  # (B, V), as counts enter probs directly and through total
    dshifted = dcounts * counts  # (B, V)
    dmaximum = -dshifted.sum(axis=1, keepdims=True)  # (B, 1), about 0: it changes no loss
    dlogits = dshifted.copy()  # (B, V)
    dlogits[rows, logits.argmax(axis=1)] += dmaximum[:, 0]
    return loss, dlogits


def check_cross_entropy(rng):
    """Compare cross_entropy with the long way, and where exp would overflow -> relative error."""
    logits, Y = rng.standard_normal((6, 7)), rng.integers(7, size=6)  # (6, 7), (6,)
    pairs = [*zip(cross_entropy(logits, Y), cross_entropy_step_by_step(logits, Y))]
    logits = np.array([[5000.0, 0.0, -math.inf], [0.0, 0.0, 0.0]])  # (2, 3)
    loss, dlogits = cross_entropy(logits, np.array([1, 2]))
    pairs.append((loss, (5000 + math.log(3)) / 2))
    pairs.append((6 * dlogits, np.array([[3, -3, 0], [1, 1, -2]])))
    return max(relative_error(found, expected) for found, expected in pairs)


def draw_loss(axes, losses, vocab):
    """The training loss on log axes; each point is the mean of more steps than the one before."""
    edges = np.unique(np.geomspace(1, len(losses) + 1, 300).astype(int))
    axes.plot(edges[:-1], [np.mean(losses[i - 1 : j - 1]) for i, j in zip(edges, edges[1:])])
    axes.axhline(math.log(vocab), color="black", linestyle=":", label="uniform guess")
    axes.set(title="Training loss", xlabel="step", ylabel="loss in nats")
    axes.set(xscale="log", yscale="log", xlim=(1, len(losses) + 2))
    axes.set_yticks([2, 3, 5, 10, 20], [2, 3, 5, 10, 20])
    axes.yaxis.minorticks_off()
    axes.legend()


SAVE_EVERY = 5.0  # seconds
SETTINGS = (  # of a run
    "steps", "batch_size", "lr", "weight_decay", "context", "embedding", "hidden", "layers",
    "residual", "no_batchnorm", "activation", "init", "seed",
)  # fmt: skip


def save(path, net, losses, run):
    """Write a checkpoint beside `path`, then rename it: the file at `path` is always whole.

    `run` holds the settings, the script and the words. Raises click.ClickException if another run
    has written to `path` in the meantime.
    """
    beside = f"{path}.{os.getpid()}.tmp"
    try:
        with open(beside, "wb") as file:
            np.savez(file, **net._asdict(), losses=losses, **run)
        if os.path.exists(path):
            load(path, run)
            os.chmod(beside, os.stat(path).st_mode)
        os.replace(beside, path)
    finally:
        if os.path.exists(beside):
            os.remove(beside)


def load(path, run=None, net=None):
    """Read a checkpoint -> (its run, the losses of its steps), and fill the net if one is given.

    Raises click.ClickException if it is damaged, or of another run.
    """
    with open(path, "rb") as file:
        try:
            archive = np.load(file)
            if any(entry.compress_type for entry in archive.zip.infolist()):
                raise ValueError("np.savez does not compress, and this may be huge")
            names = {"script", "words", *SETTINGS} & set(archive)
            saved = {name: archive[name].item() for name in names}
            for name, value in (run or {}).items():
                if saved.get(name) != value:
                    difference = f"{name} {saved.get(name)!r:.50}, not {value!r:.50}"
                    raise click.ClickException(f"{path} belongs to another run, with {difference}")
            for name, array in net._asdict().items() if net else ():
                if archive[name].shape != array.shape or not np.isfinite(archive[name]).all():
                    raise ValueError(f"not an array of this net: {name}")
                np.copyto(array, archive[name], casting="equiv")
            losses = archive["losses"].astype(float).tolist()
            if len(losses) > saved["steps"]:
                raise ValueError("more losses than steps")
            return saved, losses
        except click.ClickException:
            raise
        except Exception:  # zipfile, zlib and NumPy each raise their own
            raise click.ClickException(f"{path} is damaged or not a checkpoint") from None


def defaults_from(ctx, option, path):
    """Make the settings in a checkpoint the defaults of the other options."""
    if path and os.path.exists(path):
        if not os.path.isfile(path):
            raise click.BadParameter(f"{path} is not a regular file.")
        saved, _ = load(path)
        ctx.default_map = {name: str(saved[name]) for name in SETTINGS if name in saved}
    return path


def fit(net, training, losses, steps, checkpoint, run):
    """Train, appending to losses; print about ten rows of them and the time left; save checkpoints.

    Ctrl-C ends the training early. Raises click.ClickException if the loss diverges.
    """
    start = shown = len(losses)
    live = all(stream and stream.isatty() for stream in (sys.stdout, sys.stderr))
    clear = "\r\033[K" if live else ""  # the line with the time left
    guess = f"uniform guess: ln {len(net.C)} = {math.log(len(net.C)):.4f}"
    click.echo(f"    step      loss, mean since the row above; {guess}")
    began = saved = told = time.perf_counter()
    try:
        for step, loss in training:
            losses.append(loss)
            now = time.perf_counter()
            due = step == steps or now - saved > SAVE_EVERY
            if not math.isfinite(loss) or due and not all(np.isfinite(a).all() for a in net):
                click.echo(clear, nl=False, err=True)
                message = "try a lower --lr, or --gradcheck if you changed the code"
                raise click.ClickException(f"the loss diverged at step {step:,}: {message}")
            if step in (1, steps) or step % math.ceil(steps / 10) == 0:
                click.echo(f"{clear}{step:8,} {np.mean(losses[shown:]):9.4f}")
                shown = len(losses)
            elif live and now - told > 0.2:
                left = (now - began) / (step - start) * (steps - step)
                click.echo(f"{clear}{step / steps:4.0%}, {left:.0f} s left", nl=False, err=True)
                told = now
            if due:
                if checkpoint:
                    save(checkpoint, net, losses, run)
                saved = now
    except KeyboardInterrupt:
        click.echo(f"{clear}stopped by Ctrl-C")
    seconds, done = time.perf_counter() - began, len(losses) - start
    click.echo(f"{done:,} steps in {seconds:.1f} s ({seconds / max(1, done) * 1e6:.0f} µs/step)")


def positive(text):
    """Read a positive real number from the command line."""
    if not 1e-6 <= float(text) <= 1e6:
        raise click.BadParameter(f"{text} is not between 1e-6 and 1e6.")
    return float(text)


# ----------------------------------------------------------------------------------- command line


def not_negative(text):
    """Read 0 or a positive real number from the command line."""
    return 0.0 if float(text) == 0 else positive(text)


WORDS = click.Path(exists=True, dir_okay=False, resolve_path=True)
FILE = click.Path(dir_okay=False, resolve_path=True)
COUNT, SIZE = click.IntRange(0, 10**7), click.IntRange(1, 100)
PLOT = "Picture of the instruments to draw (needs matplotlib)."
CHECKPOINT = "Save here every 5 seconds; resume from here, with its settings (except --data)."


@click.command(context_settings={"show_default": True})
@click.option("--data", type=WORDS, default=NAMES, show_default="names.txt", help="Word list.")
@click.option("--steps", type=COUNT, default=200_000, help="Training steps.")
@click.option("--batch-size", type=click.IntRange(1, 10_000), default=32, help="Examples per step.")
@click.option("--lr", type=positive, default=0.1, help="Learning rate at first; it falls to 0.")
@click.option(
    "--weight-decay", type=not_negative, default=0.0, help="Weight decay of all parameters."
)
@click.option("--context", type=SIZE, default=3, help="Characters of input.")
@click.option("--embedding", type=SIZE, default=10, help="Numbers per character.")
@click.option("--hidden", type=click.IntRange(1, 1000), default=200, help="Units per hidden layer.")
@click.option("--layers", type=click.IntRange(1, 50), default=1, help="Hidden layers.")
@click.option("--residual", is_flag=True, help="Add the input of a layer to its output.")
@click.option("--activation", type=click.Choice(ACTIVATIONS), default="tanh", help="Nonlinearity.")
@click.option("--init", type=click.Choice(INITS), default="kaiming", help="Scale of the weights.")
@click.option("--no-batchnorm", is_flag=True, help="Use a plain bias instead of BatchNorm.")
@click.option("--seed", type=click.IntRange(0), default=42, help="Random seed.")
@click.option("--samples", type=click.IntRange(0, 10_000), default=20, help="Words to make up.")
@click.option("--prefix", default="", show_default=False, help="Prefix of every sample.")
@click.option("--temperature", type=positive, default=1.0, help="Sampling temperature.")
@click.option("--checkpoint", type=FILE, is_eager=True, callback=defaults_from, help=CHECKPOINT)
@click.option("--plot", type=FILE, help=PLOT)
@click.option("--gradcheck", is_flag=True, help="Check the gradients and exit.")
@click.pass_context
@np.errstate(all="ignore")  # what overflows shows in the loss
def main(
    ctx, data, steps, batch_size, lr, weight_decay, context, embedding, hidden, layers, residual,
    activation, init, no_batchnorm, seed, samples, prefix, temperature, checkpoint, plot, gradcheck,
):  # fmt: skip
    """Train a deep net with BatchNorm on a list of words, and make up new ones."""
    rng = np.random.default_rng(seed)
    split_rng = rng.spawn(1)[0]  # the split stays the same, whatever else is drawn
    if gradcheck:
        return report(check_all(rng))
    if plot and (plot == checkpoint or os.path.splitext(plot)[1] not in (".png", ".svg", ".pdf")):
        raise click.BadParameter("not a .png, .svg or .pdf file of its own", param_hint="--plot")
    if batch_size == 1 and not no_batchnorm:
        message = "BatchNorm needs at least 2: a single sample has no variance"
        raise click.BadParameter(message, param_hint="--batch-size")
    words, prefix = load_words(data), normalize("NFC", prefix)
    if unknown := set(prefix) - set("".join(words)):
        raise click.BadParameter(f"no word contains {min(unknown)!r}", param_hint="--prefix")
    stoi, itos = build_vocab(words)
    splits = [build_dataset(part, stoi, context) for part in split_words(words, split_rng)]
    X, Y = splits[0]
    sizes = len(stoi), context, embedding, hidden, layers
    net = new_net(rng, *sizes, not no_batchnorm, residual, activation, init)
    losses, ratios, known, probe = [], {}, set(words), (X[:1024], Y[:1024])
    checksum = zlib.crc32("\n".join(words).encode())
    run = {name: ctx.params[name] for name in SETTINGS}
    run |= {"script": "batchnorm.py", "words": f"{len(words):,} ({checksum:08x})"}
    if checkpoint and os.path.exists(checkpoint):
        _, losses = load(checkpoint, run, net)
        click.echo(f"{checkpoint}: {len(losses):,} of {steps:,} steps done")
    click.echo(
        f"{len(words):,} words ({len(known):,} distinct), {len(X):,} training examples, "
        f"{sum(array.size for array in net):,} parameters"
    )
    click.echo(f"{len(stoi)} characters: {repr(''.join(stoi))[1:-1]}"[:80])

    if len(losses) < steps:
        show_reading("before", net, *probe)
        if plot:
            draw_run(plot, losses, ratios, net, *probe)  # fail early if it cannot be drawn
        if checkpoint:
            save(checkpoint, net, losses, run)  # fail early if it cannot be written
        click.echo()
        start, rate = len(losses), lambda done: lr * (1 - done)
        training = train(net, X, Y, steps, batch_size, rate, seed, start, weight_decay)
        fit(net, measured(net, training, steps, ratios), losses, steps, checkpoint, run)
    show_reading("after", net, *probe)
    if ratios:
        show_ratios(ratios)

    plain = folded(net, X)
    click.echo("\nsplit      loss  perplexity = exp(loss): as unsure as a guess among this many")
    ends = [evaluate(plain, x, y) for x, y in splits]
    for name, loss in zip(("train", "dev", "test"), ends):
        click.echo(f"{name:5} {loss:9.4f} {np.exp(loss):#11.4g}")
    if ends[0] > math.log(len(stoi)):
        click.echo("Worse than a uniform guess: train longer, or with a lower --lr.", err=True)
    if ends[1] > ends[0] + 0.5:
        click.echo("dev is far above train: the net has learnt its words by heart.", err=True)
    longest = 2 * max(map(len, words))
    for _ in range(samples):
        word = sample(plain, rng, stoi, itos, context, prefix, temperature, longest).strip()
        mark = "" if word in known else "new" if len(word) < longest else "cut"
        click.echo(f"{word or '(empty)':19} {mark}".rstrip())
    if plot:
        draw_run(plot, losses, ratios, net, *probe)


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # not so in a notebook
        sys.stdout.reconfigure(errors="replace")  # a character that the terminal lacks becomes a ?
    try:
        main()
    except ImportError as error:  # of matplotlib
        sys.exit(f"Error: {error}: pip install {error.name}")
    except (MemoryError, OSError) as error:
        sys.exit(f"Error: {str(error) or 'out of memory'}")
