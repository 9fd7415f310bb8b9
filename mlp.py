"""Stage 3: a multilayer perceptron that learns to make up names, every gradient derived by hand.

The model of Bengio et al. 2003, "A Neural Probabilistic Language Model", in the sizes of the
lecture "Building makemore, part 2": three characters in, the next one out. For a batch of B
contexts and an alphabet of V characters,

    emb    = C[X]                  (B, context * embedding)   each character's row, side by side
    h      = tanh(emb @ W1 + b1)   (B, hidden)
    logits = h @ W2 + b2           (B, V)                     a score for every next character
    loss   = mean of -log softmax(logits)[Y]                  in nats

Training moves all parameters a little against their gradients, one minibatch after the other.
Read `forward` and `backward` side by side: each line of one answers a line of the other.

    python mlp.py --steps 50000               train, measure, make up 20 names
    python mlp.py --prefix mar --samples 5    the lecture's 200,000 steps, names that begin so
    python mlp.py --gradcheck                 hold every gradient to central differences
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


class Params(NamedTuple):
    """The arrays of the net, or their gradients: five windows on one flat vector."""

    C: np.ndarray  # (V, embedding), a row for each character
    W1: np.ndarray  # (context * embedding, hidden)
    b1: np.ndarray  # (hidden,)
    W2: np.ndarray  # (hidden, V)
    b2: np.ndarray  # (V,)

    @property
    def flat(self):
        """The vector behind the windows: an update is one line on it, a gradient check one loop."""
        return self.C.base


def shapes(vocab, context, embedding, hidden):
    """The shape of every array -> Params of tuples."""
    C, W1, W2 = (vocab, embedding), (context * embedding, hidden), (hidden, vocab)
    return Params(C, W1, W1[1:], W2, W2[1:])


def windows(flat, shapes):
    """Lay out arrays of these shapes on a flat vector, one after the other -> Params.

    W2 lies there column by column: its three matrix products are then a quarter faster.
    """
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    C, W1, b1, W2, b2 = np.split(flat, ends[:-1])
    C, W1 = C.reshape(shapes.C), W1.reshape(shapes.W1)
    return Params(C, W1, b1, W2.reshape(shapes.W2, order="F"), b2)


def init_params(rng, vocab, context, embedding, hidden, dtype=np.float32):
    """Every parameter drawn from N(0, 1), as in the lecture -> Params.

    Far too large: the net starts out confident and wrong. Stage 4 mends it.
    """
    layout = shapes(vocab, context, embedding, hidden)
    flat = rng.standard_normal(sum(math.prod(shape) for shape in layout)).astype(dtype)
    return windows(flat, layout)


def zeros_like(params):
    """Room for the gradients of params -> Params."""
    flat = np.zeros(sum(window.size for window in params), params.C.dtype)
    return windows(flat, Params(*(window.shape for window in params)))


# -------------------------------------------------------------------- forward and backward passes


def forward(params, X):
    """Contexts X (B, context) -> emb (B, context * embedding), h (B, hidden), logits (B, V)."""
    C, W1, b1, W2, b2 = params
    emb = C.take(X, axis=0).reshape(len(X), -1)  # (B, context * embedding)
    h = emb.dot(W1)  # (B, hidden); dot is @ with less ado
    h += b1
    np.tanh(h, out=h)
    logits = h.dot(W2)  # (B, V)
    logits += b2
    return emb, h, logits


def backward(params, X, emb, h, dlogits, grads):
    """From dlogits (B, V) back to every parameter, into grads. `dh` is the gradient of `h`."""
    C, W1, b1, W2, b2 = params
    ones = np.ones(len(X), C.dtype)  # (B,); ones.dot(d) is d.sum(axis=0), but faster
    ones.dot(dlogits, out=grads.b2)
    dlogits.T.dot(h, out=grads.W2.T)  # dW2 = h.T @ dlogits, transposed as W2 lies in memory
    dh = dlogits.dot(W2.T)  # (B, hidden)
    dh *= 1 - h * h  # tanh' = 1 - tanh^2
    ones.dot(dh, out=grads.b1)
    emb.T.dot(dh, out=grads.W1)
    demb = dh.dot(W1.T).reshape(-1, C.shape[1])  # (B * context, embedding)
    # Looking up is one_hot(X) @ C: a row of C collects from every place it went to.
    one_hot(X.ravel(), len(C), C.dtype).T.dot(demb, out=grads.C)


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
def identity(vocab, dtype):
    """All one-hot rows, made once for an alphabet that is not huge."""
    return np.eye(vocab, dtype=dtype)


def loss_and_gradients(params, X, Y, grads=None):
    """Contexts X (B, context), targets Y (B,) -> (mean loss in nats, gradients as Params).

    The gradients go into `grads` where that is given.
    """
    grads = grads or zeros_like(params)
    emb, h, logits = forward(params, X)
    loss, dlogits = cross_entropy(logits, Y)
    backward(params, X, emb, h, dlogits, grads)
    return loss, grads


# ---------------------------------------------------------------- training, evaluating, sampling

# From the share of the steps that are done to a share of --lr. "step" is the lecture's; "linear"
# ended lower on dev for every seed, step count and rate that was tried.
SCHEDULES = {
    "linear": lambda done: 1.0 - done,
    "step": lambda done: 1.0 if done < 0.5 else 0.1,
    "none": lambda done: 1.0,
}


def train(params, X, Y, rng, steps, batch_size, rate, start=0):
    """Minibatch gradient descent, in place: yields (step, loss in nats) after each update.

    `rate` maps the share of the steps that are done to a learning rate. To go on from `start`,
    pass the generator as it was before step 0: it passes over the batches that had their turn.
    """
    theta, grads = params.flat, zeros_like(params)
    gradient = grads.flat
    drawn = max(1, 32_768 // batch_size)  # batches at once
    for first in range(0, steps, drawn):
        batches = rng.integers(len(X), size=(drawn, batch_size))  # rows of X
        for step in range(max(start, first), min(first + drawn, steps)):
            batch = batches[step - first]  # (B,)
            loss, _ = loss_and_gradients(params, X.take(batch, axis=0), Y.take(batch), grads)
            gradient *= rate(step / steps)
            theta -= gradient
            yield step + 1, loss


def evaluate(params, X, Y):
    """Mean loss in nats over all examples, exact.

    Names share contexts: each distinct one goes through the net once, and each pair of context
    and target counts as often as it occurs.
    """
    contexts, row, target, count = distinct(X, Y, len(params.C))
    loss, size = 0.0, max(1, 2**20 // sum(params.W2.shape))  # contexts at a time
    for first in range(0, len(contexts), size):
        logits = forward(params, contexts[first : first + size])[-1]  # (size, V)
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
    softmax(logits / temperature). Raises KeyError for a prefix character without a token.
    """
    stoi = {character: token for token, character in itos.items()}
    context = len(params.W1) // params.C.shape[1]
    start = context + len(prefix)
    tokens = np.zeros((number, start + longest), int)  # `context` dots before every word
    tokens[:, context:start] = [stoi[character] for character in prefix]
    unfinished = np.arange(number)  # (U,), the rows that have not drawn a dot
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


