"""Strategies are values: they compare, and say in words what they are."""

from bayeswm.causal import Adjusted, FrontDoor, Instrumented, Persistent, Proxied, Unconfounded, Unidentified


def test_words():
    said = [
        (Unconfounded(), "no adjustment"),
        (Adjusted(("e", "f")), "adjusted for (e, f)"),
        (FrontDoor(("m",)), "front door through (m)"),
        (Instrumented(("nu",), ("a",)), "instrument (nu) for (a)"),
        (Proxied("e", ("z",)), "e by its measurements (z)"),
        (Persistent(("u",)), "(u) inferred for each episode"),
        (Unidentified("no"), "not identified: no"),
    ]
    assert [str(one) for one, _ in said] == [text for _, text in said]


def test_equal_values_are_equal():
    assert Adjusted(("e",)) == Adjusted(("e",)) != Adjusted(("f",))
