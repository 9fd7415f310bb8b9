#!/usr/bin/env -S uv run --script
"""Stage 3: a multilayer perceptron that learns to make up names, every gradient derived by hand.

The model of Bengio et al. 2003, "A Neural Probabilistic Language Model", in the sizes of the
lecture "Building makemore, part 2": three characters in, the next one out. For a batch of B
contexts X with the targets Y and an alphabet of V characters, the forward pass is

    emb    = C[X]                     (B, context * embedding)   the rows of C, concatenated
    h      = tanh(emb @ W1 + b1)      (B, hidden)
    logits = h @ W2 + b2              (B, V)                     a score for every next character
    loss   = mean(-log softmax(logits)[Y])                       in nats

The backward pass applies the chain rule to these lines in reverse. With dx for the gradient of the
loss with respect to x, and sums over the batch,

    dlogits = (softmax(logits) - one_hot(Y)) / B                 (B, V)
    dW2     = h.T @ dlogits           db2 = sum(dlogits)         (hidden, V) and (V,)
    dh      = dlogits @ W2.T                                     (B, hidden)
    dpre    = dh * (1 - h^2)          tanh' = 1 - tanh^2         (B, hidden)
    dW1     = emb.T @ dpre            db1 = sum(dpre)            shaped like W1 and b1
    demb    = dpre @ W1.T                                        (B, context * embedding)
    dC      = one_hot(X).T @ demb     as C[X] = one_hot(X) @ C   (V, embedding)

    python mlp.py --steps 50000               train, evaluate and make up 20 names
    python mlp.py --prefix mar --samples 5    the lecture's 200,000 steps, names that start with mar
    python mlp.py --gradcheck                 compare every gradient with central differences
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
import warnings
import zlib
from collections import namedtuple
from functools import cache
from itertools import takewhile
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # on matrices this small, threads only wait

import click
import numpy as np

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# ---------------------------------------------------------------------------------------- the net


Arrays = namedtuple("Arrays", "C W1 b1 W2 b2")


class Net:
    """The parameters, each drawn from N(0, 1) as in the lecture, and their gradients.

    Such parameters are far too large: the net starts out confident and wrong. Stage 4 initialises
    it better. The five arrays in `params` are views into one flat vector, theta, and those in
    `grads` into another, dtheta: an update or a checkpoint needs only these two.
    """

    def __init__(self, rng, vocab, context, embedding, hidden, dtype=np.float32):
        shapes = [
            (vocab, embedding),  # C, a row for each character
            (context * embedding, hidden),  # W1
            (hidden,),  # b1
            (hidden, vocab),  # W2
            (vocab,),  # b2
        ]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        self.theta = rng.standard_normal(ends[-1]).astype(dtype)
        self.dtheta = np.zeros_like(self.theta)
        self.params, self.grads = (
            Arrays(*(part.reshape(shape) for part, shape in zip(np.split(flat, ends), shapes)))
            for flat in (self.theta, self.dtheta)
        )

    def __setattr__(self, name, array):
        """Refuse to put another array in place of one: its views would still show the old one."""
        if vars(self).setdefault(name, array) is not array:
            raise AttributeError(f"net.{name} cannot be replaced: change its elements in place")


# -------------------------------------------------------------------- forward and backward passes

ones, identity = cache(np.ones), cache(np.identity)  # made once instead of every step


def one_hot(tokens, vocab, dtype):
    """Tokens (N,) -> (N, vocab), a single 1 in each row: row i of the identity matrix for i."""
    if vocab > 1000:  # too large a matrix to keep
        return (tokens[:, None] == np.arange(vocab)).astype(dtype)
    return identity(vocab, dtype).take(tokens, axis=0)


def forward(net, X):
    """Contexts X (B, context) -> emb (B, context * embedding), h (B, hidden), logits (B, V)."""
    C, W1, b1, W2, b2 = net.params
    emb = C.take(X, axis=0).reshape(len(X), -1)  # (B, context * embedding): C[X], but faster
    h = np.tanh(emb @ W1 + b1)  # (B, hidden)
    logits = h @ W2 + b2  # (B, V)
    return emb, h, logits


def backward(net, X, emb, h, dlogits):
    """Backpropagate dlogits (B, V) to every parameter, writing the gradients into net.grads."""
    C, W1, b1, W2, b2 = net.params
    dC, dW1, db1, dW2, db2 = net.grads
    row = ones(len(X), C.dtype)  # (B,); row.dot(d) is d.sum(axis=0), but faster
    h.T.dot(dlogits, out=dW2)
    row.dot(dlogits, out=db2)
    dh = dlogits @ W2.T  # (B, hidden)
    dpre = dh * (1 - h * h)  # (B, hidden)
    emb.T.dot(dpre, out=dW1)
    row.dot(dpre, out=db1)
    demb = dpre @ W1.T  # (B, context * embedding)
    onehot = one_hot(X.ravel(), len(C), C.dtype)  # (B * context, V)
    onehot.T.dot(demb.reshape(-1, C.shape[1]), out=dC)


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


def loss_and_gradients(net, X, Y):
    """Contexts X (B, context), targets Y (B,) -> mean loss in nats; fills net.grads."""
    emb, h, logits = forward(net, X)
    loss, dlogits = cross_entropy(logits, Y)
    backward(net, X, emb, h, dlogits)
    return loss


# ---------------------------------------------------------------- training, evaluating, sampling

# The learning rate as a share of --lr, from the share of the steps that are done. "step" is the
# lecture's; "linear" reaches a lower dev loss.
SCHEDULES = {
    "linear": lambda done: 1.0 - done,
    "step": lambda done: 1.0 if done < 0.5 else 0.1,
    "none": lambda done: 1.0,
}


def train(net, X, Y, steps, batch_size, lr, schedule, seed, start=0):
    """Minibatch gradient descent from step `start` on: a generator of (steps done, loss before).

    Every thousand steps have a generator of their own: a step gets the same minibatch wherever
    training started.
    """
    for step in range(start, steps):
        if step == start or step % 1000 == 0:
            rng = np.random.default_rng([seed, 1 + step // 1000])
            batches = rng.integers(len(X), size=(1000, batch_size))  # (1000, B)
        batch = batches[step % 1000]  # (B,)
        loss = loss_and_gradients(net, X.take(batch, axis=0), Y.take(batch))
        net.dtheta *= lr * schedule(step / steps)  # from the gradient to the update
        net.theta -= net.dtheta
        yield step + 1, loss


def evaluate(net, X, Y, chunk=1024):
    """Mean loss in nats over all examples, a chunk at a time."""
    total = 0.0
    for i in range(0, len(X), chunk):
        x, y = X[i : i + chunk], Y[i : i + chunk]  # (chunk, context), (chunk,)
        loss, _ = cross_entropy(forward(net, x)[-1], y)
        total += loss * len(y)
    return total / len(X)


def sample(net, rng, itos, context, number, prefix="", temperature=1.0, longest=100):
    """Make up words that start with `prefix` -> list[str], cut at `longest` characters.

    All unfinished words advance together, each by a character drawn from
    softmax(logits / temperature). Raises KeyError for a prefix character without a token.
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


