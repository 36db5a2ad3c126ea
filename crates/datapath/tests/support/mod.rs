//! What several of these test programs need.

/// Runs a test in a fresh namespace, on a thread of its own: it goes away with the thread, also when the test is killed.
pub fn in_namespace(test: impl FnOnce() + Send) {
    // SAFETY: no arguments, no memory.
    assert_eq!(unsafe { libc::geteuid() }, 0, "this test needs root; `make test` says how");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: changes the namespace of this new thread, which shares nothing that depends on it.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", std::io::Error::last_os_error());
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A segment from 198.51.100.7 to 198.18.0.1, or the same in IPv6 (2001:db8:7::7, 2001:db8:1::1), with these ports and flags.
pub fn segment(v6: bool, [sport, dport]: [u16; 2], flags: u8) -> Vec<u8> {
    let tcp = [0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
        for last in [7, 1] {
            frame.extend([0x20, 1, 0xd, 0xb8, 0, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
    } else {
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0, 198, 51, 100, 7, 198, 18, 0, 1]);
        let check = !dirigent_wire::checksum::sum_bytes(&frame[14..34]);
        frame[24..26].copy_from_slice(&check.to_ne_bytes());
    }
    [frame, sport.to_be_bytes().to_vec(), dport.to_be_bytes().to_vec(), tcp.to_vec()].concat()
}
