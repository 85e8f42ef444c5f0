# The sandbox's way out: a network namespace between the containers and slirp4netns, which turns their connections into
# connections of this machine. It only forwards masqueraded traffic, so a network without masquerading has no way out.
# Arguments: blocked addresses, networks inside.
set -eu
closed=$1
shift

echo 1 >/proc/sys/net/ipv4/ip_forward
echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
ip link add in0 type veth peer name out0 netns 1
ip address add 10.215.2.1/30 dev in0
ip link set in0 up
for network; do ip route add "$network" via 10.215.2.2; done

# Used while tap0 does not exist: without a route, rejections would come late.
ip route add default via 10.215.2.2 metric 1000

iptables-restore <<RULES
*nat
-A POSTROUTING -o tap0 -j MASQUERADE
COMMIT
*filter
:REFUSE -
-A REFUSE -p tcp -j REJECT --reject-with tcp-reset
-A REFUSE -j REJECT
-A INPUT -j REFUSE
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD ! -s 10.215.2.2 -j REFUSE
-A FORWARD ! -o tap0 -j REFUSE
-A FORWARD -d $closed -j REFUSE
-A FORWARD -d 10.215.1.3 -p udp --dport 53 -j ACCEPT
-A FORWARD -d 10.215.1.3 -p tcp --dport 53 -j ACCEPT
-A FORWARD -d 10.215.1.3 -j REFUSE
COMMIT
RULES