# ------------------------------------------------------------- checking gradients, finding a rate


def check_gradients(rng, vocab=7, context=3, embedding=4, hidden=5, batch=6, epsilon=1e-6):
    """Compare the gradients with central differences in float64 -> {array: relative error}.

    dloss/dx is about (loss(x + epsilon) - loss(x - epsilon)) / (2 epsilon). The error is the
    largest difference in an array over its largest gradient (at least 1e-4).
    """
    net, errors = Net(rng, vocab, context, embedding, hidden, np.float64), {}
    X, Y = rng.integers(vocab, size=(batch, context)), rng.integers(vocab, size=batch)
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
        errors[name] = np.abs(by_hand - numeric).max() / max(np.abs(numeric).max(), 1e-4)
    return errors


def find_rate(net, X, Y, batch_size, seed, plot):
    """Let the rate rise from 0.001 to 1 in 1,000 steps, and print where the loss is lowest."""
    training = train(net, X, Y, 1000, batch_size, 1.0, lambda done: 10 ** (3 * done - 3), seed)
    losses = [*takewhile(math.isfinite, (loss for _, loss in training))]
    if len(losses) < 101:
        raise click.ClickException(f"the loss diverged within {len(losses)} steps")
    losses = smoothed(losses, 101)  # (900,)
    rates = 10 ** (3 * np.arange(50, 50 + len(losses)) / 1000 - 3)  # (900,), mid-window
    click.echo("    rate      loss")
    for rate, loss in zip(rates[::50], losses[::50]):
        click.echo(f"{rate:8.4f}{loss:10.4f}")
    best = rates[np.argmin(losses)]
    click.echo(f"lowest at {best:.2g}: try --lr {best:.1g}")
    if plot:
        figure, axes = new_figure(1)
        axes.semilogx(rates, losses)
        axes.set(xlabel="learning rate", ylabel="loss in nats", title=f"Lowest at {best:.2g}")
        figure.savefig(plot)


