//! A small sample of `make bench-scale`. Needs root and two CPUs.

mod common;

use common::BIN;
use dirigent_testkit::scale::{Options, daemon};

/// All is measured, and what changes little takes no longer than what changes all; with some room for a busy machine.
#[test]
fn a_daemon_with_many_services_is_measured() {
    let options = Options { dirigent: BIN.into(), services: 200, servers: 20 };
    let scale = daemon::run(&options, &mut |_, _, _| ()).unwrap();
    assert_eq!(scale.rows.len(), 12, "{:#?}", scale.rows);
    assert!(scale.rows.iter().all(|row| row.value > 0.0), "{:#?}", scale.rows);
    let of = |what: &str| scale.value(what).unwrap();
    let (one, all) = (of("reload with one server's weight changed"), of("reload with every server's weight changed"));
    assert!(one < all * 3.0 + 1.0, "{:#?}", scale.rows);
    assert!(scale.table().contains("200 services with 20 servers each, 4000 in all"));
}
