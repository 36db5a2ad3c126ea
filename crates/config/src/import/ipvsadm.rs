//! Saved tables and scripts of ipvsadm, as dirigent.toml.

use super::Refused;
use crate::check;
use crate::error::IpvsError;
use crate::ipvsadm::names::Names;
use crate::ipvsadm::{Command, Invocation};
use crate::model::Model;

/// A Model out of rules, and the lines that no part of it came of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// What the rules make.
    pub model: Model,
    /// The others, in the order of the text.
    pub refused: Vec<Refused>,
}

/// Reads rules, a line each, with or without `ipvsadm` in front; comments (`#`) and blank lines mean nothing.
pub fn ipvsadm(text: &str, names: &dyn Names) -> Table {
    let mut table = Table::default();
    for (number, line) in text.lines().enumerate() {
        let rule = line.trim();
        let mut words: Vec<&str> = rule.split_ascii_whitespace().collect();
        if words.first().is_some_and(|word| word.rsplit('/').next() == Some("ipvsadm")) {
            words.remove(0);
        }
        if words.first().is_none_or(|word| word.starts_with('#')) {
            continue;
        }
        let refuse = |reason: String| Refused { place: format!("line {}", number + 1), rule: rule.to_owned(), reason };
        if let Err(reason) = table.take(&words, names) {
            table.refused.push(refuse(reason));
        }
    }
    table
}

impl Table {
    fn take(&mut self, words: &[&str], names: &dyn Names) -> Result<(), String> {
        let invocation = Invocation::from_args(words, names).map_err(|e| e.message.trim_end().to_owned())?;
        let Invocation::Rule(command) = invocation else {
            return Err("it changes nothing that could be configured".into());
        };
        if let Command::AddService(rule) = &command
            && let Some(address) = rule.service.address()
            && !check::unicast(address)
        {
            return Err(format!("{address} is no unicast address, which a virtual service needs"));
        }
        command.apply(&mut self.model).map_err(|error| match &error {
            // What the kernel would say is no help here; what is wrong is.
            IpvsError::Invalid(why) | IpvsError::OutOfRange(why) => format!("{why}; {}", why.remedy()),
            other => other.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{parse, to_toml};
    use crate::ipvsadm::names::NoNames;

    #[test]
    fn a_saved_table_and_a_script() {
        let text = "\
# saved by ipvsadm-save
-A -t 192.0.2.10:80 -s wrr -p 300
-a -t 192.0.2.10:80 -r 10.0.0.2:8080 -m -w 3

/sbin/ipvsadm -a -t 192.0.2.10:80 -r 10.0.0.3:8080 -m -x 10 -y 20
ipvsadm -a -t 192.0.2.11:80 -r 10.0.0.3:80 -m
ipvsadm -A -t 224.0.0.1:80 -s rr
ipvsadm -L -n
ipvsadm -A -t 192.0.2.12 -s rr
--set 100 0 0
-A -f 7 -s nosuch
";
        let Table { model, refused } = ipvsadm(text, &NoNames);
        let again = parse("f", &to_toml(&model)).unwrap();
        assert_eq!(again, model);
        let [service] = model.services() else { panic!("{model:?}") };
        let servers: Vec<_> = service.servers.iter().map(|s| (s.name(), s.weight)).collect();
        assert_eq!(
            (service.key.to_string().as_str(), servers),
            ("tcp 192.0.2.10:80", vec![("10.0.0.2:8080".into(), 3)])
        );
        assert_eq!(model.settings().timeouts.tcp.established.as_secs(), 100);
        let told: Vec<_> = refused.iter().map(|r| (r.place.as_str(), r.reason.as_str())).collect();
        assert_eq!(told.len(), 6, "{told:?}");
        assert_eq!(told[1], ("line 6", "Service not defined"));
        assert_eq!(told[2], ("line 7", "224.0.0.1 is no unicast address, which a virtual service needs"));
        assert_eq!(told[3], ("line 8", "it changes nothing that could be configured"));
        assert_eq!(told[4], ("line 9", "Zero port specified for non-persistent service"));
        assert_eq!(told[5], ("line 11", "Scheduler or persistence engine not found"));
        assert!(
            told[0].0 == "line 5" && told[0].1.starts_with("the lower threshold 20 is above the upper one, 10; "),
            "{told:?}"
        );
    }

    proptest::proptest! {
        /// Whatever a director's table is, saving and importing it gives it back, without what ipvsadm does not know.
        #[test]
        fn any_model_of_ipvs_comes_back(model in crate::testing::model()) {
            let mut bare = Model::default();
            let mut text = String::new();
            for service in model.services() {
                let mut service = service.clone();
                (service.stateless, service.quic, service.slow_start) = (false, false, None);
                service.table_size = None;
                service.sources = Default::default();
                service.vip = crate::VipPolicy::Operator;
                service.health = Default::default();
                for server in &mut service.servers {
                    (server.server_id, server.health) = (None, Default::default());
                }
                if service.key.address().is_some_and(|ip| !check::unicast(ip)) {
                    continue;
                }
                let rule = crate::ipvsadm::ServiceRule {
                    service: service.key, scheduler: service.scheduler.name().into(), scheduler_flags: service.scheduler_flags,
                    one_packet: service.one_packet, persistence: service.persistence, engine: None,
                };
                text += &format!("{}\n", Command::AddService(rule));
                for server in &service.servers {
                    let rule = crate::ipvsadm::ServerRule { service: service.key, server: server.clone() };
                    text += &format!("ipvsadm {}\n", Command::AddServer(rule));
                }
                bare.put_service(service).unwrap();
            }
            let table = ipvsadm(&text, &NoNames);
            proptest::prop_assert_eq!(table.refused, vec![]);
            proptest::prop_assert_eq!(table.model, bare);
        }
    }
}
