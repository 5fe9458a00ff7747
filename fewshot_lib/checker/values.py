"""Plain values: what an answer takes and returns, in a form that can cross to another process.

A value is plain when it is None, a bool, int, float, complex or str, an array of numbers, or a
tuple, list or dict of plain values. Whatever an answer returns is brought into this form
(:func:`plain`) before anything looks at it; values cross a process boundary as one JSON header and
the raw bytes of the arrays (:func:`pack`, :func:`unpack`), never as a pickle. msgpack would not do
without the walk that checks depth, kinds and sizes, so the header stays in the standard library's
JSON, which has no types beyond those that are allowed here.

This module knows no answer: a copy of it can lie next to a stranger's code.
"""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

#: The array types that may cross, by the name that stands in the header.
DTYPES = {
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_SIMPLE = (bool, int, float, str, type(None))
_MAGIC = b"FSV1"
_WIDE = {"g": "float64", "G": "complex128"}  # long doubles cross as doubles

#: An array may have at most this many axes.
MAX_AXES = 16
#: A key of a dict is cut at this many characters, a text that an answer returns at so many.
MAX_KEY, MAX_TEXT = 200, 10_000


@dataclass(frozen=True)
class Limits:
    """How large a value may be.

    Arguments:
        max_bytes: of the whole message.
        max_items: things in it.
        max_depth: how deeply they are nested.
        max_header: bytes of the part that is JSON; parsed, it takes many times the room.
    """

    max_bytes: int = 64 * 2**20
    max_items: int = 20_000
    max_depth: int = 8
    max_header: int = 4 * 2**20


LIMITS = Limits()


@dataclass(frozen=True)
class Seed:
    """Stand for ``torch.Generator().manual_seed(value)`` in the arguments of a case."""

    value: int


@dataclass(frozen=True)
class Fixture:
    """Stand for an object that is built beside the answer: ``FIXTURES[name](**settings)``.

    For arguments that are not plain values (a network, a function to be tested).
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Opaque:
    """Stand for something that is not a plain value; only the name of its type is kept."""

    type_name: str


#: The functions that build what :class:`Fixture` names. Such a function takes plain values only,
#: gives the same object every time, and is copied next to strangers' code: it must hold no answer.
FIXTURES: dict[str, Callable[..., Any]] = {}


def fixture(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a function in :data:`FIXTURES` by its name; ValueError if the name is taken."""
    name = function.__name__
    if name in FIXTURES:
        raise ValueError(f"there is a fixture {name!r} already; choose another name")
    FIXTURES[name] = function
    return function


class NotPlain(ValueError):
    """A value or a message is not what this module can read: malformed, too large, too deep."""


def plain(value: Any, limits: Limits = LIMITS) -> Any:
    """Bring whatever an answer returned into plain form.

    Tensors (of any device, with or without gradient) become arrays, NumPy scalars become numbers,
    sets become sorted tuples, data classes and named tuples become dicts of their fields. What has
    no plain form becomes :class:`Opaque`. A value that is plain already comes back equal, so that
    what crossed from another process can be brought through the same door.

    Arguments:
        value: anything.
        limits: what is larger becomes :class:`Opaque`, too.

    Returns:
        A plain value that shares no memory with ``value``.

    >>> plain((torch.ones(2, requires_grad=True), {"n": np.int64(3)}))
    (array([1., 1.], dtype=float32), {'n': 3})
    """
    budget = [limits.max_items, limits.max_bytes]
    try:
        return _plain(value, limits.max_depth, budget)
    except _TooLarge as error:
        return Opaque(str(error))


class _TooLarge(Exception):
    """The value is not read: it is too large."""


def _plain(value: Any, depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if depth < 0:
        raise _TooLarge(f"{type(value).__name__} nested too deeply")
    if budget[0] < 0:
        raise _TooLarge("value of too many parts; an array would be read")
    kind = type(value)
    if value is None or kind in (bool, float, complex):
        return value
    if isinstance(value, Opaque):
        return Opaque(str(value.type_name)[:MAX_KEY])
    if isinstance(value, torch.Tensor):
        return _array(_from_tensor(value), budget)
    if isinstance(value, np.generic):
        return _scalar(_array(np.asarray(value), budget))
    if isinstance(value, np.ndarray):
        return _array(np.asarray(value), budget)
    if isinstance(value, int):  # an IntEnum, too
        number = operator.index(value)
        return number if -(2**63) <= number < 2**64 else Opaque("int beyond 64 bits")
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str(value)[:MAX_TEXT]
    if kind in (set, frozenset):
        parts = [_plain(part, depth - 1, budget) for part in value]
        try:
            return tuple(sorted(parts))
        except TypeError:
            return Opaque(f"{kind.__name__} of things that cannot be ordered")
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {
            _key(name): _plain(part, depth - 1, budget)
            for name, part in zip(value._fields, value, strict=False)
        }
    if isinstance(value, tuple):
        return tuple(_plain(part, depth - 1, budget) for part in tuple(value))
    if isinstance(value, list):
        return [_plain(part, depth - 1, budget) for part in list(value)]
    if isinstance(value, dict):
        return {_key(key): _plain(part, depth - 1, budget) for key, part in dict(value).items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            entry.name: _plain(getattr(value, entry.name), depth - 1, budget)
            for entry in dataclasses.fields(value)
        }
    return Opaque(kind.__name__[:MAX_KEY])


def _key(key: Any) -> str:
    return str(key)[:MAX_KEY]


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray) else value


def _from_tensor(tensor: torch.Tensor) -> np.ndarray | None:
    try:
        tensor = tensor.detach()
        if tensor.layout is not torch.strided:
            tensor = tensor.to_dense()
        tensor = tensor.cpu().resolve_conj().resolve_neg()
        if tensor.dtype is torch.bfloat16:
            tensor = tensor.float()
        return np.array(tensor.numpy())
    except (RuntimeError, TypeError, NotImplementedError):
        return None


def _name(dtype: np.dtype) -> str:
    known = _NAMES.get(dtype)  # NumPy puts its own name together anew each time
    return known if known is not None else dtype.name


def _array(array: np.ndarray | None, budget: list[int]) -> Any:
    if array is None:
        return Opaque("tensor that has no numbers to read")
    if array.ndim == 0 and array.dtype.kind == "U":
        return str(array)[:MAX_TEXT]
    if array.dtype == object:
        return Opaque("array of objects")
    if array.ndim > MAX_AXES:
        return Opaque(f"array of {array.ndim} axes")
    name = _WIDE.get(array.dtype.char) or _name(array.dtype)
    if name not in DTYPES:
        return Opaque(f"array of {name[:40]}")
    budget[1] -= array.size * DTYPES[name].itemsize
    if budget[1] < 0:
        raise _TooLarge(f"value of more than {array.nbytes / 2**20:.0f} MiB, too much to be read")
    if array.dtype == DTYPES[name]:
        return np.array(array, order="C")
    with np.errstate(all="ignore"):  # a long double may lie beyond all doubles
        return array.astype(DTYPES[name], order="C", subok=False, copy=True)  # native byte order


def revive(value: Any) -> Any:
    """Make the arguments of a case anew, so that no call can spoil the next one's.

    Tensors and arrays are copied, :class:`Seed` becomes a generator, :class:`Fixture` the object.

    >>> revive(Seed(3)).initial_seed()
    3
    """
    if type(value) in _SIMPLE:
        return value
    if isinstance(value, torch.Tensor):
        return value.clone(memory_format=torch.contiguous_format)  # as it comes over the wire
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Seed):
        return torch.Generator().manual_seed(value.value)
    if isinstance(value, Fixture):
        if value.name not in FIXTURES:
            raise ValueError(f"no fixture {value.name!r}; there are {', '.join(sorted(FIXTURES))}")
        return FIXTURES[value.name](**{key: revive(part) for key, part in value.settings.items()})
    if isinstance(value, tuple):
        return tuple(revive(part) for part in value)
    if isinstance(value, list):
        return [revive(part) for part in value]
    if isinstance(value, dict):
        return {key: revive(part) for key, part in value.items()}
    return value


