"""The judge: compares what the scripts compute with independent computations.

    python tests/gradcheck.py         all four scripts
    python tests/gradcheck.py mlp     one of them, after you changed a line

Operations, counts, tables and losses are computed once more, as plainly as possible. The gradients
of a net are compared with central differences, (loss(x + h) - loss(x - h)) / 2h, which know nothing
of the chain rule. The loss is that of the script's own forward pass: a mistake there shows up in
the row `loss` alone, and after a change on purpose the backward pass is judged on its own. Rows
come in the order of the backward pass: the mistake is in the line of the first WRONG row, or in one
between it and the line of the row before.

A check takes a script as a module and yields rows (what, found, expected). The name of a row ends
at " (": what follows is the kind of net or input. Rows of the same name share a line.
"""

import copy
import inspect
import math
import sys
import traceback
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where the scripts are

UNTRIED = "not tried while gradients are wrong"


def compare(found, expected):
    """-> the relative error, and what is wrong: "" if the error is below 1e-6.

    The error is the largest difference over the largest expected number (at least 1e-4). A text
    instead of an expected number says why there is none.
    """
    if isinstance(expected, str):
        return math.inf, expected
    if found is None:
        return math.inf, "missing"
    try:
        found, expected = np.asarray(found, float), np.asarray(expected, float)
    except (TypeError, ValueError):  # a tuple of arrays, say
        return math.inf, f"no array of numbers but a {type(found).__name__}"
    if np.isnan(found).any():
        return math.inf, "contains nan"
    if found.shape != expected.shape:
        return math.inf, f"shape {found.shape}, not {expected.shape}"
    if not np.isfinite(expected).all():
        return math.inf, "cannot be judged: the expected overflows"
    difference = np.abs(found - expected)
    largest = np.abs(expected).max(initial=1e-4)
    error = difference.max(initial=0) / largest
    if error < 1e-6:
        return error, ""
    if not found.any():
        return error, "all zeros"
    k = (found * expected).sum() / max((expected**2).sum(), 1e-8)
    telling = np.count_nonzero(expected) > 1 or abs(k - np.round(k)) < 1e-6  # one number has some k
    if telling and np.abs(found - k * expected).max() < 1e-6 * abs(k) * largest:
        return error, f"{k:.4g} x the expected"
    worst = np.unravel_index(difference.argmax(), found.shape)
    pair = f"{found[worst]:.6g}, not {expected[worst]:.6g}"
    differ = np.count_nonzero(difference >= 1e-6 * largest)
    return error, pair if found.size == 1 else f"{differ} of {found.size} differ: {pair}"


@np.errstate(all="ignore")  # overflow shows up in its row
def report(rows):
    """Print a line for each name -> does everything agree?"""
    results, what, stop = {}, "", ""  # {name: [(error, what is wrong, kind), ...]}
    try:
        for what, found, expected in rows:
            name, _, kind = what.partition(" (")
            results.setdefault(name, []).append((*compare(found, expected), kind[:-1]))
    except Exception:  # of the script: the rows known so far, then its last lines
        stop = traceback.format_exc(limit=-2)
    wrong = [name for name in results if any(why for _, why, _ in results[name])]
    for name, cases in results.items():
        error, why, kind = max(cases)
        if name not in wrong:
            print(f"{name:26}ok     {error:.1e}")
            continue
        print(f"{name:26}{'' if why.startswith('not tried') else 'WRONG  '}{why}")
        wrong_kinds = {each: each.split(", ") for _, reason, each in cases if reason}
        if len(wrong_kinds) < (count := len({each for *_, each in cases})):
            words = wrong_kinds[kind]
            common = [word for word in words if all(word in each for each in wrong_kinds.values())]
            print(f"{'':33}in {len(wrong_kinds)} of {count}{': ' * any(common)}{', '.join(common)}")
    if stop:
        print(f"stopped here, after {what}:\n{stop}", end="")
    if wrong:
        print(f"start with {wrong[0]}" + ": the others may follow from it" * (len(wrong) > 1))
    if wrong[:1] == ["loss"]:
        print("loss: not that of the equations. On purpose? Change ..._logits in gradcheck.py")
    if not wrong and not stop:
        print("all agree within 1e-6")
    return not wrong and not stop


