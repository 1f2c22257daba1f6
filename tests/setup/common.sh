# Shared by the scripts next to it, which source it: a work directory that ends with the script, and the
# search for what was left behind. Needs `set -euo pipefail`.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

check_fuse() {
  if [ ! -e /dev/fuse ]; then
    echo "/dev/fuse not found: try \`modprobe fuse\`; a container wants \`--device /dev/fuse --cap-add SYS_ADMIN\`" >&2
    exit 1
  fi
}

# Sets `work`, a directory of its own, which others can pass through as some tests have other users do, but not
# list. Everything that the script starts from here on has its name in the
# environment, as TMPDIR, by which it is found again; so build first, a compiler's server may stay.
make_work() {
  work=$(cd "$(mktemp -d "${TMPDIR:-/tmp}/alluxio-fuse-$1.XXXXXX")" && pwd -P)
  chmod 711 "$work"
  mkdir "$work/tmp"
  export TMPDIR="$work/tmp"
}

# Has the kernel offer FUSE over io_uring, which it does not by default, until `clean_work`. Where that may not be, mounts go
# on without, which is tried or said then.
allow_io_uring() {
  local switch=/sys/module/fuse/parameters/enable_uring
  if [ "$(cat "$switch" 2> /dev/null)" = N ] && [ -w "$switch" ] && echo Y > "$switch"; then io_uring_switch=$switch; fi
}

mounts_left() { awk -v dir="$work/" 'index($2, dir) == 1 { print $2 }' /proc/mounts; }

# This script itself is none of them: its own environment is from before `make_work`.
processes_left() {
  local environ pid
  for environ in /proc/[0-9]*/environ; do
    if { tr '\0' '\n' < "$environ"; } 2> /dev/null | grep -qxF "TMPDIR=$work/tmp"; then
      pid=${environ#/proc/}
      printf '%s\n' "${pid%/environ}"
    fi
  done
}

# Ends the cluster, then everything else in the work directory. Fails if there was anything else.
clean_work() {
  local left=0 place pid
  if [ -n "${io_uring_switch:-}" ]; then echo N > "$io_uring_switch" || left=1; fi
  if [ -x "$work/cluster/cluster" ]; then "$work/cluster/cluster" stop || left=1; fi
  for place in $(mounts_left); do
    echo "left behind: a mount at $place" >&2
    left=1
    fusermount -uz "$place" 2> /dev/null || umount -l "$place" || true
  done
  # What was told to end may take a moment.
  for _ in $(seq 50); do
    [ -n "$(processes_left)" ] || break
    sleep 0.1
  done
  for pid in $(processes_left); do
    echo "left behind: process $pid, $(tr '\0' ' ' < "/proc/$pid/cmdline" 2> /dev/null)" >&2
    left=1
    kill -KILL "$pid" 2> /dev/null || true
  done
  # Never into a mount that could not be removed.
  if [ -z "$(mounts_left)" ]; then rm -rf --one-file-system "$work"; fi
  return "$left"
}