# --------------------------------------------------------------------------------------- pictures


def new_figure(columns):
    from matplotlib.figure import Figure

    warnings.filterwarnings("ignore", "Glyph")  # a box stands for a character the font lacks
    figure = Figure(figsize=(6 * columns, 5.5), layout="constrained")
    return figure, figure.subplots(1, columns)


def smoothed(losses, width):
    """The mean of each window of `width` steps -> (steps - width + 1,)."""
    return np.convolve(losses, np.full(width, 1 / width), mode="valid")


def spread(points, gap):
    """Push points (n, 2) apart until hardly any two are closer than `gap` -> (n, 2)."""
    for _ in range(200):
        apart = points[:, None] - points  # (n, n, 2)
        distance = np.linalg.norm(apart, axis=2, keepdims=True) + 1e-9  # (n, n, 1)
        points = points + (apart / distance * np.clip(gap - distance, 0, None)).sum(axis=1) / 4
    return points


def draw_embedding(axes, C, itos, Y):
    """The rows of C (V, embedding), at most those of the hundred most frequent targets, as letters.

    Up to two numbers are drawn as they are. Of more, the principal components: the directions in
    which the rows differ most, once each row has length 1, so that the few long ones do not
    crush the rest. Letters that would overlap are moved, with a line to their place.
    """
    shown = np.argsort(-np.bincount(Y, minlength=len(C)), kind="stable")[:100]  # (n,)
    points = np.pad(C[shown].astype(float), ((0, 0), (0, 1)))  # (n, embedding + 1)
    axes.set(xlabel="first number", ylabel="second number")
    if C.shape[1] > 2:
        points -= points.mean(axis=0)
        points /= np.linalg.norm(points, axis=1, keepdims=True) + 1e-9
        U, S, _ = np.linalg.svd(points, full_matrices=False)
        points = U * S  # (n, embedding + 1)
        axes.set(xlabel="first principal component", ylabel="second principal component")
    points = points[:, :2]  # (n, 2)
    scale = np.ptp(points, axis=0) + 1e-3  # (2,)
    places = spread(points / scale, 0.045) * scale  # (n, 2)
    for token, (x, y), (left, top) in zip(shown, points, places):
        color = "C3" if itos[token] in ".aeiou" else "C0"
        axes.plot([x, left], [y, top], color="0.8", linewidth=0.7)
        font = {"size": 13, "weight": "bold", "ha": "center", "va": "center"}
        axes.text(left, top, itos[token], color=color, parse_math=False, **font)
    axes.set_title("Embedding, with . and the vowels in red")


