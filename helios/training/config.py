"""Configurations as frozen dataclasses: to JSON and back, and single values set from the command line.

A configuration is a tree of frozen dataclasses. Where a field allows several types (``Constant | Cosine``), the plain
form names the one meant under ``"type"``; on the command line its name alone takes its defaults.
"""

import copy
import json
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from helios.errors import InputError

Config = TypeVar("Config")
_UNIONS = (Union, types.UnionType)
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def to_plain(value: Any) -> Any:
    """A configuration as dictionaries, lists and scalars, ready for JSON; dataclasses carry their name as ``type``."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: to_plain(getattr(value, field.name)) for field in fields(value) if field.init}
        return {"type": type(value).__name__, **named}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def from_plain(kind: Any, plain: Any, *, at: str = "config") -> Any:
    """The inverse of :func:`to_plain` for a value of type ``kind``.

    Args:
        kind: the annotation that the value must satisfy: a dataclass, a union, a tuple, a scalar.
        at: where in the tree, for messages.
    Raises: InputError for unknown keys (with the nearest right one), missing ones, and values of a wrong type.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return plain
    if origin in _UNIONS:
        return _from_union(arguments, plain, at)
    if origin is Literal:
        return _one_of(arguments, plain, at)
    if origin is tuple:
        return _from_tuple(arguments, plain, at)
    if is_dataclass(kind):
        return _from_mapping(kind, plain, at)
    return _scalar(kind, plain, at)


def save_config(config: Any, path: Path) -> None:
    """Write the resolved configuration as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_plain(config), indent=2) + "\n", encoding="utf-8")


def apply_overrides(config: Config, settings: Iterable[str]) -> Config:
    """A configuration with single values replaced; whether they go together is checked once, when all are in place.

    Args:
        settings: ``dotted.key=value`` each, such as ``optim.lr=3e-5``; a tuple's value is a comma-separated list, and
            the name of a dataclass chooses a variant with its defaults.
    Raises: InputError for a key that does not exist (naming the nearest), for a value that does not parse, and for
        values that contradict each other.
    """
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting!r} has no '=': write it as key=value, for example optim.lr=3e-5")
        config = _replaced(config, key.strip().split("."), value.strip(), key.strip())
    return _checked(config)


def keys_of(config: Any, prefix: str = "") -> list[str]:
    """Every dotted key that can be set in a configuration."""
    found: list[str] = []
    for field in fields(config):
        value, name = getattr(config, field.name), prefix + field.name
        found += keys_of(value, name + ".") if is_dataclass(value) else []
        found.append(name)
    return found


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted keys at which two plain configurations differ, with both values."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(set(before) | set(after)):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found |= differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found[prefix + key] = (old, new)
    return found


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _replaced(config: Any, path: list[str], text: str, key: str) -> Any:
    name, rest = path[0], path[1:]
    if not is_dataclass(config) or name not in {field.name for field in fields(config)}:
        raise InputError(f"{key!r} is not a setting{_nearest(name, config)}")
    inner = _replaced(getattr(config, name), rest, text, key) if rest else _parse(_hints(type(config))[name], text, key)
    changed = copy.copy(config)
    object.__setattr__(changed, name, inner)  # not ``replace``, whose checks would see half of the settings
    return changed


def _checked(value: Any) -> Any:
    """The same configuration made anew from its leaves up, so that every ``__post_init__`` refuses contradictions."""
    if is_dataclass(value):
        return replace(value, **{f.name: _checked(getattr(value, f.name)) for f in fields(value) if f.init})
    return tuple(map(_checked, value)) if isinstance(value, tuple) else value


def _nearest(name: str, config: Any) -> str:
    if not is_dataclass(config):
        return ": it goes deeper than the configuration does"
    known = keys_of(config)
    leaves = {key.rsplit(".", 1)[-1]: key for key in reversed(known)}
    close = get_close_matches(name, [*known, *leaves], n=1, cutoff=0.5)
    names = ", ".join(field.name for field in fields(config))
    return f": did you mean {leaves.get(close[0], close[0])!r}?" if close else f": there are {names}"


def _parse(kind: Any, text: str, key: str) -> Any:
    """A value from the command line's text."""
    origin, arguments = get_origin(kind), get_args(kind)
    if text.startswith(("{", "[")):
        return from_plain(kind, _json(text, key), at=key)
    if origin in _UNIONS:
        return _parse_union(arguments, text, key)
    if origin is tuple:
        items = [part.strip() for part in text.split(",") if part.strip()]
        kinds = [arguments[0]] * len(items) if len(arguments) == 2 and arguments[1] is Ellipsis else arguments
        if len(kinds) != len(items):
            raise InputError(f"{key}={text} has {len(items)} entries: it takes {len(kinds)}")
        return tuple(_parse(item, part, key) for item, part in zip(kinds, items))
    if is_dataclass(kind):
        return _variant((kind,), text, key)
    if kind is bool:
        return _word(text, key)
    return _scalar(kind, text, key) if origin is not Literal else _one_of(arguments, text, key)


