"""Parts of campaigns as somebody outside would write them; tests name them as `own_parts:Class`."""

from dataclasses import dataclass

import numpy as np

from evoquant.errors import GenomeError, InputError
from evoquant.genomes.base import Gene, NumericOperators, sample_genes
from evoquant.scoring.cost import Cost


@dataclass(frozen=True)
class Halves:
    """One width up to a position, another behind it."""

    cut: float
    first: str
    rest: str

    @property
    def parts(self):
        return 2

    @property
    def text(self):
        return f"up to {self.cut:g} {self.first}; else {self.rest}"

    def allocate(self, problem):
        first, rest = (problem.menu.resolve(name) for name in (self.first, self.rest))
        return problem.repair_one(np.where(problem.position < self.cut, first, rest).astype(np.int8))

    def to_dict(self):
        return {"kind": "halves", "cut": self.cut, "first": self.first, "rest": self.rest}


class HalvesSpace(NumericOperators):
    kind = "halves"

    def __init__(self, problems, most=1.0):
        self.menu = problems[0].menu
        widest = len(self.menu) - 1
        self.genes = (
            Gene("cut", "fraction", 0, most, 0),
            Gene("first", "width", 0, widest, 1),
            Gene("rest", "width", 0, widest, 2),
        )

    def sample(self, rng, n):
        return sample_genes(self.genes, rng, n)

    def dormant(self, genes):
        return np.zeros(genes.shape, dtype=bool)

    def canonical(self, genes):
        return genes

    def parts(self, genes):
        return np.full(len(genes), 2, dtype=np.int64)

    def allocate(self, genes, problem):
        rows = [self.decode(row).allocate(problem) for row in genes]
        return np.array(rows, dtype=np.int8).reshape(len(genes), len(problem.units))

    def encode(self, genome):
        if not isinstance(genome, Halves):
            raise GenomeError("halves alone can be varied here.")
        return np.array([genome.cut, *(self.menu.resolve(name) for name in (genome.first, genome.rest))], dtype=float)

    def decode(self, row):
        names = self.menu.names
        return Halves(float(row[0]), names[int(row[1])], names[int(row[2])])

    @classmethod
    def genome_from_dict(cls, data):
        if set(data) != {"kind", "cut", "first", "rest"}:
            raise GenomeError("halves have cut, first and rest.")
        return Halves(float(data["cut"]), str(data["first"]), str(data["rest"]))


class Nanoseconds:
    """A pass over each layer: so much a call, and a picosecond for each bit."""

    def __init__(self, call=1000):
        self.call = call

    def __call__(self, profile, menu, members):
        layers = profile.layers
        time = [[sum(self._of(layers[i], p.code_bits) for i in unit) for p in menu] for unit in members]
        return Cost("nanoseconds", np.array(time, dtype=np.int64), 0, sum(self._of(layer, 32) for layer in layers))

    def _of(self, layer, bits):
        return self.call + layer.parameters * bits // 1000


class Pessimist:
    """The separable estimate, to a power."""

    def __init__(self, power=1.5):
        self.power = power

    def retention(self, problem, allocations):
        loss = problem.loss[np.arange(len(problem.units)), allocations].sum(axis=1)
        return np.exp(-self.power * loss / 2.0**40)


class Fragile(Pessimist):
    """Raises for what begins at the narrowest width, and has no number for what begins at the next."""

    def retention(self, problem, allocations):
        if (allocations[:, 0] == 0).any():
            raise KeyError("narrow")
        return np.where(allocations[:, 0] == 1, np.nan, super().retention(problem, allocations))


class Goal:
    floor = 0.9

    def score(self, retention, compression, effective_bits):
        return np.where(retention >= self.floor, compression, retention - 1)


class Misnamed(HalvesSpace):
    kind = "quarters"


class Unreadable(HalvesSpace):
    genome_from_dict = None


class Forgetful(HalvesSpace):
    @classmethod
    def genome_from_dict(cls, data):
        return Halves(0.5, str(data["first"]), str(data["rest"]))


class NoDevice:
    def __init__(self):
        raise RuntimeError("no device")


class NoTable:
    def __init__(self):
        raise InputError("latency.csv: no such file")


class Three:
    def __call__(self, profile, menu, members):
        return 3

    def retention(self, problem, allocations):
        return np.zeros(3)


class Wrong(Nanoseconds):
    """A table with one fault, by name."""

    def __init__(self, **faults):
        super().__init__()
        self.faults = faults

    def __call__(self, profile, menu, members):
        made = super().__call__(profile, menu, members)
        table = made.table.astype(self.faults.get("dtype", "int64")) * self.faults.get("sign", 1)
        return Cost(self.faults.get("name", made.name), table, 0, self.faults.get("reference", made.reference))


number = 3
