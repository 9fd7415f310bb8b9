#!/usr/bin/env -S uv run --script
"""Stage 2: counting pairs of characters, and a network of one layer that learns the same table.

How likely is `a` after `m`? Counting answers directly: as often as in the data. With N[i, j] the
number of times that j follows i, and an alphabet of V characters,

    P[i, j] = (N[i, j] + smoothing) / sum_j (N[i, j] + smoothing)     (V, V), rows sum to 1
    loss    = mean(-log P[i, j]) over all pairs of the data           in nats

The likelihood of the data is the product of all its probabilities, and its log is a sum. So the
table of maximum likelihood is the one with the lowest mean of -log: the counts without smoothing.

One mark, `.`, begins and ends each word. With two different marks, N would be 28 x 28 for a to z,
where the mark that only begins words has an empty column, and the one that only ends them an empty
row. One mark for both needs only 27 x 27.

The network starts from random weights W instead, and follows the gradient of that loss downhill.
Row i of W holds the logits of what follows i, log-counts, which softmax turns into probabilities.
For n pairs of a character X and the next one Y, the forward pass is

    logits  = one_hot(X) @ W                                          (n, V), that is W[X]
    loss    = mean(-log softmax(logits)[Y]) + l2 * mean(W^2)          in nats

and the backward pass, with dx for the gradient of the loss with respect to x,

    dlogits = (softmax(logits) - one_hot(Y)) / n                      (n, V)
    dW      = one_hot(X).T @ dlogits + 2 * l2 * W / V^2               (V, V)

The logits of a pair depend on its first character alone, and equal pairs have equal terms in both
sums: with n_i = sum_j N[i, j] pairs that begin with i, row i of the gradient is

    dW[i]   = n_i / n * (softmax(W[i]) - N[i] / n_i)                  [+ 2 * l2 * W[i] / V^2]

So the counts are enough to train on, and without the penalty l2 the gradient vanishes as the learnt
table approaches the counted one. The penalty pulls towards uniform, as smoothing does.

Longer contexts (--order) are counted the same way, as long as the table fits in memory. After the
lecture "The spelled-out intro to language modeling: building makemore" (part 1).

    python bigram.py                               both models, side by side
    python bigram.py --order 4 --smoothing auto    count runs of 4 characters
    python bigram.py --model net --prefix ma       names that start with ma, by the network
    python bigram.py --word andrejq --smoothing 0  the likelihood of a word
    python bigram.py --gradcheck                   compare with plain loops, central differences
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import math
import os
import sys
import time
import warnings
from unicodedata import normalize

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # on matrices this small, threads only wait
sys.path.insert(0, os.path.dirname(__file__))  # for common, also with python -I

try:
    import click
    import numpy as np
except ImportError as error:
    sys.exit(f"Error: {error}. Needed: Python 3.11 or newer with numpy and click, see README.md")

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# --------------------------------------------------------------------------------------- counting

MOST_CELLS = 2**25  # of one table: 256 MB


def count(words, stoi, order=2):
    """How often each run of `order` characters occurs -> N (V,) * order, integers.

    `.` stands before and after each word. Raises ValueError if order is not at least 2, and
    click.ClickException if the table is too large.
    """
    V = len(stoi)
    if order < 2:
        raise ValueError(f"a run has at least 2 characters, not {order}")
    if V**order > MOST_CELLS:
        cause = f"--order {order} needs" if order > 2 else f"{V:,} characters need"
        raise click.ClickException(f"{cause} {V:,}^{order} counts: at most {MOST_CELLS:,} fit")
    X, Y = build_dataset(words, stoi, order - 1)  # (n, order - 1), (n,)
    N = np.zeros((V,) * order, int)
    np.add.at(N, (*X.T, Y), 1)  # N[x, y] += 1 for each run
    return N


def probabilities(N, smoothing):
    """Counts -> P of the same shape; its last axis sums to 1.

    After a context that was never seen, without smoothing, every character is equally likely.
    """
    P = N + smoothing
    total = P.sum(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):  # 0 / 0
        return np.where(total > 0, P / total, 1 / N.shape[-1])


def mean_loss(N, P):
    """Mean of -log P = log(1 / P) over the runs counted in N, in nats; inf if P has a 0 there."""
    seen = N > 0
    with np.errstate(divide="ignore"):
        return float(N[seen] @ np.log(1 / P[seen]) / N.sum())


# ---------------------------------------------------------------------------------------- learning


def one_hot(tokens, vocab, dtype):
    """Tokens (n,) -> (n, vocab), a single 1 in each row: row i of the identity matrix for i."""
    return np.identity(vocab, dtype)[tokens]


def log_softmax(logits):
    """Rows of logits z -> rows of log softmax(z) = z - log(sum_j exp z_j).

    Shifting a row by its maximum does not change its softmax, and exp cannot overflow.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)  # (n, V)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax(logits):
    """Rows of logits z -> rows of probabilities exp z_i / sum_j exp z_j."""
    return np.exp(log_softmax(logits))


