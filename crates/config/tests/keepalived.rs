//! Whole configurations of keepalived: each is imported, tells what it should, and prints and reads as the same
//! Model; and keepalived itself is asked what it thinks of them.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use dirigent_config::failover::{Version, VirtualRouter};
use dirigent_config::import::{Keepalived, Loader, keepalived};
use dirigent_config::{Failover, file};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ALL_KEYWORDS: &str = include_str!("../src/import/keepalived/keywords.txt");

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keepalived")
}

/// The files, by name.
fn files() -> Vec<(String, String)> {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "conf")).collect();
    names.sort();
    let read =
        |path: PathBuf| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap());
    names.into_iter().map(read).collect()
}

/// Files beside that which includes them; of wildcards `*` alone.
struct Beside;

impl Loader for Beside {
    fn load(&self, pattern: &str, from: &str) -> Result<Vec<(String, String)>, String> {
        let from = from.rsplit_once('/').map_or("", |(directory, _)| directory);
        let whole = directory().join(from).join(pattern);
        let (parent, name) = (whole.parent().unwrap(), whole.file_name().unwrap().to_str().unwrap());
        let (begin, end) = name.split_once('*').unwrap_or((name, ""));
        let mut found: Vec<_> = fs::read_dir(parent)
            .map_err(|e| e.to_string())?
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name_of = path.file_name().unwrap().to_str().unwrap();
                if name.contains('*') { name_of.starts_with(begin) && name_of.ends_with(end) } else { name_of == name }
            })
            .collect();
        found.sort();
        let read = |path: PathBuf| {
            let name = path.strip_prefix(directory()).unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(&path).unwrap())
        };
        Ok(found.into_iter().map(read).collect())
    }
    fn environment(&self, _: &str) -> Option<String> {
        None
    }
}

fn import(name: &str, text: &str) -> Keepalived {
    keepalived(name, text, "lb1", &Beside)
}

/// Lines that are marked as those that something is told of, `file:line`.
fn marked(name: &str, text: &str) -> BTreeSet<String> {
    let lines = text.lines().enumerate().filter(|(_, line)| line.ends_with("# told"));
    lines.map(|(at, _)| format!("{name}:{}", at + 1)).collect()
}

#[test]
fn each_is_imported_and_tells_what_it_should() {
    let all = files();
    assert!(all.len() >= 25, "{}", all.len());
    for (name, text) in all {
        let found = import(&name, &text);
        assert!(found.faults.is_empty(), "{name}: {:#?}", found.faults);
        let told: BTreeSet<_> = found.refused.iter().map(|one| one.place.clone()).collect();
        let mut expected = marked(&name, &text);
        if name == "includes.conf" {
            expected.extend(marked(
                "parts/global.conf",
                &fs::read_to_string(directory().join("parts/global.conf")).unwrap(),
            ));
        }
        assert_eq!(told, expected, "{name}: {:#?}", found.refused);
        assert!(found.refused.iter().all(|one| one.reason.len() > 10), "{name}");
        let printed = file::to_toml(&found.model);
        assert_eq!(file::parse("f", &printed).as_ref(), Ok(&found.model), "{name}:\n{printed}");
        assert!(!printed.contains("\"$"), "{name} has a variable without its value:\n{printed}");
        let empty = found.model.services().is_empty() && found.model.failover().is_empty();
        assert!(!empty, "{name} came to nothing");
    }
}

