"""Forward hooks that see one thread only, because a page answers several people with one model.

The traps: torch numbers hooks without a lock, so two threads could get one number, and one hook take the
other's place; and it reads its lists of hooks without one, so a hook may be called once more while another
thread removes it, then without keyword arguments.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from torch import nn

Hook = Callable[..., Any]

_REGISTERING = threading.Lock()


def register(
    before: Iterable[tuple[nn.Module, Hook]], after: Iterable[tuple[nn.Module, Hook]] = ()
) -> Callable[[], None]:
    """Hooks for the calls that this thread makes, all of them or, where one cannot be registered, none.

    Args:
        before: modules, each with a function of (module, arguments, named arguments) to call before its
            forward; what it returns, if not None, is given to the forward instead of both.
        after: modules, each with a function of (module, arguments, output).

    Returns:
        The function that removes them.
    """
    thread = threading.get_ident()
    with _REGISTERING, ExitStack() as handles:
        for module, hook in before:
            handle = module.register_forward_pre_hook(_own(hook, thread), with_kwargs=True)
            handles.callback(handle.remove)
        for module, hook in after:
            handles.callback(module.register_forward_hook(_own(hook, thread)).remove)
        registered = handles.pop_all()

    def remove() -> None:
        with _REGISTERING:
            registered.close()

    return remove


def _own(hook: Hook, thread: int) -> Hook:
    def called(module: nn.Module, *arguments: Any) -> Any:
        return hook(module, *arguments) if threading.get_ident() == thread else None

    return called
