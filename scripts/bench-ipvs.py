"""Instructions a packet of the kernel's IPVS and of this director, on XDP and on tc: the same frames through the same devices,
by the same rules of ipvsadm, in the oracle's guest, whose clock counts instructions.  Run by scripts/bench-ipvs.sh; what it
counts goes to $OUT/ipvs.json, which `bench --ipvs` reads.  With the argument "profile" it counts nothing, and sends packets of
each case while the host traces what the CPU does."""
import json
import os
import subprocess
import sys

import bed
import bpf
import cost
import pkt
from pkt import ACK, SYN, TCP, UDP

DIRECTOR, LINES = "/tmp/bench", "/tmp/services"
SERVERS = 2
# Packets of the longer run of a round are twice the shorter one's; what is counted is their difference.
KNOWN, NEW, ROUNDS, WARM = 2048, 512, 3, 1024
WARM_NEW = 256
# Packets of a case while the host traces some of them: seconds of its time.
TRACED, TRACED_NEW = 30000, 14000
CLIENT = {4: "203.0.113.5", 6: "2001:db8:5::5"}
# The client of new connections, which on each path are others.
NEWCOMER = {4: "203.0.113.%d", 6: "2001:db8:5::%d"}
PATHS = ("ipvs", "tc", "xdp")
# Method, its option, a service's port, its server's, and the port of the service whose connections are new ones.
METHODS = (("nat", "-m", 80, 8080, 90), ("dr", "-g", 81, 81, 91), ("tun", "-i", 82, 82, 92))
MTU = 1500  # of all devices: veth takes no native XDP over larger peers
OUTCOME = {"c": "r", "r": "c"}
WIRE = {"c": "cw", "r": "rw"}
TC_DROP = [bpf.mov(0, 2), bpf.exit_()]
rows = []


def say(text):
    """To the console, which the host shows while this runs."""
    with open("/dev/console", "w") as console:
        console.write("bench: %s\n" % text)


def vip(family):
    return bed.VIP4 if family == 4 else bed.VIP6


def server(n, family):
    return bed.rip(n, family == 6)


def services():
    """Rules of ipvsadm."""
    for family in (4, 6):
        place = (lambda a, port: "%s:%d" % (a, port)) if family == 4 else (lambda a, port: "[%s]:%d" % (a, port))
        for _, option, port, of_server, port_new in METHODS:
            for proto in "tu":
                yield "-A -%s %s -s rr" % (proto, place(vip(family), port))
                yield "-a -%s %s -r %s %s" % (proto, place(vip(family), port), place(server(1, family), of_server), option)
            yield "-A -t %s -s rr" % place(vip(family), port_new)
            for n in range(1, SERVERS + 1):
                yield "-a -t %s -r %s %s" % (place(vip(family), port_new), place(server(n, family), port_new), option)


def frame(side, packet, dmac=None):
    etype = pkt.ETH_IP6 if packet[0] >> 4 == 6 else pkt.ETH_IP
    macs = (bed.C0_MAC, bed.GW_MAC) if side == "c" else (bed.R0_MAC, bed.rs_mac(1))
    return pkt.eth(dmac or macs[0], macs[1], etype, packet)


def packet(proto, src, dst, sport, dport, flags=ACK):
    """Of either protocol 26 bytes behind the IP header."""
    if proto == "udp":
        return pkt.ip(src, dst, UDP, pkt.udp(src, dst, sport, dport, b"x" * 18))
    return pkt.ip(src, dst, TCP, pkt.tcp(src, dst, sport, dport, flags, 1001, 5001 if flags & ACK else 0, b"x" * 6))


def request(family, method, proto, flags=ACK):
    _, _, port, _, _ = method
    return frame("c", packet(proto, CLIENT[family], vip(family), 4000, port, flags))


def reply(family, method, proto, flags=ACK):
    _, _, _, port, _ = method
    return frame("r", packet(proto, server(1, family), CLIENT[family], port, 4000, flags))


def newcomers(family, method, path, count):
    """SYNs that differ in the source port.  What the port adds to the checksum a word of the payload takes away."""
    source = NEWCOMER[family] % (10 + PATHS.index(path))
    whole = frame("c", pkt.ip(source, vip(family), TCP, pkt.tcp(source, vip(family), 0, method[4], SYN, 1001, 0, b"\xff\xffxxxx")))
    at = 14 + (20 if family == 4 else 40)
    head, middle, tail = whole[:at], whole[at + 2:at + 20], whole[at + 22:]
    ports = ((1024 + i * 7919 % 60000).to_bytes(2, "big") for i in range(count))
    return [head + p + middle + bytes(0xff - b for b in p) + tail for p in ports]


