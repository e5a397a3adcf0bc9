"""Hooks are called for their own thread, replace what they return, and go all together."""

import threading

import pytest
import torch
from torch import nn

from probes.hooks import register


def count(module):
    return len(module._forward_hooks), len(module._forward_pre_hooks)


def test_what_a_hook_returns_replaces_the_arguments():
    module, seen = nn.Identity(), []
    remove = register(
        [(module, lambda _, arguments, named: ((arguments[0] + 1,), named))],
        [(module, lambda _, arguments, output: seen.append(output))],
    )
    assert module(torch.tensor(1)) == 2
    assert seen == [2]
    remove()
    assert module(torch.tensor(1)) == 1
    assert count(module) == (0, 0)


def test_another_thread_is_not_seen():
    module, seen = nn.Identity(), []
    remove = register([(module, lambda *_: seen.append(1))])
    thread = threading.Thread(target=module, args=(torch.tensor(1),))
    thread.start()
    thread.join()
    assert seen == []
    module(torch.tensor(1))
    assert seen == [1]
    remove()


def test_all_or_none():
    module = nn.Identity()
    with pytest.raises(AttributeError):
        register([(module, print), ("no module", print)])
    assert count(module) == (0, 0)
    remove = register([(module, print)])
    remove()
    remove()
    assert count(module) == (0, 0)
