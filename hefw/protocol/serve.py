"""`python -m hefw.protocol.serve`: a server process on an inherited socket. It ends when the other side goes away."""

from __future__ import annotations

import argparse
import json
import socket
import sys
from pathlib import Path

from hefw import cache as caching
from hefw.backends.choose import make
from hefw.core.errors import HefwError, ProtocolError, line
from hefw.core.graph import Graph
from hefw.plugins import registry
from hefw.protocol import wire
from hefw.protocol.server import Server
from hefw.protocol.stream import Stream


def serve(server: Server, stream: Stream) -> None:
    """Answer messages until the stream ends; after bytes that are no frame it cannot be trusted, and is closed."""
    while True:
        try:
            frame = stream.receive()
        except ProtocolError:
            return
        except HefwError as error:
            stream.send(wire.error(error))
            return
        if frame is None:
            return
        try:
            stream.send(server.handle(frame, stream.send))
        except ProtocolError:
            return  # the key holder is gone


def main() -> int:
    """Exit code 0 at the end of the session, 1 with one line if the model or the backend cannot be loaded."""
    parser = argparse.ArgumentParser(prog="hefw.protocol.serve")
    parser.add_argument("--fd", type=int, required=True, help="an open socket")
    parser.add_argument("--model", type=Path, required=True, help="a graph file")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--options", default="{}", help="the backend's options, JSON")
    parser.add_argument("--threads", type=int, default=1, help="how many work on an operation together")
    arguments = parser.parse_args()
    try:
        entry = registry().entry("backend", arguments.backend)
        options = entry.options.model_validate(json.loads(arguments.options))
        backend = make(entry, options)
        graph = Graph.load(arguments.model)
        cache = caching.default()
    except (HefwError, ValueError) as error:  # pydantic's and json's errors are ValueErrors
        print(f"error: {line(error)}", file=sys.stderr)
        return 1
    backend.drop_secrets()
    stream = Stream(socket.socket(fileno=arguments.fd))
    serve(Server(graph, backend, threads=arguments.threads, cache=cache), stream)
    return 0


if __name__ == "__main__":
    sys.exit(main())