def check_gradients(rng, vocab=7, context=3, embedding=4, hidden=5, batch=6, epsilon=1e-5):
    """Hold backward to central differences on a small net in float64 -> {array: error}.

    dloss/dx is about (loss(x + epsilon) - loss(x - epsilon)) / (2 epsilon). The error is the
    largest difference in an array over its largest gradient.
    """
    params = init_params(rng, vocab, context, embedding, hidden, np.float64)
    X, Y = rng.integers(vocab, size=(batch, context)), rng.integers(vocab, size=batch)
    by_hand, numeric, theta = loss_and_gradients(params, X, Y)[1], zeros_like(params), params.flat
    for i, value in enumerate(theta):
        theta[i] = value + epsilon
        above, _ = loss_and_gradients(params, X, Y)
        theta[i] = value - epsilon
        below, _ = loss_and_gradients(params, X, Y)
        theta[i] = value
        numeric.flat[i] = (above - below) / (2 * epsilon)
    pairs = zip(Params._fields, by_hand, numeric)
    return {name: np.abs(a - n).max() / np.abs(n).max() for name, a, n in pairs}


# --------------------------------------------------------------------------------------- pictures


def smoothed(losses, width):
    """The mean of each window of `width` steps -> (steps - width + 1,)."""
    return np.convolve(losses, np.full(width, 1 / width), mode="valid")


