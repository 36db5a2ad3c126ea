//! The files of a lab: the daemon's configuration, and nginx's on each server.

use crate::failure::{Failure, Result};
use crate::frame::GUE_PORT;
use dirigent_config::{Mode, Settings};
use dirigent_net::lab::{DIRECTORY, Family, LabSpec, Mode as Method, spec};
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

/// A lab's configuration.
pub struct Config {
    /// The file's content.
    pub text: String,
    /// Where it has the packet path run.
    pub mode: Mode,
}

/// What packets to servers are inside of, in mode tun.
#[derive(Clone, Copy)]
pub struct Tunnel<'a> {
    /// `ipip`, `gre` or `gue`.
    pub kind: &'a str,
    /// Address family of the servers' addresses; `None`: each service's own.
    pub family: Option<Family>,
}

/// The lab's configuration: the given file's, or one for web and UDP echo in both families. The packet path is that of
/// the command line, if it names one.
pub fn config(spec: &LabSpec, given: Option<&Path>, path: Option<Mode>, tunnel: Tunnel<'_>) -> Result<Config> {
    let Some(file) = given else {
        let mode = path.unwrap_or_default();
        return Ok(Config { text: made(spec, mode, tunnel), mode });
    };
    let text = fs::read_to_string(file).map_err(|e| Failure::io(file.display().to_string(), &e))?;
    let mut model = dirigent_config::file::parse(&file.display().to_string(), &text)?;
    let said = model.settings().mode;
    let mode = path.unwrap_or(said);
    if mode == said {
        return Ok(Config { text, mode });
    }
    let settings = Settings { mode, ..model.settings().clone() };
    model.set_settings(settings).map_err(|e| Failure::new("--path", e.to_string(), ""))?;
    Ok(Config { text: dirigent_config::file::to_toml(&model), mode })
}

fn made(lab: &LabSpec, mode: Mode, tunnel: Tunnel<'_>) -> String {
    let mode = mode.name();
    let mut out = format!("# Made by `dirigent lab up`.\nversion = 1\n\n[director]\nmode = \"{mode}\"\n");
    for (vip, _) in spec::VIP.both() {
        let method = match lab.mode {
            Method::Dr => "method = \"dr\"\n".to_owned(),
            Method::Tun if tunnel.kind == "gue" => {
                format!("method = \"tun\"\ntunnel = \"gue\"\ntunnel_port = {GUE_PORT}\n")
            }
            Method::Tun => format!("method = \"tun\"\ntunnel = \"{}\"\n", tunnel.kind),
            _ => String::new(),
        };
        let own = if vip.is_ipv4() { Family::V4 } else { Family::V6 };
        // Only a tunnel leads from one family to the other.
        let family = tunnel.family.filter(|_| lab.mode == Method::Tun).unwrap_or(own);
        // Only NAT maps ports.
        let web = if lab.mode == Method::Nat { 8080 } else { 80 };
        for (protocol, port, server_port) in [("tcp", 80, web), ("udp", 7, 7)] {
            let vip = host(vip);
            let _ = write!(
                out,
                "\n[[service]]\nprotocol = \"{protocol}\"\naddress = \"{vip}:{port}\"\nscheduler = \"rr\"\nvip = \"manage\"\n"
            );
            for k in 1..=lab.servers {
                let server = host(spec::server(k).of(family));
                let _ = write!(out, "\n[[service.server]]\naddress = \"{server}:{server_port}\"\n{method}");
            }
        }
    }
    out
}

/// An address as URLs and `address:port` want it: IPv6 in brackets.
pub fn host(ip: IpAddr) -> String {
    if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
}

/// Writes a file of the lab, which goes with it.
pub fn write(lab: &str, file: &str, text: &str) -> Result<String> {
    let path = Path::new(DIRECTORY).join(lab).join(file);
    let fail = |e| Failure::io(path.display().to_string(), &e);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(fail)?;
    }
    fs::write(&path, text).map_err(fail)?;
    Ok(path.to_string_lossy().into_owned())
}

