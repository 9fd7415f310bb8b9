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
# dependencies = ["numpy>=1.25", "click>=8.2"]
# ///

import io
import json
import math
import os
import sys
import time
from functools import cache
from itertools import count, takewhile
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# ------------------------------------------------------------------------------------- parameters


class Params(NamedTuple):
    """The parameters of the net, or their gradients: five views into one flat vector."""

    C: np.ndarray  # (V, embedding), a row for each character
    W1: np.ndarray  # (context * embedding, hidden)
    b1: np.ndarray  # (hidden,)
    W2: np.ndarray  # (hidden, V)
    b2: np.ndarray  # (V,)

    @property
    def flat(self):
        """The vector that all five arrays view: an update or a checkpoint needs only this."""
        return self.C.base


def views(flat, shapes):
    """Lay out arrays of these shapes one after another on a flat vector -> Params."""
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    parts = np.split(flat, ends[:-1])
    return Params(*(part.reshape(shape) for part, shape in zip(parts, shapes)))


def init_params(rng, vocab, context, embedding, hidden, dtype=np.float32):
    """Every parameter drawn from N(0, 1), as in the lecture -> Params.

    These are far too large: the net starts out confident and wrong. Stage 4 initialises it better.
    """
    inputs = context * embedding
    shapes = [(vocab, embedding), (inputs, hidden), (hidden,), (hidden, vocab), (vocab,)]
    flat = rng.standard_normal(sum(math.prod(shape) for shape in shapes)).astype(dtype)
    return views(flat, shapes)


def zeros_like(params):
    """Gradient arrays for params, zeroed -> Params."""
    return views(np.zeros_like(params.flat), [array.shape for array in params])


# -------------------------------------------------------------------- forward and backward passes


def forward(params, X):
    """Contexts X (B, context) -> emb (B, context * embedding), h (B, hidden), logits (B, V)."""
    C, W1, b1, W2, b2 = params
    emb = C.take(X, axis=0).reshape(len(X), -1)  # (B, context * embedding): C[X], but faster
    h = np.tanh(emb @ W1 + b1)  # (B, hidden)
    logits = h @ W2 + b2  # (B, V)
    return emb, h, logits


def backward(params, X, emb, h, dlogits, grads):
    """Backpropagate dlogits (B, V) to every parameter, writing the gradients into grads."""
    C, W1, b1, W2, b2 = params
    ones = constant(1, len(X), C.dtype)  # (B,); ones.dot(d) is d.sum(axis=0), but faster
    h.T.dot(dlogits, out=grads.W2)
    ones.dot(dlogits, out=grads.b2)
    dh = dlogits @ W2.T  # (B, hidden)
    dpre = dh * (1 - h * h)  # (B, hidden)
    emb.T.dot(dpre, out=grads.W1)
    ones.dot(dpre, out=grads.b1)
    demb = dpre @ W1.T  # (B, context * embedding)
    onehot = one_hot(X.ravel(), len(C), C.dtype)  # (B * context, V)
    onehot.T.dot(demb.reshape(-1, C.shape[1]), out=grads.C)


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


def loss_and_gradients(params, X, Y, grads=None):
    """Contexts X (B, context), targets Y (B,) -> (mean loss in nats, gradients as Params).

    The gradients are written into `grads` if given.
    """
    grads = grads or zeros_like(params)
    emb, h, logits = forward(params, X)
    loss, dlogits = cross_entropy(logits, Y)
    backward(params, X, emb, h, dlogits, grads)
    return loss, grads


# ---------------------------------------------------------------- training, evaluating, sampling

# The learning rate as a share of --lr, from the share of the steps that are done. "step" is the
# lecture's; "linear" reaches a lower dev loss.
SCHEDULES = {
    "linear": lambda done: 1.0 - done,
    "step": lambda done: 1.0 if done < 0.5 else 0.1,
    "none": lambda done: 1.0,
}


