"""Shell scripts are read as bash would run them, every word with its place; what only a run can tell stays unknown."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baton.check.shell import script as shell
from baton.check.shell.script import Command, Script, Word
from baton.check.text import Source, Text

BASH = shutil.which("bash")


def read(script: str, **variables: str) -> Script:
    """Read a script with variables set by its environment."""
    return shell.read(Source("run.sh", script).whole(), {name: word(value) for name, value in variables.items()})


def word(value: str, *, is_known: bool = True) -> Word:
    text = Source("env", value).whole()
    return Word(text, text.span(), is_known)


def shown(command: Command) -> list[str]:
    """Return a command's words; ? stands before one that is not known, ?? before one that may become many."""
    return [("" if w.is_known else "??" if w.is_splitting else "?") + w.value for w in command.words]


def lines(script: Script) -> list[str]:
    return [" ".join(shown(command)) for command in script.commands]


def env_of(script: Script, program: str) -> dict[str, str]:
    command = next(c for c in script.commands if c.words[0].value == program)
    return {name: ("" if w.is_known else "?") + w.value for name, w in command.env.items()}


# Every snippet is run by bash too; `p` writes down its arguments.
SNIPPETS = [
    r"""p a 'b c' "d e" f\ g""",
    r"""p "a\"b" "a\$b" "a\\b" "a\`b" "a\nb" """,
    r"""p 'a'"b"c\d""",
    r"""p $'a\tb\x41\101\'"q' $'\\'""",
    'p "a \\\nb" c\\\nd',
    "p \\\n  a \\\n  b",
    "p a\\\nb \\\n--x\\\n=1",
    r"""X=1; p $X ${X} "$X" '$X' \$X "\$X" a$X"b" """,
    'X="a b  c"; p $X "$X" x$X y${X}z',
    'X=""; p $X "$X" a$X \'\'',
    """X=v; p ${X:-d} ${X-d} ${Y:-d e} "${Y:-d e}" ${Y-"a b" c} ${Y:-'q r'}""",
    "unset Y; p ${Y:=d}; p $Y",
    'X=; p "${X:-d}" "${X-d}" "${X:+set}" "${X+set}"',
    'X=1; p "${X:+--x $X}" ${X:+--x $X} ${X:+"--x $X"}',
    """A=(1 "2 3" '4'); p "${A[@]}" ${A[@]} "${A[*]}" "${A[1]}" ${A[2]} $A "x${A[@]}y" """,
    'A=(); p "${A[@]}" ${A[@]} a"${A[@]}"',
    'A=(--a 1); A+=(--b "2 3"); p "${A[@]}"',
    'A=(a\n  # no word\n  --b "c d" # nor this\n  e)\np "${A[@]}"',
    'X="--a 1"; X+=" --b 2"; p $X; X="$X c"; p $X',
    'p {a,b}c x{1..3}y {a,{b,c}}d {a} {} a{,b} {"x y",z} {c..a}',
    """p {"a":1,"b":2} {"a":1} '{"a":1,"b":2}' """,
    'M=org/model.v1.gguf; p ${M##*/} ${M#*/} ${M%.*} ${M%%.*} "${M%/*}"',
    'f() { p "$1" "$2" "$@"; }; f a "b c"',
    'set -- a "b c" d; p "$@"; p $1 "$2" ${3}; shift; p "$@"',
    """bash -c 'p "$@" $0' zero a "b c" """,
    r"""bash -c "p \"a b\" 'c d'" """,
    """export X=1; bash -c 'p $X'; Y=2; bash -c 'p "$X-${Y:-none}"' """,
    "X=3 bash -c 'p $X'",
    """eval 'p a "b c"'; eval "X='q r'"; p "$X"; eval p "'a b'" c""",
    'bash <<EOF\np a "b c"\nEOF',
    'X=1; bash <<EOF\np $X "\\"" \'$X\' "a\\\\b"\nY=2; p \\$Y\nEOF',
    'bash <<\'EOF\'\n\nX="a b"; p $X "$X"\nEOF',
    """bash <<< 'p "a b" c' """,
    "if true; then X=1; else X=1; fi; p $X",
    "(X=2; p $X); X=1; p $X; { X=4; p $X; }; p $X",
    'X=1; X=2; p $X; Z=$X$X; p $Z "${Z}x"',
    "p a >/dev/null b 2>&1; p a > /dev/null 2>&1 b; p 1 2>/dev/null 3",
    "p a#b '#' \"#c\" # comment",
    "! p a; p b && p c",
    "p == =~ ] [ } -- - = != a=b A=b { 10 -1 1.5 0x10 a =~ b",
    """env A=1 B="2 3" bash -c 'p "$A" "$B"' """,
    'f() { local a=1 b="x y"; p $a "$b"; }; f',
    """case abc in a*) p "x y";; esac""",
    """export A="1 2" B=3 C; p "$A" $B; declare -x D="a b"; bash -c 'p "$D"'""",
    "set -a; E=5; set +a; F=6; bash -c 'p $E ${F:-none}'",
    'cd / && export G=1 && p $G; p "$G"',
    "p \"é\" 'ü ö' ñ$'\\n'x",
    """p "d\ne" 'f\ng' "a'b" 'a"b' "a"'"'"b" """,
    "p a & wait; p b",
    'p "${A:-x}" "a${A:-"x y"}b"',
    'p $((1+2)) "$((2*3))"; N=4; p $((N*2)) $(( $N - 1 )) --n=$((-N/3)) $(( (N+1) % 3 ))',
    "bash -euo pipefail -c 'p a'; sh -c 'p b'; bash -o pipefail -ec 'p c'; timeout 5 bash -c 'p x'",
    r"""bash -c 'bash -c "p \"a b\" c"'""",
    """OPTS="--a 'b c'"; p $OPTS; eval p $OPTS""",
    r"""p [a] "*" \* "a;b" 'c|d' e\;f""",
    """p "" '' ""a""",
    'foo=bar; p foo=$foo --x="$foo" "--y=$foo z"',
    "f() { exit 3; }; p a || f; if [ -d /nonexistent ]; then X=1; exit 1; else X=2; fi; p $X",
    "while true; do p in; break; done; for i in a; do p k; done",
    '[ -d / ] && p yes; [[ -n "a" && ! ( x == y ) ]] && p "y s"',
]


