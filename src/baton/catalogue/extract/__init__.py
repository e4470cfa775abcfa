"""Reads what a released engine accepts out of its own wheel, without importing or running a line of it.

The law of this room: the wheel is text. Sources are parsed to syntax trees, and the few hundred statements that declare
flags are evaluated by `interpreter`, which knows constants, containers, string methods and the engine's own helper
functions, and answers `Unknown` for everything else. Nothing here is needed to read the catalogue.

    wheel -> sources (syntax trees by module) -> interpreter (+ dataclass_flags) -> vllm | dynamo -> output (JSON)
"""
