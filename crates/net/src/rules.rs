//! Rules that choose a routing table: by the source address (`ip rule add from ADDR lookup TABLE`), which are made here,
//! and all others as far as it matters which tables packets are routed by.

use crate::error::{Result, libc};
use crate::nl::codec::{Attributes, Message, read_ip, read_u32};
use crate::nl::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, Netlink, absent, family_of};
use std::net::IpAddr;

const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_OIFNAME: u16 = 17;
const FRA_UID_RANGE: u16 = 20;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_DPORT_RANGE: u16 = 24;
/// What else a rule may choose by.
const CHOICES: [u16; 7] =
    [FRA_IIFNAME, FRA_FWMARK, FRA_OIFNAME, FRA_UID_RANGE, FRA_IP_PROTO, FRA_SPORT_RANGE, FRA_DPORT_RANGE];
const FIB_RULE_INVERT: u32 = 2;
const FR_ACT_TO_TBL: u8 = 1;

/// Packets from one address are routed by a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceRule {
    /// Whose packets.
    pub from: IpAddr,
    /// The table.
    pub table: u32,
    /// When it is asked; lower goes first.
    pub priority: u32,
}

/// Packets of a family are routed by a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRule {
    /// The family.
    pub ipv6: bool,
    /// The table.
    pub table: u32,
    /// Not all packets: by firewall mark, interface, address or the like.
    pub some: bool,
    /// Only packets that come in by an interface.
    pub by_interface: bool,
}

impl std::fmt::Display for SourceRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rule {}: from {} lookup {}", self.priority, self.from, self.table)
    }
}

impl SourceRule {
    fn message(&self, kind: u16, flags: u16) -> Message {
        let length = if self.from.is_ipv4() { 32 } else { 128 };
        // A table that does not fit here stands in the attribute alone.
        let table = u8::try_from(self.table).unwrap_or(0);
        // struct fib_rule_hdr: family, prefix lengths of destination and source, tos, table, two unused, action, flags.
        let header = [family_of(self.from), 0, length, 0, table, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
        Message::new(kind, flags, &header)
            .attr_ip(FRA_SRC, self.from)
            .attr_u32(FRA_PRIORITY, self.priority)
            .attr_u32(FRA_TABLE, self.table)
    }
}

impl Netlink {
    /// The rules that choose by one source address and nothing else.
    pub fn source_rules(&mut self) -> Result<Vec<SourceRule>> {
        self.dump(libc::RTM_GETRULE, &[0; 12], libc::RTM_NEWRULE, "listing the routing rules", parse_rule)
    }

    /// All rules that lead to a table.
    pub fn table_rules(&mut self) -> Result<Vec<TableRule>> {
        self.dump(libc::RTM_GETRULE, &[0; 12], libc::RTM_NEWRULE, "listing the routing rules", parse_table_rule)
    }

    /// Adds a rule. False when it was there already.
    pub fn add_rule(&mut self, rule: &SourceRule) -> Result<bool> {
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        match self.ask(rule.message(libc::RTM_NEWRULE, flags), &|| format!("adding the {rule}")) {
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Removes a rule. False when it was not there.
    pub fn delete_rule(&mut self, rule: &SourceRule) -> Result<bool> {
        let message = rule.message(libc::RTM_DELRULE, NLM_F_REQUEST | NLM_F_ACK);
        Ok(absent(self.ask(message, &|| format!("removing the {rule}")))?.is_some())
    }
}

fn parse_rule(body: &[u8]) -> Option<SourceRule> {
    let (to, from, action) = (*body.get(1)?, *body.get(2)?, *body.get(7)?);
    let find = |wanted| Attributes::after(body, 12).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let source = find(FRA_SRC).and_then(read_ip)?;
    let whole = if source.is_ipv4() { 32 } else { 128 };
    let chooses = CHOICES.iter().any(|choice| find(*choice).is_some());
    let plain = to == 0 && body.get(3) == Some(&0) && read_u32(body, 8)? & FIB_RULE_INVERT == 0 && !chooses;
    (plain && from == whole && action == FR_ACT_TO_TBL).then_some(())?;
    Some(SourceRule {
        from: source,
        table: find(FRA_TABLE).and_then(|v| read_u32(v, 0))?,
        priority: find(FRA_PRIORITY).and_then(|v| read_u32(v, 0)).unwrap_or(0),
    })
}

fn parse_table_rule(body: &[u8]) -> Option<TableRule> {
    let find = |wanted| Attributes::after(body, 12).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let ipv6 = match i32::from(*body.first()?) {
        libc::AF_INET => false,
        libc::AF_INET6 => true,
        _ => return None,
    };
    let table = find(FRA_TABLE).and_then(|v| read_u32(v, 0)).filter(|_| body.get(7) == Some(&FR_ACT_TO_TBL))?;
    let (to, from, tos) = (*body.get(1)?, *body.get(2)?, *body.get(3)?);
    let chooses = CHOICES.iter().any(|choice| find(*choice).is_some());
    let some = chooses || (to, from, tos) != (0, 0, 0) || read_u32(body, 8)? & FIB_RULE_INVERT != 0;
    Some(TableRule { ipv6, table, some, by_interface: find(FRA_IIFNAME).is_some() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule_of(table: u32) -> SourceRule {
        SourceRule { from: "192.0.2.10".parse().unwrap(), table, priority: 1 }
    }

    #[test]
    fn rules_are_read_as_they_are_written() {
        for from in ["192.0.2.10", "2001:db8::10"] {
            for table in [100, 70_000] {
                let rule = SourceRule { from: from.parse().unwrap(), table, priority: 20_000 };
                let bytes = rule.message(libc::RTM_NEWRULE, 0).finish(1);
                assert_eq!(parse_rule(&bytes[16..]), Some(rule));
            }
        }
        let marked = rule_of(100).message(libc::RTM_NEWRULE, 0).attr_u32(FRA_FWMARK, 7).finish(1);
        assert_eq!(parse_rule(&marked[16..]), None, "it chooses by more");
        let table_rule = |bytes: &[u8]| parse_table_rule(&bytes[16..]);
        let read = |table, some| Some(TableRule { ipv6: false, table, some, by_interface: false });
        assert_eq!(table_rule(&marked), read(100, true));
        let by_interface = rule_of(100).message(libc::RTM_NEWRULE, 0).attr_str(FRA_IIFNAME, "c0").finish(1);
        assert!(table_rule(&by_interface).unwrap().by_interface);
        let from = rule_of(70_000).message(libc::RTM_NEWRULE, 0).finish(1);
        assert_eq!(table_rule(&from), read(70_000, true));
        let mut all = from.clone();
        all[18] = 0;
        assert_eq!(table_rule(&all), read(70_000, false));
        all[24] = FIB_RULE_INVERT as u8;
        assert_eq!(table_rule(&all), read(70_000, true));
        // A network, and a rule that says no table.
        let mut bytes = rule_of(100).message(libc::RTM_NEWRULE, 0).finish(1);
        bytes[18] = 24;
        assert_eq!(parse_rule(&bytes[16..]), None);
        (bytes[18], bytes[23]) = (32, 7);
        assert_eq!(parse_rule(&bytes[16..]), None);
    }
}