def known():
    """Cases of known connections: name, family, side that the packet comes from, its frame."""
    for family in (4, 6):
        for method in METHODS:
            for proto in ("tcp", "udp"):
                name = "%s v%d %s " % (method[0], family, proto)
                yield name + "request", family, "c", request(family, method, proto)
                if method[0] == "nat":
                    yield name + "reply", family, "r", reply(family, method, proto)


def open_connections(b):
    for family in (4, 6):
        for method in METHODS:
            b.send("c", request(family, method, "udp"))
            b.send("c", request(family, method, "tcp", SYN))
            if method[0] == "nat":
                b.send("r", reply(family, method, "udp"))
                b.send("r", reply(family, method, "tcp", SYN | ACK))
            b.send("c", request(family, method, "tcp"))


def outcomes(b):
    """What becomes of the packet of each case: where it goes, and who is in its headers."""
    told = ("src", "dst", "sport", "dport", "proto", "ttl", "dmac")
    out = {}
    for name, _, side, f in known():
        out[name] = [(to, {k: v for k, v in pkt.l3(got).items() if k in told}) for to, got in b.send(side, f)]
        if [to for to, _ in out[name]] != [OUTCOME[side]]:
            raise SystemExit("%s: %s" % (name, out[name]))
    return out


def bare(b):
    """Takes our receiving sockets away: they would be charged to the packet."""
    for s in b.sock.values():
        b.poll.unregister(s)
        s.close()
    b.sock = {}


def measure(path, case, b, side, count, reasons=None, to=None):
    """Counts with `count(sender)`, which returns [median, low, high] and how many packets it sent."""
    sender = cost.Sender(b.wns, WIRE[side], b.dns)
    arrived = lambda: cost.stat(b.wns, WIRE[to], "rx", b.dns) if to else 0
    before, counted = arrived(), reasons() if reasons else {}
    (middle, low, high), sent = count(sender)
    sender.s.close()
    row = {"path": path, "case": case, "insns": middle, "low": low, "high": high, "sent": sent, "arrived": arrived() - before}
    if reasons:
        row["reasons"] = {k: v - counted.get(k, 0) for k, v in reasons().items() if v != counted.get(k, 0)}
    rows.append(row)
    print(json.dumps(row), flush=True)
    say("%-4s  %-22s %8.1f" % (path, case, middle))


def same(f):
    """Counts packets that are all alike."""
    return lambda sender: (cost.per_packet(sender, [f], KNOWN, ROUNDS), WARM + 3 * ROUNDS * KNOWN)


