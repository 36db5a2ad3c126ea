//! keepalived.conf: no panic; what is wrong is told in words, and what is translated is a configuration.
#![no_main]

use dirigent_config::file;
use dirigent_config::import::{Loader, keepalived};
use libfuzzer_sys::fuzz_target;

struct NoFiles;

impl Loader for NoFiles {
    fn load(&self, _: &str, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("there is no such file".into())
    }
    fn environment(&self, _: &str) -> Option<String> {
        None
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let found = keepalived("f", text, "host", &NoFiles);
    assert!(found.faults.iter().all(|fault| fault.line > 0 && !fault.message.is_empty() && !fault.remedy.is_empty()));
    assert!(found.refused.iter().all(|one| !one.reason.is_empty()));
    let printed = file::to_toml(&found.model);
    assert_eq!(file::parse("printed.toml", &printed).as_ref(), Ok(&found.model), "printed as\n{printed}");
});
