"""What the kernel's sync backup makes of datagrams: those of examples/offers.rs. Run by
record.sh in the oracle's guest; writes backup.json."""
import glob
import json
import os
import subprocess
import time
from collections import Counter

import bed
import pkt

OFFERS = [f for f in glob.glob("/oracle/extra/**/offers.json", recursive=True)][0]
GROUP_MAC, GROUP = "01:00:5e:00:00:51", "224.0.0.81"


def log():
    """The kernel's lines about IPVS."""
    out = subprocess.run(["dmesg", "-t"], capture_output=True, text=True).stdout
    return [line for line in out.splitlines() if "IPVS" in line and "sync thread" not in line]


bed.sh("modprobe ip_vs_pe_sip; modprobe sctp", check=False)
recorded = []
for scenario in json.load(open(OFFERS)):
    b = bed.Bed(servers=3)
    for line in scenario["setup"]:
        b.ipvsadm(line)
    b.ipvsadm("--start-daemon backup --mcast-interface c0 --syncid 7")
    time.sleep(1)
    table, last_timers, counts = {}, {}, None
    for step in scenario["steps"]:
        before = len(log())
        if "ipvsadm" in step:
            b.ipvsadm(step["ipvsadm"])
            continue
        payload = bytes.fromhex(step["datagram"])
        packet = pkt.ip("10.0.0.2", GROUP, pkt.UDP, pkt.udp("10.0.0.2", GROUP, 40000, 8848, payload))
        b.send("c", pkt.eth(GROUP_MAC, bed.GW_MAC, pkt.ETH_IP, packet))
        time.sleep(0.1)
        with open("/proc/thread-self/net/ip_vs_conn_sync") as f:
            lines = [line.split() for line in f.readlines()[1:]]
        now = dict(Counter(" ".join(f[:-1]) for f in lines))
        timers = {" ".join(f[:-1]): int(f[-1]) for f in lines}
        # What is new, or whose timer was started anew, and what is no more; how many there are in all.
        step["rows"] = sorted("%s %d" % (r, timers[r]) for r in now
                              if now[r] != table.get(r) or timers[r] > last_timers[r])
        step["gone"] = sorted(r for r in table if r not in now)
        step["entries"] = len(lines)
        table, last_timers = now, timers
        if b.counts() != counts:
            counts = step["servers"] = b.counts()
        step["log"] = log()[before:]
        time.sleep(6)  # the kernel's log is limited to ten lines in five seconds
    recorded.append(scenario)
    b.ipvsadm("--stop-daemon backup", check=False)
    b.close()

bed.dump(os.environ["OUT"] + "/backup.json", recorded)
print(subprocess.run("dmesg | grep -iE 'warn|bug|oops' | tail -5", shell=True, capture_output=True, text=True).stdout)