def each_once(frames):
    """Counts packets that are sent once each."""
    def count(sender):
        def send(n):
            nonlocal at
            prepared = sender.prepare(frames[at:at + n])
            at += n
            return sender.run(prepared, n)
        at = 0
        send(WARM_NEW)
        out = sorted((-send(NEW) + send(2 * NEW)) / NEW for _ in range(ROUNDS))
        return [round(v, 1) for v in (out[ROUNDS // 2], out[0], out[-1])], at
    return count


def measure_new(path, b, family, method, reasons=None):
    frames = newcomers(family, method, path, WARM_NEW + 3 * ROUNDS * NEW)
    measure(path, "%s v%d tcp new" % (method[0], family), b, "c", each_once(frames), reasons, "r")


def attach_xdp(b, device, program, ns):
    """A program on a device of a name space.  Not by "ip -n", which mounts a /sys of its own, without the pin."""
    bpf.load("xdp", program, "/sys/fs/bpf/bench")
    bed.setns("/run/netns/" + ns)
    bed.sh("ip link set dev %s xdpdrv pinned /sys/fs/bpf/bench" % device)
    bed.setns("/run/netns/" + b.dns)
    os.unlink("/sys/fs/bpf/bench")


def sinks(b):
    """What is redirected to a veth's other end arrives only if it has a program of its own."""
    for device in WIRE.values():
        attach_xdp(b, device, bpf.DROP, b.wns)


def attach_tc(program):
    bpf.load("cls", program, "/sys/fs/bpf/bench")
    bed.sh("tc qdisc add dev c0 clsact && tc filter add dev c0 ingress bpf da pinned /sys/fs/bpf/bench")
    os.unlink("/sys/fs/bpf/bench")


def ifindex(device):
    return int(bed.sh("ip -o link show " + device).stdout.split(":")[0])


def fresh():
    return bed.Bed(servers=SERVERS, wire_mtu=MTU)


def baselines():
    """What a packet costs that is dropped as early as the path can; and one that is sent on without a look at it."""
    stranger = "02:00:00:00:77:77"
    frames = {f: packet("udp", CLIENT[f], vip(f), 4000, 80) for f in (4, 6)}

    def both(path, case, b, to=None, dmac=None):
        for family, p in frames.items():
            measure(path, "%s v%d" % (case, family), b, "c", same(frame("c", p, dmac)), to=to)

    b = fresh()
    bare(b)
    both("ipvs", "drop", b, dmac=stranger)
    # The way of the plain host, which routes and has no rules at all.
    for family in frames:
        p = packet("udp", CLIENT[family], server(1, family), 4000, 80)
        measure("ipvs", "bare v%d" % family, b, "c", same(frame("c", p)), to="r")
    b.close()
    for case, program, to in (("drop", lambda r0: bpf.DROP, None), ("bare", bpf.redirect, "r")):
        b = fresh()
        bare(b)
        sinks(b)
        attach_xdp(b, "c0", program(ifindex("r0")), b.dns)
        both("xdp", case, b, to)
        b.close()
    for case, program, to in (("drop", lambda r0: TC_DROP, None), ("bare", bpf.tc_redirect, "r")):
        b = fresh()
        bare(b)
        attach_tc(program(ifindex("r0")))
        both("tc", case, b, to)
        b.close()


def ipvs():
    """The kernel's; returns what became of packets."""
    b = fresh()
    b.restore(services())
    open_connections(b)
    out = outcomes(b)
    bare(b)
    for name, _, side, f in known():
        measure("ipvs", name, b, side, same(f), to=OUTCOME[side])
    b.close()
    for family in (4, 6):
        for method in METHODS:
            # The table is one for all, and small: connections of another case would be in the way.
            b = fresh()
            b.restore(services())
            bare(b)
            measure_new("ipvs", b, family, method)
            b.close()
    return out


class Director:
    """`bench --ipvs-director` in the bed's name space."""

    def __init__(self):
        with open(LINES, "w") as f:
            f.write("".join(line + "\n" for line in services()))
        say("loading: the emulated verifier takes minutes")
        self.process = subprocess.Popen([DIRECTOR, "--ipvs-director", LINES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the director ended: %s" % self.process.wait())
        return json.loads(line)

    def ask(self, order):
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self):
        self.process.stdin.close()
        if self.process.wait():
            raise SystemExit("the director failed")


def by_each_path(b, director, expected=None):
    """The director on one path after the other, its connections open; on the first one packets go where IPVS's went."""
    for path in ("tc", "xdp"):
        director.ask("attach " + path)
        if b.sock:
            open_connections(b)
            for name, got in outcomes(b).items():
                if expected and got != expected[name]:
                    raise SystemExit("%s: IPVS: %s, the director: %s" % (name, expected[name], got))
            bare(b)
        if path == "xdp":
            sinks(b)
        yield path


def ours(expected):
    b = fresh()
    bed.sh("ip link add p0 type dummy")
    d = Director()
    reasons = lambda: d.ask("reasons")
    for path in by_each_path(b, d, expected):
        for name, _, side, f in known():
            measure(path, name, b, side, same(f), reasons, OUTCOME[side])
        for family in (4, 6):
            for method in METHODS:
                measure_new(path, b, family, method, reasons)
    d.close()
    b.close()


def profile():
    """Sends packets of each case for as long as the host needs to trace some of them."""
    b = fresh()
    bed.sh("ip link add p0 type dummy")
    d = Director()

    def send(path, case, side, frames, count):
        sender = cost.Sender(b.wns, WIRE[side], b.dns)
        prepared = sender.prepare(frames)
        say("trace %s %s" % (path, case))
        sender.run(prepared, count)
        sender.s.close()

    for path in by_each_path(b, d):
        with open("/proc/kallsyms") as symbols, open("%s/kallsyms-%s" % (os.environ["OUT"], path), "w") as out:
            out.write(symbols.read())
        for name, _, side, f in known():
            if " tcp " in name:
                send(path, name, side, [f], TRACED)
        for family in (4, 6):
            for method in METHODS:
                frames = newcomers(family, method, path, TRACED_NEW)
                send(path, "%s v%d tcp new" % (method[0], family), "c", frames, TRACED_NEW)
    d.close()
    b.close()


if sys.argv[1:] == ["profile"]:
    profile()
else:
    baselines()
    ours(ipvs())
    with open(os.environ["OUT"] + "/ipvs.json", "w") as f:
        json.dump({"kernel": os.uname().release, "rows": rows}, f, indent=1)
