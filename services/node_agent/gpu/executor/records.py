"""Journal records as lines of text, and back. A line is a checksum, a blank, and JSON on one line."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any, Final

from services.node_agent.core.mig.goal import Goal, Order
from services.node_agent.core.mig.ledger import (
    Adopted,
    Began,
    Booted,
    Call,
    Done,
    Ended,
    Failed,
    Intended,
    Ledger,
    ModeStep,
    Operation,
    Outcome,
    Record,
    Renewed,
    TurnedBack,
)
from services.node_agent.core.mig.model import Layout, Slice
from services.node_agent.core.mig.plan import Action, Step

_CRC_DIGITS: Final = 8


def line_of(record: Record) -> bytes:
    """The line of a record, with its end."""
    text = json.dumps(_written(record), separators=(",", ":"), ensure_ascii=False).encode()
    return f"{zlib.crc32(text):0{_CRC_DIGITS}x} ".encode() + text + b"\n"


def record_of(line: bytes) -> Record:
    """The record of a line, without its end.

    Raises:
        ValueError: the checksum does not match, or it is none of our records.
    """
    crc, text = line[:_CRC_DIGITS], line[_CRC_DIGITS + 1 :]
    if f"{zlib.crc32(text):0{_CRC_DIGITS}x}".encode() != crc:
        raise ValueError("the checksum does not match")
    try:
        return _read(json.loads(text))
    except (KeyError, TypeError, AssertionError) as error:
        raise ValueError(f"no record of this program: {error!r}") from error


def _written(record: Record) -> dict[str, Any]:
    match record:
        case Booted(boot_id):
            body: dict[str, Any] = {"boot_id": boot_id}
        case Adopted(slices):
            body = {"slices": [_slice(one) for one in slices]}
        case Began(order, content, origin, goal):
            body = {"order": _order(order), "content": content, "origin": _goal(origin), "goal": _goal(goal)}
        case Renewed(order):
            body = {"order": _order(order)}
        case Intended(call) | Done(call) | Failed(call):
            body = {"call": _call(call)}
        case TurnedBack(outcome, code, words):
            body = {"outcome": outcome, "code": code, "words": words}
        case Ended(order, content, outcome, code, words, stands):
            told = {"outcome": outcome, "code": code, "words": words}
            body = {"order": _order(order), "content": content, **told, "stands": _goal(stands)}
        case Ledger():
            body = _ledger(record)
    return {"is": type(record).__name__, **body}


def _read(body: Mapping[str, Any]) -> Record:
    match body["is"]:
        case "Booted":
            return Booted(body["boot_id"])
        case "Adopted":
            return Adopted(tuple(Slice(*one) for one in body["slices"]))
        case "Began":
            return Began(Order(*body["order"]), body["content"], _to_goal(body["origin"]), _to_goal(body["goal"]))
        case "Renewed":
            return Renewed(Order(*body["order"]))
        case "Intended":
            return Intended(_to_call(body["call"]))
        case "Done":
            return Done(_to_call(body["call"]))
        case "Failed":
            return Failed(_to_call(body["call"]))
        case "TurnedBack":
            return _to_turned_back(body)
        case "Ended":
            return _to_ended(body)
        case "Ledger":
            return _to_ledger(body)
        case other:
            raise KeyError(other)


def _ledger(ledger: Ledger) -> dict[str, Any]:
    operation = ledger.operation
    return {
        "boot_id": ledger.boot_id,
        "order": _order(ledger.order) if ledger.order else None,
        "content": ledger.content,
        "ours": [_slice(one) for one in sorted(ledger.ours)],
        "settled": _goal(ledger.settled) if ledger.settled else None,
        "operation": {
            "origin": _goal(operation.origin),
            "goal": _goal(operation.goal),
            "back": _written(operation.back) if operation.back else None,
        }
        if operation
        else None,
        "intent": _call(ledger.intent) if ledger.intent else None,
        "last": _written(ledger.last) if ledger.last else None,
    }


def _to_ledger(body: Mapping[str, Any]) -> Ledger:
    operation = body["operation"]
    return Ledger(
        boot_id=body["boot_id"],
        order=Order(*body["order"]) if body["order"] else None,
        content=body["content"],
        ours=frozenset(Slice(*one) for one in body["ours"]),
        settled=_to_goal(body["settled"]) if body["settled"] else None,
        operation=Operation(
            _to_goal(operation["origin"]),
            _to_goal(operation["goal"]),
            _to_turned_back(operation["back"]) if operation["back"] else None,
        )
        if operation
        else None,
        intent=_to_call(body["intent"]) if body["intent"] else None,
        last=_to_ended(body["last"]) if body["last"] else None,
    )


def _to_turned_back(body: Mapping[str, Any]) -> TurnedBack:
    return TurnedBack(Outcome(body["outcome"]), body["code"], body["words"])


def _to_ended(body: Mapping[str, Any]) -> Ended:
    told = (Outcome(body["outcome"]), body["code"], body["words"])
    return Ended(Order(*body["order"]), body["content"], *told, _to_goal(body["stands"]))


def _order(order: Order) -> list[int]:
    return [order.fencing, order.generation, order.step]


def _slice(one: Slice) -> list[int]:
    return [one.start, one.size, one.profile_id]


def _goal(goal: Goal) -> dict[str, Any]:
    return {"mig": goal.mig, "slices": [_slice(one) for one in goal.layout]}


def _to_goal(body: Mapping[str, Any]) -> Goal:
    return Goal(bool(body["mig"]), Layout.of(Slice(*one) for one in body["slices"]))


def _call(call: Call) -> dict[str, Any]:
    if isinstance(call, ModeStep):
        return {"mode": call.enabled}
    return {"action": call.action.name, "slice": _slice(call.slice)}


def _to_call(body: Mapping[str, Any]) -> Call:
    if "mode" in body:
        return ModeStep(bool(body["mode"]))
    return Step(Action[body["action"]], Slice(*body["slice"]))
