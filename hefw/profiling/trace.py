"""A profile in the Trace Event Format (JSON) of Chrome, which Perfetto opens: parties as processes, calls as slices."""

from __future__ import annotations

import json
from typing import Any

from hefw.profiling.record import Profile
from hefw.profiling.timing import Event

KEY_HOLDER, SERVER = 1, 2
OF_KEY_HOLDER = ("make keys", "network", "select", "encrypt", "decrypt")
MICROSECONDS = 1e6


def to_trace(profile: Profile) -> str:
    """The text of trace.json. Decryptions for the diagnosis are gaps: they are no part of a run."""
    names = {KEY_HOLDER: "key holder", SERVER: "server"}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": pid, "args": {"name": name}}
        for pid, name in names.items()
    ]
    events += [_slice(span, KEY_HOLDER if span.name in OF_KEY_HOLDER else SERVER) for span in profile.spans]
    events += [_slice(event, SERVER) for event in profile.events]
    events.sort(key=lambda event: (event.get("ts", -1.0), -event.get("dur", 0.0)))
    other = {
        "model": profile.model,
        "backend": profile.library,
        "simulated": profile.simulated,
        "insecure": profile.insecure,
        "note": "both parties in one process; every operation is noted, so that times are for comparing parts",
    }
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ms", "otherData": other}) + "\n"


def _slice(event: Event, process: int) -> dict[str, Any]:
    whole = event.name == "region"
    args: dict[str, Any] = {"step": event.step}
    if event.region and not whole:
        args["region"] = event.region
    if event.level is not None and event.scale_bits is not None:
        args |= {"level": event.level, "scale_bits": round(event.scale_bits, 2)}
    return {
        "ph": "X",
        "name": event.region if whole else event.name,
        "cat": "region" if whole else "operation" if process == SERVER else "key holder",
        "pid": process,
        "tid": process,
        "ts": round(event.start * MICROSECONDS, 1),
        "dur": round(event.seconds * MICROSECONDS, 1),
        "args": args,
    }