def _parse_union(kinds: tuple[Any, ...], text: str, key: str) -> Any:
    if type(None) in kinds and text.lower() in ("none", "null"):
        return None
    classes = tuple(kind for kind in kinds if is_dataclass(kind))
    if text in {kind.__name__ for kind in classes}:
        return _variant(classes, text, key)
    for kind in kinds:
        if kind is not type(None) and not is_dataclass(kind):
            try:
                return _parse(kind, text, key)
            except InputError:
                continue
    return _variant(classes, text, key)


def _variant(kinds: tuple[Any, ...], text: str, key: str) -> Any:
    names = {kind.__name__: kind for kind in kinds}
    if text not in names:
        close = get_close_matches(text, names, n=1, cutoff=0.4)
        raise InputError(f"{key}={text} is not a variant: use {close[0] if close else ' or '.join(names)}")
    try:
        return names[text]()
    except TypeError as error:
        raise InputError(f"{key}={text} needs its own settings: pass them as JSON ({error})") from error


def _json(text: str, key: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{key}={text} is not valid JSON: {error}") from error


def _word(text: str, key: str) -> bool:
    if text.lower() not in _WORDS:
        raise InputError(f"{key}={text} is not a yes or no: write true or false")
    return _WORDS[text.lower()]


_SCALARS = {int: "whole number", float: "number", bool: "yes or no", str: "text", Path: "path"}


def _scalar(kind: Any, value: Any, at: str) -> Any:
    if kind is bool:
        fits = isinstance(value, bool)
    else:
        fits = not isinstance(value, bool) and value is not None
    try:
        made = kind(value) if fits else None
    except (TypeError, ValueError):
        made, fits = None, False
    if not fits or (kind is int and isinstance(value, float) and made != value):
        wanted = _SCALARS.get(kind, getattr(kind, "__name__", kind))
        raise InputError(f"{at}={value!r} is no {wanted}: correct the value")
    return made


def _one_of(choices: tuple[Any, ...], value: Any, at: str) -> Any:
    for choice in choices:
        if value == choice or str(value) == str(choice):
            return choice
    raise InputError(f"{at}={value!r} is not a choice: use {' or '.join(map(str, choices))}")


def _from_union(kinds: tuple[Any, ...], plain: Any, at: str) -> Any:
    if plain is None and type(None) in kinds:
        return None
    if isinstance(plain, Mapping):
        names = {kind.__name__: kind for kind in kinds if is_dataclass(kind)}
        chosen = names.get(plain.get("type", ""))
        if chosen is None and len(names) == 1 and "type" not in plain:
            chosen = next(iter(names.values()))
        if chosen is None:
            raise InputError(f"{at}.type={plain.get('type')!r} is not a variant: use {' or '.join(names)}")
        return _from_mapping(chosen, plain, at)
    for kind in kinds:
        if kind is not type(None) and not is_dataclass(kind):
            try:
                return from_plain(kind, plain, at=at)
            except InputError:
                continue
    raise InputError(f"{at}={plain!r} fits none of the types it may have: correct the value")


def _from_tuple(kinds: tuple[Any, ...], plain: Any, at: str) -> tuple[Any, ...]:
    if not isinstance(plain, list | tuple):
        raise InputError(f"{at}={plain!r} is not a list: write it as [ ... ]")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(from_plain(kinds[0], item, at=f"{at}[{i}]") for i, item in enumerate(plain))
    if len(kinds) != len(plain):
        raise InputError(f"{at} has {len(plain)} entries: it takes {len(kinds)}")
    return tuple(from_plain(kind, item, at=f"{at}[{i}]") for i, (kind, item) in enumerate(zip(kinds, plain)))


def _from_mapping(kind: Any, plain: Any, at: str) -> Any:
    if not isinstance(plain, Mapping):
        raise InputError(f"{at}={plain!r} is not a group of settings: write it as {{ ... }}")
    given = {key: value for key, value in plain.items() if key != "type"}
    known = [field.name for field in fields(kind) if field.init]
    for key in given:
        if key not in known:
            close = get_close_matches(key, known, n=1, cutoff=0.5)
            raise InputError(f"{at}.{key} is not a setting: {f'did you mean {close[0]!r}?' if close else known}")
    values = {key: from_plain(_hints(kind)[key], value, at=f"{at}.{key}") for key, value in given.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise InputError(f"{at} is not complete: {error}") from error
