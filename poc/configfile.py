"""Reading a configuration: YAML in, `--set` and `--seed` on top, one line out when anything is wrong.

Every mistake is an InputError of one line that names the key and the value (for a name: the nearest valid one), before
any weights load. YAML is read without aliases, tags or keys given twice.
"""

from pathlib import Path

import yaml
from pydantic import ValidationError

from poc.config import PilotConfig, RunConfig, Section, nearest
from poc.records import InputError

MAX_FILE_BYTES = 1_000_000


def kind_of(path: str | None, overrides: list[str]) -> type[Section]:
    """RunConfig for a file or overrides with a key that only a run has, else PilotConfig (the default pilot)."""
    keys = {
        *(_read(_find(path)) if path else {}),
        *(override.partition("=")[0].split(".")[0] for override in overrides),
    }
    return RunConfig if keys & (RunConfig.model_fields.keys() - PilotConfig.model_fields.keys()) else PilotConfig


def load(kind: type[Section], path: str | None, overrides: list[str] = (), seed: int | None = None):
    """The checked configuration of `kind`: file, then `--set key.path=value`, then `--seed`. Raises InputError."""
    tree = _read(_find(path)) if path else {}
    for override in overrides:
        _override(tree, override)
    if seed is not None:
        _override(tree, f"seeds=[{seed}]" if kind is PilotConfig else f"train.seed={seed}")
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise InputError(_one_line(kind, error, path or "defaults")) from None


class _UniqueKeys(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (YAML would keep the last one silently) and aliases (their bombs)."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise InputError("aliases (*name) are not taken: write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise InputError(f"key {key!r} is given twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def _find(path: str) -> Path:
    """The file itself, or the one of that name that comes with the kit ("gpu-8gb")."""
    if Path(path).is_file():
        return Path(path)
    shipped = {p.stem: p for p in (Path(__file__).parent / "configs").glob("*.yaml")}
    if path in shipped:
        return shipped[path]
    files = [*map(str, Path(path).parent.glob("*.y*ml")), *shipped]
    raise InputError(f"config {path}: no such file{nearest(path, files)}")


def _read(path: Path) -> dict:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"config {path}: larger than {MAX_FILE_BYTES} bytes: that is not a configuration")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 (a SafeLoader)
    except InputError as error:
        raise InputError(f"config {path}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"config {path}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if tree is not None and not isinstance(tree, dict):
        raise InputError(f"config {path}: must hold keys and values, holds a {type(tree).__name__}")
    return tree or {}


def _override(tree: dict, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"--set {override}: must read key.path=value, for example train.steps=20")
    *parents, last = key.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise InputError(f"--set {override}: {name} is not a section")
    try:
        tree[last] = yaml.load(value, Loader=_UniqueKeys)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError):
        raise InputError(f"--set {override}: {value!r} cannot be read as a value") from None


def _one_line(kind: type[Section], error: ValidationError, where: str) -> str:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    key = ".".join(map(str, first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if kind is RunConfig and key in ("models", "arms", "seeds"):
        return f"config {where}: key {key!r} belongs to a pilot: run it with poc pilot"
    if first["type"] == "extra_forbidden" and ":" in key:
        return f"config {where}: unknown key {key!r}: a colon needs a space after it, {key.replace(':', ': ')!r}{more}"
    if first["type"] == "extra_forbidden":
        return (
            f"config {where}: unknown key {key!r}{nearest(str(first['loc'][-1]), _keys(kind, first['loc'][:-1]))}{more}"
        )
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":  # our own words name key and value already
        return f"config {where}: {key + '.' if key else ''}{message}{more}"
    return f"config {where}: {key} = {first['input']!r}: {message}{more}"


def _keys(kind: type[Section], location: tuple) -> list[str]:
    """The valid keys of the section at `location`; a place in a list or a name in a mapping leads to no other."""
    for part in location:
        if part in kind.model_fields:
            kind = _section(kind.model_fields[part].annotation) or kind
    return list(kind.model_fields)


def _section(annotation) -> type[Section] | None:
    """The Section in `Section`, `Section | None`, `list[Section]` or `dict[str, Section]`."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next(filter(None, map(_section, getattr(annotation, "__args__", ()))), None)
