# SPDX-License-Identifier: Apache-2.0
"""A few threads that do tasks side by side; the first failure, or ^C, ends them all."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GRACE_S = 2.0  # how long threads may take, together, to notice that they were cancelled: one may be in connect(2)


def run(tasks: Sequence[Callable[[], None]], jobs: int, cancel: Callable[[], None]) -> None:
    """Runs all tasks, `jobs` at a time, in order.

    On the first failure, and on any exception here (KeyboardInterrupt, SystemExit), `cancel` must make the others
    fail soon; then that error is raised.
    """
    import threading

    left = list(reversed(tasks))
    errors: list[BaseException] = []
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not left or errors:
                    return
                task = left.pop()
            try:
                task()
            except BaseException as error:  # raised again below
                with lock:
                    errors.append(error)
                    first = len(errors) == 1
                if first:
                    cancel()

    threads = [threading.Thread(target=work, name="transfer", daemon=True) for _ in range(min(jobs, len(left)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        with lock:
            left.clear()
        cancel()
        end = time.monotonic() + GRACE_S
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, end - time.monotonic()))
        raise
    if errors:
        raise errors[0]
