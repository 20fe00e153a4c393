"""Is one revision whole? What the names and sizes of its files, their headers and its index say of each other."""

import re
from math import prod

from amuro.registry.snapshots import INDEX, Snapshot, weight_files

# Constants that some versions of transformers wrote beside the weights, and others did not.
BUFFER = re.compile(r".*\.(inv_freq|masked_bias|attn\.bias|attention\.bias)")
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
BITS |= {"I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64}
FLOATS = ("F64", "F32", "F16", "BF16")  # what weights are: a library casts anything else without a word


def faults(one: Snapshot) -> list[tuple[str, str, str]]:
    """(kind, severity, what) of everything wrong with a revision by itself."""
    weights = weight_files(one.files)
    if not weights:
        if pickled := weight_files(one.files, "bin"):
            what = f"only pickled weights ({pickled[0]}); they can run code, and are not loaded"
            return [("pickled", "error", what)]
        return [("empty", "error", "no weights")]
    found = [("truncated", "error", f"{name}: {what}") for name in weights if (what := _damage(one, name))]
    found += [(kind, "error", what) for kind, what in index_faults(one)]
    if not found and INDEX in one.files and "model.safetensors" not in weights and (what := _wrong_total(one)):
        found.append(("index", "warning", what))
    if "adapter_config.json" in one.files:
        what = "adapter_config.json: an adapter would be added to the weights; merge it into them, or remove it"
        found.append(("adapter", "error", what))
    if "config.json" not in one.files:
        found.append(("config", "error", "no config.json"))
    elif one.texts["config.json"] is None:
        found.append(("config", "error", "config.json is not JSON"))
    return found


def whole(one: Snapshot) -> bool:
    """Whether a revision has no error by itself, so that its weights can be loaded."""
    return not any(severity == "error" for _, severity, _ in faults(one))


def index_faults(one: Snapshot) -> list[tuple[str, str]]:
    """(kind, what) of shards that are not there, and of an index that disagrees with them."""
    shards = weight_files(one.files)
    if "model.safetensors" in shards:
        return []
    if INDEX not in one.files:
        of = int(shards[0].rpartition("-of-")[2].split(".")[0])
        few = [("missing", f"{len(shards)} of {of} shards are there")] if len(shards) != of else []
        return [*few, ("index", f"no {INDEX}")]
    named = (one.texts[INDEX] or {}).get("weight_map")
    if not isinstance(named, dict) or not named or not all(isinstance(each, str) for each in named.values()):
        return [("index", f"{INDEX} has no weight_map")]
    found = []
    if missing := sorted(set(named.values()) - set(one.files)):
        found.append(("missing", f"shards that the index names are not there: {some(missing)}"))
    if spare := sorted(set(shards) - set(named.values())):
        found.append(("index", f"shards that the index does not name: {some(spare)}"))
    readable = [name for name in shards if not one.headers[name].problem]
    there = {(tensor, name) for name in readable for tensor in one.headers[name].tensors}
    meant = {(tensor, name) for tensor, name in named.items() if name in readable}
    if wrong := sorted(tensor for tensor, _ in meant - there):
        found.append(("index", f"not in the shard that the index names: {some(wrong)}"))
    if lost := sorted({tensor for tensor, _ in there} - set(named)):
        found.append(("index", f"in a shard, but not in the index: {some(lost)}"))
    return found


def _damage(one: Snapshot, name: str) -> str:
    """What is wrong with a safetensors file by its size and header; empty where nothing is."""
    header, size = one.headers[name], one.files[name].size
    if header.problem:
        return header.problem
    for tensor, (dtype, shape, (first, end)) in header.tensors.items():
        if dtype not in FLOATS and not BUFFER.fullmatch(tensor):
            return f"{tensor} is {dtype}; weights are {', '.join(FLOATS)}"
        if dtype in BITS and end - first != prod(shape) * BITS[dtype] // 8:
            return f"its header gives {tensor} {end - first} bytes, for {dtype} {list(shape)}"
    spans = sorted(place for _, _, place in header.tensors.values())
    if any(first != end for (_, end), (first, _) in zip([(0, 0), *spans], spans, strict=False)):
        return "its header's tensors overlap or leave gaps"
    need = header.start + (spans[-1][1] if spans else 0)
    return "" if need == size else f"it has {size} bytes, by its header {need}"


def _wrong_total(one: Snapshot) -> str:
    """What is wrong with the index's total_size in bytes, where it has one."""
    metadata = one.texts[INDEX].get("metadata")
    told = metadata.get("total_size") if isinstance(metadata, dict) else None
    total = sum(end - first for header in one.headers.values() for _, _, (first, end) in header.tensors.values())
    return "" if told in (None, total) else f"the index's total_size is {told}, the tensors have {total} bytes"


def some(names: list[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
