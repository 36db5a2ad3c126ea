"""What the kernel's sync master sends, and the connections that it had. Run by record.sh in the
oracle's guest; writes master.json (datagrams and tables) and when.json (which packet made the
master send, under several settings)."""
import os
import subprocess
import time

import bed
from pkt import ACK, FIN, RST, SYN, SCTP, TCP, UDP, ip, sctp, tcp, udp

GROUP = b"\xe0\x00\x00\x51"
CLIENT4, CLIENT6 = "203.0.113.5", "2001:db8:5::5"
FLUSH_S = 4  # a buffer leaves 2 s after its first use, by a timer that may be late


def addr(ip_, port):
    return ("[%s]:%d" if ":" in ip_ else "%s:%d") % (ip_, port)


class Master:
    def __init__(self, settings, version=1, syncid=7, group=None):
        self.bed = bed.Bed(servers=3)
        self.settings = dict(settings)
        for k, v in settings.items():
            self.bed.sysctl("net.ipv4.vs." + k, v)
        self.bed.sysctl("net.ipv4.vs.sync_version", version)
        self.group6 = group
        extra = " --mcast-group %s" % group if group else ""
        self.bed.ipvsadm("--start-daemon master --mcast-interface c0 --syncid %d%s" % (syncid, extra))
        self.datagrams = []
        self.setup = []

    def ipvsadm(self, args):
        self.setup.append(args)
        self.bed.ipvsadm(args)

    def take(self, got):
        """Keeps the sync datagrams among frames; returns the others."""
        rest = []
        for side, f in got:
            v4 = f[12:14] == b"\x08\x00" and f[23] == 17 and f[30:34] == GROUP
            v6 = f[12:14] == b"\x86\xdd" and f[20] == 17 and f[38] == 0xff
            if v4 or v6:
                start = 42 if v4 else 62
                size = int.from_bytes(f[start - 4:start - 2], "big") - 8
                self.datagrams.append(f[start:start + size].hex())
            else:
                rest.append((side, f))
        return rest

    def client(self, packet):
        return self.take(self.bed.from_client(packet))

    def server(self, n, packet):
        return self.take(self.bed.from_server(n, packet))

    def flush(self, seconds=FLUSH_S):
        """The datagrams since the last time."""
        time.sleep(seconds)
        self.take(self.bed.drain(10))
        got, self.datagrams = self.datagrams, []
        return got

    def listing(self):
        """ipvsadm's rows, and the kernel's own with the origin of each entry."""
        with open("/proc/thread-self/net/ip_vs_conn_sync") as f:
            rows = sorted(" ".join(line.split()) for line in f.readlines()[1:])
        return {"ipvsadm": [" ".join(r) for r in self.bed.conns()], "proc": rows}

    def close(self):
        self.bed.ipvsadm("--stop-daemon master", check=False)
        self.bed.close()


def established(m, c, v, sport, dport, rs, rport, mode):
    """A handshake; rs is the server's number (the only one of the service)."""
    m.client(ip(c, v, TCP, tcp(c, v, sport, dport, SYN)))
    if mode == "-m":
        r = bed.rip(rs, ":" in c)
        m.server(rs, ip(r, c, TCP, tcp(r, c, rport, sport, SYN | ACK)))
    m.client(ip(c, v, TCP, tcp(c, v, sport, dport, ACK)))


