//! FTP through a NAT service, with real programs: vsftpd on the servers, curl on the client.
//! Active and passive, by all four ways of asking for data. Needs root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use common::{TestLab, checksum};
use std::process::{Child, Command};

/// The ways of a client of IPv4, as curl's options. With the second curl connects to the
/// address that the answer names.
const WAYS4: [(&str, &[&str]); 4] = [
    ("EPSV", &["--ftp-pasv"]),
    ("PASV", &["--ftp-pasv", "--disable-epsv", "--no-ftp-skip-pasv-ip"]),
    ("EPRT", &["--ftp-port", "-"]),
    ("PORT", &["--ftp-port", "-", "--disable-eprt"]),
];
/// Of IPv6.
const WAYS6: [(&str, &[&str]); 2] = [("EPSV", &["--ftp-pasv"]), ("EPRT", &["--ftp-port", "-"])];

/// FTP servers on the lab's servers, until they are dropped.
struct Servers(Vec<Child>);

impl Servers {
    fn start(lab: &TestLab) -> Self {
        let root = lab.file("ftp");
        for directory in ["in", "empty"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        let path = root.display();
        assert!(Command::new("chmod").args(["777", &format!("{path}/in")]).status().unwrap().success());
        let mut programs = Vec::new();
        for host in ["server1", "server2"] {
            for (family, listen) in [(4, "listen=YES\nlisten_ipv6=NO"), (6, "listen=NO\nlisten_ipv6=YES")] {
                let address = match (host, family) {
                    ("server1", 4) => "listen_address=10.0.0.2",
                    (_, 4) => "listen_address=10.0.0.3",
                    ("server1", _) => "listen_address6=fd00::2",
                    _ => "listen_address6=fd00::3",
                };
                let file = root.with_file_name(format!("vsftpd-{host}-{family}.conf"));
                let text = format!(
                    "{listen}\n{address}\nbackground=NO\nanonymous_enable=YES\nlocal_enable=NO\nno_anon_password=YES\n\
                     anon_root={path}\nftp_username=daemon\nnopriv_user=nobody\nsecure_chroot_dir={path}/empty\n\
                     write_enable=YES\nanon_upload_enable=YES\nanon_umask=000\nconnect_from_port_20=YES\n\
                     xferlog_enable=NO\nseccomp_sandbox=NO\nftpd_banner={host}\n"
                );
                std::fs::write(&file, text).unwrap();
                programs.push(lab.start(host, &["vsftpd", file.to_str().unwrap()]));
            }
            let listens = "test $(ss -Hltn 'sport = 21' | wc -l) = 2";
            lab.sh(host, &format!("for i in $(seq 100); do {listens} && exit; sleep 0.1; done; exit 1"));
        }
        Self(programs)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for program in &mut self.0 {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

fn files_come_and_go(path: &[&str]) {
    let lab = TestLab::up(&[&["--servers", "2"], path].concat());
    let servers = Servers::start(&lab);
    let mut text = lab.config();
    for (vip, servers) in [("192.0.2.10", ["10.0.0.2", "10.0.0.3"]), ("[2001:db8::10]", ["[fd00::2]", "[fd00::3]"])] {
        text.push_str(&format!(
            "\n[[service]]\nprotocol = \"tcp\"\naddress = \"{vip}:21\"\nvip = \"manage\"\nscheduler = \"rr\"\n"
        ));
        for server in servers {
            text.push_str(&format!("\n[[service.server]]\naddress = \"{server}:21\"\n"));
        }
    }
    lab.write_config(&text);
    lab.dirigent(&["reload"]);
    let wanted = lab.publish("file", 3 << 20);
    std::fs::copy(lab.file("www").join("file"), lab.file("ftp").join("file")).unwrap();
    let source = lab.file("www").join("file");
    let mut n = 0;
    for (vip, ways) in [("192.0.2.10", &WAYS4[..]), ("[2001:db8::10]", &WAYS6[..])] {
        // Twice, so that each server has each way.
        for (way, options) in ways.iter().chain(ways) {
            let curl = ["curl", "-sS", "-g", "--max-time", "20"];
            let (from, to) = (format!("ftp://{vip}/file"), lab.file("got"));
            let get = [&curl[..], options, &["-o", to.to_str().unwrap(), &from]].concat();
            lab.on("client", &get);
            assert_eq!(checksum(&to), wanted, "{way} from {vip}");
            n += 1;
            let into = format!("ftp://{vip}/in/{n}");
            lab.on("client", &[&curl[..], options, &["-T", source.to_str().unwrap(), &into]].concat());
            assert_eq!(checksum(&lab.file("ftp").join(format!("in/{n}"))), wanted, "{way} to {vip}");
        }
    }
    for reason in ["ftp_no_room", "ftp_data", "reply_key_taken", "rewrite_failed", "raced"] {
        assert_eq!(lab.count(reason), 0, "{reason}");
    }
    drop(servers);
}

#[test]
fn files_come_and_go_on_tc() {
    files_come_and_go(&["--path", "tc"]);
}

#[test]
fn files_come_and_go_on_xdp() {
    files_come_and_go(&["--path", "xdp", "--no-offloads"]);
}
