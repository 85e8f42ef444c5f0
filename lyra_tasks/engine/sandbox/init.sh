# The first steps inside the sandbox's new namespaces; ends by becoming dockerd.
# Words: runtime folder, data folder, packages, daemon.json. All paths may hold blanks.
set -eu
runtime=$1 data=$2 engine=$3 config=$4

# /proc is still the machine's: it knows by which numbers the machine knows us and our parent, the first process.
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
mount -n --move "$new" /run

# Nobody answers at this address, so a look-up fails at once instead of waiting for servers that cannot be reached.
resolv=$(readlink -m /etc/resolv.conf)
case $resolv in /run/*) mkdir -p "${resolv%/*}" && : >"$resolv" ;; esac
if [ -e "$resolv" ]; then
    echo "nameserver 127.0.0.1" >/run/no-dns
    mount -n --bind /run/no-dns "$resolv"
fi

export PATH=/run/engine/bin:/usr/sbin:/usr/bin:/sbin:/bin LD_LIBRARY_PATH=/run/engine/lib XTABLES_LIBDIR=/run/engine/xtables
for scope in all default; do
    [ ! -e "/proc/sys/net/ipv6/conf/$scope" ] || echo 1 >"/proc/sys/net/ipv6/conf/$scope/disable_ipv6"
done
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
ip address add "$address/30" dev up0
ip link set up0 up

# Towards the machine, and what lies behind it, go answers only. Everything else is refused at once, always: so that it
# meets the filter there is a default route, TCP gets a reset (other refusals come while connect() looks away, and only
# the second try hears of them), and refusals have no limit. Containers open no connection to the sandbox's own addresses
# either, and nobody but the machine comes in. DOCKER-USER is what dockerd asks first and never changes.
ip route add default via "$gateway"
echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
iptables -N REFUSE
iptables -A REFUSE -p tcp -j REJECT --reject-with tcp-reset
iptables -A REFUSE -j REJECT
iptables -N DOCKER-USER
iptables -A DOCKER-USER -o up0 -m conntrack ! --ctstate ESTABLISHED,RELATED -j REFUSE
iptables -A DOCKER-USER -i up0 ! -s "$gateway" -j DROP
iptables -A OUTPUT -o up0 -m conntrack ! --ctstate ESTABLISHED,RELATED -j REFUSE
iptables -A INPUT -i lo -j ACCEPT
iptables -A INPUT -i up0 ! -s "$gateway" -j DROP
iptables -A INPUT ! -i up0 -m conntrack ! --ctstate ESTABLISHED,RELATED -j REFUSE

exec dockerd --config-file /run/daemon.json
