"""Pages: what each code means, for `baton check --explain CODE` and for reports that carry help along."""

from __future__ import annotations

from collections.abc import Iterator

from baton.base.errors import ConfigError
from baton.catalogue.history import close
from baton.check import ignores, run
from baton.check.bundle import Bundle
from baton.check.finding import Finding, Harm
from baton.check.rule import Rule, all_rules

_IGNORE_PAGE = """
A comment that asks baton to ignore something does not do what it says.

`# baton: ignore[CODE] reason` at the end of a line, or alone above it, leaves out the findings with that code on that
line; several codes are separated by commas. A command continued with backslashes counts as one line, so its comment
stands above it. `# baton: ignore-file[CODE] reason` above the first line that is not a comment holds for the whole
file. What was left out is counted, and listed in the JSON and SARIF reports with its reason.

A comment without a reason or a code leaves nothing out: who reads it in a year must know why it is there. A code that
does not exist is named, with the nearest that does. A comment that has nothing to leave out is a note: the fault may be
gone, or it shows only with --gpu or beside other files.
"""

_IGNORE_FIRES = """\
apiVersion: v1
kind: Pod
metadata:
  name: engine  # baton: ignore[removed-flag]
"""

_IGNORE_SILENT = """\
# The engine is started by hand.
apiVersion: v1
kind: Pod
metadata:
  name: engine
"""

_INTERNAL_PAGE = """
A rule of baton's broke on these files.

This is a fault of baton's, not of the files. All other rules have run and what they found stands. What this rule would
have found is missing. Please report it with the code of the rule and the smallest file that shows it.
"""


def _nothing(_: Bundle) -> Iterator[Finding]:
    return iter(())


def _own(code: str, harm: Harm, page: str, fires: str = "", silent: str = "") -> Rule:
    """A code that the runner itself gives, not one of the rules."""
    title = page.strip().splitlines()[0].rstrip(".")
    return Rule(
        code=code, title=title, page=page.strip(), harm=harm, see=(), fires=fires, silent=silent, check=_nothing
    )


_OWN = (
    _own(ignores.CODE, Harm.FRAGILE, _IGNORE_PAGE, _IGNORE_FIRES, _IGNORE_SILENT),
    _own(run.INTERNAL_ERROR, Harm.UNKNOWN, _INTERNAL_PAGE),
)


def codes() -> tuple[Rule, ...]:
    """Return all that a finding can be, worst first: the rules, and the codes the runner itself gives."""
    return tuple(sorted((*all_rules(), *_OWN), key=lambda rule: (rule.harm, rule.code)))


def listing() -> str:
    """Return a line for each code: severity, code, title; worst first."""
    known = codes()
    width = max(len(rule.code) for rule in known)
    return "".join(f"{rule.harm.severity:<7}  {rule.code:<{width}}  {rule.title}\n" for rule in known)


def page(code: str) -> str:
    """Return the page of a code as Markdown; raises ConfigError, with the nearest codes, for one there is not."""
    known = {rule.code: rule for rule in codes()}
    rule = known.get(code)
    if rule is None:
        near = close(code, list(known))
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(f"no code {code!r}; {hint}`baton check --explain all` lists them")
    parts = [f"# {rule.code}: {rule.title}", f"{rule.harm.severity}: {words(rule.harm)}", body(rule)]
    parts += [f"## A file in which it fires\n\n{_block(rule.fires)}"] if rule.fires else []
    parts += [f"## A file in which it does not\n\n{_block(rule.silent)}"] if rule.silent else []
    parts += ["## Public threads\n\n" + "\n".join(f"- {thread}" for thread in rule.see)] if rule.see else []
    return "\n\n".join(part for part in parts if part) + "\n"


def body(rule: Rule) -> str:
    """Return a rule's page without its title line."""
    return "\n".join(rule.page.splitlines()[1:]).strip()


def words(harm: Harm) -> str:
    """Return what a harm is, in a few words."""
    return {
        Harm.WRONG_ANSWERS: "answers are wrong, with HTTP 200",
        Harm.NOT_SERVING: "every pod is green and nothing is served, or nothing is disaggregated",
        Harm.NOT_STARTING: "something exits, is rejected or waits for ever",
        Harm.WASTED: "a setting does nothing, or GPUs or speed are lost, and nobody is told",
        Harm.FRAGILE: "it works until something changes: a restart, an upgrade, another cluster",
        Harm.UNKNOWN: "baton cannot know, and says what it could not check",
    }[harm]


def _block(text: str) -> str:
    return f"````\n{text.strip(chr(10))}\n````"