def numeric_gradient(loss, array, h=1e-6):
    """Central differences of loss() -> an array like the one given, which is nudged in place."""
    gradient = np.zeros_like(array)
    for i, x in np.ndenumerate(array):
        array[i] = x + h
        above = loss()
        array[i] = x - h
        gradient[i] = (above - loss()) / (2 * h)
        array[i] = x
    return gradient


def mean_loss(logits, Y):
    """The mean of -log softmax(row)[y] over the rows of logits."""
    return np.mean([np.logaddexp.reduce(row) - row[y] for row, y in zip(logits, Y)])


# -------------------------------------------------------------------------------------- micrograd


def nested(x, y):
    """y is used at every depth: it has all of its gradient only when all nodes above are done."""
    z = x * y
    for _ in range(3):
        z = y - z * y
        z = z / 3 + y
    return y * z


OPERATIONS = [  # expressions of x and y. If you add an operation, add one with it, such as "sin(x)"
    *("x + y", "x + 3", "3 + x", "x - y", "x - 3", "3 - x", "x * y", "x * 3", "3 * x", "-x"),
    *("x / y", "x / 3", "3 / x", "x ** y", "x ** 0", "x ** 1", "x ** 2", "x ** -1", "x ** -0.5"),
    *("3 ** x", "tanh(x)", "relu(x + 0.1)", "exp(x)", "log(x)", "dot([x, y], [y, 3], x)"),
    *("x * x + x", "nested(x, x * y)"),
]
POINTS = [(2.3, 3.1), (0.6, -1.7), (0.0, 0.4), (-1.7, 0.6), (-3.3, -0.7)]
ON_NUMBERS = vars(np) | {
    "relu": lambda x: max(x, 0),
    "dot": lambda w, x, b: w[0] * x[0] + w[1] * x[1] + b,
    "nested": nested,
}


def check_operation(micrograd, text):
    """Compare an expression of Values, and its slopes, with the same of numbers."""
    on_values = vars(micrograd) | vars(micrograd.Value) | {"nested": nested}
    numbers, code = np.zeros(2), compile(text, text, "eval")

    def compute():
        return eval(code, ON_NUMBERS, dict(zip("xy", numbers)))

    for point in POINTS:
        numbers[:] = point
        expected, slopes = compute(), numeric_gradient(compute, numbers)
        if np.isfinite([expected, *slopes]).all():  # not 3 / 0, nor log(-1)
            x, y = map(micrograd.Value, point)
            result = eval(code, on_values, {"x": x, "y": y})
            result.backward()
            yield f"{text} (value, x = {point[0]}, y = {point[1]})", result.data, expected
            yield f"{text} (slopes, x = {point[0]}, y = {point[1]})", [x.grad, y.grad], slopes


def plain_outputs(model, X, hidden, output):
    """What a net computes for the rows of X, with two functions of arrays as activations."""
    for layer in model.parts:
        weights = np.array([[w.data for w in neuron.w] for neuron in layer.parts])
        totals = X @ weights.T + [neuron.b.data for neuron in layer.parts]
        X = output(totals) if layer is model.parts[-1] else hidden(totals)
    return X[:, 0]


def plain_squared_error(model, X, Y):
    return ((plain_outputs(model, X, np.tanh, np.tanh) - Y) ** 2).sum()


def plain_margin_loss(model, X, Y):
    outputs = plain_outputs(model, X, lambda x: np.maximum(x, 0), lambda x: x)
    penalty = 1e-4 * sum(p.data**2 for p in model.parameters())
    return np.maximum(0, 1 - Y * outputs).mean() + penalty


