# Shared by the scripts beside it; source it. Leaves the shell in the repository's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '%s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# packages GROUP...: the Debian packages of these groups, one a line.
packages() {
  local group
  for group in "$@"; do sed -n "s/^$group //p" scripts/packages; done
}

# configure PRESET [cmake option...]: quiet unless it fails.
configure() {
  local preset=$1 log
  shift
  mkdir -p "build/$preset"
  log="build/$preset/configure.log"
  cmake --preset "$preset" "$@" > "$log" 2>&1 || { cat "$log" >&2; return 1; }
}
