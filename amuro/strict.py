"""JSON and YAML that others write, read strictly: what a lenient reader passes over without a word is a ValueError.

    read_json(path), read_yaml(path)      the content of a file, which the error names
    parse_json(text)                      one value of JSON

Refused are a key that is there twice (of which readers take the last), NaN and infinities, numbers of thousands of
digits, texts that are no Unicode, and nesting that is too deep.
"""

import json
import re
from pathlib import Path

import yaml


def parse_json(text: str, constants: bool = False):
    """The value that a text of JSON is; with `constants` NaN and infinities are taken too. ValueError says what is
    wrong."""
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=None if constants else _refuse)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " * (error.lineno > 1)
        raise ValueError(f"not JSON ({error.msg} at {line}column {error.colno})") from None
    except RecursionError:
        raise ValueError("not JSON that can be read (it is nested too deeply)") from None
    except ValueError as error:
        raise ValueError(f"not JSON that can be read ({str(error).split(';')[0]})") from None
    if ("\\ud" in text or "\\uD" in text) and not is_text(json.dumps(value, ensure_ascii=False)):
        raise ValueError("not JSON that can be read (a text holds half of a surrogate pair, which is no Unicode)")
    return value


def is_text(text: str) -> bool:
    """Whether a text can be written down: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_json(path: Path, constants: bool = False):
    """The content of a JSON file. ValueError names the file and what is wrong in it."""
    try:
        return parse_json(path.read_text(encoding="utf-8"), constants)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not JSON (not UTF-8 at byte {error.start})") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _once(pairs: list[tuple[str, object]]) -> dict:
    """The object of these keys and values."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is there more than once")
    return made


def _refuse(name: str):
    raise ValueError(f"{name} is no number")


class _Loader(yaml.SafeLoader):
    """YAML without keys that are there twice, and without numbers that are not what they look like (010, 1:30)."""

    def once(self, node) -> dict:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [name for name in names if names.count(name) > 1 and name != "<<"]:
            raise yaml.MarkedYAMLError(f"{twice[0]} is there more than once", node.start_mark)
        return self.construct_mapping(node, deep=True)

    def as_written(self, node) -> int:
        if not re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", node.value):
            said = f"YAML 1.1 reads {node.value} as {self.construct_yaml_int(node)}; write that"
            raise yaml.MarkedYAMLError(said, node.start_mark)
        return self.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.once)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.as_written)


def read_yaml(path: Path):
    """The content of a YAML file, of plain types only. ValueError names the file and what is wrong in it."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  a safe one
    except (yaml.YAMLError, ValueError, KeyError, AttributeError) as error:  # a date or truth that is none
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    except RecursionError:
        raise ValueError(f"{path}: not YAML that can be read (it is nested too deeply)") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
