"""Linear models with Gaussian noise and their exact laws, and formulas evaluated on Gaussian laws with mean zero."""

from dataclasses import dataclass

import numpy as np

from bayeswm.causal import CausalGraph, Probability, Product, Ratio, Sum


@dataclass(frozen=True)
class LinearModel:
    """Weights by edge and noise variances by name, hidden causes among them."""

    weights: dict[tuple[str, str], float]
    noise: dict[str, float]

    @property
    def names(self):
        return tuple(self.noise)

    def transfer(self, do=()):
        """What one unit of each variable's noise adds to each variable, shape (to, from)."""
        at = {name: i for i, name in enumerate(self.names)}
        direct = np.zeros((len(at), len(at)))
        for (cause, effect), weight in self.weights.items():
            if effect not in do:
                direct[at[effect], at[cause]] = weight
        return np.linalg.inv(np.eye(len(at)) - direct)

    def covariance(self, do=()):
        """Covariance of all variables; after an intervention the values that are set have variance 0."""
        moved = self.transfer(do)
        return moved @ np.diag([0.0 if name in do else v for name, v in self.noise.items()]) @ moved.T

    def effect(self, outcome, do):
        """E[outcome | do] as weights on the values that are set, and the variance."""
        moved, y = self.transfer(do), self.names.index(outcome)
        return moved[y, [self.names.index(name) for name in do]], self.covariance(do)[y, y]


def random_linear_model(graph: CausalGraph, rng: np.random.Generator) -> LinearModel:
    """A model of the graph with random weights; each bidirected edge is a hidden cause of variance 1."""
    weights = {edge: rng.normal() for edge in graph.edges}
    hidden = {f"u{i}": pair for i, pair in enumerate(graph.confounded)}
    weights |= {(u, name): rng.normal() for u, pair in hidden.items() for name in pair}
    return LinearModel(weights, dict.fromkeys(hidden, 1.0) | {name: rng.uniform(0.5, 2) for name in graph.order})


def gaussian_effect(found, model):
    """E[outcome | do, given] as weights on these values, and the variance, from an estimand and the observed law."""
    names, precision = potential(found.estimand, model.names, model.covariance())
    (outcome,) = found.query.outcome
    others = (*found.query.do, *found.query.given)
    y, rest = names.index(outcome), [names.index(name) for name in others if name in names]
    weights = dict(zip((others[i] for i in range(len(others)) if others[i] in names), -precision[y, rest], strict=True))
    return np.array([weights.get(name, 0.0) / precision[y, y] for name in others]), 1 / precision[y, y]


def potential(part, names, covariance):
    """The formula as exp(-v'Kv/2) up to a factor: the names of v, and K."""
    match part:
        case Probability(of, given):
            both = (*of, *given)
            found = _inverse(both, names, covariance)
            found[len(of) :, len(of) :] -= _inverse(given, names, covariance)
            return both, found
        case Product(factors):
            parts = [potential(factor, names, covariance) for factor in factors]
            return _added([(axes, precision, 1.0) for axes, precision in parts])
        case Ratio(above, below):
            return _added([(*potential(above, names, covariance), 1.0), (*potential(below, names, covariance), -1.0)])
        case Sum(over, term):
            axes, precision = potential(term, names, covariance)
            out, kept = [i for i, a in enumerate(axes) if a in over], [i for i, a in enumerate(axes) if a not in over]
            cross = precision[np.ix_(kept, out)]
            left = precision[np.ix_(kept, kept)] - cross @ np.linalg.solve(precision[np.ix_(out, out)], cross.T)
            return tuple(axes[i] for i in kept), left


def _inverse(some, names, covariance):
    index = [names.index(name) for name in some]
    return np.linalg.inv(covariance[np.ix_(index, index)]) if index else np.zeros((0, 0))


def _added(parts):
    axes = tuple(dict.fromkeys(name for names, _, _ in parts for name in names))
    total = np.zeros((len(axes), len(axes)))
    for names, precision, sign in parts:
        index = [axes.index(name) for name in names]
        total[np.ix_(index, index)] += sign * precision
    return axes, total