def check_training(micrograd, kind, model, loss_function, plain_loss, X, Y):
    """Check a loss, its gradients, and two steps of train."""
    twin = copy.deepcopy(model)
    numbers = np.array([p.data for p in twin.parameters()])

    def loss():
        for p, number in zip(twin.parameters(), numbers):
            p.data = float(number)
        return loss_function(twin, X, Y).data

    neurons = {neuron for layer in model.parts for neuron in layer.parts}
    count = sum(len(neuron.w) + 1 for neuron in neurons)
    yield f"parameters of {kind}", len(numbers), count
    yield f"loss of {kind}", loss(), plain_loss(model, X, Y)
    loss_function(model, X, Y).backward()
    found, gradients = [p.grad for p in model.parameters()], numeric_gradient(loss, numbers)
    yield f"gradients of {kind}", found, gradients
    if compare(found, gradients)[1]:
        yield f"train {kind}", None, UNTRIED
        return
    training = micrograd.train(model, loss_function, X, Y, 2, 0.5, decay=0.5)
    for i, rate in enumerate((0.5, 0.375, 0)):
        found, expected = next(training), (i, loss())
        yield f"train {kind} (step {i})", found, expected
        moved = [p.data for p in model.parameters()]
        yield f"train {kind} (parameters before step {i})", moved, numbers
        numbers -= rate * numeric_gradient(loss, numbers)


def check_micrograd(micrograd):
    """expressions of x and y at up to five points, and two nets"""
    tried = set()  # the functions that the expressions call
    for text in OPERATIONS:
        sys.setprofile(lambda frame, *_: tried.add(frame.f_code))
        try:
            rows = [*check_operation(micrograd, text)]
        finally:
            sys.setprofile(None)
        yield from rows
    for name, method in vars(micrograd.Value).items():
        if inspect.isfunction(method) and method.__code__ not in tried and name != "__repr__":
            yield name, None, "not tried: add an expression to OPERATIONS"

    zero = micrograd.Value(0.0)
    zero.relu().backward()
    yield "relu at 0", zero.grad, 0

    a, b = micrograd.Value(2.0), micrograd.Value(3.0)
    product = a * b
    square = product**2
    for result in (square, square, a):  # leaves add up, the node in between starts again
        result.backward()
    yield "backward twice", [a.grad, b.grad, product.grad], [73, 48, 12]

    start = [p.data for p in micrograd.Neuron(3, rng=np.random.default_rng(0)).parameters()]
    yield "a new Neuron", start, np.random.default_rng(0).uniform(-1, 1, 4)
    rng = np.random.default_rng(272)  # gives scores of both signs, and margins on both sides of 1
    model = micrograd.MLP(3, [3, 3, 1], rng=rng)
    model.parts.insert(2, model.parts[1])  # used twice, it moves once all the same
    lecture = micrograd.squared_error, plain_squared_error, micrograd.XS, micrograd.YS
    yield from check_training(micrograd, "tanh net", model, *lecture)
    model = micrograd.MLP(2, [4, 4, 1], micrograd.Value.relu, micrograd.linear, rng)
    moons = micrograd.margin_loss, plain_margin_loss, *micrograd.make_moons(rng, 9)
    yield from check_training(micrograd, "relu net", model, *moons)


# ----------------------------------------------------------------------------------------- bigram


def plain_counts(words, stoi, order):
    N = np.zeros((len(stoi),) * order, int)
    for word in words:
        padded = "." * (order - 1) + word + "."
        for i in range(len(word) + 1):
            N[tuple(stoi[character] for character in padded[i : i + order])] += 1
    return N


def plain_probabilities(N, smoothing):
    P = np.zeros(N.shape)
    for context in np.ndindex(N.shape[:-1]):
        row = [number + smoothing for number in N[context]]
        P[context] = [number / sum(row) if any(row) else 1 / len(row) for number in row]
    return P


