# The first steps inside the sandbox's new namespaces; ends by becoming dockerd.
# Words: runtime folder, data folder, packages, daemon.json, process that starts us, addresses that stay closed, networks
# inside. All paths may hold blanks.
set -eu
here=${0%/*} runtime=$1 data=$2 engine=$3 config=$4 starter=$5 closed=$6 networks=$7

# /proc is still the machine's: it knows the starter's network, which is the way out, and by which numbers the machine
# knows us and our parent, the first process.
exec 3<"/proc/$starter/ns/net"
read -r stat </proc/self/stat
set -- $stat
echo "$4 $1" >"$runtime/pids.new"
mv "$runtime/pids.new" "$runtime/pids"

# The starter says when everything outside is ready. If it dies before, this read fails, and with us all is gone.
read -r gateway address
exec </dev/null

# A /run of our own: engines of the machine are out of sight, and every path below it is short and plain.
new=$runtime/inner
mount -n -t tmpfs -o mode=755 tmpfs "$new"
mkdir "$new/lyra" "$new/data" "$new/engine" "$new/cgroup"
mount -n --bind "$runtime" "$new/lyra"
mount -n --bind "$data" "$new/data"
mount -n --bind "$engine" "$new/engine"
mount -n --rbind /sys/fs/cgroup "$new/cgroup"
cp "$config" "$new/daemon.json"
mount -n -t proc -o nosuid,nodev,noexec proc /proc
mount -n -t sysfs -o nosuid,nodev,noexec sysfs /sys
mount -n --move "$new/cgroup" /sys/fs/cgroup

tools=$runtime/engine
export PATH="$tools/bin:/usr/sbin:/usr/bin:/sbin:/bin" LD_LIBRARY_PATH="$tools/lib" XTABLES_LIBDIR="$tools/xtables"
: >"$new/router"
unshare --net="$new/router" sh "$here/router.sh" "$closed" $networks

# slirp4netns stays in the machine's network, and keeps the machine's /etc and /run, where its resolver is named. Where
# it cannot run, the router refuses what leaves. Orphaned, it becomes a child of the first process and ends with it. It
# closes descriptor 4 when it is ready, or dead: the substitution waits for that.
set -- slirp4netns --configure --mtu=1500 --cidr=10.215.1.0/24 --disable-host-loopback
set -- "$@" --enable-sandbox --enable-seccomp --ready-fd=4 --netns-type=path "$new/router" tap0
: "$(nsenter --net=/proc/self/fd/3 unshare --mount sh -c '"$@" 4>&1 >&2 3<&- &' - "$@")"
exec 3<&-
mount -n --move "$new" /run

# Names are asked of slirp4netns, and the machine's resolver behind it. One that is silent is not waited for for long.
resolv=$(readlink -m /etc/resolv.conf)
case $resolv in /run/*) mkdir -p "${resolv%/*}" && : >"$resolv" ;; esac
if [ -e "$resolv" ]; then
    printf 'nameserver 10.215.1.3\noptions timeout:2 attempts:2\n' >/run/resolv.conf
    mount -n --bind /run/resolv.conf "$resolv"
fi

export PATH=/run/engine/bin:/usr/sbin:/usr/bin:/sbin:/bin LD_LIBRARY_PATH=/run/engine/lib XTABLES_LIBDIR=/run/engine/xtables
for scope in all default; do
    [ ! -e "/proc/sys/net/ipv6/conf/$scope" ] || echo 1 >"/proc/sys/net/ipv6/conf/$scope/disable_ipv6"
done
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
ip address add "$address/30" dev up0
ip link set up0 up
ip address add 10.215.2.2/30 dev out0
ip link set out0 up
ip route add default via 10.215.2.1

# Over the link to the machine go answers only. Everything else is refused at once, always: TCP gets a reset (other
# refusals come while connect() looks away, and only the second try hears of them), and refusals have no limit.
# Containers open no connection to the sandbox's own addresses either, and nobody but the machine comes in. DOCKER-USER is
# what dockerd asks first and never changes.
echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
iptables -N REFUSE
iptables -A REFUSE -p tcp -j REJECT --reject-with tcp-reset
iptables -A REFUSE -j REJECT
# Newer engines drop what comes for a container by its own address; the router's refusals do, and nothing else from there.
iptables -t raw -A PREROUTING -i out0 -j ACCEPT
iptables -N DOCKER-USER
iptables -A DOCKER-USER -o up0 -m conntrack ! --ctstate ESTABLISHED,RELATED -j REFUSE
iptables -A DOCKER-USER -i up0 ! -s "$gateway" -j DROP
iptables -A OUTPUT -o up0 -m conntrack ! --ctstate ESTABLISHED,RELATED -j REFUSE
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -i up0 ! -s "$gateway" -j DROP
iptables -A INPUT ! -i up0 -m conntrack ! --ctstate ESTABLISHED,RELATED -j REFUSE

exec dockerd --config-file /run/daemon.json
