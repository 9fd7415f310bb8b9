"""Run every model on the same split of the same names, and print one table.

    make ladder

Every choice, such as the smoothing of the n-grams, was made on dev; test is reported once.
"""

import re
import subprocess
import sys
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


def run(command):
    """Run one model -> (parameters, seconds of training, dev loss, test loss, five samples)."""
    began = time.perf_counter()
    process = subprocess.run(
        [sys.executable, *command.split(), "--samples", "5"],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    seconds, output = time.perf_counter() - began, process.stdout
    if match := re.search(r"steps in ([\d.]+) s", output) if "bigram" not in command else None:
        seconds = float(match[1])
    if match := re.search(r"([\d,]+) parameters", output):
        parameters = int(match[1].replace(",", ""))
    else:
        characters, order = re.search(r"(\d+) characters, .* runs of (\d+)", output).groups()
        parameters = int(characters) ** int(order)
    dev, test = (float(re.search(rf"^{s} +([\d.]+)", output, re.M)[1]) for s in ("dev", "test"))
    samples = [line.removesuffix(" new").strip() for line in output.splitlines()[-5:]]
    return parameters, seconds, dev, test, samples


if __name__ == "__main__":
    print(f"{'model':10}{'parameters':>11}{'seconds':>9}{'dev':>8}{'test':>8}  samples")
    for name, command in MODELS:
        parameters, seconds, dev, test, samples = run(command)
        figures = f"{parameters:11,}{seconds:9.1f}{dev:8.4f}{test:8.4f}"
        print(f"{name:10}{figures}  {' '.join(samples)}", flush=True)
