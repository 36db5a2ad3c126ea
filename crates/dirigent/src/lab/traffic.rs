//! How a lab's requests were distributed, and the bytes on each side of its director.

use crate::ask::Target;
use crate::failure::Result;
use crate::print;
use dirigent_net::lab::Lab;

/// Prints both.
pub async fn run(lab: &Lab) -> Result<()> {
    let stats = Target::new(Some(lab.name().to_owned()), None).stats().await?;
    for service in stats.services.iter().filter(|service| service.counters.connections > 0) {
        let total = service.counters.connections;
        println!("{}: {total} connections", service.name());
        for server in &service.servers {
            let c = server.counters;
            let share = c.connections as f64 * 100.0 / total as f64;
            // A line fits 100 columns, with any address.
            let bar = "#".repeat((share / 10.0).round() as usize);
            println!(
                "  {:<22} weight {:<2} {:>7} connections {share:>5.1} % {:>9} in {:>9} out {bar}",
                server.address,
                server.weight,
                c.connections,
                print::bytes(c.in_bytes),
                print::bytes(c.out_bytes),
            );
        }
    }
    println!();
    let (clients, servers) = lab.spec().director_interfaces();
    let sides = if clients == servers {
        vec![("both sides", clients)]
    } else {
        vec![("clients", clients), ("servers", servers)]
    };
    for (side, interface) in sides {
        let counter = |name: &str| -> Result<u64> {
            let file = format!("/sys/class/net/{interface}/statistics/{name}");
            let output = lab.output("director", &["cat", &file])?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0))
        };
        let (rx, tx) = (print::bytes(counter("rx_bytes")?), print::bytes(counter("tx_bytes")?));
        println!("director {interface:<5} (towards {side}): {rx} received, {tx} sent");
    }
    Ok(())
}
