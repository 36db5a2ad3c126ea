//! A service as the API takes it: no panic; what is accepted is written as what says the same.
#![no_main]

use dirigent_config::file::json;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(object) = serde_json::from_slice::<json::Object>(data) else { return };
    match json::read(&object) {
        Ok(service) => {
            let written = json::write(&service);
            assert_eq!(json::read(&written).as_ref(), Ok(&service), "{written:?}");
        }
        Err(problems) => assert!(problems.iter().all(|problem| !problem.what.is_empty())),
    }
});
