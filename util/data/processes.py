"""Independent tasks on several processes, where one that fails must not stop the others."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

T = TypeVar("T")


def run_tasks(tasks: Sequence[Callable[[], T]], workers: int) -> Iterator[tuple[int, T | Exception]]:
    """(position, result or the ValueError or OSError it raised), in the order in which they finish.

    Tasks must be picklable. Any other exception ends the run: it is our mistake, not the data's.
    """
    if workers < 1:
        raise ValueError(f"--workers is {workers}; give 1 or more")
    if workers == 1 or len(tasks) < 2:
        for position, task in enumerate(tasks):
            yield position, _outcome(task)
        return
    # spawn: a forked copy of a process whose numerical libraries run threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
        futures = {pool.submit(_outcome, task): position for position, task in enumerate(tasks)}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise ValueError("a worker process was killed, most likely for memory; use fewer --workers") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _outcome(task: Callable[[], T]) -> T | Exception:
    try:
        return task()
    except (ValueError, OSError) as error:
        return error