def minibatches(seed, examples, batch_size, start=0):
    """Yield the row numbers (B,) of the minibatch of each step from `start` on, endlessly.

    Every thousand steps have a generator of their own, seeded with [seed, thousand]: a step gets
    the same minibatch wherever training started.
    """
    for thousand in count(start // 1000):
        rng = np.random.default_rng([seed, thousand])
        batches = rng.integers(examples, size=(1000, batch_size))  # (1000, B)
        yield from batches[max(0, start - 1000 * thousand) :]


def train(params, X, Y, steps, batch_size, rate, seed, start=0):
    """Minibatch gradient descent, in place: yield (steps done, loss before the step).

    `rate` maps the share of the steps that are done to a learning rate.
    """
    grads = zeros_like(params)
    theta, update = params.flat, grads.flat
    batches = minibatches(seed, len(X), batch_size, start)
    for step, batch in zip(range(start, steps), batches):
        loss, _ = loss_and_gradients(params, X.take(batch, axis=0), Y.take(batch), grads)
        update *= rate(step / steps)
        theta -= update
        yield step + 1, loss


def evaluate(params, X, Y, chunk=1024):
    """Mean loss in nats over all examples, a chunk at a time."""
    total = 0.0
    for i in range(0, len(X), chunk):
        x, y = X[i : i + chunk], Y[i : i + chunk]  # (chunk, context), (chunk,)
        loss, _ = cross_entropy(forward(params, x)[-1], y)
        total += loss * len(y)
    return total / len(X)


def sample(params, rng, itos, number, prefix="", temperature=1.0, longest=100):
    """Make up words that start with `prefix` -> list[str], cut at `longest` characters.

    All unfinished words advance together, each by a character drawn from
    softmax(logits / temperature). Raises KeyError for a prefix character without a token.
    """
    stoi = {character: token for token, character in itos.items()}
    context = len(params.W1) // params.C.shape[1]
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


def check_gradients(rng, vocab=7, context=3, embedding=4, hidden=5, batch=6, epsilon=1e-6):
    """Check the gradients against central differences in float64 -> {array: relative error}.

    dloss/dx is about (loss(x + epsilon) - loss(x - epsilon)) / (2 epsilon). The error is the
    largest difference in an array over its largest gradient (at least 1e-4).
    """
    params = init_params(rng, vocab, context, embedding, hidden, np.float64)
    X, Y = rng.integers(vocab, size=(batch, context)), rng.integers(vocab, size=batch)
    _, by_hand = loss_and_gradients(params, X, Y)
    numeric, theta = zeros_like(params), params.flat
    for i, value in enumerate(theta):
        theta[i] = value + epsilon
        above = evaluate(params, X, Y)
        theta[i] = value - epsilon
        below = evaluate(params, X, Y)
        theta[i] = value
        numeric.flat[i] = (above - below) / (2 * epsilon)
    arrays = zip(Params._fields, by_hand, numeric)
    return {name: np.abs(a - n).max() / max(np.abs(n).max(), 1e-4) for name, a, n in arrays}


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


def smoothed(losses, width):
    """The mean of each window of `width` steps -> (steps - width + 1,)."""
    return np.convolve(losses, np.full(width, 1 / width), mode="valid")


def draw_run(path, losses, start, params, itos):
    """The smoothed loss, beside the embedding on its first two principal components."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    if losses:
        width = math.ceil(len(losses) / 100)
        curve = smoothed(losses, width)  # (steps - width + 1,)
        left.plot(start + width + np.arange(len(curve)), curve, linewidth=1)
        left.set(title=f"Training loss, mean of {width:,} steps")
    left.set(xlabel="step", ylabel="loss in nats")
    # A column of zeros: even an embedding of one number then has two components.
    centred = np.pad(params.C - params.C.mean(axis=0), ((0, 0), (0, 1)))  # (V, embedding + 1)
    U, S, _ = np.linalg.svd(centred)
    x, y = U[:, 0] * S[0], U[:, 1] * S[1]  # (V,), (V,)
    right.scatter(x, y, s=180, color=["C3" if c in ".aeiou" else "C0" for c in itos.values()])
    for token, character in itos.items():
        right.text(x[token], y[token], character, ha="center", va="center", color="white")
    right.set(xlabel="first principal component", ylabel="second principal component")
    right.set(title="Embedding, with . and the vowels in red")
    figure.savefig(path)


def draw_rates(path, rates, losses, best):
    """The smoothed loss against the learning rate that rises from step to step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.semilogx(rates, losses)
    axes.axvline(best, color="C3", linestyle=":")
    axes.set(xlabel="learning rate", ylabel="loss in nats", title=f"Lowest at {best:.2g}")
    figure.savefig(path)


# ------------------------------------------------------------------------------------ checkpoints


def save(path, params, step, facts):
    """Write a checkpoint beside `path`, then rename it: the file at `path` is always whole."""
    path = Path(path).resolve()
    beside = path.with_name(f".{path.name}.tmp")
    with open(beside, "wb") as file:
        np.savez(file, theta=params.flat, step=step, facts=json.dumps(facts))
    os.replace(beside, path)


def restore(path, params, facts):
    """Fill params from a checkpoint -> the number of steps done.

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
        except Exception:  # zipfile, zlib, NumPy and json each raise their own
            raise click.ClickException(f"{path} is damaged or not a checkpoint") from None
    if different:
        name = different[0]
        difference = f"{name} is {saved.get(name)!r} in it and {facts[name]!r} here"
        raise click.ClickException(f"{path} is a checkpoint of another run: {difference}")
    return step


# ----------------------------------------------------------------------------------- command line

SAVE_EVERY = 5.0  # seconds


def fit(params, training, start, steps, checkpoint, facts):
    """Train with a progress bar, ten lines of losses and checkpoints -> the loss of each step.

    Ctrl-C ends the training early. Raises click.ClickException if the loss diverges.
    """
    losses, shown, every, vocab = [], 0, math.ceil(steps / 10), len(params.C)
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
        save(checkpoint, params, start, facts)
    began = saved = time.perf_counter()
    click.echo("    step      loss, mean since the row above")
    try:
        with bar:
            for step, loss in bar:
                losses.append(loss)
                if not math.isfinite(loss):
                    break
                if step == 1 or step % every == 0:
                    if live:
                        click.echo("\r\033[K", err=True, nl=False)  # clear the bar
                    guess = f"   uniform guess: ln {vocab} = {math.log(vocab):.4f}"
                    note = guess if step == 1 else ""
                    click.echo(f"{step:8,} {np.mean(losses[shown:]):9.4f}{note}")
                    shown = len(losses)
                due = time.perf_counter() - saved > SAVE_EVERY
                if checkpoint and due and np.isfinite(params.flat).all():
                    save(checkpoint, params, step, facts)
                    saved = time.perf_counter()
    except KeyboardInterrupt:
        checkpoint = None  # an update may be applied but not counted: keep the last checkpoint
    seconds, done = time.perf_counter() - began, len(losses)
    if not (np.isfinite(losses[-1:]).all() and np.isfinite(params.flat).all()):
        raise click.ClickException(f"the loss diverged at step {start + done:,}: try a lower --lr")
    if checkpoint:
        save(checkpoint, params, steps, facts)
    click.echo(f"{done:,} steps in {seconds:.1f} s ({seconds / max(1, done) * 1e6:.0f} µs/step)")
    return losses


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
    click.echo("array  largest relative error")
    errors = check_gradients(rng)
    for name, error in errors.items():
        click.echo(f"{name:5}  {error:22.1e}")
    if not np.max([*errors.values()]) < 1e-6:  # not: nan is no agreement
        raise click.ClickException("the gradients and the central differences disagree")


def show_learning_rates(params, X, Y, batch_size, seed, plot):
    """Train 1,000 steps while the rate rises from 0.001 to 1, and show where the loss is lowest."""
    training = train(params, X, Y, 1000, batch_size, lambda done: 10 ** (3 * done - 3), seed)
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
        draw_rates(plot, rates, losses, best)


def positive(text):
    """Read a positive real number from the command line."""
    if not 1e-6 <= float(text) <= 1e6:
        raise click.BadParameter(f"{text} is not between 1e-6 and 1e6.")
    return float(text)


FILE, WORDS = click.Path(dir_okay=False), click.Path(exists=True, dir_okay=False)
DECAY = "linear: to 0. step: to a tenth after half of the steps."
PLOT = "Picture of loss and embedding to draw (needs matplotlib)."
CHECKPOINT = "Resume from this file if it exists; save to it every 5 seconds."


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
@click.option("--checkpoint", type=FILE, help=CHECKPOINT)
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
    if plot:
        check_plot(plot)
    words = load_words(data)
    stoi, itos = build_vocab(words)
    if unknown := set(prefix) - set("".join(words)):
        raise click.BadParameter(f"no word contains {min(unknown)!r}", param_hint="--prefix")
    splits = [build_dataset(part, stoi, context) for part in split_words(words, split_rng)]
    X, Y = splits[0]
    net = {"context": context, "embedding": embedding, "hidden": hidden}
    facts = {"script": "mlp.py", "words": len(words), "alphabet": "".join(stoi), "seed": seed}
    facts |= net
    params = init_params(rng, len(stoi), **net)
    click.echo(
        f"{len(words):,} words, {len(stoi)} characters, {len(X):,} training examples, "
        f"{params.flat.size:,} parameters"
    )
    if find_lr:
        return show_learning_rates(params, X, Y, batch_size, seed, plot)

    def rate(done):
        return lr * SCHEDULES[lr_decay](done)

    start, losses = 0, []
    if checkpoint and os.path.exists(checkpoint):
        start = restore(checkpoint, params, facts)
        click.echo(f"{checkpoint}: {start:,} steps done")
    if start < steps:
        training = train(params, X, Y, steps, batch_size, rate, seed, start)
        losses = fit(params, training, start, steps, checkpoint, facts)
    show_losses(params, splits)
    show_samples(words, sample(params, rng, itos, samples, prefix, temperature))
    if plot:
        draw_run(plot, losses, start, params, itos)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a character that the terminal lacks becomes a ?
    try:
        main()
    except OSError as error:
        sys.exit(f"Error: {error}")