def loss_and_gradients(W, X, Y, l2=0.0):
    """The definition: W (V, V), inputs X (n,) or (n, 1), targets Y (n,) -> (loss, dW (V, V)).

    For a row z of logits with the target y, and p = softmax(z),

        loss = -log p_y = log(sum_j exp z_j) - z_y
        dloss/dz_i = exp z_i / sum_j exp z_j - [i = y] = p_i - [i = y]

    The mean divides both by n.
    """
    n, V = len(Y), len(W)
    inputs, targets = one_hot(np.ravel(X), V, W.dtype), one_hot(Y, V, W.dtype)  # (n, V) each
    logits = inputs @ W  # (n, V)
    log_probs = log_softmax(logits)  # (n, V)
    loss = -log_probs[targets == 1].sum() / n
    dlogits = (np.exp(log_probs) - targets) / n  # (n, V)
    dW = inputs.T @ dlogits  # (V, V)
    if l2:
        loss += l2 * (W**2).mean()
        dW += 2 * l2 * W / W.size
    return float(loss), dW


def loss_and_gradients_of_counts(W, N, l2=0.0):
    """This is the fast form: the same from the counts N (V, V), at a cost independent of n.

    The pairs that begin with i share the logits W[i]. There are n_i = sum_j N[i, j] of them, and
    their dlogits add up to

        sum over them of (softmax(W[i]) - one_hot(y)) / n = (n_i * softmax(W[i]) - N[i]) / n
    """
    n, seen = N.sum(), N > 0
    log_probs = log_softmax(W)  # (V, V)
    loss = -(N[seen] @ log_probs[seen]) / n
    dW = (N.sum(axis=1, keepdims=True) * np.exp(log_probs) - N) / n  # (V, V)
    if l2:
        loss += l2 * (W**2).mean()
        dW += 2 * l2 * W / W.size
    return float(loss), dW


def train(W, N, steps, lr, l2=0.0):
    """Gradient descent on all pairs, W in place: yields (steps done, loss before the step)."""
    N = N.astype(W.dtype)
    for step in range(steps):
        loss, dW = loss_and_gradients_of_counts(W, N, l2)
        W -= lr * dW
        yield step + 1, loss


# ---------------------------------------------------------------------------------------- sampling


def sample(P, rng, stoi, itos, prefix="", temperature=1.0, longest=100):
    """Make up a word that starts with `prefix` -> str, cut at `longest` characters.

    P has the shape (V,) * order. Each next character is drawn from its row of P to the power
    1 / temperature, until it is the dot. Raises KeyError for a prefix character without a token.
    """
    context = P.ndim - 1
    tokens = [0] * context + [stoi[character] for character in prefix]
    while len(tokens) < context + longest:
        probs = P[tuple(tokens[-context:])]  # (V,)
        scores = (probs / probs.max()) ** (1 / temperature)  # (V,)
        token = rng.choice(len(scores), p=scores / scores.sum())
        if token == 0:
            break
        tokens.append(token)
    return "".join(itos[token] for token in tokens[context:])


