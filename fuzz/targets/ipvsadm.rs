//! Lines as ipvsadm's arguments, applied one after the other: no panic, and each refusal
//! has words.
#![no_main]

use dirigent_config::{Command, Model};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut model = Model::default();
    for line in text.lines() {
        let refused = match Command::parse(line) {
            Ok(None) => continue,
            Ok(Some(command)) => command.apply(&mut model).err().map(|e| e.to_string()),
            Err(e) => Some(e.to_string()),
        };
        assert_ne!(refused.as_deref(), Some(""));
    }
});