def scenarios():
    out = []

    def done(name, about, m, step):
        out.append({"name": name, "about": about, "settings": m.settings, "setup": m.setup, "steps": step})
        m.close()

    # --- every packet is sent, so the last record of each connection is its state
    every = {"sync_threshold": "0 1"}
    for six in (False, True):
        c, v = (CLIENT6, bed.VIP6) if six else (CLIENT4, bed.VIP4)
        m = Master(every)
        steps = []
        for port, mode, rport in ((80, "-m", 8080), (81, "-g", 81), (82, "-i", 82)):
            m.ipvsadm("-A -t %s -s rr" % addr(v, port))
            m.ipvsadm("-a -t %s -r %s %s" % (addr(v, port), addr(bed.rip(1, six), rport), mode))
        m.ipvsadm("-A -u %s -s rr" % addr(v, 53))
        m.ipvsadm("-a -u %s -r %s -m" % (addr(v, 53), addr(bed.rip(2, six), 53)))
        for i, (port, mode, rport) in enumerate(((80, "-m", 8080), (81, "-g", 81), (82, "-i", 82))):
            established(m, c, v, 4000 + i, port, 1, rport, mode)
        m.client(ip(c, v, UDP, udp(c, v, 4100, 53, b"hello")))
        steps.append({"what": "established: NAT, DR, TUN, UDP", "datagrams": m.flush(), "table": m.listing()})
        m.client(ip(c, v, TCP, tcp(c, v, 4000, 80, FIN | ACK)))
        m.client(ip(c, v, TCP, tcp(c, v, 4001, 81, FIN | ACK)))
        m.client(ip(c, v, TCP, tcp(c, v, 4002, 82, RST)))
        steps.append({"what": "FIN in NAT and DR, RST in TUN", "datagrams": m.flush(), "table": m.listing()})
        done("states-%d" % (6 if six else 4), "every method, UDP, and the closing states", m, steps)

    m = Master(every)
    v, c = bed.VIP4, CLIENT4
    m.ipvsadm("-A -t %s -s rr -p 77 -M 255.255.255.0" % addr(v, 80))
    m.ipvsadm("-a -t %s -r %s -m" % (addr(v, 80), addr(bed.rip(1), 80)))
    m.ipvsadm("-A -t %s -s rr -p 50" % addr(v, 0))
    m.ipvsadm("-a -t %s -r %s -g" % (addr(v, 0), addr(bed.rip(2), 0)))
    established(m, c, v, 5000, 80, 1, 80, "-m")
    established(m, c, v, 5001, 4242, 2, 4242, "-g")
    steps = [{"what": "two persistent services, one of port 0", "datagrams": m.flush(), "table": m.listing()}]
    done("persistent", "templates: state, timeout, the client's network", m, steps)

    m = Master(every)
    for rule in ("iptables -t mangle -A PREROUTING -d 198.51.100.0/24 -j MARK --set-mark 9",
                 "ip route add local 198.51.100.0/24 dev lo"):
        bed.sh(rule)
        m.setup.append("# " + rule)
    m.ipvsadm("-A -f 9 -s rr -p 60")
    m.ipvsadm("-a -f 9 -r %s -g" % addr(bed.rip(3), 0))
    w = "198.51.100.7"
    m.client(ip(c, w, TCP, tcp(c, w, 6000, 443, SYN)))
    m.client(ip(c, w, TCP, tcp(c, w, 6000, 443, ACK)))
    m.client(ip(c, w, UDP, udp(c, w, 6001, 443, b"q")))
    steps = [{"what": "TCP and UDP by the mark", "datagrams": m.flush(), "table": m.listing()}]
    done("fwmark", "a mark's template has protocol 0 and the mark for an address", m, steps)

    # --- FTP: sequence data
    bed.sh("modprobe ip_vs_ftp", check=False)
    m = Master(every)
    m.bed.sysctl("net.ipv4.vs.conntrack", 1)
    m.ipvsadm("-A -t %s -s rr" % addr(v, 21))
    m.ipvsadm("-a -t %s -r %s -m" % (addr(v, 21), addr(bed.rip(1), 21)))
    r = bed.rip(1)
    m.client(ip(c, v, TCP, tcp(c, v, 7000, 21, SYN, seq=100)))
    m.server(1, ip(r, c, TCP, tcp(r, c, 21, 7000, SYN | ACK, seq=500, ack=101)))
    m.client(ip(c, v, TCP, tcp(c, v, 7000, 21, ACK, seq=101, ack=501)))
    m.client(ip(c, v, TCP, tcp(c, v, 7000, 21, ACK, seq=101, ack=501, payload=b"PASV\r\n")))
    text = b"227 Entering Passive Mode (10,1,0,11,200,10).\r\n"
    m.server(1, ip(r, c, TCP, tcp(r, c, 21, 7000, ACK, seq=501, ack=107, payload=text)))
    m.client(ip(c, v, TCP, tcp(c, v, 7000, 21, ACK, seq=107, ack=501 + len(text) + 1)))
    steps = [{"what": "PASV and its answer", "datagrams": m.flush(), "table": m.listing()}]
    m.client(ip(c, v, TCP, tcp(c, v, 7001, 51210, SYN, seq=900)))
    m.server(1, ip(r, c, TCP, tcp(r, c, 51210, 7001, SYN | ACK, seq=70, ack=901)))
    m.client(ip(c, v, TCP, tcp(c, v, 7001, 51210, ACK, seq=901, ack=71)))
    m.client(ip(c, v, TCP, tcp(c, v, 7000, 21, ACK, seq=107, ack=501 + len(text) + 1)))
    steps.append({"what": "the data connection", "datagrams": m.flush(), "table": m.listing()})
    done("ftp", "sequence data of a control connection whose payload was lengthened", m, steps)

    # --- SIP: a persistence engine
    bed.sh("modprobe ip_vs_pe_sip", check=False)
    m = Master(every)
    m.ipvsadm("-A -u %s -s rr -p 90 --pe sip -o" % addr(v, 5060))
    m.ipvsadm("-a -u %s -r %s -g" % (addr(v, 5060), addr(bed.rip(1), 5060)))
    for i, call in enumerate((b"abc123@example.net", b"x")):
        msg = (b"INVITE sip:u@example.net SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nCall-ID: " + call +
               b"\r\nContent-Length: 0\r\n\r\n")
        m.client(ip(c, v, UDP, udp(c, v, 8000 + i, 5060, msg)))
    steps = [{"what": "two calls", "datagrams": m.flush(), "table": m.listing()}]
    done("sip", "templates with persistence-engine data", m, steps)

    # --- SCTP
    bed.sh("modprobe sctp", check=False)
    m = Master(every)
    m.ipvsadm("-A --sctp-service %s -s rr" % addr(v, 90))
    m.ipvsadm("-a --sctp-service %s -r %s -g" % (addr(v, 90), addr(bed.rip(1), 90)))

    def chunk(kind, body=b"\0" * 16):
        n = 4 + len(body)
        return bytes([kind, 0]) + n.to_bytes(2, "big") + body
    for kind in (1, 10, 0, 7):
        m.client(ip(c, v, SCTP, sctp(9000, 90, chunk(kind))))
    steps = [{"what": "INIT, COOKIE ECHO, DATA, SHUTDOWN", "datagrams": m.flush(), "table": m.listing()}]
    done("sctp", "SCTP's states", m, steps)

    # --- many in one datagram, more than fits
    m = Master(every)
    m.ipvsadm("-A -t %s -s rr" % addr(v, 80))
    m.ipvsadm("-a -t %s -r %s -g" % (addr(v, 80), addr(bed.rip(1), 80)))
    for i in range(45):
        established(m, c, v, 10000 + i, 80, 1, 80, "-g")
    steps = [{"what": "45 connections", "datagrams": m.flush(), "table": m.listing()}]
    done("many", "a full datagram and its rest", m, steps)

    # --- version 0
    m = Master(every, version=0)
    m.ipvsadm("-A -t %s -s rr -p 77" % addr(v, 80))
    m.ipvsadm("-a -t %s -r %s -m" % (addr(v, 80), addr(bed.rip(1), 80)))
    established(m, c, v, 5000, 80, 1, 80, "-m")
    steps = [{"what": "a persistent connection, version 0", "datagrams": m.flush(), "table": m.listing()}]
    done("version-0", "sync_version=0", m, steps)

    # --- an IPv6 group
    m = Master(every, group="ff02::81")
    m.ipvsadm("-A -t %s -s rr" % addr(v, 80))
    m.ipvsadm("-a -t %s -r %s -m" % (addr(v, 80), addr(bed.rip(1), 80)))
    established(m, c, v, 5000, 80, 1, 80, "-m")
    steps = [{"what": "IPv4 in an IPv6 group", "datagrams": m.flush(), "table": m.listing()}]
    done("group-6", "the group may be IPv6", m, steps)
    return out