# ------------------------------------------------------------------------------ checking the code


def relative_error(found, expected):
    """The largest difference over the largest expected number (at least 1e-4); inf for nan."""
    if np.shape(found) != np.shape(expected):
        return math.inf
    error = np.abs(np.subtract(found, expected)).max() / np.abs(expected).max(initial=1e-4)
    return math.inf if math.isnan(error) else error


def check_counting():
    """Compare count, probabilities and mean_loss with plain loops -> {function: relative error}."""
    stoi, errors = {".": 0, "a": 1, "b": 2, "n": 3, "x": 4}, []
    words, others = ["anna", "ab", "baa", "n"], ["banana", "ab"]
    for order, smoothing, tested in ((2, 0, words), (2, 1, others), (3, 0, others), (3, 1, words)):
        N = np.zeros((5,) * order)
        P = np.zeros_like(N)
        for x, y in zip(*build_dataset(words, stoi, order - 1)):
            N[(*x, y)] += 1
        for context in np.ndindex(N.shape[:-1]):
            row = [number + smoothing for number in N[context]]
            P[context] = [number / sum(row) if any(row) else 1 / 5 for number in row]
        factors = [P[(*x, y)] for x, y in zip(*build_dataset(tested, stoi, order - 1))]
        typical = math.exp(-mean_loss(count(tested, stoi, order), P))  # 0 if the loss is inf
        pairs = [(count(words, stoi, order), N), (probabilities(N, smoothing), P)]
        pairs.append((typical, math.prod(factors) ** (1 / len(factors))))  # geometric mean
        errors.append([relative_error(found, expected) for found, expected in pairs])
    return dict(zip(("count", "probabilities", "mean_loss"), np.max(errors, axis=0)))


def plain_loss(W, X, Y, l2):
    """What both losses mean, as long as exp does not overflow."""
    P = np.exp(W) / np.exp(W).sum(axis=1, keepdims=True)  # (V, V)
    return -np.log(P[X, Y]).mean() + l2 * (W**2).mean()


def check_learning(rng, vocab=5, n=12, epsilon=1e-6):
    """Compare losses with plain_loss, gradients with its central differences -> {name: error}.

    dloss/dx is about (loss(x + epsilon) - loss(x - epsilon)) / (2 epsilon).
    """
    W, N = rng.standard_normal((vocab, vocab)), np.zeros((vocab, vocab))
    X, Y = rng.integers(vocab, size=n), rng.integers(vocab, size=n)
    np.add.at(N, (X, Y), 1)
    expected = np.exp(W[:3]) / np.exp(W[:3]).sum(axis=1, keepdims=True)
    errors = {"softmax": relative_error(softmax(W[:3]), expected)}
    for l2, penalty in ((0.0, ""), (0.7, ", l2")):
        numeric = np.zeros_like(W)
        for i in np.ndindex(W.shape):
            step = np.zeros_like(W)
            step[i] = epsilon
            above, below = plain_loss(W + step, X, Y, l2), plain_loss(W - step, X, Y, l2)
            numeric[i] = (above - below) / (2 * epsilon)
        rows, counts = loss_and_gradients(W, X, Y, l2), loss_and_gradients_of_counts(W, N, l2)
        for name, (loss, dW) in (("rows", rows), ("counts", counts)):
            errors[f"loss of {name}{penalty}"] = relative_error(loss, plain_loss(W, X, Y, l2))
            errors[f"dW of {name}{penalty}"] = relative_error(dW, numeric)

    huge, N_huge, dW_huge = np.zeros((3, 3, 3))  # one pair, (0, 1)
    huge[0], N_huge[0, 1], dW_huge[0, :2] = (5000, 0, -math.inf), 1, (1, -1)
    both = loss_and_gradients(huge, [0], [1]), loss_and_gradients_of_counts(huge, N_huge)
    found = [(relative_error(loss, 5000), relative_error(dW, dW_huge)) for loss, dW in both]
    errors["huge logits"] = np.max(found)

    trained, expected = W.copy(), []
    for step in range(3):
        loss, dW = loss_and_gradients(trained, X, Y, 0.7)
        trained -= 0.5 * dW
        expected.append((step + 1, loss))
    found = [*train(W, N, 3, 0.5, 0.7)]
    errors["train"] = np.max([relative_error(found, expected), relative_error(W, trained)])
    return errors


