#!/usr/bin/env bash
# A PostgreSQL of one's own, on 127.0.0.1, for tests and measurements; nothing of it outlives `stop`.
#   postgres.sh start FOLDER PORT     prints its address; started again, it finds its data
#   postgres.sh kill FOLDER PORT      ends it at once, as a crash would; the data stays
#   postgres.sh stop FOLDER           ends it and removes its data
# DURABLE=1 keeps fsync on: slower, and the way to measure. POSTGRES_BIN names the folder of its programs.
set -euo pipefail
action=${1:?start, kill or stop}
folder=$(realpath -m "${2:?a folder}")
port=${3:-0}
data=$folder/data

newest_bin() {
  local bin newest=
  while read -r bin; do [ -x "$bin/initdb" ] && newest=$bin; done < <(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V)
  [ -n "$newest" ] || newest=$(dirname "$(command -v initdb)")
  echo "$newest"
}
bin=${POSTGRES_BIN:-$(newest_bin)}

# PostgreSQL refuses to run as root.
as_owner() {
  if [ "$(id -u)" = 0 ]; then (cd / && exec runuser -u postgres -- "$@"); else "$@"; fi
}

case $action in
  start)
    mkdir -p "$folder"
    if [ "$(id -u)" = 0 ]; then chown postgres "$folder"; fi
    if [ ! -e "$data/PG_VERSION" ]; then
      as_owner "$bin/initdb" -D "$data" -U postgres --auth=trust --encoding=UTF8 --no-locale --no-sync >/dev/null
    fi
    settings="-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories='$folder' -c max_connections=300"
    settings+=" -c shared_buffers=${SHARED_BUFFERS:-128MB} -c max_locks_per_transaction=128"
    if [ -z "${DURABLE:-}" ]; then settings+=" -c fsync=off -c full_page_writes=off"; fi
    as_owner "$bin/pg_ctl" -D "$data" -l "$folder/log" -w -t 60 -o "$settings" start >/dev/null
    echo "postgres://postgres@127.0.0.1:$port/postgres"
    ;;
  kill) as_owner "$bin/pg_ctl" -D "$data" -m immediate -w stop >/dev/null ;;
  stop)
    if [ -e "$data/postmaster.pid" ]; then as_owner "$bin/pg_ctl" -D "$data" -m immediate -w stop >/dev/null || true; fi
    rm -rf "$folder"
    ;;
  *) echo "Unknown action: $action" >&2; exit 2 ;;
esac