@pytest.mark.skipif(BASH is None, reason="compares with bash, which is not on this machine")
@pytest.mark.parametrize("script", SNIPPETS)
def test_words_are_what_bash_makes_of_them(script: str, tmp_path: Path) -> None:
    log = tmp_path / "arguments"
    program = tmp_path / "p"
    program.write_text(f'#!/bin/sh\nprintf "%s\\\\0" "$#" "$@" >> {log}\n')
    program.chmod(0o755)
    log.touch()
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run([str(BASH), "-c", script], env=environment, stdin=subprocess.DEVNULL, check=False, timeout=20)
    items = log.read_text().split("\0")[:-1]
    expected = []
    while items:
        count = int(items[0])
        expected.append(items[1 : 1 + count])
        items = items[1 + count :]
    found = read(script)
    assert expected
    assert [shown(c)[1:] for c in found.commands if c.words[0].value == "p"] == expected
    assert found.faults == ()


def quoted_line(words: list[str]) -> str:
    return shlex.join(["run", *words])


PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=12).filter(lambda t: "{{" not in t)


@settings(max_examples=150, deadline=None)
@given(st.lists(PRINTABLE, max_size=6), st.integers(0, 2))
def test_a_quoted_line_is_read_back_through_any_number_of_shells(words: list[str], depth: int) -> None:
    script = quoted_line(words)
    for _ in range(depth):
        script = f"bash -c {shlex.quote(script)}"
    found = read(script)
    assert [w.value for w in found.commands[-1].words] == ["run", *words]
    assert all(w.is_known for w in found.commands[-1].words)
    assert len(found.commands) == depth + 1
    assert found.faults == ()


TOKENS = r"""
if then fi for do done case
esac in { } ( ) $( ${ " ' ` \ <<EOF EOF ; & | && || $X X= A=( {{ }} é [[ ]] (( )) $(( <( > < #
bash eval -c = [ ] @ $ $" $' f() * ! X+= export ssh <<< , a {1..9} :- %% [@] 1
"""
FRAGMENTS = st.sampled_from([*TOKENS.split(), "\n", "\r\n", " ", "\t", "\x00", "\u2028", "\udfff"])


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(st.text(max_size=60), st.lists(FRAGMENTS, max_size=40).map("".join), st.lists(FRAGMENTS).map(" ".join))
)
def test_no_text_makes_it_raise_and_every_place_is_in_the_text(script: str) -> None:
    found = read(script)
    for command in found.commands:
        for w in (*command.words, *command.env.values()):
            assert 0 <= w.span.start <= w.span.end <= len(script)
            assert 0 <= w.text.span().start <= len(script)
    for fault in found.faults:
        assert 0 <= fault.span.start <= fault.span.end <= len(script)


