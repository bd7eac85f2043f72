#!/usr/bin/env bash
# Installs the engines that the scale-out tests run against, each only where it is missing: PostgreSQL,
# Ceph's radosgw as an S3 server, HAProxy and nginx. Needs Debian or Ubuntu, and root.
set -euo pipefail

has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; }
has_ceph() { command -v radosgw >/dev/null && command -v ceph-mon >/dev/null && command -v ceph-osd >/dev/null; }
has_nginx() { [ -x /usr/sbin/nginx ] || command -v nginx >/dev/null; }
has_haproxy() { [ -x /usr/sbin/haproxy ] || command -v haproxy >/dev/null; }

packages=()
has_postgres || packages+=(postgresql)
has_ceph || packages+=(ceph-mon ceph-osd radosgw)
has_haproxy || packages+=(haproxy)
has_nginx || packages+=(nginx-light)
if [ ${#packages[@]} -eq 0 ]; then exit 0; fi

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
  echo "Missing: ${packages[*]}. Install them with your system's package manager, or run this as root on Debian." >&2
  exit 1
fi
echo "Installing ${packages[*]} …"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# The packages' own services are not wanted: the tests start engines of their own.
apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "${packages[@]}" >/dev/null
has_postgres && has_ceph && has_haproxy && has_nginx
