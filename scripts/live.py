"""Scenarios that nobody recorded: runs in the oracle's guest, on the real kernel's IPVS, and
writes recordings in the form of golden/sched.  live.py SEED COUNT: scenario number i of a seed
is the same whatever COUNT is.  Run by scripts/live.sh."""
import os
import sys

import bed
from pkt import ACK, FIN, RST, SYN
from schedrun import Rand, Run

SCHEDULERS = "rr wrr lc wlc sed nq sh dh lblc lblcr fo ovf mh".split()
WEIGHTS = (0, 1, 1, 1, 2, 3, 5, 7, 10, 33, 100, 65535)
# The kernel's timers end up to an eighth late: so that it does not matter when exactly, what
# is waited for is much shorter than the shortest timeout, or longer than the longest.
SHORT, LONG = 1, 2500


def patient(drain):
    """A frame that comes late would be taken for the answer to the next one."""
    def drained(self, wait_ms):
        got = drain(self, wait_ms)
        if wait_ms:
            while more := drain(self, 2):
                got += more
        return got
    return drained


bed.Bed.drain = patient(bed.Bed.drain)


class Scenario:
    def __init__(self, seed, number):
        r = self.r = Rand(seed * 65537 + number)
        [r.below(2) for _ in range(8)]
        pick = self.pick
        scheduler = pick(SCHEDULERS)
        self.proto = pick(("tcp",) * 6 + ("udp",) * 3 + ("sctp",))
        self.v6 = r.below(3) == 0
        mode = pick(("masq", "masq", "gate", "ipip"))
        fwmark = 1 if scheduler in ("dh", "lblc", "lblcr") or r.below(6) == 0 else None
        self.any_port = fwmark is not None
        if fwmark and mode == "masq":
            mode = "gate"  # without ports of their own, as the recordings have them
        options = []
        self.persistent = r.below(3) == 0
        if self.persistent:
            options.append("-p %d" % pick((30, 90, 300)))
            if r.below(2):
                options.append("-M %s" % (pick((64, 112, 128)) if self.v6 else pick(("255.255.255.255", "255.255.255.0", "255.255.0.0"))))
        if self.proto == "udp" and r.below(3) == 0:
            options.append("-o")
        flags = {"sh": ("", "sh-port", "sh-fallback", "sh-fallback,sh-port"),
                 "mh": ("", "mh-port", "mh-fallback", "mh-fallback,mh-port")}.get(scheduler, ("",))
        self.servers = 1 + r.below(5)
        weights = [pick(WEIGHTS) for _ in range(self.servers)]
        limits = {i: self.limits() for i in range(1, self.servers + 1) if r.below(4) == 0}
        sysctls = {}
        for name, values in (("conn_reuse_mode", (0, 1)), ("expire_nodest_conn", (0, 1)),
                             ("expire_quiescent_template", (0, 1)), ("sloppy_tcp", (0, 1))):
            if r.below(4) == 0:
                sysctls[name] = pick(values)
        self.nodest = sysctls.get("expire_nodest_conn") == 1
        self.listed = set(range(1, self.servers + 1))
        self.run = Run("live-%d-%d-%s" % (seed, number, scheduler), scheduler, weights, sched_flags=pick(flags),
                       svc_opts=" ".join(options), dest_opts=limits, proto=self.proto, mode=mode, v6=self.v6,
                       fwmark=fwmark, rport=0 if fwmark else None, sysctls=sysctls,
                       about="seed %d, scenario %d: steps at random" % (seed, number))
        self.clients = [r.ip(self.v6) for _ in range(2 + r.below(8))]
        # Neighbours, so that netmasks have something to put together.
        for client in self.clients[:2]:
            head, last = client.rsplit(":" if self.v6 else ".", 1)
            self.clients.append(head + (":%x" if self.v6 else ".%d") % (1 + (int(last, 16 if self.v6 else 10) + 7) % 250))
        self.opened, self.established = [], []

    def pick(self, of):
        return of[self.r.below(len(of))]

    def limits(self):
        upper = 2 + self.r.below(6)
        return "-x %d -y %d" % (upper, self.r.below(upper))

    def open(self):
        dst = None
        if self.any_port:
            k = 1 + self.r.below(6)
            dst = ("2001:db8:64::%x" if self.v6 else "198.51.100.%d") % k
        flags = SYN if self.proto != "tcp" or self.r.below(12) else self.pick((ACK, RST, FIN | ACK))
        i = self.run.open(self.pick(self.clients), self.r.port(), dst, 80 if dst else None, flags)
        if (self.run.conn[i][4] or "")[2:].isdigit():
            self.opened.append(i)

    def server(self):
        return 1 + self.r.below(self.servers)

    def step(self):
        k = self.r.below(100)
        if k < 45 or not self.opened:
            self.open()
        elif k < 60:
            self.run.est(self.pick(self.opened))
        elif k < 66:
            i = self.pick(self.opened)
            self.opened.remove(i)
            self.run.fin(i)
        elif k < 69 and self.proto != "udp":
            i = self.pick(self.opened)
            self.opened.remove(i)
            self.run.rst(i)
        elif k < 77:
            i = self.pick(self.opened)
            self.run.again(i, self.pick((ACK, ACK, SYN)) if self.proto == "tcp" else ACK)
        elif k < 85:
            i = self.server()
            if i in self.listed:
                self.run.weight(i, self.pick(WEIGHTS))
        elif k < 91:
            i = self.server()
            if i in self.listed:
                self.run.remove(i)
                if self.nodest:  # until its sweep is over
                    self.run.sleep(SHORT)
                self.listed.discard(i)
            else:
                self.run.add(i, self.pick(WEIGHTS))
                self.listed.add(i)
        elif k < 93:
            i = self.server()
            if i in self.listed:
                self.run.ctl("-e %s -r %s %s -w %d %s" % (self.run.svc, self.run.server(i), self.run.modeopt(),
                                                          self.pick(WEIGHTS), self.limits()))
        elif k < 97:
            self.run.table()
        elif k < 99 or self.proto == "tcp":
            if self.proto != "sctp":  # whose timeouts are as short
                self.run.sleep(SHORT)
        else:
            self.run.sleep(LONG)
            self.opened = []

    def play(self, steps):
        for _ in range(steps):
            self.step()
        self.run.table()
        self.run.sleep(LONG)
        self.run.table()
        self.run.done(os.environ["OUT"])


seed, count = int(sys.argv[1]), int(sys.argv[2])
for number in range(count):
    scenario = Scenario(seed, number)
    scenario.play(70)
    print(scenario.run.out["name"], len(scenario.run.out["steps"]), flush=True)
