#!/bin/sh
# The endpoint's tokens, made here and kept by Kubernetes alone: sh deploy/kuberay/secret.sh [NAMESPACE]
# Run again, it changes nothing. To see one:
#   kubectl get secret podracer -o jsonpath='{.data.token}' | base64 -d
set -eu
namespace=${1:-default}
token() { python3 -c 'import secrets; print(secrets.token_urlsafe(32), end="")'; }
if kubectl --namespace "$namespace" get secret podracer >/dev/null 2>&1; then
  echo "the secret podracer is there already"
  exit 0
fi
# From files that only this user may read, and not from words that everybody sees in a list of processes.
umask 077
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
token > "$folder/token"
token > "$folder/admin-token"
kubectl --namespace "$namespace" create secret generic podracer --from-file="$folder/token" --from-file="$folder/admin-token"
