"""Parts of a campaign that come from outside: made from what a config names, checked, and told what is wrong.

Code is imported only by names that the user gave. What a part promises stands in the protocol files:
evoquant/{search,genomes,scoring}/protocol.py.
"""

from __future__ import annotations

import copy
import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evoquant.campaign.config_own import CodeConfig, HeldConfig
from evoquant.campaign.in_memory import borrowed_part
from evoquant.errors import ConfigError, InputError, quoted, raised_by
from evoquant.execution.protocol import Executor
from evoquant.genomes.base import Space, digest_of
from evoquant.genomes.load import KINDS, genome_from_dict, know_genomes
from evoquant.models.code import imported
from evoquant.rng import generator_for
from evoquant.scoring.protocol import CostMaker, Objective, RetentionModel
from evoquant.search.protocol import Search

if TYPE_CHECKING:
    from evoquant.genomes.base import Genome


@dataclass(frozen=True)
class Part:
    """What a key of a config takes.

    Attributes:
        protocol: that it keeps.
        called: what its class is called with, for messages.
        where: the module that says more.
        suite: of `evoquant.testing` that tries it.
    """

    protocol: type
    called: str
    where: str
    suite: str


PARTS = {
    "objective": Part(Objective, "(**options)", "evoquant.scoring.protocol", "check_objective"),
    "cost": Part(CostMaker, "(**options)", "evoquant.scoring.protocol", "check_cost"),
    "estimator": Part(RetentionModel, "(**options)", "evoquant.scoring.protocol", "check_estimator"),
    "executor": Part(Executor, "(**options)", "evoquant.execution.protocol", "check_executor"),
    "genome": Part(Space, "(problems, **options)", "evoquant.genomes.protocol", "check_space"),
    "search": Part(Search, "(space, seed=seed, **options)", "evoquant.search.protocol", "check_search"),
}


def load_code(name: str) -> Any:
    """The attribute that `module:attribute` names.

    Raises:
        ConfigError: it cannot be imported.
    """
    return imported(name, fault=ConfigError)


def own_part(config: CodeConfig | HeldConfig, key: str, *args: Any, **given: Any) -> Any:
    """The part of a campaign that a config names.

    Args:
        config: of it.
        key: of the campaign's config.
        args, given: what evoquant makes it with, beside its own options.

    Raises:
        ConfigError: it cannot be imported or made, or does not keep the protocol; the message says what to do.
    """
    if isinstance(config, CodeConfig):
        name, options = config.kind, config.options
        thing = load_code(config.kind)
        if not callable(thing):
            raise ConfigError(f"{key}.kind: {name} is no class, so nothing can be made of it; name a class.")
        return _checked(_made(thing, key, name, options, args, given), key, name)
    return given_part(borrowed_part(config, key), key, config.what, *args, **given)


def given_part(thing: Any, key: str, name: str, *args: Any, **given: Any) -> Any:
    """The part of a campaign that an object is, or that a class or a function makes.

    Args:
        thing: from a program.
        key: of the campaign's config.
        name: for messages.
        args, given: what evoquant makes it with.

    Raises:
        ConfigError: it cannot be made, or does not keep the protocol; the message says what to do.
    """
    if not is_maker(key, thing):
        # A search changes as it goes: the program's own stays as it was given.
        return _checked(copy.deepcopy(thing) if key == "search" else thing, key, name)
    return _checked(_made(thing, key, name, {}, args, given), key, name)


def is_maker(key: str, thing: Any) -> bool:
    """Whether an object is a class, or a function, of which a part is made, and not the part itself."""
    if inspect.isclass(thing):
        return True
    whole = not _lacking(PARTS[key].protocol, thing)
    return not whole and (inspect.isroutine(thing) or isinstance(thing, functools.partial))


def _made(
    thing: Any, key: str, name: str, options: dict[str, Any], args: tuple[Any, ...], given: dict[str, Any]
) -> Any:
    where = f"{key}.options" if options else f"{key}.kind"
    try:
        inspect.signature(thing).bind(*args, **given, **options)
    except TypeError as error:
        called = f"{name.rpartition(':')[2]}{PARTS[key].called}"
        raise ConfigError(f"{where}: {name} cannot be called as {called}: {error}.") from None
    except ValueError:  # built in, without a signature
        pass
    try:
        return thing(*args, **given, **options)
    except InputError as error:
        raise ConfigError(f"{where}: {name}: {error}") from None
    except Exception as error:  # whatever it may raise
        raise ConfigError(f"{where}: making {name} raised {raised_by(error)}.") from error


def _checked(thing: Any, key: str, name: str) -> Any:
    part = PARTS[key]
    missing = _lacking(part.protocol, thing)
    if missing:
        raise ConfigError(
            f"{key}.kind: {name} lacks {', '.join(missing)}; what it has to have, and what that promises, says "
            f"{part.where}.{part.protocol.__name__}, and evoquant.testing.{part.suite} tries it."
        )
    return thing


def _lacking(protocol: type, thing: Any) -> list[str]:
    """Names of the protocol that an object does not have, methods with their brackets."""
    names = [name for name in vars(protocol) if not name.startswith("_") and callable(getattr(protocol, name))]
    values = [name for name in getattr(protocol, "__annotations__", {}) if not name.startswith("_")]
    values += [name for name, value in vars(protocol).items() if isinstance(value, property)]
    if "__call__" in vars(protocol):
        names.append("__call__")
    lacking = [f"{name}()" for name in names if not callable(getattr(thing, name, None))]
    return [name for name in values if not hasattr(thing, name)] + lacking


def check_own_space(space: Space, name: str, seed: int) -> None:
    """Check that the genomes of a space can be written down and read back, and know how from now on.

    Raises:
        ConfigError: they cannot.
    """
    remedy = "see evoquant.genomes.protocol.Space; evoquant.testing.check_space tries it"
    try:
        genome: Genome = space.decode(space.sample(generator_for(seed, 0, "own genome"), 1)[0])
        data = genome.to_dict()
        kind = data.get("kind")
    except Exception as error:  # whatever it may raise
        raise ConfigError(f"genome.kind: {name}: sampling a genome raised {raised_by(error)}; {remedy}.") from error
    if kind not in KINDS:
        if not isinstance(kind, str) or kind != space.kind:
            raise ConfigError(
                f"genome.kind: {name}: to_dict()['kind'] of its genomes is {quoted(kind)}; should be the space's "
                f"`kind`, {quoted(space.kind)}; {remedy}."
            )
        know_space(space, name)
    if digest_of(genome_from_dict(data, f"genome.kind: {name}: what to_dict() gave")) != digest_of(genome):
        raise ConfigError(f"genome.kind: {name}: genome_from_dict makes another genome than to_dict wrote; {remedy}.")


def know_space(space: Any, name: str) -> None:
    """From now on read the genomes of this space, or class of spaces.

    Raises:
        ConfigError: it does not say how, or calls them by a name of ours.
    """
    kind, load = getattr(space, "kind", None), getattr(space, "genome_from_dict", None)
    if not isinstance(kind, str) or kind in KINDS or not callable(load):
        raise ConfigError(
            f"genome.kind: {name}: its genomes cannot be read back: the class needs `kind`, a word of its own, and a "
            f"class method genome_from_dict(data); see evoquant.genomes.protocol.Space."
        )
    know_genomes(kind, load, name)
