//! The kernel's tables, as the daemon writes them.

use super::network::LinkFacts;
use crate::failure::{Failure, Result};
use dirigent_config::{Model, Plan};
use dirigent_datapath::kernel::{Instance, Kernel};
use dirigent_net::NextHop;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub struct Tables;

impl Tables {
    pub fn open(_: &Instance, _: &Kernel) -> Result<Self> {
        Err(Failure::new("", "not yet", ""))
    }
    pub fn begin(&mut self, _: &Model) -> Result<()> {
        Ok(())
    }
    pub fn apply(&mut self, _: &Plan, _: &mut Model) -> Result<()> {
        Ok(())
    }
    pub fn set_hop(&mut self, _: IpAddr, _: &NextHop) -> Result<()> {
        Ok(())
    }
    pub fn set_local(&mut self, _: BTreeSet<IpAddr>) -> Result<()> {
        Ok(())
    }
    pub fn set_links(&mut self, _: BTreeMap<u32, LinkFacts>) -> Result<()> {
        Ok(())
    }
    pub fn sweep(&mut self, _: &Kernel) -> Result<()> {
        Ok(())
    }
}