/// nginx's configuration: `/` answers with the server's name, anything else comes from the lab's `www`.
pub fn nginx(lab: &str, server: &str) -> Result<String> {
    let base = Path::new(DIRECTORY).join(lab);
    let www = base.join("www");
    fs::create_dir_all(&www).map_err(|e| Failure::io(www.display().to_string(), &e))?;
    let scratch = base.join(format!("{server}-nginx"));
    fs::create_dir_all(&scratch).map_err(|e| Failure::io(scratch.display().to_string(), &e))?;
    let (www, scratch) = (www.display(), scratch.display());
    let text = format!(
        "daemon off;\nmaster_process off;\npid {scratch}/pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  keepalive_requests 1000000;\n\
         \x20 client_body_temp_path {scratch}/body;\n  proxy_temp_path {scratch}/proxy;\n\
         \x20 fastcgi_temp_path {scratch}/fastcgi;\n  uwsgi_temp_path {scratch}/uwsgi;\n  scgi_temp_path {scratch}/scgi;\n\
         \x20 default_type text/plain;\n  server {{\n    listen 8080 backlog=4096;\n    listen [::]:8080 ipv6only=on backlog=4096;\n\
         \x20   listen 80 backlog=4096;\n    listen [::]:80 ipv6only=on backlog=4096;\n\
         \x20   location = / {{ return 200 \"{server}\\n\"; }}\n    location / {{ root {www}; }}\n  }}\n}}\n"
    );
    write(lab, &format!("{server}-nginx.conf"), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Tunnel<'_> = Tunnel { kind: "ipip", family: None };

    #[test]
    fn a_tunnel_leads_to_servers_of_the_family_asked_for() {
        for (mode, family, six) in [
            (Method::Tun, Some(Family::V6), 4),
            (Method::Tun, Some(Family::V4), 0),
            (Method::Tun, None, 2),
            (Method::Dr, Some(Family::V6), 2),
        ] {
            let lab = LabSpec { servers: 1, mode, ..LabSpec::default() };
            let text = config(&lab, None, None, Tunnel { kind: "gue", family }).unwrap().text;
            dirigent_config::file::parse("made", &text).unwrap();
            assert_eq!(text.matches("[fd00::2]").count(), six, "{text}");
        }
    }

    #[test]
    fn the_made_configuration_is_valid_and_serves_both_families() {
        for servers in [1, 3, 250] {
            let lab = LabSpec { servers, ..LabSpec::default() };
            let config = config(&lab, None, Some(Mode::Tc), PLAIN).unwrap();
            let model = dirigent_config::file::parse("made", &config.text).unwrap();
            assert_eq!((config.mode, model.settings().mode), (Mode::Tc, Mode::Tc));
            assert_eq!(model.services().len(), 4);
            assert!(model.services().iter().all(|s| s.servers.len() == usize::from(servers)));
        }
    }

    #[test]
    fn the_path_of_the_command_line_wins_over_the_files() {
        let file = std::env::temp_dir().join(format!("dirigent-lab-files-{}.toml", std::process::id()));
        let text = "# Mine.\nversion = 1\n[director]\nmode = \"tc\"\ninstance = \"x\"\n";
        fs::write(&file, text).unwrap();
        let of = |path| config(&LabSpec::default(), Some(&file), path, PLAIN).unwrap();
        let [plain, same, other] = [of(None), of(Some(Mode::Tc)), of(Some(Mode::Xdp))];
        fs::remove_file(&file).unwrap();
        assert_eq!((plain.text.as_str(), plain.mode), (text, Mode::Tc), "as it stands, with its comments");
        assert_eq!((same.text.as_str(), same.mode), (text, Mode::Tc));
        let model = dirigent_config::file::parse("other", &other.text).unwrap();
        assert_eq!(
            (other.mode, model.settings().mode, model.settings().instance.as_str()),
            (Mode::Xdp, Mode::Xdp, "x")
        );
    }
}
