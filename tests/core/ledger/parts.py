"""The parts of a whole that captures and reversals move, as docs/ledger.md describes them, in plain Python."""

from core.ledger.items import Leg


def between(legs: tuple[Leg, ...], done: int, then: int, unit: int = 0) -> tuple[Leg, ...]:
    earlier, later = (shares([leg.amount for leg in legs], part, unit) for part in (done, then))
    return tuple(Leg(leg.account, b - a) for leg, a, b in zip(legs, earlier, later, strict=True))


def shares(legs: list[int], part: int, unit: int = 0) -> list[int]:
    """Return what each leg has moved once `part` of the leg `unit` is due.

    That leg's side is rounded down, the other side split from the last leg on, so that its first takes the rest.
    """
    sign = 1 if legs[unit] > 0 else -1
    moved = [abs(leg) * part // abs(legs[unit]) if leg * sign > 0 else 0 for leg in legs]
    due = sum(moved)
    others = [place for place, leg in enumerate(legs) if leg * sign < 0]
    while others:
        weight = sum(abs(legs[place]) for place in others)
        place = others.pop()
        moved[place] = abs(legs[place]) * due // weight
        due -= moved[place]
    return [each if leg > 0 else -each for each, leg in zip(moved, legs, strict=True)]
