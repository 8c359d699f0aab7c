#!/usr/bin/env bash
# Make the Secrets that the manifests name, at random, in one namespace: k8s/secrets.sh hipray
# What exists stays as it is. Nothing is printed and nothing is written to a file.
#   hipray-ray-token  the token of all Ray APIs        hipray-redis  Redis' password
#   hipray-store      keys of a store without roles: only with --store, for MinIO in dev; for another
#                     store make it yourself with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
set -euo pipefail

NAMESPACE=${1:?the namespace: hipray or hipray-dev}

random() { head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n'; }

# The values go through a pipe: an argument would show in the process list.
make_secret() {
  local name=$1 key
  shift
  if kubectl -n "$NAMESPACE" get secret "$name" > /dev/null 2>&1; then
    echo "$name exists"
    return
  fi
  {
    printf 'apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\nstringData:\n' "$name"
    for key in "$@"; do printf '  %s: "%s"\n' "$key" "$(random)"; done
  } | kubectl -n "$NAMESPACE" create -f -
}

kubectl get namespace "$NAMESPACE" > /dev/null 2>&1 || kubectl create namespace "$NAMESPACE"
make_secret hipray-ray-token auth_token
make_secret hipray-redis password
if [ "${2:-}" = --store ]; then make_secret hipray-store AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY; fi
