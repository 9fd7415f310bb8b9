"""Run many models on the same split of the same names, and print one table.

    python tests/ladder.py models     every model of this project, from the bigram to the best net
    python tests/ladder.py compare    the repairs of the lecture, one after the other
    python tests/ladder.py depth      five layers, good and bad starts, two rates, three seeds

Further arguments are passed on to every run. Every choice, such as the smoothing of the n-grams,
was made on dev; test is reported once.
"""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
BEST = "--layers 4 --residual --context 8 --embedding 16 --hidden 128 --lr 0.2 --weight-decay 1e-4"
MODELS = {
    "bigram": "bigram.py --smoothing auto",
    "trigram": "bigram.py --order 3 --smoothing auto",
    "4-gram": "bigram.py --order 4 --smoothing auto",
    "mlp": "mlp.py",
    "batchnorm": "batchnorm.py",
    "best": f"batchnorm.py {BEST}",
}
REPAIRS = {
    "original": "--init naive --no-batchnorm",
    "softmax fixed": "--init small-logits --no-batchnorm",
    "tanh fixed": "--init scaled --no-batchnorm",
    "kaiming": "--no-batchnorm",
    "BatchNorm": "",
}
DEEP = "batchnorm.py --layers 5 --hidden 100 --steps 10000 --samples 0"


def run(command):
    """Run a script with the further arguments -> what it prints."""
    script, *options = command.split()
    process = subprocess.run(
        [sys.executable, ROOT / script, *options, *sys.argv[2:]],
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},
    )
    if process.returncode:  # it has said why
        raise SystemExit(process.returncode)
    return process.stdout


def run_all(commands):
    """The same for many commands, two at a time; counts them on a terminal."""
    with ThreadPoolExecutor(2) as pool:
        for done, output in enumerate(pool.map(run, commands)):
            if sys.stderr.isatty():
                print(f"\r{done + 1} of {len(commands)} \r", end="", file=sys.stderr, flush=True)
            yield output


def loss(split, output):
    return float(re.search(rf"^{split} +([\d.]+)", output, re.M)[1])


def models():
    print(f"{'model':10}{'parameters':>10}{'seconds':>9}{'dev':>8}{'test':>8}  samples")
    for name, command in MODELS.items():
        began = time.perf_counter()
        output = run(f"{command} --samples 4")
        seconds = time.perf_counter() - began
        if match := re.search(r"([\d,]+) parameters", output):
            parameters = int(match[1].replace(",", ""))
        else:  # the table of a count-based model
            characters, order = re.search(r"runs of (\d+)\n(\d+) characters", output).groups()[::-1]
            parameters = int(characters) ** int(order)
        samples = " ".join(re.sub(" +(new|cut)$", "", line) for line in output.splitlines()[-4:])
        losses = f"{loss('dev', output):8.4f}{loss('test', output):8.4f}"
        print(f"{name:10}{parameters:10,}{seconds:9.1f}{losses}  {samples:.33}", flush=True)


def compare():
    print(f"{'net':13}{'first loss':>12}{'train':>10}{'dev':>10}")
    dev = {}
    outputs = run_all([f"batchnorm.py --samples 0 {options}" for options in REPAIRS.values()])
    for name, output in zip(REPAIRS, outputs):
        first = float(re.search(r"^ +step .*\n +1 +([\d.]+)", output, re.M)[1])
        train, dev[name] = loss("train", output), loss("dev", output)
        print(f"{name:13}{first:12.4f}{train:10.4f}{dev[name]:10.4f}", flush=True)
    print("first loss: a uniform guess costs ln 27 = 3.2958")
    print(f"lowest on dev: {min(dev, key=dev.get)}. What BatchNorm is good for, make depth shows.")


def depth():
    print("dev loss of five layers of 100 units: median (lowest to highest) of three seeds")
    print(f"{'init':9}{'lr':6}{'plain':29}BatchNorm")
    rows = [(init, lr) for init in ("naive", "kaiming") for lr in ("0.1", "1")]
    outputs = run_all(
        [
            f"{DEEP} --init {init} --lr {lr} --seed {seed} {option}"
            for init, lr in rows
            for option in ("--no-batchnorm", "")
            for seed in (42, 43, 44)
        ]
    )
    medians = {"plain": [], "BatchNorm": []}
    for init, lr in rows:
        cells = []
        for column in medians.values():
            losses = [loss("dev", next(outputs)) for _ in range(3)]
            column.append(median(losses))
            cells.append(f"{median(losses):.4f} ({min(losses):.4f} to {max(losses):.4f})")
        print(f"{init:9}{lr:6}{cells[0]:29}{cells[1]}", flush=True)
    spreads = [f"{max(column) - min(column):.4f}" for column in medians.values()]
    print(f"{'spread':15}{spreads[0]:29}{spreads[1]}")
    print("The spread of the medians is the price of a wrong start or a wrong rate.")


if __name__ == "__main__":
    tables = {"models": models, "compare": compare, "depth": depth}
    if sys.argv[1:] and sys.argv[1] in tables:
        tables[sys.argv[1]]()
    else:
        sys.exit(__doc__)
