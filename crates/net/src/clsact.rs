//! The place where classic tc filters hang (`tc qdisc … clsact`), on kernels before tcx (6.6).

use crate::error::{Result, libc};
use crate::nl::codec::{Attributes, Message, read_str, read_u32};
use crate::nl::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, Netlink, absent};

const TCA_KIND: u16 = 1;
/// Its parent and its handle (linux/pkt_sched.h).
const TC_H_CLSACT: u32 = 0xffff_fff1;
const HANDLE: u32 = 0xffff_0000;
/// The parents of filters on ingress and egress.
const DIRECTIONS: [u32; 2] = [0xffff_fff2, 0xffff_fff3];

/// `struct tcmsg`: family, interface, handle, parent, info.
fn header(ifindex: u32, handle: u32, parent: u32) -> [u8; 20] {
    let mut header = [0; 20];
    for (slot, value) in header.chunks_exact_mut(4).skip(1).zip([ifindex, handle, parent]) {
        slot.copy_from_slice(&value.to_ne_bytes());
    }
    header
}

impl Netlink {
    /// Whether an interface has it.
    pub fn has_clsact(&mut self, ifindex: u32) -> Result<bool> {
        let place = "listing the queueing disciplines";
        let parse = |body: &[u8]| {
            let (of, handle) = (read_u32(body, 4)?, read_u32(body, 8)?);
            let kind = Attributes::after(body, 20).find(|(kind, _)| *kind == TCA_KIND).map(|(_, v)| read_str(v))?;
            (of == ifindex && handle == HANDLE && kind == "clsact").then_some(())
        };
        Ok(!self.dump(libc::RTM_GETQDISC, &header(0, 0, 0), libc::RTM_NEWQDISC, place, parse)?.is_empty())
    }

    /// Removes it if no filter hangs there. False when it was not there, or not empty.
    pub fn delete_empty_clsact(&mut self, ifindex: u32) -> Result<bool> {
        if !self.has_clsact(ifindex)? {
            return Ok(false);
        }
        for parent in DIRECTIONS {
            let place = || format!("listing the tc filters of interface number {ifindex}");
            let message = Message::new(libc::RTM_GETTFILTER, NLM_F_REQUEST | NLM_F_DUMP, &header(ifindex, 0, parent));
            if !self.request(message, &place)?.is_empty() {
                return Ok(false);
            }
        }
        let message =
            Message::new(libc::RTM_DELQDISC, NLM_F_REQUEST | NLM_F_ACK, &header(ifindex, HANDLE, TC_H_CLSACT))
                .attr_str(TCA_KIND, "clsact");
        let place = || format!("removing clsact from interface number {ifindex}");
        Ok(absent(self.ask(message, &place))?.is_some())
    }
}
