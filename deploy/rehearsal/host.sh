#!/bin/sh
# Run in namespaces of its own by hosts.py: what this machine changes in /etc, /home, /mnt, /run and /tmp, no other sees.
set -eu
folder=$1 shared=$2

mount --make-rprivate /
for place in etc home mnt; do
  mkdir -p "$folder/$place/upper" "$folder/$place/work"
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=$folder/$place/upper,workdir=$folder/$place/work" "/$place"
done
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp
mkdir -p /run/sshd /mnt/podracer
mount --bind "$shared" /mnt/podracer

id ubuntu >/dev/null 2>&1 || useradd --non-unique --uid 1000 --create-home --shell /bin/bash ubuntu
usermod --password '*' ubuntu # no password fits, but keys do
mkdir -p /etc/sudoers.d
echo '#1000 ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/rehearsal

dockerd --bridge=none --iptables=false --ip6tables=false --data-root "$folder/docker" --exec-root /run/docker \
  --pidfile /run/docker.pid --host "unix://$folder/docker.sock" --group ubuntu >"$folder/docker.log" 2>&1 &
ssh-keygen -q -t ed25519 -N '' -f /run/sshd/host
exec "$(command -v sshd)" -D -e -f /dev/null -h /run/sshd/host -o UsePAM=no -o StrictModes=no \
  -o "AuthorizedKeysFile=$folder/authorized_keys" -o "SetEnv=DOCKER_HOST=unix://$folder/docker.sock" 2>"$folder/ssh.log"
