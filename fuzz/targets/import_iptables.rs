//! iptables' rules: no panic, and what is translated is a configuration.
#![no_main]

use dirigent_config::import::{Family, iptables};
use dirigent_config::{file, mark};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let imported = iptables(text, Family::V4);
    assert!(imported.refused.iter().all(|refused| !refused.reason.is_empty()));
    if imported.rules.len() <= mark::MAX_MARK_RULES {
        let printed = format!("version = 1\n{}", file::marks_to_toml(&imported.rules));
        let model = file::parse("f", &printed);
        assert_eq!(model.as_ref().map(|model| model.marks()), Ok(&imported.rules[..]), "{printed}");
    }
});
