"""Mutation of JSON inputs: values change, the syntax mostly stays valid.

Mutated bytes would hardly ever get past the parser.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from random import Random
from typing import Any

Mutate = Callable[[bytes, int], bytes]
"""Mutates bytes, up to a size: libFuzzer's own mutator."""

BYTES_RATE = 0.1
"""Share of JSON inputs that are mutated as bytes."""

EDGES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 255, 256, 0.5, -0.0, 1e-320, 1e308),
    *(float("nan"), float("inf"), 2**31, -(2**31), 2**53, 2**63, 2**64, 10**30, 10**4000),
    *("", " ", "0", "1", "a", "\0", "\n", "\ud800", "\udcff", "\ufeff", "\u202e", "é", "a" * 300),
    *("..", "../x", "/", "/dev/stdin", ".", "~", "%", "%s", "{}", "[red]", "<b>", "-1", "1e999"),
    *([], [[]], {}, [None], [0, 0], [1, 2, 3, 4], {"": None}),
)

Slot = tuple[Any, Any]
"""A container and a key or an index in it."""


def mutate_json(data: bytes, max_size: int, random: Random, mutate: Mutate) -> bytes:
    """Change one to three values of a JSON document, or its bytes."""
    try:
        root = [json.loads(data)]
    except (ValueError, RecursionError):
        return mutate(data, max_size)
    if random.random() < BYTES_RATE:
        return mutate(data, max_size)
    try:
        for _ in range(random.randint(1, 3)):
            _change(root, random, mutate)
        return json.dumps(root[0]).encode()[:max_size] if root else b""
    except (
        ValueError,
        OverflowError,
        RecursionError,
    ):  # more digits or levels than JSON's writer takes
        return mutate(data, max_size)


def _change(root: list[Any], random: Random, mutate: Mutate) -> None:
    slots = list(_slots(root))
    if not slots:
        return
    container, key = random.choice(slots)
    value, (other, other_key) = container[key], random.choice(slots)
    action = random.choice(("edge", "edge", "edit", "edit", "delete", "copy", "swap", "wrap"))
    if action == "delete":
        del container[key]
    elif action == "copy" and isinstance(container, list):
        container.insert(key, deepcopy(value))
    elif action == "copy":
        container[_edited(key, random, mutate)] = deepcopy(value)
    elif action == "swap":
        container[key] = deepcopy(other[other_key])
    elif action == "wrap":
        container[key] = [value]
    elif action == "edit":
        container[key] = _edited(value, random, mutate)
    else:
        container[key] = _edge(random)


def _slots(root: Any) -> Iterator[Slot]:
    waiting = [root]
    while waiting:
        container = waiting.pop()
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, value in items:
            yield container, key
            if isinstance(value, (dict, list)):
                waiting.append(value)


def _edited(value: Any, random: Random, mutate: Mutate) -> Any:
    if isinstance(value, str):
        encoded = value.encode("utf-8", "surrogatepass")
        return mutate(encoded, len(encoded) + 16).decode("utf-8", "surrogateescape")
    if isinstance(value, (int, float)):
        return random.choice((-value, value + 1, value - 1, value * 2, value * 1000, value // 3))
    return _edge(random)


def _edge(random: Random) -> Any:
    return deepcopy(random.choice(EDGES))  # a shared list would come to contain itself
