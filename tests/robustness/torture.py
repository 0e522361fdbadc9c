"""Kill real trainings at random times, resume them, and compare the result with an uninterrupted run.

`make torture` runs this program.

python -m tests.robustness.torture --kills 100    -> benchmarks/results/torture_<hardware>_<date>.md

Each rank is a process that is forked from a server with all imports done, so that a restart does not import torch.
"""

import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.helpers.prepared import TINY
from util.runs import checkpoints, read_metrics
from util.training.state import newest_readable

CLOCKS = {"seconds", "samples_per_s", "peak_memory_mb"}  # these values differ between two runs of the same training
TIMEOUT_S = 600
SHORT = ["--epochs", "8", "--batch_size", "2", "--lr", "1e-3", "--warmup_epochs", "1", "--threads", "1",
         "--save_freq", "0.002min", "--resume", "auto", "--rank_timeout", "3", "--drop_path", "0.2"]  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A training by one of the programs. ranks: number of processes, connected by gloo."""

    name: str
    program: str
    ranks: int
    options: tuple[str, ...]

    def arguments(self, data: Path, folder: Path) -> list[str]:
        return ["--data", str(data), "--output_dir", str(folder), *TINY, *SHORT, *self.options]


PRETRAIN = ("--model", "mae_3d_vim_tiny_patch8", "--picture_freq", "0")
FINETUNE = ("--model", "vim_3d_tiny_patch8", "--k_fold", "2", "--epochs", "4")
JOBS = (
    Job("pre-training", "main_pretrain", 1, (*PRETRAIN, "--ema", "0.9", "--num_workers", "1")),
    Job("pre-training, 2 ranks", "main_pretrain", 2, (*PRETRAIN, "--accum_iter", "2")),
    Job("2-fold fine-tuning", "main_cr_finetune", 1, (*FINETUNE, "--augment", "loader")),
    Job("2-fold fine-tuning, 2 ranks", "main_cr_finetune", 2, (*FINETUNE, "--mixup", "0.5", "--save_freq", "1")),
)


def _enter(program: str, arguments: list[str], environment: dict[str, str], log: Path) -> None:
    """Run one rank in this process."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # for data loading, as in a separate process
    from util import cli

    cli.run(lambda: __import__(program).main(arguments))


def start(job: Job, data: Path, folder: Path, arguments_of_rank: dict[int, list[str]] | None = None) -> list:
    """Start the processes of all ranks. arguments_of_rank: other arguments for some ranks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["main_pretrain", "main_cr_finetune"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(job.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    ranks = []
    for rank in range(job.ranks):
        environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        arguments = (arguments_of_rank or {}).get(rank, job.arguments(data, folder))
        ranks.append(context.Process(target=_enter, args=(job.program, arguments, environment, log_of(folder))))
        ranks[-1].start()
    return ranks


def log_of(folder: Path) -> Path:
    return folder.with_suffix(".log")


def children(pid: int) -> list[int]:
    """Ids of the child processes (the ranks of torchrun), in the order of their start. Empty if the process ended."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def end(ranks: list) -> list[int]:
    """Wait for all ranks and return their exit codes. A rank that hangs is killed; its exit code is None."""
    stop = time.monotonic() + TIMEOUT_S
    for rank in ranks:
        rank.join(max(stop - time.monotonic(), 0))
    codes = [rank.exitcode for rank in ranks]
    for rank in ranks:
        rank.kill()
        rank.join()
        rank.close()
    return codes


def run(job: Job, data: Path, folder: Path) -> float:
    """Train to the end without a kill and return the seconds. AssertionError with the log if the training fails."""
    started = time.monotonic()
    codes = end(start(job, data, folder))
    assert set(codes) == {0}, f"{job.name} ended with {codes}:\n{log_of(folder).read_text()[-4000:]}"
    return time.monotonic() - started


