"""Facts about the net's mathematics, and about mlp.py as its users see it from outside."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import mlp
from common import build_dataset, build_vocab, load_words

SCRIPT = Path(mlp.__file__)
FEW = Path(__file__).with_name("words.txt")
SMALL = ["--data", FEW, "--hidden", "20", "--samples", "3"]


def run(*arguments, **options):
    """Run mlp.py as a process of its own."""
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def invoke(*arguments):
    """Run mlp.py's command within this process, which is faster."""
    return CliRunner().invoke(mlp.main, [str(argument) for argument in arguments])


def error_of(*arguments):
    """The only line that a command which cannot be done prints to stderr."""
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("Error: ")
    return result.stderr


def table(output):
    rows = re.findall(r"^(train|dev|test) +([\d.]+) +[\d.]+$", output, re.M)
    return {name: float(loss) for name, loss in rows}


def small_net(vocab=7, context=3, batch=6, dtype=np.float64):
    rng = np.random.default_rng(0)
    net = mlp.Net(rng, vocab, context, embedding=4, hidden=5, dtype=dtype)
    return net, rng.integers(vocab, size=(batch, context)), rng.integers(vocab, size=batch)


# ------------------------------------------------------------------------------------- mathematics


def textbook_loss_and_gradients(params, X, Y):
    """The equations one example at a time, gradients one element at a time: slow and plain."""
    C, W1, b1, W2, b2 = params
    loss, grads = 0.0, [np.zeros(array.shape) for array in params]
    dC, dW1, db1, dW2, db2 = grads
    for x, y in zip(X, Y):
        emb = np.concatenate([C[token] for token in x])
        h = np.tanh(emb @ W1 + b1)
        logits = h @ W2 + b2
        probs = np.exp(logits) / np.exp(logits).sum()
        loss -= math.log(probs[y]) / len(Y)
        dlogits = (probs - np.eye(len(C))[y]) / len(Y)
        dW2 += np.outer(h, dlogits)
        db2 += dlogits
        dpre = (W2 @ dlogits) * (1 - h**2)
        dW1 += np.outer(emb, dpre)
        db1 += dpre
        for token, demb in zip(x, (W1 @ dpre).reshape(len(x), -1)):
            dC[token] += demb
    return loss, grads


@pytest.mark.parametrize("vocab", [2, 7, 1500])
def test_loss_and_gradients_are_those_of_the_textbook(vocab):
    net, X, Y = small_net(vocab=vocab, context=4, batch=9)
    loss = mlp.loss_and_gradients(net, X, Y)
    expected, expected_grads = textbook_loss_and_gradients(net.params, X, Y)
    assert loss == pytest.approx(expected, rel=1e-12)
    for ours, theirs in zip(net.grads, expected_grads):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("sizes", [dict(context=1, batch=1), {}, dict(vocab=2, context=5, batch=7)])
def test_gradients_match_central_differences(sizes):
    errors = mlp.check_gradients(np.random.default_rng(1), **sizes)
    assert list(errors) == ["C", "W1", "b1", "W2", "b2"]
    assert max(errors.values()) < 1e-6


def test_softmax_gradient_of_a_row_is_p_minus_one_hot_and_sums_to_zero():
    logits = np.random.default_rng(0).normal(size=(4, 5))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    _, dlogits = mlp.cross_entropy(logits, np.array([0, 4, 2, 2]))
    np.testing.assert_allclose(dlogits, (probs - np.eye(5)[[0, 4, 2, 2]]) / 4, atol=1e-15)
    np.testing.assert_allclose(dlogits.sum(axis=1), 0, atol=1e-15)


def test_equal_logits_cost_ln_of_the_alphabet():
    loss, _ = mlp.cross_entropy(np.full((3, 27), 5.0), np.array([0, 1, 26]))
    assert loss == pytest.approx(math.log(27), abs=1e-12)