def check_bigram(bigram):
    """V = 5 characters, n = 12 pairs"""
    stoi, words, others = dict(zip(".abcd", range(5))), ["acca", "ab", "baa", "c"], ["bacaca", "ab"]
    for order, smoothing, tested in ((2, 0, words), (2, 1, others), (3, 0, others), (3, 1, words)):
        N, M = plain_counts(words, stoi, order), plain_counts(tested, stoi, order)
        P = plain_probabilities(N, smoothing)
        likelihood = math.prod((P**M).flat) ** (1 / M.sum())  # 0 where the loss is inf
        yield f"count ({order=})", bigram.count(words, stoi, order), N
        yield f"probabilities ({order=}, {smoothing=})", bigram.probabilities(N, smoothing), P
        yield f"mean_loss ({order=}, {smoothing=})", math.exp(-bigram.mean_loss(M, P)), likelihood

    rng = np.random.default_rng(0)
    W, (X, Y) = rng.standard_normal((5, 5)), rng.integers(5, size=(2, 12))  # (5, 5), (12,), (12,)
    N, one, huge = np.zeros((3, 5, 5))  # (5, 5) each
    for x, y in zip(X, Y):
        N[x, y] += 1
    one[0, 1], huge[0, 0] = 1, 5000  # exp(5000) would overflow
    probs = [[math.exp(z) / sum(map(math.exp, row)) for z in row] for row in W[:3]]
    yield "softmax", bigram.softmax(W[:3]), probs

    def loss(l2=0.0):
        return mean_loss(W[X], Y) + l2 * sum(w * w for w in W.flat) / W.size

    rows, counts = bigram.loss_and_gradients, bigram.loss_and_gradients_of_counts
    for way, compute, *data in (
        ("rows (X of shape (n,))", rows, X, Y),
        ("rows (X of shape (n, 1))", rows, X[:, None], Y),  # main passes this one
        ("counts", counts, N),
    ):
        found, dW = compute(W, *data)
        yield f"loss of {way}", found, loss()
        yield f"dW of {way}", dW, numeric_gradient(loss, W)
    zero_and_one = np.array([0]), np.array([1])
    for way, compute, *data in ("rows", rows, *zero_and_one), ("counts", counts, one):
        found, dW = compute(huge, *data)
        yield f"huge logits: loss, {way}", found, 5000
        yield f"huge logits: dW, {way}", dW[0], [1, -1, 0, 0, 0]

    for l2 in (0.0, 0.7):
        trained = W.copy()
        for i, found in enumerate(bigram.train(trained, N, 2, 0.5, l2)):
            yield f"train (loss before step {i}, {l2=})", found, [i, loss(l2)]
            yield f"train (W before step {i}, {l2=})", trained, W
            if i < 2:
                W -= 0.5 * numeric_gradient(partial(loss, l2), W)
        yield f"train (steps done, {l2=})", i, 2
        yield f"train (W in the end, {l2=})", trained, W


# ------------------------------------------------------------------------------ mlp and batchnorm


def side_by_side(C, X):
    """The rows of C for each context of X (B, context), side by side."""
    return np.array([np.concatenate([C[token] for token in context]) for context in X])


def mlp_logits(net, X):
    """The equations at the top of mlp.py. If you give the net more to compute, do it here too."""
    emb = side_by_side(net.C, X)
    return np.tanh(emb @ net.W1 + net.b1) @ net.W2 + net.b2


def batchnorm_logits(net, X, extra=0.0):
    """The equations at the top of batchnorm.py, with extra (layers, B, hidden) added to each h."""
    p = net.parameters
    h = side_by_side(p.C, X)
    for i, weights in enumerate([p.W1, *p.W]):
        z = h @ weights
        if len(p.gain):
            z = p.gain[i] * (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5)
        z = z + p.bias[i]
        out = np.tanh(z) if net.activation == "tanh" else np.maximum(z, 0)
        h = out + h if net.residual and i else out
        h = h + (extra[i] if np.ndim(extra) else 0)
    return h @ p.W_out + p.b_out


def batchnorm_loss(net, X, Y, extra):
    return mean_loss(batchnorm_logits(net, X, extra), Y)


