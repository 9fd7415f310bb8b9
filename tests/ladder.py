"""Run many models on the same split of the same names, and print one table.

    make ladder    every model of this project, from the bigram to the best net
    make depth     what BatchNorm is good for: five layers, good and bad starts, two learning rates

Every choice, such as the smoothing of the n-grams, was made on dev; test is reported once.
"""

import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEST = "--layers 4 --residual --context 8 --embedding 16 --hidden 128 --lr 0.2 --weight-decay 1e-4"
MODELS = [
    ("bigram", "bigram.py --smoothing auto"),
    ("trigram", "bigram.py --order 3 --smoothing auto"),
    ("4-gram", "bigram.py --order 4 --smoothing auto"),
    ("mlp", "mlp.py"),
    ("batchnorm", "batchnorm.py"),
    ("best", f"batchnorm.py {BEST}"),
]
DEEP = "batchnorm.py --layers 5 --hidden 100 --steps 10000 --samples 0"


def run(command):
    """Run one model -> (its output, the losses on dev and test)."""
    process = subprocess.run(
        [sys.executable, *command.split()],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    losses = [re.search(rf"^{s} +([\d.]+)", process.stdout, re.M)[1] for s in ("dev", "test")]
    return process.stdout, *map(float, losses)


def ladder():
    print(f"{'model':10}{'parameters':>10}{'seconds':>9}{'dev':>8}{'test':>8}  samples")
    for name, command in MODELS:
        began = time.perf_counter()
        output, dev, test = run(f"{command} --samples 4")
        seconds = time.perf_counter() - began
        if match := re.search(r"([\d,]+) parameters", output):
            parameters = int(match[1].replace(",", ""))
        else:  # the table of a count-based model: characters to the power of the order
            characters, order = re.search(r"(\d+) characters, .* runs of (\d+)", output).groups()
            parameters = int(characters) ** int(order)
        samples = " ".join(line.removesuffix(" new").strip() for line in output.splitlines()[-4:])
        figures = f"{parameters:10,}{seconds:9.1f}{dev:8.4f}{test:8.4f}"
        print(f"{name:10}{figures}  {textwrap.shorten(samples, 33, placeholder='')}", flush=True)


def depth():
    print("dev loss of five layers of 100 units after 10,000 steps")
    print(f"{'init':9}{'lr':3}{'plain':>9}{'BatchNorm':>11}")
    plain, normalised = [], []
    for init in ("naive", "kaiming"):
        for lr in ("0.1", "1"):
            for losses, option in ((plain, "--no-batchnorm"), (normalised, "")):
                _, dev, _ = run(f"{DEEP} --init {init} --lr {lr} {option}")
                losses.append(dev)
            print(f"{init:9}{lr:3}{plain[-1]:9.4f}{normalised[-1]:11.4f}", flush=True)
    spreads = [max(losses) - min(losses) for losses in (plain, normalised)]
    print(f"{'spread':12}{spreads[0]:9.4f}{spreads[1]:11.4f}")
    print("The spread is the price of a wrong start or a wrong rate.")


if __name__ == "__main__":
    depth() if "depth" in sys.argv[1:] else ladder()
