"""Who reaches the ping targets: what the nodes tell of them, compared. Plain questions to two nodes' facts."""

from __future__ import annotations

from relevo.manager.model import NodeFacts, Reach


def lost(facts: NodeFacts | None) -> tuple[str, ...]:
    """The targets that a node has lost, sorted."""
    told = facts.reach if facts is not None else {}
    return tuple(sorted(name for name, word in told.items() if word is Reach.LOST))


def gain(here: NodeFacts | None, there: NodeFacts | None) -> str:
    """What a service would gain by going from one node to another: a clause; empty when it must not go for that.

    It gains a target that is lost here and reached there. It gains nothing where it would give another one up, so that
    no two nodes ever have something to gain from each other; and nothing from a node with another configuration, whose
    targets may be others. A doubtful word is no reason to go, and none to come.
    """
    if here is None or there is None or here.config_hash != there.config_hash:
        return ""
    names = here.reach.keys() | there.reach.keys()
    found = [name for name in sorted(names) if _is_lost(here, name)]
    reached = [name for name in found if there.reach.get(name) is Reach.REACHED]
    given_up = [name for name in names if not _is_lost(here, name) and there.reach.get(name) is not Reach.REACHED]
    return listed(reached) if reached and not given_up else ""


def listed(names: list[str] | tuple[str, ...]) -> str:
    """`the ping target a`, `the ping targets a and b`."""
    return f"the ping target{'s' if len(names) > 1 else ''} {' and '.join(names)}" if names else ""


def hindrance(name: str, home: NodeFacts | None, holder: NodeFacts | None, *, strict: bool) -> str:
    """Why a service does not go back to a node called `name`; empty when the ping targets are no reason.

    Strictly: every target has to be reached there. Else (a person sends it, or it is on its way) it is enough that home
    is not the worse place, from which it would only come back.
    """
    told = home.reach if home is not None else {}
    away = [target for target, word in sorted(told.items()) if word is not Reach.REACHED]
    if not strict:
        away = [target for target in away if _is_lost(home, target) and not _is_lost(holder, target)]
    if not away:
        return ""
    how = "has lost" if set(away) & set(lost(home)) else "has not reached for long enough"
    return f"{name} {how} {listed(away)}"


def _is_lost(facts: NodeFacts | None, target: str) -> bool:
    return facts is not None and facts.reach.get(target) is Reach.LOST
