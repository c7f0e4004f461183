"""PyTorch files as policies: TorchScript (`torch.jit.save`) and exported programs
(`torch.export.save`). The file is a program: it is opened where somebody names it, or trusts the
run that does."""

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporl.external.base import OutsidePolicy
from exporl.external.named_files import present
from exporl.external.named_inputs import NOISE, named_inputs
from exporl.external.pytorch import (
    Program,
    TorchPolicy,
    import_torch,
    open_module,
    seeded,
    torch_policy,
)
from exporl.external.torch_archives import kind_of
from exporl.outside import load_outside
from exporl.spec import Spec

FILE = re.compile(r"(?P<file>.+\.(?:pt|pth|ts|pt2))(?::(?P<adapter>[^:]+:[^:]+))?")
"""`FILE`, or `FILE:module:function` with an adapter."""
TIMES = 3
"""How often a model is asked the same when it is opened."""


def open_torch(name: str, spec: Spec, learning_rate: float) -> OutsidePolicy:
    """The policy of `torch:module:function`, `torch:FILE` or `torch:FILE:module:function`; the
    last one's function is given the file's module and the task's spec, and returns a module with
    `sample`.

    Raises:
        ValueError: the file or the function cannot be loaded, or is no policy; says what it is.
        FileNotFoundError: there is no file.
        ModuleNotFoundError: torch is not installed; says how to install it.
    """
    file, adapter = parts_of(name)
    if not file:
        return open_module(name, spec, learning_rate)
    module, program = _opened(present(Path(file)))
    if not adapter:
        return file_policy(module, file, spec)
    adapt: Any = load_outside(adapter, "adapter")
    try:
        adapted = adapt(module, spec)
    except (Exception, SystemExit) as error:  # the user's function may raise anything
        raise ValueError(
            f"{adapter}(module, spec) raised {type(error).__name__}: {error}. It is given "
            "the file's module and the task's shapes, and returns a torch.nn.Module with sample."
        ) from error
    policy = torch_policy(adapted, f"base policy 'torch:{name}'", learning_rate)
    policy.program = program
    return policy


def parts_of(name: str) -> tuple[str, str]:
    """The file and the adapter of what follows `torch:`; empty where it names none."""
    named = FILE.fullmatch(name)
    return ("", "") if named is None else (named["file"], named["adapter"] or "")


def _opened(path: Path) -> tuple[Any, Program]:
    """The module in a file, ready to be called: TorchScript on the CPU, a program where it was
    exported; and how its weights are saved again."""
    torch, kind = import_torch(), kind_of(path)
    try:
        if kind == "script":
            script = torch.jit.load(str(path), map_location="cpu").eval()
            return script, Program(".pt", lambda: _saved(torch.jit.save, script))
        program = torch.export.load(str(path))
        module = program.module()
        for name in ("train", "eval"):  # it has one state, and torch's own methods refuse
            setattr(module, name, lambda mode=True: module)
        module.input_shapes = {
            node.name: tuple(node.meta["val"].shape)
            for node in program.graph.nodes
            if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
        }
        return module, Program(".pt2", lambda: _saved(torch.export.save, program))
    except Exception as error:  # torch raises many kinds
        said = " ".join(f"{error}".split())[:300]
        raise ValueError(f"torch cannot open {path}: {type(error).__name__}: {said}") from error


def _saved(save: Callable[[Any, io.BytesIO], None], what: Any) -> bytes:
    """What torch writes of a script, or of a program, whose weights are those of its module."""
    content = io.BytesIO()
    save(what, content)
    return content.getvalue()


def file_policy(module: Any, path: str, spec: Spec) -> OutsidePolicy:
    """The policy of a file without an adapter: TorchScript with a method `sample`, or a model whose
    inputs have the names of the task's entries.

    Raises:
        ValueError: it does not fit, or remembers; says what.
    """
    if hasattr(module, "sample"):
        return TorchPolicy(module)
    policy = FilePolicy(module, path, spec)
    policy.try_out()
    return policy


