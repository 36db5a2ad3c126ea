//! Packets as a capture: pcapng (draft-ietf-opsawg-pcapng), each as it came and as it left, with why as its comment.

use crate::explain::verdict;
use crate::failure::{Failure, Result};
use dirigent_api::Traced;
use pcap_file::DataLink;
use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes that are kept of a packet: [`dirigent_director::trace::KEPT`].
const KEPT: u32 = dirigent_director::trace::KEPT as u32;
/// What is told of an interface that packets to this host's own stack go by.
const STACK: &str = "this host";
/// `epb_flags`, bits 0 and 1: which way a packet went.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// `if_tsresol`: nanoseconds.
const NANOSECONDS: u8 = 9;

/// A file of packets.
pub struct Capture {
    path: PathBuf,
    writer: PcapNgWriter<BufWriter<File>>,
    interfaces: Vec<String>,
}

impl Capture {
    /// A new one; what was there is overwritten.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|e| Failure::io(path.display().to_string(), &e))?;
        let failed = |e: pcap_file::PcapError| Failure::new(path.display().to_string(), e.to_string(), "");
        let writer = PcapNgWriter::new(BufWriter::new(file)).map_err(failed)?;
        Ok(Self { path: path.to_owned(), writer, interfaces: Vec::new() })
    }

    /// A packet: as it came, and as it left if it did. It is in the file when this returns.
    pub fn write(&mut self, packet: &Traced) -> Result<()> {
        let Some(captured) = &packet.captured else { return Ok(()) };
        let life = &packet.life;
        let comment = std::iter::once(format!("in by {} ({})", life.interface, life.path));
        let comment = comment.chain(life.steps.iter().cloned()).chain([verdict(life)]).collect::<Vec<_>>().join("\n");
        self.add(&life.interface, INBOUND, packet.time_us, (&captured.came, packet.bytes), comment)?;
        if let Some(sent) = life.sent.first() {
            let (out, comment) = match sent.interface.as_str() {
                "" => (STACK, format!("to this host's own stack: {}", verdict(life))),
                out => (out, format!("out of {out}: {}", verdict(life))),
            };
            self.add(out, OUTBOUND, packet.time_us, (&captured.left, captured.left_bytes), comment)?;
        }
        self.writer.get_mut().flush().map_err(|e| Failure::io(self.path.display().to_string(), &e))
    }

    fn add(&mut self, interface: &str, way: u32, time_us: u64, packet: (&str, u32), comment: String) -> Result<()> {
        let failed = |e: pcap_file::PcapError| Failure::new(self.path.display().to_string(), e.to_string(), "");
        let number = match self.interfaces.iter().position(|name| name == interface) {
            Some(number) => number,
            None => {
                let options = vec![
                    InterfaceDescriptionOption::IfName(interface.to_owned().into()),
                    InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
                ];
                let block = InterfaceDescriptionBlock { linktype: DataLink::ETHERNET, snaplen: KEPT, options };
                self.writer.write_pcapng_block(block).map_err(failed)?;
                self.interfaces.push(interface.to_owned());
                self.interfaces.len() - 1
            }
        };
        let (data, original_len) = packet;
        let block = EnhancedPacketBlock {
            interface_id: u32::try_from(number).unwrap_or(u32::MAX),
            timestamp: Duration::from_micros(time_us),
            original_len,
            data: bytes(data).into(),
            options: vec![EnhancedPacketOption::Comment(comment.into()), EnhancedPacketOption::Flags(way)],
        };
        self.writer.write_pcapng_block(block).map(|_| ()).map_err(failed)
    }
}

/// Out of hexadecimal.
fn bytes(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks_exact(2).filter_map(|pair| std::str::from_utf8(pair).ok());
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}
