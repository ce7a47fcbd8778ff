import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import bayeswm as bwm
from bayeswm.base import CheckpointError, DynamicsModel, SpecError, Structure, Worlds
from bayeswm.base import saving as saving_module
from bayeswm.structures import CartPole, FromFunction, Leapfrog, Linear, Pendulum, Residual

MODEL = bwm.KnownDynamics(structure=Pendulum.gymnasium(), noise={"velocity": 0.05})
EXPONENTIAL = torch.distributions.TransformedDistribution(
    torch.distributions.Normal(0.0, 1.0), [torch.distributions.ExpTransform()]
)
ZERO, ACTION = torch.tensor([0.3, -0.2]), torch.tensor([0.5])


class OwnPendulum(Pendulum):
    """A user's structure that describes itself."""


class Heavy(Structure):
    """A user's structure that does not describe itself."""

    @property
    def schema(self):
        return Pendulum().schema

    def parameters(self):
        return Pendulum().parameters()

    def transition(self, parameters, state, action, context, step):
        return state, None


class Counting(DynamicsModel):
    """A model with tensors that share memory, one of them called 'empty'."""

    schema = Pendulum().schema

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def fit(self, trajectories, *, seed=None, progress=True):
        return self

    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> Worlds:
        raise NotImplementedError

    def state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {}, {"empty": self.values, "half": self.values[1:], "none": torch.empty(0, 3), "one": torch.tensor(2.0)}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], structure: Structure | None
    ) -> "Counting":
        return cls(tensors["empty"])


def rewrite(path: Path, change: Callable[[dict[str, Any]], None], *, resign: bool = True) -> None:
    """Change the header of a saved model, with a fresh checksum."""
    with safe_open(str(path), framework="pt") as archive:
        header = json.loads(archive.metadata()["bayeswm"])
        tensors = {k: archive.get_tensor(k) for k in archive.keys()}  # noqa: SIM118
    header.pop("checksum")
    change(header)
    header["checksum"] = saving_module.checksum(header, tensors) if resign else "0"
    save_file(tensors, str(path), metadata={"bayeswm": json.dumps(header)})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.bwm"
    MODEL.save(path)
    return path


@pytest.mark.parametrize(
    "model",
    [
        MODEL,
        bwm.KnownDynamics(structure=CartPole.swing_up(), noise=[0.0, 0.1, 0.0, 0.2], dtype=torch.float32),
        bwm.KnownDynamics(structure=Pendulum(integrator=Leapfrog(substeps=3), length=0.1, torque_limit=0.7)),
        bwm.KnownDynamics(structure=Pendulum(mass=torch.tensor(0.1, dtype=torch.float64)), noise=1e-3),
        bwm.KnownDynamics(
            structure=Pendulum(
                mass=torch.distributions.LogNormal(0.0, 0.1), damping=torch.distributions.Uniform(0.1, 0.2)
            )
        ),
        bwm.KnownDynamics(
            structure=Pendulum(mass=torch.distributions.Gamma(*torch.tensor([20.1, 9.7], dtype=torch.float64)))
        ),
    ],
)
def test_a_loaded_model_gives_identical_answers(model: bwm.KnownDynamics, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    size = model.schema.state.size
    again = bwm.load(tmp_path / "m")
    one, two = (
        bwm.rollout(m, torch.full((size,), 0.3), torch.ones(5, 1), worlds=7, generator=torch.Generator().manual_seed(0))
        for m in (model, again)
    )
    assert torch.equal(one.particles, two.particles)
    assert torch.equal(one.variance, two.variance)
    assert again.schema == model.schema


def test_laws_mean_the_same_under_another_default_dtype(tmp_path: Path) -> None:
    law = torch.distributions.Normal(0.1, 0.2)  # float32 numbers
    model = bwm.KnownDynamics(structure=Pendulum(damping=law))
    model.save(tmp_path / "m")
    torch.set_default_dtype(torch.float64)
    try:
        again = bwm.load(tmp_path / "m")
    finally:
        torch.set_default_dtype(torch.float32)
    draws = [m.draw(3, generator=torch.Generator().manual_seed(0)).parameters["damping"] for m in (model, again)]
    assert torch.equal(*draws)


def test_the_header_says_what_the_file_is(saved: Path) -> None:
    with safe_open(str(saved), framework="pt") as archive:
        header = json.loads(archive.metadata()["bayeswm"])
    assert header["format"] == saving_module.FORMAT
    assert header["class"] == "KnownDynamics"
    assert header["versions"]["bayeswm"] == bwm.__version__
    assert len(header["checksum"]) == 64


def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(canary),)

    plain, archive, torched = tmp_path / "a.bwm", tmp_path / "b.bwm", tmp_path / "c.bwm"
    plain.write_bytes(pickle.dumps(Bomb()))
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("archive/data.pkl", pickle.dumps(Bomb()))
    torch.save({"bomb": Bomb()}, torched)
    for path in (plain, archive, torched):
        with pytest.raises(CheckpointError, match="no model file of this library"):
            bwm.load(path)
    assert not canary.exists()
    pickle.loads(plain.read_bytes())
    assert canary.exists()  # it would have run