@pytest.mark.parametrize(
    "script",
    [
        "(" * 3000,
        "$(" * 3000,
        "if x; then " * 2000,
        "X=ab; " + "X=$X$X; " * 60 + "p $X",
        "set -- a b; " + 'set -- "$@" "$@"; ' * 60,
        "[ " * 5000,
    ],
)
def test_scripts_made_to_hurt_end_quickly(script: str) -> None:
    before = time.process_time()
    read(script + "\n" + "p " + "{a,b}" * 40)
    assert time.process_time() - before < 5


def test_scripts_that_call_themselves_end() -> None:
    read("""X='eval "$X"; eval "$X"'; eval "$X"; f() { f; f; }; f""")


UNKNOWN = [
    ('p $X "$X" --x=$X', "p ??$X ?$X ?--x=$X"),
    ("p $(hostname) a$(date)b", "hostname|date|p ??$(hostname) ?a$(date)b"),
    ('p "$@" $* $1', "p ??$@ ??$* ??$1"),
    ("p $((X+1)) ${#X} ${X/a/b}", "p ?$((X+1)) ??${#X} ??${X/a/b}"),
    ("for i in 0 1; do p $i 800$i; done; p $i", "p ??$i ?800$i|p ??$i"),
    ("X=1; for i in 0 1; do p $X; X=2; done; p $X", "p ??$X|p ??$X"),
    ("while read -r a b; do p $a; done < f", "read -r a b|p ??$a"),
    ("if x; then X=1; else X=2; fi; p $X", "x|p ??$X"),
    ("X=1; [ -n $Y ] && X=2; p $X", "p ??$X"),
    ("X=1; x || X=2; p $X", "x|p ??$X"),
    ("case $Y in a) X=1;; b) X=2;; esac; p $X", "p ??$X"),
    ("case $Y in a) X=1;; *) exit 1;; esac; p $X", "exit 1|p 1"),
    ("O='--a 1'; if x; then O=\"$O --b\"; fi; p $O", "x|p --a 1 ??$O"),
    ('A=(--a 1); if x; then A+=(--b); fi; p "${A[@]}"', "x|p --a 1 ??${A[@]}"),
    ('O="--a $X --b"; p $O', "p --a ??$X --b"),
    ("E+=' --b'; p $E", "p ??$E --b"),
    ("source x.sh; p ${M:-m}", "source x.sh|p ??${M:-m}"),
    ("p ${M:+--m $M}", "p ??${M:+--m $M}"),
    ("X=$Y; p $X", "p ??$X"),
    ("i=0; while x; do ((i++)); p $i; done", "x|p ??$i"),
    ("f() { p $1; }; f a; f b", "f a|p ??$1|f b"),
    ("f() { p $X; }; X=1", "p 1"),
    ("p <(x) >(y)", "x|y|p ?<(x) ?>(y)"),
]


@pytest.mark.parametrize(("script", "expected"), UNKNOWN)
def test_what_only_a_run_can_tell_is_not_known(script: str, expected: str) -> None:
    assert "|".join(lines(read(script))) == expected


EVERYWHERE = [
    ("a; b && c || d | e & (f; { g; }) > x\n! h", "a b c d e f g h"),
    ("if a; then b; elif c; then d; else e; fi; while f; do g; done; until h; do i; done", "a b c d e f g h i"),
    ("for x in $(a); do b; done; for ((i=0; i<3; i++)); do c; done; case $(d) in x) e;; *) f;; esac", "a b c d e f"),
    ("function f { b; }; g() ( c ); f; a", "f b a c"),
    ("X=$(a) b; `c`; export Y=$(d); Z=(`e`)", "a b c ??`c` d e"),
    ("ssh -p 3 host 'a; b'", "ssh a b"),
    ("ssh host a -x", "ssh a"),
    ("ssh host bash -c \"'a; b'\"", "ssh bash a b"),
    ("srun -N2 --export=ALL bash -lc 'a && b' & wait", "srun a b wait"),
    ("kubectl exec pod -c main -- bash -c 'a'", "kubectl a"),
    ("docker run --gpus all img sh -c a; su - me -c 'b'; sudo -u x bash -c c", "docker a su b sudo c"),
    ("exec bash -c -e 'a' ; b", "exec a b"),
    ("tmux new-session -d -s s 'a --x 1'", "tmux a"),
    (
        "cat > run.sh <<'EOF'\na\nEOF\ncat <<EOF | ssh host bash\nb\nEOF\nsbatch <<EOF\n#!/bin/bash\nc\nEOF",
        "cat a cat b ssh bash sbatch c",
    ),
    ("cat <<EOF | kubectl apply -f -\nkind: Pod\nEOF\ncat <<EOF > x.yaml\na: b\nEOF", "cat kubectl cat"),
    ("ssh host <<'EOF'\na\nEOF\nssh host 'cat > x' <<EOF\nb\nEOF", "ssh a ssh cat"),
    ("python3 - <<EOF\nimport x\nEOF\ntee x.sh <<EOF\na\nEOF", "python3 tee a"),
    ("echo bash -c 'a b'; grep ssh x y", "echo grep"),
    ("a 2> >(b) < <(c)", "a b c"),
]


