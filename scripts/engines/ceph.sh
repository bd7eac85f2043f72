#!/usr/bin/env bash
# A Ceph of one's own (monitor, one storage daemon, radosgw) that speaks S3 on 127.0.0.1, for tests and
# measurements; nothing of it outlives `stop`.
#   ceph.sh start FOLDER PORT     prints its address; uses the ports PORT to PORT+20
#   ceph.sh stop FOLDER           ends it and removes its data
# Key `filetracker`, secret `filetracker-secret`, region us-east-1, path-style addresses. Objects are kept in
# memory; OBJECTSTORE=bluestore keeps them in a sparse file of the folder.
set -euo pipefail
action=${1:?start or stop}
folder=$(realpath -m "${2:?a folder}")
port=${3:-0}

end_daemon() {
  local file=$folder/$1.pid pid
  [ -e "$file" ] || return 0
  pid=$(cat "$file")
  # Its processes are its own group: what it started goes with it.
  kill -- "-$pid" 2>/dev/null || true
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -9 -- "-$pid" 2>/dev/null || true
  rm -f "$file"
}

start_daemon() {
  local label=$1
  shift
  setsid "$@" -f </dev/null >"$folder/$label.out" 2>&1 &
  echo $! >"$folder/$label.pid"
}

write_configuration() {
  cat >"$CEPH_CONF" <<END
[global]
fsid = $fsid
mon host = [v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind port min = $((port + 4))
ms bind port max = $((port + 20))
ms mon client mode = crc
auth cluster required = none
auth service required = none
auth client required = none
run dir = $folder/run
log file = $folder/\$name.log
mon data = $folder/mon
mon data avail crit = 1
mon allow pool size one = true
mon max pg per osd = 1000
osd data = $folder/osd
osd objectstore = ${OBJECTSTORE:-memstore}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd crush chooseleaf type = 0
osd memory target = 1073741824
memstore device bytes = 6442450944
bluestore block size = 21474836480
rgw data = $folder/rgw
rgw frontends = beast endpoint=127.0.0.1:$port
rgw thread pool size = 64
rgw enable usage log = false
END
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

start() {
  mkdir -p "$folder/run" "$folder/osd" "$folder/rgw"
  local fsid disk
  fsid=$(cat /proc/sys/kernel/random/uuid)
  disk=$(cat /proc/sys/kernel/random/uuid)
  export CEPH_CONF=$folder/ceph.conf
  write_configuration
  cd "$folder"
  monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$((port + 1)),v1:127.0.0.1:$((port + 2))]" monmap >/dev/null
  timeout 60 ceph-mon -i a --mkfs --monmap monmap
  start_daemon mon ceph-mon -i a
  timeout 60 ceph osd new "$disk" >/dev/null
  ceph osd crush add osd.0 1 root=default host=here >/dev/null 2>&1
  ceph-osd -i 0 --mkfs --osd-uuid "$disk" >osd.mkfs.out 2>&1
  start_daemon osd ceph-osd -i 0
  timeout 120 radosgw-admin user create --uid filetracker --display-name filetracker --access-key filetracker \
    --secret filetracker-secret >/dev/null 2>radosgw-admin.out
  start_daemon rgw radosgw -n client.rgw
  for _ in $(seq 600); do
    if answers; then
      echo "http://127.0.0.1:$port"
      return
    fi
    sleep 0.1
  done
  echo "radosgw did not start; see $folder/*.out and *.log" >&2
  exit 1
}

case $action in
  start)
    if [ -e "$folder/mon" ]; then
      echo "There is one in $folder already" >&2
      exit 1
    fi
    start
    ;;
  stop)
    for label in rgw osd mon; do end_daemon "$label"; done
    rm -rf "$folder"
    ;;
  *) echo "Unknown action: $action" >&2; exit 2 ;;
esac
