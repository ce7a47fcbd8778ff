"""Ways to tell what an action does from what it shares causes with, as a graph and a log allow them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Unconfounded:
    """Given the state, nothing but the action joins the action to what follows: seeing is doing.

    Examples
    --------
    >>> print(Unconfounded())
    no adjustment
    """

    def __str__(self) -> str:
        return "no adjustment"


@dataclass(frozen=True)
class Adjusted:
    """Common causes were recorded: their law given the state takes the place of that given state and action.

    ``p(s' | s, do(a)) = sum_c p(c | s) p(s' | s, a, c)``. The law of the recorded causes given the state is taken as
    Gaussian with a mean that is linear in the state.

    Parameters
    ----------
    by : tuple of str
        Columns of the log's context.

    Examples
    --------
    >>> print(Adjusted(("wind",)))
    adjusted for (wind)
    """

    by: tuple[str, ...]

    def __str__(self) -> str:
        return f"adjusted for ({', '.join(self.by)})"


@dataclass(frozen=True)
class FrontDoor:
    """All that the action does passes through recorded variables, which nothing hidden joins to it.

    ``p(s' | s, do(a)) = sum_m p(m | s, a) sum_b p(b | s) p(s' | s, b, m)`` with b a logged action. The laws of m and b
    are taken as Gaussian with linear means.

    Parameters
    ----------
    through : tuple of str
        Columns of the log's context: what the action acts through.

    Examples
    --------
    >>> print(FrontDoor(("current",)))
    front door through (current)
    """

    through: tuple[str, ...]

    def __str__(self) -> str:
        return f"front door through ({', '.join(self.through)})"


@dataclass(frozen=True)
class Instrumented:
    """Recorded variables move the action and reach what follows in no other way: injected exploration noise.

    What remains of the action beyond state and instrument stands for the hidden cause (a control function):
    ``p(s' | s, do(a)) = sum_r p(r | s) p(s' | s, a, r)``. Beyond the graph this takes for granted that the hidden cause
    shifts the action, whatever the instrument is, by a number (for each confounded action one), and that r and the
    instrument are independent given the state. It does not need dynamics that are linear.

    Parameters
    ----------
    by : tuple of str
        Columns of the log's context: the instruments.
    actions : tuple of str
        The confounded actions.

    References
    ----------
    Imbens and Newey (2009), Identification and estimation of triangular simultaneous equations models without
    additivity.

    Examples
    --------
    >>> print(Instrumented(("nu",), ("torque",)))
    instrument (nu) for (torque)
    """

    by: tuple[str, ...]
    actions: tuple[str, ...]

    def __str__(self) -> str:
        return f"instrument ({', '.join(self.by)}) for ({', '.join(self.actions)})"


@dataclass(frozen=True)
class Proxied:
    """A hidden common cause was measured with independent error of known size, or several times.

    Its conditional mean given state, action and measurements takes its place (regression calibration). Exact where all
    laws are Gaussian with linear means and what follows is affine in the hidden cause. Measurements are taken as the
    hidden cause plus an error: same unit, slope 1.

    Parameters
    ----------
    latent : str
        The hidden cause.
    by : tuple of str
        Columns of the log's context: its measurements.

    References
    ----------
    Carroll, Ruppert, Stefanski and Crainiceanu (2006), Measurement error in nonlinear models, chapter 4.

    Examples
    --------
    >>> print(Proxied("wind", ("vane",)))
    wind by its measurements (vane)
    """

    latent: str
    by: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.latent} by its measurements ({', '.join(self.by)})"


@dataclass(frozen=True)
class Persistent:
    """The common causes last: they are numbers of an episode, and inferred for each from all of its steps.

    The dynamics must have a parameter that differs between episodes (:class:`bayeswm.base.Hierarchical`). The
    likelihood is that of what followed the actions; what the actions themselves tell of the hidden cause is not used.
    Inferred effects are then biased by an amount that falls with the length of the episodes, since within one the cause
    does not vary; how much is a matter of how far its values spread against the noise of a step.

    Parameters
    ----------
    latent : tuple of str
        The hidden causes.

    Examples
    --------
    >>> print(Persistent(("payload",)))
    (payload) inferred for each episode
    """

    latent: tuple[str, ...]

    def __str__(self) -> str:
        return f"({', '.join(self.latent)}) inferred for each episode"


@dataclass(frozen=True)
class Unidentified:
    """The effect of the action does not follow from what was recorded, or by no way that is implemented.

    Parameters
    ----------
    reason : str
        What is missing and what would help.

    Examples
    --------
    >>> print(Unidentified("a and s' share a cause; record it"))
    not identified: a and s' share a cause; record it
    """

    reason: str

    def __str__(self) -> str:
        return f"not identified: {self.reason}"


Strategy = Unconfounded | Adjusted | FrontDoor | Instrumented | Proxied | Persistent | Unidentified