@pytest.mark.parametrize(("script", "programs"), EVERYWHERE)
def test_commands_are_found_wherever_they_hide(script: str, programs: str) -> None:
    found = read(script)
    assert [shown(command)[0] for command in found.commands] == programs.split()
    assert found.faults == ()


def test_a_command_gets_what_is_exported_and_what_stands_before_it() -> None:
    script = read("A=1; export B=2 C; C=3; D=4 E=$B p; env F=5 -u X G='6 7' q; unset B; r", Z="0")
    assert env_of(script, "p") == {"Z": "0", "B": "2", "C": "3", "D": "4", "E": "2"}
    assert env_of(script, "r") == {"Z": "0", "C": "3"}
    assert env_of(read("env -u X F=5 G='6 7' q; sudo -E H=1 r; time I=2 s"), "env") == {"F": "5", "G": "6 7"}
    assert env_of(read("export A=$(x); A=$A:1 p"), "p") == {"A": "?$A:1"}
    assert env_of(read("export A=1; A=2; bash -c 'B=3 p'"), "p") == {"A": "2", "B": "3"}
    assert env_of(read("export A=1; ssh host 'B=3 p'"), "p") == {"B": "3"}
    assert env_of(read("(export A=1); p"), "p") == {}
    assert env_of(read("export A=1; export -n A; p"), "p") == {}


def test_variables_of_the_environment_are_filled_in() -> None:
    assert lines(read('p $M --x="$N" ${O:-d}', M="a b", N="c d")) == ["p a b --x=c d d"]
    unset = {"M": word("", is_known=False)}
    assert lines(shell.read(Source("x", "p $M ${M:-d}").whole(), unset)) == ["p ??$M ??${M:-d}"]
    templated = {"M": word("--a {{ .x }} --b", is_known=False)}
    assert lines(shell.read(Source("x", "p $M").whole(), templated)) == ["p --a ??{{ .x }} --b"]


def test_a_word_stands_where_it_is_written_and_its_text_where_it_was_set() -> None:
    source = Source("run.sh", 'MODEL=\'é/m\'\nbash -c "exec vllm serve $MODEL --port \\"80\\" \\\n  --x 1"\n')
    command = shell.read(source.whole()).commands[-1]
    by_value = {w.value: w for w in command.words}
    assert by_value["--port"].span.written == "--port"
    assert (by_value["--x"].span.line, by_value["--x"].span.column) == (3, 3)
    assert by_value["é/m"].text.span().written == "é/m"
    assert by_value["é/m"].text.span().line == 1
    assert by_value["80"].text.span().written == "80"
    assert command.span.line == 2


def test_the_span_of_an_expanded_word_is_the_expansion() -> None:
    source = Source("run.sh", "A=(--a 'b c')\nX='1 2'\np \"${A[@]}\" $X x")
    spans = [w.span.written for w in shell.read(source.whole()).commands[-1].words]
    assert spans == ["p", '"${A[@]}"', '"${A[@]}"', "$X", "$X", "x"]
    texts = [w.text.span().written for w in shell.read(source.whole()).commands[-1].words]
    assert texts == ["p", "--a", "b c", "1", "2", "x"]


def test_places_follow_a_text_that_was_itself_unquoted() -> None:
    source = Source("pod.yaml", 'args: ["vllm serve \\"m n\\" --x"]\n')
    start, end = source.text.index("vllm"), source.text.index('"]')
    offsets = [i for i in range(start, end) if source.text[i] != "\\"]
    text = Text("".join(source.text[i] for i in offsets), source, [*offsets, end])
    words = shell.read(text).commands[0].words
    assert [w.value for w in words] == ["vllm", "serve", "m n", "--x"]
    assert words[2].text.span().written == "m n"
    assert words[3].span.written == "--x"


