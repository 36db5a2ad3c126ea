//! Whether packets are spread over the CPUs. It matters where there are many of them: so what is counted on each CPU while
//! this host is looked at decides, and not how many queues a device has.

use super::{Subject, WARNING, here};
use crate::failure::{Failure, Result};
use crate::print::count;
use dirigent_api::{Finding, Steering};
use dirigent_datapath::kernel::Instance;
use dirigent_director::records::map;
use dirigent_net::receive::{Cpus, Device, Places, to_mask};
use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

/// Packets that one CPU has, of all, percent.
const ALMOST_ALL: u64 = 90;
/// Part of its time that a loaded CPU handles packets in (interrupts, and what follows them), percent.
const LOADED: u64 = 25;
/// Fewer packets a second are no load, whatever else keeps a CPU busy.
const FEW: u64 = 5000;
/// An interface by which fewer of the packets come has no part in it, percent.
const PART: u64 = 10;

/// What each CPU has done so far.
#[derive(Clone, Debug)]
pub struct Counts {
    at: Instant,
    /// Packets that the director saw on it.
    packets: Vec<u64>,
    /// Its time, and that for interrupts and what follows them, in ticks.
    times: Vec<(u64, u64)>,
    /// Packets that came by each interface in use.
    received: BTreeMap<u32, u64>,
}

/// Reads it; of what cannot be read nothing.
pub async fn counts(subject: &Subject) -> Option<Counts> {
    let name = subject.status.instance.clone();
    let links: Vec<_> = subject.running().map(|index| (index, subject.link(index).to_owned())).collect();
    let read = move || -> Result<Counts> {
        let reasons = Instance::new(&name)?.open_per_cpu_table::<u32, u64>(map::REASONS)?;
        let mut packets = Vec::new();
        for reason in 0..reasons.max_entries() {
            let of = reasons.get(&reason)?.unwrap_or_default();
            packets.resize(packets.len().max(of.len()), 0);
            packets.iter_mut().zip(of).for_each(|(all, one)| *all += one);
        }
        const FILE: &str = "/proc/stat";
        let times = times(&fs::read_to_string(FILE).map_err(|e| Failure::io(FILE, &e))?);
        let places = Places::default();
        let received =
            links.iter().filter_map(|(index, name)| Some((*index, places.received(name, *index)?))).collect();
        Ok(Counts { at: Instant::now(), packets, times, received })
    };
    tokio::task::spawn_blocking(read).await.ok().and_then(Result::ok)
}

/// Of `/proc/stat` (proc_stat(5)), by CPU.
fn times(stat: &str) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    for line in stat.lines() {
        let Some((cpu, rest)) = line.strip_prefix("cpu").and_then(|line| line.split_once(' ')) else { continue };
        let Ok(cpu) = cpu.parse::<usize>() else { continue };
        let ticks: Vec<u64> = rest.split_whitespace().map_while(|n| n.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; guests' are in user's.
        let handling = ticks.iter().skip(5).take(2).sum();
        all.resize(all.len().max(cpu + 1), (0, 0));
        if let Some(of) = all.get_mut(cpu) {
            *of = (ticks.iter().take(8).sum(), handling);
        }
    }
    all
}

/// A CPU that has almost all packets, and plenty to do with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Alone {
    cpu: usize,
    /// CPUs that there are.
    cpus: usize,
    /// Packets that it had, and all.
    packets: (u64, u64),
    milliseconds: u64,
    /// Of its time, percent.
    load: u64,
}

impl Alone {
    /// By what was counted before and after.
    fn of(before: &Counts, after: &Counts) -> Option<Self> {
        let packets: Vec<u64> =
            after.packets.iter().zip(&before.packets).map(|(new, old)| new.saturating_sub(*old)).collect();
        let milliseconds = after.at.duration_since(before.at).as_millis() as u64;
        let (sum, cpus) = (packets.iter().sum::<u64>(), after.times.iter().filter(|(all, _)| *all > 0).count());
        let (cpu, most) = packets.into_iter().enumerate().max_by_key(|(_, packets)| *packets)?;
        let ((new, handled), (old, had)) = (after.times.get(cpu)?, before.times.get(cpu)?);
        let load = (handled.saturating_sub(*had) * 100).checked_div(new.saturating_sub(*old))?;
        let is = cpus > 1 && most * 100 >= sum * ALMOST_ALL && most * 1000 >= FEW * milliseconds && load >= LOADED;
        is.then_some(Self { cpu, cpus, packets: (most, sum), milliseconds, load })
    }

