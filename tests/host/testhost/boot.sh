#!/bin/sh
# Becomes PID 1 of a test host: makes its mounts, turns to its root and runs its systemd.
#
#     boot.sh TEMPLATE SCRATCH HIERARCHY...       (started in fresh namespaces of every kind but user)
#
# The host's root is TEMPLATE with what the host changes kept in the directory SCRATCH.  A HIERARCHY is a v1 cgroup
# hierarchy's mount options, or "unified".
set -eu

template=$1
scratch=$2
shift 2

mount --make-rprivate /
if [ "$(stat -f -c %T "$scratch")" = overlayfs ]; then
    mount -t tmpfs -o mode=755 tmpfs "$scratch"
fi
cd "$scratch"
mkdir changes work root
mount -t overlay -o "lowerdir=$template,upperdir=$scratch/changes,workdir=$scratch/work" overlay root
# The product's own overlay mounts can't have their changes on an overlay.
cp -a "$template/var/lib" lib
mount --bind lib root/var/lib
cd root

mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o nosuid,nodev,noexec sysfs sys

cgroup2() {
    # nsdelegate is refused where the machine's own mount lacks it: the two share their options.
    mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 "$1" 2>/dev/null ||
        mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$1"
}
if [ "$*" = unified ]; then
    cgroup2 sys/fs/cgroup
else
    mount -t tmpfs -o mode=755,nosuid,nodev,noexec tmpfs sys/fs/cgroup
    # systemd starts in this mode only when both of its own hierarchies are there.
    mkdir sys/fs/cgroup/unified sys/fs/cgroup/systemd
    cgroup2 sys/fs/cgroup/unified
    mount -t cgroup -o nosuid,nodev,noexec,none,name=systemd cgroup sys/fs/cgroup/systemd
    for options; do
        case $options in
            unified | none,name=systemd) continue ;;
        esac
        directory=sys/fs/cgroup/${options#none,name=}
        mkdir "$directory"
        mount -t cgroup -o "nosuid,nodev,noexec,$options" cgroup "$directory"
    done
fi

# The devices are the machine's, bound: making new ones may be forbidden.  No kmsg: it's the machine's log.
mount -t tmpfs -o mode=755,nosuid tmpfs dev
mkdir dev/net dev/pts dev/shm
for node in null zero full random urandom tty fuse net/tun; do
    if [ -e "/dev/$node" ]; then
        : > "dev/$node"
        mount --bind "/dev/$node" "dev/$node"
    fi
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5,nosuid,noexec devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr

mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp
mkdir run/pydockerd-testhost

mkdir run/machine
pivot_root . run/machine
umount -l /run/machine
rmdir /run/machine
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=unshare TERM=dumb \
    /lib/systemd/systemd --system --show-status=false --log-target=journal < /dev/null > /dev/null 2>&1