def test_an_argument_vector_is_one_command_or_the_script_of_its_shell() -> None:
    env = {"M": word("m")}

    def run(*values: str) -> list[str]:
        return lines(shell.command_of(tuple(word(v) for v in values), env))

    assert run("vllm", "serve", "$M") == ["vllm serve $M"]
    assert run("/bin/bash", "-c", "exec vllm serve $M; x") == ["exec vllm serve m", "x"]
    assert run("sh", "-ec", 'vllm "$@" $0', "a0", "a1") == ["vllm a1 a0"]
    assert run("tini", "--", "bash", "-c", "vllm") == ["tini -- bash -c vllm", "vllm"]
    assert run("bash", "run.sh") == ["bash run.sh"]
    assert run("bash", "-c") == ["bash -c"]
    assert run() == []
    script = shell.command_of((word("bash"), word("-c"), word("p {{ .x }} $M", is_known=False)), env)
    assert lines(script) == ["p ??{{ .x }} m"]


def test_templates_are_unknown_words_and_no_fault() -> None:
    script = read(
        "p {{ .a }} --x={{ .b }} \\\n  {{- if .c }}\n  --c \\\n  {{- end }}\n  --d\n{{- if .e }}\nq\n{{- end }}\nr"
    )
    assert lines(script) == ["p ??{{ .a }} ?--x={{ .b }} ??{{- if .c }} --c ??{{- end }} --d", "q", "r"]
    assert script.faults == ()


FAULTS = [
    ("a\nif x; then b\n", "2:1", "'if' without 'fi'", "a x b"),
    ('a\nb "c\n', "2:3", "'\"' without '\"'", "a b"),
    ("a )\nb", "1:3", "')' closes nothing", "a b"),
    ("cat <<EOF\na\n", "1:7", "without the line 'EOF'", "cat"),
    ("for i in 1; do a", "1:1", "'for' without 'done'", "a"),
]


@pytest.mark.parametrize(("script", "place", "message", "programs"), FAULTS)
def test_a_syntax_error_is_one_fault_and_the_rest_is_read(script: str, place: str, message: str, programs: str) -> None:
    found = read(script)
    assert [str(fault.span) for fault in found.faults] == [f"run.sh:{place}"]
    assert message in found.faults[0].message
    assert found.faults[0].message.startswith("not valid shell: ")
    assert [c.words[0].value for c in found.commands] == programs.split()


@pytest.mark.parametrize(
    "script",
    [
        "[ -d / ] && p",
        "if ! IFS=: A=($(X=1 p)); then q; fi",
        "cat > x <<\\EOF ||\n{\n}\nEOF\nq",
        "for i do\n  case $i in a) ((x)) ;; esac\ndone\np `q \\`r\\``",
    ],
)
def test_valid_shell_that_the_grammar_does_not_know_is_no_fault(script: str) -> None:
    assert read(script).faults == ()


def test_a_placeholder_in_angle_brackets_is_a_word_that_is_not_known() -> None:
    script = read("""p --model <your-model> --url http://<host ip>:8000 --j '{"a": <n>}' --x 1 # <up to>""")
    assert lines(script) == ["""p --model ??<your-model> --url ?http://<host ip>:8000 --j ?{"a": <n>} --x 1"""]
    unknown = [word.value for word in script.commands[0].words if not word.is_known]
    assert unknown == ["<your-model>", "http://<host ip>:8000", '{"a": <n>}']


@pytest.mark.parametrize("code", ["p <in >out", "p < in > out", "p <<E >out\n<b>\nE", "p <<<x >out", "p 2<in>out"])
def test_redirects_are_no_placeholders(code: str) -> None:
    assert lines(read(code)) == ["p"]


def test_a_batch_script_is_plain_shell() -> None:
    script = read("#!/bin/bash\n#SBATCH --nodes=2\nexport A=1\nsrun -N2 vllm serve m --x \\\n  --y 2>&1 | tee log\r\n")
    assert lines(script) == ["srun -N2 vllm serve m --x --y", "tee log"]
    assert env_of(script, "srun") == {"A": "1"}


def test_a_long_script_is_read_in_milliseconds() -> None:
    part = 'export A=$B\nfor i in 1 2; do\n  srun -w n$i bash -c "vllm serve $M \\\n  --port 80$i --x" &\ndone\nwait\n'
    script = part * 10
    read(script)
    before = time.process_time()
    for _ in range(10):
        read(script)
    assert (time.process_time() - before) / 10 < 0.05
