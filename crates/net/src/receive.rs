//! By which queues an interface's packets come to CPUs: what the device's interrupts say (RSS), and what the kernel does
//! behind them (RPS), as sysfs and procfs tell it.

use crate::error::{Context as _, Error, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// CPUs, by number.
pub type Cpus = BTreeSet<usize>;

/// A receive queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its name, like `rx-0`.
    pub name: String,
    /// CPUs that RPS hands its packets on to; none: they stay with the CPU of the interrupt.
    pub steered: Cpus,
}

/// A device that packets come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its receive queues.
    pub queues: Vec<Queue>,
    /// Where each of its interrupts may be handled; a virtual device has none.
    pub interrupts: Vec<Cpus>,
}

/// Where the kernel tells it; other places are tests'.
#[derive(Clone, Debug)]
pub struct Places {
    sys: PathBuf,
    proc: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into() }
    }
}

impl Places {
    /// Below another directory.
    #[cfg(test)]
    fn below(root: &Path) -> Self {
        Self { sys: root.join("sys"), proc: root.join("proc") }
    }

    fn interface(&self, name: &str) -> PathBuf {
        self.sys.join("class/net").join(name)
    }

    /// Whether this sysfs is that of the interface's namespace.
    fn shows(&self, name: &str, index: u32) -> bool {
        let told = fs::read_to_string(self.interface(name).join("ifindex")).unwrap_or_default();
        told.trim().parse() == Ok(index)
    }

    /// Packets that an interface has received; nothing if this sysfs is not that of its namespace.
    pub fn received(&self, name: &str, index: u32) -> Option<u64> {
        let file = self.interface(name).join("statistics/rx_packets");
        let text = self.shows(name, index).then(|| fs::read_to_string(file).ok())?;
        text?.trim().parse().ok()
    }

    /// The devices that an interface's packets come by: itself, or what it is made of (bonds, VLANs, bridges). None if
    /// this sysfs is not that of the interface's namespace.
    pub fn devices(&self, name: &str, index: u32) -> Vec<Device> {
        if !self.shows(name, index) {
            return Vec::new();
        }
        let mut left = vec![name.to_owned()];
        let mut seen = BTreeSet::new();
        let mut devices = Vec::new();
        while let Some(name) = left.pop() {
            if !seen.insert(name.clone()) {
                continue;
            }
            let all = entries(&self.interface(&name));
            let lower: Vec<_> = all.filter_map(|entry| Some(entry.strip_prefix("lower_")?.to_owned())).collect();
            match lower.is_empty() {
                true => devices.push(self.device(name)),
                false => left.extend(lower),
            }
        }
        devices.sort_by(|a, b| a.name.cmp(&b.name));
        devices
    }