def test_huge_logits_neither_overflow_nor_vanish():
    with np.errstate(all="raise", under="ignore"):
        loss, dlogits = mlp.cross_entropy(np.array([[3e4, 0, -3e4]], np.float32), np.array([2]))
    assert loss == pytest.approx(6e4)
    np.testing.assert_allclose(dlogits, [[1, 0, -1]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_results_have_the_dtype_of_the_parameters(dtype):
    net, X, Y = small_net(dtype=dtype)
    loss = mlp.loss_and_gradients(net, X.astype(np.uint8), Y.astype(np.uint8))
    assert isinstance(loss, float)
    assert {array.dtype for array in (*mlp.forward(net, X), *net.grads)} == {np.dtype(dtype)}


def test_parameters_are_views_into_one_vector_of_standard_normal_numbers():
    net = mlp.Net(np.random.default_rng(0), 27, 3, 10, 200)
    assert net.theta.size == sum(array.size for array in net.params) == 11_897
    assert net.theta.dtype == np.float32
    assert abs(net.theta.mean()) < 0.03 and abs(net.theta.std() - 1) < 0.03
    net.theta[:], net.dtheta[:] = 0, 1
    assert not any(array.any() for array in net.params)
    assert all(array.all() for array in net.grads)


def test_an_array_that_would_never_be_trained_is_refused():
    net, _, _ = small_net()
    net.theta -= 0.1 * net.dtheta
    with pytest.raises(AttributeError, match="net.theta cannot be replaced"):
        net.theta = net.theta - 0.1 * net.dtheta
    with pytest.raises(AttributeError, match="net.params cannot be replaced"):
        net.params = net.params._replace(W2=net.params.W2 * 0.01)
    with pytest.raises(TypeError):
        net.params[3] = net.params[3] * 0.01
    with pytest.raises(AttributeError):
        net.params.W2 = net.params.W2 * 0.01


def test_evaluation_is_the_mean_over_all_examples():
    words = load_words()[::20]
    X, Y = build_dataset(words, build_vocab(words)[0], 3)
    net = mlp.Net(np.random.default_rng(0), 27, 3, 10, 20, np.float64)
    direct = mlp.loss_and_gradients(net, X, Y)
    for chunk in (1024, 1000, 10**6):
        assert mlp.evaluate(net, X, Y, chunk) == pytest.approx(direct, rel=1e-12)


# ---------------------------------------------------------------------------------------- training


def test_schedules():
    found = {name: [f(done) for done in (0, 0.25, 0.5, 0.75)] for name, f in mlp.SCHEDULES.items()}
    assert found == {"linear": [1, 0.75, 0.5, 0.25], "step": [1, 1, 0.1, 0.1], "none": [1, 1, 1, 1]}


@pytest.mark.parametrize("lr", [0.5, np.float64(0.5)])
def test_a_step_moves_every_parameter_against_its_gradient(lr):
    net, X, Y = small_net(dtype=np.float32)
    before, _ = net.theta.copy(), mlp.loss_and_gradients(net, X[:1], Y[:1])
    expected = before - np.float32(0.25) * net.dtheta
    steps = mlp.train(net, X[:1], Y[:1], 1, 2, lr, lambda done: 0.5, seed=0)
    assert [step for step, _ in steps] == [1]
    np.testing.assert_allclose(net.theta, expected, rtol=1e-5, atol=1e-7)
    assert all(array.dtype == np.float32 for array in (net.theta, net.dtheta, *net.params))


def rows_drawn(monkeypatch, steps, seed, start=0):
    """The rows of ten examples in the minibatches of four that `train` draws -> (steps, 4)."""
    rows, (net, _, _) = [], small_net()
    monkeypatch.setattr(mlp, "loss_and_gradients", lambda net, X, Y: rows.append(Y) or 0.0)
    X, Y = np.zeros((10, 3), int), np.arange(10)
    assert len([*mlp.train(net, X, Y, steps, 4, 0.1, lambda done: 1.0, seed, start)])
    return np.array(rows)


@pytest.mark.parametrize("start", [1, 999, 1000, 1001, 2500])
def test_a_step_gets_the_same_minibatch_wherever_training_started(monkeypatch, start):
    whole = rows_drawn(monkeypatch, 3600, 42)
    assert np.array_equal(whole[start:], rows_drawn(monkeypatch, 3600, 42, start))


def test_minibatches_are_uniform_and_differ_by_seed_and_step(monkeypatch):
    rows = rows_drawn(monkeypatch, 16_000, 1)
    np.testing.assert_allclose(np.bincount(rows.ravel()) / rows.size, 0.1, atol=0.01)
    assert (rows[:1000] != rows[1000:2000]).any()
    assert (rows[:9] != rows_drawn(monkeypatch, 9, 2)).any()


def test_minibatches_are_those_of_the_documented_streams(monkeypatch):
    expected = [np.random.default_rng([7, 1 + k]).integers(10, size=(1000, 4)) for k in (0, 1)]
    assert np.array_equal(rows_drawn(monkeypatch, 2000, 7), np.concatenate(expected))


# ---------------------------------------------------------------------------------------- sampling


def counting_net():
    """A net over `.abc` that spells "abc" with certainty: the next character has logit 1000."""
    net = mlp.Net(np.random.default_rng(0), 4, 1, 4, 4)
    C, W1, _, W2, _ = net.params
    net.theta[:] = 0
    C[:] = np.eye(4) * 10
    W1[:] = np.eye(4)
    W2[:] = np.roll(np.eye(4), 1, axis=1) * 1000
    return net, dict(enumerate(".abc"))


def test_samples_follow_the_model():
    net, itos = counting_net()
    rng = np.random.default_rng(0)
    assert mlp.sample(net, rng, itos, 1, 3) == ["abc"] * 3
    assert mlp.sample(net, rng, itos, 1, 2, prefix="b") == ["bc"] * 2
    assert mlp.sample(net, rng, itos, 1, 0) == []
    with pytest.raises(KeyError):
        mlp.sample(net, rng, itos, 1, 1, prefix="x")


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_first_characters_are_drawn_with_the_probabilities_of_the_net(temperature):
    net, _, _ = small_net(vocab=5, context=2)
    net.params.W2[:] *= 0.3
    logits = mlp.forward(net, np.zeros((1, 2), int))[-1][0]
    probs = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    rng, itos = np.random.default_rng(0), dict(enumerate(".abcd"))
    words = mlp.sample(net, rng, itos, 2, 20_000, temperature=temperature)
    drawn = [sum(word[:1] == c for word in words) / 20_000 for c in ("", *"abcd")]
    np.testing.assert_allclose(drawn, probs, atol=0.015)


def test_low_temperature_takes_the_likeliest_and_a_word_that_never_ends_is_cut():
    net, itos = counting_net()
    net.params.W2[:] = np.eye(4) * 5
    rng = np.random.default_rng(0)
    words = mlp.sample(net, rng, itos, 1, 2, prefix="c", temperature=1e-3, longest=9)
    assert words == ["c" * 9] * 2


# ------------------------------------------------------------------------------------ command line


def test_a_run_prints_falling_losses_the_table_and_samples():
    result = run("--steps", 3000, "--samples", 7)
    assert result.returncode == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) == 18 + 7
    assert lines[0] == "32,257 words, 27 characters, 183,935 training examples, 11,897 parameters"
    losses = [float(line.split()[1]) for line in lines[2:13]]
    assert losses[0] > 20 and "ln 27 = 3.2958" in lines[1]
    assert losses == sorted(losses, reverse=True)
    assert re.fullmatch(r"3,000 steps in \d+\.\d s \(\d+ µs/step\)", lines[13])
    assert lines[14].startswith("split      loss  perplexity")
    assert list(table(result.stdout)) == ["train", "dev", "test"]
    for line in lines[15:18]:
        _, loss, perplexity = line.split()
        assert math.log(float(perplexity)) == pytest.approx(float(loss), abs=1e-3)
    known = set(load_words())
    for word, *mark in map(str.split, lines[18:]):
        assert mark == ([] if word in known else ["new"])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    first, second, other = (
        re.sub(r" in .*", "", run("--steps", 500, *SMALL, "--seed", seed).stdout)
        for seed in (7, 7, 8)
    )
    assert first == second != other


def test_rows_are_means_since_the_row_above():
    output = invoke("--steps", 40, "--hidden", 20).stdout
    rows = re.findall(r"^ +(\d+) +(\d+\.\d{4})$", output, re.M)
    assert [int(step) for step, _ in rows] == [1, *range(4, 41, 4)]
    words = load_words()
    rng = np.random.default_rng(42)
    X, Y = build_dataset(mlp.split_words(words, rng.spawn(1)[0])[0], build_vocab(words)[0], 3)
    net = mlp.Net(rng, 27, 3, 10, 20)
    losses = [loss for _, loss in mlp.train(net, X, Y, 40, 32, 0.1, lambda done: 1 - done, 42)]
    means = [losses[0], np.mean(losses[1:4]), *np.mean(np.reshape(losses[4:], (9, 4)), axis=1)]
    np.testing.assert_allclose([float(loss) for _, loss in rows], means, atol=6e-5)


def test_gradcheck_gives_a_row_for_each_array_and_a_verdict():
    result = invoke("--gradcheck")
    *rows, verdict = result.stdout.splitlines()[1:]
    assert result.exit_code == 0
    assert [row.split()[::2] for row in rows] == [[a, "ok"] for a in ("C", "W1", "b1", "W2", "b2")]
    assert verdict == "every gradient agrees with central differences within 1e-6"


@pytest.mark.parametrize(
    "line, mistake, wrong",
    [
        ("dpre = dh * (1 - h * h)", "dpre = dh", "C, W1, b1"),
        ("row.dot(dlogits, out=db2)", "", "b2"),
        ("demb = dpre @ W1.T", "demb = 1.001 * dpre @ W1.T", "C"),
        ("dlogits = (probs - onehot) / B", "dlogits = (probs - onehot)", "C, W1, b1, W2, b2"),
        ("h = np.tanh(emb @ W1 + b1)", "h = np.tanh(emb @ W1 * b1)", "C, W1, b1"),
        ("emb.T.dot(dpre, out=dW1)", "emb.T.dot(np.nan * dpre, out=dW1)", "W1"),
    ],
)
def test_gradcheck_names_what_a_wrong_line_makes_wrong(tmp_path, line, mistake, wrong):
    source = SCRIPT.read_text()
    assert source.count(line) == 1 or mistake == ""
    (tmp_path / "wrong.py").write_text(source.replace(line, mistake or "pass"))
    env = {**os.environ, "PYTHONPATH": str(SCRIPT.parent)}
    command = [sys.executable, tmp_path / "wrong.py", "--gradcheck"]
    result = subprocess.run(command, capture_output=True, text=True, env=env, timeout=60)
    assert result.returncode == 1 and result.stderr == f"Error: wrong gradients: {wrong}\n"
    assert re.findall(r"^(\w+) .* WRONG$", result.stdout, re.M) == wrong.split(", ")


def test_find_lr_suggests_about_the_rate_of_the_lecture():
    result = invoke("--find-lr")
    assert result.exit_code == 0
    assert 0.05 <= float(re.search(r"--lr ([\d.]+)$", result.stdout.strip())[1]) <= 0.4


def test_find_lr_says_when_the_loss_diverges_at_once(monkeypatch):
    monkeypatch.setattr(mlp, "loss_and_gradients", lambda *_: math.nan)
    assert "the loss diverged within 0 steps" in error_of("--find-lr", *SMALL)


def test_words_with_spaces_capitals_and_accents_train(tmp_path):
    path = tmp_path / "places.txt"
    path.write_text("São Paulo\nBad Säckingen\n漢城\n" * 10, encoding="utf-8")
    arguments = ["--steps", 300, *SMALL, "--data", path, "--prefix", "漢"]
    result = run(*arguments)
    assert result.returncode == 0 and result.stdout.splitlines()[-1].startswith("漢")
    ascii_only = run(*arguments, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert ascii_only.returncode == 0 and ascii_only.stderr == ""


def test_it_runs_from_any_folder_and_head_gives_no_traceback(tmp_path):
    command = f"{sys.executable} {SCRIPT} --steps 0 --samples 9999 | head -1"
    options = dict(shell=True, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    result = subprocess.run(command, **options)
    assert result.stderr == "" and result.stdout.startswith("32,257 words")


def test_plot_draws_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    words = tmp_path / "words.txt"
    words.write_text("\n".join(f"$^{chr(0x4E00 + i)}{chr(0x4E01 + i)}" for i in range(200)))
    for mode in ([], ["--find-lr"], ["--embedding", 1], ["--embedding", 2], ["--data", words]):
        path = tmp_path / "run.png"
        result = invoke("--steps", 200, *SMALL, "--plot", path, *mode)
        assert result.exit_code == 0 and result.stderr == "", mode
        assert path.read_bytes().startswith(b"\x89PNG")
        path.unlink()


def test_letters_are_spread_apart_and_hardly_moved():
    points = np.random.default_rng(0).normal(scale=0.02, size=(30, 2))
    spread = mlp.spread(points, 0.05)
    distances = np.linalg.norm(spread[:, None] - spread, axis=2) + np.eye(30)
    assert distances.min() > 0.04 and np.abs(spread - points).max() < 0.2
    far = np.array([[0.0, 0.0], [1.0, 0.0]])
    np.testing.assert_array_equal(mlp.spread(far, 0.05), far)


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--steps", n] for n in ("-1", "x", "1.5", "9" * 30)),
        *([f"--{name}", "0"] for name in ("batch-size", "context", "embedding", "hidden")),
        *(["--lr", x] for x in ("0", "nan", "-1", "1e30", "x")),
        *([["--temperature", "0"], ["--seed", "-1"], ["--samples", "-1"], ["--lr-decay", "cos"]]),
        *([["--prefix", "Ma"], ["--prefix", "a.b"], ["--data", "/none"], ["--data", "/"]]),
        *([["--checkpoint", ""], ["--checkpoint", "/"], ["--plot", ""], ["--plot", "run.jpg"]]),
        ["--find-lr", "--checkpoint", "m.npz"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_out_of_range_are_usage_errors_that_name_the_option(arguments):
    result = invoke("--steps", "1", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr.splitlines()[-1]


def test_a_mistake_in_the_code_shows_its_traceback(monkeypatch):
    def forward(net, X):
        C, W1, b1, W2, b2 = net.params
        emb = C[X]  # a learner forgot to reshape
        return emb, np.tanh(emb @ W1 + b1), None

    monkeypatch.setattr(mlp, "forward", forward)
    result = invoke("--steps", 5)
    assert isinstance(result.exception, ValueError) and "matmul" in str(result.exception)


def test_a_plot_that_cannot_be_drawn_is_refused_and_harms_nothing(tmp_path):
    path = tmp_path / "precious.txt"
    path.write_text("mine")
    result = invoke("--plot", path)
    assert result.exit_code == 2 and "--plot" in result.stderr and path.read_text() == "mine"
    code = (
        "import sys; sys.modules['matplotlib.figure'] = None; sys.argv[1:] = ['--plot', 'run.png']"
    )
    code += "; import runpy; runpy.run_path('mlp.py', run_name='__main__')"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parent)
    assert result.returncode == 1 and "step" not in result.stdout
    assert result.stderr.startswith("Error: ") and "matplotlib" in result.stderr


# ------------------------------------------------------------------------------------- checkpoints


def contents(path):
    with np.load(path) as archive:
        return dict(archive)


def test_a_checkpoint_needs_no_other_option_to_resume_or_to_sample(tmp_path):
    path = tmp_path / "m.npz"
    options = ["--hidden", 16, "--lr", 0.05, "--batch-size", 8, "--seed", 3, "--lr-decay", "step"]
    trained = invoke("--steps", 300, *options, "--samples", 3, "--checkpoint", path).stdout
    before = path.read_bytes()
    again = invoke("--checkpoint", path, "--samples", 3).stdout.splitlines()
    assert again[0] == f"{path}: 300 of 300 steps done" and again[2:] == trained.splitlines()[-7:]
    result = invoke("--checkpoint", path, "--prefix", "ma", "--samples", 3)
    assert table(result.stdout) == table(trained) and path.read_bytes() == before
    assert all(word.startswith("ma") for word in result.stdout.splitlines()[-3:])


def test_a_diverging_loss_stops_the_run_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    path, right = tmp_path / "m.npz", mlp.backward
    monkeypatch.setattr(mlp, "SAVE_EVERY", 0)

    def explode(net, X, emb, h, dlogits):
        right(net, X, emb, h, dlogits)
        if explode.countdown == 0:
            net.grads.W2[:] = np.inf
        explode.countdown -= 1

    monkeypatch.setattr(mlp, "backward", explode)
    for steps, countdown, step in ((50, 6, 7), (50, 49, 50)):
        explode.countdown = countdown
        error = error_of("--steps", steps, *SMALL, "--checkpoint", path)
        assert error.startswith(f"Error: the loss diverged at step {step}: try a lower --lr")
        assert "--gradcheck" in error and contents(path)["step"] == step - 1
        assert np.isfinite(contents(path)["theta"]).all()
        path.unlink()


def test_a_checkpoint_that_cannot_be_written_is_refused_before_training(tmp_path):
    for path in (tmp_path / "none" / "m.npz", tmp_path):
        result = run("--checkpoint", path)
        assert result.returncode in (1, 2) and "Traceback" not in result.stderr
        assert str(path.parent) in result.stderr and "loss" not in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_symbolic_link_is_written_through(tmp_path):
    (tmp_path / "link.npz").symlink_to(tmp_path / "m.npz")
    assert invoke("--steps", 1, *SMALL, "--checkpoint", tmp_path / "link.npz").exit_code == 0
    assert (tmp_path / "link.npz").is_symlink() and contents(tmp_path / "m.npz")["step"] == 1


def test_the_readme_shows_both_passes_exactly_as_they_are():
    readme = SCRIPT.with_name("README.md").read_text(encoding="utf-8")
    (excerpt,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert excerpt in SCRIPT.read_text() and "def forward" in excerpt and "def backward" in excerpt
