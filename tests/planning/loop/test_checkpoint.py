import pytest
import torch

import bayeswm as bwm
from bayeswm.planning.loop.checkpoint import Checkpoint

SCHEMA = bwm.Schema(
    state=[bwm.Variable("angle", kind="angle")],
    action=[bwm.Variable("u", bounds=(-1, 1))],
    observation=[bwm.Variable("seen")],
    context=[bwm.Variable("wind")],
    reward=True,
    time_step=0.1,
)


def episode(seed):
    g = torch.Generator().manual_seed(seed)
    seen = torch.randn(2, 5, 1, generator=g).double()
    seen[0, 2] = float("nan")
    return bwm.Trajectories(
        SCHEMA,
        state=3 * torch.randn(2, 5, 1, generator=g).double(),
        observation=seen,
        action=torch.randn(2, 4, 1, generator=g).double().tanh(),
        context=torch.randn(2, 1, generator=g).double(),
        reward=torch.randn(2, 4, generator=g).double(),
        lengths=[4, 2],
        terminated=[False, True],
        truncated=[True, False],
        allow_missing=True,
    )


def test_episodes_come_back_bit_for_bit(tmp_path):
    kept = Checkpoint(tmp_path / "new" / "folder", {"seed": 0})
    episodes = [episode(0), episode(1)]
    kept.keep(episodes)
    for before, after in zip(episodes, Checkpoint(kept.folder, {"seed": 0}).episodes(), strict=True):
        assert after.schema == before.schema
        for name, values in before.arrays().items():
            torch.testing.assert_close(after.arrays()[name], values, rtol=0, atol=0, equal_nan=True)
    assert [p.name for p in kept.folder.iterdir()] == ["episodes.safetensors"]


def test_models_that_cannot_be_saved_are_fitted_again(tmp_path):
    kept = Checkpoint(tmp_path, {})
    structure = bwm.structures.FromFunction(lambda x, u, c: x, schema=SCHEMA, name="still")
    model = bwm.KnownDynamics(structure=structure)
    kept.keep_model(1, model)
    assert kept.model(1, model) is None
    known = bwm.KnownDynamics(structure=bwm.structures.Pendulum())
    kept.keep_model(1, known)
    kept.keep_model(2, known)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model-0002.bwm"]
    assert isinstance(kept.model(2, known), bwm.KnownDynamics)
    assert kept.model(1, known) is None


def test_foreign_files_are_refused(tmp_path):
    kept = Checkpoint(tmp_path, {"seed": 0})
    bwm.KnownDynamics(structure=bwm.structures.Pendulum()).save(kept.path)
    with pytest.raises(bwm.CheckpointError, match="another file"):
        kept.episodes()
    kept.keep([episode(0)])
    with pytest.raises(bwm.CheckpointError, match="a run with seed=1, got one with seed=0"):
        Checkpoint(tmp_path, {"seed": 1}).episodes()
    kept.path.write_bytes(b"")
    with pytest.raises(bwm.CheckpointError, match="empty"):
        kept.episodes()
    # and an episode file is no model
    kept.keep([episode(0)])
    with pytest.raises(bwm.CheckpointError, match="header"):
        bwm.load(kept.path)
