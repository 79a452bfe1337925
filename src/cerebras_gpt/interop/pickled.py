"""The pickle of a state dict read as data: nothing in it is imported, called or built.

`pickletools` names the operations; a small machine follows those that `torch.save` emits for a state dict. The few
globals that it names are recognised by name, and stand for records of where tensors lie. All else is refused.
"""

import pickletools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cerebras_gpt.interop.folder import shown

REMEDY = "save the model with save_pretrained(safe_serialization=True) and import that"
STORAGES = {
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.DoubleStorage": "float64",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
"""torch's name of the type of a storage's elements."""


class Storage(NamedTuple):
    """A run of elements in a file of the archive."""

    dtype: str
    key: str
    n_elements: int


class Record(NamedTuple):
    """A tensor as a view of a storage; offset and stride count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Global(NamedTuple):
    name: str


class _Mark:
    pass


MARK = _Mark()


def _damaged() -> ValueError:
    return ValueError(f"its pickle is damaged; {REMEDY}")


def _refused(what: str) -> ValueError:
    return ValueError(f"its pickle {what}, which no state dict needs; nothing was executed; {REMEDY}")


def _counts(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple) or not all(type(n) is int and n >= 0 for n in value):
        raise _damaged()
    return value


def _mapping(arguments: tuple[object, ...]) -> dict[object, object]:
    if arguments:
        raise _refused("makes an OrderedDict of something")
    return {}


def _tensor(arguments: tuple[object, ...]) -> Record:
    """_rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, backward_hooks)."""
    if len(arguments) != 6 or not isinstance(arguments[0], Storage):
        raise _refused("makes a tensor of something that is no storage")
    ((offset,), shape, stride) = (_counts((arguments[1],)), _counts(arguments[2]), _counts(arguments[3]))
    if len(shape) != len(stride):
        raise _damaged()
    return Record(arguments[0], offset, shape, stride)


def _parameter(arguments: tuple[object, ...]) -> Record:
    """_rebuild_parameter(tensor, requires_grad, backward_hooks)."""
    if len(arguments) != 3 or not isinstance(arguments[0], Record):
        raise _refused("makes a parameter of something that is no tensor")
    return arguments[0]


CALLS: dict[str, Callable[[tuple[object, ...]], object]] = {
    "collections.OrderedDict": _mapping,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
LITERALS = ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE")
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """A stack and a memo; each method is one operation of the pickle format, protocol 2."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.memo: dict[object, object] = {}

    def top(self) -> object:
        if not self.stack or self.stack[-1] is MARK:
            raise _damaged()
        return self.stack[-1]

    def pop(self) -> object:
        self.top()
        return self.stack.pop()

    def pop_to_mark(self) -> list[object]:
        values = []
        while self.stack and self.stack[-1] is not MARK:
            values.append(self.stack.pop())
        if not self.stack:
            raise _damaged()
        self.stack.pop()
        return values[::-1]

    def protocol(self, version: object) -> None:
        if version != 2:
            raise _refused(f"is of protocol {version}")

    def put(self, index: object) -> None:
        self.memo[index] = self.top()

    def get(self, index: object) -> None:
        if index not in self.memo:
            raise _damaged()
        self.stack.append(self.memo[index])

    def name(self, words: object) -> None:
        found = str(words).replace(" ", ".", 1)
        if found not in STORAGES and found not in CALLS:
            raise _refused(f"names {shown(found)}")
        self.stack.append(_Global(found))

    def persistent(self) -> None:
        """('storage', type, key, device, number of elements)."""
        pid = self.pop()
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise _refused("refers to something that is no storage")
        kind, key, n_elements = pid[1], pid[2], pid[4]
        if not isinstance(kind, _Global) or kind.name not in STORAGES or not isinstance(key, str):
            raise _refused("refers to something that is no storage")
        self.stack.append(Storage(STORAGES[kind.name], key, *_counts((n_elements,))))

    def call(self) -> None:
        arguments, called = self.pop(), self.pop()
        if not isinstance(called, _Global) or called.name not in CALLS or not isinstance(arguments, tuple):
            raise _refused("calls something that cannot be called")
        self.stack.append(CALLS[called.name](arguments))

    def build(self) -> None:
        """Only the version numbers that a module's state dict carries, which say nothing of its tensors."""
        state, target = self.pop(), self.top()
        if type(target) is not dict or type(state) is not dict or set(state) != {"_metadata"}:
            raise _refused("sets the state of something")

    def set_items(self, items: list[object]) -> None:
        target = self.top()
        if type(target) is not dict or len(items) % 2:
            raise _damaged()
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise _refused("has a key that is no text")
            if key in target:
                raise ValueError(f"its pickle says {shown(key)} twice; {REMEDY}")
            target[key] = value

    def follow(self, operation: str, argument: object) -> None:
        """One operation; those that are not among them are refused by name."""
        if operation in CONSTANTS:
            self.stack.append(CONSTANTS[operation])
        elif operation in LITERALS:
            self.stack.append(argument)
        elif operation in TUPLES:
            self.stack.append(tuple([self.pop() for _ in range(TUPLES[operation])][::-1]))
        elif operation in WITH_ARGUMENT:
            WITH_ARGUMENT[operation](self, argument)
        elif operation in ALONE:
            ALONE[operation](self)
        else:
            raise _refused(f"has the operation {operation}")


WITH_ARGUMENT: dict[str, Callable[[_Machine, object], None]] = {
    "PROTO": _Machine.protocol,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
}
ALONE: dict[str, Callable[[_Machine], None]] = {
    "MARK": lambda machine: machine.stack.append(MARK),
    "EMPTY_DICT": lambda machine: machine.stack.append({}),
    "TUPLE": lambda machine: machine.stack.append(tuple(machine.pop_to_mark())),
    "SETITEM": lambda machine: machine.set_items([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine: machine.set_items(machine.pop_to_mark()),
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}


def read_records(pickle: bytes) -> dict[str, Record]:
    """The tensors of a pickled state dict by name; raises ValueError naming what else the pickle holds."""
    machine = _Machine()
    for operation, argument in _operations(pickle):
        if operation == "STOP":
            break
        machine.follow(operation, argument)
    found = machine.pop()
    if machine.stack or type(found) is not dict:
        raise _refused("holds no state dict")
    records: dict[str, Record] = {}
    for name, value in found.items():
        if not isinstance(value, Record):
            raise _refused(f"holds {shown(name)}, which is no tensor")
        records[name] = value
    return records


def _operations(pickle: bytes) -> Iterable[tuple[str, object]]:
    """Name and argument of each operation, decoded but not followed."""
    operations = pickletools.genops(pickle)
    while True:
        try:
            operation, argument, _ = next(operations)
        except StopIteration:
            return
        except (ValueError, OverflowError, MemoryError):  # cut short, or an operation that does not exist
            raise _damaged() from None
        yield operation.name, argument