class FilePolicy(TorchPolicy):
    """A model (observations, noise) -> actions; every sample is a row of its batch."""

    def __init__(self, module: Any, path: str, spec: Spec):
        """A policy around a loaded module.

        Args:
            module: TorchScript, or an exported program's module.
            path: of the file, for messages.
            spec: what the task shows, and the chunks of the run.

        Raises:
            ValueError: its inputs do not fit; names them.
        """
        super().__init__(module)
        shapes: dict[str, tuple[Any, ...]] = getattr(
            module, "input_shapes", None
        ) or _script_inputs(module)
        self._path, self._inputs = path, tuple(shapes)
        self._reads = named_inputs(path, self._inputs, spec)
        self._chunk = (spec.chunk_length, spec.action_dim)
        _check_shapes(path, shapes, self._reads, spec)
        self._noise = shapes.get(NOISE, ())[1:] or self._chunk
        names = {entry for entries in self._reads.values() for entry in entries}
        kept = tuple(entry for entry in spec.observation if entry[0] in names)
        self.spec = Spec(kept, spec.action_dim, spec.chunk_length)

    def sample(self, observations: dict[str, np.ndarray], num: int, seed: int) -> np.ndarray:
        """All samples of all observations in one call of the model."""
        torch, given = import_torch(), {}
        with torch.no_grad(), seeded(seed):
            for name, entries in self._reads.items():
                parts = [self._tensor(observations[entry]) for entry in entries]
                seen = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
                given[name] = seen.repeat_interleave(num, dim=0)
            rows = len(next(iter(given.values())))
            if NOISE in self._inputs:
                given[NOISE] = torch.randn(rows, *self._noise).to(next(iter(given.values())).device)
            made = self.module(*(given[name] for name in self._inputs))
        made = made[0] if isinstance(made, tuple | list) else made
        return made.to("cpu", torch.float32).numpy().reshape(rows // num, num, *self._chunk)

    def try_out(self) -> None:
        """Asks it the same several times, one row at a time.

        Raises:
            ValueError: it raises something, or it remembers; names what does.
        """
        rng = np.random.default_rng(0)
        assert self.spec is not None
        seen = {n: rng.uniform(-1, 1, (1, *s)).astype(d) for n, s, d in self.spec.observation}
        before = {name: value.copy() for name, value in self.state().items()}
        try:
            answers = [self.sample(seen, 1, 0) for _ in range(TIMES)]
        except Exception as error:  # the model may raise anything
            said = " ".join(f"{error}".split())[:300]
            raise ValueError(
                f"{self._path} cannot be sampled for one observation: {type(error).__name__}: "
                f"{said} It is called with {', '.join(self._inputs)}, and answers "
                f"[b, {self._chunk[0]} x {self._chunk[1]}] actions."
            ) from error
        changed = sorted(n.removeprefix("module/") for n, v in self.state().items()
                   if not np.array_equal(v, before[n], equal_nan=True))  # fmt: skip
        if not changed and all(np.array_equal(answers[0], answer) for answer in answers):
            return
        what = f"being asked changes {', '.join(changed)}" if changed else (
            "asked the same with the same seed it answers differently"
        )  # fmt: skip
        layers = f"; it has {self.memory}" if self.memory else ""
        raise ValueError(
            f"{self._path} is a policy with a memory: {what}{layers}. One hidden state cannot be "
            "sampled several times, and would be that of no episode. Export it with its state as "
            "an input, and let the environment show that state or the history that makes it up."
        )


def _script_inputs(module: Any) -> dict[str, tuple[Any, ...]]:
    """Names of a TorchScript module's inputs; their shapes are not known."""
    return {each.name: () for each in module.forward.schema.arguments[1:]}


def _check_shapes(
    path: str,
    shapes: Mapping[str, tuple[Any, ...]],
    reads: Mapping[str, tuple[str, ...]],
    spec: Spec,
) -> None:
    """Whether the inputs that are known to have a shape fit the task.

    Raises:
        ValueError: one does not; names it.
    """
    shown = {name: shape for name, shape, _ in spec.observation}
    for name, entries in reads.items():
        shape = shapes[name]
        if not shape:
            continue
        if isinstance(shape[0], int):
            raise ValueError(
                f"{path} reads {shape[0]} rows at a time: export it with a batch axis of any "
                "length (dynamic_shapes)."
            )
        wanted = shown[entries[0]] if len(entries) == 1 else (sum(shown[e][0] for e in entries),)
        if shape[1:] != wanted:
            raise ValueError(
                f"{path} reads {name!r} in the shape {['b', *shape[1:]]}; the task shows "
                f"{['b', *wanted]} ({', '.join(entries)})."
            )
