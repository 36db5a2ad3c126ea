//! Any bytes into the codec of connection synchronisation and into its two state machines.
//!
//! The input is cut into datagrams: each begins with a byte of milliseconds that pass, a byte that says
//! which of four addresses it is from (bits 0 and 1) and whether its size is made right (bit 2), and two
//! bytes of length. Checked: no panic; records are written again as they were read; what is kept stays
//! within its bound.
#![no_main]

use dirigent_sync::Record;
use dirigent_sync::extension::{self, Seen};
use dirigent_sync::machine::{
    Backup, BackupAction, BackupConfig, Identity, Master, MasterAction, MasterConfig, Page, Whose,
};
use dirigent_sync::message::{Datagram, MAX_BYTES, Packer};
use libfuzzer_sys::fuzz_target;
use std::net::SocketAddr;

fuzz_target!(|data: &[u8]| {
    let here = Identity { node: 2, boot: 5, epoch: 5 };
    let config =
        BackupConfig { hold_datagrams: 16, hold_bytes: 4096, queue_datagrams: 16, ..BackupConfig::new(here, 7) };
    let bound = config.peers * config.hold_bytes + 32 * 65536;
    let mut backup = Backup::new(config);
    let mut master = Master::new(MasterConfig::new(here, 7), 0);
    let (mut rest, mut now) = (data, 0);
    while let [ms, how, a, b, more @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*a, *b])).min(more.len());
        let (bytes, after) = more.split_at(length);
        rest = after;
        now += u64::from(*ms);
        let mut datagram = bytes.to_vec();
        if how & 4 != 0 && datagram.len() >= 4 {
            let size = (datagram.len() as u16).to_be_bytes();
            datagram[2..4].copy_from_slice(&size);
        }
        read(&datagram);
        let from = SocketAddr::from(([10, 0, 0, how & 3], 8848));
        let _ = master.on_datagram(now, from, &datagram);
        let _ = backup.on_datagram(now, from, &datagram);
        master.poll(now);
        backup.poll(now);
        assert!(backup.kept_bytes() <= bound);
        // Odd ones are taken from, others have to wait.
        for _ in 0..how & 8 {
            if let Some(BackupAction::Apply { record, origin, .. }) = backup.next_action() {
                master.send(now, Whose::Learned(origin), &record);
            }
            if let Some(MasterAction::Iterate { cursor, .. }) = master.next_action() {
                master.page(now, cursor, Page::default());
            }
        }
    }
});

fn read(bytes: &[u8]) {
    let Ok(datagram) = Datagram::parse(bytes) else { return };
    let records: Vec<Record> = datagram.records().filter_map(Result::ok).collect();
    let mut packer = Packer::new(7, MAX_BYTES, 0);
    let mut again: Vec<_> = records.iter().filter_map(|r| packer.push(0, r)).collect();
    again.extend(packer.flush());
    let read: Vec<Record> = again
        .iter()
        .flat_map(|d| Datagram::parse(d).expect("its own").records())
        .map(|r| r.expect("its own"))
        .collect();
    for (read, record) in read.iter().zip(&records) {
        let mut record = record.clone();
        // Internal to a kernel, and not sent.
        record.flags.0 &= !dirigent_sync::Flags::HASHED;
        assert_eq!(*read, record);
    }
    assert_eq!(read.len(), records.len());
    match extension::parse(bytes, None) {
        Ok(Seen::Message(stamp, body)) => {
            let again = extension::emit(datagram.sync_id(), &stamp, &body, None);
            assert_eq!(extension::parse(&again, None), Ok(Seen::Message(stamp, body)));
        }
        Ok(Seen::Records(_)) => assert!(datagram.trailer().is_some()),
        Ok(Seen::Plain) | Err(_) => {}
    }
}
