#!/usr/bin/env -S uv run --script
"""Stage 2: counting pairs of characters, and a network of one layer that learns the same table.

How likely is `a` after `m`? Counting answers directly: as often as in the data. A network of one
layer starts from a random table W instead, and follows the gradient of its loss downhill. With n
pairs of a character X and the next one Y, in an alphabet of V characters,

    N      = counts of all pairs                      (V, V)    logits = one_hot(X) @ W   (n, V)
    P      = N / its sum over each row                (V, V)    probs  = softmax(logits)  (n, V)
    loss   = mean(-log P[X, Y])                                 loss   = mean(-log probs[i, Y[i]])

Both losses are in nats, and no table has a lower one than the counts: it is the floor that the net
approaches. Why a net, if it learns the same? Longer contexts need a larger table (--order), most of
it empty; the net of stage 3 does not. After the lecture "The spelled-out intro to language
modeling: building makemore" (part 1).

    python bigram.py                               both models, side by side
    python bigram.py --order 4 --smoothing auto    count 4-grams: 4 characters in a row
    python bigram.py --model net --prefix ma       names that start with ma, by the network
    python bigram.py --word andrejq --smoothing 0  the likelihood of a word
    python tests/gradcheck.py bigram               check every gradient, after you changed a line
"""

# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=2.2", "click>=8.2"]
# ///

import math
import os
import sys

import click
import numpy as np

from common import NAMES, build_dataset, build_vocab, load_words, split_words

# --------------------------------------------------------------------------------------- counting


def count(words, stoi, order=2):
    """How often each n-gram of `order` characters occurs -> N (V,) * order, integers.

    One mark, `.`, begins and ends each word: with two, the start mark would have an empty column,
    the end mark an empty row. Raises click.ClickException if the table is too large.
    """
    V = len(stoi)
    if V**order > 2**25:  # 256 MB
        raise click.ClickException(f"a table of {V:,}^{order} counts would not fit in memory")
    X, Y = build_dataset(words, stoi, order - 1)  # (n, order - 1), (n,)
    N = np.zeros((V,) * order, int)
    np.add.at(N, (*X.T, Y), 1)  # N[x, y] += 1 for each pair
    return N


def probabilities(N, smoothing):
    """Counts -> P of the same shape: N + smoothing, over its sum along the last axis.

    Smoothing gives unseen n-grams some probability, and pulls each row towards uniform.
    """
    P = N + smoothing
    P[P.sum(axis=-1) == 0] = 1  # after a context that was never seen, all are equally likely
    return P / P.sum(axis=-1, keepdims=True)


def mean_loss(N, P):
    """Mean of -log P over the n-grams counted in N, in nats; inf if P has a 0 there.

    The likelihood of the data is the product of all its probabilities, and its log is a sum. So the
    table of maximum likelihood is the one with the lowest mean of -log. For a row with counts N_j,
    sum_j -N_j log P_j, where all P_j sum to 1, is lowest if every P_j is proportional to N_j.
    """
    seen = N > 0
    return N[seen] @ np.log(1 / P[seen]) / N.sum()


# ---------------------------------------------------------------------------------------- learning


def one_hot(tokens, vocab):
    """Tokens (n,) -> (n, vocab), a single 1 in each row: row i of the identity matrix for i."""
    return np.identity(vocab)[tokens]