def report(errors):
    """Print a row for each error. Raises click.ClickException if one is not below 1e-6."""
    click.echo("checked            largest error")
    for name, error in errors.items():
        click.echo(f"{name:18}{error:14.1e}  {'ok' if error < 1e-6 else 'WRONG'}")
    if wrong := [name for name, error in errors.items() if not error < 1e-6]:
        raise click.ClickException(f"wrong gradients: {', '.join(wrong)}")
    click.echo("every gradient agrees with central differences within 1e-6")


# ---------------------------------------------------------------------------------------- pictures


def most_frequent(N, number):
    """The tokens of the most frequent characters, most frequent first -> (number,) or fewer."""
    return np.argsort(-N.sum(axis=0), kind="stable")[:number]


def draw_counts(path, N, itos):
    """The counts of pairs N (V, V) as a picture, each cell with its pair, at most 40 x 40."""
    from matplotlib.figure import Figure

    tokens = np.sort(most_frequent(N, 40))
    counts = N[np.ix_(tokens, tokens)]  # (40, 40) or smaller
    figure = Figure(figsize=(16, 16))
    axes = figure.add_axes((0, 0, 1, 0.96))
    axes.imshow(counts, cmap="Blues")
    for (i, j), number in np.ndenumerate(counts):
        color = "white" if number > counts.max() / 2 else "black"
        pair = itos[tokens[i]] + itos[tokens[j]]
        place = {"ha": "center", "va": "baseline", "color": color, "parse_math": False}
        axes.text(j, i - 0.05, pair, fontsize=14, **place)
        axes.text(j, i + 0.33, number, fontsize=10, **place)
    axes.axis("off")
    title = f"Counts of pairs: how often the second character follows the first ({N.sum():,} pairs)"
    axes.set_title(title, size=20)
    with warnings.catch_warnings(record=True) as lacking:
        figure.savefig(path, dpi=65)
    if lacking:
        click.echo("The font lacks some characters: boxes stand for them.", err=True)


# ----------------------------------------------------------------------------------- command line


def show_pairs(N, itos):
    """The counts of the pairs N (V, V) of the six most frequent characters."""
    tokens = most_frequent(N, 6)
    which = "all pairs" if len(N) <= 6 else "pairs of the six most frequent characters"
    click.echo(f"\n{which}, first down, next across")
    click.echo(" " + "".join(f"{itos[j]:>8}" for j in tokens))
    for i in tokens:
        click.echo(itos[i] + "".join(f"{N[i, j]:8,}" for j in tokens))


def show_word(word, P, stoi, itos, title):
    """The likelihood of one word, with at most its first 12 factors."""
    X, Y = build_dataset([word], stoi, P.ndim - 1)  # (len(word) + 1, order - 1), (len(word) + 1,)
    probs = P[(*X.T, Y)]  # (len(word) + 1,)
    surprises = np.log(1 / probs)  # (len(word) + 1,)
    click.echo(f"\nprobability   -log  {word:.20}, by {title}")
    for context, target, p, surprise in zip(X[:12], Y, probs, surprises):
        run = "".join(itos[token] for token in [*context, target])
        click.echo(f"{p:11.4f} {surprise:6.2f}  {run}")
    if len(probs) > 12:
        click.echo(f"        ... {len(probs) - 12:,} more")
    click.echo(f"{probs.prod():11.4g}  likelihood of the word: the product of its probabilities")
    click.echo(f"{-surprises.sum():z11.4f}  log likelihood: the sum of their logs")
    click.echo(f"{surprises.mean():11.4f}  mean of -log, in nats: the loss of this word")


