import pytest
import torch
from scipy import stats

import bayeswm as bwm
from bayeswm.base import StructureWorlds
from bayeswm.causal.structural.joint_worlds import joint_worlds
from tests.causal.reference_models import line


def worlds(count: int, *, exhaustive: bool, at: float = 0.0) -> StructureWorlds:
    """World i of the line s' = (at + i) s, with weights in proportion to 1, 2, 3, ..."""
    structure = bwm.structures.Linear(line(), A=1.0, B=0.0)
    gains = at + torch.arange(count, dtype=torch.float64)
    parameters = {
        "A": gains.view(-1, 1, 1),
        "B": torch.zeros(count, 1, 1).double(),
        "c": torch.zeros(count, 1).double(),
    }
    weight = torch.arange(1.0, count + 1).log() if exhaustive else torch.zeros(count)
    return StructureWorlds(structure, line(), parameters, log_weight=weight, exhaustive=exhaustive)


def test_all_combinations_of_members() -> None:
    found = joint_worlds(
        {"p": worlds(2, exhaustive=True), "q": worlds(3, exhaustive=True)}, 5, exhaustive=True, generator=None
    )
    assert found.exhaustive
    pairs = torch.stack([w.parameters["A"].flatten() for w in found.regressions.values()], -1).tolist()
    assert pairs == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    weight = (found.log_weight.exp() * 18).tolist()
    assert weight == pytest.approx([1, 2, 3, 2, 4, 6])
    alone = joint_worlds({}, 5, exhaustive=True, generator=None)
    assert (alone.log_weight.tolist(), alone.exhaustive) == ([0.0], True)


def test_too_many_combinations_are_drawn() -> None:
    members = {k: worlds(12, exhaustive=True) for k in "pq"}
    found = joint_worlds(members, 4000, exhaustive=True, generator=torch.Generator().manual_seed(0))
    assert not found.exhaustive
    p, q = (w.parameters["A"].flatten().long() for w in found.regressions.values())
    assert float(found.log_weight.abs().max()) == 0
    share = torch.arange(1.0, 13.0) / 78
    assert bool((p.bincount(minlength=12) - 4000 * share).abs().max() < 1.0)  # systematic
    table = torch.zeros(12, 12).index_put((p, q), torch.ones(4000), accumulate=True)
    assert stats.chi2_contingency(table[4:, 4:].numpy()).pvalue > 1e-5
    with pytest.raises(bwm.SpecError, match="draw combinations"):
        joint_worlds(members, 5, exhaustive=True, generator=None)


def test_members_beside_draws() -> None:
    members, draws = worlds(2, exhaustive=True), worlds(6, exhaustive=False, at=10.0).reweight(torch.arange(6.0))
    found = joint_worlds({"p": members, "q": draws}, 6, exhaustive=True, generator=torch.Generator().manual_seed(0))
    assert not found.exhaustive
    assert found.regressions["p"].parameters["A"].flatten().sort().values.tolist() == [0, 0, 1, 1, 1, 1]
    torch.testing.assert_close(found.log_weight, draws.log_weight)
    known = joint_worlds({"p": worlds(1, exhaustive=True), "q": draws}, 6, exhaustive=True, generator=None)
    assert len(known.regressions["p"]) == 6
    several = joint_worlds({"p": members}, 4, exhaustive=False, generator=torch.Generator().manual_seed(0))
    assert (len(several.log_weight), several.exhaustive) == (4, False)


def test_what_cannot_be_put_together() -> None:
    with pytest.raises(bwm.SpecError, match=r"p: expected 5 draws .* got 1"):
        joint_worlds({"p": worlds(1, exhaustive=False)}, 5, exhaustive=True, generator=None)
    hidden = worlds(3, exhaustive=False)
    hidden.state_is_measured = False
    with pytest.raises(bwm.SpecError, match="measured state"):
        joint_worlds({"p": hidden}, 3, exhaustive=True, generator=None)


def test_worlds_stay_where_they_were_drawn() -> None:
    """Meta tensors have a device and no values, so that this needs no other device."""
    members = {k: worlds(n, exhaustive=True).to("meta") for k, n in (("p", 2), ("q", 3))}
    draws = {k: worlds(5, exhaustive=False).to("meta") for k in "pq"}
    for drawn in (members, draws):
        found = joint_worlds(drawn, 5, exhaustive=True, generator=None)
        assert {str(w.device) for w in found.regressions.values()} == {"meta"}
        assert str(found.log_weight.device) == "meta"