    fn evidence(&self, device: &Device) -> Vec<String> {
        let (most, sum) = self.packets;
        let steered = device.queues.iter().filter(|queue| !queue.steered.is_empty()).count();
        vec![
            format!(
                "{most} of {sum} packets came on CPU {} in {} ms, of which that took {} % of it; this host has {} CPUs",
                self.cpu, self.milliseconds, self.load, self.cpus
            ),
            format!(
                "{} has {}, of which RPS spreads {steered}",
                device.name,
                count(device.queues.len(), "receive queue")
            ),
        ]
    }
}

/// What keeps a device's packets on one CPU, if anything does.
fn judge(alone: &Alone, device: &Device, path: &str) -> Option<Finding> {
    let everyone: Cpus = (0..alone.cpus).collect();
    let bound = device.queues.len() > 1
        && !device.interrupts.is_empty()
        && device.interrupts.iter().all(|cpus| *cpus == Cpus::from([alone.cpu]));
    let spread = |queue: &dirigent_net::receive::Queue| queue.steered.len() > 1;
    let ethtool = here(format!("ethtool -L {} combined {}", device.name, alone.cpus));
    let mut finding = Finding {
        name: "one_cpu_receives".into(),
        severity: WARNING.into(),
        place: format!("interface {}", device.name),
        what: format!("almost all packets come on CPU {} of {}, which is loaded by them", alone.cpu, alone.cpus),
        evidence: alone.evidence(device),
        rule: "a packet is directed on the CPU that it comes on: that of its queue's interrupt, or without XDP that which \
               RPS hands it to"
            .into(),
        ..Finding::default()
    };
    if bound {
        finding.remedy =
            "have the queues' interrupts handled on different CPUs, as irqbalance does, and drivers by default".into();
        finding.commands = vec![here(format!(
            "grep {} /proc/interrupts    # then for each number: echo CPU > /proc/irq/NUMBER/smp_affinity_list",
            device.name
        ))];
        return Some(finding);
    }
    if device.queues.len() >= alone.cpus {
        // As many as there can be: packets of few connections, or of a kind that the device does not spread.
        return None;
    }
    if path == "xdp" {
        finding.remedy =
            "give the device more queues, if it can have more (`ethtool -l`); if not, with mode = \"tc\" in \
                          [director] RPS spreads packets"
                .into();
        finding.commands = vec![ethtool];
        return Some(finding);
    }
    let idle: Vec<_> = device.queues.iter().filter(|queue| !spread(queue)).collect();
    if idle.is_empty() {
        return None;
    }
    finding.remedy =
        "give the device more queues, if it can have more (`ethtool -l`); or have RPS spread packets".into();
    finding.steering = idle
        .iter()
        .map(|queue| Steering { interface: device.name.clone(), queue: queue.name.clone(), cpus: to_mask(&everyone) })
        .collect();
    let set = |one: &Steering| {
        here(format!("echo {} > /sys/class/net/{}/queues/{}/rps_cpus", one.cpus, one.interface, one.queue))
    };
    finding.commands = std::iter::once(ethtool).chain(finding.steering.iter().map(set)).collect();
    Some(finding)
}

