"""What the witness's word changes: who may become or stay Primary without a link, who may go on alone, what it is told.

Where mirrors are linked the link decides, and the witness only keeps the books. Where they are not, one node wins: a
Secondary becomes Primary only after the witness has written down that this copy alone is the newest, and a Primary
completes no further write before the same.
"""

from __future__ import annotations

import msgspec

from relevo.arbiter import rules
from relevo.arbiter.ballot import Vote, Wish
from relevo.arbiter.events import MirrorView, Verdict
from relevo.arbiter.rules import Answer, Case

OVERRULED = frozenset({"no_proof", "unlinked", "fresh_secondary", "peer_went_alone"})
"""Refusals for want of proof, or by what a peer seemed to do: the witness knows."""

NEEDS_NO_WITNESS = frozenset({"left_in_order"})
"""The peer's copy is marked Outdated on its own disk."""

AT_REST = frozenset({"Connected", "VerifyS", "VerifyT"})
"""Connections on which both disks have everything, if both are UpToDate."""

_JUST_CREATED = 4
"""drbd's generation of a copy that was never in use: the same on every new disk, so it proves nothing."""


def judged(case: Case, answer: Answer) -> Answer:
    """The rules' answer in the light of the witness."""
    vote, mine = case.vote, case.mine
    if vote is None or mine is None or answer.rule in NEEDS_NO_WITNESS:
        return answer
    if rules.is_live(mine):
        return _linked(case, vote, answer)
    if mine.role == rules.PRIMARY:
        return _stays(case, mine, vote, answer)
    if answer.force:
        return msgspec.structs.replace(answer, needs_claim=bool(vote.answers))
    if answer.verdict is Verdict.YES or answer.rule in OVERRULED:
        return _becomes(case, mine, vote)
    if answer.rule == "data_not_up_to_date" and vote.known and vote.entry is not None and not vote.included:
        return _left_out(case, vote)  # it was marked Outdated for that
    return answer


def _linked(case: Case, vote: Vote, answer: Answer) -> Answer:
    """A hand-over waits until the books are right; where the witness is away it does not."""
    waits = answer.rule in rules.BY_LINK and vote.answers and vote.entry is not None and not vote.included
    if not waits:
        return answer
    reason = f"Waiting until the witness knows that the copy of {case.mirror} here is whole too."
    return Answer(Verdict.WAIT, "witness_told", reason)


def _stays(case: Case, mine: MirrorView, vote: Vote, answer: Answer) -> Answer:
    if vote.known and vote.entry is not None and not vote.included and not case.forced:
        return Answer(
            Verdict.NO,
            "outvoted",
            f"The witness let {_names(vote)} go on with {case.mirror} without this node.",
            "Nothing has to be done: the mirrors become one again when they meet.",
        )
    sole = vote.known and vote.sole
    if mine.suspended and not sole and not vote.answers and vote.lease_left_ms == 0:
        return Answer(
            Verdict.NO,
            "lease_over",
            f"{case.peer} and the witness are both silent: {case.peer} may have taken over {case.mirror}.",
            f"Repair this node's network. {case.force_remedy}",
        )
    return answer


def _becomes(case: Case, mine: MirrorView, vote: Vote) -> Answer:
    if not vote.known:
        if vote.answers is False:
            reason = f"Neither {case.peer} nor the witness answers: nothing proves that {case.peer} does not write."
            return Answer(Verdict.NO, "witness_silent", reason, f"Bring one of them back. {case.force_remedy}")
        return Answer(Verdict.WAIT, "witness_asked", f"Asking the witness who has the newest data of {case.mirror}.")
    if vote.entry is None:
        reason = f"The witness does not know yet who has the newest data of {case.mirror}."
        return Answer(Verdict.NO, "witness_new", reason, case.force_remedy)
    if not vote.included:
        return _left_out(case, vote)
    if rules.generation(vote.entry.generation) not in {
        rules.generation(mine.current_uuid),
        rules.generation(mine.bitmap_uuid),
    }:
        reason = f"The copy of {case.mirror} here is another one than the witness knows: was its disk replaced?"
        return Answer(Verdict.NO, "other_data", reason, f"Bring {case.peer} back. {case.force_remedy}")
    if vote.sole:
        return Answer(Verdict.YES, "witness", f"The witness says that {case.mirror} is newest here.", needs_claim=True)
    waits = f" {vote.waits_for}" if vote.waits_for else ""
    return Answer(Verdict.YES, "witness", f"{case.peer} is silent, the witness is asked.{waits}", needs_claim=True)


def _left_out(case: Case, vote: Vote) -> Answer:
    reason = f"The newest data of {case.mirror} is on {_names(vote)}, says the witness."
    return Answer(Verdict.NO, "not_in_sync", reason, f"Bring {_names(vote)} back. {case.force_remedy}")


def _names(vote: Vote) -> str:
    return " and ".join(vote.entry.in_sync) if vote.entry is not None else "nobody"


def has_claimed(case: Case) -> bool:
    """The witness has written down that this copy alone is the newest."""
    return case.vote is not None and case.vote.known and case.vote.sole


def may_continue_alone(case: Case) -> bool:
    """May a Primary here complete writes without this peer?"""
    if case.vote is None:
        return rules.may_continue_alone(case)
    facts = case.node.facts
    theirs = facts.mirrors.get(case.mirror) if facts is not None else None
    marked = case.node.alive == rules.LEFT and theirs is not None and theirs.outdated
    return marked or case.forced or rules.is_live(case.mine) or has_claimed(case)


def is_included(case: Case) -> bool:
    """The witness counts this copy among the newest."""
    return case.vote is not None and case.vote.known and case.vote.included


def is_outvoted(case: Case) -> bool:
    """The witness has let others go on without this node's copy: it is behind, or will be."""
    vote = case.vote
    return vote is not None and vote.known and vote.entry is not None and not vote.included and not case.forced


def wish(case: Case, me: str, epoch: int, *, wanted: bool) -> Wish | None:
    """What the witness shall say of the mirror; None: whatever it says.

    Args:
        case: the situation.
        me: this node.
        epoch: this node's epoch, on stable storage; 0: it has none.
        wanted: this node shall become Primary.
    """
    mine = case.mine
    usable = rules.FORCEABLE_DISKS if case.forced else {rules.UP_TO_DATE}
    if mine is None or mine.disk not in usable or rules.generation(mine.current_uuid) in {0, _JUST_CREATED}:
        return None
    primary = mine.role == rules.PRIMARY
    generation = f"{rules.generation(mine.current_uuid):016X}"
    if rules.is_live(mine):
        if mine.connection in AT_REST and mine.peer_disk == rules.UP_TO_DATE:
            return Wish(generation=generation, in_sync=tuple(sorted((me, case.peer))), epoch=epoch)
        return Wish(generation=generation, in_sync=(me,), epoch=epoch) if primary else None
    if not primary:
        answer = judged(case, rules.may_promote(case))
        if not wanted or not answer.needs_claim or epoch == 0:
            return None
    return Wish(generation=generation, in_sync=(me,), epoch=epoch, force=case.forced)
