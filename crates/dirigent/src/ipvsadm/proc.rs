//! `dirigent proc` and `dirigent sysctl`: what IPVS's files below /proc say, of this director.

use crate::ask::Target;
use crate::failure::{Failure, Result};
use crate::print;
use dirigent_api::ConnectionsOf;
use dirigent_config::ipvsadm::proc;

/// Prints a file of /proc/net.
pub async fn show(target: &Target, name: &str) -> Result<()> {
    let short = name.trim_start_matches("/proc/net/");
    let text = match short {
        "ip_vs" => {
            let size = target.status().await?.connections.connections;
            proc::table(&target.services().await?, size)
        }
        "ip_vs_conn" => proc::connections(&target.connections(&ConnectionsOf::EVERY).await?.connections),
        "ip_vs_stats" => proc::stats(&target.stats().await?),
        "ip_vs_stats_percpu" => proc::stats_by_cpu(&target.stats().await?),
        "ip_vs_app" => {
            proc::apps(&target.services().await?, &target.connections(&ConnectionsOf::EVERY).await?.connections)
        }
        _ => {
            let remedy = "there are ip_vs, ip_vs_app, ip_vs_conn, ip_vs_stats and ip_vs_stats_percpu";
            return Err(Failure::new(name, "IPVS has no such file in /proc/net", remedy));
        }
    };
    print::text(&text)
}

/// Prints one of IPVS's sysctls, or all.
pub async fn sysctl(target: &Target, name: Option<&str>, json: bool) -> Result<()> {
    let all = target.configuration(false).await?.sysctl;
    let Some(name) = name else {
        if json {
            return print::json(&all);
        }
        return print::text(&all.iter().map(|(name, is)| format!("net.ipv4.vs.{name} = {is}\n")).collect::<String>());
    };
    let short = name.trim_start_matches("/proc/sys/").trim_start_matches("net").replace('/', ".");
    let short = short.trim_start_matches(".ipv4.vs.");
    let Some(value) = all.get(short) else {
        let names = all.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(Failure::new(name, "IPVS has no such sysctl", format!("there are {names}")));
    };
    if json { print::json(value) } else { print::text(&format!("net.ipv4.vs.{short} = {value}\n")) }
}