/// What some of them become, as a person would write it.
#[test]
fn some_become_this() {
    for (name, expected) in [
        (
            "simple-backup.conf",
            r#"version = 1

[[router]]
name = "VI_1"
interface = "eth0"
version = 2
vrid = 51
preempt_delay = "30s"
addresses = [{ address = "192.0.2.10/24", device = "eth0", label = "eth0:vip" }]
higher_prio_send_advert = false

[router.authentication]
password = "s3cret"

[router.announce]
delay = "2s"
repeat = 3
lower_prio_delay = "5s"
lower_prio_repeat = 5
"#,
        ),
        (
            "unicast-cloud.conf",
            r#"version = 1

[failover]
startup_delay = "5s"

[[router]]
name = "CLOUD"
interface = "eth0"
version = 2
vrid = 60
priority = 110
interval = "2s"
preempt = false
addresses = [{ address = "203.0.113.10", device = "lo", track = false }]
source = "192.0.2.2"
track_source = true
peers = ["192.0.2.3", "192.0.2.4"]
check_unicast_src = true
unicast_ttl = 64
higher_prio_send_advert = false

[router.notify]
master = { command = ["/etc/keepalived/scripts/attach"], user = "daemon" }
backup = ["/etc/keepalived/scripts/detach", "elastic address"]
fault = { command = ["/etc/keepalived/scripts/detach"], user = "daemon" }
stop = { command = ["/etc/keepalived/scripts/detach"], user = "daemon" }
deleted = { command = ["/etc/keepalived/scripts/detach"], user = "daemon" }
lower_prio = { command = ["/etc/keepalived/scripts/attach"], user = "daemon" }
all = { command = ["/etc/keepalived/scripts/role"], user = "daemon" }
"#,
        ),
        (
            "mail.conf",
            r#"version = 1

[[router]]
name = "L"
interface = "eth0"
version = 2
vrid = 150
addresses = ["192.0.2.150"]
higher_prio_send_advert = false
mail = true

[[router]]
name = "N"
interface = "eth1"
version = 2
vrid = 151
addresses = ["10.0.0.151"]
higher_prio_send_advert = false
mail = false

[mail]
server = "192.0.2.25"
port = 2525
to = ["ops@example.com", "oncall@example.com"]
from = "lb@example.com"
helo = "lb.example.com"
host = "mailer"
timeout = "20s"
routers = true
services = false
no_faults = true
"#,
        ),
        (
            "conditions.conf",
            r#"version = 1

[[router]]
name = "SHARED"
interface = "eth0"
version = 2
vrid = 110
priority = 150
state = "master"
addresses = ["192.0.2.110/24"]
source = "192.0.2.2"
peers = ["192.0.2.3"]
higher_prio_send_advert = false
"#,
        ),
    ] {
        let text = fs::read_to_string(directory().join(name)).unwrap();
        assert_eq!(file::to_toml(&import(name, &text).model), expected, "{name}");
    }
    let all = files();
    let (_, text) = all.iter().find(|(name, _)| name == "dr-director.conf").unwrap();
    let sync = import("f", text).model.failover().sync.clone().unwrap();
    assert_eq!((sync.router.as_deref(), sync.interface.as_deref()), (Some("WEB"), Some("eth1")));
    assert_eq!(
        (sync.id, sync.port, sync.ttl, sync.maxlen, sync.group.to_string().as_str()),
        (7, 8849, 2, Some(1400), "224.0.0.88")
    );
}