def draw_run(path, losses, start, net, itos, Y):
    """The smoothed loss, on an axis that leaves out the high losses at first, and the embedding."""
    figure, (left, right) = new_figure(2)
    width = math.ceil(len(losses) / 100)
    if losses:
        curve = smoothed(losses, width)  # (steps - width + 1,)
        left.plot(start + width + np.arange(len(curve)), curve, linewidth=1)
        rest = curve[len(curve) // 20 :]
        left.set_ylim(rest.min() - 0.05, rest.max() + 0.05)
    left.set(xlabel="step", ylabel="loss in nats", title=f"Training loss, mean of {width:,} steps")
    draw_embedding(right, net.params.C, itos, Y)
    figure.savefig(path)


# ------------------------------------------------------------------------------------ checkpoints

SAVE_EVERY = 5.0  # seconds


def save(path, net, step, run):
    """Write a checkpoint beside `path`, then rename it: the file at `path` is always whole."""
    path = os.path.realpath(path)
    beside = f"{path}.{os.getpid()}.tmp"  # a name of its own for each process
    try:
        with open(beside, "wb") as file:
            np.savez(file, theta=net.theta, step=step, run=json.dumps(run))
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
    """Fill theta from a checkpoint of this very run -> the number of steps done."""
    arrays, saved = load(path)
    for name, value in run.items():
        if saved.get(name) != value:
            difference = f"{name} {saved.get(name)!r:.50}, not {value!r:.50}"
            raise click.ClickException(f"{path} belongs to another run, with {difference}")
    expected = {"theta": net.theta, "step": np.int64(0)}
    damaged = click.ClickException(f"{path} is damaged or not a checkpoint")
    for name, array in expected.items():
        found = arrays.get(name, np.array("missing"))
        if (found.shape, found.dtype) != (array.shape, array.dtype) or not np.isfinite(found).all():
            raise damaged
    if not 0 <= arrays["step"] <= run["steps"]:
        raise damaged
    net.theta[:] = arrays["theta"]
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
    """Train with a progress bar, ten lines of losses and checkpoints -> the loss of each step.

    Ctrl-C ends the training after the step it falls into. Raises click.ClickException if the loss
    diverges.
    """
    losses, shown, stop, vocab = [], 0, [], len(net.params.C)
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
    return losses


def show_gradient_check(rng):
    click.echo("array  largest relative error")
    errors = check_gradients(rng)
    for name, error in errors.items():
        click.echo(f"{name:5}  {error:22.1e}  {'ok' if error < 1e-6 else 'WRONG'}")
    if wrong := [name for name, error in errors.items() if not error < 1e-6]:
        raise click.ClickException(f"wrong gradients: {', '.join(wrong)}")
    click.echo("every gradient agrees with central differences within 1e-6")


def positive(text):
    """Read a positive real number from the command line."""
    if not 1e-6 <= float(text) <= 1e6:
        raise click.BadParameter(f"{text} is not between 1e-6 and 1e6.")
    return float(text)


FILE, WORDS = click.Path(dir_okay=False), click.Path(exists=True, dir_okay=False)
DECAY = "linear: to 0. step: to a tenth after half of the steps."
PLOT = "Picture of loss and embedding to draw, .png, .svg or .pdf (needs matplotlib)."
CHECKPOINT = "Save here every 5 seconds; resume from here, with its settings (except --data)."


@click.command(context_settings={"show_default": True})
@click.option("--data", type=WORDS, default=NAMES, show_default="names.txt", help="Word list.")
@click.option("--steps", type=click.IntRange(0, 10**7), default=200_000, help="Training steps.")
@click.option("--batch-size", type=click.IntRange(1, 10_000), default=32, help="Examples per step.")
@click.option("--lr", type=positive, default=0.1, help="Learning rate.")
@click.option("--lr-decay", type=click.Choice([*SCHEDULES]), default="linear", help=DECAY)
@click.option("--context", type=click.IntRange(1, 100), default=3, help="Characters of input.")
@click.option("--embedding", type=click.IntRange(1, 100), default=10, help="Numbers per character.")
@click.option("--hidden", type=click.IntRange(1, 10_000), default=200, help="Hidden units.")
@click.option("--seed", type=click.IntRange(0), default=42, help="Random seed.")
@click.option("--samples", type=click.IntRange(0, 10_000), default=20, help="Words to make up.")
@click.option("--prefix", default="", show_default=False, help="Prefix of every sample.")
@click.option("--temperature", type=positive, default=1.0, help="Sampling temperature.")
@click.option("--checkpoint", type=FILE, is_eager=True, callback=resume, help=CHECKPOINT)
@click.option("--plot", type=FILE, help=PLOT)
@click.option("--gradcheck", is_flag=True, help="Check the gradients and exit.")
@click.option("--find-lr", is_flag=True, help="Try learning rates from 0.001 to 1 and exit.")
@np.errstate(all="ignore")  # what overflows shows in the loss
def main(
    data, steps, batch_size, lr, lr_decay, context, embedding, hidden, seed, samples, prefix,
    temperature, checkpoint, plot, gradcheck, find_lr,
):  # fmt: skip
    """Train a multilayer perceptron on a list of words, and make up new ones."""
    rng = np.random.default_rng(seed)
    split_rng = rng.spawn(1)[0]  # the split stays the same, whatever else is drawn
    if gradcheck:
        return show_gradient_check(rng)
    if plot is not None and not plot.endswith((".png", ".svg", ".pdf")):
        raise click.BadParameter("draws .png, .svg or .pdf", param_hint="--plot")
    if find_lr and checkpoint:
        raise click.UsageError("--find-lr starts from new parameters: it takes no --checkpoint")
    words = load_words(data)
    stoi, itos = build_vocab(words)
    splits = [build_dataset(part, stoi, context) for part in split_words(words, split_rng)]
    X, Y = splits[0]
    net = Net(rng, len(stoi), context, embedding, hidden)
    checksum = zlib.crc32("\n".join(words).encode())
    run = {
        "script": "mlp.py", "words": f"{len(words):,} ({checksum:08x})", "seed": seed,
        "context": context, "embedding": embedding, "hidden": hidden, "steps": steps,
        "batch_size": batch_size, "lr": lr, "lr_decay": lr_decay,
    }  # fmt: skip
    start, losses = 0, []
    if checkpoint and os.path.exists(checkpoint):
        start = restore(checkpoint, net, run)
        click.echo(f"{checkpoint}: {start:,} of {steps:,} steps done")
    if unknown := set(prefix) - set("".join(words)):
        raise click.BadParameter(f"no word contains {min(unknown)!r}", param_hint="--prefix")
    click.echo(
        f"{len(words):,} words, {len(stoi)} characters, {len(X):,} training examples, "
        f"{net.theta.size:,} parameters"
    )
    if find_lr:
        return find_rate(net, X, Y, batch_size, seed, plot)

    if plot:
        draw_run(plot, losses, start, net, itos, Y)  # fails now, if it must, not after the training
    if start < steps:
        if checkpoint:
            save(checkpoint, net, start, run)  # likewise
        schedule = SCHEDULES[lr_decay]
        training = train(net, X, Y, steps, batch_size, lr, schedule, seed, start)
        losses = fit(net, training, start, steps, checkpoint, run)

    click.echo("split      loss  perplexity = exp(loss): like a uniform guess among this many")
    for name, (x, y) in zip(("train", "dev", "test"), splits):
        loss = evaluate(net, x, y)
        click.echo(f"{name:5} {loss:9.4f} {np.exp(loss):#11.4g}")
    known = set(words)
    for word in sample(net, rng, itos, context, samples, prefix, temperature):
        click.echo(word if word in known else f"{word:19} new")
    if plot:
        draw_run(plot, losses, start, net, itos, Y)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a character that the terminal lacks becomes a ?
    try:
        main()
    except (ImportError, MemoryError, OSError) as error:
        sys.exit(f"Error: {error}")
