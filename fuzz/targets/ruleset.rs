//! A host's rules, as `nft -j list ruleset` and `iptables-save` print them: no panic, and each warning has words.
#![no_main]

use dirigent_config::{file, ruleset};
use libfuzzer_sys::fuzz_target;

const MODEL: &str = "version = 1\n[[service]]\nprotocol = \"tcp\"\naddress = \"192.0.2.10:80\"\n[[service]]\nprotocol = \"udp\"\n\
                     address = \"[2001:db8::10]:53\"\n";

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(model) = file::parse("f", MODEL) else { return };
    let both = [false, true].map(|without| ruleset::nft(text, without).unwrap_or_default());
    for rules in both.into_iter().chain([ruleset::iptables("iptables", text)]) {
        for problem in rules.warnings(&model) {
            assert!(!problem.place.is_empty() && !problem.what.is_empty() && !problem.remedy.is_empty());
        }
    }
});
