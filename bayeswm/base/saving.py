"""Saved models: safetensors with a JSON header, written atomically, read without running anything."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from bayeswm.base.errors import CheckpointError, SpecError
from bayeswm.base.structure import Structure
from bayeswm.base.version import __version__

if TYPE_CHECKING:
    from bayeswm.base.model import DynamicsModel

FORMAT = 1
# the library's model classes in packages that are imported on first use: class name and module
LATER: dict[str, str] = {}


def save(model: DynamicsModel, path: str | PathLike[str]) -> None:
    """Write a model to a file.

    The file is a safetensors archive whose metadata hold a JSON header: format version, class names, configuration,
    library versions and a checksum. It appears under its name only when it is whole.

    Parameters
    ----------
    model : DynamicsModel
        A fitted model.
    path : path
        Where to.

    Raises
    ------
    SpecError
        If the model, its structure or a model inside it cannot be described by plain values.
    CheckpointError
        If the file cannot be written; an earlier one of that name stays whole.
    """
    described, tensors = _describe_model(model)
    header: dict[str, Any] = {
        "format": FORMAT,
        **described,
        "versions": {"bayeswm": __version__, "torch": torch.__version__},
    }
    # copies, since the format refuses tensors that share memory
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    header["checksum"] = checksum(header, tensors)
    write_whole(path, header, tensors)


def write_whole(path: str | PathLike[str], header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors and a JSON header to a file that appears under its name only when it is whole.

    Raises
    ------
    CheckpointError
        If the file cannot be written; an earlier one of that name stays whole.
    """
    target = Path(path)
    temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}.tmp"
    try:
        content = to_bytes(dict(tensors), metadata={"bayeswm": json.dumps(header)})
        with temporary.open("xb") as written:
            written.write(content)
            written.flush()
            os.fsync(written.fileno())
        temporary.replace(target)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: could not be written ({error}); what was there before is unchanged") from error
    finally:
        temporary.unlink(missing_ok=True)


def load(
    path: str | PathLike[str],
    *,
    structures: Sequence[type[Structure] | Structure] = (),
    models: Sequence[type[DynamicsModel]] = (),
) -> DynamicsModel:
    """Read a model from a file.

    Nothing in the file is run or imported: class names are looked up among the library's own and those passed in.

    Parameters
    ----------
    path : path
        What :meth:`DynamicsModel.save` wrote.
    structures : sequence of Structure classes or instances
        The user's own structures, those inside a ``Residual`` too: classes are built from the saved configuration,
        instances are taken as they are.
    models : sequence of DynamicsModel classes
        The user's own model families, those inside a recalibrated model too.

    Returns
    -------
    DynamicsModel

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, altered, no model at all, of a newer format or of an unknown class.

    Examples
    --------
    >>> import tempfile, bayeswm as bwm
    >>> path = tempfile.mkdtemp() + "/pendulum.bwm"
    >>> bwm.KnownDynamics(structure=bwm.structures.Pendulum.gymnasium(), noise=0.01).save(path)
    >>> type(load(path)).__name__
    'KnownDynamics'
    """
    header, tensors = _read(Path(path))
    return _model(path, header, tensors, structures=structures, models=models)