def pack(value: Any) -> bytes:
    """Write a plain value, or the arguments of a case, as bytes.

    Layout: ``FSV1``, length of the header (8 bytes, little endian), header (JSON), arrays in order.
    Tensors stay tensors, arrays stay arrays; :class:`Seed`, :class:`Fixture` and :class:`Opaque`
    cross by name.

    Raises:
        NotPlain: a part of the value has no plain form.

    >>> unpack(pack((1.5, [True, None], np.arange(3))))
    (1.5, [True, None], array([0, 1, 2]))
    """
    arrays: list[np.ndarray] = []
    tree = _to_tree(value, arrays)
    header = json.dumps(
        {"value": tree, "arrays": [[_name(a.dtype), list(a.shape)] for a in arrays]},
        separators=(",", ":"),
    ).encode()
    return b"".join(
        [_MAGIC, struct.pack("<Q", len(header)), header, *(a.tobytes(order="C") for a in arrays)]
    )


def _to_tree(value: Any, arrays: list[np.ndarray]) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, torch.Tensor):
        array = _from_tensor(value)
        if array is None or _name(array.dtype) not in DTYPES or value.dtype is torch.bfloat16:
            raise NotPlain(f"a tensor of {value.dtype} cannot cross; make it float32 or int64")
        arrays.append(array)
        return {"tensor": len(arrays) - 1}
    if isinstance(value, np.ndarray):
        name = _name(value.dtype)
        if name not in DTYPES or value.ndim > MAX_AXES:
            raise NotPlain(f"an array of {value.dtype} with {value.ndim} axes cannot cross")
        arrays.append(value.astype(DTYPES[name], copy=False))  # native byte order
        return {"array": len(arrays) - 1}
    if isinstance(value, tuple):
        return {"tuple": [_to_tree(part, arrays) for part in value]}
    if isinstance(value, list):
        return [_to_tree(part, arrays) for part in value]
    if isinstance(value, dict):
        return {"dict": [[str(key), _to_tree(part, arrays)] for key, part in value.items()]}
    if isinstance(value, Seed):
        return {"seed": str(value.value)}
    if isinstance(value, Fixture):
        return {"fixture": [value.name, _to_tree(dict(value.settings), arrays)]}
    if isinstance(value, Opaque):
        return {"opaque": value.type_name}
    raise NotPlain(f"a {type(value).__name__} is not a plain value and cannot cross")