def test_broken_files_say_which_way(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    broken = tmp_path / "broken"
    for content, words in (
        (b"", "empty"),
        (whole[: len(whole) // 2], "truncated"),
        (whole[:-1], "truncated"),
        (whole[:5], "truncated"),
        (b"a text file, not a model at all", "no model file"),
    ):
        broken.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"broken.*{words}"):
            bwm.load(broken)
    with pytest.raises(CheckpointError, match="found no file"):
        bwm.load(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="found no file"):
        bwm.load(tmp_path)


def test_truncated_tensors_are_seen(tmp_path: Path) -> None:
    Counting(torch.arange(100.0)).save(tmp_path / "m")
    whole = (tmp_path / "m").read_bytes()
    (tmp_path / "m").write_bytes(whole[:-40])
    with pytest.raises(CheckpointError, match="truncated"):
        bwm.load(tmp_path / "m", models=[Counting])


def test_altered_bytes_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "m"
    Counting(torch.arange(100.0)).save(path)
    whole = bytearray(path.read_bytes())
    whole[-7] ^= 1
    path.write_bytes(bytes(whole))
    with pytest.raises(CheckpointError, match="checksum"):
        bwm.load(path, models=[Counting])


def test_altered_headers_are_seen(saved: Path) -> None:
    rewrite(saved, lambda h: h["config"].update(noise=[0.0, 0.0]), resign=False)
    with pytest.raises(CheckpointError, match="checksum"):
        bwm.load(saved)


def test_foreign_and_newer_files(saved: Path, tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, str(tmp_path / "foreign"))
    with pytest.raises(CheckpointError, match="not one that this library wrote"):
        bwm.load(tmp_path / "foreign")
    rewrite(saved, lambda h: h.update(format=99))
    with pytest.raises(CheckpointError, match="format 99 is newer"):
        bwm.load(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h.update({"class": "NoSuchModel"}), "NoSuchModel"),
        (lambda h: h.update({"class": ["a", "list"]}), "header"),
        (lambda h: h.update(structure="NoSuchStructure"), "NoSuchStructure"),
        (lambda h: h.update(structure="CartPole"), "does not fit class KnownDynamics"),
        (lambda h: h["config"].update(dtype="load"), "number format"),
        (lambda h: h["config"].update(dtype="no_such_thing"), "number format"),
        (lambda h: h["config"].update(noise=[1.0]), "noise scales"),
        (lambda h: h["structure_config"].update(values={"mass": {"law": "os.system"}}), "law"),
        (lambda h: h["structure_config"].update(integrator={"method": "eval", "substeps": 1}), "integrator"),
        (lambda h: h.pop("config"), "config"),
        (lambda h: h.pop("own"), "header"),
    ],
)
def test_wrong_content_is_a_checkpoint_error(saved: Path, change: Callable[[dict[str, Any]], None], words: str) -> None:
    rewrite(saved, change)
    with pytest.raises(CheckpointError, match=words):
        bwm.load(saved)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["known"].update(structure="NoSuchStructure"), "NoSuchStructure"),
        (lambda p: p["known"]["structure_config"].update(values={"mass": {"law": "os.system"}}), "law"),
        (lambda p: p["learned"]["own"].update(structure=True), "pass it in structures"),
        (lambda p: p.update(known=["a", "list"]), "does not fit"),
        (lambda p: p.pop("known"), "does not fit"),
    ],
)
def test_wrong_content_inside_a_structure(tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str) -> None:
    structure = Residual(Pendulum(), Linear(Pendulum().schema, A=torch.eye(2), B=0.1))
    bwm.KnownDynamics(structure=structure).save(tmp_path / "m")
    assert bwm.load(tmp_path / "m").structure.learned.config() == structure.learned.config()
    rewrite(tmp_path / "m", lambda h: change(h["structure_parts"]))
    with pytest.raises(CheckpointError, match=words):
        bwm.load(tmp_path / "m")