def show_both_ways(W, words, stoi, l2):
    """The loss and the gradient of a few words, by their one-hot rows and by their counts."""
    few = [word[:20] for word in words[:100]]
    rows, dW = loss_and_gradients(W, *build_dataset(few, stoi, 1), l2)
    counts, dW_of_counts = loss_and_gradients_of_counts(W, count(few, stoi), l2)
    apart = np.abs(dW - dW_of_counts).max()
    click.echo("\ncounts, losses, gradients: ok (checked as by --gradcheck)")
    click.echo(
        f"{len(few)} words, untrained: loss {rows:.6f} by rows, {counts:.6f} by counts, ", nl=False
    )
    click.echo(f"dW within {apart:.0e}")


def largest_difference(W, N):
    """Between the learnt and the counted table, after the characters that N has seen."""
    return np.abs(softmax(W) - probabilities(N, 0))[N.any(axis=1)].max()


def fit(W, N, steps, lr, l2):
    """Train W (V, V) in place on the counts N, with six rows of losses and the time left.

    -> the losses of all steps. Raises click.ClickException if the loss diverges.
    """
    live = all(stream and stream.isatty() for stream in (sys.stdout, sys.stderr))
    clear = "\r\033[K" if live else ""  # the line with the time left
    click.echo("    step      loss  largest difference between the learnt and the counted table")
    losses, began = [], time.perf_counter()
    told = began
    try:
        for step, loss in train(W, N, steps, lr, l2):
            losses.append(loss)
            now = time.perf_counter()
            if not math.isfinite(loss):
                message = "try a lower --lr, or --gradcheck if you changed the code"
                raise click.ClickException(f"the loss diverged at step {step:,}: {message}")
            if step in (1, steps) or step % math.ceil(steps / 5) == 0:
                click.echo(f"{clear}{step:8,} {loss:z9.4f} {largest_difference(W, N):9.4f}")
            elif live and now - told > 0.2:
                left = (now - began) / step * (steps - step)
                click.echo(f"{clear}{step / steps:4.0%}, {left:.0f} s left", nl=False, err=True)
                told = now
    finally:
        click.echo(clear, nl=False, err=True)
    seconds = time.perf_counter() - began
    click.echo(f"{steps:,} steps in {seconds:.1f} s ({seconds / max(1, steps) * 1e6:.0f} µs/step)")
    return losses


