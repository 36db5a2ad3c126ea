//! Lines as ipvsadm's arguments, applied one after the other: no panic, each refusal has
//! words, and a rule that is written out is read as the same.
#![no_main]

use dirigent_config::ipvsadm::Invocation;
use dirigent_config::ipvsadm::names::Names;
use dirigent_config::{Command, Model, Protocol};
use libfuzzer_sys::fuzz_target;
use std::net::{IpAddr, Ipv4Addr};

/// Every name stands for something.
struct Anything;

impl Names for Anything {
    fn host(&self, name: &str) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::from_bits(name.len() as u32))
    }
    fn port(&self, name: &str, _: Protocol) -> Option<u16> {
        u16::try_from(name.len()).ok()
    }
    fn of_host(&self, _: IpAddr) -> Option<String> {
        None
    }
    fn of_port(&self, _: u16, _: Protocol) -> Option<String> {
        None
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut model = Model::default();
    for line in text.lines() {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let refused = match Invocation::from_args(&words, &Anything) {
            Ok(Invocation::Rule(command)) => {
                let text = command.to_string();
                assert_eq!(Command::parse(&text), Ok(Some(command.clone())), "{text}");
                command.apply(&mut model).err().map(|e| e.to_string())
            }
            Ok(_) => None,
            Err(e) => Some(e.to_string()),
        };
        assert_ne!(refused.as_deref(), Some(""));
    }
});