def folder(path: Path) -> set[str]:
    return {p.name for p in path.iterdir()}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_failed_write_leaves_the_previous_file_whole(
    saved: Path, monkeypatch: pytest.MonkeyPatch, where: str, error: BaseException
) -> None:
    before = saved.read_bytes()

    def fail(*given: object, **more: object) -> None:
        raise error

    class Full(io.BytesIO):  # a disk that fills up half-way
        def write(self, content: object) -> int:
            raise error

    def half_open(path: Path, mode: str) -> io.BytesIO:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        return Full()

    if where == "write":
        fail = half_open
    target = {"write": (Path, "open"), "fsync": (os, "fsync"), "replace": (Path, "replace")}[where]
    monkeypatch.setattr(*target, fail)
    expected = CheckpointError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        bwm.KnownDynamics(structure=CartPole()).save(saved)
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert folder(saved.parent) == {saved.name}


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could not be written"):
        MODEL.save(tmp_path / "no" / "where")


def test_saving_again_replaces_the_file(saved: Path) -> None:
    bwm.KnownDynamics(structure=CartPole()).save(saved)
    assert bwm.load(saved).schema.state.size == 4
    assert folder(saved.parent) == {saved.name}


def test_a_users_own_structure_class(tmp_path: Path) -> None:
    bwm.KnownDynamics(structure=OwnPendulum(mass=3.0), noise=0.1).save(tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"OwnPendulum.*structures=\[\.\.\.\]"):
        bwm.load(tmp_path / "m")
    again = bwm.load(tmp_path / "m", structures=[OwnPendulum])
    assert type(again.structure) is OwnPendulum
    assert again.structure.values["mass"] == 3.0


def test_a_users_own_structure_object(tmp_path: Path) -> None:
    def drift(x: Tensor, u: Tensor) -> Tensor:
        return x + u

    for structure in (Heavy(), FromFunction(drift, schema=Pendulum().schema)):
        path = tmp_path / structure.name
        bwm.KnownDynamics(structure=structure).save(path)
        with pytest.raises(CheckpointError, match="as an object"):
            bwm.load(path, structures=[type(structure)])
        assert bwm.load(path, structures=[structure]).structure is structure


def test_a_users_class_never_stands_for_one_of_the_library(tmp_path: Path) -> None:
    """Own classes and functions may have the names of ours."""
    namesake = type("Pendulum", (OwnPendulum,), {"__module__": __name__})
    bwm.KnownDynamics(structure=namesake(mass=3.0)).save(tmp_path / "m")
    with pytest.raises(CheckpointError, match="Pendulum"):
        bwm.load(tmp_path / "m")
    assert type(bwm.load(tmp_path / "m", structures=[namesake]).structure) is namesake
    function = FromFunction(lambda x, u: x, schema=Pendulum().schema, name="CartPole")
    bwm.KnownDynamics(structure=function).save(tmp_path / "f")
    with pytest.raises(CheckpointError, match="CartPole"):
        bwm.load(tmp_path / "f")
    own = type("KnownDynamics", (bwm.KnownDynamics,), {"__module__": __name__})
    own(structure=Pendulum()).save(tmp_path / "k")
    with pytest.raises(CheckpointError, match=r"models=\[\.\.\.\]"):
        bwm.load(tmp_path / "k")
    assert type(bwm.load(tmp_path / "k", models=[own])) is own


def test_tensors_that_share_memory_and_odd_shapes(tmp_path: Path) -> None:
    values = torch.arange(6.0, dtype=torch.float64)
    Counting(values).save(tmp_path / "m")
    again = bwm.load(tmp_path / "m", models=[Counting])
    assert torch.equal(again.values, values)


def test_a_checksum_depends_on_numbers_and_not_on_strides() -> None:
    one = torch.arange(8.0).double()[::4][1:]  # contiguous, with a stride of 4
    assert one.stride() == (4,)
    checksum = saving_module.checksum
    assert checksum({}, {"x": one}) == checksum({}, {"x": torch.tensor([4.0], dtype=torch.float64)})
    assert checksum({}, {"x": one}) != checksum({}, {"x": torch.tensor([5.0], dtype=torch.float64)})


def test_what_cannot_be_described_is_named(tmp_path: Path) -> None:
    class Odd(OwnPendulum):
        def config(self) -> dict[str, Any]:
            return {"callback": print}

    with pytest.raises(SpecError, match="callback="):
        bwm.KnownDynamics(structure=Odd()).save(tmp_path / "m")
    with pytest.raises(SpecError, match="law of class"):
        bwm.KnownDynamics(structure=Pendulum(mass=EXPONENTIAL)).save(tmp_path / "m")
    assert folder(tmp_path) == set()


def test_a_saved_file_has_the_rights_that_new_files_have(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    assert saved.stat().st_mode == (tmp_path / "plain").stat().st_mode
