# Set up the sandbox inside its new namespaces, then become dockerd.
# Arguments: runtime directory, data directory, packages, daemon.json, the process that starts us, blocked addresses, and
# the networks inside. All paths may contain blanks.
set -eu
here=${0%/*} runtime=$1 data=$2 engine=$3 config=$4 starter=$5 closed=$6 networks=$7

# /proc is still the machine's. It leads to the network of the starter, which is the way out, and has the ids by which
# the machine knows us and our parent, the first process.
exec 3<"/proc/$starter/ns/net"
read -r stat </proc/self/stat
set -- $stat
echo "$4 $1" >"$runtime/pids.new"
mv "$runtime/pids.new" "$runtime/pids"

# The starter writes this line when everything outside is ready. If it dies, the read fails and the sandbox ends.
read -r gateway address
exec </dev/null

# A separate /run hides the engines of the machine and keeps all paths below it short.
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

# slirp4netns stays in the machine's network and sees the machine's /etc and /run, which name the resolver. If it cannot
# run, the router rejects outgoing traffic. As an orphan it becomes a child of the first process and ends with it. It
# closes descriptor 4 when it is ready or dead, and the substitution waits for that.
set -- slirp4netns --configure --mtu=1500 --cidr=10.215.1.0/24 --disable-host-loopback
set -- "$@" --enable-sandbox --enable-seccomp --ready-fd=4 --netns-type=path "$new/router" tap0
: "$(nsenter --net=/proc/self/fd/3 unshare --mount sh -c '"$@" 4>&1 >&2 3<&- &' - "$@")"
exec 3<&-
mount -n --move "$new" /run

# slirp4netns forwards DNS queries to the machine's resolver. The timeout is short in case it does not answer.
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

# Only answers may use the link to the machine. Everything else is rejected at once and without a rate limit, TCP with a
# reset, because connect() may miss other rejections until its second try. Containers cannot connect to the sandbox's own
# addresses, and only the machine can connect from outside. dockerd applies DOCKER-USER first and does not change it.
echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
iptables -N REFUSE
iptables -A REFUSE -p tcp -j REJECT --reject-with tcp-reset
iptables -A REFUSE -j REJECT
# Newer engines drop packets from outside to a container's address. The router's rejections are such packets, and nothing
# else comes from there.
iptables -t raw -A PREROUTING -i out0 -j ACCEPT
iptables -N DOCKER-USER
iptables -A DOCKER-USER -o up0 -m conntrack ! --ctstate ESTABLISHED,RELATED -j REFUSE
iptables -A DOCKER-USER -i up0 ! -s "$gateway" -j DROP
iptables -A OUTPUT -o up0 -m conntrack ! --ctstate ESTABLISHED,RELATED -j REFUSE
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -i up0 ! -s "$gateway" -j DROP
iptables -A INPUT ! -i up0 -m conntrack ! --ctstate ESTABLISHED,RELATED -j REFUSE

exec dockerd --config-file /run/daemon.json
