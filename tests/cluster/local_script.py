"""What local.sh may say: its variables, its commands and the start of Ray, all word for word."""

import re

from hipray.distributed.loopback import SWITCH
from hipray.serving.running import ENVIRONMENT

STATE = "RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$STATE/auth_token"
EXPORTS = [
    STATE,
    "RAY_USAGE_STATS_ENABLED=0 NO_ALBUMENTATIONS_UPDATE=1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1",
    f"{SWITCH}=0",
    *(f"{name}={value}" for name, value in ENVIRONMENT.items()),
    "AUTOSCALER_METRIC_PORT=$((PORT + 9)) DASHBOARD_METRIC_PORT=$((PORT + 10))",
]
"""What Ray is started with."""
TOLD = [
    STATE,
    f"{SWITCH}=0",
    "RAY_API_SERVER_ADDRESS=http://127.0.0.1:$DASHBOARD RAY_ADDRESS=127.0.0.1:$PORT",
    "RAY_DASHBOARD_ADDRESS=http://127.0.0.1:$DASHBOARD",
]
"""What a shell is told that works with it."""
VARIABLES = ["STATE", "PORT", "DASHBOARD", "ROOT", "PATH"]
"""What else is set, once each: of the above nothing, in front of a command or later."""
START = (
    'ray start --head --node-ip-address=127.0.0.1 --port="$PORT" '
    '--dashboard-host=127.0.0.1 --dashboard-port="$DASHBOARD" '
    "--ray-client-server-port=$((PORT + 2)) --node-manager-port=$((PORT + 3)) "
    "--object-manager-port=$((PORT + 4)) --metrics-export-port=$((PORT + 5)) "
    "--dashboard-agent-listen-port=$((PORT + 6)) --dashboard-agent-grpc-port=$((PORT + 7)) "
    "--runtime-env-agent-port=$((PORT + 8)) "
    '${HIPRAY_LOCAL_CPUS:+--num-cpus="$HIPRAY_LOCAL_CPUS"} '
    '${HIPRAY_LOCAL_GPUS:+--num-gpus="$HIPRAY_LOCAL_GPUS"} '
    '--temp-dir="$STATE/ray" --disable-usage-stats > "$STATE/start.log" 2>&1 '
)
RIGHTS = ["umask 077", 'chmod 700 "$STATE"']
CLOSED = (
    "set -euo pipefail\n",
    "if folder.stat().st_uid != os.getuid() or int(folder.name) == os.getpid():\n",
    '2>/dev/null | cut -d\' \' -f20)" = "$born" ]; then echo "$pid $born"; fi\n',
    '!= "$(id -u)" ] || [ -L "$STATE" ]; then\n',
    "python -c 'import secrets; print(secrets.token_hex(32))' > \"$RAY_AUTH_TOKEN_PATH\"\n",
)
"""Lines that tell its own processes and files from those of others."""
COMMANDS = {
    "answers", "break", "case", "cat", "cd", "chmod", "cut", "dirname", "do", "done", "echo",
    "env", "environment", "esac", "exit", "export", "fi", "for", "id", "if", "kill", "local",
    "mkdir", "own_processes", "pwd", "python", "ray", "read", "return", "rm", "sed", "seq",
    "set", "sleep", "sort", "start", "stat", "status", "still_there", "stop", "then", "true",
    "umask",
}  # fmt: skip
"""All that it calls, its own functions and the shell's words included."""
IN_PLACE_OF_A_COMMAND = re.compile(
    r"(?:^|[;|&({)])[ ]*(?:(?:then|else|do|if|while)[ ]+)*([a-z_][\w.-]*)(?=[ \n;)]|$)", re.M
)


def find_local_problems(text: str) -> list[str]:
    """Return what would open the local head to others, or is not of it."""
    shell = re.sub(r"<<'PY'\n.*?^PY\n", "\n", text, flags=re.M | re.S)
    shell = re.sub(r"^ *#.*\n|  # .*$", "", shell.replace("\\\n", " "), flags=re.M)
    exports = re.findall(r"^ *export (.+)$", shell, re.M)
    told = re.findall(r'^ *echo "export (.+)"$', shell, re.M)
    rest = re.sub(r'^ *(?:echo ")?export .+$', "", shell, flags=re.M)
    problems = [f"lacks {line.strip()}" for line in CLOSED if line not in text]
    for what, found, known in (
        ("exports", exports, EXPORTS),
        ("tells", told, TOLD),
        ("sets", re.findall(r"(?<![\w$])([A-Z][A-Z0-9_]*)=", rest), VARIABLES),
        ("gives rights by", re.findall(r"\b(?:chmod|umask) .+", shell), RIGHTS),
        ("starts", re.findall(r"\bray start .*?(?=\|\|)", re.sub(" +", " ", shell)), [START]),
    ):
        if found != known:
            problems.append(f"{what} {found} instead of {known}")
    unquoted = re.sub(r'"(?:\\.|(?!\$\()[^"\\\n])*"|\'[^\'\n]*\'', '""', shell)
    called = set(IN_PLACE_OF_A_COMMAND.findall(unquoted))
    return problems + [f"calls {word}" for word in sorted(called - COMMANDS)]