def log_softmax(logits):
    """Rows of logits z -> rows of log softmax(z) = z - log(sum_j exp z_j).

    Shifting a row by its maximum does not change its softmax, and exp cannot overflow.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)  # (n, V)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def softmax(logits):
    """Rows of logits z -> rows of probabilities exp z_i / sum_j exp z_j."""
    return np.exp(log_softmax(logits))


def loss_and_gradients(W, X, Y):
    """The definition: W (V, V), inputs X (n,) or (n, 1), targets Y (n,) -> (loss, dW (V, V)).

    Row i of W holds the logits of what follows i: log-counts, which softmax turns into
    probabilities. For a row z of logits with the target y, p = softmax(z) and [i = y] = 1 or 0,

        loss = -log p_y = log(sum_j exp z_j) - z_y
        dloss/dz_i = exp z_i / sum_j exp z_j - [i = y] = p_i - [i = y]

    The mean divides both by n. W[i, j] is in logits[r, j] for every row r that starts with i, times
    1: dW[i, j] is the sum of these dlogits[r, j], which one_hot(X).T picks and adds up.
    """
    n = len(Y)
    inputs, targets = one_hot(np.ravel(X), len(W)), one_hot(Y, len(W))  # (n, V) each
    logits = inputs @ W  # (n, V)
    log_probs = log_softmax(logits)  # (n, V)
    loss = -(targets * log_probs).sum() / n
    dlogits = (np.exp(log_probs) - targets) / n  # (n, V)
    dW = inputs.T @ dlogits  # (V, V)
    return loss, dW


def loss_and_gradients_of_counts(W, N):
    """The fast form: the same from the counts N (V, V), at a cost independent of n.

    The n_i = sum_j N[i, j] pairs that begin with i share the logits W[i]. Their dlogits add up to

        dW[i] = (n_i * softmax(W[i]) - N[i]) / n = n_i / n * (softmax(W[i]) - N[i] / n_i)

    which vanishes where the learnt row is the counted one.
    """
    n = N.sum()
    log_probs = log_softmax(W)  # (V, V)
    loss = -(N * log_probs).sum() / n
    dW = (N.sum(axis=1, keepdims=True) * np.exp(log_probs) - N) / n  # (V, V)
    return loss, dW


def train(W, N, steps, lr, l2=0.0):
    """Gradient descent on all pairs: yields (steps done, loss) before each step and after the last.

    W changes in place. The penalty l2 * mean(W^2) keeps W small, and pulls the rows towards
    uniform, as smoothing does to counts.
    """
    N = N.astype(float)
    for step in range(steps + 1):
        loss, dW = loss_and_gradients_of_counts(W, N)
        if l2:
            loss += l2 * (W**2).mean()
            dW += 2 * l2 * W / W.size
        yield step, loss
        if step < steps:
            W -= lr * dW


# ---------------------------------------------------------------------------------------- sampling


def sample(P, rng, stoi, itos, prefix="", temperature=1.0, longest=30):
    """Make up a word that starts with `prefix` -> str, cut at `longest` characters.

    P has the shape (V,) * order. Each next character is drawn from its row of P to the power
    1 / temperature, until it is the dot.
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


# ---------------------------------------------------------------------------------------- pictures


