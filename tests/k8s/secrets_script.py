"""What secrets.sh may do: draw values and hand them to kubectl through a pipe, nothing else."""

import re

from tests.cluster.local_script import IN_PLACE_OF_A_COMMAND

COMMANDS = {
    "do", "done", "echo", "fi", "for", "head", "if", "kubectl", "local", "make_secret", "od",
    "printf", "random", "return", "set", "shift", "then", "tr",
}  # fmt: skip
"""All that it calls: no tee, no temporary file, no other source of values."""
RANDOM = "random() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'; }\n"
PIPED = (
    '    for key in "$@"; do printf \'  %s: "%s"\\n\' "$key" "$(random)"; done\n'
    '  } | kubectl -n "$NAMESPACE" create -f -\n'
)
ASKED = [
    'if kubectl -n "$NAMESPACE" get secret "$name" > /dev/null 2>&1; then',
    '} | kubectl -n "$NAMESPACE" create -f -',
    'kubectl get namespace "$NAMESPACE" > /dev/null 2>&1 || kubectl create namespace "$NAMESPACE"',
]
"""All that kubectl is asked: what it shows of a Secret goes nowhere."""
NOWHERE = {"/dev/null", "&1"}


def find_secrets_problems(text: str) -> list[str]:
    """Return where values would not be random, or would lie or show elsewhere."""
    shell = re.sub(r"^ *#.*\n", "", text, flags=re.M)
    problems = [f"lacks {each.strip()}" for each in (RANDOM, PIPED) if each not in shell]
    if shell.count("$(") != 1 or len(re.findall(r"\brandom\b", shell)) != 2 or "`" in shell:
        problems.append("draws a value for another use")
    asked = [line.strip() for line in shell.splitlines() if "kubectl" in line]
    if asked != ASKED:
        problems.append(f"asks {asked} instead of {ASKED}")
    unquoted = re.sub(r"\"[^\"\n]*\"|'[^'\n]*'", '""', shell)
    written = set(re.findall(r">+\|?\s*([^\s;|)]+)", unquoted))
    problems += [f"writes to {each}" for each in sorted(written - NOWHERE)]
    called = set(IN_PLACE_OF_A_COMMAND.findall(unquoted))
    return problems + [f"calls {each}" for each in sorted(called - COMMANDS)]
