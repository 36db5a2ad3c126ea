//! Text as dirigent.toml: no panic; what is accepted prints as a file that says the same.
#![no_main]

use dirigent_config::file;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match file::parse("dirigent.toml", text) {
        Ok(model) => {
            let printed = file::to_toml(&model);
            let again = file::parse("printed.toml", &printed);
            assert_eq!(again.as_ref().ok(), Some(&model), "printed as\n{printed}\nwhich gives {again:?}");
        }
        // Every objection has words, and all of them print.
        Err(found) => assert!(!found.to_string().is_empty()),
    }
});