    fn device(&self, name: String) -> Device {
        let at = self.interface(&name);
        let queue = |queue: String| {
            let mask = fs::read_to_string(at.join("queues").join(&queue).join("rps_cpus")).unwrap_or_default();
            Queue { name: queue, steered: from_mask(&mask) }
        };
        let mut queues: Vec<_> =
            entries(&at.join("queues")).filter(|name| name.starts_with("rx-")).map(queue).collect();
        queues.sort_by_key(|queue| (queue.name.len(), queue.name.clone()));
        // virtio's interrupts are those of the device that it is on.
        let of_device = [at.join("device/msi_irqs"), at.join("device/../msi_irqs")];
        let numbered = |of: &PathBuf| entries(of).filter_map(|name| name.parse().ok()).collect::<BTreeSet<u32>>();
        let numbers = of_device.iter().map(numbered).find(|all| !all.is_empty());
        let allowed = |number: &u32| -> Option<Cpus> {
            let list =
                fs::read_to_string(self.proc.join("irq").join(number.to_string()).join("smp_affinity_list")).ok()?;
            Some(from_list(&list))
        };
        let interrupts = numbers.iter().flatten().filter_map(allowed).filter(|cpus| !cpus.is_empty()).collect();
        Device { name, queues, interrupts }
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = String> + use<> {
    let all = fs::read_dir(directory).into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().into_string().ok())
}

/// CPUs of a mask in hexadecimal, in words of 32 bits with commas between.
fn from_mask(mask: &str) -> Cpus {
    let digits = mask.trim().chars().rev().filter(|c| *c != ',').enumerate();
    let bits = digits.flat_map(|(at, digit)| {
        let digit = digit.to_digit(16).unwrap_or(0);
        (0..4).filter(move |bit| digit >> bit & 1 == 1).map(move |bit| at * 4 + bit)
    });
    bits.collect()
}

/// CPUs as such a mask.
pub fn to_mask(cpus: &Cpus) -> String {
    let words = cpus.last().map_or(0, |last| last / 32);
    let word = |at: usize| cpus.range(at * 32..(at + 1) * 32).fold(0u32, |word, cpu| word | 1 << (cpu % 32));
    let first = format!("{:x}", word(words));
    let rest = (0..words).rev().map(|at| format!(",{:08x}", word(at)));
    std::iter::once(first).chain(rest).collect()
}

/// CPUs of a list like `0-3,8`.
fn from_list(list: &str) -> Cpus {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse::<usize>().ok()?..=to.trim().parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

/// A queue's RPS of this namespace's interface. Interfaces and queues are named as the kernel names them.
fn steering(interface: &str, queue: &str) -> Result<PathBuf> {
    let plain = |name: &str| !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    if plain(interface) && plain(queue) {
        return Ok(Places::default().interface(interface).join("queues").join(queue).join("rps_cpus"));
    }
    Err(Error::refused(format!("{interface:?} has no queue {queue:?}"), "name them as /sys/class/net does"))
}

/// What RPS does with a queue's packets: a mask of CPUs.
pub fn steered(interface: &str, queue: &str) -> Result<String> {
    let path = steering(interface, queue)?;
    let mask = fs::read_to_string(&path).context(|| format!("reading {}", path.display()))?;
    Ok(to_mask(&from_mask(&mask)))
}

/// Sets it.
pub fn steer(interface: &str, queue: &str, mask: &str) -> Result<()> {
    let path = steering(interface, queue)?;
    fs::write(&path, mask).context(|| format!("writing {mask} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_lists_are_read() {
        assert_eq!(from_mask("00000000,00000003\n"), [0, 1].into());
        assert_eq!(from_mask("1,00000000\n"), [32].into());
        assert_eq!(from_mask("0\n"), Cpus::new());
        assert_eq!(from_list("0-2,5\n"), [0, 1, 2, 5].into());
        for cpus in [Cpus::new(), [0, 1].into(), [5, 31, 32, 70].into()] {
            assert_eq!(from_mask(&to_mask(&cpus)), cpus);
        }
        assert_eq!(to_mask(&[0, 1, 2, 3].into()), "f");
        assert_eq!(to_mask(&[0, 33].into()), "2,00000001");
    }

    /// As the kernel shows a VLAN on a bond of two devices, with two queues and one.
    #[test]
    fn what_an_interface_is_made_of_is_found() {
        let root = std::env::temp_dir().join(format!("dirigent-receive-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("sys/class/net/v/ifindex", "7\n");
        put("sys/class/net/v/statistics/rx_packets", "12\n");
        put("sys/class/net/v/lower_b/x", "");
        put("sys/class/net/b/lower_e1/x", "");
        put("sys/class/net/b/lower_e0/x", "");
        put("sys/class/net/e0/queues/rx-0/rps_cpus", "00\n");
        put("sys/class/net/e0/queues/rx-1/rps_cpus", "03\n");
        put("sys/class/net/e0/queues/tx-0/xps_cpus", "00\n");
        put("sys/class/net/e0/device/msi_irqs/24", "msix\n");
        put("sys/class/net/e0/device/msi_irqs/25", "msix\n");
        put("sys/class/net/e1/queues/rx-0/rps_cpus", "00\n");
        put("proc/irq/24/smp_affinity_list", "0\n");
        put("proc/irq/25/smp_affinity_list", "0-1\n");
        let places = Places::below(&root);
        let [e0, e1] = places.devices("v", 7).try_into().unwrap();
        assert_eq!((e0.name.as_str(), e0.interrupts), ("e0", vec![[0].into(), [0, 1].into()]));
        assert_eq!(e0.queues.iter().map(|queue| queue.steered.len()).collect::<Vec<_>>(), [0, 2]);
        assert_eq!((e1.name.as_str(), e1.queues.len(), e1.interrupts.len()), ("e1", 1, 0));
        assert_eq!((places.devices("v", 8), places.received("v", 8)), (vec![], None));
        assert_eq!(places.received("v", 7), Some(12));
        fs::remove_dir_all(&root).unwrap();
        assert!(steered("../x", "rx-0").is_err());
    }
}
