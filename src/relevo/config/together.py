"""Services that name other services: these exist, are not the same one, and no circle has to wait for itself."""

from __future__ import annotations

from relevo.config.draft import Draft
from relevo.config.model import Service


def company(draft: Draft) -> None:
    """Write down what is wrong with `after`, `along_with` and `apart_from`."""
    for name, service in draft.services.items():
        for key, others in _named(service).items():
            for other in others:
                place = ("services", name, key)
                if other == name:
                    draft.source.mistake(place, f"Service {name!r} names itself in {key}.", "Remove it there.")
                else:
                    draft.knows("services", other, place)
        if _waits_for(draft, name, name, set()):
            what = f"Service {name!r} would have to wait for itself: after and along_with go round in a circle."
            draft.source.mistake(("services", name), what, "Take one service out of the circle.")
        if service.along_with and service.along_with in service.apart_from:
            what = f"Service {name!r} shall run with {service.along_with!r} and apart from it."
            draft.source.mistake(("services", name, "apart_from"), what, "Remove one of the two.")


def _named(service: Service) -> dict[str, tuple[str, ...]]:
    along = (service.along_with,) if service.along_with else ()
    return {"after": service.after, "along_with": along, "apart_from": service.apart_from}


def _waits_for(draft: Draft, name: str, goal: str, seen: set[str]) -> bool:
    service = draft.services.get(name)
    if service is None or name in seen:
        return False
    seen.add(name)
    needs = (*service.after, service.along_with)
    return any((one == goal and name != goal) or _waits_for(draft, one, goal, seen) for one in needs if one)