def draw_counts(path, N, itos):
    """The counts of pairs N (V, V) as a picture, each cell with its pair; at most 40 x 40."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 16), layout="constrained")
    axes = figure.subplots()
    axes.imshow(N[:40, :40], cmap="Blues")
    for (i, j), number in np.ndenumerate(N[:40, :40]):
        style = {"ha": "center", "va": "center", "size": 11, "parse_math": False}
        color = "white" if number > N[:40, :40].max() / 2 else "black"
        axes.text(j, i, f"{itos[i]}{itos[j]}\n{number}", color=color, **style)
    axes.set(title="How often the second character follows the first", xticks=[], yticks=[])
    figure.savefig(path, dpi=65)


# ----------------------------------------------------------------------------------- command line


def show_frequent(N, itos):
    """The six most frequent n-grams."""
    grams = zip(*np.unravel_index(np.argsort(-N, axis=None, kind="stable")[:6], N.shape))
    texts = ["".join(itos[token] for token in gram) + f" {N[gram]:,}" for gram in grams]
    click.echo("  ".join(["most frequent:", *texts]))


def choose_smoothing(N_train, N_dev):
    """Show a grid of smoothings with their losses -> the one with the lowest loss on dev."""
    click.echo("\nsmoothing     train       dev")
    losses = {}
    for smoothing in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0):
        P = probabilities(N_train, smoothing)
        losses[smoothing] = mean_loss(N_dev, P)
        click.echo(f"{smoothing:9g} {mean_loss(N_train, P):9.4f} {losses[smoothing]:9.4f}")
    return min(losses, key=losses.get)


def show_both_ways(W, words, stoi, steps=100, lr=50.0):
    """Learn a few words by one-hot rows and by counts: it is the same table."""
    by_rows, by_counts = W.copy(), W.copy()  # (V, V) each
    X, Y = build_dataset(words, stoi, 1)  # (n, 1), (n,)
    for _ in range(steps):
        _, dW = loss_and_gradients(by_rows, X, Y)
        by_rows -= lr * dW
    *_, (_, loss) = train(by_counts, count(words, stoi), steps, lr)
    click.echo(f"\n{len(words)} words, {steps} steps by rows and by counts: loss {loss:.4f}")
    click.echo(f"the two tables differ by at most {np.abs(by_rows - by_counts).max():.0e}")


def fit(W, N, steps, lr, l2):
    """Train W (V, V) in place on the counts N, and print six rows."""
    click.echo("\n    step      loss  largest difference between the learnt and the counted table")
    for step, loss in train(W, N, steps, lr, l2):
        if not math.isfinite(loss):
            advice = "try a lower --lr, or tests/gradcheck.py if you changed the code"
            raise click.ClickException(f"the loss diverged at step {step:,}: {advice}")
        if step == steps or step % math.ceil(steps / 5) == 0:
            difference = np.abs(softmax(W) - probabilities(N, 0))[N.any(axis=1)].max()
            click.echo(f"{step:8,} {loss:9.4f} {difference:9.4f}")


def show_word(word, P, stoi, itos):
    """The likelihood of one word, factor by factor; of a long one, the first 20 are shown."""
    X, Y = build_dataset([word], stoi, P.ndim - 1)  # (len(word) + 1, order - 1), (len(word) + 1,)
    probs = P[(*X.T, Y)]  # (len(word) + 1,)
    logs = np.log(probs)  # (len(word) + 1,)
    click.echo(f"\nprobability   -log  {word:.58}")
    for context, target, p, log in [*zip(X, Y, probs, logs)][:20]:
        gram = "".join(itos[token] for token in [*context, target])
        click.echo(f"{p:11.4f} {-log:6.2f}  {gram}")
    click.echo(f"{probs.prod():11.4g}  likelihood of the word: the product of its probabilities")
    click.echo(f"{logs.sum():11.4f}  log likelihood: the sum of their logs")
    click.echo(f"{-logs.mean():11.4f}  mean of -log, in nats: the loss of this word")


class NumberOrAuto(click.FloatRange):
    name = "number or auto"

    def convert(self, value, param, ctx):
        return value if value == "auto" else super().convert(value, param, ctx)


TEXT = click.Path(exists=True, dir_okay=False)
FILE = click.Path(dir_okay=False, resolve_path=True)
COUNT, NUMBER = click.IntRange(0), click.FloatRange(0, 10**6)
POSITIVE = click.FloatRange(0, 10**6, min_open=True)
AMOUNT = NumberOrAuto(0, 10**6)
MODELS = click.Choice(["counts", "net"])


@click.command(context_settings={"show_default": True})
@click.option("--data", type=TEXT, help="Text file, one word per line.  [default: names.txt]")
@click.option("--order", type=click.IntRange(2, 20), default=2, help="Length of the n-grams.")
@click.option("--smoothing", type=AMOUNT, default=1.0, help="Added to counts; auto: best on dev.")
@click.option("--steps", type=COUNT, default=20_000, help="Steps of the net (--order 2).")
@click.option("--lr", type=POSITIVE, default=50.0, help="Learning rate of the net (--order 2).")
@click.option("--l2", type=NUMBER, default=0.0, help="L2 penalty of the net (--order 2).")
@click.option("--model", type=MODELS, default="counts", help="Model of the words (net: --order 2).")
@click.option("--word", show_default="the first", help="Word to show factor by factor.")
@click.option("--seed", type=COUNT, default=42, help="Random seed.")
@click.option("--samples", type=COUNT, default=20, help="Number of words to generate.")
@click.option("--prefix", default="", show_default=False, help="Start of every generated word.")
@click.option("--temperature", type=POSITIVE, default=1.0, help="Sampling temperature.")
@click.option("--plot", type=FILE, help="Draw the pairs: .png, .svg, .pdf (needs matplotlib).")
@np.errstate(all="ignore")  # overflow shows up in the loss
def main(
    data, order, smoothing, steps, lr, l2, model, word, seed, samples, prefix, temperature, plot
):
    """Count which character follows which, and learn the same by gradient descent."""
    if plot:  # it is drawn at the end, so that what cannot be drawn is refused here
        if not plot.endswith((".png", ".svg", ".pdf")):
            raise click.BadParameter("not a .png, .svg or .pdf file", param_hint="--plot")
        os.stat(f"{os.path.dirname(plot)}/")  # the folder
        __import__("matplotlib.figure")
    if model == "net" and order > 2:
        raise click.UsageError("--model net needs --order 2")
    rng = np.random.default_rng(seed)
    words = load_words(data or NAMES)
    word = word or words[0]
    stoi, itos = build_vocab(words)
    for option, text in {"--word": word, "--prefix": prefix}.items():
        if unknown := set(text) - set("".join(words)):
            raise click.BadParameter(f"no word contains {min(unknown)!r}", param_hint=option)
    parts = split_words(words, rng.spawn(1)[0])  # the same split, whatever else is drawn
    splits = [count(part, stoi, order) for part in parts]
    N = sum(splits)
    click.echo(f"{len(words):,} words ({len(set(words)):,} distinct), {N.sum():,} {order}-grams")
    click.echo(f"{len(stoi):,} characters: {repr(''.join(stoi))[1:-1]}"[:80])
    show_frequent(N, itos)
    loss = mean_loss(N, probabilities(N, 0))
    guess = f"uniform guess: ln {len(stoi)} = {math.log(len(stoi)):.4f}"
    click.echo(f"loss of all words by their own counts: {loss:.4f}; {guess}")

    if smoothing == "auto":
        smoothing = choose_smoothing(*splits[:2])
    tables = {"counts": probabilities(splits[0], smoothing)}
    if order == 2:
        W = rng.standard_normal((len(stoi), len(stoi)))
        show_both_ways(W, parts[0][:100], stoi)
        fit(W, splits[0], steps, lr, l2)
        tables["net"] = softmax(W)

    click.echo("\nloss of" + "".join(f"{name:>10}" for name in tables))
    for name, part in zip(("train", "dev", "test"), splits):
        click.echo(f"{name:7}" + "".join(f"{mean_loss(part, P):10.4f}" for P in tables.values()))
    floor = mean_loss(splits[0], probabilities(splits[0], 0))
    click.echo(f"floor  {floor:10.4f}   of train: its own counts (above: smoothing {smoothing:g})")
    show_word(word, tables[model], stoi, itos)
    click.echo(f"\nwords by the {model}:")
    known = set(words)
    longest = min(76, 2 * max(map(len, words)))  # smoothing might not end a word
    for _ in range(samples):
        made = sample(tables[model], rng, stoi, itos, prefix, temperature, longest)
        click.echo(f"{made or '(empty)':19} {'' if made in known else 'new'}".rstrip())
    if plot:
        draw_counts(plot, count(words, stoi), itos)


if __name__ == "__main__":
    try:
        main()
    except (ImportError, MemoryError, OSError, UnicodeEncodeError) as error:
        sys.exit(f"Error: {error}".splitlines()[0])
