"""Run independent tasks on several processes. A task that fails does not stop the others."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

T = TypeVar("T")


def run_tasks(tasks: Sequence[Callable[[], T]], workers: int) -> Iterator[tuple[int, T | Exception]]:
    """Yield (position, result, or the ValueError or OSError that the task raised), in the order of completion.

    Tasks must be picklable. Any other exception is a bug and ends the run.
    """
    if workers < 1:
        raise ValueError(f"--workers is {workers}; give 1 or more")
    if workers == 1 or len(tasks) < 2:
        for position, task in enumerate(tasks):
            yield position, _outcome(task)
        return
    # spawn, because a fork of a process whose numerical libraries run threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
        futures = {pool.submit(_outcome, task): position for position, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise ValueError("a worker process was killed, probably for lack of memory; use fewer --workers") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _outcome(task: Callable[[], T]) -> T | Exception:
    try:
        return task()
    except (ValueError, OSError) as error:
        return error
