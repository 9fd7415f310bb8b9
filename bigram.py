"""Stage 2: counting pairs of characters, and a network of one layer that learns the same table.

How likely is `a` after `m`? Counting answers at once: in how many of all cases. With N[i, j] the
number of times that j followed i in the data, V characters in the alphabet,

    P[i, j] = (N[i, j] + smoothing) / sum_j (N[i, j] + smoothing)     (V, V), rows sum to 1
    loss    = mean of -log P[i, j] over all pairs of the data         in nats

The network starts from random weights W and walks down the gradient of that loss instead:

    logits = one_hot(X) @ W                   (n, V): row X of W, for each of the n pairs
    loss   = mean of -log softmax(logits)[Y] + l2 * mean(W^2)

It ends at the same table, because that is where the gradient vanishes. Longer contexts (--order)
are counted the same way, up to where the table no longer fits. After the lecture "The spelled-out
intro to language modeling: building makemore" (part 1).

    python bigram.py                                      both models, side by side
    python bigram.py --order 4 --smoothing auto           counting, as far as it goes
    python bigram.py --word mary --model net --prefix ma  one word's likelihood, names that begin so
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
import unicodedata
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# --------------------------------------------------------------------------------------- counting

MOST_CELLS = 2**27  # of a table: 1 GB of counts, and as much again of probabilities


def count(words, stoi, order=2):
    """How often each run of `order` characters occurs -> N, shape (V,) * order, integers.

    `.` stands before and after each word. Raises ValueError if the table would be too large.
    """
    vocab = len(stoi)
    if vocab**order > MOST_CELLS:
        cells = f"{vocab}^{order} = {vocab**order:.3g} counts"
        raise ValueError(f"--order {order} needs {cells}; there is room for {MOST_CELLS:.3g}")
    X, Y = build_dataset(words, stoi, order - 1)  # (n, order - 1), (n,)
    cells = np.zeros(len(Y), np.intp)  # (n,), each run's place in the table, laid out flat
    for column in (*X.T, Y):
        cells *= vocab
        cells += column
    return np.bincount(cells, minlength=vocab**order).reshape((vocab,) * order)


def probabilities(N, smoothing):
    """Counts -> P of the same shape, the last axis summing to 1.

    After a context that was never seen, with no smoothing, every character is equally likely.
    """
    P = N + float(smoothing)
    total = P.sum(axis=-1, keepdims=True)
    P /= np.where(total == 0, 1, total)
    P[total[..., 0] == 0] = 1 / N.shape[-1]
    return P


def mean_loss(N, P):
    """Mean of -log P over the runs counted in N, in nats; inf if P rules out one of them."""
    seen = N > 0
    with np.errstate(divide="ignore"):
        return float(-(N[seen] @ np.log(P[seen])) / N.sum())


# ---------------------------------------------------------------------------------------- learning


def one_hot(tokens, vocab):
    """Tokens (n,) -> (n, vocab) with a single 1 in each row."""
    return np.eye(vocab)[tokens]


def softmax(logits):
    """Rows of scores -> rows of probabilities. Shifting a row does not change its softmax."""
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    return probs / probs.sum(axis=1, keepdims=True)


def loss_and_gradients(W, X, Y, l2=0.0):
    """W (V, V), inputs X (n,), targets Y (n,) -> (loss in nats, dW (V, V)): the definition.

    For one row z of logits with target y, and p = softmax(z): loss = log(sum_j exp z_j) - z_y, so
    dloss/dz_i = p_i - [i = y]. The mean divides that by n, and the penalty adds 2 * l2 * W / V^2.
    """
    inputs, targets = one_hot(np.ravel(X), len(W)), one_hot(np.ravel(Y), len(W))  # (n, V), (n, V)
    probs = softmax(inputs @ W)  # (n, V)
    loss = -np.log(probs[targets == 1]).mean() + l2 * (W**2).mean()
    dlogits = (probs - targets) / len(targets)  # (n, V)
    return float(loss), inputs.T @ dlogits + 2 * l2 * W / W.size


def loss_and_gradients_of_counts(W, N, l2=0.0):
    """The same from the counts N (V, V) of the pairs (X, Y), whatever their number n.

    Examples with the same input i share the logits W[i], so that their dlogits add up to

        sum over them of (softmax(W[i]) - one_hot(y)) / n = (N[i].sum() * softmax(W[i]) - N[i]) / n
    """
    n = N.sum()
    logits = W - W.max(axis=1, keepdims=True)  # (V, V)
    log_total = np.log(np.exp(logits).sum(axis=1, keepdims=True))  # (V, 1)
    log_probs = logits - log_total  # (V, V)
    loss = -np.vdot(N, log_probs) / n + l2 * (W**2).mean()
    dW = (N.sum(axis=1, keepdims=True) * np.exp(log_probs) - N) / n + 2 * l2 * W / W.size
    return float(loss), dW


def train(W, N, steps, lr, l2=0.0, start=0):
    """Gradient descent on all pairs at once, in place: yields (step, loss) after each update."""
    N = N.astype(W.dtype)
    for step in range(start, steps):
        loss, dW = loss_and_gradients_of_counts(W, N, l2)
        W -= lr * dW
        yield step + 1, loss


# --------------------------------------------------------------------------------------- sampling


def sample(P, rng, itos, number, prefix="", temperature=1.0, longest=100):
    """Make up words that begin with `prefix` -> list[str], cut at `longest` characters.

    P has the shape (V,) * order. All unfinished words advance together, a character at a time,
    drawn from P to the power 1 / temperature. Raises KeyError for a prefix character without a
    token.
    """
    stoi = {character: token for token, character in itos.items()}
    vocab, context = P.shape[-1], P.ndim - 1
    with np.errstate(divide="ignore", over="ignore"):
        logits = np.log(P.reshape(-1, vocab))  # (V ** context, V)
    logits -= logits.max(axis=1, keepdims=True)
    cumulative = np.exp(logits / temperature).cumsum(axis=1)
    cumulative /= cumulative[:, -1:]
    # Row r now rises from r to r + 1, the whole table from 0 to V ** context: one search draws for
    # all words, whatever their rows.
    cumulative += np.arange(len(cumulative))[:, None]
    start = context + len(prefix)
    size = (number, start + longest)
    tokens = np.zeros(size, np.min_scalar_type(vocab))  # `context` dots before every word
    tokens[:, context:start] = [stoi[character] for character in prefix]
    unfinished, end = np.arange(number), start  # (U,), the rows that have not drawn a dot
    while len(unfinished) and end < context + longest:
        X = tokens[unfinished, end - context : end]  # (U, context)
        row = np.ravel_multi_index(X.T, P.shape[:-1])  # (U,)
        drawn = rng.random(len(unfinished)) + row  # (U,)
        place = np.searchsorted(cumulative.ravel(), drawn, side="right")  # (U,)
        token = np.minimum(place - row * vocab, vocab - 1)  # (U,)
        tokens[unfinished, end] = token
        unfinished, end = unfinished[token != 0], end + 1
    characters = np.array(list(itos.values())).take(tokens[:, context : max(end, start + 1)])
    words = characters.view(f"U{characters.shape[1]}").ravel().tolist()
    return [word.split(".", 1)[0] for word in words]


# --------------------------------------------------------------------------------------- pictures


def busiest(N, most):
    """The tokens of the characters that occur most, not more than `most`, ascending."""
    return np.sort(np.argsort(-N.sum(axis=0), kind="stable")[:most])


def heat_map(N, itos):
    """The counts of pairs as shades of text, as many as fit 80 columns."""
    wide = max(map(columns, itos.values()))
    tokens = busiest(N, 76 // (wide + 1))
    shades = np.array(list(" .:-=+*#%@"))
    counts = N[np.ix_(tokens, tokens)]  # (36, 36) at most
    levels = np.log1p(counts) / max(np.log1p(counts).max(), 1e-9) * (len(shades) - 1)
    heads = [itos[token] + " " * (wide - columns(itos[token])) for token in tokens]
    lines = [f"{' ' * wide} {' '.join(heads)}"]
    for head, row in zip(heads, shades[np.rint(levels).astype(int)]):
        lines.append(f"{head} " + " ".join(shade.ljust(wide) for shade in row))
    return "\n".join(line.rstrip() for line in lines)


def columns(text):
    """How many columns of a terminal a text takes: two for a wide character such as 漢."""
    return sum(1 + (unicodedata.east_asian_width(character) in "WF") for character in text)


def draw_counts(path, N, itos):
    """The table as a picture: each cell with its pair and its count, at most 40 x 40."""
    from matplotlib.figure import Figure

    tokens = busiest(N, 40)
    counts = N[np.ix_(tokens, tokens)]
    figure = Figure(figsize=(16, 16), layout="constrained")
    axes = figure.subplots()
    axes.imshow(counts, cmap="Blues")
    for (i, j), number in np.ndenumerate(counts):
        color = "white" if number > counts.max() / 2 else "black"
        pair = itos[tokens[i]] + itos[tokens[j]]
        axes.text(j, i, pair, ha="center", va="bottom", color=color, fontsize=9)
        axes.text(j, i, number, ha="center", va="top", color=color, fontsize=7)
    axes.axis("off")
    figure.savefig(path)


# ------------------------------------------------------------------------------------ checkpoints

KEPT = {"order", "smoothing", "l2", "seed", "steps", "lr"}


class Run(NamedTuple):
    """The two models: the table of counts, and the weights of the network at some step."""

    N: np.ndarray  # (V,) * order
    W: np.ndarray  # (V, V); (0, 0) where order is not 2
    step: int  # steps done
    options: dict  # those in KEPT
    alphabet: str  # characters in the order of their tokens
    words: int  # CRC-32 of the data


def save_run(path, run):
    """Write a file beside `path`, then rename it: there is always the old one or the new, whole."""
    facts = {"script": "bigram.py", **run._asdict()}
    tables = {name: facts.pop(name) for name in ("N", "W")}
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
            if script == "bigram.py":
                run = Run(archive["N"], archive["W"], **facts)
                vocab, order = len(run.alphabet), run.options["order"]
                damaged = (
                    run.N.shape != (vocab,) * order
                    or run.N.dtype != np.int64
                    or run.N.min() < 0
                    or run.W.shape != ((vocab, vocab) if order == 2 else (0, 0))
                    or run.W.dtype != np.float64
                    or not np.isfinite(run.W).all()
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
    if script != "bigram.py":
        known = f", but of {repr(script)[:40]}" if script else ""
        raise ValueError(f"{path} is no model of bigram.py{known}")
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


class Smoothing(Finite):
    """A number to add to every count, or auto."""

    name = "number or auto"

    def convert(self, value, param, ctx):
        return value if value == "auto" else super().convert(value, param, ctx)


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


def new_run(words, options, init_rng):
    """The counts of all words, and weights that have learnt nothing yet -> Run."""
    stoi, itos = build_vocab(words)
    N, vocab = count(words, stoi, options["order"]), len(itos)
    W = init_rng.standard_normal((vocab, vocab)) if options["order"] == 2 else np.zeros((0, 0))
    return Run(N, W, 0, options, "".join(stoi), checksum(words))


def check_run(run, options, words, prefix, word):
    """Refuse options that the model cannot follow; warn of words that it was not made of."""
    for name in ("order", "seed"):
        if options[name] != run.options[name]:
            raise click.UsageError(f"--{name}: the checkpoint has {run.options[name]}")
    if not word:
        raise click.BadParameter("a word has at least one character", param_hint="--word")
    for option, text in (("--prefix", prefix), ("--word", word)):
        for character in text:
            if character not in run.alphabet[1:]:
                raise click.BadParameter(f"the model never saw {character!r}", param_hint=option)
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


def run_training(run, save):
    """Train to the last step, with progress -> (Run, signal that ended it).

    Saves every few seconds and at the end, whatever ends it; but a loss that is no longer a number
    is not saved, and raises ValueError.
    """
    options, start = run.options, run.step
    steps, lr, l2 = options["steps"], options["lr"], options["l2"]
    training = train(run.W, run.N, steps, lr, l2, start)
    done, loss, caught = 0, math.nan, []
    began = saved = time.perf_counter()
    with on_signal(lambda number, frame: caught.append(number)):
        try:
            for step, loss in reported(training, start, steps, len(run.alphabet)):
                done = step - start
                if caught or not math.isfinite(loss):
                    break
                due = time.perf_counter() - saved > SAVE_EVERY
                if save and due and np.isfinite(run.W).all():
                    try:
                        save_run(save, run._replace(step=step))
                    except OSError as error:
                        click.echo(f"Warning: {save}: {error.strerror}", err=True)
                    saved = time.perf_counter()
        finally:
            run = run._replace(step=start + done)
            sound = math.isfinite(loss) and np.isfinite(run.W).all()
            if save and sound:
                save_run(save, run)
    if not sound:
        raise ValueError(f"the loss is no longer a number at step {run.step:,}: try a lower --lr")
    seconds = time.perf_counter() - began
    click.echo(f"{done:,} steps in {seconds:.1f} s ({seconds / done * 1e6:.0f} µs/step)")
    return run, caught[0] if caught else None


def show_stop(run, save):
    after = f"saved: go on with --load {save} --save {save}" if save else "not saved: no --save"
    click.echo(f"stopped at step {run.step:,}; {after}", err=True)


def figure(number, width, decimals=4):
    """A number in so many columns, whatever its size."""
    return f"{number:{width}.{decimals}f}" if number < 1e4 else f"{number:{width}.2e}"


def show_table(N, itos):
    """The ten most frequent pairs, and all of them as shades."""
    most = np.argsort(-N, axis=None, kind="stable")[:10]
    pairs = [f"{itos[i]}{itos[j]} {N[i, j]:<8,}" for i, j in zip(*np.unravel_index(most, N.shape))]
    click.echo("the ten most frequent pairs")
    click.echo("".join(pairs[:5]).rstrip() + "\n" + "".join(pairs[5:]).rstrip() + "\n")
    click.echo("all pairs: first character down, next across; from none to most  .:-=+*#%@")
    click.echo(heat_map(N, itos) + "\n")


def show_word(word, P, stoi, itos):
    """The likelihood of one word, a run of characters a line."""
    X, Y = build_dataset([word], stoi, P.ndim - 1)
    probs = P[(*X.T, Y)]  # (len(word) + 1,)
    with np.errstate(divide="ignore"):
        logs = np.log(probs)
    click.echo(f"{word}  probability       log")
    for context, target, p, log in zip(X.tolist(), Y.tolist(), probs, logs):
        run = "".join(itos[token] for token in [*context, target])
        click.echo(f"{run:{len(word)}}{p:13.4f}{log:10.4f}")
    total = logs.sum()
    if np.isinf(total):
        click.echo("The model cannot produce it: its loss is infinite.\n")
    else:
        click.echo(f"sum of logs {total:.4f}, mean negative log {-total / len(Y):.4f}\n")


def show_one_hot(text, stoi, itos):
    """What the network is fed: a row for each character."""
    cut = ", the first 36 columns" if len(stoi) > 36 else ""
    click.echo(f"one_hot({text!r})  ({len(text)}, {len(stoi)}){cut}")
    for character, row in zip(text, one_hot([stoi[c] for c in text], len(stoi))):
        click.echo(f"{character}  " + " ".join(f"{x:.0f}" for x in row[:36]))


def show_losses(rows):
    """Rows of (name, counts, probabilities)."""
    click.echo(f"{'split':9}      loss  perplexity")
    for name, N, P in rows:
        loss = mean_loss(N, P)
        click.echo(f"{name:9}{figure(loss, 10)}{figure(np.exp(loss), 12, 3)}")


def choose_smoothing(N_train, N_dev):
    """Try a grid on dev, and show it -> the smoothing with the lowest loss there."""
    grid = [m * 10.0**e for e in (-3, -2, -1, 0) for m in (1, 3)] + [10.0]
    losses = [mean_loss(N_dev, probabilities(N_train, smoothing)) for smoothing in grid]
    click.echo("smoothing  dev loss")
    for smoothing, loss in zip(grid, losses):
        click.echo(f"{smoothing:9g}{figure(loss, 10)}{'  <' if loss == min(losses) else ''}")
    click.echo()
    return grid[int(np.argmin(losses))]


def show_agreement(N, P, W):
    counted, learnt = mean_loss(N, P), mean_loss(N, softmax(W))
    click.echo(f"loss by counting {counted:.4f}, by learning {learnt:.4f}, ", nl=False)
    click.echo(f"difference {learnt - counted:.4f}")
    click.echo(f"largest difference between the tables {np.abs(softmax(W) - P).max():.4f}")
    click.echo("Both are the minimum of one convex loss: its gradient in row i of W is")
    click.echo("(n_i softmax(W_i) - N_i) / n, zero only where softmax(W_i) is N_i / n_i.\n")


def show_samples(P, rng, itos, words, number, prefix, temperature):
    known = set(words)
    for first in range(0, number, 65_536):
        for word in sample(P, rng, itos, min(65_536, number - first), prefix, temperature):
            click.echo(word if word in known else f"{word:19} new")


COUNT, REAL, FILE = click.IntRange(0), Finite(0, min_open=True), click.Path()
WHICH = click.Choice(["counts", "net"])
SMOOTHING = "Added to every count; auto: the best on dev."
RESUME = "Checkpoint to go on from, with its options."


@click.command(context_settings={"show_default": True})
@click.option("--data", type=FILE, default=NAMES, show_default="names.txt", help="Word list.")
@click.option("--order", type=click.IntRange(2, 20), default=2, help="Length of the runs to count.")
@click.option("--smoothing", type=Smoothing(0), default="1", help=SMOOTHING)
@click.option("--word", show_default="the first", help="Word to tell the likelihood of.")
@click.option("--steps", type=COUNT, default=200, help="Steps of training in all.")
@click.option("--lr", type=REAL, default=50.0, help="Learning rate.")
@click.option("--l2", type=Finite(0), default=0.0, help="Weight of mean(W^2) in the loss.")
@click.option("--seed", type=COUNT, default=42, help="Where all randomness comes from.")
@click.option("--model", type=WHICH, default="counts", help="Which of the two makes up words.")
@click.option("--samples", type=COUNT, default=20, help="Words to make up.")
@click.option("--prefix", default="", show_default=False, help="What they begin with.")
@click.option("--temperature", type=REAL, default=1.0, help="Below 1 tamer, above 1 wilder.")
@click.option("--save", type=FILE, help="Checkpoint to write, every 5 seconds and at the end.")
@click.option("--load", type=FILE, callback=use_checkpoint, is_eager=True, help=RESUME)
@click.option("--plot", type=FILE, help="Picture to draw of the counts (needs matplotlib).")
def main(data, word, model, samples, prefix, temperature, save, load, plot, **options):
    """Count which character follows which, and learn the same by gradient descent."""
    with plain_endings():
        split_rng, init_rng, _, sample_rng = np.random.default_rng(options["seed"]).spawn(4)
        order = options["order"]
        if model == "net" and order != 2:
            raise click.UsageError("--model net goes with --order 2")
        check_targets(save, load, plot)
        words = load_words(data)
        run = load or new_run(words, options, init_rng)
        word = words[0] if word is None else word
        check_run(run, options, words, prefix, word)
        run, stopped = run._replace(options=options), None
        itos = dict(enumerate(run.alphabet))
        stoi = {character: token for token, character in itos.items()}
        splits = [count(split, stoi, order) for split in split_words(words, split_rng)]
        runs = f"{run.N.sum():,} runs of {order} characters"
        click.echo(f"{len(words):,} words, {len(itos)} characters, {runs}\n")
        pairs = run.N.reshape(-1, *run.N.shape[-2:]).sum(axis=0)  # (V, V)
        show_table(pairs, itos)

        smoothing = options["smoothing"]
        if smoothing == "auto":
            smoothing = choose_smoothing(*splits[:2])
        P, P_train = probabilities(run.N, smoothing), probabilities(splits[0], smoothing)
        show_word(word, P, stoi, itos)
        click.echo(f"counted on all words with smoothing 0 and {smoothing:g}, then on train")
        rows = [("all, 0", run.N, probabilities(run.N, 0)), (f"all, {smoothing:g}", run.N, P)]
        show_losses(rows + [(n, N, P_train) for n, N in zip(("train", "dev", "test"), splits)])

        if order == 2:
            click.echo()
            show_one_hot("." + word, stoi, itos)
            click.echo()
            if run.step < options["steps"]:
                run, stopped = run_training(run, save)
            show_agreement(run.N, probabilities(run.N, 0), run.W)
        if save and not stopped:
            save_run(save, run)
        if stopped:
            show_stop(run, save)
            sys.exit(128 + stopped)
        P = P if model == "counts" else softmax(run.W)
        show_samples(P, sample_rng, itos, words, samples, prefix, temperature)
        if plot:
            draw_counts(plot, pairs, itos)


if __name__ == "__main__":
    main()