def whens():
    """For each setting: one packet at a time, with the datagrams that it caused."""
    out = []
    v, c = bed.VIP4, CLIENT4
    grid = [
        {"sync_threshold": "3 50"},
        {"sync_threshold": "1 4"},
        {"sync_threshold": "0 1"},
        {"sync_threshold": "2 0"},
        {"sync_threshold": "3 50", "sync_persist_mode": 1},
        {"sync_threshold": "1 4", "sync_persist_mode": 1},
        {"sync_threshold": "0 0", "sync_refresh_period": 10},
        {"sync_threshold": "0 0", "sync_refresh_period": 10, "sync_retries": 2},
        {"sync_threshold": "1 4", "sync_refresh_period": 30, "sync_retries": 1},
        {"sync_threshold": "0 1", "sync_refresh_period": 100, "sync_retries": 3},
    ]
    for settings in grid:
        m = Master(settings)
        m.ipvsadm("-A -t %s -s rr" % addr(v, 80))
        m.ipvsadm("-a -t %s -r %s -g" % (addr(v, 80), addr(bed.rip(1), 80)))
        m.ipvsadm("-A -t %s -s rr -p 100" % addr(v, 81))
        m.ipvsadm("-a -t %s -r %s -m" % (addr(v, 81), addr(bed.rip(2), 81)))
        m.ipvsadm("-A -u %s -s rr" % addr(v, 53))
        m.ipvsadm("-a -u %s -r %s -m" % (addr(v, 53), addr(bed.rip(3), 53)))
        steps = []

        def packet(proto, sport, dport, flags, name):
            body = tcp(c, v, sport, dport, flags) if proto == TCP else udp(c, v, sport, dport, b"x")
            now = time.monotonic()
            m.client(ip(c, v, proto, body))
            rows = [r.split() for r in m.listing()["proc"]]
            state = [r[7] for r in rows if r[2] == "%04X" % sport][0]
            # What a packet causes is out before the next one comes.
            steps.append({"at_s": round(now, 3), "packet": name, "proto": proto, "sport": sport, "dport": dport,
                          "state": state, "datagrams": m.flush(4.5)})

        for i in range(7):
            packet(UDP, 4000, 53, 0, "udp")
        for sport, dport in ((5000, 80), (5001, 81)):
            packet(TCP, sport, dport, SYN, "syn")
            for i in range(9):
                packet(TCP, sport, dport, ACK, "ack")
            packet(TCP, sport, dport, FIN | ACK, "fin")
            packet(TCP, sport, dport, ACK, "ack")
            packet(TCP, sport, dport, RST, "rst")
        out.append({"settings": settings, "setup": m.setup, "steps": steps})
        m.close()
    return out


OUT = os.environ["OUT"]
bed.dump(OUT + "/master.json", scenarios())
bed.dump(OUT + "/when.json", whens())
print(subprocess.run("dmesg | grep -i ipvs | tail -20", shell=True, capture_output=True, text=True).stdout)
