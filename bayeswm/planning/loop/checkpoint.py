"""What a learning run leaves in its folder, so that it can go on where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bayeswm.base.errors import CheckpointError, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.saving import FORMAT, checksum, load, read_whole, write_whole
from bayeswm.base.schema import Schema
from bayeswm.base.trajectories import Trajectories


class Checkpoint:
    """A folder with the episodes of a run and the last model, each file written atomically.

    Parameters
    ----------
    folder : Path
        Made where there is none.
    settings : mapping of str to plain values
        What the run depends on; a run with other settings is not gone on with.

    Examples
    --------
    >>> import tempfile
    >>> Checkpoint(Path(tempfile.mkdtemp()), {"seed": 0}).episodes()
    []
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.settings = folder, dict(settings)

    @property
    def path(self) -> Path:
        """File of the episodes."""
        return self.folder / "episodes.safetensors"

    def episodes(self) -> list[Trajectories]:
        """Return the episodes so far, in order.

        Raises
        ------
        CheckpointError
            If the file is damaged, or belongs to a run with other settings.
        """
        if not self.path.exists():
            return []
        header, tensors = read_whole(self.path, what="learning run")
        if header.get("kind") != "episodes":
            raise CheckpointError(f"{self.path}: expected the episodes of a learning run, got another file")
        differ = [k for k, v in self.settings.items() if header["settings"].get(k) != v]
        if differ:
            got = ", ".join(f"{k}={header['settings'].get(k)!r}" for k in differ)
            want = ", ".join(f"{k}={self.settings[k]!r}" for k in differ)
            raise CheckpointError(f"{self.folder}: expected a run with {want}, got one with {got}; use another folder")
        schema = Schema.from_dict(header["schema"])
        found: list[Trajectories] = []
        for i in range(header["episodes"]):
            start = f"{i}/"
            arrays: dict[str, Any] = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
            found.append(Trajectories(schema, **arrays, allow_missing=True))
        return found

    def keep(self, episodes: list[Trajectories]) -> None:
        """Write the episodes so far."""
        tensors = {
            f"{i}/{name}": values.detach().cpu().contiguous().clone()
            for i, episode in enumerate(episodes)
            for name, values in episode.arrays().items()
            if values is not None
        }
        header: dict[str, Any] = {
            "format": FORMAT,
            "kind": "episodes",
            "settings": self.settings,
            "schema": episodes[0].schema.to_dict(),
            "episodes": len(episodes),
        }
        write_whole(self.path, {**header, "checksum": checksum(header, tensors)}, tensors)

    def model(self, episodes: int, like: DynamicsModel) -> DynamicsModel | None:
        """Return the model that was fitted to so many episodes; None where it is to be fitted again."""
        try:
            return load(self._model(episodes), models=[type(like)])
        except CheckpointError:
            # not there, or of a user's own classes: a fit with the same seed gives it again
            return None

    def keep_model(self, episodes: int, model: DynamicsModel) -> None:
        """Write a model, and delete those of fewer episodes; a family that cannot be saved leaves none."""
        try:
            model.save(self._model(episodes))
        except SpecError:
            return
        for old in self.folder.glob("model-*.bwm"):
            if old != self._model(episodes):
                old.unlink()

    def _model(self, episodes: int) -> Path:
        return self.folder / f"model-{episodes:04d}.bwm"