def unpack(data: bytes, limits: Limits = LIMITS) -> Any:
    """Read what :func:`pack` wrote; trust nothing.

    Type, shape and size of every array are checked against the whitelist, the limits and the
    number of bytes that came before a byte is read into an array.

    Raises:
        NotPlain: the bytes are malformed, too long or too deep; says how. Nothing else is raised,
            whatever the bytes are.
    """
    try:
        return _unpack(data, limits)
    except (RecursionError, MemoryError) as error:
        raise NotPlain(f"the value cannot be read here: {type(error).__name__}") from None


def _unpack(data: bytes, limits: Limits) -> Any:
    if len(data) > limits.max_bytes:
        raise NotPlain(f"{len(data)} bytes came, at most {limits.max_bytes} are read")
    if len(data) < 12 or data[:4] != _MAGIC:
        raise NotPlain("these bytes do not begin as a value does")
    (length,) = struct.unpack("<Q", data[4:12])
    if length > len(data) - 12:
        raise NotPlain(f"a header of {length} bytes is announced, {len(data) - 12} bytes came")
    if length > limits.max_header:
        raise NotPlain(f"a header of {length} bytes came, at most {limits.max_header} are read")
    text = data[12 : 12 + length]
    # parsed, an empty list takes thirty times its room; the kind and the entry of a part are lists
    if text.count(b"[") + text.count(b"{") > 8 * limits.max_items:
        raise NotPlain(f"more parts came than the {limits.max_items} that are read")
    try:
        header = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise NotPlain(f"the header cannot be read: {type(error).__name__}") from None
    if not isinstance(header, dict) or header.keys() != {"value", "arrays"}:
        raise NotPlain("the header has other entries than value and arrays")
    announced = header["arrays"]
    if not isinstance(announced, list) or len(announced) > limits.max_items:
        raise NotPlain(f"no list of at most {limits.max_items} arrays is announced")
    arrays: list[np.ndarray | None] = []
    position = 12 + length
    for entry in announced:
        dtype, shape = _announced(entry)
        size = math.prod(shape) * dtype.itemsize
        if size > len(data) - position:
            raise NotPlain("an array is announced larger than what came")
        raw = np.frombuffer(data, np.uint8, size, position)
        if dtype.kind == "b" and (raw > 1).any():
            raise NotPlain("a bool array holds something else than 0 and 1")
        arrays.append(np.frombuffer(raw.tobytes(), dtype).reshape(shape).copy())
        position += size
    if position != len(data):
        raise NotPlain(f"{len(data) - position} bytes are left over")
    return _from_tree(header["value"], arrays, limits.max_depth, [limits.max_items])