def interrupt(
    job: Job, data: Path, folder: Path, number: int, victims: list[int], *, after_s: float = 0, saves: int = 0
) -> list[int] | None:
    """Start or resume a training and send a signal to some of its ranks.

    The signal is sent `after_s` seconds after the training has saved `saves` checkpoints. Returns the exit codes, or
    None if the training ended before.
    """
    before, ranks = _newest(folder), start(job, data, folder)
    for _ in range(saves):
        while _newest(folder) == before and ranks[0].is_alive():
            time.sleep(0.002)
        before = _newest(folder)
    time.sleep(after_s)
    alive = [ranks[victim] for victim in victims if ranks[victim].is_alive()]
    for rank in alive:
        os.kill(rank.pid, number)
    codes = end(ranks)
    if not alive:
        assert set(codes) == {0}, f"{job.name} ended with {codes}:\n{log_of(folder).read_text()[-4000:]}"
        return None
    return codes


def _newest(folder: Path) -> Path | None:
    """The newest checkpoint of a training, with or without folds."""
    found = [path for part in (folder, *sorted(folder.glob("fold_*"))) for path in checkpoints(part)]
    return found[-1] if found else None


def bytes_that_differ(mine: Path, reference: Path) -> int:
    """Number of different bytes in weights, averages, optimiser states, metrics, folds and predictions of two runs."""
    differ = 0
    folders = [Path()] + [path.relative_to(reference) for path in sorted(reference.glob("fold_*"))]
    for folder in folders:
        metrics = [
            json.dumps([{k: v for k, v in row.items() if k not in CLOCKS} for row in read_metrics(root / folder)])
            for root in (mine, reference)
        ]
        texts = [tuple(map(str.encode, metrics))]
        for name in ("predictions.csv", "folds.json"):
            if (reference / folder / name).exists():
                texts.append(((mine / folder / name).read_bytes(), (reference / folder / name).read_bytes()))
        differ += sum(_differing(*pair) for pair in texts)
        if checkpoints(reference / folder):
            states = [_tensors(torch.load(checkpoints(root / folder)[-1])) for root in (mine, reference)]
            assert states[0].keys() == states[1].keys()
            differ += sum(_differing(states[0][key], states[1][key]) for key in states[0])
    return differ


def _tensors(content, path: str = "") -> dict[str, bytes]:
    if isinstance(content, dict):
        return {k: v for key, value in content.items() for k, v in _tensors(value, f"{path}/{key}").items()}
    if isinstance(content, torch.Tensor):
        return {path: content.contiguous().view(-1).view(torch.uint8).numpy().tobytes()}
    return {path: repr(content).encode()} if path.endswith(("/epoch", "/tallies")) else {}


def _differing(a: bytes, b: bytes) -> int:
    return abs(len(a) - len(b)) + sum(x != y for x, y in zip(a, b))


@dataclass
class Count:
    """Counts of one job: kills, kills with a successful resumption, polite stops, completed runs, different bytes."""

    tried: int = 0
    survived: int = 0
    polite: int = 0
    runs: int = 0
    bytes_lost: int = 0


def torture(job: Job, data: Path, scratch: Path, kills: int, draw: random.Random) -> Count:
    """Kill a training `kills` times, in several runs. Each run is completed and compared with an uninterrupted run."""
    scratch.mkdir(parents=True)
    whole, count = scratch / "whole", Count()
    run(job, data, whole)  # includes the imports of the server
    span = run(job, data, scratch / "timed")
    while count.tried < kills:
        folder, in_this_run = scratch / f"run_{count.runs}", 0
        while count.tried < kills and in_this_run < 12:
            polite = draw.random() < 0.15
            victims = [draw.randrange(job.ranks)] if polite or draw.random() < 0.5 else list(range(job.ranks))
            number = draw.choice([signal.SIGTERM, signal.SIGUSR1]) if polite else signal.SIGKILL
            codes = interrupt(job, data, folder, number, victims, after_s=draw.uniform(0, 0.8 * span))
            if codes is None:
                break
            assert None not in codes, f"a rank hangs after a kill:\n{log_of(folder).read_text()[-4000:]}"
            in_this_run += 1
            count.tried += not polite
            count.polite += polite
        run(job, data, folder)
        count.survived += in_this_run
        count.runs += 1
        count.bytes_lost += bytes_that_differ(folder, whole)
        shutil.rmtree(folder)
    count.survived -= count.polite
    return count


