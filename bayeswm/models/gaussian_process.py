"""Gaussian processes: a function nobody wrote down, on top of physics that somebody did."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self, override

import torch
from torch import Tensor

from bayeswm.base.errors import DataError, SpecError
from bayeswm.base.model import DynamicsModel
from bayeswm.base.moments import Moments
from bayeswm.base.saving import plain
from bayeswm.base.schema import Schema
from bayeswm.base.structure import Structure
from bayeswm.base.trajectories import Trajectories, Transitions
from bayeswm.inference.gp_algebra import Kernel, Scaled, with_signal
from bayeswm.inference.gp_coregional import Coregionalised
from bayeswm.inference.gp_exact import ExactPosterior, Hyper, check_memory
from bayeswm.inference.gp_gpytorch import from_gpytorch
from bayeswm.inference.gp_kernels import RBF, kernel_from_dict
from bayeswm.inference.gp_optimise import OutputFit
from bayeswm.inference.gp_priors import HyperPriors
from bayeswm.inference.gp_sparse import SparsePosterior
from bayeswm.inference.gp_sparse_fit import InducingPoints
from bayeswm.inference.pathwise import draw_paths
from bayeswm.models.gp_fitting import FitSettings, fit_residual
from bayeswm.models.gp_hyper import HyperTable
from bayeswm.models.gp_inputs import Inputs
from bayeswm.models.gp_moments import ClosedForm
from bayeswm.models.gp_worlds import GaussianProcessWorlds, Residual

if TYPE_CHECKING:
    import gpytorch


# arguments that are plain values
_SETTINGS = ("constant", "restarts", "noise_floor", "features")
_SCALES = ("input_mean", "input_scale", "output_scale", "output_shift")


class FunctionMoments(NamedTuple):
    """Posterior mean and variance of the next state without process noise, both of shape (*batch, S).

    ``covariance`` between the state variables, shape (*batch, S, S), is diagonal but for coregionalised outputs.
    """

    mean: Tensor
    variance: Tensor
    covariance: Tensor


class GaussianProcess(DynamicsModel):
    """A Gaussian process for each change of state, on a mean structure; each world is one function.

    The process learns what the mean structure misses: ``next state = mean(state, action) + f(state, action) + noise``,
    with a zero-mean prior on f, so that far from the data the answer is the mean structure's with the variance of the
    prior. Inputs are standardised inside, outputs scaled by their root mean square. Angles enter as sine and cosine;
    periodic kernels take their inputs as they are. Hyper-parameters are maximum a posteriori; the noise is one learned
    number for each variable. Everything is float64.

    The cost is that of a Cholesky decomposition of n training steps. With more than a few thousand, the process becomes
    a sparse variational one (Titsias 2009), whose cost grows with n only.

    Parameters
    ----------
    mean : Structure, optional
        With a schema and fixed parameters; its process noise, if any, is not used. By default the state stays as it is.
    kernel : Kernel or gpytorch.kernels.Kernel, optional
        ``RBF()`` (the default), ``Matern(nu=...)`` and ``Periodic(...)`` of :mod:`bayeswm.inference`, each of some
        inputs if ``active=`` names variables of the schema, and what ``+`` and ``*`` make of them. A kernel without a
        signal gets one that is learned; ``Scaled(RBF(), signal=1.0)`` fixes it. Of GPyTorch's, see
        :func:`bayeswm.inference.from_gpytorch`.
    constant : bool
        Learn a constant beside the mean structure, so that far from the data the answer is both together.
    priors : HyperPriors, optional
        Of the hyper-parameters, in standardised units; None maximises the marginal likelihood alone.
    restarts : int
        Starts of the optimiser, of which the best is kept.
    noise_floor : float
        Smallest standard deviation of the noise, as a share of the outputs' root mean square.
    features : int
        Random waves of a drawn function; more make draws more Gaussian (their mean and covariance are exact anyway).
    sparse : InducingPoints, optional
        From how many training steps on the process is sparse, and with how many inducing points; None is always exact.
    outputs : Coregionalised, optional
        Learn how state variables vary together, with one kernel for all of them. By default each is independent, with
        hyper-parameters of its own. Of a sparse process, these are learned on evenly spaced steps, as many as would
        still be exact.

    Attributes
    ----------
    fits : tuple of OutputFit
        How the fit of each state variable went, or of all together if they are coregionalised.

    Raises
    ------
    SpecError
        If a number makes no sense, the mean is not fixed, or a kernel has no exact draws.

    Examples
    --------
    A pendulum that was taken for a lighter one:

    >>> import bayeswm as bwm
    >>> truth = bwm.KnownDynamics(structure=bwm.structures.Pendulum(length=0.5, damping=0.1), noise=0.01)
    >>> g = torch.Generator().manual_seed(0)
    >>> start, actions = torch.randn(4, 2, generator=g), torch.randn(4, 25, 1, generator=g)
    >>> paths = bwm.rollout(truth, start, actions, particles=1, generator=g).particles[0, 0]
    >>> train = bwm.Trajectories(truth.schema, state=torch.cat((start[:, None], paths), 1), action=actions)
    >>> model = GaussianProcess(mean=bwm.structures.Pendulum(mass=0.7, length=0.5)).fit(train, progress=False)
    >>> model.predictive(start, actions[:, 0], generator=g).mean.shape
    torch.Size([4, 1, 2])
    """

    def __init__(
        self,
        *,
        mean: Structure | None = None,
        kernel: Kernel | gpytorch.kernels.Kernel | None = None,
        constant: bool = False,
        priors: HyperPriors | None = HyperPriors(),  # noqa: B008 (frozen)
        restarts: int = 3,
        noise_floor: float = 3e-3,
        features: int = 512,
        sparse: InducingPoints | None = InducingPoints(),  # noqa: B008 (frozen)
        outputs: Coregionalised | None = None,
    ) -> None:
        for name, value in {"restarts": restarts, "features": features}.items():
            if not isinstance(value, int) or value < 1:
                raise SpecError(f"expected {name} >= 1, got {value!r}")
        if not 0 < noise_floor < 1:
            raise SpecError(f"expected noise_floor in (0, 1), got {noise_floor}")
        if kernel is None:
            kernel = RBF()
        elif not isinstance(kernel, Kernel):
            kernel = from_gpytorch(kernel)
        if mean is not None:
            if mean.schema is None:
                raise SpecError(f"expected a mean with fixed parameters, got {mean.name}, which learns its own")
            uncertain = [k for k, p in mean.parameters().items() if p.uncertain]
            if uncertain:
                raise SpecError(
                    f"expected a mean with fixed parameters, got laws for {', '.join(uncertain)}; give numbers"
                )
        if outputs is None:
            kernel = with_signal(kernel)
        elif isinstance(kernel, Scaled) and kernel.signal is None:
            kernel = kernel.kernel  # the outputs' covariance has it
        self.mean, self.kernel, self.priors, self.sparse, self.outputs = mean, kernel, priors, sparse, outputs
        self.constant = constant
        self.restarts, self.noise_floor, self.features = restarts, noise_floor, features
        self.fits: tuple[OutputFit, ...] = ()
        self._residual: Residual | None = None
        self._moments: tuple[Residual, ClosedForm | None] | None = None

    @property
    def structure(self) -> Structure | None:
        """The mean structure, under the name by which files know it."""
        return self.mean

    @property
    def _fitted(self) -> Residual:
        if self._residual is None:
            raise SpecError("expected a fitted model: call .fit(trajectories) first")
        return self._residual

    @property
    @override
    def schema(self) -> Schema:
        return self._fitted.schema

    @property
    def hyper(self) -> HyperTable:
        """Hyper-parameters by name: length scales of standardised inputs, standard deviations in the state's units."""
        r = self._fitted
        kernel, values = r.posterior.kernel, r.posterior.hyper.values
        if isinstance(kernel, Scaled) and self.outputs is not None:
            kernel, values = kernel.kernel, values[:, :-1]  # what is shared
        parameters = kernel.parameters(len(r.columns.names))
        parts = values.split([len(p.typical) for p in parameters], -1)
        scale = r.output_scale[:, None] if self.outputs is None else 1.0
        return HyperTable(
            r.schema.state.columns,
            {p.name: v * scale if p.kind == "signal" else v for p, v in zip(parameters, parts, strict=True)},
            {p.name: tuple(r.columns.names[c] for c in p.columns) for p in parameters},
            signal=self.output_covariance.diagonal().sqrt(),
            noise=r.noise,
        )

    @property
    def output_covariance(self) -> Tensor:
        """Prior covariance of the state variables' functions at one input, in the state's units, shape (S, S)."""
        r = self._fitted
        kernel, values = r.posterior.kernel, r.posterior.hyper.values
        return r.covariance(torch.stack([kernel.variance(v, len(r.columns.names)) for v in values]))

    @property
    def inducing(self) -> Tensor | None:
        """Inducing points of each output as standardised inputs, shape (S, m, D); None where the process is exact."""
        posterior = self._fitted.posterior
        return posterior.centers if isinstance(posterior, SparsePosterior) else None

    @property
    def jitter(self) -> tuple[float, ...]:
        """What the decomposition of each standardised covariance needed on its diagonal beyond the noise."""
        return self._fitted.posterior.jitter

    @override
    def fit(self, trajectories: Trajectories, *, seed: int | None = None, progress: bool = True) -> Self:
        """Learn the hyper-parameters and keep the data.

        Parameters
        ----------
        trajectories : Trajectories
            Recorded states and actions.
        seed : int, optional
            Decides the starts of the optimiser; 0 by default, since the best of them seldom depends on it.
        progress : bool
            Show a progress bar.

        Returns
        -------
        GaussianProcess
            The model itself.

        Raises
        ------
        SpecError
            If the data are too many for memory, do not fit the mean, or have state variables other than reals and
            angles.
        DataError, FitError
            Without a single transition; if a covariance is not positive definite with jitter either.

        Warns
        -----
        DataWarning
            For inputs that never vary and outputs without anything to learn.
        """
        schema = trajectories.schema
        if not schema.state.flat:
            raise SpecError("expected state variables of kind real or angle; this model cannot predict other kinds")
        if self.mean is not None:
            self.mean.bind(schema)
        with torch.inference_mode(False), torch.no_grad():
            data = trajectories.transitions()
            settings = FitSettings(
                self.priors, self.restarts, self.noise_floor, self.constant, self.sparse, self.outputs
            )
            settings.check_memory(len(data.state), schema.state.size, device=data.state.device)
            blank = Residual.standardised(schema, self.mean, self.kernel, data=data, constant=self.constant)
            residual, fits = fit_residual(blank, settings, seed=0 if seed is None else seed, progress=progress)
        self._residual, self.fits = residual, fits
        return self

    @override
    def draw(self, worlds: int, *, generator: torch.Generator | None = None) -> GaussianProcessWorlds:
        """Draw that many functions, each with random waves of its own.

        Raises
        ------
        SpecError
            Without a generator, or for fewer than one world.
        """
        residual = self._fitted
        if generator is None:
            raise SpecError("expected generator=torch.Generator to draw functions, got none")
        if worlds < 1:
            raise SpecError(f"expected worlds >= 1, got {worlds}")
        with torch.no_grad():
            paths = draw_paths(residual.posterior, worlds, features=self.features, generator=generator)
            paths["process_noise"] = residual.noise.expand(worlds, -1).clone()
        return GaussianProcessWorlds(residual, paths)

    @override
    def condition(self, trajectories: Trajectories, *, in_training: bool = False) -> GaussianProcess:
        """Return the process given these trajectories too; hyper-parameters and inducing points stay as they are.

        An exact process is conditioned exactly; a sparse one is what it were, had it seen all data at once.

        Parameters
        ----------
        trajectories : Trajectories
            New data, with the model's schema.
        in_training : bool
            The data were in the training set: the model comes back as it is.

        Raises
        ------
        SpecError
            If the schema differs, or the data are too many for memory.
        """
        residual = self._fitted
        if in_training:
            return self
        if trajectories.schema != residual.schema:
            raise SpecError("expected trajectories of the model's schema, got another; see Trajectories.with_schema")
        new = self._like()
        with torch.inference_mode(False), torch.no_grad():
            data = Transitions(*(v.to(residual.input_mean.device) for v in trajectories.transitions()))
            x, y, posterior = residual.inputs(*data[:3]), residual.outputs(data), residual.posterior
            if isinstance(posterior, ExactPosterior):
                check_memory(len(posterior.x) + len(x), len(y), x.device)
            new._residual = dataclasses.replace(residual, posterior=posterior.condition(x, y))
            _ = new._residual.posterior.alpha
        new.fits = self.fits
        return new

    def posterior(self, state: Tensor, action: Tensor, *, context: Tensor | None = None) -> FunctionMoments:
        """Return mean, variance and covariance of the next state without process noise, over all worlds.

        Parameters
        ----------
        state : Tensor, shape (*batch, S)
            Where the system is.
        action : Tensor, shape (*batch, A)
            What is done.
        context : Tensor, shape (*batch, C), optional
            Environment factors.

        Returns
        -------
        FunctionMoments

        Raises
        ------
        DataError
            For wrong shapes or NaN.
        """
        r = self._fitted
        given = {"state": state, "action": action, "context": torch.empty(0) if context is None else context}
        parts: list[Tensor] = []
        for name, values in given.items():
            tensor, columns = torch.as_tensor(values).to(r.input_mean), getattr(r.schema, name).columns
            bad = int((~tensor.isfinite()).sum())
            if tensor.ndim < 1 or tensor.shape[-1] != len(columns) or bad:
                raise DataError(
                    f"expected finite {name} of shape (*batch, {len(columns)}) for {columns}, "
                    f"got shape {tuple(tensor.shape)} with {bad} value(s) that are NaN or infinite"
                )
            parts.append(tensor)
        batch = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
        state, action, context = (p.expand(*batch, p.shape[-1]) for p in parts)
        points = r.inputs(state, action, context)
        mean, variance = (v.mT.reshape(*batch, -1) for v in r.posterior.function(points.reshape(-1, points.shape[-1])))
        known = r.known(state, action, context, 0)
        covariance = r.covariance(variance)
        return FunctionMoments(known + r.changes(mean), covariance.diagonal(dim1=-2, dim2=-1), covariance)

    @property
    def moments_in_closed_form(self) -> bool:
        """Whether :meth:`moments` has a closed form; otherwise it is by cubature over drawn worlds."""
        return self._closed_form is not None

    @property
    def _closed_form(self) -> ClosedForm | None:
        residual = self._fitted
        if self._moments is None or self._moments[0] is not residual:
            with torch.no_grad():
                self._moments = residual, ClosedForm.of(residual)
        return self._moments[1]

    @override
    def moments(
        self,
        mean: Tensor,
        covariance: Tensor,
        action: Tensor | None = None,
        *,
        context: Tensor | None = None,
        worlds: int = 64,
        generator: torch.Generator | None = None,
    ) -> Moments:
        """Return moments of the next state from a Gaussian belief about where the system is.

        In closed form (Deisenroth, Fox & Rasmussen 2015) if the kernels are RBFs, of any inputs, all variables are real
        or angles, and the mean is absent, linear, or linear but for sines and cosines
        (:meth:`bayeswm.base.Structure.trigonometric`); :attr:`moments_in_closed_form` says so. Then ``worlds`` and
        ``generator`` are not used, and gradients by ``mean``, ``covariance`` and ``action`` are in closed form too, but
        cannot be differentiated again. Otherwise by cubature over drawn worlds, as of every model.

        The closed form is exact but for uncertain angles. Their sines and cosines, which the process sees, are taken to
        be Gaussian with the moments that they have. On a swinging pendulum, at an angle known to 0.1, 0.3, 0.6 and
        1.0 rad, the mean was off by 0.0001, 0.003, 0.013 and 0.026 standard deviations of the next state, and that
        standard deviation by 2, 6, 10 and 9 % at most.

        Parameters
        ----------
        mean : Tensor, shape (*batch, n)
            Mean of the state (n = S), or without ``action`` of state and action together (n = S + A).
        covariance : Tensor, shape (*batch, n, n)
            Its covariance, which may be singular, or zero.
        action : Tensor, shape (*batch, A), optional
            A certain action.
        context : Tensor, shape (*batch, C), optional
            Environment factors.
        worlds : int
            How many to draw for cubature.
        generator : torch.Generator, optional
            Draws them.

        Returns
        -------
        Moments
            ``covariance - aleatoric`` is the posterior variance of the function, averaged over the belief.

        Raises
        ------
        SpecError, DataError
            For wrong shapes or numbers that are not finite; without a generator where worlds must be drawn.

        Examples
        --------
        >>> import bayeswm as bwm
        >>> schema = bwm.Schema(state=[bwm.Variable("x")], action=[bwm.Variable("u")], time_step=0.1)
        >>> g = torch.Generator().manual_seed(0)
        >>> state, action = torch.randn(20, 1, 1, generator=g), torch.randn(20, 1, 1, generator=g)
        >>> after = state + 0.1 * torch.sin(action) + 0.01 * torch.randn(20, 1, 1, generator=g)
        >>> data = bwm.Trajectories(schema, state=torch.cat((state, after), 1), action=action)
        >>> model = GaussianProcess().fit(data, progress=False)
        >>> found = model.moments(torch.zeros(1), 0.04 * torch.eye(1), torch.zeros(1))
        >>> model.moments_in_closed_form, round(float(found.covariance.sqrt()), 2)
        (True, 0.2)
        """
        closed = self._closed_form
        if closed is None:
            return super().moments(mean, covariance, action, context=context, worlds=worlds, generator=generator)
        return closed(mean, covariance, action=action, context=context)

    # --- files ------------------------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        return {
            "constant": self.constant,
            "restarts": self.restarts,
            "noise_floor": self.noise_floor,
            "features": self.features,
        }

    def _like(self) -> GaussianProcess:
        chosen = {"kernel": self.kernel, "priors": self.priors, "sparse": self.sparse, "outputs": self.outputs}
        return GaussianProcess(mean=self.mean, **chosen, **self._settings())

    @override
    def state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        r = self._fitted
        kernel = self.kernel.to_dict()
        if kernel_from_dict(kernel) != self.kernel:
            raise SpecError(f"expected a kernel of the library to save, got {self.kernel!r}, a class of your own")
        config = {
            **self._settings(),
            "kernel": kernel,
            "priors": None if self.priors is None else self.priors.to_dict(),
            "sparse": None if self.sparse is None else dataclasses.asdict(self.sparse),
            "outputs": None if self.outputs is None else dataclasses.asdict(self.outputs),
            "schema": r.schema.to_dict(),
            "fits": [dataclasses.asdict(f) for f in self.fits],
        }
        tensors = r.posterior.tensors()
        tensors |= {name: getattr(r, name) for name in _SCALES}
        tensors |= {} if r.mixing is None else {"mixing": r.mixing}
        return plain(config), tensors

    @classmethod
    @override
    def from_state(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], structure: Structure | None
    ) -> GaussianProcess:
        priors, sparse, outputs = config["priors"], config["sparse"], config["outputs"]
        model = cls(
            mean=structure,
            kernel=kernel_from_dict(config["kernel"]),
            priors=None if priors is None else HyperPriors.from_dict(priors),
            sparse=None if sparse is None else InducingPoints(**sparse),
            outputs=None if outputs is None else Coregionalised(**outputs),
            **{k: config[k] for k in _SETTINGS},
        )
        kept = {name: values.clone() for name, values in tensors.items()}
        hyper = Hyper(*(kept.pop(k) for k in Hyper._fields))
        scales, mixing = [kept.pop(k) for k in _SCALES], kept.pop("mixing", None)
        columns, bound = Inputs.bind(Schema.from_dict(config["schema"]), model.kernel)
        kind = SparsePosterior if "centers" in kept else ExactPosterior
        posterior = kind(bound if outputs is None else Scaled(bound), hyper=hyper, **kept)
        model._residual = Residual(columns, structure, posterior, *scales, mixing=mixing)
        model.fits = tuple(OutputFit(**{**f, "starts": tuple(f["starts"])}) for f in config["fits"])
        return model
