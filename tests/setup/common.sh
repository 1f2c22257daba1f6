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

# Runs a command in a process group of its own, which ends with the script: bash hears a signal only when what runs in the
# foreground has ended.
run_job() {
  local code=0
  set -m
  "$@" < /dev/null &
  job=$!
  set +m
  wait "$job" || code=$?
  job=
  return "$code"
}

end_job() {
  if [ -z "${job:-}" ]; then return; fi
  kill -TERM -- "-$job" 2> /dev/null || true
  wait "$job" || true
}

# Leaves what is the user's own out of what is tested or measured. After all downloads, which may need the proxy.
plain_environment() {
  umask 022
  export LC_ALL=C.UTF-8
  unset LANGUAGE {http,https,ftp,all,no}_proxy {HTTP,HTTPS,FTP,ALL,NO}_PROXY
}

# What no other process is, also after another boot or in another container that shares the directory.
identity() {
  local boot namespace start
  boot=$(cat /proc/sys/kernel/random/boot_id)
  namespace=$(readlink /proc/self/ns/pid)
  # Counted from behind the name, which may have blanks.
  start=$(sed 's/.*) //' "/proc/$1/stat" 2> /dev/null | cut -d ' ' -f 20)
  printf '%s\n' "$boot" "$namespace" "$1" "$start"
}

# Cleans up what scripts that were killed have left. Of one in another container it is not known whether it runs.
clean_dead_work() {
  local owner words
  for owner in "${TMPDIR:-/tmp}"/alluxio-fuse-*/owner; do
    [ -O "$owner" ] || continue
    mapfile -t words < "$owner"
    [ "${words[1]:-}" = "$(readlink /proc/self/ns/pid)" ] || continue
    [ "$(identity "${words[2]}")" != "$(cat "$owner")" ] || continue
    echo "cleaning up after process ${words[2]}, which was killed" >&2
    (work=$(cd "$(dirname "$owner")" && pwd -P) && clean_work) || true
  done
}

# Sets `work`, a directory of its own, which others can pass through as some tests have other users do, but not
# list. Everything that the script starts from here on has its name in the
# environment, as TMPDIR, by which it is found again; so build first, a compiler's server may stay.
make_work() {
  clean_dead_work
  work=$(cd "$(mktemp -d "${TMPDIR:-/tmp}/alluxio-fuse-$1.XXXXXX")" && pwd -P)
  chmod 711 "$work"
  identity $$ > "$work/owner"
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

# Ends what `run_job` runs and the cluster, then everything else in the work directory. Fails if there was anything else.
clean_work() {
  local left=0 place pid
  end_job
  if [ -n "${io_uring_switch:-}" ]; then echo N > "$io_uring_switch" || left=1; fi
  if [ -e "$work/cluster/run/settings" ]; then tests/cluster/cluster --home "$work/cluster" stop || left=1; fi
  for place in "$work"/tmp/cluster*/run/settings; do
    [ -e "$place" ] || continue
    echo "left behind: the cluster of a test" >&2
    left=1
    tests/cluster/cluster --home "${place%/run/settings}" stop || true
  done
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