DAMAGES = {
    "cut off": lambda data, draw: data[: draw.randrange(len(data))],
    "one bit flipped": lambda data, draw: _patched(data, draw, lambda byte: byte ^ 1 << draw.randrange(8), 1),
    "512 bytes zeroed": lambda data, draw: _patched(data, draw, lambda byte: 0, 512),
    "empty": lambda data, draw: b"",
}


def _patched(data: bytes, draw: random.Random, change, length: int) -> bytes:
    start = draw.randrange(len(data) - length)
    return data[:start] + bytes(map(change, data[start : start + length])) + data[start + length :]


def corrupt(folder: Path, tries: int, draw: random.Random) -> dict[str, tuple[int, int]]:
    """Damage the newest checkpoint of a folder repeatedly. Returns (tried, recognised) by kind of damage."""
    before, newest = checkpoints(folder)[-2:]
    whole, counts = newest.read_bytes(), dict.fromkeys(DAMAGES, (0, 0))
    for number in range(tries):
        kind = list(DAMAGES)[number % len(DAMAGES)]
        damaged = DAMAGES[kind](whole, draw)
        newest.write_bytes(damaged)
        recognised = newest_readable(folder) == before or damaged == whole
        counts[kind] = (counts[kind][0] + 1, counts[kind][1] + recognised)
    newest.write_bytes(whole)
    return counts


def main() -> None:
    import argparse
    import tempfile

    from benchmarks.measuring.report import Report
    from tests.helpers.prepared import make_prepared

    parser = argparse.ArgumentParser(description="Kill trainings, damage checkpoints, and count the losses.")
    parser.add_argument("--kills", type=int, default=100, help="number of kills, divided among the jobs")
    parser.add_argument("--corruptions", type=int, default=400, help="number of damaged checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times and the damages")
    args = parser.parse_args()
    logging.getLogger("util").setLevel(logging.CRITICAL)
    draw = random.Random(args.seed)
    command = (
        f"python -m tests.robustness.torture --kills {args.kills} --corruptions {args.corruptions} --seed {args.seed}"
    )
    report = Report("torture", "Killed trainings and damaged checkpoints", command)
    report.section("Kills", "SIGKILL at a random time, to one rank or to all, then `--resume auto`. Polite stops are "
                   "SIGTERM or SIGUSR1 to one rank. The following are compared bit for bit with an uninterrupted run: "
                   "weights, averages, optimiser, metrics.jsonl (without times), folds, predictions.")  # fmt: skip
    rows = []
    report.table(["job", "kills tried", "survived", "polite stops", "runs", "bytes lost"], rows)
    with tempfile.TemporaryDirectory() as scratch:
        data = make_prepared(Path(scratch) / "data")
        for number, job in enumerate(JOBS):
            kills = args.kills // len(JOBS) + (number < args.kills % len(JOBS))
            count = torture(job, data, Path(scratch) / str(number), kills, draw)
            rows.append([job.name, *vars(count).values()])
            report.write()
        report.section("Corruptions", "The newest of two checkpoints is damaged. Recognised: it was set aside and the "
                       "previous one was used.")  # fmt: skip
        counts = corrupt(Path(scratch) / "0" / "whole", args.corruptions, draw)
        report.table(["damage", "tried", "recognised"], [[kind, *pair] for kind, pair in counts.items()])
    print(report.write().read_text())


if __name__ == "__main__":
    main()
