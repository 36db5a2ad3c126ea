//! What packets of a configuration need stages of their own for.

use dirigent_config::{Method, Model, Protocol, Service, ServiceKey};
use dirigent_director::ftp;

use crate::kernel::Features;

/// Those of all services, and of synchronisation: other directors' connections may be of any kind.
#[must_use]
pub fn features(model: &Model) -> Features {
    if model.failover().synchronised().is_some() {
        return Features::ALL;
    }
    let icmp = if model.settings().schedule_icmp { Features::ICMP } else { Features::NONE };
    model.services().iter().fold(icmp, |all, service| all | of_service(service))
}

fn of_service(service: &Service) -> Features {
    let mut features = Features::NONE;
    let mut wanted = |feature, is: bool| {
        if is {
            features |= feature;
        }
    };
    wanted(Features::SCTP, matches!(service.key.protocol(), None | Some(Protocol::Sctp)));
    wanted(Features::FTP, may_be_ftp(&service.key));
    wanted(Features::ONE_PACKET, service.one_packet);
    wanted(Features::PERSISTENCE, service.persistence.is_some());
    let mut methods = service.servers.iter().map(|s| s.method).chain(service.health.sorry.as_ref().map(|s| s.method));
    wanted(Features::TUNNELS, methods.any(|method| matches!(method, Method::Tun(_))));
    features
}

/// Whether a control connection of FTP's may be of this service. Marks are given to packets of any protocol, and to any port.
pub(super) fn may_be_ftp(key: &ServiceKey) -> bool {
    match key.protocol() {
        None => true,
        Some(protocol) => protocol == Protocol::Tcp && matches!(key.port(), 0 | ftp::CONTROL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rules: &[&str]) -> Features {
        let mut model = Model::default();
        for rule in rules {
            dirigent_config::Command::parse(rule).unwrap().unwrap().apply(&mut model).unwrap();
        }
        features(&model)
    }

    #[test]
    fn each_kind_of_service_has_the_stages_that_its_packets_come_to() {
        for (rules, wanted) in [
            (&["-A -t 192.0.2.1:80 -s rr", "-a -t 192.0.2.1:80 -r 10.0.0.1 -m"][..], Features::NONE),
            (&["-A -u 192.0.2.1:21 -s rr", "-a -u 192.0.2.1:21 -r 10.0.0.1 -g"], Features::NONE),
            (&["-A -t 192.0.2.1:21"], Features::FTP),
            (&["-A -t 192.0.2.1:0 -p 60"], Features::FTP | Features::PERSISTENCE),
            (&["-A --sctp-service [2001:db8::1]:80"], Features::SCTP),
            (&["-A -f 7"], Features::FTP | Features::SCTP),
            (&["-A -u 192.0.2.1:53 -o"], Features::ONE_PACKET),
            (&["-A -t 192.0.2.1:80", "-a -t 192.0.2.1:80 -r 10.0.0.1 -i"], Features::TUNNELS),
        ] {
            assert_eq!(of(rules), wanted, "{rules:?}");
        }
    }

    #[test]
    fn a_sorry_server_a_setting_and_other_directors_count() {
        let read =
            |text: &str| features(&dirigent_config::file::parse("test.toml", &format!("version = 1\n{text}")).unwrap());
        let service = "[[service]]\naddress = \"192.0.2.1:80\"\nprotocol = \"tcp\"\n";
        assert_eq!(read(service), Features::NONE);
        let sorry = format!("{service}[service.health.sorry]\naddress = \"10.0.0.9\"\nmethod = \"tun\"\n");
        assert_eq!(read(&sorry), Features::TUNNELS);
        assert_eq!(read(&format!("[director]\nschedule_icmp = true\n{service}")), Features::ICMP);
        assert_eq!(read(&format!("[sync]\ninterface = \"lo\"\n{service}")), Features::ALL);
    }
}
