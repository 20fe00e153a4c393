"""As much GraphQL as the W&B client needs of a server: parse a request, and answer just what it selects.

    request = parse(query)
    execute(request, variables, root, unknown)      root: {field: value, or a function of the field's arguments}

Objects are dicts with a `__typename`; a value that is a function is called with the arguments, so that objects may
refer to each other without end. Fields that an object does not have are answered with null and noted in `unknown`.
"""

import json
import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r'[\s,]+|\#[^\n]*|(?P<token>"""(?:.|\n)*?"""|"(?:\\.|[^"\\])*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?'
    r"|\w+|\.\.\.|[{}()\[\]:!$=@|&])"
)
KINDS_OF = {"ArtifactCollection": ("ArtifactSequence", "ArtifactPortfolio")}  # interface -> its types
ABSENT = object()


@dataclass
class Selection:
    """One field (`name` shown as `alias`), or with `on` a fragment: a type's name, or None for any."""

    alias: str = ""
    name: str = ""
    arguments: dict = field(default_factory=dict)
    include: list = field(default_factory=list)
    inside: list | None = None
    on: str | None = None
    spread: str = ""


@dataclass
class Request:
    """The operation of a document: `kind` is query or mutation; fragments by name are (type, selections)."""

    kind: str = "query"
    name: str = ""
    defaults: dict = field(default_factory=dict)
    selections: list = field(default_factory=list)
    fragments: dict = field(default_factory=dict)


def parse(text: str) -> Request:
    """The request of a GraphQL document; ValueError where it is none."""
    tokens = [match["token"] for match in TOKEN.finditer(text) if match["token"]]
    return _Parser(tokens[::-1]).document()


class _Parser:
    """Recursive descent over `tokens`, the next one last. Values are functions of the variables."""

    def __init__(self, tokens: list[str]):
        self.tokens = tokens

    def accept(self, token: str) -> bool:
        if self.tokens and self.tokens[-1] == token:
            self.tokens.pop()
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            raise ValueError(f"GraphQL: {token!r} expected before {self.tokens[:-5:-1]}")

    def document(self) -> Request:
        request = Request()
        while self.tokens:
            if self.accept("fragment"):
                name = self.tokens.pop()
                self.expect("on")
                request.fragments[name] = (self.tokens.pop(), self.selections())
                continue
            if self.tokens[-1] != "{":
                request.kind = self.tokens.pop()
                request.name = self.tokens.pop() if self.tokens[-1] not in "({" else ""
            if self.accept("("):
                while not self.accept(")"):
                    self.variable(request)
            request.selections = self.selections()
        return request

    def variable(self, request: Request) -> None:
        self.expect("$")
        name = self.tokens.pop()
        self.expect(":")
        while self.tokens[-1] not in ("$", ")", "="):  # its type
            self.tokens.pop()
        if self.accept("="):
            request.defaults[name] = self.value()({})

    def selections(self) -> list[Selection]:
        self.expect("{")
        found = []
        while not self.accept("}"):
            found.append(self.fragment() if self.accept("...") else self.field())
        return found

    def fragment(self) -> Selection:
        if self.accept("on"):
            return Selection(on=self.tokens.pop(), include=self.directives(), inside=self.selections())
        if self.tokens[-1] in "{@":
            return Selection(include=self.directives(), inside=self.selections())
        return Selection(spread=self.tokens.pop(), include=self.directives())

    def field(self) -> Selection:
        alias = self.tokens.pop()
        name = self.tokens.pop() if self.accept(":") else alias
        arguments, include = self.arguments(), self.directives()
        return Selection(alias, name, arguments, include, self.selections() if self.tokens[-1] == "{" else None)

    def arguments(self) -> dict:
        found = {}
        if self.accept("("):
            while not self.accept(")"):
                name = self.tokens.pop()
                self.expect(":")
                found[name] = self.value()
        return found

    def directives(self) -> list:
        found = []
        while self.accept("@"):
            found.append((self.tokens.pop(), self.arguments()["if"]))
        return found

    def value(self):
        token = self.tokens.pop()
        if token == "$":
            name = self.tokens.pop()
            return lambda variables: variables.get(name)
        if token == "[":
            items = []
            while not self.accept("]"):
                items.append(self.value())
            return lambda variables: [item(variables) for item in items]
        if token == "{":
            members = {}
            while not self.accept("}"):
                name = self.tokens.pop()
                self.expect(":")
                members[name] = self.value()
            return lambda variables: {name: member(variables) for name, member in members.items()}
        if token[0] in '"-0123456789' or token in ("true", "false", "null"):
            constant = token[3:-3] if token.startswith('"""') else json.loads(token)
        else:
            constant = token  # of an enumeration
        return lambda variables: constant


def execute(request: Request, variables: dict | None, root: dict, unknown: set[str]) -> dict:
    """What the request selects of `root`; fields that are not there are added to `unknown` as `Type.field`."""
    given = request.defaults | (variables or {})

    def included(selection: Selection) -> bool:
        return all(bool(condition(given)) == (name == "include") for name, condition in selection.include)

    def project(value, selections):
        if value is None or selections is None:
            return value
        if isinstance(value, list):
            return [project(item, selections) for item in value]
        out, kind = {}, value.get("__typename")
        for selection in filter(included, selections):
            if not selection.name:
                on, inside = request.fragments.get(selection.spread, (selection.on, selection.inside))
                if on in (None, kind) or kind in KINDS_OF.get(on, ()) or kind is None:
                    merge(out, project(value, inside))
                continue
            found = value.get(selection.name, ABSENT)
            if found is ABSENT:
                unknown.add(f"{kind}.{selection.name}")
                found = None
            if callable(found):
                found = found(**{name: each(given) for name, each in selection.arguments.items()})
            merge(out, {selection.alias: project(found, selection.inside)})
        return out

    def merge(out: dict, more: dict) -> None:
        for key, value in more.items():
            if isinstance(value, dict) and isinstance(out.get(key), dict):
                merge(out[key], value)
            else:
                out[key] = value

    return project(root, request.selections)
