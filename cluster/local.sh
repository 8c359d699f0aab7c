#!/usr/bin/env bash
# A token-protected Ray head on this machine, on loopback only, for trying `ray job submit`.
#
#   cluster/local.sh start           start it; does nothing where it runs
#   eval "$(cluster/local.sh env)"   address and token for ray, serve and cluster/submit.py
#   cluster/local.sh status          say whether it runs
#   cluster/local.sh stop            end what start started, by process id, and nothing else
#
# HIPRAY_LOCAL: folder of the token, the process ids and Ray's files (short: sockets lie in it).
# HIPRAY_LOCAL_PORT: first of eleven ports (default 6390; the dashboard takes the second).
# HIPRAY_LOCAL_CPUS, HIPRAY_LOCAL_GPUS: what the head offers; default: what is there.
set -euo pipefail

STATE=${HIPRAY_LOCAL:-/tmp/hipray-$(id -u)}
PORT=${HIPRAY_LOCAL_PORT:-6390}
DASHBOARD=$((PORT + 1))
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [ -x "$ROOT/.venv/bin/ray" ]; then PATH=$ROOT/.venv/bin:$PATH; fi
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$STATE/auth_token
export RAY_USAGE_STATS_ENABLED=0 NO_ALBUMENTATIONS_UPDATE=1
# as hipray/distributed/cluster.py says for a Ray of its own: who reserved no GPU sees none
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=1
# Ray's switch for laptops that must not open ports: without it a node given 127.0.0.1 takes the
# machine's outer address instead and listens there.
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
# as hipray/serving/running.py says for a Ray of its own
export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=hipray.serving.proxy:list_middlewares
export RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S=2
export RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S=2
export RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S=20
export AUTOSCALER_METRIC_PORT=$((PORT + 9)) DASHBOARD_METRIC_PORT=$((PORT + 10))

# Processes of this head, as "pid start-time" (a number alone may by now be another process's):
# those whose command line names its folder, and their children, which name themselves otherwise.
own_processes() {
  python - "$STATE/ray/" "$PORT" <<'PY'
import os, pathlib, sys
parents, own = {}, set()
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        if folder.stat().st_uid != os.getuid() or int(folder.name) == os.getpid():
            continue
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:  # it has ended
        continue
    if fields[0] == "Z":
        continue
    parents[folder.name] = (fields[1], fields[19])
    ray = any(word.startswith((b"--session-dir", b"--temp-dir", b"--temp_dir", b"--session_dir",
                               b"--log_dir", b"--raylet_socket_name", b"--logs-dir"))
              and sys.argv[1].encode() in word + b"/" for word in command)
    client = b"ray.util.client.server" in command and any(
        word.endswith(f":{sys.argv[2]}".encode()) for word in command)
    if ray or client:
        own.add(folder.name)
while more := {p for p, (parent, _) in parents.items() if parent in own and p not in own}:
    own |= more
print("\n".join(f"{p} {parents[p][1]}" for p in sorted(own, key=int)))
PY
}

# What is left of a list of processes.
still_there() {
  local pid born
  while read -r pid born; do
    if [ "$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | cut -d' ' -f20)" = "$born" ]; then echo "$pid $born"; fi
  done
}

answers() {
  [ -s "$RAY_AUTH_TOKEN_PATH" ] || return 1
  python - "http://127.0.0.1:$DASHBOARD/api/version" "$RAY_AUTH_TOKEN_PATH" 2>/dev/null <<'PY'
import sys, urllib.request
token = open(sys.argv[2]).read().strip()
request = urllib.request.Request(sys.argv[1], headers={"Authorization": f"Bearer {token}"})
urllib.request.urlopen(request, timeout=5)
PY
}

start() {
  if answers; then echo "already running at http://127.0.0.1:$DASHBOARD"; return; fi
  if [ -n "$(own_processes)" ]; then
    echo "processes of an earlier start do not answer; run: $0 stop" >&2; exit 1
  fi
  umask 077
  mkdir -p "$STATE"
  if [ "$(stat -c %u "$STATE")" != "$(id -u)" ] || [ -L "$STATE" ]; then
    echo "$STATE is not this user's folder; set HIPRAY_LOCAL" >&2; exit 1
  fi
  chmod 700 "$STATE"
  if [ ! -s "$RAY_AUTH_TOKEN_PATH" ]; then
    python -c 'import secrets; print(secrets.token_hex(32))' > "$RAY_AUTH_TOKEN_PATH"
  fi
  ray start --head --node-ip-address=127.0.0.1 --port="$PORT" \
    --dashboard-host=127.0.0.1 --dashboard-port="$DASHBOARD" \
    --ray-client-server-port=$((PORT + 2)) --node-manager-port=$((PORT + 3)) \
    --object-manager-port=$((PORT + 4)) --metrics-export-port=$((PORT + 5)) \
    --dashboard-agent-listen-port=$((PORT + 6)) --dashboard-agent-grpc-port=$((PORT + 7)) \
    --runtime-env-agent-port=$((PORT + 8)) \
    ${HIPRAY_LOCAL_CPUS:+--num-cpus="$HIPRAY_LOCAL_CPUS"} \
    ${HIPRAY_LOCAL_GPUS:+--num-gpus="$HIPRAY_LOCAL_GPUS"} \
    --temp-dir="$STATE/ray" --disable-usage-stats > "$STATE/start.log" 2>&1 \
    || { cat "$STATE/start.log" >&2; stop > /dev/null; exit 75; }  # what came up goes down again
  own_processes > "$STATE/processes"
  for _ in $(seq 60); do
    if answers; then
      echo "running at http://127.0.0.1:$DASHBOARD; next: eval \"\$($0 env)\"; end it with: $0 stop"
      return
    fi
    sleep 1
  done
  echo "started, but the dashboard does not answer; see $STATE/ray/session_latest/logs" >&2
  exit 75
}

# The list is made once, before its first process ends: orphans cannot be told from others.
stop() {
  local list signal
  list=$( (own_processes; still_there 2>/dev/null < "$STATE/processes" || true) 2>/dev/null | sort -un)
  if [ -z "$list" ]; then echo "not running"; rm -f "$STATE/processes"; return; fi
  for signal in TERM KILL; do
    # shellcheck disable=SC2046
    kill -s "$signal" $(still_there <<< "$list" | cut -d' ' -f1) 2>/dev/null || true
    for _ in $(seq 40); do
      if [ -z "$(still_there <<< "$list")" ]; then break 2; fi
      sleep 0.25
    done
  done
  rm -f "$STATE/processes"
  echo "stopped"
}

environment() {
  echo "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$STATE/auth_token"
  # a driver in this shell is a part of the cluster and listens as well
  echo "export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0"
  echo "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$DASHBOARD RAY_ADDRESS=127.0.0.1:$PORT"
  echo "export RAY_DASHBOARD_ADDRESS=http://127.0.0.1:$DASHBOARD"
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  status) if answers; then echo "running at http://127.0.0.1:$DASHBOARD"; else echo "not running"; exit 1; fi ;;
  env) environment ;;
  *) sed -n '2,11p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