/// Each keyword of the list that the importer's own test goes through is used in a file.
#[test]
fn each_keyword_is_used() {
    let mut text = String::new();
    let mut open = vec![directory()];
    while let Some(directory) = open.pop() {
        for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => open.push(path),
                false => text += &fs::read_to_string(path).unwrap(),
            }
        }
    }
    let used: BTreeSet<&str> =
        text.lines().filter_map(|line| line.split(['#', '{']).next()?.split_whitespace().next()).collect();
    let mut missing = BTreeSet::new();
    for line in ALL_KEYWORDS.lines().filter(|line| !line.starts_with('#')) {
        let (block, rest) = line.split_once(": ").unwrap();
        for keyword in rest.split(" ; ").filter_map(|one| one.split_whitespace().next()) {
            let value = block == "group" || !keyword.starts_with(|c: char| c.is_ascii_alphabetic());
            let own =
                ["w", "s", "p", "f", "b"].contains(&keyword) || keyword.starts_with("eth") || keyword.contains(':');
            if !value && !own && !used.contains(keyword) {
                missing.insert(keyword);
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// Keywords that keepalived 2.2.7 does not have, or not as Debian builds it: those lines are judged by the reference
/// alone.
const NEWER: &[&str] = &[
    "config_save_dir",
    "use_symlink_paths",
    "set_supplementary_groups",
    "vrrp_check_unicast_src",
    "vrrp_owner_ignore_adverts",
    "v3_checksum_as_v2",
    "vrrp_delay_after_boot",
    "include_check",
    "json_version",
    "state_dump_file",
    "stats_dump_file",
    "json_dump_file",
    "dbus_no_interface_name",
    "vrrp_iptables",
    "vrrp_ipsets",
    "snmp_vs_stats_update_interval",
    "snmp_rs_stats_update_interval",
    "iproute_usr_dir",
    "iproute_etc_dir",
    "no_virtual_ipaddress",
    "multihop",
    "sni_name",
    "tls_compliant",
];

/// Keywords that it takes and calls deprecated, which its test counts as a mistake.
const DEPRECATED: &[&str] =
    &["nb_get_retry", "vmac_garp_intvl", "linkbeat_use_polling", "lvs_sync_daemon_interface", "global_tracking"];

/// A file that is all about newer keywords.
const NEWER_FILES: &[&str] = &["newer.conf"];

/// The text without the lines of newer and deprecated keywords; the others keep their numbers.
fn judged(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let word = line.split_whitespace().next().unwrap_or_default();
        if !NEWER.contains(&word) && !DEPRECATED.contains(&word) {
            out += line;
        }
        out.push('\n');
    }
    out
}

/// Whether keepalived can be asked; in continuous integration it must be.
fn has_judge() -> bool {
    let there = |mut command: Command| command.output().is_ok_and(|out: Output| out.status.success());
    let mut keepalived = Command::new("keepalived");
    keepalived.arg("--version");
    let mut namespace = Command::new("unshare");
    namespace.args(["--net", "--mount", "--pid", "--fork", "true"]);
    let found = there(keepalived) && there(namespace);
    if !found {
        println!("SKIPPED: keepalived is not installed, or this user makes no namespaces; `make setup` installs it");
        assert!(std::env::var_os("CI").is_none(), "keepalived must be there in continuous integration");
    }
    found
}

/// Exit status and log of `keepalived -t` for each of some files, in a namespace that has what they name: interfaces,
/// addresses, programs.
fn judge(texts: &[(String, String)]) -> Vec<(String, i32, String)> {
    asked(texts, "keepalived -t -n -l -i lb1 -f \"$1\"", 250)
}

/// What `keepalived` with these options says, and how it ends; it is ended after `steps` of 20 ms.
fn asked(texts: &[(String, String)], program: &str, steps: usize) -> Vec<(String, i32, String)> {
    const SCRIPT: &str = r#"
        set -e
        mount -t tmpfs -o mode=755 none /etc/keepalived
        mount -t tmpfs -o mode=755 none /run
        cp -r "$1"/. /etc/keepalived/
        chown -R root:root /etc/keepalived
        cd /etc/keepalived
        mkdir -p scripts
        for name in $(grep -rhoE '/etc/keepalived/scripts/[a-z]+' . | sort -u); do
            printf '#!/bin/sh\n' > "$name"
            chmod 755 "$name"
        done
        ip link set lo up
        for n in 0 2 4; do ip link add eth$n type veth peer name eth$((n + 1)); done
        for n in 0 1 2 3 4 5; do ip link set eth$n up; done
        ip addr add 192.0.2.2/24 dev eth0
        ip addr add 10.0.0.2/24 dev eth1
        ip -6 addr add fe80::2/64 dev eth0 nodad
        cd /etc/keepalived
        # It ends its whole group of processes when it has looked for scripts, itself included.
        trap '' TERM
        many=0
        for file in *.conf; do
            (
            code=0
            setsid --wait sh -c '
                PROGRAM & pid=$!
                n=0
                # With some mistakes it does not end.
                while kill -0 $pid 2>/dev/null && [ $n -lt STEPS ]; do sleep 0.02; n=$((n + 1)); done
                kill -TERM $pid 2>/dev/null
                n=0
                while kill -0 $pid 2>/dev/null && [ $n -lt 150 ]; do sleep 0.02; n=$((n + 1)); done
                kill -KILL $pid 2>/dev/null
                wait $pid' sh "$file" > "$1/$file.log" 2>&1 || code=$?
            echo "$code" > "$1/$file.code"
            ) &
            many=$((many + 1))
            [ $((many % 4)) != 0 ] || wait
        done
        wait
    "#;
    let place = tempdir();
    let copy = |from: &str| {
        let to = place.join(from);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(directory().join(from)).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_file() {
                fs::write(to.join(entry.file_name().unwrap()), judged(&fs::read_to_string(&entry).unwrap())).unwrap();
            }
        }
    };
    ["parts", "parts/more"].into_iter().for_each(copy);
    for (name, text) in texts {
        fs::write(place.join(name), text).unwrap();
    }
    let script = SCRIPT.replace("PROGRAM", program).replace("STEPS", &steps.to_string());
    let mut command = Command::new("unshare");
    // What it may have left ends with the namespace of processes.
    let out = command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", &script, "sh"])
        .arg(&place)
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let read = |name: &str, end: &str| fs::read_to_string(place.join(format!("{name}.{end}"))).unwrap();
    let found = texts.iter().map(|(name, _)| {
        let code = read(name, "code").trim().parse().unwrap();
        (name.clone(), code, read(name, "log"))
    });
    let found = found.collect();
    fs::remove_dir_all(&place).unwrap();
    found
}

fn tempdir() -> PathBuf {
    let name = format!("dirigent-keepalived-{}-{:?}", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name.replace(['(', ')'], ""));
    fs::create_dir(&path).unwrap();
    path
}

/// What is good here is good there.
#[test]
fn keepalived_takes_the_files_as_well() {
    if !has_judge() {
        return;
    }
    let all = files().into_iter().filter(|(name, _)| !NEWER_FILES.contains(&name.as_str()));
    let all: Vec<_> = all.map(|(name, text)| (name, judged(&text))).collect();
    let wrong: Vec<_> = judge(&all).into_iter().filter(|(_, code, _)| *code != 0).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

const GOOD: &str = include_str!("broken/good.conf");
const BROKEN: &str = include_str!("broken/keepalived.txt");

/// Where this importer refuses what keepalived takes, and why.
const STRICTER: &[(&str, &str)] = &[
    ("192.0.2.20-22 443 => 10.0.0.0/8 443", "16 million services are too many"),
    ("virtual_server_group web => virtual_server_group wob", "a service by a group that is not there does nothing"),
    ("virtual_server 192.0.2.10 80 { => virtual_server 224.0.0.1 80 {", "a virtual address is unicast"),
    ("quorum_up \"/etc/keepalived/scripts/up a\" => quorum_up \"\"", "it names no program"),
    ("lthreshold 5 => lthreshold 11", "the kernel would refuse it later"),
    ("path /health => path health", "no server would understand the request"),
    ("status_code 200-299 => regex_options caseless", "options of what is not there do nothing"),
    ("virtual_server fwmark 7 => include none.conf ; virtual_server fwmark 7", "a file that is named must be there"),
    ("lvs_sync_daemon eth1 OUT id 7 => lvs_sync_daemon eth1 NONE id 7", "it would follow nobody"),
    ("192.0.2.11/24 => 192.0.2.10/24", "an address that is there twice was meant to be another"),
];

/// What keepalived takes is taken here: of the broken files none that it would be content with.
#[test]
fn keepalived_refuses_what_is_refused_here() {
    if !has_judge() {
        return;
    }
    let mut all = vec![("good.conf".to_owned(), GOOD.to_owned())];
    let lines: Vec<_> = BROKEN.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let (old, new) = line.split_once(" => ").unwrap();
        all.push((format!("broken{at:03}.conf"), GOOD.replacen(old, &new.replace(" ; ", "\n"), 1)));
    }
    let mut found = judge(&all).into_iter();
    let (_, code, log) = found.next().unwrap();
    assert_eq!(code, 0, "the good file: {log}");
    let taken = found.zip(&lines).filter(|((_, code, _), _)| *code == 0).map(|(_, line)| *line);
    let taken: Vec<_> = taken.filter(|line| !STRICTER.iter().any(|(known, _)| known == line)).collect();
    assert!(taken.is_empty(), "keepalived takes: {taken:#?}");
    assert!(STRICTER.iter().all(|(known, why)| lines.contains(known) && !why.is_empty()));
}

/// What keepalived does not start with on a host without IPVS, or without that namespace.
const HOSTS: &[&str] =
    &["lvs_sync_daemon", "lvs_timeouts", "lvs_flush", "net_namespace", "namespace_with_ipsets", "instance "];
/// Files for which it starts two processes, which write their dumps into each other's.
const TWO: &[&str] = &["bfd.conf"];
/// Instances whose interface is one that keepalived makes, and the director does not.
const IPVLAN: &[&str] = &["M4"];

/// The instances of a dump, each with its lines.
fn instances(dump: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut inside = false;
    for line in dump.lines() {
        // After the time.
        let Some((_, line)) = line.split_once(": ") else { continue };
        if let Some(name) = line.strip_prefix(" VRRP Instance = ") {
            found.push((name.to_owned(), Vec::new()));
            inside = true;
        } else if !line.starts_with("   ") {
            inside = false;
        } else if inside && let Some((_, lines)) = found.last_mut() {
            // Scripts, files and sessions have different signs behind their names.
            lines.push(line.trim().replace(", weight", " weight").replace(": weight", " weight"));
        }
    }
    found
}

/// What a virtual router is like, in the words of keepalived's dump.
fn described(failover: &Failover, r: &VirtualRouter) -> Vec<String> {
    let on = |yes: bool| if yes { "enabled" } else { "disabled" };
    let a = &r.announce;
    let interval = match r.version {
        Version::V2 => format!("{} sec", r.interval.as_secs()),
        Version::V3 => format!("{} milli-sec", r.interval.as_millis()),
    };
    // keepalived has its members say it.
    let group = failover.groups.iter().find(|g| g.members.contains(&r.name));
    let of_group = group.is_some_and(|g| g.notify.priority_changes);
    let mut out = vec![
        format!("VRRP Version = {}", r.version.number()),
        format!("Gratuitous ARP delay = {}", a.delay.as_secs()),
        format!("Gratuitous ARP repeat = {}", a.repeat),
        format!("Gratuitous ARP refresh = {}", a.refresh.as_secs()),
        format!("Gratuitous ARP lower priority delay = {}", a.lower_prio_delay.unwrap_or(a.delay).as_secs()),
        format!("Gratuitous ARP lower priority repeat = {}", a.lower_prio_repeat.unwrap_or(a.repeat)),
        format!("Down timer adverts = {}", r.down_timer_adverts),
        format!("Send advert after receive lower priority advert = {}", !r.lower_prio_no_advert),
        format!("Send advert after receive higher priority advert = {}", r.higher_prio_send_advert),
        format!("Virtual Router ID = {}", r.vrid),
        format!("Priority = {}", r.priority),
        format!("Advert interval = {interval}"),
        format!("Accept = {}", on(r.accept)),
        format!("Preempt = {}", on(r.preempt)),
        format!("Promote_secondaries = {}", on(r.promote_secondaries)),
        format!("Notify priority changes = {}", r.notify.priority_changes || of_group),
    ];
    if !r.addresses.is_empty() {
        out.push(format!("Virtual IP ({}):", r.addresses.len()));
    }
    if r.virtual_mac.is_none() && !IPVLAN.contains(&r.name.as_str()) {
        out.push(format!("Interface = {}", r.interface.as_deref().unwrap_or_default()));
    }
    // Members of a group begin as backup, if one of them cannot be master.
    if group.is_none() {
        out.push(format!("Wantstate = {}", r.state.name().to_uppercase()));
    }
    if let Some(group) = group {
        out.push(format!("Sync group = {}", group.name));
    }
    for (key, list, _) in r.track.lists() {
        for one in list.iter().filter(|_| key != "interfaces") {
            let reversed = match key {
                "scripts" => failover.scripts.iter().any(|s| s.name == one.name && s.reverse),
                "processes" => failover.processes.iter().any(|s| s.name == one.name && s.reverse),
                "files" => failover.files.iter().any(|s| s.name == one.name && s.reverse),
                _ => failover.bfd.iter().any(|s| s.name == one.name && s.reverse),
            };
            let reverse = if one.weight.map_or(reversed, |_| one.reverse) { " reverse" } else { "" };
            out.push(format!("{} weight {}{reverse}", one.name, failover.weight_of(key, one)));
        }
    }
    out
}

/// What keepalived makes of the files is what they are made here: its own dump says so, defaults included.
#[test]
fn keepalived_understands_the_same() {
    if !has_judge() {
        return;
    }
    let all =
        files().into_iter().filter(|(name, _)| !NEWER_FILES.contains(&name.as_str()) && !TWO.contains(&name.as_str()));
    let host = |line: &&str| !HOSTS.iter().any(|word| line.trim_start().starts_with(word));
    let without = |text: &str| text.lines().filter(host).map(|line| format!("{line}\n")).collect::<String>();
    let all: Vec<_> = all.map(|(name, text)| (name, without(&judged(&text)))).collect();
    // As long as it takes.
    let mut dumps: Vec<_> = all.iter().map(|_| String::new()).collect();
    let whole = |dump: &String| dump.contains("------< Interfaces >------");
    for steps in [40, 100] {
        let missing: Vec<_> = (0..all.len()).filter(|at| !whole(&dumps[*at])).collect();
        let texts: Vec<_> = missing.iter().map(|at| all[*at].clone()).collect();
        // To a terminal it writes line by line.
        let program = "script -qec \"keepalived -n -l -d -P -i lb1 -p /run/$1.pid -r /run/$1.vrrp -f $1\" /dev/null";
        let found = if texts.is_empty() { Vec::new() } else { asked(&texts, program, steps) };
        missing.into_iter().zip(found).for_each(|(at, (_, _, dump))| dumps[at] = dump);
    }
    let (mut compared, mut wrong) = (0, Vec::new());
    for ((name, text), dump) in all.iter().zip(&dumps) {
        let failover = import(name, text).model.failover().clone();
        let theirs = instances(dump);
        for r in &failover.routers {
            let Some((_, lines)) = theirs.iter().find(|(of, _)| *of == r.name) else {
                continue;
            };
            for line in described(&failover, r) {
                let end = [" = ", " weight", " ("].iter().filter_map(|sign| line.find(sign)).min();
                let key = &line[..end.unwrap_or(line.len())];
                let other: Vec<_> =
                    lines.iter().filter(|l| l.strip_prefix(key).is_some_and(|l| l.starts_with(' '))).collect();
                // Of a dump that was cut off, what is there must be the same.
                if other.is_empty() {
                    continue;
                }
                if !lines.contains(&line) {
                    wrong.push(format!("{name}: {}: {line:?}, but keepalived: {other:?}", r.name));
                }
                compared += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared > 500, "{compared}");
}