/// What is wrong, by what was counted before and after the examination.
pub fn look(subject: &Subject, before: Option<&Counts>, after: Option<&Counts>) -> Vec<Finding> {
    let Some((before, after)) = before.zip(after) else { return Vec::new() };
    let Some(alone) = Alone::of(before, after) else { return Vec::new() };
    let came = |index: &u32| {
        let of = |counts: &Counts| counts.received.get(index).copied().unwrap_or(0);
        of(after).saturating_sub(of(before)) * 100 >= alone.packets.1 * PART
    };
    let path = |index: u32| {
        let all = subject.status.interfaces.iter();
        all.filter(|one| one.index == index).map(|one| one.path.as_str()).next().unwrap_or_default()
    };
    let devices = subject.running().filter(came).flat_map(|index| {
        let devices = Places::default().devices(subject.link(index), index);
        devices.into_iter().map(move |device| (device, path(index)))
    });
    let mut findings: Vec<_> = devices.filter_map(|(device, path)| judge(&alone, &device, path)).collect();
    findings.dedup_by(|a, b| a.place == b.place);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use dirigent_net::receive::Queue;
    use std::time::Duration;

    const STAT: &str = "cpu  30 0 0 100 0 2 9 1 0 0\ncpu0 10 0 0 50 0 2 9 1 0 0\ncpu1 20 0 0 50 0 0 0 0 5 0\nintr 9\n";

    #[test]
    fn times_are_those_of_each_cpu() {
        assert_eq!(times(STAT), [(72, 11), (70, 0)]);
    }

    fn counts(milliseconds: u64, packets: [u64; 2], handling: [u64; 2]) -> Counts {
        let at = Instant::now() + Duration::from_millis(milliseconds);
        let times = handling.map(|handling| (1000 + milliseconds / 10, handling)).to_vec();
        Counts { at, packets: packets.to_vec(), times, received: BTreeMap::new() }
    }

    fn alone(packets: [u64; 2], handling: [u64; 2]) -> Option<Alone> {
        let begun = Counts { at: Instant::now(), ..counts(0, [70, 7], [5, 5]) };
        let mut done = counts(0, packets, handling);
        done.times.iter_mut().for_each(|(all, _)| *all += 200);
        Alone::of(&begun, &Counts { at: begun.at + Duration::from_secs(2), ..done })
    }

    #[test]
    fn a_cpu_is_alone_that_has_the_packets_and_the_load() {
        let is = alone([7, 100_007].map(|n| n + 70), [5, 155]).unwrap();
        assert_eq!((is.cpu, is.cpus, is.load, is.milliseconds), (1, 2, 75, 2000));
        assert_eq!(is.packets, (100_070, 100_077));
        // Not without load, not with few packets, and not where the other has its part.
        assert_eq!(alone([7, 100_007].map(|n| n + 70), [5, 25]), None);
        assert_eq!(alone([7, 5000].map(|n| n + 70), [5, 155]), None);
        assert_eq!(alone([20_000, 100_000], [5, 155]), None);
    }

    fn device(queues: usize, steered: &[usize], interrupts: &[&[usize]]) -> Device {
        let queue = |n: usize| Queue { name: format!("rx-{n}"), steered: steered.iter().copied().collect() };
        let interrupts = interrupts.iter().map(|cpus| cpus.iter().copied().collect()).collect();
        Device { name: "eth0".into(), queues: (0..queues).map(queue).collect(), interrupts }
    }

    /// As kernels show physical devices, which a test cannot make.
    #[test]
    fn what_keeps_packets_on_one_cpu_is_told_with_its_remedy() {
        let packets = (900, 1000);
        let alone = Alone { cpu: 2, cpus: 4, packets, milliseconds: 10, load: 80 };
        let told = |device: &Device, path: &str| {
            let finding = judge(&alone, device, path)?;
            assert!(finding.evidence[0].starts_with("900 of 1000 packets came on CPU 2 in 10 ms"), "{finding:?}");
            Some((finding.commands[0].command.clone(), finding.steering.len(), finding.remedy))
        };
        // One queue, or fewer than CPUs: RPS where it has a say.
        for queues in [1, 3] {
            let (command, steering, _) = told(&device(queues, &[], &[&[0], &[1], &[2]]), "tc").unwrap();
            assert_eq!((command.as_str(), steering), ("ethtool -L eth0 combined 4", queues));
        }
        let finding = judge(&alone, &device(1, &[], &[]), "xdp-generic").unwrap();
        assert_eq!(finding.commands[1].command, "echo f > /sys/class/net/eth0/queues/rx-0/rps_cpus");
        let (_, steering, remedy) = told(&device(1, &[], &[&[2]]), "xdp").unwrap();
        assert!(steering == 0 && remedy.contains("mode = \"tc\""), "{remedy}");
        // Enough queues, and all interrupts of them on that CPU.
        let (command, steering, _) = told(&device(4, &[], &[&[2], &[2], &[2], &[2]]), "xdp").unwrap();
        assert!(steering == 0 && command.contains("smp_affinity_list"), "{command}");
        // As spread as it can be: packets of few connections come on one CPU.
        assert_eq!(told(&device(4, &[], &[&[0], &[1], &[2], &[3]]), "xdp"), None);
        assert_eq!(told(&device(4, &[], &[]), "tc"), None);
        assert_eq!(told(&device(1, &[0, 1, 2, 3], &[&[2]]), "tc"), None);
    }
}