def _describe_model(model: DynamicsModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return a model as plain values and tensors, the models in its configuration described likewise."""
    from bayeswm.base.model import DynamicsModel

    config, tensors = model.state_dict()
    inner = {k: v for k, v in config.items() if isinstance(v, DynamicsModel)}
    described = _describe(getattr(model, "structure", None))
    header: dict[str, Any] = {
        "class": type(model).__name__,
        "config": plain({k: v for k, v in config.items() if k not in inner}),
        **described,
        # a user's class may have the name of one of the library's: neither stands for the other
        "own": {"class": not _ours(type(model)), **described["own"]},
    }
    tensors = dict(tensors)
    for name, part in inner.items():
        found, values = _describe_model(part)
        header.setdefault("models", {})[name] = found
        tensors |= {f"{name}/{key}": value for key, value in values.items()}
    return header, tensors


def _model(
    path: str | PathLike[str],
    header: dict[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    structures: Sequence[type[Structure] | Structure],
    models: Sequence[type[DynamicsModel]],
) -> DynamicsModel:
    from bayeswm.base.model import DynamicsModel

    name, own = header["class"], header["own"]["class"]
    if name in LATER and not own:
        importlib.import_module(LATER[name])
    given = {m.__name__: m for m in models}
    known = given if own else {**DynamicsModel.registry, **given}
    if name not in known:
        raise CheckpointError(
            f"{path}: expected a model of class {', '.join(sorted(known)) or '(none given)'}, "
            f"got {name!r}; pass your own class in models=[...]"
        )
    try:
        inner = {}
        for part, described in header.get("models", {}).items():
            values = {k.removeprefix(f"{part}/"): v for k, v in tensors.items() if k.startswith(f"{part}/")}
            tensors = {k: v for k, v in tensors.items() if not k.startswith(f"{part}/")}
            inner[part] = _model(path, described, values, structures=structures, models=models)
        structure = _structure(path, header, own=structures)
        return known[name].from_state({**header["config"], **inner}, tensors, structure)
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{path}: the content does not fit class {name}: {error}") from error


def parts(structure: Structure) -> list[Structure]:
    """Return a structure and those that it is made of, by their configurations.

    Examples
    --------
    >>> from bayeswm.structures import MLP, Pendulum, Residual
    >>> [part.name for part in parts(Residual(Pendulum(), MLP()))]
    ['Residual', 'Pendulum', 'MLP']
    """
    inner = [v for v in (_config(structure) or {}).values() if isinstance(v, Structure)]
    return [structure, *(part for v in inner for part in parts(v))]


def _config(structure: Structure) -> dict[str, Any] | None:
    """Return a structure's configuration, or None where it does not describe itself."""
    return None if type(structure).config is Structure.config else structure.config()


def _describe(structure: Structure | None) -> dict[str, Any]:
    """Return a structure as plain values, the structures in its configuration described likewise."""
    if structure is None:
        return {"structure": None, "structure_config": None, "own": {"structure": False}}
    config = _config(structure)
    found: dict[str, Any] = {
        "structure": structure.name,
        "structure_config": config,
        "own": {"structure": not (_ours(type(structure)) and config is not None)},
    }
    if config is not None:
        inner = {k: v for k, v in config.items() if isinstance(v, Structure)}
        found["structure_config"] = plain({k: v for k, v in config.items() if k not in inner})
        if inner:
            found["structure_parts"] = {k: _describe(v) for k, v in inner.items()}
    return found


def _structure(
    path: str | PathLike[str], described: dict[str, Any], *, own: Sequence[type[Structure] | Structure]
) -> Structure | None:
    name, config = described.get("structure"), described.get("structure_config")
    if name is None:
        return None
    for given in own:
        if isinstance(given, Structure) and given.name == name:
            return given
    classes = {c.__name__: c for c in own if isinstance(c, type)}
    if not described["own"]["structure"]:
        classes = {**Structure.registry, **classes}
    if name not in classes or config is None:
        raise CheckpointError(
            f"{path}: expected the structure {name!r}, which is not part of the library; pass it in structures=[...]"
            + ("" if config is not None else " as an object, since it was saved without configuration")
        )
    inner = {k: _structure(path, v, own=own) for k, v in described.get("structure_parts", {}).items()}
    return classes[name].from_config({**config, **inner})


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    header, tensors = read_whole(path, what="model")
    try:
        if not (isinstance(header["class"], str) and isinstance(header["structure"], str | None)):
            raise ValueError("class names are missing")
        if not isinstance(header["own"], dict):
            raise ValueError("class names are missing")
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: the header is unreadable ({error})") from None
    return header, tensors


def read_whole(path: Path, *, what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what :func:`write_whole` wrote, of a header with a format version and a checksum.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, altered, of another kind or of a newer format.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a saved {what}, found no file")
    try:
        with safe_open(str(path), framework="pt") as archive:
            metadata = archive.metadata() or {}
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 (no iterator there)
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: the file is {_what_is_wrong(path)} ({error})") from None
    if "bayeswm" not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not one that this library wrote")
    try:
        header = json.loads(metadata["bayeswm"])
        version, expected = int(header["format"]), header.pop("checksum")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: the header is unreadable ({error})") from None
    if version > FORMAT:
        raise CheckpointError(f"{path}: format {version} is newer than this library reads ({FORMAT}); upgrade bayeswm")
    if expected != checksum(header, tensors):
        raise CheckpointError(f"{path}: the checksum does not match, the file was altered or damaged")
    return header, tensors


def _what_is_wrong(path: Path) -> str:
    """Tell an empty file, a truncated one and one of another kind apart by the first bytes of the format."""
    with path.open("rb") as file:
        start, size = file.read(9), path.stat().st_size
    if not start:
        return "empty"
    length = int.from_bytes(start[:8], "little")
    if start[8:] == b"{" and length < 100_000_000:
        return "truncated" if size < 8 + length else "truncated or damaged"
    return "no model file of this library" if size > 8 else "truncated, or no model file of this library"


def _ours(leaf: type) -> bool:
    return leaf in Structure.registry.values() or leaf.__module__.startswith("bayeswm.")


def checksum(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return a checksum of a header and tensors."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        # a single number may have any stride, and counts as contiguous all the same
        flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.reshape(-1))
        digest.update(flat.view(torch.uint8).numpy().tobytes() if len(flat) else b"")
    return digest.hexdigest()


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration that JSON can hold, or say which entry it cannot.

    Raises
    ------
    SpecError
        Naming the entry.
    """
    for name, value in config.items():
        try:
            json.dumps(value)
        except TypeError:
            raise SpecError(f"cannot save {name}={value!r}: expected numbers, strings, lists or dictionaries") from None
    return config