def cross_entropy_step_by_step(logits, Y):
    """Both passes the long way -> (loss, dlogits (B, V))."""
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


def batchnorm_step_by_step(pre, gain, bias, dz, epsilon=1e-5):
    """Both passes the long way -> z, dpre (B, hidden), dgain, dbias (hidden,)."""
    n = len(pre)
    mean = pre.sum(axis=0) / n  # (hidden,)
    centred = pre - mean  # (B, hidden)
    square = centred**2  # (B, hidden)
    variance = square.sum(axis=0) / n  # (hidden,)
    inv_std = (variance + epsilon) ** -0.5  # (hidden,)
    x = centred * inv_std  # (B, hidden)
    z = gain * x + bias  # (B, hidden)

    dbias = dz.sum(axis=0)  # (hidden,)
    dgain = (dz * x).sum(axis=0)  # (hidden,)
    dx = gain * dz  # (B, hidden)
    dinv_std = (dx * centred).sum(axis=0)  # (hidden,)
    dcentred = dx * inv_std  # (B, hidden)
    dvariance = -0.5 * (variance + epsilon) ** -1.5 * dinv_std  # (hidden,)
    dsquare = np.ones_like(square) / n * dvariance  # (B, hidden)
    dcentred += 2 * centred * dsquare
    dmean = -dcentred.sum(axis=0)  # (hidden,)
    dpre = dcentred + np.ones_like(pre) / n * dmean  # (B, hidden)
    return z, dpre, dgain, dbias


def check_cross_entropy(module):
    """Compare cross_entropy with the long way, and where exp(5000) would overflow."""
    rng = np.random.default_rng(0)
    logits, Y = rng.standard_normal((B, V)), rng.integers(V, size=B)  # (B, V), (B,)
    short, long = module.cross_entropy(logits, Y), cross_entropy_step_by_step(logits, Y)
    yield "cross_entropy", short[0], long[0]
    yield "dlogits", short[1], long[1]
    logits = np.array([[5000.0, 0.0, -math.inf], [0.0, 0.0, 0.0]])  # (2, 3)
    loss, dlogits = module.cross_entropy(logits, np.array([1, 2]))
    yield "huge logits: loss", loss, (5000 + math.log(3)) / 2
    yield "huge logits: dlogits", dlogits, np.array([[3, -3, 0], [1, 1, -2]]) / 6


