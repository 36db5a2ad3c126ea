//! The picture in docs/schedulers.md.

use dirigent_director::schedule::Scheduler;
use dirigent_testkit::spread;

/// It is what the command draws, from runs as they are now.
#[test]
fn the_picture_is_of_these_schedulers() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schedulers.svg");
    let there = std::fs::read_to_string(file).unwrap();
    assert!(there == spread::picture().unwrap(), "draw it again: make spread");
}

/// What it shows of some is what their rules promise.
#[test]
fn shares_are_those_of_the_weights_where_they_count() {
    let parts = |scheduler| spread::run(scheduler).unwrap().map(|n| n * 100 / spread::CONNECTIONS);
    assert_eq!(parts(Scheduler::Rr), [25, 25, 25, 25]);
    assert_eq!(parts(Scheduler::Wrr), [10, 20, 30, 40]);
    assert_eq!(parts(Scheduler::Fo), [0, 0, 0, 100]);
    let [_, _, third, heaviest] = parts(Scheduler::Ovf);
    assert!(third > 0 && heaviest > third);
}
