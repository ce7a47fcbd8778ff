"""Packages that only some functions need."""

from __future__ import annotations

import importlib
from types import ModuleType


def need(package: str, extra: str) -> ModuleType:
    """Import an optional package.

    Parameters
    ----------
    package : str
        Name to import.
    extra : str
        The extra of this library that installs it.

    Raises
    ------
    ImportError
        Naming the extra.

    Examples
    --------
    >>> need("json", "io").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package.split(".")[0]:
            raise  # the package is there; something that it needs is not
        raise ImportError(
            f"expected the package {package!r}, which is missing; pip install 'bayeswm[{extra}]'"
        ) from None