def _announced(entry: Any) -> tuple[np.dtype, list[int]]:
    if not isinstance(entry, list) or len(entry) != 2:
        raise NotPlain("an array is announced by something else than its type and shape")
    name, shape = entry
    if not isinstance(name, str) or name not in DTYPES:
        raise NotPlain(f"an array of {_short(name)} may not cross")
    if not isinstance(shape, list) or len(shape) > MAX_AXES:  # before anything is multiplied
        raise NotPlain(f"an array has no shape of at most {MAX_AXES} axes")
    if not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise NotPlain("an array has an impossible shape")
    # NumPy counts bytes in 63 bits without the empty axes: (0, 2**62) is refused like (2**62,)
    if math.prod(max(n, 1) for n in shape) * DTYPES[name].itemsize >= 2**63:
        raise NotPlain("an array has an impossible shape")
    return DTYPES[name], shape


def _short(name: Any) -> str:
    return repr(name[:40]) if isinstance(name, str) else f"a {type(name).__name__}"


def _from_tree(tree: Any, arrays: list[np.ndarray | None], depth: int, budget: list[int]) -> Any:
    budget[0] -= 1
    if depth < 0 or budget[0] < 0:
        raise NotPlain("the value is nested too deeply or has too many parts")
    if tree is None or isinstance(tree, bool):
        return tree
    if isinstance(tree, str):
        return _writable(tree)
    if isinstance(tree, list):
        return [_from_tree(part, arrays, depth - 1, budget) for part in tree]
    if not isinstance(tree, dict) or len(tree) != 1:
        raise NotPlain("a part of the value has no known kind")
    ((kind, body),) = tree.items()
    match kind, body:
        case "int", str():
            return _int(body)
        case "float", str():
            return _float(body)
        case "complex", [str() as real, str() as imaginary]:
            return complex(_float(real), _float(imaginary))
        case (("array" | "tensor"), int()) if type(body) is int and 0 <= body < len(arrays):
            array, arrays[body] = arrays[body], None
            if array is None:  # a thousand times the same would fill the memory of who stacks them
                raise NotPlain("an array is referred to twice")
            return array if kind == "array" else _tensor(array)
        case "tuple", list():
            return tuple(_from_tree(part, arrays, depth - 1, budget) for part in body)
        case "dict", list():
            return dict(_entry(entry, arrays, depth, budget) for entry in body)
        case "seed", str():
            return Seed(_int(body))
        case "fixture", [str() as name, {"dict": list()} as settings]:
            return Fixture(_text(name), _from_tree(settings, arrays, depth - 1, budget))
        case "opaque", str():
            return Opaque(_text(body))
    raise NotPlain(f"a part of the value is of an unknown kind or form: {_short(kind)}")


def _entry(
    entry: Any, arrays: list[np.ndarray | None], depth: int, budget: list[int]
) -> tuple[str, Any]:
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[0], str):
        raise NotPlain("an entry of a dict is not a key with a value")
    return _text(entry[0]), _from_tree(entry[1], arrays, depth - 1, budget)


def _int(digits: str) -> int:
    try:
        number = int(digits) if len(digits) <= 20 else 2**64
    except ValueError:
        raise NotPlain("an int is not written in digits") from None
    if not -(2**63) <= number < 2**64:
        raise NotPlain("an int beyond 64 bits came")
    return number


def _float(digits: str) -> float:
    try:
        if len(digits) <= 40:
            return float.fromhex(digits)
    except (ValueError, OverflowError):
        pass
    raise NotPlain("a float is not written in hexadecimal digits, as float.hex writes it")


def _tensor(array: np.ndarray) -> torch.Tensor:
    try:
        return torch.from_numpy(array)
    except (RuntimeError, TypeError):
        raise NotPlain(f"an array of {array.dtype} makes no tensor here") from None


def _text(text: str) -> str:
    return _writable(text[:MAX_KEY])


def _writable(text: str) -> str:
    # half a surrogate pair is a str that no file can hold: a question mark stands for it
    return text.encode("utf-8", "replace").decode("utf-8")
