//! The files of `oracle/golden/sched`: what clients and servers do, which server got each
//! connection, and every server's load after each step.

use std::fmt;
use std::net::IpAddr;

use dirigent_config::{Model, Protocol, import};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::executor::Row;
use super::setup::{self, NoSetup};

/// A recording.
#[derive(Debug, Deserialize)]
pub struct Script {
    /// Its name.
    pub name: String,
    /// Of the clients' packets: `tcp`, `udp`, `sctp`.
    pub proto: String,
    /// `ipvsadm ARGS`; and what else was run, behind `# `.
    pub setup: Vec<String>,
    /// What happened, in order.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Deserialize)]
pub struct Step {
    /// What is done.
    #[serde(flatten)]
    pub op: Op,
    /// What it is about.
    #[serde(default)]
    pub note: String,
    /// The servers after it.
    pub load: Option<Loads>,
}

/// What is done.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// A client's first packet.
    Open {
        /// Number of the connection: the next one.
        id: usize,
        /// The client.
        src: IpAddr,
        /// Its port.
        sport: u16,
        /// To whom, if not to the service.
        dst: Option<IpAddr>,
        /// The port there.
        dport: Option<u16>,
        /// TCP flags, if not SYN.
        flags: Option<u8>,
        /// Data.
        payload: Option<String>,
        /// Where it went: `rsN`, `icmp T/C`, `rst`, or nowhere.
        to: Option<String>,
    },
    /// Another packet of the client.
    Packet {
        /// The connection.
        id: usize,
        /// TCP flags.
        flags: u8,
        /// Where it went.
        to: Option<String>,
    },
    /// SYN and ACK of the server, ACK of the client.
    Establish {
        /// The connection.
        id: usize,
    },
    /// FIN of the client, FIN of the server, ACK of the client.
    Fin {
        /// The connection.
        id: usize,
    },
    /// FIN of the client alone.
    FinFromClient {
        /// The connection.
        id: usize,
    },
    /// RST of the client.
    Rst {
        /// The connection.
        id: usize,
    },
    /// A change by ipvsadm.
    Ipvsadm {
        /// Its arguments.
        args: String,
        /// Its status, if not 0.
        #[serde(default)]
        rc: u8,
    },
    /// A change of a kernel parameter.
    Sysctl {
        /// Its name.
        name: String,
        /// Its value.
        value: i64,
    },
    /// Nothing, for so long.
    Sleep {
        /// Seconds.
        seconds: f64,
    },
    /// Rows of the connection table.
    Table {
        /// The rows.
        conns: Vec<Row>,
    },
}

/// Servers by name, as their list has them: (weight, active, inactive), once for each
/// service that they are in. Those are sorted: which service comes first is chance in IPVS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loads(pub Vec<(String, Vec<[u32; 3]>)>);

impl Loads {
    /// Adds one.
    pub fn add(&mut self, name: String, counts: [u32; 3]) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, all)) => {
                all.push(counts);
                all.sort_unstable();
            }
            None => self.0.push((name, vec![counts])),
        }
    }
}

impl fmt::Display for Loads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no servers");
        }
        for (i, (name, all)) in self.0.iter().enumerate() {
            let all: Vec<String> = all.iter().map(|[w, a, i]| format!("weight {w} active {a} inactive {i}")).collect();
            write!(f, "{}{name} {}", if i > 0 { ", " } else { "" }, all.join(" and "))?;
        }
        Ok(())
    }
}

/// By hand, because the order counts and a map would lose it.
impl<'de> Deserialize<'de> for Loads {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Counts {
            One([u32; 3]),
            Several(Vec<[u32; 3]>),
        }
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Loads;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("servers by name")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Loads, M::Error> {
                let mut loads = Loads::default();
                while let Some((name, counts)) = map.next_entry()? {
                    loads.0.push((
                        name,
                        match counts {
                            Counts::One(one) => vec![one],
                            Counts::Several(mut all) => {
                                all.sort_unstable();
                                all
                            }
                        },
                    ));
                }
                Ok(loads)
            }
        }
        from.deserialize_map(InOrder)
    }
}

impl Script {
    /// The protocol of the clients' packets.
    pub fn protocol(&self) -> Result<Protocol, NoSetup> {
        let found = Protocol::of_name(&self.proto);
        found.ok_or_else(|| NoSetup::Wrong(format!("not understood: protocol {}", self.proto)))
    }
    /// The Model of the set-up.
    pub fn model(&self) -> Result<Model, NoSetup> {
        let (other, ipvsadm): (Vec<&str>, Vec<&str>) =
            self.setup.iter().map(String::as_str).partition(|line| line.starts_with('#'));
        let mut sysctls = Vec::new();
        let mut marks = String::new();
        for line in other.iter().filter_map(|line| line.strip_prefix("# ")) {
            let parameter = line.strip_prefix("sysctl ").and_then(|words| words.split_once('='));
            let parameter = parameter.and_then(|(name, value)| Some((name, value.parse().ok()?)));
            match (parameter, line.split(' ').next()) {
                (Some(parameter), _) => sysctls.push(parameter),
                (None, Some("iptables" | "ip6tables")) => marks += &format!("{line}\n"),
                (None, Some("ip")) => {}
                _ => return Err(NoSetup::Wrong(format!("not understood: {line}"))),
            }
        }
        let mut model = setup::model(sysctls.into_iter(), ipvsadm.into_iter())?;
        let imported = import::iptables(&marks, import::Family::V4);
        if let Some(refused) = imported.refused.first() {
            return Err(NoSetup::Wrong(format!("not understood: {refused}")));
        }
        model.set_marks(imported.rules).map_err(|e| NoSetup::Wrong(e.to_string()))?;
        Ok(model)
    }

    /// Routes and rules of the set-up, as arguments of `ip`.
    pub fn routes(&self) -> Vec<String> {
        self.setup.iter().filter_map(|line| line.strip_prefix("# ip ")).map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_servers_is_kept() {
        let text = r#"{"op": "rst", "id": 3, "load": {"rs3": [1, 2, 0], "rs1": [[1, 0, 0], [2, 5, 7]]}}"#;
        let step: Step = serde_json::from_str(text).unwrap();
        assert_eq!(
            step.load.unwrap().to_string(),
            "rs3 weight 1 active 2 inactive 0, rs1 weight 1 active 0 inactive 0 and weight 2 active 5 inactive 7"
        );
        assert!(serde_json::from_str::<Step>(r#"{"op": "dance"}"#).is_err());
    }
}