def check_net(module, net, parameters, plain_logits, X, Y, kind="", **options):
    """Check the loss, its gradients in the order of the backward pass, and two steps of train."""

    def loss(X=X, Y=Y):
        return mean_loss(module.forward(net, X)[-1], Y)

    found, _ = module.cross_entropy(module.forward(net, X)[-1], Y)
    yield f"loss{kind}", found, mean_loss(plain_logits(net, X), Y)
    if not np.isfinite(loss()):
        return
    _, gradients = module.loss_and_gradients(net, X, Y)
    gradients = gradients or [None] * len(parameters)  # backward is empty
    rows, right = zip(parameters._fields, parameters, gradients, strict=True), True
    for name, array, gradient in reversed([*rows]):
        expected = numeric_gradient(loss, array)
        yield f"d{name}{kind}", gradient, expected
        right = right and not compare(gradient, expected)[1]
    if not right:
        yield f"train{kind}", None, UNTRIED
        return

    def rate(done):
        return 0.3 * done**2

    training = module.train(net, X, Y, 1001, 4, rate, seed=5, start=999, **options)
    for step in 999, 1000:  # the last of one block of minibatches, the first of the next
        rng = np.random.default_rng([5, 1 + step // 1000])
        batch = rng.integers(len(X), size=(1000, 4))[step % 1000]  # (4,)
        _, gradients = module.loss_and_gradients(net, X[batch], Y[batch])
        lr, weight_decay = rate(step / 1001), options.get("weight_decay", 0)
        moved = [a - lr * (g + weight_decay * a) for a, g in zip(parameters, gradients)]
        expected = [step + 1, loss(X[batch], Y[batch])]
        yield f"train: steps, loss{kind}", next(training), expected
        yield from ((f"train: parameters{kind}", *pair) for pair in zip(parameters, moved))
    yield f"train: steps left{kind}", len([*training]), 0


SIZES = {"vocab": 7, "context": 3, "embedding": 4, "hidden": 5}
B, V = 6, SIZES["vocab"]  # every size is another number, so that a shape says what is swapped


def check_mlp(mlp):
    """B = 6, V = 7, context 3, embedding 4, hidden 5"""
    rng = np.random.default_rng(0)
    net = mlp.new_net(rng, **SIZES, dtype=np.float64)
    X, Y = rng.integers(V, size=(B, 3)), rng.integers(V, size=B)  # (B, 3), (B,)
    yield from check_cross_entropy(mlp)
    yield from check_net(mlp, net, net, mlp_logits, X, Y)
    yield "evaluate", mlp.evaluate(net, X, Y, chunk=4), mean_loss(mlp.forward(net, X)[-1], Y)


def check_batchnorm(batchnorm):
    """B = 6 (32 for BatchNorm), V = 7, context 3, embedding 4, hidden 5"""
    yield from check_cross_entropy(batchnorm)
    rng = np.random.default_rng(0)
    pre, dz = rng.standard_normal((2, 32, 5))  # (32, 5), (32, 5)
    gain, bias = rng.standard_normal((2, 5))  # (5,), (5,)
    expected, *gradients = batchnorm_step_by_step(pre, gain, bias, dz)
    z, x, std, _ = batchnorm.batchnorm_forward(pre, gain, bias)
    yield "BatchNorm: z", z, expected
    found = batchnorm.batchnorm_backward(dz, gain, x, std) or [None] * 3
    for name, *pair in reversed([*zip(("dpre", "dgain", "dbias"), found, gradients)]):
        yield f"BatchNorm: {name}", *pair

    depths = (3, True), (3, False), (1, False)
    for (layers, residual), norm, activation in product(depths, (True, False), ("tanh", "relu")):
        words = f"{layers} layers", "residual" if residual else "not residual", activation
        kind = f" ({', '.join(words)}, {'BatchNorm' if norm else 'no BatchNorm'})"
        options = layers, norm, residual, activation
        net = batchnorm.new_net(rng, *SIZES.values(), *options, dtype=np.float64)
        for array in net.parameters:
            array += 0.5 * rng.standard_normal(array.shape)  # no gain of exactly 1, no bias of 0
        X, Y = rng.integers(V, size=(B, 3)), rng.integers(V, size=B)  # (B, 3), (B,)
        data = batchnorm_logits, X, Y, kind
        yield from check_net(batchnorm, net, net.parameters, *data, weight_decay=0.1)
        *cache, logits = batchnorm.forward(net, X)
        loss = batchnorm.evaluate(batchnorm.folded(net, X), X, Y, chunk=4)
        yield f"folded{kind}", loss, mean_loss(logits, Y)
        if np.allclose(logits, batchnorm_logits(net, X)):
            extra = np.zeros((layers, B, 5))
            _, dlogits = cross_entropy_step_by_step(logits, Y)
            _, dh = batchnorm.backward(net, X, *cache, dlogits)  # only the diagnostics use dh
            plain_loss = partial(batchnorm_loss, net, X, Y, extra)
            yield f"dh{kind}", dh[1:], numeric_gradient(plain_loss, extra)


CHECKS = {
    "micrograd": check_micrograd,
    "bigram": check_bigram,
    "mlp": check_mlp,
    "batchnorm": check_batchnorm,
}

if __name__ == "__main__":
    if not {*sys.argv[1:]} <= {*CHECKS}:
        sys.exit(__doc__)
    right = []
    for name in sys.argv[1:] or CHECKS:
        print(f"{name}.py: {CHECKS[name].__doc__}")
        right.append(report(CHECKS[name](import_module(name))))
    sys.exit(not all(right))