def draw_run(path, losses, start, params, itos):
    """The loss, smoothed, beside the first two dimensions of the embedding."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    width = max(1, len(losses) // 100)
    if len(losses):
        curve = smoothed(losses, width)
        left.plot(start + width + np.arange(len(curve)), curve, linewidth=1)
    left.set(xlabel="step", ylabel="loss in nats", title=f"Training loss, mean of {width:,} steps")
    x, y = params.C[:, 0], params.C[:, -1 if params.C.shape[1] == 1 else 1]  # (V,), (V,)
    right.scatter(x, y, s=180, color=["C3" if c in ".aeiou" else "C0" for c in itos.values()])
    for token, character in itos.items():
        right.text(x[token], y[token], character, ha="center", va="center", color="white")
    right.set(xlabel="dimension 1", ylabel="dimension 2", title="Embedding, vowels and . in red")
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

SHAPE = ("context", "embedding", "hidden")
KEPT = {*SHAPE, "seed", "steps", "batch_size", "lr", "lr_decay"}


class Run(NamedTuple):
    """A training at some step: all that is needed to go on."""

    params: Params
    step: int  # steps done
    options: dict  # those in KEPT
    alphabet: str  # characters in the order of their tokens
    words: int  # CRC-32 of the data
    generator: dict  # the state before the first batch was drawn


def save_run(path, run):
    """Write a file beside `path`, then rename it: there is always the old one or the new, whole."""
    facts = {"script": "mlp.py", **run._asdict()}
    theta = facts.pop("params").flat
    target = Path(path).resolve()
    beside = target.with_name(target.name + ".tmp")
    try:
        with beside.open("wb") as file:
            np.savez(file, theta=theta, run=json.dumps(facts))
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
            if script == "mlp.py":
                layout = shapes(len(facts["alphabet"]), *(facts["options"][name] for name in SHAPE))
                theta = archive["theta"]
                run = Run(windows(theta, layout), **facts)
                np.random.default_rng().bit_generator.state = run.generator
                damaged = (
                    theta.dtype != np.float32
                    or theta.shape != (sum(math.prod(shape) for shape in layout),)
                    or not np.isfinite(theta).all()
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
    if script != "mlp.py":
        known = f", but of {repr(script)[:40]}" if script else ""
        raise ValueError(f"{path} is no model of mlp.py{known}")
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
    params = init_params(init_rng, len(alphabet), *(options[name] for name in SHAPE))
    return Run(params, 0, options, alphabet, checksum(words), batch_rng.bit_generator.state)


def check_run(run, options, words, prefix):
    """Refuse options that the net cannot follow; warn of words that it was not made of."""
    for name in (*SHAPE, "seed"):
        if options[name] != run.options[name]:
            raise click.UsageError(f"--{name}: the checkpoint has {run.options[name]}")
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


def run_training(run, X, Y, save):
    """Train to the last step, with progress -> (Run, loss of each step, signal that ended it).

    Saves every few seconds and at the end, whatever ends it; but a loss that is no longer a number
    is not saved, and raises ValueError.
    """
    options, start, rng = run.options, run.step, np.random.default_rng()
    rng.bit_generator.state = run.generator
    steps, lr, schedule = options["steps"], options["lr"], SCHEDULES[options["lr_decay"]]
    training = train(
        run.params, X, Y, rng, steps, options["batch_size"], lambda done: lr * schedule(done), start
    )
    losses, caught = array("f"), []
    began = saved = time.perf_counter()
    with on_signal(lambda number, frame: caught.append(number)):
        try:
            for step, loss in reported(training, start, steps, len(run.alphabet)):
                losses.append(loss)
                if caught or not math.isfinite(loss):
                    break
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
    return run, losses, caught[0] if caught else None


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
    click.echo("array  largest relative error")
    errors = check_gradients(rng)
    for name, error in errors.items():
        click.echo(f"{name:5}  {error:22.1e}")
    if max(errors.values()) > 1e-6:
        raise ValueError("backward and the central differences disagree")


def show_learning_rates(run, X, Y, rng, plot):
    """1,000 steps while the rate rises from 0.001 to 1: it is good where the loss is lowest."""
    batch_size = run.options["batch_size"]
    training = train(run.params, X, Y, rng, 1000, batch_size, lambda done: 10 ** (3 * done - 3))
    losses = smoothed([loss for _, loss in training], 101)  # (900,)
    rates = 10 ** (3 * np.arange(50, 950) / 1000 - 3)  # (900,), each in the middle of its window
    click.echo("    rate      loss")
    for i in range(0, 900, 50):
        click.echo(f"{rates[i]:8.4f}{figure(losses[i], 10)}")
    best = rates[np.nanargmin(losses)]
    click.echo(f"lowest at {best:.2g}: try --lr {best:.1g}")
    if plot:
        draw_rates(plot, rates, losses, best)


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
@click.option("--hidden", type=COUNT, default=200, help="Neurons in the hidden layer.")
@click.option("--seed", type=click.IntRange(0), default=42, help="Where all randomness comes from.")
@click.option("--samples", type=click.IntRange(0), default=20, help="Words to make up.")
@click.option("--prefix", default="", show_default=False, help="What they begin with.")
@click.option("--temperature", type=REAL, default=1.0, help="Below 1 tamer, above 1 wilder.")
@click.option("--save", type=FILE, help="Checkpoint to write, every 5 seconds and at the end.")
@click.option("--load", type=FILE, callback=use_checkpoint, is_eager=True, help=RESUME)
@click.option("--plot", type=FILE, help="Picture to draw of loss and embedding (needs matplotlib).")
@click.option("--gradcheck", is_flag=True, help="Check the gradients by differences, no more.")
@click.option("--find-lr", is_flag=True, help="Try 1,000 steps at a rising learning rate, no more.")
def main(data, samples, prefix, temperature, save, load, plot, gradcheck, find_lr, **options):
    """Learn from a list of names to make up new ones: embeddings, a tanh layer, softmax."""
    with plain_endings():
        split_rng, init_rng, batch_rng, sample_rng = np.random.default_rng(options["seed"]).spawn(4)
        if gradcheck:
            return show_gradient_check(init_rng)
        check_targets(save, load, plot)
        words = load_words(data)
        run = load or new_run(words, options, init_rng, batch_rng)
        check_run(run, options, words, prefix)
        run, losses, stopped = run._replace(options=options), (), None
        itos = dict(enumerate(run.alphabet))
        stoi = {character: token for token, character in itos.items()}
        splits = split_words(words, split_rng)
        (X, Y), *_ = parts = [build_dataset(split, stoi, options["context"]) for split in splits]
        click.echo(
            f"{len(words):,} words, {len(itos)} characters, {len(X):,} training examples, "
            f"{run.params.flat.size:,} parameters"
        )
        if find_lr:
            return show_learning_rates(run, X, Y, batch_rng, plot)
        if run.step < options["steps"]:
            run, losses, stopped = run_training(run, X, Y, save)
        elif save:
            save_run(save, run)
        show_losses(run.params, parts)
        if stopped:
            show_stop(run, save)
            sys.exit(128 + stopped)
        show_samples(run.params, sample_rng, itos, words, samples, prefix, temperature)
        if plot:
            draw_run(plot, losses, run.step - len(losses), run.params, itos)


if __name__ == "__main__":
    main()
