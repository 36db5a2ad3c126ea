//! Virtual routers: directors and keepalived on one link, who share addresses. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use dirigent_datapath::kernel::{Instance, detach_all};
use dirigent_failover::{Addresses, Advert, Auth, Centis, Format, packet};
use dirigent_net::netns::Namespace;
use dirigent_net::raw::PacketSocket;
use dirigent_net::{Netlink, VethEnd};
use dirigent_testkit::failover::answerers::{Own, Prober};
use dirigent_testkit::failover::traffic::{Load, Outcome, Plan, Servers, Target};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const BIN: &str = env!("CARGO_BIN_EXE_dirigent");
const VIP: &str = "10.9.0.100";
const VIP6: &str = "fd09::100";
/// Upper limits are generous: the machine has other things to do.
const PATIENCE: Duration = Duration::from_secs(20);

/// Hosts `a`, `b`, a client `c`, a server `d` and one who looks on, `e`, on a switch.
struct Link {
    name: String,
    directory: PathBuf,
    children: Mutex<Vec<(String, Child)>>,
}

const HOSTS: [(&str, u8); 5] = [("a", 1), ("b", 2), ("c", 9), ("d", 3), ("e", 8)];

impl Link {
    fn up() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        clean_stale();
        let name = format!("vr{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let directory = PathBuf::from(format!("/run/dirigent-test-{name}"));
        std::fs::create_dir_all(&directory).unwrap();
        let link = Self { name, directory, children: Mutex::default() };
        let switch = Namespace::create(&link.namespace("s")).unwrap();
        switch
            .run(|| {
                let mut netlink = Netlink::route().unwrap();
                netlink.add_bridge("br0", [2, 0, 0, 0, 9, 0], 1500).unwrap();
                netlink.set_up("br0", true).unwrap();
            })
            .unwrap();
        for (host, number) in HOSTS {
            let namespace = Namespace::create(&link.namespace(host)).unwrap();
            link.sh(host, "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0");
            let file = namespace.file().unwrap();
            switch
                .run(|| {
                    let mut netlink = Netlink::route().unwrap();
                    let mac = Some([2, 0, 0, 0, 9, number]);
                    let inner = VethEnd { name: "eth0", mac, mtu: None, namespace: Some(file.as_fd()) };
                    let outer = VethEnd { name: host, mac: None, mtu: None, namespace: None };
                    netlink.add_veth(&outer, &inner).unwrap();
                    netlink.set_master(host, "br0").unwrap();
                    netlink.set_up(host, true).unwrap();
                })
                .unwrap();
            namespace
                .run(|| {
                    let mut netlink = Netlink::route().unwrap();
                    netlink.set_up("eth0", true).unwrap();
                    netlink.add_address("eth0", format!("10.9.0.{number}").parse().unwrap(), 24).unwrap();
                    netlink.add_address("eth0", format!("fd09::{number}").parse().unwrap(), 64).unwrap();
                })
                .unwrap();
        }
        link
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    fn instance(&self, host: &str) -> String {
        format!("{}{host}", self.name)
    }

    fn spawn(&self, host: &str, command: &mut Command) -> Child {
        Namespace::open(&self.namespace(host)).unwrap().spawn(command.stdin(Stdio::null())).unwrap()
    }

    fn sh(&self, host: &str, script: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.spawn(host, &mut command).wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{script} on {host}: {}{}", text(&output.stderr), self.logs());
        text(&output.stdout)
    }

    fn holds(&self, host: &str, address: &str) -> bool {
        self.sh(host, "ip -o address show dev eth0").contains(&format!(" {address}/"))
    }

    fn config(&self, host: &str, text: &str) -> PathBuf {
        let file = self.directory.join(format!("{host}.toml"));
        std::fs::write(&file, format!("version = 1\n{text}")).unwrap();
        file
    }

    fn log(&self, host: &str) -> PathBuf {
        self.directory.join(format!("{host}.log"))
    }

    fn logs(&self) -> String {
        let log = |(host, _): &(&str, u8)| {
            let text = std::fs::read_to_string(self.log(host)).unwrap_or_default();
            format!("\n--- {host}\n{text}")
        };
        HOSTS.iter().map(log).collect()
    }

    fn start(&self, host: &str, command: &mut Command) {
        let log = std::fs::File::options().create(true).append(true).open(self.log(host)).unwrap();
        let child = self.spawn(host, command.stdout(log.try_clone().unwrap()).stderr(log));
        self.children.lock().unwrap().push((host.to_owned(), child));
    }

    /// A director with these virtual routers.
    fn director(&self, host: &str, routers: &str) {
        let config = self.config(host, routers);
        let mut command = Command::new(BIN);
        command.args(["run", "--instance", &self.instance(host), "--config"]).arg(config);
        self.start(host, &mut command);
        self.until("the director is there", || self.dirigent(host, &["status", "--json"]).is_some());
    }

    fn dirigent(&self, host: &str, args: &[&str]) -> Option<String> {
        let mut command = Command::new(BIN);
        command.args(["--instance", &self.instance(host)]).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        let output = self.spawn(host, &mut command).wait_with_output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn router(&self, host: &str, name: &str) -> Value {
        let all = self.dirigent(host, &["failover", "status", "--json"]).unwrap_or_else(|| panic!("{}", self.logs()));
        let all: Vec<Value> = serde_json::from_str(&all).unwrap();
        all.into_iter().find(|r| r["name"] == name).unwrap_or(Value::Null)
    }

    fn state(&self, host: &str, name: &str) -> String {
        self.router(host, name)["state"].as_str().unwrap_or_default().to_owned()
    }

    fn keepalived(&self, host: &str, text: &str) {
        let config = self.directory.join(format!("{host}.conf"));
        std::fs::write(&config, text).unwrap();
        let pid = |kind: &str| self.directory.join(format!("{host}.{kind}.pid"));
        let mut command = Command::new("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"]).arg(config);
        command.arg("--pid").arg(pid("main")).arg("--vrrp_pid").arg(pid("vrrp"));
        self.start(host, &mut command);
    }

    /// Sends the host's process a signal, and waits for its end if it is one that ends it.
    fn signal(&self, host: &str, signal: &str) {
        let mut children = self.children.lock().unwrap();
        let at = children.iter().position(|(name, _)| name == host).unwrap();
        let pid = children[at].1.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        if ["-9", "-TERM"].contains(&signal) {
            children.remove(at).1.wait().unwrap();
        }
    }

    fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !so() {
            assert!(begun.elapsed() < PATIENCE, "{what}{}", self.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ping(&self, address: &str) -> bool {
        let mut command = Command::new("ping");
        command.args(["-n", "-c1", "-W1", address]).stdout(Stdio::null()).stderr(Stdio::null());
        self.spawn("c", &mut command).wait().unwrap().success()
    }

    /// The host loses its carrier, or has it again.
    fn cut(&self, host: &str, cut: bool) {
        self.sh("s", &format!("ip link set dev {host} {}", if cut { "down" } else { "up" }));
    }

    /// Nobody hears the host any more, which does not see that; or all do again.
    fn split(&self, host: &str, split: bool) {
        self.sh("s", &format!("ip link set dev {host} {}", if split { "nomaster" } else { "master br0" }));
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for (_, mut child) in self.children.get_mut().unwrap().drain(..) {
            // keepalived ends its child, which SIGKILL would leave.
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            let begun = Instant::now();
            while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < Duration::from_secs(3) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        remove(&self.name);
    }
}

/// Takes a link away, with all that runs there.
fn remove(name: &str) {
    for host in ["a", "b", "c", "d", "e", "s"] {
        let namespace = format!("{name}-{host}");
        let pids = Command::new("ip").args(["netns", "pids", &namespace]).output();
        for pid in pids.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default().split_whitespace()
        {
            let _ = Command::new("kill").args(["-9", pid]).status();
        }
        let _ = Namespace::delete(&namespace);
        let instance = format!("{name}{host}");
        if let Ok(instance) = Instance::new(&instance)
            && instance.directory().exists()
        {
            let _ = detach_all(&instance);
        }
        for kind in ["vips", "lock", "sock", "failover.json", "health.json", "sync.json", "runtime.json", "file.json"] {
            let _ = std::fs::remove_file(format!("/run/dirigent/{instance}.{kind}"));
        }
    }
    let _ = std::fs::remove_dir_all(format!("/run/dirigent-test-{name}"));
}

/// Those whose test was killed.
fn clean_stale() {
    let Ok(all) = std::fs::read_dir("/run") else { return };
    for entry in all.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(name) = entry.strip_prefix("dirigent-test-") else { continue };
        let pid = name.strip_prefix("vr").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(name);
        }
    }
}

/// What a host's director tells, as it happens.
struct Events {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Events {
    fn of(link: &Link, host: &str) -> Self {
        let mut command = Command::new(BIN);
        command
            .args(["--instance", &link.instance(host), "events", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = link.spawn(host, &mut command);
        let (lines, out) = (Arc::new(Mutex::new(Vec::new())), process.stdout.take().unwrap());
        let to = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                to.lock().unwrap().push(line);
            }
        });
        // Until it listens.
        std::thread::sleep(Duration::from_millis(700));
        Self { process, lines }
    }
    fn has(&self, word: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|line| line.contains(word))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn routers(priority: u8, more: &str) -> String {
    let router = |name: &str, vrid: u8, address: &str| {
        format!(
            "[[router]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = {vrid}\npriority = {priority}\n\
             interval = \"200ms\"\naddresses = [\"{address}\"]\n{more}\n"
        )
    };
    router("web", 51, &format!("{VIP}/24")) + &router("web6", 52, &format!("{VIP6}/64"))
}

/// Exactly one of the two is master of both, and holds the addresses.
fn settled(link: &Link, master: &str, backup: &str) -> bool {
    ["web", "web6"].iter().all(|r| link.state(master, r) == "master" && link.state(backup, r) == "backup")
        && [VIP, VIP6].iter().all(|vip| link.holds(master, vip) && !link.holds(backup, vip))
}

#[test]
fn the_higher_priority_is_master_and_hands_over_when_asked() {
    let link = Link::up();
    link.director("b", &routers(100, ""));
    link.until("b is master alone", || link.state("b", "web") == "master" && link.holds("b", VIP));
    assert!(link.ping(VIP));
    link.director("a", &routers(150, ""));
    link.until("a takes over", || settled(&link, "a", "b"));
    assert!(link.ping(VIP) && link.ping(VIP6), "{}", link.logs());
    let heard = link.router("b", "web");
    assert_eq!((&heard["master"]["address"], &heard["master"]["priority"]), (&"10.9.0.1".into(), &150.into()));
    let status = link.dirigent("a", &["status"]).unwrap();
    assert!(status.contains("virtual router web: master") && status.contains(VIP), "{status}");

    let said = link.dirigent("a", &["failover", "rehearse", "web", "--json"]).unwrap();
    let said: Vec<Value> = serde_json::from_str(&said).unwrap();
    // It took over from b, which it heard.
    assert_eq!((&said[0]["outcome"], &said[0]["by"]), (&"taken over".into(), &"10.9.0.2".into()), "{said:?}");
    assert!(link.dirigent("b", &["failover", "now", "web"]).is_none(), "a backup cannot give way");
    let events = Events::of(&link, "a");
    link.dirigent("a", &["failover", "now"]).unwrap();
    link.until("b takes over", || settled(&link, "b", "a"));
    assert!(link.ping(VIP) && link.ping(VIP6));
    assert_eq!(link.router("a", "web")["gave_way"], true);
    link.until("the events", || events.has("\"backup web\"") && events.has("\"backup web6\""));
    link.dirigent("a", &["failover", "back"]).unwrap();
    link.until("a takes it back", || settled(&link, "a", "b"));

    // What is removed is given up at once, and a reload keeps what is master.
    link.config("a", &routers(150, "[router.announce]\nrepeat = 2\n"));
    link.dirigent("a", &["reload"]).unwrap();
    assert!(settled(&link, "a", "b"), "{}", link.logs());
    let only = routers(150, "[router.announce]\nrepeat = 2\n");
    link.config("a", only.split("[[router]]\nname = \"web6\"").next().unwrap());
    link.dirigent("a", &["reload"]).unwrap();
    link.until("b has the other", || link.holds("b", VIP6) && !link.holds("a", VIP6));
    assert!(link.holds("a", VIP) && !link.holds("b", VIP), "{}", link.logs());
    // The end of the director gives way, too.
    link.dirigent("a", &["stop", "--detach"]).unwrap();
    assert!(!link.holds("a", VIP));
    link.until("b has all", || link.holds("b", VIP));
}

/// The one who is killed takes nobody along: the other takes over, and the guard takes the dead one's addresses away.
#[test]
fn a_killed_master_is_followed_and_its_addresses_are_taken_away() {
    let link = Link::up();
    link.director("a", &routers(150, ""));
    link.director("b", &routers(100, ""));
    link.until("a is master", || settled(&link, "a", "b"));
    link.signal("a", "-9");
    let killed = Instant::now();
    // Without forks, which are slow on a busy machine.
    let holds = |host: &str| {
        let look = || dirigent_net::Snapshot::take().unwrap().addresses.iter().any(|a| a.ip.to_string() == VIP);
        Namespace::open(&link.namespace(host)).unwrap().run(look).unwrap()
    };
    let (mut taken, mut gone) = (None, None);
    while taken.is_none() || gone.is_none() {
        assert!(killed.elapsed() < PATIENCE, "{}", link.logs());
        if gone.is_none() && !holds("a") {
            gone = Some(killed.elapsed());
        }
        if taken.is_none() && holds("b") {
            taken = Some(killed.elapsed());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let (taken, gone) = (taken.unwrap(), gone.unwrap());
    eprintln!("killed: the addresses were gone after {gone:?}, the backup had them after {taken:?}");
    // 3 intervals and a skew time are 722 ms; the guard's bound is 550 ms after the last advert.
    assert!(taken < Duration::from_secs(5), "{taken:?}");
    assert!(gone < taken + Duration::from_millis(100), "both had them: {gone:?} {taken:?}{}", link.logs());
    link.until("all of them", || !link.holds("a", VIP6) && link.holds("b", VIP6));
    assert!(link.ping(VIP));
    let log = std::fs::read_to_string(link.log("a")).unwrap();
    assert!(log.contains("guard: took 10.9.0.100 off eth0"), "{log}");
    // It comes back as any other.
    link.director("a", &routers(150, ""));
    link.until("a is master again", || settled(&link, "a", "b"));
    // One that hangs is as dead; when it runs again it knows that it is no master.
    link.signal("a", "-STOP");
    link.until("b takes over from who hangs", || holds("b") && !holds("a"));
    link.signal("a", "-CONT");
    link.until("a is master again", || settled(&link, "a", "b"));
    let log = std::fs::read_to_string(link.log("a")).unwrap();
    assert!(log.contains("this daemon did not run, and could not be sure for"), "{log}");
}

/// Who is back before anyone can have taken over goes on.
#[test]
fn a_daemon_that_comes_back_in_time_goes_on_as_master() {
    let link = Link::up();
    // 28 s until a backup takes over.
    let slow = |priority| routers(priority, "").replace("200ms", "10s");
    link.director("a", &slow(150).replace("vrid", "state = \"master\"\nvrid"));
    link.director("b", &slow(100));
    link.until("a is master", || settled(&link, "a", "b"));
    for signal in ["-9", "-TERM"] {
        link.signal("a", signal);
        assert!(link.holds("a", VIP) && link.holds("a", VIP6), "the addresses stay");
        assert!(link.ping(VIP));
        link.director("a", &slow(150));
        link.until("a goes on", || link.state("a", "web") == "master");
        assert!(settled(&link, "a", "b"), "{}", link.logs());
        assert_eq!(link.router("a", "web")["why"], "it goes on as the daemon before it");
    }
    let log = std::fs::read_to_string(link.log("b")).unwrap();
    assert!(!log.contains("is master"), "{log}");
    let guards = link.sh("a", "pgrep -fc '[d]irigent.* guard$' || true");
    assert!(guards.trim().parse::<u32>().unwrap() >= 1, "{guards}");
    // Without the section nobody holds them.
    link.config("a", "");
    link.dirigent("a", &["reload"]).unwrap();
    link.until("b takes over", || link.holds("b", VIP));
    assert!(!link.holds("a", VIP));
}

#[test]
fn a_split_heals_and_a_dead_link_is_a_fault() {
    let link = Link::up();
    link.director("a", &routers(150, ""));
    link.director("b", &routers(100, ""));
    link.until("a is master", || settled(&link, "a", "b"));
    let events = Events::of(&link, "a");
    link.split("a", true);
    link.until("both are master", || link.state("b", "web") == "master" && link.state("a", "web") == "master");
    assert!(link.ping(VIP), "the client's side goes on");
    link.split("a", false);
    link.until("one is master", || settled(&link, "a", "b"));
    link.until("an alarm", || events.has("\"alarm\"") && events.has("is master, too"));
    link.until("the client knows who", || {
        link.ping(VIP) && link.sh("c", &format!("ip neigh show {VIP}")).contains("02:00:00:00:09:01")
    });
    link.until("it is over", || events.has("it is the only master again"));

    link.cut("a", true);
    link.until("b takes over", || {
        link.state("a", "web") == "fault" && link.holds("b", VIP) && !link.holds("a", VIP) && link.holds("b", VIP6)
    });
    assert_eq!(link.router("a", "web")["why"], "interface eth0 is down");
    assert!(link.ping(VIP));
    link.cut("a", false);
    link.until("a is back", || settled(&link, "a", "b"));
}

/// Services behind the addresses go on with whoever is master.
#[test]
fn clients_are_served_through_whoever_is_master() {
    let link = Link::up();
    link.sh(
        "d",
        &format!(
            "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
             ip address add {VIP}/32 dev lo; ip address add {VIP6}/128 dev lo"
        ),
    );
    let mut server = Command::new("socat");
    link.start("d", server.args(["TCP6-LISTEN:80,fork,reuseaddr,ipv6only=0", "SYSTEM:echo served"]));
    let service = |vip: &str, server: &str| {
        format!(
            "[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:80\"\n\
             [[service.server]]\naddress = \"{server}:80\"\nmethod = \"dr\"\n"
        )
    };
    let services = service(VIP, "10.9.0.3") + &service(&format!("[{VIP6}]"), "[fd09::3]");
    link.director("a", &(routers(150, "") + &services));
    link.director("b", &(routers(100, "") + &services));
    link.until("a is master", || settled(&link, "a", "b"));
    let served = || {
        let one = |vip: &str| {
            let script = format!("timeout 3 socat -u TCP:{vip}:80,connect-timeout=2 - || true");
            link.sh("c", &script).contains("served")
        };
        one(VIP) && one(&format!("[{VIP6}]"))
    };
    let taken = |host: &str| -> u64 {
        let stats: Value = serde_json::from_str(&link.dirigent(host, &["stats", "--json"]).unwrap()).unwrap();
        stats["total"]["connections"].as_u64().unwrap()
    };
    link.until("a serves", served);
    assert!(taken("a") >= 2 && taken("b") == 0, "{} {}", taken("a"), taken("b"));
    link.signal("a", "-9");
    link.until("b is master", || link.holds("b", VIP) && link.holds("b", VIP6));
    link.until("b serves", served);
    assert!(taken("b") >= 2, "{}", taken("b"));
    link.director("a", &(routers(150, "") + &services));
    link.until("a is master again", || settled(&link, "a", "b"));
    let before = taken("a");
    link.until("a serves again", served);
    assert!(taken("a") >= before + 2);
}

/// What is configured and not done is named, before and while it runs.
#[test]
fn what_is_not_done_is_named() {
    let link = Link::up();
    let text = "[[router]]\nname = \"ah\"\ninterface = \"eth0\"\nversion = 2\nvrid = 7\naddresses = [\"10.9.0.7\"]\n\
                [router.authentication]\npassword = \"x\"\nah = true\n\
                [[router]]\nname = \"odd\"\ninterface = \"eth0\"\nvrid = 8\nstate = \"master\"\naddresses = [\"10.9.0.8\"]\n\
                [router.virtual_mac]\n[router.track]\nbfd = [\"p\"]\n\
                [[bfd]]\nname = \"p\"\naddress = \"10.9.0.2\"\n\
                [[router]]\nname = \"needs\"\ninterface = \"eth0\"\nvrid = 9\naddresses = [\"10.9.0.9\"]\n\
                [router.track]\nprocesses = [\"q\"]\n\
                [[track_process]]\nname = \"q\"\ncommand = [\"nosuchprogram\"]\n";
    let config = link.config("a", text);
    let checked = link.sh("a", &format!("{BIN} check --config {} 2>&1", config.display()));
    for word in
        ["router ah: it is not started: authentication by AH", "router odd: not done yet: virtual_mac", "track.bfd"]
    {
        assert!(checked.contains(word), "{word}: {checked}");
    }
    link.director("a", text);
    link.until("the other is master", || link.holds("a", "10.9.0.8"));
    let status = link.dirigent("a", &["status"]).unwrap();
    assert!(
        status.contains("authentication by AH is not done yet") && status.contains("virtual router odd: master"),
        "{status}"
    );
    assert!(!link.holds("a", "10.9.0.7"));
    link.until("a program that does not run is a fault", || {
        let needs = link.router("a", "needs");
        (&needs["state"], &needs["why"]) == (&"fault".into(), &"track_process q is down".into())
    });
}

/// Unicast, a sync group, and all that moves priorities; who is told of it.
#[test]
fn what_is_tracked_moves_priorities_and_scripts_are_told() {
    use std::os::unix::fs::PermissionsExt as _;
    let link = Link::up();
    let file = |name: &str| link.directory.join(name);
    for name in ["told", "broken"] {
        std::fs::write(file(name), "").unwrap();
        std::fs::set_permissions(file(name), std::fs::Permissions::from_mode(0o666)).unwrap();
    }
    std::fs::set_permissions(&link.directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = |peer: &str, priority: u8| {
        let more = "[router.track]\nscripts = [\"well\"]\nfiles = [\"number\"]\nservices = [\"tcp:192.0.2.1:80\"]\n";
        let all = routers(priority, more);
        let (four, six) = all.split_once("[[router]]\nname = \"web6\"").unwrap();
        let four = four.replacen("vrid", &format!("peers = [\"{peer}\"]\nvrid"), 1);
        format!(
            "{four}[[router]]\nname = \"web6\"{six}\
             [[router_group]]\nname = \"G\"\nmembers = [\"web\", \"web6\"]\ntrack_weights = true\n\
             [router_group.notify]\nall = [\"/bin/sh\", \"-c\", \"echo $0 $1 $2 $3 >> {}\"]\n\
             [[track_script]]\nname = \"well\"\ncommand = [\"/bin/sh\", \"-c\", \"test ! -s {}\"]\ninterval = \"100ms\"\n\
             timeout = \"2s\"\nrise = 2\nfall = 2\nweight = -100\n\
             [[track_file]]\nname = \"number\"\npath = \"{}\"\nweight = 1\ninitial = 0\n\
             [[service]]\naddress = \"192.0.2.1:80\"\nprotocol = \"tcp\"\n[[service.server]]\naddress = \"10.9.0.9:80\"\n",
            file("told").display(),
            file("broken").display(),
            file("number").display()
        )
    };
    let fifo = file("fifo");
    let with_fifo = format!("{}[[fifo]]\npath = \"{}\"\nevents = \"routers\"\n", text("10.9.0.2", 150), fifo.display());
    // Opened for reading and writing, it is read until it is killed.
    link.sh("a", &format!("mkfifo {}", fifo.display()));
    let mut reader = Command::new("sh");
    reader.args(["-c", &format!("exec cat <> {} > {}", fifo.display(), file("read").display())]);
    link.start("c", &mut reader);
    link.director("a", &with_fifo);
    link.director(
        "b",
        &routers(100, "").replacen("vrid", "peers = [\"10.9.0.1\"]\nvrid", 1).replace(
            "[[router]]\nname = \"web6\"",
            "[[router_group]]\nname = \"G\"\nmembers = [\"web\", \"web6\"]\n[[router]]\nname = \"web6\"",
        ),
    );
    link.until("a is master", || settled(&link, "a", "b"));
    assert_eq!(link.router("a", "web")["group"], "G");
    std::fs::write(file("broken"), "x").unwrap();
    link.until("b takes over", || settled(&link, "b", "a"));
    assert_eq!(link.router("a", "web6")["priority"], 50);
    std::fs::write(file("broken"), "").unwrap();
    link.until("a is back", || settled(&link, "a", "b"));
    std::fs::write(file("number"), "-60\n").unwrap();
    link.until("b takes over again", || settled(&link, "b", "a"));
    std::fs::write(file("number"), "0\n").unwrap();
    link.until("a is back again", || settled(&link, "a", "b"));
    // The service that it tracks goes: of weight 0, that is a fault.
    link.dirigent("a", &["service", "remove", "tcp:192.0.2.1:80"]).unwrap();
    link.until("a fails", || link.state("a", "web") == "fault" && link.state("a", "web6") == "fault");
    assert_eq!(link.router("a", "web")["why"], "service tcp:192.0.2.1:80 is down");
    link.until("b has all", || link.holds("b", VIP) && link.holds("b", VIP6) && !link.holds("a", VIP));
    // In whatever order: each is a process of its own.
    let told = || std::fs::read_to_string(file("told")).unwrap();
    link.until("the script is told", || {
        ["BACKUP", "MASTER", "FAULT"]
            .iter()
            .all(|state| told().lines().any(|line| line == format!("GROUP G {state} 0")))
    });
    assert_eq!(told().lines().filter(|line| line.contains("FAULT")).count(), 1, "once for the group: {}", told());
    // What a reload removes is told as that.
    link.config("a", "");
    link.dirigent("a", &["reload"]).unwrap();
    link.until("the end is told", || told().contains("GROUP G DELETED 0"));
    let read = std::fs::read_to_string(file("read")).unwrap();
    for line in [
        "INSTANCE \"web\" MASTER 150",
        "INSTANCE \"web6\" BACKUP 50",
        "GROUP \"G\" MASTER 0",
        "INSTANCE \"web\" FAULT 150",
    ] {
        assert!(read.lines().any(|one| one == line), "{line}: {read}");
    }
}

fn keepalived_config(instances: &str) -> String {
    format!("global_defs {{\n router_id test\n vrrp_garp_master_delay 1\n}}\n{instances}")
}

/// Mastership goes both ways between the director `a` and keepalived on `b`.
fn both_ways(link: &Link, with: &dyn Fn(u8) -> String, keepalived: &str, names: &[&str], vips: &[&str]) {
    let master = |host: &str, other: &str| vips.iter().all(|vip| link.holds(host, vip) && !link.holds(other, vip));
    let are = |state: &str| names.iter().all(|name| link.state("a", name) == state);
    link.director("a", &with(150));
    link.until("the director is master alone", || are("master") && master("a", "b"));
    link.keepalived("b", keepalived);
    std::thread::sleep(Duration::from_secs(2));
    assert!(are("master") && master("a", "b"), "keepalived of priority 120 takes nothing{}", link.logs());
    link.config("a", &with(100));
    link.dirigent("a", &["reload"]).unwrap();
    link.until("keepalived takes over", || are("backup") && master("b", "a"));
    assert!(link.router("a", names[0])["master"]["priority"] == 120);
    assert!(vips.iter().all(|vip| link.ping(vip)), "{}", link.logs());
    link.config("a", &with(150));
    link.dirigent("a", &["reload"]).unwrap();
    link.until("the director takes over", || are("master") && master("a", "b"));
    assert!(vips.iter().all(|vip| link.ping(vip)), "{}", link.logs());
    link.dirigent("a", &["failover", "now"]).unwrap();
    link.until("keepalived takes over what is given", || are("backup") && master("b", "a"));
    // Its end says priority 0.
    link.signal("b", "-TERM");
    link.until("the director has it again", || are("master") && master("a", "b"));
}

#[test]
fn keepalived_of_version_2_with_a_password() {
    let link = Link::up();
    let with = |priority: u8| {
        format!(
            "[[router]]\nname = \"web\"\ninterface = \"eth0\"\nversion = 2\nvrid = 51\npriority = {priority}\n\
             interval = \"1s\"\naddresses = [\"{VIP}/24\"]\n[router.authentication]\npassword = \"secret\"\n"
        )
    };
    let keepalived = keepalived_config(&format!(
        "vrrp_instance VI_1 {{\n interface eth0\n state BACKUP\n version 2\n virtual_router_id 51\n priority 120\n advert_int 1\n \
         authentication {{\n auth_type PASS\n auth_pass secret\n }}\n virtual_ipaddress {{\n {VIP}/24\n }}\n}}\n"
    ));
    both_ways(&link, &with, &keepalived, &["web"], &[VIP]);
}

#[test]
fn keepalived_of_version_3_with_both_families() {
    let link = Link::up();
    let instance = |name: &str, vrid: u8, address: &str| {
        format!(
            "vrrp_instance {name} {{\n interface eth0\n state BACKUP\n version 3\n virtual_router_id {vrid}\n priority 120\n \
             advert_int 0.2\n virtual_ipaddress {{\n {address}\n }}\n}}\n"
        )
    };
    let instances = instance("VI_4", 51, &format!("{VIP}/24")) + &instance("VI_6", 52, &format!("{VIP6}/64"));
    both_ways(&link, &|priority| routers(priority, ""), &keepalived_config(&instances), &["web", "web6"], &[VIP, VIP6]);
}

/// A client's connection, which says a line and waits for it to come back.
struct Echo {
    process: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Echo {
    fn to(link: &Link, at: &str) -> Self {
        let mut command = Command::new("socat");
        command.args(["-t30", "-", at]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Namespace::open(&link.namespace("c")).unwrap().spawn(&mut command).unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap());
        Self { process, lines }
    }
    /// Whether it came back. (What is lost on the way TCP sends again.)
    fn says(&mut self, line: &str) -> bool {
        let to = self.process.stdin.as_mut().unwrap();
        if writeln!(to, "{line}").is_err() {
            return false;
        }
        let mut back = String::new();
        self.lines.read_line(&mut back).is_ok() && back.trim_end() == line
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Two directors who tell each other of connections; what a client has begun goes on by whichever is master, and
/// `stop --detach` leaves nothing of it.
#[test]
fn connections_go_on_by_the_other_director() {
    let link = Link::up();
    for (host, number) in [("a", 1), ("b", 2), ("c", 9)] {
        link.sh(
            host,
            &format!("ip address add 10.8.0.{number}/24 dev eth0; ip address add fd08::{number}/64 dev eth0"),
        );
    }
    for host in ["a", "b"] {
        link.sh(host, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    }
    link.sh("d", "ip route add default via 10.9.0.100; ip -6 route add default via fd09::100");
    for listen in ["TCP4-LISTEN:8080", "TCP6-LISTEN:8080,ipv6only=1"] {
        let mut command = Command::new("socat");
        command.args([&format!("{listen},fork,reuseaddr"), "EXEC:cat"]);
        link.start("d", &mut command);
    }
    let routers = |priority: u8| {
        let router = |name: &str, vrid: u8, addresses: &str| {
            format!(
                "[[router]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = {vrid}\npriority = {priority}\n\
                 interval = \"200ms\"\naddresses = [{addresses}]\n"
            )
        };
        let service = |vip: &str, server: &str, persistence: &str| {
            format!(
                "[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:80\"\n{persistence}\n\
                 server = [{{ address = \"{server}:8080\" }}]\n"
            )
        };
        router("web", 51, "\"10.8.0.100/24\", \"10.9.0.100/24\"")
            + &router("web6", 52, "\"fd08::100/64\", \"fd09::100/64\"")
            + &service("10.8.0.100", "10.9.0.3", "persistence = {}")
            + &service("[fd08::100]", "[fd09::3]", "")
            + "[director]\nconnections = 4096\n[sync]\ninterface = \"eth0\"\nid = 7\nkey = \"a shared secret that nobody knows\"\n"
    };
    link.director("a", &routers(150));
    link.director("b", &routers(100));
    let sync = |host: &str| -> Value {
        let status = link.dirigent(host, &["status", "--json"]).unwrap();
        serde_json::from_str::<Value>(&status).unwrap()["synchronisation"].clone()
    };
    let masters = |host: &str| ["web", "web6"].iter().all(|router| link.state(host, router) == "master");
    link.until("a is master", || masters("a") && link.ping("10.8.0.100"));
    link.until("each knows all of the other", || ["a", "b"].iter().all(|host| sync(host)["peers"][0]["whole"] == true));
    let mut echoes = [Echo::to(&link, "TCP4:10.8.0.100:80"), Echo::to(&link, "TCP6:[fd08::100]:80")];
    for n in 0..4 {
        assert!(echoes.iter_mut().all(|echo| echo.says(&format!("by a: {n}"))), "{}", link.logs());
    }
    // Two connections and the template of one of them.
    link.until("b has learned them", || sync("b")["peers"][0]["known"] == 3);
    let list = link.dirigent("b", &["connection", "list"]).unwrap();
    assert_eq!(list.matches("ESTABLISHED").count(), 2, "{list}");
    assert_eq!(sync("a")["own"], 3, "{}", sync("a"));

    link.cut("a", true);
    link.until("b is master", || masters("b"));
    assert!(echoes.iter_mut().all(|echo| echo.says("by b")), "{}", link.logs());
    link.until("they are b's own", || sync("b")["own"] == 2);
    link.cut("a", false);
    link.until("a is master again", || masters("a"));
    assert!(echoes.iter_mut().all(|echo| echo.says("by a again")), "{}{}", sync("a"), link.logs());
    let status = link.dirigent("b", &["status"]).unwrap();
    assert!(status.contains("node 10.9.0.1") && status.contains("whole"), "{status}");

    // A daemon that is killed leaves its connections to the next one, who knows whose they are.
    link.signal("b", "-9");
    link.director("b", &routers(100));
    link.until("b knows all again", || sync("b")["peers"][0]["whole"] == true);
    drop(echoes);
    // The client's FIN is told at once.
    link.until("b hears of their end", || {
        !link.dirigent("b", &["connection", "list"]).unwrap().contains("ESTABLISHED")
    });
    let peer = sync("b")["peers"][0].clone();
    assert_eq!((&peer["whole"], &peer["lost"]), (&true.into(), &0.into()), "{peer}");
}

/// Resident memory of a host's process, kB.
fn resident(link: &Link, host: &str) -> u64 {
    let children = link.children.lock().unwrap();
    let pid = children.iter().find(|(name, _)| name == host).unwrap().1.id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What kernel 6.1's master sent (crates/sync/recordings) is known here as its own table had it. Then somebody sends as
/// much as he can, of all that is wrong: nothing changes, and what is right is heard again when he stops.
#[test]
fn a_kernels_connections_are_learned_and_forged_ones_are_not() {
    let link = Link::up();
    link.director("a", "[director]\nconnections = 4096\n[sync]\ninterface = \"eth0\"\nid = 7\n");
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/../sync/recordings/master.json");
    let all: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(recording).unwrap()).unwrap();
    let bytes = |hex: &Value| -> Vec<u8> {
        let hex = hex.as_str().unwrap();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let send = |host: &str, datagram: &[u8]| {
        let namespace = Namespace::open(&link.namespace(host)).unwrap();
        let sent = namespace.run(|| {
            let socket = std::net::UdpSocket::bind("10.9.0.2:0").unwrap();
            socket.send_to(datagram, "10.9.0.1:8848").unwrap();
        });
        sent.unwrap();
    };
    let ipvsadm = |args: &str| {
        let args: Vec<_> = std::iter::once("ipvsadm").chain(args.split(' ')).collect();
        link.dirigent("a", &args).unwrap_or_else(|| panic!("{args:?}{}", link.logs()))
    };
    /// Protocol, state and ends; the time that is left a second later is another.
    fn plain(line: &str) -> String {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            [protocol, state, _, rest @ ..] => format!("{protocol} {state} {}", rest.join(" ")),
            _ => panic!("{line}"),
        }
    }
    let known = || {
        let list = ipvsadm("-L -n -c");
        let swapped = list.lines().skip(2).filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            let [protocol, _, state, client, service, server, ..] = words.as_slice() else { return None };
            Some(format!("{protocol} {state} {client} {service} {server}"))
        });
        let mut known: Vec<_> = swapped.collect();
        known.sort();
        known
    };
    let mut compared = 0;
    for scenario in all.iter().filter(|s| ["states-4", "states-6"].contains(&s["name"].as_str().unwrap())) {
        ipvsadm("-C");
        for line in scenario["setup"].as_array().unwrap() {
            ipvsadm(line.as_str().unwrap());
        }
        for step in scenario["steps"].as_array().unwrap() {
            for datagram in step["datagrams"].as_array().unwrap() {
                send("b", &bytes(datagram));
            }
            let Some(table) = step["table"]["ipvsadm"].as_array() else { continue };
            let mut expected: Vec<_> = table.iter().map(|line| plain(line.as_str().unwrap())).collect();
            expected.sort();
            if expected.is_empty() {
                continue;
            }
            let begun = Instant::now();
            // Those of the scenario before have not gone with their services.
            let v6 = expected[0].contains('[');
            let known = || known().into_iter().filter(|line| line.contains('[') == v6).collect::<Vec<_>>();
            while known() != expected {
                assert!(begun.elapsed() < PATIENCE, "{}: {:#?}\n{expected:#?}{}", step["what"], known(), link.logs());
                std::thread::sleep(Duration::from_millis(50));
            }
            compared += 1;
        }
    }
    assert!(compared > 2, "{compared}");

    // (Those that are closing go by themselves.)
    let established = || known().into_iter().filter(|line| line.contains("ESTABLISHED")).collect::<Vec<_>>();
    let before = (established(), resident(&link, "a"));
    let right = bytes(&all[0]["steps"][0]["datagrams"][0]);
    let namespace = Namespace::open(&link.namespace("c")).unwrap();
    let sent = namespace.run(|| {
        let socket = std::net::UdpSocket::bind("10.9.0.9:0").unwrap();
        let mut bad = Vec::new();
        let mut wrong = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut datagram = right.clone();
            change(&mut datagram);
            bad.push(datagram);
        };
        wrong(&|d| d[1] = 8); // another id
        wrong(&|d| d[3] += 1); // another length
        wrong(&|d| d.truncate(30));
        wrong(&|d| d[8] = 0x40); // a record of no family
        wrong(&|d| d[11] = 0xff); // longer than the datagram
        wrong(&|d| d[0] = 1);
        bad.push(Vec::new());
        bad.push(vec![0xff; 1400]);
        let (begun, mut sent) = (Instant::now(), 0u64);
        while begun.elapsed() < Duration::from_secs(2) {
            for datagram in &bad {
                sent += u64::from(socket.send_to(datagram, "10.9.0.1:8848").is_ok());
            }
        }
        sent
    });
    let sent = sent.unwrap();
    assert!(sent > 20_000, "{sent}");
    link.until("the director answers", || link.dirigent("a", &["status"]).is_some());
    assert_eq!(established(), before.0);
    let grown = resident(&link, "a").saturating_sub(before.1);
    assert!(grown < 32 << 10, "{sent} datagrams cost {grown} kB");
    let status: Value = serde_json::from_str(&link.dirigent("a", &["status", "--json"]).unwrap()).unwrap();
    let dropped = &status["synchronisation"]["dropped"];
    assert!(["sync_id", "size", "limit"].iter().any(|reason| dropped[reason].as_u64() > Some(100)), "{dropped}");
    // To a server that nobody has here.
    let received = status["synchronisation"]["received"].as_u64().unwrap();
    ipvsadm("-C");
    let mut another = right.clone();
    another[18] ^= 0x10; // the client's port in the first record
    send("b", &another);
    link.until("it is heard", || {
        let status: Value = serde_json::from_str(&link.dirigent("a", &["status", "--json"]).unwrap()).unwrap();
        let sync = &status["synchronisation"];
        sync["received"].as_u64() > Some(received) && sync["dropped"]["no_server"].as_u64() > Some(0)
    });
}

/// Little memory, and a quick start.
const SMALL: &str = "[director]\nconnections = 65536\n";

/// The virtual addresses on a server's loopback device, of which it tells nobody.
fn serve_directly(link: &Link) {
    link.sh(
        "d",
        &format!(
            "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2
             ip address add {VIP}/32 dev lo; ip address add {VIP6}/128 dev lo"
        ),
    );
}

/// Numbers that a client sends a service by UDP, one each millisecond, and those that came to a server.
struct Numbers {
    ended: Arc<AtomicBool>,
    sender: std::thread::JoinHandle<u64>,
    receiver: std::thread::JoinHandle<std::collections::BTreeSet<u64>>,
}

impl Numbers {
    fn start(link: &Link, to: SocketAddr) -> Self {
        let bound = |host: &str, at: &str| {
            Namespace::open(&link.namespace(host)).unwrap().run(|| UdpSocket::bind(at).unwrap()).unwrap()
        };
        let (from, at) = (bound("c", "0.0.0.0:0"), bound("d", &to.to_string()));
        from.connect(to).unwrap();
        at.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let stop = ended.clone();
        let sender = std::thread::spawn(move || {
            let mut sent = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                from.send(&sent.to_be_bytes()).unwrap();
                sent += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let receiver = std::thread::spawn(move || {
            let (mut got, mut number) = (std::collections::BTreeSet::new(), [0; 8]);
            // Until nothing comes any more.
            while at.recv(&mut number).is_ok() {
                got.insert(u64::from_be_bytes(number));
            }
            got
        });
        Self { ended, sender, receiver }
    }

    /// How many were sent, and which were lost.
    fn stop(self) -> (u64, Vec<u64>) {
        self.ended.store(true, Ordering::Relaxed);
        let (sent, got) = (self.sender.join().unwrap(), self.receiver.join().unwrap());
        (sent, (0..sent).filter(|number| !got.contains(number)).collect())
    }
}

/// A hand-over loses no packet; and whatever happens to a master's daemon, its clients' transfers go on, and two hosts answer
/// for an address for no longer than the protocol allows.
#[test]
fn transfers_survive_hand_overs_deaths_and_lost_adverts() {
    let link = Link::up();
    serve_directly(&link);
    let _servers = Servers::start(&link.namespace("d"), &[80]);
    let service = |protocol: &str, vip: &str, port: u16, server: &str, more: &str| {
        format!(
            "[[service]]\nprotocol = \"{protocol}\"\naddress = \"{vip}:{port}\"\n{more}\
             [[service.server]]\naddress = \"{server}:{port}\"\nmethod = \"dr\"\n"
        )
    };
    // Directors that do not tell each other of connections send them where their hash leads to.
    let stateless = "scheduler = \"mh\"\nstateless = true\n";
    let services = service("tcp", VIP, 80, "10.9.0.3", stateless)
        + &service("tcp", &format!("[{VIP6}]"), 80, "[fd09::3]", stateless)
        + &service("udp", VIP, 81, "10.9.0.3", "")
        + SMALL;
    link.director("a", &(routers(150, "") + &services));
    link.director("b", &(routers(100, "") + &services));
    link.until("a is master", || settled(&link, "a", "b"));
    let vips: Vec<IpAddr> = [VIP, VIP6].iter().map(|vip| vip.parse().unwrap()).collect();
    let targets = || vips.iter().map(|vip| Target { name: vip.to_string(), address: SocketAddr::new(*vip, 80) });
    let plan = Plan { transfers: 4, every: Duration::from_millis(20), patience: Duration::from_millis(900) };
    let own = Own { mac: [2, 0, 0, 0, 9, 8], v4: Ipv4Addr::new(10, 9, 0, 8), v6: "fd09::8".parse().unwrap() };
    let during = |what: &str, happens: &dyn Fn()| {
        let prober = Prober::start(&link.namespace("e"), own, vips.clone());
        let load = Load::start(&link.namespace("c"), targets().collect(), plan);
        std::thread::sleep(Duration::from_millis(300));
        happens();
        // Time for retransmissions, and for announcements that are late.
        std::thread::sleep(Duration::from_millis(500));
        let (outcomes, seen) = (load.stop(), prober.stop());
        let double = vips.iter().map(|vip| seen.longest_double(*vip)).max().unwrap();
        for Outcome { name, survived, broken, .. } in &outcomes {
            assert!(*survived == 4, "{what}, {name}: {broken:?}{}", link.logs());
        }
        let lost: usize = outcomes.iter().map(Outcome::lost).sum();
        eprintln!("{what}: {lost} requests lost, two answered for {double:?}");
        (lost, double)
    };
    // Counted from the last advert: a master is sure for 550 ms, and nobody takes over before 600 ms are over. What is left is
    // for a machine that has other things to do.
    let bound = Duration::from_millis(200);

    let handed_over = |what: &str, word: &str, master: &str, other: &str| {
        let numbers = Numbers::start(&link, SocketAddr::new(vips[0], 81));
        let (lost, double) = during(what, &|| {
            link.dirigent("a", &["failover", word]).unwrap();
            link.until(what, || settled(&link, master, other));
        });
        let (sent, missing) = numbers.stop();
        assert!(sent > 500 && missing.is_empty(), "{what}: of {sent} packets {missing:?} were lost{}", link.logs());
        assert!(lost == 0 && double < bound, "{what}: {lost} requests were lost, two for {double:?}{}", link.logs());
    };
    handed_over("a hand-over", "now", "b", "a");
    handed_over("taking it back", "back", "a", "b");

    let (lost, double) = during("a death", &|| {
        link.signal("a", "-9");
        link.until("b takes over", || settled_alone(&link, "b", "a"));
    });
    assert!(lost == 0 && double < bound, "a death: {lost} requests were lost, two for {double:?}{}", link.logs());
    let (_, double) = during("a return", &|| {
        link.director("a", &(routers(150, "") + &services));
        link.until("a is master again", || settled(&link, "a", "b"));
    });
    assert!(double < bound, "a return: two for {double:?}{}", link.logs());
    let (lost, double) = during("a hang", &|| {
        link.signal("a", "-STOP");
        link.until("b takes over from who hangs", || settled_alone(&link, "b", "a"));
        link.signal("a", "-CONT");
        link.until("a is master again", || settled(&link, "a", "b"));
    });
    assert!(lost == 0 && double < bound, "a hang: {lost} requests were lost, two for {double:?}{}", link.logs());

    // Of ten adverts three are lost: now and then the backup takes over, until it hears one.
    let lossy = "flush ruleset; table netdev lossy { chain in { type filter hook ingress device eth0 priority 0; \
                 ip protocol 112 numgen random mod 10 < 3 drop; ip6 nexthdr 112 numgen random mod 10 < 3 drop; }; }";
    let (_, double) = during("lost adverts", &|| {
        ["a", "b"].iter().for_each(|host| drop(link.sh(host, &format!("nft '{lossy}'"))));
        std::thread::sleep(Duration::from_secs(4));
        ["a", "b"].iter().for_each(|host| drop(link.sh(host, "nft flush ruleset")));
        link.until("a is master", || settled(&link, "a", "b"));
    });
    // Until one of its adverts gets through, or an answer to one of the backup's: eight intervals are one in thousands.
    assert!(double < Duration::from_millis(8 * 200), "lost adverts: two for {double:?}{}", link.logs());
}

/// As [`settled`], of which only one is asked: the other's daemon is dead, or hangs.
fn settled_alone(link: &Link, master: &str, dead: &str) -> bool {
    ["web", "web6"].iter().all(|r| link.state(master, r) == "master")
        && [VIP, VIP6].iter().all(|vip| link.holds(master, vip) && !link.holds(dead, vip))
}

/// Adverts of every version and family, with and without a password, are as tshark knows them.
#[test]
fn tshark_finds_nothing_wrong_with_adverts() {
    let link = Link::up();
    let router = |name: &str, vrid: u8, more: &str| {
        format!(
            "[[router]]\nname = \"{name}\"\ninterface = \"eth0\"\nvrid = {vrid}\nstate = \"master\"\npriority = 200\n{more}\n"
        )
    };
    let text = router("two", 1, "version = 2\naddresses = [\"10.9.0.101\"]")
        + &router(
            "password",
            2,
            "version = 2\naddresses = [\"10.9.0.102\", \"10.9.0.103\"]\n[router.authentication]\npassword = \"secret\"",
        )
        + &router("three", 3, "interval = \"200ms\"\naddresses = [\"10.9.0.104/24\", \"10.9.0.105/24\"]")
        + &router("six", 4, "interval = \"200ms\"\naddresses = [\"fe80::9:100/64\", \"fd09::104/64\"]")
        + &router("unicast", 5, "interval = \"200ms\"\npeers = [\"10.9.0.9\"]\naddresses = [\"10.9.0.106\"]");
    let file = link.directory.join("adverts.pcap");
    let mut capture = Command::new("tcpdump");
    capture.args(["-i", "eth0", "-U", "-w"]).arg(&file).args(["ip proto 112 or ip6 proto 112"]);
    link.start("c", &mut capture);
    link.until("tcpdump listens", || file.exists());
    link.director("a", &text);
    // Two of each second's, and the last ones: they say priority 0.
    std::thread::sleep(Duration::from_millis(1500));
    link.dirigent("a", &["stop", "--detach"]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    link.signal("c", "-TERM");
    let fields = ["vrrp.virt_rtr_id", "vrrp.version", "vrrp.prio", "vrrp.checksum.status", "_ws.expert.message"];
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-r"]).arg(&file).args(["-o", "ip.check_checksum:TRUE", "-T", "fields", "-E", "separator=;"]);
    let output = tshark.args(fields.iter().flat_map(|field| ["-e", field])).output().expect("tshark");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (vrid, version) in [(1, 2), (2, 2), (3, 3), (4, 3), (5, 3)] {
        for priority in [200, 0] {
            let wanted = format!("{vrid};{version};{priority};");
            assert!(said.lines().any(|line| line.starts_with(&wanted)), "{wanted}\n{said}{}", link.logs());
        }
    }
    for line in said.lines() {
        let words: Vec<_> = line.split(';').collect();
        // Status 1: it is right.
        assert!(words[3] == "1" && words[4].is_empty(), "{line}\n{said}");
    }
}

/// A frame with an advert that somebody made, sent to the group by 10.9.0.`last`.
fn forged(last: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![1, 0, 0x5e, 0, 0, 18, 2, 0, 0, 0, 9, 9, 8, 0];
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, ttl, 112, 0, 0, 10, 9, 0, last, 224, 0, 0, 18];
    header[2..4].copy_from_slice(&u16::try_from(20 + payload.len()).unwrap().to_be_bytes());
    let mut sum: u32 = header.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame.extend(header);
    frame.extend(payload);
    frame
}

/// What somebody on the link can say who does not know the password, and what may not be heeded whoever says it.
fn forgeries() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    // Many senders, of which each complaint would be another one.
    for last in 100..200 {
        let say = |vrid: u8, priority: u8, format: Format| {
            let (vip, second) =
                (if vrid == 60 { "10.9.0.60" } else { VIP }, Centis::new(if vrid == 60 { 100 } else { 20 }));
            let addresses = Addresses::V4(vec![vip.parse().unwrap()]);
            let advert = Advert { version: format.version(), vrid, priority, interval: second.unwrap(), addresses };
            packet::emit(&advert, Ipv4Addr::new(10, 9, 0, last).into(), Ipv4Addr::new(224, 0, 0, 18).into(), format)
        };
        let three = Format::V3Ipv4 { checksum_as_v2: false };
        let wrong_password = Format::V2 { auth: Auth::password(b"guessed").unwrap() };
        let master = say(51, 254, three).unwrap();
        let mut wrong_sum = master.clone();
        wrong_sum[6] ^= 1;
        let mut odd = master.clone();
        odd[3] = 200;
        frames.extend([
            forged(last, 254, &master),
            forged(last, 1, &say(51, 0, three).unwrap()),
            forged(last, 255, &wrong_sum),
            forged(last, 255, &odd),
            forged(last, 255, &master[..usize::from(last) % 8]),
            forged(last, 255, &say(77, 254, three).unwrap()),
            forged(last, 255, &say(60, 254, Format::V2 { auth: Auth::None }).unwrap()),
            forged(last, 255, &say(60, 254, wrong_password).unwrap()),
            forged(last, 255, &say(60, 0, wrong_password).unwrap()),
            forged(last, 255, &say(60, 254, three).unwrap()),
        ]);
    }
    frames
}

/// Whoever is on the link and sends forged adverts as fast as he can, and servers that never end their answers, change
/// nothing, and cost no memory to speak of.
#[test]
fn an_attacker_on_the_link_changes_nothing() {
    let link = Link::up();
    let endless = |port: u16, head: &str, rest: &str| {
        let mut server = Command::new("socat");
        server.arg(format!("TCP-LISTEN:{port},fork,reuseaddr")).arg(format!("SYSTEM:printf '{head}'; {rest}"));
        link.start("d", server.stderr(Stdio::null()));
    };
    endless(9001, r"HTTP/1.1 200 OK\r\n\r\n", "cat /dev/zero");
    endless(9002, r"HTTP/1.1 200 OK\r\n", "yes 'X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'");
    let checked = |port: u16| {
        format!(
            "[[service.server]]\naddress = \"10.9.0.3:{port}\"\n\
             check = [{{ type = \"http\", interval = \"200ms\", timeout = \"1s\", \
             request = [{{ path = \"/\", regex = \"never\" }}] }}]\n"
        )
    };
    let text = |priority: u8| {
        let secret = format!(
            "[[router]]\nname = \"secret\"\ninterface = \"eth0\"\nversion = 2\nvrid = 60\npriority = {priority}\n\
             interval = \"1s\"\naddresses = [\"10.9.0.60\"]\n[router.authentication]\npassword = \"unknown\"\n"
        );
        let service = "[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.1:80\"\n";
        routers(priority, "") + &secret + service + &checked(9001) + &checked(9002) + SMALL
    };
    link.director("a", &text(150));
    link.director("b", &text(100));
    let as_it_should_be =
        || settled(&link, "a", "b") && link.state("a", "secret") == "master" && link.state("b", "secret") == "backup";
    link.until("a is master of all", as_it_should_be);
    let resident = |host: &str| -> u64 {
        let children = link.children.lock().unwrap();
        let pid = children.iter().find(|(name, _)| name == host).unwrap().1.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let before = ["a", "b"].map(resident);
    let events = [Events::of(&link, "a"), Events::of(&link, "b")];
    let logged = ["a", "b"].map(|host| std::fs::metadata(link.log(host)).unwrap().len());
    let sent = Namespace::open(&link.namespace("c"))
        .unwrap()
        .run(|| {
            let ifindex = Netlink::route().unwrap().index_of("eth0").unwrap();
            let (socket, frames) = (PacketSocket::sender().unwrap(), forgeries());
            let (begun, mut sent) = (Instant::now(), 0_u64);
            while begun.elapsed() < Duration::from_secs(3) {
                for frame in &frames {
                    // A queue that is full is no failure.
                    sent += u64::from(socket.send(ifindex, frame).is_ok());
                }
            }
            sent
        })
        .unwrap();
    assert!(as_it_should_be(), "after {sent} forged adverts{}", link.logs());
    for (host, events) in ["a", "b"].iter().zip(&events) {
        assert!(!events.has("\"role\""), "{host}: {:?}{}", events.lines.lock().unwrap(), link.logs());
    }
    for (n, host) in ["a", "b"].into_iter().enumerate() {
        let grown = resident(host).saturating_sub(before[n]);
        let told = std::fs::metadata(link.log(host)).unwrap().len() - logged[n];
        eprintln!("{host}: {sent} forged adverts: {grown} KiB more memory, {told} bytes of log");
        assert!(grown < 16 << 10 && told < 16 << 10, "{host}: {grown} KiB more memory, {told} bytes of log");
    }
}
