"""Deadlines. Nothing in this suite waits for a fixed time: it waits until something holds, and fails when it never does."""

import queue
import time

# Seconds. Far above what a healthy server needs, so that only a lost answer reaches it, not a busy machine.
DEADLINE = 10.0


def eventually(condition, what, deadline=DEADLINE):
    """Asks `condition` again until it is truthy, and returns its value.

    For state that settles behind the scenes and announces itself nowhere, such as a count after a disconnect.
    """
    end = time.monotonic() + deadline
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {deadline:g} s: {what}"
        time.sleep(0.01)
    return value


class Inbox(queue.Queue):
    """What callbacks on other threads received, in order."""

    def next(self, what="a callback", deadline=DEADLINE):
        try:
            return self.get(timeout=deadline)
        except queue.Empty:
            raise AssertionError(f"not within {deadline:g} s: {what}") from None