def compare_tables(W, N, lr, l2, losses):
    """Say whether the learnt table is the counted one, and if not, why."""
    apart, late = largest_difference(W, N), losses[len(losses) // 2 :]
    # A step that is not too large lowers the loss by about lr * sum(dW^2), and dW only shrinks.
    _, dW = loss_and_gradients_of_counts(W, N, l2)
    expected = lr * (dW**2).sum() * (len(late) - 1)
    if apart < 0.01 and not l2:
        click.echo(f"The tables agree within {apart:.4f}: the gradient vanishes only there.")
    elif late and expected > 1e-9 and late[0] - late[-1] < 0.01 * expected:
        click.echo("The tables stay apart, as the steps go too far: try a lower --lr.", err=True)
    elif l2:
        click.echo("The penalty, part of the loss, keeps them apart: it pulls towards uniform.")
    else:
        click.echo("The tables still differ: more --steps bring them closer.", err=True)


def choose_smoothing(N_train, N_dev):
    """Show a grid of smoothings with their losses -> the one with the lowest loss on dev."""
    grid = [m * 10.0**e for e in (-3, -2, -1, 0) for m in (1, 3)] + [10.0]
    losses = []
    for smoothing in grid:
        P = probabilities(N_train, smoothing)
        losses.append((mean_loss(N_dev, P), mean_loss(N_train, P)))
    best = losses.index(min(losses))
    click.echo("\nsmoothing     train       dev")
    for i, (dev, train_loss) in enumerate(losses):
        mark = "  lowest on dev" if i == best else ""
        click.echo(f"{grid[i]:9g} {train_loss:9.4f} {dev:9.4f}{mark}")
    return grid[best]


def positive(text):
    """Read a positive real number from the command line."""
    if not 1e-6 <= float(text) <= 1e6:
        raise click.BadParameter(f"{text} is not between 1e-6 and 1e6.")
    return float(text)


def not_negative(text):
    """Read 0 or a positive real number from the command line."""
    return 0.0 if float(text) == 0 else positive(text)


def number_or_auto(text):
    """Read a number that is not negative, or auto, from the command line."""
    return text if text == "auto" else not_negative(text)


WORDS = click.Path(exists=True, dir_okay=False, resolve_path=True)
FILE = click.Path(dir_okay=False, resolve_path=True)
COUNT = click.IntRange(0, 10**7)
SPLITS = "train", "dev", "test"
SMOOTHING = "Added to every count; auto: the best on dev."
FEWER = "20,000, fewer above 111 characters"
MODEL = "Model to sample from; net skips the counting."
PLOT = "Picture of the counts of pairs to draw (needs matplotlib)."


@click.command(context_settings={"show_default": True})
@click.option("--data", type=WORDS, default=NAMES, show_default="names.txt", help="Word list.")
@click.option("--order", type=click.IntRange(2, 20), default=2, help="Length of the runs to count.")
@click.option("--smoothing", type=number_or_auto, default=1.0, help=SMOOTHING)
@click.option("--steps", type=COUNT, show_default=FEWER, help="Training steps of the net.")
@click.option("--lr", type=positive, default=50.0, help="Learning rate of the net.")
@click.option("--l2", type=not_negative, default=0.0, help="Weight of mean(W^2) in its loss.")
@click.option("--model", type=click.Choice(["counts", "net"]), default="counts", help=MODEL)
@click.option("--word", default="", show_default="the first", help="Word to take apart.")
@click.option("--seed", type=click.IntRange(0), default=42, help="Random seed.")
@click.option("--samples", type=click.IntRange(0, 10_000), default=20, help="Words to make up.")
@click.option("--prefix", default="", show_default=False, help="Prefix of every sample.")
@click.option("--temperature", type=positive, default=1.0, help="Sampling temperature.")
@click.option("--plot", type=FILE, help=PLOT)
@click.option("--gradcheck", is_flag=True, help="Check counts, losses and gradients and exit.")
@click.pass_context
@np.errstate(all="ignore")  # what overflows shows in the loss
def main(
    ctx, data, order, smoothing, steps, lr, l2, model, word, seed, samples, prefix, temperature,
    plot, gradcheck,
):  # fmt: skip
    """Count which character follows which, and learn the same by gradient descent."""
    rng = np.random.default_rng(seed)
    split_rng, check_rng = rng.spawn(2)  # the split stays the same, whatever else is drawn
    errors = {**check_counting(), **check_learning(check_rng)}
    if gradcheck or not np.max([*errors.values()]) < 1e-6:
        return report(errors)
    unused = ("steps", "lr", "l2") if order > 2 else ("smoothing",) if model == "net" else ()
    given = [name for name in unused if ctx.get_parameter_source(name).name == "COMMANDLINE"]
    if order > 2 and (given or model == "net"):
        raise click.UsageError(f"--{(given or ['model net'])[0]} needs --order 2")
    if given:
        raise click.UsageError("--model net takes no --smoothing")
    if plot and os.path.splitext(plot)[1] not in (".png", ".svg", ".pdf"):
        raise click.BadParameter("not a .png, .svg or .pdf file", param_hint="--plot")
    words, prefix, word = load_words(data), normalize("NFC", prefix), normalize("NFC", word)
    stoi, itos = build_vocab(words)
    V = len(stoi)
    for option, text in (("--prefix", prefix), ("--word", word)):
        if unknown := set(text) - set("".join(words)):
            raise click.BadParameter(f"no word contains {min(unknown)!r}", param_hint=option)
    train_words, *others = split_words(words, split_rng)
    splits = [count(part, stoi, order) for part in (train_words, *others)]
    known = set(words)
    N = sum(splits)  # (V,) * order, of all words
    pairs = N.reshape(-1, V, V).sum(axis=0)  # (V, V)
    click.echo(f"{len(words):,} words ({len(known):,} distinct), {N.sum():,} runs of {order}")
    click.echo(f"{V:,} characters: {repr(''.join(stoi))[1:-1]}"[:80])
    if plot:
        draw_counts(plot, pairs, itos)

    word = word or words[0]
    if model == "counts":
        if order == 2:
            show_pairs(pairs, itos)
        loss = mean_loss(N, probabilities(N, 0))
        guess = f"uniform guess: ln {V} = {math.log(V):.4f}"
        click.echo(f"loss of all words by their own counts: {loss:.4f}; {guess}")
        if smoothing == "auto":
            smoothing = choose_smoothing(*splits[:2])
        P = probabilities(splits[0], smoothing)  # (V,) * order
        title = f"the counts of train, smoothing {smoothing:g}"
        show_word(word, P, stoi, itos, title)
    if order == 2:
        default = min(20_000, 250_000_000 // V**2)  # about 20 seconds
        if steps is None and default < 20_000:
            click.echo(f"{default:,} steps, not 20,000: {V:,} characters are slow.", err=True)
        steps = default if steps is None else steps
        W = rng.standard_normal((V, V))
        show_both_ways(W, train_words, stoi, l2)
        losses = fit(W, splits[0], steps, lr, l2)
        compare_tables(W, splits[0], lr, l2, losses)
        learnt = softmax(W)  # (V, V)
    if model == "net":
        P, title = learnt, "the net, trained on train"
        show_word(word, P, stoi, itos, title)
    elif order == 2:
        ends = [f"{mean_loss(part, learnt):.4f} on {name}" for name, part in zip(SPLITS, splits)]
        click.echo(f"the net, trained on train: loss {', '.join(ends)}")

    click.echo(f"{title}:")
    click.echo("split      loss  perplexity = exp(loss): as unsure as a guess among this many")
    ends = [mean_loss(part, P) for part in splits]
    for name, loss in zip(SPLITS, ends):
        click.echo(f"{name:5} {loss:9.4f} {np.exp(loss):#11.4g}")
    if model == "net" and ends[0] > math.log(V):
        click.echo("Worse than a uniform guess: train longer, or with a lower --lr.", err=True)
    if ends[1] > ends[0] + 0.5:
        click.echo("dev is far above train, which lacks many of its runs.", err=True)
    longest = 2 * max(map(len, words))
    for _ in range(samples):
        made = sample(P, rng, stoi, itos, prefix, temperature, longest).strip()
        mark = "" if made in known else "new" if len(made) < longest else "cut"
        click.echo(f"{made or '(empty)':19} {mark}".rstrip())


if __name__ == "__main__":
    if hasattr(sys.stdout, "reconfigure"):  # not so in a notebook
        sys.stdout.reconfigure(errors="replace")  # a character that the terminal lacks becomes a ?
    try:
        main()
    except ImportError as error:  # of matplotlib
        sys.exit(f"Error: {error}: pip install {error.name}")
    except (MemoryError, OSError) as error:
        sys.exit(f"Error: {str(error) or 'out of memory'}")
